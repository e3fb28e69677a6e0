//! Makes a snapshot of a database as of one moment, also while a node commits.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use millrace_access::blockchain::facts::{ChainFacts, Get};
use millrace_access::blockchain::records::corrupt;
use millrace_access::blockchain::{read_commitment, read_header};
use millrace_base::{Bytes, ChainId, GroupId};
use millrace_core::storage::{StorageView, height_key};
use millrace_core::{Space, StorageError};
use rayon::prelude::*;

use super::chunk::{ChunkWriter, split, write_manifest};
use super::manifest::{Kind, Manifest};
use super::{Progress, SnapshotError, Step, check_kind, kept_from};
use crate::state_sum::StateSum;
use crate::verify::{check_signatures, faults_of_genesis};

/// How often progress is told, in items.
const TOLD_EVERY: u64 = 1_024;

/// Pairs that one core sums at once.
const SUMMED_AT_ONCE: usize = 512;

/// What the snapshot is of; the database does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// `chain.id`.
    pub chain_id: ChainId,
    /// The group.
    pub group: GroupId,
}

/// Makes the snapshot of `height`, the head of the view, in a new directory. It appears there when it is complete and durable.
///
/// # Errors
/// The directory is there already; the database lacks something or its state does not give the root in the head's header;
/// [`SnapshotError::Stopped`].
pub fn create(
    view: &dyn StorageView,
    height: u64,
    subject: Subject,
    directory: &Path,
    progress: &mut Progress<'_>,
) -> Result<Manifest, SnapshotError> {
    let part = part_of(directory);
    for path in [directory, &part] {
        if path.exists() {
            let text = format!("{} is there already: remove it, if nobody writes it, or choose another place", path.display());
            return Err(SnapshotError::Impossible(text));
        }
    }
    let io = |path: &Path| {
        let file = path.to_owned();
        move |error| SnapshotError::Io { file, error }
    };
    fs::create_dir(&part).map_err(io(&part))?;
    let made = write(view, height, subject, &part, progress).and_then(|manifest| {
        File::open(&part).and_then(|opened| opened.sync_all()).map_err(io(&part))?;
        fs::rename(&part, directory).map_err(io(directory))?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|opened| opened.sync_all()).map_err(io(parent))?;
        Ok(manifest)
    });
    if made.is_err() {
        // What is left is of no use to anybody.
        let _ = fs::remove_dir_all(&part);
    }
    made
}

fn part_of(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn write(
    view: &dyn StorageView,
    height: u64,
    subject: Subject,
    directory: &Path,
    progress: &mut Progress<'_>,
) -> Result<Manifest, SnapshotError> {
    let get: Get<'_> = &|space, key| view.get(space, key);
    let facts = ChainFacts::read(get)?;
    check_kind(read_commitment(get)?.kind())?;
    let first = kept_from(height);
    if height == 0 {
        return Err(SnapshotError::Impossible("there is nothing but block 0, which every node makes from its genesis file".into()));
    }
    if facts.kept_from > first {
        let text =
            format!("blocks from {first} on are needed, this database keeps blocks from {} on: wait, or use another node", facts.kept_from);
        return Err(SnapshotError::Impossible(text));
    }
    let (header, signatures) = read_header(get, height)?.ok_or_else(|| missing("block header", height))?;
    let hash = header.hash();
    let (genesis, _) = read_header(get, 0)?.ok_or_else(|| missing("block header", 0))?;
    check_signatures((&header, hash), &signatures, faults_of_genesis(&genesis))
        .map_err(|detail| corrupt(&format!("block {height}"), detail))?;
    let mut chunks = write_headers(view, height, ChunkWriter::new(directory, Kind::Headers), progress)?;
    chunks.extend(write_blocks(get, first..=height, ChunkWriter::new(directory, Kind::Blocks), progress)?);
    let (state, sum) = write_state(view, ChunkWriter::new(directory, Kind::State), progress)?;
    chunks.extend(state);
    if (sum.root(), sum.root()) != (header.state_root, header.db_hash) {
        let text = format!(
            "the stored state gives the root {}, the header of block {height} has state root {} and dbHash {}: the database is damaged (see \
             `millrace db verify`)",
            sum.root(),
            header.state_root,
            header.db_hash
        );
        return Err(SnapshotError::Impossible(text));
    }
    let manifest = Manifest {
        chain_id: subject.chain_id,
        group: subject.group,
        genesis: facts.genesis,
        height,
        hash,
        state_root: header.state_root,
        state_values: sum.values(),
        transactions: facts.totals.transactions,
        failed: facts.totals.failed,
        counted_at: facts.totals.number,
        epoch_start: facts.epoch_start,
        chunks,
    };
    write_manifest(directory, &manifest)?;
    Ok(manifest)
}

fn missing(what: &str, number: u64) -> StorageError {
    corrupt(&format!("{what} of block {number}"), "missing")
}

fn tell(progress: &mut Progress<'_>, step: Step, done: u64, all: u64) -> Result<(), SnapshotError> {
    match progress(step, done, all) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(SnapshotError::Stopped),
    }
}

