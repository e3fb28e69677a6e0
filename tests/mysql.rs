//! Nodes whose groups lie in a SQL database, on a MariaDB that each test starts for itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::config::NodeConfig;
use millrace_access::blockchain::{Commit, read_block};
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock};
use millrace_backends::mysql::private_server::PrivateServer;
use millrace_backends::mysql::{MysqlStorage, Owner, Secret};
use millrace_backends::rocksdb::{Budget, RocksStorage, SharedResources};
use millrace_base::{Block, keccak256};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{Durability, Space, Storage};
use millrace_ledger::{Ledger, LedgerConfig};

use crate::network::{NODES, Network, Setup, reserve_ports, txgen, verify};

/// Kills of the server under load, unless the environment says otherwise.
const KILLS: usize = 3;
const KILLS_VARIABLE: &str = "MILLRACE_MYSQL_KILLS";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

const PASSWORD: &str = "of-the-test";

/// A server beside the network; `None`, with a message, where MariaDB cannot be run.
fn server(directory: &Path) -> Option<(PrivateServer, u16)> {
    if !PrivateServer::is_installed() {
        eprintln!("skipped: MariaDB is not installed; run apt-get install --no-install-recommends mariadb-server-core mariadb-client-core");
        return None;
    }
    let port = PrivateServer::free_port().unwrap();
    let mut server = PrivateServer::new(&directory.join("server"), port, Secret::new(PASSWORD), &[]).unwrap();
    server.start().unwrap();
    Some((server, port))
}

fn network_on(port: u16) -> Network {
    let address = format!("127.0.0.1:{port}");
    let setup = Setup {
        arguments: &["--storage", "mysql", "--mysql", &address],
        environment: &[("MILLRACE_MYSQL_PASSWORD", PASSWORD)],
        ..Setup::default()
    };
    Network::start_with(1, setup)
}

fn logs(directory: &Path) -> String {
    let files = fs::read_dir(directory.join("127.0.0.1/node0/log")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
}

fn millrace(arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).arg("--dir").arg(directory).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn devnet_with_a_server_of_its_own_is_loaded_stopped_checked_and_started_again() {
    if !PrivateServer::is_installed() {
        eprintln!("skipped: MariaDB is not installed");
        return;
    }
    let mut network = Network::start_with(1, Setup { arguments: &["--storage", "mysql"], ..Setup::default() });
    for workload in ["transfer", "token", "table"] {
        let output = txgen(&network, &["--group", "1", "--workload", workload, "--count", "500"]);
        assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let node = network.directory().join("127.0.0.1/node0");
    assert!(millrace(&["db", "verify"], &node).contains("group 1: clean"), "beside the running node");
    let stats = millrace(&["db", "stats"], &node);
    assert!(stats.contains("kv_transaction_index") && stats.contains("transactions.estimate-rows"), "{stats}");
    blocks_and_state_move(&network, &node);
    let told = network.block(1, network.height(1));
    let pid = fs::read_to_string(network.directory().join("mysql/server.pid")).unwrap();
    network.halt();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the server has ended with its network");
    network.restart();
    assert_eq!(network.block(1, told.0), told);
    let output = txgen(&network, &["--group", "1", "--workload", "token", "--count", "200"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pid = fs::read_to_string(network.directory().join("mysql/server.pid")).unwrap();
    network.kill();
    let deadline = Instant::now() + PATIENCE;
    while Path::new("/proc").join(pid.trim()).join("exe").read_link().is_ok() {
        assert!(Instant::now() < deadline, "the server goes on although its network was killed");
        std::thread::sleep(Duration::from_millis(20));
    }
    network.restart();
    assert!(network.height(1) >= told.0);
    let said = logs(network.directory());
    let ini = fs::read_to_string(node.join("conf/group.1.ini")).unwrap();
    let password = ini.lines().find_map(|line| line.trim().strip_prefix("db_passwd=")).unwrap();
    assert!(password.len() == 32 && !said.contains(password), "a password is never logged");
}

/// Out of the server's database beside the running node, and into RocksDB; what writes to a server's database is refused.
fn blocks_and_state_move(network: &Network, node: &Path) {
    let height = network.height(1);
    let path = |name: &str| network.directory().join(name).to_str().unwrap().to_owned();
    let (file, snapshot) = (path("all.blocks"), path("snapshot"));
    let with = |command: &[&str], target: &str| -> Vec<String> {
        command.iter().chain(&["--group", "1", target]).map(|word| (*word).to_owned()).collect()
    };
    let run = |command: &[&str], target: &str, directory: &Path| {
        let arguments = with(command, target);
        millrace(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), directory)
    };
    run(&["db", "export"], &file, node);
    run(&["db", "snapshot", "create"], &snapshot, node);
    for (command, target) in [(&["db", "import"][..], &file), (&["db", "snapshot", "restore"], &snapshot)] {
        let mut refused = Command::new(env!("CARGO_BIN_EXE_millrace"));
        let output = refused.args(with(command, target)).arg("--dir").arg(node).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("into RocksDB only"), "{command:?}: {said}");
    }
    for (command, target) in [(&["db", "import"][..], &file), (&["db", "snapshot", "restore"], &snapshot)] {
        let other = network.directory().join(command[1]);
        fs::create_dir_all(other.join("conf")).unwrap();
        fs::copy(node.join("config.ini"), other.join("config.ini")).unwrap();
        for entry in fs::read_dir(node.join("conf")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), other.join("conf").join(entry.file_name())).unwrap();
        }
        let settings = other.join("conf/group.1.ini");
        let text = fs::read_to_string(&settings).unwrap().replace("type=mysql", "type=rocksdb");
        fs::write(settings, text).unwrap();
        run(command, target, &other);
        assert!(millrace(&["db", "verify"], &other).contains(&format!("clean: blocks 0 to {height}")), "{command:?}");
    }
}

