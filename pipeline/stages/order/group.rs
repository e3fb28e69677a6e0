//! One group in the order stage: its engine, the proposals it fills and gathers, and executed blocks that wait to become final.
//!
//! Every input ends with [`GroupOrder::settle`], which goes on until the engine has nothing left to learn from this node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_access::txpool::Verdict;
use millrace_administration::Effect;
use millrace_administration::engine::{Engine, FinalBlock, Gathered, Input, Proposal};
use millrace_administration::pbft::WINDOW;
use millrace_administration::sealer::{Decision, SealerView, decide};
use millrace_base::limits::MAX_BLOCK_TRANSACTIONS;
use millrace_base::{B256, Bytes, NodeId, VerifiedTx};
use millrace_ledger::Ledger;

use super::flights::Flights;
use super::gather::Gather;
use super::outbox::{Out, Outbox};
use super::refusals::Refusals;
use crate::evidence::Case;
use crate::messages::{Executed, ToCommit, ToExecute, seal};
use crate::peers::{PeerKind, Peers};

/// Heights above the last durable one that an engine may speak of: its window, and as much again while it hears of commits later.
const MAX_AHEAD: u64 = 2 * WINDOW;

/// Rounds of one turn: each height is sealed or gathered and answered once, twice when a view begins. An engine that wants more goes on
/// in the next turn, and other groups have theirs meanwhile.
const MAX_ROUNDS: usize = 4 * WINDOW as usize;

/// Least time between two snapshots of an engine's status: more often than anybody looks.
const PUBLISH_INTERVAL_MS: u64 = 20;

/// A proposal that the engine asked for.
#[derive(Clone, Copy)]
struct Wanted {
    height: u64,
    view: u64,
    after_timestamp_ms: u64,
    limit: usize,
}

/// Whether the group takes part.
///
/// ```text
/// Running --Close--> Closing --finals durable--> LetGo --Closed--> (gone)
///    \--fault--> Failed --Close--> LetGo
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Failed,
    Closing,
    LetGo,
}

/// See the module.
pub(super) struct GroupOrder {
    ledger: Arc<Ledger>,
    peers: Arc<dyn Peers>,
    engine: Box<dyn Engine>,
    state: State,
    /// The other sealers of the engine's epoch.
    others: Arc<[NodeId]>,
    wanted: Option<Wanted>,
    last_sealed_ms: u64,
    /// When the wanted proposal is due although it is not full.
    seal_due_ms: Option<u64>,
    flights: Flights,
    gathers: BTreeMap<u64, Gather>,
    executed: BTreeMap<u64, Box<Executed>>,
    /// Heights handed to execution and not final yet, with the number of the execution.
    executing: BTreeMap<u64, u64>,
    /// Final heights that are not durable yet.
    committing: BTreeSet<u64>,
    /// What the engine was last told about waiting transactions.
    pending: bool,
    /// Whom the engine was last told that it reaches; none before the first word.
    reachable: Option<Vec<NodeId>>,
    refusals: Refusals,
    /// Least time between proposals; zero once the node is stopping, so that what was accepted is sealed at once.
    min_interval_ms: u64,
    /// Whether the engine may have something new to say about itself, and when that was last published.
    is_changed: bool,
    published_ms: u64,
    /// When there is something to do without an input.
    due_ms: Option<u64>,
}

