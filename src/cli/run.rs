//! `millrace run`: a node until it is told to stop.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use millrace_base::fault::{Fault, FaultKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::NodeConfig;
use crate::logging;
use crate::node::Node;

/// How long an orderly stop may take; stop.sh waits as long.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Exit code of a process that a second SIGINT ended: 128 + 2, as shells report it.
const INTERRUPTED: i32 = 130;

/// Relative paths in the file count from the file's directory.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  cd nodes/127.0.0.1/node0 && millrace run -c config.ini\n\nThe node prints \"The FISCO-BCOS is running...\" when it serves. SIGINT and SIGTERM stop it in order;\na second SIGINT ends it at once."
)]
pub struct RunArguments {
    /// The node's configuration.
    #[arg(short, long, value_name = "FILE", default_value = "config.ini")]
    pub config: PathBuf,
}

/// Runs a node.
pub fn run(arguments: RunArguments) -> Result<ExitCode, Fault> {
    let config = NodeConfig::load(&arguments.config)?;
    config.refuse_groups_that_need_peers()?;
    let mut signals = StopSignals::listen()?;
    logging::start(&config.log)?;
    log_notes(&config);
    super::print(&format!("config file : {}\n", arguments.config.display()))?;
    let node = Node::start(config)?;
    tracing::info!(http = %node.http_addr(), "The FISCO-BCOS is running...");
    super::print("The FISCO-BCOS is running...\n")?;
    signals.wait();
    tracing::info!("stopping");
    node.stop(STOP_DEADLINE)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Logs what the configuration's reader remarked.
pub fn log_notes(config: &NodeConfig) {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
}

/// The signals that end a node in order.
pub struct StopSignals {
    signals: Signals,
    stopping: Arc<AtomicBool>,
}

impl StopSignals {
    /// From here on the signals are kept for [`Self::wait`].
    pub fn listen() -> Result<Self, Fault> {
        let fault = |error: std::io::Error| {
            Fault::new(FaultKind::Operation, format!("cannot listen for signals: {error}"), "start the program in a usual environment")
        };
        let stopping = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&stopping)).map_err(fault)?;
        let mut kinds = vec![SIGINT, SIGTERM];
        if !is_hangup_ignored() {
            kinds.push(SIGHUP);
        }
        Ok(Self { signals: Signals::new(kinds).map_err(fault)?, stopping })
    }

    /// Returns when the first signal has come; the next SIGINT ends the process at once.
    pub fn wait(&mut self) {
        self.signals.forever().next();
        self.stopping.store(true, Ordering::SeqCst);
    }
}

/// Whether the process was started by nohup, whose promise is that SIGHUP does nothing.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
