//! What one client may take of the HTTP door: requests a second, connections, and the names it may call the node by.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, post, request};
use super::fake::group;
use super::replay::{World, world_with};
use crate::HttpConfig;
use crate::quota::{Quotas, Rate};

const BLOCK_NUMBER: &[u8] = br#"{"jsonrpc":"2.0","method":"getBlockNumber","params":[1],"id":1}"#;

fn limited(quotas: Quotas) -> Option<World> {
    let quotas = Arc::new(quotas);
    world_with(move |config| config.gateway.quotas = quotas)
}

#[test]
fn requests_above_the_rate_are_refused_by_name_but_the_version_is_always_told() {
    let Some(world) = limited(Quotas { requests: Some(Rate::new(3)), ..Quotas::default() }) else { return };
    let mut client = Client::connect(world.address());
    let replies: Vec<_> = (0..6).map(|_| client.post(BLOCK_NUMBER).text()).collect();
    let refusal =
        "{\"error\":{\"code\":-40011,\"data\":null,\"message\":\"getBlockNumber Over QPS limit\"},\"id\":1,\"jsonrpc\":\"2.0\"}\n";
    assert_eq!(replies.iter().filter(|reply| *reply == refusal).count(), 3, "{replies:?}");
    let version = client.post(br#"{"jsonrpc":"2.0","method":"getClientVersion","params":[],"id":1}"#);
    assert!(version.json()["result"].is_object());
    let end = Instant::now() + Duration::from_secs(10);
    while client.post(BLOCK_NUMBER).json()["error"].is_object() {
        assert!(Instant::now() < end, "the rate never lets in again");
    }
}

#[test]
fn rate_of_a_group_counts_each_request_of_a_batch_and_leaves_other_groups_alone() {
    let quotas = Quotas { group_requests: BTreeMap::from([(group(1), Rate::new(5))]), ..Quotas::default() };
    let Some(world) = limited(quotas) else { return };
    world.state.lock().unwrap().statuses.insert(3, millrace_ledger::view::GroupStatus::Running);
    let call = |group: u64, id: u64| json!({"jsonrpc": "2.0", "method": "getBlockNumber", "params": [group], "id": id});
    let batch: Vec<Value> = (0..20).map(|id| call(1 + id % 2 * 2, id)).collect();
    let replies = post(world.address(), Value::Array(batch).to_string().as_bytes()).json();
    let is_refused = |reply: &&Value| reply["error"]["code"] == -40011;
    let refused: Vec<_> = replies.as_array().unwrap().iter().filter(is_refused).map(|reply| reply["id"].as_u64().unwrap()).collect();
    assert_eq!(refused.len(), 5, "{replies}");
    assert!(refused.iter().all(|id| id % 2 == 0), "only of group 1: {refused:?}");
}

/// A connection that comes from `source`.
fn connect_from(source: IpAddr, target: SocketAddr) -> std::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let connected = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(target).await.unwrap()
    });
    let stream = connected.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn one_address_cannot_take_all_connections() {
    let caps = |config: &mut HttpConfig| (config.max_connections, config.max_connections_per_address) = (8, 3);
    let Some(world) = world_with(caps) else { return };
    let mut kept: Vec<_> = (0..3).map(|_| Client::connect(world.address())).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.post(BLOCK_NUMBER).status, "HTTP/1.1 200 OK"));
    assert!(Client::connect(world.address()).receive(false).is_none(), "a fourth one is closed");
    let other = connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), world.address());
    assert_eq!(Client::of(other).post(BLOCK_NUMBER).status, "HTTP/1.1 200 OK");
}

#[test]
fn page_that_points_its_own_name_at_this_machine_is_refused_and_no_origin_is_allowed() {
    let Some(world) = world_with(|_| {}) else { return };
    let ask = |host: &str, verb: &str| {
        let mut client = Client::connect(world.address());
        let body = if verb == "POST" { BLOCK_NUMBER } else { b"" };
        client.send(
            &String::from_utf8(request(verb, "/", "Origin: http://evil.example.com\r\n", body))
                .unwrap()
                .replace("localhost", host)
                .into_bytes(),
        );
        client.receive(false).unwrap()
    };
    for host in ["evil.example.com", "evil.example.com:8545", "127.0.0.1.example.com", "a.b"] {
        let reply = ask(host, "POST");
        assert!(reply.status.contains("403") && reply.text().contains("Host"), "{host}: {reply:?}");
        assert!(ask(host, "OPTIONS").status.contains("403"));
    }
    for host in ["localhost", "localhost:8545", "127.0.0.1", "127.0.0.1:8545", "[::1]:8545", "[::1]", "node0", "node0:8545"] {
        let reply = ask(host, "POST");
        assert!(reply.status.contains("200"), "{host}: {reply:?}");
        assert!(reply.header("access-control-allow-origin").is_none_or(str::is_empty), "{reply:?}");
    }
    for verb in ["GET", "PUT", "DELETE", "PATCH"] {
        assert!(ask("localhost", verb).status.contains("405"), "{verb}");
    }
}
