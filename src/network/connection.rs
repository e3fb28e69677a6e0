//! One connection, from the first packet to its last: TLS, hello, groups, then frames. Driven by a loop, which calls
//! [`Connection::drive`] when the socket is ready, [`Connection::take_requests`] when others ask, and [`Connection::tick`] for deadlines.
//!
//! ```text
//! Connecting -> Tls -> Hello -> Groups -> Open -> Draining
//! ```
//!
//! Invariant: before `Open` the peer gets nothing but the hello and the groups in which it is a member, and only messages of those types
//! and sizes are accepted from it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use millrace_base::{GroupId, wire};
use mio::Token;

use crate::counters::DropReason;
use crate::counts::Place;
use crate::ending::{EndReason, Ending};
use crate::frame::assembler::{Assembler, Gate, Received};
use crate::frame::{Header, Malformed, Unit, WireFrame, control};
use crate::hello::{Binding, Hello, VERSION};
use crate::limits::{BATCH_BYTES, DRAIN, MAX_GROUPS_BYTES, RETIREMENT, TURN_BYTES};
use crate::link::{Link, LinkError, ReadState, Scratch};
use crate::queue::SendQueue;
use crate::session::{Direction, Parts, Session, request};
use crate::shared::{Shared, Standing};
use crate::tls::{PeerNames, explain, verifier};

mod deadlines;
mod heartbeat;

use heartbeat::Heartbeat;

/// What a connection works with besides itself.
pub(crate) struct Context<'a> {
    pub shared: &'a Shared,
    pub scratch: &'a mut Scratch,
    pub now: Instant,
}

/// How far it has come.
enum Phase {
    /// The socket is not yet connected.
    Connecting,
    Tls,
    /// Certificates are checked; the node key is not.
    Hello,
    /// The peer is proven; its groups are not known.
    Groups(Hello),
    Open(Arc<Session>),
    /// Over; read for a moment so that the peer can take up the reason.
    Draining(Instant),
}

/// Whether a connection has more to do without waiting for its socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Done,
    Again,
}

/// See the module.
pub(crate) struct Connection {
    pub token: Token,
    pub link: Link,
    pub address: SocketAddr,
    pub direction: Direction,
    /// The address of the list of peers, when this node connected.
    pub dialed: Option<SocketAddr>,
    pub loop_index: usize,
    place: Option<Place>,
    phase: Phase,
    names: Option<PeerNames>,
    assembler: Assembler,
    begun: Instant,
    heartbeat: Heartbeat,
    /// Pings and pongs, which go before any frame.
    urgent: Vec<u8>,
    /// The peer has to be told its groups.
    owes_groups: bool,
    /// Until when it is read although another connection carries the session.
    retires: Option<Instant>,
}

impl Connection {
    pub fn new(link: Link, address: SocketAddr, token: Token, loop_index: usize, now: Instant) -> Self {
        Self {
            token,
            link,
            address,
            direction: Direction::Incoming,
            dialed: None,
            loop_index,
            place: None,
            phase: Phase::Tls,
            names: None,
            assembler: Assembler::default(),
            begun: now,
            heartbeat: Heartbeat::new(now),
            urgent: Vec::new(),
            owes_groups: false,
            retires: None,
        }
    }

    /// Accepted, and counted by `place`.
    pub fn incoming(mut self, place: Place) -> Self {
        self.link.tune();
        self.place = Some(place);
        self
    }

    /// On its way to an address of the list of peers.
    pub fn outgoing(mut self) -> Self {
        self.direction = Direction::Outgoing;
        self.dialed = Some(self.address);
        self.phase = Phase::Connecting;
        self
    }

