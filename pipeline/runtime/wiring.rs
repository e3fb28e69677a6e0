//! The wired graph as data for those outside: names of stages and queues and the arrows between them.
//!
//! Invariant: it is made from the graph that runs, so it shows what is wired. Called for `/topology` of the operator port.

use super::graph::Graph;

/// One stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WiredStage {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Queues that it reads.
    pub reads: Vec<&'static str>,
    /// Queues that it writes.
    pub writes: Vec<&'static str>,
}

/// One queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WiredQueue {
    /// Its name.
    pub name: &'static str,
    /// Name of the item's type.
    pub item: &'static str,
    /// What becomes of an item that finds no room.
    pub policy: &'static str,
    /// Why it has this depth and policy.
    pub why: &'static str,
    /// Who writes it: stages, and in parentheses the outside.
    pub from: Vec<String>,
    /// Stages that read it.
    pub to: Vec<&'static str>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wiring {
    /// Name of the pipeline.
    pub name: &'static str,
    /// Stages along the arrows.
    pub stages: Vec<WiredStage>,
    /// Queues in order of declaration.
    pub queues: Vec<WiredQueue>,
}

impl Wiring {
    pub(crate) fn of(graph: &Graph) -> Self {
        let queue_names = |queues: &[usize]| queues.iter().map(|&queue| graph.queues[queue].name).collect();
        let stages = graph.stop_order().into_iter().flatten().map(|stage| {
            let stage = &graph.stages[stage];
            WiredStage { name: stage.name, what: stage.what, reads: queue_names(&stage.reads), writes: queue_names(&stage.writes) }
        });
        let queues = graph.queues.iter().map(|queue| {
            let doors = queue.ingresses.iter().map(|name| format!("({name})"));
            let writers = queue.writers.iter().map(|&writer| graph.stages[writer].name.to_owned());
            WiredQueue {
                name: queue.name,
                item: queue.item,
                policy: queue.policy.name(),
                why: queue.why,
                from: doors.chain(writers).collect(),
                to: queue.readers.iter().map(|&reader| graph.stages[reader].name).collect(),
            }
        });
        Self { name: graph.name, stages: stages.collect(), queues: queues.collect() }
    }
}
