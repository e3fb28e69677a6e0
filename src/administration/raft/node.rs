//! The raft state machine of one member in one epoch: terms, votes, the leader's log at all members, what of it is ordered.
//!
//! As in Ongaro's thesis, with these parts: pre-vote (who was cut off does not raise the term), check-quorum (a leader that hears of no
//! majority for the shortest election timeout steps down, and members that hear a leader do not vote for another), entries sent ahead
//! of their acknowledgement, and a place in the log for members whose entries are dropped. Members do not change: an epoch has one set
//! of them, and the next epoch begins a log of its own.
//!
//! It keeps no clock and draws no chance: ticks and timeouts come from [`Ticks`]. Everything it says waits in [`Work`] until the caller
//! has recorded it, so what it appends and promises counts as durable at once. Members are named by their place among the sealers. The
//! parts: here time and roles, [`answer`] what a member says to messages, [`lead`] what a leader sends.

mod answer;
mod lead;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use millrace_base::Bytes;

use super::log::{Item, Log, Promise};
use super::message::{Kind, RaftFrame, WireEntry};
use super::ticks::{ELECTION_TICKS, HEARTBEAT_TICKS, Ticks};

/// ```text
/// Follower ──timeout──> PreCandidate ──a majority would vote──> Candidate ──a majority votes──> Leader
///    ^──── a leader is heard, a majority refuses, a higher term ────┴──────────────┴── no majority is heard ──┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// How a leader sends to one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// One message at a time, until it is known where the logs agree; whether it waits for the answer to one.
    Probe { waits: bool },
    /// Ahead of the answers.
    Stream,
    /// Its entries are dropped; it was given the place in the log with this index.
    Placed(u64),
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug)]
struct Progress {
    matched: u64,
    next: u64,
    pace: Pace,
    /// Heard since the last look.
    is_active: bool,
}

/// What follows from what a member was told, in this order.
pub struct Work {
    /// The log begins anew at its base.
    pub is_replaced: bool,
    /// New entries, to be completed and recorded; empty when there are none.
    pub appended: RangeInclusive<u64>,
    /// To whom and what.
    pub messages: Vec<(u32, RaftFrame)>,
    /// Entries that are ordered now.
    pub ordered: RangeInclusive<u64>,
}

/// See the module.
pub struct Node {
    own: u32,
    members: usize,
    log: Log,
    term: u64,
    vote: Option<u32>,
    role: Role,
    leader: Option<u32>,
    commit: u64,
    /// Ticks since a leader was heard, or since a leader last looked whether it is.
    election_elapsed: u64,
    heartbeat_elapsed: u64,
    timeout: u64,
    /// Answers to this member's candidature.
    votes: BTreeMap<u32, bool>,
    progress: BTreeMap<u32, Progress>,
    /// Last promise, lowest new entry, and highest ordered entry that the caller has taken note of.
    told_promise: Promise,
    appended_from: Option<u64>,
    ordered: u64,
    is_replaced: bool,
    messages: Vec<(u32, RaftFrame)>,
}

/// Somebody counts entries as acknowledged that one of the two logs does not have.
pub struct Lost {
    pub own: u64,
    pub claimed: u64,
}

impl Node {
    /// A member that continues with its log and its promise.
    pub fn new(own: u32, members: usize, (log, promise): (Log, Promise), ticks: &mut Ticks) -> Self {
        let commit = log.base().index;
        Self {
            own,
            members,
            log,
            term: promise.term,
            vote: promise.vote,
            role: Role::Follower,
            leader: None,
            commit,
            election_elapsed: 0,
            heartbeat_elapsed: 0,
            timeout: ticks.draw(),
            votes: BTreeMap::new(),
            progress: BTreeMap::new(),
            told_promise: promise,
            appended_from: None,
            ordered: commit,
            is_replaced: false,
            messages: Vec::new(),
        }
    }

    // ---- what the engine asks

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub fn promise(&self) -> Promise {
        Promise { term: self.term, vote: self.vote }
    }

    pub fn term(&self) -> u64 {
        self.term
    }

    /// Everything up to this entry is ordered.
    pub fn committed(&self) -> u64 {
        self.commit
    }

    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    pub fn is_campaigning(&self) -> bool {
        matches!(self.role, Role::PreCandidate | Role::Candidate)
    }

    /// The leader of the present term, if it is known.
    pub fn leader(&self) -> Option<usize> {
        self.leader.map(|leader| leader as usize)
    }

    /// Ticks until something is due.
    pub fn wait(&self) -> u64 {
        match self.role {
            Role::Leader => HEARTBEAT_TICKS.saturating_sub(self.heartbeat_elapsed),
            _ => self.timeout.saturating_sub(self.election_elapsed),
        }
    }

    /// Whether the entries of this message would be looked at, and it is not answered at once that they do not attach.
    pub fn takes(&self, frame: &RaftFrame) -> bool {
        frame.term >= self.term && frame.index >= self.commit && self.log.term_at(frame.index) == Some(frame.log_term)
    }

    /// Whether a message is one that this member's own past allows.
    ///
    /// # Errors
    /// When entries were acknowledged that one of the two logs does not have.
    pub fn check(&self, frame: &RaftFrame) -> Result<(), Lost> {
        let own = self.log.last();
        let claimed = match frame.kind {
            Kind::Heartbeat if frame.term >= self.term => frame.commit,
            Kind::AppendResponse if self.is_leader() && frame.term == self.term && !frame.is_rejected => frame.index,
            _ => 0,
        };
        if claimed > own { Err(Lost { own, claimed }) } else { Ok(()) }
    }

