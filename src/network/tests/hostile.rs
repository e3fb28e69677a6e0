//! Input that is out of bounds, at every stage of a connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millrace_base::KeyPair;

use super::fixture::{Chain, PATIENCE, Pretence, RawPeer, eventually, group};
use crate::frame::{Header, Unit, control};
use crate::limits::MAX_HELLO_BYTES;
use crate::{EndReason, FrameKind, MAX_PAYLOAD_BYTES};

fn header(code: u8, kind: u8, group: u16, chunk: u32, total: u32, expanded: u32) -> Vec<u8> {
    let mut bytes = vec![code, kind];
    bytes.extend_from_slice(&group.to_be_bytes());
    [chunk, total, expanded].iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    bytes
}

#[test]
fn headers_out_of_bounds_end_the_session_at_once() {
    let chain = Chain::new();
    let node = chain.start();
    let largest = u32::try_from(MAX_PAYLOAD_BYTES).unwrap();
    let wrong = [
        header(6, 2, 1, 0x1_0000, u32::MAX, 0),
        header(6, 2, 1, 0x1_0000, largest + 1, 0),
        header(6, 2, 1, 100, 200, 0),
        header(6, 2, 1, 0x1_0001, 0x1_0001, 0),
        header(6, 5, 1, 1, 1, 0),
        header(6, 2, 0, 1, 1, 0),
        header(6, 2, 0xffff, 1, 1, 0),
        header(6, 2, 1, 100, 100, 100),
        header(6, 2, 1, 100, 100, largest + 1),
        header(6, 2, 1, 100, 100, 100 * 257),
        header(7, 2, 0, 1, 0, 0),
        header(8, 2, 0, 0, 0, 0),
        header(2, 0, 0, 1 << 20, 0, 0),
        header(3, 0, 0, 9, 0, 0),
        header(0, 0, 0, 0, 0, 0),
        header(9, 0, 0, 0, 0, 0),
        vec![0xff; 16],
    ];
    for bytes in wrong {
        let key = KeyPair::generate();
        node.network.set_members(group(1), [key.node_id()]);
        let mut peer = RawPeer::open(&chain, &node, &key, &[1]);
        peer.send(&bytes);
        assert_eq!(peer.goodbye(), Some(EndReason::Malformed), "{bytes:x?}");
    }
    assert!(node.sink.frames().is_empty());
}

#[test]
fn a_frame_that_goes_on_too_long_or_begins_twice_is_refused() {
    let chain = Chain::new();
    let node = chain.start();
    let begin = [header(6, 2, 1, 0x1_0000, 0x1_0001, 0), vec![1; 0x1_0000]].concat();
    for second in [header(7, 2, 0, 2, 0, 0), header(7, 3, 0, 1, 0, 0), header(6, 3, 1, 1, 1, 0)] {
        let key = KeyPair::generate();
        node.network.set_members(group(1), [key.node_id()]);
        let mut peer = RawPeer::open(&chain, &node, &key, &[1]);
        peer.send(&begin);
        peer.send(&second);
        assert_eq!(peer.goodbye(), Some(EndReason::Malformed), "{second:x?}");
    }
}

#[test]
fn compression_bombs_are_refused() {
    let chain = Chain::new();
    let node = chain.start();
    let compressed = lz4_flex::block::compress(&vec![0; 4 << 20]);
    let length = u32::try_from(compressed.len()).unwrap();
    // Says less than it expands to; says more; says something impossible.
    for says in [length + 1, 4 << 20 >> 1, (4 << 20) + 1, u32::MAX] {
        let key = KeyPair::generate();
        node.network.set_members(group(1), [key.node_id()]);
        let mut peer = RawPeer::open(&chain, &node, &key, &[1]);
        peer.send(&[header(6, 2, 1, length, length, says), compressed.clone()].concat());
        assert_eq!(peer.goodbye(), Some(EndReason::Malformed), "{says}");
    }
    assert!(node.sink.frames().is_empty());
}

