//! The network and the pipeline put together: frames to the stages they are for, and the stages' [`Peers`] over sessions.
//!
//! The pipeline is wired before the network starts and ends after it, so each side finds the other through a cell that is filled once.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock, Weak};

use millrace_base::fault::Fault;
use millrace_base::{Bytes, GroupId, NodeId};
use millrace_network::{AccessLists, Frame, FrameKind, FrameSink, NetworkConfig, NodeIdentity, PeerNetwork, TlsMaterial};
use millrace_pipeline::frames::FrameInlet;
use millrace_pipeline::peers::{PeerKind, Peers, PeersInlet};
use millrace_pipeline::stages::sync::SyncInlet;
use millrace_rpc::channel::ChannelServer;
use millrace_rpc::channel::amop::{AmopPeers, PeerMessage};

use super::peer_rates::PeerRates;
use crate::config::{NodeConfig, PeerLists};

/// Name of the file in the data directory that keeps peers added and erased while running.
const PEERS_FILE: &str = "peers";

/// Other nodes, as soon as the network runs; nobody before.
#[derive(Clone, Default)]
pub(super) struct NetworkPeers(Arc<OnceLock<Arc<PeerNetwork>>>);

impl NetworkPeers {
    /// From now on what is sent goes out.
    pub fn attach(&self, network: Arc<PeerNetwork>) {
        let _ = self.0.set(network);
    }
}

fn frame(group: GroupId, kind: PeerKind, payload: Bytes) -> Frame {
    let kind = match kind {
        PeerKind::Consensus => FrameKind::Consensus,
        PeerKind::Sync => FrameKind::Sync,
        PeerKind::Transactions => FrameKind::Transactions,
    };
    Frame { group: Some(group), kind, payload }
}

impl Peers for NetworkPeers {
    fn send(&self, group: GroupId, to: NodeId, kind: PeerKind, payload: Bytes) -> bool {
        self.0.get().is_some_and(|network| network.send(to, frame(group, kind, payload)))
    }

    fn multicast(&self, group: GroupId, to: &[NodeId], kind: PeerKind, payload: Bytes) {
        let Some(network) = self.0.get() else { return };
        for peer in to {
            network.send(*peer, frame(group, kind, payload.clone()));
        }
    }

    fn connected(&self, group: GroupId) -> Vec<NodeId> {
        self.0.get().map(|network| network.connected_members(group)).unwrap_or_default()
    }

    fn set_members(&self, group: GroupId, members: &[NodeId]) {
        let Some(network) = self.0.get() else { return };
        match members {
            [] => network.remove_group(group),
            members => network.set_members(group, members.iter().copied()),
        }
    }
}

impl AmopPeers for NetworkPeers {
    fn topics_changed(&self, message: &PeerMessage) {
        let Some(network) = self.0.get() else { return };
        let frame = amop_frame(message);
        for session in network.sessions() {
            network.send(session.node_id, frame.clone());
        }
    }

    fn send(&self, peer: NodeId, message: &PeerMessage) {
        if let Some(network) = self.0.get() {
            network.send(peer, amop_frame(message));
        }
    }
}

fn amop_frame(message: &PeerMessage) -> Frame {
    Frame { group: None, kind: FrameKind::Amop, payload: message.encode().into() }
}

/// The channel server, as soon as it runs.
#[derive(Clone, Default)]
pub(super) struct ChannelEnd(Arc<OnceLock<Weak<ChannelServer>>>);

impl ChannelEnd {
    /// From now on the server hears of peers; of those that are connected already, at once.
    pub fn attach(&self, server: &Arc<ChannelServer>, network: Option<&PeerNetwork>) {
        let _ = self.0.set(Arc::downgrade(server));
        for session in network.map(PeerNetwork::sessions).unwrap_or_default() {
            server.peer_connected(session.node_id);
        }
    }

