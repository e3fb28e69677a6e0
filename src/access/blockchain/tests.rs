//! The chain over the in-memory engine, and over one that fails on demand.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_base::{Address, KeyPair, LogEntry, Signature, Transaction, U256};
use millrace_core::root::StateAccumulator;
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::storage::{StorageView, Visit};
use millrace_core::{Batch, StateKey, StateKind, StateReader, StateValue};

use super::*;

const CACHE: usize = 1 << 20;

fn slot(index: u64) -> StateKey {
    StateKey::Slot(Address::ZERO, 0, U256::from(index))
}

fn transaction(nonce: u64) -> VerifiedTx {
    let raw = Transaction { nonce: U256::from(nonce), ..Transaction::default() }.sign(&KeyPair::from_secret(&[1; 32]).unwrap());
    VerifiedTx::from_trusted_store(raw, Address::repeat_byte(9))
}

fn accumulator_of(commitment: &StateCommitment) -> &StateAccumulator {
    match commitment {
        StateCommitment::Storage(accumulator) => accumulator,
        StateCommitment::Mpt { .. } => panic!("these chains have storage state"),
    }
}

/// A block with a transaction for each status; its writes set slot 0 to its height.
fn commit(parent: Option<&Commit>, statuses: &[u32]) -> Commit {
    let number = parent.map_or(0, |parent| parent.block.header.number + 1);
    let header = BlockHeader {
        number,
        parent_hash: parent.map_or(B256::ZERO, |parent| parent.block.hash),
        timestamp_ms: 1_000 + number,
        ..BlockHeader::default()
    };
    let transactions = (0..statuses.len() as u64).map(|index| transaction(number * 100 + index)).collect();
    let logs = vec![LogEntry { topics: vec![B256::repeat_byte(3)], ..LogEntry::default() }];
    let receipts = statuses.iter().map(|status| Receipt { status: *status, logs: logs.clone(), ..Receipt::default() }).collect();
    let signatures = vec![BlockSignature { index: 0, signature: Signature([5; 65]) }];
    let value = StateValue::Slot(U256::from(number + 1));
    let mut accumulator = parent.map_or_else(StateAccumulator::new, |parent| accumulator_of(&parent.commitment).clone());
    accumulator.replace(&slot(number + 1), None, Some(&value));
    let commitment = StateCommitment::Storage(accumulator);
    let writes = vec![(slot(0), Some(value.clone())), (slot(number + 1), Some(value))];
    let block = Block { hash: header.hash(), header, signatures, transactions, receipts };
    Commit { block: Arc::new(block), writes, nodes: Vec::new(), commitment, epoch_start: None }
}

/// Block 0 and `count` blocks of three transactions, the last of which fails.
fn commits(count: usize) -> Vec<Commit> {
    let mut all = vec![commit(None, &[])];
    for _ in 0..count {
        all.push(commit(all.last(), &[0, 0, 22]));
    }
    all
}

