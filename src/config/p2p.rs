//! Whom a node talks to: `[p2p]`, `[certificate_blacklist]`, `[certificate_whitelist]` and the P2P files of `[network_security]` in
//! `config.ini` (`spec/node-semantics.md` 0.2, 1.3). The lists are read again while the node runs ([`crate::reload`]).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use millrace_base::NodeId;
use millrace_base::fault::Fault;

use super::schema::Checked;
use super::{as_usize, directory_of, port, tables};

/// `p2p.peers_param_limit` of 2.x.
const DEFAULT_PEERS_A_REQUEST: usize = 10;

/// `p2p.max_nodes_limit` of 2.x.
const DEFAULT_MAX_PEERS: usize = 100;

/// Peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct P2pConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Configured peers, `host:port`; host names are resolved when the node starts. The node itself may stand among them.
    pub peers: Vec<String>,
    /// The node's certificate followed by its agency's: `network_security.cert`, `p2p.crt` in the directories that we build.
    pub certificate: PathBuf,
    /// Key of [`Self::certificate`]: `p2p.key` in `network_security.data_path`. It is not the node's identity.
    pub key: PathBuf,
    /// The chain's authority: `network_security.ca_cert`, `p2p-ca.crt` in the directories that we build.
    pub authority: PathBuf,
    /// Who is refused and who is admitted.
    pub lists: PeerLists,
    /// `p2p.enable_compress`.
    pub compress: bool,
    /// `p2p.peers_param_limit`: peers that one `addPeers` or `erasePeers` may name.
    pub peers_a_request: usize,
    /// `p2p.max_nodes_limit`: peers that can be configured in all.
    pub max_peers: usize,
}

/// Node ids that are refused and admitted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerLists {
    /// `certificate_blacklist.crl.N`: refused, whatever the other list says.
    pub blacklist: BTreeSet<NodeId>,
    /// `certificate_whitelist.cal.N`: the only ones admitted; empty admits all.
    pub whitelist: BTreeSet<NodeId>,
}

impl P2pConfig {
    /// Reads it from a `config.ini` without the files it names.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        Ok(read(&Checked::read(file, tables::NODE)?))
    }
}

impl PeerLists {
    /// Whether a node may be connected.
    pub fn admits(&self, node: &NodeId) -> bool {
        !self.blacklist.contains(node) && (self.whitelist.is_empty() || self.whitelist.contains(node))
    }

    /// Reads the lists of a `config.ini` again; nothing else in it is used, but all of it must be well-formed.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        Ok(lists(&Checked::read(file, tables::NODE)?))
    }
}

/// Reads what `config.ini` says.
pub(super) fn read(ini: &Checked) -> P2pConfig {
    let root = directory_of(ini.path());
    let directory = root.join(ini.text("network_security", "data_path").unwrap_or("conf"));
    let ip = ini.ip("p2p", "listen_ip").unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    P2pConfig {
        listen: SocketAddr::new(ip, port(ini, "p2p", "listen_port", 30300)),
        peers: ini.list("p2p", "node.").into_iter().filter(|peer| !peer.is_empty()).map(str::to_owned).collect(),
        certificate: directory.join(ini.text("network_security", "cert").unwrap_or("node.crt")),
        key: directory.join("p2p.key"),
        authority: directory.join(ini.text("network_security", "ca_cert").unwrap_or("ca.crt")),
        lists: lists(ini),
        compress: ini.flag("p2p", "enable_compress").unwrap_or(true),
        peers_a_request: ini.number("p2p", "peers_param_limit").map_or(DEFAULT_PEERS_A_REQUEST, as_usize),
        max_peers: ini.number("p2p", "max_nodes_limit").map_or(DEFAULT_MAX_PEERS, as_usize),
    }
}

fn lists(ini: &Checked) -> PeerLists {
    let ids = |section, prefix| ini.list(section, prefix).into_iter().filter(|id| !id.is_empty()).map(parsed).collect();
    PeerLists { blacklist: ids("certificate_blacklist", "crl."), whitelist: ids("certificate_whitelist", "cal.") }
}

fn parsed(id: &str) -> NodeId {
    NodeId::parse(id).expect("the schema check parsed it")
}

/// Remarks on lists that do not do what they seem to.
pub(super) fn notes(file: &Path, lists: &PeerLists, own: &NodeId) -> Vec<String> {
    let mut notes = Vec::new();
    if lists.blacklist.contains(own) {
        notes.push(format!("{}: certificate_blacklist holds this node's own id, which has no effect here", file.display()));
    }
    for both in lists.blacklist.intersection(&lists.whitelist) {
        notes.push(format!("{}: {both} stands in certificate_blacklist and certificate_whitelist; it is refused", file.display()));
    }
    notes
}
