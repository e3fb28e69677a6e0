//! Clients that misbehave: the server answers or closes, and goes on serving others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_base::fault::FaultKind;
use millrace_base::limits::{MAX_JSON_DEPTH, MAX_RPC_BATCH};
use serde_json::{Value, json};

use super::client::{Client, post, request};
use super::fake::FakeNode;
use super::replay::{world, world_with};
use crate::methods::METHODS;
use crate::params::Shape;
use crate::{HttpConfig, HttpServer, OperatorServer};

const BLOCK_NUMBER: &[u8] = br#"{"jsonrpc":"2.0","method":"getBlockNumber","params":[1],"id":1}"#;

fn assert_serves(address: SocketAddr) {
    assert_eq!(post(address, BLOCK_NUMBER).text(), "{\"id\":1,\"jsonrpc\":\"2.0\",\"result\":\"0x4\"}\n");
}

fn node(world: &super::replay::World) -> Arc<FakeNode> {
    let info = millrace_ledger::view::NodeInfo {
        chain_id: 1,
        node_id: millrace_base::NodeId([1; 64]),
        p2p_endpoint: String::new(),
        agency: String::new(),
        name: String::new(),
        supported_version: "2.11.1".into(),
    };
    Arc::new(FakeNode { info, ledgers: Default::default(), state: Arc::clone(&world.state) })
}

#[test]
fn every_method_survives_every_wrong_parameter() {
    let Some(world) = world() else { return };
    let nonsense =
        ["null", "true", "-1", "1.5", "1e400", "\"\"", "\"0x\"", "\"链\"", "[]", "{}", "[[[]]]", "99999999999999999999", "\"\\ud800\""];
    let mut client = Client::connect(world.address());
    for method in METHODS {
        let declared = match method.shape {
            Shape::Unchecked => 1,
            Shape::Exactly(parameters) | Shape::AtLeast(_, parameters) => parameters.len(),
        };
        for filler in nonsense {
            let mut bodies = vec![filler.to_owned(), format!("[{}]", vec![filler; declared].join(","))];
            bodies.push(format!("[1{}]", format!(",{filler}").repeat(declared.saturating_sub(1))));
            for params in bodies {
                let body = format!(r#"{{"jsonrpc":"2.0","method":"{}","params":{params},"id":1}}"#, method.name);
                let reply = client.post(body.as_bytes());
                assert_eq!(reply.status, "HTTP/1.1 200 OK", "{body}");
                assert!(!reply.text().contains("see the node's log"), "{body} panics");
            }
        }
    }
    assert_serves(world.address());
}

#[test]
fn peers_that_are_none_are_refused() {
    let Some(world) = world() else { return };
    for peers in [json!([["notanip"]]), json!([["1.2.3.4"]]), json!([[5]]), json!([["[::1"]]), json!([[":"]]), json!([["a:1", null]])] {
        let body = json!({"jsonrpc": "2.0", "method": "addPeers", "params": peers, "id": 1});
        assert_eq!(post(world.address(), body.to_string().as_bytes()).json()["result"]["code"], "0x7", "{peers}");
    }
}

#[test]
fn allowed_change_of_groups_and_peers_is_forbidden_to_clients() {
    let Some(world) = world() else { return };
    for (method, params) in [("stopGroup", json!([1])), ("addPeers", json!([["127.0.0.1:30300"]])), ("erasePeers", json!([["[::1]:1"]]))] {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        assert_eq!(post(world.address(), body.to_string().as_bytes()).json()["error"]["code"], -100001);
    }
}

#[test]
fn malformed_bodies_are_parse_errors() {
    let Some(world) = world() else { return };
    let bodies: [&[u8]; 9] = [b"", b"{", b"[", b"[{},", b"nul", b"\"open", b"{\"a\":}", b"/*", b"\xff\xfe\x00"];
    for body in bodies {
        let reply = post(world.address(), body);
        assert_eq!(reply.json()["error"]["code"], -32700, "{}", String::from_utf8_lossy(body));
    }
    assert_serves(world.address());
}

#[test]
fn nesting_at_the_limit_is_judged_and_beyond_it_refused() {
    let Some(world) = world() else { return };
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(post(world.address(), &nested(MAX_JSON_DEPTH - 2)).json()[0]["error"]["code"], -32600);
    for body in [nested(MAX_JSON_DEPTH + 1), nested(1_000_000), b"{\"a\":".repeat(500_000)] {
        assert!(post(world.address(), &body).text().starts_with("ERROR while handleRequest"));
    }
    assert_serves(world.address());
}

#[test]
fn batch_beyond_the_limit_is_refused_as_a_whole() {
    let Some(world) = world() else { return };
    let batch = |count: usize| [b"[".as_slice(), &vec!["1"; count].join(",").into_bytes(), b"]"].concat();
    assert_eq!(post(world.address(), &batch(MAX_RPC_BATCH)).json().as_array().unwrap().len(), MAX_RPC_BATCH);
    assert_eq!(post(world.address(), &batch(MAX_RPC_BATCH + 1)).json()["error"]["code"], -32600);
    assert_serves(world.address());
}

#[test]
fn body_beyond_the_limit_is_refused_before_it_is_read() {
    let Some(world) = world_with(|config| config.max_body_bytes = 1_000) else { return };
    let mut client = Client::connect(world.address());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    assert!(client.receive(false).unwrap().status.contains("413"));
    let mut chunked = Client::connect(world.address());
    chunked.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.send(format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2_000)).as_bytes());
    assert!(chunked.receive(false).unwrap().status.contains("413"));
    assert_serves(world.address());
}

