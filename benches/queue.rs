//! A hop between two stages of the pipeline: what every item pays to change threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, Throughput};
use millrace_pipeline::runtime::{Batch, Pipeline, PipelineConfig, Policy, QueueSpec, Stage, StageSpec, TopologyBuilder};

/// Items a measurement sends.
const ITEMS: u64 = 4_096;

/// Counts what arrives.
struct Sink(Arc<AtomicU64>);

impl Stage for Sink {
    type Input = u64;

    fn handle(&mut self, batch: &mut Batch<u64>) {
        self.0.fetch_add(batch.len() as u64, Ordering::Release);
        batch.clear();
    }
}

/// Sends items to a running stage and waits until it has seen all of them.
pub fn hop(criterion: &mut Criterion) {
    let seen = Arc::new(AtomicU64::new(0));
    let mut topology = TopologyBuilder::new("bench");
    let queue = topology.queue::<u64>(QueueSpec::new("items", ITEMS as usize, Policy::NeverFull, "one measurement is in it at a time"));
    let sender = topology.ingress("bench", &queue);
    let mut stage = topology.stage::<Sink>(StageSpec { name: "sink", workers: 1, max_batch: 256, what: "counts" });
    stage.reads(&queue, |item| item);
    stage.instances(|_| Sink(Arc::clone(&seen)));
    let pipeline = Pipeline::start(topology.build().expect("a graph of one stage"), &PipelineConfig::default()).expect("threads start");
    let mut sent = 0;
    let mut send = |count: u64| {
        for item in 0..count {
            sender.send(item).expect("the stage runs");
        }
        sent += count;
        while seen.load(Ordering::Acquire) < sent {
            std::hint::spin_loop();
        }
    };
    let mut group = criterion.benchmark_group("queue hop");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("in batches", |bencher| bencher.iter(|| send(ITEMS)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("alone, the stage asleep", |bencher| bencher.iter(|| send(1)));
    group.finish();
    let report = pipeline.stop(Pipeline::DROP_DEADLINE);
    assert!(report.is_clean(), "{report:?}");
}
