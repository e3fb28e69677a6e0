//! What Raft engines say to each other, as bytes.
//!
//! Nothing is signed but checkpoints: a message counts as its sender's because the network has authenticated the session, and the sender
//! is never read from the message. Every message names its epoch, which is one raft log of its own. Fields are checked for what no
//! honest node sends before the state machine sees them.

use bincode::{Decode, Encode};
use millrace_base::{Bytes, wire};

use super::log::Position;
use crate::pbft::message::{Hash, Stable, Vote};

/// What decoding a message may take: as much as the largest proposal (100,000 hashes) and some.
const MAX_DECODED_BYTES: usize = 32 << 20;

/// First byte of every frame; those of the PBFT engine begin with a small number.
const WIRE_VERSION: u8 = b'r';

/// Terms and indices above this are nonsense: no log counts so far, and sums of two stay in range.
const MAX_NUMBER: u64 = 1 << 60;

/// Entries of one message: more than a window of heights and as many changes of the leader.
const MAX_ENTRIES: usize = 1_024;

/// What a message of the log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Kind {
    /// Entries behind `index`, whose term is `log_term`; everything up to `commit` is ordered.
    Append,
    /// The log agrees with the leader's up to `index`; or, when rejected, does not at `index`, and has `log_term` at `reject_hint`.
    AppendResponse,
    /// "Vote for me in `term`; my log ends at `index` with `log_term`."
    RequestVote,
    RequestVoteResponse,
    /// The leader has dropped what comes before `position`.
    Snapshot,
    /// The leader is there.
    Heartbeat,
    HeartbeatResponse,
    /// "Would you vote for me in `term`?" Changes nothing at who is asked.
    RequestPreVote,
    RequestPreVoteResponse,
}

/// One entry; its index follows from its place.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WireEntry {
    pub term: u64,
    /// An encoded proposal, or nothing: the entry with which a term begins.
    pub data: Vec<u8>,
}

/// A message of the log, without sender and receiver. Fields that its kind does not use are zero.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RaftFrame {
    pub kind: Kind,
    pub term: u64,
    pub log_term: u64,
    pub index: u64,
    pub commit: u64,
    pub is_rejected: bool,
    pub reject_hint: u64,
    /// Entries from `index + 1` on.
    pub entries: Vec<WireEntry>,
    /// For [`Kind::Snapshot`]: the place in the log up to which the chain stands for it.
    pub position: Option<Position>,
}

impl RaftFrame {
    pub fn new(kind: Kind, term: u64) -> Self {
        let (log_term, index, commit, is_rejected, reject_hint) = (0, 0, 0, false, 0);
        Self { kind, term, log_term, index, commit, is_rejected, reject_hint, entries: Vec::new(), position: None }
    }

    /// # Errors
    /// What no honest node would send.
    fn check(&self) -> Result<(), String> {
        let numbers = [self.term, self.log_term, self.index, self.commit, self.reject_hint];
        let position = self.position.map_or([0; 3], |position| [position.index, position.term, position.height]);
        if numbers.into_iter().chain(position).any(|number| number > MAX_NUMBER) || self.term == 0 {
            return Err(format!("a raft message with a number out of range: {:?} of term {}", self.kind, self.term));
        }
        if self.position.is_some() != (self.kind == Kind::Snapshot) || (!self.entries.is_empty() && self.kind != Kind::Append) {
            return Err(format!("a raft {:?} with content of another kind", self.kind));
        }
        // Terms never sink within a log, and none is above its leader's.
        let terms = std::iter::once(self.log_term).chain(self.entries.iter().map(|entry| entry.term));
        if self.kind == Kind::Append && (!terms.clone().is_sorted() || terms.last().is_some_and(|last| last > self.term)) {
            return Err("raft entries whose terms are not in order".into());
        }
        if self.entries.len() > MAX_ENTRIES {
            return Err(format!("{} raft entries in one message", self.entries.len()));
        }
        Ok(())
    }
}

/// How far a sealer is: the heartbeat of the engine, besides the leader's. Nothing but repair and status queries rests on it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Status {
    pub epoch: Hash,
    pub term: u64,
    pub final_height: u64,
    pub committed: u64,
}

/// Everything that travels.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Message {
    /// Of the raft log of an epoch, named by its digest and its first height.
    Raft(Hash, u64, RaftFrame),
    /// A signature over an executed block.
    Checkpoint(Vote),
    /// A final block without its transactions, for a node whose log has them.
    Final(Stable),
    Status(Status),
}

impl Message {
    pub fn encode(&self) -> Bytes {
        wire::encode(&(WIRE_VERSION, self)).into()
    }

    /// # Errors
    /// In words, for the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(&WIRE_VERSION) => {}
            Some(other) => return Err(format!("consensus message of version {other}; this group runs raft, version {WIRE_VERSION}")),
            None => return Err("empty consensus message".into()),
        }
        let decoded = wire::decode_within::<MAX_DECODED_BYTES, (u8, Self)>(bytes);
        let (_, message) = decoded.map_err(|error| format!("consensus message: {error}"))?;
        if let Self::Raft(_, _, frame) = &message {
            frame.check()?;
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> RaftFrame {
        let entries = vec![WireEntry { term: 2, data: vec![1] }, WireEntry { term: 3, data: vec![] }];
        RaftFrame { log_term: 2, index: 7, commit: 6, entries, ..RaftFrame::new(Kind::Append, 3) }
    }

    #[test]
    fn nonsense_is_refused_before_the_log_sees_it() {
        let wrong = [
            RaftFrame { term: 0, ..append() },
            RaftFrame { index: u64::MAX, ..append() },
            RaftFrame { kind: Kind::Heartbeat, ..append() },
            RaftFrame { kind: Kind::Snapshot, entries: vec![], ..append() },
            RaftFrame { log_term: 3, ..append() },
            RaftFrame { term: 2, ..append() },
            RaftFrame { entries: vec![WireEntry { term: 3, data: vec![] }; MAX_ENTRIES + 1], ..append() },
        ];
        for frame in wrong {
            assert!(Message::decode(&Message::Raft([0; 32], 1, frame.clone()).encode()).is_err(), "{frame:?}");
        }
        assert!(Message::decode(&Message::Raft([0; 32], 1, append()).encode()).is_ok());
        assert!(Message::decode(&[1, 2, 3]).unwrap_err().contains("version 1"));
        let huge = [WIRE_VERSION, 0, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(Message::decode(&huge).is_err());
    }
}
