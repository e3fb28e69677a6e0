//! `millrace chain add-node`, `add-agency`, `sdk` and `renew`: a chain that exists grows and keeps its certificates valid.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_base::GroupId;
use millrace_base::fault::Fault;

use super::{own_program, parse_ports};
use crate::chain_build::{Ports, Program};
use crate::chain_change::ChainDirectory;
use crate::chain_change::join::NewNode;
use crate::chain_change::renew::{KeyChoice, Renewal, Renewed};

/// Where the chain's authorities lie.
#[derive(Args, Debug)]
pub struct ChainArguments {
    /// The chain's directory: what `chain build` wrote, or a copy of its cert directory in one of that name.
    #[arg(long, value_name = "DIR", default_value = "nodes")]
    chain: PathBuf,
    /// Days the new certificates are valid, but never longer than their authority's.
    #[arg(short = 'X', long, value_name = "DAYS", default_value_t = 36_500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    days: u32,
}

/// Arguments of `chain add-node`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace chain add-node --agency bank --groups 1                    the next node of 127.0.0.1
  millrace chain add-node --chain nodes --agency shop --ip 10.0.0.9 --groups 1,2 --ports 30300,20200,8545

The node gets keys and certificates of its own, the genesis files of its groups, the addresses of the others, and the rest of its
settings from a node that is there; the others get its address. It needs cert/ca.crt and cert/<agency>/ with keys, not the chain's key.
It starts as an observer once the sealers add it (addObserver, later addSealer, with the node id that is printed).")]
pub struct AddNodeArguments {
    #[command(flatten)]
    chain: ChainArguments,
    /// The agency that runs it.
    #[arg(long, value_name = "NAME")]
    agency: String,
    /// Its machine.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    ip: IpAddr,
    /// The groups that it follows.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', required = true, value_parser = parse_group)]
    groups: Vec<GroupId>,
    /// Its ports [default: the next ones of the machine].
    #[arg(short = 'p', long, value_name = "P2P,CHANNEL,RPC", value_parser = parse_ports)]
    ports: Option<Ports>,
    /// The program to place on a new machine; default: this one.
    #[arg(short = 'e', long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Arguments of `chain add-agency`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  millrace chain add-agency hotel --chain nodes\n\nNeeds the chain's key, cert/ca.key. Give the agency the new directory and cert/ca.crt; with both it makes its own nodes and clients."
)]
pub struct AddAgencyArguments {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    chain: ChainArguments,
}

/// Arguments of `chain sdk`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  millrace chain sdk --agency bank --name teller -o teller-sdk\n\nWrites ca.crt, sdk.crt and sdk.key for a client of the agency's nodes."
)]
pub struct SdkArguments {
    /// The agency whose nodes the client connects to.
    #[arg(long, value_name = "NAME")]
    agency: String,
    /// The client's name in its certificate.
    #[arg(long, value_name = "NAME", default_value = "sdk")]
    name: String,
    /// Where its files go.
    #[arg(short = 'o', long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    chain: ChainArguments,
}

/// What can be renewed.
#[derive(Subcommand, Debug)]
pub enum RenewCommand {
    /// The P2P and channel certificates of a node.
    Node(RenewNodeArguments),
    /// The authorities of an agency; renew its nodes afterwards.
    Agency(RenewAgencyArguments),
    /// The certificate of a client.
    Sdk(RenewSdkArguments),
}

/// Arguments of `chain renew node`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace chain renew node nodes/127.0.0.1/node0
  millrace chain renew node /srv/node3 --chain nodes --new-key
  millrace chain renew node /srv/fisco/node0 --chain nodes --agency bank     its first one, for a directory of FISCO BCOS 2.x

The node's identity (node.key) never changes. `millrace node reload --certificates` puts the new ones in force.")]
pub struct RenewNodeArguments {
    /// The node's directory; it may be a copy with conf/node.nodeid, certificates and config.ini only.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The agency that issues them [default: the one of the present certificate].
    #[arg(long, value_name = "NAME")]
    agency: Option<String>,
    #[command(flatten)]
    renewal: RenewalArguments,
}

