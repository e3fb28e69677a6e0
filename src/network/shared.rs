//! What the handle, the callers' threads and the loops have in common, and the paths of a frame into a queue.
//!
//! Locks are taken in this order and never held while the sink is called, but for `announcements`: announcements, book, registry, groups,
//! a session's. `announcements` is held during `connected` and `disconnected`, so that each peer's come in their order.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use millrace_base::{ChainId, GroupId, KeyPair, NodeId, wire};
use mio::{Token, Waker};
use parking_lot::{Mutex, RwLock};

use crate::book::PeerBook;
use crate::connection::Connection;
use crate::counters::{Counters, DropReason};
use crate::counts::Counts;
use crate::ending::{EndReason, Ending};
use crate::frame::{Unit, WireFrame, control};
use crate::groups::Groups;
use crate::hello::Instance;
use crate::queue::{Budget, Push};
use crate::registry::{Admission, Registry};
use crate::session::{Session, request};
use crate::tls::TlsConfigs;
use crate::{AccessLists, Frame, FrameSink, NetworkLimits};

/// How others reach a loop.
pub(crate) struct LoopHandle {
    waker: Waker,
    /// Whether the loop is awake or has been woken: it will look into its boxes before it sleeps.
    is_awake: AtomicBool,
    /// Connections with requests; each is at most once in here.
    requests: Mutex<Vec<Token>>,
    /// Connections that this loop shall drive; as many as there may be.
    arrivals: Mutex<Vec<Connection>>,
}

impl LoopHandle {
    pub fn new(waker: Waker) -> Self {
        Self { waker, is_awake: AtomicBool::new(false), requests: Mutex::default(), arrivals: Mutex::default() }
    }

    pub fn wake(&self) {
        if !self.is_awake.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            // The loop's next tick finds what there is to do.
            tracing::warn!("a network loop cannot be woken: {error}");
        }
    }

    /// The loop looks into its boxes now: nobody needs to wake it.
    pub fn set_awake(&self) {
        self.is_awake.store(true, Ordering::Release);
    }

    /// The loop is about to sleep; false when something has come in.
    pub fn may_sleep(&self) -> bool {
        self.is_awake.store(false, Ordering::SeqCst);
        self.requests.lock().is_empty() && self.arrivals.lock().is_empty()
    }

    pub fn take_requests(&self) -> Vec<Token> {
        std::mem::take(&mut self.requests.lock())
    }

    pub fn take_arrivals(&self) -> Vec<Connection> {
        std::mem::take(&mut self.arrivals.lock())
    }

    pub fn arrive(&self, connection: Connection) {
        self.arrivals.lock().push(connection);
        self.wake();
    }
}

/// What a connection is to the node's sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It carries the session with its peer.
    Current,
    /// Another connection does; this one is read until the other side knows as well.
    Retired,
}

/// See the module.
pub(crate) struct Shared {
    pub key: KeyPair,
    pub chain_id: ChainId,
    pub instance: Instance,
    pub limits: NetworkLimits,
    pub compress_above: usize,
    pub sink: Arc<dyn FrameSink>,
    pub tls: RwLock<TlsConfigs>,
    pub lists: RwLock<AccessLists>,
    pub groups: Groups,
    pub registry: Registry,
    pub book: Mutex<PeerBook>,
    pub counters: Counters,
    pub counts: Counts,
    pub budget: Arc<Budget>,
    pub loops: Vec<LoopHandle>,
    /// Next connection's number. Numbers are not used twice.
    pub next_token: AtomicUsize,
    /// Set once: until when the loops may write what is queued.
    pub stop_by: Mutex<Option<Instant>>,
    pub announcements: Mutex<()>,
}

impl Shared {
    pub fn own(&self) -> NodeId {
        self.key.node_id()
    }

    /// Sends to one peer. See [`crate::PeerNetwork::send`].
    pub fn send(&self, to: NodeId, frame: Frame) -> bool {
        let checked = match self.registry.get(&to).filter(|session| !session.is_cut()) {
            _ if !frame.is_sendable() => Err(DropReason::Unsendable),
            None => Err(DropReason::NotConnected),
            Some(session) => self.may_send(&session, frame.group).map(|()| session),
        };
        match checked {
            Ok(session) => self.push(&session, WireFrame::new(frame, self.compress_above)),
            Err(reason) => {
                self.counters.dropped(reason, 1);
                false
            }
        }
    }

    /// Sends to all connected members. See [`crate::PeerNetwork::broadcast`].
    pub fn broadcast(&self, group: GroupId, frame: Frame) -> usize {
        let frame = Frame { group: Some(group), ..frame };
        if !frame.is_sendable() {
            self.counters.dropped(DropReason::Unsendable, 1);
            return 0;
        }
        let mut receivers = self.registry.all();
        receivers.retain(|session| !session.is_cut() && self.may_send(session, Some(group)).is_ok());
        if receivers.is_empty() {
            return 0;
        }
        let frame = WireFrame::new(frame, self.compress_above);
        receivers.iter().filter(|session| self.push(session, frame.clone())).count()
    }

    fn may_send(&self, session: &Session, group: Option<GroupId>) -> Result<(), DropReason> {
        match group {
            Some(group) if !self.groups.is_member(group, &session.peer) => Err(DropReason::PeerNotMember),
            Some(group) if !session.is_announced(group) => Err(DropReason::GroupNotShared),
            _ => Ok(()),
        }
    }

