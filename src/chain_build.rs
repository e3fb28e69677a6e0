//! Builds the directories of a chain in the 2.x layout (`spec/client-protocol.md` 7.5): keys, certificates, configuration, SDK bundle,
//! start and stop scripts. Nothing is downloaded.
//!
//! Invariant: everything is written into `.building` inside the output directory and moved out at the end, so an interrupted build
//! leaves no directory that looks complete. Called by `chain build` and `devnet`.

pub mod templates;
#[cfg(test)]
#[path = "chain_build/tests.rs"]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{ChainId, GroupId, KeyPair, NodeId};
use millrace_vm::EvmRules;

use crate::certificates::{Algorithm, Authority, Credential, Leaf, Validity};
use crate::keys;
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

/// Who can reach the channel and P2P ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everybody: the ports listen on all addresses.
    Network,
    /// Only processes on addresses of the machines' own, which for a test network is the loopback address.
    Machine,
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
    /// First ports.
    pub ports: Ports,
    /// Where JSON-RPC listens.
    pub rpc_ip: IpAddr,
    /// Validity of the certificates.
    pub days: u32,
    /// Rules of the groups' machine.
    pub rules: EvmRules,
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

struct Agency {
    peers: Authority,
    channel: Authority,
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

fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Operation, what, remedy)
}

fn cannot_write(path: &Path) -> impl Fn(io::Error) -> Fault {
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => FaultKind::Disk,
            _ => FaultKind::Operation,
        };
        Fault::new(
            kind,
            format!("cannot write {}: {error}", path.display()),
            "check free space and permissions, or name another output directory",
        )
    }
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
    check_ports(plan, next_index.values().copied().max().unwrap_or(0))?;
    Ok(nodes)
}

fn check_name(agency: &str) -> Result<(), Fault> {
    let fits = (1..=64).contains(&agency.len()) && agency.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match fits && !agency.starts_with('.') && agency != "channel" {
        true => Ok(()),
        false => Err(refuse(format!("\"{agency}\" cannot be an agency's name"), "use 1 to 64 letters, digits, - and _")),
    }
}

