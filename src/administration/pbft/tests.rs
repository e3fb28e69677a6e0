

#[path = "tests/cluster.rs"]
mod cluster;
#[path = "tests/liar.rs"]
mod liar;
#[path = "tests/world.rs"]
mod world;

use cluster::{Cluster, Options};

/// Seeds in the everyday run; more by `PBFT_SEEDS=from..to`.
const SEEDS: std::ops::Range<u64> = 0..300;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("PBFT_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("PBFT_SEEDS is from..to");
    from.parse().unwrap()..to.parse().unwrap()
}

fn run(options: Options) -> Cluster {
    let mut cluster = Cluster::new(options);
    cluster.run();
    cluster
}

#[test]
fn clusters_agree_and_go_on_whatever_the_network_and_the_faulty_do() {
    let (mut heights, mut crashes, mut evidence, mut events) = (0, 0, 0, 0);
    let mut failed = Vec::new();
    let began = std::time::Instant::now();
    for seed in seeds() {
        let caught = std::panic::catch_unwind(|| run(Options::of(seed)));
        let Ok(cluster) = caught else {
            failed.push(seed);
            continue;
        };
        heights += cluster.height();
        crashes += cluster.crashes;
        evidence += cluster.evidence;
        events += cluster.handled;
    }
    println!(
        "{} seeds, {heights} heights, {crashes} crashes, {evidence} contradictions found, {events} events, {:?}",
        seeds().count(),
        began.elapsed()
    );
    assert_eq!(failed, Vec::<u64>::new(), "seeds that failed");
}
