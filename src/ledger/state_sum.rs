//! What headers commit to, rebuilt from stored pairs of the state: the one place where check and snapshots know how a state root is made.

use millrace_base::B256;
use millrace_core::StorageError;
use millrace_core::root::StateAccumulator;
use millrace_core::state::codec;

/// Takes the pairs that a multiset hash covers, in any order: of a whole state, or, with tries, all rows.
#[derive(Clone, Default)]
pub struct StateSum {
    accumulator: StateAccumulator,
    values: u64,
}

impl StateSum {
    /// Adds a pair as it is stored.
    ///
    /// # Errors
    /// It is no pair of a state.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        // What decodes has no second encoding, so the bytes can be hashed as they are.
        codec::decode_value(&codec::decode_key(key)?, value)?;
        self.accumulator.add(key, value);
        self.values += 1;
        Ok(())
    }

    /// Joins the sum of another part of the state.
    pub fn merge(&mut self, part: &StateSum) {
        self.accumulator.merge(&part.accumulator);
        self.values += part.values;
    }

    /// Pairs so far.
    pub fn values(&self) -> u64 {
        self.values
    }

    /// The multiset hash of what was added: with storage state the state root.
    pub fn root(&self) -> B256 {
        self.accumulator.root()
    }

    /// As the chain keeps it.
    pub fn into_accumulator(self) -> StateAccumulator {
        self.accumulator
    }
}
