//! `millrace db snapshot`: the state of a group at one height, to start nodes from.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use millrace_base::B256;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::storage::moment;
use millrace_ledger::snapshot::{self, Manifest, Outcome, Restore, Snapshot, SnapshotError, Step, Subject, Trust};

use super::NodeGroup;
use super::bar::Watched;
use crate::config::GroupConfig;
use crate::node::{DatabasePlace, open_for_writing, open_read_only, storage_fault};

/// What can be done with snapshots.
#[derive(Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Make a snapshot of a group's last block, also while the node runs.
    Create(CreateArguments),
    /// Check every byte of a snapshot against the group's genesis.
    Verify(UseArguments),
    /// Make the database of a group from a snapshot, checking every byte of it.
    Restore(UseArguments),
}

/// Arguments of `db snapshot create`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  millrace db snapshot create --dir nodes/127.0.0.1/node0 --group 1 /backup/group1\n\nThe directory holds all headers with signatures, the last 1000 blocks, and the state; it appears when it is complete. Of a\nrunning node the present height is taken; should the engine remove a file meanwhile, the command says so: run it again."
)]
pub struct CreateArguments {
    #[command(flatten)]
    node: NodeGroup,
    /// A new directory.
    #[arg(value_name = "SNAPSHOT")]
    directory: PathBuf,
}

/// Arguments of `db snapshot verify` and `restore`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  millrace db snapshot verify --dir nodes/127.0.0.1/node1 --group 1 /backup/group1\n  millrace db snapshot restore --dir nodes/127.0.0.1/node1 --group 1 /backup/group1\n\nThe node needs the group's genesis file: from there the headers are followed by hashes and signatures to the snapshot's height,\nand the state is compared with the last header. A restore needs an empty database; one that was stopped goes on when it is run\nagain. Keep data/votes of a sealer: it remembers what the node has voted for."
)]
pub struct UseArguments {
    #[command(flatten)]
    node: NodeGroup,
    /// A directory that `db snapshot create` made.
    #[arg(value_name = "SNAPSHOT")]
    directory: PathBuf,
    /// Hash of a block of this chain that you know to be true, for example from another node of yours: blocks up to it need no signatures.
    #[arg(long, value_name = "HASH")]
    trusted_hash: Option<B256>,
}

/// Runs the command.
pub fn snapshot(command: &SnapshotCommand) -> Result<ExitCode, Fault> {
    match command {
        SnapshotCommand::Create(arguments) => create(arguments),
        SnapshotCommand::Verify(arguments) => verify(arguments),
        SnapshotCommand::Restore(arguments) => restore(arguments),
    }
}

fn unit(step: Step) -> &'static str {
    match step {
        Step::Headers => "headers",
        Step::Blocks => "blocks",
        Step::State => "state values",
        Step::Bytes => "bytes",
    }
}

fn create(arguments: &CreateArguments) -> Result<ExitCode, Fault> {
    let group = arguments.node.read()?;
    let place = DatabasePlace::from(&group);
    let storage = open_read_only(&place)?;
    let (view, height) = moment(&*storage).map_err(|error| storage_fault(&place.to_string(), &error))?;
    let subject = Subject { chain_id: group.genesis.chain_id, group: group.genesis.group };
    let started = Instant::now();
    let mut bar = Watched::new(&format!("group {}", subject.group))?;
    let made = snapshot::create(&*view, height.unwrap_or(0), subject, &arguments.directory, &mut |step, done, all| {
        bar.show(unit(step), done, all)
    });
    bar.end();
    let manifest = made.map_err(|error| snapshot_fault(&place, &error))?;
    super::super::print(&format!(
        "{}: {}, {} ({:.1} s)\n",
        arguments.directory.display(),
        described(&manifest),
        HumanBytes(manifest.bytes()),
        started.elapsed().as_secs_f64()
    ))
}

fn described(manifest: &Manifest) -> String {
    let Manifest { group, height, hash, state_values, .. } = manifest;
    format!("group {group}, block {height} {hash}, {state_values} state values")
}

fn trust(group: &GroupConfig, block: Option<B256>) -> Trust {
    let genesis = group.genesis.of_ledger();
    Trust { genesis: genesis.hash(), faults: genesis.consensus.faults(), state: genesis.state, sealers: genesis.sealers, block }
}

