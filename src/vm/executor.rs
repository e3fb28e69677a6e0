//! (under construction by its owner)
use millrace_base::{Address, Bytes, Receipt, U256, VerifiedTx};
use millrace_core::overlay::Writes;
use millrace_core::{StateReader, StorageError};

use crate::environment::{BlockEnvironment, BlockHashes};
use crate::schedule::EvmRules;

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// Its receipt; the state root is filled in when the block is complete.
    pub receipt: Receipt,
    /// What it changed, sorted by key.
    pub writes: Writes,
}

/// A read-only call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallMessage {
    /// Seen as sender and origin.
    pub from: Address,
    /// The callee.
    pub to: Address,
    /// Call data.
    pub data: Bytes,
    /// Visible to the callee.
    pub value: U256,
}

/// What a call gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallResult {
    /// A [`millrace_base::TransactionStatus`] code.
    pub status: u32,
    /// Return or revert data.
    pub output: Bytes,
}

/// Runs transactions of one group, one after the other; reused, since building an EVM costs a microsecond. One a thread.
pub struct Executor;

impl Executor {
    /// With the rules of the group.
    pub fn new(_rules: EvmRules) -> Self {
        unimplemented!()
    }

    /// Executes a transaction. A failed transaction is a result, not an error.
    pub fn transact(
        &mut self,
        _state: &dyn StateReader,
        _hashes: &dyn BlockHashes,
        _environment: &BlockEnvironment,
        _transaction: &VerifiedTx,
    ) -> Result<Executed, StorageError> {
        unimplemented!()
    }

    /// Executes a call and throws its writes away.
    pub fn call(
        &mut self,
        _state: &dyn StateReader,
        _hashes: &dyn BlockHashes,
        _environment: &BlockEnvironment,
        _message: &CallMessage,
    ) -> Result<CallResult, StorageError> {
        unimplemented!()
    }
}
