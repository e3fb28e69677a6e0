//! The life of sessions: restarts, simultaneous connects, duplicates, lists, silent peers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_base::KeyPair;

use super::fixture::{Chain, Event, Pretence, RawPeer, eventually, group, join};
use crate::{AccessLists, EndReason, Frame, FrameKind, PeerState};

#[test]
fn a_peer_that_restarts_is_connected_again() {
    let chain = Chain::new();
    let (first_key, second_key) = (KeyPair::generate(), KeyPair::generate());
    let first = chain.start_with(&first_key, |_| {});
    let address = first.address();
    let second = chain.start_with(&second_key, |config| config.peers = vec![address]);
    eventually("they connect", || second.network.is_connected(&first.id()));
    for round in 1..=3 {
        // The first node restarts on its address; the second, which connects, is told nothing.
        if round == 1 {
            first.network.stop(Duration::from_secs(1));
        }
        eventually("the end is noticed", || second.sink.count(&Event::Disconnected(first.id())) == round);
        let again = chain.start_with(&first_key, |config| config.listen = address);
        let restarted = Instant::now();
        eventually("they connect again", || second.network.is_connected(&first.id()) && again.network.is_connected(&second.id()));
        assert!(restarted.elapsed() < Duration::from_secs(3), "{:?}", restarted.elapsed());
        assert_eq!(second.sink.count(&Event::Connected(first.id())), round + 1);
        assert_eq!(second.network.counters().duplicate_identities, 0);
    }
}

#[test]
fn of_two_simultaneous_connections_both_sides_keep_the_same_one() {
    let chain = Chain::new();
    for _ in 0..10 {
        let nodes = [chain.start(), chain.start()];
        let addresses = [nodes[0].address(), nodes[1].address()];
        std::thread::scope(|scope| {
            scope.spawn(|| nodes[0].network.add_peers(&addresses[1..]).unwrap());
            scope.spawn(|| nodes[1].network.add_peers(&addresses[..1]).unwrap());
        });
        join(&nodes, 1);
        for index in 0..100u32 {
            let frame = |from: u8| Frame::of_group(group(1), FrameKind::Consensus, [&[from][..], &index.to_be_bytes()].concat());
            assert!(nodes[0].network.send(nodes[1].id(), frame(0)) && nodes[1].network.send(nodes[0].id(), frame(1)));
        }
        for node in &nodes {
            assert_eq!(node.sink.wait_frames(100).len(), 100);
            assert_eq!(node.network.sessions().len(), 1);
            assert!(node.sink.events().iter().all(|event| !matches!(event, Event::Disconnected(_))));
        }
        let (first, second) = (&nodes[0].network.sessions()[0], &nodes[1].network.sessions()[0]);
        assert_eq!(first.direction, second.direction.reverse());
    }
}

#[test]
fn a_node_listed_under_two_addresses_has_one_session() {
    let chain = Chain::new();
    let listener = chain.start_with(&KeyPair::generate(), |config| config.listen = "0.0.0.0:0".parse().unwrap());
    let port = listener.address().port();
    let addresses: Vec<SocketAddr> = (1..=4).map(|last| SocketAddr::from(([127, 0, 0, last], port))).collect();
    for loops in [1, 3] {
        let nodes = [chain.start_with(&KeyPair::generate(), |config| {
            config.peers = addresses.clone();
            config.loops = loops;
        })];
        let node = &nodes[0];
        eventually("each address is tried", || node.network.peers().iter().all(|peer| peer.node_id == Some(listener.id())));
        eventually("and shown as connected", || node.network.peers().iter().all(|peer| peer.state == PeerState::Connected));
        std::thread::sleep(Duration::from_millis(1_500));
        let opened = [&listener, node].map(|one| {
            let count = |name: &str| one.sink.events().iter().filter(|event| format!("{event:?}").starts_with(name)).count();
            (count("Connected"), count("Disconnected"))
        });
        assert_eq!(opened[1], (1, 0), "with {loops} loops");
        assert_eq!(listener.network.sessions().len(), 1);
        assert_eq!(opened[0].1, opened[0].0 - 1);
        drop(nodes);
        eventually("it is gone", || listener.network.sessions().is_empty());
    }
}

