//! A node: ledgers, pipeline and gateways put together, and taken down in order.
//!
//! Start: hold the data directory, open every group (recovery happens there), start the pipeline, open the groups in it, and only
//! then the doors for clients. Stop: the doors first, then the pipeline along its arrows, so that what was accepted is committed.

mod group_status;
mod groups;
mod handle;
mod metrics;
mod network;
mod peer_rates;
mod report;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_administration::pbft::WINDOW;
use millrace_backends::mysql::{MysqlConfig, MysqlStorage};
use millrace_backends::rocksdb::{Budget, RocksStorage, SharedResources};
use millrace_base::clock::SystemClock;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::Storage;
use millrace_ledger::view::NodeView;
use millrace_ledger::{Registry, VoteLog};
use millrace_network::PeerNetwork;
use millrace_pipeline::evidence::EvidenceLog;
use millrace_pipeline::peers::Alone;
use millrace_pipeline::runtime::{AffinityPolicy, Pipeline, PipelineConfig, StageFault};
use millrace_pipeline::stages::notify::Listener;
pub use millrace_pipeline::topology::Workers;
use millrace_pipeline::topology::{self, Crew, CrewError, MAX_GROUPS, Parts};
use millrace_rpc::channel::ChannelServer;
use millrace_rpc::channel::access::AllowLists;
use millrace_rpc::methods::{Management, Membership};
use millrace_rpc::{HttpConfig, HttpServer, OperatorServer};

use crate::channel_port::{self, ChannelListener};
use crate::config::{GroupConfig, NodeConfig, StorageConfig};
use crate::reload::{Running, Watcher};
use groups::Groups;
pub(crate) use groups::{open_fault, storage_fault};
use handle::{Doors, NodeHandle, Reloaded};
use network::{ChannelEnd, NetworkPeers};
use peer_rates::PeerRates;

/// Block cache of commands that read a database.
const READ_ONLY_CACHE_BYTES: usize = 64 << 20;

/// Time for what is queued for peers when the node stops.
const NETWORK_PATIENCE: Duration = Duration::from_millis(500);

/// A running node.
pub struct Node {
    pipeline: Pipeline,
    http: HttpServer,
    channel: Arc<ChannelServer>,
    operator: Option<OperatorServer>,
    handle: Arc<NodeHandle>,
    network: Option<Arc<PeerNetwork>>,
    watcher: Running,
    picture: String,
    /// Held for as long as the node runs.
    _lock: File,
}

impl Node {
    /// Starts a node; when this returns it serves clients.
    ///
    /// # Errors
    /// A [`Fault`] that names the file, port or database and what to do.
    pub fn start(config: NodeConfig) -> Result<Self, Fault> {
        let lock = lock_data_directory(&config.data_dir)?;
        let votes = VoteLog::open(&config.data_dir.join("votes")).map_err(|error| vote_log_fault(&config.data_dir, &error))?;
        let groups = Groups::open(&config)?;
        let registry = Arc::clone(groups.registry());
        let workers =
            Workers { verify: config.verify_threads, execute: config.execute_threads, ..Workers::for_cores(config.execute_threads) };
        let listener = Arc::new(ChannelListener::default());
        let listeners: Vec<Arc<dyn Listener>> = vec![listener.clone()];
        let evidence = EvidenceLog::new(config.data_dir.join("evidence"));
        let (peers, clock) = (NetworkPeers::default(), Arc::new(SystemClock));
        let votes = Box::new(votes);
        let crew = Crew::new(config.parallel_threads).map_err(|error| crew_fault(&error))?;
        let parts = Parts {
            votes,
            evidence,
            peers: Arc::new(peers.clone()),
            clock,
            listeners,
            max_groups: MAX_GROUPS,
            crew: Arc::clone(&crew),
            window: config.window,
        };
        let (topology, inlets) = topology::wire(workers, parts).map_err(|error| bug(&error.to_string()))?;
        let picture = topology.render();
        let affinity = if config.pin_cores { AffinityPolicy::Pin } else { AffinityPolicy::None };
        let fault_registry = Arc::clone(&registry);
        let on_fault = Arc::new(move |fault: &StageFault| stage_failed(&fault_registry, fault));
        let pipeline = Pipeline::start(topology, &PipelineConfig { affinity, on_fault }).map_err(|error| bug(&error.to_string()))?;
        let channel_end = ChannelEnd::default();
        let rates = Arc::new(PeerRates::default());
        let doors = network::PeerDoors {
            consensus: inlets.frames.clone(),
            sync: inlets.sync.clone(),
            peers: inlets.peers,
            channel: channel_end.clone(),
            rates: Arc::clone(&rates),
        };
        let network = network::start(&config, doors)?.map(Arc::new);
        if let Some(network) = &network {
            peers.attach(Arc::clone(network));
        }
        groups.attach(inlets.groups);
        let doors = Doors { submissions: inlets.submissions, frames: inlets.frames, sync: inlets.sync, rates };
        let handle = Arc::new(NodeHandle::new(&config, groups, doors, (pipeline.metrics_handle(), crew), network.clone()));
        let view: Arc<dyn NodeView> = handle.clone();
        let mut http_config = HttpConfig { threads: config.rpc.threads, ..HttpConfig::new(config.rpc.listen) };
        http_config.gateway.quotas = Arc::new(channel_port::quotas(&config));
        http_config.gateway.peers_a_request = config.p2p.peers_a_request;
        if config.rpc.act_as_group_member {
            http_config.gateway.membership = Membership::Assumed;
        }
        if !config.rpc.disable_dynamic_group {
            http_config.gateway.management = Management::Allowed;
        }
        let access = AllowLists::default();
        let channel_config = channel_port::config(&config, http_config.gateway.clone(), access.clone())?;
        let channel = Arc::new(ChannelServer::start(channel_config, Arc::clone(&view), Arc::new(peers))?);
        listener.attach(&channel);
        channel_end.attach(&channel, network.as_deref());
        let reloaded = Reloaded { handle: Arc::clone(&handle), access, channel: Arc::downgrade(&channel) };
        let watcher = Watcher::new(&config.file, Box::new(reloaded)).start()?;
        let http = HttpServer::start(&http_config, Arc::clone(&view))?;
        let operator = config.operator_listen.map(|listen| OperatorServer::start(listen, view, config.p2p.peers_a_request)).transpose()?;
        Ok(Self { pipeline, http, channel, operator, handle, network, picture, watcher, _lock: lock })
    }

