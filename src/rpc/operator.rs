//! The operator's HTTP port: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever supervises the node, `/status` and
//! `/topology` for `millrace node status`, `top` and `topology --live`, and JSON-RPC with the methods that change the node's groups and peers, which the doors for clients do not take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use millrace_base::fault::Fault;
use millrace_ledger::view::NodeView;

use crate::gateway::{Gateway, GatewayConfig};
use crate::http::is_local;
use crate::limits::HEAD_TIME_LIMIT;
use crate::methods::{Management, Membership};
use crate::server::{Listener, ListenerConfig};

/// Connections of scrapers and supervisors.
const MAX_OPERATOR_CONNECTIONS: usize = 64;

/// Body of one request.
const MAX_OPERATOR_BODY_BYTES: usize = 1 << 20;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The operator's server of a node, on threads of its own, so that it answers when clients keep the others busy.
pub struct OperatorServer(Listener);

impl OperatorServer {
    /// Binds and serves. A taken port is a [`Fault`] of kind network.
    pub fn start(listen: SocketAddr, node: Arc<dyn NodeView>, peers_a_request: usize) -> Result<Self, Fault> {
        let config = ListenerConfig {
            name: "operator",
            key: "the operator port",
            listen,
            threads: 2,
            blocking_threads: 2,
            max_connections: MAX_OPERATOR_CONNECTIONS,
            max_connections_per_address: MAX_OPERATOR_CONNECTIONS,
            head_time_limit: HEAD_TIME_LIMIT,
        };
        let gateway_config =
            GatewayConfig { management: Management::Allowed, membership: Membership::Assumed, peers_a_request, ..GatewayConfig::default() };
        let gateway = Arc::new(Gateway::new(Arc::clone(&node), &gateway_config));
        let reach = if listen.ip().is_loopback() { Reach::ThisMachine } else { Reach::Network };
        let answer = move |headers: HeaderMap, body: Bytes| {
            let gateway = Arc::clone(&gateway);
            async move {
                match comes_from_a_page(&headers, reach) {
                    true => (StatusCode::FORBIDDEN, "web pages cannot manage a node\n").into_response(),
                    false => ([(header::CONTENT_TYPE, JSON)], gateway.answer(&body, 0).await).into_response(),
                }
            }
        };
        let router = Router::new()
            .route("/", post(answer))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/topology", get(topology))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .layer(DefaultBodyLimit::max(MAX_OPERATOR_BODY_BYTES))
            .with_state(node);
        Listener::start(&config, router).map(Self)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// Lets running requests finish for at most `deadline`, then closes what is left.
    pub fn stop(self, deadline: Duration) {
        self.0.stop(deadline);
    }
}

/// From where the port can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    ThisMachine,
    Network,
}

/// Whether a browser sent it for a page: the port has no login, so a page that the operator looks at must not get through. Browsers name
/// the page's origin in every POST; a page that had a name server point its own name at this machine comes with that name as `Host`,
/// which nobody uses for a port of this machine alone.
fn comes_from_a_page(headers: &HeaderMap, reach: Reach) -> bool {
    headers.contains_key(header::ORIGIN) || (reach == Reach::ThisMachine && !is_local(headers.get(header::HOST)))
}

async fn metrics(State(node): State<Arc<dyn NodeView>>) -> Response {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, TEXT)], node.metrics()).into_response()
}

async fn status(State(node): State<Arc<dyn NodeView>>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], node.status()).into_response()
}

async fn topology(State(node): State<Arc<dyn NodeView>>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], node.topology()).into_response()
}

async fn ready(State(node): State<Arc<dyn NodeView>>) -> Response {
    match node.readiness() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