    /// The open session on it.
    pub fn session(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        }
    }

    /// The peer as far as it is known, for the log.
    pub fn names(&self) -> Option<&PeerNames> {
        self.names.as_ref()
    }

    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining(_))
    }

    /// Reads, acts and writes as far as the socket and the turn allow.
    pub fn drive(&mut self, context: &mut Context<'_>) -> Result<Turn, Ending> {
        match self.phase {
            Phase::Draining(_) => return self.drain(context),
            Phase::Connecting if !self.link.writable => return Ok(Turn::Done),
            Phase::Connecting => {
                if let Some(error) = self.link.stream.take_error().map_err(|error| Ending::socket(&error))? {
                    return Err(Ending::socket(&error));
                }
                self.link.tune();
                self.phase = Phase::Tls;
            }
            _ => {}
        }
        let mut turn = 0;
        while self.link.readable && turn < TURN_BYTES {
            match self.link.read(context.scratch, &context.shared.counters).map_err(|error| self.explained(error))? {
                ReadState::Closed => return Err(self.closed()),
                ReadState::More(read) => turn += read,
                ReadState::Drained => {}
            }
            self.heartbeat.heard(context.now);
            self.begin_hello(context)?;
            self.take_in(context)?;
        }
        self.begin_hello(context)?;
        let written = self.flush(context)?;
        Ok(if self.link.readable { Turn::Again } else { written })
    }

    /// TLS is done: proves this node's key to the peer.
    fn begin_hello(&mut self, context: &Context<'_>) -> Result<(), Ending> {
        if !matches!(self.phase, Phase::Tls) || self.link.is_handshaking() {
            return Ok(());
        }
        let names = self.link.leaf().and_then(PeerNames::read);
        self.names = Some(names.ok_or_else(|| Ending::new(EndReason::Unproven, "its certificate names no node id"))?);
        let shared = context.shared;
        let hello = Hello { version: VERSION, chain_id: shared.chain_id, node_id: shared.own(), instance: shared.instance };
        let signed = hello.sign(&shared.key, &self.binding(self.direction)?);
        self.link.encrypt(&control(Unit::Hello, &signed));
        self.phase = Phase::Hello;
        Ok(())
    }

    fn binding(&self, side: Direction) -> Result<Binding, Ending> {
        let exported = self.link.exported().map_err(|error| Ending::new(EndReason::Tls, error.to_string()))?;
        Ok(Binding { exported, side })
    }

    /// Hands on the messages in `scratch.plain`.
    fn take_in(&mut self, context: &mut Context<'_>) -> Result<(), Ending> {
        let plain = std::mem::take(&mut context.scratch.plain);
        let result = self.take_messages(context, &plain);
        context.scratch.plain = plain;
        result
    }

    fn take_messages(&mut self, context: &Context<'_>, plain: &[u8]) -> Result<(), Ending> {
        if let Phase::Open(session) = &self.phase {
            session.bytes_in.fetch_add(u64::try_from(plain.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let malformed = |Malformed(why)| Ending::new(EndReason::Malformed, why);
        let mut input = plain;
        loop {
            let phase = &self.phase;
            let gate = |header: &Header| gate(phase, header, context.shared);
            match self.assembler.next(&mut input, &gate).map_err(malformed)? {
                None => return Ok(()),
                Some(Received::Frame(frame)) => self.deliver(context, frame).map_err(malformed)?,
                Some(Received::Control(unit, body)) => self.control(context, unit, &body)?,
            }
        }
    }

    fn deliver(&self, context: &Context<'_>, frame: WireFrame) -> Result<(), Malformed> {
        let Phase::Open(session) = &self.phase else { return Ok(()) };
        if session.is_cut() {
            return Ok(());
        }
        // Once more: the sender may have left the group since the frame began.
        if frame.group.is_some_and(|group| !context.shared.groups.is_member(group, &session.peer)) {
            context.shared.counters.dropped(DropReason::SenderNotMember, 1);
            return Ok(());
        }
        let frame = frame.open()?;
        context.shared.counters.frame_in(frame.kind, frame.payload.len());
        context.shared.sink.frame(session.peer, frame);
        Ok(())
    }

    fn control(&mut self, context: &Context<'_>, unit: Unit, body: &[u8]) -> Result<(), Ending> {
        match unit {
            Unit::Hello => self.hello(context, body),
            Unit::Groups => self.groups(context, body),
            Unit::Ping => {
                // Whoever asks thousands of times without reading the answers gets no more of them.
                if self.urgent.len() < BATCH_BYTES {
                    self.urgent.extend_from_slice(&control(Unit::Pong, body));
                }
                Ok(())
            }
            Unit::Pong => {
                if let (Phase::Open(session), Some(rtt)) = (&self.phase, self.heartbeat.pong(body, context.now)) {
                    session.rtt_us.store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
                }
                self.heartbeat_verdict(context)
            }
            _ => Err(Ending::by_peer(body.first().copied().and_then(EndReason::from_code).unwrap_or(EndReason::Closed))),
        }
    }

    fn hello(&mut self, context: &Context<'_>, body: &[u8]) -> Result<(), Ending> {
        let shared = context.shared;
        let names = self.names.as_ref().expect("the certificate is read before the hello");
        let binding = self.binding(self.direction.reverse())?;
        let hello = Hello::verify(body, &binding, &names.node_id, shared.chain_id)?;
        if hello.node_id == shared.own() {
            if hello.instance == shared.instance {
                return Err(Ending::new(EndReason::Itself, "it is this node itself"));
            }
            shared.own_identity_seen(self.address);
            let detail = format!("another process uses this node's own key and certificate, at {}", self.address);
            return Err(Ending::new(EndReason::DuplicateIdentity, detail));
        }
        if let Some(address) = &self.dialed {
            shared.book.lock().identified(address, hello.node_id);
        }
        if !shared.lists.read().admits(&hello.node_id) {
            return Err(Ending::new(EndReason::NotAdmitted, "the lists of this node do not admit it"));
        }
        if self.direction == Direction::Outgoing && !shared.registry.begin_opening(hello.node_id, hello.instance, self.token) {
            return Err(Ending::new(EndReason::Replaced, "the node is connected under another address"));
        }
        self.link.encrypt(&shared.groups_message(&hello.node_id));
        self.phase = Phase::Groups(hello);
        Ok(())
    }

    fn groups(&mut self, context: &Context<'_>, body: &[u8]) -> Result<(), Ending> {
        let ids: Vec<u16> = wire::decode_within::<MAX_GROUPS_BYTES, _>(body)
            .map_err(|_| Ending::new(EndReason::Malformed, "a list of groups cannot be decoded"))?;
        let announced: BTreeSet<GroupId> = ids.into_iter().filter_map(|id| GroupId::new(i64::from(id))).collect();
        match &self.phase {
            Phase::Open(session) => {
                session.announce(announced);
                if self.retires.is_none() {
                    regrouped(context.shared, session);
                }
                Ok(())
            }
            Phase::Groups(hello) => {
                let session = Arc::new(Session::new(Parts {
                    peer: hello.node_id,
                    instance: hello.instance,
                    names: self.names.clone().expect("the certificate is read before the hello"),
                    address: self.address,
                    direction: self.direction,
                    dialed: self.dialed,
                    loop_index: self.loop_index,
                    token: self.token,
                    queue: SendQueue::new(&context.shared.limits, &context.shared.budget),
                    announced,
                }));
                let opened = context.shared.open(&session);
                context.shared.registry.end_opening(&session.peer, self.token);
                if opened? == Standing::Retired {
                    self.retires = Some(context.now + RETIREMENT);
                }
                self.place.iter_mut().for_each(Place::settle);
                self.heartbeat = Heartbeat::new(context.now);
                if self.retires.is_none() {
                    tracing::info!(peer = %session.names.name, agency = %session.names.agency, node = %session.peer,
                        address = %self.address, direction = ?self.direction, "peer connected");
                }
                // Told once more: they may have changed between the first message and now.
                self.owes_groups = true;
                self.phase = Phase::Open(session);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes as much as the socket takes, in batches.
    fn flush(&mut self, context: &mut Context<'_>) -> Result<Turn, Ending> {
        let counters = &context.shared.counters;
        let mut turn = 0;
        while self.link.writable && turn < TURN_BYTES {
            if !self.link.has_output() {
                let batch = &mut context.scratch.plain;
                batch.clear();
                if let Phase::Open(session) = &self.phase {
                    batch.append(&mut self.urgent);
                    if std::mem::take(&mut self.owes_groups) {
                        batch.extend_from_slice(&context.shared.groups_message(&session.peer));
                    }
                    session.queue.lock().fill(batch, BATCH_BYTES);
                    session.bytes_out.fetch_add(u64::try_from(batch.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
                if batch.is_empty() {
                    return Ok(Turn::Done);
                }
                self.link.encrypt(batch);
            }
            turn += self.link.write(counters, context.now).map_err(|error| self.explained(error))?;
        }
        Ok(if self.link.writable { Turn::Again } else { Turn::Done })
    }

    /// Does what others asked for.
    pub fn take_requests(&mut self, context: &mut Context<'_>) -> Result<Turn, Ending> {
        let Phase::Open(session) = &self.phase else { return Ok(Turn::Done) };
        let session = Arc::clone(session);
        let requests = session.take_requests();
        if requests & request::CUT != 0 {
            let reason = session.cut_reason();
            return Err(Ending::new(reason, "this node ended it"));
        }
        if requests & request::RETIRE != 0 {
            self.retires.get_or_insert(context.now + RETIREMENT);
        }
        if requests & request::REGROUP != 0 {
            self.owes_groups = true;
            regrouped(context.shared, &session);
        }
        if requests & request::PROBE != 0
            && let Some(ping) = self.heartbeat.probe(context.now, &context.shared.limits)
        {
            self.urgent.extend_from_slice(&ping);
        }
        self.flush(context)
    }

    /// Whether everything that was queued is with the kernel.
    pub fn is_flushed(&self) -> bool {
        let queued = self.session().is_some_and(|session| session.queue.lock().has_work());
        !queued && self.urgent.is_empty() && !self.owes_groups && !self.link.has_output()
    }

    /// Whether there is a connection to say goodbye on.
    pub fn is_connected(&self) -> bool {
        !matches!(self.phase, Phase::Connecting)
    }

    /// Says goodbye and waits a moment for the peer to take it up. The session must be closed by now.
    pub fn begin_draining(&mut self, ending: &Ending, context: &Context<'_>) {
        let goodbye = (!ending.is_told).then(|| control(Unit::Goodbye, &[ending.reason as u8]));
        self.link.finish(goodbye.as_deref(), &context.shared.counters);
        self.phase = Phase::Draining(context.now + DRAIN);
    }

    fn drain(&mut self, context: &mut Context<'_>) -> Result<Turn, Ending> {
        let mut turn = 0;
        while self.link.readable {
            match self.link.discard(context.scratch) {
                ReadState::Closed => return Err(Ending::new(EndReason::Closed, "drained")),
                ReadState::More(read) => turn += read,
                ReadState::Drained => {}
            }
            if turn > TURN_BYTES {
                return Err(Ending::new(EndReason::Closed, "drained"));
            }
        }
        Ok(Turn::Done)
    }

    fn closed(&self) -> Ending {
        let detail = match self.phase {
            Phase::Open(_) => "the other node closed the connection",
            _ => "the other end closed the connection before it had proven who it is; its own log knows why",
        };
        Ending { is_told: true, ..Ending::new(EndReason::Closed, detail) }
    }

    fn explained(&self, error: LinkError) -> Ending {
        match error {
            LinkError::Socket(error) => Ending::socket(&error),
            LinkError::Tls(error) => {
                let explanation = explain::explain(&error);
                let shown = verifier::take_refused().map_or(String::new(), |certificate| format!(" ({certificate})"));
                let detail = format!("{}{shown}", explanation.reason);
                // TLS sends its own alert.
                Ending { reason: EndReason::Tls, detail, remedy: explanation.remedy, is_told: true }
            }
        }
    }
}

/// Either side's groups have changed.
fn regrouped(shared: &Shared, session: &Session) {
    let common = session.common(&shared.groups.of(&session.peer));
    let is_new = session.set_common(&common);
    if is_new && !session.is_cut() {
        shared.sink.groups_changed(session.peer, &common);
    }
}

/// Decides on a header, before anything behind it is kept.
fn gate(phase: &Phase, header: &Header, shared: &Shared) -> Gate {
    match (phase, header.unit) {
        (Phase::Hello, Unit::Hello)
        | (Phase::Groups(_), Unit::Groups)
        | (Phase::Open(_), Unit::Groups | Unit::Ping | Unit::Pong | Unit::More { .. } | Unit::Abort { .. })
        | (_, Unit::Goodbye) => Gate::Keep,
        (Phase::Open(session), Unit::Data { group, .. }) => {
            let is_let_in = group.is_none_or(|group| shared.groups.is_member(group, &session.peer));
            if !is_let_in {
                shared.counters.dropped(DropReason::SenderNotMember, 1);
            }
            if is_let_in { Gate::Keep } else { Gate::Skip }
        }
        _ => Gate::Refuse("a message comes at a time when it may not"),
    }
}