/// Arguments of `chain renew agency`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  millrace chain renew agency bank --chain nodes\n\nNeeds the chain's key, cert/ca.key. The channel authority always keeps its key: clients know it."
)]
pub struct RenewAgencyArguments {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    renewal: RenewalArguments,
}

/// Arguments of `chain renew sdk`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  millrace chain renew sdk nodes/127.0.0.1/sdk")]
pub struct RenewSdkArguments {
    /// The directory with ca.crt, sdk.crt and sdk.key.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    renewal: RenewalArguments,
}

/// How it is renewed.
#[derive(Args, Debug)]
struct RenewalArguments {
    #[command(flatten)]
    chain: ChainArguments,
    /// New keys for the certificates; without it they keep theirs.
    #[arg(long)]
    new_key: bool,
}

impl RenewalArguments {
    fn renewal(&self) -> Renewal {
        Renewal { days: self.chain.days, keys: if self.new_key { KeyChoice::New } else { KeyChoice::Keep } }
    }
}

/// Makes a node that joins.
pub fn add_node(arguments: AddNodeArguments) -> Result<ExitCode, Fault> {
    let program = match arguments.program {
        Some(program) => program,
        None => own_program()?,
    };
    let joined = ChainDirectory::open(&arguments.chain.chain)?.add_node(&NewNode {
        agency: &arguments.agency,
        ip: arguments.ip,
        groups: &arguments.groups,
        ports: arguments.ports,
        days: arguments.chain.days,
        program: Program::Copy(program),
    })?;
    let groups: Vec<String> = arguments.groups.iter().map(GroupId::to_string).collect();
    let mut text = format!(
        "{}  {}\n\nNext:\n  1. copy the directory to {} and start it with start.sh; it connects to the others by itself\n  2. have the node id made an observer of group {} (addObserver of a console, or the Consensus contract), later a sealer\n",
        joined.directory.display(),
        joined.node_id,
        arguments.ip,
        groups.join(" and "),
    );
    if joined.needs_whitelist {
        text.push_str(
            "  3. add the node id to certificate_whitelist of every node's config.ini, and run `millrace node reload --dir DIR` there\n",
        );
    }
    super::super::print(&text)
}

/// Makes an agency.
pub fn add_agency(arguments: &AddAgencyArguments) -> Result<ExitCode, Fault> {
    let directory = ChainDirectory::open(&arguments.chain.chain)?.add_agency(&arguments.name, arguments.chain.days)?;
    super::super::print(&format!("{}\nKeep the keys in it offline.\n", directory.display()))
}

/// Makes a client's files.
pub fn add_sdk(arguments: &SdkArguments) -> Result<ExitCode, Fault> {
    let chain = ChainDirectory::open(&arguments.chain.chain)?;
    chain.add_sdk(&arguments.agency, (&arguments.name, &arguments.output), arguments.chain.days)?;
    super::super::print(&format!("{}\n", arguments.output.display()))
}

/// Renews certificates.
pub fn renew(command: RenewCommand) -> Result<ExitCode, Fault> {
    let open = |renewal: &RenewalArguments| ChainDirectory::open(&renewal.chain.chain);
    let Renewed { files, remarks } = match &command {
        RenewCommand::Node(RenewNodeArguments { directory, agency, renewal }) => {
            open(renewal)?.renew_node(directory, agency.as_deref(), renewal.renewal())?
        }
        RenewCommand::Agency(RenewAgencyArguments { name, renewal }) => open(renewal)?.renew_agency(name, renewal.renewal())?,
        RenewCommand::Sdk(RenewSdkArguments { directory, renewal }) => open(renewal)?.renew_sdk(directory, renewal.renewal())?,
    };
    let renewed = files.iter().map(|file| format!("renewed {}\n", file.display()));
    let remarks = remarks.iter().map(|remark| format!("note: {remark}\n"));
    let restart = matches!(command, RenewCommand::Node(_)).then(|| {
        "To put them in force: `millrace node reload --certificates --dir DIRECTORY`; a node that starts uses them anyway.\n".to_owned()
    });
    super::super::print(&renewed.chain(remarks).chain(restart).collect::<String>())
}

fn parse_group(text: &str) -> Result<GroupId, String> {
    text.trim().parse().ok().and_then(GroupId::new).ok_or_else(|| "a group's id is a number from 1 to 32767".into())
}
