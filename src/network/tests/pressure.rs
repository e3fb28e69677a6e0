//! Queues under load: priorities, fairness between groups, peers that do not read.

use std::time::Duration;

use millrace_base::KeyPair;

use super::exchange::noise;
use super::fixture::{Chain, RawPeer, eventually, group};
use crate::{DropReason, EndReason, Frame, FrameKind, MAX_PAYLOAD_BYTES};

#[test]
fn a_vote_overtakes_ten_megabytes_of_queued_transactions() {
    let chain = Chain::new();
    let node = chain.start();
    let key = KeyPair::generate();
    node.network.set_members(group(1), [node.id(), key.node_id()]);
    let mut peer = RawPeer::open(&chain, &node, &key, &[1]);
    let transactions = noise(1 << 20);
    for _ in 0..20 {
        assert!(node.network.send(key.node_id(), Frame::of_group(group(1), FrameKind::Transactions, transactions.clone())));
    }
    eventually("the sockets are full", || {
        let before = node.network.counters().wire_out;
        std::thread::sleep(Duration::from_millis(100));
        node.network.counters().wire_out == before
    });
    let sent = usize::try_from(node.network.counters().wire_out).unwrap();
    let queued = node.network.sessions()[0].queued_bytes;
    assert!(queued > 10 << 20, "{queued} bytes wait");
    assert!(node.network.send(key.node_id(), Frame::of_group(group(1), FrameKind::Consensus, b"vote".to_vec())));
    let mut before = 0;
    while peer.next_frame().kind != FrameKind::Consensus {
        before += 1;
    }
    assert!(before << 20 <= sent + (1 << 20), "{before} frames came before the vote; {sent} bytes were with the sockets");
}

#[test]
fn a_flooding_group_does_not_hold_up_another() {
    let chain = Chain::new();
    let node = chain.start();
    let key = KeyPair::generate();
    for id in [1, 2] {
        node.network.set_members(group(id), [node.id(), key.node_id()]);
    }
    let mut peer = RawPeer::open(&chain, &node, &key, &[1, 2]);
    let mut taken = 0;
    while node.network.send(key.node_id(), Frame::of_group(group(1), FrameKind::Transactions, noise(1 << 20))) {
        taken += 1;
    }
    assert!(taken >= 11 && node.network.counters().dropped(DropReason::QueueFull) == 1);
    let mut sent = 0;
    for _ in 0..20 {
        sent += usize::from(node.network.send(key.node_id(), Frame::of_group(group(2), FrameKind::Transactions, noise(100_000))));
    }
    assert_eq!(sent, 20, "group 2 has its own share");
    let (mut of_first, mut of_second) = (0, 0);
    while of_second < 20 {
        match peer.next_frame().group {
            Some(id) if id == group(1) => of_first += 1,
            _ => of_second += 1,
        }
    }
    assert!(of_first < taken, "group 2 was through after {of_first} of {taken} frames of group 1");
}

#[test]
fn a_peer_that_does_not_read_costs_a_bounded_queue_and_is_cut() {
    let chain = Chain::new();
    let node = chain.start_with(&KeyPair::generate(), |config| {
        config.limits.stall_timeout = Duration::from_secs(2);
        config.limits.queue_bytes = 8 << 20;
        config.limits.idle_timeout = Duration::from_secs(60);
    });
    let key = KeyPair::generate();
    node.network.set_members(group(1), [node.id(), key.node_id()]);
    let peer = RawPeer::open(&chain, &node, &key, &[1]);
    let payload = noise(256 << 10);
    let mut refused = 0;
    for _ in 0..400 {
        refused += u64::from(!node.network.send(key.node_id(), Frame::of_group(group(1), FrameKind::Sync, payload.clone())));
        let queued = node.network.sessions().first().map_or(0, |session| session.queued_bytes);
        assert!(queued <= (8 << 20) + MAX_PAYLOAD_BYTES, "{queued} bytes wait");
    }
    assert!(refused > 0 && node.network.counters().dropped(DropReason::QueueFull) == refused);
    node.wait_ended(EndReason::Stalled, 1);
    assert!(node.network.sessions().is_empty());
    assert!(!node.network.send(key.node_id(), Frame::of_group(group(1), FrameKind::Sync, vec![1])));
    drop(peer);
}

#[test]
fn what_is_queued_before_a_stop_arrives() {
    let chain = Chain::new();
    let [first, second] = chain.pair(|_| {});
    let payload = noise(1 << 20);
    for _ in 0..20 {
        assert!(first.network.send(second.id(), Frame::of_group(group(1), FrameKind::Sync, payload.clone())));
    }
    first.network.stop(Duration::from_secs(10));
    assert_eq!(second.sink.wait_frames(20).len(), 20);
    second.wait_ended(EndReason::Shutdown, 1);
    first.network.stop(Duration::ZERO);
    assert!(!first.network.send(second.id(), Frame::of_group(group(1), FrameKind::Sync, vec![1])));
}
