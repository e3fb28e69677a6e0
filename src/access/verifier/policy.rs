//! Chooses how a group's next block is executed, from what blocks of about its size cost each way.
//!
//! Every way is tried a few times and then now and again; the cheapest is used, and serial execution unless another way is clearly
//! cheaper. Costs are wall time for each unit of work, so a machine whose cores are busy with something else, a group whose transactions
//! all want the same value, and blocks too small to share all end at serial execution. The choice never changes a result.
//! Called by the block executor.

use std::time::Duration;

/// A way to execute a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One transaction after the other on one thread, roots and hashes too.
    Serial,
    /// One transaction after the other on one thread, then roots and hashes on several.
    SharedRoots,
    /// On several threads, each transaction as soon as a thread is free.
    Speculative,
    /// On several threads; transactions that probably work on the same values one after the other.
    Guided,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Serial, Self::SharedRoots, Self::Speculative, Self::Guided];
}

/// Fewer transactions are never shared: waking a helper takes as long as executing them.
const MIN_TRANSACTIONS: usize = 8;

/// Sizes of blocks that are looked at apart: powers of two.
const CLASSES: usize = 20;

/// Blocks that each way is tried with before it is judged: the first ones of a helper find cold caches.
const TRIALS: u32 = 3;

/// Blocks between two trials of ways that are not the cheapest, at first and at most.
const TRIAL_INTERVALS: (u32, u32) = (16, 128);

/// What a way must save to be preferred to serial execution, as a divisor: a twentieth. Less is noise and costs other groups more.
const MIN_GAIN: u64 = 20;

/// Share of lost executions, as a divisor, from which it is worth guessing conflicts.
const GUESSING_PAYS: u64 = 32;

#[derive(Clone, Copy, Default)]
struct Arm {
    /// Picoseconds for each unit of work, a moving average.
    cost: u64,
    samples: u32,
}

impl Arm {
    fn record(&mut self, cost: u64) {
        self.cost = match self.samples {
            0 => cost,
            // The first samples are high; later ones that are much higher were interrupted.
            1..TRIALS => self.cost.min(cost),
            _ => (3 * self.cost + cost.min(4 * self.cost)) / 4,
        };
        self.samples = self.samples.saturating_add(1);
    }
}

#[derive(Clone, Copy)]
struct Class {
    arms: [Arm; Mode::ALL.len()],
    /// Lost executions for each 1024 transactions under speculation, a moving average.
    lost: u64,
    since_trial: u32,
    interval: u32,
    /// The way that is tried next.
    turn: usize,
}

impl Class {
    const NEW: Self =
        Self { arms: [Arm { cost: 0, samples: 0 }; Mode::ALL.len()], lost: 0, since_trial: 0, interval: TRIAL_INTERVALS.0, turn: 0 };

    fn arm(&self, mode: Mode) -> &Arm {
        &self.arms[mode as usize]
    }

    fn is_worth_trying(&self, mode: Mode) -> bool {
        mode != Mode::Guided || self.lost > 1024 / GUESSING_PAYS
    }

    fn best(&self) -> Mode {
        let known = |mode: &Mode| self.arm(*mode).samples > 0;
        let cheapest = Mode::ALL.into_iter().filter(known).min_by_key(|mode| self.arm(*mode).cost).unwrap_or(Mode::Serial);
        let (serial, other) = (self.arm(Mode::Serial), self.arm(cheapest));
        if serial.samples > 0 && other.cost.saturating_mul(MIN_GAIN) > serial.cost.saturating_mul(MIN_GAIN - 1) {
            return Mode::Serial;
        }
        cheapest
    }

    fn choose(&mut self) -> Mode {
        let untried = |mode: &Mode| self.arm(*mode).samples < TRIALS && self.is_worth_trying(*mode);
        if let Some(mode) = Mode::ALL.into_iter().find(untried) {
            return mode;
        }
        let best = self.best();
        self.since_trial += 1;
        if self.since_trial < self.interval {
            return best;
        }
        self.since_trial = 0;
        self.interval = (2 * self.interval).min(TRIAL_INTERVALS.1);
        self.turn = (self.turn + 1) % Mode::ALL.len();
        let next = Mode::ALL[self.turn];
        if next == best || !self.is_worth_trying(next) { best } else { next }
    }
}