impl GroupOrder {
    /// Continues behind the ledger's head.
    pub fn new(ledger: Arc<Ledger>, peers: Arc<dyn Peers>, engine: Box<dyn Engine>) -> Self {
        let head = ledger.chain().head().header.number;
        let min_interval_ms = ledger.config().min_interval_ms;
        Self {
            ledger,
            peers,
            engine,
            state: State::Running,
            others: Arc::default(),
            wanted: None,
            last_sealed_ms: 0,
            seal_due_ms: None,
            flights: Flights::new(head),
            gathers: BTreeMap::new(),
            executed: BTreeMap::new(),
            executing: BTreeMap::new(),
            committing: BTreeSet::new(),
            pending: false,
            reachable: None,
            refusals: Refusals::default(),
            min_interval_ms,
            is_changed: true,
            published_ms: 0,
            due_ms: None,
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// When the group wants its next turn: [`Self::on_time`] and [`Self::publish`].
    pub fn due_ms(&self) -> Option<u64> {
        let publish_at_ms = self.is_changed.then_some(self.published_ms.saturating_add(PUBLISH_INTERVAL_MS));
        [self.due_ms, publish_at_ms].into_iter().flatten().min()
    }

    /// Whether nothing that was accepted here can still become a block without other nodes. With other sealers, waiting transactions
    /// and proposals in flight are theirs to finish; final blocks are not.
    pub fn is_drained(&self) -> bool {
        if self.state != State::Running {
            return self.state == State::Failed || self.committing.is_empty();
        }
        let is_alone = self.others.is_empty();
        let is_idle = self.executing.is_empty() && (self.ledger.pool().waiting() == 0 || self.wanted.is_none());
        self.committing.is_empty() && (is_idle || !is_alone)
    }

    /// Heights that the group remembers something of.
    #[cfg(test)]
    pub fn remembers(&self) -> usize {
        let flights = (self.flights.top() - self.flights.base()) as usize;
        flights + self.gathers.len() + self.executed.len() + self.executing.len() + self.committing.len()
    }

    /// The node is stopping: what was accepted here and nobody else can order is sealed without waiting for more, and other sealers are
    /// told not to wait for this one.
    pub fn leave(&mut self, now_ms: u64, outbox: &mut Outbox) {
        self.min_interval_ms = 0;
        if !self.others.is_empty() {
            self.advance(Input::Leaving, now_ms, outbox);
            self.settle(now_ms, outbox);
        }
    }

    /// Tells the engine whom it reaches, when that is not what it was last told.
    pub fn look_at_peers(&mut self, now_ms: u64, outbox: &mut Outbox) {
        let connected = self.peers.connected(self.ledger.id());
        if self.state != State::Running || self.reachable.as_ref() == Some(&connected) {
            return;
        }
        self.reachable = Some(connected.clone());
        self.advance(Input::Reachable(connected), now_ms, outbox);
        self.settle(now_ms, outbox);
    }

    pub fn start(&mut self, now_ms: u64, outbox: &mut Outbox) {
        self.look_at_epoch();
        outbox.out.push(Out::Execute(self.ledger.id(), ToExecute::Open(Arc::clone(&self.ledger))));
        let effects = self.engine.start(now_ms);
        self.carry_out(effects, now_ms, outbox);
        self.settle(now_ms, outbox);
        self.look_at_peers(now_ms, outbox);
    }

    pub fn on_wake(&mut self, now_ms: u64, outbox: &mut Outbox) {
        self.ledger.accept_wake();
        self.settle(now_ms, outbox);
    }

    pub fn on_frame(&mut self, from: NodeId, payload: Bytes, now_ms: u64, outbox: &mut Outbox) {
        if !self.refusals.listens_to(&from, now_ms) {
            return;
        }
        self.advance(Input::Frame { from, payload }, now_ms, outbox);
        self.settle(now_ms, outbox);
    }

    pub fn on_block(&mut self, block: Box<FinalBlock>, now_ms: u64, outbox: &mut Outbox) {
        self.advance(Input::Block(block), now_ms, outbox);
        self.settle(now_ms, outbox);
    }

    pub fn on_executed(&mut self, executed: Box<Executed>, now_ms: u64, outbox: &mut Outbox) {
        let (height, hash) = (executed.block.block.header.number, executed.block.block.hash);
        // A result of an execution that was made void meanwhile says nothing about what the height is now.
        if self.state != State::Running || self.executing.get(&height) != Some(&executed.run) {
            return;
        }
        let (header, next_epoch) = (Box::new(executed.block.block.header.clone()), executed.next_epoch.clone());
        self.executed.insert(height, executed);
        self.advance(Input::Executed { height, header, hash, next_epoch }, now_ms, outbox);
        self.settle(now_ms, outbox);
    }

    pub fn on_committed(&mut self, height: u64, now_ms: u64, outbox: &mut Outbox) {
        self.committing = self.committing.split_off(&(height + 1));
        self.executing = self.executing.split_off(&(height + 1));
        self.gathers = self.gathers.split_off(&(height + 1));
        self.flights.committed(height);
        self.advance(Input::Committed { height }, now_ms, outbox);
        self.settle(now_ms, outbox);
        self.let_go(outbox);
    }

    /// What is due by the clock.
    pub fn on_time(&mut self, now_ms: u64, outbox: &mut Outbox) {
        if self.engine.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            self.advance(Input::Tick, now_ms, outbox);
        }
        self.settle(now_ms, outbox);
    }

    /// A tick whatever the deadlines say: they mean nothing when the clock was set back.
    pub fn on_any_time(&mut self, now_ms: u64, outbox: &mut Outbox) {
        self.advance(Input::Tick, now_ms, outbox);
        self.settle(now_ms, outbox);
    }

    /// Orders nothing more for good; what is final already is committed.
    pub fn fail(&mut self, outbox: &mut Outbox) {
        let was_closing = self.state == State::Closing;
        self.state = State::Failed;
        self.forget_plans();
        self.committing.clear();
        if was_closing {
            self.state = State::Closing;
            self.let_go(outbox);
        }
    }

    /// Takes part no more, and lets go of the group once what is final is durable.
    pub fn close(&mut self, now_ms: u64, outbox: &mut Outbox) {
        match self.state {
            State::Running => {
                self.advance(Input::Leaving, now_ms, outbox);
                self.state = State::Closing;
                self.forget_plans();
                self.let_go(outbox);
            }
            State::Failed => {
                self.state = State::Closing;
                self.let_go(outbox);
            }
            State::Closing | State::LetGo => {}
        }
    }

    /// Whether the execute stage was told to let go of the group.
    pub fn has_let_go(&self) -> bool {
        self.state == State::LetGo
    }

    fn let_go(&mut self, outbox: &mut Outbox) {
        if self.state == State::Closing && self.committing.is_empty() {
            self.state = State::LetGo;
            outbox.out.push(Out::Execute(self.ledger.id(), ToExecute::Close(self.ledger.id())));
        }
    }

    fn forget_plans(&mut self) {
        self.wanted = None;
        (self.seal_due_ms, self.due_ms) = (None, None);
        self.gathers.clear();
        self.executed.clear();
        self.executing.clear();
    }

    fn advance(&mut self, input: Input, now_ms: u64, outbox: &mut Outbox) {
        if self.state == State::Running {
            let effects = self.engine.handle(input, now_ms);
            self.carry_out(effects, now_ms, outbox);
        }
    }

    /// The epoch may have changed: whom to broadcast to.
    fn look_at_epoch(&mut self) {
        let own = self.ledger.config().key.node_id();
        self.others = self.engine.status().sealers.into_iter().filter(|sealer| *sealer != own).collect();
    }

    /// Carries effects out in order; everything that leaves waits in the outbox.
    fn carry_out(&mut self, effects: Vec<Effect>, now_ms: u64, outbox: &mut Outbox) {
        self.is_changed = true;
        let group = self.ledger.id();
        for effect in effects {
            match effect {
                Effect::Record { height, body } => outbox.records.push((group, height, body)),
                Effect::Send { to, payload } => outbox.out.push(Out::Send { group, to, kind: PeerKind::Consensus, payload }),
                Effect::Broadcast(payload) => outbox.out.push(Out::Multicast { group, to: Arc::clone(&self.others), payload }),
                Effect::Seal { height, view, after_timestamp_ms, limit } => {
                    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_BLOCK_TRANSACTIONS);
                    self.replace_from(height, now_ms);
                    self.gathers.split_off(&height);
                    self.wanted = Some(Wanted { height, view, after_timestamp_ms, limit });
                }
                Effect::Gather { height, digest, hashes, holders } => self.gather(height, Gather::new(digest, hashes, holders), now_ms),
                Effect::Restore { height, transactions } => self.come_whole(height, &transactions, now_ms),
                Effect::Execute(proposal) => self.execute(proposal, now_ms, outbox),
                Effect::Finalize { height, signatures, .. } => {
                    let executed = self.executed.remove(&height).expect("only an executed height becomes final");
                    self.executing.remove(&height);
                    self.committing.insert(height);
                    let commit = seal(*executed, signatures);
                    outbox.out.push(Out::Commit(ToCommit { ledger: Arc::clone(&self.ledger), commit }));
                }
                Effect::Void { above } => self.void(above, now_ms, outbox),
                Effect::Refused { from, reason } => {
                    self.refusals.note(&self.ledger, &from, &reason, now_ms);
                    outbox.out.push(Out::Refused(self.ledger.id(), from, reason));
                }
                Effect::Evidence { offender, what, statements } => {
                    self.ledger.conduct().note_evidence(offender, &what, now_ms);
                    outbox.out.push(Out::Evidence(group, Case { offender, what, statements }));
                }
                Effect::Diverged { height, own, quorum } => {
                    self.ledger.halt(format!("block {height}: this node computed {own}, a quorum of sealers signed {quorum}"));
                    self.fail(outbox);
                    return;
                }
            }
        }
    }

