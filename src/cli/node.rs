//! `millrace node`: what an operator asks of a running node, on its machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use millrace_base::fault::Fault;

use super::operator::NodeAddress;
use crate::reload::{self, Signal};
use crate::status::{diagnosis, text};

/// How long a node may take to notice signal files: it looks ten times a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Commands about running nodes.
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Put changed lists, added groups and renewed certificates in force without a restart.
    Reload(ReloadArguments),
    /// Show the state of a running node and its groups, or say what is wrong with them.
    Status(StatusArguments),
}

/// See [`NodeCommand::Status`].
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace node status --dir nodes/127.0.0.1/node0
  millrace node status --url http://127.0.0.1:9545 --why    what is wrong, in sentences, group by group

Exit codes: 0 healthy; 1 it works but needs an operator; 2 a group is stuck or has halted; 66 the node does not answer.")]
pub struct StatusArguments {
    #[command(flatten)]
    address: NodeAddress,
    /// Say for each group what is missing and what the next step waits for.
    #[arg(long)]
    why: bool,
    /// Print what the node answers, as one JSON object.
    #[arg(long, conflicts_with = "why")]
    json: bool,
}

/// See [`NodeCommand::Reload`].
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace node reload --dir nodes/127.0.0.1/node0            everything
  millrace node reload --dir nodes/127.0.0.1/node0 --peers    certificate_blacklist and certificate_whitelist of config.ini

The files are checked first; with a mistake in them nothing is asked of the node. The command ends when the node has taken the
request, by the signal files of 2.x (config.ini.reset_certificate_whitelist, .reset_allowlist, .append_group) and one more
(.reset_certificates). Its log says more.")]
pub struct ReloadArguments {
    /// The node's directory.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The blacklist and the whitelist of nodes.
    #[arg(long)]
    peers: bool,
    /// Each group's list of clients.
    #[arg(long)]
    clients: bool,
    /// Groups whose files were added.
    #[arg(long)]
    groups: bool,
    /// The certificates of both TLS ports; open sessions go on.
    #[arg(long)]
    certificates: bool,
}

/// Runs a command.
pub fn node(command: NodeCommand) -> Result<ExitCode, Fault> {
    match command {
        NodeCommand::Reload(arguments) => reload(&arguments),
        NodeCommand::Status(arguments) => status(&arguments),
    }
}

fn status(arguments: &StatusArguments) -> Result<ExitCode, Fault> {
    let status = arguments.address.client()?.status()?;
    let found = diagnosis::diagnose(&status);
    let text = match arguments {
        StatusArguments { json: true, .. } => format!("{:#}\n", serde_json::json!(status)),
        StatusArguments { why: true, .. } => text::why(&status, &found),
        _ => text::status(&status, &found),
    };
    super::print(&text)?;
    Ok(ExitCode::from(found.level().exit_code()))
}

fn reload(arguments: &ReloadArguments) -> Result<ExitCode, Fault> {
    let chosen = [
        (arguments.peers, Signal::PeerLists),
        (arguments.clients, Signal::ClientLists),
        (arguments.groups, Signal::Groups),
        (arguments.certificates, Signal::Certificates),
    ];
    let named: Vec<Signal> = chosen.into_iter().filter_map(|(is_chosen, signal)| is_chosen.then_some(signal)).collect();
    let signals = if named.is_empty() { Signal::ALL.to_vec() } else { named };
    reload::request(&arguments.dir.join("config.ini"), &signals, PATIENCE)?;
    let read: Vec<&str> = signals.iter().map(|signal| signal.describe()).collect();
    super::print(&format!("The node has taken the request to read again: {}.\n", read.join("; ")))
}