#[test]
fn server_killed_under_load_costs_waiting_and_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let Some((mut server, port)) = server(directory.path()) else { return };
    let mut network = network_on(port);
    let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let stop = directory.path().join("stop").display().to_string();
    let count = (10_000 + 4_000 * kills).to_string();
    let load = ["--group", "1", "--workload", "transfer", "--accounts", "100", "--rate", "300", "--count", &count, "--timeout", "100"];
    let mut load = network.txgen_in_background(&[&load[..], &["--stop-file", &stop]].concat());
    for round in 0..kills {
        network.wait_for_height_above(1, network.height(1) + 5);
        let told = network.block(1, network.height(1));
        server.kill();
        // Queries fail or are answered, within a bounded time; the node lives.
        let asked = Instant::now();
        network.ask("getBlockByNumber", "[1,\"1\",true]");
        assert!(asked.elapsed() < Duration::from_secs(20), "round {round}: a query waited for {:?}", asked.elapsed());
        std::thread::sleep(Duration::from_millis(1_500));
        server.start().unwrap();
        network.wait_for_height_above(1, told.0 + 2);
        assert_eq!(network.block(1, told.0), told, "round {round}: the block that a client had seen");
        assert!(!load.has_ended(), "round {round}: the load has ended");
    }
    fs::write(&stop, "").unwrap();
    assert!(load.succeeds(), "an acknowledged transaction has no receipt, or balances are wrong");
    let said = logs(network.directory());
    assert!(said.contains("the database is away") && !said.contains("group halted"), "{said}");
    assert!(!said.contains(PASSWORD), "a password is never logged");
    let height = network.height(1);
    network.halt();
    verify(network.directory(), "1");
    network.restart();
    assert_eq!(network.height(1), height);
}

