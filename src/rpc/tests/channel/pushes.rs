//! Receipts, block notifications and event logs as clients get them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_base::{Address, B256, LogEntry, hex};
use serde_json::{Value, json};

use super::super::fake::group;
use super::node::{ChainNode, plain, transaction, transaction_of, with_logs};
use super::sdk::Sdk;
use super::{PATIENCE, Port};
use crate::channel::access::{AllowLists, Identity};
use crate::channel::amop::NoPeers;
use crate::channel::frame::{Frame, kind};
use crate::channel::tls;
use crate::limits::{EVENT_PUSH_BYTES, FIRST_PUSH_DELAY, GO_SDK_RECEIPT_DELAY, MAX_SESSION_FILTERS};
use crate::quota::{Quotas, Rate};

const QUIET: Duration = Duration::from_millis(150);

fn port() -> Port {
    Port::start(ChainNode::new(5, Box::new(plain)))
}

/// A node whose transactions log their callee's first topic.
fn logging_port() -> Port {
    let log = |address: Address| LogEntry { address, topics: vec![B256::repeat_byte(address[0])], data: vec![address[1]; 32].into() };
    Port::start(ChainNode::new(5, Box::new(move |tx| (with_logs(tx.fields().to.map(log).into_iter().collect()), None))))
}

fn raw(nonce: u64) -> String {
    hex::encode_prefixed(transaction(nonce, Address::repeat_byte(1), 100))
}

fn send_raw(sdk: &mut Sdk, raw: &str) -> Frame {
    let body = json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [1, raw], "id": 1});
    sdk.say(kind::RPC, body.to_string())
}

fn json(frame: &Frame) -> Value {
    serde_json::from_slice(&frame.body).unwrap()
}

fn subscribe(sdk: &mut Sdk, id: &str, from: &str, to: &str, topics: Value) -> Value {
    let request = json!({"groupID": "1", "filterID": id, "fromBlock": from, "toBlock": to, "addresses": [], "topics": topics});
    sdk.say(kind::EVENT_SUBSCRIBE, format!("\u{1}{request}"));
    let reply = sdk.receive_kind(kind::EVENT_SUBSCRIBE);
    assert_eq!(reply.body[0], 1);
    serde_json::from_slice::<Value>(&reply.body[1..]).unwrap()["result"].clone()
}

#[test]
fn receipt_comes_once_behind_the_reply_to_the_session_that_sent_the_transaction() {
    let port = port();
    let (mut sender, mut other) = (port.sdk(), port.sdk());
    let sent = send_raw(&mut sender, &raw(1));
    let (reply, receipt) = (sender.receive(), sender.receive());
    assert_eq!((reply.kind, reply.sequence), (kind::RPC, sent.sequence));
    assert_eq!((receipt.kind, receipt.sequence, receipt.result), (kind::RECEIPT, sent.sequence, 0));
    assert!(receipt.body.starts_with(b"{\n\t\"blockHash\" : ") && receipt.body.ends_with(b"}\n"));
    assert_eq!(json(&receipt)["transactionHash"], json(&reply)["result"]);
    // Pushed and queried receipts say the same.
    let hash = json(&reply)["result"].clone();
    assert_eq!(sender.call("getTransactionReceipt", json!([1, hash]))["result"], json(&receipt));
    assert_eq!(sender.receive_within(QUIET), None);
    assert_eq!(other.receive_within(QUIET), None);
}

