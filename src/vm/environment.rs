//! What a transaction sees of the block it is in.

use millrace_base::B256;
use millrace_core::StorageError;

/// The block around a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockEnvironment {
    /// Height of the block being executed; for a `call` the head's.
    pub number: u64,
    /// Its timestamp, milliseconds: what `block.timestamp` gives.
    pub timestamp_ms: u64,
    /// `tx_gas_limit` as it governs this block.
    pub tx_gas_limit: u64,
}

/// Hashes of committed blocks, for the BLOCKHASH opcode.
pub trait BlockHashes: Send + Sync {
    /// Hash of a committed height, `None` when there is no such block.
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError>;
}