type Chunks = Vec<super::manifest::Chunk>;

fn write_headers(
    view: &dyn StorageView,
    height: u64,
    mut out: ChunkWriter<'_>,
    progress: &mut Progress<'_>,
) -> Result<Chunks, SnapshotError> {
    let (mut next, mut fault) = (0, None);
    view.scan(Space::Header, &[], &[], &mut |key, value| {
        if next > height {
            return ControlFlow::Break(());
        }
        let mut take = || {
            if key != height_key(next) {
                return Err(missing("block header", next).into());
            }
            out.put(&[value]);
            next += 1;
            if out.is_full() {
                out.flush()?;
            }
            if next.is_multiple_of(TOLD_EVERY) { tell(progress, Step::Headers, next, height + 1) } else { Ok(()) }
        };
        fault = take().err();
        if fault.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match fault {
        Some(error) => Err(error),
        None if next <= height => Err(missing("block header", next).into()),
        None => out.finish(),
    }
}

fn write_blocks(
    get: Get<'_>,
    heights: std::ops::RangeInclusive<u64>,
    mut out: ChunkWriter<'_>,
    progress: &mut Progress<'_>,
) -> Result<Chunks, SnapshotError> {
    let (first, last) = heights.clone().into_inner();
    for number in heights {
        let body = get(Space::Body, &height_key(number))?.ok_or_else(|| missing("block body", number))?;
        let receipts = get(Space::Receipts, &height_key(number))?.ok_or_else(|| missing("receipts", number))?;
        out.put(&[&body, &receipts]);
        if out.is_full() {
            out.flush()?;
        }
        tell(progress, Step::Blocks, number + 1 - first, last + 1 - first)?;
    }
    out.finish()
}

fn write_state(view: &dyn StorageView, mut out: ChunkWriter<'_>, progress: &mut Progress<'_>) -> Result<(Chunks, StateSum), SnapshotError> {
    let (mut sum, mut fault) = (StateSum::default(), None);
    view.scan(Space::State, &[], &[], &mut |key, value| {
        out.put(&[key, value]);
        if !out.is_full() {
            return ControlFlow::Continue(());
        }
        let mut end = || {
            sum.merge(&sum_of(out.content())?);
            out.flush()?;
            tell(progress, Step::State, sum.values(), 0)
        };
        fault = end().err();
        if fault.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = fault {
        return Err(error);
    }
    sum.merge(&sum_of(out.content())?);
    Ok((out.finish()?, sum))
}

fn sum_of(content: &[u8]) -> Result<StateSum, SnapshotError> {
    let strings = split(&Bytes::copy_from_slice(content)).expect("it was just written");
    Ok(sum_pairs(&strings)?)
}

/// The sum of keys and values that take turns, on all cores.
pub(super) fn sum_pairs(strings: &[Bytes]) -> Result<StateSum, StorageError> {
    let sum = |strings: &[Bytes]| {
        let mut sum = StateSum::default();
        strings.chunks_exact(2).try_for_each(|pair| sum.add(&pair[0], &pair[1])).map(|()| sum)
    };
    let join = |mut left: StateSum, right: StateSum| {
        left.merge(&right);
        Ok(left)
    };
    strings.par_chunks(2 * SUMMED_AT_ONCE).map(sum).try_reduce(StateSum::default, join)
}
