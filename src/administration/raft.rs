//! Raft: a leader's log orders the proposals, a majority's checkpoints make the executed blocks final. For sealers that may stop and
//! come back, never lie.
//!
//! ```text
//! height:  asked ──Sealed──> in the leader's log ──transactions at hand──> in a follower's log, durable
//!          durable at a majority ──> ordered ──Execute/Executed──> checkpoint signed
//!          checkpoints of a majority ──> final ──Committed──> durable
//! ```
//! The log, elections and their rules are in [`node`]; this module gives them time, messages and a durable log, and does with ordered
//! proposals what PBFT does. What it adds to the promises of a raft log:
//!
//! - **An acknowledged entry brings its transactions.** Entries carry hashes; a follower takes an entry only once it has the
//!   transactions, and records them with it ([`replicate`]). So a majority has them when the entry is ordered.
//! - **An epoch has a log of its own**, which begins empty behind the block that ended the epoch before, and whose members are that
//!   epoch's sealers. Every message names the epoch. It is safe without joint consensus: the old log orders one proposal for the last
//!   height, every node computes from it the same block and the same next epoch, and no correct node executes or signs anything above it
//!   under the old epoch, so nothing above it is final. A member enters the new log only with the signatures of a majority of the old
//!   epoch over that block; whoever missed it gets it from sync or from [`message::Message::Final`].
//! - **The chain stands for the log.** Entries of durable blocks are dropped, but for a window of them; a member that needs older ones
//!   gets the blocks from sync and then a snapshot that is nothing but a place in the log ([`log::Position`]).
//!
//! What it does not promise: a sealer whose data directory was lost or restored from a copy has not stopped, it has forgotten what it
//! acknowledged. It must be removed from the sealers and added again, which gives it an epoch it promised nothing in. Where a leader's
//! heartbeat shows the loss, the node takes no part until then and says so.

mod finality;
mod import;
mod log;
mod message;
mod node;
mod records;
mod repair;
mod replicate;
mod slot;
mod status;
mod ticks;

use std::collections::{BTreeMap, VecDeque};

use millrace_base::{B256, BlockHeader, Bytes, KeyPair, NodeId, keccak256};

use crate::digest::Domain;
use crate::engine::{Effect, Engine, EngineStatus, Gathered, Input};
use crate::epoch::Epoch;
use crate::finality::Finality;
use crate::pbft::certificate::Verifier;
use crate::pbft::early::Early;
use crate::pbft::import::Parked;
use crate::pbft::message::{Hash, contents_of};
use log::Position;
use message::Message;
use node::Node;
use records::Record;
use repair::Peer;
use replicate::Replication;
use slot::Slot;
use ticks::Ticks;

/// Shortest and longest time without a leader after which a sealer stands for election; heartbeats are a quarter of the shortest apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElectionTimes {
    /// `min_elect_time`, milliseconds.
    pub min_ms: u64,
    /// `max_elect_time`, milliseconds.
    pub max_ms: u64,
}

impl Default for ElectionTimes {
    /// As in 2.x.
    fn default() -> Self {
        Self { min_ms: 1_000, max_ms: 2_000 }
    }
}

/// What an engine starts from.
pub struct RaftConfig {
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
    /// What this node recorded above the head before a restart.
    pub records: Vec<Bytes>,
    /// Heights in flight, 1 to [`crate::pbft::MAX_WINDOW`].
    pub window: u64,
    /// Of the group's genesis.
    pub times: ElectionTimes,
}

