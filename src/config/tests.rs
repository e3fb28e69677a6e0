use std::fs;
use std::path::Path;

use millrace_base::fault::FaultKind;
use millrace_base::{GroupId, KeyPair};
use millrace_vm::{EvmRules, Fork};

use super::ini::IniFile;
use super::*;
use crate::certificates::{Algorithm, Authority, KeySource, Leaf, Validity};

/// A 2.x node directory with one group; its files can be replaced before it is loaded.
struct Directory {
    scratch: tempfile::TempDir,
    key: KeyPair,
}

const CONFIG: &str = "[rpc]
    channel_listen_ip=0.0.0.0
    channel_listen_port=20201
    jsonrpc_listen_ip=127.0.0.1
    jsonrpc_listen_port=8546
    disable_dynamic_group=false
[p2p]
    listen_ip=0.0.0.0
    listen_port=30301
    ; nodes to connect
    node.0=127.0.0.1:30300
    node.1=127.0.0.1:30301
[certificate_blacklist]
    ; crl.0 should be nodeid, nodeid's length is 128
    ;crl.0=
[certificate_whitelist]
[group]
    group_data_path=data/
    group_config_path=conf/
[network_security]
    data_path=conf/
    key=node.key
    cert=node.crt
    ca_cert=ca.crt
[storage_security]
    enable=false
    key_manager_ip=
    key_manager_port=
    cipher_data_key=
[chain]
    id=7
    sm_crypto=false
    sm_crypto_channel=false
    rsa_crypto_channel=true
[compatibility]
    supported_version=2.9.1
[log]
    enable=true
    log_path=./log
    level=warning
    max_log_file_size=200
    flush=true
[flow_control]
    ;limit_req=1000
";

const GROUP: &str = "[consensus]
    ttl=2
    min_block_generation_time=500
    enable_dynamic_block_size=true
    block_size_increase_ratio=0.25
    enable_ttl_optimization=true
[storage]
    type=rocksdb
    max_capacity=32
[tx_pool]
    limit=150000
    memory_limit=512
    notify_worker_num=2
    txs_expiration_time=600
[sync]
    idle_wait_ms=200
[flow_control]
    ;limit_req=1000
[sdk_allowlist]
    ;public_key.0=
[tx_execute]
    enable_parallel=true
";

impl Directory {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let key = KeyPair::generate();
        let directory = Self { scratch, key };
        fs::create_dir(directory.path("conf")).unwrap();
        keys::write_secret(&directory.path("conf/node.key"), &keys::key_to_pem(&directory.key)).unwrap();
        directory.write("conf/node.nodeid", &directory.key.node_id().to_string());
        let authority = Authority::root("agency7", Algorithm::P256, Validity::days(100), KeySource::New).unwrap();
        let certificate = authority.issue("node3", &Leaf::Peer(directory.key.node_id()), KeySource::New).unwrap().certificate;
        directory.write("conf/node.crt", &certificate);
        directory.write("config.ini", CONFIG);
        directory.write("conf/group.1.genesis", &directory.genesis());
        directory.write("conf/group.1.ini", GROUP);
        directory
    }

    fn genesis(&self) -> String {
        format!(
            "[consensus]\nconsensus_type=pbft\nmax_trans_num=1000\nconsensus_timeout=3\nnode.0={}\n[state]\ntype=storage\n[tx]\ngas_limit=300000000\n[group]\nid=1\ntimestamp=1609459200000\n[evm]\nenable_free_storage=false\n",
            self.key.node_id()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn load(&self) -> Result<NodeConfig, Fault> {
        NodeConfig::load(&self.path("config.ini"))
    }

    /// Loads with a replacement in one file, then puts the file back.
    fn load_with(&self, name: &str, from: &str, to: &str) -> Result<NodeConfig, Fault> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} holds {from}");
        self.write(name, &text.replacen(from, to, 1));
        let result = self.load();
        self.write(name, &text);
        result
    }
}