/// The snapshot, if it is of this chain and group.
fn open(arguments: &UseArguments, group: &GroupConfig) -> Result<Snapshot, Fault> {
    let opened = Snapshot::open(&arguments.directory).map_err(|error| snapshot_fault(&group.into(), &error))?;
    let (theirs, ours) = (opened.manifest(), &group.genesis);
    if (theirs.chain_id, theirs.group) != (ours.chain_id, ours.group) {
        let what = format!(
            "{} is of chain {}, group {}; this node's is chain {}, group {}",
            arguments.directory.display(),
            theirs.chain_id,
            theirs.group,
            ours.chain_id,
            ours.group
        );
        return Err(Fault::new(
            FaultKind::Operation,
            what,
            "choose the snapshot of this group, or the group of this snapshot with --group",
        ));
    }
    Ok(opened)
}

fn verify(arguments: &UseArguments) -> Result<ExitCode, Fault> {
    let group = arguments.node.read()?;
    let opened = open(arguments, &group)?;
    let started = Instant::now();
    let mut bar = Watched::new(&format!("group {}", group.genesis.group))?;
    let checked = snapshot::verify(&opened, &trust(&group, arguments.trusted_hash), &mut |step, done, all| bar.show(unit(step), done, all));
    bar.end();
    match checked {
        Ok(_) => super::super::print(&format!(
            "{}: sound: {} ({:.1} s)\n",
            arguments.directory.display(),
            described(opened.manifest()),
            started.elapsed().as_secs_f64()
        )),
        Err(SnapshotError::Refused { file, detail }) => {
            super::super::print(&format!("{}: REFUSED: {detail}\n  what to do: {REFUSED_REMEDY}\n", file.display()))?;
            Ok(ExitCode::from(1))
        }
        Err(error) => Err(snapshot_fault(&(&group).into(), &error)),
    }
}

fn restore(arguments: &UseArguments) -> Result<ExitCode, Fault> {
    let group = arguments.node.read()?;
    let (place, database) = (DatabasePlace::from(&group), &group.data_path);
    let opened = open(arguments, &group)?;
    let is_new = !database.exists();
    let storage = open_for_writing(&place)?;
    let started = Instant::now();
    let mut bar = Watched::new(&format!("group {}", group.genesis.group))?;
    let trust = trust(&group, arguments.trusted_hash);
    let order = Restore { snapshot: &opened, trust: &trust, target: &*storage };
    let restored = snapshot::restore(&order, &mut |step, done, all| bar.show(unit(step), done, all));
    bar.end();
    drop(storage);
    if is_new && matches!(restored, Err(SnapshotError::Refused { .. })) {
        // This command made it, and nothing can be made of it.
        fs::remove_dir_all(database).map_err(|error| snapshot_fault(&place, &SnapshotError::Io { file: database.clone(), error }))?;
    }
    let Outcome { height, state_values, blocks, resumed_at } = restored.map_err(|error| snapshot_fault(&place, &error))?;
    let resumed = if resumed_at > 0 { format!(", going on from block {resumed_at}") } else { String::new() };
    super::super::print(&format!(
        "{}: block {height}, {state_values} state values, {blocks} blocks with transactions{resumed} ({:.1} s)\n",
        database.display(),
        started.elapsed().as_secs_f64()
    ))
}

const REFUSED_REMEDY: &str = "get the snapshot again, from a node that you trust; check it with `millrace db snapshot verify`";

fn snapshot_fault(database: &DatabasePlace, error: &SnapshotError) -> Fault {
    match error {
        SnapshotError::Storage(error) => storage_fault(&database.to_string(), error),
        SnapshotError::Io { .. } => Fault::new(FaultKind::Disk, error.to_string(), "check the path, its permissions and free space"),
        SnapshotError::Refused { .. } => Fault::new(FaultKind::Storage, error.to_string(), REFUSED_REMEDY),
        SnapshotError::Impossible(_) => Fault::new(FaultKind::Operation, error.to_string(), "the message above says what is in the way"),
        SnapshotError::Stopped => {
            Fault::new(FaultKind::Operation, error.to_string(), "run the same command again: a restore goes on where it stopped")
        }
    }
}
