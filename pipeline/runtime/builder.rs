//! Declares queues and stages and wires them; the graph is recorded from the ends that are handed out.
//!
//! Invariant: a stage can only read and write what the graph shows. Called by `pipeline/topology.rs` and by tests.

use std::sync::Arc;

use millrace_base::GroupId;

use super::bell::Bell;
use super::fanout::{Fanout, Pinning};
use super::gate::Origin;
use super::graph::{Graph, QueueKind, QueueNode, StageNode};
use super::inbox::{Inbox, LaneSource, ShardSource, Source};
use super::lanes::{GroupLanes, LaneSender, LaneSpec, LanesProbe};
use super::limits::{MAX_BATCH, MAX_WORKERS};
use super::manual::Manual;
use super::queue::{Policy, Probe, QueueSpec, Sender, Shard, Shards};
use super::render;
use super::stage::Stage;
use super::validate::{TopologyError, validate};
use super::worker::{StageControl, Worker, WorkerSeed};

/// A declared queue of any kind: what the builder needs to hand out its ends. Implemented by [`Queue`], [`PinnedQueue`] and [`LaneQueue`] only.
pub trait Wire {
    /// What the queue carries.
    type Item: Send + 'static;
    /// The writing end.
    type Sender;
    #[doc(hidden)]
    fn index(&self) -> usize;
    #[doc(hidden)]
    fn sender(&self, origin: Origin) -> Self::Sender;
    #[doc(hidden)]
    fn source<I: Send + 'static>(&self, worker: usize, bells: &[Arc<Bell>], map: fn(Self::Item) -> I) -> Option<Box<dyn Source<I>>>;
}

/// A queue with one reading thread, for items of all groups.
pub struct Queue<T> {
    index: usize,
    shard: Arc<Shard<T>>,
}

impl<T: Send + 'static> Wire for Queue<T> {
    type Item = T;
    type Sender = Sender<T>;

    fn index(&self) -> usize {
        self.index
    }

    fn sender(&self, origin: Origin) -> Sender<T> {
        Sender { shard: Arc::clone(&self.shard), origin }
    }

    fn source<I: Send + 'static>(&self, worker: usize, bells: &[Arc<Bell>], map: fn(T) -> I) -> Option<Box<dyn Source<I>>> {
        (worker == 0).then(|| shard_source(&self.shard, &bells[worker], map))
    }
}

/// A queue with one part for each worker of its reading stage; groups are pinned to workers.
pub struct PinnedQueue<T> {
    index: usize,
    shards: Vec<Arc<Shard<T>>>,
    pinning: Arc<Pinning>,
}

impl<T: Send + 'static> Wire for PinnedQueue<T> {
    type Item = T;
    type Sender = Fanout<T>;

    fn index(&self) -> usize {
        self.index
    }

    fn sender(&self, origin: Origin) -> Fanout<T> {
        let senders = self.shards.iter().map(|shard| Sender { shard: Arc::clone(shard), origin }).collect();
        Fanout { senders, pinning: Arc::clone(&self.pinning) }
    }

    fn source<I: Send + 'static>(&self, worker: usize, bells: &[Arc<Bell>], map: fn(T) -> I) -> Option<Box<dyn Source<I>>> {
        self.shards.get(worker).map(|shard| shard_source(shard, &bells[worker], map))
    }
}

/// A queue with one lane a group, drained fairly by all workers of its reading stage. Keep a clone to add and remove groups while running.
pub struct LaneQueue<T> {
    index: usize,
    lanes: Arc<GroupLanes<T>>,
}

impl<T> Clone for LaneQueue<T> {
    fn clone(&self) -> Self {
        Self { index: self.index, lanes: Arc::clone(&self.lanes) }
    }
}

impl<T: Send + 'static> LaneQueue<T> {
    /// Opens the lane of a group; false if it is open already or the queue has its most lanes.
    pub fn add_group(&self, group: GroupId) -> bool {
        self.lanes.add(group)
    }

    /// Closes the lane of a group; gives the items that nobody took, so that whoever waits for them can be told.
    pub fn remove_group(&self, group: GroupId) -> Vec<T> {
        self.lanes.remove(group)
    }
}

