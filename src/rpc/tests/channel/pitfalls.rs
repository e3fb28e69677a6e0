//! What SDKs depend on without saying so (`spec/client-protocol.md` 9), where no other test of the channel port shows it.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use millrace_base::{Address, LogEntry, hex};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};
use serde_json::json;

use super::super::client::Client;
use super::node::{ChainNode, View, plain, transaction, with_logs};
use super::pki::Pki;
use super::{PATIENCE, Port};
use crate::channel::amop::NoPeers;
use crate::channel::frame::kind;
use crate::channel::tls;
use crate::quota::{Quotas, Rate};
use crate::{HttpConfig, HttpServer};

fn port() -> Port {
    Port::start(ChainNode::new(5, Box::new(plain)))
}

fn port_with(quotas: Quotas) -> Port {
    Port::start_with(ChainNode::new(5, Box::new(plain)), Arc::new(NoPeers), move |config| config.gateway.quotas = Arc::new(quotas))
}

#[test]
fn frames_share_no_record_and_long_ones_end_with_a_record() {
    let log = LogEntry { address: Address::ZERO, topics: Vec::new(), data: vec![1; 100_000].into() };
    let port = Port::start(ChainNode::new(5, Box::new(move |_| (with_logs(vec![log.clone()]), None))));
    let mut sdk = port.sdk();
    sdk.say(kind::TOPICS, r#"["_block_notify_1"]"#);
    // All at once, so that the node has many frames to write at the same time: replies, receipts of 200 KB, notifications, heartbeats.
    const SENT: u64 = 20;
    for nonce in 0..SENT {
        let raw = hex::encode_prefixed(transaction(nonce, Address::ZERO, 100));
        sdk.say(kind::RPC, json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [1, raw], "id": 1}).to_string());
        sdk.say(kind::HEARTBEAT, "0");
    }
    let mut long = 0;
    for _ in 0..4 * SENT {
        // The client fails when a record holds bytes behind the frame that it completes.
        long += usize::from(sdk.receive().body.len() > 200_000);
    }
    assert_eq!(long, 20);
}

#[test]
fn heartbeat_is_answered_while_every_query_worker_is_busy() {
    let port = port();
    let (mut sdk, mut busy) = (port.sdk(), port.sdk());
    sdk.shake_hands();
    let held = port.node.hold_queries();
    let query = json!({"jsonrpc": "2.0", "method": "getBlockByNumber", "params": [1, "0", false], "id": 1}).to_string();
    for _ in 0..50 {
        busy.say(kind::RPC, &query);
        sdk.say(kind::RPC, &query);
    }
    for _ in 0..3 {
        let beat = sdk.say(kind::HEARTBEAT, "{\"heartBeat\":0}");
        let answer = sdk.receive();
        assert_eq!((answer.kind, answer.sequence, &answer.body[..]), (kind::HEARTBEAT, beat.sequence, &b"{\"heartBeat\":1}\n"[..]));
    }
    drop(held);
    (0..50).for_each(|_| assert_eq!(sdk.receive().kind, kind::RPC));
}

#[test]
fn empty_heartbeat_of_python_and_unknown_types_get_no_answer() {
    let port = port();
    let mut sdk = port.sdk();
    sdk.say(kind::HEARTBEAT, "");
    sdk.say(0x37, "");
    sdk.say(0x11, "local marker");
    sdk.say(kind::TOPICS, "[]");
    let last = sdk.say(kind::HEARTBEAT, "0");
    assert_eq!(sdk.receive().sequence, last.sequence, "the first answer is that of the last frame");
}

/// A handshake of a client that offers these versions.
fn shake(port: &Port, versions: &[&'static rustls::SupportedProtocolVersion]) -> Option<ProtocolVersion> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let pki = Pki::get();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.authority.pem.as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pki.sdk.pem.as_bytes()).unwrap()];
    let config = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pki.sdk.key.as_bytes()).unwrap())
        .unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(port.server.local_addr()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).ok()?;
    }
    connection.protocol_version()
}