/// Port ranges must stay below 65536 and must not meet on one machine.
fn check_ports(plan: &ChainPlan, nodes: usize) -> Result<(), Fault> {
    let Ports { p2p, channel, rpc } = plan.ports;
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
    let chain = Authority::root("chain", Algorithm::P256, validity)?;
    let mut agencies = BTreeMap::new();
    for name in nodes.iter().map(|node| &node.agency).collect::<BTreeSet<_>>() {
        let agency = Agency { peers: chain.intermediate(name)?, channel: Authority::root(name, Algorithm::Rsa2048, validity)? };
        agencies.insert(name.as_str(), agency);
    }
    write_authorities(&staging.join("cert"), &chain, &agencies)?;
    let peers: Vec<String> = nodes.iter().map(|node| endpoint(node.ip, nth_port(plan.ports.p2p, node.index))).collect();
    for node in nodes {
        progress(&format!("making {}", node.relative.display()));
        let agency = &agencies[node.agency.as_str()];
        write_node(node, agency, &chain, &staging.join(&node.relative))?;
        write_config(plan, node, nodes, &peers, &staging.join(&node.relative))?;
    }
    let mut machines = BTreeMap::new();
    for node in nodes {
        machines.entry(node.ip).or_insert(node.agency.as_str());
    }
    for (ip, agency) in machines {
        progress("making the SDK bundle and scripts");
        let directory = staging.join(ip.to_string());
        write_sdk(&directory.join("sdk"), &agencies[agency])?;
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
    std::net::SocketAddr::new(ip, port).to_string()
}

fn write_authorities(directory: &Path, chain: &Authority, agencies: &BTreeMap<&str, Agency>) -> Result<(), Fault> {
    private_directory(directory)?;
    write_credential(directory, "ca", &chain.credential)?;
    for (name, agency) in agencies {
        let directory = directory.join(name);
        private_directory(&directory)?;
        write_credential(&directory, "agency", &agency.peers.credential)?;
        private_directory(&directory.join("channel"))?;
        write_credential(&directory.join("channel"), "ca", &agency.channel.credential)?;
    }
    Ok(())
}

fn write_node(node: &PlannedNode, agency: &Agency, chain: &Authority, directory: &Path) -> Result<(), Fault> {
    let name = format!("node{}", node.index);
    let conf = directory.join("conf");
    fs::create_dir_all(directory).map_err(cannot_write(directory))?;
    private_directory(&conf)?;
    write_text(&conf.join("ca.crt"), &chain.credential.certificate)?;
    let peer = agency.peers.issue_with_chain(&name, &Leaf::Peer(node.key.node_id()))?;
    write_text(&conf.join("node.crt"), &peer.certificate)?;
    write_secret(&conf.join("p2p.key"), &peer.key)?;
    write_secret(&conf.join("node.key"), &keys::key_to_pem(&node.key))?;
    write_text(&conf.join("node.nodeid"), &format!("{}\n", node.key.node_id()))?;
    let channel_directory = conf.join("channel_cert");
    private_directory(&channel_directory)?;
    write_text(&channel_directory.join("ca.crt"), &agency.channel.credential.certificate)?;
    write_credential(&channel_directory, "node", &agency.channel.issue(&name, &Leaf::Channel(node.ip))?)?;
    write_script(&directory.join("start.sh"), templates::START)?;
    write_script(&directory.join("stop.sh"), templates::STOP)
}

fn write_config(plan: &ChainPlan, node: &PlannedNode, nodes: &[PlannedNode], peers: &[String], directory: &Path) -> Result<(), Fault> {
    let public = match (plan.reach, node.ip) {
        (Reach::Machine, own) => own,
        (Reach::Network, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (Reach::Network, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let rpc_port = nth_port(plan.ports.rpc, node.index);
    let text = templates::config_ini(&NodeText {
        rpc: (plan.rpc_ip, rpc_port),
        channel: (public, nth_port(plan.ports.channel, node.index)),
        p2p: (public, nth_port(plan.ports.p2p, node.index)),
        operator_port: rpc_port + OPERATOR_PORT_OFFSET,
        peers,
        chain_id: plan.chain_id,
    });
    write_text(&directory.join("config.ini"), &text)?;
    for group in &node.groups {
        let mut sealers: Vec<NodeId> = nodes.iter().filter(|other| other.groups.contains(group)).map(|other| other.key.node_id()).collect();
        sealers.sort_unstable();
        let genesis = templates::group_genesis(*group, plan.timestamp_ms, &sealers, plan.rules);
        write_text(&directory.join(format!("conf/group.{group}.genesis")), &genesis)?;
        write_text(&directory.join(format!("conf/group.{group}.ini")), templates::group_ini())?;
    }
    Ok(())
}

fn write_sdk(directory: &Path, agency: &Agency) -> Result<(), Fault> {
    fs::create_dir_all(directory).map_err(cannot_write(directory))?;
    write_text(&directory.join("ca.crt"), &agency.channel.credential.certificate)?;
    write_credential(directory, "sdk", &agency.channel.issue("sdk", &Leaf::Sdk)?)
}

fn place_program(program: &Program, target: &Path) -> Result<(), Fault> {
    match program {
        Program::Copy(source) => fs::copy(source, target).map(drop),
        Program::Link(source) => symlink(source, target),
    }
    .map_err(cannot_write(target))
}

fn private_directory(path: &Path) -> Result<(), Fault> {
    DirBuilder::new().mode(0o700).create(path).map_err(cannot_write(path))
}

fn write_credential(directory: &Path, name: &str, credential: &Credential) -> Result<(), Fault> {
    write_text(&directory.join(format!("{name}.crt")), &credential.certificate)?;
    write_secret(&directory.join(format!("{name}.key")), &credential.key)
}

fn write_secret(path: &Path, pem: &str) -> Result<(), Fault> {
    keys::write_secret(path, pem).map_err(cannot_write(path))
}

fn write_text(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).map_err(cannot_write(path))
}

fn write_script(path: &Path, text: &str) -> Result<(), Fault> {
    write_text(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(cannot_write(path))
}