    /// The height and those above get new content: what they reserved is available again.
    fn replace_from(&mut self, height: u64, now_ms: u64) {
        if self.flights.top() < height && self.gathers.range(height..).next().is_none() {
            return;
        }
        self.flights.forget_from(height);
        self.ledger.pool().void_above(height.saturating_sub(1), now_ms);
        self.gathers.range_mut(height..).for_each(|(_, gather)| gather.release());
    }

    fn gather(&mut self, height: u64, wish: Gather, now_ms: u64) {
        if height <= self.flights.base() {
            return;
        }
        assert!(height <= self.flights.base() + MAX_AHEAD, "the engine keeps its window");
        match self.gathers.get_mut(&height) {
            Some(known) if known.digest == wish.digest => known.add_holders(wish.into_holders()),
            known => {
                let is_replaced = known.is_some();
                self.gathers.remove(&height);
                if is_replaced || !self.flights.holds(height, &wish.hashes) {
                    self.replace_from(height, now_ms);
                }
                self.gathers.insert(height, wish);
            }
        }
    }

    /// The content of a height that did not come through this node's own proposals or gatherings: downloaded, or remembered by the vote
    /// log. It is reserved, and given to nodes that ask for it.
    fn come_whole(&mut self, height: u64, transactions: &[VerifiedTx], now_ms: u64) {
        let hashes: Vec<B256> = transactions.iter().map(VerifiedTx::hash).collect();
        if self.flights.holds(height, &hashes) {
            return;
        }
        self.replace_from(height, now_ms);
        if self.flights.is_next_to(height) {
            self.flights.put(height, transactions);
        }
        self.ledger.pool().claim(height, &hashes);
        self.ledger.pool().hold(height, transactions);
    }

