//! Committed state that was read or written recently, decoded.
//!
//! Invariant: after [`StateCache::apply`] has returned, no read gives a value older than the applied one. A reader that fetched a value
//! before the commit must therefore not put it into the cache afterwards: each shard counts the changes made to it, and what was fetched
//! is kept only if the count is still the one seen when the reader found nothing.
//!
//! Between a commit and its `apply`, cached keys still read as before the block and others already as after it. Whoever needs all of one
//! moment reads through the block's [`crate::overlay::Layer`] until `apply` has returned, as the executor of the next block does.
//!
//! Trie nodes are kept beside the values ([`nodes`]): they are named by their content, so none is ever stale.
//!
//! Eviction keeps two generations: entries are read and written in the young one, and when it reaches half of the budget it becomes the
//! old one, whose remaining entries are dropped. What is used at least once a generation stays.

mod nodes;

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use millrace_base::{B256, Bytes};
use parking_lot::RwLock;

use crate::overlay::Writes;
use crate::state::codec::{decode_value, encode_key};
use crate::state::{StateKey, StateReader, StateValue};
use crate::storage::{Space, Storage, StorageError};
use crate::trie::TrieNodes;
use nodes::NodeCache;

/// More shards than cores that could contend for one.
const MAX_SHARDS: usize = 64;

/// Smaller shards could not hold the largest contract code.
const MIN_SHARD_BYTES: usize = 1 << 20;

/// Committed state over an engine, with what was read or written recently kept decoded.
pub struct StateCache {
    storage: Arc<dyn Storage>,
    hasher: DefaultHashBuilder,
    shards: Box<[RwLock<Shard>]>,
    /// Size at which a shard's young generation becomes its old one.
    generation_bytes: usize,
    nodes: NodeCache,
}

impl StateCache {
    /// A cold cache of at most `capacity_bytes` of values, and half as many of trie nodes.
    pub fn new(storage: Arc<dyn Storage>, capacity_bytes: usize) -> Self {
        let count = (capacity_bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shards = (0..count).map(|_| RwLock::default()).collect();
        let nodes = NodeCache::new(capacity_bytes / 2);
        Self { storage, hasher: DefaultHashBuilder::default(), shards, generation_bytes: capacity_bytes / count / 2, nodes }
    }

    /// A block's writes became durable. Called after [`Storage::commit`] has returned, once a block, in height order.
    pub fn apply(&self, writes: &Writes) {
        for (key, value) in writes {
            let (hash, shard) = self.locate(key);
            let retired = {
                let mut shard = shard.write();
                shard.changes += 1;
                shard.forget(hash, key);
                shard.insert(Slot::new(hash, key.clone(), value.clone()), self.generation_bytes)
            };
            drop(retired);
        }
    }

    /// A block's trie nodes became durable; the next block will need many of them.
    pub fn apply_nodes(&self, nodes: &TrieNodes) {
        self.nodes.insert(nodes.iter().cloned());
    }

    /// Bytes that cached entries take.
    pub fn size_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read()).map(|shard| shard.young.bytes + shard.old.bytes).sum()
    }

    fn locate(&self, key: &StateKey) -> (u64, &RwLock<Shard>) {
        let hash = self.hasher.hash_one(key);
        // The table uses the low bits and the top seven; these are neither.
        (hash, &self.shards[(hash >> 32) as usize % self.shards.len()])
    }

    fn fetch(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let stored = self.storage.get(Space::State, &encode_key(key))?;
        stored.map(|bytes| decode_value(key, &bytes)).transpose()
    }
}

impl StateReader for StateCache {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let (hash, shard) = self.locate(key);
        let changes = {
            let shard = shard.read();
            if let Some(slot) = shard.young.find(hash, key) {
                return Ok(slot.value.clone());
            }
            shard.changes
        };
        let (value, retired) = {
            let mut shard = shard.write();
            match shard.old.remove(hash, key) {
                Some(slot) => (Some(slot.value.clone()), shard.insert(slot, self.generation_bytes)),
                None => (None, None),
            }
        };
        drop(retired);
        if let Some(value) = value {
            return Ok(value);
        }
        let value = self.fetch(key)?;
        let retired = {
            let mut shard = shard.write();
            let is_current = shard.changes == changes && shard.young.find(hash, key).is_none();
            is_current.then(|| shard.insert(Slot::new(hash, key.clone(), value.clone()), self.generation_bytes))
        };
        drop(retired);
        Ok(value)
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        if let Some(node) = self.nodes.get(hash) {
            return Ok(Some(node));
        }
        let node = self.storage.get(Space::Trie, hash.as_slice())?.map(Bytes::from);
        self.nodes.insert(node.clone().map(|node| (*hash, node)));
        Ok(node)
    }
}

/// What is known of one key; `None` is known to be absent.
struct Slot {
    hash: u64,
    key: StateKey,
    value: Option<StateValue>,
    bytes: usize,
}

impl Slot {
    fn new(hash: u64, key: StateKey, value: Option<StateValue>) -> Self {
        let bytes = size_of::<Slot>() + key_bytes(&key) + value.as_ref().map_or(0, value_bytes);
        Self { hash, key, value, bytes }
    }
}

/// Entries and their size.
#[derive(Default)]
struct Generation {
    slots: HashTable<Slot>,
    bytes: usize,
}

impl Generation {
    fn find(&self, hash: u64, key: &StateKey) -> Option<&Slot> {
        self.slots.find(hash, |slot| slot.key == *key)
    }

    fn remove(&mut self, hash: u64, key: &StateKey) -> Option<Slot> {
        let entry = self.slots.find_entry(hash, |slot| slot.key == *key).ok()?;
        let (slot, _) = entry.remove();
        self.bytes -= slot.bytes;
        Some(slot)
    }
}

/// The keys of one range of hashes. A key is in at most one generation.
#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
    /// How often `apply` changed this shard.
    changes: u64,
}

impl Shard {
    fn forget(&mut self, hash: u64, key: &StateKey) {
        if self.young.remove(hash, key).is_none() {
            self.old.remove(hash, key);
        }
    }

    /// Puts an entry that is in neither generation into the young one, unless it is too large to be worth it. Gives back a generation
    /// that is over, for the caller to free without the lock.
    fn insert(&mut self, slot: Slot, generation_bytes: usize) -> Option<Generation> {
        if slot.bytes > generation_bytes {
            return None;
        }
        let mut retired = None;
        if self.young.bytes + slot.bytes > generation_bytes {
            let over = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            retired = Some(over);
        }
        self.young.bytes += slot.bytes;
        self.young.slots.insert_unique(slot.hash, slot, |slot| slot.hash);
        retired
    }
}

/// Memory behind a key, roughly.
fn key_bytes(key: &StateKey) -> usize {
    match key {
        StateKey::Row(_, primary) => 32 + primary.len(),
        _ => 0,
    }
}

/// Memory behind a value, roughly.
fn value_bytes(value: &StateValue) -> usize {
    match value {
        StateValue::Account(_) | StateValue::Slot(_) => 0,
        StateValue::Code(code) => code.len(),
        StateValue::Row(entries) => {
            let field = |(name, value): (&Arc<str>, &millrace_base::Bytes)| 64 + name.len() + value.len();
            entries.iter().map(|entry| 64 + entry.fields.iter().map(field).sum::<usize>()).sum()
        }
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
