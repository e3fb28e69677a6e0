//! Refused messages of other nodes in the log and the status: each is counted, one line a second is written.

use millrace_base::NodeId;
use millrace_ledger::Ledger;

/// Least time between two lines of a group.
const LOG_INTERVAL_MS: u64 = 1_000;

/// See the module.
#[derive(Default)]
pub(super) struct Refusals {
    logged_ms: u64,
    unlogged: u64,
}

impl Refusals {
    pub fn note(&mut self, ledger: &Ledger, from: &NodeId, reason: &str, now_ms: u64) {
        ledger.conduct().note_refusal(*from, reason, now_ms);
        if now_ms.abs_diff(self.logged_ms) < LOG_INTERVAL_MS {
            self.unlogged += 1;
            return;
        }
        self.logged_ms = now_ms;
        let more = std::mem::take(&mut self.unlogged);
        tracing::warn!(group = %ledger.id(), node = %from, reason, more, "refused a message that an honest node would not send");
    }
}
