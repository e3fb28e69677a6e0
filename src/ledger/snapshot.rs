//! Snapshots: the state of one height in files, with what proves it and what a node needs to go on from there.
//!
//! A snapshot is a directory: a [`manifest`] that names every other file with its digest, and chunks of three kinds.
//!
//! | chunk | what | proven by |
//! |---|---|---|
//! | headers | all headers and signatures from block 0 on | the genesis of the group, then signatures ([`headers`]) |
//! | blocks | the last blocks whose nonces count, with transactions and receipts | roots in the headers, senders by signature |
//! | state | every pair of the state, in the order of its keys | the state root in the last header |
//!
//! No header covers the counters of transactions and the height at which the present settings began: they are as good as their maker.
//! A wrong beginning of the settings keeps a sealer from voting and can do nothing else.
//!
//! Invariant: what a restore has not proven never becomes a database that a node opens.

mod chunk;
mod create;
mod headers;
mod manifest;
mod restore;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use millrace_administration::Faults;
use millrace_base::limits::BLOCK_LIMIT_WINDOW;
use millrace_base::{B256, NodeId};
use millrace_core::{StateKind, StorageError};

pub use chunk::Snapshot;
pub use create::{Subject, create};
pub use manifest::Manifest;
pub use restore::{Outcome, Restore, restore, verify};

/// How far it has got: what is in hand, how much is done, of how much as far as that is known; `Break` stops.
pub type Progress<'a> = dyn FnMut(Step, u64, u64) -> ControlFlow<()> + 'a;

/// What is in hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Headers, counted.
    Headers,
    /// Blocks, counted.
    Blocks,
    /// State values, counted.
    State,
    /// Bytes of the snapshot.
    Bytes,
}

/// What the operator knows to be true, whatever a snapshot says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    /// Hash of block 0.
    pub genesis: B256,
    /// Sealers that govern block 1.
    pub sealers: Vec<NodeId>,
    /// What quorums of this group are made for.
    pub faults: Faults,
    /// How the group keeps its state.
    pub state: StateKind,
    /// Hash of a block of this chain, from a source that is trusted: proves the blocks up to it without their signatures.
    pub block: Option<B256>,
}

/// Why there is no snapshot, or it is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file cannot be read or written.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file of the snapshot is not what was written, or not true.
    #[error("{}: {detail}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// Why.
        detail: String,
    },
    /// What was asked for does not go.
    #[error("{0}")]
    Impossible(String),
    /// It was stopped before the end.
    #[error("stopped before the end")]
    Stopped,
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The lowest height above 0 whose body a snapshot of this height has: all whose nonces count.
fn kept_from(height: u64) -> u64 {
    (height + 1).saturating_sub(BLOCK_LIMIT_WINDOW).max(1)
}

/// Of groups with tries there are no snapshots: what an account trie's root covers lies in nodes, and those of all blocks are kept.
fn check_kind(state: StateKind) -> Result<(), SnapshotError> {
    match state {
        StateKind::Storage => Ok(()),
        StateKind::Mpt => Err(SnapshotError::Impossible(
            "the group keeps its state in tries (state.type=mpt), of which there are no snapshots: move its blocks with `millrace db export` \
             and `db import`, or let the node get them from others"
                .into(),
        )),
    }
}

#[cfg(test)]
#[path = "snapshot/tests.rs"]
mod tests;
