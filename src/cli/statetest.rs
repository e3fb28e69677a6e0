//! `millrace statetest`: the public Ethereum state tests through our state, execution, tries and storage.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use millrace_base::fault::{Fault, FaultKind};

use crate::state_tests::{self, FORKS, Selection};

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace statetest eth-fixtures/tests/GeneralStateTests
  millrace statetest eth-fixtures --fork Cancun --json report.json

Files come from github.com/ethereum/tests and legacytests. Each case runs over both kinds of state; what is compared was read back
from storage. The cases of a test also run as one block, on one thread and on several, with equal results. Exit code 1 when a case fails.")]
pub struct StateTestArguments {
    /// A directory with the tests, or one file.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only this fork: Istanbul, Berlin, London, Paris, Shanghai or Cancun.
    #[arg(long, value_name = "F", value_parser = parse_fork)]
    fork: Option<&'static str>,
    /// Only files whose path contains this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Threads [default: one a core].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Write counts and failures into this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn parse_fork(text: &str) -> Result<&'static str, String> {
    let known = FORKS.iter().map(|fork| fork.0).find(|name| name.eq_ignore_ascii_case(text));
    known.ok_or_else(|| format!("one of {}", FORKS.map(|fork| fork.0).join(", ")))
}

/// Runs the tests.
pub fn statetest(arguments: StateTestArguments) -> Result<ExitCode, Fault> {
    let StateTestArguments { directory, fork, filter, threads, json } = arguments;
    let threads = threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let selection = Selection { fork, filter, threads };
    let files = state_tests::files(&directory, &selection).map_err(|error| {
        Fault::new(FaultKind::Operation, format!("cannot read {}: {error}", directory.display()), "name a directory with state tests")
    })?;
    if files.is_empty() {
        let what = format!("{} holds no JSON file that was asked for", directory.display());
        return Err(Fault::new(FaultKind::Operation, what, "name a directory with state tests, and check --filter"));
    }
    let bar = ProgressBar::new(files.len() as u64);
    let style = ProgressStyle::with_template("[{wide_bar}] {human_pos}/{human_len} files, {eta} left");
    bar.set_style(style.expect("the template is a constant with known fields"));
    let begun = Instant::now();
    let tally = state_tests::run(&files, &selection, &mut |_| bar.inc(1))
        .map_err(|error| Fault::new(FaultKind::Operation, error.to_string(), "check the limits on threads"))?;
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(path) = json {
        fs::write(&path, format!("{:#}\n", tally.json(seconds))).map_err(|error| {
            Fault::new(FaultKind::Disk, format!("cannot write {}: {error}", path.display()), "check free space and permissions")
        })?;
    }
    super::print(&format!("{}{seconds:.1} s on {threads} threads\n", tally.table()))?;
    Ok(if tally.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
