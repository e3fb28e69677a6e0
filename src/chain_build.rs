//! Builds the directories of a chain in the 2.x layout (`spec/client-protocol.md` 7.5): keys, certificates, configuration, SDK bundle,
//! start and stop scripts. Nothing is downloaded.
//!
//! Invariant: everything is written into `.building` inside the output directory and moved out at the end, so an interrupted build
//! leaves no directory that looks complete. Called by `chain build` and `devnet`; [`crate::chain_change`] extends what stands here.

pub mod files;
pub mod ini_text;
pub mod node_files;
pub mod templates;
#[cfg(test)]
#[path = "chain_build/tests.rs"]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use millrace_administration::raft::ElectionTimes;
use millrace_base::fault::Fault;
use millrace_base::{ChainId, GroupId, KeyPair, NodeId};
use millrace_core::StateKind;
use millrace_ledger::genesis::Consensus;
use millrace_vm::EvmRules;

use crate::certificates::{Algorithm, Authority, KeySource, Leaf, Validity};
use files::{cannot_write, place_program, private_directory, refuse, write_credential, write_script, write_text};
use node_files::{Identity, NetworkPlace, write_group, write_node};
use templates::NodeText;

/// Most nodes one build makes: each takes an RSA key, and a chain of more has been built by nobody.
pub const MAX_NODES: usize = 1_000;

/// First ports; each further node on the same host has one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// P2P.
    pub p2p: u16,
    /// Channel.
    pub channel: u16,
    /// HTTP JSON-RPC.
    pub rpc: u16,
}

/// Distance of the operator port from the JSON-RPC port.
pub const OPERATOR_PORT_OFFSET: u16 = 1_000;

impl Default for Ports {
    fn default() -> Self {
        Self { p2p: 30300, channel: 20200, rpc: 8545 }
    }
}

/// Nodes on one machine that belong to one agency and the same groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its address.
    pub ip: IpAddr,
    /// Number of nodes.
    pub nodes: usize,
    /// The agency that runs them.
    pub agency: String,
    /// The groups that they are sealers of.
    pub groups: Vec<GroupId>,
}

/// Where one group lies, in place of what the machines say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The group.
    pub group: GroupId,
    /// Its sealers: `node0`, or `10.0.0.1/node0` where several machines have one.
    pub nodes: Vec<String>,
}

/// Who can reach the channel and P2P ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everybody: the ports listen on all addresses.
    Network,
    /// Only processes on addresses of the machines' own, which for a test network is the loopback address.
    Machine,
}

/// How each group orders its transactions: `raft`, or `pbft,2=raft`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsensusPlan {
    others: Consensus,
    groups: BTreeMap<GroupId, Consensus>,
}

impl ConsensusPlan {
    /// Of one group.
    pub fn of(&self, group: GroupId) -> Consensus {
        self.groups.get(&group).copied().unwrap_or(self.others)
    }
}

impl FromStr for ConsensusPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str| match name.trim() {
            "pbft" => Ok(Consensus::Pbft),
            "raft" => Ok(Consensus::Raft(ElectionTimes::default())),
            other => Err(format!("consensus \"{other}\" is not supported by this version; supported: pbft, raft")),
        };
        let mut plan = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                None => plan.others = named(part)?,
                Some((group, name)) => {
                    let group = group.trim().parse().ok().and_then(GroupId::new).ok_or("a group's id is a number from 1 to 32767")?;
                    plan.groups.insert(group, named(name)?);
                }
            }
        }
        Ok(plan)
    }
}

impl Display for ConsensusPlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.others.name())?;
        self.groups.iter().try_for_each(|(group, consensus)| write!(out, ",{group}={}", consensus.name()))
    }
}

/// How the program comes beside the nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// Copied, so that the directory can be moved to another machine.
    Copy(PathBuf),
    /// A symbolic link.
    Link(PathBuf),
}

