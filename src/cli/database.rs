//! `millrace db verify|stats`: reads databases, changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use millrace_base::GroupId;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::Storage;
use millrace_ledger::verify::{Progress, Report, VerifyError, verify_database};

use crate::node::open_read_only;

/// Commands about databases.
#[derive(Subcommand, Debug)]
pub enum DatabaseCommand {
    /// Check every block, signature, index and the state root. Exit code 1 when damage is found.
    Verify(Selection),
    /// Print figures of the storage engine.
    Stats(Selection),
}

/// Which databases.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  millrace db verify --dir nodes/127.0.0.1/node0\n  millrace db stats --dir nodes/127.0.0.1/node0 --group 1\n\nStop the node first: a database that is being written may look damaged."
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
        DatabaseCommand::Stats(selection) => stats(&selection),
    }
}

/// A group id on the command line.
pub fn parse_group(text: &str) -> Result<GroupId, String> {
    text.parse().ok().and_then(GroupId::new).ok_or_else(|| "a group is a number from 1 to 32767".into())
}

/// One database: what to call it, and where it lies.
type Database = (String, PathBuf);

fn databases(selection: &Selection) -> Result<Vec<Database>, Fault> {
    let fault = |what: String| {
        Fault::new(FaultKind::Operation, what, "name a node's directory (the one of config.ini), its data directory, or data/groupN/block")
    };
    if !selection.dir.is_dir() {
        return Err(fault(format!("{} is no directory", selection.dir.display())));
    }
    let mut found = Vec::new();
    for parent in [selection.dir.clone(), selection.dir.join("data")] {
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let group = name.strip_prefix("group").and_then(|id| id.parse().ok()).and_then(GroupId::new);
            let path = entry.path().join("block");
            match group {
                Some(group) if path.is_dir() && selection.group.is_none_or(|wanted| wanted == group) => found.push((group, path)),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    let mut databases: Vec<Database> = found.into_iter().map(|(group, path)| (format!("group {group}"), path)).collect();
    // Without a group to look for, the directory may itself be a database.
    if databases.is_empty() && selection.dir.join("CURRENT").is_file() {
        databases.push((selection.dir.display().to_string(), selection.dir.clone()));
    }
    match (databases.is_empty(), selection.group) {
        (false, _) => Ok(databases),
        (true, Some(group)) => Err(fault(format!("{} holds no database of group {group}", selection.dir.display()))),
        (true, None) => Err(fault(format!("{} holds no database", selection.dir.display()))),
    }
}

fn verify(selection: &Selection) -> Result<ExitCode, Fault> {
    let mut clean = true;
    for (name, path) in databases(selection)? {
        let storage = open_read_only(&path)?;
        let started = Instant::now();
        match verify_with_progress(&name, &storage) {
            Ok(report) => {
                let Report { height, head, transactions, state_values, state_root, state } = report;
                super::print(&format!(
                    "{name}: clean: blocks 0 to {height}, {transactions} transactions, {state_values} values of {state} state, head {head}, state root {state_root} ({:.1} s)\n",
                    started.elapsed().as_secs_f64()
                ))?;
            }
            Err(error) => {
                clean = false;
                super::print(&format!("{name}: DAMAGED: {error}\n  what to do: {}\n", remedy(&path)))?;
            }
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn remedy(path: &Path) -> String {
    format!("keep {} as evidence, and restore the directory from a copy that is clean", path.display())
}

fn verify_with_progress(name: &str, storage: &Arc<dyn Storage>) -> Result<Report, VerifyError> {
    let bar = ProgressBar::new(0).with_message(name.to_owned());
    bar.set_style(style("{msg} [{wide_bar}] {human_pos}/{human_len} blocks, {eta} left"));
    let mut in_state = false;
    let report = verify_database(storage, &mut |progress| match progress {
        Progress::Blocks(done, all) => {
            bar.set_length(all);
            bar.set_position(done);
        }
        Progress::State(done) => {
            if !in_state {
                in_state = true;
                bar.set_style(style("{msg} {spinner} {human_pos} state values"));
            }
            bar.set_position(done);
        }
    });
    bar.finish_and_clear();
    report
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants with known fields")
}

fn stats(selection: &Selection) -> Result<ExitCode, Fault> {
    for (name, path) in databases(selection)? {
        let storage = open_read_only(&path)?;
        let fault = |error| Fault::new(FaultKind::Storage, format!("{name}: {error}"), "run `millrace db verify` on it");
        let height = storage.height().map_err(fault)?.map_or("none".to_owned(), |height| height.to_string());
        let mut text = format!("{name}: {}\n  height: {height}\n", path.display());
        for (figure, value) in storage.stats().map_err(fault)? {
            text.push_str(&format!("  {figure}: {value}\n"));
        }
        super::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
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
