//! Nodes that are killed under load: nothing that a client was told of is lost, no two nodes differ, and the chain goes on.

use std::time::{Duration, Instant};

use crate::nodes::cluster::{Cluster, PATIENCE, within};

const ALL: [usize; 4] = [0, 1, 2, 3];

/// Within which a chain that has its quorum again goes on (`spec/reliability.md` P4).
const RECOVERY: Duration = Duration::from_secs(30);

/// Waits until every one of these nodes commits a block beyond what all have now.
fn wait_progress(cluster: &Cluster, nodes: &[usize], limit: Duration) -> Duration {
    let head = nodes.iter().filter_map(|node| cluster.height(*node, 1)).max().unwrap_or(0);
    within(limit, "commits go on", || nodes.iter().all(|node| cluster.height(*node, 1) > Some(head)))
}

/// A quorum needs no one node: each is killed in turn, the leader of some view among them.
#[test]
fn chain_goes_on_without_any_one_node_which_catches_up_after_its_kill() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let load = cluster.load(&ALL, &[]);
    load.wait_flowing(&cluster, 0, 1);
    for victim in ALL {
        let others: Vec<usize> = ALL.into_iter().filter(|node| *node != victim).collect();
        let told = cluster.height(victim, 1).unwrap();
        let hash = cluster.block(victim, 1, told).unwrap();
        cluster.kill(victim);
        let pause = wait_progress(&cluster, &others, RECOVERY);
        wait_progress(&cluster, &others, RECOVERY);
        let missed = cluster.height(others[0], 1).unwrap();
        let started = Instant::now();
        cluster.start_node(victim);
        assert_eq!(cluster.block(victim, 1, told), Some(hash), "the block that a client had seen of node {victim}");
        let caught = within(PATIENCE, "the node catches up", || cluster.height(victim, 1) >= Some(missed));
        println!(
            "node {victim} killed at block {told}: commits went on after {} ms; {} blocks later it was there again, {} ms after its start, {} ms of them catching up",
            pause.as_millis(),
            missed - told,
            started.elapsed().as_millis(),
            caught.as_millis()
        );
    }
    let figures = load.finish();
    println!("longest gap {} ms, {} resent, {} committed", figures["longest_gap_ms"], figures["resent"], figures["committed"]);
    cluster.wait_agreement(&ALL, 1);
    cluster.kill_all();
    ALL.iter().for_each(|node| cluster.verify(*node, 1));
}

#[test]
fn chain_survives_the_kill_of_all_nodes_at_once() {
    let mut cluster = Cluster::start(4, &["--groups", "2"]);
    let load = cluster.load(&ALL, &["--group", "1,2"]);
    load.wait_flowing(&cluster, 0, 1);
    for round in 0..2 {
        let told: Vec<(u64, String)> = ALL
            .iter()
            .map(|node| {
                let height = cluster.height(*node, 1).unwrap();
                (height, cluster.block(*node, 1, height).unwrap())
            })
            .collect();
        cluster.kill_all();
        cluster.start_all();
        for (node, (height, hash)) in told.iter().enumerate() {
            assert_eq!(cluster.block(node, 1, *height).as_ref(), Some(hash), "the block that a client had seen of node {node}");
        }
        let pause = wait_progress(&cluster, &ALL, RECOVERY);
        println!("round {round}: all killed at block {}; commits went on {} ms after all served again", told[0].0, pause.as_millis());
    }
    let figures = load.finish();
    println!("longest gap {} ms, {} resent, {} committed", figures["longest_gap_ms"], figures["resent"], figures["committed"]);
    for group in [1, 2] {
        cluster.wait_agreement(&ALL, group);
    }
    cluster.kill_all();
    ALL.iter().for_each(|node| [1, 2].iter().for_each(|group| cluster.verify(*node, *group)));
}

/// A node that stands still longer than any view change is not lost for the chain, nor the chain for it.
#[test]
fn node_that_was_held_still_goes_on_with_the_others() {
    let cluster = Cluster::start(4, &["--groups", "1"]);
    let load = cluster.load(&ALL, &[]);
    load.wait_flowing(&cluster, 0, 1);
    cluster.signal(2, "STOP");
    let pause = wait_progress(&cluster, &[0, 1, 3], RECOVERY);
    // Beyond the time after which its sessions are given up.
    std::thread::sleep(Duration::from_secs(10));
    wait_progress(&cluster, &[0, 1, 3], RECOVERY);
    cluster.signal(2, "CONT");
    let back = wait_progress(&cluster, &ALL, RECOVERY);
    println!("commits went on {} ms after the hold, and with all nodes {} ms after its end", pause.as_millis(), back.as_millis());
    load.finish();
    cluster.wait_agreement(&ALL, 1);
}

/// Whoever stops says so, and the others do not wait for it.
#[test]
fn rolling_restart_costs_no_timeout() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let load = cluster.load(&ALL, &[]);
    load.wait_flowing(&cluster, 0, 1);
    for node in ALL {
        let others: Vec<usize> = ALL.into_iter().filter(|other| *other != node).collect();
        cluster.stop(node);
        wait_progress(&cluster, &others, RECOVERY);
        cluster.start_node(node);
        let head = cluster.height(others[0], 1);
        within(PATIENCE, "the node has caught up", || cluster.height(node, 1) >= head);
        wait_progress(&cluster, &ALL, RECOVERY);
    }
    let figures = load.finish();
    println!("longest gap {} ms, {} resent, {} committed", figures["longest_gap_ms"], figures["resent"], figures["committed"]);
    assert!(figures["longest_gap_ms"].as_f64().unwrap() < 3_000.0, "{figures}");
    cluster.wait_agreement(&ALL, 1);
}
