//! Execute: runs ordered blocks, in height order, ahead of their commit.
//!
//! For each group it keeps the writes of blocks that are executed but not yet durable, as layers over the committed state: block h+1
//! runs on what h left while h is still being committed. A layer goes when its block is durable, or when it is declared void.
//! Big blocks are shared with the node's crew of helpers; which helps whom is measured by each group's block executor.
//! A panic while executing is contained, on whichever thread it was: it halts the group whose block it was. While the database server of
//! a group is away its blocks wait here, in order, and are tried again; other groups go on.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_access::verifier::{BlockExecutor, BlockOrder, Crew, ExecutedBlock};
use millrace_administration::{Epoch, Proposal};
use millrace_base::{B256, GroupId};
use millrace_core::StateCommitment;
use millrace_core::StorageError;
use millrace_core::overlay::{Layer, LayeredState, Writes};
use millrace_ledger::Ledger;
use millrace_ledger::ledger::changed_epoch;
use millrace_vm::BlockHashes;

use crate::messages::{Executed, ToExecute, ToOrder};
use crate::runtime::{self, Batch, Sender, Stage};

/// How long a group's blocks wait before a database that was away is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// An executed block that is not durable yet.
struct Ahead {
    hash: B256,
    layer: Arc<Layer>,
    commitment: StateCommitment,
}

/// One group in the stage.
struct GroupExecution {
    ledger: Arc<Ledger>,
    executor: BlockExecutor,
    epoch: Epoch,
    /// By height, without gaps, from the first height that is not durable.
    ahead: BTreeMap<u64, Ahead>,
    /// The last durable block this stage knows of: hash and commitment.
    base: (u64, B256, StateCommitment),
    /// Height that ended an epoch, and that epoch: what was ordered above it is void and will be declared so. If the height itself is
    /// void, the epoch goes on.
    ended: Option<(u64, Epoch)>,
    /// Blocks that wait for the group's database, ascending: at most the heights that are in flight.
    waiting: VecDeque<(u64, Box<Proposal>)>,
    retry_at: Option<Instant>,
}

/// Hashes of committed blocks and of those ahead of them.
struct Hashes<'a> {
    ledger: &'a Ledger,
    ahead: &'a BTreeMap<u64, Ahead>,
}

impl BlockHashes for Hashes<'_> {
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        match self.ahead.get(&number) {
            Some(ahead) => Ok(Some(ahead.hash)),
            None => self.ledger.block_hash(number),
        }
    }
}

impl GroupExecution {
    fn new(ledger: Arc<Ledger>, crew: Arc<Crew>) -> Result<Self, StorageError> {
        let head = ledger.chain().head();
        let base = (head.header.number, head.hash, ledger.chain().commitment()?);
        let (executor, epoch) = (BlockExecutor::with_crew(ledger.rules(), crew), (*ledger.epoch()).clone());
        Ok(Self { ledger, executor, epoch, ahead: BTreeMap::new(), base, ended: None, waiting: VecDeque::new(), retry_at: None })
    }

    fn state(&self) -> Arc<LayeredState> {
        let layers = self.ahead.values().rev().map(|ahead| Arc::clone(&ahead.layer)).collect();
        Arc::new(LayeredState::new(self.ledger.chain().state(), layers))
    }

    fn run(&mut self, proposal: &Proposal) -> Result<(ExecutedBlock, Option<Epoch>), StorageError> {
        let state = self.state();
        let Self { ledger, executor, epoch, ahead, base, .. } = self;
        let (tip, parent_hash, commitment) = match ahead.last_key_value() {
            Some((height, ahead)) => (*height, ahead.hash, &ahead.commitment),
            None => (base.0, base.1, &base.2),
        };
        let number = proposal.header.height;
        assert_eq!(number, tip + 1, "ordered blocks arrive in height order");
        let block = executor.execute(BlockOrder {
            parent_hash,
            number,
            timestamp_ms: proposal.header.timestamp_ms,
            tx_gas_limit: epoch.tx_gas_limit,
            sealer: u64::from(proposal.header.sealer),
            sealer_list: epoch.sealers.clone(),
            transactions: proposal.transactions.clone(),
            state,
            commitment,
            hashes: &Hashes { ledger, ahead },
        })?;
        let layer = Arc::new(Layer::new(&block.writes, &block.nodes));
        self.ahead.insert(number, Ahead { hash: block.block.hash, layer, commitment: block.commitment.clone() });
        let next_epoch = self.changed_epoch(number, &block.writes)?;
        if let Some(epoch) = &next_epoch {
            self.ended = Some((number, std::mem::replace(&mut self.epoch, epoch.clone())));
        }
        Ok((block, next_epoch))
    }

