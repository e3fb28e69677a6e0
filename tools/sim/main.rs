//! `sim`: whole clusters of nodes, each run in one thread from one seed, with the real stages, engines and ledgers.
//!
//! Every run has a phase with faults and a phase without, and checks what a chain promises: see [`oracle`]. A seed that fails prints the
//! command that runs it again, event for event.

mod clients;
mod dice;
mod lies;
mod network;
mod options;
mod oracle;
mod power;
mod process;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use mimalloc::MiMalloc;
use parking_lot::Mutex;

use options::{Bug, Options, Ordering as GroupOrdering, Overrides};
use world::{Outcome, World};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs clusters of nodes from seeds, with faults, and checks that they keep their promises.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// Runs so many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Sealers of group 1 instead of what the seed says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10))]
    nodes: Option<u64>,
    /// Groups instead of what the seed says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4))]
    groups: Option<u64>,
    /// How groups order their transactions: pbft, or raft in groups with odd numbers (then no member lies).
    #[arg(long, value_enum, default_value = "pbft")]
    consensus: GroupOrdering,
    /// Seeds that run at the same time, each in one thread.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints what happens, and the nodes' logs.
    #[arg(long)]
    verbose: bool,
    /// Names also what honest nodes refused of each other.
    #[arg(long)]
    refusals: bool,
    /// Goes on behind a seed that fails.
    #[arg(long)]
    keep_going: bool,
    /// Plants a bug, to see that it is found.
    #[arg(long, value_enum)]
    plant: Option<Bug>,
}

/// Runs one seed; a panic is a violation too.
fn run(seed: u64, overrides: Overrides, verbose: bool) -> Outcome {
    let options = Options::of(seed, overrides);
    plant(options.planted);
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(options, verbose).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
        Outcome { violation: Some(format!("panic: {text}")), ..Outcome::default() }
    })
}

#[cfg(feature = "planted")]
fn plant(bug: Option<Bug>) {
    use millrace_administration::planted;
    planted::plant(match bug {
        Some(Bug::Quorum) => Some(planted::Bug::SmallQuorum),
        Some(Bug::Signers) => Some(planted::Bug::RepeatedSigners),
        Some(Bug::Durable) | None => None,
    });
}

#[cfg(not(feature = "planted"))]
fn plant(bug: Option<Bug>) {
    let is_there = matches!(bug, None | Some(Bug::Durable));
    assert!(is_there, "this bug is in none of the crates: build with --features planted");
}

/// What all seeds of a call add up to.
#[derive(Default)]
struct Sum {
    false_refusals: u64,
    seeds: u64,
    failed: u64,
    blocks: usize,
    transactions: usize,
    crashes: usize,
    simulated_ms: u64,
    worst_recovery_ms: (u64, u64),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let overrides = Overrides {
        nodes: arguments.nodes.map(|nodes| nodes as usize),
        groups: arguments.groups.map(|groups| groups as usize),
        ordering: arguments.consensus,
        planted: arguments.plant,
    };
    if arguments.verbose {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "debug".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout).without_time().with_ansi(false).init();
    }
    let (first, count) = arguments.seed.map_or((arguments.start, arguments.seeds), |seed| (seed, 1));
    let (next, sum, begun) = (AtomicU64::new(first), Mutex::new(Sum::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) || (sum.lock().failed > 0 && !arguments.keep_going) {
                        return;
                    }
                    let outcome = run(seed, overrides, arguments.verbose);
                    report(seed, overrides, (&outcome, arguments.refusals), &mut sum.lock());
                    if count == 1 {
                        println!("{:?}\n{outcome:?}", Options::of(seed, overrides));
                    }
                }
            });
        }
    });
    let sum = sum.into_inner();
    let elapsed_s = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds in {elapsed_s:.1} s, {:.1} seeds/s: {} failed; {} blocks, {} transactions, {} losses of power, {} simulated s; slowest recovery {} ms (seed {})",
        sum.seeds,
        sum.seeds as f64 / elapsed_s,
        sum.failed,
        sum.blocks,
        sum.transactions,
        sum.crashes,
        sum.simulated_ms / 1_000,
        sum.worst_recovery_ms.0,
        sum.worst_recovery_ms.1,
    );
    if sum.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(seed: u64, overrides: Overrides, (outcome, is_verbose): (&Outcome, bool), sum: &mut Sum) {
    sum.seeds += 1;
    sum.blocks += outcome.blocks;
    sum.transactions += outcome.transactions;
    sum.crashes += outcome.crashes;
    sum.simulated_ms += outcome.simulated_ms;
    sum.worst_recovery_ms = sum.worst_recovery_ms.max((outcome.recovery_ms, seed));
    if let Some(halted) = &outcome.faulty_halt {
        println!("seed {seed}: a faulty member stopped itself: {halted}");
    }
    sum.false_refusals += u64::from(outcome.false_refusal.is_some());
    if let Some(refusal) = outcome.false_refusal.as_ref().filter(|_| is_verbose) {
        println!("seed {seed}: {refusal}");
    }
    if let Some(violation) = &outcome.violation {
        sum.failed += 1;
        let options = Options::of(seed, overrides);
        println!(
            "seed {seed} FAILED after {} simulated ms: {violation}\n  {options:?}\n  again: {}",
            outcome.simulated_ms,
            options.command(overrides)
        );
    }
}

#[cfg(test)]
mod tests;
