//! Four nodes with two groups: loaded they agree, idle they are quiet.

use std::time::Duration;

use crate::nodes::cluster::Cluster;

const ALL: [usize; 4] = [0, 1, 2, 3];

/// How long the idle chain is watched: two heartbeats of sync.
const IDLE: Duration = Duration::from_secs(8);

/// Frames that a node has taken from its peers.
fn frames(cluster: &Cluster, node: usize) -> u64 {
    let text = cluster.metrics(node);
    let is_frames = |line: &&str| {
        line.starts_with("millrace_queue_received_total{")
            && ["\"frames\"", "\"block-frames\"", "\"tx-frames\""].iter().any(|queue| line.contains(queue))
    };
    text.lines().filter(is_frames).map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

fn views(cluster: &Cluster) -> Vec<u64> {
    ALL.iter().flat_map(|node| [1, 2].map(|group| cluster.view(*node, group).unwrap())).collect()
}

#[test]
fn loaded_nodes_agree_in_every_group_and_an_idle_chain_is_quiet() {
    let mut cluster = Cluster::start(4, &["--groups", "2"]);
    let load = cluster.load(&ALL, &["--group", "1,2", "--count", "3000", "--rate", "1000"]);
    let figures = load.join();
    println!("{} tx/s, p99 {} ms, longest gap {} ms", figures["tps"], figures["p99_ms"], figures["longest_gap_ms"]);
    assert_eq!(figures["committed"], 3000);
    let heights = [1, 2].map(|group| cluster.wait_agreement(&ALL, group));

    let (before, seen) = (views(&cluster), ALL.map(|node| frames(&cluster, node)));
    std::thread::sleep(IDLE);
    assert_eq!(views(&cluster), before, "an idle chain changes no view");
    assert_eq!([1, 2].map(|group| cluster.wait_agreement(&ALL, group)), heights, "an idle chain makes no block");
    let taken: Vec<u64> = ALL.iter().map(|node| frames(&cluster, *node) - seen[*node]).collect();
    println!("frames taken by each node in {} idle seconds, two groups: {taken:?}", IDLE.as_secs());
    // A status a peer and group every four seconds, and consensus' own heartbeat.
    assert!(taken.iter().all(|count| *count <= 20 * IDLE.as_secs()), "{taken:?}");

    ALL.iter().for_each(|node| cluster.stop(*node));
    ALL.iter().for_each(|node| [1, 2].iter().for_each(|group| cluster.verify(*node, *group)));
}
