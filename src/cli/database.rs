//! `millrace db`: looks into databases, moves their blocks, and makes and restores snapshots of their state.
//!
//! Whatever only reads works beside a running node: it opens the database for reading as of that moment. Import and restore write, so the
//! group must not run; the database's own lock sees to that.

mod bar;
mod blocks;
mod figures;
mod snapshot;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Subcommand};
use millrace_base::GroupId;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::Storage;
use millrace_ledger::verify::{Progress, Report, VerifyError, verify_database};

use self::bar::Bar;
use crate::config::{GroupConfig, NodeConfig};
use crate::node::{DatabasePlace, open_read_only};

/// Commands about databases.
#[derive(Subcommand, Debug)]
pub enum DatabaseCommand {
    /// Check every block, signature, index and the state root. Exit code 1 when damage is found.
    Verify(Selection),
    /// Print heights, counters, the oldest block that is kept, and sizes.
    Stats(figures::StatsArguments),
    /// Write blocks into a file: with transactions, receipts and signatures.
    Export(blocks::ExportArguments),
    /// Take blocks from files into a group that does not run: each verified and executed.
    Import(blocks::ImportArguments),
    /// Make, check and restore snapshots of a group's state.
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
}

/// Which databases.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  millrace db verify --dir nodes/127.0.0.1/node0\n  millrace db stats --dir nodes/127.0.0.1/node0 --group 1\n\nTo verify, stop the node first: a database that is being written may look damaged."
)]
pub struct Selection {
    /// A node's directory, its data directory, or the database of one group.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Only this group; default: all that are there.
    #[arg(long, value_name = "G", value_parser = parse_group)]
    group: Option<GroupId>,
}

/// Runs the command.
pub fn database(command: DatabaseCommand) -> Result<ExitCode, Fault> {
    match command {
        DatabaseCommand::Verify(selection) => verify(&selection),
        DatabaseCommand::Stats(arguments) => figures::stats(&arguments),
        DatabaseCommand::Export(arguments) => blocks::export(&arguments),
        DatabaseCommand::Import(arguments) => blocks::import(&arguments),
        DatabaseCommand::Snapshot(command) => snapshot::snapshot(&command),
    }
}

/// A group id on the command line.
pub fn parse_group(text: &str) -> Result<GroupId, String> {
    text.parse().ok().and_then(GroupId::new).ok_or_else(|| "a group is a number from 1 to 32767".into())
}

/// One group of a node.
#[derive(Args, Debug)]
pub struct NodeGroup {
    /// The node's directory, with its config.ini.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The group.
    #[arg(long, value_name = "G", value_parser = parse_group)]
    group: GroupId,
}

impl NodeGroup {
    /// The group's configuration.
    fn read(&self) -> Result<GroupConfig, Fault> {
        let file = self.dir.join("config.ini");
        let groups = NodeConfig::read_groups(&file)?;
        let known: Vec<String> = groups.iter().map(|group| group.genesis.group.to_string()).collect();
        groups.into_iter().find(|group| group.genesis.group == self.group).ok_or_else(|| {
            let what = format!("the node of {} has no group {}", file.display(), self.group);
            Fault::new(
                FaultKind::Operation,
                what,
                format!("its groups: {}; a new group needs its group.N.genesis and .ini there", known.join(", ")),
            )
        })
    }
}

/// One database: what to call it, and where it lies.
type Database = (String, DatabasePlace);

