//! Snapshots of small chains: made, checked, restored, stopped, changed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use millrace_access::blockchain::BlockChain;
use millrace_base::{BlockHeader, BlockSignature, GroupId, KeyPair};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{Durability, Space, Storage};

use super::headers::{HeaderChain, SignedHeader};
use super::*;
use crate::test_chain::{TestChain, content, key};
use crate::verify::verify_database;

fn on(_: Step, _: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn make(chain: &TestChain, directory: &Path) -> Result<Manifest, SnapshotError> {
    let view = chain.storage.snapshot().unwrap();
    create(&*view, chain.height(), Subject { chain_id: 1, group: GroupId::new(1).unwrap() }, directory, &mut on)
}

fn load(directory: &Path, trust: &Trust, target: &dyn Storage) -> Result<Outcome, SnapshotError> {
    restore(&Restore { snapshot: &Snapshot::open(directory)?, trust, target }, &mut on)
}

fn check(directory: &Path, trust: &Trust) -> Result<Outcome, SnapshotError> {
    verify(&Snapshot::open(directory)?, trust, &mut on)
}

fn chain(blocks: usize) -> TestChain {
    let mut chain = TestChain::new(4);
    chain.grow(blocks / 2, 3);
    chain.add_sealer(4);
    chain.grow(blocks / 2, 3);
    chain
}

#[test]
fn restored_database_is_the_one_it_came_from_and_grows_the_same_way() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let chain = chain(10);
    let manifest = make(&chain, &place).unwrap();
    assert_eq!((manifest.height, manifest.hash), (11, chain.chain.head().hash));
    let outcome = check(&place, &chain.trust()).unwrap();
    assert_eq!((outcome.height, outcome.blocks, outcome.state_values), (11, 11, manifest.state_values));
    let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    assert_eq!(load(&place, &chain.trust(), &*target).unwrap(), outcome);
    let kept = |pairs: Vec<(Space, Vec<u8>, Vec<u8>)>| -> Vec<_> { pairs.into_iter().filter(|(_, key, _)| key != b"kept-from").collect() };
    assert_eq!(kept(content(&*target)), kept(content(&*chain.storage)));
    verify_database(&*target, &mut |_| ()).unwrap();
    let restored = BlockChain::open(target, Durability::Power, 1 << 20).unwrap().unwrap();
    assert_eq!(restored.recent_nonces().unwrap(), chain.chain.recent_nonces().unwrap());
    assert_eq!(restored.epoch_start().unwrap(), chain.chain.epoch_start().unwrap());
    assert_eq!(restored.head(), chain.chain.head());
}

#[test]
fn long_chain_is_restored_without_the_bodies_of_its_beginning_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let mut chain = TestChain::new(1);
    chain.grow(1_030, 1);
    make(&chain, &place).unwrap();
    let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    load(&place, &chain.trust(), &*target).unwrap();
    let report = verify_database(&*target, &mut |_| ()).unwrap();
    assert_eq!((report.height, report.kept_from, report.transactions), (1_030, 31, 1_000));
    let restored = BlockChain::open(target, Durability::Power, 1 << 20).unwrap().unwrap();
    assert!(matches!(restored.block(30), Err(StorageError::Pruned { number: 30, first: 31 })));
    assert_eq!(restored.block(31).unwrap(), chain.chain.block(31).unwrap());
    assert_eq!(restored.block(0).unwrap(), chain.chain.block(0).unwrap());
    assert_eq!(restored.header(5).unwrap(), chain.chain.header(5).unwrap());
    assert_eq!(restored.head().totals, chain.chain.head().totals);
    // And is snapshot again.
    let again = directory.path().join("again");
    let view = restored.storage().snapshot().unwrap();
    let manifest = create(&*view, 1_030, Subject { chain_id: 1, group: GroupId::new(1).unwrap() }, &again, &mut on).unwrap();
    assert_eq!(manifest, *Snapshot::open(&place).unwrap().manifest());
}

