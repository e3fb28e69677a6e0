//! Networks of several processes on one machine, and the commands that make and extend chains, as their user runs them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::network::{NODES, reserve_ports};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A devnet process; killed when it is dropped.
struct Devnet {
    child: Child,
    errors: PathBuf,
    ready: Value,
}

/// Where a network lies and its first JSON-RPC port.
struct Place {
    scratch: tempfile::TempDir,
    port: u16,
    _reservation: TcpListener,
}

impl Place {
    fn new() -> Self {
        let reservation = reserve_ports();
        let port = reservation.local_addr().unwrap().port() + 1;
        Self { scratch: tempfile::tempdir().unwrap(), port, _reservation: reservation }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let port = |offset: u16| (self.port + offset).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(["devnet", "--json", "--rpc-port", &port(0), "--channel-port", &port(NODES), "--p2p-port", &port(2 * NODES)]);
        command.args(arguments).arg("--dir").arg(self.scratch.path().join("net"));
        command
    }
}

impl Devnet {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let errors = place.scratch.path().join("errors");
        let mut command = place.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {}", fs::read_to_string(&errors).unwrap()));
        Self { child, errors, ready }
    }

    fn nodes(&self) -> Vec<Value> {
        self.ready["nodes"].as_array().unwrap().clone()
    }

    fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Exit code after a signal.
    fn stop(&mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().unwrap().success());
}

fn ask(node: &Value, method: &str, group: u16) -> Value {
    let body = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":[{group}],\"id\":1}}");
    let mut answer = ureq::post(node["rpc"].as_str().unwrap()).send(&body).unwrap();
    serde_json::from_str::<Value>(&answer.body_mut().read_to_string().unwrap()).unwrap()["result"].clone()
}