/// The state machine of one group.
pub struct RaftEngine {
    domain: Domain,
    key: KeyPair,
    window: u64,
    epoch: Epoch,
    epoch_hash: Hash,
    /// This node's position among the sealers; none for an observer.
    own: Option<u32>,
    ticks: Ticks,
    next_heartbeat_ms: u64,
    /// The log of the epoch; none for an observer, and for a sealer that has lost it.
    node: Option<Node>,
    replication: Replication,
    /// Heights from which something is known besides the log, and a window of durable ones.
    slots: BTreeMap<u64, Slot>,
    /// Height and term of the proposal asked for.
    asked: Option<(u64, u64)>,
    next_to_execute: u64,
    final_height: u64,
    final_hash: B256,
    committed_height: u64,
    /// Timestamp of the last durable block, and the digest of what it holds.
    committed_contents: (u64, B256),
    /// Height whose execution ends the epoch; nothing above it is executed under it.
    epoch_ends_at: Option<u64>,
    parked: Parked,
    early: Early,
    /// Early messages whose time has come.
    replay: VecDeque<(NodeId, Bytes)>,
    peers: BTreeMap<NodeId, Peer>,
    last_refusal: String,
    /// Why this node does not take part in the epoch although it is a sealer of it.
    lost: Option<String>,
    is_pending: bool,
    is_halted: bool,
    records: Vec<Record>,
    next_number: u64,
    effects: Vec<Effect>,
}

impl RaftEngine {
    /// Continues behind the last durable block.
    pub fn new(config: RaftConfig) -> Self {
        let epoch_hash = config.epoch.digest().0;
        let head = config.head.number;
        // The log checks its own integrity; what does not decode is of an engine of another kind.
        let records: Vec<Record> = config.records.iter().filter_map(|body| Record::decode(body)).collect();
        let seed = keccak256([&config.key.node_id().0[..], config.domain.genesis.as_slice(), &head.to_be_bytes()].concat());
        let seed = u64::from_be_bytes(seed[..8].try_into().expect("a hash has 32 bytes"));
        let committed_contents = (config.head.timestamp_ms, contents_of(&config.domain, &config.head));
        let mut engine = Self {
            own: config.epoch.index_of(&config.key.node_id()),
            domain: config.domain,
            key: config.key,
            window: config.window.clamp(1, crate::pbft::MAX_WINDOW),
            epoch: config.epoch,
            epoch_hash,
            ticks: Ticks::new(config.times, seed),
            next_heartbeat_ms: 0,
            node: None,
            replication: Replication::default(),
            slots: BTreeMap::new(),
            asked: None,
            next_to_execute: head + 1,
            final_height: head,
            final_hash: config.head_hash,
            committed_height: head,
            committed_contents,
            epoch_ends_at: None,
            parked: Parked::default(),
            early: Early::default(),
            replay: VecDeque::new(),
            peers: BTreeMap::new(),
            last_refusal: String::new(),
            lost: None,
            is_pending: false,
            is_halted: false,
            next_number: records::next_number(&records),
            records,
            effects: Vec::new(),
        };
        engine.enter_log(false);
        engine
    }

    /// Continues the log of the epoch with what this node recorded of it; `leads` where it should stand for election at once.
    fn enter_log(&mut self, leads: bool) {
        self.replication = Replication::default();
        self.node = None;
        self.lost = None;
        let Some(own) = self.own else { return };
        let height = self.epoch.start.saturating_sub(1);
        let contents = (height == self.committed_height).then_some(self.committed_contents.1.0);
        let fresh = Position { index: 0, term: 0, height, contents };
        let (log, promise) = records::restore(&self.records, self.epoch_hash, fresh, &self.domain);
        self.replication.promised = promise;
        let own_epoch = self.epoch_hash;
        self.records.retain(|record| record.epoch() != own_epoch);
        let end = log.end().height;
        let mut node = Node::new(own, self.epoch.sealers.len(), (log, promise), &mut self.ticks);
        if leads || self.epoch.sealers.len() == 1 {
            node.campaign(&mut self.ticks);
        }
        self.node = Some(node);
        self.reserve_log(end);
    }

    /// Highest height that messages are taken for: others may be a window ahead.
    fn last_tracked(&self) -> u64 {
        self.committed_height.saturating_add(2 * self.window)
    }

