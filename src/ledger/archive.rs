//! Blocks in files: `millrace db export` and `db import`.
//!
//! A file holds blocks of one group, in height order, with transactions, receipts and signatures, as [`record`]s whose checksums form a
//! chain. Invariants: a file that ends early says so; nothing of a file reaches a database before it was checked like a block of a peer
//! (parent, sealers, quorum of signatures, senders, execution, roots). Both directions can be stopped at any block and go on later.

mod export;
mod import;
mod record;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use millrace_base::{B256, ChainId, GroupId};
use millrace_core::StorageError;

pub use export::{Export, ExportReport, export_blocks};
pub use import::{ImportReport, Importer};

/// Told how many blocks are done, of how many as far as that is known; `Break` stops after the block in hand.
pub type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Why blocks were not moved.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read or written.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// What stands in the file is refused.
    #[error("{}, offset {offset}: {detail}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// Where in it, bytes from its start.
        offset: u64,
        /// Why.
        detail: String,
    },
    /// The range asked for cannot be exported.
    #[error("{0}")]
    Range(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ArchiveError {
    fn io(file: &Path) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { file: file.to_owned(), error }
    }
}

/// The first record of a file: what its blocks belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
struct Head {
    chain_id: ChainId,
    group: GroupId,
    genesis: [u8; 32],
    /// Height of the first block.
    from: u64,
}

impl Head {
    /// Why blocks of `self` do not belong where those of `other` do.
    fn differs(&self, other: &Head) -> Option<String> {
        let (genesis, expected) = (B256::new(self.genesis), B256::new(other.genesis));
        if self.chain_id != other.chain_id {
            Some(format!("the blocks are of chain {}, not of chain {}", self.chain_id, other.chain_id))
        } else if self.group != other.group {
            Some(format!("the blocks are of group {}, not of group {}", self.group, other.group))
        } else if genesis != expected {
            Some(format!("the blocks are of the chain that starts with block 0 {genesis}, not {expected}"))
        } else {
            None
        }
    }
}

/// The last record of a file that is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
struct End {
    /// Height of the last block; below `from` when there is none.
    last: u64,
}

/// Kinds of records.
mod kind {
    pub const HEAD: u8 = 1;
    pub const BLOCK: u8 = 2;
    pub const END: u8 = 3;
}

/// The file for a group's blocks from a height on, inside a directory.
pub fn file_in(directory: &Path, group: GroupId, from: u64) -> PathBuf {
    directory.join(format!("group{group}-from-{from:012}.blocks"))
}

/// The files of a group in a directory, by the height of their first block.
///
/// # Errors
/// The directory cannot be read.
pub fn files_in(directory: &Path, group: GroupId) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let from = name.strip_prefix(&format!("group{group}-from-")).and_then(|rest| rest.strip_suffix(".blocks"));
        if let Some(from) = from.and_then(|from| from.parse::<u64>().ok()) {
            found.push((from, path));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