    fn execute(&mut self, proposal: Box<Proposal>, now_ms: u64, outbox: &mut Outbox) {
        let (group, height) = (self.ledger.id(), proposal.header.height);
        self.gathers.remove(&height);
        self.come_whole(height, &proposal.transactions, now_ms);
        assert!(self.flights.top() >= height, "ordered heights are handed out without gaps");
        outbox.runs += 1;
        let run = outbox.runs;
        self.executing.insert(height, run);
        assert!(self.executing.len() as u64 <= MAX_AHEAD, "the engine keeps its window");
        outbox.out.push(Out::Execute(group, ToExecute::Run { group, run, proposal }));
    }

    fn void(&mut self, above: u64, now_ms: u64, outbox: &mut Outbox) {
        let group = self.ledger.id();
        self.wanted = self.wanted.filter(|wanted| wanted.height <= above);
        self.gathers.split_off(&(above + 1));
        self.executed.split_off(&(above + 1));
        self.executing.split_off(&(above + 1));
        self.flights.forget_from(above + 1);
        self.ledger.pool().void_above(above, now_ms);
        self.look_at_epoch();
        outbox.out.push(Out::Execute(group, ToExecute::Void { group, above }));
    }

    /// Goes on until the engine has nothing left to learn from this node itself, then asks others for what is missing.
    fn settle(&mut self, now_ms: u64, outbox: &mut Outbox) {
        let mut is_settled = false;
        for _ in 0..MAX_ROUNDS {
            if self.state != State::Running {
                return;
            }
            is_settled = !self.answer_gathers(now_ms, outbox) && !self.try_seal(now_ms, outbox) && !self.tell_pending(now_ms, outbox);
            if is_settled {
                break;
            }
        }
        self.ask_holders(now_ms, outbox);
        let asks = self.gathers.values().filter_map(Gather::ask_at_ms);
        let due_ms = [self.engine.deadline_ms(), self.seal_due_ms].into_iter().flatten().chain(asks).min();
        self.due_ms = if is_settled { due_ms } else { Some(now_ms) };
    }

    /// Answers the gatherings that are complete and whose heights below are known, lowest first. Whether any was answered.
    fn answer_gathers(&mut self, now_ms: u64, outbox: &mut Outbox) -> bool {
        let pool = self.ledger.pool();
        for (height, gather) in &mut self.gathers {
            gather.collect(*height, pool, now_ms);
        }
        let is_ready = |(height, gather): &(&u64, &Gather)| self.flights.is_next_to(**height) && gather.is_complete();
        let Some(height) = self.gathers.iter().find(is_ready).map(|(height, _)| *height) else { return false };
        let gather = self.gathers.remove(&height).expect("it was found above");
        let Some(transactions) = gather.complete() else { return false };
        let outcome = match self.judge(height, &gather.hashes, transactions) {
            // The engine will hear that the height is durable.
            None => return true,
            Some(outcome) => outcome,
        };
        self.advance(Input::Gathered { height, digest: gather.digest, outcome }, now_ms, outbox);
        true
    }

