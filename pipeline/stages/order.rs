//! Order: agrees on which transactions make which block. Drives one engine a group.
//!
//! A turn takes a batch of inputs, lets the engines concerned react until nothing is left to say to oneself, makes the records of the
//! turn durable with one sync, and only then hands out what follows from them, in order. If the sync fails nothing leaves, the turn's
//! effects wait for the next attempt, and meanwhile engines are told nothing that asks for more: a vote that may be lost must never be
//! acted on. What an engine does wrong ends its group, not the others.
//!
//! All time comes from the node's clock; the runtime only decides when to look at it. So the simulator drives the same code by
//! [`OrderStage::handle`](Stage::handle) and [`OrderStage::on_time`] over a clock of its own.

mod flights;
mod gather;
mod group;
mod outbox;
mod records;
mod refusals;

#[cfg(test)]
#[path = "order/tests.rs"]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_administration::digest::Domain;
use millrace_administration::engine::Engine;
use millrace_administration::pbft::{MAX_AHEAD_MS, PbftConfig, PbftEngine, WINDOW};
use millrace_administration::raft::{RaftConfig, RaftEngine};
use millrace_base::clock::Clock;
use millrace_base::{Bytes, GroupId, VerifiedTx};
use millrace_ledger::Ledger;
use millrace_ledger::genesis::Consensus;

use crate::evidence::{Case, EvidenceLog};
use crate::messages::{Done, ToCommit, ToExecute, ToNotify, ToOrder, ToSync};
use crate::peers::{PeerKind, Peers};
use crate::runtime::{Batch, Fanout, Sender, Stage};
use group::GroupOrder;
use outbox::{Out, Outbox};

pub use records::RecordLog;

/// How often expired transactions are looked for.
const ROUND_MS: u64 = 1_000;

/// How long to wait before a failed sync of the vote log is tried again.
const SYNC_RETRY_MS: u64 = 1_000;

/// Makes the engine of a group that is being opened, from the records it left above the head; or says why it cannot be made.
pub type EngineFactory = Arc<dyn Fn(&Ledger, Vec<Bytes>) -> Result<Box<dyn Engine>, String> + Send + Sync>;

/// The engines of a production node, each of the kind that its group's genesis says, with so many heights in flight: [`WINDOW`] at most.
pub fn engines(window: u64) -> EngineFactory {
    let window = window.clamp(1, WINDOW);
    Arc::new(move |ledger, records| {
        let head = ledger.chain().head();
        let signed = ledger.chain().header(head.header.number).map_err(|error| format!("the head cannot be read: {error}"))?;
        let (head, head_hash, head_signatures) = signed.ok_or("the head is not in the database")?;
        let domain = Domain { chain_id: ledger.config().chain_id, group: ledger.id(), genesis: ledger.chain().genesis() };
        let (key, epoch) = (ledger.config().key.clone(), (*ledger.epoch()).clone());
        Ok(match ledger.config().genesis.consensus {
            Consensus::Pbft => {
                let max_ahead_ms = MAX_AHEAD_MS;
                Box::new(PbftEngine::new(PbftConfig {
                    domain,
                    key,
                    epoch,
                    head,
                    head_hash,
                    head_signatures,
                    records,
                    window,
                    max_ahead_ms,
                })) as Box<dyn Engine>
            }
            Consensus::Raft(times) => Box::new(RaftEngine::new(RaftConfig { domain, key, epoch, head, head_hash, records, window, times })),
        })
    })
}

/// Where the stage sends its results.
pub struct OrderOutputs {
    /// Ordered proposals.
    pub execute: Fanout<ToExecute>,
    /// Final blocks.
    pub commit: Fanout<ToCommit>,
    /// Drops to report.
    pub notify: Sender<ToNotify>,
    /// Nodes whose blocks or messages were refused.
    pub sync: Sender<ToSync>,
}

/// What the stage works with.
pub struct OrderParts {
    /// Records of all groups.
    pub votes: Box<dyn RecordLog>,
    /// Evidence against sealers.
    pub evidence: EvidenceLog,
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Makes engines.
    pub engines: EngineFactory,
}

/// See the module.
pub struct OrderStage {
    parts: OrderParts,
    groups: BTreeMap<GroupId, GroupOrder>,
    /// Who waits for a group to be let go.
    closing: BTreeMap<GroupId, Done>,
    outputs: OrderOutputs,
    outbox: Outbox,
    next_round_ms: u64,
    /// The clock at the last look.
    looked_ms: u64,
    retry_sync_at_ms: Option<u64>,
}

impl OrderStage {
    /// A stage without groups; they come as [`ToOrder::Open`].
    pub fn new(parts: OrderParts, outputs: OrderOutputs) -> Self {
        let looked_ms = parts.clock.now_ms();
        let next_round_ms = looked_ms + ROUND_MS;
        let (groups, closing, outbox) = (BTreeMap::new(), BTreeMap::new(), Outbox::default());
        Self { parts, groups, closing, outputs, outbox, next_round_ms, looked_ms, retry_sync_at_ms: None }
    }

