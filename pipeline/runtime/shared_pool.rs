//! A pool of threads for work that is not part of the block pipeline: `call`, estimates. A stage like any other, fed with closures.
//!
//! Invariants: bounded a group, refused when full, shared fairly between groups; a panicking job harms nobody but the one who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use millrace_base::GroupId;

use super::builder::{LaneQueue, StageSpec, TopologyBuilder};
use super::lanes::{LaneError, LaneSender, LaneSpec};
use super::stage::{Batch, Stage, StageFault};

/// The declaration of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSpec {
    /// Name of the stage.
    pub name: &'static str,
    /// Name of its queue.
    pub queue: &'static str,
    /// Name of the ingress that feeds it.
    pub ingress: &'static str,
    /// Threads.
    pub workers: usize,
    /// Jobs that may wait, a group.
    pub depth: usize,
    /// Groups at most.
    pub max_groups: usize,
    /// One line: what is run.
    pub what: &'static str,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    queued_at: Instant,
}

/// Totals of all jobs of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolTotals {
    /// Jobs that ran to their end.
    pub jobs: u64,
    /// Jobs that panicked.
    pub panics: u64,
    /// Time that jobs waited, nanoseconds.
    pub waited_ns: u64,
    /// Time that jobs ran, nanoseconds.
    pub ran_ns: u64,
    /// Longest run, nanoseconds.
    pub longest_ns: u64,
}

#[derive(Default)]
struct PoolCounters {
    jobs: AtomicU64,
    panics: AtomicU64,
    waited_ns: AtomicU64,
    ran_ns: AtomicU64,
    longest_ns: AtomicU64,
}

/// Hands jobs to the pool; clones share it.
#[derive(Clone)]
pub struct SharedPool {
    queue: LaneQueue<Job>,
    sender: LaneSender<Job>,
    counters: Arc<PoolCounters>,
}

impl SharedPool {
    /// Queues a job of a group. Never waits. The job gives its result through what it captured; if it panics, that is dropped, which tells the one who waits.
    ///
    /// # Errors
    /// [`LaneError`] with the job when the group's share is full, the group is unknown or the pool stops.
    pub fn submit(&self, group: GroupId, work: impl FnOnce() + Send + 'static) -> Result<(), LaneError<Box<dyn FnOnce() + Send>>> {
        let job = Job { work: Box::new(work), queued_at: Instant::now() };
        self.sender.send(group, job).map_err(|error| match error {
            LaneError::Full(job) => LaneError::Full(job.work),
            LaneError::NoLane(job) => LaneError::NoLane(job.work),
            LaneError::Closed(job) => LaneError::Closed(job.work),
        })
    }

    /// Opens the share of a group; false if it is open or there are too many.
    pub fn add_group(&self, group: GroupId) -> bool {
        self.queue.add_group(group)
    }

    /// Closes the share of a group; jobs that still waited are dropped, which tells those who wait for them. Gives their number.
    pub fn remove_group(&self, group: GroupId) -> usize {
        self.queue.remove_group(group).len()
    }

    /// Totals so far.
    pub fn totals(&self) -> PoolTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolTotals {
            jobs: read(&self.counters.jobs),
            panics: read(&self.counters.panics),
            waited_ns: read(&self.counters.waited_ns),
            ran_ns: read(&self.counters.ran_ns),
            longest_ns: read(&self.counters.longest_ns),
        }
    }
}

struct PoolStage {
    counters: Arc<PoolCounters>,
}

fn nanoseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Stage for PoolStage {
    type Input = Job;

    fn handle(&mut self, batch: &mut Batch<Job>) {
        while let Some(job) = batch.pop_front() {
            self.counters.waited_ns.fetch_add(nanoseconds_since(job.queued_at), Ordering::Relaxed);
            let start = Instant::now();
            (job.work)();
            let ran_ns = nanoseconds_since(start);
            self.counters.ran_ns.fetch_add(ran_ns, Ordering::Relaxed);
            self.counters.longest_ns.fetch_max(ran_ns, Ordering::Relaxed);
            self.counters.jobs.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn survives(&mut self, _fault: &StageFault) -> bool {
        // A job owns what it works on, so nothing of the stage is torn.
        self.counters.panics.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl TopologyBuilder {
    /// Declares a pool: its queue, its stage and its ingress.
    pub fn shared_pool(&mut self, spec: PoolSpec) -> SharedPool {
        let counters = Arc::new(PoolCounters::default());
        let queue = self.lanes(LaneSpec {
            name: spec.queue,
            lane_depth: spec.depth,
            lane_weight: spec.depth as u64,
            quantum: 1,
            batch_weight: 1,
            max_lanes: spec.max_groups,
            weight: |_: &Job| 1,
            why: "work on request: a group that asks for more is told to come back, the others do not notice",
        });
        let sender = self.ingress(spec.ingress, &queue);
        // One job a batch: a slow job must not hold up others while another thread is free.
        let mut stage = self.stage::<PoolStage>(StageSpec { name: spec.name, workers: spec.workers, max_batch: 1, what: spec.what });
        stage.reads(&queue, |job| job);
        stage.instances(|_| PoolStage { counters: Arc::clone(&counters) });
        SharedPool { queue, sender, counters }
    }
}
