//! `millrace db export` and `db import`: blocks out of a database and, verified, into another.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use indicatif::HumanBytes;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::storage::moment;
use millrace_ledger::archive::{ArchiveError, Export, ExportReport, ImportReport, Importer, export_blocks, files_in};

use super::NodeGroup;
use super::bar::Watched;
use crate::node::{DatabasePlace, open_fault, open_for_writing, open_read_only, storage_fault};

/// Arguments of `db export`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  millrace db export --dir nodes/127.0.0.1/node0 --group 1 /backup\n  millrace db export --dir nodes/127.0.0.1/node0 --group 1 --from 1000 --to 2000 part.blocks\n\nThe node may run: blocks up to its present height are written. An export that was stopped or cut short goes on when the same\ncommand is run again."
)]
pub struct ExportArguments {
    #[command(flatten)]
    node: NodeGroup,
    /// A file, or a directory for one with a name of its own.
    #[arg(value_name = "FILE|DIR")]
    target: PathBuf,
    /// First block.
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,
    /// Last block; default: the last there is.
    #[arg(long, value_name = "M")]
    to: Option<u64>,
}

/// Arguments of `db import`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  millrace db import --dir nodes/127.0.0.1/node1 --group 1 /backup\n\nEach block is checked like one that a peer sent: its place in the chain, the signatures of a quorum of sealers, every\ntransaction's signature; it is executed, and the result compared. Blocks that are there already are compared by hash. Stop the\nnode or the group first. Ctrl-C leaves a database that a node can use; run the command again to go on."
)]
pub struct ImportArguments {
    #[command(flatten)]
    node: NodeGroup,
    /// A file of `db export`, or a directory with such files of the group.
    #[arg(value_name = "FILE|DIR")]
    source: PathBuf,
}

/// Runs `db export`.
pub fn export(arguments: &ExportArguments) -> Result<ExitCode, Fault> {
    let group = arguments.node.read()?;
    let place = DatabasePlace::from(&group);
    let storage = open_read_only(&place)?;
    let (view, height) = moment(&*storage).map_err(|error| storage_fault(&place.to_string(), &error))?;
    let height = height.ok_or_else(|| never_used(&place))?;
    let order = Export {
        chain_id: group.genesis.chain_id,
        group: group.genesis.group,
        target: &arguments.target,
        from: Some(arguments.from),
        to: arguments.to,
    };
    let started = Instant::now();
    let mut bar = Watched::new(&format!("group {}", order.group))?;
    let result = export_blocks(&*view, height, &order, &mut |done, all| bar.show("blocks", done, all));
    bar.end();
    let ExportReport { file, first, last, found, bytes, is_complete } = result.map_err(|error| archive_fault(&place, &error))?;
    if !is_complete {
        let what = format!("stopped after block {last}");
        return Err(Fault::new(FaultKind::Operation, what, "run the same command again: it goes on there"));
    }
    let earlier = if found > 0 { format!(", {found} of them found there") } else { String::new() };
    super::super::print(&format!(
        "{}: blocks {first} to {last}{earlier}, {} ({:.1} s)\n",
        file.display(),
        HumanBytes(bytes),
        started.elapsed().as_secs_f64()
    ))
}

/// Runs `db import`.
pub fn import(arguments: &ImportArguments) -> Result<ExitCode, Fault> {
    let group = arguments.node.read()?;
    let (id, place) = (group.genesis.group, DatabasePlace::from(&group));
    let files = if arguments.source.is_dir() {
        let unreadable = |error| archive_fault(&place, &ArchiveError::Io { file: arguments.source.clone(), error });
        files_in(&arguments.source, id).map_err(unreadable)?
    } else {
        vec![arguments.source.clone()]
    };
    if files.is_empty() {
        let what = format!("{} holds no files of group {id}", arguments.source.display());
        return Err(Fault::new(FaultKind::Operation, what, format!("name a file, or a directory with group{id}-from-*.blocks")));
    }
    let storage = open_for_writing(&place)?;
    let mut importer = Importer::open(storage, group.genesis.chain_id, &group.genesis.of_ledger())
        .map_err(|error| open_fault(&place.to_string(), error))?;
    importer.chain().keep(group.keep_blocks);
    let started = Instant::now();
    let mut reports = Vec::with_capacity(files.len());
    let mut bar = Watched::new(&format!("group {id}"))?;
    for file in files {
        let report = importer.import(&file, &mut |done, all| bar.show("blocks", done, all));
        let report = report.map_err(|error| archive_fault(&place, &error));
        if report.is_err() {
            bar.end();
        }
        let report = report?;
        reports.push((file, report));
        if !report.is_complete {
            break;
        }
    }
    bar.end();
    // What was taken is durable once the database is closed.
    drop(importer);
    let mut text = String::new();
    for (file, report) in &reports {
        let ImportReport { blocks, transactions, known, height, .. } = report;
        let earlier = if *known > 0 { format!(" ({known} were there)") } else { String::new() };
        text.push_str(&format!("{}: {blocks} blocks{earlier}, {transactions} transactions, height {height}\n", file.display()));
    }
    super::super::print(&format!("{text}done in {:.1} s\n", started.elapsed().as_secs_f64()))?;
    match reports.last() {
        Some((_, report)) if !report.is_complete => {
            let what = format!("stopped after block {}; the database can be used", report.height);
            Err(Fault::new(FaultKind::Operation, what, "run the same command again: it goes on there"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn never_used(place: &DatabasePlace) -> Fault {
    Fault::new(FaultKind::Operation, format!("{place} holds no blocks"), "start the node once, or name another directory")
}

fn archive_fault(database: &DatabasePlace, error: &ArchiveError) -> Fault {
    match error {
        ArchiveError::Storage(error) => storage_fault(&database.to_string(), error),
        ArchiveError::Io { .. } => Fault::new(FaultKind::Disk, error.to_string(), "check the path, its permissions and free space"),
        ArchiveError::Range(_) => Fault::new(FaultKind::Operation, error.to_string(), "choose another range or another node"),
        ArchiveError::Refused { .. } => Fault::new(
            FaultKind::Storage,
            error.to_string(),
            "use a whole file of this chain and group; what stands before that place was taken and is sound",
        ),
    }
}
