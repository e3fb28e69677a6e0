//! Clean databases of both kinds pass; one changed, missing or added value of each sort is found and named.

use std::path::Path;
use std::sync::Arc;

use millrace_access::blockchain::Commit;
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock};
use millrace_base::{Address, BlockSignature, Bytes, GroupId, KeyPair, Transaction, U256, VerifiedTx, hex};
use millrace_core::state::codec;
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::storage::{StorageView, Visit};
use millrace_core::{Batch, Durability, StateKey, StateValue};
use millrace_vm::EvmRules;

use super::*;
use crate::genesis::Consensus;
use crate::{Genesis, Ledger, LedgerConfig};

/// Init code of a contract that adds one to its slot 0, and logs and returns the sum.
const COUNTER: [u8; 35] = hex!("6017600c60003960176000f36000546001018060005560005260206000a060206000f3");

fn key() -> KeyPair {
    KeyPair::from_secret(&[1; 32]).unwrap()
}

fn ledger(storage: Arc<dyn Storage>, state: StateKind) -> Ledger {
    let genesis = Genesis {
        group: GroupId::new(1).unwrap(),
        timestamp_ms: 1,
        sealers: vec![key().node_id()],
        consensus: Consensus::Pbft,
        tx_count_limit: 1_000,
        tx_gas_limit: 300_000_000,
        consensus_timeout_s: 3,
        rules: EvmRules::default(),
        state,
        mark: format!("test-{state}"),
    };
    let config = LedgerConfig {
        chain_id: 1,
        genesis,
        key: key(),
        durability: Durability::Process,
        cache_bytes: 1 << 20,
        pool_count: 100,
        pool_bytes: 1 << 20,
        expiration_ms: 600_000,
        min_interval_ms: 0,
        ingress_bytes: 1 << 20,
    };
    Ledger::open(config, storage).unwrap()
}

fn transaction(nonce: u64, to: Option<Address>, data: &[u8]) -> VerifiedTx {
    let fields = Transaction {
        nonce: U256::from(nonce),
        block_limit: U256::from(100),
        to,
        data: Bytes::copy_from_slice(data),
        chain_id: U256::from(1),
        group_id: U256::from(1),
        ..Transaction::default()
    };
    fields.sign(&key()).verify().unwrap()
}

/// Executes, signs and commits a block with one transaction.
fn run(ledger: &Ledger, transaction: VerifiedTx) -> Block {
    let head = ledger.chain().head();
    let executed = BlockExecutor::new(ledger.rules()).execute(BlockOrder {
        parent_hash: head.hash,
        number: head.header.number + 1,
        timestamp_ms: head.header.timestamp_ms + 1,
        tx_gas_limit: 300_000_000,
        sealer: 0,
        sealer_list: vec![key().node_id()],
        transactions: vec![transaction],
        state: ledger.chain().state(),
        commitment: &ledger.chain().commitment().unwrap(),
        hashes: ledger.chain(),
    });
    let ExecutedBlock { mut block, writes, nodes, commitment } = executed.unwrap();
    block.signatures = vec![BlockSignature { index: 0, signature: key().sign(block.hash) }];
    ledger.commit(&[Commit { block: Arc::new(block.clone()), writes, nodes, commitment, epoch_start: None }]).unwrap();
    block
}

/// A chain with a contract that counted to three; the contract and the header's roots of each height.
fn chain(state: StateKind) -> (Arc<dyn Storage>, Address, Vec<B256>) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let ledger = ledger(Arc::clone(&storage), state);
    let created = run(&ledger, transaction(0, None, &COUNTER));
    let counter = created.receipts[0].contract_address;
    let mut roots = vec![B256::ZERO, created.header.state_root];
    for nonce in 1..4 {
        roots.push(run(&ledger, transaction(nonce, Some(counter), &[])).header.state_root);
    }
    (storage, counter, roots)
}

