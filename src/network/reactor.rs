//! The event loop: waits for sockets, drives connections, accepts and connects. One thread each; the first has the listener and the list
//! of peers, the others get connections from it.
//!
//! Invariant: nothing in here waits but the poll, and no connection is served for longer than its turn.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use crate::connection::{Connection, Context, Turn};
use crate::ending::{EndReason, Ending};
use crate::limits::{TICK, WARNINGS_PER_SECOND};
use crate::link::{Link, Scratch};
use crate::shared::Shared;

pub(crate) const WAKER: Token = Token(0);
pub(crate) const LISTENER: Token = Token(1);
pub(crate) const FIRST_CONNECTION: usize = 2;

/// Connections accepted in one turn.
const ACCEPTS: usize = 32;

/// Readiness events taken at once; what is left comes with the next poll.
const EVENTS: usize = 512;

/// See the module.
pub(crate) struct Reactor {
    shared: Arc<Shared>,
    index: usize,
    poll: Poll,
    listener: Option<TcpListener>,
    /// The listener may have connections waiting.
    accepts: bool,
    /// It could not take one for want of something; tried again with the next tick.
    accept_failed: bool,
    connections: HashMap<Token, Connection>,
    /// Connections to drive in this turn.
    due: BTreeSet<Token>,
    scratch: Scratch,
    next_tick: Instant,
    warnings: Warnings,
}