#[test]
fn restore_that_was_stopped_cannot_be_opened_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let chain = chain(8);
    make(&chain, &place).unwrap();
    let snapshot = Snapshot::open(&place).unwrap();
    for stop in 1..9 {
        let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut left = stop;
        let mut count = |_: Step, _: u64, _: u64| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let trust = chain.trust();
        let order = Restore { snapshot: &snapshot, trust: &trust, target: &*target };
        assert!(matches!(restore(&order, &mut count), Err(SnapshotError::Stopped)));
        assert!(matches!(BlockChain::open(Arc::clone(&target), Durability::Power, 1 << 20), Err(StorageError::Unfinished)));
        let outcome = restore(&order, &mut on).unwrap();
        assert_eq!(outcome.resumed_at, stop);
        verify_database(&*target, &mut |_| ()).unwrap();
        let error = restore(&order, &mut on).unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
    }
}

#[test]
fn changed_byte_in_any_file_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let chain = chain(4);
    make(&chain, &place).unwrap();
    let files: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1).chain([bytes.len() - 1]) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&file, &changed).unwrap();
            let target = MemoryStorage::new();
            match load(&place, &chain.trust(), &target).unwrap_err() {
                SnapshotError::Refused { file: named, detail } => {
                    assert!(named == file && !detail.is_empty(), "{}: {detail}", named.display())
                }
                other => panic!("{}, byte {at}: {other}", file.display()),
            }
            assert!(BlockChain::open(Arc::new(target), Durability::Power, 1 << 20).map_or(true, |chain| chain.is_none()));
        }
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(check(&place, &chain.trust()), Err(SnapshotError::Refused { .. })));
        fs::remove_file(&file).unwrap();
        assert!(matches!(check(&place, &chain.trust()), Err(SnapshotError::Io { .. })));
        fs::write(&file, &bytes).unwrap();
    }
    check(&place, &chain.trust()).unwrap();
}

#[test]
fn snapshot_of_another_chain_or_without_the_trusted_block_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let chain = chain(4);
    make(&chain, &place).unwrap();
    let refused = |trust: &Trust| check(&place, trust).unwrap_err().to_string();
    assert!(refused(&Trust { genesis: B256::ZERO, ..chain.trust() }).contains("starts with"));
    assert!(refused(&Trust { block: Some(B256::ZERO), ..chain.trust() }).contains("trusted block"));
    let others = (5..9).map(|index| key(index).node_id()).collect();
    assert!(refused(&Trust { sealers: others, ..chain.trust() }).contains("cannot be followed"));
    let block = chain.chain.hash_of(3).unwrap();
    check(&place, &Trust { block, ..chain.trust() }).unwrap();
    let error = make(&chain, &place).unwrap_err().to_string();
    assert!(error.contains("there already"), "{error}");
}

#[test]
fn group_with_tries_has_no_snapshots_and_takes_none() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let mut tries = TestChain::with_tries(1);
    tries.grow(2, 1);
    let error = make(&tries, &place).unwrap_err().to_string();
    assert!(error.contains("state.type=mpt") && !place.exists(), "{error}");
    let chain = chain(4);
    make(&chain, &place).unwrap();
    let trust = Trust { state: StateKind::Mpt, ..chain.trust() };
    let error = load(&place, &trust, &MemoryStorage::new()).unwrap_err().to_string();
    assert!(error.contains("state.type=mpt"), "{error}");
}

#[test]
fn majority_of_signatures_is_enough_for_a_raft_group_and_for_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshot");
    let mut chain = TestChain::raft(5);
    chain.grow(4, 1);
    make(&chain, &place).unwrap();
    let target: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    load(&place, &chain.trust(), &*target).unwrap();
    verify_database(&*target, &mut |_| ()).unwrap();
    let error = check(&place, &Trust { faults: Faults::Byzantine, ..chain.trust() }).unwrap_err().to_string();
    assert!(error.contains("3 distinct sealers signed, 4 of 5 must"), "{error}");
}

