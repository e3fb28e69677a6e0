//! An HTTP/1 listener with its own threads: accepts, bounds connections and time, ends gracefully. Knows nothing of what is served.
//!
//! axum's own accept loop has neither a connection limit nor a time limit for heads, so connections are driven here with hyper.
//! Used by [`crate::http`] and [`crate::operator`].

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use millrace_base::fault::{Fault, FaultKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::counts::{Caps, Counts, Place};
use crate::limits::MAX_HEAD_BYTES;

/// How a listener works.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Prefix of thread names, at most 11 bytes.
    pub name: &'static str,
    /// Key of the configuration file that names the port, for the operator.
    pub key: &'static str,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve connections.
    pub threads: usize,
    /// Threads that may run blocking work.
    pub blocking_threads: usize,
    /// Open connections; more are closed at once.
    pub max_connections: usize,
    /// Open connections of one address.
    pub max_connections_per_address: usize,
    /// Time to send a head, and time a kept connection may be idle.
    pub head_time_limit: Duration,
}

/// Address of the client, in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

/// A running listener. Dropping it closes everything at once; [`Listener::stop`] lets running requests finish.
pub struct Listener {
    address: SocketAddr,
    runtime: Option<Runtime>,
    stopping: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    max_connections: u32,
}

impl Listener {
    /// Binds the port and serves `router`.
    pub fn start(config: &ListenerConfig, router: Router) -> Result<Self, Fault> {
        let listener = bind(config)?;
        let threads = |error: std::io::Error| {
            Fault::new(FaultKind::Operation, format!("no threads for {}: {error}", config.name), "raise the limit on processes (ulimit -u)")
        };
        let address = listener.local_addr().map_err(threads)?;
        let (name, counter) = (config.name, AtomicUsize::new(0));
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .max_blocking_threads(config.blocking_threads.max(1))
            .thread_name_fn(move || format!("{name}-{}", counter.fetch_add(1, Ordering::Relaxed)))
            .enable_io()
            .enable_time()
            .build()
            .map_err(threads)?;
        let (stopping, stop) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(config.max_connections));
        let counts = Counts::new(Caps {
            connections: config.max_connections,
            connections_per_address: config.max_connections_per_address,
            // Heads of HTTP cost no more than any other connection.
            handshakes_per_address: usize::MAX,
        });
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(threads)?
        };
        let accept =
            Accept { listener, router, connections: Arc::clone(&connections), counts, stop, head_time_limit: config.head_time_limit };
        runtime.spawn(accept.run());
        let max_connections = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
        Ok(Self { address, runtime: Some(runtime), stopping, connections, max_connections })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets running requests finish for at most `deadline`, then closes what is left.
    pub fn stop(mut self, deadline: Duration) {
        self.stopping.send_replace(true);
        let Some(runtime) = self.runtime.take() else { return };
        let drained = async { tokio::time::timeout(deadline, self.connections.acquire_many(self.max_connections)).await.is_ok() };
        if !runtime.block_on(drained) {
            tracing::warn!(address = %self.address, "clients were cut off: their requests took longer than the time allowed at stop");
        }
        runtime.shutdown_background();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn bind(config: &ListenerConfig) -> Result<std::net::TcpListener, Fault> {
    let bound = std::net::TcpListener::bind(config.listen).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|error| {
        let what = format!("cannot listen on {}: {error}", config.listen);
        let remedy = format!("end the program that uses the port, or choose another address with {}", config.key);
        Fault::new(FaultKind::Network, what, remedy)
    })
}

struct Accept {
    listener: TcpListener,
    router: Router,
    connections: Arc<Semaphore>,
    counts: Counts,
    stop: watch::Receiver<bool>,
    head_time_limit: Duration,
}

impl Accept {
    async fn run(mut self) {
        // When the process is out of descriptors, accepting again at once would only spin.
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            let accepted = tokio::select! {
                () = stopped(&mut self.stop) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.accept(stream, peer.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A connection's place among all, given back when it ends.
struct Held {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Accept {
    fn accept(&self, stream: TcpStream, peer: IpAddr) {
        let place = match self.counts.enter(peer) {
            Ok(place) => place,
            Err(reason) => return tracing::debug!(%peer, reason, "connection refused"),
        };
        // Places are as many as permits, so that one is free here, or about to be.
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else { return };
        let service = (self.router.clone(), Client(peer));
        tokio::spawn(serve(stream, service, Held { _permit: permit, _place: place }, self.stop.clone(), self.head_time_limit));
    }
}

/// Waits until the listener is told to stop, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stopping| stopping).await;
}

async fn serve(
    stream: TcpStream,
    (router, client): (Router, Client),
    _held: Held,
    mut stop: watch::Receiver<bool>,
    head_time_limit: Duration,
) {
    // Replies are single writes; waiting to merge them only adds delay.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(client);
        router.call(request.map(Body::new))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_time_limit)
            .max_buf_size(MAX_HEAD_BYTES)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}
