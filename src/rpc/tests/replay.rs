//! Every recorded HTTP exchange is sent over a socket and its reply compared: status line, content type, body byte for byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use millrace_base::{Address, NodeId, hex, merkle};
use millrace_ledger::view::{GroupStatus, NodeInfo};
use serde_json::Value;

use super::client::{Client, Reply, post, request};
use super::fake::{FakeLedger, FakeNode, State, group};
use super::recordings;
use crate::methods::Management;
use crate::{HttpConfig, HttpServer};

/// Where this node answers otherwise on purpose, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("http.garbage", "a first line that is no HTTP is answered with 400, not with silence"),
    ("http.10", "the status line names HTTP/1.0, as the request did"),
];

pub struct World {
    pub server: HttpServer,
    pub state: Arc<Mutex<State>>,
    pub rpc: Value,
    pub proofs: Value,
}

impl World {
    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }
}

/// A server over the recorded chain.
pub fn world() -> Option<World> {
    world_with(|_| {})
}

pub fn world_with(adapt: impl FnOnce(&mut HttpConfig)) -> Option<World> {
    let (rpc, proofs) = (recordings::load("rpc.json")?, recordings::load("proofs.json")?);
    let exchanges = rpc["exchanges"].as_array().unwrap();
    let id = NodeId::parse(rpc["context"]["nodeId"].as_str().unwrap()).unwrap();
    let state = Arc::new(Mutex::new(State { call_number: 4, ..State::default() }));
    let info = recordings::result(exchanges, "getNodeInfo");
    let text = |key: &str| info[key].as_str().unwrap().to_owned();
    let info = NodeInfo {
        chain_id: 1,
        node_id: id,
        p2p_endpoint: text("IPAndPort"),
        agency: text("Agency"),
        name: text("Node"),
        supported_version: "2.11.1".into(),
    };
    state.lock().unwrap().configured_peers = vec![info.p2p_endpoint.clone()];
    let contract = Address::from_slice(&recordings::bytes(&rpc["context"]["contract"]));
    let code = recordings::bytes(&recordings::result(exchanges, "getCode.ok")).into();
    let genesis3 = Arc::new(recordings::block(&recordings::result(exchanges, "gen3.header")));
    let ledger = |number: i64, member: bool, blocks: Vec<_>| FakeLedger {
        group: group(number),
        member,
        sealers: vec![id],
        blocks,
        contract: None,
        configs: BTreeMap::from([("tx_count_limit", "1000"), ("tx_gas_limit", "300000000"), ("consensus_timeout", "3")]),
        state: Arc::clone(&state),
    };
    let mut first = ledger(1, true, recordings::chain(&proofs, exchanges));
    first.contract = Some((contract, code));
    let ledgers = [first, ledger(2, false, vec![Arc::clone(&genesis3)]), ledger(3, true, vec![genesis3])];
    let ledgers = ledgers.into_iter().map(|ledger| (ledger.group.get(), Arc::new(ledger))).collect();
    state.lock().unwrap().statuses = BTreeMap::from([(1, GroupStatus::Running)]);
    let node = Arc::new(FakeNode { info, ledgers, state: Arc::clone(&state) });
    let mut config = HttpConfig::new("127.0.0.1:0".parse().unwrap());
    adapt(&mut config);
    let server = HttpServer::start(&config, node).unwrap();
    Some(World { server, state, rpc, proofs })
}

/// What had happened to the recorded node when an exchange took place.
fn advance(state: &mut State, name: &str) {
    use GroupStatus::Running;
    match name {
        "bad.batch.two" => state.view = 2,
        "getPbftView.g2.nonmember" => drop(state.statuses.insert(2, Running)),
        "call.contract.emptydata" => state.call_number = 0x18,
        _ => {}
    }
}

