//! `millrace devnet`: a network on this machine, ready in seconds.
//!
//! A new directory gets keys, certificates and configuration; a directory that is there is started again with its own keys and chain.
//! One node runs in this process; several are processes of their own ([`children`]), watched and stopped by this one.

mod children;
mod description;
mod directory;
mod mysql;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::StateKind;

use super::chain::{RulesArguments, parse_placement};
use super::run::{STOP_DEADLINE, StopSignals, log_notes};
use crate::chain_build::{ConsensusPlan, Placement};
use crate::config::NodeConfig;
use crate::logging;
use crate::node::Node;
use children::Children;
use description::Description;

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace devnet --dir /tmp/net                         one node, group 1, JSON-RPC on 127.0.0.1:8545
  millrace devnet --nodes 4 --groups 2 --dir /tmp/net4   four nodes, each a process, all in groups 1 and 2
  millrace devnet --groups 4 --dir /tmp/net5 --json      four groups; one JSON line on standard output when ready
  millrace devnet --nodes 3 --group 1=node0,node1 --group 2=node1,node2 --dir /tmp/net6
  millrace devnet --dir /tmp/fisco --evm fisco2          opcodes and gas of FISCO BCOS 2.x
  millrace devnet --dir /tmp/sql --storage mysql         blocks and state in a MariaDB that the network starts in /tmp/sql/mysql

SIGINT (Ctrl-C) stops in order; the same command starts the same chain again, nodes added by `chain add-node` included. To begin
anew, remove the directory. Ports are the first node's, each further node has one more; metrics and health are at the RPC port
+ 1000. A node that ends on its own is named with the end of its log, and the others go on.")]
pub struct DevnetArguments {
    /// Nodes [default: 1, or what the directory has].
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Groups 1 to G on all nodes [default: 1, or what the directory has].
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u16).range(1..=1000))]
    groups: Option<u16>,
    /// A group that lies on some nodes only: "2=node0,node1".
    #[arg(long = "group", value_name = "ID=NODE,…", value_parser = parse_placement)]
    placements: Vec<Placement>,
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
    /// Consensus of the groups: pbft (sealers may lie), raft (sealers may only stop), or by group: "pbft,2=raft" [default: pbft, or what
    /// the directory has].
    #[arg(long, value_name = "TYPE")]
    consensus: Option<ConsensusPlan>,
    /// State: storage (latest values), or mpt (Ethereum's tries: history and proofs) [default: storage, or what the directory has].
    #[arg(long, value_name = "TYPE")]
    state: Option<StateKind>,
    /// Storage: rocksdb or mysql [default: rocksdb, or what the directory has].
    #[arg(long, value_name = "TYPE")]
    storage: Option<String>,
    /// The server of mysql storage; the account's password is in MILLRACE_MYSQL_PASSWORD [default: a MariaDB of the network's own].
    #[arg(long, value_name = "HOST:PORT")]
    mysql: Option<String>,
    /// The account on that server; it must be allowed to make databases.
    #[arg(long, value_name = "NAME", default_value = "millrace", requires = "mysql")]
    mysql_user: String,
    #[command(flatten)]
    rules: RulesArguments,
    /// Print one JSON line with all endpoints when every node is ready, and nothing else.
    #[arg(long)]
    json: bool,
}

/// Builds the directory if need be, runs the nodes, stops them in order.
pub fn devnet(arguments: DevnetArguments) -> Result<ExitCode, Fault> {
    refuse_what_is_not_there_yet(&arguments)?;
    let begun = Instant::now();
    let signals = StopSignals::listen()?;
    let network = directory::prepare(&arguments)?;
    let mut configs = network.nodes.iter().map(|node| NodeConfig::load(&node.join("config.ini"))).collect::<Result<Vec<_>, _>>()?;
    // Stopped when the nodes have ended, whichever way this function is left.
    let _server = mysql::start(&network.root, &configs)?;
    let description = Description::of(&configs, &network.root);
    match configs.len() {
        1 => run_here(configs.remove(0), description, &arguments, signals),
        _ => run_processes(&configs, description, (&arguments, begun), signals),
    }
}

/// The only node of a network.
fn run_here(
    config: NodeConfig,
    mut description: Description,
    arguments: &DevnetArguments,
    mut signals: StopSignals,
) -> Result<ExitCode, Fault> {
    logging::start(&config.log)?;
    log_notes(&config);
    let node = Node::start(config)?;
    tracing::info!(http = %node.http_addr(), "The FISCO-BCOS is running...");
    description.pids = vec![std::process::id()];
    super::print(&description.render(arguments.json))?;
    signals.wait();
    tracing::info!("stopping");
    node.stop(STOP_DEADLINE)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Several nodes, each in a process of its own.
fn run_processes(
    configs: &[NodeConfig],
    mut description: Description,
    (arguments, begun): (&DevnetArguments, Instant),
    mut signals: StopSignals,
) -> Result<ExitCode, Fault> {
    let mut children = Children::start(configs)?;
    // Nodes are stopped in order on every way out, also when one of them does not start.
    let ran = children.wait_until_ready(&mut signals).and_then(|readiness| {
        if readiness.is_complete() {
            description.pids = children.pids();
            description.ready_after = Some(begun.elapsed());
            super::print(&description.render(arguments.json))?;
            children.watch(&mut signals)?;
        }
        Ok(())
    });
    let stopped = children.stop(STOP_DEADLINE);
    ran.and(stopped).map(|()| ExitCode::SUCCESS)
}

fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Operation, what, remedy)
}