#[test]
fn raft_group_has_its_election_times_and_its_name_in_the_mark() {
    use millrace_administration::{Faults, raft::ElectionTimes};
    use millrace_ledger::genesis::{Consensus, faults_of_mark};
    let directory = Directory::new();
    let load = |times: &str| {
        let to = format!("consensus_type=raft{times}");
        directory.load_with("conf/group.1.genesis", "consensus_type=pbft", &to).unwrap().groups.remove(0).genesis
    };
    let plain = load("");
    assert_eq!(plain.consensus, Consensus::Raft(ElectionTimes { min_ms: 1_000, max_ms: 2_000 }));
    let quick = load("\n    min_elect_time=100\n    max_elect_time=300");
    assert_eq!(quick.consensus, Consensus::Raft(ElectionTimes { min_ms: 100, max_ms: 300 }));
    assert!(plain.mark().contains(",-raft-storage-") && plain.mark() == quick.mark(), "{}", plain.mark());
    assert_eq!(faults_of_mark(plain.mark().as_bytes()), Faults::Crash);
    let pbft = directory.load().unwrap().groups.remove(0).genesis;
    assert_eq!(faults_of_mark(pbft.mark().as_bytes()), Faults::Byzantine);
    assert_eq!(faults_of_mark(b"something else"), Faults::Byzantine);
}

#[test]
fn directory_of_2x_is_read_with_its_keys() {
    let directory = Directory::new();
    let config = directory.load().unwrap();
    assert_eq!(config.chain_id, 7);
    assert_eq!(config.supported_version, "2.9.1");
    assert_eq!(config.rpc.listen, "127.0.0.1:8546".parse().unwrap());
    assert_eq!(config.channel_listen, "0.0.0.0:20201".parse().unwrap());
    assert_eq!(config.p2p.listen.port(), 30301);
    assert_eq!(config.p2p.peers, ["127.0.0.1:30300", "127.0.0.1:30301"]);
    assert_eq!((config.agency.as_str(), config.name.as_str()), ("agency7", "node3"));
    assert_eq!(config.durability, Durability::Power);
    assert_eq!(config.operator_listen, None);
    assert_eq!(config.log.level, tracing::Level::WARN);
    assert_eq!(config.log.directory, Some(directory.path("./log")));
    let [group] = &config.groups[..] else { panic!("one group") };
    assert_eq!(group.genesis.sealers, [directory.key.node_id()]);
    assert_eq!(group.genesis.rules, EvmRules::Fisco2 { free_storage: false });
    assert_eq!(group.data_path, directory.path("data/group1/block"));
    assert_eq!(group.pool, PoolConfig { max_transactions: 150_000, max_bytes: 512 << 20, expiration_ms: 600_000 });
}

#[test]
fn channel_port_is_configured_by_the_keys_of_2x() {
    let directory = Directory::new();
    let config = directory.load().unwrap();
    assert_eq!(config.channel.certificates, directory.path("conf/channel_cert"));
    assert!(config.channel.check_issuer && config.groups[0].clients == GroupClients::default());
    let (point, digest) = ("AB".repeat(64), "cd".repeat(32));
    let group = directory.load_with("conf/group.1.ini", ";public_key.0=", &format!("public_key.0={point}\n    public_key.1={digest}"));
    assert_eq!(group.unwrap().groups[0].clients.allowed, [point, digest]);
    let fault = directory.load_with("conf/group.1.ini", ";public_key.0=", "public_key.0=abc").unwrap_err();
    assert!(fault.remedy.contains("128 hexadecimal digits") || fault.to_string().contains("128 hexadecimal digits"), "{fault}");
    let limits = directory.load_with("config.ini", ";limit_req=1000", "limit_req=1000\n    outgoing_bandwidth_limit=2.5").unwrap().channel;
    assert_eq!((limits.requests_per_second, limits.amop_bytes_per_second), (Some(1_000), Some(312_500)));
}

