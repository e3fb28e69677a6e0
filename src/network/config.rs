//! What a network is started with. The node's configuration (`[p2p]`, `[certificate_blacklist]`, `[certificate_whitelist]`,
//! `[network_security]` of `config.ini`) fills it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_base::{ChainId, KeyPair, NodeId};

use crate::TlsMaterial;

/// Who this node is towards its peers.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// The node's key; its public half is the node id.
    pub key: KeyPair,
    /// The P2P certificate, which must name the same node id, with its key and the chain's authorities.
    pub tls: TlsMaterial,
}

/// Lists of node ids, as an operator writes them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessLists {
    /// These are never admitted, whatever the whitelist says.
    pub blacklist: BTreeSet<NodeId>,
    /// Only these are admitted; `None` admits everybody who is not on the blacklist.
    pub whitelist: Option<BTreeSet<NodeId>>,
}

impl AccessLists {
    /// Whether a node may have a session.
    pub fn admits(&self, id: &NodeId) -> bool {
        !self.blacklist.contains(id) && self.whitelist.as_ref().is_none_or(|allowed| allowed.contains(id))
    }
}

/// Bounds that an operator or a test may change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkLimits {
    /// Incoming connections, open and half-open together.
    pub connections: usize,
    /// Incoming connections of one address (of IPv6: of one /64); several nodes of a test chain share one.
    pub connections_per_address: usize,
    /// Incoming connections of one address that have not yet proven who they are.
    pub handshakes_per_address: usize,
    /// Incoming connections that have not yet proven who they are, of all addresses.
    pub handshakes: usize,
    /// From the first packet to an open session, both directions.
    pub handshake_deadline: Duration,
    /// Between two pings of a session; each is answered and gives the round-trip time.
    pub ping_interval: Duration,
    /// A session on which nothing arrived for this long is dead.
    pub idle_timeout: Duration,
    /// A session that has something to write and gets nothing written for this long is cut.
    pub stall_timeout: Duration,
    /// How long an open session has to answer when a second one with the same node id appears.
    pub probe_timeout: Duration,
    /// First wait before connecting again; doubles with each failure.
    pub reconnect_first: Duration,
    /// Longest wait before connecting again.
    pub reconnect_cap: Duration,
    /// Bulk frames (sync, transactions, AMOP) queued for one peer, in bytes; groups in common share it equally. One frame above the
    /// share is taken when nothing else of its kind waits.
    pub queue_bytes: usize,
    /// Control and consensus frames queued for one peer, in bytes; shared in the same way.
    pub urgent_queue_bytes: usize,
    /// Queued for all peers together, in bytes; a payload that is shared by several queues counts in each. Above it only peers with
    /// nearly empty queues get more.
    pub total_queue_bytes: usize,
    /// Addresses in the list of peers (`p2p.max_nodes_limit`).
    pub peers: usize,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            connections_per_address: 128,
            handshakes_per_address: 32,
            handshakes: 256,
            handshake_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(9),
            stall_timeout: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(2),
            reconnect_first: Duration::from_millis(100),
            reconnect_cap: Duration::from_secs(10),
            queue_bytes: 64 << 20,
            urgent_queue_bytes: 16 << 20,
            total_queue_bytes: 512 << 20,
            peers: 100,
        }
    }
}

/// What [`PeerNetwork::start`](crate::PeerNetwork::start) needs.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// `p2p.listen_ip` and `p2p.listen_port`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `chain.id`: nodes of another chain are refused even if they come from the same authority.
    pub chain_id: ChainId,
    /// Keys and certificates.
    pub identity: NodeIdentity,
    /// `[p2p] node.N`: addresses that are connected to and kept connected.
    pub peers: Vec<SocketAddr>,
    /// Where addresses added and erased while running are kept; `None` forgets them.
    pub peers_file: Option<PathBuf>,
    /// Blacklist and whitelist.
    pub lists: AccessLists,
    /// Bounds.
    pub limits: NetworkLimits,
    /// Payloads of more bytes are compressed when that makes them smaller; `usize::MAX` for never.
    pub compress_above: usize,
    /// Event loops, each a thread; connections are spread over them. At least one.
    pub loops: usize,
}

impl NetworkConfig {
    /// The defaults, on `listen`.
    pub fn new(listen: SocketAddr, chain_id: ChainId, identity: NodeIdentity) -> Self {
        Self {
            listen,
            chain_id,
            identity,
            peers: Vec::new(),
            peers_file: None,
            lists: AccessLists::default(),
            limits: NetworkLimits::default(),
            compress_above: 1 << 10,
            loops: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blacklist_wins_over_whitelist() {
        let (a, b) = (NodeId([1; 64]), NodeId([2; 64]));
        let mut lists = AccessLists::default();
        assert!(lists.admits(&a));
        lists.whitelist = Some([a].into());
        assert!(lists.admits(&a) && !lists.admits(&b));
        lists.blacklist.insert(a);
        assert!(!lists.admits(&a));
    }
}