/// What to build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainPlan {
    /// Output directory; absent or empty.
    pub output: PathBuf,
    /// Chain id.
    pub chain_id: ChainId,
    /// Machines; one machine may stand in several entries.
    pub machines: Vec<Machine>,
    /// Groups that lie elsewhere than on all nodes of their machines.
    pub placements: Vec<Placement>,
    /// First ports.
    pub ports: Ports,
    /// Where JSON-RPC listens.
    pub rpc_ip: IpAddr,
    /// Validity of the certificates.
    pub days: u32,
    /// Rules of the groups' machine.
    pub rules: EvmRules,
    /// How the groups keep their state.
    pub state: StateKind,
    /// How the groups order their transactions.
    pub consensus: ConsensusPlan,
    /// Timestamp of the genesis blocks, milliseconds.
    pub timestamp_ms: u64,
    /// Who can reach the nodes.
    pub reach: Reach,
    /// The program.
    pub program: Program,
}

/// A node that was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuiltNode {
    /// Its directory.
    pub directory: PathBuf,
    /// Its identity.
    pub node_id: NodeId,
}

struct PlannedNode {
    ip: IpAddr,
    agency: String,
    groups: Vec<GroupId>,
    index: usize,
    key: KeyPair,
    relative: PathBuf,
}

/// Both authorities of an agency.
pub struct Agency {
    /// Issues P2P certificates of nodes.
    pub peers: Authority,
    /// Issues certificates of channel ports and clients.
    pub channel: Authority,
}

impl Agency {
    /// A new agency of a chain.
    ///
    /// # Errors
    /// A name that cannot be one, or that stands in no certificate.
    pub fn new(name: &str, chain: &Authority, validity: Validity) -> Result<Self, Fault> {
        check_name(name)?;
        Ok(Self {
            peers: chain.intermediate(name, KeySource::New)?,
            channel: Authority::root(name, Algorithm::Rsa2048, validity, KeySource::New)?,
        })
    }

    /// Writes certificates and keys into a directory that must not exist.
    pub fn write(&self, directory: &Path) -> Result<(), Fault> {
        private_directory(directory)?;
        write_credential(directory, "agency", &self.peers.credential)?;
        private_directory(&directory.join("channel"))?;
        write_credential(&directory.join("channel"), "ca", &self.channel.credential)
    }
}

/// Builds the chain; `progress` is told each step.
pub fn build(plan: &ChainPlan, progress: &dyn Fn(&str)) -> Result<Vec<BuiltNode>, Fault> {
    let nodes = plan_nodes(plan)?;
    let staging = prepare_output(&plan.output)?;
    let result = write_everything(plan, &nodes, &staging, progress).and_then(|()| publish(&staging, &plan.output));
    if let Err(fault) = result {
        // The staging directory holds nothing of value; the first fault is the one to report.
        let _ = fs::remove_dir_all(&staging);
        return Err(fault);
    }
    Ok(nodes.iter().map(|node| BuiltNode { directory: plan.output.join(&node.relative), node_id: node.key.node_id() }).collect())
}

fn plan_nodes(plan: &ChainPlan) -> Result<Vec<PlannedNode>, Fault> {
    let total: usize = plan.machines.iter().map(|machine| machine.nodes).sum();
    if total == 0 || total > MAX_NODES {
        return Err(refuse(format!("{total} nodes were asked for"), format!("ask for 1 to {MAX_NODES} nodes")));
    }
    let mut next_index = BTreeMap::<IpAddr, usize>::new();
    let mut nodes = Vec::with_capacity(total);
    for machine in &plan.machines {
        check_name(&machine.agency)?;
        for _ in 0..machine.nodes {
            let index = next_index.entry(machine.ip).or_default();
            let name = format!("node{index}");
            let relative = Path::new(&machine.ip.to_string()).join(name);
            let (agency, groups) = (machine.agency.clone(), machine.groups.clone());
            nodes.push(PlannedNode { ip: machine.ip, agency, groups, index: *index, key: KeyPair::generate(), relative });
            *index += 1;
        }
    }
    check_ports(plan.ports, next_index.values().copied().max().unwrap_or(0))?;
    plan.placements.iter().try_for_each(|placement| place_group(placement, &mut nodes))?;
    match nodes.iter().find(|node| node.groups.is_empty()) {
        None => Ok(nodes),
        Some(node) => {
            let what = format!("{} would be in no group", node.relative.display());
            Err(refuse(what, "name it in a --group option, or leave the node out"))
        }
    }
}

