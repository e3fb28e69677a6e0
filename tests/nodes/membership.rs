//! Nodes that come and go: started empty, joined as observer, made a sealer, removed; down to one sealer and up again.

use std::time::{Duration, Instant};

use crate::nodes::cluster::{Cluster, eventually, within};

const ALL: [usize; 4] = [0, 1, 2, 3];

/// Within which a chain that has its quorum again goes on (`spec/reliability.md` P4).
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn node_that_lost_its_data_catches_up_under_load() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let load = cluster.load(&[0, 2, 3], &["--rate", "600"]);
    load.wait_flowing(&cluster, 0, 1);
    cluster.wait_above(0, 1, 60);
    cluster.kill(1);
    cluster.wipe(1);
    let (blocks, start) = (cluster.height(0, 1).unwrap(), Instant::now());
    cluster.start_node(1);
    let caught = within(Duration::from_secs(60), "the empty node catches up", || cluster.height(1, 1) >= Some(blocks));
    println!(
        "{blocks} blocks caught up in {} ms from the start of an empty node, {:.0} blocks/s while it served",
        start.elapsed().as_millis(),
        blocks as f64 / caught.as_secs_f64().max(0.001)
    );
    load.finish();
    cluster.wait_agreement(&ALL, 1);
    cluster.stop(1);
    cluster.verify(1, 1);
}

#[test]
fn node_joins_as_observer_becomes_a_sealer_that_is_needed_and_another_leaves() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let load = cluster.load(&[0, 2, 3], &["--rate", "200"]);
    load.wait_flowing(&cluster, 0, 1);
    let new = cluster.add_node("1");
    // The others learn its address without a restart.
    let address = cluster.nodes[new].p2p.to_string();
    ALL.iter().for_each(|node| drop(cluster.manage(*node, "addPeers", serde_json::json!([[address]]))));
    cluster.start_node(new);
    cluster.change_role(0, 1, "addObserver", new);
    let before = cluster.height(0, 1).unwrap();
    let followed = within(RECOVERY, "the observer follows", || cluster.height(new, 1) >= Some(before));
    println!("observer at block {before} {} ms after its admission", followed.as_millis());
    assert_eq!(cluster.members(new, "getObserverList", 1), [cluster.nodes[new].id.clone()]);

    cluster.change_role(2, 1, "addSealer", new);
    eventually("the new sealer is known everywhere", || (0..=new).all(|node| cluster.members(node, "getSealerList", 1).len() == 5));
    // Of five sealers four are a quorum: with one down, each of the others' votes is needed.
    cluster.kill(3);
    let head = cluster.height(0, 1).unwrap();
    let went_on = within(RECOVERY, "blocks with the vote of the new sealer", || cluster.height(0, 1) > Some(head + 3));
    println!("blocks that needed the new sealer's vote: {} ms after the kill of another", went_on.as_millis());
    cluster.start_node(3);

    cluster.change_role(0, 1, "remove", 1);
    eventually("the removed one is gone everywhere", || {
        [0, 2, 3, new].iter().all(|node| cluster.members(*node, "getSealerList", 1).len() == 4)
    });
    let head = cluster.height(0, 1).unwrap();
    within(RECOVERY, "blocks without it", || [0, 2, 3, new].iter().all(|node| cluster.height(*node, 1) > Some(head + 2)));
    load.finish();
    cluster.wait_agreement(&[0, 2, 3, new], 1);
    let head = cluster.height(0, 1).unwrap();
    let left = cluster.height(1, 1);
    assert!(left < Some(head), "the removed node is told of no block after it left: {left:?} of {head}");
}

#[test]
fn group_goes_down_to_one_sealer_and_up_again() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    for leaver in [3, 2, 1] {
        cluster.change_role(0, 1, "addObserver", leaver);
        eventually("the list is shorter", || cluster.members(0, "getSealerList", 1).len() == leaver);
    }
    // It needs nobody.
    cluster.kill(1);
    cluster.kill(2);
    let height = cluster.height(0, 1).unwrap();
    cluster.change_role(0, 1, "addSealer", 3);
    assert!(cluster.height(0, 1) > Some(height));
    eventually("two sealers", || cluster.members(3, "getSealerList", 1).len() == 2);
    cluster.start_all();
    cluster.change_role(3, 1, "addSealer", 2);
    cluster.change_role(2, 1, "addSealer", 1);
    eventually("all are sealers again", || ALL.iter().all(|node| cluster.members(*node, "getSealerList", 1).len() == 4));
    cluster.load(&ALL, &["--count", "400", "--rate", "400"]).join();
    cluster.wait_agreement(&ALL, 1);
}