fn create(storage: &Arc<dyn Storage>, mut all: Vec<Commit>) -> (BlockChain, Vec<Commit>) {
    let rest = all.split_off(1);
    (BlockChain::create(Arc::clone(storage), Durability::Power, CACHE, all.remove(0)).unwrap(), rest)
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn reopen(storage: &Arc<dyn Storage>) -> BlockChain {
    BlockChain::open(Arc::clone(storage), Durability::Power, CACHE).unwrap().unwrap()
}

fn value(chain: &BlockChain) -> Option<StateValue> {
    chain.state().read(&slot(0)).unwrap()
}

fn check_reads(chain: &BlockChain, blocks: &[Arc<Block>]) {
    for block in blocks {
        let number = block.header.number;
        assert_eq!(chain.hash_of(number).unwrap(), Some(block.hash));
        assert_eq!(chain.header(number).unwrap(), Some((block.header.clone(), block.hash, block.signatures.clone())));
        assert_eq!(chain.number_of(block.hash).unwrap(), Some(number));
        for (index, transaction) in (0u32..).zip(&block.transactions) {
            assert_eq!(chain.locate(transaction.hash()).unwrap(), Some((number, index)));
            assert_eq!(chain.transaction_at(number, index).unwrap().as_ref(), Some(transaction));
            assert_eq!(chain.receipt_at(number, index).unwrap().as_ref(), Some(&block.receipts[index as usize]));
        }
        let end = block.transactions.len() as u32;
        assert_eq!((chain.transaction_at(number, end).unwrap(), chain.receipt_at(number, end).unwrap()), (None, None));
        assert_eq!(chain.block(number).unwrap().as_deref(), Some(&**block));
    }
    let above = blocks.len() as u64;
    assert!(chain.block(above).unwrap().is_none() && chain.header(above).unwrap().is_none() && chain.hash_of(above).unwrap().is_none());
    assert!(chain.transaction_at(above, 0).unwrap().is_none() && chain.receipt_at(above, 0).unwrap().is_none());
    assert!(chain.locate(B256::ZERO).unwrap().is_none() && chain.number_of(B256::ZERO).unwrap().is_none());
}

#[test]
fn chain_gives_back_what_was_committed_from_memory_and_after_reopening() {
    let storage = memory();
    assert!(BlockChain::open(Arc::clone(&storage), Durability::Power, CACHE).unwrap().is_none());
    let all = commits(70);
    let blocks: Vec<Arc<Block>> = all.iter().map(|commit| Arc::clone(&commit.block)).collect();
    let commitment = all[70].commitment.clone();
    let (chain, rest) = create(&storage, all);
    let genesis = chain.genesis();
    chain.commit(&rest[..1]).unwrap();
    chain.commit(&rest[1..]).unwrap();
    for chain in [chain, reopen(&storage)] {
        check_reads(&chain, &blocks);
        let head = chain.head();
        assert_eq!((head.header.number, head.hash), (70, blocks[70].hash));
        assert_eq!(head.totals, Totals { transactions: 210, failed: 70, number: 70 });
        assert_eq!(chain.genesis(), genesis);
        assert_eq!(value(&chain), Some(StateValue::Slot(U256::from(71))));
        assert_eq!(chain.commitment().unwrap(), commitment);
    }
}

#[test]
fn empty_block_leaves_the_counters_where_they_were() {
    let storage = memory();
    let mut all = commits(1);
    all.push(commit(all.last(), &[]));
    let (chain, rest) = create(&storage, all);
    chain.commit(&rest).unwrap();
    assert_eq!(chain.head().totals, Totals { transactions: 3, failed: 1, number: 1 });
}

#[test]
fn nonces_are_kept_for_the_window_and_no_longer() {
    let storage = memory();
    let (chain, rest) = create(&storage, commits(1_010));
    chain.commit(&rest).unwrap();
    let nonces = reopen(&storage).recent_nonces().unwrap();
    assert_eq!(nonces.iter().map(|(height, _)| *height).collect::<Vec<_>>(), (11..=1_010).collect::<Vec<_>>());
    assert_eq!(nonces[0].1, [1100, 1101, 1102].map(|nonce| B256::from(U256::from(nonce))));
    assert_eq!(storage.get(Space::Nonces, &height_key(10)).unwrap(), None);
    assert!(storage.get(Space::Body, &height_key(10)).unwrap().is_some());
}

const KEPT: u64 = millrace_base::limits::LEAST_KEPT_BLOCKS;

fn is_here(storage: &Arc<dyn Storage>, number: u64) -> [bool; 3] {
    [Space::Header, Space::Body, Space::Receipts].map(|space| storage.get(space, &height_key(number)).unwrap().is_some())
}

#[test]
fn old_bodies_go_with_new_blocks_and_headers_and_block_0_stay() {
    let storage = memory();
    let (chain, rest) = create(&storage, commits(KEPT as usize + 10));
    chain.keep(Some(1));
    rest.chunks(7).for_each(|commits| chain.commit(commits).unwrap());
    for chain in [chain, reopen(&storage)] {
        assert_eq!(chain.kept_from(), 11, "fewer than the least are never kept");
        assert!(matches!(chain.block(10), Err(StorageError::Pruned { number: 10, first: 11 })));
        assert!(matches!(chain.transaction_at(10, 0), Err(StorageError::Pruned { .. })));
        assert!(matches!(chain.receipt_at(1, 0), Err(StorageError::Pruned { .. })));
        assert_eq!(chain.block(11).unwrap().unwrap().hash, rest[10].block.hash);
        assert_eq!(chain.block(0).unwrap().unwrap().hash, chain.genesis());
        assert_eq!(chain.header(5).unwrap().unwrap().1, rest[4].block.hash);
        assert_eq!(chain.locate(rest[4].block.transactions[0].hash()).unwrap(), Some((5, 0)), "clients are told that it was pruned");
        assert_eq!(chain.recent_nonces().unwrap().len(), 1_000);
    }
    assert_eq!([0, 1, 10, 11].map(|number| is_here(&storage, number)), [[true; 3], [true, false, false], [true, false, false], [true; 3]]);
}

#[test]
fn chain_that_is_switched_to_pruning_shrinks_a_bounded_number_of_blocks_with_each_and_keeps_what_went_when_switched_back() {
    let storage = memory();
    let (chain, rest) = create(&storage, commits(KEPT as usize + 80));
    let (old, new) = rest.split_at(KEPT as usize + 76);
    chain.commit(old).unwrap();
    assert_eq!(chain.kept_from(), 1);
    let kept_after = |number: usize| {
        chain.commit(&new[number..=number]).unwrap();
        chain.kept_from()
    };
    chain.keep(Some(KEPT));
    assert_eq!([kept_after(0), kept_after(1), kept_after(2)], [33, 65, 80]);
    chain.keep(None);
    assert_eq!(kept_after(3), 80);
    assert_eq!(reopen(&storage).kept_from(), 80);
    assert!((1..80).all(|number| is_here(&storage, number) == [true, false, false]) && is_here(&storage, 80) == [true; 3]);
}

#[test]
fn pruning_commit_that_failed_half_way_is_repeated_without_leaving_anything_behind() {
    for survivors in 0..5 {
        let failing = Failing::after(usize::MAX);
        let storage: Arc<dyn Storage> = failing.clone();
        let (chain, rest) = create(&storage, commits(KEPT as usize + 5));
        let (old, new) = rest.split_at(KEPT as usize);
        chain.keep(Some(KEPT));
        chain.commit(old).unwrap();
        failing.left.store(survivors, Ordering::Relaxed);
        assert!(chain.commit(new).is_err());
        failing.left.store(usize::MAX, Ordering::Relaxed);
        chain.commit(new).unwrap();
        assert_eq!(chain.kept_from(), 6);
        assert!((1..6).all(|number| is_here(&storage, number) == [true, false, false]) && is_here(&storage, 6) == [true; 3]);
    }
}

/// Counts commits by durability, and fails after some.
struct Failing {
    inner: MemoryStorage,
    /// Commits until one fails.
    left: AtomicUsize,
    synced: AtomicUsize,
}

impl Failing {
    fn after(commits: usize) -> Arc<Self> {
        Arc::new(Self { inner: MemoryStorage::new(), left: AtomicUsize::new(commits), synced: AtomicUsize::new(0) })
    }
}

impl Storage for Failing {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(space, key)
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        self.inner.multi_get(space, keys)
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.inner.scan(space, prefix, from, visit)
    }

    fn height(&self) -> Result<Option<u64>, StorageError> {
        self.inner.height()
    }

    fn commit(&self, height: u64, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(StorageError::Full { path: "memory".into() });
        }
        self.synced.fetch_add(usize::from(durability == Durability::Power), Ordering::Relaxed);
        self.inner.commit(height, batch, durability)
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        self.inner.snapshot()
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), StorageError> {
        self.inner.checkpoint(directory)
    }

    fn verify(&self) -> Result<(), StorageError> {
        self.inner.verify()
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.inner.stats()
    }
}

