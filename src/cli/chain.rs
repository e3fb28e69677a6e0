//! `millrace chain`: production directories, with the flags of 2.x's build_chain.sh where they make sense; extending and renewing them
//! is in [`change`], looking at certificates in [`show`].

mod change;
mod show;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use millrace_base::clock::{Clock, SystemClock};
use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{ChainId, GroupId};
use millrace_core::StateKind;
use millrace_vm::EvmRules;

use crate::chain_build::{self, ChainPlan, ConsensusPlan, Machine, Placement, Ports, Program, Reach};

/// Commands about chains.
#[derive(Subcommand, Debug)]
pub enum ChainCommand {
    /// Make keys, certificates, configuration, scripts and the SDK bundle of a new chain. Nothing is downloaded.
    Build(BuildArguments),
    /// Make the directory of a node that joins the chain as an observer.
    AddNode(change::AddNodeArguments),
    /// Make the authorities of a new agency.
    AddAgency(change::AddAgencyArguments),
    /// Make the files of another client (SDK) of an agency.
    Sdk(change::SdkArguments),
    /// Renew certificates; the old files are kept as .old.
    #[command(subcommand)]
    Renew(change::RenewCommand),
    /// List the certificates of a chain or a node: names, node ids, days until they end.
    Show(show::ShowArguments),
}

/// Runs a command.
pub fn chain(command: ChainCommand) -> Result<ExitCode, Fault> {
    match command {
        ChainCommand::Build(arguments) => build(arguments),
        ChainCommand::AddNode(arguments) => change::add_node(arguments),
        ChainCommand::AddAgency(arguments) => change::add_agency(&arguments),
        ChainCommand::Sdk(arguments) => change::add_sdk(&arguments),
        ChainCommand::Renew(command) => change::renew(command),
        ChainCommand::Show(arguments) => show::show(&arguments),
    }
}

/// See [`ChainCommand::Build`].
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace chain build --nodes 4 --groups 2                       four nodes on this machine, all in groups 1 and 2
  millrace chain build --agency bank=2 --agency shop=2            two agencies with two nodes each
  millrace chain build --nodes 3 --group 1=node0,node1 --group 2=node1,node2
  millrace chain build --nodes 3 --groups 2 --consensus pbft,2=raft
  millrace chain build -l 10.0.0.1:1,10.0.0.2:1 --groups 2 --agency bank -o bank-chain
  millrace chain build -f machines.conf        lines of the file: 10.0.0.1:2 bank 1,2

Directories: OUTPUT/cert (authorities: keep their keys offline), OUTPUT/<IP>/nodeN (copy to the machine),
OUTPUT/<IP>/sdk (ca.crt, sdk.crt, sdk.key for clients). Start a machine's nodes with OUTPUT/<IP>/start_all.sh.
docs/operating.md is the operator's handbook.")]
pub struct BuildArguments {
    /// Machines and how many nodes each has: "IP:count,IP:count".
    #[arg(short = 'l', long = "list", value_name = "IP:COUNT,…", conflicts_with_all = ["file", "nodes"], value_delimiter = ',')]
    list: Vec<String>,
    /// A file with one line a machine: "IP:count agency group,group".
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "nodes")]
    file: Option<PathBuf>,
    /// Nodes on 127.0.0.1, in place of -l.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Output directory; it must not exist or be empty.
    #[arg(short = 'o', long, value_name = "DIR", default_value = "nodes")]
    output: PathBuf,
    /// First ports: "P2P,CHANNEL,RPC"; each further node on a machine has one more. The operator port is RPC + 1000.
    #[arg(short = 'p', long, value_name = "P2P,CHANNEL,RPC", default_value = "30300,20200,8545", value_parser = parse_ports)]
    ports: Ports,
    /// JSON-RPC listens on all addresses instead of 127.0.0.1.
    #[arg(short = 'i', long)]
    public_rpc: bool,
    /// Chain id.
    #[arg(short = 'C', long, value_name = "ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    chain_id: ChainId,
    /// Every node is a sealer of groups 1 to this, unless -f says otherwise.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    groups: u16,
    /// A group lies on these nodes only, as their sealers: "2=node0,node1", or "2=10.0.0.1/node0" with several machines.
    #[arg(long = "group", value_name = "ID=NODE,…", value_parser = parse_placement)]
    placements: Vec<Placement>,
    /// The agency that runs the nodes [default: agency], or agencies with the numbers of their nodes on 127.0.0.1: "bank=2".
    #[arg(long = "agency", value_name = "NAME[=N]", conflicts_with = "file")]
    agencies: Vec<String>,
    /// Days the certificates are valid.
    #[arg(short = 'X', long, value_name = "DAYS", default_value_t = 36_500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    days: u32,
    #[command(flatten)]
    rules: RulesArguments,
    /// The program to place beside the nodes; default: this one.
    #[arg(short = 'e', long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Consensus of the groups: pbft (sealers may lie), raft (sealers may only stop), or by group: "pbft,2=raft".
    #[arg(short = 'c', long, value_name = "TYPE", default_value = "pbft")]
    consensus: ConsensusPlan,
    /// State: storage (latest values), or mpt (Ethereum's tries: history and proofs).
    #[arg(long, value_name = "TYPE", default_value_t = StateKind::Storage)]
    state: StateKind,
    /// Storage.
    #[arg(short = 's', long, value_name = "TYPE", default_value = "rocksdb")]
    storage: String,
    /// National cryptography: not supported.
    #[arg(short = 'g', long, hide = true)]
    national_crypto: bool,
}

