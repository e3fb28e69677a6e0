//! The node's configuration: typed, complete and checked before anything starts.
//!
//! Reads the files of 2.x (`config.ini`, `group.N.genesis`, `group.N.ini`) and our additions. Invariant: a [`NodeConfig`] can be run as
//! it is; whatever is wrong with the files, keys or certificates is a [`Fault`] that names the place and the remedy. Relative paths
//! count from the directory of `config.ini`, which is the working directory of 2.x's own start script.
//! Called by the command line; used by the assembly of the node.

pub mod channel;
pub mod genesis;
pub mod group;
pub mod ini;
pub mod nearest;
pub mod p2p;
pub mod schema;
mod tables;
#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use millrace_administration::pbft::WINDOW;
use millrace_backends::mysql::MysqlConfig;
use millrace_base::fault::Fault;
use millrace_base::{ChainId, KeyPair};
use millrace_core::storage::Durability;

pub use channel::{ChannelSettings, GroupClients};
pub use genesis::GroupGenesis;
pub use p2p::{P2pConfig, PeerLists};
use schema::Checked;

use crate::{certificates, keys};

/// Oldest data formats that this node reads and writes: receipts with `remainGas`, sorted sealers, 16-ary Merkle roots.
const OLDEST_VERSION: (u32, u32, u32) = (2, 9, 0);

/// Newest `supported_version` there is: the end of the 2.x line.
const NEWEST_VERSION: (u32, u32, u32) = (2, 11, 99);

/// Default of `millrace.cache_mb`, shared by all groups.
const DEFAULT_CACHE_MB: u64 = 256;

/// Everything a node needs to start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The `config.ini` this came from.
    pub file: PathBuf,
    /// Where all groups keep their data (`group.group_data_path`).
    pub data_dir: PathBuf,
    /// Where the genesis and settings of groups lie (`group.group_config_path`).
    pub group_dir: PathBuf,
    /// `chain.id`: signed into every transaction.
    pub chain_id: ChainId,
    /// `compatibility.supported_version`, from 2.9.0 on.
    pub supported_version: String,
    /// HTTP JSON-RPC.
    pub rpc: RpcConfig,
    /// Where the channel port listens.
    pub channel_listen: SocketAddr,
    /// How the channel port is served.
    pub channel: ChannelSettings,
    /// Where P2P listens, whom it calls, and who is admitted.
    pub p2p: P2pConfig,
    /// Metrics, health and management; `None` when no operator port is set.
    pub operator_listen: Option<SocketAddr>,
    /// This node's identity.
    pub key: KeyPair,
    /// Issuer CN of the node's certificate.
    pub agency: String,
    /// Subject CN of the node's certificate.
    pub name: String,
    /// When a commit may be told to clients.
    pub durability: Durability,
    /// Threads that check signatures.
    pub verify_threads: usize,
    /// Threads that execute blocks, shared by all groups.
    pub execute_threads: usize,
    /// Threads that execute one block together, the execute stage's included; 1 is serial execution.
    pub parallel_threads: usize,
    /// Memory for database caches, in bytes, shared by all groups.
    pub cache_bytes: u64,
    /// Whether pipeline threads are bound to cores.
    pub pin_cores: bool,
    /// Heights of a group that are ordered ahead of the last durable one.
    pub window: u64,
    /// Logs.
    pub log: LogConfig,
    /// The groups, ascending by id; at least one.
    pub groups: Vec<GroupConfig>,
    /// One line for each key that was set but has no effect, and other remarks for the log.
    pub notes: Vec<String>,
}

/// HTTP JSON-RPC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Threads of the HTTP server.
    pub threads: usize,
    /// Requests a second over all groups; `None` is unlimited.
    pub requests_per_second: Option<u64>,
    /// Whether groups that this node is not a member of are served too.
    pub act_as_group_member: bool,
    /// Whether methods that change groups and peers are refused on the doors for clients; the operator port always takes them.
    pub disable_dynamic_group: bool,
}

/// Where a node listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAddresses {
    /// HTTP JSON-RPC.
    pub rpc: SocketAddr,
    /// Channel.
    pub channel: SocketAddr,
    /// P2P.
    pub p2p: SocketAddr,
    /// Metrics and health.
    pub operator: Option<SocketAddr>,
}