#[test]
fn version_1_2_of_tls_is_agreed_on_with_clients_that_know_1_3_too() {
    let port = port();
    let (old, new) = (&rustls::version::TLS12, &rustls::version::TLS13);
    assert_eq!(shake(&port, &[new, old]), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(shake(&port, &[old]), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(shake(&port, &[new]), None);
}

#[test]
fn both_doors_draw_on_the_same_rate() {
    let quotas = Arc::new(Quotas { requests: Some(Rate::new(4)), ..Quotas::default() });
    let node = ChainNode::new(5, Box::new(plain));
    let mut http = HttpConfig::new("127.0.0.1:0".parse().unwrap());
    http.gateway.quotas = Arc::clone(&quotas);
    let server = HttpServer::start(&http, Arc::new(View(Arc::clone(&node)))).unwrap();
    let port = Port::start_with(node, Arc::new(NoPeers), move |config| config.gateway.quotas = quotas);
    let (mut sdk, mut client) = (port.sdk(), Client::connect(server.local_addr()));
    let body = br#"{"jsonrpc":"2.0","method":"getBlockNumber","params":[1],"id":1}"#;
    let codes: Vec<_> = (0..8)
        .map(|turn| match turn % 2 {
            0 => sdk.call("getBlockNumber", json!([1]))["error"]["code"].clone(),
            _ => client.post(body).json()["error"]["code"].clone(),
        })
        .collect();
    assert_eq!(codes.iter().filter(|code| **code == json!(-40011)).count(), 4, "{codes:?}");
    let (over_channel, over_http): (Vec<_>, Vec<_>) = codes.iter().zip(0..).partition(|(_, turn)| turn % 2 == 0);
    assert!([over_channel, over_http].iter().all(|of_door| of_door.iter().any(|(code, _)| code.is_null())), "{codes:?}");
}

#[test]
fn message_above_the_bandwidth_is_refused_with_103_and_requests_are_not() {
    let port = port_with(Quotas { amop_bytes: Some(Rate::new(10_000)), ..Quotas::default() });
    let (mut sender, mut subscriber) = (port.sdk(), port.sdk());
    subscriber.say(kind::TOPICS, r#"["t"]"#);
    subscriber.call("getBlockNumber", json!([1]));
    let message = [&b"\x02t"[..], &[b'x'; 4_000]].concat();
    let results: Vec<_> = (0..5)
        .map(|_| {
            sender.say(kind::AMOP_BROADCAST, &message);
            sender.receive_kind(kind::AMOP_ANSWER).result
        })
        .collect();
    assert_eq!(results, [0, 0, 103, 103, 103]);
    assert_eq!(sender.call("getBlockNumber", json!([1]))["result"], "0x5");
    std::thread::sleep(Duration::from_millis(600));
    sender.say(kind::AMOP_BROADCAST, &message);
    assert_eq!(sender.receive_kind(kind::AMOP_ANSWER).result, 0, "a second's worth comes back with time");
}

#[test]
fn known_transaction_reads_as_stack_underflow() {
    let hash = millrace_base::B256::repeat_byte(1);
    let status = millrace_base::TransactionStatus::AlreadyKnown;
    let mut receipts = crate::channel::receipts::Receipts::default();
    let origin = crate::channel::receipts::Origin { session: 1, sequence: [b'1'; 32] };
    let group = super::super::fake::group(1);
    assert!(receipts.announce(origin, group, hash, crate::gateway::Receipt::Plain));
    receipts.withdraw(origin, group, hash);
    receipts.refuse(origin, status);
    let [frame] = &receipts.answered(origin)[..] else { panic!("one receipt") };
    let receipt: serde_json::Value = serde_json::from_slice(&frame.body).unwrap();
    assert_eq!((&receipt["status"], &receipt["statusMsg"]), (&json!("0x2710"), &json!("StackUnderflow")));
}
