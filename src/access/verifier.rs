//! From raw transactions to verified ones, and from ordered ones to an executed block.
//!
//! - [`signatures`]: batches of signatures behind one interface.
//! - [`executor`]: transactions in, block, writes and roots out; serially or by [`parallel`], as [`policy`] expects a gain, with the help
//!   of a [`crew`].
//!
//! Invariant: all are functions of their input; neither knows the pool, the database or the network.

pub mod crew;
pub mod executor;
mod parallel;
pub mod policy;
mod roots;
pub mod signatures;

pub use crew::{Crew, CrewError, CrewTotals};
pub use executor::{BlockExecutor, BlockOrder, ExecutedBlock, TransactionRunner};
pub use policy::Mode;
pub use signatures::{ParallelVerifier, SerialVerifier, SignatureVerifier};
