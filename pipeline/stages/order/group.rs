//! One group in the order stage: its engine, the proposal it is asked for, and executed blocks that wait to become final.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_administration::digest::Domain;
use millrace_administration::pbft::{PbftConfig, PbftEngine, WINDOW};
use millrace_administration::sealer::{Decision, SealerView, decide};
use millrace_administration::{Effect, Engine, Input};
use millrace_base::limits::MAX_BLOCK_TRANSACTIONS;
use millrace_base::{Bytes, GroupId};
use millrace_ledger::Ledger;

use crate::messages::{Executed, ToCommit, ToExecute, ToOrder, ToSync, seal};

/// Encoded transactions of one block: a block must fit one frame between nodes.
const MAX_BLOCK_BYTES: usize = 12 << 20;

/// What a turn wants to leave the stage once its votes are durable.
#[derive(Default)]
pub(super) struct Outbox {
    /// Group, height and body.
    pub records: Vec<(GroupId, u64, Bytes)>,
    pub execute: Vec<(GroupId, ToExecute)>,
    pub commit: Vec<ToCommit>,
    pub sync: Vec<ToSync>,
}

/// A proposal that the engine asked for.
#[derive(Clone, Copy)]
struct Wanted {
    height: u64,
    view: u64,
    after_timestamp_ms: u64,
    limit: usize,
}

/// See the module.
pub(super) struct GroupOrder {
    ledger: Arc<Ledger>,
    engine: Box<dyn Engine>,
    wanted: Option<Wanted>,
    last_sealed_ms: u64,
    /// When the wanted proposal is due although it is not full.
    seal_due_ms: Option<u64>,
    executed: BTreeMap<u64, Box<Executed>>,
    /// Heights handed to execution or commit whose end has not been heard of.
    in_flight: BTreeSet<u64>,
    is_failed: bool,
    /// Least time between proposals; zero once the node is stopping, so that what was accepted is sealed at once.
    min_interval_ms: u64,
}