fn is_serving(node: &Value) -> bool {
    TcpStream::connect(node["rpc"].as_str().unwrap().trim_start_matches("http://")).is_ok()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn four_nodes_with_two_groups_start_serve_and_stop_in_order() {
    let place = Place::new();
    let mut first = Devnet::start(&place, &["--nodes", "4", "--groups", "2"]);
    println!("ready after {} ms", first.ready["readyAfterMs"]);
    let nodes = first.nodes();
    assert_eq!((nodes.len(), &first.ready["rpc"], &first.ready["groups"]), (4, &nodes[0]["rpc"], &serde_json::json!([1, 2])));
    for node in &nodes {
        assert_eq!(ask(node, "getNodeInfo", 1)["NodeID"], node["nodeId"]);
        for group in [1, 2] {
            let sealers = ask(node, "getSealerList", group);
            assert!(sealers.as_array().unwrap().contains(&node["nodeId"]) && sealers.as_array().unwrap().len() == 4, "{sealers}");
        }
    }
    assert_eq!(first.stop("TERM"), Some(0), "{}", first.errors());
    assert!(!nodes.iter().any(is_serving));

    let mut second = Devnet::start(&place, &[]);
    assert_eq!(
        second.nodes().iter().map(|node| node["nodeId"].clone()).collect::<Vec<_>>(),
        nodes.iter().map(|node| node["nodeId"].clone()).collect::<Vec<_>>()
    );
    assert_eq!(second.stop("INT"), Some(0), "{}", second.errors());
}

#[test]
fn groups_lie_on_the_nodes_they_were_placed_on() {
    let place = Place::new();
    let placed = ["--nodes", "3", "--groups", "1", "--group", "2=node0,node1", "--group", "3=node1,node2"];
    let mut network = Devnet::start(&place, &placed);
    let nodes = network.nodes();
    let groups: Vec<Value> = nodes.iter().map(|node| ask(node, "getGroupList", 1)).collect();
    assert_eq!(groups, [serde_json::json!([1, 2]), serde_json::json!([1, 2, 3]), serde_json::json!([1, 3])]);
    assert_eq!(ask(&nodes[1], "getSealerList", 3).as_array().unwrap().len(), 2);
    assert_eq!(network.stop("INT"), Some(0), "{}", network.errors());
}

#[test]
fn node_that_dies_is_named_and_the_others_go_on() {
    let place = Place::new();
    let mut network = Devnet::start(&place, &["--nodes", "3"]);
    let nodes = network.nodes();
    kill("KILL", nodes[1]["pid"].as_u64().unwrap().try_into().unwrap());
    wait_until("the obituary", || network.errors().contains("node1 ended on its own (signal: 9"));
    assert!(network.errors().contains("The FISCO-BCOS is running"), "the end of its output: {}", network.errors());
    assert_eq!(ask(&nodes[2], "getNodeInfo", 1)["NodeID"], nodes[2]["nodeId"]);
    assert_eq!(network.stop("INT"), Some(64));
    assert!(network.errors().contains("node1 had ended on its own") && !network.errors().contains("node2"), "{}", network.errors());
}

#[test]
fn nodes_stop_when_their_network_is_killed() {
    let place = Place::new();
    let mut network = Devnet::start(&place, &["--nodes", "2"]);
    let nodes = network.nodes();
    network.stop("KILL");
    wait_until("the end of the nodes", || !nodes.iter().any(is_serving));
    for node in &nodes {
        let log = Path::new(node["dir"].as_str().unwrap()).join("log");
        let stopped = || fs::read_dir(&log).unwrap().any(|file| fs::read_to_string(file.unwrap().path()).unwrap().contains("stopped"));
        wait_until("an orderly stop", stopped);
    }
}

#[test]
fn node_that_cannot_start_is_named_with_what_it_said() {
    let place = Place::new();
    let taken = TcpListener::bind(("127.0.0.1", place.port + 1)).unwrap();
    let mut child = place.command(&["--nodes", "3"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(64));
    let port = taken.local_addr().unwrap().to_string();
    assert!(message.contains("node1 did not start (exit status: 66)") && message.contains(&port), "{message}");
    assert!(TcpStream::connect(("127.0.0.1", place.port)).is_err(), "the others were stopped");
}

fn millrace(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace")).current_dir(directory).args(arguments).output().unwrap()
}

/// Standard output of a command that succeeds.
fn done(directory: &Path, arguments: &[&str]) -> String {
    let output = millrace(directory, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn chain_is_built_extended_renewed_and_shown() {
    let place = Place::new();
    let (here, port) = (place.scratch.path(), place.port);
    let ports = format!("{},{},{port}", port + 2 * NODES, port + NODES);
    done(here, &["chain", "build", "--agency", "bank=1", "--agency", "shop=1", "--groups", "2", "-p", &ports]);
    done(here, &["chain", "add-agency", "hotel"]);
    let said = done(here, &["chain", "add-node", "--agency", "hotel", "--groups", "2"]);
    assert!(said.starts_with("nodes/127.0.0.1/node2  ") && said.contains("addObserver"), "{said}");
    done(here, &["chain", "sdk", "--agency", "shop", "--name", "till", "-o", "till"]);
    assert!(done(here, &["chain", "show"]).contains("none ends within 30 days"));
    assert!(
        done(here, &["chain", "renew", "node", "nodes/127.0.0.1/node1", "-X", "20", "--new-key"])
            .contains("renewed nodes/127.0.0.1/node1/conf/p2p.crt")
    );
    let shown = millrace(here, &["chain", "show", "nodes/127.0.0.1/node1"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("! it ends in 19 days")
            || String::from_utf8_lossy(&shown.stdout).contains("! it ends in 20 days")
    );
    let lines = done(here, &["chain", "show", "nodes/127.0.0.1/node2", "--json"]);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((first["file"].as_str(), first["subject"].as_str()), (Some("conf/channel_cert/ca.crt"), Some("hotel")));
    assert!(done(here, &["doctor", "p2p", "--dir", "nodes/127.0.0.1/node2"]).contains("healthy"));

    // The node that joined starts; it serves its group once the sealers have made it an observer.
    let config = here.join("nodes/127.0.0.1/node2/config.ini");
    let node = Command::new(env!("CARGO_BIN_EXE_millrace")).args(["run", "-c"]).arg(config).stdout(Stdio::piped()).spawn().unwrap();
    let mut node = Devnet { child: node, errors: PathBuf::new(), ready: Value::Null };
    let said = BufReader::new(node.child.stdout.take().unwrap()).lines().map(Result::unwrap).find(|line| line.contains("running"));
    assert!(said.is_some());
    let at = serde_json::json!({"rpc": format!("http://127.0.0.1:{}", port + 2)});
    let id = fs::read_to_string(here.join("nodes/127.0.0.1/node2/conf/node.nodeid")).unwrap();
    assert_eq!(ask(&at, "getNodeInfo", 2)["NodeID"], id.trim());
    assert_eq!(ask(&at, "getGroupList", 2), serde_json::json!([]), "it is a member of no group yet");
    assert!(done(here, &["doctor", "p2p", "--dir", "nodes/127.0.0.1/node2"]).contains("a node runs from this directory"));
    assert_eq!(node.stop("TERM"), Some(0));
}