fn databases(selection: &Selection) -> Result<Vec<Database>, Fault> {
    let fault = |what: String| {
        Fault::new(FaultKind::Operation, what, "name a node's directory (the one of config.ini), its data directory, or data/groupN/block")
    };
    if !selection.dir.is_dir() {
        return Err(fault(format!("{} is no directory", selection.dir.display())));
    }
    let on_servers = on_servers(selection);
    let mut found: Vec<(GroupId, DatabasePlace)> = on_servers.as_ref().map_or_else(|_| Vec::new(), Clone::clone);
    for parent in [selection.dir.clone(), selection.dir.join("data")] {
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let group = name.strip_prefix("group").and_then(|id| id.parse().ok()).and_then(GroupId::new);
            let path = entry.path().join("block");
            match group {
                // What lies here beside a database on a server is of a time before it.
                Some(group)
                    if path.is_dir()
                        && selection.group.is_none_or(|wanted| wanted == group)
                        && !found.iter().any(|(known, _)| *known == group) =>
                {
                    found.push((group, DatabasePlace::Directory(path)));
                }
                _ => {}
            }
        }
    }
    found.sort_by_key(|(group, _)| *group);
    let mut databases: Vec<Database> = found.into_iter().map(|(group, place)| (format!("group {group}"), place)).collect();
    // Without a group to look for, the directory may itself be a database.
    if databases.is_empty() && selection.dir.join("CURRENT").is_file() {
        databases.push((selection.dir.display().to_string(), DatabasePlace::Directory(selection.dir.clone())));
    }
    if databases.is_empty() {
        on_servers?;
    }
    match (databases.is_empty(), selection.group) {
        (false, _) => Ok(databases),
        (true, Some(group)) => Err(fault(format!("{} holds no database of group {group}", selection.dir.display()))),
        (true, None) => Err(fault(format!("{} holds no database", selection.dir.display()))),
    }
}

/// The databases on servers that a node's configuration names, if the directory is a node's.
fn on_servers(selection: &Selection) -> Result<Vec<(GroupId, DatabasePlace)>, Fault> {
    let file = selection.dir.join("config.ini");
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let place = |group: &GroupConfig| match DatabasePlace::from(group) {
        DatabasePlace::Directory(_) => None,
        server => Some((group.genesis.group, server)),
    };
    let groups = NodeConfig::read_groups(&file)?;
    Ok(groups.iter().filter_map(place).filter(|(group, _)| selection.group.is_none_or(|wanted| wanted == *group)).collect())
}

fn verify(selection: &Selection) -> Result<ExitCode, Fault> {
    let mut clean = true;
    for (name, place) in databases(selection)? {
        let storage = open_read_only(&place)?;
        let started = Instant::now();
        match verify_with_progress(&name, &storage) {
            Ok(report) => {
                let Report { height, head, transactions, kept_from, state_values, state_root, state } = report;
                let kept = if kept_from > 1 { format!(" (bodies from {kept_from} on)") } else { String::new() };
                super::print(&format!(
                    "{name}: clean: blocks 0 to {height}{kept}, {transactions} transactions, {state_values} values of {state} state, head {head}, state root {state_root} ({:.1} s)\n",
                    started.elapsed().as_secs_f64()
                ))?;
            }
            Err(error) => {
                clean = false;
                super::print(&format!("{name}: DAMAGED: {error}\n  what to do: {}\n", remedy(&place)))?;
            }
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn remedy(place: &DatabasePlace) -> String {
    format!("keep {place} as evidence, and restore it from a copy that is clean")
}

fn verify_with_progress(name: &str, storage: &Arc<dyn Storage>) -> Result<Report, VerifyError> {
    let mut bar = Bar::new(name);
    let report = verify_database(&**storage, &mut |progress| match progress {
        Progress::Blocks(done, all) => bar.show("blocks", done, all),
        Progress::State(done) => bar.show("state values", done, 0),
    });
    bar.end();
    report
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn databases_are_found_from_a_node_its_data_or_the_database_itself() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path();
        for group in ["group2", "group10", "group1"] {
            fs::create_dir_all(node.join("data").join(group).join("block")).unwrap();
        }
        fs::create_dir_all(node.join("data/groupX/block")).unwrap();
        let names = |dir: &Path, group| -> Vec<String> {
            let selection = Selection { dir: dir.to_owned(), group };
            databases(&selection).map(|found| found.into_iter().map(|(name, _)| name).collect()).unwrap_or_default()
        };
        assert_eq!(names(node, None), ["group 1", "group 2", "group 10"]);
        assert_eq!(names(&node.join("data"), GroupId::new(2)), ["group 2"]);
        assert!(names(node, GroupId::new(3)).is_empty());
        let database = node.join("data/group1/block");
        assert!(names(&database, None).is_empty());
        fs::write(database.join("CURRENT"), "").unwrap();
        assert_eq!(names(&database, None).len(), 1);
    }
}
