use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, mpsc::Receiver};

use millrace_base::{Address, Bytes, U256};

use super::*;
use crate::state::codec::encode_value;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Batch, Durability, StorageView, Visit};

fn slot(index: u64) -> StateKey {
    StateKey::Slot(Address::ZERO, 0, U256::from(index))
}

fn number(value: u64) -> Option<StateValue> {
    Some(StateValue::Slot(U256::from(value)))
}

fn batch(writes: &Writes) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in writes {
        batch.writes.push((Space::State, encode_key(key), value.as_ref().map(encode_value)));
    }
    batch
}

/// Counts reads and can hold one of them up between fetching and returning.
struct Slow {
    below: MemoryStorage,
    reads: AtomicU64,
    hold: Mutex<Option<(mpsc::Sender<()>, Receiver<()>)>>,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { below: MemoryStorage::new(), reads: AtomicU64::new(0), hold: Mutex::new(None) })
    }
}

impl Storage for Slow {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let value = self.below.get(space, key);
        if let Some((fetched, go_on)) = self.hold.lock().unwrap().take() {
            fetched.send(()).unwrap();
            go_on.recv().unwrap();
        }
        value
    }
    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        self.below.multi_get(space, keys)
    }
    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.below.scan(space, prefix, from, visit)
    }
    fn height(&self) -> Result<Option<u64>, StorageError> {
        self.below.height()
    }
    fn commit(&self, height: u64, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        self.below.commit(height, batch, durability)
    }
    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        self.below.snapshot()
    }
    fn checkpoint(&self, directory: &std::path::Path) -> Result<(), StorageError> {
        self.below.checkpoint(directory)
    }
    fn verify(&self) -> Result<(), StorageError> {
        self.below.verify()
    }
    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.below.stats()
    }
}

#[test]
fn second_read_needs_no_storage_for_present_and_absent_values() {
    let storage = Slow::new();
    let writes = vec![(slot(1), number(7))];
    storage.commit(0, &batch(&writes), Durability::Process).unwrap();
    let cache = StateCache::new(storage.clone(), 1 << 20);
    for _ in 0..3 {
        assert_eq!(cache.read(&slot(1)).unwrap(), number(7));
        assert_eq!(cache.read(&slot(2)).unwrap(), None);
    }
    assert_eq!(storage.reads.load(Ordering::Relaxed), 2);
}

#[test]
fn applied_values_are_read_without_storage() {
    let storage = Slow::new();
    let cache = StateCache::new(storage.clone(), 1 << 20);
    cache.apply(&vec![(slot(1), number(1)), (slot(2), None)]);
    assert_eq!(cache.read(&slot(1)).unwrap(), number(1));
    assert_eq!(cache.read(&slot(2)).unwrap(), None);
    assert_eq!(storage.reads.load(Ordering::Relaxed), 0);
}

#[test]
fn value_fetched_before_a_commit_is_not_cached_after_it() {
    let storage = Slow::new();
    let cache = Arc::new(StateCache::new(storage.clone(), 0));
    let caching = Arc::new(StateCache::new(storage.clone(), 1 << 20));
    for cache in [cache, caching] {
        let height = storage.height().unwrap().map_or(0, |height| height + 1);
        storage.commit(height, &batch(&vec![(slot(1), number(1))]), Durability::Process).unwrap();
        let (fetched, has_fetched) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        *storage.hold.lock().unwrap() = Some((fetched, may_go_on));
        let reader = std::thread::spawn({
            let cache = cache.clone();
            move || cache.read(&slot(1)).unwrap()
        });
        has_fetched.recv().unwrap();
        let writes = vec![(slot(1), number(2))];
        storage.commit(height + 1, &batch(&writes), Durability::Process).unwrap();
        cache.apply(&writes);
        // Drives the applied value out again, so that only the late reader could bring one in.
        let filler: Writes = (1_000..20_000).map(|index| (slot(index), None)).collect();
        cache.apply(&filler);
        go_on.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), number(1));
        assert_eq!(cache.read(&slot(1)).unwrap(), number(2));
    }
}

#[test]
fn readers_beside_the_writer_never_see_a_value_older_than_an_applied_one() {
    const KEYS: u64 = 40;
    let storage = Arc::new(MemoryStorage::new());
    // So small that values are driven out all the time and fetched again.
    let cache = Arc::new(StateCache::new(storage.clone(), 4_000));
    let applied = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3u64)
        .map(|reader| {
            let (cache, applied, is_over) = (cache.clone(), applied.clone(), is_over.clone());
            std::thread::spawn(move || {
                let mut index = reader;
                while !is_over.load(Ordering::Relaxed) {
                    index = (index * 5 + 1) % KEYS;
                    let floor = applied.load(Ordering::Acquire);
                    match cache.read(&slot(index)).unwrap() {
                        Some(StateValue::Slot(value)) => assert!(value >= U256::from(floor), "{value} is older than {floor}"),
                        other => assert!(floor == 0 && other.is_none()),
                    }
                }
            })
        })
        .collect();
    for height in 0..1_500u64 {
        let writes: Writes = (0..KEYS).map(|index| (slot(index), number(height + 1))).collect();
        storage.commit(height, &batch(&writes), Durability::Process).unwrap();
        cache.apply(&writes);
        applied.store(height + 1, Ordering::Release);
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn memory_stays_within_the_budget_and_what_is_used_stays() {
    let storage = Slow::new();
    let budget = 1 << 20;
    let cache = StateCache::new(storage.clone(), budget);
    let code = |byte: u8| Some(StateValue::Code(Bytes::from(vec![byte; 1_000])));
    let hot = slot(0);
    cache.apply(&vec![(hot.clone(), number(1))]);
    for round in 0..5_000u64 {
        cache.apply(&vec![(StateKey::Code(U256::from(round).into()), code(round as u8))]);
        if round % 100 == 0 {
            assert_eq!(cache.read(&hot).unwrap(), number(1));
        }
        assert!(cache.size_bytes() <= budget);
    }
    assert_eq!(storage.reads.load(Ordering::Relaxed), 0);
}

#[test]
fn value_larger_than_a_generation_is_read_from_storage_after_it_changed() {
    let storage = Slow::new();
    let cache = StateCache::new(storage.clone(), 4_096);
    let key = StateKey::Row("u_t".into(), Arc::from(&b"k"[..]));
    let row = |length: usize| {
        let fields = BTreeMap::from([("value".into(), Bytes::from(vec![1; length]))]);
        Some(StateValue::Row(Arc::new(vec![crate::state::Entry { id: 0, fields }])))
    };
    for (height, length) in [10, 10_000, 20].into_iter().enumerate() {
        let writes = vec![(key.clone(), row(length))];
        storage.commit(height as u64, &batch(&writes), Durability::Process).unwrap();
        cache.apply(&writes);
        assert_eq!(cache.read(&key).unwrap(), row(length));
    }
}

#[test]
fn damaged_value_names_its_key() {
    let storage = Slow::new();
    let mut batch = Batch::default();
    batch.put(Space::State, encode_key(&slot(1)), [0, 1]);
    storage.commit(0, &batch, Durability::Process).unwrap();
    let error = StateCache::new(storage, 1 << 20).read(&slot(1)).unwrap_err();
    assert!(error.to_string().contains("000000000001"), "{error}");
}
