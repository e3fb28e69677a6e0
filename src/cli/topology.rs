//! `millrace topology`: the picture of the pipeline, without starting anything.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Args;
use millrace_base::fault::Fault;

use crate::config::NodeConfig;
use crate::node::{Workers, topology_picture};

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  millrace topology\n  millrace topology -c nodes/127.0.0.1/node0/config.ini")]
pub struct TopologyArguments {
    /// Take the number of threads from this node's configuration; without it, the defaults of this machine.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints the picture.
pub fn topology(arguments: TopologyArguments) -> Result<ExitCode, Fault> {
    let cores = match arguments.config {
        Some(file) => NodeConfig::load(&file)?.execute_threads,
        None => available_parallelism().map_or(1, usize::from),
    };
    super::print(&topology_picture(Workers::for_cores(cores))?)
}
