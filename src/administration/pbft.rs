//! PBFT over a window of heights: prepare and commit order a proposal, a checkpoint makes the executed block final.
//!
//! ```text
//! height:  asked ──Sealed──> proposed ──transactions at hand──> prepared by us ──quorum of prepares──> committed by us
//!          committed by us ──quorum of commits──> ordered ──Execute/Executed──> checkpoint signed
//!          checkpoint signed ──quorum of equal checkpoints──> final ──Committed──> durable
//! ```
//! Several heights are between "asked" and "final" at once (the window), so ordering a height overlaps execution and commit of those
//! below it. Ordered heights are executed, and become final, strictly in height order.
//!
//! Why it is safe, with at most f of n faulty: within a view an honest sealer votes once a height, and two quorums of n − f share an
//! honest one. Across views, whatever a quorum committed was first recorded as a certificate by each of them, and every new view
//! is made of a quorum of view changes that carry those certificates. Promises outlive restarts because they are in the vote log
//! before anything that rests on them leaves. The parts: [`order`] one view, [`view_change`] and [`certificate`] from view to view,
//! [`finality`] from ordered to durable, [`import`] blocks from sync, [`repair`] lost messages, [`reach`] lost sealers, [`records`] restarts.
//!
//! One sealer is a real quorum of one and goes through every step above, without certificates: after a restart it begins a view it
//! never voted in.

pub(crate) mod certificate;
pub(crate) mod early;
mod finality;
pub(crate) mod import;
pub(crate) mod message;
mod order;
mod reach;
pub(crate) mod records;
mod repair;
pub(crate) mod signing;
pub(crate) mod slot;
mod status;
mod timer;
mod view_change;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, KeyPair, NodeId, wire};

use crate::digest::Domain;
use crate::engine::{Effect, Engine, EngineStatus, Input};
use crate::epoch::Epoch;
use crate::finality::Finality;
use certificate::Verifier;
use early::Early;
use import::Parked;
use message::{Content, Hash, Message, Stable, VoteKind, contents_of};
use reach::Reach;
use records::{Memory, Promises, Record};
use repair::Peer;
use slot::{Slot, Standing};
use timer::Timer;
use view_change::{Changing, Views};

/// Heights that may be in flight above the last durable one. Enough for ordering, execution and commit to overlap with a spare each;
/// more would only lengthen the queue that an epoch change throws away.
pub const WINDOW: u64 = 8;

/// Widest window an engine accepts; bounds the certificates in a view change.
pub const MAX_WINDOW: u64 = 32;

/// How far a proposed timestamp may lie ahead of this node's clock, milliseconds.
pub const MAX_AHEAD_MS: u64 = 10 * 60 * 1_000;

/// Contradictions reported in one epoch: beyond that there is nothing to learn.
const MAX_EVIDENCE: usize = 256;

/// What an engine starts from.
pub struct PbftConfig {
    /// Covered by every digest.
    pub domain: Domain,
    /// This node's key; its public key is its identity among the sealers.
    pub key: KeyPair,
    /// The epoch that governs the next height. Its start must be the same at every node.
    pub epoch: Epoch,
    /// Header of the last durable block.
    pub head: BlockHeader,
    /// Its hash.
    pub head_hash: B256,
    /// Its signatures; view changes prove with them how far this node is. Empty for block 0.
    pub head_signatures: Vec<BlockSignature>,
    /// What this node recorded above the head before a restart, oldest first.
    pub records: Vec<Bytes>,
    /// Heights in flight: [`WINDOW`], or 1 to [`MAX_WINDOW`] in experiments.
    pub window: u64,
    /// Usually [`MAX_AHEAD_MS`].
    pub max_ahead_ms: u64,
}

/// The state machine of one group.
pub struct PbftEngine {
    domain: Domain,
    key: KeyPair,
    window: u64,
    max_ahead_ms: u64,
    epoch: Epoch,
    epoch_hash: Hash,
    /// This node's position among the sealers; none for an observer.
    own: Option<u32>,
    timer: Timer,
    next_heartbeat_ms: u64,
    /// View whose start is proven.
    view: u64,
    changing: Option<Changing>,
    views: Views,
    /// Last height for which the present view proposes nothing any more.
    base: u64,
    promises: Promises,
    /// Heights in flight, and a window of durable ones.
    slots: BTreeMap<u64, Slot>,
    /// Height and view of the proposal asked for.
    asked: Option<(u64, u64)>,
    next_to_execute: u64,
    final_height: u64,
    final_hash: B256,
    committed_height: u64,
    /// Timestamp of the last durable block, and the digest of what it holds.
    committed_contents: (u64, B256),
    /// Height whose execution ends the epoch; nothing above it is executed under it.
    epoch_ends_at: Option<u64>,
    /// The epoch that begins once this height is durable.
    next_epoch: Option<(u64, Epoch)>,
    /// Proof of the last final block of the epoch.
    stable: Option<(u64, Stable)>,
    is_pending: bool,
    parked: Parked,
    early: Early,
    /// Early messages whose time has come.
    replay: VecDeque<(NodeId, Bytes)>,
    peers: BTreeMap<NodeId, Peer>,
    reach: Reach,
    evidence: BTreeSet<(u32, u64, u64, VoteKind)>,
    last_refusal: String,
    is_halted: bool,
    /// Records of before the restart; those of a later epoch count when it begins.
    records: Vec<Record>,
    /// What the present turn wants done.
    effects: Vec<Effect>,
}