#[test]
fn each_key_without_effect_gets_one_note() {
    let notes = Directory::new().load().unwrap().notes;
    for name in [
        "chain.rsa_crypto_channel",
        "log.flush",
        "consensus.ttl",
        "storage.max_capacity",
        "sync.idle_wait_ms",
        "tx_execute.enable_parallel",
    ] {
        assert_eq!(notes.iter().filter(|note| note.contains(&format!("{name} has no effect"))).count(), 1, "{name} in {notes:?}");
    }
    assert!(!notes.iter().any(|note| note.contains("jsonrpc_listen_port")));
}

#[test]
fn wrong_keys_and_values_are_refused_with_place_and_remedy() {
    let directory = Directory::new();
    let config = "config.ini";
    let (genesis, group) = ("conf/group.1.genesis", "conf/group.1.ini");
    // File, what stands there, what is put there, and texts that the message must hold.
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            config,
            "jsonrpc_listen_port",
            "jsonrpc_listenport",
            &["config.ini:5:", "unknown key \"jsonrpc_listenport\"", "did you mean \"jsonrpc_listen_port\""],
        ),
        (config, "[storage_security]", "[storage_securty]", &["unknown section [storage_securty]", "did you mean [storage_security]"]),
        (config, "listen_port=30301", "supported_version=2.9.1", &["it belongs to section [compatibility]"]),
        (config, "id=7", "zebra=7", &["unknown key \"zebra\"", "known keys: id"]),
        (config, "=8546", "=0", &["rpc.jsonrpc_listen_port=0 is not allowed", "1 to 65535"]),
        (config, "=8546", "=70000", &["1 to 65535"]),
        (config, "=8546", "=-1", &["1 to 65535"]),
        (config, "127.0.0.1\n", "localhost\n", &["IPv4 or IPv6"]),
        (config, "node.0=127.0.0.1:30300", "node.0=127.0.0.1", &["host:port"]),
        (config, "node.0=", "node.x=", &["unknown key \"node.x\"", "did you mean \"node.N\""]),
        (config, "node.0=", "node.1=", &["stands in line 11 already"]),
        (config, "sm_crypto=false", "sm_crypto=true", &["chain.sm_crypto=true is not supported", "supported: false"]),
        (config, "enable=false", "enable=true", &["storage_security.enable=true is not supported"]),
        (
            config,
            "supported_version=2.9.1",
            "supported_version=2.0.0-rc3",
            &["supported_version=2.0.0-rc3 is not supported", "2.9.0 to 2.11"],
        ),
        (config, "supported_version=2.9.1", "supported_version=3.0.0", &["3.0.0 is not supported"]),
        (config, "supported_version=2.9.1", "", &["supported_version is missing"]),
        (config, "level=warning", "level=loud", &["one of: trace, debug"]),
        (config, "enable=true", "enable=yes", &["true or false"]),
        (config, "[rpc]", "[rpc", &["config.ini:1:", "ends with ]"]),
        (config, "[group]", "[rpc]", &["section [rpc] stands in line 1 already"]),
        (config, "    id=7", "    id 7", &["neither [section] nor key=value"]),
        (config, "[rpc]\n", "", &["stands before the first [section]"]),
        (config, "key=node.key", "key=other.key", &["cannot read the key", "other.key"]),
        (config, "cert=node.crt", "cert=other.crt", &["the certificate", "other.crt"]),
        (config, "group_config_path=conf/", "group_config_path=none/", &["cannot list", "group.group_config_path"]),
        (
            genesis,
            "consensus_type=pbft",
            "consensus_type=rpbft",
            &["consensus.consensus_type=rpbft is not supported", "supported: pbft, raft"],
        ),
        (
            genesis,
            "consensus_type=pbft",
            "consensus_type=raft\nmin_elect_time=900\nmax_elect_time=900",
            &["consensus.max_elect_time=900 is not above", "twice min_elect_time"],
        ),
        (genesis, "consensus_type=pbft", "consensus_type=pbtf", &["one of: pbft, raft"]),
        (genesis, "type=storage", "type=mtp", &["one of: storage, mpt"]),
        (genesis, "consensus_timeout=3", "consensus_timeout=2", &["3 to 4294966 (seconds)"]),
        (genesis, "gas_limit=300000000", "gas_limit=99999", &["100000 to"]),
        (genesis, "max_trans_num=1000", "max_trans_num=0", &["a number from 1"]),
        (genesis, "node.0=", "node.0=zz", &["128 hexadecimal digits"]),
        (genesis, "node.0=", ";node.0=", &["the group has no sealer"]),
        (genesis, "id=1\n", "id=2\n", &["must name the same group"]),
        (genesis, "id=1\n", "", &["group.id is missing"]),
        (genesis, "timestamp=1609459200000", "", &["group.timestamp is missing"]),
        (genesis, "enable_free_storage=false", "rules=byzantium", &["unknown rules \"byzantium\"", "expected fisco2"]),
        (genesis, "enable_free_storage=false", "rules=cancun\nenable_free_storage=true", &["does not go with evm.rules=cancun"]),
        (group, "type=rocksdb", "type=mysql", &["storage.type=mysql needs storage.db_username"]),
        (group, "type=rocksdb", "type=mysql\ndb_username=u\ndb_name=a`b", &["no plain name of a database"]),
        (group, "type=rocksdb", "type=scalable", &["storage.type=scalable is not supported"]),
        (group, "ttl=2", "ttl=6", &["0 to 5 (hops)"]),
        (group, "ratio=0.25", "ratio=0", &["a fraction from 0.001 to 10.000"]),
        (group, "ratio=0.25", "ratio=1e3", &["a fraction from"]),
        (group, "txs_expiration_time=600", "txs_expiration_time=2", &["shorter than the group's consensus_timeout", "at least 3 seconds"]),
        (group, "min_block_generation_time=500", "min_block_generation_time=3001", &["from 0 to 3000 (ms)"]),
        (group, "memory_limit=512", "memory_limit=99999999999999999999", &["1 to 1048576 (MB)"]),
    ];
    for (file, from, to, texts) in cases {
        let fault = directory.load_with(file, from, to).expect_err(to);
        assert_eq!(fault.kind, FaultKind::Config, "{fault}");
        let message = fault.to_string();
        for text in *texts {
            assert!(message.contains(text), "{from:?} -> {to:?}: \"{text}\" in {message}");
        }
    }
    directory.load().unwrap();
}

