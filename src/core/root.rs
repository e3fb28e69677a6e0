//! The root of a group's whole state: a multiset hash over all its key-value pairs.
//!
//! LtHash with 1024 lanes of 16 bits and BLAKE3 as its expanding hash: each pair is expanded to 2,048 bytes and added lane by lane,
//! modulo 2^16. Addition commutes and can be undone, so a block updates the root from what it changed alone, in any order, while the
//! root still covers everything there is. At this size finding two states with one root is a lattice problem beyond 200 bits.
//!
//! Invariant: the accumulator depends on the set of present pairs only, never on the way they came about. The commit path updates it
//! once a block; `db verify` and snapshots rebuild it from a scan and compare.

use std::sync::LazyLock;

use millrace_base::B256;

use crate::overlay::Writes;
use crate::state::codec::{encode_key, encode_value};
use crate::state::{StateKey, StateReader, StateValue};
use crate::storage::StorageError;

const LANES: usize = 1024;
const BYTES: usize = 2 * LANES;

/// Hashers with their domain absorbed: deriving it anew would cost as much as the element.
static ELEMENT: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key("millrace state element v1"));
static ROOT: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key("millrace state root v1"));

/// The multiset hash (LtHash, 16 bits x 1024, BLAKE3) of all of a group's state.
#[derive(Clone, PartialEq, Eq)]
pub struct StateAccumulator(Box<[u16; LANES]>);

impl StateAccumulator {
    /// Of an empty state.
    pub fn new() -> Self {
        Self(Box::new([0; LANES]))
    }

    /// One value changes.
    pub fn replace(&mut self, key: &StateKey, old: Option<&StateValue>, new: Option<&StateValue>) {
        if old == new {
            return;
        }
        let key = encode_key(key);
        if let Some(old) = old {
            self.remove(&key, &encode_value(old));
        }
        if let Some(new) = new {
            self.add(&key, &encode_value(new));
        }
    }

    /// A block's writes; `below` is the state before it. Each key stands once in `writes`. On an error nothing is changed.
    pub fn update(&mut self, below: &dyn StateReader, writes: &Writes) -> Result<(), StorageError> {
        let mut updated = self.clone();
        for (key, new) in writes {
            let old = below.read(key)?;
            updated.replace(key, old.as_ref(), new.as_ref());
        }
        *self = updated;
        Ok(())
    }

    /// Adds an encoded pair; for rebuilding from a scan of [`crate::Space::State`].
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        for (lane, element) in self.0.iter_mut().zip(expand(key, value).chunks_exact(2)) {
            *lane = lane.wrapping_add(u16::from_le_bytes([element[0], element[1]]));
        }
    }

    /// Takes an encoded pair out, the inverse of [`Self::add`].
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        for (lane, element) in self.0.iter_mut().zip(expand(key, value).chunks_exact(2)) {
            *lane = lane.wrapping_sub(u16::from_le_bytes([element[0], element[1]]));
        }
    }

    /// Joins the accumulator of a disjoint part of the state, so parts can be hashed on several cores.
    pub fn merge(&mut self, part: &StateAccumulator) {
        for (lane, other) in self.0.iter_mut().zip(part.0.iter()) {
            *lane = lane.wrapping_add(*other);
        }
    }

    /// The state root that headers carry.
    pub fn root(&self) -> B256 {
        B256::new(*ROOT.clone().update(&self.to_bytes()).finalize().as_bytes())
    }

    /// For storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// The inverse of [`Self::to_bytes`]; `None` for another size.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != BYTES {
            return None;
        }
        let mut accumulator = Self::new();
        for (lane, pair) in accumulator.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(accumulator)
    }
}

impl Default for StateAccumulator {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for StateAccumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateAccumulator({})", self.root())
    }
}