impl ListenAddresses {
    /// Reads them from a `config.ini` without the files it names.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        let ini = Checked::read(file, tables::NODE)?;
        Ok(Self {
            rpc: rpc_config(&ini, 1).listen,
            channel: channel_listen(&ini),
            p2p: p2p::read(&ini).listen,
            operator: operator_listen(&ini),
        })
    }
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Directory of the log files; `None` writes none.
    pub directory: Option<PathBuf>,
    /// Least severe level that is written.
    pub level: tracing::Level,
    /// Size at which a file is followed by the next, in bytes.
    pub max_file_bytes: u64,
    /// Text or JSON.
    pub format: LogFormat,
    /// Whether lines go to standard error as well.
    pub console: bool,
}

/// One group: its immutable genesis and what may change between starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// What block 0 is made of.
    pub genesis: GroupGenesis,
    /// Where its database lies: `<data_dir>/group<N>/block`; the directory above holds what else belongs to the group.
    pub data_path: PathBuf,
    /// Which engine keeps its blocks and state.
    pub storage: StorageConfig,
    /// Bounds of the pool.
    pub pool: PoolConfig,
    /// Least time between two blocks that are not full, milliseconds.
    pub min_block_generation_time_ms: u64,
    /// Requests a second that name this group; `None` is unlimited.
    pub requests_per_second: Option<u64>,
    /// Blocks whose transactions and receipts are kept; `None` keeps all.
    pub keep_blocks: Option<u64>,
    /// Which clients of the channel port may see the group, and how.
    pub clients: GroupClients,
}

impl GroupConfig {
    /// The database in words.
    pub fn database(&self) -> String {
        match &self.storage {
            StorageConfig::RocksDb => self.data_path.display().to_string(),
            StorageConfig::Mysql(_) => format!("group {}", self.genesis.group),
        }
    }
}

/// `storage` of `group.N.ini`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StorageConfig {
    /// RocksDB in [`GroupConfig::data_path`].
    RocksDb,
    /// A database on a server.
    Mysql(MysqlConfig),
}

/// `tx_pool` of `group.N.ini`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Most transactions that wait.
    pub max_transactions: usize,
    /// Most memory they may take, bytes.
    pub max_bytes: usize,
    /// How long a transaction may wait, milliseconds.
    pub expiration_ms: u64,
}

impl NodeConfig {
    /// Reads the groups in the configuration directory of a `config.ini` again: for a running node that is told of new ones, or of
    /// other lists of clients.
    pub fn read_groups(file: &Path) -> Result<Vec<GroupConfig>, Fault> {
        let ini = Checked::read(file, tables::NODE)?;
        let (data_dir, group_dir) = group_directories(&ini, &directory_of(file));
        Ok(group::load_all(&group_dir, &data_dir, ini.number("chain", "id").unwrap_or(1))?.0)
    }

    /// Reads `config.ini` and everything it names.
    pub fn load(file: &Path) -> Result<Self, Fault> {
        let ini = Checked::read(file, tables::NODE)?;
        let root = directory_of(file);
        let supported_version = supported_version(&ini)?;
        let chain_id = ini.number("chain", "id").unwrap_or(1);
        let (data_dir, group_dir) = group_directories(&ini, &root);
        let key_file = root
            .join(ini.text("network_security", "data_path").unwrap_or("conf"))
            .join(ini.text("network_security", "key").unwrap_or("node.key"));
        let access = match ini.flag("millrace", "allow_readable_keys") {
            Some(true) => keys::Access::AnyMode,
            _ => keys::Access::OwnerOnly,
        };
        let key = keys::read_node_key(&key_file, access)?;
        let p2p = p2p::read(&ini);
        let names = certificates::read(&p2p.certificate)?;
        let mut notes = ini.notes().to_vec();
        notes.extend(p2p::notes(file, &p2p.lists, &key.node_id()));
        notes.extend(certificates::expiry_note(&p2p.certificate, &names));
        let (groups, group_notes) = group::load_all(&group_dir, &data_dir, chain_id)?;
        notes.extend(group_notes);
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = |key| ini.number("millrace", key).map_or(cores, as_usize);
        Ok(Self {
            rpc: rpc_config(&ini, cores),
            channel_listen: channel_listen(&ini),
            channel: channel::read(&ini, &root, cores),
            p2p,
            operator_listen: operator_listen(&ini),
            durability: match ini.text("millrace", "durability") {
                Some("process") => Durability::Process,
                _ => Durability::Power,
            },
            verify_threads: threads("verify_threads"),
            execute_threads: threads("execute_threads"),
            parallel_threads: threads("parallel_threads"),
            cache_bytes: ini.number("millrace", "cache_mb").unwrap_or(DEFAULT_CACHE_MB) << 20,
            pin_cores: ini.flag("millrace", "pin_cores").unwrap_or(false),
            window: ini.number("millrace", "window").unwrap_or(WINDOW),
            log: log_config(&ini, &root),
            agency: names.issuer,
            name: names.subject,
            file: file.to_owned(),
            data_dir,
            group_dir,
            chain_id,
            supported_version,
            key,
            groups,
            notes,
        })
    }
}

