//! The stages of the node, in the order a transaction meets them.

pub mod check;
pub mod commit;
pub mod execute;
pub mod notify;
pub mod order;
pub mod sync;
pub mod verify;
