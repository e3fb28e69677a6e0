//! What every engine is tested against: the promises of [`Storage`], one check each, and random work compared with a model.
//!
//! Called from the tests of each engine, in this crate and in `backends`; panics with the promise that is broken. It is no test module,
//! so that other crates can reach it.

mod tables;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::{Batch, Durability, HEIGHT_KEY, Space, Storage, StorageError, StorageView, height_key};

/// How to get databases of the engine under test.
pub trait Engine {
    /// A new, empty database.
    fn create(&self) -> Box<dyn Storage>;

    /// The database that a checkpoint made in `directory`.
    fn open(&self, directory: &Path) -> Box<dyn Storage>;
}

/// A pair of a scan.
type Pair = (Vec<u8>, Vec<u8>);

/// A write of a batch.
type Write<'a> = (Space, &'a [u8], Option<&'a [u8]>);

/// What a database should hold.
type Model = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// Runs all checks.
pub fn run(engine: &dyn Engine) {
    new_database_is_empty(&*engine.create());
    commit_writes_all_spaces_and_the_marker(&*engine.create());
    repeated_commit_changes_nothing(&*engine.create());
    commit_out_of_order_is_refused_and_changes_nothing(&*engine.create());
    later_write_of_a_key_in_a_batch_wins(&*engine.create());
    deletes_remove_and_may_miss(&*engine.create());
    keys_and_values_of_any_size_are_kept(&*engine.create());
    scans_give_the_asked_range_in_order(&*engine.create());
    multi_get_answers_in_order_with_repetitions_and_gaps(&*engine.create());
    snapshot_ignores_later_commits(&*engine.create());
    scan_is_of_one_moment(&*engine.create());
    checkpoint_is_a_database_of_its_moment(engine);
    readers_see_whole_batches(&*engine.create());
    random_work_equals_the_model(engine);
    tables::rows_are_those_of_the_model(&*engine.create());
}

