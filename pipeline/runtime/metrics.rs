//! What an operator sees of the running pipeline: time regimes of each worker, depth and fate of each queue; as Prometheus text and as a table.
//!
//! Invariant: reading takes no lock that a stage holds for longer than one queue operation. Called by `/metrics`, `millrace top` and `topology --live`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::graph::Graph;
use super::queue::Probe;
use super::regime::{Regime, RegimeTotals};
use super::wiring::Wiring;
use super::worker::{End, StageControl};

/// One worker of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkerMetrics {
    /// Where its time went.
    pub times: RegimeTotals,
    /// Items taken.
    pub items: u64,
    /// Batches handled.
    pub batches: u64,
    /// Panics caught.
    pub faults: u64,
    /// False once its thread has ended or failed.
    pub alive: bool,
    /// It ended by a panic that it did not survive.
    pub failed: bool,
}

/// One stage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StageMetrics {
    /// Its name.
    pub stage: &'static str,
    /// Its workers, by index.
    pub workers: Vec<WorkerMetrics>,
}

/// One queue, or one part of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueMetrics {
    /// Its name.
    pub queue: &'static str,
    /// Name of the item's type.
    pub item: &'static str,
    /// Worker that reads this part of a pinned queue; group of this lane of a lane queue (0: sends that found no lane).
    pub part: usize,
    /// Items waiting.
    pub depth: usize,
    /// Items it holds at most.
    pub capacity: usize,
    /// Largest depth seen by the reader or a refused sender.
    pub high_water: usize,
    /// Items taken by the reader.
    pub received: u64,
    /// Sends refused: full or closed.
    pub rejected: u64,
    /// Items dropped by policy.
    pub dropped: u64,
    /// Values replaced by newer ones.
    pub replaced: u64,
    /// Sends that had to wait.
    pub blocked_sends: u64,
    /// Items thrown away because the reading worker failed.
    pub lost: u64,
}

/// A reading of the whole pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PipelineMetrics {
    /// Stages in order of declaration.
    pub stages: Vec<StageMetrics>,
    /// Queues in order of declaration, parts of a queue together.
    pub queues: Vec<QueueMetrics>,
}

/// Reads the pipeline's metrics, also after it has stopped.
#[derive(Clone)]
pub struct MetricsHandle {
    pub(crate) controls: Arc<[Arc<StageControl>]>,
    pub(crate) probes: Arc<[Arc<dyn Probe>]>,
    pub(crate) graph: Arc<Graph>,
}

impl MetricsHandle {
    /// Which stages and queues there are and how they are connected.
    pub fn wiring(&self) -> Wiring {
        Wiring::of(&self.graph)
    }

    /// A reading now.
    pub fn snapshot(&self) -> PipelineMetrics {
        let mut queues = Vec::new();
        self.probes.iter().for_each(|probe| probe.metrics(&mut queues));
        PipelineMetrics { stages: self.controls.iter().map(|control| read_stage(control)).collect(), queues }
    }
}

fn read_stage(control: &StageControl) -> StageMetrics {
    let read_worker = |worker: &super::worker::WorkerState| WorkerMetrics {
        times: worker.times.snapshot(),
        items: worker.items.load(Ordering::Relaxed),
        batches: worker.batches.load(Ordering::Relaxed),
        faults: worker.faults.load(Ordering::Relaxed),
        alive: worker.end.get().is_none(),
        failed: worker.end.get() == Some(&End::Failed),
    };
    StageMetrics { stage: control.name, workers: control.workers.iter().map(read_worker).collect() }
}

