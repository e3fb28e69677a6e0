//! JSON-RPC over HTTP as FISCO BCOS 2.x serves it (`spec/client-protocol.md` 2.3): any path, POST and OPTIONS, always status 200 for
//! JSON-RPC replies, errors included.
//!
//! A page in a browser may not read replies (no origin is allowed) and may not reach a node on its user's own machine under a name of its
//! own: while the port listens on a loopback address, the `Host` of a request must be an address or a name without dots.
//!
//! Bounds: connections, time for head, body and answer, bytes of one body and of all bodies together.

use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::SizeHint;
use millrace_base::fault::Fault;
use millrace_base::limits::MAX_HTTP_BODY_BYTES;
use millrace_ledger::view::NodeView;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::gateway::{Gateway, GatewayConfig};
use crate::limits::{BODY_BUDGET_BYTES, BODY_PERMIT_BYTES, BODY_TIME_LIMIT, HEAD_TIME_LIMIT, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS};
use crate::server::{Client, Listener, ListenerConfig};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How JSON-RPC is served.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `rpc.jsonrpc_listen_ip` and `rpc.jsonrpc_listen_port`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve connections.
    pub threads: usize,
    /// What answers.
    pub gateway: GatewayConfig,
    /// Open connections; more are closed at once.
    pub max_connections: usize,
    /// Open connections of one address.
    pub max_connections_per_address: usize,
    /// Bytes of one body.
    pub max_body_bytes: usize,
    /// Time to send a head, and time a kept connection may be idle.
    pub head_time_limit: Duration,
    /// Time to send a body.
    pub body_time_limit: Duration,
}

impl HttpConfig {
    /// The defaults, on `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            threads: 2,
            gateway: GatewayConfig::default(),
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            max_body_bytes: MAX_HTTP_BODY_BYTES,
            head_time_limit: HEAD_TIME_LIMIT,
            body_time_limit: BODY_TIME_LIMIT,
        }
    }
}

/// The JSON-RPC server of a node, on its own threads.
pub struct HttpServer(Listener);

struct Entry {
    gateway: Gateway,
    max_body_bytes: usize,
    body_time_limit: Duration,
    budget: Semaphore,
    hosts: Hosts,
}

/// What a request may call the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hosts {
    /// Anything: the node is reached over a network, where it has names.
    Any,
    /// An address, or a name without dots, which no name server of the internet gives.
    Local,
}

impl HttpServer {
    /// Binds and serves. A taken port is a [`Fault`] of kind network.
    pub fn start(config: &HttpConfig, node: Arc<dyn NodeView>) -> Result<Self, Fault> {
        let budget = BODY_BUDGET_BYTES.max(config.max_body_bytes).div_ceil(BODY_PERMIT_BYTES);
        let entry = Entry {
            gateway: Gateway::new(node, &config.gateway),
            max_body_bytes: config.max_body_bytes,
            body_time_limit: config.body_time_limit,
            budget: Semaphore::new(budget),
            hosts: if config.listen.ip().is_loopback() { Hosts::Local } else { Hosts::Any },
        };
        let listener = ListenerConfig {
            name: "rpc",
            key: "rpc.jsonrpc_listen_port",
            listen: config.listen,
            threads: config.threads,
            // Beside the query workers each serving thread may be replaced while it parses a large body.
            blocking_threads: config.gateway.query_workers + config.threads,
            max_connections: config.max_connections,
            max_connections_per_address: config.max_connections_per_address,
            head_time_limit: config.head_time_limit,
        };
        Listener::start(&listener, Router::new().fallback(serve).with_state(Arc::new(entry))).map(Self)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// Accepts no more, lets running requests finish for at most `deadline`, then closes what is left.
    pub fn stop(self, deadline: Duration) {
        self.0.stop(deadline);
    }
}

async fn serve(State(entry): State<Arc<Entry>>, request: Request) -> Response {
    if entry.hosts == Hosts::Local && !is_local(request.headers().get(header::HOST)) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this port listens on a loopback address: the Host header must be an IP address or a name without dots",
        );
    }
    match *request.method() {
        Method::POST => entry.answer(request).await.unwrap_or_else(|refusal| refusal),
        Method::OPTIONS => options(),
        _ => (StatusCode::METHOD_NOT_ALLOWED, [(header::CONTENT_TYPE, JSON)], "Not allowed HTTP Method").into_response(),
    }
}

/// Whether a `Host` header is absent, an address, or a name without dots: a page that had a name server point its own name at this
/// machine comes with that name, which has dots.
pub(crate) fn is_local(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(text) = host.to_str() else { return false };
    let is_address = text.parse::<SocketAddr>().is_ok() || text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address || !text.contains('.')
}

fn options() -> Response {
    let headers = [
        (header::ALLOW, "POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "origin, content-type, accept"),
        (HeaderName::from_static("dav"), "1"),
    ];
    (headers, Body::empty()).into_response()
}

impl Entry {
    /// The reply, or a refusal of the body.
    async fn answer(&self, request: Request) -> Result<Response, Response> {
        let submitter = request.extensions().get::<Client>().map_or(0, |client| submitter(client.0));
        let body = request.into_body();
        let deadline = Instant::now() + self.body_time_limit;
        let _room = self.reserve(&body.size_hint(), deadline).await?;
        let body = match timeout_at(deadline, read(body, self.max_body_bytes)).await {
            Ok(Some(body)) => body,
            Ok(None) => return Err(self.too_large()),
            Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the request body took too long")),
        };
        let reply = self.gateway.answer(&body, submitter).await;
        Ok(([(header::CONTENT_TYPE, JSON)], reply).into_response())
    }

    /// Waits for room for the body; one of unknown length is taken for the longest allowed.
    async fn reserve(&self, length: &SizeHint, deadline: Instant) -> Result<SemaphorePermit<'_>, Response> {
        let limit = u64::try_from(self.max_body_bytes).unwrap_or(u64::MAX);
        if length.lower() > limit {
            return Err(self.too_large());
        }
        let bytes = usize::try_from(length.exact().unwrap_or(limit)).unwrap_or(usize::MAX);
        let permits = u32::try_from(bytes / BODY_PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        match timeout_at(deadline, self.budget.acquire_many(permits)).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "too many large requests; try again")),
        }
    }

    fn too_large(&self) -> Response {
        refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("the request body cannot be read or is longer than {} bytes", self.max_body_bytes))
    }
}

/// Reads a body into one piece of memory, which is taken at once when the length is known; none when it is longer than allowed or
/// cannot be read.
async fn read(mut body: Body, most: usize) -> Option<Vec<u8>> {
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(length.min(most));
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return None;
        }
        bytes.extend_from_slice(&data);
    }
    Some(bytes)
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let close = (header::CONNECTION, HeaderValue::from_static("close"));
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain")), close], format!("{reason}\n")).into_response()
}

/// The same number for the same client. Of IPv6 the network counts: one host commands a whole /64.
pub(crate) fn submitter(address: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    match address {
        IpAddr::V4(address) => address.octets().hash(&mut hasher),
        IpAddr::V6(address) => address.octets()[..8].hash(&mut hasher),
    }
    hasher.finish()
}
