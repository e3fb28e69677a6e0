//! Who may connect, changed while the nodes run: lists of node ids read again, addresses added and erased.

use std::fs;

use serde_json::{Value, json};

use crate::nodes::cluster::{Cluster, eventually};
use crate::nodes::stranger::Stranger;

/// Ids of the nodes that a node has sessions with.
fn peers(cluster: &Cluster, node: usize) -> Vec<String> {
    let list = cluster.ask(node, "getPeers", json!([1])).unwrap_or_default();
    list.as_array().into_iter().flatten().map(|peer| peer["NodeID"].as_str().unwrap().to_owned()).collect()
}

fn reload(cluster: &Cluster, node: usize) {
    let directory = cluster.nodes[node].directory.to_string_lossy().into_owned();
    cluster.millrace(&["node", "reload", "--peers", "--dir", &directory]);
}

#[test]
fn blacklist_cuts_a_session_at_once_and_its_removal_lets_the_node_back() {
    let cluster = Cluster::start(4, &["--groups", "1"]);
    eventually("all are connected", || (0..4).all(|node| peers(&cluster, node).len() == 3));
    let config = cluster.nodes[0].directory.join("config.ini");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(";crl.0=", &format!("crl.0={}", cluster.nodes[3].id))).unwrap();
    reload(&cluster, 0);
    eventually("the session is cut", || {
        !peers(&cluster, 0).contains(&cluster.nodes[3].id) && !peers(&cluster, 3).contains(&cluster.nodes[0].id)
    });
    // The chain needs no link between these two.
    cluster.load(&[0, 1, 2, 3], &["--count", "300", "--rate", "300"]).join();
    assert!(!peers(&cluster, 0).contains(&cluster.nodes[3].id), "it stays out");
    fs::write(&config, text).unwrap();
    reload(&cluster, 0);
    eventually("it is back", || peers(&cluster, 0).contains(&cluster.nodes[3].id));
    cluster.wait_agreement(&[0, 1, 2, 3], 1);
}

#[test]
fn addresses_of_peers_are_added_and_erased_while_running_and_kept() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    eventually("all are connected", || (0..3).all(|node| peers(&cluster, node).len() == 2));
    let known = |cluster: &Cluster, node: usize| cluster.manage(node, "queryPeers", json!([]));
    let (own, other, nowhere) = (0, cluster.nodes[2].p2p.to_string(), format!("127.0.0.1:{}", cluster.port() - 1));
    let before: Vec<Value> = known(&cluster, own).as_array().unwrap().clone();
    assert!(before.contains(&json!(other)), "{before:?}");

    assert!(cluster.whole(own, "addPeers", json!([[nowhere]]))["error"].is_object(), "clients may not");
    assert_eq!(cluster.manage(own, "addPeers", json!([[nowhere]]))["code"], "0x0");
    assert_eq!(known(&cluster, own).as_array().unwrap().len(), before.len() + 1);

    // Erased on both sides the session is gone; a restart does not bring it back.
    let mine = cluster.nodes[own].p2p.to_string();
    assert_eq!(cluster.manage(own, "erasePeers", json!([[other]]))["code"], "0x0");
    assert_eq!(cluster.manage(2, "erasePeers", json!([[mine]]))["code"], "0x0");
    eventually("the session is gone", || peers(&cluster, own).len() == 1 && peers(&cluster, 2).len() == 1);
    cluster.kill(own);
    cluster.start_node(own);
    eventually("the other session is back", || peers(&cluster, own) == [cluster.nodes[1].id.clone()]);
    let after = known(&cluster, own);
    assert!(!after.to_string().contains(&other) && after.to_string().contains(&nowhere), "{after}");

    assert_eq!(cluster.manage(own, "addPeers", json!([[other]]))["code"], "0x0");
    eventually("the session is back", || peers(&cluster, own).len() == 2);
}

/// Days until the node's P2P certificate ends, as its metrics tell.
fn days_left(cluster: &Cluster, node: usize) -> i64 {
    let metrics = cluster.metrics(node);
    let line = metrics.lines().find_map(|line| line.strip_prefix("millrace_certificate_days_left{file=\"conf/p2p.crt\"} "));
    line.unwrap().parse().unwrap()
}

#[test]
fn renewed_certificates_are_used_by_new_sessions_without_a_restart_and_open_ones_stay() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    eventually("all are connected", || (0..4).all(|node| peers(&cluster, node).len() == 3));
    let stranger = cluster.add_node("1");
    let (address, files) = (cluster.nodes[0].p2p, cluster.nodes[stranger].directory.clone());
    let shown = || Stranger::connect(address, &files, &[]).shown_certificate();
    let since = |cluster: &Cluster| {
        let status = cluster.status(0);
        let sessions = status["network"]["sessions"].as_array().unwrap().clone();
        let others = sessions.into_iter().filter(|session| session["nodeId"] != json!(cluster.nodes[stranger].id));
        others.map(|session| (session["nodeId"].clone(), session["sinceMs"].clone())).collect::<Vec<_>>()
    };
    let (old, sessions) = (shown(), since(&cluster));
    let directory = cluster.nodes[0].directory.to_string_lossy().into_owned();
    cluster.millrace(&["chain", "renew", "node", &directory, "--days", "77"]);
    assert_eq!(shown(), old, "the file alone changes nothing");
    cluster.millrace(&["node", "reload", "--certificates", "--dir", &directory]);
    eventually("new sessions see the new certificate", || shown() != old);
    assert!((75..=77).contains(&days_left(&cluster, 0)), "{}", days_left(&cluster, 0));
    assert_eq!(since(&cluster), sessions, "open sessions go on");
    cluster.load(&[0, 1, 2, 3], &["--count", "200", "--rate", "400"]).join();
}
