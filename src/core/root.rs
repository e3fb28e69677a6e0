//! (under construction by its owner)
use millrace_base::B256;

use crate::overlay::Writes;
use crate::state::{StateKey, StateReader, StateValue};
use crate::storage::StorageError;

/// The multiset hash (LtHash, 16 bits x 1024, BLAKE3) of all of a group's state.
#[derive(Clone, PartialEq, Eq)]
pub struct StateAccumulator(Box<[u16; 1024]>);

impl StateAccumulator {
    /// Of an empty state.
    pub fn new() -> Self {
        unimplemented!()
    }

    /// One value changes.
    pub fn replace(&mut self, _key: &StateKey, _old: Option<&StateValue>, _new: Option<&StateValue>) {
        unimplemented!()
    }

    /// A block's writes; `below` is the state before it.
    pub fn update(&mut self, _below: &dyn StateReader, _writes: &Writes) -> Result<(), StorageError> {
        unimplemented!()
    }

    /// The state root that headers carry.
    pub fn root(&self) -> B256 {
        unimplemented!()
    }

    /// For storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// The inverse of [`Self::to_bytes`]; `None` for another size.
    pub fn from_bytes(_bytes: &[u8]) -> Option<Self> {
        unimplemented!()
    }
}