/// Costs of one group's blocks.
pub(super) struct Policy {
    classes: [Class; CLASSES],
}

/// A block that was executed.
pub(super) struct Sample {
    /// How.
    pub mode: Mode,
    /// Its transactions.
    pub transactions: usize,
    /// Work in it: gas, and a constant for each transaction.
    pub units: u64,
    /// Wall time.
    pub elapsed: Duration,
    /// Executions whose result was not used.
    pub lost: u32,
}

fn class_of(transactions: usize) -> usize {
    (transactions.max(1).ilog2() as usize).min(CLASSES - 1)
}

impl Policy {
    /// Nothing is known.
    pub fn new() -> Self {
        Self { classes: [Class::NEW; CLASSES] }
    }

    /// How to execute a block of so many transactions when so many helpers are free.
    pub fn choose(&mut self, transactions: usize, free_helpers: usize) -> Mode {
        if free_helpers == 0 || transactions < MIN_TRANSACTIONS {
            return Mode::Serial;
        }
        self.classes[class_of(transactions)].choose()
    }

    /// Takes note of what a block cost.
    pub fn record(&mut self, sample: Sample) {
        let Sample { mode, transactions, units, elapsed, lost } = sample;
        let class = &mut self.classes[class_of(transactions)];
        let before = class.best();
        let picoseconds = elapsed.as_nanos().saturating_mul(1_000);
        class.arms[mode as usize].record(u64::try_from(picoseconds / u128::from(units.max(1))).unwrap_or(u64::MAX / 8).min(u64::MAX / 8));
        if mode == Mode::Speculative {
            class.lost = (class.lost + 1024 * u64::from(lost) / transactions.max(1) as u64) / 2;
        }
        if class.best() != before {
            class.interval = TRIAL_INTERVALS.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs blocks of 100 transactions that cost so much each way, in microseconds; counts how often each way was chosen.
    fn chosen(policy: &mut Policy, blocks: usize, cost: [u64; 4], lost: u32) -> [usize; 4] {
        let mut counts = [0; 4];
        for _ in 0..blocks {
            let mode = policy.choose(100, 1);
            counts[mode as usize] += 1;
            let elapsed = Duration::from_micros(cost[mode as usize]);
            policy.record(Sample {
                mode,
                transactions: 100,
                units: 2_000_000,
                elapsed,
                lost: if mode == Mode::Speculative { lost } else { 0 },
            });
        }
        counts
    }

    #[test]
    fn cheapest_way_is_used_and_the_others_are_hardly_tried() {
        let mut policy = Policy::new();
        let [serial, _, speculative, guided] = chosen(&mut policy, 1_000, [600, 500, 350, 400], 0);
        assert!(speculative > 970 && serial < 20 && guided == 0, "{serial} {speculative} {guided}");
        let [serial, _, speculative, guided] = chosen(&mut policy, 1_000, [600, 500, 700, 400], 30);
        assert!(guided > 940, "{serial} {speculative} {guided}");
    }

    #[test]
    fn serial_execution_loses_less_than_a_hundredth_where_nothing_is_gained() {
        let cost = [600, 610, 900, 660];
        let counts = chosen(&mut Policy::new(), 2_000, cost, 90);
        let spent: u64 = counts.iter().zip(cost).map(|(count, cost)| *count as u64 * cost).sum();
        assert!(spent * 100 < 2_000 * 600 * 101, "{counts:?}");
    }

    #[test]
    fn gains_below_a_twentieth_are_left_and_changes_are_noticed() {
        let mut policy = Policy::new();
        assert!(chosen(&mut policy, 500, [600, 590, 590, 600], 0)[0] > 480);
        chosen(&mut policy, 300, [600, 590, 300, 600], 0);
        assert!(chosen(&mut policy, 200, [600, 590, 300, 600], 0)[2] > 190);
    }

    #[test]
    fn blocks_that_cannot_be_shared_are_executed_serially() {
        let mut policy = Policy::new();
        for _ in 0..20 {
            assert_eq!((policy.choose(1_000, 0), policy.choose(7, 3)), (Mode::Serial, Mode::Serial));
        }
    }
}