#[test]
fn slow_clients_are_closed_while_others_are_served() {
    let limits = |config: &mut HttpConfig| {
        config.head_time_limit = Duration::from_millis(200);
        config.body_time_limit = Duration::from_millis(200);
    };
    let Some(world) = world_with(limits) else { return };
    let mut in_head = Client::connect(world.address());
    in_head.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let mut in_body = Client::connect(world.address());
    in_body.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
    assert_serves(world.address());
    let started = Instant::now();
    assert!(in_head.receive(false).is_none_or(|reply| reply.status.contains("408")));
    assert!(in_body.receive(false).unwrap().status.contains("408"));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_serves(world.address());
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let Some(world) = world_with(|config| config.max_connections = 2) else { return };
    let mut kept: Vec<_> = (0..2).map(|_| Client::connect(world.address())).collect();
    for client in &mut kept {
        assert_eq!(client.post(BLOCK_NUMBER).status, "HTTP/1.1 200 OK");
    }
    let mut refused = Client::connect(world.address());
    assert!(refused.receive(false).is_none());
    drop(kept);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = Client::connect(world.address());
        // The server may close before the request is written, which is what is waited out here.
        client.try_send(&request("POST", "/", "", BLOCK_NUMBER));
        if client.receive(false).is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "places are not given back");
    }
}

#[test]
fn panic_in_a_method_is_an_error_of_that_request_only() {
    let Some(world) = world() else { return };
    let code = |address: String, id: u32| json!({"jsonrpc": "2.0", "method": "getCode", "params": [1, address], "id": id});
    let batch = json!([code("ff".repeat(20), 1), code("11".repeat(20), 2)]);
    let replies = post(world.address(), batch.to_string().as_bytes()).json();
    assert_eq!(replies[0]["error"]["code"], -32603);
    assert_eq!(replies[1]["result"], "0x");
}

#[test]
fn queries_that_block_leave_room_for_others() {
    let Some(world) = world_with(|config| config.gateway.query_workers = 1) else { return };
    let gate = Arc::new(std::sync::Mutex::new(()));
    let held = gate.lock().unwrap();
    world.state.lock().unwrap().code_gate = Some(Arc::clone(&gate));
    let query = json!({"jsonrpc": "2.0", "method": "getCode", "params": [1, "11".repeat(20)], "id": 1}).to_string();
    let mut waiting: Vec<_> = (0..8).map(|_| Client::connect(world.address())).collect();
    for client in &mut waiting {
        client.send(&request("POST", "/", "", query.as_bytes()));
    }
    for _ in 0..20 {
        assert_serves(world.address());
    }
    drop(held);
    for client in &mut waiting {
        assert_eq!(client.receive(false).unwrap().json()["result"], "0x");
    }
}

