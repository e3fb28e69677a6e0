//! A group's life on a chain of several nodes: generated on all of them while they run, started, loaded, stopped, started again.

use serde_json::json;

use crate::nodes::cluster::{Cluster, eventually};

const ALL: [usize; 4] = [0, 1, 2, 3];

fn step(cluster: &Cluster, method: &str, group: u16) {
    for node in ALL {
        let verdict = cluster.manage(node, method, json!([group]));
        assert_eq!(verdict["code"], "0x0", "{method} on node {node}: {verdict}");
    }
}

#[test]
fn group_is_made_on_all_nodes_while_they_run_and_stops_and_starts() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let sealers: Vec<&str> = cluster.nodes.iter().map(|node| node.id.as_str()).collect();
    eventually("all are connected", || {
        ALL.iter().all(|node| cluster.ask(*node, "getPeers", json!([1])).unwrap().as_array().unwrap().len() == 3)
    });
    for node in ALL {
        let verdict = cluster.manage(node, "generateGroup", json!([9, {"timestamp": "1600000000000", "sealers": sealers}]));
        assert_eq!(verdict["code"], "0x0", "on node {node}: {verdict}");
    }
    step(&cluster, "startGroup", 9);
    let beside = cluster.load(&ALL, &["--rate", "100"]);
    cluster.load(&ALL, &["--group", "9", "--count", "600", "--rate", "300"]).join();
    let height = cluster.wait_agreement(&ALL, 9);

    // One node without it: three go on, and it catches up when it starts the group again.
    assert_eq!(cluster.manage(2, "stopGroup", json!([9]))["code"], "0x0");
    cluster.load(&[0, 1, 3], &["--group", "9", "--count", "200", "--rate", "200"]).join();
    assert_eq!(cluster.manage(2, "startGroup", json!([9]))["code"], "0x0");
    cluster.wait_agreement(&ALL, 9);

    step(&cluster, "stopGroup", 9);
    assert!(ALL.iter().all(|node| cluster.height(*node, 9).is_none()));
    step(&cluster, "startGroup", 9);
    assert!(ALL.iter().all(|node| cluster.height(*node, 9) > Some(height)));
    cluster.load(&ALL, &["--group", "9", "--count", "200", "--rate", "200"]).join();
    cluster.wait_agreement(&ALL, 9);
    beside.finish();
    cluster.kill_all();
    ALL.iter().for_each(|node| cluster.verify(*node, 9));
}
