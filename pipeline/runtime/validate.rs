//! Judges a wired graph before anything runs.
//!
//! Rules: names are unique and fit a thread name; every queue has exactly one reading stage and a writer; parts of a queue and workers of its stage
//! agree; only stages that are pinned by group may wait for each other, never in a circle. Called by [`super::TopologyBuilder::build`].

use std::collections::BTreeSet;

use super::graph::{Graph, QueueKind, QueueNode, StageNode};
use super::limits::{MAX_BATCH, MAX_DEPTH, MAX_LANES, MAX_THREAD_NAME_BYTES, MAX_WORKERS};
use super::queue::Policy;

/// A rule that the wiring breaks. All of these are bugs of the topology, found at start and in tests.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopologyError {
    /// Two queues, two stages, or a queue and an ingress cannot be told apart.
    #[error("the name {name} is used twice")]
    DuplicateName {
        /// The name.
        name: &'static str,
    },
    /// Names appear in metrics and thread names.
    #[error("the name {name:?} must be lower-case letters, digits and dashes, and start with a letter")]
    BadName {
        /// The name.
        name: &'static str,
    },
    /// Linux cuts thread names.
    #[error("stage {stage}: its thread name {thread} has more than {MAX_THREAD_NAME_BYTES} bytes")]
    ThreadNameTooLong {
        /// The stage.
        stage: &'static str,
        /// The name of its last thread.
        thread: String,
    },
    /// A number is outside its bounds.
    #[error("{name}: {what} is {value}, must be 1 to {most}")]
    OutOfBounds {
        /// Queue or stage.
        name: &'static str,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The largest allowed.
        most: usize,
    },
    /// Depth and policy without a reason, or a stage without a description.
    #[error("{name} does not say why it is as it is")]
    NoReason {
        /// Queue or stage.
        name: &'static str,
    },
    /// Items would pile up.
    #[error("queue {queue} has no reading stage")]
    NoReader {
        /// The queue.
        queue: &'static str,
    },
    /// Items would go to either, by chance.
    #[error("queue {queue} is read by {first} and by {second}; a queue has one reading stage")]
    SeveralReaders {
        /// The queue.
        queue: &'static str,
        /// One reader.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// Dead code.
    #[error("queue {queue} has no writer; name an ingress if it is fed from outside")]
    NoWriter {
        /// The queue.
        queue: &'static str,
    },
    /// [`super::StageBuilder::instances`] was not called.
    #[error("stage {stage} was declared, but nothing runs it")]
    NotRunnable {
        /// The stage.
        stage: &'static str,
    },
    /// Some worker would have no part of the queue, or a part no worker.
    #[error("stage {stage} has {workers} workers, its queue {queue} has {parts} parts")]
    WorkersAndPartsDiffer {
        /// The stage.
        stage: &'static str,
        /// Its workers.
        workers: usize,
        /// The queue.
        queue: &'static str,
        /// Parts of the queue.
        parts: usize,
    },
    /// A group would be owned by two workers.
    #[error("stage {stage}: its queues {first} and {second} pin groups differently; give both the same pinning")]
    PinningsDiffer {
        /// The stage.
        stage: &'static str,
        /// One queue.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A writer that serves all groups, or a thread from outside, would stand still because of one group.
    #[error(
        "{writer} would wait for room in {queue}, and with it every group; only stages pinned by group may wait, and only for each other"
    )]
    NodeWideWriterWaits {
        /// Stage or ingress.
        writer: &'static str,
        /// The queue.
        queue: &'static str,
    },
    /// One group's load would hold up the stages of another.
    #[error(
        "stage {writer} would wait for the node-wide stage {reader} at {queue}; node-wide stages refuse or drop, they do not hold up groups"
    )]
    BlocksOnNodeWideStage {
        /// Writing stage.
        writer: &'static str,
        /// The queue.
        queue: &'static str,
        /// Reading stage.
        reader: &'static str,
    },
    /// Each would wait for the next, for ever.
    #[error("stages wait for each other in a circle: {}", path.join(" -> "))]
    BlockingCycle {
        /// The stages, the first repeated at the end.
        path: Vec<&'static str>,
    },
}

/// The name of a worker's thread.
pub(crate) fn thread_name(stage: &str, workers: usize, worker: usize) -> String {
    if workers == 1 { stage.to_owned() } else { format!("{stage}-{worker}") }
}

pub(crate) fn validate(graph: &Graph) -> Result<(), TopologyError> {
    check_names(graph)?;
    graph.stages.iter().try_for_each(check_stage)?;
    graph.queues.iter().try_for_each(|queue| check_queue(graph, queue))?;
    (0..graph.stages.len()).try_for_each(|stage| check_parts(graph, stage))?;
    graph.queues.iter().filter(|queue| queue.policy == Policy::Block).try_for_each(|queue| check_blocking(graph, queue))?;
    check_no_blocking_cycle(graph)
}

