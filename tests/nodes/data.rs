//! The life of data: snapshots and files of running nodes, nodes that start from them, pruned blocks.
//!
//! Long chains and large states are not run but written: blocks without transactions whose effects stand in their state roots, signed
//! with the keys of the chain's nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use millrace::config::NodeConfig;
use millrace::keys::{Access, read_node_key};
use millrace_access::blockchain::Commit;
use millrace_backends::rocksdb::{Budget, RocksStorage, SharedResources};
use millrace_base::{Address, Block, BlockHeader, BlockSignature, KeyPair, U256, keccak256, merkle};
use millrace_core::{AccountRecord, Durability, StateCommitment, StateKey, StateValue};
use millrace_ledger::{Ledger, LedgerConfig};
use serde_json::json;

use super::cluster::{Cluster, Node, Place, eventually};

const ALL: [usize; 4] = [0, 1, 2, 3];

fn built(nodes: usize) -> Cluster {
    Cluster::build(Place { machines: vec!["--nodes".into(), nodes.to_string()], prefixes: Vec::new() }, &["--groups", "1"])
}

fn directory(cluster: &Cluster, node: usize) -> String {
    cluster.nodes[node].directory.to_string_lossy().into_owned()
}

fn database(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].directory.join("data/group1/block")
}

/// Runs `millrace db` for group 1 of a node.
fn db(cluster: &Cluster, node: usize, command: &[&str], target: Option<&Path>) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_millrace"));
    run.arg("db").args(command).args(["--dir", &directory(cluster, node), "--group", "1"]).args(target);
    run.output().unwrap()
}

