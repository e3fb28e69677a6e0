//! The library's state machine of one epoch, with its chance taken out of its hands.
//!
//! The library draws election timeouts from the operating system; each is replaced by one of ours ([`Ticks::draw`]) before it can have
//! an effect. Members are numbered by their place among the epoch's sealers, from 1. Configuration changes of the library are not used:
//! an epoch has one set of members, and the next epoch begins a log of its own.

use raft::{Config, ProgressState, RawNode, Ready, SnapshotStatus, StateRole};

use super::log::{Log, Promise};
use super::message::{Kind, RaftFrame};
use super::ticks::{ELECTION_TICKS, HEARTBEAT_TICKS, Ticks};

/// Entries of one message, bytes: some full blocks of hashes. A larger single entry still goes.
const MESSAGE_BYTES: u64 = 1 << 20;

/// Messages with entries that may be on their way to one member: two windows of proposals and some changes of the leader.
const IN_FLIGHT: usize = 64;

/// See the module.
pub struct Node {
    raw: RawNode<Log>,
    own: u64,
    timeout: u64,
    /// Term and role for which the timeout was drawn.
    drawn_for: (u64, StateRole),
}

/// The library's number of a sealer.
pub fn number_of(sealer: u32) -> u64 {
    u64::from(sealer) + 1
}

/// The sealer with the library's number, which is none of them for 0.
pub fn sealer_of(number: u64) -> Option<usize> {
    usize::try_from(number.checked_sub(1)?).ok()
}

impl Node {
    /// A member that continues with its log.
    ///
    /// # Errors
    /// When the log contradicts itself, in the library's words.
    pub fn new(sealer: u32, log: Log, ticks: &mut Ticks) -> Result<Self, String> {
        let own = number_of(sealer);
        let ticked = |ticks: u64| usize::try_from(ticks).expect("timeouts are small");
        let config = Config {
            id: own,
            election_tick: ticked(ELECTION_TICKS),
            heartbeat_tick: ticked(HEARTBEAT_TICKS),
            min_election_tick: ticked(ELECTION_TICKS),
            max_election_tick: ticked(ticks.longest() + 1),
            applied: log.base().index,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).map_err(|error| error.to_string())?;
        let drawn_for = (raw.raft.term, raw.raft.state);
        let mut node = Self { raw, own, timeout: ticks.draw(), drawn_for };
        node.keep_timeout(ticks);
        Ok(node)
    }

    /// A new timeout for a new term, role or attempt; whatever the library drew is replaced.
    fn keep_timeout(&mut self, ticks: &mut Ticks) {
        let now = (self.raw.raft.term, self.raw.raft.state);
        if now != self.drawn_for {
            self.drawn_for = now;
            self.timeout = ticks.draw();
        }
        self.raw.raft.set_randomized_election_timeout(usize::try_from(self.timeout).expect("timeouts are small"));
    }

    /// Takes a message of another member.
    pub fn step(&mut self, from: u32, frame: RaftFrame, ticks: &mut Ticks) {
        let voters = self.log().voters().to_vec();
        // Every kind that can be said is one that the library takes; what it does not want it drops.
        let _ = self.raw.step(frame.into_message(number_of(from), self.own, &voters));
        self.keep_timeout(ticks);
    }

    pub fn tick(&mut self, ticks: &mut Ticks) {
        let has_campaigned = self.raw.tick() && self.raw.raft.state != StateRole::Leader;
        if has_campaigned {
            // The next attempt must not meet those of others again.
            self.drawn_for = (self.raw.raft.term, self.raw.raft.state);
            self.timeout = ticks.draw();
        }
        self.keep_timeout(ticks);
    }

    /// Stands for election now.
    pub fn campaign(&mut self, ticks: &mut Ticks) {
        // An election that is not possible now comes with the next timeout.
        let _ = self.raw.campaign();
        self.keep_timeout(ticks);
    }

    /// Appends a proposal; `false` when this member does not lead.
    pub fn propose(&mut self, data: Vec<u8>) -> bool {
        self.raw.propose(Vec::new(), data).is_ok()
    }

    /// What is to be made durable and sent, if anything.
    pub fn ready(&mut self) -> Option<Ready> {
        self.raw.has_ready().then(|| self.raw.ready())
    }

    /// What was ready is recorded; what follows from it.
    pub fn advance(&mut self, ready: Ready) -> raft::LightReady {
        self.raw.advance(ready)
    }

    /// Members that wait for a snapshot are tried again: the message, or the answer to it, may be lost.
    pub fn repeat_snapshots(&mut self) {
        if !self.is_leader() {
            return;
        }
        let mut waiting: Vec<u64> =
            self.raw.raft.prs().iter().filter(|(_, progress)| progress.state == ProgressState::Snapshot).map(|(id, _)| *id).collect();
        waiting.sort_unstable();
        waiting.into_iter().for_each(|id| self.raw.report_snapshot(id, SnapshotStatus::Failure));
    }

    pub fn log(&self) -> &Log {
        self.raw.store()
    }

    pub fn log_mut(&mut self) -> &mut Log {
        self.raw.mut_store()
    }

    pub fn promise(&self) -> Promise {
        Promise { term: self.raw.raft.term, vote: self.raw.raft.vote }
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub fn is_campaigning(&self) -> bool {
        matches!(self.raw.raft.state, StateRole::Candidate | StateRole::PreCandidate)
    }

    /// Position among the sealers of the leader of the present term, if it is known.
    pub fn leader(&self) -> Option<usize> {
        sealer_of(self.raw.raft.leader_id)
    }

    /// Ticks until something is due.
    pub fn wait(&self) -> u64 {
        let raft = &self.raw.raft;
        let (elapsed, due) = match raft.state {
            StateRole::Leader => (raft.heartbeat_elapsed(), raft.heartbeat_timeout()),
            _ => (raft.election_elapsed, raft.randomized_election_timeout()),
        };
        due.saturating_sub(elapsed).max(1) as u64
    }

    /// Whether the library would look at the entries of this message, and not answer at once that they do not attach.
    pub fn takes(&self, frame: &RaftFrame) -> bool {
        frame.term >= self.term() && frame.index >= self.committed() && self.term_at(frame.index) == Some(frame.log_term)
    }

    /// Term of an entry that is in the log.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let log = self.log();
        if index == log.base().index { Some(log.base().term) } else { log.item(index).map(|item| item.term) }
    }

    /// Whether a message is one that this member's own past allows.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, frame: &RaftFrame) -> Result<(), Lost> {
        let (own, claimed) = (self.log().last(), frame.commit);
        let is_ours = frame.term >= self.term();
        match frame.kind {
            Kind::Heartbeat if is_ours && claimed > own => Err(Lost { own, claimed }),
            Kind::AppendResponse if self.is_leader() && frame.term == self.term() && !frame.is_rejected && frame.index > own => {
                Err(Lost { own, claimed: frame.index })
            }
            _ => Ok(()),
        }
    }
}

/// Somebody counts entries as acknowledged that one of the two logs does not have.
pub struct Lost {
    pub own: u64,
    pub claimed: u64,
}
