//! Joins the pure parts with the node: sessions, requests on the runtime, pushes.
//!
//! Threads: the event loop calls [`Hub::opened`], [`Hub::frame`] and [`Hub::closed`] and never waits for storage, execution or the
//! pipeline; requests run on the runtime; [`pushes`] has one thread for receipts, block notifications and time, one for event logs.
//! Locks are taken one at a time and never held while another part is called, the AMOP engine's excepted while its effects are queued, so
//! that they leave in order. Invariant: every queue towards a client is bounded; a client that does not read loses its session.

pub mod pushes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use millrace_base::{B256, Bytes, GroupId, NodeId};
use millrace_ledger::view::{NodeView, SubmitError};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use super::access::{AllowLists, Identity};
use super::amop::engine::{AmopEngine, Effect};
use super::amop::{self, AmopPeers, PeerMessage};
use super::events;
use super::events::request::Request;
use super::frame::{Frame, Sequence, kind};
use super::receipts::{Origin, Receipts};
use super::session::{Action, SessionState};
use super::topics::{SessionId, TopicBoard};
use crate::error::RpcError;
use crate::gateway::{Caller, Front, Gateway, Receipt};
use crate::limits::{
    GO_SDK_RECEIPT_DELAY, MAX_QUEUED_BYTES, MAX_REQUEST_BYTES, MAX_REQUESTS, MAX_SESSION_REQUEST_BYTES, MAX_SESSION_REQUESTS,
};
use crate::quota::Quotas;
use pushes::Pushes;

/// The sockets, as the hub sees them. Calls return at once.
pub trait Wire: Send + Sync {
    /// Queues one frame for one TLS write of its own; nothing happens when the session is gone.
    fn send(&self, session: SessionId, frame: Vec<u8>);
    /// Bytes queued for a client that were not written yet.
    fn queued_bytes(&self, session: SessionId) -> usize;
    /// Ends a session; [`Hub::closed`] follows.
    fn close(&self, session: SessionId);
    /// Whether to read what a client sends.
    fn set_reading(&self, session: SessionId, reading: Reading);
}

/// Whether a client is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// As it comes.
    On,
    /// Not now; its own requests keep the node busy enough.
    Off,
}

/// What the hub works with.
pub struct Parts {
    /// The node.
    pub node: Arc<dyn NodeView>,
    /// Answers JSON-RPC.
    pub gateway: Gateway,
    /// Where requests run; multi-threaded.
    pub runtime: Handle,
    /// Who may see which group.
    pub access: AllowLists,
    /// Rates.
    pub quotas: Arc<Quotas>,
    /// Where topics are shown.
    pub board: TopicBoard,
    /// The way to other nodes.
    pub peers: Arc<dyn AmopPeers>,
    /// Most blocks an event subscription of a group may reach back; absent or zero for any number (`event_filter.max_block_range`).
    pub max_block_range: BTreeMap<GroupId, u64>,
}

/// One client.
pub struct Session {
    id: SessionId,
    address: SocketAddr,
    identity: Identity,
    state: Mutex<SessionState>,
    /// Its requests being answered.
    load: Load,
}

/// See the module.
pub struct Hub {
    parts: Parts,
    wire: Arc<dyn Wire>,
    sessions: RwLock<HashMap<SessionId, Arc<Session>>>,
    amop: Mutex<AmopEngine>,
    receipts: Mutex<Receipts>,
    pushes: Pushes,
    /// Requests of all sessions being answered, and their bytes.
    load: Load,
    /// Sessions that are not read.
    paused: Mutex<BTreeSet<SessionId>>,
    started: Instant,
}

/// Requests being answered.
#[derive(Default)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    fn add(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn reaches(&self, requests: usize, bytes: usize) -> bool {
        self.requests.load(Ordering::Acquire) >= requests || self.bytes.load(Ordering::Acquire) >= bytes
    }
}

