//! Tests of the runtime as a whole: real threads, wired as the node wires them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::GroupId;

use super::*;

mod drain;
mod lanes;
mod picture;
mod refusals;
mod regimes;

const STEP: Duration = Duration::from_secs(20);

fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

fn spec(name: &'static str, workers: usize) -> StageSpec {
    StageSpec { name, workers, max_batch: 64, what: "a stage of a test" }
}

/// A stage made of a closure over each item.
struct Each<T, F>(F, std::marker::PhantomData<fn(T)>);

fn each<T: Send + 'static, F: FnMut(T) + Send + 'static>(work: F) -> Each<T, F> {
    Each(work, std::marker::PhantomData)
}

impl<T: Send + 'static, F: FnMut(T) + Send + 'static> Stage for Each<T, F> {
    type Input = T;

    fn handle(&mut self, batch: &mut Batch<T>) {
        while let Some(item) = batch.pop_front() {
            (self.0)(item);
        }
    }
}

/// Waits for a state that other threads bring about.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + STEP;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_item_sent_to_a_running_pipeline_is_handled_and_the_stop_is_clean() {
    let seen = Arc::new(AtomicU64::new(0));
    let mut topology = TopologyBuilder::new("smoke");
    let first = topology.queue::<u64>(QueueSpec::new("first", 8, Policy::Reject, "small on purpose"));
    let second = topology.queue::<u64>(QueueSpec::new("second", 8, Policy::NeverFull, "first holds 8"));
    let client = topology.ingress("client", &first);
    let mut stage = topology.stage::<Each<u64, _>>(spec("relay", 1));
    stage.reads(&first, |item| item);
    let out = stage.writes(&second);
    stage.instances(|_| {
        let out = out.clone();
        each(move |item: u64| {
            out.send(item + 1).unwrap();
        })
    });
    let mut stage = topology.stage::<Each<u64, _>>(spec("sink", 1));
    stage.reads(&second, |item| item);
    stage.instances(|_| {
        let seen = Arc::clone(&seen);
        each(move |item: u64| {
            seen.fetch_add(item, Ordering::Relaxed);
        })
    });
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    client.send(41).unwrap();
    let report = pipeline.stop(STEP);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(seen.load(Ordering::Relaxed), 42);
    assert_eq!(client.send(1), Err(SendError::Closed(1)));
}