#[test]
fn receipts_of_go_sdk_keep_a_distance_from_the_reply() {
    let port = port();
    let mut sdk = port.sdk();
    sdk.say(kind::HANDSHAKE, r#"{"minimumSupport":1,"maximumSupport":3,"clientType":"Go-SDK"}"#);
    sdk.receive_kind(kind::HANDSHAKE);
    // Committed, then refused because it is known.
    for _ in 0..2 {
        let sent = send_raw(&mut sdk, &raw(1));
        assert_eq!(sdk.receive().kind, kind::RPC);
        let replied = Instant::now();
        let receipt = sdk.receive();
        assert_eq!((receipt.kind, receipt.sequence), (kind::RECEIPT, sent.sequence));
        assert!(replied.elapsed() >= GO_SDK_RECEIPT_DELAY / 2);
    }
}

#[test]
fn many_transactions_in_flight_get_one_receipt_each_behind_their_replies() {
    const COUNT: u64 = 2_000;
    let port = port();
    port.node.hold();
    let mut sdk = port.sdk();
    let sent: Vec<_> = (0..COUNT).map(|nonce| send_raw(&mut sdk, &raw(nonce)).sequence).collect();
    let (mut replied, mut received) = (BTreeSet::new(), BTreeSet::new());
    while replied.len() < sent.len() / 2 {
        assert!(replied.insert(sdk.receive().sequence));
    }
    let end = Instant::now() + PATIENCE;
    while received.len() < sent.len() {
        assert!(Instant::now() < end);
        // Blocks are made while replies are on their way.
        port.node.release();
        port.node.hold();
        while let Some(frame) = sdk.receive_within(Duration::from_millis(20)) {
            match frame.kind {
                kind::RPC => assert!(replied.insert(frame.sequence)),
                kind::RECEIPT => assert!(replied.contains(&frame.sequence) && received.insert(frame.sequence)),
                other => panic!("{other:#x}"),
            }
        }
    }
    assert_eq!(received, sent.into_iter().collect());
}

#[test]
fn refused_transaction_is_an_error_in_version_one_and_a_receipt_in_version_three() {
    let port = port();
    let mut old = port.sdk();
    send_raw(&mut old, &raw(1));
    assert_eq!((old.receive().kind, old.receive().kind), (kind::RPC, kind::RECEIPT));
    send_raw(&mut old, &raw(1));
    assert!(json(&old.receive())["error"]["message"].as_str().unwrap().contains("TransactionNonceCheckFail"));
    assert_eq!(old.receive_within(QUIET), None);
    let mut new = port.sdk();
    new.shake_hands();
    let sent = send_raw(&mut new, &raw(1));
    let (reply, receipt) = (new.receive(), new.receive());
    assert!(json(&reply)["result"].is_string());
    assert_eq!((receipt.kind, receipt.sequence), (kind::RECEIPT, sent.sequence));
    assert_eq!((&json(&receipt)["status"], &json(&receipt)["statusMsg"]), (&json!("0xf"), &json!("NonceCheckFail")));
}

#[test]
fn expired_transaction_is_reported_with_status_29() {
    let port = port();
    port.node.hold();
    let mut sdk = port.sdk();
    send_raw(&mut sdk, &raw(1));
    let hash: B256 = json(&sdk.receive())["result"].as_str().unwrap().parse().unwrap();
    port.node.expire(group(1), &[hash]);
    assert_eq!(json(&sdk.receive_kind(kind::RECEIPT))["status"], "0x1d");
    assert_eq!(port.node.release(), 1, "the node commits it all the same");
    assert_eq!(sdk.receive_within(QUIET), None, "told once");
}

#[test]
fn batch_over_the_channel_is_answered_as_one_and_its_receipts_follow() {
    let port = port();
    let mut sdk = port.sdk();
    let call = |nonce| json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [1, raw(nonce)], "id": nonce});
    let sent = sdk.say(kind::RPC, json!([call(1), call(2), call(2)]).to_string());
    let reply = json(&sdk.receive());
    assert_eq!(reply.as_array().unwrap().len(), 3);
    let refused = reply.as_array().unwrap().iter().filter(|answer| answer["error"].is_object()).count();
    assert_eq!(refused, 1);
    for _ in 0..2 {
        let receipt = sdk.receive();
        assert_eq!((receipt.kind, receipt.sequence), (kind::RECEIPT, sent.sequence));
    }
    assert_eq!(sdk.receive_within(QUIET), None);
}