/// Which rules the machine of new groups has.
#[derive(Args, Debug)]
pub struct RulesArguments {
    /// Rules of the groups' machine: fisco2 (opcodes and gas of 2.x) or an Ethereum fork from istanbul to prague [default: cancun].
    #[arg(long, value_name = "RULES")]
    evm: Option<EvmRules>,
    /// The free-storage gas prices of 2.x; implies --evm fisco2.
    #[arg(short = 'E', long)]
    free_storage: bool,
}

impl RulesArguments {
    /// What was asked for; `None` when nothing was.
    pub fn chosen(&self) -> Result<Option<EvmRules>, Fault> {
        match (self.evm, self.free_storage) {
            (evm, false) => Ok(evm),
            (None | Some(EvmRules::Fisco2 { .. }), true) => Ok(Some(EvmRules::Fisco2 { free_storage: true })),
            (Some(EvmRules::Fork(fork)), true) => {
                let what = format!("--free-storage does not go with --evm {}", EvmRules::Fork(fork));
                Err(refuse(what, "free storage belongs to --evm fisco2; leave one of the two out"))
            }
        }
    }
}

/// Builds the directories.
fn build(arguments: BuildArguments) -> Result<ExitCode, Fault> {
    if arguments.national_crypto {
        return Err(refuse(
            "national cryptography (-g) is not supported by this version",
            "leave -g out: chains use Keccak-256 and secp256k1",
        ));
    }
    if arguments.storage == "mysql" {
        let what = "databases on servers have names and accounts that this command does not know";
        return Err(refuse(
            what,
            "build with rocksdb and write the section [storage] of each conf/group.N.ini before the first start: docs/operating.md",
        ));
    }
    refuse_lacking("storage", &arguments.storage, "rocksdb")?;
    let program = match arguments.program.clone() {
        Some(program) => program,
        None => own_program()?,
    };
    let plan = ChainPlan {
        machines: machines(&arguments)?,
        output: arguments.output,
        placements: arguments.placements,
        chain_id: arguments.chain_id,
        ports: arguments.ports,
        rpc_ip: IpAddr::V4(if arguments.public_rpc { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST }),
        days: arguments.days,
        rules: arguments.rules.chosen()?.unwrap_or_default(),
        state: arguments.state,
        consensus: arguments.consensus,
        timestamp_ms: SystemClock.now_ms(),
        reach: Reach::Network,
        program: Program::Copy(program),
    };
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let nodes = chain_build::build(&plan, &|step| spinner.set_message(step.to_owned()));
    spinner.finish_and_clear();
    let mut text = String::new();
    for node in nodes? {
        text.push_str(&format!("{}  {}\n", node.directory.display(), node.node_id));
    }
    text.push_str(&format!(
        "All files are in {}; keep the keys in {} offline.\n",
        plan.output.display(),
        plan.output.join("cert").display()
    ));
    super::print(&text)
}