    /// Where JSON-RPC is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Where the channel protocol is served.
    pub fn channel_addr(&self) -> SocketAddr {
        self.channel.local_addr()
    }

    /// Where metrics and health are served, if they are.
    pub fn operator_addr(&self) -> Option<SocketAddr> {
        self.operator.as_ref().map(OperatorServer::local_addr)
    }

    /// The node as gateways see it.
    pub fn view(&self) -> Arc<dyn NodeView> {
        self.handle.clone()
    }

    /// The pipeline as it was wired.
    pub fn topology_picture(&self) -> &str {
        &self.picture
    }

    /// Stops in order: no new clients, then every stage finishes what was accepted, each within its share of the deadline.
    ///
    /// # Errors
    /// A stage that did not finish in time is named; nothing that was acknowledged as committed is lost by that.
    pub fn stop(self, deadline: Duration) -> Result<(), Fault> {
        let end = Instant::now() + deadline;
        drop(self.watcher);
        self.handle.stop_accepting();
        self.http.stop(deadline / 4);
        // The pipeline's listener knows the server only weakly, so this handle is the last.
        if let Some(channel) = Arc::into_inner(self.channel) {
            channel.stop(deadline / 4);
        }
        if let Some(operator) = self.operator {
            operator.stop(deadline / 4);
        }
        let report = self.pipeline.stop(end.saturating_duration_since(Instant::now()) / 4);
        // Last: what is in flight when the doors close is finished with the others' votes.
        if let Some(network) = &self.network {
            network.stop(NETWORK_PATIENCE);
        }
        if report.is_clean() {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Operation,
            format!("the node did not stop in order: {report:?}"),
            "nothing that was committed is lost; transactions that were only accepted must be sent again if their receipt never comes",
        ))
    }
}

/// The picture of the pipeline that [`Node::start`] would run, without starting anything.
///
/// # Errors
/// When no scratch directory for the vote log can be made.
pub fn topology_picture(workers: Workers) -> Result<String, Fault> {
    let scratch = std::env::temp_dir().join(format!("millrace-topology-{}", std::process::id()));
    let votes = VoteLog::open(&scratch).map_err(|error| vote_log_fault(&scratch, &error))?;
    let evidence = EvidenceLog::new(scratch.join("evidence"));
    let (peers, clock) = (Arc::new(Alone), Arc::new(SystemClock));
    let parts = Parts {
        votes: Box::new(votes),
        evidence,
        peers,
        clock,
        listeners: Vec::new(),
        max_groups: MAX_GROUPS,
        crew: Crew::alone(),
        window: WINDOW,
    };
    let picture = topology::wire(workers, parts).map(|(topology, _)| topology.render()).map_err(|error| bug(&error.to_string()));
    let _ = fs::remove_dir_all(&scratch);
    picture
}

