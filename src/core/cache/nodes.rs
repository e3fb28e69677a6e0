//! Trie nodes that were read or written recently, by hash, in two generations as the values beside them.

use hashbrown::HashMap;
use millrace_base::{B256, Bytes};
use parking_lot::Mutex;

/// Memory of an entry besides the node's bytes, roughly.
const ENTRY_BYTES: usize = 120;

#[derive(Default)]
struct Generations {
    young: HashMap<B256, Bytes>,
    old: HashMap<B256, Bytes>,
    young_bytes: usize,
}

/// See the module. Empty in groups without tries.
pub(super) struct NodeCache {
    generations: Mutex<Generations>,
    generation_bytes: usize,
}

impl NodeCache {
    pub fn new(capacity_bytes: usize) -> Self {
        Self { generations: Mutex::default(), generation_bytes: capacity_bytes / 2 }
    }

    pub fn get(&self, hash: &B256) -> Option<Bytes> {
        let mut generations = self.generations.lock();
        if let Some(node) = generations.young.get(hash) {
            return Some(node.clone());
        }
        let node = generations.old.remove(hash)?;
        let retired = generations.insert(*hash, node.clone(), self.generation_bytes);
        drop(generations);
        drop(retired);
        Some(node)
    }

    pub fn insert(&self, nodes: impl IntoIterator<Item = (B256, Bytes)>) {
        let mut retired = Vec::new();
        let mut generations = self.generations.lock();
        for (hash, node) in nodes {
            retired.extend(generations.insert(hash, node, self.generation_bytes));
        }
        drop(generations);
    }
}

impl Generations {
    /// Gives back a generation that is over, for the caller to free without the lock.
    fn insert(&mut self, hash: B256, node: Bytes, limit: usize) -> Option<HashMap<B256, Bytes>> {
        let bytes = node.len() + ENTRY_BYTES;
        if bytes > limit {
            return None;
        }
        let mut retired = None;
        if self.young_bytes + bytes > limit {
            retired = Some(std::mem::replace(&mut self.old, std::mem::take(&mut self.young)));
            self.young_bytes = 0;
        }
        if self.young.insert(hash, node).is_none() {
            self.young_bytes += bytes;
        }
        retired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: u8) -> (B256, Bytes) {
        (B256::repeat_byte(index), Bytes::from(vec![index; 880]))
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let cache = NodeCache::new(20_000);
        cache.insert([node(0)]);
        for index in 1..200 {
            cache.insert([node(index)]);
            assert!(cache.get(&B256::ZERO).is_some(), "it is used all the time");
        }
        let generations = cache.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 20);
        assert!(generations.young_bytes <= 10_000);
    }
}
