//! The `/topology` document: stages with the regimes of their workers, queues with their levels, and how they are connected.
//!
//! Counters count since the start; who reads twice gets what happened in between.

use millrace_pipeline::runtime::{MetricsHandle, QueueMetrics, Regime, WorkerMetrics};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyReport {
    /// Name of the pipeline.
    pub name: String,
    /// Stages along the arrows.
    pub stages: Vec<StageReport>,
    /// Queues in order of declaration.
    pub queues: Vec<QueueReport>,
}

/// A stage.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// What it does.
    pub what: String,
    /// Queues that it reads.
    pub reads: Vec<String>,
    /// Queues that it writes.
    pub writes: Vec<String>,
    /// Shares of time since the start, over all workers.
    pub shares: Shares,
    /// Its workers.
    pub workers: Vec<WorkerReport>,
}

/// Where time went, percent; the sum is 100.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shares {
    /// Handling items.
    pub busy: f64,
    /// Waiting for items.
    pub starved: f64,
    /// Waiting for room downstream.
    pub blocked: f64,
    /// Running timers.
    pub tick: f64,
}

/// A worker.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerReport {
    /// Nanoseconds handling items.
    pub busy_ns: u64,
    /// Nanoseconds waiting for items.
    pub starved_ns: u64,
    /// Nanoseconds waiting for room downstream.
    pub blocked_ns: u64,
    /// Nanoseconds in timers.
    pub tick_ns: u64,
    /// Items taken.
    pub items: u64,
    /// Batches handled.
    pub batches: u64,
    /// Panics caught.
    pub faults: u64,
    /// `runs`, `ended` or `failed`.
    pub state: String,
}

/// A queue.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueReport {
    /// Its name.
    pub name: String,
    /// Type of its items.
    pub item: String,
    /// What becomes of an item that finds no room.
    pub policy: String,
    /// Why it has this depth and policy.
    pub why: String,
    /// Who writes it; the outside in parentheses.
    pub from: Vec<String>,
    /// Who reads it.
    pub to: Vec<String>,
    /// Its parts: one a worker that reads it, one a group, or the whole.
    pub parts: Vec<PartReport>,
}

/// A part of a queue.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartReport {
    /// Reading worker, or group (0: sends that found no lane).
    pub part: usize,
    /// Items waiting.
    pub depth: usize,
    /// Items it holds at most.
    pub capacity: usize,
    /// Largest depth seen.
    pub high_water: usize,
    /// Items taken.
    pub received: u64,
    /// Sends refused.
    pub rejected: u64,
    /// Items dropped by policy.
    pub dropped: u64,
    /// Values replaced by newer ones.
    pub replaced: u64,
    /// Sends that waited for room.
    pub blocked_sends: u64,
    /// Items thrown away because the reader failed.
    pub lost: u64,
}

impl TopologyReport {
    /// A reading now.
    pub fn read(handle: &MetricsHandle) -> Self {
        let (wiring, metrics) = (handle.wiring(), handle.snapshot());
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let stages = wiring.stages.iter().map(|stage| {
            let found = metrics.stages.iter().find(|found| found.stage == stage.name);
            let workers: Vec<WorkerReport> = found.into_iter().flat_map(|found| &found.workers).map(WorkerReport::of).collect();
            StageReport {
                name: stage.name.into(),
                what: stage.what.into(),
                reads: owned(&stage.reads),
                writes: owned(&stage.writes),
                shares: Shares::of(&workers, &[]),
                workers,
            }
        });
        let queues = wiring.queues.iter().map(|queue| QueueReport {
            name: queue.name.into(),
            item: queue.item.into(),
            policy: queue.policy.into(),
            why: queue.why.into(),
            from: queue.from.clone(),
            to: owned(&queue.to),
            parts: metrics.queues.iter().filter(|part| part.queue == queue.name).map(PartReport::of).collect(),
        });
        Self { name: wiring.name.into(), stages: stages.collect(), queues: queues.collect() }
    }

    /// A stage by its name.
    pub fn stage(&self, name: &str) -> Option<&StageReport> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// A queue by its name.
    pub fn queue(&self, name: &str) -> Option<&QueueReport> {
        self.queues.iter().find(|queue| queue.name == name)
    }
}

impl StageReport {
    /// Where the time of all workers went since an earlier reading.
    pub fn shares_since(&self, earlier: Option<&StageReport>) -> Shares {
        Shares::of(&self.workers, earlier.map_or(&[], |earlier| &earlier.workers))
    }

    /// Items that all workers have taken.
    pub fn items(&self) -> u64 {
        self.workers.iter().map(|worker| worker.items).sum()
    }
}

impl Shares {
    fn of(now: &[WorkerReport], before: &[WorkerReport]) -> Self {
        let nothing = WorkerReport::default();
        let spent = |read: fn(&WorkerReport) -> u64| -> u64 {
            let pairs = now.iter().enumerate().map(|(index, worker)| (worker, before.get(index).unwrap_or(&nothing)));
            pairs.map(|(worker, before)| read(worker).saturating_sub(read(before))).sum()
        };
        let times = [spent(|w| w.busy_ns), spent(|w| w.starved_ns), spent(|w| w.blocked_ns), spent(|w| w.tick_ns)];
        let sum = times.iter().sum::<u64>().max(1) as f64;
        // Tenths of a percent: what a reader can use.
        let [busy, starved, blocked, tick] = times.map(|time| (time as f64 / sum * 1_000.0).round() / 10.0);
        Self { busy, starved, blocked, tick }
    }
}

impl WorkerReport {
    fn of(worker: &WorkerMetrics) -> Self {
        let state = match (worker.failed, worker.alive) {
            (true, _) => "failed",
            (false, true) => "runs",
            (false, false) => "ended",
        };
        Self {
            busy_ns: worker.times.of(Regime::Busy),
            starved_ns: worker.times.of(Regime::Starved),
            blocked_ns: worker.times.of(Regime::Blocked),
            tick_ns: worker.times.of(Regime::Tick),
            items: worker.items,
            batches: worker.batches,
            faults: worker.faults,
            state: state.into(),
        }
    }
}

impl PartReport {
    fn of(queue: &QueueMetrics) -> Self {
        Self {
            part: queue.part,
            depth: queue.depth,
            capacity: queue.capacity,
            high_water: queue.high_water,
            received: queue.received,
            rejected: queue.rejected,
            dropped: queue.dropped,
            replaced: queue.replaced,
            blocked_sends: queue.blocked_sends,
            lost: queue.lost,
        }
    }
}

impl QueueReport {
    /// All parts as one: sums, but for the capacity and high water of the largest part.
    pub fn total(&self) -> PartReport {
        let mut total = PartReport::default();
        for part in &self.parts {
            total.depth += part.depth;
            total.capacity = total.capacity.max(part.capacity);
            total.high_water = total.high_water.max(part.high_water);
            total.received += part.received;
            total.rejected += part.rejected;
            total.dropped += part.dropped;
            total.replaced += part.replaced;
            total.blocked_sends += part.blocked_sends;
            total.lost += part.lost;
        }
        total
    }
}
