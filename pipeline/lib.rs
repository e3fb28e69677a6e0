//! The pipeline of a node: which stages run, which queues connect them, and the runtime that drives them.
//!
//! Invariant: every thread and every queue of the node is declared in one topology, and the picture of it is rendered from what was wired.

pub mod evidence;
pub mod frames;
pub mod messages;
pub mod peers;
pub mod runtime;
mod shares;
pub mod stages;
pub mod topology;
pub mod transfer;
