//! The in-memory engine, for tests and as the model the conformance suite compares others with.
//!
//! Invariant: a published [`Tables`] is never changed while somebody else holds it; a commit copies what a snapshot still shares.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Batch, Durability, HEIGHT_KEY, Space, Storage, StorageError, StorageView, Visit, height_key, next_height};

/// File that [`MemoryStorage::checkpoint`] writes and [`MemoryStorage::open`] reads.
const CHECKPOINT_FILE: &str = "memory.checkpoint";

type Pairs = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// All spaces as of one moment.
#[derive(Clone, Default)]
struct Tables {
    spaces: [Arc<Pairs>; Space::ALL.len()],
}

/// An engine without a disk. `commit` ignores the durability asked for.
#[derive(Default)]
pub struct MemoryStorage {
    tables: RwLock<Arc<Tables>>,
}

impl MemoryStorage {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// What [`Storage::checkpoint`] has written into `directory`.
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(CHECKPOINT_FILE);
        let bytes = std::fs::read(&path).map_err(|error| StorageError::Engine(format!("{}: {error}", path.display())))?;
        let tables =
            decode(&bytes).ok_or_else(|| StorageError::Corrupt { place: path.display().to_string(), detail: "not a checkpoint".into() })?;
        Ok(Self { tables: RwLock::new(Arc::new(tables)) })
    }

    fn current(&self) -> Arc<Tables> {
        self.tables.read().clone()
    }
}

impl Tables {
    fn pairs(&self, space: Space) -> &Pairs {
        &self.spaces[space.index()]
    }

    fn get(&self, space: Space, key: &[u8]) -> Option<Vec<u8>> {
        self.pairs(space).get(key).map(|value| value.to_vec())
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) {
        let start = prefix.max(from);
        for (key, value) in self.pairs(space).range::<[u8], _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value) == ControlFlow::Break(()) {
                return;
            }
        }
    }

    fn set(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let pairs = Arc::make_mut(&mut self.spaces[space.index()]);
        match value {
            Some(value) => pairs.insert(key.to_vec(), value.into()),
            None => pairs.remove(key),
        };
    }
}

impl Storage for MemoryStorage {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.tables.read().get(space, key))
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        let tables = self.tables.read();
        Ok(keys.iter().map(|key| tables.get(space, key)).collect())
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.current().scan(space, prefix, from, visit);
        Ok(())
    }

    fn height(&self) -> Result<Option<u64>, StorageError> {
        super::decode_height(self.tables.read().get(Space::Meta, HEIGHT_KEY))
    }

    fn commit(&self, height: u64, batch: &Batch, _: Durability) -> Result<(), StorageError> {
        let mut tables = self.tables.write();
        let marker = super::decode_height(tables.get(Space::Meta, HEIGHT_KEY))?;
        if !next_height(marker, height)? {
            return Ok(());
        }
        let tables = Arc::make_mut(&mut tables);
        for (space, key, value) in &batch.writes {
            tables.set(*space, key, value.as_deref());
        }
        tables.set(Space::Meta, HEIGHT_KEY, Some(&height_key(height)));
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        Ok(Box::new(Snapshot(self.current())))
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), StorageError> {
        let failed = |error: std::io::Error| StorageError::Engine(format!("{}: {error}", directory.display()));
        std::fs::create_dir(directory).map_err(failed)?;
        std::fs::write(directory.join(CHECKPOINT_FILE), encode(&self.current())).map_err(failed)
    }

    fn verify(&self) -> Result<(), StorageError> {
        self.height().map(drop)
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        let tables = self.current();
        let count = |space: &Space| (format!("{space:?} keys"), tables.pairs(*space).len().to_string());
        Ok(Space::ALL.iter().map(count).collect())
    }
}

struct Snapshot(Arc<Tables>);

impl StorageView for Snapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.get(space, key))
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.0.scan(space, prefix, from, visit);
        Ok(())
    }
}

/// Every pair as space, key length, value length, key, value.
fn encode(tables: &Tables) -> Vec<u8> {
    let mut bytes = Vec::new();
    for space in Space::ALL {
        for (key, value) in tables.pairs(space) {
            bytes.push(space as u8);
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Tables> {
    let mut tables = Tables::default();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let space = Space::ALL.into_iter().find(|space| *space as u8 == head[0])?;
        let length = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?) as usize);
        let (key, rest) = rest.split_at_checked(length(1)?)?;
        let (value, rest) = rest.split_at_checked(length(5)?)?;
        tables.set(space, key, Some(value));
        bytes = rest;
    }
    bytes.is_empty().then_some(tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance::{self, Engine};

    struct InMemory;

    impl Engine for InMemory {
        fn create(&self) -> Box<dyn Storage> {
            Box::new(MemoryStorage::new())
        }

        fn open(&self, directory: &Path) -> Box<dyn Storage> {
            Box::new(MemoryStorage::open(directory).unwrap())
        }
    }

    #[test]
    fn engine_conforms() {
        conformance::run(&InMemory);
    }

    #[test]
    fn damaged_checkpoint_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(CHECKPOINT_FILE), b"mxx").unwrap();
        assert!(matches!(MemoryStorage::open(directory.path()), Err(StorageError::Corrupt { .. })));
    }
}