/// What a command said, which must succeed.
fn said(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// What a command said, which must fail with this exit code.
fn refused(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// The state root and head that `db verify` names.
fn verified(cluster: &Cluster, node: usize) -> String {
    let text = said(&db(cluster, node, &["verify"], None));
    text.split("head ").nth(1).unwrap().split(" (").next().unwrap().to_owned()
}

/// A group written block by block, not run.
struct Written {
    ledger: Ledger,
    keys: Vec<KeyPair>,
    accounts: u64,
}

impl Written {
    /// Into the database of node 0 of a chain that does not run.
    fn begin(cluster: &Cluster) -> Self {
        let config = NodeConfig::read_groups(&cluster.nodes[0].directory.join("config.ini")).unwrap().remove(0);
        let genesis = &config.genesis;
        let key_of = |node: &Node| read_node_key(&node.directory.join("conf/node.key"), Access::OwnerOnly).unwrap();
        let mut keys: Vec<KeyPair> = cluster.nodes.iter().map(key_of).collect();
        keys.sort_by_key(KeyPair::node_id);
        let shared = SharedResources::new(Budget::default()).unwrap();
        let storage = RocksStorage::open(&config.data_path, &shared).unwrap();
        let config = LedgerConfig {
            chain_id: genesis.chain_id,
            genesis: genesis.of_ledger(),
            key: keys[0].clone(),
            durability: Durability::Process,
            cache_bytes: 16 << 20,
            pool_count: 1,
            pool_bytes: 1,
            expiration_ms: 1,
            min_interval_ms: 0,
            ingress_bytes: 1,
        };
        Self { ledger: Ledger::open(config, Arc::new(storage)).unwrap(), keys, accounts: 0 }
    }

    /// Adds blocks that each make so many accounts: a record, and a balance in a token.
    fn grow(&mut self, blocks: u64, accounts: u64) {
        let token = Address::repeat_byte(7);
        let mut commitment = self.ledger.chain().commitment().unwrap();
        let head = self.ledger.chain().head();
        let (mut parent, mut header) = (head.hash, head.header.clone());
        let mut commits = Vec::new();
        for _ in 0..blocks {
            let mut writes = Vec::new();
            for _ in 0..accounts {
                self.accounts += 1;
                let name = keccak256(self.accounts.to_be_bytes());
                let record = AccountRecord { nonce: 1, balance: U256::from(self.accounts), ..AccountRecord::default() };
                writes.push((StateKey::Account(Address::from_word(name)), Some(StateValue::Account(record))));
                let balance = U256::from_be_bytes(name.0) >> 192 | U256::from(1);
                writes.push((StateKey::Slot(token, 0, name.into()), Some(StateValue::Slot(balance))));
            }
            writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
            let StateCommitment::Storage(accumulator) = &mut commitment else { panic!("the group has no tries") };
            writes.iter().for_each(|(key, value)| accumulator.replace(key, None, value.as_ref()));
            let root = accumulator.root();
            header = BlockHeader {
                parent_hash: parent,
                state_root: root,
                db_hash: root,
                transactions_root: merkle::root(&[]),
                receipts_root: merkle::root(&[]),
                number: header.number + 1,
                timestamp_ms: header.timestamp_ms + 1,
                sealer_list: self.keys.iter().map(KeyPair::node_id).collect(),
                ..BlockHeader::default()
            };
            let hash = header.hash();
            parent = hash;
            // A quorum, as blocks have.
            let quorum = self.keys.len() - (self.keys.len() - 1) / 3;
            let sign = |(index, key): (u32, &KeyPair)| BlockSignature { index, signature: key.sign(hash) };
            let signatures = (0..).zip(&self.keys[..quorum]).map(sign).collect();
            let block = Arc::new(Block { header: header.clone(), hash, signatures, transactions: Vec::new(), receipts: Vec::new() });
            commits.push(Commit { block, writes, nodes: Vec::new(), commitment: commitment.clone(), epoch_start: None });
            if commits.len() == 100 {
                self.ledger.commit(&commits).unwrap();
                commits.clear();
            }
        }
        self.ledger.commit(&commits).unwrap();
    }
}

#[test]
fn node_that_is_wiped_under_load_starts_from_a_snapshot_or_from_files_and_follows_the_chain() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let load = cluster.load(&[0, 1], &["--count", "100000", "--rate", "200"]);
    load.wait_flowing(&cluster, 0, 1);
    let (snapshot, files) = (cluster.chain().join("snapshot"), cluster.chain().join("files"));
    fs::create_dir(&files).unwrap();
    said(&db(&cluster, 0, &["snapshot", "create"], Some(&snapshot)));
    let text = refused(&db(&cluster, 0, &["snapshot", "create"], Some(&snapshot)), 64);
    assert!(text.contains("there already") && text.contains("what to do"), "{text}");

    // A sealer whose disk was lost, but for its votes.
    cluster.kill(3);
    let text = refused(&db(&cluster, 3, &["snapshot", "restore"], Some(&snapshot)), 64);
    assert!(text.contains("holds blocks"), "{text}");
    fs::remove_dir_all(database(&cluster, 3)).unwrap();
    said(&db(&cluster, 3, &["snapshot", "verify"], Some(&snapshot)));
    said(&db(&cluster, 3, &["snapshot", "restore"], Some(&snapshot)));
    cluster.verify(3, 1);
    let before = cluster.height(0, 1).unwrap();
    cluster.start_node(3);
    cluster.wait_above(3, 1, before);
    cluster.wait_agreement(&ALL, 1);

    // The same from files, exported beside the running node.
    cluster.kill(2);
    said(&db(&cluster, 0, &["export"], Some(&files)));
    let text = refused(&db(&cluster, 0, &["import"], Some(&files)), 67);
    assert!(text.contains("in use by another process"), "{text}");
    fs::remove_dir_all(database(&cluster, 2)).unwrap();
    said(&db(&cluster, 2, &["import"], Some(&files)));
    cluster.verify(2, 1);
    let before = cluster.height(0, 1).unwrap();
    cluster.start_node(2);
    cluster.wait_above(2, 1, before);
    load.finish();
    cluster.wait_agreement(&ALL, 1);
    let code = |node| cluster.ask(node, "getCode", json!([1, "0x0000000000000000000000000000000000001000"]));
    assert_eq!(code(3), code(0));
    // All four are needed when one of them is gone: who was restored votes.
    cluster.kill(1);
    let receipt = cluster.execute(3, 1, Address::repeat_byte(9), Default::default());
    assert!(receipt["blockNumber"].is_string(), "{receipt}");
    cluster.kill_all();
    ALL.iter().for_each(|node| cluster.verify(*node, 1));
}

#[test]
fn pruned_blocks_are_named_to_clients_and_peers_and_the_chain_goes_on() {
    let mut cluster = built(2);
    let mut written = Written::begin(&cluster);
    written.ledger.chain().keep(Some(2_000));
    written.grow(2_300, 1);
    drop(written);
    for node in [0, 1] {
        let settings = cluster.nodes[node].directory.join("conf/group.1.ini");
        let text = fs::read_to_string(&settings).unwrap().replace(";keep_blocks=100000", "keep_blocks=2000");
        fs::write(settings, text).unwrap();
    }
    assert!(said(&db(&cluster, 0, &["verify"], None)).contains("bodies from 301 on"));
    let figures = said(&db(&cluster, 0, &["stats", "--count"], None));
    assert!(figures.contains("from block 301 on, 2000 blocks") && figures.contains("Receipts"), "{figures}");
    let file = cluster.chain().join("all.blocks");
    assert!(refused(&db(&cluster, 0, &["export"], Some(&file)), 64).contains("--from 301"));
    let snapshot = cluster.chain().join("snapshot");
    said(&db(&cluster, 0, &["snapshot", "create"], Some(&snapshot)));

    // Node 1 has nothing, and node 0 does not keep what it needs.
    cluster.start_all();
    let error = cluster.whole(0, "getBlockByNumber", json!([1, "5", false]))["error"].clone();
    assert_eq!(error["code"], -40_100, "{error}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("block 5 is not kept on this node: it keeps transactions and receipts from block 301 on")
    );
    assert!(cluster.ask(0, "getBlockHeaderByNumber", json!([1, "5", true])).unwrap().is_object());
    assert!(cluster.ask(0, "getBlockByNumber", json!([1, "301", false])).unwrap().is_object());
    assert!(cluster.ask(0, "getBlockByNumber", json!([1, "0", false])).unwrap().is_object());
    eventually("node 1 says what it lacks", || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_millrace")).args(["node", "status", "--why", "--dir", &directory(&cluster, 1)]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).contains("keeps block 1, which this node needs next, only blocks from 301 on")
    });
    assert_eq!(cluster.height(1, 1), Some(0));

    // From the snapshot it can join; both are needed to go on.
    cluster.stop(1);
    fs::remove_dir_all(database(&cluster, 1)).unwrap();
    said(&db(&cluster, 1, &["snapshot", "restore"], Some(&snapshot)));
    cluster.start_node(1);
    for _ in 0..3 {
        let receipt = cluster.execute(1, 1, Address::repeat_byte(9), Default::default());
        assert!(receipt["blockNumber"].is_string(), "{receipt}");
    }
    cluster.wait_agreement(&[0, 1], 1);
    let error = cluster.whole(0, "getBlockByNumber", json!([1, "302", false]))["error"].clone();
    assert_eq!(error["code"], -40_100, "pruning went on: {error}");
    assert!(
        cluster.whole(1, "getBlockByNumber", json!([1, "1300", false]))["error"]["message"]
            .as_str()
            .unwrap()
            .contains("from block 1301 on")
    );
    cluster.kill_all();
    [0, 1].iter().for_each(|node| cluster.verify(*node, 1));
}

