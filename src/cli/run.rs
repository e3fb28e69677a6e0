//! `millrace run`: a node until it is told to stop.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
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
    /// Stop in order when standard input ends: for a program that runs nodes and may die before them.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// Runs a node.
pub fn run(arguments: RunArguments) -> Result<ExitCode, Fault> {
    let config = NodeConfig::load(&arguments.config)?;

    let mut signals = StopSignals::listen()?;
    logging::start(&config.log)?;
    log_notes(&config);
    if arguments.until_stdin_closes {
        stop_when_stdin_closes()?;
    }
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

/// Has the process stop as by SIGTERM when nobody holds the other end of its standard input any more.
fn stop_when_stdin_closes() -> Result<(), Fault> {
    let wait = || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        // Cannot fail: the signal is valid and its handler is in place.
        let _ = signal_hook::low_level::raise(SIGTERM);
    };
    let started = thread::Builder::new().name("stdin".into()).spawn(wait);
    started
        .map(drop)
        .map_err(|error| Fault::new(FaultKind::Operation, format!("cannot start a thread: {error}"), "raise the limit of processes"))
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

    /// Whether a signal has come; from then on the next SIGINT ends the process at once.
    pub fn has_come(&mut self) -> bool {
        let has_come = self.signals.pending().next().is_some();
        if has_come {
            self.stopping.store(true, Ordering::SeqCst);
        }
        has_come
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
