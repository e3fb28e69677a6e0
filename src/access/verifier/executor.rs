//! Executes the transactions of one block, in order, and builds the block from what they did.
//!
//! Invariant: the result is a function of the order alone (parent, height, timestamp, gas limit, transactions, state): every node that
//! executes the same order on the same state gets the same hash. This serial form is the oracle for parallel ones, which come behind the
//! same interface. Called by the execute stage in height order, with the state as the block before left it.

use std::sync::Arc;

use millrace_base::{B256, Block, BlockHeader, NodeId, Receipt, VerifiedTx, merkle};
use millrace_core::overlay::{BlockState, Writes};
use millrace_core::trie::TrieNodes;
use millrace_core::{StateCommitment, StateReader, StorageError};
use millrace_vm::{BlockEnvironment, BlockHashes, EvmRules, Executed, Executor};

/// What is to be executed: an ordered proposal and where it stands.
pub struct BlockOrder<'a> {
    /// Hash of the block before.
    pub parent_hash: B256,
    /// Height.
    pub number: u64,
    /// The proposal's timestamp, above the parent's.
    pub timestamp_ms: u64,
    /// `tx_gas_limit` as it governs this block.
    pub tx_gas_limit: u64,
    /// Index of the proposer in `sealer_list`.
    pub sealer: u64,
    /// Sealers that govern this block, sorted.
    pub sealer_list: Vec<NodeId>,
    /// In execution order.
    pub transactions: Vec<VerifiedTx>,
    /// State after the block before.
    pub state: Arc<dyn StateReader + Send + Sync>,
    /// Commitment to that state.
    pub commitment: &'a StateCommitment,
    /// Hashes of earlier blocks, for the BLOCKHASH opcode.
    pub hashes: &'a dyn BlockHashes,
}

/// A block and its effects.
pub struct ExecutedBlock {
    /// Complete but for the signatures.
    pub block: Block,
    /// What it changed, each key once, sorted.
    pub writes: Writes,
    /// Trie nodes it adds, sorted by hash; none with storage state.
    pub nodes: TrieNodes,
    /// Commitment to the state after it.
    pub commitment: StateCommitment,
}

/// Runs one transaction over a state. [`Executor`] does; tests bring simpler ones.
pub trait TransactionRunner {
    /// Receipt (without state root) and writes of the transaction. A failed transaction is a result; only storage makes an error.
    fn transact(
        &mut self,
        state: &dyn StateReader,
        hashes: &dyn BlockHashes,
        environment: &BlockEnvironment,
        transaction: &VerifiedTx,
    ) -> Result<Executed, StorageError>;
}

impl TransactionRunner for Executor {
    fn transact(
        &mut self,
        state: &dyn StateReader,
        hashes: &dyn BlockHashes,
        environment: &BlockEnvironment,
        transaction: &VerifiedTx,
    ) -> Result<Executed, StorageError> {
        Executor::transact(self, state, hashes, environment, transaction)
    }
}

/// See the module. One a thread; reused from block to block.
pub struct BlockExecutor<R = Executor> {
    runner: R,
}

impl BlockExecutor {
    /// With the rules of the group.
    pub fn new(rules: EvmRules) -> Self {
        Self::with_runner(Executor::new(rules))
    }
}

impl<R: TransactionRunner> BlockExecutor<R> {
    /// Over another machine than the group's EVM.
    pub fn with_runner(runner: R) -> Self {
        Self { runner }
    }

    /// Executes a block. On an error nothing has happened and the same order may be executed again.
    pub fn execute(&mut self, order: BlockOrder<'_>) -> Result<ExecutedBlock, StorageError> {
        let (mut receipts, writes) = self.run(&order)?;
        let (commitment, nodes) = order.commitment.after(&*order.state, &writes)?;
        let state_root = commitment.state_root();
        for receipt in &mut receipts {
            receipt.state_root = state_root;
        }
        Ok(ExecutedBlock { block: seal(order, &commitment, receipts), writes, nodes, commitment })
    }

    fn run(&mut self, order: &BlockOrder<'_>) -> Result<(Vec<Receipt>, Writes), StorageError> {
        let BlockOrder { number, timestamp_ms, tx_gas_limit, .. } = *order;
        let environment = BlockEnvironment { number, timestamp_ms, tx_gas_limit };
        let mut state = BlockState::new(Arc::clone(&order.state));
        let mut receipts = Vec::with_capacity(order.transactions.len());
        for transaction in &order.transactions {
            let Executed { receipt, writes } = self.runner.transact(&state, order.hashes, &environment, transaction)?;
            state.apply(writes);
            receipts.push(receipt);
        }
        Ok((receipts, state.into_writes()))
    }
}

/// Builds the block around finished receipts.
fn seal(order: BlockOrder<'_>, commitment: &StateCommitment, receipts: Vec<Receipt>) -> Block {
    let transaction_hashes: Vec<B256> = order.transactions.iter().map(VerifiedTx::hash).collect();
    let receipt_hashes: Vec<B256> = receipts.iter().map(Receipt::hash).collect();
    let header = BlockHeader {
        parent_hash: order.parent_hash,
        state_root: commitment.state_root(),
        transactions_root: merkle::root(&transaction_hashes),
        receipts_root: merkle::root(&receipt_hashes),
        db_hash: commitment.db_hash(),
        number: order.number,
        timestamp_ms: order.timestamp_ms,
        sealer: order.sealer,
        sealer_list: order.sealer_list,
        ..BlockHeader::default()
    };
    Block { hash: header.hash(), header, signatures: Vec::new(), transactions: order.transactions, receipts }
}

#[cfg(test)]
#[path = "executor/tests.rs"]
mod tests;
