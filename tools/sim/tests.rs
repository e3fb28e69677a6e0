//! Seeds that run with every test run: some of each size, those that once failed, and one twice.

use super::*;

fn check(seeds: impl IntoIterator<Item = u64>, overrides: Overrides) {
    for seed in seeds {
        let outcome = run(seed, overrides, false);
        let command = Options::of(seed, overrides).command(overrides);
        assert_eq!(outcome.violation, None, "run again with: {command}");
    }
}

#[test]
fn same_seed_gives_the_same_events() {
    for seed in 0..6 {
        let (first, second) = (run(seed, Overrides::default(), false), run(seed, Overrides::default(), false));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn clusters_keep_their_promises_under_faults() {
    check(0..60, Overrides::default());
}
