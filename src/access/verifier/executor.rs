//! Executes the transactions of one block, in order, and builds the block from what they did.
//!
//! Invariant: the result is a function of the order alone (parent, height, timestamp, gas limit, transactions, state): every node that
//! executes the same order on the same state gets the same hash. The serial form is the oracle for the parallel one ([`super::parallel`]);
//! which of them runs is measured ([`super::policy`]). Called by the execute stage in height order, with the state as the block before
//! left it.

use std::sync::Arc;
use std::time::Instant;

use millrace_base::{B256, Block, BlockHeader, NodeId, Receipt, VerifiedTx};
use millrace_core::overlay::{BlockState, Writes};
use millrace_core::trie::TrieNodes;
use millrace_core::{StateCommitment, StateReader, StorageError};
use millrace_vm::{BlockEnvironment, BlockHashes, EvmRules, Executed, Executor};

use super::crew::{Crew, Spares};
use super::parallel::{self, Guessing, Ran};
use super::policy::{Mode, Policy, Sample};
use super::roots::{self, Hands};

/// Work of a transaction beyond what its gas pays for, in gas: about what a call costs before it does anything.
const TRANSACTION_WORK: u64 = 20_000;

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

/// See the module. One a group; reused from block to block.
pub struct BlockExecutor<R = Executor> {
    spares: Arc<Spares<R>>,
    crew: Arc<Crew>,
    policy: Policy,
    forced: Option<Mode>,
}

impl BlockExecutor {
    /// With the rules of the group, on the calling thread alone.
    pub fn new(rules: EvmRules) -> Self {
        Self::with_crew(rules, Crew::alone())
    }

    /// With the rules of the group and the help of a crew.
    pub fn with_crew(rules: EvmRules, crew: Arc<Crew>) -> Self {
        Self { spares: crew.executors(rules), crew, policy: Policy::new(), forced: None }
    }
}

impl<R: TransactionRunner + Send> BlockExecutor<R> {
    /// Over another machine than the group's EVM.
    pub fn with_runner(make: impl Fn() -> R + Send + Sync + 'static, crew: Arc<Crew>) -> Self {
        Self { spares: Arc::new(Spares::new(make)), crew, policy: Policy::new(), forced: None }
    }

    /// Executes every block this way, for tests and measurements.
    pub fn always(mut self, mode: Mode) -> Self {
        self.forced = Some(mode);
        self
    }

    /// Executes a block. On an error nothing has happened and the same order may be executed again.
    pub fn execute(&mut self, order: BlockOrder<'_>) -> Result<ExecutedBlock, StorageError> {
        let (transactions, free) = (order.transactions.len(), self.crew.free());
        let mode = self.forced.unwrap_or_else(|| self.policy.choose(transactions, free));
        let helpers = if mode == Mode::Serial { 0 } else { free };
        let start = Instant::now();
        let Ran { mut receipts, writes, lost } = self.run(&order, mode, helpers)?;
        let hands = Hands { crew: &self.crew, helpers };
        let (commitment, nodes) = roots::committed(hands, order.commitment, &*order.state, &writes)?;
        let state_root = commitment.state_root();
        let receipt_hashes = roots::receipt_hashes(hands, &mut receipts, state_root);
        let block = seal(hands, order, receipts, (&commitment, &receipt_hashes));
        let gas = |receipt: &Receipt| receipt.gas_used.saturating_to::<u64>().saturating_add(TRANSACTION_WORK);
        let units = block.receipts.iter().map(gas).fold(0, u64::saturating_add);
        self.policy.record(Sample { mode, transactions, units, elapsed: start.elapsed(), lost });
        Ok(ExecutedBlock { block, writes, nodes, commitment })
    }

    fn run(&self, order: &BlockOrder<'_>, mode: Mode, helpers: usize) -> Result<Ran, StorageError> {
        let guessing = match mode {
            Mode::Serial | Mode::SharedRoots => {
                self.crew.count_serial();
                return self.run_serially(order);
            }
            Mode::Speculative => Guessing::Off,
            Mode::Guided => Guessing::On,
        };
        let ran = parallel::run(&self.crew, helpers, &self.spares, order, guessing)?;
        self.crew.count_parallel(ran.lost);
        Ok(ran)
    }

    fn run_serially(&self, order: &BlockOrder<'_>) -> Result<Ran, StorageError> {
        let BlockOrder { number, timestamp_ms, tx_gas_limit, .. } = *order;
        let environment = BlockEnvironment { number, timestamp_ms, tx_gas_limit };
        let mut state = BlockState::new(Arc::clone(&order.state));
        let mut receipts = Vec::with_capacity(order.transactions.len());
        self.spares.with(|runner| {
            for transaction in &order.transactions {
                let Executed { receipt, writes } = runner.transact(&state, order.hashes, &environment, transaction)?;
                state.apply(writes);
                receipts.push(receipt);
            }
            Ok::<_, StorageError>(())
        })?;
        Ok(Ran { receipts, writes: state.into_writes(), lost: 0 })
    }
}

/// Builds the block around finished receipts, whose hashes come with the commitment to the state.
fn seal(
    hands: Hands<'_>,
    order: BlockOrder<'_>,
    receipts: Vec<Receipt>,
    (commitment, receipt_hashes): (&StateCommitment, &[B256]),
) -> Block {
    let transaction_hashes: Vec<B256> = order.transactions.iter().map(VerifiedTx::hash).collect();
    let header = BlockHeader {
        parent_hash: order.parent_hash,
        state_root: commitment.state_root(),
        transactions_root: roots::merkle_root(hands, &transaction_hashes),
        receipts_root: roots::merkle_root(hands, receipt_hashes),
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