impl PbftEngine {
    /// A machine that continues behind the durable head.
    ///
    /// # Panics
    /// When the head's signatures are missing although it belongs to an epoch of several sealers: this node could not prove how far it
    /// is, and a view would begin below what is final.
    pub fn new(config: PbftConfig) -> Self {
        let epoch_hash = config.epoch.digest().0;
        let head = config.head.number;
        // The log checks its own integrity; what does not decode is of an engine of another kind.
        let records: Vec<Record> = config.records.iter().filter_map(|body| wire::decode(body).ok()).collect();
        let needs_proof = head >= config.epoch.start && head > 0 && config.epoch.quorum() > 1;
        assert!(!needs_proof || !config.head_signatures.is_empty(), "the signatures of block {head} are missing");
        let has_stable = head >= config.epoch.start && !config.head_signatures.is_empty();
        let stable = has_stable.then(|| (head, Stable { header: config.head.encode_rlp(), signatures: config.head_signatures.clone() }));
        let memory = Memory::of(&records, epoch_hash, head, &config.domain);
        let committed_contents = (config.head.timestamp_ms, contents_of(&config.domain, &config.head));
        let mut engine = Self {
            own: config.epoch.index_of(&config.key.node_id()),
            domain: config.domain,
            key: config.key,
            window: config.window.clamp(1, MAX_WINDOW),
            max_ahead_ms: config.max_ahead_ms,
            base: config.epoch.start.saturating_sub(1),
            epoch: config.epoch,
            epoch_hash,
            timer: Timer::default(),
            next_heartbeat_ms: 0,
            view: 0,
            changing: None,
            views: Views::default(),
            promises: Promises::default(),
            slots: BTreeMap::new(),
            asked: None,
            next_to_execute: head + 1,
            final_height: head,
            final_hash: config.head_hash,
            committed_height: head,
            committed_contents,
            epoch_ends_at: None,
            next_epoch: None,
            stable,
            is_pending: false,
            parked: Parked::default(),
            early: Early::default(),
            replay: VecDeque::new(),
            peers: BTreeMap::new(),
            reach: Reach::default(),
            evidence: BTreeSet::new(),
            last_refusal: String::new(),
            is_halted: false,
            records,
            effects: Vec::new(),
        };
        engine.resume(memory);
        engine
    }

    /// Continues an epoch with what this node said in it before a restart.
    fn resume(&mut self, memory: Memory) {
        self.promises = memory.promises;
        if self.quorum() <= 1 {
            // Nothing a lone sealer said left the node before its block was durable: it begins a view it never voted in.
            self.view = if memory.is_fresh { 0 } else { self.promises.floor + 1 };
            self.promises = Promises::default();
            return;
        }
        let floor = self.promises.floor;
        if let Some(new_view) = memory.new_view {
            self.stand_in(new_view);
            self.remember_passed_over();
        }
        self.changing = (floor > self.view).then_some(Changing { to: floor, own: None, resend: (1, 1) });
        for (height, prepared) in memory.prepared {
            let transactions = prepared.transactions.clone();
            let slot = self.slots.entry(height).or_default();
            slot.logged = Some(prepared.digest);
            // What was accepted in the present view stands; a view that is still to come says itself what is proposed.
            if floor == self.view && prepared.certificate.view == floor {
                let (brief, view) = (prepared.certificate.brief, prepared.certificate.view);
                let mut frame = None;
                for (sealer, kind, signature) in &prepared.certificate.signers {
                    let (sealer, kind, signature) = (*sealer, *kind, *signature);
                    let (epoch, subject) = (brief.epoch, prepared.digest.0);
                    let vote = message::Vote { kind, epoch, height, view, subject, sealer, signature };
                    slot.votes.insert_valid(vote);
                    // Its leader may have lost it: it was not prepared there.
                    if kind == VoteKind::Propose {
                        frame = Some(Message::Propose(vote, Content::from(&prepared.header)).encode());
                    }
                }
                slot.prepared = Some(prepared);
                let digest = slot.prepared.as_ref().map(|prepared| prepared.digest).expect("just set");
                slot.adopt(digest, Standing::Linked);
                slot.frame = frame;
                (slot.is_gathering, slot.is_reserved) = (true, true);
            } else {
                slot.prepared = Some(prepared);
            }
            self.effects.push(Effect::Restore { height, transactions });
        }
        self.propose_planned();
        if self.promises.pending_change().is_some() {
            self.say_change();
        }
    }

