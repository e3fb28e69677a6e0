//! The handle of a node's network: start, send, membership, lists, peers, pictures for operators, stop.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{GroupId, NodeId};
use mio::net::TcpListener;
use mio::{Interest, Poll, Waker};
use parking_lot::{Mutex, RwLock};

use crate::book::{PeerBook, PeerInfo};
use crate::counters::Counters;
use crate::counts::Counts;
use crate::ending::EndReason;
use crate::groups::Groups;
use crate::peers_file::Changes;
use crate::queue::Budget;
use crate::reactor::{FIRST_CONNECTION, LISTENER, Reactor, WAKER};
use crate::registry::Registry;
use crate::session::SessionInfo;
use crate::shared::{LoopHandle, Shared};
use crate::tls::{TlsConfigs, TlsMaterial};
use crate::{AccessLists, Frame, FrameSink, NetworkConfig, NetworkCounters};

/// A running network. Shared behind an `Arc`; dropping it ends its threads at once.
pub struct PeerNetwork {
    shared: Arc<Shared>,
    address: SocketAddr,
    peers_file: Option<PathBuf>,
    /// What was changed in the list of peers; held while the file is written.
    changes: Mutex<Changes>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for PeerNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerNetwork({:?} on {})", self.shared.own(), self.address)
    }
}

impl PeerNetwork {
    /// Checks keys and certificates, binds the port, and begins to connect. Nothing of a group is exchanged before
    /// [`Self::set_members`]. A taken port is a fault of kind network, unusable certificates or files one of kind config.
    pub fn start(config: NetworkConfig, sink: Arc<dyn FrameSink>) -> Result<Self, Fault> {
        let own = config.identity.key.node_id();
        let tls = TlsConfigs::new(&config.identity.tls, &own)?;
        let changes = config.peers_file.as_deref().map_or_else(|| Ok(Changes::default()), Changes::load)?;
        let mut listener = TcpListener::bind(config.listen).map_err(|error| cannot_bind(config.listen, &error))?;
        let address = listener.local_addr().map_err(|error| cannot_bind(config.listen, &error))?;
        let mut polls = Vec::new();
        let mut loops = Vec::new();
        for _ in 0..config.loops.max(1) {
            let poll = Poll::new().map_err(|error| no_loop(&error))?;
            loops.push(LoopHandle::new(Waker::new(poll.registry(), WAKER).map_err(|error| no_loop(&error))?));
            polls.push(poll);
        }
        polls[0].registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(|error| no_loop(&error))?;
        let shared = Arc::new(Shared {
            key: config.identity.key,
            chain_id: config.chain_id,
            instance: rand::random(),
            compress_above: config.compress_above,
            sink,
            tls: RwLock::new(tls),
            lists: RwLock::new(config.lists),
            groups: Groups::default(),
            registry: Registry::default(),
            book: Mutex::new(PeerBook::new(changes.apply(&config.peers), &config.limits, Instant::now())),
            counters: Counters::default(),
            counts: Counts::default(),
            budget: Budget::new(config.limits.total_queue_bytes),
            loops,
            next_token: AtomicUsize::new(FIRST_CONNECTION),
            stop_by: Mutex::new(None),
            announcements: Mutex::new(()),
            limits: config.limits,
        });
        let network =
            Self { shared, address, peers_file: config.peers_file, changes: Mutex::new(changes), threads: Mutex::new(Vec::new()) };
        let mut listener = Some(listener);
        for (index, poll) in polls.into_iter().enumerate() {
            let reactor = Reactor::new(Arc::clone(&network.shared), index, poll, listener.take());
            let spawned = thread::Builder::new().name(format!("p2p-loop-{index}")).spawn(move || reactor.run());
            // Dropping the handle ends the loops that run already.
            network.threads.lock().push(spawned.map_err(|error| no_loop(&error))?);
        }
        Ok(network)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.shared.own()
    }

    /// Queues a frame for a peer; never blocks. False when there is no session, when either node does not count the other among the
    /// members of the frame's group, when the frame is too large or lacks the group its kind needs, or when the queue has no room; the
    /// frame is then dropped and counted. True is no promise that it arrives.
    pub fn send(&self, to: NodeId, frame: Frame) -> bool {
        self.shared.send(to, frame)
    }

    /// Queues a frame for all connected members of `group`, which becomes the frame's group; the number of peers it is queued for.
    /// The payload is compressed once and shared.
    pub fn broadcast(&self, group: GroupId, frame: Frame) -> usize {
        self.shared.broadcast(group, frame)
    }

    /// Sets who are members of a group: sealers and observers. When it returns, nothing of the group is queued for those who left.
    pub fn set_members(&self, group: GroupId, ids: impl IntoIterator<Item = NodeId>) {
        self.shared.set_members(group, ids.into_iter().collect());
    }

    /// The group does not run here any more.
    pub fn remove_group(&self, group: GroupId) {
        self.shared.set_members(group, HashSet::new());
    }

    /// Whether a session with a peer is open.
    pub fn is_connected(&self, peer: &NodeId) -> bool {
        self.shared.registry.contains(peer)
    }

