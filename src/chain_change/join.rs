//! A node that joins a chain: keys and certificates of its own, genesis files of the groups it will follow, addresses of the others.
//!
//! Its configuration is the one of a node that is there already, with other ports. It begins as an observer: the groups' sealers
//! admit it by a transaction. Invariant: every copy of a group's genesis in the chain's directory is equal, or the node is not made.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{GroupId, KeyPair, NodeId};

use super::{ChainDirectory, PresentNode, publish, read_text};
use crate::certificates::Validity;
use crate::chain_build::files::{cannot_write, place_program, refuse, write_script};
use crate::chain_build::ini_text::IniText;
use crate::chain_build::node_files::{Identity, NetworkPlace, write_group, write_node};
use crate::chain_build::{OPERATOR_PORT_OFFSET, Ports, Program, templates, write_sdk};
use crate::config::{ListenAddresses, P2pConfig};

/// What joins.
pub struct NewNode<'a> {
    /// The agency that runs it.
    pub agency: &'a str,
    /// Its machine.
    pub ip: IpAddr,
    /// Groups it will follow; at least one.
    pub groups: &'a [GroupId],
    /// Its ports; by default the next ones of its machine.
    pub ports: Option<Ports>,
    /// Validity of its certificates.
    pub days: u32,
    /// The program, for a machine that has none yet.
    pub program: Program,
}

/// What has joined.
pub struct Joined {
    /// Its directory.
    pub directory: PathBuf,
    /// Its identity.
    pub node_id: NodeId,
    /// Its P2P address, `host:port`.
    pub endpoint: String,
    /// Whether the chain's nodes admit listed nodes only, so that this one must be added to their lists.
    pub needs_whitelist: bool,
}

impl ChainDirectory {
    /// Makes a node's directory, and names it to the nodes that are there.
    pub fn add_node(&self, new: &NewNode<'_>) -> Result<Joined, Fault> {
        let nodes = self.nodes()?;
        let groups = new.groups.iter().map(|group| group_files(&nodes, *group)).collect::<Result<Vec<_>, _>>()?;
        let Some(sponsor) = groups.first().map(|files| &files.holder) else {
            return Err(refuse("no group was named", "name the groups that the node will follow: --groups 1,2"));
        };
        let agency = self.agency(new.agency, Validity::days(new.days))?;
        let chain = self.chain_certificate()?;
        let place = place(new, &nodes, sponsor)?;
        let mut peers = nodes.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let own = SocketAddr::new(new.ip, place.p2p.port()).to_string();
        peers.push(own.clone());
        let index = nodes.iter().filter(|node| node.ip == new.ip).map(|node| node.index + 1).max().unwrap_or(0);
        let (name, machine) = (format!("node{index}"), self.root.join(new.ip.to_string()));
        fs::create_dir_all(&machine).map_err(cannot_write(&machine))?;
        let staging = self.stage(&machine)?;
        let (key, directory) = (KeyPair::generate(), staging.join(&name));
        write_node(&Identity { name: &name, ip: new.ip, key: &key }, &agency, &chain, &directory)?;
        for files in &groups {
            let settings = with_own_database(&files.settings, new.ip, &name);
            write_group(&directory.join("conf"), files.group, &files.genesis, &settings)?;
        }
        configure(sponsor, &place, &peers, &directory.join("config.ini"))?;
        let target = machine.join(&name);
        publish(&staging, &name, &target)?;
        complete_machine(&machine, new, &agency)?;
        nodes.iter().try_for_each(|node| name_peer(node, &own))?;
        let needs_whitelist = !P2pConfig::read(&target.join("config.ini"))?.lists.whitelist.is_empty();
        Ok(Joined { directory: target, node_id: key.node_id(), endpoint: own, needs_whitelist })
    }
}

/// The files of a group, and a node that has them.
struct GroupFiles {
    group: GroupId,
    genesis: String,
    settings: String,
    holder: PathBuf,
}

fn group_files(nodes: &[PresentNode], group: GroupId) -> Result<GroupFiles, Fault> {
    let path = |node: &PresentNode, kind: &str| node.directory.join(format!("conf/group.{group}.{kind}"));
    let holders: Vec<&PresentNode> = nodes.iter().filter(|node| path(node, "genesis").is_file()).collect();
    let Some((first, others)) = holders.split_first() else {
        return Err(refuse(
            format!("no node in this chain's directory is in group {group}"),
            format!(
                "name a group that is there, or bring config.ini, conf/group.{group}.genesis and .ini of a member here, into <IP>/nodeN"
            ),
        ));
    };
    let genesis = read_text(&path(first, "genesis"))?;
    for other in others {
        if read_text(&path(other, "genesis"))? != genesis {
            let what = format!("{} and {} differ", path(first, "genesis").display(), path(other, "genesis").display());
            let remedy = "all nodes of a group need the same file: restore the one whose group has the blocks";
            return Err(Fault::new(FaultKind::Config, what, remedy));
        }
    }
    Ok(GroupFiles { group, genesis, settings: read_text(&path(first, "ini"))?, holder: first.directory.clone() })
}

/// Settings of a group with a database of the new node's own, where they name one: on its sponsor's it would fence the sponsor off.
fn with_own_database(settings: &str, ip: IpAddr, name: &str) -> String {
    let entry = |line: &str| line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    if !settings.lines().any(|line| entry(line) == Some(("type".into(), "mysql".into()))) {
        return settings.to_owned();
    }
    let machine = ip.to_string().replace(['.', ':'], "_");
    let own = |line: &str| match entry(line) {
        Some((key, database)) if key == "db_name" => format!("    db_name={database}_{machine}_{name}\n"),
        _ => format!("{line}\n"),
    };
    settings.lines().map(own).collect()
}

