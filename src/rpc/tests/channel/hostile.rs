//! Clients that do not read, say nothing, send nonsense, or come in crowds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_base::{Address, LogEntry};
use serde_json::json;

use super::super::fake::group;
use super::node::{ChainNode, plain, transaction, with_logs};
use super::{PATIENCE, Port};
use crate::channel::amop::NoPeers;
use crate::channel::frame::{Frame, kind};
use crate::channel::transport::Limits;
use crate::limits::MAX_FRAME_BYTES;

fn port_with(limits: Limits) -> Port {
    Port::start_with(ChainNode::new(5, Box::new(plain)), Arc::new(NoPeers), move |config| config.limits = limits)
}

/// Whether the other end closes within the patience of a test.
fn closes(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut byte = [0; 1_024];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn client_that_does_not_read_loses_its_session_and_the_others_do_not_notice() {
    let log = LogEntry { address: Address::ZERO, topics: Vec::new(), data: vec![1; 100_000].into() };
    let port = Port::start(ChainNode::new(5, Box::new(move |_| (with_logs(vec![log.clone(); 20]), None))));
    let (mut slow, mut good) = (port.sdk(), port.sdk());
    good.say(kind::TOPICS, r#"["_block_notify_1"]"#);
    good.call("getBlockNumber", json!([1]));
    // Asks for a large receipt again and again and reads none of them.
    let raw = millrace_base::hex::encode_prefixed(transaction(1, Address::ZERO, 100));
    let sent = good.call("sendRawTransaction", json!([1, raw]));
    let ask = json!({"jsonrpc": "2.0", "method": "getTransactionReceipt", "params": [1, sent["result"]], "id": 1}).to_string();
    let (end, mut slowest) = (Instant::now() + PATIENCE, Duration::ZERO);
    while port.server.session_count() == 2 {
        assert!(Instant::now() < end);
        if slow.try_write(&Frame::new(kind::RPC, [b'1'; 32], ask.clone().into_bytes()).encode()).is_err() {
            break;
        }
        let started = Instant::now();
        good.call("getBlockNumber", json!([1]));
        slowest = slowest.max(started.elapsed());
    }
    port.await_sessions(1);
    port.node.commit_empty(group(1));
    good.receive_kind(kind::BLOCK);
    println!("slowest answer to the client that reads: {slowest:?}");
    assert!(slowest < Duration::from_secs(2));
}

/// Far less than what a session may have queued: the kernel takes little of it, so the node sees that nothing is read.
#[test]
fn client_that_reads_nothing_for_the_time_of_a_write_loses_its_session() {
    let log = LogEntry { address: Address::ZERO, topics: Vec::new(), data: vec![1; 100_000].into() };
    let limits = Limits { write: Duration::from_millis(500), ..Limits::default() };
    let node = ChainNode::new(5, Box::new(move |_| (with_logs(vec![log.clone(); 10]), None)));
    let port = Port::start_with(node, Arc::new(NoPeers), move |config| config.limits = limits);
    let (mut deaf, mut good) = (port.sdk(), port.sdk());
    let raw = millrace_base::hex::encode_prefixed(transaction(1, Address::ZERO, 100));
    let sent = good.call("sendRawTransaction", json!([1, raw]));
    good.receive_kind(kind::RECEIPT);
    let ask = json!({"jsonrpc": "2.0", "method": "getTransactionReceipt", "params": [1, sent["result"]], "id": 1}).to_string();
    deaf.call("getBlockNumber", json!([1]));
    for _ in 0..3 {
        deaf.write(&Frame::new(kind::RPC, [b'1'; 32], ask.clone().into_bytes()).encode());
    }
    let started = Instant::now();
    port.await_sessions(1);
    println!("6 MB for a client that does not read: ended after {:?}", started.elapsed());
    assert!(started.elapsed() >= Duration::from_millis(400), "it has the time of a write");
    assert_eq!(good.call("getBlockNumber", json!([1]))["result"], "0x6");
}

#[test]
fn frames_that_come_in_one_burst_are_all_answered() {
    let port = Port::start(ChainNode::new(5, Box::new(plain)));
    let mut sdk = port.sdk();
    let ask = json!({"jsonrpc": "2.0", "method": "getBlockNumber", "params": [1], "id": 1}).to_string().into_bytes();
    let sequence = |number: u32| format!("{number:032}").into_bytes().try_into().unwrap();
    let burst: Vec<u8> = (0..1_000).flat_map(|number| Frame::new(kind::RPC, sequence(number), ask.clone()).encode()).collect();
    sdk.write(&burst);
    let mut answered: Vec<_> = (0..1_000).map(|_| sdk.receive_kind(kind::RPC).sequence).collect();
    answered.sort_unstable();
    assert!((0..1_000).zip(answered).all(|(number, answered)| answered == sequence(number)));
}

#[test]
fn client_that_reads_late_gets_all_event_logs_although_little_is_queued() {
    let log = LogEntry { address: Address::ZERO, topics: Vec::new(), data: vec![1; 50_000].into() };
    let port = Port::start(ChainNode::new(5, Box::new(move |_| (with_logs(vec![log.clone(); 10]), None))));
    let mut sdk = port.sdk();
    sdk.say(kind::EVENT_SUBSCRIBE, "\u{1}{\"groupID\":\"1\",\"filterID\":\"f\",\"addresses\":[],\"topics\":[]}");
    sdk.receive_kind(kind::EVENT_SUBSCRIBE);
    let mut sender = port.sdk();
    for nonce in 1..=60 {
        let raw = millrace_base::hex::encode_prefixed(transaction(nonce, Address::ZERO, 100));
        sender.call("sendRawTransaction", json!([1, raw]));
        sender.receive_kind(kind::RECEIPT);
    }
    let mut logs = 0;
    while logs < 600 {
        let push: serde_json::Value = serde_json::from_slice(&sdk.receive_kind(kind::EVENT_PUSH).body).unwrap();
        logs += push["logs"].as_array().unwrap().len();
    }
    assert_eq!(logs, 600, "60 MB went to a client that had not read them as they came");
}

#[test]
fn handshake_that_stalls_ends_in_time_and_gives_its_place_back() {
    let port = port_with(Limits { handshake: Duration::from_millis(200), handshakes_per_address: 3, ..Limits::default() });
    let stalled: Vec<_> = (0..3).map(|_| TcpStream::connect(port.server.local_addr()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(50));
    // One more than allowed is closed at once, the others when their time is over.
    let started = Instant::now();
    assert!(closes(TcpStream::connect(port.server.local_addr()).unwrap()));
    assert!(started.elapsed() < Duration::from_millis(140), "{:?}", started.elapsed());
    assert!(stalled.into_iter().all(closes));
    assert_eq!(port.sdk().call("getBlockNumber", json!([1]))["result"], "0x5");
}

#[test]
fn connections_above_the_limit_of_an_address_are_closed() {
    let port = port_with(Limits { connections_per_address: 2, ..Limits::default() });
    let _open = (port.sdk(), port.sdk());
    assert!(closes(TcpStream::connect(port.server.local_addr()).unwrap()));
}

#[test]
fn bytes_that_are_no_tls_and_frames_that_are_no_frames_close_only_their_connection() {
    let port = port_with(Limits::default());
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]] {
        let mut stream = TcpStream::connect(port.server.local_addr()).unwrap();
        stream.write_all(garbage).unwrap();
        assert!(closes(stream));
    }
    for length in [0u32, 41, u32::try_from(MAX_FRAME_BYTES).unwrap() + 1, u32::MAX] {
        let mut sdk = port.sdk();
        sdk.write(&length.to_be_bytes());
        assert!(sdk.is_closed());
    }
    let mut sdk = port.sdk();
    for kind in 0..=0x40 {
        sdk.say(kind, [0xff; 100]);
    }
    assert_eq!(sdk.call("getBlockNumber", json!([1]))["result"], "0x5");
}

#[test]
fn two_hundred_sessions_are_all_notified_of_every_block() {
    const SESSIONS: usize = 200;
    const BLOCKS: u64 = 20;
    let port = port_with(Limits::default());
    let mut sdks: Vec<_> = (0..SESSIONS).map(|_| port.sdk()).collect();
    for sdk in &mut sdks {
        sdk.say(kind::TOPICS, r#"["_block_notify_1"]"#);
    }
    for sdk in &mut sdks {
        sdk.call("getBlockNumber", json!([1]));
    }
    port.await_sessions(SESSIONS);
    // A quarter of them do not read.
    let (_deaf, reading) = sdks.split_at_mut(SESSIONS / 4);
    let started = Instant::now();
    for _ in 0..BLOCKS {
        port.node.commit_empty(group(1));
    }
    for sdk in reading.iter_mut() {
        for number in 6..6 + BLOCKS {
            assert_eq!(sdk.receive().body[..], *format!("\u{10}_block_notify_11,{number}").as_bytes());
        }
    }
    println!("{} notifications after {:?}", reading.len() * 20, started.elapsed());
    drop(sdks);
    port.await_sessions(0);
}

#[test]
fn stop_closes_all_sessions_and_frees_the_port() {
    let port = port_with(Limits::default());
    let (address, mut sdk) = (port.server.local_addr(), port.sdk());
    sdk.call("getBlockNumber", json!([1]));
    let Port { server, node, .. } = port;
    drop(node);
    Arc::into_inner(server).unwrap().stop(Duration::from_secs(5));
    assert!(sdk.is_closed());
    assert!(TcpStream::connect(address).is_err());
}
