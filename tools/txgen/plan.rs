//! The course of a run: open, follow, set up, sign, warm up, measure, settle, check.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_base::fault::{Fault, FaultKind};

use crate::check::{self, Verdict};
use crate::client::Client;
use crate::file::{self, Header};
use crate::load::{Load, Pace};
use crate::options::{Options, share};
use crate::report::Report;
use crate::setup::Group;
use crate::supply::{PREPARED_MAX, Supply};
use crate::tracker::Phase;
use crate::{follow, progress};

/// Runs what the options say. `None` after `--presign`: there is nothing to report.
pub fn run(options: &Options) -> Result<Option<Report>, Fault> {
    options.validate()?;
    let header = options.from_file.as_deref().map(file::read_header).transpose()?;
    let ids = options.groups()?;
    let groups = ids.into_iter().map(|id| Group::open(options, id, header.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let stop = AtomicBool::new(false);
    let has_load = std::thread::scope(|scope| {
        let followers: Vec<_> = groups
            .iter()
            .map(|group| {
                let client = Client::new(&group.endpoints[0], options.patience());
                let stop = &stop;
                scope.spawn(move || follow::follow(&client, group.id.get(), &group.tracker, stop, group.start_height))
            })
            .collect();
        let outcome = stages(options, &groups, header.as_ref());
        stop.store(true, Ordering::Release);
        followers.into_iter().for_each(|follower| follower.join().expect("the follower does not panic"));
        outcome
    })?;
    if !has_load {
        return Ok(None);
    }
    progress::say("checking receipts and balances");
    let start = Instant::now();
    let verdicts: Vec<Verdict> = groups.iter().map(|group| check::check(group, &first_client(group, options.patience()))).collect();
    Ok(Some(Report::new(&groups, verdicts, start.elapsed())))
}

fn first_client(group: &Group, patience: Duration) -> Client {
    Client::new(&group.endpoints[0], patience)
}

/// False when the run ends with a file of signed transactions.
fn stages(options: &Options, groups: &[Group], header: Option<&Header>) -> Result<bool, Fault> {
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
        return file::write(path, &header, &transactions).map(|()| false);
    }
    if options.warmup > 0 {
        progress::say("warming up");
        load(options, groups, Phase::Warmup, None)?;
    }
    load(options, groups, Phase::Measured, header)?;
    Ok(true)
}

/// One phase of the load on all groups at once, until everything is settled.
fn load(options: &Options, groups: &[Group], phase: Phase, header: Option<&Header>) -> Result<(), Fault> {
    let total = if phase == Phase::Warmup { options.warmup } else { options.count };
    progress::say("signing transactions");
    let mut supplies = Vec::with_capacity(groups.len());
    for (index, group) in groups.iter().enumerate() {
        let count = share(total, groups.len(), index);
        let now = count.min(PREPARED_MAX / groups.len() as u64);
        supplies.push(match (header, &options.from_file) {
            (Some(header), Some(path)) => Supply::new(file::read(path, &group.signer, header, count)?, 0..0),
            _ => Supply::new(group.make_many(phase, 0..now), now..count),
        });
    }
    let (total, is_done) = (supplies.iter().map(Supply::remaining).sum(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if phase == Phase::Measured {
            scope.spawn(|| progress::show(groups, total, &is_done));
        }
        let outcome = in_parallel(groups, |index, group| {
            let rate = options.rate.map(|rate| rate / groups.len() as f64);
            let load = Load {
                group,
                supply: &supplies[index],
                phase,
                pace: rate.map(|rate| Pace::new(rate, options.batch)),
                batch: options.batch,
                window: options.in_flight,
                patience: options.patience(),
            };
            load.run(connections(options, groups, index));
            check::drain(group, &first_client(group, options.patience()), options.patience());
            Ok(())
        });
        is_done.store(true, Ordering::Release);
        outcome
    })
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
