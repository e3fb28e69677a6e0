//! A chain of several nodes, each a process that can be killed, paused, started and wiped apart from the others.
//!
//! Ports are a block of [`reserve_ports`]; nodes in network namespaces ([`super::partition`]) have addresses of their own. Everything
//! ends when the cluster is dropped.

use std::cell::Cell;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, Bytes, KeyPair, Transaction, U256, hex};
use serde_json::{Value, json};

use crate::network::{request, reserve_ports};

/// How long anything may take before a test gives up; machines that build at the same time are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes that a block of reserved ports has room for: three protocols and the operator's port.
const MOST_NODES: u16 = 7;

/// The Consensus contract, by which sealers and observers come and go.
const CONSENSUS: Address = Address::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x03]);

/// One node.
pub struct Node {
    pub directory: PathBuf,
    pub id: String,
    pub rpc: SocketAddr,
    operator: SocketAddr,
    pub p2p: SocketAddr,
    pub channel: SocketAddr,
    /// What the process is started by: nothing, or `ip netns exec NAME`.
    prefix: Vec<String>,
    process: Option<Child>,
}

/// Where a cluster's nodes lie.
pub struct Place {
    /// What `chain build` is told of machines: `["--nodes", "4"]` or `["-l", "10.0.0.1:1,10.0.0.2:1"]`.
    pub machines: Vec<String>,
    /// What each node's process is started by; empty for none.
    pub prefixes: Vec<Vec<String>>,
}

/// See the module.
pub struct Cluster {
    pub nodes: Vec<Node>,
    scratch: tempfile::TempDir,
    port: u16,
    agent: ureq::Agent,
    nonce: Cell<u64>,
    _reservation: TcpListener,
}

impl Cluster {
    /// Builds and starts a chain on this machine: `groups` are arguments of `chain build`, such as `--groups 2`.
    pub fn start(nodes: usize, groups: &[&str]) -> Self {
        Self::start_with(nodes, groups, |_| {})
    }

    /// The same with files changed before the start.
    pub fn start_with(nodes: usize, groups: &[&str], change: impl FnOnce(&Self)) -> Self {
        let cluster = Self::build(Place { machines: vec!["--nodes".into(), nodes.to_string()], prefixes: Vec::new() }, groups);
        change(&cluster);
        cluster.started()
    }

    /// Builds a chain; nothing runs.
    pub fn build(place: Place, groups: &[&str]) -> Self {
        let reservation = reserve_ports();
        let port = reservation.local_addr().unwrap().port() + 1;
        let scratch = tempfile::tempdir().unwrap();
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
        let mut cluster = Self { nodes: Vec::new(), scratch, port, agent, nonce: Cell::new(1), _reservation: reservation };
        let ports = format!("{},{},{port}", port + 3 * MOST_NODES, port + 2 * MOST_NODES);
        let machines: Vec<&str> = place.machines.iter().map(String::as_str).collect();
        let rpc = if place.prefixes.is_empty() { &[][..] } else { &["-i"] };
        cluster.millrace(&[&["chain", "build"], &machines[..], groups, rpc, &["-p", &ports]].concat());
        let mut directories: Vec<PathBuf> = cluster.machines().into_iter().flat_map(|machine| cluster.nodes_of(&machine)).collect();
        directories.sort();
        for (index, directory) in directories.into_iter().enumerate() {
            cluster.adopt(directory, place.prefixes.get(index).cloned().unwrap_or_default());
        }
        cluster
    }

