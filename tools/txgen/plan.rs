//! The course of a run: open, follow, set up, sign, warm up, measure, settle, check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_base::fault::{Fault, FaultKind};

use crate::check::{self, Verdict};
use crate::door::Doors;
use crate::file::{self, Header};
use crate::follow::Follower;
use crate::load::{End, Load, Pace};
use crate::node::{self, Node};
use crate::options::{Options, share};
use crate::report::{NodeReport, Report};
use crate::setup::Group;
use crate::supply::{Lanes, PREPARED_MAX, Prepared, Supply};
use crate::tracker::Phase;
use crate::{process, progress};

/// Unknown transactions are offered to the nodes again so often before they are left to their fate.
const RESCUES: u32 = 3;

/// Time without news from the nodes after which rescue begins.
const SLICE: Duration = Duration::from_secs(1);

/// Time without a commit after which a node that failed is taken to have lost more than was seen: another may have been started again
/// between two requests. At most half of the patience.
const QUIET: Duration = Duration::from_secs(5);

/// Runs what the options say, with one transport. `None` after `--presign`: there is nothing to report.
pub fn run(options: &Options) -> Result<Option<Report>, Fault> {
    options.validate()?;
    let doors = Doors::new(options)?;
    let header = options.from_file.as_deref().map(file::read_header).transpose()?;
    let (ids, nodes) = (options.groups()?, Node::all(options));
    let groups = ids.into_iter().map(|id| Group::open(options, &nodes, id, header.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let run = Run { options, groups: &groups, nodes: &nodes, doors: &doors, header: header.as_ref() };
    std::thread::scope(|scope| {
        scope.spawn(|| node::watch(&nodes, options.request_patience(), &is_over));
        let followers: Vec<_> =
            groups.iter().map(|group| scope.spawn(|| Follower::new(group, options.request_patience()).run(&stop))).collect();
        let outcome = run.stages();
        stop.store(true, Ordering::Release);
        followers.into_iter().for_each(|follower| follower.join().expect("the follower does not panic"));
        let report = outcome.map(|cpu| cpu.map(|cpu| run.checked(cpu)));
        is_over.store(true, Ordering::Release);
        report
    })
}

/// What the stages of a run share.
struct Run<'a> {
    options: &'a Options,
    groups: &'a [Group],
    nodes: &'a [Arc<Node>],
    doors: &'a Doors,
    header: Option<&'a Header>,
}

/// CPU time of each node in the measured phase, where it is known.
type CpuTimes = Vec<Option<Duration>>;

impl Run<'_> {
    fn checked(&self, cpu: CpuTimes) -> Report {
        progress::say("checking receipts, balances and nodes");
        let start = Instant::now();
        let verdicts: Vec<Verdict> = self.groups.iter().map(|group| check::check(group, self.options.patience())).collect();
        Report::new(self.groups, verdicts, NodeReport::all(self.nodes, cpu), start.elapsed())
    }

    /// `None` when the run ends with a file of signed transactions.
    fn stages(&self) -> Result<Option<CpuTimes>, Fault> {
        let (options, groups) = (self.options, self.groups);
        progress::say("preparing accounts and contracts");
        in_parallel(groups, |index, group| group.prepare(options, connections(options, groups, index)))?;
        if let Some(path) = &options.presign {
            let [group] = groups else { unreachable!("validated: a file is for one group") };
            let transactions = group.make_many(Phase::Measured, 0..options.count);
            let header = Header {
                chain_id: group.signer.chain_id,
                group: group.id.get(),
                workload: options.workload,
                seed: options.seed,
                salt: group.signer.accounts.salt().to_owned(),
                accounts: options.accounts,
                contracts: group.targets().iter().map(|target| target.contract).collect(),
            };
            return file::write(path, &header, &transactions).map(|()| None);
        }
        if self.doors.pushes_receipts() {
            groups.iter().for_each(|group| group.tracker.expect_pushes());
        }
        if options.warmup > 0 {
            progress::say("warming up");
            self.load(Phase::Warmup)?;
        }
        let cpu = self.load(Phase::Measured)?;
        groups.iter().for_each(|group| group.tracker.read_blocks());
        Ok(Some(cpu))
    }

    /// One phase of the load on all groups at once, until everything is settled.
    fn load(&self, phase: Phase) -> Result<CpuTimes, Fault> {
        let (options, groups) = (self.options, self.groups);
        progress::say("signing transactions");
        let supplies = self.supplies(phase)?;
        let (total, is_done) = (supplies.iter().map(Supply::remaining).sum(), AtomicBool::new(false));
        let seconds = options.duration.filter(|_| phase == Phase::Measured);
        let at = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let end = End { at, file: options.stop_file.as_deref() };
        let before = self.cpu_times();
        let outcome = std::thread::scope(|scope| {
            if phase == Phase::Measured {
                scope.spawn(|| progress::show(groups, total, &is_done));
            }
            let outcome = in_parallel(groups, |index, group| {
                let rate = options.rate.map(|rate| rate / groups.len() as f64);
                let load = Load {
                    group,
                    supply: &supplies[index],
                    phase,
                    doors: self.doors,
                    pace: rate.map(|rate| Pace::new(rate, options.batch)),
                    batch: options.batch,
                    window: options.in_flight,
                    end,
                    patience: options.patience(),
                };
                let lines = load.run(connections(options, groups, index));
                self.settle(group, phase);
                drop(lines);
                Ok(())
            });
            is_done.store(true, Ordering::Release);
            outcome
        });
        let spent = |(before, after): (Option<Duration>, Option<Duration>)| after?.checked_sub(before?);
        let cpu = before.into_iter().zip(self.cpu_times()).map(spent).collect();
        if phase == Phase::Measured {
            groups.iter().for_each(|group| check::drain(group, &group.client(options.patience()), options.patience()));
        }
        outcome.map(|()| cpu)
    }

    fn supplies(&self, phase: Phase) -> Result<Vec<Supply>, Fault> {
        let (options, groups) = (self.options, self.groups);
        let total = if phase == Phase::Warmup { options.warmup } else { options.count };
        let mut supplies = Vec::with_capacity(groups.len());
        for (index, group) in groups.iter().enumerate() {
            let lanes = Lanes { count: group.nodes.len(), spread: options.spread, batch: options.batch };
            let count = share(total, groups.len(), index);
            let now = count.min(PREPARED_MAX / groups.len() as u64);
            supplies.push(match (self.header, &options.from_file) {
                (Some(header), Some(path)) => Supply::new(file::read(path, &group.signer, header, count)?, 0..0, lanes),
                _ => Supply::new(group.make_many(phase, 0..now), now..count, lanes),
            });
        }
        Ok(supplies)
    }

    /// Waits until each acknowledged transaction is committed. What a node had when it went down, or failed with, is sent once more.
    fn settle(&self, group: &Group, phase: Phase) {
        let (patience, tracker) = (self.options.patience(), &group.tracker);
        let (mut last_news, mut rescues) = (Instant::now(), 0);
        while last_news.elapsed() < patience {
            let awaited = tracker.awaited();
            let is_settled = tracker.settle(SLICE.min(patience));
            if tracker.awaited() < awaited {
                last_news = Instant::now();
            }
            let mut orphans = Vec::new();
            for (index, node) in group.nodes.iter().enumerate() {
                if group.has_new_failure(index, node.failures()) {
                    orphans.extend(tracker.orphans(Some(index)));
                }
            }
            if rescues < RESCUES && tracker.has_unsure() {
                rescues += 1;
                orphans.extend(tracker.orphans(None));
            }
            let is_quiet = last_news.elapsed() >= QUIET.min(patience / 2) && tracker.awaited() > 0;
            if is_quiet && rescues < RESCUES && group.nodes.iter().any(|node| node.failures() > 0) {
                rescues += 1;
                (0..group.nodes.len()).for_each(|index| orphans.extend(tracker.orphans(Some(index))));
            }
            if orphans.is_empty() && is_settled {
                return;
            }
            if !orphans.is_empty() {
                self.resend(group, phase, orphans);
            }
        }
    }

    fn resend(&self, group: &Group, phase: Phase, orphans: Vec<Prepared>) {
        let supply = Supply::new(orphans, 0..0, Lanes::ONE);
        let load = Load {
            group,
            supply: &supply,
            phase,
            doors: self.doors,
            pace: None,
            batch: self.options.batch,
            window: usize::MAX,
            end: End::default(),
            patience: self.options.patience(),
        };
        drop(load.run(1));
    }

    fn cpu_times(&self) -> CpuTimes {
        self.nodes.iter().map(|node| process::cpu_time(node.process?)).collect()
    }
}

fn connections(options: &Options, groups: &[Group], index: usize) -> usize {
    usize::try_from(share(options.connections as u64, groups.len(), index)).unwrap_or(1).max(1)
}

/// Does the same for all groups at the same time; the first fault counts.
fn in_parallel(groups: &[Group], work: impl Fn(usize, &Group) -> Result<(), Fault> + Sync) -> Result<(), Fault> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = groups.iter().enumerate().map(|(index, group)| scope.spawn(move || work(index, group))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Fault::new(FaultKind::Operation, "a thread of the load generator panicked", "report it")))
        })
    })
}
