//! `txgen`: load generator and oracle. It signs real 2.x transactions, sends them to one or more nodes over HTTP or the channel port, follows
//! the chain, and exits with 0 only if every acknowledged transaction got exactly one receipt, balances conserve and all nodes agree.
//!
//! It knows the node by its protocol alone: the only crate of ours that it uses is `millrace-base`.

mod accounts;
mod channel;
mod check;
mod client;
mod door;
mod file;
mod follow;
mod load;
mod node;
mod options;
mod plan;
mod process;
mod progress;
mod proxy;
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
use serde_json::{Map, Value, json};

use crate::options::{Command, Options};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code when the run went to its end and a check failed.
const CHECK_FAILED: u8 = 1;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.command {
        Some(Command::DelayProxy(proxy)) => proxy::run(proxy).map(|()| ExitCode::SUCCESS),
        None => load(&options),
    };
    outcome.unwrap_or_else(|fault| {
        eprintln!("txgen: {fault}");
        ExitCode::from(fault.kind.exit_code())
    })
}

/// One run a transport; what they found is written at the end.
fn load(options: &Options) -> Result<ExitCode, Fault> {
    let mut reports = Vec::with_capacity(options.transport.len());
    for run in options.runs() {
        if let Some(report) = plan::run(&run)? {
            reports.push((run, report));
        }
    }
    if reports.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let text = || {
        let text = |(run, report): &(Options, report::Report)| match reports.len() {
            1 => report.to_text(),
            _ => format!("== {}\n{}", run.door().name(), report.to_text()),
        };
        reports.iter().map(text).collect::<String>()
    };
    let is_good = reports.iter().all(|(_, report)| report.is_good());
    match &options.json {
        Some(path) => {
            let json = format!("{:#}\n", figures(options, &reports, is_good));
            if path.as_os_str() == "-" {
                write_out(&json);
            } else {
                std::fs::write(path, json).map_err(|error| {
                    Fault::new(FaultKind::Disk, format!("{}: {error}", path.display()), "give --json a file that can be written")
                })?;
                write_out(&text());
            }
        }
        None => write_out(&text()),
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(CHECK_FAILED) })
}

/// The figures of the one run, or those of several under their transports.
fn figures(options: &Options, reports: &[(Options, report::Report)], is_good: bool) -> Value {
    let recovery_us = options.measure_recovery.then(recovery::measure_us);
    let figures = |(run, report): &(Options, report::Report)| {
        let mut figures = report.to_json(run);
        if let Some(recovery_us) = recovery_us {
            figures["recovery_us"] = json!(recovery_us);
            for node in figures["nodes"].as_array_mut().into_iter().flatten() {
                node["recoveries_per_tx"] = json!(node["cpu_us_per_tx"].as_f64().map(|us| (us / recovery_us * 100.0).round() / 100.0));
            }
        }
        figures
    };
    match reports {
        [only] => figures(only),
        _ => {
            let doors: Map<String, Value> = reports.iter().map(|report| (report.0.door().name().to_owned(), figures(report))).collect();
            json!({ "ok": is_good, "recovery_us": recovery_us, "doors": doors })
        }
    }
}

/// A reader that went away early is no fault: the exit code says what matters.
fn write_out(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
