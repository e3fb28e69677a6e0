//! From raw transactions to verified ones, and from ordered ones to an executed block.
//!
//! - [`signatures`]: batches of signatures behind one interface.
//! - [`executor`]: transactions in, block, writes and roots out.
//!
//! Invariant: both are functions of their input; neither knows the pool, the database or the network.

pub mod executor;
pub mod signatures;

pub use executor::{BlockExecutor, BlockOrder, ExecutedBlock, TransactionRunner};
pub use signatures::{ParallelVerifier, SerialVerifier, SignatureVerifier};
