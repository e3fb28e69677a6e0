//! What the transactions of one block read and wrote, all versions of it: the state that speculative executions see.
//!
//! Invariant: a place is made once for each key and stays until the block is complete, so workers and read sets hold plain references.
//! What is below the block is fetched once for each place. Called by [`super::front`] and [`super::view`].

use std::hash::BuildHasher;
use std::sync::OnceLock;

use hashbrown::{DefaultHashBuilder, HashTable};
use millrace_core::overlay::Writes;
use millrace_core::{StateKey, StateReader, StateValue, StorageError};
use parking_lot::Mutex;

use super::shared::Versions;

/// Parts of the index with a lock each: several for each core that could come at the same time.
const SHARDS: usize = 64;

/// Places in the first row of a shard; each further row has twice as many.
const FIRST_ROW: usize = 16;

/// Rows of a shard: 2^24 places, more than the gas of a block pays for.
const ROWS: usize = 20;

/// Rows of a shard that are kept from block to block: room for ten thousand payments, about 9 MB in all shards.
const KEPT_ROWS: usize = 5;

/// Places that a worker finds without asking the index: what every transaction touches.
const REMEMBERED: usize = 512;

/// One value of the state in this block.
pub(super) struct Place {
    hash: u64,
    key: StateKey,
    below: OnceLock<Option<StateValue>>,
    /// By transaction.
    pub versions: Versions<Option<StateValue>>,
}

impl Place {
    /// The value in the state below the block.
    pub fn below(&self, state: &dyn StateReader) -> Result<Option<StateValue>, StorageError> {
        if let Some(value) = self.below.get() {
            return Ok(value.clone());
        }
        let value = state.read(&self.key)?;
        Ok(self.below.get_or_init(|| value).clone())
    }

    fn is(&self, hash: u64, key: &StateKey) -> bool {
        self.hash == hash && self.key == *key
    }
}

/// Places that share a lock. They stand in rows of fixed length beside the locked index, so that references to them stay good.
struct Shard {
    index: Mutex<HashTable<u32>>,
    rows: [OnceLock<Box<[OnceLock<Place>]>>; ROWS],
}

/// Row of a place and position in it.
fn row_of(number: u32) -> (usize, usize) {
    let counted = number as usize / FIRST_ROW + 1;
    let row = counted.ilog2() as usize;
    (row, number as usize - FIRST_ROW * ((1 << row) - 1))
}

impl Shard {
    fn new() -> Self {
        Self { index: Mutex::default(), rows: [const { OnceLock::new() }; ROWS] }
    }

    fn place(&self, number: u32) -> &Place {
        let (row, position) = row_of(number);
        let row = self.rows[row].get().expect("the index names rows that exist");
        row[position].get().expect("the index names places that exist")
    }

    fn find_or_make(&self, hash: u64, key: &StateKey) -> &Place {
        let mut index = self.index.lock();
        if let Some(number) = index.find(hash, |number| self.place(*number).is(hash, key)) {
            return self.place(*number);
        }
        let number = u32::try_from(index.len()).expect("fewer places than rows hold");
        let (row, position) = row_of(number);
        let row = self.rows[row].get_or_init(|| (0..FIRST_ROW << row).map(|_| OnceLock::new()).collect());
        let place = Place { hash, key: key.clone(), below: OnceLock::new(), versions: Versions::default() };
        let place = row[position].get_or_init(|| place);
        index.insert_unique(hash, number, |number| self.place(*number).hash);
        place
    }
}

/// All places of a block. Reused from block to block.
pub(in crate::verifier) struct Memory {
    hasher: DefaultHashBuilder,
    shards: Vec<Shard>,
}

impl Memory {
    /// Of a block that nothing was read or written in yet.
    pub fn new() -> Self {
        Self { hasher: DefaultHashBuilder::default(), shards: (0..SHARDS).map(|_| Shard::new()).collect() }
    }

    fn place(&self, hash: u64, key: &StateKey) -> &Place {
        // The table uses the low bits and the top seven; these are neither.
        self.shards[(hash >> 32) as usize % SHARDS].find_or_make(hash, key)
    }

    /// Its parts, whose writes can be taken on several threads. It is as new when all have been taken.
    pub(super) fn parts(&mut self) -> Vec<Part<'_>> {
        self.shards.iter_mut().map(Part).collect()
    }
}

/// A part of the memory of a block that is complete.
pub(super) struct Part<'m>(&'m mut Shard);

impl Part<'_> {
    /// Takes what the block changed of this part, unsorted.
    pub fn take_into(self, writes: &mut Writes) {
        let Shard { index, rows } = self.0;
        let index = index.get_mut();
        let places = rows.iter_mut().filter_map(OnceLock::get_mut).flat_map(|row| row.iter_mut());
        for place in places.take(index.len()).filter_map(OnceLock::take) {
            if let Some(value) = place.versions.into_last() {
                writes.push((place.key, value));
            }
        }
        index.clear();
        index.shrink_to(FIRST_ROW << KEPT_ROWS, |_| unreachable!("it is empty"));
        rows[KEPT_ROWS..].iter_mut().for_each(|row| drop(row.take()));
    }
}

/// A worker's way to the places, which knows the last ones without a lock.
pub(super) struct Finder<'m> {
    memory: &'m Memory,
    remembered: Box<[std::cell::Cell<Option<&'m Place>>]>,
}

impl<'m> Finder<'m> {
    /// One that remembers nothing yet.
    pub fn new(memory: &'m Memory) -> Self {
        Self { memory, remembered: (0..REMEMBERED).map(|_| std::cell::Cell::new(None)).collect() }
    }

    /// The place of a key.
    pub fn find(&self, key: &StateKey) -> &'m Place {
        let hash = self.memory.hasher.hash_one(key);
        let remembered = &self.remembered[hash as usize % REMEMBERED];
        match remembered.get() {
            Some(place) if place.is(hash, key) => place,
            _ => {
                let place = self.memory.place(hash, key);
                remembered.set(Some(place));
                place
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::{Address, U256};

    #[test]
    fn numbers_fill_row_after_row() {
        assert_eq!([0, 15, 16, 47, 48].map(row_of), [(0, 0), (0, 15), (1, 0), (1, 31), (2, 0)]);
        assert_eq!(row_of((FIRST_ROW * ((1 << ROWS) - 1)) as u32 - 1).0, ROWS - 1);
    }

    #[test]
    fn each_key_has_one_place_whoever_asks_first() {
        let mut memory = Memory::new();
        let key = |index: u64| StateKey::Slot(Address::ZERO, 0, U256::from(index));
        std::thread::scope(|scope| {
            for start in 0..4 {
                let memory = &memory;
                scope.spawn(move || {
                    let finder = Finder::new(memory);
                    for index in 0..4_000 {
                        let index = (index + start * 1_000) % 4_000;
                        let value = U256::from(index + 1);
                        finder.find(&key(index)).versions.publish(start as u32, 0, Some(StateValue::Slot(value)));
                    }
                });
            }
        });
        let mut writes = Writes::new();
        memory.parts().into_iter().for_each(|part| part.take_into(&mut writes));
        writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let expected: Writes = (0..4_000).map(|index| (key(index), Some(StateValue::Slot(U256::from(index + 1))))).collect();
        assert_eq!(writes, expected);
        Finder::new(&memory).find(&key(7)).versions.publish(3, 0, None);
        writes.clear();
        memory.parts().into_iter().for_each(|part| part.take_into(&mut writes));
        assert_eq!(writes, [(key(7), None)], "nothing is left of the block before");
    }
}