    fn tell(&self, event: impl FnOnce(&ChannelServer)) {
        if let Some(server) = self.0.get().and_then(Weak::upgrade) {
            event(&server);
        }
    }
}

/// Takes frames to the stages, and those of clients to the channel server.
pub(super) struct PeerDoors {
    pub consensus: FrameInlet,
    pub sync: SyncInlet,
    pub peers: PeersInlet,
    pub channel: ChannelEnd,
    pub rates: Arc<PeerRates>,
}

impl FrameSink for PeerDoors {
    fn frame(&self, from: NodeId, frame: Frame) {
        if frame.kind == FrameKind::Amop {
            if !self.rates.admit(from, frame.payload.len()) {
                return;
            }
            match PeerMessage::decode(&frame.payload) {
                Ok(message) => self.channel.tell(|server| server.peer_message(from, message)),
                Err(error) => self.rates.unreadable(from, &error),
            }
            return;
        }
        let Some(group) = frame.group else { return };
        // What finds no room is counted there; consensus and sync repeat what matters.
        let _ = match frame.kind {
            FrameKind::Consensus => self.consensus.offer(group, from, frame.payload),
            FrameKind::Sync => self.sync.offer(group, from, PeerKind::Sync, frame.payload),
            FrameKind::Transactions => self.sync.offer(group, from, PeerKind::Transactions, frame.payload),
            FrameKind::Control | FrameKind::Amop => true,
        };
    }

    fn connected(&self, peer: NodeId) {
        self.channel.tell(|server| server.peer_connected(peer));
        self.peers.changed();
    }

    fn disconnected(&self, peer: NodeId) {
        self.channel.tell(|server| server.peer_gone(peer));
        self.rates.gone(&peer);
        self.peers.changed();
    }

    fn groups_changed(&self, _: NodeId, groups: &[GroupId]) {
        groups.iter().for_each(|group| self.sync.peers_changed(*group));
        self.peers.changed();
    }
}

/// Starts the network. `None` for a node that has neither a P2P key nor peers: a 2.x directory of a chain of one node.
///
/// # Errors
/// Certificates that do not fit, or a port that is taken, with what to do.
pub(super) fn start(config: &NodeConfig, doors: PeerDoors) -> Result<Option<PeerNetwork>, Fault> {
    let p2p = &config.p2p;
    if p2p.peers.is_empty() && !p2p.key.exists() {
        tracing::info!("this node has no P2P certificate and no peers: it runs alone");
        return Ok(None);
    }
    let tls = TlsMaterial::from_files(&p2p.certificate, &p2p.key, &p2p.authority)?;
    let identity = NodeIdentity { key: config.key.clone(), tls };
    let mut network = NetworkConfig::new(p2p.listen, config.chain_id, identity);
    network.peers = addresses(&p2p.peers);
    network.peers_file = Some(config.data_dir.join(PEERS_FILE));
    network.lists = access_lists(&p2p.lists);
    network.limits.peers = p2p.max_peers;
    if !p2p.compress {
        network.compress_above = usize::MAX;
    }
    PeerNetwork::start(network, Arc::new(doors)).map(Some)
}

/// The lists as the network takes them: an empty whitelist admits everybody.
pub(super) fn access_lists(lists: &PeerLists) -> AccessLists {
    let whitelist = (!lists.whitelist.is_empty()).then(|| lists.whitelist.clone());
    AccessLists { blacklist: lists.blacklist.clone(), whitelist }
}

/// Host names are resolved once, at start; a name that is not known is named in the log and passed over.
fn addresses(peers: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::with_capacity(peers.len());
    for peer in peers {
        match peer.to_socket_addrs().map(|mut addresses| addresses.next()) {
            Ok(Some(address)) => found.push(address),
            Ok(None) => tracing::warn!(peer, "the peer's name has no address; it is not connected to"),
            Err(error) => tracing::warn!(peer, %error, "the peer's name cannot be resolved; correct it in [p2p] and start again"),
        }
    }
    found
}