impl GroupOrder {
    /// Continues behind the ledger's head with what the vote log remembers above it.
    pub fn new(ledger: Arc<Ledger>, records: Vec<Bytes>) -> Self {
        let head = ledger.chain().head();
        let domain = Domain { chain_id: ledger.config().chain_id, group: ledger.id(), genesis: ledger.chain().genesis() };
        let engine = PbftEngine::new(PbftConfig {
            domain,
            key: ledger.config().key.clone(),
            epoch: (*ledger.epoch()).clone(),
            head_height: head.header.number,
            head_hash: head.hash,
            head_timestamp_ms: head.header.timestamp_ms,
            records,
        });
        let min_interval_ms = ledger.config().min_interval_ms;
        Self {
            ledger,
            engine: Box::new(engine),
            wanted: None,
            last_sealed_ms: 0,
            seal_due_ms: None,
            executed: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            is_failed: false,
            min_interval_ms,
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub fn seal_due_ms(&self) -> Option<u64> {
        self.seal_due_ms
    }

    /// Whether nothing that was accepted can still be turned into a block here.
    pub fn is_drained(&self) -> bool {
        self.is_failed || (self.in_flight.is_empty() && (self.ledger.pool().waiting() == 0 || self.wanted.is_none()))
    }

    /// The node is stopping: what was accepted is sealed without waiting for more.
    pub fn hurry(&mut self) {
        self.min_interval_ms = 0;
    }

    pub fn publish(&mut self) {
        self.ledger.publish_engine(self.engine.status());
    }

    pub fn take(&mut self, input: ToOrder, now_ms: u64, outbox: &mut Outbox) {
        if self.is_failed {
            return;
        }
        match input {
            ToOrder::Open(_) => {
                let effects = self.engine.start(now_ms);
                outbox.execute.push((self.ledger.id(), ToExecute::Open(Arc::clone(&self.ledger))));
                self.carry_out(effects, outbox);
            }
            ToOrder::Wake(_) => self.ledger.accept_wake(),
            ToOrder::Executed(executed) => {
                let (height, hash) = (executed.block.block.header.number, executed.block.block.hash);
                let next_epoch = executed.next_epoch.clone();
                if self.in_flight.contains(&height) {
                    self.executed.insert(height, executed);
                    self.advance(Input::Executed { height, hash, next_epoch }, now_ms, outbox);
                }
            }
            ToOrder::Committed { height, .. } => {
                self.in_flight = self.in_flight.split_off(&(height + 1));
                self.advance(Input::Committed { height }, now_ms, outbox);
            }
            ToOrder::Block { block, .. } => self.advance(Input::Block(block), now_ms, outbox),
            ToOrder::Failed(_) => self.fail(),
        }
        self.try_seal(now_ms, outbox);
    }

    fn fail(&mut self) {
        self.is_failed = true;
        self.wanted = None;
        self.seal_due_ms = None;
        self.executed.clear();
    }

    fn advance(&mut self, input: Input, now_ms: u64, outbox: &mut Outbox) {
        let effects = self.engine.handle(input, now_ms);
        self.carry_out(effects, outbox);
    }

    /// Carries effects out in order; everything that leaves waits in the outbox.
    fn carry_out(&mut self, effects: Vec<Effect>, outbox: &mut Outbox) {
        let group = self.ledger.id();
        for effect in effects {
            match effect {
                Effect::Record { height, body } => outbox.records.push((group, height, body)),
                Effect::Seal { height, view, after_timestamp_ms, limit } => {
                    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_BLOCK_TRANSACTIONS);
                    self.wanted = Some(Wanted { height, view, after_timestamp_ms, limit });
                }
                Effect::Execute(proposal) => {
                    self.in_flight.insert(proposal.header.height);
                    assert!(self.in_flight.len() as u64 <= WINDOW, "the engine keeps its window");
                    outbox.execute.push((group, ToExecute::Run { group, proposal }));
                }
                Effect::Finalize { height, signatures, .. } => {
                    let executed = self.executed.remove(&height).expect("only an executed height becomes final");
                    outbox.commit.push(ToCommit { ledger: Arc::clone(&self.ledger), commit: seal(*executed, signatures) });
                }
                Effect::Void { above } => {
                    self.wanted = None;
                    self.executed.split_off(&(above + 1));
                    self.in_flight.split_off(&(above + 1));
                    self.ledger.pool().void_above(above);
                    outbox.execute.push((group, ToExecute::Void { group, above }));
                }
                Effect::Diverged { height, own, quorum } => {
                    self.ledger.halt(format!("block {height}: this node computed {own}, a quorum of sealers signed {quorum}"));
                    self.fail();
                    return;
                }
                // A group of one sealer has nobody to talk to.
                Effect::Send { .. } | Effect::Broadcast(_) | Effect::Gather { .. } | Effect::Evidence { .. } => {}
                Effect::Refused { from, reason } => outbox.sync.push(ToSync::Refused { group, from, reason }),
            }
        }
    }

    /// Fills wanted proposals as long as the policy says so.
    pub fn try_seal(&mut self, now_ms: u64, outbox: &mut Outbox) {
        self.seal_due_ms = None;
        while let Some(wanted) = self.wanted {
            let view = SealerView {
                waiting: self.ledger.pool().waiting(),
                limit: wanted.limit,
                last_sealed_ms: self.last_sealed_ms,
                min_interval_ms: self.min_interval_ms,
            };
            match decide(view, now_ms) {
                Decision::Idle => return,
                Decision::WaitUntil(due_ms) => {
                    self.seal_due_ms = Some(due_ms);
                    return;
                }
                Decision::Seal => {
                    let transactions = self.ledger.pool().take(wanted.height, wanted.limit, MAX_BLOCK_BYTES, now_ms);
                    if transactions.is_empty() {
                        return;
                    }
                    self.wanted = None;
                    self.last_sealed_ms = now_ms;
                    let timestamp_ms = now_ms.max(wanted.after_timestamp_ms + 1);
                    let input = Input::Sealed { height: wanted.height, view: wanted.view, timestamp_ms, transactions };
                    self.advance(input, now_ms, outbox);
                }
            }
        }
    }
}
