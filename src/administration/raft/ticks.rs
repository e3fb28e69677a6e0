//! The time of an engine in ticks, and the election timeouts drawn from it.
//!
//! The outer clock may jump, so the engine counts time itself: backwards is no time, and a step forward counts as two heartbeats at most
//! (the engine is woken once a heartbeat): after a pause the messages that wait are read before anybody is given up. Timeouts are drawn
//! from a seed, never from the operating system, so that a run can be repeated.

use super::ElectionTimes;

/// Ticks of the shortest election timeout.
pub const ELECTION_TICKS: u64 = 20;

/// Ticks between two heartbeats of a leader: a quarter of the shortest election timeout, as in 2.x.
pub const HEARTBEAT_TICKS: u64 = 5;

/// See the module.
pub struct Ticks {
    tick_ms: u64,
    /// Ticks of the longest election timeout.
    longest: u64,
    /// Outer clock at the last input.
    outer_ms: Option<u64>,
    now_ms: u64,
    /// Time that is no whole tick yet.
    rest_ms: u64,
    dice: u64,
}

impl Ticks {
    /// `seed` differs from node to node.
    pub fn new(times: ElectionTimes, seed: u64) -> Self {
        let tick_ms = (times.min_ms / ELECTION_TICKS).max(1);
        let longest = (times.max_ms / tick_ms).clamp(ELECTION_TICKS + 1, 100 * ELECTION_TICKS);
        Self { tick_ms, longest, outer_ms: None, now_ms: 0, rest_ms: 0, dice: seed }
    }

    /// Takes note of the outer clock; ticks that have passed.
    pub fn advance(&mut self, outer_ms: u64) -> u64 {
        let step = self.outer_ms.map_or(0, |last| outer_ms.saturating_sub(last)).min(2 * HEARTBEAT_TICKS * self.tick_ms);
        self.outer_ms = Some(outer_ms);
        self.now_ms += step;
        let passed = self.rest_ms + step;
        self.rest_ms = passed % self.tick_ms;
        passed / self.tick_ms
    }

    /// The engine's own time.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The outer clock at the last input.
    pub fn outer_ms(&self) -> u64 {
        self.outer_ms.unwrap_or(0)
    }

    /// The outer time at which so many ticks have passed, at most one heartbeat away.
    pub fn outer_after(&self, ticks: u64) -> u64 {
        let ticks = ticks.clamp(1, HEARTBEAT_TICKS);
        self.outer_ms().saturating_add((ticks * self.tick_ms).saturating_sub(self.rest_ms).max(1))
    }

    /// Draws an election timeout in ticks (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ELECTION_TICKS + (mixed ^ (mixed >> 31)) % (self.longest - ELECTION_TICKS + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(min_ms: u64, max_ms: u64) -> Ticks {
        Ticks::new(ElectionTimes { min_ms, max_ms }, 7)
    }

    #[test]
    fn timeouts_lie_between_the_times_of_the_genesis() {
        let mut ticks = ticks(1_000, 2_000);
        let drawn: Vec<u64> = (0..1_000).map(|_| ticks.draw() * 50).collect();
        assert!(drawn.iter().all(|ms| (1_000..=2_000).contains(ms)));
        assert!(drawn.iter().any(|ms| *ms < 1_100) && drawn.iter().any(|ms| *ms > 1_900));
    }

    #[test]
    fn clock_that_jumps_neither_ends_nor_stretches_a_wait() {
        let mut ticks = ticks(1_000, 2_000);
        assert_eq!(ticks.advance(5_000), 0);
        assert_eq!((ticks.advance(5_049), ticks.advance(5_050), ticks.advance(5_160)), (0, 1, 2));
        assert_eq!(ticks.advance(9_000_000), 10);
        assert_eq!(ticks.advance(1_000), 0);
        assert_eq!((ticks.advance(1_040), ticks.now_ms()), (1, 160 + 500 + 40));
        assert_eq!(ticks.outer_after(1), 1_040 + 50);
        assert_eq!(ticks.outer_after(100), 1_040 + 250);
    }

    #[test]
    fn times_that_are_tiny_still_make_ticks() {
        let mut ticks = ticks(1, 1);
        ticks.advance(0);
        assert_eq!(ticks.advance(3), 3);
        assert!(ticks.draw() <= ELECTION_TICKS + 1);
    }
}
