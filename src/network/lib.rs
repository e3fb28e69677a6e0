//! Network layer: authenticated sessions between the nodes of a chain, and frames on them.
//!
//! One object, [`PeerNetwork`], owns the event loops, the sessions and the list of peers; the node gives it a [`FrameSink`] and calls
//! [`PeerNetwork::send`] and [`PeerNetwork::broadcast`]. What the frames mean is known to the callers only.
//!
//! Invariants:
//! - A session exists only with a node that has a certificate of the chain's authority and has signed this very TLS session with the
//!   node key which the certificate names (`hello`).
//! - A frame of a group is delivered only from a member and queued only for a member, checked on its header, before its payload is
//!   kept, decompressed or decoded (`frame::assembler`, `groups`).
//! - Every queue, list, frame and wait has a bound (`limits`); what does not fit is dropped and counted.
//!
//! Nothing here blocks a caller: `send` copies no payload and touches no socket.

mod book;
mod config;
mod connection;
mod counters;
mod counts;
mod ending;
mod frame;
mod groups;
mod hello;
mod limits;
mod link;
mod network;
mod peers_file;
mod queue;
mod reactor;
mod registry;
mod session;
mod shared;
#[cfg(test)]
mod tests;
mod tls;

pub use book::{PeerInfo, PeerState};
pub use config::{AccessLists, NetworkConfig, NetworkLimits, NodeIdentity};
pub use counters::{DropReason, KindCounters, NetworkCounters};
pub use ending::EndReason;
pub use frame::{Frame, FrameKind};
pub use limits::MAX_PAYLOAD_BYTES;
pub use network::PeerNetwork;
pub use session::{Direction, SessionInfo};
pub use tls::{NODE_URI_PREFIX, TlsMaterial};

use millrace_base::{GroupId, NodeId};

/// What becomes of what arrives. Called on the threads of the network: it must return quickly and never wait.
///
/// For one peer the calls come in order, `connected` first and `disconnected` last. [`PeerNetwork::send`] may be called from within;
/// [`PeerNetwork::stop`] and [`PeerNetwork::set_lists`] may not: they wait for a callback to return.
pub trait FrameSink: Send + Sync {
    /// A frame of a peer; of a group only if the peer is its member.
    fn frame(&self, from: NodeId, frame: Frame);

    /// A session with the peer is open: frames can be sent.
    fn connected(&self, peer: NodeId);

    /// The session is over; what was queued for the peer is gone.
    fn disconnected(&self, peer: NodeId);

    /// The groups in which frames can be exchanged with the peer have changed: both nodes count the other among the members. Called
    /// after `connected`, and again when either side's groups change.
    fn groups_changed(&self, peer: NodeId, groups: &[GroupId]) {
        let _ = (peer, groups);
    }
}
