//! The nonces of the last 1,000 blocks, as one shard of the pool keeps them.
//!
//! Invariant: `contains` is exact, never a guess: a nonce is found if and only if a block of the window used it. Each nonce is stored once
//! (32 bytes in a ring, in the order of blocks) and found through a table of 8-byte places in that ring, so a window of ten million
//! nonces costs about half a gigabyte and sliding it forward touches only what leaves. Called by the pool under the shard's lock.

use std::collections::VecDeque;

use hashbrown::HashTable;
use millrace_base::U256;

/// Rings and tables below this many nonces are not worth shrinking.
const SMALL: usize = 1_024;

/// See the module.
#[derive(Default)]
pub(super) struct NonceWindow {
    ring: VecDeque<U256>,
    /// Position of the ring's front; positions wrap, differences between live ones do not.
    front: u32,
    runs: VecDeque<Run>,
    places: HashTable<Place>,
}

/// The nonces of one block: the next `count` in the ring.
struct Run {
    height: u64,
    count: u32,
}

/// Where in the ring a nonce with this fingerprint stands.
#[derive(Debug)]
struct Place {
    fingerprint: u32,
    position: u32,
}

impl Place {
    fn hash(&self) -> u64 {
        spread(self.fingerprint)
    }
}

/// Fingerprints are halves of a keyed hash; the table wants its bits spread over all 64.
fn spread(fingerprint: u32) -> u64 {
    u64::from(fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The half of the pool's keyed hash that the window uses.
fn fingerprint(hash: u64) -> u32 {
    (hash & u64::from(u32::MAX)) as u32
}

impl NonceWindow {
    /// Whether a block of the window used the nonce. `hash` is the pool's keyed hash of it.
    pub(super) fn contains(&self, nonce: &U256, hash: u64) -> bool {
        let wanted = fingerprint(hash);
        let same = |place: &Place| place.fingerprint == wanted && self.at(place.position) == Some(nonce);
        self.places.find(spread(wanted), same).is_some()
    }

    /// Whether a block from `first` to `last` used the nonce.
    pub(super) fn was_used(&self, nonce: &U256, hash: u64, first: u64, last: u64) -> bool {
        let wanted = fingerprint(hash);
        let same = |place: &&Place| place.fingerprint == wanted && self.at(place.position) == Some(nonce);
        let mut heights = self.places.iter_hash(spread(wanted)).filter(same).filter_map(|place| self.height_of(place.position));
        heights.any(|height| height >= first && height <= last)
    }

    /// The block that used the nonce at a position. A walk over the runs, for nonces that were found, which is rare.
    fn height_of(&self, position: u32) -> Option<u64> {
        let mut index = position.wrapping_sub(self.front);
        for run in &self.runs {
            if index < run.count {
                return Some(run.height);
            }
            index -= run.count;
        }
        None
    }

    fn at(&self, position: u32) -> Option<&U256> {
        self.ring.get(position.wrapping_sub(self.front) as usize)
    }

    /// Adds a nonce that the block at `height` used. Heights never fall between calls; one that does is counted to the highest.
    pub(super) fn push(&mut self, height: u64, nonce: U256, hash: u64) {
        let length = u32::try_from(self.ring.len()).expect("1,000 blocks of at most 100,000 transactions fit 32 bits");
        let place = Place { fingerprint: fingerprint(hash), position: self.front.wrapping_add(length) };
        self.ring.push_back(nonce);
        match self.runs.back_mut() {
            Some(run) if run.height >= height => run.count += 1,
            _ => self.runs.push_back(Run { height, count: 1 }),
        }
        self.places.insert_unique(place.hash(), place, Place::hash);
    }

    /// Forgets the nonces of blocks below `oldest`; `hash_of` is the pool's keyed hash.
    pub(super) fn slide(&mut self, oldest: u64, hash_of: impl Fn(&U256) -> u64) {
        while self.runs.front().is_some_and(|run| run.height < oldest) {
            let run = self.runs.pop_front().expect("looked at above");
            for _ in 0..run.count {
                let nonce = self.ring.pop_front().expect("runs cover the ring");
                self.forget(fingerprint(hash_of(&nonce)));
            }
        }
        if self.ring.capacity() > SMALL && self.ring.len() < self.ring.capacity() / 4 {
            let keep = (self.ring.len() * 2).max(SMALL);
            self.ring.shrink_to(keep);
            self.places.shrink_to(keep, Place::hash);
        }
    }

    /// Removes the place of the nonce that has just left the front of the ring.
    fn forget(&mut self, fingerprint: u32) {
        let position = self.front;
        let place = self.places.find_entry(spread(fingerprint), |place| place.position == position);
        place.expect("every nonce in the ring has a place").remove();
        self.front = self.front.wrapping_add(1);
    }

    /// Nonces in the window.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash so poor that most nonces share a fingerprint: exactness must not depend on it.
    fn poor(nonce: &U256) -> u64 {
        nonce.as_limbs()[0] % 3
    }

    fn contains(window: &NonceWindow, nonce: u64) -> bool {
        let nonce = U256::from(nonce);
        window.contains(&nonce, poor(&nonce))
    }

    #[test]
    fn window_is_exact_even_where_fingerprints_collide() {
        let mut window = NonceWindow::default();
        for height in 1..=20_u64 {
            for nonce in height * 10..height * 10 + height % 4 {
                window.push(height, U256::from(nonce), poor(&U256::from(nonce)));
            }
            window.slide(height.saturating_sub(4), poor);
            for nonce in 0..300 {
                let block = nonce / 10;
                let expected = block >= 1 && block <= height && block >= height.saturating_sub(4) && nonce % 10 < block % 4;
                assert_eq!(contains(&window, nonce), expected, "nonce {nonce} at height {height}");
            }
        }
    }

    #[test]
    fn positions_may_wrap() {
        let mut window = NonceWindow { front: u32::MAX - 2, ..NonceWindow::default() };
        for nonce in 0..6 {
            window.push(nonce, U256::from(nonce), poor(&U256::from(nonce)));
        }
        window.slide(4, poor);
        assert_eq!((0..6).filter(|nonce| contains(&window, *nonce)).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn nonce_used_twice_stays_until_its_last_block_leaves() {
        let mut window = NonceWindow::default();
        window.push(1, U256::ZERO, 0);
        window.push(2, U256::ZERO, 0);
        window.slide(2, poor);
        assert!(contains(&window, 0));
        window.slide(3, poor);
        assert!(!contains(&window, 0));
    }

    #[test]
    fn memory_of_a_busy_time_is_given_back() {
        let mut window = NonceWindow::default();
        for nonce in 0..100_000 {
            window.push(nonce / 1000, U256::from(nonce), nonce.wrapping_mul(0x9e37_79b9));
        }
        window.slide(99, |nonce| nonce.as_limbs()[0].wrapping_mul(0x9e37_79b9));
        assert_eq!(window.len(), 1_000);
        assert!(window.ring.capacity() < 10_000 && window.places.capacity() < 10_000);
    }
}
