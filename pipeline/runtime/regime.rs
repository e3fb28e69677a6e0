//! Where a worker's time goes: busy, starved, blocked or tick.
//!
//! Invariant: the regimes are exclusive and exhaustive, so their sum is the worker's wall time to the nanosecond. The clock of a running worker sits in
//! a thread-local, so that a queue that makes its sender wait books the wait on the sender without being handed anything.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

use super::limits::SNAPSHOT_TRIES;

/// What a worker is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regime {
    /// Takes items and handles them.
    Busy,
    /// Waits for items: the bottleneck is upstream, or there is no load.
    Starved,
    /// Waits for room in a queue that it writes: the bottleneck is downstream.
    Blocked,
    /// Runs timers.
    Tick,
}

impl Regime {
    /// All regimes, in the order of [`RegimeTotals`].
    pub const ALL: [Regime; 4] = [Regime::Busy, Regime::Starved, Regime::Blocked, Regime::Tick];

    /// The word in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Regime::Busy => "busy",
            Regime::Starved => "starved",
            Regime::Blocked => "blocked",
            Regime::Tick => "tick",
        }
    }
}

/// Nanoseconds spent in each regime since the worker started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegimeTotals {
    /// Handling items.
    pub busy_ns: u64,
    /// Waiting for items.
    pub starved_ns: u64,
    /// Waiting for room downstream.
    pub blocked_ns: u64,
    /// Running timers.
    pub tick_ns: u64,
}

impl RegimeTotals {
    /// Time spent in one regime.
    pub fn of(&self, regime: Regime) -> u64 {
        match regime {
            Regime::Busy => self.busy_ns,
            Regime::Starved => self.starved_ns,
            Regime::Blocked => self.blocked_ns,
            Regime::Tick => self.tick_ns,
        }
    }

    /// Wall time of the worker.
    pub fn sum_ns(&self) -> u64 {
        self.busy_ns + self.starved_ns + self.blocked_ns + self.tick_ns
    }

    /// What was spent since an earlier reading of the same worker.
    pub fn since(&self, earlier: &RegimeTotals) -> RegimeTotals {
        RegimeTotals {
            busy_ns: self.busy_ns.saturating_sub(earlier.busy_ns),
            starved_ns: self.starved_ns.saturating_sub(earlier.starved_ns),
            blocked_ns: self.blocked_ns.saturating_sub(earlier.blocked_ns),
            tick_ns: self.tick_ns.saturating_sub(earlier.tick_ns),
        }
    }
}

/// `current` holds this while the totals change, so that a reader never counts an interval twice.
const SWITCHING: u64 = u64::MAX;
/// Low bits of `current`: the regime, or these for a worker that has not started or has ended.
const AT_REST: u64 = 4;
const TAG_BITS: u32 = 3;

/// The times of one worker: written by it alone, read by anyone.
pub(crate) struct RegimeTimes {
    epoch: Instant,
    totals_ns: [AtomicU64; 4],
    /// Start of the running interval in nanoseconds since `epoch`, shifted left by `TAG_BITS`, and its regime.
    current: AtomicU64,
}

impl RegimeTimes {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), totals_ns: Default::default(), current: AtomicU64::new(AT_REST) }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Ends the running interval, if any, and starts one of `tag` at the same instant.
    fn switch(&self, tag: u64) {
        let now_ns = self.now_ns();
        let before = self.current.load(Ordering::Relaxed);
        self.current.store(SWITCHING, Ordering::Relaxed);
        fence(Ordering::Release);
        let (since_ns, regime) = (before >> TAG_BITS, before & ((1 << TAG_BITS) - 1));
        if let Some(total) = self.totals_ns.get(regime as usize) {
            total.store(total.load(Ordering::Relaxed) + (now_ns - since_ns), Ordering::Relaxed);
        }
        self.current.store(now_ns << TAG_BITS | tag, Ordering::Release);
    }

    /// Totals up to now, the running interval included.
    pub(crate) fn snapshot(&self) -> RegimeTotals {
        let mut totals = [0; 4];
        for _ in 0..SNAPSHOT_TRIES {
            let before = self.current.load(Ordering::Acquire);
            for (total, source) in totals.iter_mut().zip(&self.totals_ns) {
                *total = source.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before == SWITCHING || self.current.load(Ordering::Relaxed) != before {
                std::hint::spin_loop();
                continue;
            }
            if let Some(total) = totals.get_mut((before & ((1 << TAG_BITS) - 1)) as usize) {
                *total += self.now_ns().saturating_sub(before >> TAG_BITS);
            }
            break;
        }
        let [busy_ns, starved_ns, blocked_ns, tick_ns] = totals;
        RegimeTotals { busy_ns, starved_ns, blocked_ns, tick_ns }
    }
}

struct RegimeClock {
    times: Arc<RegimeTimes>,
    regime: Regime,
}

thread_local! {
    static CLOCK: RefCell<Option<RegimeClock>> = const { RefCell::new(None) };
}

/// Starts the clock of the calling worker.
pub(crate) fn start_clock(times: Arc<RegimeTimes>, regime: Regime) {
    times.switch(regime as u64);
    CLOCK.set(Some(RegimeClock { times, regime }));
}

/// Ends the clock of the calling worker.
pub(crate) fn end_clock() {
    if let Some(clock) = CLOCK.take() {
        clock.times.switch(AT_REST);
    }
}

/// Books the time from now on as `regime`; gives the regime before, or `None` on a thread that is no worker.
pub(crate) fn enter(regime: Regime) -> Option<Regime> {
    CLOCK.with_borrow_mut(|clock| {
        let clock = clock.as_mut()?;
        let before = std::mem::replace(&mut clock.regime, regime);
        if before != regime {
            clock.times.switch(regime as u64);
        }
        Some(before)
    })
}

/// Runs `wait`, booking its time as blocked on the calling stage. Queues use it; a stage uses it for a declared wait that is not a queue.
pub fn blocked<R>(wait: impl FnOnce() -> R) -> R {
    let before = enter(Regime::Blocked);
    let result = wait();
    if let Some(before) = before {
        enter(before);
    }
    result
}