    /// The peers with which frames of a group can be exchanged now, in the order of their ids.
    pub fn connected_members(&self, group: GroupId) -> Vec<NodeId> {
        let sessions = self.shared.registry.all().into_iter();
        sessions
            .filter(|session| session.is_announced(group) && self.shared.groups.is_member(group, &session.peer))
            .map(|session| session.peer)
            .collect()
    }

    /// The open sessions, in the order of their node ids.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let sessions = self.shared.registry.all();
        sessions.iter().map(|session| session.info(session.common(&self.shared.groups.of(&session.peer)))).collect()
    }

    /// The addresses this node connects to, with what came of it.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.book.lock().list(Instant::now(), &|id| self.shared.registry.contains(id))
    }

    /// Adds addresses to the list of peers and keeps them. All or none: the fault says why.
    pub fn add_peers(&self, addresses: &[SocketAddr]) -> Result<(), Fault> {
        let mut changes = self.changes.lock();
        let new: HashSet<&SocketAddr> = {
            let book = self.shared.book.lock();
            let new: HashSet<_> = addresses.iter().filter(|address| !book.contains(address)).collect();
            if book.len() + new.len() > self.shared.limits.peers {
                let what = format!("{} addresses and {} new ones are more than {}", book.len(), new.len(), self.shared.limits.peers);
                return Err(Fault::new(FaultKind::Operation, what, "erase addresses that are not used, or raise p2p.max_nodes_limit"));
            }
            new
        };
        self.change(&mut changes, |changes| addresses.iter().for_each(|address| changes.add(*address)))?;
        let mut book = self.shared.book.lock();
        addresses.iter().filter(|address| new.contains(address)).for_each(|address| book.add(*address, Instant::now()));
        drop(book);
        self.shared.loops[0].wake();
        Ok(())
    }

    /// Takes addresses off the list of peers, for good, and ends the sessions with the nodes behind them. A node that has this one in
    /// its own list connects again: see [`Self::set_lists`] for keeping it out. The number of addresses that were on the list.
    pub fn erase_peers(&self, addresses: &[SocketAddr]) -> Result<usize, Fault> {
        let mut changes = self.changes.lock();
        self.change(&mut changes, |changes| addresses.iter().for_each(|address| changes.erase(*address)))?;
        let mut erased = 0;
        for address in addresses {
            let mut book = self.shared.book.lock();
            let known = book.contains(address);
            let behind = book.erase(address);
            drop(book);
            erased += usize::from(known);
            let sessions = self.shared.registry.all();
            for session in sessions.iter().filter(|session| session.dialed == Some(*address) || behind == Some(session.peer)) {
                self.shared.cut(session, EndReason::Erased);
            }
        }
        Ok(erased)
    }

    fn change(&self, changes: &mut Changes, make: impl FnOnce(&mut Changes)) -> Result<(), Fault> {
        let mut changed = changes.clone();
        make(&mut changed);
        if let Some(path) = self.peers_file.as_deref().filter(|_| changed != *changes) {
            changed.store(path)?;
        }
        *changes = changed;
        Ok(())
    }

    /// Puts new lists into effect: sessions that are not admitted any more are cut; nothing of theirs is queued or delivered after the
    /// return, but for a frame whose delivery had begun. Not to be called by the sink.
    pub fn set_lists(&self, lists: AccessLists) {
        self.shared.set_lists(lists);
    }

    /// The lists in effect.
    pub fn lists(&self) -> AccessLists {
        self.shared.lists.read().clone()
    }

    /// Uses new certificates for the sessions that are opened from now on; open ones go on. They must name this node.
    pub fn reload_certificates(&self, material: &TlsMaterial) -> Result<(), Fault> {
        let configs = TlsConfigs::new(material, &self.shared.own())?;
        *self.shared.tls.write() = configs;
        Ok(())
    }

    /// A picture of the counters.
    pub fn counters(&self) -> NetworkCounters {
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        NetworkCounters {
            sessions: count(self.shared.registry.len()),
            queued_bytes: count(self.shared.budget.used()),
            ..self.shared.counters.snapshot()
        }
    }

    /// Ends all sessions and the threads. What is queued may be written for at most `deadline`. Not to be called by the sink. A second
    /// call does nothing.
    pub fn stop(&self, deadline: Duration) {
        self.shared.stop_by.lock().get_or_insert(Instant::now() + deadline);
        self.shared.loops.iter().for_each(LoopHandle::wake);
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a network loop has panicked");
            }
        }
    }
}

impl Drop for PeerNetwork {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

fn cannot_bind(address: SocketAddr, error: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::Network,
        format!("the P2P port cannot be opened on {address}: {error}"),
        "stop the process that has the port (ss -ltnp), or change p2p.listen_ip and p2p.listen_port in config.ini",
    )
}

fn no_loop(error: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::Operation,
        format!("the P2P port has no event loop: {error}"),
        "raise the limits on open files and processes (ulimit -n, ulimit -u)",
    )
}
