//! Nodes that cannot hear each other for a while: no two of them differ afterwards, and the chain goes on by itself.

use std::time::Duration;

use crate::nodes::cluster::{Cluster, Load, within};
use crate::nodes::machines::Machines;

const ALL: [usize; 4] = [0, 1, 2, 3];

/// Within which a healed chain goes on (`spec/reliability.md` P4).
const RECOVERY: Duration = Duration::from_secs(30);

/// How long a partition lasts: beyond the first view changes and the time after which silent sessions end.
const PARTED: Duration = Duration::from_secs(10);

fn heights(cluster: &Cluster) -> Vec<u64> {
    ALL.iter().map(|node| cluster.height(*node, 1).unwrap()).collect()
}

/// Waits until these nodes commit a block beyond the head that any of them has.
fn wait_progress(cluster: &Cluster, nodes: &[usize]) -> Duration {
    let head = nodes.iter().filter_map(|node| cluster.height(*node, 1)).max().unwrap();
    within(RECOVERY, "commits go on", || nodes.iter().all(|node| cluster.height(*node, 1) > Some(head)))
}

/// A loaded chain of four machines.
fn start(machines: &Machines) -> (Cluster, Load) {
    let cluster = Cluster::build(machines.place(), &["--groups", "1"]).started();
    let load = cluster.load(&ALL, &["--rate", "200"]);
    load.wait_flowing(&cluster, 0, 1);
    (cluster, load)
}

/// The load's checks, which compare every block of all nodes.
fn finish(cluster: &Cluster, load: Load) {
    let figures = load.finish();
    println!("longest gap {} ms, {} resent, {} committed", figures["longest_gap_ms"], figures["resent"], figures["committed"]);
    cluster.wait_agreement(&ALL, 1);
}

#[test]
fn halves_of_a_parted_chain_stand_still_and_go_on_by_themselves_when_it_is_healed() {
    let Some(machines) = Machines::new(4) else { return };
    let (cluster, load) = start(&machines);
    machines.part(&[0, 1], &[2, 3]);
    // What was under way arrives nowhere any more.
    std::thread::sleep(Duration::from_secs(1));
    let held = heights(&cluster);
    std::thread::sleep(PARTED);
    assert_eq!(heights(&cluster).iter().max(), held.iter().max(), "neither half has a quorum");
    machines.heal();
    println!("2|2: commits on all nodes {} ms after healing", wait_progress(&cluster, &ALL).as_millis());
    finish(&cluster, load);
}

#[test]
fn three_nodes_go_on_without_one_that_is_cut_off_or_hears_nobody_and_it_comes_back() {
    let Some(machines) = Machines::new(4) else { return };
    let (cluster, load) = start(&machines);
    machines.part(&[0, 1, 2], &[3]);
    let went_on = wait_progress(&cluster, &[0, 1, 2]);
    std::thread::sleep(PARTED / 2);
    machines.heal();
    let back = wait_progress(&cluster, &ALL);
    println!("3|1: commits of the three went on after {} ms, on all nodes {} ms after healing", went_on.as_millis(), back.as_millis());

    // Node 0 hears nobody; the others hear it, as far as TCP goes without acknowledgements.
    machines.deafen(0, &[1, 2, 3]);
    let went_on = wait_progress(&cluster, &[1, 2, 3]);
    std::thread::sleep(PARTED / 2);
    machines.heal();
    let back = wait_progress(&cluster, &ALL);
    println!("one way: commits of the three went on after {} ms, on all nodes {} ms after healing", went_on.as_millis(), back.as_millis());
    finish(&cluster, load);
}