/// The directory that relative paths count from.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Where groups have their data and their files.
fn group_directories(ini: &Checked, root: &Path) -> (PathBuf, PathBuf) {
    let directory = |key, default| root.join(ini.text("group", key).unwrap_or(default));
    (directory("group_data_path", "data"), directory("group_config_path", "conf"))
}

fn as_usize(value: u64) -> usize {
    usize::try_from(value).expect("bounded by the schema")
}

fn supported_version(ini: &Checked) -> Result<String, Fault> {
    let fault = |what: String| {
        ini.fault(
            "compatibility",
            "supported_version",
            what,
            "this version of Millrace runs chains of supported_version 2.9.0 to 2.11.x; write the version the chain was made with",
        )
    };
    let Some(text) = ini.text("compatibility", "supported_version") else {
        return Err(fault("compatibility.supported_version is missing, which means 2.0.0-rc1".into()));
    };
    let mut parts = text.splitn(3, '.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor), Some(patch)) if (OLDEST_VERSION..=NEWEST_VERSION).contains(&(major, minor, patch)) => {
            Ok(text.to_owned())
        }
        _ => Err(fault(format!("compatibility.supported_version={} is not supported", ini::clip(text)))),
    }
}

fn port(ini: &Checked, section: &str, key: &str, default: u16) -> u16 {
    ini.number(section, key).map_or(default, |port| u16::try_from(port).expect("bounded by the schema"))
}

fn rpc_config(ini: &Checked, cores: usize) -> RpcConfig {
    let ip = ini.ip("rpc", "jsonrpc_listen_ip").or(ini.ip("rpc", "listen_ip")).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    RpcConfig {
        listen: SocketAddr::new(ip, port(ini, "rpc", "jsonrpc_listen_port", 8545)),
        threads: ini.number("rpc", "jsonrpc_thread_count").map_or(cores.min(8), as_usize),
        requests_per_second: ini.number("flow_control", "limit_req"),
        act_as_group_member: ini.flag("rpc", "act_as_group_member").unwrap_or(false),
        disable_dynamic_group: ini.flag("rpc", "disable_dynamic_group").unwrap_or(true),
    }
}

fn channel_listen(ini: &Checked) -> SocketAddr {
    let ip = ini.ip("rpc", "channel_listen_ip").or(ini.ip("rpc", "listen_ip")).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    SocketAddr::new(ip, port(ini, "rpc", "channel_listen_port", 20200))
}

fn operator_listen(ini: &Checked) -> Option<SocketAddr> {
    let ip = ini.ip("millrace", "operator_listen_ip").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    ini.number("millrace", "operator_listen_port").map(|_| SocketAddr::new(ip, port(ini, "millrace", "operator_listen_port", 0)))
}

fn log_config(ini: &Checked, root: &Path) -> LogConfig {
    let level = match ini.text("log", "level") {
        Some("trace") => tracing::Level::TRACE,
        Some("debug") => tracing::Level::DEBUG,
        Some("warning") => tracing::Level::WARN,
        Some("error" | "fatal") => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    };
    let enabled = ini.flag("log", "enable").unwrap_or(true);
    LogConfig {
        directory: enabled.then(|| root.join(ini.text("log", "log_path").unwrap_or("log"))),
        level,
        max_file_bytes: ini.number("log", "max_log_file_size").unwrap_or(200) << 20,
        format: match ini.text("millrace", "log_format") {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        },
        console: ini.flag("log", "enable_console_output").unwrap_or(false),
    }
}