#[test]
fn files_that_are_missing_or_damaged_are_named() {
    let directory = Directory::new();
    fs::remove_file(directory.path("conf/group.1.ini")).unwrap();
    assert!(directory.load().unwrap_err().to_string().contains("group.1.ini"));
    directory.write("conf/group.1.ini", GROUP);
    fs::write(directory.path("config.ini"), b"[rpc]\n\xff\xfe").unwrap();
    assert!(directory.load().unwrap_err().to_string().contains("config.ini:2: not UTF-8"));
    directory.write("config.ini", &" ".repeat(2 << 20));
    assert!(directory.load().unwrap_err().to_string().contains("at most"));
    directory.write("config.ini", CONFIG);
    directory.write("conf/node.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(directory.load().unwrap_err().to_string().contains("is not an X.509 certificate"));
    fs::remove_file(directory.path("conf/group.1.genesis")).unwrap();
    assert!(
        NodeConfig::load(Path::new("/nonexistent/config.ini")).unwrap_err().to_string().contains("cannot read /nonexistent/config.ini")
    );
}

#[test]
fn own_settings_are_read() {
    let directory = Directory::new();
    let own = "[millrace]\noperator_listen_ip=127.0.0.2\noperator_listen_port=9545\ndurability=process\nverify_threads=3\nexecute_threads=5\nparallel_threads=4\ncache_mb=64\nlog_format=json\npin_cores=true\n[rpc]";
    let config = directory.load_with("config.ini", "[rpc]", own).unwrap();
    assert_eq!(config.operator_listen, Some("127.0.0.2:9545".parse().unwrap()));
    assert_eq!(config.durability, Durability::Process);
    assert_eq!((config.verify_threads, config.execute_threads, config.parallel_threads, config.cache_bytes), (3, 5, 4, 64 << 20));
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.pin_cores);
    let bad = directory.load_with("config.ini", "[rpc]", "[millrace]\ndurability=none\n[rpc]").unwrap_err();
    assert!(bad.to_string().contains("one of: power, process"));
}