#[test]
fn two_live_processes_with_one_node_id_are_found_and_named() {
    let chain = Chain::new();
    let witness = chain.start();
    let key = KeyPair::generate();
    let connect = |config: &mut crate::NetworkConfig| config.peers = vec![witness.address()];
    let original = chain.start_with(&key, connect);
    eventually("the first connects", || witness.network.is_connected(&key.node_id()));
    let instance = witness.network.sessions()[0].instance.clone();
    let copy = chain.start_with(&key, connect);
    eventually("the witness names the second", || witness.network.counters().duplicate_identities == 1);
    copy.wait_last_error("duplicate_identity");
    let session = &witness.network.sessions()[0];
    assert!(session.duplicate.is_some() && session.instance == instance, "the first stays");
    assert_eq!(witness.sink.count(&Event::Disconnected(key.node_id())), 0);
    assert!(copy.network.sessions().is_empty());
    // They also notice when they meet each other.
    copy.network.add_peers(&[original.address()]).unwrap();
    eventually("both know of the other", || [&original, &copy].iter().all(|node| node.network.counters().own_duplicate.is_some()));
}

#[test]
fn a_session_that_died_silently_gives_way_to_the_restarted_peer() {
    let chain = Chain::new();
    let node = chain.start_with(&KeyPair::generate(), |config| config.limits.probe_timeout = Duration::from_millis(500));
    let key = KeyPair::generate();
    let _dead = RawPeer::open(&chain, &node, &key, &[]);
    // The same node in a new process: first refused, and let in when the old session does not answer.
    let mut refused = RawPeer::introduce(node.address(), &Pretence::honest(&chain, &key, [2; 16]), &[]);
    assert_eq!(refused.goodbye(), Some(EndReason::Contested));
    node.wait_ended(EndReason::Idle, 1);
    let _new = RawPeer::introduce(node.address(), &Pretence::honest(&chain, &key, [2; 16]), &[]);
    eventually("the new process is connected", || node.network.sessions().iter().any(|session| session.instance == "02".repeat(16)));
    assert_eq!(node.network.counters().duplicate_identities, 0);
}

#[test]
fn a_peer_that_falls_silent_is_cut_and_one_that_answers_stays() {
    let chain = Chain::new();
    let change = |config: &mut crate::NetworkConfig| {
        config.limits.ping_interval = Duration::from_millis(300);
        config.limits.idle_timeout = Duration::from_millis(1_000);
    };
    let [first, second] = chain.pair(change);
    let key = KeyPair::generate();
    let _silent = RawPeer::open(&chain, &first, &key, &[]);
    let begun = Instant::now();
    eventually("the silent one is cut", || !first.network.is_connected(&key.node_id()));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(first.network.counters().ended(EndReason::Idle), 1);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(first.network.is_connected(&second.id()) && first.network.sessions()[0].rtt.is_some());
    assert_eq!(first.sink.count(&Event::Disconnected(second.id())), 0);
}

#[test]
fn new_lists_cut_sessions_at_once_and_keep_nodes_out() {
    let chain = Chain::new();
    let nodes = [chain.start(), chain.start(), chain.start()];
    let addresses: Vec<_> = nodes.iter().map(|node| node.address()).collect();
    nodes.iter().for_each(|node| node.network.add_peers(&addresses).unwrap());
    join(&nodes, 1);
    let [node, good, bad] = &nodes;
    node.network.set_lists(AccessLists { blacklist: [bad.id()].into(), whitelist: None });
    assert!(!node.network.send(bad.id(), Frame::of_group(group(1), FrameKind::Consensus, vec![1])), "cut when the call returns");
    eventually("the session is gone", || !node.network.is_connected(&bad.id()));
    bad.wait_ended(EndReason::NotAdmitted, 2);
    assert!(!node.network.is_connected(&bad.id()) && node.network.is_connected(&good.id()));
    node.network.set_lists(AccessLists { blacklist: [].into(), whitelist: Some([bad.id()].into()) });
    eventually("only the whitelisted one is let in", || node.network.is_connected(&bad.id()) && !node.network.is_connected(&good.id()));
    node.network.set_lists(AccessLists::default());
    eventually("both are back", || node.network.sessions().len() == 2);
}