/// Processor time of all commands that have ended, seconds.
fn processor_s() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    // Fields 16 and 17 of proc(5), in hundredths; the first behind the name is the third.
    fields[13..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Runs a command of a node that must succeed, and prints what it said and took.
fn measured(cluster: &Cluster, node: usize, command: &[&str], target: Option<&Path>) {
    let before = processor_s();
    let text = said(&db(cluster, node, command, target));
    eprintln!("{}: {:.1} s of processor time: {}", command.join(" "), processor_s() - before, text.trim());
}

/// Sizes from the environment make this the measurement of `perf/README.md`.
#[test]
fn large_state_is_snapshot_and_restored_to_the_same_root_and_one_flipped_byte_is_refused() {
    let size = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (accounts, blocks) = (size("MILLRACE_ACCOUNTS", 20_000), size("MILLRACE_BLOCKS", 100));
    let cluster = built(4);
    let mut written = Written::begin(&cluster);
    written.grow(blocks, accounts / blocks);
    drop(written);
    let snapshot = cluster.chain().join("snapshot");
    measured(&cluster, 0, &["snapshot", "create"], Some(&snapshot));
    measured(&cluster, 1, &["snapshot", "verify"], Some(&snapshot));
    measured(&cluster, 1, &["snapshot", "restore"], Some(&snapshot));
    measured(&cluster, 0, &["verify"], None);
    assert_eq!(verified(&cluster, 0), verified(&cluster, 1));
    let chunk = snapshot.join("state-000000.chunk");
    let mut bytes = fs::read(&chunk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&chunk, bytes).unwrap();
    let text = refused(&db(&cluster, 2, &["snapshot", "verify"], Some(&snapshot)), 1);
    assert!(text.contains("state-000000.chunk") && text.contains("digest") && text.contains("what to do"), "{text}");
    let text = refused(&db(&cluster, 2, &["snapshot", "restore"], Some(&snapshot)), 67);
    assert!(text.contains("state-000000.chunk") && text.contains("digest"), "{text}");
    assert!(!database(&cluster, 2).exists(), "nothing is left of it");
}
