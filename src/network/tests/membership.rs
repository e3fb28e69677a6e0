//! Groups: nothing from and nothing to those who are not members.

use millrace_base::KeyPair;

use super::exchange::noise;
use super::fixture::{Chain, Event, Got, RawPeer, eventually, group, join};
use crate::frame::Unit;
use crate::{DropReason, Frame, FrameKind};

const MARKER: &[u8] = b"marker of group two";

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Reads what has been sent to a peer up to now: until its ping is answered.
fn read_all(peer: &mut RawPeer) {
    peer.send(&crate::frame::control(Unit::Ping, &[0x55; 8]));
    loop {
        match peer.next() {
            Got::Control(Unit::Pong, body) if body == [0x55; 8] => return,
            Got::End => panic!("the session ended"),
            _ => {}
        }
    }
}

#[test]
fn an_outsider_with_a_valid_certificate_reaches_nobody_and_gets_nothing() {
    let chain = Chain::new();
    let nodes = [chain.start(), chain.start()];
    nodes[0].network.add_peers(&[nodes[1].address()]).unwrap();
    join(&nodes, 2);
    let outsider_key = KeyPair::generate();
    // It is a member of another group of one node, and claims to count everybody into group 2.
    nodes[0].network.set_members(group(1), [nodes[0].id(), outsider_key.node_id()]);
    let mut outsider = RawPeer::open(&chain, &nodes[0], &outsider_key, &[1, 2, 3]);
    let mut to_second = RawPeer::open(&chain, &nodes[1], &outsider_key, &[1, 2, 3]);
    for index in 0..200u32 {
        for kind in FrameKind::ALL {
            let payload = [MARKER, &index.to_be_bytes(), &noise(usize::try_from(index).unwrap())].concat();
            outsider.send_frame(Some(2), kind, &payload);
            to_second.send_frame(Some(2), kind, &payload);
            let frame = Frame::of_group(group(2), kind, payload);
            assert_eq!(nodes[0].network.broadcast(group(2), frame.clone()), 1);
            assert!(!nodes[0].network.send(outsider_key.node_id(), frame));
        }
    }
    for (node, peer) in [(&nodes[0], &mut outsider), (&nodes[1], &mut to_second)] {
        read_all(peer);
        assert_eq!(node.network.counters().dropped(DropReason::SenderNotMember), 1_000);
        assert!(!contains(&peer.plain, MARKER), "not one byte of the group reaches the outsider");
        assert!(node.sink.events().iter().all(|event| !matches!(event, Event::Frame(from, _) if *from == outsider_key.node_id())));
    }
    assert_eq!(nodes[0].network.counters().dropped(DropReason::PeerNotMember), 1_000);
    assert_eq!(nodes[1].sink.wait_frames(1_000).len(), 1_000);
    // Its session lives: in the group it belongs to it is heard.
    outsider.send_frame(Some(1), FrameKind::Sync, b"status");
    assert_eq!(nodes[0].sink.wait_frames(1)[0], Frame::of_group(group(1), FrameKind::Sync, b"status".to_vec()));
}

#[test]
fn a_frame_of_a_group_needs_the_membership_on_both_sides() {
    let chain = Chain::new();
    let [first, second] = chain.pair(|_| {});
    let frame = Frame::of_group(group(2), FrameKind::Sync, vec![1]);
    assert!(!first.network.send(second.id(), frame.clone()));
    first.network.set_members(group(2), [first.id(), second.id()]);
    eventually("the second hears of it", || second.network.sessions()[0].groups == [group(1)]);
    assert!(!first.network.send(second.id(), frame.clone()));
    assert_eq!(first.network.counters().dropped(DropReason::GroupNotShared), 1);
    second.network.set_members(group(2), [first.id(), second.id()]);
    eventually("both know", || first.network.connected_members(group(2)) == [second.id()]);
    eventually("both know", || second.network.connected_members(group(2)) == [first.id()]);
    assert!(first.network.send(second.id(), frame.clone()));
    assert_eq!(second.sink.wait_frames(1), std::slice::from_ref(&frame));
    assert_eq!(first.sink.count(&Event::Groups(second.id(), vec![group(1), group(2)])), 1);
    second.network.remove_group(group(2));
    eventually("the first hears of it", || first.network.connected_members(group(2)).is_empty());
    assert!(!first.network.send(second.id(), frame));
    assert_eq!(second.network.sessions()[0].groups, [group(1)]);
}

#[test]
fn who_leaves_a_group_gets_nothing_of_it_that_was_queued() {
    let chain = Chain::new();
    let node = chain.start();
    let key = KeyPair::generate();
    node.network.set_members(group(2), [node.id(), key.node_id()]);
    let mut leaver = RawPeer::open(&chain, &node, &key, &[2]);
    // More than sockets hold, so that the rest waits in the queue and a frame is under way.
    let payload = [noise(1 << 20), MARKER.to_vec()].concat();
    for _ in 0..16 {
        node.network.send(key.node_id(), Frame::of_group(group(2), FrameKind::Sync, payload.clone()));
    }
    node.network.set_members(group(2), [node.id()]);
    assert_eq!(node.network.sessions()[0].queued_frames, 0);
    assert!(node.network.counters().dropped(DropReason::Discarded) > 0);
    assert!(!node.network.send(key.node_id(), Frame::of_group(group(2), FrameKind::Sync, payload)));
    assert!(node.network.send(key.node_id(), Frame { group: None, kind: FrameKind::Control, payload: vec![7].into() }));
    let mut whole = 0;
    while leaver.next_frame().group.is_some() {
        whole += 1;
    }
    assert!(whole < 16, "the session goes on without the group");
}