#[test]
fn old_section_names_are_understood() {
    let directory = Directory::new();
    let config = directory.load_with("config.ini", "[network_security]", "[secure]").unwrap();
    assert_eq!(config.name, "node3");
    assert!(directory.load_with("config.ini", "[storage_security]\n    enable=false", "[data_secure]\n    enable=true").is_err());
}

#[test]
fn sealers_are_sorted_and_stand_once() {
    let directory = Directory::new();
    let other = KeyPair::generate().node_id();
    let two = directory.load_with("conf/group.1.genesis", "node.0=", &format!("node.1={other}\nnode.0=")).unwrap();
    let mut sorted = [other, directory.key.node_id()];
    sorted.sort_unstable();
    assert_eq!(two.groups[0].genesis.sealers, sorted);
    let own = directory.key.node_id();
    let twice = directory.load_with("conf/group.1.genesis", "node.0=", &format!("node.5={own}\nnode.0="));
    assert!(twice.unwrap_err().to_string().contains("listed twice"));
}

#[test]
fn peers_are_configured_by_the_keys_of_2x() {
    let directory = Directory::new();
    let p2p = directory.load().unwrap().p2p;
    assert_eq!((p2p.compress, p2p.peers_a_request, p2p.max_peers), (true, 10, 100));
    assert_eq!((p2p.certificate, p2p.key), (directory.path("conf/node.crt"), directory.path("conf/p2p.key")));
    assert_eq!(p2p.authority, directory.path("conf/ca.crt"));
    assert_eq!(p2p.lists, PeerLists::default());
    let limits = "listen_port=30301\nenable_compress=false\npeers_param_limit=3\nmax_nodes_limit=4\nnode.7=[::1]:1\nnode.8=host.example:2";
    let p2p = directory.load_with("config.ini", "listen_port=30301", limits).unwrap().p2p;
    assert_eq!((p2p.compress, p2p.peers_a_request, p2p.max_peers), (false, 3, 4));
    assert_eq!(p2p.peers[2..], ["[::1]:1", "host.example:2"]);
}

#[test]
fn lists_of_node_ids_refuse_and_admit_and_mistakes_in_them_are_named() {
    let directory = Directory::new();
    let (own, one, two) = (directory.key.node_id(), KeyPair::generate().node_id(), KeyPair::generate().node_id());
    let lists = format!("[certificate_whitelist]\n cal.0={one}\n cal.3={own}\n cal.4=");
    let config = directory.load_with("config.ini", "[certificate_whitelist]", &lists).unwrap();
    assert!(config.p2p.lists.admits(&one) && config.p2p.lists.admits(&own) && !config.p2p.lists.admits(&two));
    let both = format!("[cal]\n cal.0={one}\n cal.1={two}\n[crl]\n crl.0={one}\n crl.1={own}\n[group]");
    let text = fs::read_to_string(directory.path("config.ini")).unwrap();
    directory.write("config.ini", &text.replace("[certificate_whitelist]", "").replace("[certificate_blacklist]", ""));
    let config = directory.load_with("config.ini", "[group]", &both).unwrap();
    assert!(!config.p2p.lists.admits(&one) && config.p2p.lists.admits(&two));
    assert!(config.notes.iter().any(|note| note.contains("this node's own id")), "{:?}", config.notes);
    assert!(config.notes.iter().any(|note| note.contains("it is refused")), "{:?}", config.notes);
    directory.write("config.ini", &text);
    for (line, text) in
        [("crl.0=abc", "crl.0=abc is not allowed"), ("crl.x=", "unknown key \"crl.x\""), ("cal.0=", "it belongs to section")]
    {
        let fault = directory.load_with("config.ini", ";crl.0=", line).unwrap_err().to_string();
        assert!(fault.contains(text), "{fault}");
    }
}

