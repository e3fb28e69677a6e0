//! The channel protocol of 2.x SDKs over TLS (`spec/client-protocol.md` 3 to 5).
//!
//! Pure parts, tested without sockets: [`frame`], [`version`], [`session`], [`topics`], [`receipts`], [`events`], [`amop`],
//! [`access`]. [`hub`] joins them with the node, [`transport`] with sockets, [`tls`] says who may
//! connect. [`server`] is what a node starts, and says how.

pub mod access;
pub mod amop;
pub mod events;
pub mod frame;
pub mod hub;
pub mod receipts;
pub mod server;
pub mod session;
mod styled;
pub mod tls;
pub mod topics;
pub mod transport;
pub mod version;

pub use server::{ChannelConfig, ChannelServer};
