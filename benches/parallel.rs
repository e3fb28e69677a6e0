//! Executing blocks on one thread and on all cores.

use std::sync::Arc;
use std::thread::available_parallelism;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use millrace_access::verifier::{BlockExecutor, Crew, Mode};

use crate::chain::RULES;
use crate::workloads::{Bench, Workload};

/// Block sizes of the first workload; the others are measured with the second.
const SIZES: [u64; 4] = [100, 1_000, 10, 10_000];

/// Every workload serially and on all cores, roots and hashes included.
pub fn execution(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let cores = available_parallelism().map_or(1, usize::from);
    let crew = Crew::new(cores).expect("the machine has threads");
    let mut group = criterion.benchmark_group("block execution");
    group.sample_size(10);
    for (name, workload) in Workload::ALL {
        let sizes = if workload == Workload::ConflictFree { &SIZES[..] } else { &SIZES[1..2] };
        for size in sizes {
            let transactions = bench.block(workload, *size);
            group.throughput(Throughput::Elements(*size));
            for mode in [Mode::Serial, Mode::SharedRoots, Mode::Speculative, Mode::Guided] {
                let crew = if mode == Mode::Serial { Crew::alone() } else { Arc::clone(&crew) };
                let mut executor = BlockExecutor::with_crew(RULES, crew).always(mode);
                let id = BenchmarkId::new(format!("{name}, {mode:?}"), size);
                group.bench_function(id, |bencher| {
                    let work = |transactions| bench.chain.execute(&mut executor, transactions);
                    bencher.iter_batched(|| transactions.clone(), work, BatchSize::LargeInput);
                });
            }
        }
    }
    group.finish();
}
