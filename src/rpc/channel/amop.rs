//! AMOP: messages between clients by topic, on one node and across nodes (`spec/client-protocol.md` 3.7).
//!
//! [`engine`] decides who gets what; here is what nodes tell each other. The node carries [`PeerMessage`]s in P2P frames of its own
//! kind and implements [`AmopPeers`]. Unlike in the reference node, subscribers on the sender's own node are served like all others.

pub mod engine;
mod verification;

use bincode::{Decode, Encode};
use millrace_base::NodeId;
use millrace_base::wire::{self, WireError};

use super::frame::Sequence;
use crate::limits::MAX_PEER_TOPICS;

/// What decoding a peer's message may take: more than any frame between nodes holds, so no length in it can ask for more.
const MAX_DECODED_BYTES: usize = 32 << 20;

/// Result codes in frames (`spec/client-protocol.md` 3.8).
pub mod code {
    /// Nobody holds the topic.
    pub const NO_SUBSCRIBER: i32 = 100;
    /// Over the bandwidth allowed, or too many messages wait for an answer.
    pub const OVER_LIMIT: i32 = 103;
    /// Every subscriber was tried, none answered.
    pub const NO_ANSWER: i32 = 104;
}

/// What nodes tell each other about AMOP.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum PeerMessage {
    /// All topics of the sender's clients; replaces what it said before under a smaller number.
    Topics {
        /// Counts the sender's lists.
        number: u64,
        /// Sorted.
        topics: Vec<String>,
    },
    /// A message for one client of the receiver that holds the topic.
    Request {
        /// The sender's name for the message; the answer repeats it.
        ticket: u64,
        /// The topic.
        topic: String,
        /// Sequence of the client's frame.
        sequence: Sequence,
        /// Body of the client's frame, topic included.
        body: Vec<u8>,
    },
    /// What became of a [`PeerMessage::Request`].
    Answer {
        /// Repeats the request's.
        ticket: u64,
        /// Result and body of the client's answer; `None` when no client answered.
        reply: Option<(i32, Vec<u8>)>,
    },
    /// A message for all clients of the receiver that hold the topic. Not answered.
    Broadcast {
        /// The topic.
        topic: String,
        /// Sequence of the client's frame.
        sequence: Sequence,
        /// Body of the client's frame, topic included.
        body: Vec<u8>,
    },
}

impl PeerMessage {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a peer's message. A list of too many topics is cut: it is the peer's own clients that cannot be reached then.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut message = wire::decode_within::<MAX_DECODED_BYTES, Self>(bytes)?;
        if let Self::Topics { topics, .. } = &mut message {
            topics.truncate(MAX_PEER_TOPICS);
        }
        Ok(message)
    }
}

/// The way to the other nodes. Calls return at once; what cannot be sent is dropped, and the sender's deadline tells its client.
pub trait AmopPeers: Send + Sync {
    /// To every connected peer: the topics here changed. The message is also sent to each peer that connects later, through
    /// [`super::server::ChannelServer::peer_connected`].
    fn topics_changed(&self, message: &PeerMessage);
    /// To one peer.
    fn send(&self, peer: NodeId, message: &PeerMessage);
}

/// A node without peers.
pub struct NoPeers;

impl AmopPeers for NoPeers {
    fn topics_changed(&self, _: &PeerMessage) {}
    fn send(&self, _: NodeId, _: &PeerMessage) {}
}
