//! Nodes that cannot hear each other for a while: no two of them differ afterwards, and the chain goes on by itself.

use std::time::{Duration, Instant};

use crate::nodes::cluster::{Cluster, within};
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

#[test]
fn parted_chain_never_forks_and_goes_on_by_itself_when_it_is_healed() {
    let Some(machines) = Machines::new(4) else { return };
    let cluster = Cluster::build(machines.place(), &["--groups", "1"]).started();
    let load = cluster.load(&ALL, &["--rate", "200"]);
    load.wait_flowing(&cluster, 0, 1);

    // Two and two: no quorum anywhere.
    machines.part(&[0, 1], &[2, 3]);
    std::thread::sleep(Duration::from_secs(1));
    let (held, start) = (heights(&cluster), Instant::now());
    std::thread::sleep(PARTED);
    let grown = heights(&cluster).iter().max().unwrap() - held.iter().max().unwrap();
    assert_eq!(grown, 0, "neither half commits: {held:?}, {:?}", heights(&cluster));
    machines.heal();
    println!(
        "2|2: parted for {} ms, commits on all nodes {} ms after healing",
        start.elapsed().as_millis(),
        wait_progress(&cluster, &ALL).as_millis()
    );

    // Three and one: three go on.
    machines.part(&[0, 1, 2], &[3]);
    let went_on = wait_progress(&cluster, &[0, 1, 2]);
    std::thread::sleep(PARTED);
    wait_progress(&cluster, &[0, 1, 2]);
    machines.heal();
    println!(
        "3|1: commits of the three went on after {} ms, on all nodes {} ms after healing",
        went_on.as_millis(),
        wait_progress(&cluster, &ALL).as_millis()
    );

    // One way: 0 hears nobody, and everybody hears it as far as TCP goes without acknowledgements.
    machines.deafen(0, &[1, 2, 3]);
    let went_on = wait_progress(&cluster, &[1, 2, 3]);
    std::thread::sleep(PARTED);
    wait_progress(&cluster, &[1, 2, 3]);
    machines.heal();
    println!(
        "one way: commits of the three went on after {} ms, on all nodes {} ms after healing",
        went_on.as_millis(),
        wait_progress(&cluster, &ALL).as_millis()
    );

    let figures = load.finish();
    println!("longest gap {} ms, {} resent, {} committed", figures["longest_gap_ms"], figures["resent"], figures["committed"]);
    cluster.wait_agreement(&ALL, 1);
}
