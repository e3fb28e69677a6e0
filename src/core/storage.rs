//! What a storage engine must do: atomic, idempotent block commits and ordered reads.
//!
//! One engine instance serves one group. Only the commit stage writes; everybody may read at any time. A block is one [`Batch`]
//! and is either there whole or not at all, together with its height marker.

pub mod conformance;
pub mod memory;

use std::ops::ControlFlow;
use std::path::Path;

/// A key space of a group's database. Keys of different spaces never meet; inside a space keys are ordered bytewise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Space {
    /// Height marker, genesis hash, format version, state commitment, counters.
    Meta = b'm',
    /// Height (8 bytes, big-endian) to header and signatures.
    Header = b'h',
    /// Height to the transactions of the block, one blob.
    Body = b'b',
    /// Height to the receipts of the block, one blob.
    Receipts = b'r',
    /// Height to the nonces used in the block, one blob; kept for the block-limit window.
    Nonces = b'n',
    /// Block hash to height.
    BlockIndex = b'i',
    /// Transaction hash to height and position.
    TransactionIndex = b't',
    /// Encoded [`crate::StateKey`] to encoded [`crate::StateValue`].
    State = b's',
    /// Hash of a trie node to its RLP, with `state.type=mpt`. Nodes are added, never changed or deleted.
    Trie = b'p',
}

impl Space {
    /// All spaces, for scans over a whole database.
    pub const ALL: [Space; 9] = [
        Space::Meta,
        Space::Header,
        Space::Body,
        Space::Receipts,
        Space::Nonces,
        Space::BlockIndex,
        Space::TransactionIndex,
        Space::State,
        Space::Trie,
    ];

    /// The position in [`Self::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|space| *space == self).expect("ALL holds every space")
    }
}

/// When a commit may return.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The block survives power loss: it was synced to the device.
    #[default]
    Power,
    /// The block survives the death of the process: it was handed to the operating system.
    Process,
}

/// The writes of one block. Within a space, keys should be put in ascending order: that is what makes commits cheap.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    /// Space, key and the new value; `None` deletes. A later write of the same key wins.
    pub writes: Vec<(Space, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets a value.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((space, key.into(), Some(value.into())));
    }

    /// Deletes a value; deleting what is not there is no error.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.writes.push((space, key.into(), None));
    }
}

/// Why an engine could not do its work, or a chain in it could not be read. Operator faults and damage, never a matter of the data's
/// meaning, and what an operator chose not to keep.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The device is full.
    #[error("no space left on the device that holds {path}")]
    Full {
        /// The database.
        path: String,
    },
    /// Another process holds the database.
    #[error("{path} is in use by another process")]
    Locked {
        /// The database.
        path: String,
    },
    /// Stored bytes are not what was written.
    #[error("damaged data in {place}: {detail}")]
    Corrupt {
        /// File, space or key.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// A commit does not follow the marker: neither its repetition nor its successor.
    #[error("commit of height {height} does not follow the stored height {marker:?}")]
    OutOfOrder {
        /// The height of the batch.
        height: u64,
        /// The stored marker.
        marker: Option<u64>,
    },
    /// A block's body and receipts are not kept here: they were pruned, or the chain was restored from a snapshot above them.
    #[error("block {number} is not kept on this node: it keeps transactions and receipts from block {first} on")]
    Pruned {
        /// The block.
        number: u64,
        /// The first block that is kept.
        first: u64,
    },
    /// A restore from a snapshot ended before it was complete.
    #[error("the database holds a restore from a snapshot that was cut short")]
    Unfinished,
    /// The database's server does not answer, or takes no writes for now. Nothing is lost; the same call may succeed later.
    #[error("{place} is not available: {detail}")]
    Unavailable {
        /// The database.
        place: String,
        /// What was tried and what came of it.
        detail: String,
    },
    /// Another process has opened the database since: this one must not write to it any more.
    #[error("{place} was taken over by {by}; this process writes nothing more to it")]
    TakenOver {
        /// The database.
        place: String,
        /// Who holds it now.
        by: String,
    },
    /// Everything else the engine reports.
    #[error("storage engine: {0}")]
    Engine(String),
}

/// What [`Storage::scan`] calls for each pair.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An engine. All methods may be called from any thread; `commit` from one at a time.
pub trait Storage: Send + Sync {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// The values of several keys, in order.
    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError>;

    /// Visits the pairs of a space whose keys start with `prefix` and are not below `from`, ascending, as of one moment.
    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError>;

    /// Height of the last committed batch; `None` before genesis.
    fn height(&self) -> Result<Option<u64>, StorageError>;

    /// Writes a block. `height` must follow the marker, or start at 0. Committing the marker's own height again changes nothing
    /// and succeeds, so a caller that does not know whether its commit went through may repeat it.
    fn commit(&self, height: u64, batch: &Batch, durability: Durability) -> Result<(), StorageError>;

    /// A consistent read-only view of this moment, unaffected by later commits.
    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError>;

    /// Copies the database as of this moment into a new directory that can be opened as a database.
    fn checkpoint(&self, directory: &Path) -> Result<(), StorageError>;

    /// Reads everything and checks the engine's own checksums.
    fn verify(&self) -> Result<(), StorageError>;

    /// Figures of the engine for people: name and value.
    fn stats(&self) -> Result<Vec<(String, String)>, StorageError>;
}

/// Reads as of one moment.
pub trait StorageView: Send + Sync {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// As [`Storage::scan`].
    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError>;
}

/// A database as of one moment, and its height then: the engine's own height may grow between two reads.
///
/// # Errors
/// What the engine says.
pub fn moment(storage: &dyn Storage) -> Result<(Box<dyn StorageView>, Option<u64>), StorageError> {
    let view = storage.snapshot()?;
    let height = decode_height(view.get(Space::Meta, HEIGHT_KEY)?)?;
    Ok((view, height))
}

/// Key of the height marker in [`Space::Meta`]; engines write it in the same batch as the block.
pub const HEIGHT_KEY: &[u8] = b"height";

/// What a commit of `height` over `marker` has to do: `true` to write, `false` for the repetition of the last commit, which changes
/// nothing. For engines.
pub fn next_height(marker: Option<u64>, height: u64) -> Result<bool, StorageError> {
    if marker == Some(height) {
        return Ok(false);
    }
    let expected = marker.map_or(Some(0), |marker| marker.checked_add(1));
    if expected == Some(height) { Ok(true) } else { Err(StorageError::OutOfOrder { height, marker }) }
}

/// The height in the value of [`HEIGHT_KEY`]. For engines.
pub fn decode_height(value: Option<Vec<u8>>) -> Result<Option<u64>, StorageError> {
    let Some(value) = value else { return Ok(None) };
    match <[u8; 8]>::try_from(value) {
        Ok(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
        Err(value) => Err(StorageError::Corrupt { place: "height marker".into(), detail: format!("{} bytes instead of 8", value.len()) }),
    }
}

/// The order of a height in a key.
pub fn height_key(height: u64) -> [u8; 8] {
    height.to_be_bytes()
}