#[test]
fn taken_port_is_a_fault_that_names_the_setting() {
    let Some(world) = world() else { return };
    let config = HttpConfig::new(world.address());
    let fault = HttpServer::start(&config, node(&world)).err().unwrap();
    assert_eq!(fault.kind, FaultKind::Network);
    assert!(fault.what.contains(&world.address().to_string()) && fault.remedy.contains("jsonrpc_listen_port"));
}

#[test]
fn stop_finishes_running_requests_and_closes_idle_connections() {
    let Some(world) = world() else { return };
    let address = world.address();
    let gate = Arc::new(std::sync::Mutex::new(()));
    let held = gate.lock().unwrap();
    world.state.lock().unwrap().code_gate = Some(Arc::clone(&gate));
    let query = json!({"jsonrpc": "2.0", "method": "getCode", "params": [1, "11".repeat(20)], "id": 1}).to_string();
    let (mut idle, mut running) = (Client::connect(address), Client::connect(address));
    assert_eq!(idle.post(BLOCK_NUMBER).status, "HTTP/1.1 200 OK");
    running.send(&request("POST", "/", "", query.as_bytes()));
    assert_serves(address);
    let server = world.server;
    let stopping = std::thread::spawn(move || server.stop(Duration::from_secs(10)));
    assert!(idle.receive(false).is_none());
    drop(held);
    assert_eq!(running.receive(false).unwrap().json()["result"], "0x");
    stopping.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn operator_port_tells_metrics_life_and_readiness() {
    let Some(world) = world() else { return };
    let server = OperatorServer::start("127.0.0.1:0".parse().unwrap(), node(&world), 10).unwrap();
    let get = |path: &str| {
        let mut client = Client::connect(server.local_addr());
        client.send(&request("GET", path, "", b""));
        client.receive(false).unwrap()
    };
    assert_eq!(get("/metrics").text(), "millrace_up 1\n");
    assert_eq!(get("/livez").text(), "ok\n");
    assert_eq!(get("/status").text(), "{\"name\":\"node0\"}");
    assert_eq!(get("/topology").text(), "{\"name\":\"millrace\"}");
    assert!(get("/readyz").status.contains("200"));
    world.state.lock().unwrap().statuses.insert(3, millrace_ledger::view::GroupStatus::Stopped);
    let reply = get("/readyz");
    assert!(reply.status.contains("503") && reply.text().contains("stopped"));
    assert!(get("/other").status.contains("404"));
    server.stop(Duration::from_secs(5));
}

#[test]
fn operator_port_manages_groups_for_operators_and_not_for_web_pages() {
    let Some(world) = world() else { return };
    let server = OperatorServer::start("127.0.0.1:0".parse().unwrap(), node(&world), 2).unwrap();
    let send = |headers: &str, method: &str, params: serde_json::Value| {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string();
        let mut client = Client::connect(server.local_addr());
        client.send(&request("POST", "/", headers, body.as_bytes()));
        client.receive(false).unwrap()
    };
    let refused = send("Origin: https://example.org\r\n", "stopGroup", json!([1]));
    assert!(refused.status.contains("403"), "{refused:?}");
    assert_eq!(send("", "queryGroupStatus", json!([1])).json()["result"]["status"], "RUNNING");
    let many = json!([["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]]);
    assert_eq!(send("", "addPeers", many).json()["result"]["message"], "refused for too many param peers. peers_param_limit: 2");
    assert_eq!(send("", "stopGroup", json!([1])).json()["result"]["code"], "0x0");
}

#[test]
fn id_of_any_allowed_form_is_echoed_as_sent() {
    let Some(world) = world() else { return };
    for id in ["18446744073709551615", "-9223372036854775808", "\"a\\\"b\"", "null", "0"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"getBlockNumber","params":[1],"id":{id}}}"#);
        assert_eq!(post(world.address(), body.as_bytes()).text(), format!("{{\"id\":{id},\"jsonrpc\":\"2.0\",\"result\":\"0x4\"}}\n"));
    }
    let replies: Value = post(world.address(), b"[{\"id\":18446744073709551616}]").json();
    assert_eq!(replies[0]["id"], Value::Null);
}