/// Recorded bodies are bytes written as Latin-1; one is abridged.
fn body_of(exchange: &Value) -> Vec<u8> {
    if exchange["name"] == "bad.big1MB" {
        let filler = "x".repeat(1_000_000);
        return format!(r#"{{"jsonrpc":"2.0","method":"getSystemConfigByKey","params":[1,"{filler}"],"id":1}}"#).into_bytes();
    }
    exchange["requestBody"].as_str().unwrap_or_default().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn send(address: SocketAddr, exchange: &Value) -> Option<Reply> {
    let mut client = Client::connect(address);
    let (name, method) = (exchange["name"].as_str().unwrap(), exchange["httpMethod"].as_str().unwrap_or("POST"));
    if let Some(raw) = exchange["rawRequest"].as_str() {
        client.send(raw.as_bytes());
        return client.receive(false);
    }
    let headers = match name {
        "http.close" => "Connection: close\r\n",
        "http.origin" | "http.options.origin" => "Origin: http://example.org\r\n",
        "http.expect" => "Expect: 100-continue\r\n",
        _ => "",
    };
    client.send(&request(method, exchange["path"].as_str().unwrap(), headers, &body_of(exchange)));
    if name == "http.expect" {
        assert_eq!(client.receive(true).unwrap().status, "HTTP/1.1 100 Continue");
    }
    client.receive(method == "HEAD")
}

/// Recorded status line, content type and body.
fn expected(exchange: &Value) -> (String, Option<String>, String) {
    let whole = match (exchange["rawResponse"].as_str(), exchange["name"] == "http.expect") {
        (Some(raw), _) => Some(raw),
        (None, true) => exchange["responseBody"].as_str(),
        _ => None,
    };
    if let Some((head, body)) = whole.and_then(|whole| whole.split_once("\r\n\r\n")) {
        let mut lines = head.lines();
        let status = lines.next().unwrap().to_owned();
        let kind = lines.find_map(|line| line.strip_prefix("Content-Type: "));
        return (status, kind.map(str::to_owned), body.to_owned());
    }
    let headers = exchange["headers"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    let kind = headers.into_iter().find_map(|line| line.strip_prefix("Content-Type: "));
    (exchange["statusLine"].as_str().unwrap().into(), kind.map(str::to_owned), exchange["responseBody"].as_str().unwrap().into())
}

/// Takes out what differs between builds: C++ places in messages, build information.
pub fn stable(body: &str) -> String {
    let Ok(mut reply) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    if let Some(Value::String(message)) = reply.pointer_mut("/error/message")
        && let (Some(start), Some(end)) = (message.find("INTERNAL_ERROR: : "), message.find("Dynamic exception type"))
    {
        assert!(message[start..].starts_with("INTERNAL_ERROR: : INTERNAL_ERROR: : "));
        message.replace_range(start..end, "");
    }
    if let Some(Value::Object(result)) = reply.get_mut("result") {
        for key in ["Build Time", "Build Type", "Git Branch", "Git Commit Hash"] {
            if let Some(value) = result.get_mut(key) {
                *value = Value::Null;
            }
        }
    }
    let newline = if body.ends_with('\n') { "\n" } else { "" };
    format!("{reply}{newline}")
}

#[test]
fn recorded_exchanges_are_answered_as_recorded() {
    let Some(world) = world_with(|config| config.gateway.management = Management::Allowed) else { return };
    let exchanges = world.rpc["exchanges"].as_array().unwrap();
    let (mut equal, mut different) = (0, Vec::new());
    for exchange in exchanges {
        let name = exchange["name"].as_str().unwrap();
        advance(&mut world.state.lock().unwrap(), name);
        let reply = send(world.address(), exchange);
        let without_answer = exchange["noResponse"] == true || exchange["nodeCrashed"] == true || exchange.get("responseBody").is_none();
        if EXCEPTIONS.iter().any(|(exception, _)| *exception == name) || (without_answer && exchange["rawResponse"].is_null()) {
            let reply = reply.unwrap_or_else(|| panic!("{name}: this node answers something"));
            assert!(!reply.status.contains(" 500 "), "{name}: {reply:?}");
            continue;
        }
        let (status, kind, body) = expected(exchange);
        let reply = reply.unwrap_or_else(|| panic!("{name}: no reply"));
        let same = reply.status == status && reply.header("content-type") == kind.as_deref() && stable(&reply.text()) == stable(&body);
        if same {
            equal += 1;
        } else {
            different.push(format!("{name}\n  want {status} {kind:?} {body}\n  got  {} {}", reply.status, reply.text()));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    println!("{equal} of {} exchanges equal", exchanges.len());
    assert!(equal >= 448, "only {equal} were compared");
}

#[test]
fn options_names_what_is_allowed() {
    let Some(world) = world() else { return };
    let mut client = Client::connect(world.address());
    client.send(&request("OPTIONS", "/", "", b""));
    let reply = client.receive(false).unwrap();
    assert_eq!(reply.header("allow"), Some("POST, OPTIONS"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("origin, content-type, accept"));
    assert_eq!(reply.header("dav"), Some("1"));
    assert_eq!(reply.header("content-length"), Some("0"));
}

fn ask(world: &World, method: &str, params: &Value) -> Value {
    let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params},"id":1}}"#);
    post(world.address(), body.as_bytes()).json()
}

#[test]
fn recorded_roots_follow_from_the_rebuilt_blocks() {
    let Some((rpc, proofs)) = recordings::load("rpc.json").zip(recordings::load("proofs.json")) else { return };
    for block in recordings::chain(&proofs, rpc["exchanges"].as_array().unwrap()).iter().skip(1) {
        let transactions: Vec<_> = block.transactions.iter().map(|tx| tx.hash()).collect();
        let receipts: Vec<_> = block.receipts.iter().map(|receipt| receipt.hash()).collect();
        assert_eq!(merkle::root(&transactions), block.header.transactions_root);
        assert_eq!(merkle::root(&receipts), block.header.receipts_root);
    }
}

#[test]
fn recorded_blocks_proofs_and_batches_are_answered_as_recorded() {
    let Some(world) = world() else { return };
    for (number, recorded) in world.proofs["blocks"].as_array().unwrap().iter().enumerate() {
        let ask = |method: &str, flag: bool| ask(&world, method, &serde_json::json!([1, number.to_string(), flag]))["result"].to_string();
        assert_eq!(ask("getBlockHeaderByNumber", true), recorded["header"].to_string());
        if !recorded["block"].is_null() {
            assert_eq!(ask("getBlockByNumber", true), recorded["block"].to_string());
            assert_eq!(ask("getBlockByNumber", false), recorded["blockHashesOnly"].to_string());
        }
    }
    for recorded in world.proofs["proofs"].as_array().unwrap() {
        let params = serde_json::json!([1, recorded["txHash"]]);
        let ask = |method: &str| ask(&world, method, &params)["result"].to_string();
        assert_eq!(ask("getTransactionByHashWithProof"), recorded["withTxProof"].to_string());
        assert_eq!(ask("getTransactionReceiptByHashWithProof"), recorded["withReceiptProof"].to_string());
    }
    for recorded in world.proofs["batch"].as_array().unwrap() {
        let reply = ask(&world, recorded["method"].as_str().unwrap(), &recorded["params"]);
        match (&reply["result"], &recorded["response"]["result"]) {
            (Value::String(packed), Value::String(wanted)) => assert_eq!(inflate(packed), inflate(wanted), "{}", recorded["name"]),
            _ => assert_eq!(stable(&reply.to_string()), stable(&recorded["response"].to_string()), "{}", recorded["name"]),
        }
    }
}

fn inflate(packed: &str) -> String {
    use base64::Engine;
    use std::io::Read;
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn pending_transaction_is_listed_without_a_place_in_a_block() {
    let Some((world, reject)) = world().zip(recordings::load("reject.json")) else { return };
    let cases = reject["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == "pending.views").unwrap();
    world.state.lock().unwrap().pending = vec![recordings::verified(&hex::decode(case["raw"].as_str().unwrap()).unwrap())];
    for method in ["getPendingTransactions", "getPendingTxSize"] {
        assert_eq!(ask(&world, method, &serde_json::json!([1])).to_string(), case[method].to_string());
    }
}
