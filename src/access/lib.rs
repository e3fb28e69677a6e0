//! Access layer: how transactions come in, how blocks are executed, and how committed blocks are kept and found.
//!
//! - [`txpool`]: one group's transactions between admission and commit.
//! - [`verifier`]: batches of signatures; execution of ordered transactions into a block.
//! - [`blockchain`]: one group's committed blocks.
//!
//! Invariant: what stands in a block was checked once by the pool's rules and its sender recovered once; what stands in the database was
//! written by one batch a block.

pub mod blockchain;
pub mod txpool;
pub mod verifier;

pub use blockchain::{BlockChain, ChainHead, Commit, Totals};
pub use txpool::{PoolConfig, PoolCounters, Submitter, TxPool, Verdict};
pub use verifier::{BlockExecutor, BlockOrder, Crew, ExecutedBlock, ParallelVerifier, SerialVerifier, SignatureVerifier};

#[cfg(test)]
mod tests;
