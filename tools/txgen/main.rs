//! `txgen`: load generator and oracle. It signs real 2.x transactions, sends them to one or more nodes over HTTP, follows the chain, and
//! exits with 0 only if every acknowledged transaction got exactly one receipt and balances conserve.
//!
//! It knows the node by its protocol alone: the only crate of ours that it uses is `millrace-base`.

mod accounts;
mod check;
mod client;
mod file;
mod follow;
mod load;
mod options;
mod plan;
mod progress;
mod recovery;
mod report;
mod setup;
mod supply;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
mod tracker;
mod workload;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use millrace_base::fault::{Fault, FaultKind};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code when the run went to its end and a check failed.
const CHECK_FAILED: u8 = 1;

fn main() -> ExitCode {
    let options = options::Options::parse();
    match plan::run(&options).and_then(|report| finish(&options, report)) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("txgen: {fault}");
            ExitCode::from(fault.kind.exit_code())
        }
    }
}

fn finish(options: &options::Options, report: Option<report::Report>) -> Result<ExitCode, Fault> {
    let Some(report) = report else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut figures = report.to_json(options);
    if options.measure_recovery {
        figures["recovery_us"] = serde_json::json!(recovery::measure_us());
    }
    let json = format!("{figures:#}\n");
    match &options.json {
        Some(path) if path.as_os_str() == "-" => write_out(&json),
        Some(path) => {
            std::fs::write(path, json).map_err(|error| {
                Fault::new(FaultKind::Disk, format!("{}: {error}", path.display()), "give --json a file that can be written")
            })?;
            write_out(&report.to_text());
        }
        None => write_out(&report.to_text()),
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(CHECK_FAILED) })
}

/// A reader that went away early is no fault: the exit code says what matters.
fn write_out(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