impl<T: Send + 'static> Wire for LaneQueue<T> {
    type Item = T;
    type Sender = LaneSender<T>;

    fn index(&self) -> usize {
        self.index
    }

    fn sender(&self, origin: Origin) -> LaneSender<T> {
        LaneSender { lanes: Arc::clone(&self.lanes), origin }
    }

    fn source<I: Send + 'static>(&self, _worker: usize, bells: &[Arc<Bell>], map: fn(T) -> I) -> Option<Box<dyn Source<I>>> {
        // Set by the first worker; a second reading stage is refused by the validator.
        let _ = self.lanes.bells.set(bells.to_vec());
        Some(Box::new(LaneSource { lanes: Arc::clone(&self.lanes), map }))
    }
}

fn shard_source<T: Send + 'static, I: Send + 'static>(shard: &Arc<Shard<T>>, bell: &Arc<Bell>, map: fn(T) -> I) -> Box<dyn Source<I>> {
    // A second reading stage is refused by the validator.
    let _ = shard.bell.set(Arc::clone(bell));
    Box::new(ShardSource { shard: Arc::clone(shard), map })
}

/// The declaration of a stage.
#[derive(Clone, Copy, Debug)]
pub struct StageSpec {
    /// Unique; names the threads: `verify` for one worker, `verify-0` and so on for more.
    pub name: &'static str,
    /// Threads, 1..=[`MAX_WORKERS`].
    pub workers: usize,
    /// Items handed over at once, 1..=[`MAX_BATCH`].
    pub max_batch: usize,
    /// One line: what it does.
    pub what: &'static str,
}

/// A stage being wired.
pub struct StageBuilder<'a, S: Stage> {
    topology: &'a mut TopologyBuilder,
    index: usize,
    max_batch: usize,
    bells: Vec<Arc<Bell>>,
    sources: Vec<Vec<Box<dyn Source<S::Input>>>>,
}

impl<S: Stage> StageBuilder<'_, S> {
    /// The stage reads this queue; `input` makes its items the stage's input (a variant of its enum, or `|item| item`).
    pub fn reads<Q: Wire>(&mut self, queue: &Q, input: fn(Q::Item) -> S::Input) -> &mut Self {
        self.topology.graph.queues[queue.index()].readers.push(self.index);
        self.topology.graph.stages[self.index].reads.push(queue.index());
        for (worker, sources) in self.sources.iter_mut().enumerate() {
            // A queue with fewer parts than the stage has workers is refused by the validator.
            sources.extend(queue.source(worker, &self.bells, input));
        }
        self
    }

    /// The stage writes this queue: gives the writing end, to be cloned into each instance.
    pub fn writes<Q: Wire>(&mut self, queue: &Q) -> Q::Sender {
        self.topology.graph.queues[queue.index()].writers.push(self.index);
        self.topology.graph.stages[self.index].writes.push(queue.index());
        queue.sender(Origin::Stage)
    }

    /// Ends the wiring: `make(worker)` gives the instance of each worker.
    pub fn instances(self, mut make: impl FnMut(usize) -> S) {
        let Self { topology, index, max_batch, bells, sources } = self;
        let node = &mut topology.graph.stages[index];
        node.runnable = true;
        let control = Arc::new(StageControl::new(node.name, bells));
        let seeds = sources
            .into_iter()
            .enumerate()
            .map(|(worker, sources)| -> WorkerSeed {
                Box::new(Worker::new(make(worker), Inbox::new(sources), Arc::clone(&control), worker, max_batch))
            })
            .collect();
        topology.stages.push(BuiltStage { index, control, seeds });
    }
}

/// A wired stage, ready to run.
pub(crate) struct BuiltStage {
    pub(crate) index: usize,
    pub(crate) control: Arc<StageControl>,
    pub(crate) seeds: Vec<WorkerSeed>,
}

/// Collects the declarations of one pipeline.
pub struct TopologyBuilder {
    graph: Graph,
    probes: Vec<Arc<dyn Probe>>,
    stages: Vec<BuiltStage>,
}

impl TopologyBuilder {
    /// An empty pipeline; `name` heads its picture.
    pub fn new(name: &'static str) -> Self {
        Self { graph: Graph { name, ..Graph::default() }, probes: Vec::new(), stages: Vec::new() }
    }

