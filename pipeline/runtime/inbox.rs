//! The reading side: all queues of one worker, taken fairly into one batch.
//!
//! Invariant: a flooded queue cannot keep the worker from its other queues: each turn starts with another queue, and each queue first gets an even share of the batch.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lanes::GroupLanes;
use super::queue::Shard;

/// One queue as a worker reads it, whatever its items were.
pub trait Source<I>: Send {
    /// Takes up to `max` items that are there now.
    fn take(&mut self, batch: &mut VecDeque<I>, max: usize) -> usize;
    /// True when an item waits.
    fn has_work(&self) -> bool;
    /// True when other workers read it too.
    fn is_shared(&self) -> bool;
    /// Refuses further items.
    fn close(&self);
    /// True when no sender is inside.
    fn is_vacant(&self) -> bool;
    /// Counts items that were thrown away because the worker failed.
    fn count_lost(&self, items: usize);
}

pub(crate) struct ShardSource<T, I> {
    pub(crate) shard: Arc<Shard<T>>,
    pub(crate) map: fn(T) -> I,
}

impl<T: Send + 'static, I> Source<I> for ShardSource<T, I> {
    fn take(&mut self, batch: &mut VecDeque<I>, max: usize) -> usize {
        self.shard.take(batch, max, self.map)
    }

    fn has_work(&self) -> bool {
        self.shard.len() > 0
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn close(&self) {
        self.shard.gates.close_all();
    }

    fn is_vacant(&self) -> bool {
        self.shard.gates.is_vacant()
    }

    fn count_lost(&self, items: usize) {
        self.shard.counters.lost.fetch_add(items as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

pub(crate) struct LaneSource<T, I> {
    pub(crate) lanes: Arc<GroupLanes<T>>,
    pub(crate) map: fn(T) -> I,
}

impl<T: Send + 'static, I> Source<I> for LaneSource<T, I> {
    fn take(&mut self, batch: &mut VecDeque<I>, max: usize) -> usize {
        self.lanes.take(batch, max, self.map)
    }

    fn has_work(&self) -> bool {
        self.lanes.has_work()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn close(&self) {
        self.lanes.gates.close_all();
    }

    fn is_vacant(&self) -> bool {
        self.lanes.gates.is_vacant()
    }

    fn count_lost(&self, items: usize) {
        self.lanes.counters.lost.fetch_add(items as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The queues of one worker.
pub(crate) struct Inbox<I> {
    sources: Vec<Box<dyn Source<I>>>,
    first: usize,
}

impl<I> Inbox<I> {
    pub(crate) fn new(sources: Vec<Box<dyn Source<I>>>) -> Self {
        Self { sources, first: 0 }
    }

    /// Fills `batch` with up to `max` items: first an even share of each queue, then what room is left.
    pub(crate) fn take(&mut self, batch: &mut VecDeque<I>, max: usize) -> usize {
        let count = self.sources.len();
        if count == 0 {
            return 0;
        }
        self.first = (self.first + 1) % count;
        let share = max.div_ceil(count);
        let mut taken = 0;
        for limit in [share, max] {
            for offset in 0..count {
                let room = max - taken;
                if room == 0 {
                    return taken;
                }
                taken += self.sources[(self.first + offset) % count].take(batch, room.min(limit));
            }
            if count == 1 || taken == 0 {
                break;
            }
        }
        taken
    }

    pub(crate) fn has_work(&self) -> bool {
        self.sources.iter().any(|source| source.has_work())
    }

    /// Leaves the queues that other workers read too to them.
    pub(crate) fn leave_shared(&mut self) {
        self.sources.retain(|source| !source.is_shared());
    }

    pub(crate) fn close(&self) {
        self.sources.iter().for_each(|source| source.close());
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.sources.iter().all(|source| source.is_vacant())
    }

    /// Throws away what waits, counted as lost. Gives the number of items.
    pub(crate) fn discard(&mut self, max: usize) -> usize {
        let mut thrown = VecDeque::new();
        let mut total = 0;
        for source in &mut self.sources {
            let taken = source.take(&mut thrown, max);
            source.count_lost(taken);
            total += taken;
            thrown.clear();
        }
        total
    }
}