    /// A block could not be read for: it is as if it had never been tried, and it and what follows are tried again later.
    fn wait(&mut self, run: u64, proposal: Box<Proposal>) {
        self.ahead.remove(&proposal.header.height);
        self.waiting.push_front((run, proposal));
        self.retry_at = Some(runtime::now() + RETRY);
    }

    /// The next block's epoch, if this block changed it.
    fn changed_epoch(&self, number: u64, writes: &Writes) -> Result<Option<Epoch>, StorageError> {
        changed_epoch(&self.epoch, number, writes, || self.state())
    }

    fn void(&mut self, above: u64) {
        self.ahead.split_off(&(above + 1));
        self.waiting.retain(|(_, proposal)| proposal.header.height <= above);
        match self.ended.take() {
            Some((end, epoch)) if above < end => self.epoch = epoch,
            // Ordering may void heights above the one that ended the epoch before it has heard of that end.
            Some((end, epoch)) if above > end => self.ended = Some((end, epoch)),
            _ => {}
        }
    }

    fn committed(&mut self, height: u64) {
        while let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() <= height) {
            let (height, ahead) = entry.remove_entry();
            self.base = (height, ahead.hash, ahead.commitment);
        }
    }
}

/// See the module.
pub struct ExecuteStage {
    groups: BTreeMap<GroupId, GroupExecution>,
    order: Sender<ToOrder>,
    crew: Arc<Crew>,
}

impl ExecuteStage {
    /// A worker without groups; they come as [`ToExecute::Open`]. The crew helps it with big blocks.
    pub fn new(order: Sender<ToOrder>, crew: Arc<Crew>) -> Self {
        Self { groups: BTreeMap::new(), order, crew }
    }

    fn open(&mut self, ledger: Arc<Ledger>) {
        match GroupExecution::new(Arc::clone(&ledger), Arc::clone(&self.crew)) {
            Ok(group) => {
                self.groups.insert(ledger.id(), group);
            }
            Err(error) => self.fail(&ledger, &error.to_string()),
        }
    }

    fn run(&mut self, group: GroupId, run: u64, proposal: Box<Proposal>) {
        let Some(execution) = self.groups.get_mut(&group) else { return };
        if !execution.waiting.is_empty() {
            return execution.waiting.push_back((run, proposal));
        }
        let number = proposal.header.height;
        if execution.ended.as_ref().is_some_and(|(end, _)| number > *end) {
            return;
        }
        let ledger = Arc::clone(&execution.ledger);
        match catch_unwind(AssertUnwindSafe(|| execution.run(&proposal))) {
            Ok(Ok((block, next_epoch))) => {
                let _ = self.order.send(ToOrder::Executed(Box::new(Executed { group, run, block, next_epoch })));
            }
            Ok(Err(StorageError::Unavailable { place, detail })) => {
                tracing::error!(%group, number, place, detail, "the database is away: the group's blocks wait and are executed when it is back");
                execution.wait(run, proposal);
            }
            Ok(Err(error)) => self.fail(&ledger, &format!("block {number} cannot be executed: {error}")),
            Err(panic) => self.fail(&ledger, &format!("executing block {number} panicked: {}", panic_text(&*panic))),
        }
    }

    /// Tries the blocks again whose time has come.
    fn run_waiting(&mut self, now: Instant) {
        let is_due = |execution: &GroupExecution| execution.retry_at.is_some_and(|at| at <= now);
        let due: Vec<GroupId> = self.groups.iter().filter(|(_, execution)| is_due(execution)).map(|(group, _)| *group).collect();
        for group in due {
            let Some(execution) = self.groups.get_mut(&group) else { continue };
            execution.retry_at = None;
            // The first that has to wait again takes those behind it along.
            for (run, proposal) in std::mem::take(&mut execution.waiting) {
                self.run(group, run, proposal);
            }
        }
    }

    fn fail(&mut self, ledger: &Ledger, reason: &str) {
        self.groups.remove(&ledger.id());
        ledger.halt(reason);
        let _ = self.order.send(ToOrder::Failed(ledger.id()));
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

impl Stage for ExecuteStage {
    type Input = ToExecute;

    fn handle(&mut self, batch: &mut Batch<ToExecute>) {
        for input in batch.drain(..) {
            match input {
                ToExecute::Open(ledger) => self.open(ledger),
                ToExecute::Run { group, run, proposal } => self.run(group, run, proposal),
                ToExecute::Void { group, above } => {
                    if let Some(execution) = self.groups.get_mut(&group) {
                        execution.void(above);
                    }
                }
                ToExecute::Committed { group, height } => {
                    if let Some(execution) = self.groups.get_mut(&group) {
                        execution.committed(height);
                    }
                }
                ToExecute::Close(group) => {
                    self.groups.remove(&group);
                    let _ = self.order.send(ToOrder::Closed(group));
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.run_waiting(now);
        self.groups.values().filter_map(|execution| execution.retry_at).min()
    }
}
