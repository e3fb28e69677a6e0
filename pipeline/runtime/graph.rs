//! The graph that was wired: queues, stages, arrows. Data only; [`super::validate`] judges it, [`super::render`] draws it, [`super::pipeline`] starts and stops by it.
//!
//! Invariant: filled only by the builder as it hands out ends of queues, so an arrow is here exactly if someone holds the end.

use super::queue::Policy;

/// What kind of queue it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueueKind {
    /// One queue, one reader thread, all groups.
    Shared,
    /// One part a worker, groups pinned to workers; the address of the pinning tells which.
    Pinned { workers: usize, pinning: usize },
    /// One lane a group, drained by all workers.
    Lanes { quantum: u32, max_lanes: usize },
}

pub(crate) struct QueueNode {
    pub(crate) name: &'static str,
    pub(crate) item: &'static str,
    pub(crate) depth: usize,
    pub(crate) policy: Policy,
    pub(crate) why: &'static str,
    pub(crate) kind: QueueKind,
    pub(crate) ingresses: Vec<&'static str>,
    pub(crate) writers: Vec<usize>,
    pub(crate) readers: Vec<usize>,
}

pub(crate) struct StageNode {
    pub(crate) name: &'static str,
    pub(crate) workers: usize,
    pub(crate) max_batch: usize,
    pub(crate) what: &'static str,
    pub(crate) reads: Vec<usize>,
    pub(crate) writes: Vec<usize>,
    pub(crate) runnable: bool,
}

#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) name: &'static str,
    pub(crate) queues: Vec<QueueNode>,
    pub(crate) stages: Vec<StageNode>,
}

impl Graph {
    /// Pinned by group: reads only pinned queues. Every other stage serves the whole node with each of its threads.
    pub(crate) fn is_pinned(&self, stage: usize) -> bool {
        let reads = &self.stages[stage].reads;
        !reads.is_empty() && reads.iter().all(|&queue| matches!(self.queues[queue].kind, QueueKind::Pinned { .. }))
    }

    /// Stages that read what `stage` writes, over the queues that `through` accepts; in order of declaration, without repeats.
    pub(crate) fn next_stages(&self, stage: usize, through: impl Fn(&QueueNode) -> bool) -> Vec<usize> {
        let mut next: Vec<usize> = self.stages[stage]
            .writes
            .iter()
            .map(|&queue| &self.queues[queue])
            .filter(|queue| through(queue))
            .flat_map(|queue| queue.readers.iter().copied())
            .collect();
        next.sort_unstable();
        next.dedup();
        next
    }

    /// The stages in the order of the arrows, grouped: stages that send in a circle form one group, all others one each.
    /// Start walks it from the end, stop from the beginning. Among groups that no arrow orders, the first declared comes first.
    pub(crate) fn stop_order(&self) -> Vec<Vec<usize>> {
        let count = self.stages.len();
        // reach[a][b]: an item can get from a to b. Stages are few (tens), so the cubic closure is nothing.
        let mut reach = vec![vec![false; count]; count];
        for (stage, row) in reach.iter_mut().enumerate() {
            self.next_stages(stage, |_| true).into_iter().for_each(|next| row[next] = true);
        }
        for middle in 0..count {
            let onward = reach[middle].clone();
            for row in reach.iter_mut().filter(|row| row[middle]) {
                row.iter_mut().zip(&onward).for_each(|(here, there)| *here |= there);
            }
        }
        let together = |a: usize, b: usize| a == b || (reach[a][b] && reach[b][a]);
        let mut placed = vec![false; count];
        let mut order = Vec::new();
        while let Some(first) = (0..count)
            .find(|&stage| !placed[stage] && (0..count).all(|other| placed[other] || !reach[other][stage] || together(other, stage)))
        {
            let group: Vec<usize> = (0..count).filter(|&stage| together(first, stage)).collect();
            group.iter().for_each(|&stage| placed[stage] = true);
            order.push(group);
        }
        order
    }
}
