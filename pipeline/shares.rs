//! Room for what other nodes send: each sender has a share of its own, in frames and bytes, at each door.
//!
//! Invariants: whoever floods takes nothing of the others' shares; a sender of whom nothing waits has no entry, so the table is no larger
//! than what waits. A single frame larger than the share enters when nothing else of its sender waits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What one sender may have waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub frames: usize,
    pub bytes: usize,
}

#[derive(Default)]
struct Share {
    frames: usize,
    bytes: usize,
}

/// The shares of all senders at one door, whom `K` tells apart.
pub(crate) struct Shares<K: Eq + Hash + Copy> {
    limits: Limits,
    taken: Mutex<HashMap<K, Share>>,
    dropped: AtomicU64,
}

impl<K: Eq + Hash + Copy> Shares<K> {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default(), dropped: AtomicU64::new(0) })
    }

    /// Takes room for a frame until the result is dropped; `None` when the sender's share is full.
    pub fn enter(self: &Arc<Self>, sender: K, bytes: usize) -> Option<Room<K>> {
        let mut taken = self.taken.lock();
        let share = taken.entry(sender).or_default();
        let fits = share.frames < self.limits.frames && share.bytes.saturating_add(bytes) <= self.limits.bytes;
        if share.frames > 0 && !fits {
            return None;
        }
        share.frames += 1;
        share.bytes += bytes;
        Some(Room { shares: Arc::clone(self), sender, bytes })
    }

    /// A frame was dropped, for whatever reason.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Room that a frame takes while it waits.
pub(crate) struct Room<K: Eq + Hash + Copy> {
    shares: Arc<Shares<K>>,
    sender: K,
    bytes: usize,
}

impl<K: Eq + Hash + Copy> Drop for Room<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        let Some(share) = taken.get_mut(&self.sender) else { return };
        share.frames -= 1;
        share.bytes -= self.bytes;
        if share.frames == 0 {
            taken.remove(&self.sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flooding_sender_takes_nothing_of_the_shares_of_others_and_gets_its_room_back() {
        let shares = Shares::new(Limits { frames: 5, bytes: 1_000 });
        let (loud, quiet) = (1, 2);
        let rooms: Vec<_> = std::iter::from_fn(|| shares.enter(loud, 100)).collect();
        assert_eq!(rooms.len(), 5);
        let large = shares.enter(quiet, 1_001);
        assert!(large.is_some() && shares.enter(quiet, 1).is_none(), "a single large frame enters an empty share");
        drop(rooms);
        assert!(shares.enter(loud, 900).is_some());
        drop(large);
        assert!(shares.taken.lock().is_empty(), "who has nothing waiting has no entry");
    }
}
