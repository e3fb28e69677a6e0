//! `millrace devnet`: a network on this machine, ready in seconds.
//!
//! A new directory gets keys, certificates and configuration; a directory that is there is started again with its own keys and chain.
//! `devnet.json`, written last, says that a directory is complete and what it was built with.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use millrace_base::clock::{Clock, SystemClock};
use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{GroupId, NodeId};
use serde_json::{Value, json};

use super::chain::{RulesArguments, first_groups, own_program, refuse_lacking};
use super::run::{STOP_DEADLINE, StopSignals, log_notes};
use crate::chain_build::{self, ChainPlan, Machine, OPERATOR_PORT_OFFSET, Ports, Program, Reach};
use crate::config::NodeConfig;
use crate::logging;
use crate::node::Node;

const MANIFEST: &str = "devnet.json";

/// The chain id of every devnet.
const CHAIN_ID: u64 = 1;

/// Validity of a devnet's certificates.
const DAYS: u32 = 36_500;

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace devnet --dir /tmp/net                         one node, group 1, JSON-RPC on 127.0.0.1:8545
  millrace devnet --groups 4 --dir /tmp/net4 --json      four groups; one JSON line on standard output when ready
  millrace devnet --dir /tmp/fisco --evm fisco2          opcodes and gas of FISCO BCOS 2.x

SIGINT (Ctrl-C) stops in order; the same command starts the same chain again. To begin anew, remove the directory.
Ports are the first node's, each further node has one more; metrics and health are at the RPC port + 1000.
This version runs one node and serves JSON-RPC and the operator port; channel and P2P ports are reserved.")]
pub struct DevnetArguments {
    /// Nodes; this version runs 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// Groups 1 to G [default: 1, or what the directory has].
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u16).range(1..=1000))]
    groups: Option<u16>,
    /// The network's directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// First JSON-RPC port [default: 8545, or what the directory has].
    #[arg(long, value_name = "PORT")]
    rpc_port: Option<u16>,
    /// First channel port [default: 20200, or what the directory has].
    #[arg(long, value_name = "PORT")]
    channel_port: Option<u16>,
    /// First P2P port [default: 30300, or what the directory has].
    #[arg(long, value_name = "PORT")]
    p2p_port: Option<u16>,
    /// Consensus: pbft.
    #[arg(long, value_name = "TYPE", default_value = "pbft")]
    consensus: String,
    /// State: storage.
    #[arg(long, value_name = "TYPE", default_value = "storage")]
    state: String,
    /// Storage: rocksdb.
    #[arg(long, value_name = "TYPE", default_value = "rocksdb")]
    storage: String,
    #[command(flatten)]
    rules: RulesArguments,
    /// Print one JSON line with all endpoints when every node is ready, and nothing else.
    #[arg(long)]
    json: bool,
}

/// Builds the directory if need be, runs the node, stops it in order.
pub fn devnet(arguments: DevnetArguments) -> Result<ExitCode, Fault> {
    refuse_what_is_not_there_yet(&arguments)?;
    let mut signals = StopSignals::listen()?;
    prepare(&arguments)?;
    let dir = fs::canonicalize(&arguments.dir)
        .map_err(|error| refuse(format!("cannot use {}: {error}", arguments.dir.display()), "check its permissions"))?;
    let config = load_node(&arguments, &dir)?;
    logging::start(&config.log)?;
    log_notes(&config);
    let description = Description::of(&config, &dir);
    let node = Node::start(config)?;
    tracing::info!(http = %node.http_addr(), "The FISCO-BCOS is running...");
    let text = match arguments.json {
        true => format!("{}\n", description.to_json(&node)),
        false => description.to_text(&node),
    };
    super::print(&text)?;
    signals.wait();
    tracing::info!("stopping");
    node.stop(STOP_DEADLINE)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Operation, what, remedy)
}

fn refuse_what_is_not_there_yet(arguments: &DevnetArguments) -> Result<(), Fault> {
    if arguments.nodes != 1 {
        let what = format!("{} nodes were asked for; this version of Millrace runs networks of one node", arguments.nodes);
        return Err(refuse(what, "use --nodes 1; several nodes come with the network"));
    }
    refuse_lacking("consensus", &arguments.consensus, "pbft")?;
    refuse_lacking("state", &arguments.state, "storage")?;
    refuse_lacking("storage", &arguments.storage, "rocksdb")
}