fn genesis_of(sealer: &str, rules: EvmRules) -> GroupGenesis {
    GroupGenesis {
        group: GroupId::new(1).unwrap(),
        chain_id: 1,
        timestamp_ms: 0,
        sealers: vec![sealer.parse().unwrap()],
        consensus: millrace_ledger::genesis::Consensus::Pbft,
        tx_count_limit: 1000,
        tx_gas_limit: 300_000_000,
        consensus_timeout_s: 3,
        rules,
        state: millrace_core::StateKind::Storage,
    }
}

#[test]
fn mark_of_a_2x_group_is_the_recorded_one_and_own_rules_change_it() {
    // Extra data of block 0 of a FISCO BCOS 2.11.1 node.
    let sealer =
        "830d05e968b0cb2d9a4c0224bff5f45c2665c8c72033ab017f02ecdbeb8fcff861ce9ba43a0565a0e58aff9813a04bd42df9c7f886f97d4c31fe2906aa2bc73f";
    let recorded = format!("1-{sealer},-pbft-storage-0-1000-300000000-3");
    assert_eq!(genesis_of(sealer, EvmRules::Fisco2 { free_storage: false }).mark(), recorded);
    let free = genesis_of(sealer, EvmRules::Fisco2 { free_storage: true }).mark();
    assert!(free.contains("-storage-9223372036854775808-1000-"));
    assert_eq!(genesis_of(sealer, EvmRules::Fork(Fork::Cancun)).mark(), format!("{recorded}-evm:cancun"));
}

#[test]
fn byte_order_mark_comments_and_spaces_are_no_content() {
    let file = IniFile::parse(Path::new("x.ini"), "\u{feff}; a\r\n[ chain ]\r\n  id = 5 \r\n# b\n\n[log]\n level=\n").unwrap();
    assert_eq!(file.entries()[0].key, "id");
    assert_eq!(file.entries()[0].value, "5");
    assert_eq!(file.entries()[0].line, 3);
    assert_eq!(file.entries()[1].value, "");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "[\\[\\]a-z=;.0-9 \n\u{e9}]{0,200}") {
        let file = IniFile::parse(Path::new("x.ini"), &text);
        let _ = file.and_then(|file| Checked::new(file, tables::NODE));
    }
}

#[test]
fn database_on_a_server_is_read_is_not_shown_with_its_password_and_belongs_to_one_group() {
    let directory = Directory::new();
    let settings = "type=mysql\n    max_retry=60\n    db_ip=10.0.0.5\n    db_username=node0\n    db_passwd=s=cr;et\n    db_name=node0_1";
    let text = GROUP.replace("type=rocksdb", settings);
    directory.write("conf/group.1.ini", &text);
    let config = directory.load().unwrap();
    let StorageConfig::Mysql(database) = &config.groups[0].storage else { panic!("the group lies on a server") };
    assert_eq!((database.host.as_str(), database.port, database.max_connections), ("10.0.0.5", 3306, 50));
    assert_eq!((database.user.as_str(), database.password.reveal()), ("node0", "s=cr;et"));
    assert!(!format!("{config:?}").contains("s=cr;et"));
    assert!(config.notes.iter().any(|note| note.contains("storage.max_retry has no effect")), "{:?}", config.notes);

    directory.write("conf/group.2.ini", &text);
    directory.write("conf/group.2.genesis", &directory.genesis().replace("id=1\n", "id=2\n"));
    let message = directory.load().unwrap_err().to_string();
    assert!(message.contains("groups 1 and 2 name the same") && message.contains("storage.db_name"), "{message}");
    assert!(!message.contains("s=cr;et"), "{message}");
}
