//! Frames between honest nodes.

use millrace_base::{Bytes, KeyPair};

use super::fixture::{Chain, Event, group, join};
use crate::{Direction, DropReason, EndReason, Frame, FrameKind, MAX_PAYLOAD_BYTES, PeerState};

/// Bytes that do not compress.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn two_nodes_exchange_frames_of_each_kind_and_size() {
    let chain = Chain::new();
    let [first, second] = chain.pair(|_| {});
    let sizes = [0, 1, 1_000, 1_025, 65_535, 65_536, 65_537, 3 << 20];
    for (from, to) in [(&first, &second), (&second, &first)] {
        let mut sent = Vec::new();
        for kind in FrameKind::ALL {
            for size in sizes {
                for payload in [Bytes::from(vec![7; size]), Bytes::from(noise(size))] {
                    let frame = Frame::of_group(group(1), kind, payload);
                    assert!(from.network.send(to.id(), frame.clone()), "{frame:?}");
                    sent.push(frame);
                }
            }
        }
        let received = to.sink.wait_frames(sent.len());
        for kind in FrameKind::ALL {
            let of_kind = |frames: &[Frame]| frames.iter().filter(|frame| frame.kind == kind).cloned().collect::<Vec<_>>();
            assert!(of_kind(&sent) == of_kind(&received), "{kind:?} arrive whole and in order");
        }
        assert_eq!(received.len(), sent.len());
    }
    let info = &first.network.sessions()[0];
    assert_eq!(
        (info.node_id, info.direction, info.name.as_str(), info.agency.as_str()),
        (second.id(), Direction::Incoming, "node", "agency-a")
    );
    assert_eq!(info.groups, [group(1)]);
    assert_eq!(second.network.sessions()[0].direction, Direction::Outgoing);
    let counters = first.network.counters();
    assert!(counters.kind(FrameKind::Sync).frames_out == 16 && counters.kind(FrameKind::Sync).frames_in == 16);
    assert!(counters.kind(FrameKind::Sync).bytes_out < counters.kind(FrameKind::Sync).bytes_in, "half of the payloads compress");
}

#[test]
fn the_largest_frame_passes_and_a_larger_one_is_refused() {
    let chain = Chain::new();
    let [first, second] = chain.pair(|_| {});
    let largest = Frame::of_group(group(1), FrameKind::Sync, noise(MAX_PAYLOAD_BYTES));
    assert!(first.network.send(second.id(), largest.clone()));
    assert!(second.sink.wait_frames(1) == [largest]);
    let larger = Frame::of_group(group(1), FrameKind::Sync, vec![0; MAX_PAYLOAD_BYTES + 1]);
    assert!(!first.network.send(second.id(), larger.clone()));
    assert_eq!(first.network.broadcast(group(1), larger), 0);
    assert!(!first.network.send(second.id(), Frame { group: None, kind: FrameKind::Consensus, payload: Bytes::new() }));
    assert_eq!(first.network.counters().dropped(DropReason::Unsendable), 3);
    assert!(first.network.send(second.id(), Frame { group: None, kind: FrameKind::Amop, payload: Bytes::new() }));
    assert_eq!(second.sink.wait_frames(2)[1].group, None);
}

#[test]
fn four_nodes_that_all_connect_to_each_other_have_one_session_a_pair() {
    let chain = Chain::new();
    for loops in [1, 3] {
        let keys: Vec<KeyPair> = (0..4).map(|_| KeyPair::generate()).collect();
        let nodes: Vec<_> = keys.iter().map(|key| chain.start_with(key, |config| config.loops = loops)).collect();
        let addresses: Vec<_> = nodes.iter().map(|node| node.address()).collect();
        // Each also has its own address in the list, as the files that an operator copies have.
        nodes.iter().for_each(|node| node.network.add_peers(&addresses).unwrap());
        join(&nodes, 1);
        for kind in FrameKind::ALL {
            nodes.iter().for_each(|node| assert_eq!(node.network.broadcast(group(1), Frame::of_group(group(1), kind, vec![9; 2_000])), 3));
        }
        for node in &nodes {
            assert_eq!(node.sink.wait_frames(15).len(), 15);
            // The connection that loses is closed later, and nobody notices.
            node.wait_ended(EndReason::Replaced, 3);
            assert_eq!(node.network.sessions().len(), 3);
            assert!(node.network.peers().iter().all(|peer| matches!(peer.state, PeerState::Connected | PeerState::Own)));
            for other in nodes.iter().filter(|other| other.id() != node.id()) {
                assert_eq!(node.sink.count(&Event::Connected(other.id())), 1);
                assert_eq!(node.sink.count(&Event::Disconnected(other.id())), 0);
            }
        }
    }
}

#[test]
fn a_thousand_small_frames_cost_few_system_calls() {
    let chain = Chain::new();
    let [first, second] = chain.pair(|_| {});
    let (before, after) = (first.network.counters(), second.network.counters());
    for _ in 0..1_000 {
        assert!(first.network.send(second.id(), Frame::of_group(group(1), FrameKind::Consensus, vec![1; 100])));
    }
    second.sink.wait_frames(1_000);
    let calls = |now: u64, then: u64| now - then;
    let writes = calls(first.network.counters().socket_calls, before.socket_calls);
    let reads = calls(second.network.counters().socket_calls, after.socket_calls);
    assert!(writes < 300 && reads < 300, "{writes} writes, {reads} reads");
}