#[test]
fn block_notifications_go_to_who_subscribed_in_its_own_dialect() {
    let port = port();
    let (mut old, mut new, mut deaf) = (port.sdk(), port.sdk(), port.sdk());
    new.shake_hands();
    old.say(kind::TOPICS, r#"["_block_notify_1"]"#);
    new.say(kind::TOPICS, r#"["_block_notify_1","_block_notify_2"]"#);
    deaf.say(kind::TOPICS, r#"["_block_notify_2"]"#);
    for sdk in [&mut old, &mut new, &mut deaf] {
        sdk.call("getBlockNumber", json!([1]));
    }
    port.node.commit_empty(group(1));
    let (first, second) = (old.receive(), new.receive());
    assert_eq!((first.kind, first.sequence, &first.body[..]), (kind::BLOCK, [b'0'; 32], &b"\x10_block_notify_11,6"[..]));
    assert_eq!(&second.body[..], b"\x10_block_notify_1{\"blockNumber\":6,\"groupID\":1}\n");
    assert_eq!(deaf.receive_within(QUIET), None);
    old.say(kind::TOPICS, "[]");
    old.call("getBlockNumber", json!([1]));
    port.node.commit_empty(group(1));
    new.receive();
    assert_eq!(old.receive_within(QUIET), None);
}

#[test]
fn lost_hint_of_a_block_loses_no_receipt() {
    let port = port();
    port.node.hold();
    let mut sdk = port.sdk();
    send_raw(&mut sdk, &raw(1));
    sdk.receive();
    // The server hears of this block only through the next one.
    port.node.attach(&Arc::new(Port::start(ChainNode::new(0, Box::new(plain))).server).clone());
    port.node.release();
    assert_eq!(sdk.receive_within(QUIET), None);
    port.node.attach(&port.server);
    port.node.commit_empty(group(1));
    assert_eq!(sdk.receive().kind, kind::RECEIPT);
}

#[test]
fn event_subscription_serves_history_then_new_blocks_and_ends_with_its_range() {
    let port = logging_port();
    let mut sdk = port.sdk();
    for nonce in 1..=20 {
        send_raw(&mut sdk, &hex::encode_prefixed(transaction(nonce, Address::repeat_byte(u8::try_from(nonce).unwrap()), 100)));
        sdk.receive_kind(kind::RECEIPT);
    }
    assert_eq!(subscribe(&mut sdk, "all", "0", "26", json!([])), 0);
    let mut numbers = Vec::new();
    while numbers.len() < 20 {
        let push = sdk.receive_kind(kind::EVENT_PUSH);
        assert_eq!((push.sequence, push.result), ([b'0'; 32], 0));
        let push = json(&push);
        assert_eq!((&push["filterID"], &push["result"]), (&json!("all"), &json!(0)));
        numbers.extend(push["logs"].as_array().unwrap().iter().map(|log| log["blockNumber"].as_str().unwrap().parse::<u64>().unwrap()));
    }
    assert_eq!(numbers, (6..=25).collect::<Vec<_>>(), "each log once, in order");
    send_raw(&mut sdk, &hex::encode_prefixed(transaction(21, Address::repeat_byte(9), 100)));
    assert_eq!(json(&sdk.receive_kind(kind::EVENT_PUSH))["logs"][0]["blockNumber"], "26");
    assert_eq!(sdk.receive_kind(kind::EVENT_PUSH).body[..], *b"{\"filterID\":\"all\",\"logs\":null,\"result\":1}\n");
}

#[test]
fn logs_come_when_the_client_has_had_time_to_register_its_handler() {
    let port = logging_port();
    let mut sdk = port.sdk();
    send_raw(&mut sdk, &raw(1));
    while sdk.receive().kind != kind::RECEIPT {}
    assert_eq!(subscribe(&mut sdk, "history", "1", "latest", json!([])), 0);
    assert_eq!(sdk.receive_within(FIRST_PUSH_DELAY / 2), None);
    assert_eq!(json(&sdk.receive_kind(kind::EVENT_PUSH))["filterID"], "history");
}

#[test]
fn cancelled_subscription_is_silent_and_another_session_cannot_cancel_it() {
    let port = logging_port();
    let (mut sdk, mut other) = (port.sdk(), port.sdk());
    let topic = B256::repeat_byte(7).to_string();
    assert_eq!(subscribe(&mut sdk, "f", "latest", "latest", json!([topic])), 0);
    let cancel = json!({"groupID": "1", "filterID": "f", "addresses": [], "topics": []});
    let mut emit = |nonce| {
        send_raw(&mut other, &hex::encode_prefixed(transaction(nonce, Address::repeat_byte(7), 100)));
        other.receive_kind(kind::RECEIPT);
        other.say(kind::EVENT_CANCEL, format!("\u{1}{cancel}"));
        assert_eq!(other.receive().body[..], *b"\x01{\"result\":0}\n");
    };
    emit(1);
    assert_eq!(sdk.receive().kind, kind::EVENT_PUSH);
    emit(2);
    assert_eq!(sdk.receive().kind, kind::EVENT_PUSH);
    sdk.say(kind::EVENT_CANCEL, format!("\u{1}{cancel}"));
    assert_eq!(sdk.receive().kind, kind::EVENT_CANCEL);
    emit(3);
    assert_eq!(sdk.receive_within(QUIET), None);
    sdk.say(kind::EVENT_CANCEL, "\u{1}{\"groupID\":\"1\",\"filterID\":\"f\"}");
    assert_eq!(sdk.receive().body[..], *b"\x01{\"result\":-41001}\n", "the short form is refused");
}

#[test]
fn logs_of_a_large_block_are_divided_over_several_pushes() {
    let log = LogEntry { address: Address::repeat_byte(1), topics: Vec::new(), data: vec![5; 10_000].into() };
    let port = Port::start(ChainNode::new(5, Box::new(move |_| (with_logs(vec![log.clone(); 100]), None))));
    let mut sdk = port.sdk();
    assert_eq!(subscribe(&mut sdk, "f", "latest", "latest", json!([])), 0);
    send_raw(&mut sdk, &raw(1));
    let mut count = 0;
    while count < 100 {
        let push = sdk.receive_kind(kind::EVENT_PUSH);
        assert!(push.body.len() < EVENT_PUSH_BYTES + 40_000);
        count += json(&push)["logs"].as_array().unwrap().len();
    }
    assert_eq!(count, 100);
}

#[test]
fn subscriptions_of_a_session_are_bounded_and_other_ranges_are_refused() {
    let port = logging_port();
    let mut sdk = port.sdk();
    for n in 0..MAX_SESSION_FILTERS {
        assert_eq!(subscribe(&mut sdk, &n.to_string(), "1000", "latest", json!([])), 0);
    }
    assert_eq!(subscribe(&mut sdk, "one more", "1000", "latest", json!([])), -41_001);
    assert_eq!(subscribe(&mut sdk, "f", "10", "5", json!([])), -41_003);
    let mut next = port.sdk();
    assert_eq!(subscribe(&mut next, "f", "1000", "latest", json!([])), 0);
}

#[test]
fn group_list_guards_requests_batches_events_notifications_and_receipts() {
    let access = AllowLists::default();
    let lists = access.clone();
    let port = Port::start_with(ChainNode::new(5, Box::new(plain)), Arc::new(NoPeers), move |config| config.access = access);
    lists.set(group(2), ["ab".repeat(64)]);
    let mut sdk = port.sdk();
    assert_eq!(sdk.call("getBlockNumber", json!([1]))["result"], "0x5");
    let refusal = r#"{"error":{"code":-40012,"data":null,"message":"getBlockNumber The SDK is not allowed to access this group"},"id":null,"jsonrpc":"2.0"}"#;
    assert_eq!(sdk.call("getBlockNumber", json!([2])).to_string(), refusal);
    let call = |id: i64| json!({"jsonrpc": "2.0", "method": "getBlockNumber", "params": [id], "id": id});
    sdk.say(kind::RPC, json!([call(1), call(2)]).to_string());
    let batch = json(&sdk.receive());
    assert_eq!((&batch[0]["result"], &batch[1]["error"]["code"], &batch[1]["id"]), (&json!("0x5"), &json!(-40012), &Value::Null));
    sdk.say(kind::EVENT_SUBSCRIBE, "\u{1}{\"groupID\":\"2\",\"filterID\":\"f\",\"addresses\":[],\"topics\":[]}");
    assert_eq!(sdk.receive().body[..], *b"\x01{\"result\":-41006}\n");
    sdk.say(kind::TOPICS, r#"["_block_notify_2"]"#);
    sdk.call("getBlockNumber", json!([1]));
    port.node.commit_empty(group(2));
    assert_eq!(sdk.receive_within(QUIET), None);
    // A list that changes while the node runs holds from the next push on.
    lists.set(group(2), []);
    port.node.hold();
    let body = json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [2, hex::encode_prefixed(transaction_of(2, 1, Address::ZERO, 100))], "id": 1});
    sdk.say(kind::RPC, body.to_string());
    assert!(json(&sdk.receive())["result"].is_string());
    lists.set(group(2), ["ab".repeat(64)]);
    assert_eq!(port.node.release(), 1);
    assert_eq!(sdk.receive_within(QUIET), None);
}

#[test]
fn rsa_client_is_named_in_a_list_by_the_digest_of_its_key() {
    let access = AllowLists::default();
    let lists = access.clone();
    let port = Port::start_with(ChainNode::new(5, Box::new(plain)), Arc::new(NoPeers), move |config| config.access = access);
    let sdk_pem = port.pki.path("sdk.crt");
    std::fs::write(&sdk_pem, &port.pki.sdk.pem).unwrap();
    let Identity { key, subject, issuer } = tls::identity(&tls::certificates(&sdk_pem).unwrap()[0]);
    assert_eq!((key.len(), subject.as_str(), issuer.as_str()), (64, "CN=sdk", "CN=agency"));
    lists.set(group(1), [key]);
    assert_eq!(port.sdk().call("getBlockNumber", json!([1]))["result"], "0x5");
    lists.set(group(1), ["00".repeat(32)]);
    assert_eq!(port.sdk().call("getBlockNumber", json!([1]))["error"]["code"], -40012);
}

#[test]
fn requests_above_the_rate_are_refused_but_the_version_is_always_told() {
    let quotas = Quotas { requests: Some(Rate::new(3)), ..Quotas::default() };
    let port =
        Port::start_with(ChainNode::new(5, Box::new(plain)), Arc::new(NoPeers), move |config| config.gateway.quotas = Arc::new(quotas));
    let mut sdk = port.sdk();
    let codes: Vec<_> = (0..6).map(|_| sdk.call("getBlockNumber", json!([1]))["error"]["code"].clone()).collect();
    assert_eq!(codes.iter().filter(|code| **code == json!(-40011)).count(), 3, "{codes:?}");
    assert!(sdk.call("getClientVersion", json!([]))["result"].is_object());
}

#[test]
fn subscriptions_to_the_same_blocks_each_get_their_own_logs() {
    let port = logging_port();
    let mut sdks: Vec<_> = (0..4).map(|_| port.sdk()).collect();
    for (sdk, byte) in sdks.iter_mut().zip(1u8..) {
        // Each to a topic of its own, and once to everything.
        assert_eq!(subscribe(sdk, "own", "latest", "latest", json!([B256::repeat_byte(byte).to_string()])), 0);
        assert_eq!(subscribe(sdk, "all", "latest", "latest", json!([])), 0);
    }
    let mut sender = port.sdk();
    port.node.hold();
    for nonce in 1..=40 {
        let to = Address::repeat_byte(u8::try_from(nonce % 4 + 1).unwrap());
        send_raw(&mut sender, &hex::encode_prefixed(transaction(nonce, to, 100)));
        sender.receive_kind(kind::RPC);
    }
    port.node.release();
    for (sdk, byte) in sdks.iter_mut().zip(1u8..) {
        let mut heard = std::collections::BTreeMap::<String, Vec<Value>>::new();
        while heard.values().map(Vec::len).sum::<usize>() < 50 {
            let push = json(&sdk.receive_kind(kind::EVENT_PUSH));
            let logs = push["logs"].as_array().unwrap().clone();
            heard.entry(push["filterID"].as_str().unwrap().to_owned()).or_default().extend(logs);
        }
        let own: Vec<_> = heard["all"].iter().filter(|log| log["topics"][0] == B256::repeat_byte(byte).to_string()).cloned().collect();
        assert_eq!((heard["all"].len(), heard["own"].len()), (40, 10));
        assert_eq!(heard["own"], own, "the same logs, in the same order");
        let places: Vec<_> = heard["all"].iter().map(|log| log["transactionIndex"].as_str().unwrap().to_owned()).collect();
        assert_eq!(places, (0..40).map(|index| format!("{index:#x}")).collect::<Vec<_>>());
    }
}
