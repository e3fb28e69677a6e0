//! What a stage is: the code that one worker thread of the pipeline, or the simulator, drives.
//!
//! Invariant: a stage instance is owned by one driver and called by one thread at a time, so it needs no locks.

use std::collections::VecDeque;
use std::time::Instant;

/// Items handed to a stage. Taking them from the front one by one (`while let Some(item) = batch.pop_front()`) keeps the rest when one of them panics.
pub type Batch<T> = VecDeque<T>;

/// One step of the pipeline. An instance belongs to one worker thread.
///
/// A turn of the run loop: take up to the stage's batch of items that are there without waiting, [`handle`](Stage::handle) them, [`tick`](Stage::tick),
/// and sleep when nothing was there, until an item comes or the tick is due.
pub trait Stage: Send + 'static {
    /// What it reads; an enum when it reads several queues.
    type Input: Send + 'static;

    /// Handles the items, in order within each queue; what is left in `batch` afterwards is dropped and counted as a bug in debug builds.
    /// May wait only on the queues that it declared with [`writes`](crate::runtime::StageBuilder::writes).
    fn handle(&mut self, batch: &mut Batch<Self::Input>);

    /// Runs what is due at `now`, gives the next time to be called, `None` if only items matter.
    /// Called at start, after every batch, when due, and when woken for another reason, so it must be cheap when nothing is due.
    fn tick(&mut self, now: Instant) -> Option<Instant> {
        let _ = now;
        None
    }

    /// The pipeline is stopping and everything upstream has ended: start no new work of its own. Items and ticks still come until [`drained`](Stage::drained).
    fn on_stop(&mut self) {}

    /// True when nothing that was accepted is still inside (half-built batches, heights in flight).
    fn drained(&self) -> bool {
        true
    }

    /// A panic was caught in [`handle`](Stage::handle) or [`tick`](Stage::tick). True to go on with this instance and the rest of the batch,
    /// for a stage that knows which group it was at and can put that group aside. False ends the worker; its queues are closed.
    fn survives(&mut self, fault: &StageFault) -> bool {
        let _ = fault;
        false
    }

    /// The last call of a worker that ends in order: flush and close.
    fn finish(self)
    where
        Self: Sized,
    {
    }
}

/// A panic in a stage, as reported to the supervisor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageFault {
    /// The stage's name.
    pub stage: &'static str,
    /// Index of the worker.
    pub worker: usize,
    /// The panic's message.
    pub message: String,
    /// Whether the worker goes on.
    pub survived: bool,
}