    fn take(&mut self, input: ToOrder, now_ms: u64) {
        match input {
            ToOrder::Open(ledger) => self.open(ledger, now_ms),
            ToOrder::Close(group, done) => self.close(group, done, now_ms),
            ToOrder::Abandon(group, done) => self.abandon(group, done),
            ToOrder::Closed(group) => match (self.groups.remove(&group), self.closing.remove(&group)) {
                (Some(_), done) => self.outbox.out.extend(done.map(Out::Done)),
                // It was abandoned: nothing of it waits to leave, and the outbox may be held back.
                (None, done) => done.into_iter().for_each(|done| done()),
            },
            ToOrder::Wake(group) => self.with(group, |order, outbox| order.on_wake(now_ms, outbox)),
            ToOrder::Frame(frame) => {
                // While nothing can leave, reacting would only pile effects up; consensus repeats what matters.
                if self.retry_sync_at_ms.is_none() {
                    self.with(frame.group, |order, outbox| order.on_frame(frame.from, frame.payload.clone(), now_ms, outbox));
                }
            }
            ToOrder::Block { group, block } => self.with(group, |order, outbox| order.on_block(block, now_ms, outbox)),
            ToOrder::Executed(executed) => self.with(executed.group, |order, outbox| order.on_executed(executed, now_ms, outbox)),
            ToOrder::Committed { group, height } => {
                self.parts.votes.committed(group, height);
                self.with(group, |order, outbox| order.on_committed(height, now_ms, outbox));
            }
            ToOrder::Failed(group) => self.with(group, GroupOrder::fail),
            ToOrder::PeersChanged => self.look_at_peers(now_ms),
        }
    }

