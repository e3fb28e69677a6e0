//! The incremental trie against `alloy-trie`'s builder: roots, values and proofs over random sequences of insertions and removals.

use std::collections::{BTreeMap, HashMap};

use alloy_trie::HashBuilder;
use alloy_trie::proof::verify_proof;
use proptest::prelude::*;

use super::*;

/// Nodes in memory.
#[derive(Default)]
struct Store(HashMap<B256, Bytes>);

impl Store {
    fn update(&mut self, root: B256, changes: Vec<Change>) -> (B256, usize) {
        let mut made = TrieNodes::new();
        let read = |hash: &B256| Ok(self.0.get(hash).cloned());
        let root = Tries::new(&read).update(root, changes, &mut made).unwrap();
        let count = made.len();
        assert!(made.iter().all(|(hash, node)| keccak256(node) == *hash));
        self.0.extend(made);
        (root, count)
    }

    fn prove(&self, root: B256, key: &B256) -> Proof {
        Tries::new(&|hash| Ok(self.0.get(hash).cloned())).prove(root, key).unwrap()
    }

    fn pairs(&self, root: B256) -> BTreeMap<B256, Vec<u8>> {
        let mut pairs = BTreeMap::new();
        let read = |hash: &B256| Ok(self.0.get(hash).cloned());
        let mut add = |key, value| {
            pairs.insert(key, value);
            Ok(())
        };
        Tries::new(&read).visit_new(EMPTY_ROOT, root, &mut add).unwrap();
        pairs
    }
}

/// The root that a build from scratch gives.
fn expected(pairs: &BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in pairs {
        builder.add_leaf(path(key), value);
    }
    builder.root()
}

/// Keys that share long prefixes as often as short ones, down to the last nibble.
fn key() -> impl Strategy<Value = B256> {
    (0usize..64, 0u8..3, 0usize..64, 0u8..3).prop_map(|(first, one, second, two)| {
        let mut nibbles = [0u8; 64];
        nibbles[first] = one;
        nibbles[second] = two;
        B256::from_slice(&Nibbles::from_nibbles(nibbles).pack())
    })
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::weighted(0.6, proptest::collection::vec(any::<u8>(), 1..40))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn root_equals_a_build_from_scratch_after_every_block(
        blocks in proptest::collection::vec(proptest::collection::btree_map(key(), value(), 1..12), 1..12),
    ) {
        let (mut store, mut root, mut pairs, mut history) = (Store::default(), EMPTY_ROOT, BTreeMap::new(), Vec::new());
        for block in blocks {
            for (key, value) in &block {
                match value {
                    Some(value) => pairs.insert(*key, value.clone()),
                    None => pairs.remove(key),
                };
            }
            let changes = block.into_iter().map(|(key, value)| (path(&key), value)).collect();
            root = store.update(root, changes).0;
            prop_assert_eq!(root, expected(&pairs));
            history.push((root, pairs.clone()));
        }
        // What is new between two roots holds every change.
        for pair in history.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let mut seen = BTreeMap::new();
            let read = |hash: &B256| Ok(store.0.get(hash).cloned());
            Tries::new(&read).visit_new(before.0, after.0, &mut |key, value| { seen.insert(key, value); Ok(()) }).unwrap();
            for (key, value) in &after.1 {
                prop_assert!(before.1.get(key) == Some(value) || seen.get(key) == Some(value));
            }
        }
        // Every root stays readable, whole and by proof.
        for (root, pairs) in history {
            prop_assert_eq!(store.pairs(root), pairs.clone());
            for (key, value) in &pairs {
                let proof = store.prove(root, key);
                prop_assert_eq!(proof.value.as_ref(), Some(value));
                prop_assert!(verify_proof(root, path(key), Some(value.clone()), &proof.nodes).is_ok());
            }
        }
    }

    #[test]
    fn absence_is_proven(keys in proptest::collection::btree_set(any::<[u8; 32]>(), 0..40), absent in any::<[u8; 32]>()) {
        prop_assume!(!keys.contains(&absent));
        let mut store = Store::default();
        let changes = keys.iter().map(|key| (path(&B256::from(*key)), Some(vec![1]))).collect();
        let root = store.update(EMPTY_ROOT, changes).0;
        let proof = store.prove(root, &B256::from(absent));
        prop_assert_eq!(proof.value, None);
        prop_assert!(verify_proof(root, path(&B256::from(absent)), None, &proof.nodes).is_ok());
    }
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let mut store = Store::default();
    let pairs = (0u8..20).map(|index| (keccak256([index]), vec![index + 1])).collect::<BTreeMap<_, _>>();
    let root = store.update(EMPTY_ROOT, pairs.iter().map(|(key, value)| (path(key), Some(value.clone()))).collect()).0;
    assert_eq!(store.update(root, vec![(path(&keccak256([99])), None)]).0, root);
    assert_eq!(store.update(EMPTY_ROOT, vec![(path(&keccak256([99])), None)]), (EMPTY_ROOT, 0));
    assert_eq!(store.update(root, pairs.keys().map(|key| (path(key), None)).collect()), (EMPTY_ROOT, 0));
}

#[test]
fn missing_and_damaged_nodes_are_named() {
    let mut store = Store::default();
    let changes = (0u8..20).map(|index| (keccak256([index]), vec![index + 1])).collect::<BTreeMap<_, _>>();
    let root = store.update(EMPTY_ROOT, changes.iter().map(|(key, value)| (path(key), Some(value.clone()))).collect()).0;
    store.0.insert(root, Bytes::from_static(b"\xc1\x80"));
    let read = |hash: &B256| Ok(store.0.get(hash).cloned());
    let error = Tries::new(&read).get(root, &keccak256([1])).unwrap_err().to_string();
    assert!(error.contains(&hex::encode(root)), "{error}");
    let error = Tries::new(&|_| Ok(None)).get(root, &keccak256([1])).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    let entered = Tries::new(&read).visit_new(EMPTY_ROOT, root, &mut |_, _| Ok(()));
    assert!(entered.unwrap_err().to_string().contains("another hash"));
}