#[test]
fn several_blocks_are_committed_with_one_sync() {
    let failing = Failing::after(usize::MAX);
    let storage: Arc<dyn Storage> = failing.clone();
    let (chain, rest) = create(&storage, commits(10));
    chain.commit(&rest).unwrap();
    assert_eq!(failing.synced.load(Ordering::Relaxed), 2, "block 0 and the ten together");
}

#[test]
fn commit_that_failed_half_way_can_be_repeated_and_shows_nothing_before() {
    for survivors in 1..6 {
        let failing = Failing::after(survivors);
        let storage: Arc<dyn Storage> = failing.clone();
        let all = commits(5);
        let blocks: Vec<Arc<Block>> = all.iter().map(|commit| Arc::clone(&commit.block)).collect();
        let (chain, rest) = create(&storage, all);
        assert!(matches!(chain.commit(&rest), Err(StorageError::Full { .. })));
        check_reads(&chain, &blocks[..1]);
        let hidden = &blocks[1];
        assert!(chain.number_of(hidden.hash).unwrap().is_none() && chain.locate(hidden.transactions[0].hash()).unwrap().is_none());
        chain.commit(&rest).unwrap();
        check_reads(&chain, &blocks);
        assert_eq!(value(&chain), Some(StateValue::Slot(U256::from(6))));
        assert_eq!(chain.head().totals.transactions, 15);
        assert_eq!(failing.synced.load(Ordering::Relaxed), 2);
        chain.commit(&rest).unwrap();
        check_reads(&reopen(&storage), &blocks);
    }
}

#[test]
fn commit_after_a_crash_passes_over_what_is_already_there() {
    let storage = memory();
    let (chain, rest) = create(&storage, commits(3));
    chain.commit(&rest[..2]).unwrap();
    drop(chain);
    let chain = reopen(&storage);
    chain.commit(&rest[1..]).unwrap();
    assert_eq!(chain.head().totals, Totals { transactions: 9, failed: 3, number: 3 });
}