/// Takes a group off all nodes but those that are named.
fn place_group(placement: &Placement, nodes: &mut [PlannedNode]) -> Result<(), Fault> {
    let group = placement.group;
    for node in nodes.iter_mut() {
        node.groups.retain(|other| *other != group);
    }
    for name in &placement.nodes {
        let matches = |node: &PlannedNode| node.relative == Path::new(name) || node.relative.ends_with(name);
        let mut found = nodes.iter_mut().filter(|node| matches(node));
        match (found.next(), found.next()) {
            (Some(node), None) if node.groups.contains(&group) => {
                return Err(refuse(format!("group {group} names {name} twice"), "name each node once"));
            }
            (Some(node), None) => {
                let place = node.groups.partition_point(|other| *other < group);
                node.groups.insert(place, group);
            }
            (Some(_), Some(_)) => {
                return Err(refuse(format!("several machines have a {name}"), format!("write the machine too, as in 10.0.0.1/{name}")));
            }
            (None, _) => {
                let known: Vec<String> = nodes.iter().take(10).map(|node| node.relative.display().to_string()).collect();
                return Err(refuse(format!("group {group} is to lie on {name}, which is no node"), format!("nodes: {}", known.join(", "))));
            }
        }
    }
    match placement.nodes.is_empty() {
        true => Err(refuse(format!("group {group} would have no node"), "name its nodes: --group 2=node0,node1")),
        false => Ok(()),
    }
}

fn check_name(agency: &str) -> Result<(), Fault> {
    let fits = (1..=64).contains(&agency.len()) && agency.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match fits && !agency.starts_with('.') {
        true => Ok(()),
        false => Err(refuse(format!("\"{agency}\" cannot be an agency's name"), "use 1 to 64 letters, digits, - and _")),
    }
}

/// Port ranges must stay below 65536 and must not meet on one machine.
pub fn check_ports(ports: Ports, nodes: usize) -> Result<(), Fault> {
    let Ports { p2p, channel, rpc } = ports;
    let first = [u32::from(p2p), u32::from(channel), u32::from(rpc), u32::from(rpc) + u32::from(OPERATOR_PORT_OFFSET)];
    let count = u32::try_from(nodes).expect("at most MAX_NODES");
    if first.iter().any(|port| *port == 0 || port + count > 65_536) {
        return Err(refuse(format!("ports for {nodes} nodes do not fit below 65536"), "choose lower first ports"));
    }
    for (position, one) in first.iter().enumerate() {
        if first[position + 1..].iter().any(|other| one.abs_diff(*other) < count) {
            let what = format!("the port ranges of {nodes} nodes from {p2p}, {channel}, {rpc} and {} (operator) overlap", first[3]);
            return Err(refuse(what, "choose first ports that are further apart"));
        }
    }
    Ok(())
}

fn prepare_output(output: &Path) -> Result<PathBuf, Fault> {
    fs::create_dir_all(output).map_err(cannot_write(output))?;
    let staging = output.join(".building");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(cannot_write(&staging))?;
    }
    if fs::read_dir(output).map_err(cannot_write(output))?.next().is_some() {
        return Err(refuse(
            format!("{} is not empty", output.display()),
            "name another directory, or move this one away: keys in it cannot be made again",
        ));
    }
    fs::create_dir(&staging).map_err(cannot_write(&staging))?;
    Ok(staging)
}

fn publish(staging: &Path, output: &Path) -> Result<(), Fault> {
    for entry in fs::read_dir(staging).map_err(cannot_write(staging))? {
        let entry = entry.map_err(cannot_write(staging))?;
        let target = output.join(entry.file_name());
        fs::rename(entry.path(), &target).map_err(cannot_write(&target))?;
    }
    fs::remove_dir(staging).map_err(cannot_write(staging))
}