    fn push(&self, session: &Arc<Session>, frame: WireFrame) -> bool {
        let (kind, bytes) = (frame.kind, frame.bytes.len());
        let mut result = self.queue(session, frame.clone());
        let mut session = Arc::clone(session);
        // Another connection has taken the session over in this very moment.
        if result == Err(DropReason::NotConnected)
            && let Some(successor) = self.registry.get(&session.peer).filter(|successor| successor.token != session.token)
        {
            result = self.queue(&successor, frame);
            session = successor;
        }
        match result {
            Ok(()) => {
                self.counters.frame_out(kind, bytes);
                self.request(&session, request::FLUSH);
            }
            Err(reason) => self.counters.dropped(reason, 1),
        }
        result.is_ok()
    }

    fn queue(&self, session: &Session, frame: WireFrame) -> Result<(), DropReason> {
        // Held until the frame is queued: who removes a member afterwards finds it there and takes it out.
        let groups = self.groups.hold();
        if frame.group.is_some_and(|group| !groups.is_member(group, &session.peer)) {
            return Err(DropReason::PeerNotMember);
        }
        match session.queue.lock().push(frame, session.group_count.load(Ordering::Relaxed)) {
            Push::Taken => Ok(()),
            Push::Full => Err(DropReason::QueueFull),
            Push::Closed => Err(DropReason::NotConnected),
        }
    }

    /// Asks the loop of a session to do something.
    pub fn request(&self, session: &Session, bits: u8) {
        if session.add_request(bits) {
            let handle = &self.loops[session.loop_index];
            handle.requests.lock().push(session.token);
            handle.wake();
        }
    }

    /// Ends a session; nothing of it is delivered from now on.
    pub fn cut(&self, session: &Session, reason: EndReason) {
        session.mark_cut(reason);
        self.request(session, request::CUT);
    }

    pub fn set_members(&self, group: GroupId, members: HashSet<NodeId>) {
        let changed = self.groups.set(group, members);
        for id in changed {
            let Some(session) = self.registry.get(&id) else { continue };
            if !self.groups.is_member(group, &id) {
                let discarded = session.queue.lock().drop_group(group);
                self.counters.dropped(DropReason::Discarded, discarded);
            }
            self.request(&session, request::REGROUP);
        }
    }

    pub fn set_lists(&self, lists: AccessLists) {
        *self.lists.write() = lists;
        // Whoever is being admitted at this moment has read the new lists, or is in the registry by now.
        let _order = self.announcements.lock();
        let lists = self.lists.read();
        for session in self.registry.all() {
            if !lists.admits(&session.peer) {
                self.cut(&session, EndReason::NotAdmitted);
            }
        }
    }

    /// The message that tells a peer in which groups this node counts it.
    pub fn groups_message(&self, peer: &NodeId) -> Vec<u8> {
        let groups: Vec<u16> = self.groups.of(peer).into_iter().map(GroupId::get).collect();
        control(Unit::Groups, &wire::encode(&groups))
    }

    /// A connection has proven its peer: decides what becomes of it.
    pub fn open(&self, session: &Arc<Session>) -> Result<Standing, Ending> {
        let _order = self.announcements.lock();
        if !self.lists.read().admits(&session.peer) {
            return Err(Ending::new(EndReason::NotAdmitted, "the lists of this node do not admit it"));
        }
        if let Some(address) = &session.dialed
            && !self.book.lock().opened(address, Instant::now())
        {
            return Err(Ending::new(EndReason::Erased, "its address was erased"));
        }
        let admission = self.registry.admit(session, &self.own(), &self.limits);
        let common = session.common(&self.groups.of(&session.peer));
        session.set_common(&common);
        match admission {
            Admission::Opened => {
                self.sink.connected(session.peer);
                self.sink.groups_changed(session.peer, &common);
            }
            Admission::TookOver(old) => {
                if old.instance == session.instance {
                    self.request(&old, request::RETIRE);
                } else {
                    self.cut(&old, EndReason::Replaced);
                    self.sink.disconnected(session.peer);
                    self.sink.connected(session.peer);
                }
                self.sink.groups_changed(session.peer, &common);
                self.request(session, request::FLUSH);
            }
            // The older session stays for now. Whether it lives is found out: it may be the rest of a connection that broke silently.
            Admission::Lost { existing, is_other_process: false } => {
                self.request(&existing, request::PROBE);
                session.queue.lock().close();
                return Ok(Standing::Retired);
            }
            Admission::Lost { existing, is_other_process: true } => {
                existing.contested.lock().replace(session.address);
                self.request(&existing, request::PROBE);
                let detail = format!("another process with node id {} is connected from {}", session.peer, existing.address);
                let is_known = existing.duplicate.lock().is_some();
                return Err(Ending::new(if is_known { EndReason::DuplicateIdentity } else { EndReason::Contested }, detail));
            }
        }
        Ok(Standing::Current)
    }

    /// A session's connection has ended.
    pub fn close(&self, session: &Session) {
        let _order = self.announcements.lock();
        let was_current = self.registry.remove(&session.peer, session.token);
        let discarded = session.queue.lock().close();
        self.counters.dropped(DropReason::Discarded, discarded);
        if was_current {
            self.book.lock().peer_gone(&session.peer, Instant::now());
            self.sink.disconnected(session.peer);
        }
    }

    /// Counts an incoming connection.
    pub fn enter(&self, address: IpAddr) -> Result<crate::counts::Place, &'static str> {
        self.counts.enter(address, &self.limits).inspect_err(|_| self.counters.over_limit())
    }

    /// Another process uses this node's key.
    pub fn own_identity_seen(&self, address: SocketAddr) {
        self.counters.own_duplicate(address);
        self.counters.duplicate_identity();
    }
}
