//! Access layer: how transactions come in, how blocks are executed, and how committed blocks are kept and found.
//!
//! - [`blockchain`]: one group's committed blocks.

pub mod blockchain;
