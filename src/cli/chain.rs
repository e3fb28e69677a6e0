//! `millrace chain build`: production directories, with the flags of 2.x's build_chain.sh where they make sense.

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
use millrace_vm::EvmRules;

use crate::chain_build::{self, ChainPlan, Machine, Ports, Program, Reach};

/// Commands about chains.
#[derive(Subcommand, Debug)]
pub enum ChainCommand {
    /// Make keys, certificates, configuration, scripts and the SDK bundle of a new chain. Nothing is downloaded.
    Build(BuildArguments),
}

/// See [`ChainCommand::Build`].
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace chain build -l 127.0.0.1:1
  millrace chain build -l 10.0.0.1:1,10.0.0.2:1 --groups 2 --agency bank -o bank-chain
  millrace chain build -f machines.conf        lines of the file: 10.0.0.1:2 bank 1,2

Directories: OUTPUT/cert (authorities: keep their keys offline), OUTPUT/<IP>/nodeN (copy to the machine),
OUTPUT/<IP>/sdk (ca.crt, sdk.crt, sdk.key for clients). Start a machine's nodes with OUTPUT/<IP>/start_all.sh.
This version runs chains of one node; chains of more are built but refused at start.")]
pub struct BuildArguments {
    /// Machines and how many nodes each has: "IP:count,IP:count".
    #[arg(
        short = 'l',
        long = "list",
        value_name = "IP:COUNT,…",
        required_unless_present = "file",
        conflicts_with = "file",
        value_delimiter = ','
    )]
    list: Vec<String>,
    /// A file with one line a machine: "IP:count agency group,group".
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
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
    /// With -l: every node is a sealer of groups 1 to this.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    groups: u16,
    /// With -l: the agency that runs the nodes.
    #[arg(long, value_name = "NAME", default_value = "agency")]
    agency: String,
    /// Days the certificates are valid.
    #[arg(short = 'X', long, value_name = "DAYS", default_value_t = 36_500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    days: u32,
    #[command(flatten)]
    rules: RulesArguments,
    /// The program to place beside the nodes; default: this one.
    #[arg(short = 'e', long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Consensus.
    #[arg(short = 'c', long, value_name = "TYPE", default_value = "pbft")]
    consensus: String,
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
pub fn build(arguments: BuildArguments) -> Result<ExitCode, Fault> {
    if arguments.national_crypto {
        return Err(refuse(
            "national cryptography (-g) is not supported by this version",
            "leave -g out: chains use Keccak-256 and secp256k1",
        ));
    }
    refuse_lacking("consensus", &arguments.consensus, "pbft")?;
    refuse_lacking("storage", &arguments.storage, "rocksdb")?;
    let program = match arguments.program.clone() {
        Some(program) => program,
        None => own_program()?,
    };
    let plan = ChainPlan {
        machines: machines(&arguments)?,
        output: arguments.output,
        chain_id: arguments.chain_id,
        ports: arguments.ports,
        rpc_ip: IpAddr::V4(if arguments.public_rpc { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST }),
        days: arguments.days,
        rules: arguments.rules.chosen()?.unwrap_or_default(),
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

fn machines(arguments: &BuildArguments) -> Result<Vec<Machine>, Fault> {
    if let Some(file) = &arguments.file {
        return machines_from_file(file);
    }
    let groups = first_groups(arguments.groups);
    let machine = |text: &String| {
        let (ip, nodes) = parse_machine(text)?;
        Ok(Machine { ip, nodes, agency: arguments.agency.clone(), groups: groups.clone() })
    };
    arguments.list.iter().map(machine).collect()
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

    #[test]
    fn ports_are_three_numbers() {
        assert_eq!(parse_ports("1,2,3").unwrap(), Ports { p2p: 1, channel: 2, rpc: 3 });
        assert!(parse_ports("1,2").is_err());
        assert!(parse_ports("1,2,70000").is_err());
    }
}