fn refuse_what_is_not_there_yet(arguments: &DevnetArguments) -> Result<(), Fault> {
    if arguments.mysql.is_some() && arguments.storage.as_deref() != Some("mysql") {
        return Err(refuse("--mysql names a server, and the storage is not mysql", "add --storage mysql, or leave --mysql out"));
    }
    match arguments.storage.as_deref() {
        None | Some("rocksdb" | "mysql") => Ok(()),
        Some(other) => Err(refuse(format!("storage \"{other}\" is not supported by this version"), "supported: rocksdb, mysql")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::directory::prepare;
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

    fn load(network: &directory::Network) -> Vec<NodeConfig> {
        network.nodes.iter().map(|node| NodeConfig::load(&node.join("config.ini")).unwrap()).collect()
    }

    #[test]
    fn directory_is_built_once_and_started_again_with_the_same_keys() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("net");
        let built = load(&prepare(&arguments(&dir, &["--groups", "2", "--evm", "fisco2", "--rpc-port", "9545"])).unwrap()).remove(0);
        assert_eq!(built.groups.len(), 2);
        assert_eq!(built.rpc.listen, "127.0.0.1:9545".parse().unwrap());
        assert!(dir.join("sdk/sdk.key").is_file());

        let started = load(&prepare(&arguments(&dir, &["--rpc-port", "9600"])).unwrap()).remove(0);
        assert_eq!(started.key.node_id(), built.key.node_id());
        assert_eq!(started.groups, built.groups);
        assert_eq!(started.rpc.listen.port(), 9600);
        assert_eq!(started.operator_listen.unwrap().port(), 10600);
        for other in [
            &["--groups", "3"][..],
            &["--evm", "cancun"],
            &["--state", "mpt"],
            &["--free-storage"],
            &["--nodes", "2"],
            &["--group", "2=node0"],
            &["--consensus", "raft"],
        ] {
            let message = prepare(&arguments(&dir, other)).err().unwrap().to_string();
            assert!(message.contains("was asked for"), "{message}");
        }
        let contradiction = prepare(&arguments(&dir, &["--free-storage", "--evm", "london"])).err().unwrap().to_string();
        assert!(contradiction.contains("does not go with --evm london"), "{contradiction}");
    }

    #[test]
    fn several_nodes_have_ports_in_a_row_and_move_together() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("net");
        let built = load(&prepare(&arguments(&dir, &["--nodes", "3", "--group", "2=node1,node2"])).unwrap());
        assert_eq!(built.iter().map(|config| config.groups.len()).collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!(built[0].groups[0].genesis.sealers.len(), 3);
        let moved = load(&prepare(&arguments(&dir, &["--nodes", "3", "--rpc-port", "18000", "--p2p-port", "18200"])).unwrap());
        for (index, config) in moved.iter().enumerate() {
            let port = |first: usize| u16::try_from(first + index).unwrap();
            assert_eq!(
                (config.rpc.listen.port(), config.channel_listen.port(), config.p2p.listen.port()),
                (port(18000), port(20200), port(18200))
            );
            assert_eq!(config.operator_listen.unwrap().port(), port(19000));
            assert_eq!(config.p2p.peers, ["127.0.0.1:18200", "127.0.0.1:18201", "127.0.0.1:18202"]);
            assert_eq!(config.key.node_id(), built[index].key.node_id());
        }
        let close = prepare(&arguments(&dir, &["--channel-port", "18001"])).err().unwrap().to_string();
        assert!(close.contains("overlap"), "{close}");
        let text = Description::of(&moved, &dir).render(true);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((json["rpc"].as_str().unwrap(), json["nodes"].as_array().unwrap().len()), ("http://127.0.0.1:18000", 3));
        assert_eq!((json["nodes"][2]["p2p"].as_str().unwrap(), &json["nodes"][0]["groups"]), ("127.0.0.1:18202", &serde_json::json!([1])));
        assert_eq!(json["groups"], serde_json::json!([1, 2]));
    }

    #[test]
    fn consensus_is_chosen_by_group_and_kept_by_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("net");
        let wanted = ["--nodes", "2", "--groups", "2", "--consensus", "pbft,2=raft"];
        let built = load(&prepare(&arguments(&dir, &wanted)).unwrap());
        let of = |config: &NodeConfig| config.groups.iter().map(|group| group.genesis.consensus.name()).collect::<Vec<_>>();
        assert_eq!((of(&built[0]), of(&built[1])), (vec!["pbft", "raft"], vec!["pbft", "raft"]));
        assert!(prepare(&arguments(&dir, &wanted)).is_ok() && prepare(&arguments(&dir, &[])).is_ok());
        let other = prepare(&arguments(&dir, &["--consensus", "raft"])).err().unwrap().to_string();
        assert!(other.contains("pbft,2=raft"), "{other}");
        let unknown = Wrapper::try_parse_from(["devnet", "--dir", "x", "--consensus", "rpbft"]).err().unwrap().to_string();
        assert!(unknown.contains("supported: pbft, raft"), "{unknown}");
    }

    #[test]
    fn directory_with_other_content_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("letter.txt"), "dear").unwrap();
        assert!(prepare(&arguments(scratch.path(), &[])).err().unwrap().to_string().contains("is not empty"));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_there_yet_is_refused_with_what_is() {
        let dir = Path::new("/nonexistent");
        for (more, word) in [(["--storage", "scalable"], "supported: rocksdb, mysql"), (["--mysql", "db:3306"], "add --storage mysql")] {
            let message = refuse_what_is_not_there_yet(&arguments(dir, &more)).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
