//! The directory of one node: identity, certificates, groups, scripts.
//!
//! Invariant: a key is written once, for its owner only, and never overwritten. Called for each node of a new chain and for nodes that
//! join one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use millrace_base::fault::Fault;
use millrace_base::{GroupId, KeyPair};

use super::files::{cannot_write, private_directory, write_credential, write_script, write_secret, write_text};
use super::{Agency, OPERATOR_PORT_OFFSET, Reach, templates};
use crate::certificates::{KeySource, Leaf};
use crate::keys;

/// Who a node is.
pub struct Identity<'a> {
    /// `node0`: the CN of its certificates.
    pub name: &'a str,
    /// The address of its machine.
    pub ip: IpAddr,
    /// Its identity.
    pub key: &'a KeyPair,
}

/// Where a node listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkPlace {
    /// JSON-RPC.
    pub rpc: SocketAddr,
    /// Channel.
    pub channel: SocketAddr,
    /// P2P.
    pub p2p: SocketAddr,
}

impl NetworkPlace {
    /// Port of metrics and health, on the loopback address; the JSON-RPC port must leave room for it.
    pub fn operator_port(&self) -> u16 {
        self.rpc.port() + OPERATOR_PORT_OFFSET
    }
}

/// Where channel and P2P ports listen on a machine.
pub fn listen_ip(reach: Reach, machine: IpAddr) -> IpAddr {
    match (reach, machine) {
        (Reach::Machine, own) => own,
        (Reach::Network, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (Reach::Network, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Writes everything of a node but its configuration files; `chain` is the certificate of the chain's authority.
pub fn write_node(node: &Identity<'_>, agency: &Agency, chain: &str, directory: &Path) -> Result<(), Fault> {
    let (conf, scripts) = (directory.join("conf"), directory.join("scripts"));
    fs::create_dir_all(&scripts).map_err(cannot_write(&scripts))?;
    private_directory(&conf)?;
    write_text(&conf.join("p2p-ca.crt"), chain)?;
    let peer = agency.peers.issue_with_chain(node.name, &Leaf::Peer(node.key.node_id()), KeySource::New)?;
    write_credential(&conf, "p2p", &peer)?;
    write_secret(&conf.join("node.key"), &keys::key_to_pem(node.key))?;
    write_text(&conf.join("node.nodeid"), &format!("{}\n", node.key.node_id()))?;
    let channel = conf.join("channel_cert");
    private_directory(&channel)?;
    write_text(&channel.join("ca.crt"), &agency.channel.credential.certificate)?;
    write_credential(&channel, "node", &agency.channel.issue(node.name, &Leaf::Channel(node.ip), KeySource::New)?)?;
    write_script(&directory.join("start.sh"), templates::START)?;
    write_script(&directory.join("stop.sh"), templates::STOP)?;
    write_script(&scripts.join("reload_whitelist.sh"), &templates::reload_script("reset_certificate_whitelist"))?;
    write_script(&scripts.join("reload_sdk_allowlist.sh"), &templates::reload_script("reset_allowlist"))
}

/// Writes the two files of a group.
pub fn write_group(conf: &Path, group: GroupId, genesis: &str, settings: &str) -> Result<(), Fault> {
    write_text(&conf.join(format!("group.{group}.genesis")), genesis)?;
    write_text(&conf.join(format!("group.{group}.ini")), settings)
}