/// Headers of sealers that change as told; each signed by its own sealers that are in `signers`.
fn headers(lists: &[&[usize]], signers: &[usize]) -> (Trust, Vec<SignedHeader>) {
    let mut made: Vec<SignedHeader> = Vec::new();
    for (number, list) in (0..).zip(lists) {
        let mut keys: Vec<KeyPair> = list.iter().map(|index| key(*index)).collect();
        keys.sort_by_key(KeyPair::node_id);
        let header = BlockHeader {
            number,
            timestamp_ms: number + 1,
            parent_hash: made.last().map_or(B256::ZERO, |last| last.hash),
            sealer_list: keys.iter().map(KeyPair::node_id).collect(),
            ..BlockHeader::default()
        };
        let hash = header.hash();
        let chosen: Vec<NodeId> = signers.iter().map(|index| key(*index).node_id()).collect();
        let signed = (0..).zip(&keys).filter(|(_, key)| chosen.contains(&key.node_id()));
        let signatures = signed.map(|(index, key)| BlockSignature { index, signature: key.sign(hash) }).collect();
        made.push(SignedHeader { header, hash, signatures });
    }
    let sealers = made[1].header.sealer_list.clone();
    (Trust { genesis: made[0].hash, sealers, faults: Faults::Byzantine, state: StateKind::Storage, block: None }, made)
}

fn follow(trust: &Trust, headers: &[SignedHeader]) -> Result<u64, String> {
    let mut chain = HeaderChain::new(trust);
    // In pieces, as chunks come.
    headers.chunks(2).try_for_each(|headers| chain.extend(headers))?;
    chain.finish().map(|tip| tip.timestamp_ms - 1)
}

#[test]
fn sealers_are_followed_where_enough_of_those_before_signed_and_nowhere_else() {
    let all: Vec<usize> = (0..10).collect();
    let (trust, made) = headers(&[&[], &[0, 1, 2, 3], &[0, 1, 2, 3, 4], &[1, 2, 3, 4], &[3, 4, 5, 6]], &all);
    assert_eq!(follow(&trust, &made), Ok(4));
    // One of four that stays is one that can be faulty.
    let (trust, made) = headers(&[&[], &[0, 1, 2, 3], &[3, 7, 8, 9]], &all);
    assert!(follow(&trust, &made).unwrap_err().contains("1 of those before signed it where 2 must"));
    let trusted = Trust { block: Some(made[2].hash), ..trust };
    assert_eq!(follow(&trusted, &made), Ok(2));
    // Nor does it help to keep some of the old ones among more new ones than they can make a quorum of.
    let (trust, made) = headers(&[&[], &[0, 1, 2, 3], &[0, 1, 4, 5, 6, 7, 8]], &[0, 1, 2, 3]);
    assert!(follow(&trust, &made).unwrap_err().contains("distinct sealers signed"));
    let (trust, made) = headers(&[&[], &[0, 1, 2, 3], &[0, 1, 2, 3]], &[0, 1]);
    assert!(follow(&trust, &made).unwrap_err().contains("2 distinct sealers signed, 3 of 4 must"));
}

#[test]
fn headers_below_a_trusted_block_need_no_signatures_and_those_above_do() {
    let (mut trust, mut made) = headers(&[&[], &[0, 1, 2, 3], &[5, 6], &[5, 6], &[5, 6]], &(0..10).collect::<Vec<_>>());
    made[1].signatures.clear();
    made[2].signatures.clear();
    assert!(follow(&trust, &made).is_err());
    trust.block = Some(made[3].hash);
    assert_eq!(follow(&trust, &made), Ok(4));
    made[4].signatures.clear();
    assert!(follow(&trust, &made).is_err());
    made.swap(1, 2);
    assert!(follow(&trust, &made).is_err(), "the hashes count all the same");
}
