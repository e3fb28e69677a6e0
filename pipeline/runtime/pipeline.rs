//! Starts and stops a checked topology.
//!
//! Start: readers before writers, so that nobody sends into a queue that nobody drains. Stop: doors to the outside first, then stage after stage along
//! the arrows; stages that send in a circle stop together, when all of them are quiet at one time.
//!
//! Invariant: after [`Pipeline::stop`] every item that was accepted has been handled, unless the report names the stage that failed or missed its deadline.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::builder::Topology;
use super::gate::Origin;
use super::metrics::{MetricsHandle, PipelineMetrics};
use super::stage::StageFault;
use super::validate::thread_name;
use super::worker::{FaultHook, Phase, StageControl};

/// Whether threads are bound to cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AffinityPolicy {
    /// The operating system decides.
    #[default]
    None,
    /// Each worker to one core, round-robin over the cores that the process may use. Only for machines that run nothing else.
    Pin,
}

/// How a pipeline runs.
#[derive(Clone)]
pub struct PipelineConfig {
    /// Binding of threads.
    pub affinity: AffinityPolicy,
    /// Called with every caught panic, on the failing worker's thread; must not wait for the pipeline.
    pub on_fault: FaultHook,
}

impl Default for PipelineConfig {
    /// No binding; panics are only logged.
    fn default() -> Self {
        Self { affinity: AffinityPolicy::None, on_fault: Arc::new(|_: &StageFault| {}) }
    }
}

/// The operating system gave no thread.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread {thread}: {source}; raise the limit of threads (ulimit -u, pids of the container)")]
pub struct StartError {
    /// The thread's name.
    pub thread: String,
    /// What the operating system says.
    pub source: std::io::Error,
}

/// How one stage ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopOutcome {
    /// Everything accepted was handled.
    Drained,
    /// Not quiet, or not finished, when its time was over: its threads were left behind.
    MissedDeadline {
        /// Items that waited in its queues.
        waiting: usize,
    },
    /// A worker had failed by a panic, now or earlier.
    Failed,
}

/// One line of a [`StopReport`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageStop {
    /// The stage.
    pub stage: &'static str,
    /// How it ended.
    pub outcome: StopOutcome,
}

/// How the pipeline stopped: the stages in the order in which they were stopped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StopReport {
    /// One line a stage.
    pub stages: Vec<StageStop>,
}

impl StopReport {
    /// True when every stage drained.
    pub fn is_clean(&self) -> bool {
        self.stages.iter().all(|stage| stage.outcome == StopOutcome::Drained)
    }
}

/// A stage that runs.
struct RunningStage {
    control: Arc<StageControl>,
    /// Indices of the queues that it reads.
    reads: Vec<usize>,
    threads: Vec<JoinHandle<()>>,
}

/// A running pipeline. Dropping it stops it with [`Pipeline::DROP_DEADLINE`].
pub struct Pipeline {
    stages: Vec<RunningStage>,
    stop_order: Vec<Vec<usize>>,
    metrics: MetricsHandle,
    notice: Receiver<()>,
}

impl Pipeline {
    /// Time a step that a dropped pipeline has to stop in.
    pub const DROP_DEADLINE: Duration = Duration::from_secs(5);

