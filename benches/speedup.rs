//! Prints how much faster blocks are executed on several threads than on one, and what CPU time that costs.
//!
//! `cargo run --release -p millrace-benches --example speedup -- [--threads N] [--sizes 10,100,1000,10000] [--only NAME] [--rounds N]`
//!
//! All ways are measured in turn in one run; figures are those of the fastest round of each, since other programs only ever add to
//! a round. Each way's blocks are compared with the serial ones.

#![allow(missing_docs, reason = "a program")]

mod chain;
mod workloads;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use millrace_access::verifier::{BlockExecutor, Crew, Mode};
use millrace_base::VerifiedTx;

use crate::chain::RULES;
use crate::workloads::{Bench, Workload};

/// As in the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Options {
    threads: usize,
    sizes: Vec<u64>,
    only: Option<String>,
    rounds: usize,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self { threads: 2, sizes: vec![10, 100, 1_000, 10_000], only: None, rounds: 15 };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
            match name.as_str() {
                "--threads" => options.threads = value.parse().expect("a number of threads"),
                "--sizes" => options.sizes = value.split(',').map(|size| size.parse().expect("a block size")).collect(),
                "--only" => options.only = Some(value),
                "--rounds" => options.rounds = value.parse().expect("a number of rounds"),
                _ => panic!("unknown option {name}"),
            }
        }
        options
    }
}

/// CPU time of each thread of this process so far, in nanoseconds.
fn cpu_times() -> HashMap<OsString, u64> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let time = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        (task.file_name(), text.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0))
    };
    tasks.flatten().map(time).collect()
}

/// One way to execute.
struct Way {
    executor: BlockExecutor,
    best_wall_ns: u64,
    best_cpu_ns: u64,
    /// CPU time of the thread that used most: what the block takes on a machine with nothing else to do, if no thread waits.
    best_longest_ns: u64,
}

impl Way {
    fn new(threads: usize, mode: Option<Mode>) -> Self {
        let crew = if threads == 1 { Crew::alone() } else { Crew::new(threads).expect("the machine has threads") };
        let executor = BlockExecutor::with_crew(RULES, crew);
        let executor = match mode {
            Some(mode) => executor.always(mode),
            None => executor,
        };
        Self { executor, best_wall_ns: u64::MAX, best_cpu_ns: u64::MAX, best_longest_ns: u64::MAX }
    }

    fn run(&mut self, bench: &Bench, transactions: &[VerifiedTx]) -> (millrace_base::B256, u64) {
        let transactions = transactions.to_vec();
        let (before, start) = (cpu_times(), Instant::now());
        let executed = bench.chain.execute(&mut self.executor, transactions);
        let wall = start.elapsed().as_nanos() as u64;
        let used = cpu_times().into_iter().map(|(thread, time)| time - before.get(&thread).copied().unwrap_or(0));
        let used: Vec<u64> = used.collect();
        self.best_wall_ns = self.best_wall_ns.min(wall);
        self.best_cpu_ns = self.best_cpu_ns.min(used.iter().sum());
        self.best_longest_ns = self.best_longest_ns.min(used.iter().copied().max().unwrap_or(0));
        (executed.block.hash, wall)
    }
}

fn main() {
    let Options { threads, sizes, only, rounds } = Options::from_arguments();
    let mut bench = Bench::new();
    println!("serial: 1 thread; parallel: {threads} threads; figures of the fastest of {rounds} rounds; CPU relative to serial");
    println!("idle: by the CPU time of the thread that used most, which other programs disturb less than the wall time");
    println!("measured: the way the policy takes by itself, all rounds after the first 20");
    println!(
        "{:<18} {:>6} {:>10} | {:>8} {:>6} | {:>6} | {:>8} {:>6} {:>6} | {:>8} {:>6} {:>6} | {:>8} | {:>6}",
        "workload", "block", "serial us", "1 thread", "cpu", "roots", "specul.", "idle", "cpu", "guided", "idle", "cpu", "measured", "lost"
    );
    for (name, workload) in Workload::ALL.into_iter().filter(|entry| only.as_ref().is_none_or(|only| entry.0.contains(only.as_str()))) {
        for size in &sizes {
            let transactions = bench.block(workload, *size);
            measure(&bench, name, &transactions, threads, rounds);
        }
    }
}

fn measure(bench: &Bench, name: &str, transactions: &[VerifiedTx], threads: usize, rounds: usize) {
    let mut ways = [
        Way::new(1, Some(Mode::Serial)),
        Way::new(1, Some(Mode::Speculative)),
        Way::new(threads, Some(Mode::SharedRoots)),
        Way::new(threads, Some(Mode::Speculative)),
        Way::new(threads, Some(Mode::Guided)),
    ];
    let mut walls = Vec::new();
    for _ in 0..rounds {
        let results: Vec<_> = ways.iter_mut().map(|way| way.run(bench, transactions)).collect();
        assert!(results.iter().all(|result| result.0 == results[0].0), "{name}: results differ");
    }
    let crew = Crew::new(threads).expect("the machine has threads");
    let mut measured = BlockExecutor::with_crew(RULES, Arc::clone(&crew));
    let mut serial = Way::new(1, Some(Mode::Serial));
    // The policy's own trials are part of what it costs.
    let mut total = (0u64, 0u64);
    for round in 0..rounds + 20 {
        let start = Instant::now();
        bench.chain.execute(&mut measured, transactions.to_vec());
        let wall = start.elapsed().as_nanos() as u64;
        let (_, serial_wall) = serial.run(bench, transactions);
        if round >= 20 {
            total = (total.0 + wall, total.1 + serial_wall);
            walls.push(wall);
        }
    }
    let [serial, one, shared, speculative, guided] = &ways;
    let lost = crew.totals().reexecutions;
    let speed = |way: &Way| serial.best_wall_ns as f64 / way.best_wall_ns as f64;
    let share = |way: &Way| serial.best_cpu_ns as f64 / way.best_longest_ns as f64;
    let cpu = |way: &Way| way.best_cpu_ns as f64 / serial.best_cpu_ns as f64;
    println!(
        "{name:<18} {:>6} {:>10.2} | {:>8.2} {:>6.2} | {:>6.2} | {:>8.2} {:>6.2} {:>6.2} | {:>8.2} {:>6.2} {:>6.2} | {:>8.2} | {lost:>6}",
        transactions.len(),
        serial.best_wall_ns as f64 / 1_000.0 / transactions.len() as f64,
        speed(one),
        cpu(one),
        speed(shared),
        speed(speculative),
        share(speculative),
        cpu(speculative),
        speed(guided),
        share(guided),
        cpu(guided),
        total.1 as f64 / total.0 as f64,
    );
}
