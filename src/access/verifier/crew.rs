//! Threads that help to execute blocks: one crew a node, shared by all groups.
//!
//! Invariant: a job is given only to helpers that are free at that moment, so no block waits behind another group's; the thread that asks
//! takes part and needs none of them. Helpers sleep while there is nothing to do. Called by the block executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use millrace_vm::{EvmRules, Executor};
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::parallel::Memory;

/// Threads of the operating system that a crew may have.
pub const MAX_THREADS: usize = 256;

/// What the crew did since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CrewTotals {
    /// Blocks executed by several threads.
    pub parallel_blocks: u64,
    /// Blocks executed by one thread.
    pub serial_blocks: u64,
    /// Executions of transactions whose result was not used.
    pub reexecutions: u64,
}

#[derive(Default)]
struct Counters {
    parallel_blocks: AtomicU64,
    serial_blocks: AtomicU64,
    reexecutions: AtomicU64,
}

/// See the module.
pub struct Crew {
    pool: Option<ThreadPool>,
    free: AtomicUsize,
    counters: Counters,
    executors: Mutex<Vec<(EvmRules, Arc<Spares<Executor>>)>>,
    memories: Spares<Memory>,
}

/// The operating system gave no threads.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the threads that execute blocks together: {0}")]
pub struct CrewError(String);

/// A helper that works; free again when dropped.
struct Hand<'c>(&'c Crew);

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
    }
}

impl Crew {
    /// So many threads for one block, the one that asks included: `threads` - 1 helpers.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(threads: usize) -> Result<Arc<Self>, CrewError> {
        let helpers = threads.clamp(1, MAX_THREADS) - 1;
        let pool = match helpers {
            0 => None,
            _ => Some(
                ThreadPoolBuilder::new()
                    .num_threads(helpers)
                    .thread_name(|index| format!("crew-{index}"))
                    .build()
                    .map_err(|error| CrewError(error.to_string()))?,
            ),
        };
        Ok(Arc::new(Self::with_pool(pool, helpers)))
    }

    /// Nobody helps.
    pub fn alone() -> Arc<Self> {
        Arc::new(Self::with_pool(None, 0))
    }

    fn with_pool(pool: Option<ThreadPool>, helpers: usize) -> Self {
        Self {
            pool,
            free: AtomicUsize::new(helpers),
            counters: Counters::default(),
            executors: Mutex::default(),
            memories: Spares::new(Memory::new),
        }
    }

    /// Helpers that have nothing to do now.
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Acquire)
    }

    /// What was done so far.
    pub fn totals(&self) -> CrewTotals {
        let Counters { parallel_blocks, serial_blocks, reexecutions } = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CrewTotals { parallel_blocks: read(parallel_blocks), serial_blocks: read(serial_blocks), reexecutions: read(reexecutions) }
    }

    /// A block was executed by one thread.
    pub(super) fn count_serial(&self) {
        self.counters.serial_blocks.fetch_add(1, Ordering::Relaxed);
    }

    /// A block was executed by several threads; so many executions were lost.
    pub(super) fn count_parallel(&self, lost: u32) {
        self.counters.parallel_blocks.fetch_add(1, Ordering::Relaxed);
        self.counters.reexecutions.fetch_add(u64::from(lost), Ordering::Relaxed);
    }

    /// Machines with some rules, for whoever executes next: groups with the same rules share them.
    pub(super) fn executors(&self, rules: EvmRules) -> Arc<Spares<Executor>> {
        let mut executors = self.executors.lock();
        if let Some((_, spares)) = executors.iter().find(|known| known.0 == rules) {
            return Arc::clone(spares);
        }
        let spares = Arc::new(Spares::new(move || Executor::new(rules)));
        executors.push((rules, Arc::clone(&spares)));
        spares
    }

    /// Memories of blocks that nobody uses, at most one for each block that was ever executed at the same time.
    pub(super) fn memories(&self) -> &Spares<Memory> {
        &self.memories
    }

    /// Runs `work` here and on at most `wanted` free helpers at once; returns when all have ended.
    pub(super) fn together(&self, wanted: usize, work: impl Fn() + Sync) {
        let hands = self.reserve(wanted);
        let Some(pool) = self.pool.as_ref().filter(|_| !hands.is_empty()) else {
            return work();
        };
        pool.in_place_scope(|scope| {
            for hand in hands {
                let work = &work;
                scope.spawn(move |_| {
                    let _hand = hand;
                    work();
                });
            }
            work();
        });
    }

    /// Works on all inputs, here and on free helpers; results in order.
    pub(super) fn map<I: Send, T: Send>(&self, inputs: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
        let cells: Vec<Mutex<(Option<I>, Option<T>)>> = inputs.into_iter().map(|input| Mutex::new((Some(input), None))).collect();
        let next = AtomicUsize::new(0);
        self.together(cells.len().saturating_sub(1), || {
            while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut cell = cell.lock();
                cell.1 = cell.0.take().map(&work);
            }
        });
        cells.into_iter().map(|cell| cell.into_inner().1.expect("every input was taken by a worker that has ended")).collect()
    }

    fn reserve(&self, wanted: usize) -> Vec<Hand<'_>> {
        let mut hands = Vec::new();
        while hands.len() < wanted && self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1)).is_ok() {
            hands.push(Hand(self));
        }
        hands
    }
}

/// Machines or memories that nobody uses at the moment. There are at most as many as ever worked at once.
pub(super) struct Spares<R> {
    make: Box<dyn Fn() -> R + Send + Sync>,
    idle: Mutex<Vec<R>>,
}

impl<R> Spares<R> {
    /// Makes machines when none is left.
    pub fn new(make: impl Fn() -> R + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), idle: Mutex::default() }
    }

    /// Lends a machine. One that panicked is not lent again.
    pub fn with<T>(&self, work: impl FnOnce(&mut R) -> T) -> T {
        let spare = self.idle.lock().pop();
        let mut runner = spare.unwrap_or_else(|| (self.make)());
        let result = work(&mut runner);
        self.idle.lock().push(runner);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_once_whoever_is_free() {
        for threads in [1, 2, 5] {
            let crew = Crew::new(threads).unwrap();
            let squares = crew.map((0..100u64).collect(), |number| number * number);
            assert_eq!(squares, (0..100u64).map(|number| number * number).collect::<Vec<_>>());
            assert_eq!(crew.free(), threads - 1);
            let nested = crew.map(vec![1u64, 2, 3], |number| crew.map(vec![number; 3], |number| number).len());
            assert_eq!(nested, [3, 3, 3]);
        }
    }

    #[test]
    fn panic_of_a_helper_reaches_the_caller_and_frees_the_helper() {
        let crew = Crew::new(3).unwrap();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crew.map(vec![1, 2, 3, 4], |number| assert_ne!(number, 3))));
        assert!(ran.is_err());
        assert_eq!(crew.free(), 2);
        assert_eq!(crew.map(vec![1, 2], |number| number), [1, 2]);
    }
}
