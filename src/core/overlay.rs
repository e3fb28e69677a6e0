//! Uncommitted writes over committed state.
//!
//! [`Layer`]s hold whole blocks that are not durable yet. [`BlockState`] collects the writes of the transactions of one block, in order. [`Journal`] holds those of one transaction and can
//! take them back to a savepoint, which is how a reverted call undoes its table writes.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use millrace_base::{B256, Bytes};

use crate::state::{StateKey, StateReader, StateValue};
use crate::storage::StorageError;
use crate::trie::TrieNodes;

/// Writes of a transaction or block: each key once, sorted by key, `None` deletes.
pub type Writes = Vec<(StateKey, Option<StateValue>)>;

/// State as a block sees it: the writes of its transactions so far over the state below.
pub struct BlockState {
    below: Arc<dyn StateReader + Send + Sync>,
    writes: HashMap<StateKey, Option<StateValue>>,
}

impl BlockState {
    /// A block without writes.
    pub fn new(below: Arc<dyn StateReader + Send + Sync>) -> Self {
        Self { below, writes: HashMap::new() }
    }

    /// Adds the writes of the next transaction.
    pub fn apply(&mut self, writes: Writes) {
        self.writes.extend(writes);
    }

    /// All writes of the block, sorted.
    pub fn into_writes(self) -> Writes {
        let mut writes: Writes = self.writes.into_iter().collect();
        writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        writes
    }
}

impl StateReader for BlockState {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.read(key),
        }
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        self.below.node(hash)
    }
}

/// The writes and trie nodes of a block that is executed but not durable yet.
pub struct Layer {
    writes: HashMap<StateKey, Option<StateValue>>,
    nodes: HashMap<B256, Bytes>,
}

impl Layer {
    /// Indexes what a block writes.
    pub fn new(writes: &Writes, nodes: &TrieNodes) -> Self {
        Self { writes: writes.iter().cloned().collect(), nodes: nodes.iter().cloned().collect() }
    }
}

/// Committed state with the layers of blocks ahead of it: what the next block reads while those are still being committed.
///
/// Committing a block below must not change what a reader sees, and does not: its values stand in a layer above.
pub struct LayeredState {
    below: Arc<dyn StateReader + Send + Sync>,
    /// Newest first.
    layers: Vec<Arc<Layer>>,
}

impl LayeredState {
    /// Puts `layers`, newest first, over `below`.
    pub fn new(below: Arc<dyn StateReader + Send + Sync>, layers: Vec<Arc<Layer>>) -> Self {
        Self { below, layers }
    }
}

impl StateReader for LayeredState {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        match self.layers.iter().find_map(|layer| layer.writes.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.below.read(key),
        }
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        match self.layers.iter().find_map(|layer| layer.nodes.get(hash)) {
            Some(node) => Ok(Some(node.clone())),
            None => self.below.node(hash),
        }
    }
}

/// A point inside a transaction that its writes can be taken back to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Savepoint(usize);

/// The writes of one transaction, revocable to savepoints. Reads are remembered, so each key is fetched from below once.
pub struct Journal<'a> {
    below: &'a dyn StateReader,
    read: RefCell<HashMap<StateKey, Option<StateValue>>>,
    written: HashMap<StateKey, Option<StateValue>>,
    undo: Vec<(StateKey, Option<Option<StateValue>>)>,
}

impl<'a> Journal<'a> {
    /// A transaction without writes.
    pub fn new(below: &'a dyn StateReader) -> Self {
        Self { below, read: RefCell::default(), written: HashMap::new(), undo: Vec::new() }
    }

    /// The value of a key as the transaction sees it.
    pub fn get(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        if let Some(value) = self.written.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.read.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.below.read(key)?;
        self.read.borrow_mut().insert(key.clone(), value.clone());
        Ok(value)
    }

    /// Writes a value; `None` deletes.
    pub fn set(&mut self, key: StateKey, value: Option<StateValue>) {
        let previous = self.written.insert(key.clone(), value);
        self.undo.push((key, previous));
    }

    /// The current point.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Takes back every write since `savepoint`.
    pub fn rollback(&mut self, savepoint: Savepoint) {
        while self.undo.len() > savepoint.0 {
            let (key, previous) = self.undo.pop().expect("length was checked");
            match previous {
                Some(value) => self.written.insert(key, value),
                None => self.written.remove(&key),
            };
        }
    }

    /// Whether anything was written.
    pub fn is_unchanged(&self) -> bool {
        self.written.is_empty()
    }

    /// The writes, sorted.
    pub fn into_writes(self) -> Writes {
        let mut writes: Writes = self.written.into_iter().collect();
        writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        writes
    }
}

impl StateReader for Journal<'_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        self.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::{Address, U256};

    struct Nothing;

    impl StateReader for Nothing {
        fn read(&self, _: &StateKey) -> Result<Option<StateValue>, StorageError> {
            Ok(None)
        }
    }

    fn slot(index: u64) -> StateKey {
        StateKey::Slot(Address::ZERO, 0, U256::from(index))
    }

    fn number(value: u64) -> Option<StateValue> {
        Some(StateValue::Slot(U256::from(value)))
    }

    #[test]
    fn rollback_restores_exactly_the_writes_before_the_savepoint() {
        let mut journal = Journal::new(&Nothing);
        journal.set(slot(1), number(1));
        let savepoint = journal.savepoint();
        journal.set(slot(1), number(2));
        journal.set(slot(1), None);
        journal.set(slot(2), number(3));
        journal.rollback(savepoint);
        assert_eq!(journal.get(&slot(1)).unwrap(), number(1));
        assert_eq!(journal.into_writes(), vec![(slot(1), number(1))]);
    }

    #[test]
    fn newest_layer_wins_and_a_deletion_hides_what_is_below() {
        let old = Arc::new(Layer::new(&vec![(slot(1), number(1)), (slot(2), number(2))], &Vec::new()));
        let new = Arc::new(Layer::new(&vec![(slot(1), number(3)), (slot(2), None)], &Vec::new()));
        let state = LayeredState::new(Arc::new(Nothing), vec![new, old]);
        assert_eq!(state.read(&slot(1)).unwrap(), number(3));
        assert_eq!(state.read(&slot(2)).unwrap(), None);
    }

    #[test]
    fn block_sees_writes_of_earlier_transactions() {
        let mut block = BlockState::new(Arc::new(Nothing));
        block.apply(vec![(slot(1), number(1)), (slot(2), number(2))]);
        block.apply(vec![(slot(2), None)]);
        assert_eq!(block.read(&slot(1)).unwrap(), number(1));
        assert_eq!(block.read(&slot(2)).unwrap(), None);
        assert_eq!(block.into_writes(), vec![(slot(1), number(1)), (slot(2), None)]);
    }
}