    fn judge(&mut self, height: u64, hashes: &[B256], transactions: Vec<VerifiedTx>) -> Option<Gathered> {
        if self.flights.holds(height, hashes) {
            return Some(Gathered::Complete(transactions));
        }
        let pool = self.ledger.pool();
        match pool.judge(height, &transactions, |nonce| self.flights.uses_below(height, nonce)) {
            Verdict::Passed => None,
            Verdict::Unfit(reason) => {
                let is_free = |transaction: &&VerifiedTx| !self.flights.uses_below(height, &transaction.fields().nonce);
                pool.give_back(&transactions.iter().filter(is_free).map(VerifiedTx::hash).collect::<Vec<_>>());
                Some(Gathered::Refused(reason))
            }
            Verdict::Fit => {
                self.flights.put(height, &transactions);
                Some(Gathered::Complete(transactions))
            }
        }
    }

    /// Fills the wanted proposal if the policy says so and everything below it is known. Whether it was filled.
    fn try_seal(&mut self, now_ms: u64, outbox: &mut Outbox) -> bool {
        self.seal_due_ms = None;
        // A clock that was set back must not hold proposals up.
        self.last_sealed_ms = self.last_sealed_ms.min(now_ms);
        let Some(wanted) = self.wanted.filter(|wanted| self.flights.is_next_to(wanted.height)) else { return false };
        // The block below tells when another sealer sealed it, unless its clock is ahead of ours.
        let below_ms = Some(wanted.after_timestamp_ms).filter(|sealed_ms| *sealed_ms <= now_ms);
        let view = SealerView {
            waiting: self.ledger.pool().waiting(),
            limit: wanted.limit,
            last_sealed_ms: self.last_sealed_ms.max(below_ms.unwrap_or_default()),
            in_flight: (wanted.height - 1 - self.flights.base()).saturating_sub(self.committing.len() as u64),
            min_interval_ms: self.min_interval_ms,
        };
        match decide(view, now_ms) {
            Decision::Idle => return false,
            Decision::WaitUntil(due_ms) => {
                self.seal_due_ms = Some(due_ms);
                return false;
            }
            Decision::Seal => {}
        }
        let Wanted { height, view, after_timestamp_ms, limit } = wanted;
        let transactions = self.ledger.pool().take_behind(height, limit, now_ms, |nonce| self.flights.uses_below(height, nonce));
        if transactions.is_empty() {
            return false;
        }
        self.flights.put(height, &transactions);
        self.wanted = None;
        self.last_sealed_ms = now_ms;
        let timestamp_ms = now_ms.max(after_timestamp_ms + 1);
        self.advance(Input::Sealed { height, view, timestamp_ms, transactions }, now_ms, outbox);
        true
    }

    /// Tells the engine when transactions begin or cease to wait. Whether it was told.
    fn tell_pending(&mut self, now_ms: u64, outbox: &mut Outbox) -> bool {
        let pending = self.ledger.pool().waiting() > 0;
        if pending == self.pending {
            return false;
        }
        self.pending = pending;
        self.advance(Input::Pending(pending), now_ms, outbox);
        true
    }

    fn ask_holders(&mut self, now_ms: u64, outbox: &mut Outbox) {
        let group = self.ledger.id();
        if self.gathers.values().all(|gather| gather.ask_at_ms().is_none()) {
            return;
        }
        let connected = self.peers.connected(group);
        for gather in self.gathers.values_mut() {
            let Some((to, messages)) = gather.ask(now_ms, &connected) else { continue };
            let send = |payload| Out::Send { group, to, kind: PeerKind::Transactions, payload };
            outbox.out.extend(messages.into_iter().map(send));
        }
    }

    /// Shows the engine's state to queries, when it changed and not too often.
    pub fn publish(&mut self, now_ms: u64) {
        if !self.is_changed || now_ms.abs_diff(self.published_ms) < PUBLISH_INTERVAL_MS {
            return;
        }
        (self.is_changed, self.published_ms) = (false, now_ms);
        let status = self.engine.status();
        if status != self.ledger.engine_status() {
            self.ledger.publish_engine(status);
        }
    }
}
