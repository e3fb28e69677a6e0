//! Each kind of queue in a running pipeline, and the threads that serve it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::*;

/// A stage that writes down what each of its workers handled.
fn collect<T: Send + Clone + 'static, Q: Wire<Item = T>>(topology: &mut TopologyBuilder, queue: &Q, workers: usize) -> Seen<T> {
    let seen = Seen::default();
    let mut stage = topology.stage::<Each<T, _>>(spec("collect", workers));
    stage.reads(queue, |item| item);
    stage.instances(|worker| {
        let seen = Arc::clone(&seen);
        each(move |item| seen.lock().push((worker, item)))
    });
    seen
}

type Seen<T> = Arc<Mutex<Vec<(usize, T)>>>;

#[test]
fn mailbox_hands_out_the_newest_value_of_each_key_in_the_order_of_first_need() {
    let mut topology = TopologyBuilder::new("mailbox");
    let spec = QueueSpec::<(u64, u64)>::new("mailbox", 2, Policy::ReplaceNewest, "two keys").keyed(|(key, _)| *key);
    let mailbox = topology.queue(spec);
    let writer = topology.ingress("writer", &mailbox);
    let seen = collect(&mut topology, &mailbox, 1);
    assert_eq!(writer.send((7, 1)), Ok(Delivery::Queued));
    assert_eq!(writer.send((3, 1)), Ok(Delivery::Queued));
    assert_eq!(writer.send((7, 2)), Ok(Delivery::Replaced((7, 1))));
    assert_eq!(writer.send((9, 1)), Err(SendError::Full((9, 1))), "a third key has no place");
    assert_eq!(writer.send((7, 3)), Ok(Delivery::Replaced((7, 2))));
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    eventually("both keys are handled", || seen.lock().len() == 2);
    assert_eq!(*seen.lock(), [(0, (7, 3)), (0, (3, 1))]);
    assert_eq!(writer.send((9, 4)), Ok(Delivery::Queued), "handled keys make room");
    let row = pipeline.metrics().queues.into_iter().find(|row| row.queue == "mailbox").unwrap();
    assert_eq!((row.replaced, row.rejected), (2, 1));
    assert!(pipeline.stop(STEP).is_clean());
    assert_eq!(seen.lock().last(), Some(&(0, (9, 4))));
}

#[test]
fn concurrent_writers_of_a_mailbox_never_hide_the_last_value() {
    let mut topology = TopologyBuilder::new("race");
    let spec = QueueSpec::<(u64, u64)>::new("mailbox", 4, Policy::ReplaceNewest, "four keys").keyed(|(key, _)| *key);
    let mailbox = topology.queue(spec);
    let writer = topology.ingress("writer", &mailbox);
    let seen = collect(&mut topology, &mailbox, 1);
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    std::thread::scope(|scope| {
        for key in 0..4 {
            let writer = &writer;
            scope.spawn(move || (0..=10_000).for_each(|value| assert!(writer.send((key, value)).is_ok())));
        }
    });
    assert!(pipeline.stop(STEP).is_clean());
    let mut last = BTreeMap::new();
    for (_, (key, value)) in seen.lock().iter() {
        let before = last.insert(*key, *value);
        assert!(before.is_none_or(|before| before < *value), "values of a key come in order");
    }
    assert_eq!(last.into_iter().collect::<Vec<_>>(), [(0, 10_000), (1, 10_000), (2, 10_000), (3, 10_000)]);
}

#[test]
fn pinned_queue_keeps_each_group_on_one_worker_and_in_order_and_spreads_groups() {
    let mut topology = TopologyBuilder::new("pinned");
    let pinning = Pinning::new(3);
    let queue = topology.pinned_queue::<(i64, u64)>(QueueSpec::new("queue", 4_096, Policy::NeverFull, "the test sends fewer"), &pinning);
    let writer = topology.ingress("writer", &queue);
    let seen = collect(&mut topology, &queue, 3);
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    for number in 0..200 {
        for id in 1..=9 {
            writer.send(group(id), (id, number)).unwrap();
        }
    }
    assert!(pipeline.stop(STEP).is_clean());
    let mut workers: BTreeMap<i64, (usize, Vec<u64>)> = BTreeMap::new();
    for (worker, (id, number)) in seen.lock().iter() {
        let entry = workers.entry(*id).or_insert((*worker, Vec::new()));
        assert_eq!(entry.0, *worker, "group {id} moved");
        entry.1.push(*number);
    }
    assert!(workers.values().all(|(_, numbers)| numbers.iter().copied().eq(0..200)));
    let mut load = [0; 3];
    workers.values().for_each(|(worker, _)| load[*worker] += 1);
    assert_eq!(load, [3, 3, 3]);
}

#[test]
fn released_group_makes_room_for_the_next_on_its_worker() {
    let pinning = Pinning::new(2);
    let places: Vec<_> = (1..=4).map(|id| pinning.worker_of(group(id))).collect();
    assert_eq!(places, [0, 1, 0, 1]);
    pinning.release(group(1));
    pinning.release(group(3));
    pinning.release(group(3));
    assert_eq!((pinning.worker_of(group(5)), pinning.worker_of(group(6))), (0, 0));
    assert_eq!(pinning.worker_of(group(2)), 1, "others stay where they are");
}

