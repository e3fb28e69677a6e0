//! The second driver of a topology: by hand, on one thread, at times that the caller chooses. The simulator runs whole clusters this way.
//!
//! Invariant: a turn is what a worker's thread does between two sleeps, minus the sleep; everything else (queues, bounds, batches, order)
//! is the same. A panic of a stage is the caller's. A queue under [`Policy::Block`](super::Policy::Block) must never be full here: nobody
//! else would empty it.

use std::sync::Arc;
use std::time::Instant;

use super::builder::Topology;
use super::metrics::{MetricsHandle, PipelineMetrics};
use super::time;
use super::worker::WorkerSeed;

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Items taken from the worker's queues.
    pub taken: usize,
    /// When the stage wants its next turn although no item comes.
    pub next_tick: Option<Instant>,
}

/// See the module. Workers are numbered from 0, those of a stage next to each other, stages in order of declaration.
pub struct Manual {
    workers: Vec<(&'static str, WorkerSeed)>,
    metrics: MetricsHandle,
}

impl Manual {
    pub(super) fn new(topology: Topology) -> Self {
        let Topology { graph, probes, mut stages } = topology;
        stages.sort_by_key(|stage| stage.index);
        let controls = stages.iter().map(|stage| Arc::clone(&stage.control)).collect();
        let metrics = MetricsHandle { controls, probes: probes.into(), graph: Arc::new(graph) };
        let workers = stages.into_iter().flat_map(|stage| stage.seeds.into_iter().map(move |seed| (stage.control.name, seed)));
        Self { workers: workers.collect(), metrics }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The stage of a worker.
    pub fn stage(&self, worker: usize) -> &'static str {
        self.workers[worker].0
    }

    /// Whether an item waits for the worker.
    pub fn has_work(&self, worker: usize) -> bool {
        self.workers[worker].1.has_work()
    }

    /// Hands the worker at most `most` items (at least one, at most its batch) of those that wait, then lets it do what is due.
    pub fn turn(&mut self, worker: usize, now: Instant, most: usize) -> Turn {
        time::at(now, || self.workers[worker].1.turn(now, most))
    }

    /// A reading now. Regimes stay zero: nobody measures a turn.
    pub fn metrics(&self) -> PipelineMetrics {
        self.metrics.snapshot()
    }
}