    /// Lets a group react. A panic is a fault of that group: it halts, the others go on. A group that was closed meanwhile has nobody
    /// to tell.
    fn with(&mut self, group: GroupId, work: impl FnOnce(&mut GroupOrder, &mut Outbox)) {
        let Some(order) = self.groups.get_mut(&group) else { return };
        let outbox = &mut self.outbox;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(order, outbox))) {
            order.ledger().halt(format!("ordering failed: {}", panic_text(&*panic)));
            order.fail(outbox);
        }
    }

    fn open(&mut self, ledger: Arc<Ledger>, now_ms: u64) {
        let (group, head) = (ledger.id(), ledger.chain().head().header.number);
        let records = match self.parts.votes.records(group, head) {
            Ok(records) => records,
            Err(error) => return ledger.halt(format!("the vote log cannot be read: {error}")),
        };
        match catch_unwind(AssertUnwindSafe(|| (self.parts.engines)(&ledger, records))) {
            Ok(Ok(engine)) => {
                self.groups.insert(group, GroupOrder::new(ledger, Arc::clone(&self.parts.peers), engine));
                self.with(group, |order, outbox| order.start(now_ms, outbox));
            }
            Ok(Err(reason)) => ledger.halt(format!("the ordering engine cannot be made: {reason}")),
            Err(panic) => ledger.halt(format!("the ordering engine cannot be made: {}", panic_text(&*panic))),
        }
    }

    fn close(&mut self, group: GroupId, done: Done, now_ms: u64) {
        if !self.groups.contains_key(&group) {
            return self.outbox.out.push(Out::Done(done));
        }
        // Somebody who waits already is told that it is out of his hands: the group is being closed for the newer one.
        self.outbox.out.extend(self.closing.insert(group, done).map(Out::Done));
        self.with(group, |order, outbox| order.close(now_ms, outbox));
    }

    fn abandon(&mut self, group: GroupId, done: Done) {
        let had_close = self.outbox.forget(group);
        let is_letting_go = match self.groups.remove(&group) {
            Some(order) => order.has_let_go() && !had_close,
            None => self.closing.contains_key(&group),
        };
        self.outbox.out.extend(self.closing.insert(group, done).map(Out::Done));
        // Past the outbox, which may be held back: the execute stage tells nobody. It is told once, since its answer to a second word could
        // meet the group when it has been opened again.
        if !is_letting_go {
            let _ = self.outputs.execute.send(group, ToExecute::Close(group));
        }
    }

    /// Tells engines whom they reach, where that has changed.
    fn look_at_peers(&mut self, now_ms: u64) {
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.with(group, |order, outbox| order.look_at_peers(now_ms, outbox));
        }
    }

    /// Makes the turn's records durable and lets its results out.
    fn flush(&mut self, now_ms: u64) {
        for (group, height, body) in self.outbox.records.drain(..) {
            self.parts.votes.append(group, height, &body);
        }
        if let Err(error) = self.parts.votes.sync() {
            let retry_s = SYNC_RETRY_MS / 1_000;
            tracing::error!(%error, "the vote log cannot be written; no group orders blocks until it can: free space on its disk; trying again in {retry_s} s");
            self.retry_sync_at_ms = Some(now_ms + SYNC_RETRY_MS);
            return;
        }
        self.retry_sync_at_ms = None;
        for out in std::mem::take(&mut self.outbox.out) {
            self.let_out(out, now_ms);
        }
        self.groups.values_mut().for_each(|order| order.publish(now_ms));
    }

    /// A send to a stage fails only once its reader has ended, and then the node is on its way out: what is not durable is not
    /// acknowledged. What peers cannot take is dropped there; consensus repeats what matters.
    fn let_out(&mut self, out: Out, now_ms: u64) {
        match out {
            Out::Execute(group, item) => drop(self.outputs.execute.send(group, item)),
            Out::Commit(item) => drop(self.outputs.commit.send(item.ledger.id(), item)),
            Out::Send { group, to, kind, payload } => drop(self.parts.peers.send(group, to, kind, payload)),
            Out::Multicast { group, to, payload } => self.parts.peers.multicast(group, &to, PeerKind::Consensus, payload),
            Out::Evidence(group, case) => record(&mut self.parts.evidence, group, &case, now_ms),
            Out::Refused(group, from, reason) => drop(self.outputs.sync.send(ToSync::Refused { group, from, reason })),
            Out::Done(done) => done(),
        }
    }

    fn expire(&mut self, now_ms: u64) {
        for order in self.groups.values() {
            let ledger = order.ledger();
            let hashes: Vec<_> = ledger.expire(now_ms).iter().map(VerifiedTx::hash).collect();
            if !hashes.is_empty() {
                let _ = self.outputs.notify.send(ToNotify::Expired { group: ledger.id(), hashes });
            }
        }
    }

    /// How long a failed sync keeps everything back still.
    fn held_back_ms(&self, now_ms: u64) -> Option<u64> {
        let wait_ms = self.retry_sync_at_ms?.saturating_sub(now_ms);
        (1..=SYNC_RETRY_MS).contains(&wait_ms).then_some(wait_ms)
    }

    /// Does what is due by the clock. Milliseconds after which it wants to be called again, at least one.
    pub fn on_time(&mut self) -> u64 {
        let now_ms = self.parts.clock.now_ms();
        if let Some(wait_ms) = self.held_back_ms(now_ms) {
            return wait_ms;
        }
        if self.retry_sync_at_ms.is_some() {
            self.flush(now_ms);
            if self.retry_sync_at_ms.is_some() {
                return SYNC_RETRY_MS;
            }
        }
        // Times that were set before the clock was set back mean nothing any more.
        let is_set_back = now_ms < std::mem::replace(&mut self.looked_ms, now_ms);
        let mut is_said = false;
        if is_set_back || now_ms >= self.next_round_ms {
            self.expire(now_ms);
            self.look_at_peers(now_ms);
            is_said = true;
            self.next_round_ms = now_ms + ROUND_MS;
        }
        let is_due = |order: &GroupOrder| is_set_back || order.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        let due: Vec<GroupId> = self.groups.iter().filter(|(_, order)| is_due(order)).map(|(group, _)| *group).collect();
        for group in &due {
            match is_set_back {
                true => self.with(*group, |order, outbox| order.on_any_time(now_ms, outbox)),
                false => self.with(*group, |order, outbox| order.on_time(now_ms, outbox)),
            }
        }
        if is_said || !due.is_empty() {
            self.flush(now_ms);
        }
        let next_ms = self.groups.values().filter_map(GroupOrder::due_ms).chain([self.next_round_ms]).chain(self.retry_sync_at_ms).min();
        next_ms.map_or(ROUND_MS, |next_ms| next_ms.saturating_sub(now_ms)).clamp(1, ROUND_MS)
    }
}

fn record(evidence: &mut EvidenceLog, group: GroupId, case: &Case, now_ms: u64) {
    let Case { offender, what, .. } = case;
    match evidence.record(group, case, now_ms) {
        Ok(true) => tracing::error!(%group, %offender, what, "a sealer signed statements that contradict each other; both are kept"),
        Ok(false) => {}
        Err(error) => tracing::error!(%group, %offender, what, %error, "evidence against a sealer cannot be kept"),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

impl Stage for OrderStage {
    type Input = ToOrder;

    fn handle(&mut self, batch: &mut Batch<ToOrder>) {
        let now_ms = self.parts.clock.now_ms();
        for input in batch.drain(..) {
            self.take(input, now_ms);
        }
        if self.held_back_ms(now_ms).is_none() {
            self.flush(now_ms);
        }
    }

    fn tick(&mut self, now: Instant) -> Option<Instant> {
        Some(now + Duration::from_millis(self.on_time()))
    }

    fn on_stop(&mut self) {
        let now_ms = self.parts.clock.now_ms();
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.with(group, |order, outbox| order.leave(now_ms, outbox));
        }
        if self.held_back_ms(now_ms).is_none() {
            self.flush(now_ms);
        }
    }

    fn drained(&self) -> bool {
        self.groups.values().all(GroupOrder::is_drained)
    }
}
