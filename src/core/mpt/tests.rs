//! Account and storage tries against whole builds by `alloy-trie`, over random blocks that create, change, destroy and recreate.

use std::collections::{BTreeMap, HashMap};

use alloy_trie::HashBuilder;
use alloy_trie::proof::verify_proof;
use proptest::prelude::*;

use super::*;
use crate::commitment::{StateCommitment, StateKind};

#[derive(Default, Clone)]
struct State {
    values: BTreeMap<StateKey, StateValue>,
    nodes: HashMap<B256, Bytes>,
}

impl StateReader for State {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.values.get(key).cloned())
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        Ok(self.nodes.get(hash).cloned())
    }
}

impl State {
    fn apply(&mut self, writes: Writes, nodes: TrieNodes) {
        for (key, value) in writes {
            match value {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
        self.nodes.extend(nodes);
    }

    fn record(&self, address: Address) -> Option<AccountRecord> {
        record_at(self, address).unwrap()
    }
}

fn build(pairs: BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in pairs {
        builder.add_leaf(path(&key), &value);
    }
    builder.root()
}

/// Storage and account roots from the values alone, by other code.
fn expected(state: &State) -> B256 {
    let mut accounts = BTreeMap::new();
    for index in 0..4 {
        let address = Address::repeat_byte(index);
        let Some(record) = state.record(address) else { continue };
        let slots = state.values.iter().filter_map(|(key, value)| match (key, value) {
            (StateKey::Slot(owner, incarnation, slot), StateValue::Slot(value))
                if *owner == address && *incarnation == record.incarnation =>
            {
                Some((keccak256(slot.to_be_bytes::<32>()), alloy_rlp::encode(value)))
            }
            _ => None,
        });
        let storage_root = build(slots.collect());
        let is_gone = record.incarnation > 0 && record.nonce == 0 && storage_root == EMPTY_ROOT;
        if !is_gone {
            let account = TrieAccount::new(record.nonce, record.balance, storage_root, record.code_hash);
            accounts.insert(keccak256(address), alloy_rlp::encode(account));
        }
    }
    build(accounts)
}

/// What a block does to one account.
#[derive(Clone, Debug)]
enum Deed {
    Nonce(u64),
    Store(u8, u8),
    Destroy,
}

fn deed() -> impl Strategy<Value = (u8, Deed)> {
    let deed = prop_oneof![
        2 => (1u64..5).prop_map(Deed::Nonce),
        5 => (0u8..20, 0u8..3).prop_map(|(slot, value)| Deed::Store(slot, value)),
        1 => Just(Deed::Destroy),
    ];
    (0u8..4, deed)
}

/// The writes of a block, as executing it one deed a transaction gives them.
fn writes(state: &State, deeds: Vec<(u8, Deed)>) -> Writes {
    let mut now = state.clone();
    let mut all = BTreeMap::new();
    for (index, deed) in deeds {
        let address = Address::repeat_byte(index);
        let record = now.record(address).unwrap_or_default();
        let mut write = |key: StateKey, value: Option<StateValue>| {
            now.apply(vec![(key.clone(), value.clone())], Vec::new());
            all.insert(key, value);
        };
        match deed {
            Deed::Nonce(nonce) => {
                write(StateKey::Account(address), Some(StateValue::Account(AccountRecord { nonce, ..record })));
            }
            Deed::Store(slot, value) => {
                write(StateKey::Account(address), Some(StateValue::Account(AccountRecord { nonce: record.nonce.max(1), ..record })));
                let value = (value > 0).then(|| StateValue::Slot(U256::from(value)));
                write(StateKey::Slot(address, record.incarnation, U256::from(slot)), value);
            }
            Deed::Destroy => {
                let destroyed = AccountRecord { incarnation: record.incarnation + 1, ..AccountRecord::default() };
                write(StateKey::Account(address), Some(StateValue::Account(destroyed)));
            }
        }
    }
    all.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn roots_and_history_equal_whole_builds(blocks in proptest::collection::vec(proptest::collection::vec(deed(), 0..10), 1..10)) {
        let (mut state, mut commitment, mut history) = (State::default(), StateCommitment::empty(StateKind::Mpt), Vec::new());
        for deeds in blocks {
            let writes = writes(&state, deeds);
            let (next, nodes) = commitment.after(&state, &writes).unwrap();
            state.apply(writes, nodes);
            commitment = next;
            prop_assert_eq!(commitment.state_root(), expected(&state));
            history.push((commitment.state_root(), state.clone()));
        }
        let read_node = |hash: &B256| state.node(hash);
        for pair in history.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            check(before.0, after.0, &read_node).unwrap();
        }
        for (root, then) in history {
            let slots = then.values.keys().filter(|key| match key {
                StateKey::Slot(address, incarnation, _) => then.record(*address).unwrap_or_default().incarnation == *incarnation,
                _ => false,
            });
            prop_assert_eq!(check(EMPTY_ROOT, root, &read_node).unwrap().slots, slots.count() as u64);
            let read = TrieState::new(root, &state);
            for index in 0..4 {
                let address = Address::repeat_byte(index);
                let record = then.record(address).unwrap_or_default();
                let got = match read.read(&StateKey::Account(address)).unwrap() {
                    Some(StateValue::Account(got)) => got,
                    _ => AccountRecord::default(),
                };
                prop_assert_eq!((got.nonce, got.balance, got.code_hash), (record.nonce, record.balance, record.code_hash));
                let slots: Vec<U256> = (0..20).map(U256::from).collect();
                let proof = read.prove(address, &slots).unwrap();
                let value = then.read(&StateKey::Account(address)).unwrap().filter(|_| record.nonce > 0).map(|_| account_value(&proof));
                prop_assert!(value.is_none() || verify_proof(root, path(&keccak256(address)), value, &proof.nodes).is_ok());
                for slot in proof.slots {
                    let expected = then.read(&StateKey::Slot(address, record.incarnation, slot.index)).unwrap();
                    let expected_number = match expected { Some(StateValue::Slot(value)) => value, _ => U256::ZERO };
                    prop_assert_eq!(slot.value, expected_number);
                    let encoded = (!slot.value.is_zero()).then(|| alloy_rlp::encode(slot.value));
                    let key = path(&keccak256(slot.index.to_be_bytes::<32>()));
                    prop_assert!(verify_proof(proof.storage_root, key, encoded, &slot.nodes).is_ok());
                }
            }
            prop_assert!(!read.asked_for_tables());
        }
    }
}

#[test]
fn rows_move_the_other_root_alone() {
    let state = State::default();
    let row = StateValue::Row(std::sync::Arc::new(vec![crate::Entry::default()]));
    let writes = vec![(StateKey::Row("u_t".into(), b"key"[..].into()), Some(row))];
    let empty = StateCommitment::empty(StateKind::Mpt);
    let (after, nodes) = empty.after(&state, &writes).unwrap();
    assert_eq!((after.state_root(), nodes.len()), (EMPTY_ROOT, 0));
    assert_ne!(after.db_hash(), empty.db_hash());
    assert!(TrieState::new(EMPTY_ROOT, &state).read(&writes[0].0).unwrap().is_none());
}