    /// Declares a queue with one reading thread.
    pub fn queue<T: Send + 'static>(&mut self, spec: QueueSpec<T>) -> Queue<T> {
        let shard = Arc::new(Shard::new(&spec, 0));
        let item = short_type_name::<T>();
        let index = self.add_queue(&spec, item, QueueKind::Shared, Arc::new(Shards { item, shards: vec![Arc::clone(&shard)] }));
        Queue { index, shard }
    }

    /// Declares a queue whose reading stage has one worker for each of the pinning's; `spec.depth` bounds the part of each worker.
    /// All queues of a stage share one pinning.
    pub fn pinned_queue<T: Send + 'static>(&mut self, spec: QueueSpec<T>, pinning: &Arc<Pinning>) -> PinnedQueue<T> {
        let shards: Vec<_> = (0..pinning.workers()).map(|worker| Arc::new(Shard::new(&spec, worker))).collect();
        let item = short_type_name::<T>();
        let kind = QueueKind::Pinned { workers: shards.len(), pinning: Arc::as_ptr(pinning).addr() };
        let index = self.add_queue(&spec, item, kind, Arc::new(Shards { item, shards: shards.clone() }));
        PinnedQueue { index, shards, pinning: Arc::clone(pinning) }
    }

    /// Declares a queue with one lane a group. Lanes are opened with [`LaneQueue::add_group`].
    pub fn lanes<T: Send + 'static>(&mut self, spec: LaneSpec<T>) -> LaneQueue<T> {
        let kind = QueueKind::Lanes { quantum: spec.quantum, max_lanes: spec.max_lanes };
        let node = QueueSpec::<T>::new(spec.name, spec.lane_depth, Policy::Reject, spec.why);
        let lanes = Arc::new(GroupLanes::new(spec));
        let item = short_type_name::<T>();
        let index = self.add_queue(&node, item, kind, Arc::new(LanesProbe { item, lanes: Arc::clone(&lanes) }));
        LaneQueue { index, lanes }
    }

    fn add_queue<T>(&mut self, spec: &QueueSpec<T>, item: &'static str, kind: QueueKind, probe: Arc<dyn Probe>) -> usize {
        let (name, depth, policy, why) = (spec.name, spec.depth, spec.policy, spec.why);
        self.graph.queues.push(QueueNode {
            name,
            item,
            depth,
            policy,
            why,
            kind,
            ingresses: Vec::new(),
            writers: Vec::new(),
            readers: Vec::new(),
        });
        self.probes.push(probe);
        self.graph.queues.len() - 1
    }

    /// Names a writer from outside the pipeline (`"http"`, `"peers"`) and gives its writing end. Its sends are refused first when the pipeline stops.
    pub fn ingress<Q: Wire>(&mut self, name: &'static str, queue: &Q) -> Q::Sender {
        self.graph.queues[queue.index()].ingresses.push(name);
        queue.sender(Origin::Outside)
    }

    /// Declares a stage; wire it and end with [`StageBuilder::instances`].
    pub fn stage<S: Stage>(&mut self, spec: StageSpec) -> StageBuilder<'_, S> {
        let StageSpec { name, workers, max_batch, what } = spec;
        self.graph.stages.push(StageNode { name, workers, max_batch, what, reads: Vec::new(), writes: Vec::new(), runnable: false });
        // The validator refuses what is cut here.
        let bells: Vec<_> = (0..workers.clamp(1, MAX_WORKERS)).map(|_| Arc::new(Bell::default())).collect();
        let sources = bells.iter().map(|_| Vec::new()).collect();
        StageBuilder { index: self.graph.stages.len() - 1, topology: self, max_batch: max_batch.clamp(1, MAX_BATCH), bells, sources }
    }

    /// Checks the graph.
    ///
    /// # Errors
    /// The first rule that is broken, with the names concerned.
    pub fn build(self) -> Result<Topology, TopologyError> {
        validate(&self.graph)?;
        Ok(Topology { graph: self.graph, probes: self.probes, stages: self.stages })
    }
}

/// A checked pipeline, ready for [`super::Pipeline::start`].
pub struct Topology {
    pub(crate) graph: Graph,
    pub(crate) probes: Vec<Arc<dyn Probe>>,
    pub(crate) stages: Vec<BuiltStage>,
}

impl Topology {
    /// The picture of what was wired: the same text for the same wiring.
    pub fn render(&self) -> String {
        render::render(&self.graph)
    }

    /// Gives the topology to a caller that runs its stages by hand, on one thread.
    pub fn into_manual(self) -> Manual {
        Manual::new(self)
    }

    /// Threads that it runs.
    pub fn threads(&self) -> usize {
        self.graph.stages.iter().map(|stage| stage.workers).sum()
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render())
    }
}

/// The last part of a type's path, generic arguments cut off: what a reader looks for in the source.
fn short_type_name<T>() -> &'static str {
    let whole = std::any::type_name::<T>();
    let path = whole.split('<').next().unwrap_or(whole);
    path.rsplit("::").next().unwrap_or(path)
}
