//! Administration layer: how a group agrees on its blocks. Pure state machines: (state, input, now) to effects.
//!
//! Invariant: nothing here sees a socket, a file, a thread, a clock or the pool, so the simulator runs exactly this code.

pub mod digest;
pub mod engine;
pub mod epoch;
mod finality;
pub mod pbft;
#[cfg(feature = "planted")]
pub mod planted;
pub mod raft;
pub mod sealer;
pub mod sync;

pub use engine::{Effect, Engine, Input, Proposal};
pub use epoch::{Epoch, Faults};
