//! A devnet in a directory of its own, on ports of its own; it stops when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports of one network: a reserved one, then as many for each protocol as a network may have nodes.
const PORTS: u16 = 32;
/// Distance between the ports of one protocol and those of the next.
pub const NODES: u16 = 10;

/// All below those that the kernel gives to outgoing connections, which would take them at random.
const FIRST_PORT: u16 = 10_000;
const BLOCKS: u16 = 700;

/// Takes a block of ports that no other test process on this machine has. The listener on its first port is the reservation.
pub fn reserve_ports() -> TcpListener {
    let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
    let candidates = (0..BLOCKS).map(|step| FIRST_PORT + (start + step) % BLOCKS * PORTS);
    candidates.into_iter().find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("a free block of ports")
}

/// What differs between the networks of tests.
#[derive(Default)]
pub struct Setup<'a> {
    /// Further arguments of `millrace devnet`.
    pub arguments: &'a [&'a str],
    /// Settings (group, key, value) of group.N.ini that take the place of the written ones.
    pub settings: &'a [(u16, &'a str, &'a str)],
    /// Where the network's directory is made; the system's place for such when absent.
    pub parent: Option<&'a Path>,
    /// Where what the node says on its standard error goes; the test's own when absent.
    pub errors: Option<PathBuf>,
    /// Variables of the node's environment.
    pub environment: &'a [(&'a str, &'a str)],
}

/// See the module.
pub struct Network {
    child: Option<Child>,
    groups: u16,
    directory: tempfile::TempDir,
    port: u16,
    _reservation: TcpListener,
    arguments: Vec<String>,
    errors: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Network {
    /// Starts one node with groups 1..=`groups`.
    pub fn start(groups: u16) -> Self {
        Self::start_with(groups, Setup::default())
    }

    /// Starts one node with groups 1..=`groups`, set up as a test needs it.
    pub fn start_with(groups: u16, setup: Setup<'_>) -> Self {
        let reservation = reserve_ports();
        let port = reservation.local_addr().unwrap().port() + 1;
        let directory = setup.parent.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
        let arguments = setup.arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let environment = setup.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut network =
            Self { child: None, groups, directory, port, _reservation: reservation, arguments, errors: setup.errors, environment };
        network.restart();
        if !setup.settings.is_empty() {
            network.halt();
            setup.settings.iter().for_each(|(group, key, value)| network.set(*group, key, value));
            network.restart();
        }
        network
    }

    /// Replaces a setting of a group; the next start applies it.
    fn set(&self, group: u16, key: &str, value: &str) {
        let path = self.directory().join(format!("127.0.0.1/node0/conf/group.{group}.ini"));
        let text = fs::read_to_string(&path).unwrap();
        let is_setting = |line: &&str| line.trim().starts_with(&format!("{key}="));
        assert_eq!(text.lines().filter(is_setting).count(), 1, "{key} is written once in {}", path.display());
        let replace = |line: &str| if is_setting(&line) { format!("{key}={value}\n") } else { format!("{line}\n") };
        fs::write(&path, text.lines().map(replace).collect::<String>()).unwrap();
    }

    /// Starts the node again in its directory and waits until it serves.
    pub fn restart(&mut self) {
        let port = |offset: u16| (self.port + offset).to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["devnet", "--nodes", "1", "--json", "--groups", &self.groups.to_string()])
            .args(["--rpc-port", &port(0), "--channel-port", &port(NODES), "--p2p-port", &port(2 * NODES)])
            .args(&self.arguments)
            .arg("--dir")
            .arg(self.directory())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(self.errors.as_ref().map_or_else(Stdio::inherit, |path| Stdio::from(appended(path))))
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"rpc\""), "the node did not become ready");
        self.child = Some(child);
    }

    /// Where the network lies.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where JSON-RPC is served.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the operator is served: JSON-RPC with management, metrics, health.
    pub fn operator(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 1_000)
    }

    /// Kills the node as a power cut would, as far as the process goes.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops the node in order; the directory stays until the process ends.
    pub fn stop(mut self) -> PathBuf {
        self.halt();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        directory.keep()
    }

    /// Stops the node in order.
    pub fn halt(&mut self) {
        let mut child = self.child.take().unwrap();
        let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(signalled.success());
        assert!(child.wait().unwrap().success(), "the node did not stop in order");
    }

    /// The node's process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// A port of the node: 0 is JSON-RPC, 1 the channel port.
    pub fn socket(&self, door: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port + door * NODES).into()
    }

    /// Whether the process is alive.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Posts a body and gives the answer's text.
    pub fn post(&self, body: &str) -> String {
        let mut answer = ureq::post(self.url()).send(body).unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    /// The whole reply to a request; `params` is JSON.
    pub fn ask(&self, method: &str, params: &str) -> serde_json::Value {
        serde_json::from_str(&self.post(&request(method, params))).unwrap()
    }

    /// The result of a request; null when it was refused.
    pub fn result(&self, method: &str, params: &str) -> serde_json::Value {
        self.ask(method, params)["result"].clone()
    }

    /// Height of a group.
    pub fn height(&self, group: u16) -> u64 {
        let text = self.result("getBlockNumber", &format!("[{group}]"));
        u64::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Height and hash of a block.
    pub fn block(&self, group: u16, number: u64) -> (u64, String) {
        let hash = self.result("getBlockHashByNumber", &format!("[{group},\"{number}\"]"));
        (number, hash.as_str().unwrap().to_owned())
    }

    /// Waits until a group is above a height.
    pub fn wait_for_height_above(&self, group: u16, height: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.height(group) <= height {
            assert!(Instant::now() < deadline, "group {group} stays at {height}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Loads the network until the load is ended.
    pub fn txgen_in_background(&self, arguments: &[&str]) -> Load {
        Load(generator(self, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A load generator that runs.
pub struct Load(Child);

impl Load {
    /// Waits for its own end: whether all that was acknowledged has its receipt and the balances are right.
    pub fn succeeds(mut self) -> bool {
        self.0.wait().unwrap().success()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Ends it.
    pub fn end(mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// The text of a request; `params` is JSON.
pub fn request(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params},\"id\":1}}")
}

fn appended(path: &Path) -> fs::File {
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn generator(network: &Network, arguments: &[&str]) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_millrace")).with_file_name("txgen");
    assert!(binary.exists(), "build the workspace first: {} is missing", binary.display());
    let mut command = Command::new(binary);
    command.args(["--rpc", &network.url()]).args(arguments);
    command
}

/// Runs the load generator to its end.
pub fn txgen(network: &Network, arguments: &[&str]) -> Output {
    generator(network, arguments).output().unwrap()
}

/// Checks a whole database.
pub fn verify(directory: &Path, group: &str) {
    let node = directory.join("127.0.0.1/node0");
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(["db", "verify", "--group", group, "--dir"]).arg(node).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