/// The lengths before key and value keep pairs apart whose concatenations are equal.
fn expand(key: &[u8], value: &[u8]) -> [u8; BYTES] {
    let mut hasher = ELEMENT.clone();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key);
    hasher.update(&(value.len() as u64).to_le_bytes()).update(value);
    let mut bytes = [0; BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_base::{Address, U256};
    use proptest::prelude::*;

    use super::*;

    struct Map(BTreeMap<StateKey, StateValue>);

    impl StateReader for Map {
        fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
            Ok(self.0.get(key).cloned())
        }
    }

    fn slot(index: u8) -> StateKey {
        StateKey::Slot(Address::ZERO, 0, U256::from(index))
    }

    fn number(value: u8) -> StateValue {
        StateValue::Slot(U256::from(value))
    }

    fn blocks() -> impl Strategy<Value = Vec<BTreeMap<u8, Option<u8>>>> {
        proptest::collection::vec(proptest::collection::btree_map(0u8..12, proptest::option::of(1u8..4), 0..8), 0..6)
    }

    proptest! {
        #[test]
        fn root_depends_on_the_state_alone_and_not_on_its_history(blocks in blocks()) {
            let mut state = Map(BTreeMap::new());
            let mut accumulator = StateAccumulator::new();
            for block in blocks {
                let writes: Writes = block.into_iter().map(|(index, value)| (slot(index), value.map(number))).collect();
                accumulator.update(&state, &writes).unwrap();
                for (key, value) in writes {
                    match value {
                        Some(value) => state.0.insert(key, value),
                        None => state.0.remove(&key),
                    };
                }
            }
            let mut rebuilt = StateAccumulator::new();
            for (key, value) in state.0.iter().rev() {
                rebuilt.replace(key, None, Some(value));
            }
            prop_assert_eq!(rebuilt.root(), accumulator.root());
        }

        #[test]
        fn replacing_there_and_back_changes_nothing(old in proptest::option::of(0u8..9), new in proptest::option::of(0u8..9)) {
            let (old, new) = (old.map(number), new.map(number));
            let mut accumulator = StateAccumulator::new();
            accumulator.replace(&slot(200), None, Some(&number(1)));
            let before = accumulator.clone();
            accumulator.replace(&slot(1), old.as_ref(), new.as_ref());
            prop_assert_eq!(accumulator == before, old == new);
            accumulator.replace(&slot(1), new.as_ref(), old.as_ref());
            prop_assert_eq!(accumulator, before);
        }
    }

    #[test]
    fn empty_writes_leave_the_root_unchanged() {
        let mut accumulator = StateAccumulator::new();
        accumulator.update(&Map(BTreeMap::new()), &vec![(slot(1), None)]).unwrap();
        assert_eq!(accumulator.root(), StateAccumulator::new().root());
        accumulator.update(&Map(BTreeMap::new()), &Vec::new()).unwrap();
        assert_eq!(accumulator, StateAccumulator::default());
    }

    #[test]
    fn border_between_key_and_value_matters() {
        let (mut left, mut right) = (StateAccumulator::new(), StateAccumulator::new());
        left.add(b"ab", b"c");
        right.add(b"a", b"bc");
        assert_ne!(left.root(), right.root());
    }

    #[test]
    fn parts_hashed_apart_merge_to_the_whole() {
        let (mut whole, mut left, mut right) = (StateAccumulator::new(), StateAccumulator::new(), StateAccumulator::new());
        left.add(b"a", b"1");
        right.add(b"b", b"2");
        whole.add(b"b", b"2");
        whole.add(b"a", b"1");
        left.merge(&right);
        assert_eq!(left, whole);
    }

    #[test]
    fn bytes_survive_the_round_trip_and_other_sizes_are_refused() {
        let mut accumulator = StateAccumulator::new();
        accumulator.replace(&slot(1), None, Some(&number(1)));
        let bytes = accumulator.to_bytes();
        assert_eq!(StateAccumulator::from_bytes(&bytes), Some(accumulator));
        assert_eq!(StateAccumulator::from_bytes(&bytes[1..]), None);
    }

    #[test]
    fn roots_never_change_between_versions() {
        let mut accumulator = StateAccumulator::new();
        assert_eq!(accumulator.root().to_string(), "0xe5b837cb087e77231499ac2efe9df494831f0fb0bb0fe8b938b7dcc67ab101a5");
        accumulator.replace(&slot(1), None, Some(&number(1)));
        assert_eq!(accumulator.root().to_string(), "0xbdcbe7fed9c700ae14a80f840704705b5cc9d5d60e87125d70a32926d0433f3d");
    }
}