/// One process a data directory: the lock lives in the operating system, so a killed process leaves none behind.
fn lock_data_directory(directory: &Path) -> Result<File, Fault> {
    let fault = |error: std::io::Error| {
        let what = format!("cannot use the data directory {}: {error}", directory.display());
        Fault::new(FaultKind::Disk, what, "check that the path exists, is writable by this user and has free space")
    };
    fs::create_dir_all(directory).map_err(fault)?;
    let file = File::create(directory.join(".lock")).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Fault::new(
            FaultKind::Storage,
            format!("{} is in use by another process", directory.display()),
            "stop the other node, or start this one from a directory of its own; two nodes must never share data or keys",
        )),
    }
}

fn vote_log_fault(directory: &Path, error: &std::io::Error) -> Fault {
    let what = format!("the vote log in {} cannot be opened: {error}", directory.display());
    Fault::new(FaultKind::Disk, what, "check free space and permissions of the data directory")
}

fn crew_fault(error: &CrewError) -> Fault {
    Fault::new(FaultKind::Operation, error.to_string(), "raise the limit of processes of this user, or set millrace.parallel_threads=1")
}

fn bug(what: &str) -> Fault {
    Fault::new(
        FaultKind::Operation,
        format!("the pipeline cannot be started: {what}"),
        "this is a bug of the node: please report it with this message",
    )
}

/// Where a database is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DatabasePlace {
    /// A directory of RocksDB.
    Directory(PathBuf),
    /// A database on a server.
    Server(MysqlConfig),
}

impl std::fmt::Display for DatabasePlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(formatter),
            Self::Server(config) => config.place().fmt(formatter),
        }
    }
}

impl From<&GroupConfig> for DatabasePlace {
    fn from(group: &GroupConfig) -> Self {
        match &group.storage {
            StorageConfig::RocksDb => Self::Directory(group.data_path.clone()),
            StorageConfig::Mysql(config) => Self::Server(config.clone()),
        }
    }
}

/// Opens a group's database for reading, beside a running node if there is one.
///
/// # Errors
/// What the engine says, with what to do about it.
pub fn open_read_only(place: &DatabasePlace) -> Result<Arc<dyn Storage>, Fault> {
    let fault = |error| storage_fault(&place.to_string(), &error);
    Ok(match place {
        DatabasePlace::Directory(path) => {
            let budget = Budget { cache_bytes: READ_ONLY_CACHE_BYTES, ..Budget::default() };
            let shared = SharedResources::new(budget).map_err(fault)?;
            Arc::new(RocksStorage::open_read_only(path, &shared).map_err(fault)?)
        }
        DatabasePlace::Server(config) => Arc::new(MysqlStorage::open_read_only(config).map_err(fault)?),
    })
}

/// Opens a group's database for writing, and makes it where there is none: while the group does not run.
///
/// # Errors
/// What the engine says, with what to do about it. A database on a server is refused: it knows no lock, who opens it takes it from the
/// node that runs.
pub fn open_for_writing(place: &DatabasePlace) -> Result<Arc<dyn Storage>, Fault> {
    let fault = |error| storage_fault(&place.to_string(), &error);
    let DatabasePlace::Directory(path) = place else {
        return Err(Fault::new(
            FaultKind::Operation,
            format!("{place} is on a database server: blocks and snapshots are taken into RocksDB only"),
            "let the node get the blocks from others, or load a dump of the server's own (docs/operating.md)",
        ));
    };
    let budget = Budget { cache_bytes: READ_ONLY_CACHE_BYTES, ..Budget::default() };
    let shared = SharedResources::new(budget).map_err(fault)?;
    Ok(Arc::new(RocksStorage::open(path, &shared).map_err(fault)?))
}

/// A stage panicked outside any one group's work: no group can go on, and all say why.
fn stage_failed(registry: &Registry, fault: &StageFault) {
    tracing::error!(stage = fault.stage, worker = fault.worker, message = fault.message, "a stage of the pipeline failed");
    if !fault.survived {
        for ledger in registry.all() {
            ledger.halt(format!("stage {} of the pipeline failed: {}", fault.stage, fault.message));
        }
    }
}
