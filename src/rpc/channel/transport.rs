//! Sockets of the channel port: accepts, shakes hands, reads frames and writes them, one TLS write a frame.
//!
//! Each connection is one task with one socket; nobody else touches it. Bounds: connections in all and of one address, handshakes in
//! progress and their time, bytes of incomplete frames, time without progress of a write. What is queued towards a client is bounded by
//! [`super::hub`], which sees it through [`Wire`].

mod connection;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace_base::fault::{Fault, FaultKind};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::hub::{Hub, Reading, Wire};
use super::topics::SessionId;
use crate::counts::{Caps, Counts};

/// Bounds of the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections, handshakes included.
    pub connections: usize,
    /// Connections of one address; of IPv6 of one /64.
    pub connections_per_address: usize,
    /// Handshakes in progress of one address: they cost the node a signature each before it knows who asks.
    pub handshakes_per_address: usize,
    /// Time for a handshake.
    pub handshake: Duration,
    /// Time without any progress after which a write is given up.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_address: 1_024,
            handshakes_per_address: 128,
            handshake: Duration::from_secs(5),
            write: Duration::from_secs(30),
        }
    }
}

/// One connection as others see it.
#[derive(Default)]
struct Handle {
    queue: Mutex<VecDeque<Vec<u8>>>,
    queued_bytes: AtomicUsize,
    is_closing: AtomicBool,
    is_paused: AtomicBool,
    changed: Notify,
}

impl Handle {
    fn push(&self, frame: Vec<u8>) {
        self.queued_bytes.fetch_add(frame.len(), Ordering::AcqRel);
        self.queue.lock().push_back(frame);
        self.changed.notify_one();
    }

    /// The next frame; its bytes count as queued until [`Self::written`].
    fn pop(&self) -> Option<Vec<u8>> {
        self.queue.lock().pop_front()
    }

    fn written(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

/// All connections.
pub struct Transport {
    /// For connections that come from now on.
    tls: RwLock<Arc<ServerConfig>>,
    limits: Limits,
    hub: OnceLock<Arc<Hub>>,
    handles: RwLock<HashMap<SessionId, Arc<Handle>>>,
    counts: Counts,
    /// Bytes of incomplete frames of all connections.
    assembling: AtomicUsize,
    next_session: AtomicU64,
}

impl Transport {
    /// Without connections.
    pub fn new(tls: Arc<ServerConfig>, limits: Limits) -> Arc<Self> {
        let Limits { connections, connections_per_address, handshakes_per_address, .. } = limits;
        let counts = Counts::new(Caps { connections, connections_per_address, handshakes_per_address });
        Arc::new(Self {
            tls: RwLock::new(tls),
            limits,
            hub: OnceLock::new(),
            handles: RwLock::default(),
            counts,
            assembling: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
        })
    }

    /// Names the hub, which itself needs the transport.
    pub fn attach(&self, hub: Arc<Hub>) {
        let is_first = self.hub.set(hub).is_ok();
        assert!(is_first, "a transport serves one hub");
    }

    fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls.read())
    }

    /// Uses other certificates for connections that come from now on; open sessions go on.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        *self.tls.write() = tls;
    }

    fn hub(&self) -> &Arc<Hub> {
        self.hub.get().expect("the hub is attached before the first connection is accepted")
    }

    /// Accepts until told to stop, then closes what is open.
    pub async fn run(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        // When the process is out of descriptors, accepting again at once would only spin.
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stopping| *stopping) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.accept(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "the channel port cannot accept connections");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.handles.read().values().for_each(|handle| handle.close());
    }

    fn accept(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        match self.counts.enter(peer.ip()) {
            Ok(place) => {
                let id = self.next_session.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection::serve(Arc::clone(self), stream, peer, id, place));
            }
            Err(reason) => tracing::warn!(%peer, reason, "channel connection refused"),
        }
    }

    fn with(&self, session: SessionId, act: impl FnOnce(&Handle)) {
        if let Some(handle) = self.handles.read().get(&session) {
            act(handle);
        }
    }
}

impl Wire for Transport {
    fn send(&self, session: SessionId, frame: Vec<u8>) {
        self.with(session, |handle| handle.push(frame));
    }

    fn queued_bytes(&self, session: SessionId) -> usize {
        self.handles.read().get(&session).map_or(0, |handle| handle.queued_bytes.load(Ordering::Acquire))
    }

    fn close(&self, session: SessionId) {
        self.with(session, Handle::close);
    }

    fn set_reading(&self, session: SessionId, reading: Reading) {
        self.with(session, |handle| {
            handle.is_paused.store(reading == Reading::Off, Ordering::Release);
            handle.changed.notify_one();
        });
    }
}

/// Binds the port; inside a runtime.
pub fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), Fault> {
    let bound = std::net::TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    });
    bound.map_err(|error| {
        let what = format!("cannot listen on {listen}: {error}");
        Fault::new(FaultKind::Network, what, "end the program that uses the port, or choose another address with rpc.channel_listen_port")
    })
}
