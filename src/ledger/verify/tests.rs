//! Clean databases of both kinds pass, also while they grow; one changed, missing or added value of each sort is found and named.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use millrace_base::{Address, U256, hex};
use millrace_core::state::codec;
use millrace_core::storage::Visit;
use millrace_core::{StateKey, StateValue};

use super::*;
use crate::test_chain::TestChain;

/// A chain with a contract that counted to three; and the header's state roots of each height.
fn grown(state: StateKind) -> (TestChain, Vec<B256>) {
    let mut chain = match state {
        StateKind::Storage => TestChain::new(1),
        StateKind::Mpt => TestChain::with_tries(1),
    };
    let mut roots = vec![B256::ZERO];
    for _ in 0..4 {
        chain.grow(1, 1);
        roots.push(chain.chain.head().header.state_root);
    }
    (chain, roots)
}

/// A moment of a database in which one value reads as another.
struct Changed {
    inner: Box<dyn StorageView>,
    space: Space,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl StorageView for Changed {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        if (space, key) == (self.space, &self.key[..]) { Ok(self.value.clone()) } else { self.inner.get(space, key) }
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let mut pairs = BTreeMap::new();
        self.inner.scan(space, prefix, from, &mut |key, value| {
            pairs.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        if space == self.space {
            pairs.remove(&self.key);
            pairs.extend(self.value.clone().map(|value| (self.key.clone(), value)));
        }
        for (key, value) in pairs {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn changed(chain: &TestChain, space: Space, key: &[u8], value: Option<&[u8]>) -> String {
    let (inner, height) = moment(&*chain.storage).unwrap();
    let view = Changed { inner, space, key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
    verify_view(&view, height.unwrap(), &mut |_| ()).expect_err("the change must be found").to_string()
}

#[test]
fn clean_chains_of_both_kinds_pass() {
    for kind in [StateKind::Storage, StateKind::Mpt] {
        let (chain, roots) = grown(kind);
        let report = verify_database(&*chain.storage, &mut |_| ()).unwrap();
        assert_eq!((report.height, report.transactions, report.state), (4, 4, kind));
        assert_eq!(report.state_root, roots[4]);
    }
}

#[test]
fn database_that_grows_while_it_is_checked_is_clean() {
    for kind in [StateKind::Storage, StateKind::Mpt] {
        let (mut chain, _) = grown(kind);
        let storage = Arc::clone(&chain.storage);
        let report = verify_database(&*storage, &mut |progress| {
            if matches!(progress, Progress::Blocks(..)) {
                chain.grow(1, 1);
            }
        });
        assert_eq!(report.unwrap().height, 4);
        assert_eq!(chain.height(), 9);
    }
}

#[test]
fn changed_missing_and_added_values_are_found_beside_tries() {
    let (chain, _) = grown(StateKind::Mpt);
    let counter = chain.counter();
    let slot = |index: u64| codec::encode_key(&StateKey::Slot(counter, 0, U256::from(index)));
    let number = |value: u64| codec::encode_value(&StateValue::Slot(U256::from(value)));
    assert!(changed(&chain, Space::State, &slot(0), Some(&number(9))).contains("the storage trie says otherwise"));
    assert!(changed(&chain, Space::State, &slot(0), None).contains("the tries hold"));
    assert!(changed(&chain, Space::State, &slot(1), Some(&number(1))).contains("the storage trie says otherwise"));
    let account = codec::encode_key(&StateKey::Account(counter));
    assert!(changed(&chain, Space::State, &account, None).contains("trie says otherwise"));
    let stranger = codec::encode_key(&StateKey::Account(Address::repeat_byte(9)));
    assert!(changed(&chain, Space::State, &stranger, Some(&[1, 0, 0])).contains("the state trie says otherwise"));
    let row = codec::table_prefix("u_t");
    assert!(changed(&chain, Space::State, &row, Some(&codec::encode_value(&StateValue::Row(Arc::default())))).contains("dbHash"));
}

#[test]
fn damaged_or_missing_nodes_of_any_block_are_found() {
    let (chain, roots) = grown(StateKind::Mpt);
    for root in &roots[1..] {
        let node = chain.storage.get(Space::Trie, root.as_slice()).unwrap().unwrap();
        let mut damaged = node.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(changed(&chain, Space::Trie, root.as_slice(), Some(&damaged)).contains(&hex::encode(root)));
        assert!(changed(&chain, Space::Trie, root.as_slice(), None).contains("the node is missing"));
    }
}

#[test]
fn changed_value_is_found_by_the_multiset_hash() {
    let (chain, _) = grown(StateKind::Storage);
    let counter = chain.counter();
    let slot = codec::encode_key(&StateKey::Slot(counter, 0, U256::ZERO));
    assert!(changed(&chain, Space::State, &slot, None).contains("state root of block 4"));
}