    /// Starts all threads, readers before writers.
    ///
    /// # Errors
    /// [`StartError`] when the operating system refuses a thread; those already started are ended.
    pub fn start(topology: Topology, config: &PipelineConfig) -> Result<Self, StartError> {
        let Topology { graph, probes, mut stages } = topology;
        stages.sort_by_key(|stage| stage.index);
        let stop_order = graph.stop_order();
        let (notify, notice) = crossbeam_channel::bounded(1);
        let graph = Arc::new(graph);
        let controls = stages.iter().map(|stage| Arc::clone(&stage.control)).collect();
        let metrics = MetricsHandle { controls, probes: probes.into(), graph: Arc::clone(&graph) };
        let mut seeds: Vec<_> = stages.iter_mut().map(|stage| std::mem::take(&mut stage.seeds)).collect();
        let running = stages.into_iter().map(|stage| {
            stage.control.report_to(notify.clone());
            RunningStage { control: stage.control, reads: graph.stages[stage.index].reads.clone(), threads: Vec::new() }
        });
        let mut pipeline = Self { stages: running.collect(), stop_order, metrics, notice };
        let cores = if config.affinity == AffinityPolicy::Pin { core_affinity::get_core_ids().unwrap_or_default() } else { Vec::new() };
        let mut started = 0;
        for stage in pipeline.stop_order.clone().into_iter().rev().flatten() {
            let node = &graph.stages[stage];
            for (worker, seed) in std::mem::take(&mut seeds[stage]).into_iter().enumerate() {
                let thread = thread_name(node.name, node.workers, worker);
                let core = if cores.is_empty() { None } else { Some(cores[started % cores.len()]) };
                let on_fault = Arc::clone(&config.on_fault);
                let body = move || {
                    if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
                        tracing::warn!("a pipeline thread could not be bound to its core");
                    }
                    seed.run(on_fault);
                };
                match thread::Builder::new().name(thread.clone()).spawn(body) {
                    Ok(handle) => pipeline.stages[stage].threads.push(handle),
                    Err(source) => {
                        pipeline.abandon();
                        return Err(StartError { thread, source });
                    }
                }
                started += 1;
            }
        }
        Ok(pipeline)
    }

    /// Reads metrics now or later.
    pub fn metrics_handle(&self) -> MetricsHandle {
        self.metrics.clone()
    }

    /// A reading now.
    pub fn metrics(&self) -> PipelineMetrics {
        self.metrics.snapshot()
    }

    /// Stops in order. Each step (the doors, then each stage or circle of stages) has `step_deadline` to become quiet and the same time again to finish.
    pub fn stop(mut self, step_deadline: Duration) -> StopReport {
        self.stop_in_order(step_deadline)
    }

    fn stop_in_order(&mut self, step_deadline: Duration) -> StopReport {
        let probes = Arc::clone(&self.metrics.probes);
        probes.iter().for_each(|probe| probe.close(Origin::Outside));
        // Senders from outside never wait in a queue (the validator sees to it), so this is a matter of microseconds.
        self.wait_until(step_deadline, || probes.iter().all(|probe| probe.is_vacant(Origin::Outside)));
        let mut report = StopReport::default();
        for group in std::mem::take(&mut self.stop_order) {
            self.stop_group(&group, step_deadline, &mut report);
        }
        report
    }

    /// Stops one stage, or the stages of one circle together.
    fn stop_group(&mut self, group: &[usize], step_deadline: Duration, report: &mut StopReport) {
        let members: Vec<_> = group.iter().map(|&stage| &self.stages[stage]).collect();
        members.iter().for_each(|stage| stage.control.raise(Phase::Stopping));
        let drained = self.wait_until(step_deadline, || self.is_quiet(&members));
        for stage in &members {
            let missed = !(drained || stage.control.is_quiet() && self.waiting(stage) == 0);
            stage.control.raise(if missed { Phase::Abandoned } else { Phase::Finishing });
        }
        let mut missed = Vec::new();
        self.wait_until(step_deadline, || members.iter().all(|stage| stage.control.has_ended() || stage.control.phase_is_abandoned()));
        for stage in &members {
            let waiting = self.waiting(stage);
            let outcome = if stage.control.phase_is_abandoned() || !stage.control.has_ended() {
                stage.control.raise(Phase::Abandoned);
                StopOutcome::MissedDeadline { waiting }
            } else if stage.control.has_failed() {
                StopOutcome::Failed
            } else {
                StopOutcome::Drained
            };
            if matches!(outcome, StopOutcome::MissedDeadline { .. }) {
                missed.push(stage.control.name);
            }
            report.stages.push(StageStop { stage: stage.control.name, outcome });
        }
        for &stage in group {
            let stage = &mut self.stages[stage];
            // A thread that missed its deadline may hang for ever: it is left behind, with its queues closed.
            if stage.control.has_ended() {
                stage.threads.drain(..).for_each(|thread| {
                    let _ = thread.join();
                });
            } else {
                stage.threads.clear();
                stage.reads.iter().for_each(|&queue| {
                    [Origin::Outside, Origin::Stage].into_iter().for_each(|origin| self.metrics.probes[queue].close(origin))
                });
            }
        }
        missed.iter().for_each(|stage| tracing::warn!(stage, "stage missed its deadline to stop"));
    }

    /// All workers asleep and drained and all their queues empty, at one time: none of them woke between the two readings of their activity.
    fn is_quiet(&self, members: &[&RunningStage]) -> bool {
        let activity = || members.iter().map(|stage| stage.control.activity()).sum::<u64>();
        let before = activity();
        members.iter().all(|stage| stage.control.is_quiet()) && members.iter().all(|stage| self.waiting(stage) == 0) && activity() == before
    }

    /// Items in the queues of a stage.
    fn waiting(&self, stage: &RunningStage) -> usize {
        let mut rows = Vec::new();
        stage.reads.iter().for_each(|&queue| self.metrics.probes[queue].metrics(&mut rows));
        rows.iter().map(|row| row.depth).sum()
    }

    /// Waits for reports of workers until `done`; false when `limit` is over.
    fn wait_until(&self, limit: Duration, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while !done() {
            let Some(rest) = deadline.checked_duration_since(Instant::now()) else { return false };
            // A short wait, because a report may have come before the condition held.
            let _ = self.notice.recv_timeout(rest.min(super::limits::DRAIN_RECHECK));
        }
        true
    }

    fn abandon(&mut self) {
        self.stages.iter().for_each(|stage| stage.control.raise(Phase::Abandoned));
        self.stages.iter_mut().flat_map(|stage| stage.threads.drain(..)).for_each(|thread| {
            let _ = thread.join();
        });
        self.stop_order.clear();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if !self.stop_order.is_empty() {
            self.stop_in_order(Self::DROP_DEADLINE);
        }
    }
}
