//! A node: ledgers, pipeline and gateways put together, and taken down in order.
//!
//! Start: hold the data directory, open every group (recovery happens there), start the pipeline, open the groups in it, and only
//! then the doors for clients. Stop: the doors first, then the pipeline along its arrows, so that what was accepted is committed.

mod group_status;
mod groups;
mod handle;
mod metrics;
mod network;
mod report;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_administration::pbft::WINDOW;
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
use millrace_pipeline::topology::{self, MAX_GROUPS, Parts};
use millrace_rpc::channel::ChannelServer;
use millrace_rpc::channel::access::AllowLists;
use millrace_rpc::methods::{Management, Membership};
use millrace_rpc::{HttpConfig, HttpServer, OperatorServer};

use crate::channel_port::{self, ChannelListener};
use crate::config::NodeConfig;
use crate::reload::{Running, Watcher};
use groups::Groups;
pub(crate) use groups::{genesis_of, open_fault, storage_fault};
use handle::{Doors, NodeHandle, Reloaded};
use network::{ChannelEnd, NetworkPeers};

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
        let parts =
            Parts { votes, evidence, peers: Arc::new(peers.clone()), clock, listeners, max_groups: MAX_GROUPS, window: config.window };
        let (topology, inlets) = topology::wire(workers, parts).map_err(|error| bug(&error.to_string()))?;
        let picture = topology.render();
        let affinity = if config.pin_cores { AffinityPolicy::Pin } else { AffinityPolicy::None };
        let fault_registry = Arc::clone(&registry);
        let on_fault = Arc::new(move |fault: &StageFault| stage_failed(&fault_registry, fault));
        let pipeline = Pipeline::start(topology, &PipelineConfig { affinity, on_fault }).map_err(|error| bug(&error.to_string()))?;
        let channel_end = ChannelEnd::default();
        let network = network::start(&config, (inlets.frames.clone(), inlets.sync.clone()), channel_end.clone())?.map(Arc::new);
        if let Some(network) = &network {
            peers.attach(Arc::clone(network));
        }
        groups.attach(inlets.groups);
        let doors = Doors { submissions: inlets.submissions, frames: inlets.frames, sync: inlets.sync };
        let handle = Arc::new(NodeHandle::new(&config, groups, doors, pipeline.metrics_handle(), network.clone()));
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
        let watcher = Watcher::new(&config.file, Box::new(Reloaded { handle: Arc::clone(&handle), access })).start()?;
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
    let parts = Parts { votes: Box::new(votes), evidence, peers, clock, listeners: Vec::new(), max_groups: MAX_GROUPS, window: WINDOW };
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

fn bug(what: &str) -> Fault {
    Fault::new(
        FaultKind::Operation,
        format!("the pipeline cannot be started: {what}"),
        "this is a bug of the node: please report it with this message",
    )
}

/// Opens a group's database for reading, beside a running node if there is one.
///
/// # Errors
/// What the engine says, with what to do about it.
pub fn open_read_only(path: &Path) -> Result<Arc<dyn Storage>, Fault> {
    let budget = Budget { cache_bytes: READ_ONLY_CACHE_BYTES, ..Budget::default() };
    let shared = SharedResources::new(budget).map_err(|error| storage_fault(path, &error))?;
    let storage = RocksStorage::open_read_only(path, &shared).map_err(|error| storage_fault(path, &error))?;
    Ok(Arc::new(storage))
}

/// Opens a group's database for writing, and makes it where there is none: while the group does not run.
///
/// # Errors
/// What the engine says, with what to do about it.
pub fn open_for_writing(path: &Path) -> Result<Arc<dyn Storage>, Fault> {
    let budget = Budget { cache_bytes: READ_ONLY_CACHE_BYTES, ..Budget::default() };
    let shared = SharedResources::new(budget).map_err(|error| storage_fault(path, &error))?;
    let storage = RocksStorage::open(path, &shared).map_err(|error| storage_fault(path, &error))?;
    Ok(Arc::new(storage))
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
