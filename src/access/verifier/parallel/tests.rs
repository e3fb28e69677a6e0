//! Parallel execution against serial execution.
//!
//! - `model`: the smallest shared parts under loom, in every order of their steps.
//! - `machine`: random programs on a few keys of a machine that delays, fails and panics, which reach orders that contracts hardly do.
//! - `contracts`: random transactions of real contracts.

use std::sync::Arc;

use millrace_base::{B256, NodeId, VerifiedTx};
use millrace_core::overlay::Writes;
use millrace_core::{StateCommitment, StateKind, StateReader, StorageError};
use millrace_vm::BlockHashes;

use crate::verifier::executor::{BlockExecutor, BlockOrder, ExecutedBlock, TransactionRunner};

mod contracts;
mod machine;
mod model;

struct NoHashes;

impl BlockHashes for NoHashes {
    fn block_hash(&self, _: u64) -> Result<Option<B256>, StorageError> {
        Ok(None)
    }
}

fn execute<R: TransactionRunner + Send>(
    executor: &mut BlockExecutor<R>,
    number: u64,
    state: &Arc<dyn StateReader + Send + Sync>,
    transactions: &[VerifiedTx],
) -> Result<ExecutedBlock, StorageError> {
    executor.execute(BlockOrder {
        parent_hash: B256::ZERO,
        number,
        timestamp_ms: 1_700_000_000_000 + number,
        tx_gas_limit: 10_000_000,
        sealer: 0,
        sealer_list: vec![NodeId([1; 64])],
        transactions: transactions.to_vec(),
        state: Arc::clone(state),
        commitment: &StateCommitment::empty(StateKind::Storage),
        hashes: &NoHashes,
    })
}

fn assert_same(serial: &ExecutedBlock, parallel: &ExecutedBlock, what: &str) {
    for (index, (left, right)) in serial.block.receipts.iter().zip(&parallel.block.receipts).enumerate() {
        assert_eq!(left, right, "receipt {index} differs: {what}");
    }
    let differing = |(left, right): &(&_, &_)| left != right;
    let (left, right): (&Writes, &Writes) = (&serial.writes, &parallel.writes);
    assert_eq!(left.iter().zip(right).find(differing), None, "writes differ: {what}");
    assert_eq!(left.len(), right.len(), "number of writes: {what}");
    assert_eq!(serial.commitment.state_root(), parallel.commitment.state_root(), "{what}");
    assert_eq!(serial.block.header, parallel.block.header, "{what}");
    assert_eq!(serial.block.hash, parallel.block.hash, "{what}");
}
