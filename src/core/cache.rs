//! (under construction by its owner)
use std::sync::Arc;

use crate::overlay::Writes;
use crate::state::{StateKey, StateReader, StateValue};
use crate::storage::{Storage, StorageError};

/// Committed state over an engine, with what was read or written recently kept decoded.
pub struct StateCache;

impl StateCache {
    /// A cold cache of at most `capacity_bytes`.
    pub fn new(_storage: Arc<dyn Storage>, _capacity_bytes: usize) -> Self {
        unimplemented!()
    }

    /// A block's writes became durable. Called after [`Storage::commit`] has returned, once a block, in height order.
    pub fn apply(&self, _writes: &Writes) {
        unimplemented!()
    }
}

impl StateReader for StateCache {
    fn read(&self, _key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        unimplemented!()
    }
}