impl PipelineMetrics {
    /// Prometheus text format. Times in seconds.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::from(
            "# HELP millrace_stage_seconds_total Wall time of a stage's worker by regime; the regimes add up to it.\n# TYPE millrace_stage_seconds_total counter\n",
        );
        for (stage, worker, metrics) in self.workers() {
            for regime in Regime::ALL {
                let nanoseconds = metrics.times.of(regime);
                let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
                let regime = regime.name();
                let _ = writeln!(
                    text,
                    "millrace_stage_seconds_total{{stage=\"{stage}\",worker=\"{worker}\",regime=\"{regime}\"}} {seconds}.{rest:09}"
                );
            }
        }
        type WorkerColumn = (&'static str, &'static str, &'static str, fn(&WorkerMetrics) -> u64);
        let columns: [WorkerColumn; 4] = [
            ("millrace_stage_items_total", "counter", "Items taken by a stage's worker.", |worker| worker.items),
            ("millrace_stage_batches_total", "counter", "Batches handled by a stage's worker.", |worker| worker.batches),
            ("millrace_stage_faults_total", "counter", "Panics caught in a stage's worker.", |worker| worker.faults),
            ("millrace_stage_alive", "gauge", "1 while the worker runs.", |worker| u64::from(worker.alive)),
        ];
        for (name, kind, help, value) in columns {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (stage, worker, metrics) in self.workers() {
                let _ = writeln!(text, "{name}{{stage=\"{stage}\",worker=\"{worker}\"}} {}", value(metrics));
            }
        }
        self.queues_to_prometheus(&mut text);
        text
    }

    fn queues_to_prometheus(&self, text: &mut String) {
        type QueueColumn = (&'static str, &'static str, &'static str, fn(&QueueMetrics) -> u64);
        let columns: [QueueColumn; 9] = [
            ("millrace_queue_depth", "gauge", "Items waiting.", |queue| queue.depth as u64),
            ("millrace_queue_capacity", "gauge", "Items that the queue holds at most.", |queue| queue.capacity as u64),
            ("millrace_queue_high_water", "gauge", "Largest depth seen.", |queue| queue.high_water as u64),
            ("millrace_queue_received_total", "counter", "Items taken by the reader.", |queue| queue.received),
            ("millrace_queue_rejected_total", "counter", "Sends refused, full or closed.", |queue| queue.rejected),
            ("millrace_queue_dropped_total", "counter", "Items dropped by policy.", |queue| queue.dropped),
            ("millrace_queue_replaced_total", "counter", "Values replaced by newer ones.", |queue| queue.replaced),
            ("millrace_queue_blocked_sends_total", "counter", "Sends that waited for room.", |queue| queue.blocked_sends),
            ("millrace_queue_lost_total", "counter", "Items thrown away because the reader failed.", |queue| queue.lost),
        ];
        for (name, kind, help, value) in columns {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for queue in &self.queues {
                let _ = writeln!(text, "{name}{{queue=\"{}\",part=\"{}\"}} {}", queue.queue, queue.part, value(queue));
            }
        }
    }

    fn workers(&self) -> impl Iterator<Item = (&'static str, usize, &WorkerMetrics)> {
        self.stages.iter().flat_map(|stage| stage.workers.iter().enumerate().map(|(index, worker)| (stage.stage, index, worker)))
    }

    /// A compact table of what happened since an earlier reading: shares of time in percent, items, queue levels.
    pub fn to_table(&self, earlier: &PipelineMetrics) -> String {
        let mut text = format!(
            "{:<15} {:>6} {:>7} {:>7} {:>6} {:>10} {:>7}  state\n",
            "stage", "busy%", "starved", "blocked", "tick%", "items", "a batch"
        );
        let before: Vec<_> = earlier.workers().map(|(_, _, worker)| worker.clone()).collect();
        let idle = WorkerMetrics::default();
        for (position, (stage, index, worker)) in self.workers().enumerate() {
            let before = before.get(position).unwrap_or(&idle);
            let times = worker.times.since(&before.times);
            let per_mille = |regime| (u128::from(times.of(regime)) * 1000 / u128::from(times.sum_ns().max(1))) as u64;
            let share = |regime| format!("{}.{}", per_mille(regime) / 10, per_mille(regime) % 10);
            let items = worker.items - before.items.min(worker.items);
            let batches = worker.batches - before.batches.min(worker.batches);
            let workers = self.stages.iter().find(|other| other.stage == stage).map_or(1, |stage| stage.workers.len());
            let name = super::validate::thread_name(stage, workers, index);
            let state = if worker.failed {
                "FAILED"
            } else if worker.alive {
                "runs"
            } else {
                "ended"
            };
            let _ = writeln!(
                text,
                "{name:<15} {:>6} {:>7} {:>7} {:>6} {items:>10} {:>7}  {state}",
                share(Regime::Busy),
                share(Regime::Starved),
                share(Regime::Blocked),
                share(Regime::Tick),
                items / batches.max(1)
            );
        }
        let _ = writeln!(
            text,
            "\n{:<15} {:>5} {:>8} {:>8} {:>8} {:>10} {:>9} {:>8} {:>8} {:>6}",
            "queue", "part", "depth", "of", "high", "received", "rejected", "dropped", "replaced", "lost"
        );
        for queue in &self.queues {
            let QueueMetrics { queue: name, part, depth, capacity, high_water, received, rejected, dropped, replaced, lost, .. } = queue;
            let _ = writeln!(
                text,
                "{name:<15} {part:>5} {depth:>8} {capacity:>8} {high_water:>8} {received:>10} {rejected:>9} {dropped:>8} {replaced:>8} {lost:>6}"
            );
        }
        text
    }
}
