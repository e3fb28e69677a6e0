//! Core layer: storage, state and tables.
//!
//! - [`storage`]: what an engine must do; the in-memory engine. RocksDB and MySQL live in `backends`.
//! - [`state`]: the names ([`StateKey`]) and values ([`StateValue`]) of everything execution can read or write.
//! - [`overlay`]: uncommitted writes over committed state, block by block; savepoints inside a transaction.
//! - [`cache`]: committed state that was read or written recently.
//! - [`commitment`]: what headers say of the whole state, by its kind.
//! - [`root`]: the multiset hash over all values.
//! - [`trie`], [`mpt`]: Merkle Patricia tries; accounts in Ethereum's form, their history and proofs.
//! - [`records`]: how blocks look in a database.
//! - [`table`]: AMDB tables: schemas, entries, conditions, system tables.
//!
//! Invariant: a state value is only changed through a block's batch, so state, blocks and indices never disagree.

pub mod cache;
pub mod commitment;
pub mod mpt;
pub mod overlay;
pub mod records;
pub mod root;
pub mod state;
pub mod storage;
pub mod table;
pub mod trie;

pub use commitment::{StateCommitment, StateKind};
pub use state::{AccountRecord, Entry, StateKey, StateReader, StateValue, TableName};
pub use storage::{Batch, Durability, Space, Storage, StorageError};
