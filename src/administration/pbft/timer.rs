//! The engine's own clock and its timeout.
//!
//! The only clock there is may jump: a laptop wakes up, an operator sets the time, a process was stopped. So the engine counts time
//! itself: backwards is no time, and a step forward counts as [`LONGEST_STEP_MS`] at most, since the engine is woken more often than that.

/// Most that one step of the outer clock counts: a heartbeat and some delay.
const LONGEST_STEP_MS: u64 = 1_500;

/// A timeout grows to this at most, unless the group's own setting is longer already (`spec/reliability.md` P4).
const LONGEST_TIMEOUT_MS: u64 = 30_000;

/// Timeouts grow by half, this many times at most: 1.5^20 is beyond the cap whatever the setting.
const MOST_STEPS: u32 = 20;

/// See the module.
#[derive(Default)]
pub struct Timer {
    /// Outer clock at the last input.
    outer_ms: Option<u64>,
    now_ms: u64,
    /// Since when the engine waits for progress; none while there is nothing to wait for.
    since_ms: Option<u64>,
    /// Timeouts since the last progress.
    steps: u32,
}

impl Timer {
    /// Takes note of the outer clock.
    pub fn advance(&mut self, outer_ms: u64) {
        let step = self.outer_ms.map_or(0, |last| outer_ms.saturating_sub(last));
        self.outer_ms = Some(outer_ms);
        self.now_ms += step.min(LONGEST_STEP_MS);
    }

    /// The engine's own time.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The outer clock at the last input.
    pub fn outer_ms(&self) -> u64 {
        self.outer_ms.unwrap_or(0)
    }

    /// The outer time that corresponds to a point in the engine's time.
    pub fn outer_at(&self, at_ms: u64) -> u64 {
        self.outer_ms().saturating_add(at_ms.saturating_sub(self.now_ms))
    }

    /// There is something to wait for, or nothing any more.
    pub fn wait(&mut self, is_waiting: bool) {
        match (is_waiting, self.since_ms) {
            (true, None) => self.since_ms = Some(self.now_ms),
            (false, Some(_)) => self.since_ms = None,
            _ => {}
        }
    }

    /// Begins the present wait again, as long as the last one.
    pub fn restart(&mut self) {
        self.since_ms = self.since_ms.map(|_| self.now_ms);
    }

    /// What was waited for has come.
    pub fn progress(&mut self) {
        self.steps = 0;
        self.restart();
    }

    /// Waited in vain: the next wait is longer.
    pub fn lengthen(&mut self) {
        self.steps = (self.steps + 1).min(MOST_STEPS);
        self.restart();
    }

    /// Whether nothing was waited for in vain since the last progress.
    pub fn is_first(&self) -> bool {
        self.steps == 0
    }

    /// Whether half of the wait is over.
    pub fn is_half_over(&self, base_ms: u64) -> bool {
        let ends = self.due_ms(base_ms).zip(self.since_ms);
        ends.is_some_and(|(due, since)| self.now_ms.saturating_sub(since) >= due.saturating_sub(since) / 2)
    }

    /// When the wait is over, on the engine's own clock.
    pub fn due_ms(&self, base_ms: u64) -> Option<u64> {
        let cap = LONGEST_TIMEOUT_MS.max(base_ms);
        let grown = (0..self.steps).fold(base_ms.max(1), |time, _| time.saturating_add(time / 2).min(cap));
        self.since_ms.map(|since| since.saturating_add(grown))
    }
}