fn check_names(graph: &Graph) -> Result<(), TopologyError> {
    let queue_names = graph.queues.iter().map(|queue| queue.name);
    let stage_names = graph.stages.iter().map(|stage| stage.name);
    // One ingress may feed several queues; it must not look like a stage.
    let ingress_names: BTreeSet<_> = graph.queues.iter().flat_map(|queue| queue.ingresses.iter().copied()).collect();
    let mut seen = BTreeSet::new();
    for name in queue_names.chain(stage_names).chain(ingress_names) {
        let spelled_well = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !spelled_well || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err(TopologyError::BadName { name });
        }
        if !seen.insert(name) {
            return Err(TopologyError::DuplicateName { name });
        }
    }
    Ok(())
}

fn check_bounds(name: &'static str, what: &'static str, value: usize, most: usize) -> Result<(), TopologyError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(TopologyError::OutOfBounds { name, what, value, most }) }
}

fn check_stage(stage: &StageNode) -> Result<(), TopologyError> {
    check_bounds(stage.name, "the number of workers", stage.workers, MAX_WORKERS)?;
    check_bounds(stage.name, "the largest batch", stage.max_batch, MAX_BATCH)?;
    if stage.what.trim().is_empty() {
        return Err(TopologyError::NoReason { name: stage.name });
    }
    let thread = thread_name(stage.name, stage.workers, stage.workers - 1);
    if thread.len() > MAX_THREAD_NAME_BYTES {
        return Err(TopologyError::ThreadNameTooLong { stage: stage.name, thread });
    }
    if !stage.runnable {
        return Err(TopologyError::NotRunnable { stage: stage.name });
    }
    Ok(())
}

fn check_queue(graph: &Graph, queue: &QueueNode) -> Result<(), TopologyError> {
    check_bounds(queue.name, "the depth", queue.depth, MAX_DEPTH)?;
    if let QueueKind::Lanes { max_lanes, .. } = queue.kind {
        check_bounds(queue.name, "the number of lanes", max_lanes, MAX_LANES)?;
    }
    if queue.why.trim().is_empty() {
        return Err(TopologyError::NoReason { name: queue.name });
    }
    match *queue.readers {
        [] => return Err(TopologyError::NoReader { queue: queue.name }),
        [_] => {}
        [first, second, ..] => {
            return Err(TopologyError::SeveralReaders {
                queue: queue.name,
                first: graph.stages[first].name,
                second: graph.stages[second].name,
            });
        }
    }
    if queue.writers.is_empty() && queue.ingresses.is_empty() {
        return Err(TopologyError::NoWriter { queue: queue.name });
    }
    Ok(())
}

fn check_parts(graph: &Graph, stage: usize) -> Result<(), TopologyError> {
    let stage = &graph.stages[stage];
    let mut pinned_by: Option<(&'static str, usize)> = None;
    for queue in stage.reads.iter().map(|&queue| &graph.queues[queue]) {
        let parts = match queue.kind {
            QueueKind::Shared => 1,
            QueueKind::Pinned { workers, .. } => workers,
            QueueKind::Lanes { .. } => stage.workers,
        };
        if parts != stage.workers {
            return Err(TopologyError::WorkersAndPartsDiffer { stage: stage.name, workers: stage.workers, queue: queue.name, parts });
        }
        if let QueueKind::Pinned { pinning, .. } = queue.kind {
            let (first, pinning_of_first) = *pinned_by.get_or_insert((queue.name, pinning));
            if pinning_of_first != pinning {
                return Err(TopologyError::PinningsDiffer { stage: stage.name, first, second: queue.name });
            }
        }
    }
    Ok(())
}

fn check_blocking(graph: &Graph, queue: &QueueNode) -> Result<(), TopologyError> {
    if let Some(&writer) = queue.ingresses.first() {
        return Err(TopologyError::NodeWideWriterWaits { writer, queue: queue.name });
    }
    for &writer in &queue.writers {
        let writer_name = graph.stages[writer].name;
        if let Some(&reader) = queue.readers.iter().find(|&&reader| !graph.is_pinned(reader)) {
            return Err(TopologyError::BlocksOnNodeWideStage { writer: writer_name, queue: queue.name, reader: graph.stages[reader].name });
        }
        if !graph.is_pinned(writer) {
            return Err(TopologyError::NodeWideWriterWaits { writer: writer_name, queue: queue.name });
        }
    }
    Ok(())
}

/// Walks the blocking arrows depth first; meeting a stage of the path again closes a circle.
fn check_no_blocking_cycle(graph: &Graph) -> Result<(), TopologyError> {
    fn walk(graph: &Graph, stage: usize, path: &mut Vec<usize>, done: &mut [bool]) -> Result<(), TopologyError> {
        if let Some(start) = path.iter().position(|&other| other == stage) {
            let path = path[start..].iter().chain([&stage]).map(|&stage| graph.stages[stage].name).collect();
            return Err(TopologyError::BlockingCycle { path });
        }
        if !done[stage] {
            path.push(stage);
            graph
                .next_stages(stage, |queue| queue.policy == Policy::Block)
                .into_iter()
                .try_for_each(|next| walk(graph, next, path, done))?;
            path.pop();
            done[stage] = true;
        }
        Ok(())
    }
    let mut done = vec![false; graph.stages.len()];
    (0..graph.stages.len()).try_for_each(|stage| walk(graph, stage, &mut Vec::new(), &mut done))
}
