//! Tests of the runtime as a whole: real threads, wired as the node wires them.

#[path = "tests/kinds.rs"]
mod kinds;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::GroupId;

use super::*;

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

/// A stage that does nothing, for graphs that never run.
struct Idle;

impl Stage for Idle {
    type Input = u64;

    fn handle(&mut self, batch: &mut Batch<u64>) {
        batch.clear();
    }
}

#[test]
fn cycle_of_blocking_queues_is_refused() {
    let mut topology = TopologyBuilder::new("cycle");
    let pinning = Pinning::new(1);
    let there = topology.pinned_queue::<u64>(QueueSpec::new("there", 8, Policy::Block, "test"), &pinning);
    let back = topology.pinned_queue::<u64>(QueueSpec::new("back", 8, Policy::Block, "test"), &pinning);
    let mut left = topology.stage::<Idle>(spec("left", 1));
    left.reads(&back, |item| item);
    let _ = left.writes(&there);
    left.instances(|_| Idle);
    let mut right = topology.stage::<Idle>(spec("right", 1));
    right.reads(&there, |item| item);
    let _ = right.writes(&back);
    right.instances(|_| Idle);
    let error = topology.build().unwrap_err();
    assert!(error.to_string().contains("left"), "{error}");
}

#[test]
fn queue_without_exactly_one_reading_stage_is_refused() {
    let mut unread = TopologyBuilder::new("unread");
    let lonely = unread.queue::<u64>(QueueSpec::new("lonely", 8, Policy::Reject, "test"));
    let _ = unread.ingress("client", &lonely);
    assert!(unread.build().unwrap_err().to_string().contains("lonely"));

    let mut twice = TopologyBuilder::new("twice");
    let shared = twice.queue::<u64>(QueueSpec::new("shared", 8, Policy::Reject, "test"));
    let _ = twice.ingress("client", &shared);
    for name in ["one", "two"] {
        let mut stage = twice.stage::<Idle>(spec(name, 1));
        stage.reads(&shared, |item| item);
        stage.instances(|_| Idle);
    }
    assert!(twice.build().unwrap_err().to_string().contains("shared"));
}

#[test]
fn thread_name_too_long_for_the_system_is_refused() {
    let mut topology = TopologyBuilder::new("names");
    let queue = topology.queue::<u64>(QueueSpec::new("queue", 8, Policy::Reject, "test"));
    let _ = topology.ingress("client", &queue);
    let mut stage = topology.stage::<Idle>(spec("a-name-of-many-letters", 1));
    stage.reads(&queue, |item| item);
    stage.instances(|_| Idle);
    assert!(topology.build().is_err());
}

fn lanes_spec(depth: usize) -> LaneSpec<(u16, u64)> {
    LaneSpec {
        name: "lanes",
        lane_depth: depth,
        lane_weight: depth as u64,
        quantum: 4,
        batch_weight: 16,
        max_lanes: 8,
        weight: |_| 1,
        why: "test",
    }
}

#[test]
fn flooded_lane_delays_another_by_a_bounded_number_of_items() {
    let mut topology = TopologyBuilder::new("fair");
    let lanes = topology.lanes(lanes_spec(4096));
    lanes.add_group(group(1));
    lanes.add_group(group(2));
    let client = topology.ingress("client", &lanes);
    // Everything is there before the stage starts, so the order of service is the lanes' own.
    for item in 0..4_000 {
        client.send(group(1), (1, item)).unwrap();
    }
    for item in 0..10 {
        client.send(group(2), (2, item)).unwrap();
    }
    let served = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&served);
    let mut stage = topology.stage::<Each<(u16, u64), _>>(spec("serve", 1));
    stage.reads(&lanes, |item| item);
    stage.instances(move |_| {
        let seen = Arc::clone(&seen);
        each(move |(id, _): (u16, u64)| seen.lock().push(id))
    });
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    eventually("all are served", || served.lock().len() == 4_010);
    assert!(pipeline.stop(STEP).is_clean());
    let last_of_two = served.lock().iter().rposition(|id| *id == 2).unwrap();
    assert!(last_of_two < 64, "served as number {last_of_two}");
}