fn write_everything(plan: &ChainPlan, nodes: &[PlannedNode], staging: &Path, progress: &dyn Fn(&str)) -> Result<(), Fault> {
    progress("making the chain's and the agencies' certificates");
    let validity = Validity::days(plan.days);
    let chain = Authority::root("chain", Algorithm::P256, validity, KeySource::New)?;
    let mut agencies = BTreeMap::new();
    for name in nodes.iter().map(|node| &node.agency).collect::<BTreeSet<_>>() {
        agencies.insert(name.as_str(), Agency::new(name, &chain, validity)?);
    }
    let authorities = staging.join("cert");
    private_directory(&authorities)?;
    write_credential(&authorities, "ca", &chain.credential)?;
    agencies.iter().try_for_each(|(name, agency)| agency.write(&authorities.join(name)))?;
    let peers: Vec<String> = nodes.iter().map(|node| endpoint(node.ip, nth_port(plan.ports.p2p, node.index))).collect();
    for node in nodes {
        progress(&format!("making {}", node.relative.display()));
        let directory = staging.join(&node.relative);
        let name = format!("node{}", node.index);
        let identity = Identity { name: &name, ip: node.ip, key: &node.key };
        write_node(&identity, &agencies[node.agency.as_str()], &chain.credential.certificate, &directory)?;
        write_config(plan, node, &peers, &directory)?;
        write_groups(plan, node, nodes, &directory.join("conf"))?;
    }
    let mut machines = BTreeMap::new();
    for node in nodes {
        machines.entry(node.ip).or_insert(node.agency.as_str());
    }
    for (ip, agency) in machines {
        progress("making the SDK bundle and scripts");
        let directory = staging.join(ip.to_string());
        write_sdk(&directory.join("sdk"), &agencies[agency], "sdk")?;
        write_script(&directory.join("start_all.sh"), templates::START_ALL)?;
        write_script(&directory.join("stop_all.sh"), templates::STOP_ALL)?;
        place_program(&plan.program, &directory.join("millrace"))?;
    }
    Ok(())
}

fn nth_port(first: u16, index: usize) -> u16 {
    u16::try_from(usize::from(first) + index).expect("port ranges were checked")
}

fn endpoint(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

fn write_config(plan: &ChainPlan, node: &PlannedNode, peers: &[String], directory: &Path) -> Result<(), Fault> {
    let public = node_files::listen_ip(plan.reach, node.ip);
    let place = NetworkPlace {
        rpc: SocketAddr::new(plan.rpc_ip, nth_port(plan.ports.rpc, node.index)),
        channel: SocketAddr::new(public, nth_port(plan.ports.channel, node.index)),
        p2p: SocketAddr::new(public, nth_port(plan.ports.p2p, node.index)),
    };
    let text = templates::config_ini(&NodeText { place, peers, chain_id: plan.chain_id });
    write_text(&directory.join("config.ini"), &text)
}

fn write_groups(plan: &ChainPlan, node: &PlannedNode, nodes: &[PlannedNode], conf: &Path) -> Result<(), Fault> {
    for group in &node.groups {
        let mut sealers: Vec<NodeId> = nodes.iter().filter(|other| other.groups.contains(group)).map(|other| other.key.node_id()).collect();
        sealers.sort_unstable();
        let genesis = templates::group_genesis(*group, plan.timestamp_ms, &sealers, plan.rules, plan.consensus.of(*group), plan.state);
        write_group(conf, *group, &genesis, templates::group_ini())?;
    }
    Ok(())
}

/// Writes the files of a client: the agency's authority, a certificate and its key.
pub fn write_sdk(directory: &Path, agency: &Agency, name: &str) -> Result<(), Fault> {
    fs::create_dir_all(directory).map_err(cannot_write(directory))?;
    write_text(&directory.join("ca.crt"), &agency.channel.credential.certificate)?;
    write_credential(directory, "sdk", &agency.channel.issue(name, &Leaf::Sdk, KeySource::New)?)
}