impl Reactor {
    pub fn new(shared: Arc<Shared>, index: usize, poll: Poll, listener: Option<TcpListener>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            index,
            poll,
            listener,
            accepts: true,
            accept_failed: false,
            connections: HashMap::new(),
            due: BTreeSet::new(),
            scratch: Scratch::default(),
            next_tick: now,
            warnings: Warnings::new(now),
        }
    }

    /// Runs until the network stops.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!("the network loop cannot wait for its sockets: {error}; what to do: restart the node");
                return self.abandon();
            }
            self.shared.loops[self.index].set_awake();
            let now = Instant::now();
            events.iter().for_each(|event| self.note(event));
            self.take_boxes(now);
            self.accept(now);
            self.connect(now);
            for token in std::mem::take(&mut self.due) {
                self.drive(token, now);
            }
            if now >= self.next_tick {
                self.tick(now);
            }
            let stop_by = *self.shared.stop_by.lock();
            if stop_by.is_some_and(|by| self.stopped(by, now)) {
                return;
            }
        }
    }

    fn timeout(&self) -> Duration {
        if !self.shared.loops[self.index].may_sleep() || !self.due.is_empty() || (self.accepts && self.listener.is_some()) {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let mut wait = self.next_tick.saturating_duration_since(now);
        if self.listener.is_some() {
            let next = self.shared.book.lock().next_due(&|id| self.shared.registry.contains(id));
            wait = next.map_or(wait, |next| wait.min(next.saturating_duration_since(now)));
        }
        // The poll counts in whole milliseconds and would return too early.
        wait + Duration::from_millis(1)
    }

    fn note(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            LISTENER => self.accepts = true,
            token => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    let link = &mut connection.link;
                    link.is_ending |= event.is_read_closed() || event.is_error();
                    link.readable |= event.is_readable() || link.is_ending;
                    link.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
                    self.due.insert(token);
                }
            }
        }
    }

    fn take_boxes(&mut self, now: Instant) {
        for connection in self.shared.loops[self.index].take_arrivals() {
            self.adopt(connection, now);
        }
        for token in self.shared.loops[self.index].take_requests() {
            let Self { connections, shared, scratch, .. } = self;
            let Some(connection) = connections.get_mut(&token) else { continue };
            let result = connection.take_requests(&mut Context { shared, scratch, now });
            self.conclude(token, result, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        let Some(listener) = self.listener.as_ref().filter(|_| self.accepts) else { return };
        let mut accepted = Vec::new();
        for _ in 0..ACCEPTS {
            match listener.accept() {
                Ok(found) => accepted.push(found),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.accepts = false;
                    self.accept_failed = error.kind() != ErrorKind::WouldBlock;
                    if error.kind() != ErrorKind::WouldBlock && self.warnings.may_write(now) {
                        tracing::warn!("a peer cannot be accepted: {error}; what to do: raise the limit on open files (ulimit -n)");
                    }
                    break;
                }
            }
        }
        for (stream, address) in accepted {
            self.welcome(stream, address, now);
        }
    }

    fn welcome(&mut self, stream: TcpStream, address: SocketAddr, now: Instant) {
        let place = match self.shared.enter(address.ip()) {
            Ok(place) => place,
            Err(why) => {
                if self.warnings.may_write(now) {
                    tracing::warn!(%address, "a connection to the P2P port is refused: {why}");
                }
                return;
            }
        };
        let server = Arc::clone(&self.shared.tls.read().server);
        match ServerConnection::new(server) {
            Ok(tls) => {
                let connection = self.new_connection(Link::new(stream, tls.into()), address, now);
                self.hand_on(connection.incoming(place), now);
            }
            Err(error) => tracing::error!(%address, "TLS cannot begin: {error}"),
        }
    }

    /// Connects to the addresses that are due.
    fn connect(&mut self, now: Instant) {
        if self.listener.is_none() {
            return;
        }
        let due = self.shared.book.lock().take_due(now, &|id| self.shared.registry.contains(id));
        for address in due {
            match self.dial(address, now) {
                Ok(connection) => self.hand_on(connection, now),
                Err(ending) => {
                    self.shared.book.lock().ended(&address, &ending, now);
                }
            }
        }
    }

    fn dial(&self, address: SocketAddr, now: Instant) -> Result<Connection, Ending> {
        let client = Arc::clone(&self.shared.tls.read().client);
        let stream = TcpStream::connect(address).map_err(|error| Ending::socket(&error))?;
        let tls = ClientConnection::new(client, ServerName::IpAddress(address.ip().into()));
        let tls = tls.map_err(|error| Ending::new(EndReason::Tls, error.to_string()))?;
        Ok(self.new_connection(Link::new(stream, tls.into()), address, now).outgoing())
    }

    fn new_connection(&self, link: Link, address: SocketAddr, now: Instant) -> Connection {
        let number = self.shared.next_token.fetch_add(1, Ordering::Relaxed);
        Connection::new(link, address, Token(number), number % self.shared.loops.len(), now)
    }

    /// Gives a connection to the loop whose turn it is.
    fn hand_on(&mut self, connection: Connection, now: Instant) {
        match connection.loop_index {
            index if index == self.index => self.adopt(connection, now),
            index => self.shared.loops[index].arrive(connection),
        }
    }

    fn adopt(&mut self, mut connection: Connection, now: Instant) {
        let token = connection.token;
        match self.poll.registry().register(&mut connection.link.stream, token, Interest::READABLE | Interest::WRITABLE) {
            Ok(()) => {
                self.connections.insert(token, connection);
            }
            Err(error) => self.end(connection, Ending::socket(&error), now),
        }
    }

    fn drive(&mut self, token: Token, now: Instant) {
        let Self { connections, shared, scratch, .. } = self;
        let Some(connection) = connections.get_mut(&token) else { return };
        let result = connection.drive(&mut Context { shared, scratch, now });
        self.conclude(token, result, now);
    }

    fn conclude(&mut self, token: Token, result: Result<Turn, Ending>, now: Instant) {
        match result {
            Ok(Turn::Done) => {}
            Ok(Turn::Again) => {
                self.due.insert(token);
            }
            Err(ending) => {
                if let Some(connection) = self.connections.remove(&token) {
                    self.end(connection, ending, now);
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        self.accepts |= std::mem::take(&mut self.accept_failed);
        let tokens: Vec<Token> = self.connections.keys().copied().collect();
        for token in tokens {
            let Self { connections, shared, scratch, .. } = self;
            let Some(connection) = connections.get_mut(&token) else { continue };
            let result = connection.tick(&mut Context { shared, scratch, now }).map(|()| Turn::Done);
            self.conclude(token, result, now);
        }
        if let Some(count) = self.warnings.take_suppressed(now) {
            tracing::warn!("{count} more connections to the P2P port were refused");
        }
    }

    fn end(&mut self, mut connection: Connection, ending: Ending, now: Instant) {
        if connection.is_draining() {
            return;
        }
        let session = connection.session().cloned();
        if let Some(session) = &session {
            self.shared.close(session);
        }
        if let Some(names) = connection.names() {
            self.shared.registry.end_opening(&names.node_id, connection.token);
        }
        self.shared.counters.ended(ending.reason);
        let failures = connection.dialed.map(|address| self.shared.book.lock().ended(&address, &ending, now));
        self.log(&connection, &ending, failures, now);
        if connection.is_connected() {
            connection.begin_draining(&ending, &Context { shared: &self.shared, scratch: &mut self.scratch, now });
            self.connections.insert(connection.token, connection);
        }
    }

    fn log(&mut self, connection: &Connection, ending: &Ending, failures: Option<u32>, now: Instant) {
        let address = connection.address;
        if let Some(session) = connection.session() {
            let name = &session.names.name;
            return match ending.reason.is_usual() {
                true if ending.reason == EndReason::Replaced => tracing::debug!(peer = %name, %address, "connection ended: {ending}"),
                true => tracing::info!(peer = %name, node = %session.peer, %address, "peer disconnected: {ending}"),
                false => tracing::warn!(peer = %name, node = %session.peer, %address, "peer disconnected: {ending}"),
            };
        }
        let subject = connection.names().map_or("not known", |names| names.subject.as_str());
        if ending.reason.is_usual() && ending.reason != EndReason::Closed {
            return tracing::debug!(%address, subject, "connection ended: {ending}");
        }
        match failures {
            // The same address fails again and again: said less and less often.
            Some(failures) if failures.is_power_of_two() => {
                tracing::warn!(%address, subject, failures, "cannot connect to a peer: {ending}");
            }
            Some(_) => tracing::debug!(%address, subject, "cannot connect to a peer: {ending}"),
            None if self.warnings.may_write(now) => tracing::warn!(%address, subject, "a peer's connection is refused: {ending}"),
            None => {}
        }
    }

    /// Whether everything is over. Until `by` what is queued may be written.
    fn stopped(&mut self, by: Instant, now: Instant) -> bool {
        self.listener = None;
        let is_late = now >= by;
        let ready: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.is_draining() && (is_late || connection.session().is_none() || connection.is_flushed()))
            .map(|(token, _)| *token)
            .collect();
        for token in ready {
            self.conclude(token, Err(Ending::new(EndReason::Shutdown, "this node stops")), now);
        }
        is_late || self.connections.is_empty()
    }

    /// The loop cannot go on: its sessions end.
    fn abandon(mut self) {
        let now = Instant::now();
        for (_, connection) in std::mem::take(&mut self.connections) {
            self.end(connection, Ending::new(EndReason::Socket, "the network loop has failed"), now);
        }
    }
}

/// Bounds the warnings that outsiders can cause.
struct Warnings {
    second: Instant,
    written: u32,
    suppressed: u64,
}

impl Warnings {
    fn new(now: Instant) -> Self {
        Self { second: now, written: 0, suppressed: 0 }
    }

    fn may_write(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.written) = (now, 0);
        }
        let may = self.written < WARNINGS_PER_SECOND;
        self.written += u32::from(may);
        self.suppressed += u64::from(!may);
        may
    }

    /// How many were not written, once a second.
    fn take_suppressed(&mut self, now: Instant) -> Option<u64> {
        let is_time = now.saturating_duration_since(self.second) >= Duration::from_secs(1);
        (is_time && self.suppressed > 0).then(|| std::mem::take(&mut self.suppressed))
    }
}