/// A database in which one value reads as another.
struct Changed {
    inner: Arc<dyn Storage>,
    space: Space,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Storage for Changed {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        if (space, key) == (self.space, &self.key[..]) { Ok(self.value.clone()) } else { self.inner.get(space, key) }
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        keys.iter().map(|key| self.get(space, key)).collect()
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let mut pairs = std::collections::BTreeMap::new();
        self.inner.scan(space, prefix, from, &mut |key, value| {
            pairs.insert(key.to_vec(), value.to_vec());
            std::ops::ControlFlow::Continue(())
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

    fn height(&self) -> Result<Option<u64>, StorageError> {
        self.inner.height()
    }

    fn commit(&self, _: u64, _: &Batch, _: Durability) -> Result<(), StorageError> {
        unreachable!("a check only reads")
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        self.inner.snapshot()
    }

    fn checkpoint(&self, _: &Path) -> Result<(), StorageError> {
        unreachable!("a check only reads")
    }

    fn verify(&self) -> Result<(), StorageError> {
        self.inner.verify()
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.inner.stats()
    }
}

fn check(storage: Arc<dyn Storage>) -> Result<Report, String> {
    verify_database(&storage, &mut |_| ()).map_err(|error| error.to_string())
}

fn changed(inner: &Arc<dyn Storage>, space: Space, key: &[u8], value: Option<&[u8]>) -> String {
    let storage = Changed { inner: Arc::clone(inner), space, key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
    check(Arc::new(storage)).expect_err("the change must be found")
}

#[test]
fn clean_chains_of_both_kinds_pass() {
    for kind in [StateKind::Storage, StateKind::Mpt] {
        let (storage, _, roots) = chain(kind);
        let report = check(storage).unwrap();
        assert_eq!((report.height, report.transactions, report.state), (4, 4, kind));
        assert_eq!(report.state_root, roots[4]);
    }
}

#[test]
fn changed_missing_and_added_values_are_found_beside_tries() {
    let (storage, counter, _) = chain(StateKind::Mpt);
    let slot = |index: u64| codec::encode_key(&StateKey::Slot(counter, 0, U256::from(index)));
    let number = |value: u64| codec::encode_value(&StateValue::Slot(U256::from(value)));
    assert!(changed(&storage, Space::State, &slot(0), Some(&number(9))).contains("the storage trie says otherwise"));
    assert!(changed(&storage, Space::State, &slot(0), None).contains("the tries hold"));
    assert!(changed(&storage, Space::State, &slot(1), Some(&number(1))).contains("the storage trie says otherwise"));
    let account = codec::encode_key(&StateKey::Account(counter));
    assert!(changed(&storage, Space::State, &account, None).contains("trie says otherwise"));
    let stranger = codec::encode_key(&StateKey::Account(Address::repeat_byte(9)));
    assert!(changed(&storage, Space::State, &stranger, Some(&[1, 0, 0])).contains("the state trie says otherwise"));
    let row = codec::table_prefix("u_t");
    assert!(changed(&storage, Space::State, &row, Some(&codec::encode_value(&StateValue::Row(Arc::default())))).contains("dbHash"));
}

#[test]
fn damaged_or_missing_nodes_of_any_block_are_found() {
    let (storage, _, roots) = chain(StateKind::Mpt);
    for root in &roots[1..] {
        let node = storage.get(Space::Trie, root.as_slice()).unwrap().unwrap();
        let mut damaged = node.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(changed(&storage, Space::Trie, root.as_slice(), Some(&damaged)).contains(&hex::encode(root)));
        assert!(changed(&storage, Space::Trie, root.as_slice(), None).contains("the node is missing"));
    }
}

#[test]
fn changed_value_is_found_by_the_multiset_hash() {
    let (storage, counter, _) = chain(StateKind::Storage);
    let slot = codec::encode_key(&StateKey::Slot(counter, 0, U256::ZERO));
    assert!(changed(&storage, Space::State, &slot, None).contains("state root of block 4"));
}