#[test]
fn messages_before_the_hello_and_hellos_above_their_size_are_refused() {
    let chain = Chain::new();
    let node = chain.start();
    let key = KeyPair::generate();
    let pretence = Pretence::honest(&chain, &key, [1; 16]);
    let too_long = u32::try_from(MAX_HELLO_BYTES).unwrap() + 1;
    let ping = control(Unit::Ping, &[0; 8]);
    for bytes in [header(1, 0, 0, too_long, 0, 0), header(2, 0, 0, 1, 0, 0), header(6, 4, 0, 1, 1, 0), ping, vec![1; 5_000]] {
        let mut peer = RawPeer::connect(node.address(), &pretence.material, &key.node_id()).unwrap();
        peer.send(&bytes);
        assert_eq!(peer.goodbye(), Some(EndReason::Malformed));
    }
    assert!(node.sink.events().is_empty());
}

#[test]
fn garbage_is_cut_at_once_and_slow_and_silent_strangers_at_the_deadline() {
    let chain = Chain::new();
    let node = chain.start_with(&KeyPair::generate(), |config| config.limits.handshake_deadline = Duration::from_millis(600));
    let mut garbage = TcpStream::connect(node.address()).unwrap();
    garbage.set_read_timeout(Some(PATIENCE)).unwrap();
    garbage.write_all(&[0xff; 5_000]).unwrap();
    let _ = garbage.read_to_end(&mut Vec::new());
    node.wait_ended(EndReason::Tls, 1);

    let begun = Instant::now();
    let _silent = TcpStream::connect(node.address()).unwrap();
    let mut slow = TcpStream::connect(node.address()).unwrap();
    // The beginning of a TLS record of which one byte comes now and then.
    slow.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).unwrap();
    let key = KeyPair::generate();
    let pretence = Pretence::honest(&chain, &key, [1; 16]);
    let mut wordless = RawPeer::connect(node.address(), &pretence.material, &key.node_id()).unwrap();
    eventually("all three are cut", || {
        let _ = slow.write_all(&[1]);
        node.network.counters().ended(EndReason::HandshakeTimeout) == 3
    });
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!(wordless.goodbye(), Some(EndReason::HandshakeTimeout));
}

#[test]
fn half_open_connections_are_limited_and_do_not_keep_peers_out() {
    let chain = Chain::new();
    let change = |config: &mut crate::NetworkConfig| {
        config.limits.handshakes_per_address = 10;
        config.limits.handshake_deadline = Duration::from_secs(1);
    };
    let node = chain.start_with(&KeyPair::generate(), change);
    let flood: Vec<_> = (0..100).map(|_| TcpStream::connect(node.address()).unwrap()).collect();
    eventually("most are refused", || node.network.counters().over_limit == 90);
    let peer = chain.start_with(&KeyPair::generate(), |config| config.peers = vec![node.address()]);
    eventually("the places come back and a peer gets in", || peer.network.is_connected(&node.id()));
    drop(flood);
}

#[test]
fn connections_of_an_address_are_limited() {
    let chain = Chain::new();
    let node = chain.start_with(&KeyPair::generate(), |config| config.limits.connections_per_address = 2);
    let keys: Vec<_> = (0..3).map(|_| KeyPair::generate()).collect();
    let _first = RawPeer::open(&chain, &node, &keys[0], &[]);
    let second = RawPeer::open(&chain, &node, &keys[1], &[]);
    let pretence = Pretence::honest(&chain, &keys[2], [1; 16]);
    assert!(RawPeer::connect(node.address(), &pretence.material, &keys[2].node_id()).is_err());
    assert_eq!(node.network.counters().over_limit, 1);
    drop(second);
    eventually("the second is gone", || node.network.sessions().len() == 1);
    eventually("its place is free", || RawPeer::connect(node.address(), &pretence.material, &keys[2].node_id()).is_ok());
}

#[test]
fn every_header_that_is_sent_is_read_back() {
    let units = [
        (Unit::Hello, 100),
        (Unit::Groups, 3),
        (Unit::Ping, 8),
        (Unit::Pong, 8),
        (Unit::Goodbye, 1),
        (Unit::Data { kind: FrameKind::Amop, group: None, total: 0, expanded: 0 }, 0),
        (Unit::Data { kind: FrameKind::Sync, group: Some(group(32_767)), total: MAX_PAYLOAD_BYTES, expanded: 0 }, 1 << 16),
        (Unit::Data { kind: FrameKind::Consensus, group: Some(group(1)), total: 100, expanded: 101 }, 100),
        (Unit::More { kind: FrameKind::Sync }, 1),
        (Unit::Abort { kind: FrameKind::Transactions }, 0),
    ];
    for (unit, chunk) in units {
        let header = Header { unit, chunk };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
}