fn endpoint(node: &PresentNode) -> Result<String, Fault> {
    let listen = ListenAddresses::read(&node.directory.join("config.ini"))?;
    Ok(SocketAddr::new(node.ip, listen.p2p.port()).to_string())
}

/// Where the node listens: on the kind of addresses its sponsor does, on ports that are free on its machine.
fn place(new: &NewNode<'_>, nodes: &[PresentNode], sponsor: &Path) -> Result<NetworkPlace, Fault> {
    let read = |node: &PresentNode| ListenAddresses::read(&node.directory.join("config.ini"));
    let all = nodes.iter().map(|node| Ok((node.ip, read(node)?))).collect::<Result<Vec<_>, Fault>>()?;
    let here: Vec<ListenAddresses> = all.iter().filter(|(ip, _)| *ip == new.ip).map(|(_, listen)| *listen).collect();
    let next = |port: fn(&ListenAddresses) -> u16| match here.iter().map(port).max() {
        Some(highest) => highest.saturating_add(1),
        None => all.iter().map(|(_, listen)| port(listen)).min().unwrap_or(0),
    };
    let ports = new.ports.unwrap_or(Ports {
        p2p: next(|listen| listen.p2p.port()),
        channel: next(|listen| listen.channel.port()),
        rpc: next(|listen| listen.rpc.port()),
    });
    let used: BTreeSet<u16> = here
        .iter()
        .flat_map(|listen| {
            [listen.p2p.port(), listen.channel.port(), listen.rpc.port()].into_iter().chain(listen.operator.map(|at| at.port()))
        })
        .collect();
    let operator = ports.rpc.checked_add(OPERATOR_PORT_OFFSET);
    let wanted = [Some(ports.p2p), Some(ports.channel), Some(ports.rpc), operator];
    let distinct: BTreeSet<u16> = wanted.into_iter().flatten().filter(|port| *port != 0 && !used.contains(port)).collect();
    if distinct.len() != wanted.len() {
        let (p2p, channel, rpc) = (ports.p2p, ports.channel, ports.rpc);
        let what = format!("the ports {p2p}, {channel}, {rpc} and {rpc} + {OPERATOR_PORT_OFFSET} (operator) are not free on {}", new.ip);
        return Err(refuse(what, "choose others with --ports P2P,CHANNEL,RPC"));
    }
    let like = ListenAddresses::read(&sponsor.join("config.ini"))?;
    // Everywhere, or at the machine's own address; JSON-RPC may also stay on the loopback address.
    let address = |like: IpAddr, port| SocketAddr::new(if like.is_unspecified() { like } else { new.ip }, port);
    let rpc = match like.rpc.ip().is_loopback() {
        true => SocketAddr::new(like.rpc.ip(), ports.rpc),
        false => address(like.rpc.ip(), ports.rpc),
    };
    Ok(NetworkPlace { rpc, channel: address(like.channel.ip(), ports.channel), p2p: address(like.p2p.ip(), ports.p2p) })
}

/// The sponsor's configuration in the new place.
fn configure(sponsor: &Path, place: &NetworkPlace, peers: &[String], target: &Path) -> Result<(), Fault> {
    let mut text = IniText::read(&sponsor.join("config.ini"))?.at(target);
    write_place(&mut text, place);
    text.set_list("p2p", "node.", peers);
    for (key, value) in [("data_path", "conf/"), ("key", "node.key"), ("cert", "p2p.crt"), ("ca_cert", "p2p-ca.crt")] {
        text.set("network_security", key, value);
    }
    text.save()
}

/// Sets the addresses that a configuration listens on.
pub fn write_place(text: &mut IniText, place: &NetworkPlace) {
    for (section, ip, port, address) in [
        ("rpc", "channel_listen_ip", "channel_listen_port", place.channel),
        ("rpc", "jsonrpc_listen_ip", "jsonrpc_listen_port", place.rpc),
        ("p2p", "listen_ip", "listen_port", place.p2p),
    ] {
        text.set(section, ip, &address.ip().to_string());
        text.set(section, port, &address.port().to_string());
    }
    text.set("millrace", "operator_listen_port", &place.operator_port().to_string());
}

/// What stands beside the nodes of a machine, where it does not yet.
fn complete_machine(machine: &Path, new: &NewNode<'_>, agency: &crate::chain_build::Agency) -> Result<(), Fault> {
    for (name, script) in [("start_all.sh", templates::START_ALL), ("stop_all.sh", templates::STOP_ALL)] {
        if !machine.join(name).exists() {
            write_script(&machine.join(name), script)?;
        }
    }
    if !machine.join("millrace").exists() {
        place_program(&new.program, &machine.join("millrace"))?;
    }
    match machine.join("sdk").exists() {
        true => Ok(()),
        false => write_sdk(&machine.join("sdk"), agency, "sdk"),
    }
}

/// Adds an address to the peers of a node's configuration.
fn name_peer(node: &PresentNode, address: &str) -> Result<(), Fault> {
    let file = node.directory.join("config.ini");
    let mut peers = P2pConfig::read(&file)?.peers;
    if peers.iter().any(|peer| peer == address) {
        return Ok(());
    }
    peers.push(address.to_owned());
    let mut text = IniText::read(&file)?;
    text.set_list("p2p", "node.", &peers);
    text.save()
}