/// Makes the directory complete, or checks that it is what was asked for.
fn prepare(arguments: &DevnetArguments) -> Result<(), Fault> {
    let manifest = arguments.dir.join(MANIFEST);
    match fs::read_to_string(&manifest) {
        Ok(text) => check_manifest(arguments, &manifest, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => build(arguments, &manifest),
        Err(error) => Err(refuse(format!("cannot read {}: {error}", manifest.display()), "check the directory's permissions")),
    }
}

fn build(arguments: &DevnetArguments, manifest: &Path) -> Result<(), Fault> {
    let groups = arguments.groups.unwrap_or(1);
    let rules = arguments.rules.chosen()?.unwrap_or_default();
    let defaults = Ports::default();
    let plan = ChainPlan {
        output: arguments.dir.clone(),
        chain_id: CHAIN_ID,
        machines: vec![Machine {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            nodes: arguments.nodes,
            agency: "agency".into(),
            groups: first_groups(groups),
        }],
        ports: Ports {
            p2p: arguments.p2p_port.unwrap_or(defaults.p2p),
            channel: arguments.channel_port.unwrap_or(defaults.channel),
            rpc: arguments.rpc_port.unwrap_or(defaults.rpc),
        },
        rpc_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        days: DAYS,
        rules,
        timestamp_ms: SystemClock.now_ms(),
        reach: Reach::Machine,
        program: Program::Link(own_program()?),
    };
    chain_build::build(&plan, &|_| {})?;
    let text = json!({"nodes": arguments.nodes, "groups": groups, "evm": rules.to_string()}).to_string();
    let finish = || {
        symlink(Path::new("127.0.0.1").join("sdk"), arguments.dir.join("sdk"))?;
        fs::write(manifest, format!("{text}\n"))
    };
    finish().map_err(|error| {
        let what = format!("cannot write {}: {error}", manifest.display());
        Fault::new(FaultKind::Disk, what, "check free space and permissions, remove the directory, and start again")
    })
}

fn check_manifest(arguments: &DevnetArguments, manifest: &Path, text: &str) -> Result<(), Fault> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let (Some(groups), Some(evm)) = (value["groups"].as_u64(), value["evm"].as_str()) else {
        let what = format!("{} is damaged", manifest.display());
        return Err(Fault::new(FaultKind::Config, what, "remove the network's directory and start again, or restore the file"));
    };
    let differs = |what: &str, has: &str, wanted: &str| {
        let what = format!("the network in {} has {what} {has}, and {wanted} was asked for", arguments.dir.display());
        refuse(what, "leave the option out to start it as it is, or name another directory for a new network")
    };
    if let Some(wanted) = arguments.groups.filter(|wanted| u64::from(*wanted) != groups) {
        return Err(differs("groups 1 to", &groups.to_string(), &wanted.to_string()));
    }
    match arguments.rules.chosen()?.filter(|wanted| wanted.to_string() != evm) {
        Some(wanted) => Err(differs("EVM rules", evm, &wanted.to_string())),
        None => Ok(()),
    }
}

/// The node's configuration with the ports of this command line.
fn load_node(arguments: &DevnetArguments, dir: &Path) -> Result<NodeConfig, Fault> {
    let mut config = NodeConfig::load(&dir.join("127.0.0.1/node0/config.ini"))?;
    if let Some(port) = arguments.rpc_port {
        config.rpc.listen.set_port(port);
        let operator_port = port
            .checked_add(OPERATOR_PORT_OFFSET)
            .ok_or_else(|| refuse("the operator port, RPC port + 1000, is above 65535", "use a lower --rpc-port"))?;
        config.operator_listen = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), operator_port));
    }
    if let Some(port) = arguments.channel_port {
        config.channel_listen.set_port(port);
    }
    if let Some(port) = arguments.p2p_port {
        config.p2p.listen.set_port(port);
    }
    config.refuse_groups_that_need_peers()?;
    Ok(config)
}

/// What people and harnesses are told.
struct Description {
    dir: PathBuf,
    node_dir: PathBuf,
    node_id: NodeId,
    chain_id: u64,
    groups: Vec<GroupId>,
    channel: SocketAddr,
    p2p: SocketAddr,
}

