//! Other nodes, as the stages see them. The network implements it over sockets, the simulator in memory.
//!
//! Invariant: nothing here blocks or waits; what cannot be sent at once is dropped and counted by the implementation, and consensus
//! and sync repeat what matters.

use millrace_base::{Bytes, GroupId, NodeId};

use crate::messages::ToOrder;
use crate::runtime::Sender;

/// What a message between nodes is about; the network gives consensus precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerKind {
    /// Between ordering engines; read by the order stage.
    Consensus,
    /// Status, block requests and blocks; read by the sync stage.
    Sync,
    /// Transactions that are passed on, asked for and given; read by the sync stage.
    Transactions,
}

/// See the module.
pub trait Peers: Send + Sync {
    /// Sends to one member of a group; `false` when it is not connected or has no room.
    fn send(&self, group: GroupId, to: NodeId, kind: PeerKind, payload: Bytes) -> bool;

    /// Sends to these members of a group, as far as they are connected.
    fn multicast(&self, group: GroupId, to: &[NodeId], kind: PeerKind, payload: Bytes);

    /// Members of a group that are connected now, without this node, sorted.
    fn connected(&self, group: GroupId) -> Vec<NodeId>;

    /// Replaces the members of a group: sealers and observers. Nothing of the group is sent to or taken from anybody else.
    fn set_members(&self, group: GroupId, members: &[NodeId]);
}

/// Where the network says that sessions were opened or lost. Clones are the same.
#[derive(Clone)]
pub struct PeersInlet(pub(crate) Sender<ToOrder>);

impl PeersInlet {
    /// [`Peers::connected`] may give another answer than before. Never waits; what is said while an earlier word is not taken adds nothing.
    pub fn changed(&self) {
        let _ = self.0.send(ToOrder::PeersChanged);
    }
}

/// A node that talks to nobody: commands and tests of a single node.
#[derive(Clone, Copy, Default, Debug)]
pub struct Alone;

impl Peers for Alone {
    fn send(&self, _: GroupId, _: NodeId, _: PeerKind, _: Bytes) -> bool {
        false
    }

    fn multicast(&self, _: GroupId, _: &[NodeId], _: PeerKind, _: Bytes) {}

    fn connected(&self, _: GroupId) -> Vec<NodeId> {
        Vec::new()
    }

    fn set_members(&self, _: GroupId, _: &[NodeId]) {}
}