/// Path of the running program.
pub fn own_program() -> Result<PathBuf, Fault> {
    std::env::current_exe().map_err(|error| refuse(format!("cannot find the program's own file: {error}"), "name it with -e"))
}

/// Refuses a choice of a feature that is not there yet.
pub fn refuse_lacking(what: &str, chosen: &str, supported: &str) -> Result<(), Fault> {
    if chosen == supported {
        return Ok(());
    }
    Err(refuse(format!("{what} \"{chosen}\" is not supported by this version"), format!("supported: {supported}")))
}

fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Operation, what, remedy)
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    let ports: Vec<u16> =
        text.split(',').map(|port| port.trim().parse()).collect::<Result<_, _>>().map_err(|_| "ports are numbers from 1 to 65535")?;
    match ports[..] {
        [p2p, channel, rpc] => Ok(Ports { p2p, channel, rpc }),
        _ => Err("three ports are needed: P2P,CHANNEL,RPC".into()),
    }
}

/// A group and its nodes: `2=node0,node1`.
pub fn parse_placement(text: &str) -> Result<Placement, String> {
    let (group, nodes) = text.split_once('=').ok_or("write a group and its nodes, for example 2=node0,node1")?;
    let group = group.trim().parse().ok().and_then(GroupId::new).ok_or("a group's id is a number from 1 to 32767")?;
    let nodes = nodes.split(',').map(str::trim).filter(|node| !node.is_empty()).map(str::to_owned).collect();
    Ok(Placement { group, nodes })
}

fn machines(arguments: &BuildArguments) -> Result<Vec<Machine>, Fault> {
    if let Some(file) = &arguments.file {
        return machines_from_file(file);
    }
    let groups = first_groups(arguments.groups);
    let machine = |ip, nodes, agency: &str| Machine { ip, nodes, agency: agency.to_owned(), groups: groups.clone() };
    let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let remedy = "name one agency with -l or --nodes, or only agencies with their numbers of nodes: --agency bank=2 --agency shop=2";
    let counted: Vec<(&str, &str)> = arguments.agencies.iter().filter_map(|agency| agency.split_once('=')).collect();
    match (&arguments.agencies[..], arguments.nodes) {
        (_, None) if arguments.list.is_empty() && !counted.is_empty() && counted.len() == arguments.agencies.len() => {
            let count = |text: &str| text.parse().map_err(|_| refuse(format!("\"{text}\" is no number of nodes"), remedy));
            counted.into_iter().map(|(name, nodes)| Ok(machine(own, count(nodes)?, name))).collect()
        }
        (_, None) if arguments.list.is_empty() => {
            Err(refuse("no nodes were asked for", "use --nodes 4, -l IP:COUNT,…, -f FILE or --agency NAME=N"))
        }
        (agencies, nodes) if agencies.len() <= 1 && counted.is_empty() => {
            let agency = agencies.first().map_or("agency", String::as_str);
            match nodes {
                Some(nodes) => Ok(vec![machine(own, nodes, agency)]),
                None => arguments.list.iter().map(|text| parse_machine(text).map(|(ip, nodes)| machine(ip, nodes, agency))).collect(),
            }
        }
        _ => Err(refuse("the agencies do not go with the other options", remedy)),
    }
}

/// Groups 1 to `count`.
pub fn first_groups(count: u16) -> Vec<GroupId> {
    (1..=i64::from(count)).filter_map(GroupId::new).collect()
}

fn machines_from_file(file: &Path) -> Result<Vec<Machine>, Fault> {
    let text = fs::read_to_string(file)
        .map_err(|error| refuse(format!("cannot read {}: {error}", file.display()), "name an existing file with -f"))?;
    let mut machines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || refuse(format!("{}:{}: \"{line}\" is no machine", file.display(), index + 1), "write IP:count agency group,group");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, agency, groups] = words[..] else { return Err(bad()) };
        let (ip, nodes) = parse_machine(address)?;
        let group = |text: &str| text.parse().ok().and_then(GroupId::new).ok_or_else(bad);
        let groups = groups.split(',').map(group).collect::<Result<_, _>>()?;
        machines.push(Machine { ip, nodes, agency: agency.to_owned(), groups });
    }
    Ok(machines)
}

