//! `millrace db stats`: what a database holds.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::{Space, Storage, StorageError};
use millrace_ledger::facts::ChainFacts;

use super::bar::Watched;
use super::{Selection, databases};
use crate::node::open_read_only;

/// Which databases, and how closely.
#[derive(Args, Debug)]
pub struct StatsArguments {
    #[command(flatten)]
    selection: Selection,
    /// Read everything and count it: keys, and bytes of keys and values before compression. Takes as long as reading the database.
    #[arg(long)]
    count: bool,
}

/// Runs the command.
pub fn stats(arguments: &StatsArguments) -> Result<ExitCode, Fault> {
    for (name, place) in databases(&arguments.selection)? {
        let storage = open_read_only(&place)?;
        let fault = |error: StorageError| Fault::new(FaultKind::Storage, format!("{name}: {error}"), "run `millrace db verify` on it");
        let mut text = format!("{name}: {place}\n");
        text.push_str(&chain(&*storage).map_err(fault)?);
        if arguments.count {
            text.push_str(&counted(&name, &*storage)?.map_err(fault)?);
        }
        text.push_str("  storage engine:\n");
        for (figure, value) in storage.stats().map_err(fault)? {
            let shown = match value.parse::<u64>() {
                Ok(bytes) if figure.contains("size") || figure.contains("bytes") => HumanBytes(bytes).to_string(),
                _ => value,
            };
            let _ = writeln!(text, "    {figure}: {shown}");
        }
        super::super::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn chain(storage: &dyn Storage) -> Result<String, StorageError> {
    let Some(height) = storage.height()? else { return Ok("  it was never used by a node\n".into()) };
    let facts = match ChainFacts::read(&|space, key| storage.get(space, key)) {
        Err(StorageError::Unfinished) => {
            return Ok(format!("  a restore from a snapshot that was cut short at block {height}; run it again\n"));
        }
        facts => facts?,
    };
    let ChainFacts { genesis, totals, epoch_start, kept_from } = facts;
    let kept = if kept_from == 1 {
        "all".to_owned()
    } else {
        format!("from block {kept_from} on, {} blocks", height + 1 - kept_from.min(height + 1))
    };
    Ok(format!(
        "  height: {height}\n  transactions: {}, of which {} failed\n  transactions and receipts kept: {kept}\n  \
         present sealers and settings since block: {epoch_start}\n  block 0: {genesis}\n",
        totals.transactions, totals.failed
    ))
}

/// Of one space.
#[derive(Clone, Copy, Default)]
struct Count {
    keys: u64,
    bytes: u64,
}

fn counted(name: &str, storage: &dyn Storage) -> Result<Result<String, StorageError>, Fault> {
    let mut bar = Watched::new(name)?;
    let (mut text, mut all, mut is_stopped) = ("  counted:\n".to_owned(), 0, false);
    for space in Space::ALL {
        let mut count = Count::default();
        let scanned = storage.scan(space, &[], &[], &mut |key, value| {
            count.keys += 1;
            count.bytes += (key.len() + value.len()) as u64;
            all += 1;
            let flow = bar.show("keys", all, 0);
            is_stopped |= flow.is_break();
            flow
        });
        if let Err(error) = scanned {
            return Ok(Err(error));
        }
        if is_stopped {
            bar.end();
            return Err(Fault::new(FaultKind::Operation, format!("{name}: stopped while counting"), "run it again, or without --count"));
        }
        let _ = writeln!(text, "    {:<18} {:>12} keys {:>12}", format!("{space:?}"), count.keys, HumanBytes(count.bytes).to_string());
    }
    bar.end();
    Ok(Ok(text))
}
