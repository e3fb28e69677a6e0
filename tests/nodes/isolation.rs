//! A group is its members' own: nodes beside each other in different groups, and an outsider that tries everything (rows R12 and S1 to
//! S3 of the reliability specification).

use std::time::Duration;

use millrace_administration::sync::message::{SyncMessage, VERSION};
use millrace_base::{Address, B256};
use serde_json::json;

use crate::nodes::cluster::{Cluster, eventually};
use crate::nodes::stranger::{AMOP, CONSENSUS, CONTROL, KINDS, SYNC, Stranger, TRANSACTIONS};

/// Random texts planted in transactions.
const MARKERS: usize = 1_000;

/// An address without code: what is sent there is in a block all the same.
const NOBODY: Address = Address::repeat_byte(0x77);

#[test]
fn nodes_of_different_groups_beside_each_other_see_their_own_only() {
    let cluster = Cluster::start(4, &["--group", "1=node0,node1", "--group", "2=node0,node1,node2,node3", "--group", "3=node2,node3"]);
    cluster.load(&[0, 1, 2, 3], &["--group", "1,2,3", "--count", "900", "--rate", "600"]).join();
    for (node, groups, foreign) in [(0, [1, 2], 3), (1, [1, 2], 3), (2, [2, 3], 1), (3, [2, 3], 1)] {
        assert_eq!(cluster.ask(node, "getGroupList", json!([])), Some(json!(groups)));
        for method in ["getBlockNumber", "getPbftView", "getSealerList", "getSyncStatus", "getPendingTxSize", "getGroupPeers"] {
            let reply = cluster.whole(node, method, json!([foreign]));
            assert!(reply["error"]["code"].is_i64(), "{method} of group {foreign} on node {node}: {reply}");
        }
        assert!(!cluster.nodes[node].directory.join(format!("data/group{foreign}")).exists(), "nothing of group {foreign} is stored");
    }
    cluster.wait_agreement(&[0, 1], 1);
    cluster.wait_agreement(&[0, 1, 2, 3], 2);
    cluster.wait_agreement(&[2, 3], 3);
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// What an outsider may try: every kind of frame with everything of the sync protocol that asks, claims or offers, and noise.
fn attempts(genesis: B256, height: u64) -> Vec<(u8, Vec<u8>)> {
    let claims = [height + 10_000, 1 << 62, i64::MAX as u64, u64::MAX].map(|height| {
        let hash = B256::repeat_byte(0xaa);
        SyncMessage::Status { version: VERSION, genesis, height, hash, kept_from: 1 }.encode().to_vec()
    });
    let requests = [(0, 1), (0, 1_000), (1, u32::MAX), (height, 128), (u64::MAX, u32::MAX)]
        .map(|(from, count)| SyncMessage::Request { id: 7, from, count, max_bytes: u32::MAX }.encode().to_vec());
    let offer = SyncMessage::Blocks { id: 7, from: height + 1, blocks: vec![vec![0xc0; 300].into()] }.encode().to_vec();
    let mut attempts: Vec<(u8, Vec<u8>)> = claims.into_iter().chain(requests).chain([offer]).map(|payload| (SYNC, payload)).collect();
    // Of the other kinds every first byte, which tells their messages apart, with more behind it.
    for first in 0..=16u8 {
        let payload = [vec![first], vec![first; 96]].concat();
        attempts.extend([CONTROL, CONSENSUS, TRANSACTIONS, AMOP].map(|kind| (kind, payload.clone())));
    }
    attempts
}

/// R12, S1, S2: a node with a certificate of the chain, in another group of the very same nodes, gets nothing of group 2 and changes nothing.
/// S3: frames carry no clock, so none can be shifted.
#[test]
fn outsider_with_a_valid_certificate_gets_none_of_a_thousand_markers_and_changes_nothing() {
    let mut cluster = Cluster::start(4, &["--groups", "2"]);
    let outsider = cluster.add_node("1");
    cluster.change_role(0, 1, "addObserver", outsider);
    let genesis: B256 = cluster.block(0, 2, 0).unwrap().parse().unwrap();
    let view = cluster.view(0, 2).unwrap();
    let directory = cluster.nodes[outsider].directory.clone();
    let mut sessions: Vec<Stranger> = (0..4).map(|node| Stranger::connect(cluster.nodes[node].p2p, &directory, &[1, 2])).collect();

    let markers: Vec<[u8; 16]> = (0..MARKERS).map(|_| rand::random()).collect();
    for (round, part) in markers.chunks(MARKERS / 4).enumerate() {
        for marker in part {
            cluster.send(round, 2, NOBODY, marker.repeat(4).into());
        }
        let height = cluster.height(0, 2).unwrap();
        for session in &mut sessions {
            for (kind, payload) in attempts(genesis, height) {
                session.send_frame(kind, 2, &payload);
            }
            assert!(session.read_all(), "the session goes on: of group 1 it is a member");
        }
    }
    let total = |value: &serde_json::Value| u64::from_str_radix(value["txSum"].as_str()?.trim_start_matches("0x"), 16).ok();
    eventually("all markers are in blocks", || {
        cluster.ask(3, "getTotalTransactionCount", json!([2])).as_ref().and_then(total) == Some(MARKERS as u64)
    });
    // Members talk about the new head a moment later.
    std::thread::sleep(Duration::from_secs(1));
    for session in &mut sessions {
        assert!(session.read_all());
        assert_eq!(session.frames.iter().filter(|group| **group == 2).count(), 0, "no frame of group 2 reaches the outsider");
        assert!(!session.was_compressed, "what came can be read");
        let found = markers.iter().filter(|marker| contains(&session.plain, &marker[..])).count();
        assert_eq!(found, 0, "of {MARKERS} markers");
    }
    println!(
        "the outsider got {} frames of group 1, and none of {MARKERS} markers",
        sessions.iter().map(|session| session.frames.len()).sum::<usize>()
    );
    assert_eq!(KINDS.len(), 5);

    // S2: its claims of great heights hold nobody up.
    cluster.load(&[0, 1, 2, 3], &["--group", "2", "--count", "400", "--rate", "400"]).join();
    let height = cluster.wait_agreement(&[0, 1, 2, 3], 2);
    for node in 0..4 {
        let status = cluster.ask(node, "getSyncStatus", json!([2])).unwrap();
        assert_eq!((status["isSyncing"].as_bool(), status["knownHighestNumber"].as_u64()), (Some(false), Some(height)), "{status}");
        assert!(status["peers"].as_array().unwrap().len() <= 3 && !status.to_string().contains(&cluster.nodes[outsider].id), "{status}");
        assert_eq!(cluster.view(node, 2), Some(view), "no view change");
    }
}
