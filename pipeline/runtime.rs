//! The runtime of the pipeline: stages, bounded queues between them, the checked graph, run loops, time regimes, start and stop.
//!
//! How it is used: declare queues with [`TopologyBuilder::queue`], [`TopologyBuilder::pinned_queue`] and [`TopologyBuilder::lanes`], declare stages
//! with [`TopologyBuilder::stage`] and wire them (`reads`, `writes`), name what comes from outside with [`TopologyBuilder::ingress`], then
//! [`TopologyBuilder::build`] checks the graph and [`Pipeline::start`] runs it, or [`Topology::into_manual`] lets a caller run it by hand.
//!
//! Invariants: nothing waits but for a queue, a tick or a declared blocking edge; every nanosecond of a worker belongs to exactly one [`Regime`];
//! an item accepted by a queue is handled, returned to a caller or counted, never lost in silence.

mod bell;
mod builder;
mod fanout;
mod gate;
mod graph;
mod inbox;
mod lanes;
mod limits;
mod manual;
mod metrics;
mod pipeline;
mod queue;
mod regime;
mod render;
mod stage;
mod time;
mod validate;
mod wiring;
mod worker;

#[cfg(test)]
mod tests;

pub use builder::{LaneQueue, PinnedQueue, Queue, StageBuilder, StageSpec, Topology, TopologyBuilder, Wire};
pub use fanout::{Fanout, Pinning};
pub use lanes::{LaneError, LaneSender, LaneSpec};
pub use limits::{MAX_BATCH, MAX_DEPTH, MAX_LANES, MAX_THREAD_NAME_BYTES, MAX_WORKERS};
pub use manual::{Manual, Turn};
pub use metrics::{MetricsHandle, PipelineMetrics, QueueMetrics, StageMetrics, WorkerMetrics};
pub use pipeline::{AffinityPolicy, Pipeline, PipelineConfig, StageStop, StartError, StopOutcome, StopReport};
pub use queue::{Delivery, Policy, QueueSpec, SendError, Sender};
pub use regime::{Regime, RegimeTotals, blocked};
pub use render::{GoldenMismatch, check_golden};
pub use stage::{Batch, Stage, StageFault};
pub use time::now;
pub use validate::TopologyError;
pub use wiring::{WiredQueue, WiredStage, Wiring};