fn parse_machine(text: &str) -> Result<(IpAddr, usize), Fault> {
    let (ip, nodes) = text.trim().rsplit_once(':').unwrap_or((text.trim(), "1"));
    match (ip.trim_matches(['[', ']']).parse(), nodes.parse()) {
        (Ok(ip), Ok(nodes)) if nodes > 0 => Ok((ip, nodes)),
        _ => Err(refuse(format!("\"{text}\" is no machine"), "write IP:count, for example 127.0.0.1:1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_read_as_build_chain_reads_them() {
        assert_eq!(parse_machine("127.0.0.1:4").unwrap(), (IpAddr::V4(Ipv4Addr::LOCALHOST), 4));
        assert_eq!(parse_machine("[::1]:2").unwrap(), ("::1".parse().unwrap(), 2));
        assert!(parse_machine("127.0.0.1:0").is_err());
        assert!(parse_machine("node:1").is_err());
    }

    #[test]
    fn lines_of_a_file_name_agency_and_groups() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("machines");
        fs::write(&file, "# comment\n10.0.0.1:2 bank 1,2\n10.0.0.2:1 shop 2\n").unwrap();
        let machines = machines_from_file(&file).unwrap();
        assert_eq!(machines[0], Machine { ip: "10.0.0.1".parse().unwrap(), nodes: 2, agency: "bank".into(), groups: first_groups(2) });
        assert_eq!(machines[1].agency, "shop");
        fs::write(&file, "10.0.0.1:2 bank 0\n").unwrap();
        assert!(machines_from_file(&file).unwrap_err().to_string().contains(":1:"));
    }

    #[derive(clap::Parser)]
    struct Wrapper {
        #[command(flatten)]
        arguments: BuildArguments,
    }

    fn planned(arguments: &[&str]) -> Result<Vec<(String, usize, String)>, String> {
        let parsed = <Wrapper as clap::Parser>::try_parse_from(["build"].iter().chain(arguments)).map_err(|error| error.to_string())?;
        let machines = machines(&parsed.arguments).map_err(|fault| fault.to_string())?;
        Ok(machines.into_iter().map(|machine| (machine.ip.to_string(), machine.nodes, machine.agency)).collect())
    }

    #[test]
    fn nodes_are_asked_for_by_number_by_agency_or_by_machine() {
        let own = |nodes, agency: &str| ("127.0.0.1".to_owned(), nodes, agency.to_owned());
        assert_eq!(planned(&["--nodes", "4"]).unwrap(), [own(4, "agency")]);
        assert_eq!(planned(&["--nodes", "4", "--agency", "bank"]).unwrap(), [own(4, "bank")]);
        assert_eq!(planned(&["--agency", "bank=2", "--agency", "shop=1"]).unwrap(), [own(2, "bank"), own(1, "shop")]);
        assert_eq!(planned(&["-l", "10.0.0.1:2", "--agency", "shop"]).unwrap(), [("10.0.0.1".into(), 2, "shop".into())]);
        for wrong in [
            &[][..],
            &["--agency", "bank"],
            &["--agency", "bank=x"],
            &["--agency", "bank=1", "--agency", "shop"],
            &["--nodes", "1", "--agency", "bank=1"],
            &["-l", "10.0.0.1:2", "--nodes", "1"],
            &["-l", "10.0.0.1:2", "--agency", "a", "--agency", "b"],
        ] {
            assert!(planned(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn placement_is_a_group_and_its_nodes() {
        let placement = parse_placement("2=node0, 10.0.0.1/node1").unwrap();
        assert_eq!((placement.group.get(), placement.nodes), (2, vec!["node0".to_owned(), "10.0.0.1/node1".to_owned()]));
        assert!(parse_placement("0=node0").is_err() && parse_placement("2").is_err());
    }

    #[test]
    fn ports_are_three_numbers() {
        assert_eq!(parse_ports("1,2,3").unwrap(), Ports { p2p: 1, channel: 2, rpc: 3 });
        assert!(parse_ports("1,2").is_err());
        assert!(parse_ports("1,2,70000").is_err());
    }
}