#[test]
fn writer_of_a_full_blocking_queue_waits_is_booked_as_blocked_and_loses_nothing() {
    let mut topology = TopologyBuilder::new("blocking");
    let pinning = Pinning::new(1);
    let first = topology.pinned_queue::<u64>(QueueSpec::new("first", 256, Policy::NeverFull, "the test sends fewer"), &pinning);
    let second = topology.pinned_queue::<u64>(QueueSpec::new("second", 2, Policy::Block, "small on purpose"), &pinning);
    let writer = topology.ingress("writer", &first);
    let mut relay = topology.stage::<Each<u64, _>>(spec("relay", 1));
    relay.reads(&first, |item| item);
    let onward = relay.writes(&second);
    relay.instances(|_| {
        let onward = onward.clone();
        each(move |item| assert!(onward.send(group(1), item).is_ok()))
    });
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::new(AtomicU64::new(0));
    let mut slow = topology.stage::<Each<u64, _>>(spec("slow", 1));
    slow.reads(&second, |item| item);
    slow.instances(|_| {
        let (open, seen) = (Arc::clone(&open), Arc::clone(&seen));
        each(move |_| {
            eventually("the test lets go", || open.load(Ordering::Acquire));
            seen.fetch_add(1, Ordering::Relaxed);
        })
    });
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    (0..200).for_each(|item| assert!(writer.send(group(1), item).is_ok()));
    let metrics = pipeline.metrics_handle();
    eventually("the relay waits", || metrics.snapshot().queues.iter().any(|row| row.queue == "second" && row.blocked_sends > 0));
    open.store(true, Ordering::Release);
    assert!(pipeline.stop(STEP).is_clean());
    assert_eq!(seen.load(Ordering::Relaxed), 200);
    let text = metrics.snapshot().to_prometheus();
    let blocked =
        text.lines().find(|line| line.contains("millrace_stage_seconds_total") && line.contains("relay") && line.contains("blocked"));
    let seconds: f64 = blocked.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap();
    assert!(seconds > 0.0, "{text}");
}

#[test]
fn queue_that_drops_the_oldest_keeps_the_newest_and_counts() {
    let mut topology = TopologyBuilder::new("ring");
    let queue = topology.queue::<u64>(QueueSpec::new("ring", 3, Policy::DropOldest, "events are hints"));
    let writer = topology.ingress("writer", &queue);
    let seen = collect(&mut topology, &queue, 1);
    let dropped: Vec<u64> =
        (0..8).filter_map(|item| if let Ok(Delivery::DroppedOldest(old)) = writer.send(item) { Some(old) } else { None }).collect();
    assert_eq!(dropped, [0, 1, 2, 3, 4]);
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    assert!(pipeline.stop(STEP).is_clean());
    assert_eq!(seen.lock().iter().map(|(_, item)| *item).collect::<Vec<_>>(), [5, 6, 7]);
}

/// Cores that the calling thread may use.
fn cores() -> usize {
    core_affinity::get_core_ids().map_or(0, |cores| cores.len())
}

fn cores_of_workers(affinity: AffinityPolicy) -> Vec<usize> {
    let mut topology = TopologyBuilder::new("cores");
    let pinning = Pinning::new(3);
    let queue = topology.pinned_queue::<i64>(QueueSpec::new("queue", 8, Policy::NeverFull, "one item a worker"), &pinning);
    let writer = topology.ingress("writer", &queue);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut stage = topology.stage::<Each<i64, _>>(spec("work", 3));
    stage.reads(&queue, |item| item);
    stage.instances(|_| {
        let seen = Arc::clone(&seen);
        each(move |_| seen.lock().push(cores()))
    });
    let config = PipelineConfig { affinity, ..PipelineConfig::default() };
    let pipeline = Pipeline::start(topology.build().unwrap(), &config).unwrap();
    (1..=3).for_each(|id| assert!(writer.send(group(id), id).is_ok()));
    assert!(pipeline.stop(STEP).is_clean());
    Arc::into_inner(seen).expect("the pipeline has ended").into_inner()
}

#[test]
fn threads_are_bound_to_one_core_each_when_asked_and_left_alone_otherwise() {
    let all = cores();
    if all == 0 {
        eprintln!("skipped: this system does not tell which cores a thread may use");
        return;
    }
    assert_eq!(cores_of_workers(AffinityPolicy::Pin), [1, 1, 1]);
    assert_eq!(cores_of_workers(AffinityPolicy::None), [all, all, all]);
    assert_eq!(cores(), all, "the starting thread keeps its cores");
}

/// A stage that panics at odd items and goes on.
struct Sturdy(Arc<Mutex<Vec<u64>>>);

impl Stage for Sturdy {
    type Input = u64;

    fn handle(&mut self, batch: &mut Batch<u64>) {
        while let Some(item) = batch.pop_front() {
            assert!(item % 2 == 0, "odd");
            self.0.lock().push(item);
        }
    }

    fn survives(&mut self, _: &StageFault) -> bool {
        true
    }
}

#[test]
fn stage_that_survives_a_panic_loses_that_item_only() {
    let mut topology = TopologyBuilder::new("sturdy");
    let queue = topology.queue::<u64>(QueueSpec::new("queue", 64, Policy::Reject, "test"));
    let writer = topology.ingress("writer", &queue);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut stage = topology.stage::<Sturdy>(spec("sturdy", 1));
    stage.reads(&queue, |item| item);
    stage.instances(|_| Sturdy(Arc::clone(&seen)));
    (0..10).for_each(|item| assert!(writer.send(item).is_ok()));
    let pipeline = Pipeline::start(topology.build().unwrap(), &PipelineConfig::default()).unwrap();
    // The last item is one of those that panic.
    eventually("every fault is counted", || pipeline.metrics().stages[0].workers[0].faults == 5);
    assert_eq!(*seen.lock(), [0, 2, 4, 6, 8]);
    assert!(pipeline.stop(STEP).is_clean());
}