    fn machines(&self) -> Vec<PathBuf> {
        let is_machine = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains('.'));
        fs::read_dir(self.chain()).unwrap().map(|entry| entry.unwrap().path()).filter(is_machine).collect()
    }

    fn nodes_of(&self, machine: &Path) -> Vec<PathBuf> {
        fs::read_dir(machine).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.join("config.ini").is_file()).collect()
    }

    /// Takes a node's directory into the cluster.
    fn adopt(&mut self, directory: PathBuf, prefix: Vec<String>) {
        let config = directory.join("config.ini");
        let ip = directory.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let address = |port: u16| SocketAddr::new(ip.parse().unwrap(), port);
        let rpc: u16 = setting(&config, "jsonrpc_listen_port").parse().unwrap();
        // Its usual place, 1000 above, may be another test's.
        let operator = rpc + MOST_NODES;
        set(&config, "operator_listen_port", &operator.to_string());
        if !prefix.is_empty() {
            set(&config, "operator_listen_ip", "0.0.0.0");
        }
        let port = |key: &str| setting(&config, key).parse().unwrap();
        let (p2p, channel) = (address(port("listen_port")), address(port("channel_listen_port")));
        let id = fs::read_to_string(directory.join("conf/node.nodeid")).unwrap().trim().to_owned();
        let (rpc, operator) = (address(rpc), address(operator));
        self.nodes.push(Node { id, rpc, operator, p2p, channel, prefix, process: None, directory });
    }

    /// The chain's directory.
    pub fn chain(&self) -> PathBuf {
        self.scratch.path().join("nodes")
    }

    /// Runs a command of the program in the cluster's directory; it must succeed.
    pub fn millrace(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_millrace")).current_dir(self.scratch.path()).args(arguments).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Starts all nodes and waits until they serve.
    pub fn started(mut self) -> Self {
        self.start_all();
        self
    }

    /// Starts every node that does not run, and waits until they serve.
    pub fn start_all(&mut self) {
        let down: Vec<usize> = (0..self.nodes.len()).filter(|index| self.nodes[*index].process.is_none()).collect();
        down.iter().for_each(|index| self.spawn(*index));
        down.iter().for_each(|index| self.wait_ready(*index));
    }

    /// Starts a node and waits until it serves.
    pub fn start_node(&mut self, index: usize) {
        self.spawn(index);
        self.wait_ready(index);
    }

    fn spawn(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let output = fs::OpenOptions::new().create(true).append(true).open(node.directory.join("nohup.out")).unwrap();
        let mut words = node.prefix.clone();
        words.push(env!("CARGO_BIN_EXE_millrace").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["run", "--until-stdin-closes", "-c"]).arg(node.directory.join("config.ini"));
        // The node's end of its input closes with this process, however that ends.
        node.process = Some(command.stdin(Stdio::piped()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap());
    }

    fn wait_ready(&mut self, index: usize) {
        let start = Instant::now();
        while self.ask(index, "getClientVersion", json!([])).is_none() {
            let node = &mut self.nodes[index];
            let ended = node.process.as_mut().unwrap().try_wait().unwrap();
            let said = || fs::read_to_string(node.directory.join("nohup.out")).unwrap_or_default();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "node {index} does not start: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills a node as a power cut would, as far as its process goes.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.nodes[index].process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Kills all nodes at once.
    pub fn kill_all(&mut self) {
        let mut processes: Vec<Child> = self.nodes.iter_mut().filter_map(|node| node.process.take()).collect();
        processes.iter_mut().for_each(|process| process.kill().unwrap());
        processes.iter_mut().for_each(|process| assert!(process.wait().is_ok()));
    }

    /// Stops a node in order.
    pub fn stop(&mut self, index: usize) {
        let mut process = self.nodes[index].process.take().expect("it runs");
        signal("TERM", process.id());
        assert!(process.wait().unwrap().success(), "node {index} did not stop in order");
    }

    /// Holds a node still, or lets it go on: `STOP` or `CONT`.
    pub fn signal(&self, index: usize, name: &str) {
        signal(name, self.nodes[index].process.as_ref().expect("it runs").id());
    }

    /// Takes away all that a node has stored; it must not run.
    pub fn wipe(&self, index: usize) {
        assert!(self.nodes[index].process.is_none());
        fs::remove_dir_all(self.nodes[index].directory.join("data")).unwrap();
    }

    /// Makes a node that joins `group`, on this machine; it does not run yet.
    pub fn add_node(&mut self, groups: &str) -> usize {
        self.millrace(&["chain", "add-node", "--agency", "agency", "--groups", groups]);
        let name = format!("node{}", self.nodes.len());
        self.adopt(self.chain().join("127.0.0.1").join(name), Vec::new());
        self.nodes.len() - 1
    }

    /// The result of a request; `None` when there is no answer or a refusal.
    pub fn ask(&self, index: usize, method: &str, params: Value) -> Option<Value> {
        self.reply(self.nodes[index].rpc, method, &params).and_then(|reply| reply.get("result").cloned())
    }

    /// The whole reply to a request.
    pub fn whole(&self, index: usize, method: &str, params: Value) -> Value {
        self.reply(self.nodes[index].rpc, method, &params).expect("the node answers")
    }

    /// The result of a request on the operator's port, where management is allowed.
    pub fn manage(&self, index: usize, method: &str, params: Value) -> Value {
        self.reply(self.nodes[index].operator, method, &params).expect("the node answers")["result"].clone()
    }

    fn reply(&self, address: SocketAddr, method: &str, params: &Value) -> Option<Value> {
        let mut answer = self.agent.post(format!("http://{address}")).send(request(method, &params.to_string())).ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }

    /// A node's figures, as a supervisor reads them.
    pub fn metrics(&self, index: usize) -> String {
        let mut answer = self.agent.get(format!("http://{}/metrics", self.nodes[index].operator)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    /// What a node says about itself on the operator's port.
    pub fn status(&self, index: usize) -> Value {
        let mut answer = self.agent.get(format!("http://{}/status", self.nodes[index].operator)).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    fn number(&self, index: usize, method: &str, group: u16) -> Option<u64> {
        let text = self.ask(index, method, json!([group]))?;
        u64::from_str_radix(text.as_str()?.trim_start_matches("0x"), 16).ok()
    }

    /// Height of a group on a node; `None` while it does not answer.
    pub fn height(&self, index: usize, group: u16) -> Option<u64> {
        self.number(index, "getBlockNumber", group)
    }

    /// View of a group on a node.
    pub fn view(&self, index: usize, group: u16) -> Option<u64> {
        self.number(index, "getPbftView", group)
    }

    /// Hash of a block, with which goes everything before it.
    pub fn block(&self, index: usize, group: u16, number: u64) -> Option<String> {
        let hash = self.ask(index, "getBlockHashByNumber", json!([group, number.to_string()]))?;
        hash.as_str().map(str::to_owned)
    }

    /// Waits until a node has more than `height` blocks of a group.
    pub fn wait_above(&self, index: usize, group: u16, height: u64) {
        eventually(&format!("node {index} gets above block {height} of group {group}"), || self.height(index, group) > Some(height));
    }

    /// Waits until nodes have the same head of a group, that of the highest of them now or a later one; its number.
    pub fn wait_agreement(&self, nodes: &[usize], group: u16) -> u64 {
        let target = nodes.iter().filter_map(|node| self.height(*node, group)).max().expect("one of them answers");
        nodes.iter().for_each(|node| {
            eventually(&format!("node {node} has block {target} of group {group}"), || self.height(*node, group) >= Some(target))
        });
        let hashes: Vec<_> = nodes.iter().map(|node| self.block(*node, group, target).unwrap()).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "FORK at block {target} of group {group}: {hashes:?}");
        target
    }

    /// Sealers or observers of a group, as a node sees them: `getSealerList`, `getObserverList`.
    pub fn members(&self, index: usize, method: &str, group: u16) -> Vec<String> {
        let list = self.ask(index, method, json!([group])).unwrap_or_default();
        list.as_array().into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
    }

    /// Changes the role of a node by a transaction of the Consensus contract, `addSealer`, `addObserver` or `remove`, through node `via`;
    /// waits for the receipt.
    pub fn change_role(&self, via: usize, group: u16, function: &str, node: usize) {
        let data = Encoder::call(selector(&format!("{function}(string)"))).string(&self.nodes[node].id).finish();
        let receipt = self.execute(via, group, CONSENSUS, data);
        assert_eq!(receipt["status"], "0x0", "{function} of node {node}: {receipt}");
        let code = receipt["output"].as_str().unwrap().to_owned();
        assert!(code.ends_with("01"), "{function} of node {node} gives {code}");
    }

    /// Sends a transaction to a contract and waits for its receipt.
    pub fn execute(&self, via: usize, group: u16, contract: Address, data: Bytes) -> Value {
        let hash = self.send(via, group, contract, data);
        let mut found = Value::Null;
        eventually("the receipt", || {
            found = self.ask(via, "getTransactionReceipt", json!([group, hash])).unwrap_or_default();
            found.is_object()
        });
        found
    }

    /// Sends a transaction and gives its hash.
    pub fn send(&self, via: usize, group: u16, to: Address, data: Bytes) -> Value {
        let raw = self.transaction(via, group, to, data);
        let reply = self.whole(via, "sendRawTransaction", json!([group, hex::encode_prefixed(raw)]));
        assert!(reply["result"].is_string(), "{reply}");
        reply["result"].clone()
    }

    /// A signed transaction; each differs from all before.
    pub fn transaction(&self, via: usize, group: u16, to: Address, data: Bytes) -> Bytes {
        self.nonce.set(self.nonce.get() + 1);
        let transaction = Transaction {
            nonce: U256::from(self.nonce.get()),
            gas_price: U256::from(30_000_000),
            gas: U256::from(30_000_000),
            block_limit: U256::from(self.height(via, group).unwrap() + 500),
            to: Some(to),
            data,
            chain_id: U256::from(1),
            group_id: U256::from(group),
            ..Transaction::default()
        };
        transaction.sign(&KeyPair::from_secret(&[7; 32]).unwrap()).encoded().clone()
    }

    /// Loads nodes with transfers until the load is finished, at a rate, unless the arguments of txgen say otherwise.
    pub fn load(&self, nodes: &[usize], arguments: &[&str]) -> Load {
        self.load_at_most(nodes, &[&["--count", "16000", "--rate", "400", "--accounts", "100", "--batch", "20"], arguments].concat())
    }

    /// Loads nodes as fast as they take it, unless the arguments of txgen name a rate.
    pub fn load_at_most(&self, nodes: &[usize], arguments: &[&str]) -> Load {
        let txgen = Path::new(env!("CARGO_BIN_EXE_millrace")).with_file_name("txgen");
        assert!(txgen.exists(), "build the workspace first: {} is missing", txgen.display());
        let number = self.nonce.get();
        self.nonce.set(number + 1);
        let (stop, json, log) = (self.file("stop", number), self.file("json", number), self.file("log", number));
        let urls: Vec<String> = nodes.iter().map(|node| format!("http://{}", self.nodes[*node].rpc)).collect();
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(txgen);
        command.args(["--rpc", &urls.join(","), "--timeout", "60", "--request-timeout", "3"]).args(arguments);
        command.arg("--json").arg(&json).arg("--stop-file").arg(&stop);
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Load { child, stop, json, log }
    }

    fn file(&self, kind: &str, number: u64) -> PathBuf {
        self.scratch.path().join(format!("load{number}.{kind}"))
    }

    /// Checks the whole database of a node's group: chain of hashes, roots and signatures. The node must not run.
    pub fn verify(&self, index: usize, group: u16) {
        let directory = self.nodes[index].directory.to_string_lossy().into_owned();
        self.millrace(&["db", "verify", "--group", &group.to_string(), "--dir", &directory]);
    }

    /// A node's resident memory in bytes.
    pub fn memory(&self, index: usize) -> u64 {
        let process = self.nodes[index].process.as_ref().expect("it runs").id();
        let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// The first port of the cluster's block.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() && std::env::var_os("MILLRACE_KEEP").is_some() {
            let kept = std::mem::replace(&mut self.scratch, tempfile::tempdir().unwrap()).keep();
            eprintln!("kept: {}", kept.display());
        }
    }
}

/// A load generator that runs.
pub struct Load {
    child: Child,
    stop: PathBuf,
    json: PathBuf,
    log: PathBuf,
}

impl Load {
    /// Waits until it has something committed: accounts exist, and blocks of the load follow.
    pub fn wait_flowing(&self, cluster: &Cluster, node: usize, group: u16) {
        let sum = |value: Value| u64::from_str_radix(value["txSum"].as_str()?.trim_start_matches("0x"), 16).ok();
        let total = || cluster.ask(node, "getTotalTransactionCount", json!([group])).and_then(sum);
        // Two for each of the accounts at most, with the contract.
        eventually(&format!("the load flows in group {group}"), || total() > Some(250));
    }

    /// Ends it, and checks as [`Self::join`] does.
    pub fn finish(self) -> Value {
        fs::write(&self.stop, "").unwrap();
        self.join()
    }

    /// Waits for its end: all that it was told of must be on all nodes once. Its figures.
    pub fn join(mut self) -> Value {
        let status = self.child.wait().unwrap();
        let said = fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{said}");
        let figures: Value = serde_json::from_str(&fs::read_to_string(&self.json).unwrap()).unwrap();
        assert_eq!(figures["checks"]["findings"], json!([]), "{figures}");
        figures
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// Waits until something holds, and says how long it took.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap().success());
}

/// The value of a key of an ini file.
pub fn setting(file: &Path, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
    line.unwrap_or_else(|| panic!("{} has no {key}", file.display())).trim().to_owned()
}

/// Replaces the value of a key of an ini file.
pub fn set(file: &Path, key: &str, value: &str) {
    let text = fs::read_to_string(file).unwrap();
    let is_it = |line: &&str| line.trim().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    assert_eq!(text.lines().filter(is_it).count(), 1, "{key} is once in {}", file.display());
    let replace = |line: &str| if is_it(&line) { format!("{key}={value}\n") } else { format!("{line}\n") };
    fs::write(file, text.lines().map(replace).collect::<String>()).unwrap();
}
