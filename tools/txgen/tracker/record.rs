//! What the tracker of one group adds up: counts, latencies, commits, problems. Read by the checks and the report.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::workload::Workload;

/// Longest latency that is told apart, in µs: one hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// Problems kept word for word; the rest is counted.
pub const MAX_PROBLEMS: usize = 20;

/// Counts of the measured phase.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Sent at least once.
    pub submitted: u64,
    /// Their hash was returned.
    pub acknowledged: u64,
    /// Their receipt was seen.
    pub committed: u64,
    /// Committed without success.
    pub failed: u64,
    /// Given up after refusals.
    pub refused: u64,
    /// Lost their connection on the way.
    pub unknown: u64,
    /// Receipts of transactions of others, in any phase.
    pub foreign: u64,
    /// Sent again after a node failed with them or went down before they were committed.
    pub resent: u64,
    /// Receipts that came by push.
    pub pushed: u64,
}

/// Figures and histories of one group, as the report reads them.
pub struct Record {
    /// Of the measured phase.
    pub counts: Counts,
    /// Refusals and lost connections by code, retried ones included, in any phase.
    pub errors: BTreeMap<String, u64>,
    /// Failures in blocks by cause, in any phase.
    pub faults: BTreeMap<String, u64>,
    /// Receipts by status, measured phase.
    pub statuses: BTreeMap<u32, u64>,
    /// Submit or due time to sighting in a block, µs.
    pub latency: Histogram<u64>,
    /// Submit or due time to acknowledgement, µs.
    pub acknowledgement: Histogram<u64>,
    /// Measured transactions that each block brought, and when.
    pub commits: Vec<(Instant, u64)>,
    /// Blocks with measured transactions.
    pub blocks: HashSet<u64>,
    /// First send of the measured phase.
    pub first_submit: Option<Instant>,
    /// What must not happen, in words.
    pub problems: Vec<String>,
    /// Further problems than those kept.
    pub more_problems: u64,
    /// Balance changes by committed transfers: by workload, then by account.
    pub changes: Vec<Vec<i64>>,
}

impl Record {
    /// Nothing happened yet.
    pub fn new(workloads: &[&'static dyn Workload], accounts: u32) -> Self {
        Self {
            counts: Counts::default(),
            errors: BTreeMap::new(),
            faults: BTreeMap::new(),
            statuses: BTreeMap::new(),
            latency: histogram(),
            acknowledgement: histogram(),
            commits: Vec::new(),
            blocks: HashSet::new(),
            first_submit: None,
            problems: Vec::new(),
            more_problems: 0,
            changes: vec![vec![0; accounts as usize]; workloads.len()],
        }
    }

    /// Notes measured transactions of a block; those that are pushed one by one become one entry.
    pub(super) fn commit(&mut self, number: u64, now: Instant, measured: u64) {
        let is_new = self.blocks.insert(number);
        match self.commits.last_mut() {
            Some((at, count)) if !is_new => {
                *at = now.max(*at);
                *count += measured;
            }
            _ => self.commits.push((now, measured)),
        }
    }

    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("constant bounds are valid")
}