#[test]
fn full_lane_is_refused_and_leaves_the_others_open() {
    let mut topology = TopologyBuilder::new("full");
    let lanes = topology.lanes(lanes_spec(4));
    lanes.add_group(group(1));
    lanes.add_group(group(2));
    let client = topology.ingress("client", &lanes);
    for item in 0..4 {
        client.send(group(1), (1, item)).unwrap();
    }
    assert!(matches!(client.send(group(1), (1, 9)), Err(LaneError::Full((1, 9)))));
    assert!(client.send(group(2), (2, 0)).is_ok());
    assert!(matches!(client.send(group(3), (3, 0)), Err(LaneError::NoLane(_))));
}

#[test]
fn stop_loses_no_item_that_was_accepted_from_concurrent_senders() {
    let mut topology = TopologyBuilder::new("drain");
    let first = topology.queue::<u64>(QueueSpec::new("first", 64, Policy::Reject, "small on purpose"));
    let second = topology.queue::<u64>(QueueSpec::new("second", 1 << 18, Policy::NeverFull, "the test sends fewer"));
    let client = topology.ingress("client", &first);
    let mut relay = topology.stage::<Each<u64, _>>(spec("relay", 1));
    relay.reads(&first, |item| item);
    let onward = relay.writes(&second);
    relay.instances(move |_| {
        let onward = onward.clone();
        each(move |item| {
            onward.send(item).unwrap();
        })
    });
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let mut sink = topology.stage::<Each<u64, _>>(spec("sink", 1));
    sink.reads(&second, |item| item);
    sink.instances(move |_| {
        let count = Arc::clone(&count);
        each(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
    });
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    let accepted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for item in 0..25_000 {
                    if client.send(item).is_ok() {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(pipeline.stop(STEP).is_clean());
    assert_eq!(handled.load(Ordering::Relaxed), accepted.load(Ordering::Relaxed));
    assert!(client.send(0).is_err(), "a stopped pipeline accepts nothing");
}

#[test]
fn panic_in_a_stage_is_reported_and_the_others_go_on() {
    let mut topology = TopologyBuilder::new("panic");
    let bad = topology.queue::<u64>(QueueSpec::new("bad", 8, Policy::Reject, "test"));
    let good = topology.queue::<u64>(QueueSpec::new("good", 8, Policy::Reject, "test"));
    let (to_bad, to_good) = (topology.ingress("client", &bad), topology.ingress("client", &good));
    let mut stage = topology.stage::<Each<u64, _>>(spec("fragile", 1));
    stage.reads(&bad, |item| item);
    stage.instances(|_| each(|_: u64| panic!("planted")));
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let mut stage = topology.stage::<Each<u64, _>>(spec("sturdy", 1));
    stage.reads(&good, |item| item);
    stage.instances(move |_| {
        let count = Arc::clone(&count);
        each(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
    });
    let faults = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&faults);
    let on_fault = Arc::new(move |fault: &StageFault| seen.lock().push(fault.clone()));
    let config = PipelineConfig { on_fault, ..PipelineConfig::default() };
    let pipeline = Pipeline::start(topology.build().unwrap(), &config).unwrap();
    to_bad.send(1).unwrap();
    eventually("the fault is reported", || faults.lock().len() == 1);
    assert!(faults.lock()[0].message.contains("planted"));
    to_good.send(1).unwrap();
    eventually("the other stage works", || handled.load(Ordering::Relaxed) == 1);
    drop(pipeline);
}

#[test]
fn regimes_of_a_worker_add_up_to_its_life() {
    let mut topology = TopologyBuilder::new("regimes");
    let queue = topology.queue::<u64>(QueueSpec::new("queue", 8, Policy::Reject, "test"));
    let client = topology.ingress("client", &queue);
    let mut stage = topology.stage::<Each<u64, _>>(spec("work", 1));
    stage.reads(&queue, |item| item);
    stage.instances(|_| each(|millis: u64| std::thread::sleep(Duration::from_millis(millis))));
    let before = Instant::now();
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    client.send(20).unwrap();
    eventually("the item is handled", || pipeline.metrics().stages[0].workers[0].items == 1);
    let text = pipeline.metrics().to_prometheus();
    let after = before.elapsed();
    let seconds: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("millrace_stage_seconds_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(seconds.len(), 4);
    let sum: f64 = seconds.iter().sum();
    assert!(sum <= after.as_secs_f64() && sum >= after.as_secs_f64() - 1.0, "{sum} of {after:?}");
    drop(pipeline);
}