    /// What is to be recorded, sent and ordered, if anything.
    pub fn take_work(&mut self) -> Option<Work> {
        let promise = self.promise();
        let is_idle = promise == self.told_promise && self.appended_from.is_none() && self.messages.is_empty();
        if is_idle && self.ordered == self.commit && !self.is_replaced {
            return None;
        }
        self.told_promise = promise;
        let first = self.appended_from.take().unwrap_or(self.log.last() + 1);
        let ordered = self.ordered + 1..=self.commit;
        self.ordered = self.commit;
        Some(Work {
            is_replaced: std::mem::take(&mut self.is_replaced),
            appended: first..=self.log.last(),
            messages: std::mem::take(&mut self.messages),
            ordered,
        })
    }

    // ---- time

    pub fn tick(&mut self, ticks: &mut Ticks) {
        self.election_elapsed += 1;
        if self.role != Role::Leader {
            if self.election_elapsed >= self.timeout {
                self.campaign(ticks);
            }
            return;
        }
        self.heartbeat_elapsed += 1;
        if self.election_elapsed >= ELECTION_TICKS {
            self.election_elapsed = 0;
            self.look_for_majority();
        }
        if self.role == Role::Leader && self.heartbeat_elapsed >= HEARTBEAT_TICKS {
            self.heartbeat_elapsed = 0;
            for to in self.others() {
                // No more than it has: what it lacks comes with entries.
                let commit = self.commit.min(self.progress[&to].matched);
                self.messages.push((to, RaftFrame { commit, ..RaftFrame::new(Kind::Heartbeat, self.term) }));
            }
        }
    }

    /// A leader that hears of no majority may be replaced already.
    fn look_for_majority(&mut self) {
        let heard = 1 + self.progress.values().filter(|progress| progress.is_active).count();
        self.progress.values_mut().for_each(|progress| progress.is_active = false);
        if heard < self.majority() {
            self.follow(self.term, None);
        }
    }

    /// Asks whether an election would be won; the next attempt must not meet those of others again.
    pub fn campaign(&mut self, ticks: &mut Ticks) {
        if self.role == Role::Leader {
            return;
        }
        self.election_elapsed = 0;
        self.timeout = ticks.draw();
        (self.role, self.leader) = (Role::PreCandidate, None);
        self.ask(Kind::RequestPreVote, self.term + 1);
    }

    fn ask(&mut self, kind: Kind, term: u64) {
        self.votes = BTreeMap::from([(self.own, true)]);
        let (index, log_term) = (self.log.last(), self.last_term());
        for to in self.others() {
            self.messages.push((to, RaftFrame { index, log_term, ..RaftFrame::new(kind, term) }));
        }
        self.count();
    }

    // ---- roles

    fn others(&self) -> Vec<u32> {
        (0..self.members as u32).filter(|member| *member != self.own).collect()
    }

    fn majority(&self) -> usize {
        self.members / 2 + 1
    }

    fn last_term(&self) -> u64 {
        self.log.term_at(self.log.last()).unwrap_or(0)
    }

    fn follow(&mut self, term: u64, leader: Option<u32>) {
        if term != self.term {
            (self.term, self.vote) = (term, None);
        }
        (self.role, self.leader) = (Role::Follower, leader);
        self.election_elapsed = 0;
        self.votes.clear();
        self.progress.clear();
    }

    /// Goes on where the votes have decided.
    fn count(&mut self) {
        let granted = self.votes.values().filter(|granted| **granted).count();
        let refused = self.votes.len() - granted;
        match self.role {
            Role::PreCandidate if granted >= self.majority() => {
                (self.term, self.vote, self.role) = (self.term + 1, Some(self.own), Role::Candidate);
                self.ask(Kind::RequestVote, self.term);
            }
            Role::Candidate if granted >= self.majority() => self.lead(),
            // Whoever is left cannot make a majority.
            Role::PreCandidate | Role::Candidate if refused > self.members - self.majority() => self.follow(self.term, None),
            _ => {}
        }
    }

    fn lead(&mut self) {
        (self.role, self.leader) = (Role::Leader, Some(self.own));
        (self.election_elapsed, self.heartbeat_elapsed) = (0, 0);
        self.votes.clear();
        let progress = Progress { matched: 0, next: self.log.last() + 1, pace: Pace::Probe { waits: false }, is_active: true };
        self.progress = self.others().into_iter().map(|member| (member, progress)).collect();
        // Entries of earlier terms are ordered by one of the own term only.
        self.put(Vec::new());
    }

    /// Appends an entry as the leader.
    fn put(&mut self, data: Vec<u8>) {
        let index = self.log.last() + 1;
        self.append_at(index, WireEntry { term: self.term, data });
        self.order();
        self.others().into_iter().for_each(|to| self.send_entries(to));
    }

    fn append_at(&mut self, index: u64, entry: WireEntry) {
        self.log.put(index, Item { term: entry.term, data: Bytes::from(entry.data), placed: None, kept_to: 0 });
        self.appended_from = Some(self.appended_from.map_or(index, |first| first.min(index)));
    }

    /// Appends a proposal; `false` when this member does not lead.
    pub fn propose(&mut self, data: Vec<u8>) -> bool {
        if self.role == Role::Leader {
            self.put(data);
        }
        self.role == Role::Leader
    }

    /// What a majority has is ordered, if an entry of the own term is.
    fn order(&mut self) -> bool {
        let mut matched: Vec<u64> = self.progress.values().map(|progress| progress.matched).chain([self.log.last()]).collect();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let index = matched[self.majority() - 1];
        let is_new = index > self.commit && self.log.term_at(index) == Some(self.term);
        if is_new {
            self.commit = index;
        }
        is_new
    }
}
