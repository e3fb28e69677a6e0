//! What clients heard, and when anybody first knew of each block. Invariant: times are those between the first sight of a block, by any
//! client or over HTTP, and its arrival at one client; a client that is late shows, one that is first does not.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest time that is told apart, microseconds.
const LONGEST_US: u64 = 600_000_000;

/// When blocks were first seen.
pub struct Observer {
    first: Mutex<HashMap<u64, Instant>>,
    started: Instant,
    last_push_ms: AtomicU64,
    /// The load is over and its pushes have arrived.
    pub is_over: AtomicBool,
}

impl Observer {
    /// Blocks above `start` count.
    pub fn new(start: u64) -> Self {
        let first = Mutex::new(HashMap::from([(start, Instant::now())]));
        Self { first, started: Instant::now(), last_push_ms: AtomicU64::new(0), is_over: AtomicBool::new(false) }
    }

    /// A block is known now; the time since it was first.
    pub fn see(&self, number: u64) -> Duration {
        let now = Instant::now();
        let mut first = self.first.lock().expect("no thread fails with the lock");
        now.saturating_duration_since(*first.entry(number).or_insert(now))
    }

    /// A push has arrived.
    pub fn pushed(&self) {
        self.last_push_ms.fetch_max(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Time since any client got a push.
    pub fn idle_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_push_ms.load(Ordering::Relaxed)))
    }
}

/// What one client heard.
pub struct Tally {
    /// Block notifications.
    pub notices: u64,
    /// Event logs.
    pub logs: u64,
    first: Option<u64>,
    last: Option<u64>,
    gaps: u64,
    /// Why it stopped before the end, if it did.
    pub fault: Option<String>,
    block_times: Histogram<u64>,
    event_times: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are valid");
        Self { notices: 0, logs: 0, first: None, last: None, gaps: 0, fault: None, block_times: histogram(), event_times: histogram() }
    }
}

impl Tally {
    /// A block notification came.
    pub fn notice(&mut self, number: u64, after: Duration) {
        self.notices += 1;
        self.gaps += u64::from(self.last.is_some_and(|last| last + 1 != number));
        self.first.get_or_insert(number);
        self.last = Some(number);
        record(&mut self.block_times, after);
    }

    /// Event logs came.
    pub fn push(&mut self, logs: u64, after: Duration) {
        self.logs += logs;
        record(&mut self.event_times, after);
    }

    /// Whether it heard of every block above `start` up to `end`, in order and once, and of every log.
    pub fn is_complete(&self, start: u64, end: u64, logs: u64) -> bool {
        let every_block = end == start || self.first == Some(start + 1) && self.last == Some(end) && self.gaps == 0;
        every_block && self.logs == logs && self.fault.is_none()
    }

    /// Times of block notifications.
    pub fn blocks(&self) -> &Histogram<u64> {
        &self.block_times
    }

    /// Times of event pushes.
    pub fn events(&self) -> &Histogram<u64> {
        &self.event_times
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, gaps, notices, logs, fault, .. } = self;
        write!(f, "{notices} notices from {first:?} to {last:?} with {gaps} gaps, {logs} logs, fault {fault:?}")
    }
}

fn record(times: &mut Histogram<u64>, after: Duration) {
    times.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US));
}

/// All times of one kind.
pub fn merge(tallies: &[Tally], pick: impl Fn(&Tally) -> &Histogram<u64>) -> Histogram<u64> {
    let mut all = Tally::default().block_times;
    for tally in tallies {
        all.add(pick(tally)).expect("histograms have the same bounds");
    }
    all
}

/// Milliseconds at the usual places of a distribution.
pub fn figures(times: &Histogram<u64>) -> Value {
    let at = |quantile: f64| f64::from(u32::try_from(times.value_at_quantile(quantile)).unwrap_or(u32::MAX)) / 1_000.0;
    json!({"count": times.len(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0)})
}