impl Description {
    fn of(config: &NodeConfig, dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            node_dir: config.file.parent().unwrap_or(dir).to_owned(),
            node_id: config.key.node_id(),
            chain_id: config.chain_id,
            groups: config.groups.iter().map(|group| group.genesis.group).collect(),
            channel: config.channel_listen,
            p2p: config.p2p.listen,
        }
    }

    fn operator(node: &Node) -> Option<String> {
        node.operator_addr().map(|address| format!("http://{address}"))
    }

    /// The endpoints of the first node stand at the top, those of all in `nodes`. `serving` names the ports that answer.
    fn to_json(&self, node: &Node) -> String {
        let (rpc, operator) = (format!("http://{}", node.http_addr()), Self::operator(node));
        let (channel, p2p) = (self.channel.to_string(), self.p2p.to_string());
        json!({
            "nodes": [{"nodeId": self.node_id.to_string(), "dir": self.node_dir, "rpc": rpc, "channel": channel, "p2p": p2p, "operator": operator}],
            "rpc": rpc,
            "channel": channel,
            "p2p": p2p,
            "operator": operator,
            "serving": ["rpc", "operator"],
            "dir": self.dir,
            "chainId": self.chain_id,
            "groups": self.groups.iter().map(|group| group.get()).collect::<Vec<_>>(),
            "sdk": self.dir.join("sdk"),
        })
        .to_string()
    }

    fn to_text(&self, node: &Node) -> String {
        let groups: Vec<String> = self.groups.iter().map(GroupId::to_string).collect();
        format!(
            "The network is running; Ctrl-C stops it.\n\n  JSON-RPC    http://{}\n  operator    {}\n  chain id    {}\n  groups      {}\n  node id     {}\n  directory   {}\n  logs        {}\n  SDK bundle  {}\n\nTry:  curl -s http://{} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getBlockNumber\",\"params\":[1]}}'\n",
            node.http_addr(),
            Self::operator(node).unwrap_or_else(|| "none".into()),
            self.chain_id,
            groups.join(", "),
            self.node_id,
            self.dir.display(),
            self.node_dir.join("log").display(),
            self.dir.join("sdk").display(),
            node.http_addr(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        arguments: DevnetArguments,
    }

    fn arguments(dir: &Path, more: &[&str]) -> DevnetArguments {
        let fixed = ["devnet", "--dir", dir.to_str().unwrap()];
        Wrapper::try_parse_from(fixed.iter().chain(more)).unwrap().arguments
    }

    #[test]
    fn directory_is_built_once_and_started_again_with_the_same_keys() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("net");
        let first = arguments(&dir, &["--groups", "2", "--evm", "fisco2", "--rpc-port", "9545"]);
        prepare(&first).unwrap();
        let built = load_node(&first, &dir).unwrap();
        assert_eq!(built.groups.len(), 2);
        assert_eq!(built.rpc.listen, "127.0.0.1:9545".parse().unwrap());
        assert!(dir.join("sdk/sdk.key").is_file());

        let again = arguments(&dir, &["--rpc-port", "9600"]);
        prepare(&again).unwrap();
        let started = load_node(&again, &dir).unwrap();
        assert_eq!(started.key.node_id(), built.key.node_id());
        assert_eq!(started.groups, built.groups);
        assert_eq!(started.rpc.listen.port(), 9600);
        assert_eq!(started.operator_listen.unwrap().port(), 10600);
        for other in [&["--groups", "3"][..], &["--evm", "cancun"], &["--free-storage"]] {
            let message = prepare(&arguments(&dir, other)).unwrap_err().to_string();
            assert!(message.contains("was asked for"), "{message}");
        }
        let contradiction = prepare(&arguments(&dir, &["--free-storage", "--evm", "london"])).unwrap_err().to_string();
        assert!(contradiction.contains("does not go with --evm london"), "{contradiction}");
    }

    #[test]
    fn directory_with_other_content_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("letter.txt"), "dear").unwrap();
        assert!(prepare(&arguments(scratch.path(), &[])).unwrap_err().to_string().contains("is not empty"));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_there_yet_is_refused_with_what_is() {
        let dir = Path::new("/nonexistent");
        for (more, word) in [
            (["--nodes", "4"], "--nodes 1"),
            (["--consensus", "raft"], "supported: pbft"),
            (["--state", "mpt"], "supported: storage"),
            (["--storage", "mysql"], "supported: rocksdb"),
        ] {
            let message = refuse_what_is_not_there_yet(&arguments(dir, &more)).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
