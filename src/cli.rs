//! The command line: what can be asked of the program, and how each command ends.
//!
//! Exit codes: 0 done; 2 the command line is wrong; 64 to 68 by [`FaultKind`]; 1 a check found damage or failed. Results go to standard output,
//! everything else to standard error.

mod chain;
mod database;
mod devnet;
mod doctor;
mod node;
mod operator;
mod run;
mod statetest;
mod top;
mod topology;
mod transaction;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use millrace_base::fault::{Fault, FaultKind};

use crate::version::version_text;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a check failed; 2 wrong command line; 64 the operation failed; 65 configuration, key or
certificate; 66 network; 67 database; 68 disk.";

/// A multi-group consortium blockchain node that takes the place of FISCO BCOS 2.x nodes.
#[derive(Parser, Debug)]
#[command(name = "millrace", disable_version_flag = true, arg_required_else_help = true, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Print versions, in the form that 2.x scripts look for.
    #[arg(short = 'v', long)]
    version: bool,
    /// Run a node, as 2.x nodes are started: the same as `millrace run -c FILE`.
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the node that a config.ini describes, until SIGINT or SIGTERM.
    Run(run::RunArguments),
    /// Start a network on this machine: built when the directory is new, started again when it exists.
    Devnet(devnet::DevnetArguments),
    /// Build, extend and look at the directories of a chain.
    #[command(subcommand)]
    Chain(chain::ChainCommand),
    /// Talk to a running node from its machine.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Print the stages and queues of a node, as they are wired or as they run.
    Topology(topology::TopologyArguments),
    /// Watch running nodes: groups, peers, stages.
    Top(top::TopArguments),
    /// Check, count, export, import, snapshot and restore the databases of nodes.
    #[command(subcommand)]
    Db(database::DatabaseCommand),
    /// Find out why something does not work.
    #[command(subcommand)]
    Doctor(doctor::DoctorCommand),
    /// Send transactions to a running node.
    #[command(subcommand)]
    Tx(transaction::TransactionCommand),
    /// Run the public Ethereum state tests through our own state, execution and storage.
    Statetest(statetest::StateTestArguments),
    /// Print versions, in the form that 2.x scripts look for.
    Version,
}

/// Parses the command line, runs the command, reports its fault.
pub fn main() -> ExitCode {
    match dispatch(Arguments::parse()) {
        Ok(code) => code,
        Err(fault) => {
            report(&fault);
            ExitCode::from(fault.kind.exit_code())
        }
    }
}

/// Shows a fault to the operator: standard error for people, the log for those who look later.
fn report(fault: &Fault) {
    tracing::error!("{fault}");
    eprintln!("error: {fault}");
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Fault> {
    match arguments {
        Arguments { version: true, .. } | Arguments { command: Some(Command::Version), .. } => print(&version_text()),
        Arguments { command: Some(command), .. } => execute(command),
        Arguments { config: Some(config), .. } => run::run(run::RunArguments { config, until_stdin_closes: false }),
        _ => print(&Arguments::command().render_help().to_string()),
    }
}

fn execute(command: Command) -> Result<ExitCode, Fault> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Devnet(arguments) => devnet::devnet(arguments),
        Command::Chain(command) => chain::chain(command),
        Command::Node(command) => node::node(command),
        Command::Topology(arguments) => topology::topology(arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Db(command) => database::database(command),
        Command::Doctor(command) => doctor::doctor(command),
        Command::Tx(transaction::TransactionCommand::Send(arguments)) => transaction::send(arguments),
        Command::Statetest(arguments) => statetest::statetest(arguments),
        Command::Version => print(&version_text()),
    }
}

/// Writes a result to standard output and flushes it, so that a reader behind a pipe has it at once.
fn print(text: &str) -> Result<ExitCode, Fault> {
    print_while_read(text).map(|_| ExitCode::SUCCESS)
}

/// Writes as [`print`] does; `false` when nobody reads any more.
fn print_while_read(text: &str) -> Result<bool, Fault> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // A reader that went away has what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fault::new(FaultKind::Operation, format!("cannot write to standard output: {error}"), "check where the output goes"))
        }
        written => Ok(written.is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nodes_start_the_way_2x_scripts_start_them() {
        let arguments = Arguments::try_parse_from(["millrace", "-c", "config.ini"]).unwrap();
        assert_eq!(arguments.config, Some(PathBuf::from("config.ini")));
        assert!(Arguments::try_parse_from(["millrace", "-v"]).unwrap().version);
        assert!(Arguments::try_parse_from(["millrace", "run", "-c", "config.ini"]).unwrap().command.is_some());
    }
}