impl Hub {
    /// A hub without sessions. `seed` decides only which AMOP subscriber is tried first.
    pub fn new(parts: Parts, wire: Arc<dyn Wire>, start_ms: u64, seed: u64) -> Arc<Self> {
        let own = parts.node.info().node_id;
        let heads = parts.node.groups().into_iter().filter_map(|group| Some((group, parts.node.ledger(group)?.head().number)));
        let pushes = Pushes::new(heads.collect());
        Arc::new(Self {
            parts,
            wire,
            sessions: RwLock::default(),
            amop: Mutex::new(AmopEngine::new(own, start_ms, seed)),
            receipts: Mutex::default(),
            pushes,
            load: Load::default(),
            paused: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// Sessions that are open.
    pub fn session_count(&self) -> usize {
        self.sessions.read().len()
    }

    /// The list of this node's topics, for a peer.
    pub fn topics_message(&self) -> PeerMessage {
        self.amop.lock().topics_message()
    }

    /// A peer sent AMOP.
    pub fn peer_message(&self, peer: NodeId, message: PeerMessage) {
        let now_ms = self.now_ms();
        self.with_amop(|engine| engine.on_peer(peer, message, now_ms));
    }

    /// A peer is gone.
    pub fn peer_gone(&self, peer: NodeId) {
        let now_ms = self.now_ms();
        self.with_amop(|engine| engine.on_peer_gone(peer, now_ms));
    }

    /// Milliseconds since the hub began.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.read().get(&id).cloned()
    }

    /// A client has shown a certificate that is accepted.
    pub fn opened(&self, id: SessionId, address: SocketAddr, identity: Identity) {
        tracing::info!(%address, session = id, subject = %identity.subject, issuer = %identity.issuer, "channel session opened");
        let state = SessionState::new(&self.parts.node.info().supported_version, self.now_ms());
        let session = Session { id, address, identity, state: Mutex::new(state), load: Load::default() };
        self.sessions.write().insert(id, Arc::new(session));
    }

    /// A session is gone.
    pub fn closed(&self, id: SessionId, reason: &str) {
        let Some(session) = self.sessions.write().remove(&id) else { return };
        tracing::info!(address = %session.address, session = id, reason, "channel session closed");
        self.receipts.lock().forget(id);
        self.pushes.forget(id);
        let now_ms = self.now_ms();
        self.with_amop(|engine| engine.on_session_gone(id, now_ms));
    }

    /// A client sent a frame.
    pub fn frame(self: &Arc<Self>, id: SessionId, frame: Frame) {
        let Some(session) = self.session(id) else { return };
        let now_ms = self.now_ms();
        let actions = session.state.lock().on_frame(frame, now_ms);
        for action in actions {
            self.perform(&session, action, now_ms);
        }
    }

    fn perform(self: &Arc<Self>, session: &Arc<Session>, action: Action, now_ms: u64) {
        match action {
            Action::Send(frame) => self.send(session, &frame),
            Action::Rpc(sequence, body) => self.start_request(session, sequence, body),
            Action::Topics(topics) => self.with_amop(|engine| engine.on_topics(session.id, topics)),
            Action::EventSubscribe(sequence, body) => self.subscribe(session, sequence, &body),
            Action::EventCancel(sequence, body) => self.cancel(session, sequence, &body),
            Action::AmopRequest(topic, frame) => match self.parts.quotas.admit_amop(frame.length()) {
                true => self.with_amop(|engine| engine.on_request(session.id, topic, frame, now_ms)),
                false => self.refuse_amop(session, frame.sequence),
            },
            Action::AmopBroadcast(topic, frame) => match self.parts.quotas.admit_amop(frame.length()) {
                true => self.with_amop(|engine| engine.on_broadcast(session.id, &topic, &frame)),
                false => self.refuse_amop(session, frame.sequence),
            },
            Action::AmopAnswer(frame) => self.with_amop(|engine| engine.on_answer(session.id, frame)),
            Action::TopicVerdict(verdict) => self.with_amop(|engine| engine.on_verdict(session.id, &verdict)),
            Action::Close(reason) => self.end(session, &reason),
        }
    }

    /// Queues a frame for a client, unless the client has too much to read already.
    fn send(&self, session: &Session, frame: &Frame) {
        if self.wire.queued_bytes(session.id) > MAX_QUEUED_BYTES {
            return self.end(session, "the client does not read what it is sent");
        }
        session.state.lock().on_traffic(self.now_ms());
        self.wire.send(session.id, frame.encode());
    }

    fn send_to(&self, id: SessionId, frame: &Frame) {
        if let Some(session) = self.session(id) {
            self.send(&session, frame);
        }
    }

    /// Sends receipts: at once, or to a client that cannot stand them right behind the reply, a moment later. What waits is bounded by
    /// what the session may have awaited, and by the moment.
    fn send_receipts(self: &Arc<Self>, session: &Session, frames: Vec<Frame>) {
        if !session.state.lock().wants_late_receipts() {
            return frames.iter().for_each(|frame| self.send(session, frame));
        }
        let (hub, id) = (Arc::clone(self), session.id);
        self.parts.runtime.spawn(async move {
            tokio::time::sleep(GO_SDK_RECEIPT_DELAY).await;
            frames.iter().for_each(|frame| hub.send_to(id, frame));
        });
    }

    fn end(&self, session: &Session, reason: &str) {
        tracing::warn!(address = %session.address, session = session.id, subject = %session.identity.subject, reason, "channel session ended by the node");
        self.wire.close(session.id);
    }

    /// Runs the AMOP engine and queues its effects in order. What clients are told may end sessions, which comes back later as
    /// [`Self::closed`]; nothing here enters the engine again.
    fn with_amop(&self, run: impl FnOnce(&mut AmopEngine) -> Vec<Effect>) {
        let mut engine = self.amop.lock();
        for effect in run(&mut engine) {
            match effect {
                Effect::Client(session, frame) => self.send_to(session, &frame),
                Effect::Peer(peer, message) => self.parts.peers.send(peer, &message),
                Effect::Peers(message) => self.parts.peers.topics_changed(&message),
                Effect::Show(None, topics) => self.parts.board.set_own(topics),
                Effect::Show(Some(peer), topics) => self.parts.board.set_peer(peer, topics),
            }
        }
    }

    fn refuse_amop(&self, session: &Session, sequence: Sequence) {
        let refusal = Frame::new(kind::AMOP_ANSWER, sequence, Bytes::new()).with_result(amop::code::OVER_LIMIT);
        self.send(session, &refusal);
    }

    /// Runs a request on the runtime. A session with too many is not read until some are answered.
    fn start_request(self: &Arc<Self>, session: &Arc<Session>, sequence: Sequence, body: Bytes) {
        session.load.add(body.len());
        self.load.add(body.len());
        if session.is_busy() || self.is_busy() {
            // Undone when a request ends, at the latest this one.
            let mut paused = self.paused.lock();
            paused.insert(session.id);
            self.wire.set_reading(session.id, Reading::Off);
        }
        let (hub, session) = (Arc::clone(self), Arc::clone(session));
        self.parts.runtime.spawn(async move {
            let origin = Origin { session: session.id, sequence };
            let front = SessionFront { hub: &hub, session: &session, origin };
            let caller = Caller { submitter: crate::http::submitter(session.address.ip()), front: Some(&front) };
            let reply = hub.parts.gateway.answer_for(&body, caller).await;
            hub.finish_request(&session, origin, reply, body.len());
        });
    }

    fn finish_request(self: &Arc<Self>, session: &Session, origin: Origin, reply: Vec<u8>, length: usize) {
        // First the reply, then the receipts that came before it.
        self.send(session, &Frame::new(kind::RPC, origin.sequence, reply));
        let ready = self.receipts.lock().answered(origin);
        if !ready.is_empty() {
            self.send_receipts(session, ready);
        }
        session.load.remove(length);
        self.load.remove(length);
        if !self.is_busy() {
            self.resume();
        }
    }

    fn is_busy(&self) -> bool {
        self.load.reaches(MAX_REQUESTS, MAX_REQUEST_BYTES)
    }

    /// Reads sessions again that are not busy by themselves.
    fn resume(&self) {
        self.paused.lock().retain(|id| {
            let session = self.session(*id);
            let stays = session.as_ref().is_some_and(|session| session.is_busy());
            if session.is_some() && !stays {
                self.wire.set_reading(*id, Reading::On);
            }
            stays
        });
    }

    fn subscribe(&self, session: &Session, sequence: Sequence, body: &[u8]) {
        match Request::parse(body) {
            Ok(request) => {
                if !self.pushes.subscribe(session.id, sequence, request) {
                    self.send(session, &event_reply(kind::EVENT_SUBSCRIBE, sequence, events::code::INVALID_REQUEST));
                }
            }
            Err(code) => self.send(session, &event_reply(kind::EVENT_SUBSCRIBE, sequence, code)),
        }
    }

    /// The answer is the same whether or not there was such a subscription, so it need not wait.
    fn cancel(&self, session: &Session, sequence: Sequence, body: &[u8]) {
        let code = match Request::parse(body) {
            Ok(request) if !self.parts.access.allows(request.group, &session.identity) => events::code::NOT_ALLOWED,
            Ok(request) => {
                self.pushes.cancel(session.id, request.group, request.id);
                events::code::OK
            }
            Err(code) => code,
        };
        self.send(session, &event_reply(kind::EVENT_CANCEL, sequence, code));
    }
}

impl Session {
    /// Whether its requests are as many as the node takes on at once.
    fn is_busy(&self) -> bool {
        self.load.reaches(MAX_SESSION_REQUESTS, MAX_SESSION_REQUEST_BYTES)
    }
}

/// The reply to an event request: an empty topic in front of the JSON.
fn event_reply(kind: u16, sequence: Sequence, code: i32) -> Frame {
    Frame::new(kind, sequence, format!("\u{1}{{\"result\":{code}}}\n").into_bytes())
}

/// What a session adds to its requests.
struct SessionFront<'a> {
    hub: &'a Hub,
    session: &'a Session,
    origin: Origin,
}

impl Front for SessionFront<'_> {
    fn admit(&self, method: &str, group: Option<GroupId>) -> Result<(), RpcError> {
        if group.is_some_and(|group| !self.hub.parts.access.allows(group, &self.session.identity)) {
            return Err(RpcError::not_allowed(method));
        }
        Ok(())
    }

    fn on_submission(&self, group: GroupId, hash: B256, wants: Receipt) -> Result<(), RpcError> {
        let mut receipts = self.hub.receipts.lock();
        // Under the lock, because a session that ends while its requests run forgets its receipts under it.
        if self.hub.session(self.session.id).is_none() {
            return Err(RpcError::unavailable("the session is closed"));
        }
        match receipts.announce(self.origin, group, hash, wants) {
            true => Ok(()),
            false => Err(RpcError::unavailable("too many transactions of this session await their receipts")),
        }
    }

    fn on_refused(&self, group: GroupId, hash: B256, error: Option<&SubmitError>) -> bool {
        let by_receipt = self.session.state.lock().version().reports_refusals_by_receipt();
        let mut receipts = self.hub.receipts.lock();
        receipts.withdraw(self.origin, group, hash);
        match error {
            Some(SubmitError::Refused(refusal)) if by_receipt => {
                receipts.refuse(self.origin, refusal.status);
                true
            }
            _ => false,
        }
    }
}
