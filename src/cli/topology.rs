//! `millrace topology`: the picture of the pipeline, without starting anything, or of a running node with live figures.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use clap::Args;
use millrace_base::fault::Fault;

use super::operator::{NodeAddress, OperatorClient};
use crate::config::NodeConfig;
use crate::node::{Workers, topology_picture};
use crate::status::picture::picture;

/// Time between two pictures.
const INTERVAL: Duration = Duration::from_secs(1);

/// Cursor to the first place, and everything behind it erased: no flicker.
const REDRAW: &str = "\x1b[H\x1b[J";

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace topology
  millrace topology -c nodes/127.0.0.1/node0/config.ini
  millrace topology --live --dir nodes/127.0.0.1/node0           with figures of the last second, each second; Ctrl-C ends
  millrace topology --live --once --url http://127.0.0.1:9545    one picture")]
pub struct TopologyArguments {
    /// Take the number of threads from this node's configuration; without it, the defaults of this machine.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["live", "once", "dir", "url"])]
    config: Option<PathBuf>,
    /// Show a running node, with levels of queues and regimes of stages; --dir and --url imply it.
    #[arg(long)]
    live: bool,
    /// Of a running node, draw one picture and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    address: NodeAddress,
}

/// Prints the picture.
pub fn topology(arguments: TopologyArguments) -> Result<ExitCode, Fault> {
    if arguments.live || arguments.address.is_named() {
        let client = arguments.address.client()?;
        return if arguments.once { draw_once(&client) } else { draw_for_ever(&client) };
    }
    let cores = match arguments.config {
        Some(file) => NodeConfig::load(&file)?.execute_threads,
        None => available_parallelism().map_or(1, usize::from),
    };
    super::print(&topology_picture(Workers::for_cores(cores))?)
}

/// Figures a second need two readings.
fn draw_once(client: &OperatorClient) -> Result<ExitCode, Fault> {
    let (before, since) = (client.topology()?, Instant::now());
    thread::sleep(INTERVAL);
    super::print(&picture(&client.topology()?, &before, since.elapsed()))
}

fn draw_for_ever(client: &OperatorClient) -> Result<ExitCode, Fault> {
    let prefix = if io::stdout().is_terminal() { REDRAW } else { "\n" };
    let (mut before, mut since) = (client.topology()?, Instant::now());
    loop {
        thread::sleep(INTERVAL);
        let now = client.topology()?;
        if !super::print_while_read(&format!("{prefix}{}", picture(&now, &before, since.elapsed())))? {
            return Ok(ExitCode::SUCCESS);
        }
        (before, since) = (now, Instant::now());
    }
}