#[test]
fn second_process_on_a_database_fences_the_first_off() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_server, port)) = server(directory.path()) else { return };
    let first = network_on(port);
    let output = txgen(&first, &["--group", "1", "--workload", "transfer", "--count", "200"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copy = directory.path().join("copy");
    assert!(Command::new("cp").arg("-a").arg(first.directory()).arg(&copy).status().unwrap().success());
    let second = Second::start(&copy);
    let load = first.txgen_in_background(&["--group", "1", "--workload", "transfer", "--count", "100", "--timeout", "5"]);
    let deadline = Instant::now() + PATIENCE;
    while !logs(first.directory()).contains("was taken over by node") {
        assert!(Instant::now() < deadline, "the first process does not say that it was fenced off");
        std::thread::sleep(Duration::from_millis(50));
    }
    load.end();
    second.load();
    drop(second);
    verify(&copy, "1");
}

/// A network on a copy of another one's directory.
struct Second {
    child: Child,
    url: String,
    _reservation: TcpListener,
}

impl Second {
    fn start(directory: &Path) -> Self {
        let reservation = reserve_ports();
        let port = reservation.local_addr().unwrap().port() + 1;
        let mut child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["devnet", "--json", "--rpc-port", &port.to_string()])
            .args(["--channel-port", &(port + NODES).to_string(), "--p2p-port", &(port + 2 * NODES).to_string(), "--dir"])
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"rpc\""), "the second node did not become ready");
        Self { child, url: format!("http://127.0.0.1:{port}"), _reservation: reservation }
    }

    fn load(&self) {
        let program = Path::new(env!("CARGO_BIN_EXE_millrace")).with_file_name("txgen");
        let output = Command::new(program).args(["--rpc", &self.url, "--workload", "transfer", "--count", "200"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ledger that takes the blocks of another chain.
struct Replay {
    name: &'static str,
    ledger: Ledger,
    executor: BlockExecutor,
    took: Duration,
}

impl Replay {
    fn new(name: &'static str, config: &NodeConfig, storage: Arc<dyn Storage>) -> Self {
        let group = &config.groups[0].genesis;
        let ledger = LedgerConfig {
            chain_id: config.chain_id,
            genesis: group.of_ledger(),
            key: config.key.clone(),
            durability: Durability::Power,
            cache_bytes: 64 << 20,
            pool_count: 1_000,
            pool_bytes: 1 << 20,
            expiration_ms: 600_000,
            min_interval_ms: 0,
            ingress_bytes: 1 << 20,
        };
        let executor = BlockExecutor::new(group.rules);
        Self { name, ledger: Ledger::open(ledger, storage).unwrap(), executor, took: Duration::ZERO }
    }

    /// Executes and commits a block; its hash, which names state and receipts, must be the recorded one.
    fn apply(&mut self, recorded: &Block) {
        let begun = Instant::now();
        let chain = self.ledger.chain();
        let commitment = chain.commitment().unwrap();
        let order = BlockOrder {
            parent_hash: chain.head().hash,
            number: recorded.header.number,
            timestamp_ms: recorded.header.timestamp_ms,
            tx_gas_limit: self.ledger.epoch().tx_gas_limit,
            sealer: recorded.header.sealer,
            sealer_list: recorded.header.sealer_list.clone(),
            transactions: recorded.transactions.clone(),
            state: chain.state(),
            commitment: &commitment,
            hashes: chain,
        };
        let ExecutedBlock { block, writes, nodes, commitment } = self.executor.execute(order).unwrap();
        assert_eq!(block.hash, recorded.hash, "block {} over {}", recorded.header.number, self.name);
        let block = Arc::new(Block { signatures: recorded.signatures.clone(), ..block });
        self.ledger.commit(&[Commit { block, writes, nodes, commitment, epoch_start: None }]).unwrap();
        self.took += begun.elapsed();
    }
}

/// Everything in a database: how much there is, and a digest of it.
fn content(storage: &dyn Storage) -> Vec<(Space, u64, [u8; 32])> {
    let digest = |space: Space| {
        let (mut count, mut bytes) = (0, Vec::new());
        let mut add = |key: &[u8], value: &[u8]| {
            count += 1;
            bytes.extend_from_slice(&(key.len() as u64).to_be_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
            bytes.extend_from_slice(value);
            ControlFlow::Continue(())
        };
        storage.scan(space, b"", b"", &mut add).unwrap();
        (space, count, keccak256(&bytes).0)
    };
    Space::ALL.into_iter().map(digest).collect()
}

#[test]
fn same_blocks_give_the_same_hashes_and_state_over_every_engine() {
    let directory = tempfile::tempdir().unwrap();
    let Some((server, _)) = server(directory.path()) else { return };
    let network = Network::start(1);
    for workload in ["transfer", "solidity", "token", "table"] {
        let output = txgen(&network, &["--group", "1", "--workload", workload, "--count", "3000", "--accounts", "200"]);
        assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let run = network.stop();
    let config = NodeConfig::load(&run.join("127.0.0.1/node0/config.ini")).unwrap();
    let shared = SharedResources::new(Budget::default()).unwrap();
    let recorded = RocksStorage::open_read_only(&config.groups[0].data_path, &shared).unwrap();
    let owner = Owner { group: config.groups[0].genesis.group, name: "the test".into(), durability: Durability::Power };
    let database = server.create_database("replay").unwrap();
    let storages: [(&str, Arc<dyn Storage>); 3] = [
        ("memory", Arc::new(MemoryStorage::new())),
        ("rocksdb", Arc::new(RocksStorage::open(&directory.path().join("rocksdb"), &shared).unwrap())),
        ("mysql", Arc::new(MysqlStorage::open(&database, &owner).unwrap())),
    ];
    let mut replays: Vec<Replay> = storages.iter().map(|(name, storage)| Replay::new(name, &config, Arc::clone(storage))).collect();
    let height = recorded.height().unwrap().unwrap();
    let mut transactions = 0;
    for number in 1..=height {
        let block = read_block(&|space, key| recorded.get(space, key), number).unwrap().unwrap();
        transactions += block.transactions.len();
        replays.iter_mut().for_each(|replay| replay.apply(&block));
    }
    let expected = content(&recorded);
    for (replay, (name, storage)) in replays.iter().zip(&storages) {
        assert_eq!(content(&**storage), expected, "{name}");
        let rate = transactions as f64 / replay.took.as_secs_f64();
        eprintln!("{name}: {transactions} transactions in {height} blocks, executed serially and committed one by one: {rate:.0} a second");
    }
}
