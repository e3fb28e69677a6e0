//! The channel server of a node: one object to start, tell and stop.
//!
//! How a node attaches it:
//! 1. [`ChannelServer::start`] with [`ChannelConfig`], the node's view and its way to the peers ([`super::amop::NoPeers`] without any);
//!    give the same [`TopicBoard`] to the gateway of the HTTP server.
//! 2. A listener of the pipeline's notify stage calls [`ChannelServer::block_committed`] and [`ChannelServer::transactions_expired`].
//! 3. The network calls [`ChannelServer::peer_connected`], [`ChannelServer::peer_message`] and [`ChannelServer::peer_gone`].
//! 4. A reload of the configuration calls [`AllowLists::set`] on its clone of the lists, one of the certificates [`ChannelServer::set_tls`].
//! 5. [`ChannelServer::stop`], before the pipeline stops.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{B256, Block, GroupId, NodeId};
use millrace_ledger::view::NodeView;
use rustls::ServerConfig;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::access::AllowLists;
use super::amop::{AmopPeers, PeerMessage};
use super::hub::{Hub, Parts, Wire};
use super::topics::TopicBoard;
use super::transport::{self, Limits, Transport};
use crate::gateway::{Gateway, GatewayConfig};

/// How the channel port is served.
pub struct ChannelConfig {
    /// `rpc.channel_listen_ip` and `rpc.channel_listen_port`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Made by [`super::tls::server_config`].
    pub tls: Arc<ServerConfig>,
    /// Threads that serve connections.
    pub threads: usize,
    /// Bounds of the sockets.
    pub limits: Limits,
    /// What answers JSON-RPC; its board is where topics are shown.
    pub gateway: GatewayConfig,
    /// Who may see which group.
    pub access: AllowLists,
    /// `event_filter.max_block_range` of each group; absent or zero for no limit.
    pub max_block_range: BTreeMap<GroupId, u64>,
}

impl ChannelConfig {
    /// The defaults, on `listen`.
    pub fn new(listen: SocketAddr, tls: Arc<ServerConfig>) -> Self {
        Self {
            listen,
            tls,
            threads: 2,
            limits: Limits::default(),
            gateway: GatewayConfig::default(),
            access: AllowLists::default(),
            max_block_range: BTreeMap::new(),
        }
    }

    /// Where topics are shown.
    pub fn board(&self) -> &TopicBoard {
        &self.gateway.topics
    }
}

/// A running channel port. Dropping it closes everything at once.
pub struct ChannelServer {
    address: SocketAddr,
    hub: Arc<Hub>,
    transport: Arc<Transport>,
    peers: Arc<dyn AmopPeers>,
    stopping: watch::Sender<bool>,
    runtime: Option<Runtime>,
    threads: Vec<JoinHandle<()>>,
}

impl ChannelServer {
    /// Binds and serves. A taken port is a [`Fault`] of kind network.
    pub fn start(config: ChannelConfig, node: Arc<dyn NodeView>, peers: Arc<dyn AmopPeers>) -> Result<Self, Fault> {
        let no_threads = |error: std::io::Error| {
            Fault::new(
                FaultKind::Operation,
                format!("no threads for the channel port: {error}"),
                "raise the limit on processes (ulimit -u)",
            )
        };
        let counter = AtomicUsize::new(0);
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .max_blocking_threads(config.gateway.query_workers + config.threads.max(1))
            .thread_name_fn(move || format!("channel-{}", counter.fetch_add(1, Ordering::Relaxed)))
            .enable_io()
            .enable_time()
            .build()
            .map_err(no_threads)?;
        let (listener, address) = {
            let _inside = runtime.enter();
            transport::bind(config.listen)?
        };
        let transport = Transport::new(config.tls, config.limits);
        let parts = Parts {
            gateway: Gateway::new(Arc::clone(&node), &config.gateway),
            node,
            runtime: runtime.handle().clone(),
            access: config.access,
            quotas: Arc::clone(&config.gateway.quotas),
            board: config.gateway.topics.clone(),
            peers: Arc::clone(&peers),
            max_block_range: config.max_block_range,
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let hub = Hub::new(parts, Arc::clone(&transport) as Arc<dyn Wire>, start_ms, u64::from(since_epoch.subsec_nanos()));
        transport.attach(Arc::clone(&hub));
        let threads = hub.start_pushes().map_err(no_threads)?;
        let (stopping, stop) = watch::channel(false);
        runtime.spawn(Arc::clone(&transport).run(listener, stop));
        Ok(Self { address, hub, transport, peers, stopping, runtime: Some(runtime), threads })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Sessions that are open.
    pub fn session_count(&self) -> usize {
        self.hub.session_count()
    }

    /// Uses other certificates, made by [`super::tls::server_config`], for connections that come from now on; open sessions go on.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        self.transport.set_tls(tls);
    }

    /// A block is durable and visible to queries. Returns at once.
    pub fn block_committed(&self, group: GroupId, block: &Arc<Block>) {
        self.hub.block_committed(group, block);
    }

    /// Accepted transactions were dropped from the pool. Returns at once.
    pub fn transactions_expired(&self, group: GroupId, hashes: &[B256]) {
        self.hub.transactions_expired(group, hashes);
    }

    /// A peer has connected: it is told the topics of this node's clients.
    pub fn peer_connected(&self, peer: NodeId) {
        self.peers.send(peer, &self.hub.topics_message());
    }

    /// A peer sent AMOP. Returns at once.
    pub fn peer_message(&self, peer: NodeId, message: PeerMessage) {
        self.hub.peer_message(peer, message);
    }

    /// A peer is gone.
    pub fn peer_gone(&self, peer: NodeId) {
        self.hub.peer_gone(peer);
    }

    /// Closes all sessions; what is being written may finish for at most `deadline`.
    pub fn stop(mut self, deadline: Duration) {
        self.end(deadline);
    }

    fn end(&mut self, deadline: Duration) {
        let Some(runtime) = self.runtime.take() else { return };
        self.stopping.send_replace(true);
        self.hub.stop_pushes();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
        let hub = Arc::clone(&self.hub);
        let closed = async {
            while hub.session_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = runtime.block_on(async { tokio::time::timeout(deadline, closed).await });
        runtime.shutdown_background();
    }
}

impl Drop for ChannelServer {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}
