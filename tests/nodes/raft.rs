//! Raft groups of several nodes under load: the leader is killed, a minority is cut off, all are killed; and one node with a PBFT and a
//! Raft group at once.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::nodes::cluster::{Cluster, eventually, within};
use crate::nodes::machines::Machines;

const ALL: [usize; 3] = [0, 1, 2];

const RAFT: [&str; 4] = ["--groups", "1", "--consensus", "raft"];

/// Within which a group that has its majority again goes on (`spec/reliability.md` P4).
const RECOVERY: Duration = Duration::from_secs(30);

/// Waits until every one of these nodes commits a block beyond what all have now.
fn wait_progress(cluster: &Cluster, nodes: &[usize], limit: Duration) -> Duration {
    let head = nodes.iter().filter_map(|node| cluster.height(*node, 1)).max().unwrap_or(0);
    within(limit, "commits go on", || nodes.iter().all(|node| cluster.height(*node, 1) > Some(head)))
}

/// The node that one of them names as the leader of group 1.
fn leader(cluster: &Cluster, nodes: &[usize]) -> usize {
    let named = |node: &usize| {
        let status = cluster.ask(*node, "getConsensusStatus", json!([1]))?;
        let id = status[0]["leaderId"].as_str()?.to_owned();
        cluster.nodes.iter().position(|other| other.id == id)
    };
    let mut found = None;
    eventually("a leader is known", || {
        found = nodes.iter().find_map(named).filter(|leader| nodes.contains(leader));
        found.is_some()
    });
    found.expect("it was waited for")
}

/// Kills of the leader; `MILLRACE_LEADER_KILLS` makes a longer run of it.
fn kills() -> usize {
    std::env::var("MILLRACE_LEADER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn raft_group_goes_on_when_its_leader_is_killed_and_when_all_are() {
    let mut cluster = Cluster::start(3, &RAFT);
    // At 400 a second there is load for all the kills; it ends when the test says so.
    let count = (16_000 + 4_000 * kills()).to_string();
    let load = cluster.load(&ALL, &["--count", &count]);
    load.wait_flowing(&cluster, 0, 1);
    let mut gaps = Vec::new();
    for _ in 0..kills() {
        let victim = leader(&cluster, &ALL);
        let others: Vec<usize> = ALL.into_iter().filter(|node| *node != victim).collect();
        let told = cluster.height(victim, 1).unwrap();
        let hash = cluster.block(victim, 1, told).unwrap();
        cluster.kill(victim);
        gaps.push(wait_progress(&cluster, &others, RECOVERY).as_millis());
        cluster.start_node(victim);
        assert_eq!(cluster.block(victim, 1, told), Some(hash), "the block that a client had seen of node {victim}");
        wait_progress(&cluster, &ALL, RECOVERY);
    }
    println!("leader killed {} times: commits went on after {gaps:?} ms", gaps.len());
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
    println!("all killed: commits went on {} ms after all served again", pause.as_millis());
    let figures = load.finish();
    println!("longest gap {} ms, {} resent, {} committed", figures["longest_gap_ms"], figures["resent"], figures["committed"]);
    cluster.wait_agreement(&ALL, 1);
    cluster.kill_all();
    ALL.iter().for_each(|node| cluster.verify(*node, 1));
}

#[test]
fn minority_of_a_raft_group_commits_nothing() {
    let Some(machines) = Machines::new(3) else { return };
    let cluster = Cluster::build(machines.place(), &RAFT).started();
    let load = cluster.load(&ALL, &["--rate", "200"]);
    load.wait_flowing(&cluster, 0, 1);
    let old = leader(&cluster, &ALL);
    let others: Vec<usize> = ALL.into_iter().filter(|node| *node != old).collect();
    let machine = |node: usize| u8::try_from(node).unwrap();
    machines.part(&[machine(old)], &others.iter().map(|node| machine(*node)).collect::<Vec<_>>());
    std::thread::sleep(Duration::from_secs(1));
    let held = cluster.height(old, 1);
    let went_on = wait_progress(&cluster, &others, RECOVERY);
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(cluster.height(old, 1), held, "a leader without a majority");
    assert_ne!(leader(&cluster, &others), old);
    machines.heal();
    let back = wait_progress(&cluster, &ALL, RECOVERY);
    println!("the other two went on after {} ms; all {} ms after healing", went_on.as_millis(), back.as_millis());
    load.finish();
    cluster.wait_agreement(&ALL, 1);
}

#[test]
fn node_has_a_pbft_and_a_raft_group_at_once_and_members_of_the_raft_group_change() {
    let mut cluster = Cluster::start(3, &["--groups", "2", "--consensus", "pbft,2=raft"]);
    let load = cluster.load(&ALL, &["--group", "1,2"]);
    load.wait_flowing(&cluster, 0, 2);
    let status = |group: u16| cluster.ask(0, "getConsensusStatus", json!([group])).unwrap();
    assert_eq!((status(1).as_array().unwrap().len(), status(2).as_array().unwrap().len()), (2, 1));
    assert_eq!((&status(1)[0]["max_faulty_leader"], &status(2)[0]["max_faulty_leader"]), (&json!(0), &json!(1)));
    assert!(cluster.view(0, 1).is_some());
    assert_eq!(cluster.whole(0, "getPbftView", json!([2]))["error"]["code"], json!(-40007));
    // One of three may be absent where sealers can only stop.
    cluster.kill(2);
    let head = cluster.height(0, 2).unwrap();
    cluster.wait_above(0, 2, head + 2);
    cluster.start_node(2);
    for (function, node) in [("addObserver", 2), ("addObserver", 1), ("addSealer", 1), ("addSealer", 2)] {
        cluster.change_role(0, 2, function, node);
        let head = cluster.height(0, 2).unwrap();
        ALL.iter().for_each(|node| cluster.wait_above(*node, 2, head + 1));
    }
    load.finish();
    for group in [1, 2] {
        cluster.wait_agreement(&ALL, group);
    }
    let mut status = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let said = status.args(["node", "status", "--why", "--dir"]).arg(&cluster.nodes[0].directory).output().unwrap();
    let why = String::from_utf8(said.stdout).unwrap();
    assert!(why.contains("group 1") && why.contains(", term "), "{why}");
    cluster.kill_all();
    ALL.iter().for_each(|node| [1, 2].iter().for_each(|group| cluster.verify(*node, *group)));
}
