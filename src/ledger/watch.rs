//! How a group moves: what was committed in the last seconds, how often its view changed, and since when the next step is waited for.
//!
//! For the status and metrics alone: nothing that feeds consensus reads it. Written by the commit and the order stage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use millrace_administration::engine::EngineStatus;
use parking_lot::Mutex;

/// Whole seconds that a rate looks back.
const WINDOW_S: u64 = 10;

/// One bucket a second, and the one being filled.
const BUCKETS: usize = WINDOW_S as usize + 1;

/// What was committed in a second.
#[derive(Clone, Copy, Default)]
struct Bucket {
    second: u64,
    blocks: u64,
    transactions: u64,
}

/// What was committed lately, a second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rate {
    /// Blocks a second.
    pub blocks: f64,
    /// Transactions a second.
    pub transactions: f64,
}

/// See the module.
pub struct Watch {
    opened: Instant,
    recent: Mutex<[Bucket; BUCKETS]>,
    view_changes: AtomicU64,
    /// Height above which the next step is waited for, and since when.
    waiting: Mutex<Option<(u64, Instant)>>,
}

impl Watch {
    pub(crate) fn new(opened: Instant) -> Self {
        Self { opened, recent: Mutex::default(), view_changes: AtomicU64::new(0), waiting: Mutex::new(None) }
    }

    pub(crate) fn committed(&self, transactions: u64, now: Instant) {
        let second = now.saturating_duration_since(self.opened).as_secs();
        let mut recent = self.recent.lock();
        let bucket = &mut recent[(second % BUCKETS as u64) as usize];
        if bucket.second != second {
            *bucket = Bucket { second, ..Bucket::default() };
        }
        bucket.blocks += 1;
        bucket.transactions += transactions;
    }

    /// The engine has said something new about itself.
    pub(crate) fn engine_moved(&self, before: Option<&EngineStatus>, status: &EngineStatus, now: Instant) {
        if let Some(before) = before {
            self.view_changes.fetch_add(status.view.saturating_sub(before.view), Ordering::Relaxed);
        }
        let mut waiting = self.waiting.lock();
        let goes_on = waiting.is_some_and(|(height, _)| height == status.final_height);
        if status.waits_for.is_empty() {
            *waiting = None;
        } else if !goes_on {
            *waiting = Some((status.final_height, now));
        }
    }

    /// What was committed in the last ten whole seconds, or since the group was opened if that is less.
    pub fn rate(&self, now: Instant) -> Rate {
        let second = now.saturating_duration_since(self.opened).as_secs();
        let first = second.saturating_sub(WINDOW_S);
        let recent = self.recent.lock();
        let inside = recent.iter().filter(|bucket| (first..second).contains(&bucket.second));
        let (blocks, transactions) = inside.fold((0, 0), |sum, bucket| (sum.0 + bucket.blocks, sum.1 + bucket.transactions));
        let seconds = (second - first).max(1) as f64;
        Rate { blocks: blocks as f64 / seconds, transactions: transactions as f64 / seconds }
    }

    /// Views entered since the group was opened, but for the first.
    pub fn view_changes(&self) -> u64 {
        self.view_changes.load(Ordering::Relaxed)
    }

    /// Milliseconds for which the step above the same height has been waited for; 0 when nothing is.
    pub fn waiting_ms(&self, now: Instant) -> u64 {
        let waiting = *self.waiting.lock();
        waiting.map_or(0, |(_, since)| u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rate_counts_the_last_ten_whole_seconds_and_forgets_older_ones() {
        let opened = Instant::now();
        let watch = Watch::new(opened);
        let at = |seconds: u64| opened + Duration::from_secs(seconds);
        watch.committed(100, at(0));
        watch.committed(100, at(1));
        assert_eq!(watch.rate(at(2)), Rate { blocks: 1.0, transactions: 100.0 });
        for second in 20..30 {
            watch.committed(50, at(second));
        }
        assert_eq!(watch.rate(at(30)), Rate { blocks: 1.0, transactions: 50.0 });
        assert_eq!(watch.rate(at(35)), Rate { blocks: 0.5, transactions: 25.0 });
        assert_eq!(watch.rate(at(60)), Rate::default());
    }

    #[test]
    fn waiting_is_measured_per_height_and_view_changes_count_from_the_first_view_seen() {
        let opened = Instant::now();
        let watch = Watch::new(opened);
        let at = |seconds: u64| opened + Duration::from_secs(seconds);
        let status = |view: u64, final_height: u64, waits_for: &str| EngineStatus {
            view,
            final_height,
            waits_for: waits_for.into(),
            ..EngineStatus::default()
        };
        let steps = [status(7, 1, "height 2: votes"), status(8, 1, "view 9: changes"), status(9, 2, "height 3: votes"), status(9, 3, "")];
        watch.engine_moved(None, &steps[0], at(0));
        watch.engine_moved(Some(&steps[0]), &steps[1], at(5));
        assert_eq!((watch.waiting_ms(at(6)), watch.view_changes()), (6_000, 1));
        watch.engine_moved(Some(&steps[1]), &steps[2], at(7));
        assert_eq!((watch.waiting_ms(at(8)), watch.view_changes()), (1_000, 2));
        watch.engine_moved(Some(&steps[2]), &steps[3], at(9));
        assert_eq!(watch.waiting_ms(at(99)), 0);
    }
}
