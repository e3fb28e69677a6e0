//! The channel protocol of 2.x SDKs over TLS (`spec/client-protocol.md` 3 to 5).
//!
//! Pure parts, tested without sockets: [`frame`], [`version`], [`session`], [`topics`], [`receipts`], [`events`], [`amop`], [`quota`].

pub mod amop;
pub mod events;
pub mod frame;
pub mod quota;
pub mod receipts;
pub mod session;
mod styled;
pub mod topics;
pub mod version;