    fn quorum(&self) -> usize {
        self.epoch.quorum()
    }

    /// Highest height that messages are taken for: others may be a window ahead.
    fn last_tracked(&self) -> u64 {
        self.committed_height.saturating_add(2 * self.window)
    }

    fn verifier(&self) -> Verifier<'_> {
        Verifier { domain: &self.domain, epoch: &self.epoch, epoch_hash: self.epoch_hash }
    }

    fn refuse(&mut self, from: NodeId, reason: String) {
        self.last_refusal = format!("{}: {reason}", millrace_base::hex::encode(&from.0[..4]));
        self.effects.push(Effect::Refused { from, reason });
    }

    fn on_frame(&mut self, from: NodeId, frame: &Bytes) {
        match Message::decode(frame) {
            Ok(Message::Propose(vote, content)) => self.on_propose(from, vote, content, frame),
            Ok(Message::Vote(vote)) => self.on_vote(from, vote, frame),
            Ok(Message::Votes(votes)) => self.on_votes(from, &votes),
            Ok(Message::ViewChange(change)) => self.on_view_change(from, change),
            Ok(Message::NewView(new_view)) => self.on_new_view(from, new_view),
            Ok(Message::Fetch(height, digest)) => self.on_fetch(from, height, digest),
            Ok(Message::Content(content)) => self.on_content(content),
            Ok(Message::Status(status)) => self.on_status(from, &status),
            Ok(Message::Gone(epoch, gone)) => self.on_gone(from, epoch, gone),
            Ok(Message::Pass(epoch, view, height)) => self.on_pass(from, epoch, (view, height)),
            Err(reason) => self.refuse(from, reason),
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Frame { from, payload } => self.on_frame(from, &payload),
            Input::Sealed { height, view, timestamp_ms, transactions } => self.on_sealed((height, view), timestamp_ms, transactions),
            Input::Gathered { height, digest, outcome } => self.on_gathered(height, digest, outcome),
            Input::Executed { height, header, hash, next_epoch } => self.on_executed(height, (*header, hash), next_epoch),
            Input::Committed { height } => self.on_committed(height),
            Input::Block(block) => self.on_block(*block),
            Input::Pending(is_pending) => self.is_pending = is_pending,
            Input::Reachable(nodes) => self.on_reachable(nodes),
            Input::Leaving => self.on_leaving(),
            Input::Tick => {}
        }
    }

    /// Takes every step that is possible now.
    fn settle(&mut self) {
        loop {
            self.begin_view();
            self.order_heights();
            let mut has_moved = self.import_parked();
            self.execute_ordered();
            has_moved |= self.finalize_executed();
            // Each frame was kept once and is read once; entering a view or an epoch is the only way to more of them.
            while let Some((from, frame)) = self.replay.pop_front() {
                self.on_frame(from, &frame);
                has_moved = true;
            }
            if !has_moved || self.is_halted {
                break;
            }
        }
        if !self.is_halted {
            self.ask_for_proposal();
        }
    }

    fn run_timers(&mut self) {
        self.tell_gone();
        self.tell_pass();
        self.timer.wait(self.is_waiting());
        let now_ms = self.timer.now_ms();
        if self.leave_the_gone() {
            self.settle();
        }
        if self.timer.due_ms(self.patience_ms()).is_some_and(|due| now_ms >= due) {
            self.on_timeout();
            self.settle();
        }
        if self.heartbeat_due_ms().is_some_and(|due| now_ms >= due) {
            self.on_heartbeat();
        }
    }
}

impl Engine for PbftEngine {
    fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        if self.is_halted {
            return Vec::new();
        }
        self.timer.advance(now_ms);
        self.take(input);
        if !self.is_halted {
            self.settle();
        }
        if !self.is_halted {
            self.run_timers();
        }
        std::mem::take(&mut self.effects)
    }

    fn start(&mut self, now_ms: u64) -> Vec<Effect> {
        self.handle(Input::Tick, now_ms)
    }

    fn deadline_ms(&self) -> Option<u64> {
        if self.is_halted {
            return None;
        }
        let timeout = self.timer.due_ms(self.patience_ms());
        [timeout, self.heartbeat_due_ms(), self.gone_due_ms(), self.pass_due_ms()]
            .into_iter()
            .flatten()
            .min()
            .map(|due| self.timer.outer_at(due))
    }

    fn status(&self) -> EngineStatus {
        self.describe()
    }
}

#[cfg(test)]
#[path = "pbft/tests.rs"]
pub(crate) mod tests;
