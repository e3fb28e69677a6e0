//! What Raft engines say to each other, as bytes.
//!
//! The library's messages travel in our own bounded codec: its protobuf structs are built and taken apart here, and never parsed. Nothing
//! is signed but checkpoints: a message counts as its sender's because the network has authenticated the session, and the sender is
//! never read from the message. Every message names its epoch, which is one raft log of its own.

use bincode::{Decode, Encode};
use millrace_base::{Bytes, wire};
use raft::eraftpb;

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

/// Kinds of the library's messages that nodes send each other; there is no way to say the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Kind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Snapshot,
    Heartbeat,
    HeartbeatResponse,
    RequestPreVote,
    RequestPreVoteResponse,
}

const KINDS: [(Kind, eraftpb::MessageType); 9] = [
    (Kind::Append, eraftpb::MessageType::MsgAppend),
    (Kind::AppendResponse, eraftpb::MessageType::MsgAppendResponse),
    (Kind::RequestVote, eraftpb::MessageType::MsgRequestVote),
    (Kind::RequestVoteResponse, eraftpb::MessageType::MsgRequestVoteResponse),
    (Kind::Snapshot, eraftpb::MessageType::MsgSnapshot),
    (Kind::Heartbeat, eraftpb::MessageType::MsgHeartbeat),
    (Kind::HeartbeatResponse, eraftpb::MessageType::MsgHeartbeatResponse),
    (Kind::RequestPreVote, eraftpb::MessageType::MsgRequestPreVote),
    (Kind::RequestPreVoteResponse, eraftpb::MessageType::MsgRequestPreVoteResponse),
];

/// One entry; its index follows from its place.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WireEntry {
    pub term: u64,
    /// An encoded proposal, or nothing: the entry with which a term begins.
    pub data: Vec<u8>,
}

/// A message of the library, without sender and receiver.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct RaftFrame {
    pub kind: Kind,
    pub term: u64,
    pub log_term: u64,
    pub index: u64,
    pub commit: u64,
    pub commit_term: u64,
    pub is_rejected: bool,
    pub reject_hint: u64,
    /// Entries from `index + 1` on.
    pub entries: Vec<WireEntry>,
    /// For [`Kind::Snapshot`]: the place in the log up to which the chain stands for it.
    pub position: Option<Position>,
}

impl RaftFrame {
    /// A message of the library; none for a kind that nodes do not send each other.
    pub fn of(message: &eraftpb::Message) -> Option<Self> {
        let kind = KINDS.iter().find(|(_, kind)| *kind == message.get_msg_type())?.0;
        let entry = |entry: &eraftpb::Entry| WireEntry { term: entry.term, data: entry.data.to_vec() };
        let position = (kind == Kind::Snapshot).then(|| wire::decode(&message.get_snapshot().data).ok()).flatten();
        Some(Self {
            kind,
            term: message.term,
            log_term: message.log_term,
            index: message.index,
            commit: message.commit,
            commit_term: message.commit_term,
            is_rejected: message.reject,
            reject_hint: message.reject_hint,
            entries: message.entries.iter().map(entry).collect(),
            position,
        })
    }

    /// For the library, as a message of `from` to `to`; `voters` are all members.
    pub fn into_message(self, from: u64, to: u64, voters: &[u64]) -> eraftpb::Message {
        let mut message = eraftpb::Message::default();
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).expect("every kind is in the table").1;
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (from, to, self.term);
        (message.log_term, message.index) = (self.log_term, self.index);
        (message.commit, message.commit_term) = (self.commit, self.commit_term);
        (message.reject, message.reject_hint) = (self.is_rejected, self.reject_hint);
        let first = self.index + 1;
        let entries = (first..).zip(self.entries).map(|(index, entry)| {
            let mut made = eraftpb::Entry::default();
            (made.index, made.term, made.data) = (index, entry.term, entry.data.into());
            made
        });
        message.set_entries(entries.collect::<Vec<_>>().into());
        if let Some(position) = self.position {
            message.set_snapshot(position.as_snapshot(voters));
        }
        message
    }

    /// # Errors
    /// What no honest node would send.
    fn check(&self) -> Result<(), String> {
        let numbers = [self.term, self.log_term, self.index, self.commit, self.commit_term, self.reject_hint];
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

/// How far a sealer is: the heartbeat of the engine, besides the library's own. Nothing but repair and status queries rests on it.
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
        RaftFrame {
            kind: Kind::Append,
            term: 3,
            log_term: 2,
            index: 7,
            commit: 6,
            commit_term: 0,
            is_rejected: false,
            reject_hint: 0,
            entries: vec![WireEntry { term: 2, data: vec![1] }, WireEntry { term: 3, data: vec![] }],
            position: None,
        }
    }

    #[test]
    fn message_of_the_library_survives_the_way_to_another_node() {
        let message = append().into_message(1, 2, &[1, 2]);
        assert_eq!((message.from, message.to, message.entries[1].index), (1, 2, 9));
        assert_eq!(RaftFrame::of(&message).unwrap(), append());
        let position = Position { index: 4, term: 2, height: 3, contents: Some([7; 32]) };
        let snapshot = RaftFrame { kind: Kind::Snapshot, entries: vec![], position: Some(position), ..append() };
        let message = snapshot.clone().into_message(1, 2, &[1, 2]);
        assert_eq!((message.get_snapshot().get_metadata().index, RaftFrame::of(&message).unwrap()), (4, snapshot));
    }

    #[test]
    fn nonsense_is_refused_before_the_library_sees_it() {
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