#[test]
#[should_panic(expected = "another block was committed")]
fn other_block_at_a_committed_height_is_a_bug() {
    let storage = memory();
    let (chain, rest) = create(&storage, commits(1));
    chain.commit(&rest).unwrap();
    let mut other = (*rest[0].block).clone();
    other.hash = B256::ZERO;
    let other = Commit {
        block: Arc::new(other),
        writes: Vec::new(),
        nodes: Vec::new(),
        commitment: StateCommitment::empty(StateKind::Storage),
        epoch_start: None,
    };
    let _ = chain.commit(&[other]);
}

/// Writes one value behind the chain's back, at the next height.
fn damage(storage: &Arc<dyn Storage>, space: Space, key: &[u8], value: Option<Vec<u8>>) -> BlockChain {
    let all = commits(3);
    let (chain, rest) = create(storage, all);
    chain.commit(&rest).unwrap();
    drop(chain);
    let chain = reopen(storage);
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(space, key, value),
        None => batch.delete(space, key),
    }
    storage.commit(4, &batch, Durability::Power).unwrap();
    chain
}

fn place_of(error: StorageError) -> String {
    match error {
        StorageError::Corrupt { place, .. } => place,
        other => panic!("not damage: {other}"),
    }
}

#[test]
fn damage_is_reported_with_its_place() {
    let key = height_key(2);
    let chain = |space, value| damage(&memory(), space, &key, value);
    assert_eq!(place_of(chain(Space::Header, None).block(2).unwrap_err()), "block header of block 2");
    assert_eq!(place_of(chain(Space::Header, Some(vec![1, 2])).header(2).unwrap_err()), "block header of block 2");
    let other = records::encode_header(&BlockHeader { number: 9, ..BlockHeader::default() }, &[]);
    assert_eq!(place_of(chain(Space::Header, Some(other)).hash_of(2).unwrap_err()), "block header of block 2");
    assert_eq!(place_of(chain(Space::Body, None).transaction_at(2, 0).unwrap_err()), "block body of block 2");
    assert_eq!(place_of(chain(Space::Body, Some(vec![9; 3])).block(2).unwrap_err()), "block body of block 2");
    let garbage = records::pack([vec![7; 40], vec![7; 40], vec![7; 40]].into_iter());
    assert_eq!(place_of(chain(Space::Body, Some(garbage.clone())).transaction_at(2, 1).unwrap_err()), "transaction of block 2");
    assert_eq!(place_of(chain(Space::Receipts, Some(garbage)).receipt_at(2, 1).unwrap_err()), "receipt of block 2");
    let none = records::pack(std::iter::empty::<Vec<u8>>());
    assert_eq!(place_of(chain(Space::Receipts, Some(none)).block(2).unwrap_err()), "receipts of block 2");
    assert_eq!(place_of(chain(Space::Nonces, None).recent_nonces().unwrap_err()), "nonces of block 2");
    assert_eq!(place_of(chain(Space::Nonces, Some(vec![1])).recent_nonces().unwrap_err()), "nonces of block 2");
}

#[test]
fn chain_with_a_damaged_head_is_not_opened() {
    let storage = memory();
    damage(&storage, Space::Body, b"nothing", None);
    let error = BlockChain::open(Arc::clone(&storage), Durability::Power, CACHE).err().unwrap();
    assert_eq!(place_of(error), "block header of block 4", "the marker is ahead of the blocks");

    let storage = memory();
    let other = BlockHeader { number: 4, ..BlockHeader::default() };
    damage(&storage, Space::Header, &height_key(4), Some(records::encode_header(&other, &[])));
    let error = BlockChain::open(storage, Durability::Power, CACHE).err().unwrap();
    assert!(error.to_string().contains("index of hashes"), "{error}");
}

/// Readers that poll while blocks are committed see heads and blocks that belong together.
#[test]
fn readers_find_the_block_of_every_head_they_see() {
    let storage = memory();
    let (chain, rest) = create(&storage, commits(200));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let head = chain.head();
                        let block = chain.block(head.header.number).unwrap().expect("the head exists");
                        assert_eq!(block.hash, head.hash);
                        if let Some(transaction) = block.transactions.last() {
                            let (number, index) = chain.locate(transaction.hash()).unwrap().expect("it is committed");
                            assert_eq!(chain.receipt_at(number, index).unwrap().unwrap().status, 22);
                        }
                        if head.header.number == 200 {
                            return;
                        }
                    }
                })
            })
            .collect();
        for commits in rest.chunks(3) {
            chain.commit(commits).unwrap();
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
