//! Refused messages of other nodes in the log and the status: each is counted, one line a second is written.
//!
//! Invariant: a member costs this stage, which works for all groups, a bounded number of messages that turn out to be worth nothing:
//! many of those have signatures to be checked. Whoever was refused too often is not listened to for the rest of a second.

use std::collections::BTreeMap;

use millrace_base::NodeId;
use millrace_ledger::Ledger;

/// Least time between two lines of a group.
const LOG_INTERVAL_MS: u64 = 1_000;

/// The time over which refusals of a member are counted, and for the rest of which it is not listened to when they are too many.
const WINDOW_MS: u64 = 1_000;

/// Refusals of one member in that time: no honest one comes near it, and with a hundred signatures each they are half a second's work.
const MOST: u32 = 100;

/// Members that are kept track of: more than a group has.
const MEMBERS: usize = 1_024;

/// See the module.
#[derive(Default)]
pub(super) struct Refusals {
    logged_ms: u64,
    unlogged: u64,
    /// When the present count of a member began, and the count.
    counts: BTreeMap<NodeId, (u64, u32)>,
}

impl Refusals {
    /// Whether what a member sends is looked at now.
    pub fn listens_to(&self, from: &NodeId, now_ms: u64) -> bool {
        self.counts.get(from).is_none_or(|(since_ms, count)| *count < MOST || now_ms.abs_diff(*since_ms) >= WINDOW_MS)
    }

    fn count(&mut self, from: NodeId, now_ms: u64) {
        if self.counts.len() >= MEMBERS && !self.counts.contains_key(&from) {
            self.counts.clear();
        }
        let (since_ms, count) = self.counts.entry(from).or_insert((now_ms, 0));
        if now_ms.abs_diff(*since_ms) >= WINDOW_MS {
            (*since_ms, *count) = (now_ms, 0);
        }
        *count += 1;
    }

    pub fn note(&mut self, ledger: &Ledger, from: &NodeId, reason: &str, now_ms: u64) {
        ledger.conduct().note_refusal(*from, reason, now_ms);
        self.count(*from, now_ms);
        if now_ms.abs_diff(self.logged_ms) < LOG_INTERVAL_MS {
            self.unlogged += 1;
            return;
        }
        self.logged_ms = now_ms;
        let more = std::mem::take(&mut self.unlogged);
        tracing::warn!(group = %ledger.id(), node = %from, reason, more, "refused a message that an honest node would not send");
    }
}