fn collect(scan: impl FnOnce(&mut super::Visit<'_>) -> Result<(), StorageError>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    scan(&mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .expect("scan must work");
    pairs
}

fn scan(storage: &dyn Storage, space: Space, prefix: &[u8], from: &[u8]) -> Vec<Pair> {
    collect(|visit| storage.scan(space, prefix, from, visit))
}

fn get(storage: &dyn Storage, space: Space, key: &[u8]) -> Option<Vec<u8>> {
    storage.get(space, key).expect("get must work")
}

fn commit(storage: &dyn Storage, height: u64, writes: &[Write<'_>]) {
    let mut batch = Batch::default();
    for (space, key, value) in writes {
        match value {
            Some(value) => batch.put(*space, *key, *value),
            None => batch.delete(*space, *key),
        }
    }
    storage.commit(height, &batch, Durability::Process).expect("commit must work");
}

fn new_database_is_empty(storage: &dyn Storage) {
    assert_eq!(storage.height().expect("the engine must not fail"), None, "a new database has no height");
    for space in Space::ALL {
        assert_eq!(get(storage, space, b"key"), None, "a new database has no values");
    }
    assert_eq!(scan(storage, Space::State, b"", b""), [], "a new database has no state");
    storage.verify().expect("a new database is sound");
    storage.stats().expect("a new database has figures");
}

fn commit_writes_all_spaces_and_the_marker(storage: &dyn Storage) {
    let writes: Vec<Write<'_>> =
        Space::ALL.iter().map(|space| (*space, &b"key"[..], Some(std::slice::from_ref(&b"abcdefghi"[space.index()])))).collect();
    commit(storage, 0, &writes);
    for space in Space::ALL {
        assert_eq!(get(storage, space, b"key"), Some(vec![b"abcdefghi"[space.index()]]), "spaces are kept apart");
    }
    assert_eq!(storage.height().expect("the engine must not fail"), Some(0), "a commit sets the height");
    assert_eq!(get(storage, Space::Meta, HEIGHT_KEY), Some(height_key(0).to_vec()), "the marker is readable in Meta");
    storage.commit(1, &Batch::default(), Durability::Power).expect("an empty batch is a block too");
    assert_eq!(storage.height().expect("the engine must not fail"), Some(1));
    storage.verify().expect("a written database is sound");
}

fn repeated_commit_changes_nothing(storage: &dyn Storage) {
    commit(storage, 0, &[(Space::State, b"a", Some(b"1"))]);
    commit(storage, 1, &[(Space::State, b"a", Some(b"2"))]);
    commit(storage, 1, &[(Space::State, b"a", Some(b"3")), (Space::State, b"b", Some(b"3"))]);
    assert_eq!(get(storage, Space::State, b"a"), Some(b"2".to_vec()), "a repeated commit writes nothing");
    assert_eq!(get(storage, Space::State, b"b"), None, "a repeated commit writes nothing");
    assert_eq!(storage.height().expect("the engine must not fail"), Some(1));
}

fn commit_out_of_order_is_refused_and_changes_nothing(storage: &dyn Storage) {
    let mut batch = Batch::default();
    batch.put(Space::State, *b"a", *b"bad");
    let refused = |height, expected| match storage.commit(height, &batch, Durability::Process) {
        Err(StorageError::OutOfOrder { height: named, marker }) => assert_eq!((named, marker), (height, expected)),
        other => panic!("commit of {height} over {expected:?} must be out of order, not {other:?}"),
    };
    refused(1, None);
    refused(u64::MAX, None);
    assert_eq!(storage.height().expect("the engine must not fail"), None);
    commit(storage, 0, &[]);
    commit(storage, 1, &[]);
    refused(0, Some(1));
    refused(3, Some(1));
    assert_eq!(get(storage, Space::State, b"a"), None, "a refused commit writes nothing");
    commit(storage, 2, &[]);
}

fn later_write_of_a_key_in_a_batch_wins(storage: &dyn Storage) {
    commit(
        storage,
        0,
        &[
            (Space::State, b"a", Some(b"1")),
            (Space::State, b"b", Some(b"1")),
            (Space::State, b"a", Some(b"2")),
            (Space::State, b"b", None),
            (Space::State, b"c", None),
            (Space::State, b"c", Some(b"3")),
            (Space::Meta, HEIGHT_KEY, Some(b"nonsense")),
        ],
    );
    assert_eq!(scan(storage, Space::State, b"", b""), [(b"a".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    assert_eq!(storage.height().expect("the engine must not fail"), Some(0), "the marker wins over what a batch writes there");
}

fn deletes_remove_and_may_miss(storage: &dyn Storage) {
    commit(storage, 0, &[(Space::State, b"a", Some(b"1")), (Space::Body, b"a", Some(b"1"))]);
    commit(storage, 1, &[(Space::State, b"a", None), (Space::State, b"missing", None)]);
    assert_eq!(get(storage, Space::State, b"a"), None);
    assert_eq!(get(storage, Space::Body, b"a"), Some(b"1".to_vec()), "a delete keeps to its space");
    assert_eq!(scan(storage, Space::State, b"", b""), []);
    commit(storage, 2, &[(Space::State, b"a", Some(b"2"))]);
    assert_eq!(get(storage, Space::State, b"a"), Some(b"2".to_vec()), "a deleted key can come back");
}

fn keys_and_values_of_any_size_are_kept(storage: &dyn Storage) {
    let big: Vec<u8> = (0..20_000_000u32).map(|index| (index.wrapping_mul(index) >> 7) as u8).collect();
    let long_key = vec![0xff; 3_000];
    commit(
        storage,
        0,
        &[(Space::Body, b"", Some(b"of the empty key")), (Space::Body, b"big", Some(&big)), (Space::Body, b"empty", Some(b""))],
    );
    commit(storage, 1, &[(Space::Body, &long_key, Some(b"long"))]);
    assert_eq!(get(storage, Space::Body, b""), Some(b"of the empty key".to_vec()));
    assert_eq!(get(storage, Space::Body, b"empty"), Some(Vec::new()), "an empty value is not an absent one");
    assert_eq!(get(storage, Space::Body, &long_key), Some(b"long".to_vec()));
    assert!(get(storage, Space::Body, b"big") == Some(big), "a value of 20 MB is kept");
    let keys: Vec<Vec<u8>> = scan(storage, Space::Body, b"", b"").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"".to_vec(), b"big".to_vec(), b"empty".to_vec(), long_key]);
}

fn scans_give_the_asked_range_in_order(storage: &dyn Storage) {
    let keys: [&[u8]; 8] = [b"", b"a", b"a\0", b"ab", b"abc", b"b", b"\xff", b"\xff\xff"];
    // Written out of order and across commits, beside neighbours in other spaces.
    commit(storage, 0, &[(Space::Receipts, b"a", Some(b"x")), (Space::Nonces, b"a", Some(b"x"))]);
    for (height, index) in (1..).zip([5usize, 0, 7, 2, 4, 1, 6, 3]) {
        commit(storage, height, &[(Space::State, keys[index], Some(keys[index])), (Space::TransactionIndex, keys[index], Some(b"x"))]);
    }
    let prefixes: [&[u8]; 7] = [b"", b"a", b"ab", b"b", b"c", b"\xff", b"\xff\xff"];
    let starts: [&[u8]; 8] = [b"", b"a", b"a\0\0", b"abb", b"b", b"c", b"\xff", b"\xff\xff\xff"];
    for prefix in prefixes {
        for from in starts {
            let expected: Vec<Pair> =
                keys.iter().filter(|key| key.starts_with(prefix) && **key >= from).map(|key| (key.to_vec(), key.to_vec())).collect();
            assert_eq!(scan(storage, Space::State, prefix, from), expected, "scan of prefix {prefix:?} from {from:?}");
            let view = storage.snapshot().expect("the engine must not fail");
            assert_eq!(collect(|visit| view.scan(Space::State, prefix, from, visit)), expected, "the same of a snapshot");
        }
    }
    let mut visited = 0;
    let mut stop_at_third = |_: &[u8], _: &[u8]| {
        visited += 1;
        if visited == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    storage.scan(Space::State, b"", b"", &mut stop_at_third).expect("the engine must not fail");
    assert_eq!(visited, 3, "a scan stops when told to");
}

fn multi_get_answers_in_order_with_repetitions_and_gaps(storage: &dyn Storage) {
    commit(storage, 0, &[(Space::State, b"a", Some(b"1")), (Space::State, b"b", Some(b"2")), (Space::Body, b"c", Some(b"3"))]);
    let values = storage.multi_get(Space::State, &[b"b", b"c", b"a", b"b", b""]).expect("the engine must not fail");
    assert_eq!(values, [Some(b"2".to_vec()), None, Some(b"1".to_vec()), Some(b"2".to_vec()), None]);
    assert_eq!(storage.multi_get(Space::State, &[]).expect("the engine must not fail"), []);
}

fn snapshot_ignores_later_commits(storage: &dyn Storage) {
    commit(storage, 0, &[(Space::State, b"a", Some(b"1")), (Space::State, b"b", Some(b"1"))]);
    let view = storage.snapshot().expect("the engine must not fail");
    commit(storage, 1, &[(Space::State, b"a", Some(b"2")), (Space::State, b"b", None), (Space::State, b"c", Some(b"2"))]);
    assert_eq!(view.get(Space::State, b"a").expect("the engine must not fail"), Some(b"1".to_vec()));
    assert_eq!(view.get(Space::State, b"b").expect("the engine must not fail"), Some(b"1".to_vec()));
    assert_eq!(view.get(Space::State, b"c").expect("the engine must not fail"), None);
    assert_eq!(view.get(Space::Meta, HEIGHT_KEY).expect("the engine must not fail"), Some(height_key(0).to_vec()));
    let seen = collect(|visit| view.scan(Space::State, b"", b"", visit));
    assert_eq!(seen, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"1".to_vec())]);
    assert_eq!(get(storage, Space::State, b"a"), Some(b"2".to_vec()));
}

fn scan_is_of_one_moment(storage: &dyn Storage) {
    let keys: Vec<[u8; 2]> = (0..1_000u16).map(u16::to_be_bytes).collect();
    let writes: Vec<Write<'_>> = keys.iter().map(|key| (Space::State, &key[..], Some(&b"old"[..]))).collect();
    commit(storage, 0, &writes);
    let mut visited = 0;
    let mut commit_in_between = |_: &[u8], value: &[u8]| {
        if visited == 0 {
            let writes: Vec<Write<'_>> = keys.iter().map(|key| (Space::State, &key[..], Some(&b"new"[..]))).collect();
            commit(storage, 1, &writes);
        }
        visited += 1;
        assert_eq!(value, b"old", "a scan must not see a later commit");
        ControlFlow::Continue(())
    };
    storage.scan(Space::State, b"", b"", &mut commit_in_between).expect("the engine must not fail");
    assert_eq!(visited, 1_000);
}

fn checkpoint_is_a_database_of_its_moment(engine: &dyn Engine) {
    let parent = std::env::temp_dir().join(format!("millrace-conformance-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&parent).expect("the temporary directory is writable");
    let directory = parent.join("checkpoint");
    let storage = engine.create();
    commit(&*storage, 0, &[(Space::State, b"a", Some(b"1")), (Space::Body, b"big", Some(&[7; 100_000]))]);
    storage.checkpoint(&directory).expect("checkpoint must work");
    commit(&*storage, 1, &[(Space::State, b"a", Some(b"2"))]);
    {
        let copy = engine.open(&directory);
        assert_eq!(copy.height().expect("the engine must not fail"), Some(0));
        assert_eq!(get(&*copy, Space::State, b"a"), Some(b"1".to_vec()));
        assert_eq!(get(&*copy, Space::Body, b"big"), Some(vec![7; 100_000]));
        copy.verify().expect("a checkpoint is sound");
        commit(&*copy, 1, &[(Space::State, b"a", Some(b"3"))]);
        assert_eq!(get(&*storage, Space::State, b"a"), Some(b"2".to_vec()), "the copy is independent");
    }
    assert!(storage.checkpoint(&directory).is_err(), "a checkpoint does not overwrite");
    std::fs::remove_dir_all(&parent).expect("the temporary directory is ours");
}

fn readers_see_whole_batches(storage: &dyn Storage) {
    const BLOCKS: u64 = 300;
    let check = |view: &dyn StorageView| {
        let values = [&b"a"[..], b"m", b"z"].map(|key| view.get(Space::State, key).expect("the engine must not fail"));
        let height = view.get(Space::Meta, HEIGHT_KEY).expect("the engine must not fail");
        assert!(values.iter().all(|value| *value == height), "a snapshot must show whole blocks: {values:?} at {height:?}");
        height == Some(height_key(BLOCKS - 1).to_vec())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| while !check(&*storage.snapshot().expect("the engine must not fail")) {});
        for height in 0..BLOCKS {
            let value = height_key(height);
            commit(
                storage,
                height,
                &[(Space::State, b"a", Some(&value)), (Space::State, b"m", Some(&value)), (Space::State, b"z", Some(&value))],
            );
        }
    });
}

fn random_work_equals_the_model(engine: &dyn Engine) {
    for seed in 1..=8u64 {
        let mut random = Random(seed);
        let storage = engine.create();
        let mut model: Model = BTreeMap::new();
        let mut kept: Option<(Box<dyn StorageView>, Model)> = None;
        for height in 0..60 {
            let mut batch = Batch::default();
            for _ in 0..random.below(30) {
                let (space, key) = (random.space(), random.key());
                if random.below(3) == 0 {
                    batch.delete(space, key.clone());
                    model.remove(&(space, key));
                } else {
                    let length = if random.below(40) == 0 { 70_000 } else { random.below(100) };
                    let value = vec![random.below(256) as u8; length as usize];
                    batch.put(space, key.clone(), value.clone());
                    model.insert((space, key), value);
                }
            }
            let durability = if random.below(10) == 0 { Durability::Power } else { Durability::Process };
            storage.commit(height, &batch, durability).expect("the engine must not fail");
            model.insert((Space::Meta, HEIGHT_KEY.to_vec()), height_key(height).to_vec());
            compare(&mut random, &model, |space, key| storage.get(space, key), |space, prefix, from| scan(&*storage, space, prefix, from));
            if let Some((view, model)) = &kept {
                let scan = |space, prefix: &[u8], from: &[u8]| collect(|visit| view.scan(space, prefix, from, visit));
                compare(&mut random, model, |space, key| view.get(space, key), scan);
            }
            if random.below(10) == 0 {
                kept = Some((storage.snapshot().expect("the engine must not fail"), model.clone()));
            }
        }
        storage.verify().expect("random work leaves a sound database");
    }
}

fn compare(
    random: &mut Random,
    model: &Model,
    get: impl Fn(Space, &[u8]) -> Result<Option<Vec<u8>>, StorageError>,
    scan: impl Fn(Space, &[u8], &[u8]) -> Vec<Pair>,
) {
    for _ in 0..10 {
        let (space, key) = (random.space(), random.key());
        assert_eq!(get(space, &key).expect("the engine must not fail"), model.get(&(space, key.clone())).cloned(), "{space:?} {key:?}");
    }
    let (space, mut prefix, from) = (random.space(), random.key(), random.key());
    prefix.truncate(random.below(2) as usize);
    let expected: Vec<Pair> = model
        .iter()
        .filter(|((of, key), _)| *of == space && key.starts_with(&prefix) && *key >= from)
        .map(|((_, key), value)| (key.clone(), value.clone()))
        .collect();
    assert!(scan(space, &prefix, &from) == expected, "scan of {space:?} prefix {prefix:?} from {from:?}");
}

/// A small generator (xorshift), so that this module needs no test dependency; the same seed gives the same work.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn space(&mut self) -> Space {
        Space::ALL[self.below(Space::ALL.len() as u64) as usize]
    }

    /// Short keys of few bytes, so that they meet often and prefix each other.
    fn key(&mut self) -> Vec<u8> {
        (0..self.below(4)).map(|_| [0, 1, b'a', 0xff][self.below(4) as usize]).collect()
    }
}
