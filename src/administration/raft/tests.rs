//! Whole Raft clusters: the behaviours that the test lists of raft-rs and etcd name, and runs with everything at random.

#[path = "tests/cluster.rs"]
mod cluster;
#[path = "tests/scenarios.rs"]
mod scenarios;

use cluster::{Cluster, Options};

/// Seeds in the everyday run; others by `RAFT_SEEDS=from..to`.
const SEEDS: std::ops::Range<u64> = 0..150;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("RAFT_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("RAFT_SEEDS is from..to");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn clusters_keep_their_promises_under_crashes_losses_and_partitions() {
    let mut crashes = 0;
    for seed in seeds() {
        let mut cluster = Cluster::new(Options::of(seed));
        cluster.survive(12_000);
        crashes += cluster.crashes;
    }
    assert!(crashes > 100 || seeds() != SEEDS, "{crashes} crashes are too few to show anything");
}
