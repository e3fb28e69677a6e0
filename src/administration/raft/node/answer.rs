//! What a member answers to the messages of others: terms first, then by its role.

use super::super::message::{Kind, RaftFrame};
use super::super::ticks::ELECTION_TICKS;
use super::{Node, Role};

impl Node {
    /// Takes a message of another member.
    pub fn step(&mut self, from: u32, frame: RaftFrame) {
        if frame.term > self.term {
            let asks = matches!(frame.kind, Kind::RequestVote | Kind::RequestPreVote);
            // Who hears a leader does not help to replace it.
            if asks && self.leader.is_some() && self.election_elapsed < ELECTION_TICKS {
                return;
            }
            match frame.kind {
                Kind::RequestPreVote => {}
                Kind::RequestPreVoteResponse if !frame.is_rejected => {}
                Kind::Append | Kind::Heartbeat | Kind::Snapshot => self.follow(frame.term, Some(from)),
                _ => self.follow(frame.term, None),
            }
        } else if frame.term < self.term {
            return self.answer_the_past(from, frame.kind);
        }
        match frame.kind {
            Kind::RequestVote | Kind::RequestPreVote => self.on_request(from, &frame),
            Kind::RequestVoteResponse | Kind::RequestPreVoteResponse => self.on_vote(from, &frame),
            Kind::Append | Kind::Heartbeat | Kind::Snapshot if self.role != Role::Leader => self.on_leader(from, frame),
            Kind::AppendResponse | Kind::HeartbeatResponse if self.role == Role::Leader => self.on_answer(from, &frame),
            _ => {}
        }
    }

    /// A leader of an earlier term hears that it is one; who asks for a pre-vote there, that the term is over.
    fn answer_the_past(&mut self, to: u32, kind: Kind) {
        match kind {
            Kind::Append | Kind::Heartbeat | Kind::Snapshot => {
                self.messages.push((to, RaftFrame { is_rejected: true, ..RaftFrame::new(Kind::AppendResponse, self.term) }));
            }
            Kind::RequestPreVote => {
                self.messages.push((to, RaftFrame { is_rejected: true, ..RaftFrame::new(Kind::RequestPreVoteResponse, self.term) }));
            }
            _ => {}
        }
    }

    fn on_request(&mut self, from: u32, frame: &RaftFrame) {
        let is_real = frame.kind == Kind::RequestVote;
        let may = self.vote == Some(from) || (self.vote.is_none() && self.leader.is_none()) || (!is_real && frame.term > self.term);
        let is_upright = (frame.log_term, frame.index) >= (self.last_term(), self.log.last());
        let kind = if is_real { Kind::RequestVoteResponse } else { Kind::RequestPreVoteResponse };
        if may && is_upright {
            if is_real {
                self.vote = Some(from);
                self.election_elapsed = 0;
            }
            // In the term that was asked for, which this member enters with its vote only.
            self.messages.push((from, RaftFrame::new(kind, frame.term)));
        } else {
            self.messages.push((from, RaftFrame { is_rejected: true, ..RaftFrame::new(kind, self.term.max(1)) }));
        }
    }

    fn on_vote(&mut self, from: u32, frame: &RaftFrame) {
        let is_answer = match self.role {
            Role::PreCandidate => frame.kind == Kind::RequestPreVoteResponse && (frame.is_rejected || frame.term == self.term + 1),
            Role::Candidate => frame.kind == Kind::RequestVoteResponse && frame.term == self.term,
            Role::Follower | Role::Leader => false,
        };
        if is_answer {
            self.votes.entry(from).or_insert(!frame.is_rejected);
            self.count();
        }
    }

    fn on_leader(&mut self, from: u32, frame: RaftFrame) {
        if self.role != Role::Follower {
            self.follow(self.term, Some(from));
        }
        (self.leader, self.election_elapsed) = (Some(from), 0);
        let answer = match frame.kind {
            Kind::Append => self.on_append(frame),
            Kind::Snapshot => self.on_position(&frame),
            _ => {
                self.commit = self.commit.max(frame.commit.min(self.log.last()));
                RaftFrame::new(Kind::HeartbeatResponse, self.term)
            }
        };
        self.messages.push((from, answer));
    }

    fn on_append(&mut self, frame: RaftFrame) -> RaftFrame {
        let answer = RaftFrame::new(Kind::AppendResponse, self.term);
        if frame.index < self.commit {
            return RaftFrame { index: self.commit, ..answer };
        }
        if self.log.term_at(frame.index) != Some(frame.log_term) {
            let (reject_hint, log_term) = self.log.agreeing(frame.index, frame.log_term);
            return RaftFrame { index: frame.index, is_rejected: true, reject_hint, log_term, ..answer };
        }
        let last = frame.index + frame.entries.len() as u64;
        for (index, entry) in (frame.index + 1..).zip(frame.entries) {
            match self.log.term_at(index) {
                Some(term) if term == entry.term => {}
                known => {
                    assert!(known.is_none() || index > self.commit, "entry {index} is ordered, and a leader replaces it");
                    self.append_at(index, entry);
                }
            }
        }
        self.commit = self.commit.max(frame.commit.min(last));
        RaftFrame { index: last, ..answer }
    }

    /// The chain has reached a place whose entries the leader has dropped.
    fn on_position(&mut self, frame: &RaftFrame) -> RaftFrame {
        let answer = RaftFrame::new(Kind::AppendResponse, self.term);
        let Some(position) = frame.position.filter(|position| position.index > self.commit) else {
            return RaftFrame { index: self.commit, ..answer };
        };
        if self.log.term_at(position.index) != Some(position.term) {
            self.log.reset(position);
            (self.appended_from, self.ordered, self.is_replaced) = (None, position.index, true);
        }
        self.commit = position.index;
        RaftFrame { index: position.index, ..answer }
    }
}
