//! The block around a simple machine: each transaction adds its nonce to a slot.

use super::*;
use millrace_base::{Address, KeyPair, Transaction, U256, merkle};
use millrace_core::overlay::{Layer, LayeredState};
use millrace_core::{StateKey, StateKind, StateValue};

struct Adder;

fn slot(index: u64) -> StateKey {
    StateKey::Slot(Address::ZERO, 0, U256::from(index))
}

fn value(state: &dyn StateReader, index: u64) -> U256 {
    match state.read(&slot(index)).unwrap() {
        Some(StateValue::Slot(value)) => value,
        _ => U256::ZERO,
    }
}

impl TransactionRunner for Adder {
    fn transact(
        &mut self,
        state: &dyn StateReader,
        _: &dyn BlockHashes,
        environment: &BlockEnvironment,
        transaction: &VerifiedTx,
    ) -> Result<Executed, StorageError> {
        let nonce = transaction.fields().nonce;
        if nonce == U256::from(13) {
            return Err(StorageError::Engine("disk on fire".into()));
        }
        let sum = value(state, 0) + nonce;
        let receipt = Receipt { gas_used: sum, remain_gas: U256::from(environment.tx_gas_limit), ..Receipt::default() };
        let own = slot(nonce.to::<u64>());
        Ok(Executed { receipt, writes: vec![(slot(0), Some(StateValue::Slot(sum))), (own, Some(StateValue::Slot(U256::from(1))))] })
    }
}

struct Nothing;

impl StateReader for Nothing {
    fn read(&self, _: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(None)
    }
}

impl BlockHashes for Nothing {
    fn block_hash(&self, _: u64) -> Result<Option<B256>, StorageError> {
        Ok(None)
    }
}

fn transactions(nonces: &[u64]) -> Vec<VerifiedTx> {
    let key = KeyPair::from_secret(&[1; 32]).unwrap();
    let make = |nonce: &u64| Transaction { nonce: U256::from(*nonce), ..Transaction::default() }.sign(&key).verify().unwrap();
    nonces.iter().map(make).collect()
}

/// A block with the state after it.
struct After {
    executed: ExecutedBlock,
    state: Arc<dyn StateReader + Send + Sync>,
}

fn execute(before: Option<&After>, nonces: &[u64]) -> Result<After, StorageError> {
    let empty = StateCommitment::empty(StateKind::Storage);
    let below: Arc<dyn StateReader + Send + Sync> = before.map_or_else(|| Arc::new(Nothing) as Arc<_>, |before| Arc::clone(&before.state));
    let executed = BlockExecutor::with_runner(|| Adder, Crew::alone()).execute(BlockOrder {
        parent_hash: before.map_or(B256::ZERO, |before| before.executed.block.hash),
        number: before.map_or(1, |before| before.executed.block.header.number + 1),
        timestamp_ms: 1_700_000_000_000,
        tx_gas_limit: 300_000_000,
        sealer: 0,
        sealer_list: vec![NodeId([1; 64])],
        transactions: transactions(nonces),
        state: Arc::clone(&below),
        commitment: before.map_or(&empty, |before| &before.executed.commitment),
        hashes: &Nothing,
    })?;
    let state = Arc::new(LayeredState::new(below, vec![Arc::new(Layer::new(&executed.writes, &executed.nodes))]));
    Ok(After { executed, state })
}

#[test]
fn block_carries_the_roots_of_what_it_holds_and_builds_on_the_one_before() {
    let first = execute(None, &[1, 2, 3]).unwrap();
    let second = execute(Some(&first), &[4]).unwrap();
    for After { executed, .. } in [&first, &second] {
        let (block, header) = (&executed.block, &executed.block.header);
        assert_eq!(block.hash, header.hash());
        assert_eq!(header.transactions_root, merkle::root(&block.transactions.iter().map(VerifiedTx::hash).collect::<Vec<_>>()));
        assert_eq!(header.receipts_root, merkle::root(&block.receipts.iter().map(Receipt::hash).collect::<Vec<_>>()));
        assert_eq!(header.state_root, executed.commitment.state_root());
        assert_eq!((header.db_hash, header.gas_used, header.gas_limit), (header.state_root, 0, 0));
        assert!(block.receipts.iter().all(|receipt| receipt.state_root == header.state_root));
        assert!(block.signatures.is_empty() && header.extra_data.is_empty());
    }
    let used: Vec<U256> = first.executed.block.receipts.iter().map(|receipt| receipt.gas_used).collect();
    assert_eq!(used, [1, 3, 6].map(U256::from), "each transaction sees the writes of those before it");
    assert_eq!(second.executed.block.header.parent_hash, first.executed.block.hash);
    assert_eq!(value(&*second.state, 0), U256::from(10));
    assert_eq!(first.executed.writes.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [slot(0), slot(1), slot(2), slot(3)]);
}

#[test]
fn state_root_covers_the_whole_state_and_not_the_way_to_it() {
    let at_once = execute(None, &[1, 2, 3]).unwrap();
    let first = execute(None, &[3]).unwrap();
    let second = execute(Some(&first), &[2, 1]).unwrap();
    assert_eq!(at_once.executed.block.header.state_root, second.executed.block.header.state_root);
    assert_ne!(first.executed.block.header.state_root, second.executed.block.header.state_root);
    let idle = execute(Some(&second), &[]).unwrap();
    assert_eq!(idle.executed.block.header.state_root, second.executed.block.header.state_root);
    assert!(idle.executed.writes.is_empty());
}

#[test]
fn failed_storage_leaves_no_block() {
    assert!(matches!(execute(None, &[1, 13, 2]), Err(StorageError::Engine(_))));
}