    fn verifier(&self) -> Verifier<'_> {
        Verifier { domain: &self.domain, epoch: &self.epoch, epoch_hash: self.epoch_hash }
    }

    fn refuse(&mut self, from: NodeId, reason: String) {
        self.last_refusal = format!("{}: {reason}", short(&from));
        self.effects.push(Effect::Refused { from, reason });
    }

    fn record(&mut self, height: u64, record: &Record) {
        self.next_number += 1;
        self.effects.push(Effect::Record { height, body: record.encode() });
    }

    fn broadcast(&mut self, message: &Message) {
        if self.epoch.sealers.len() > 1 {
            self.effects.push(Effect::Broadcast(message.encode()));
        }
    }

    fn on_frame(&mut self, from: NodeId, bytes: &Bytes) {
        match Message::decode(bytes) {
            Ok(Message::Raft(epoch, _, frame)) if epoch == self.epoch_hash => self.on_raft(from, frame),
            // Of an epoch that this node has not reached.
            Ok(Message::Raft(_, start, _)) if start > self.epoch.start => self.early.keep(from, bytes.clone()),
            Ok(Message::Raft(..)) => {}
            Ok(Message::Checkpoint(vote)) => self.on_checkpoint(from, vote, bytes),
            Ok(Message::Final(stable)) => self.on_final(from, &stable),
            Ok(Message::Status(status)) => self.on_status(from, &status),
            Err(reason) => self.refuse(from, reason),
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Frame { from, payload } => self.on_frame(from, &payload),
            Input::Sealed { height, view, timestamp_ms, transactions } => self.on_sealed((height, view), timestamp_ms, transactions),
            Input::Gathered { height, digest, outcome: Gathered::Complete(transactions) } => self.on_gathered(height, digest, transactions),
            Input::Gathered { height, digest, outcome: Gathered::Refused(reason) } => self.on_refused(height, digest, &reason),
            Input::Executed { height, header, hash, next_epoch } => self.on_executed(height, (*header, hash), next_epoch),
            Input::Committed { height } => self.on_committed(height),
            Input::Block(block) => self.on_block(*block),
            Input::Pending(is_pending) => self.is_pending = is_pending,
            // An election takes less time than there is to win by knowing: the others ask for votes when they have heard nothing.
            Input::Reachable(_) | Input::Leaving | Input::Tick => {}
        }
    }

    /// Takes every step that is possible now.
    fn settle(&mut self) {
        loop {
            let mut has_moved = self.take_held();
            has_moved |= self.carry_out();
            has_moved |= self.release_unused();
            has_moved |= self.import_parked();
            self.execute_ordered();
            has_moved |= self.finalize_executed();
            // Each frame was kept once and is read once; entering an epoch is the only way to more of them.
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

    fn run_timers(&mut self, passed: u64) {
        for _ in 0..passed {
            if let Some(node) = &mut self.node {
                node.tick(&mut self.ticks);
            }
        }
        if self.own.is_some() && self.epoch.sealers.len() > 1 && self.ticks.now_ms() >= self.next_heartbeat_ms {
            self.on_heartbeat();
        }
    }
}

impl Engine for RaftEngine {
    fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        if self.is_halted {
            return Vec::new();
        }
        let passed = self.ticks.advance(now_ms);
        // What has come is heard before anybody is given up for having said nothing.
        self.take(input);
        if !self.is_halted {
            self.settle();
        }
        if !self.is_halted {
            self.run_timers(passed);
            self.settle();
        }
        std::mem::take(&mut self.effects)
    }

    fn start(&mut self, now_ms: u64) -> Vec<Effect> {
        self.handle(Input::Tick, now_ms)
    }

    fn deadline_ms(&self) -> Option<u64> {
        // A lone sealer leads from the start and waits for nobody; an observer hears of blocks from sync.
        if self.is_halted || self.own.is_none() || self.epoch.sealers.len() == 1 {
            return None;
        }
        Some(self.ticks.outer_after(self.node.as_ref().map_or(u64::MAX, Node::wait)))
    }

    fn status(&self) -> EngineStatus {
        self.describe()
    }
}

/// The first digits of a node's id.
fn short(node: &NodeId) -> String {
    millrace_base::hex::encode(&node.0[..4])
}

#[cfg(test)]
#[path = "raft/tests.rs"]
mod tests;
