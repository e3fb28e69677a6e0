//! JSON-RPC of FISCO BCOS 2.x for clients, and the operator's HTTP port.
//!
//! - [`methods`]: the table of methods; dispatch and parameter checks come from it.
//! - [`gateway`]: answers one request body, single or batch, whatever carried it.
//! - [`channel`]: the TLS port of SDKs: the gateway again, and pushes, event logs and messages between clients.
//! - [`openrpc`]: the generated description of the methods.
//! - [`http`]: the gateway over HTTP. [`operator`]: `/metrics`, `/livez`, `/readyz`.
//!
//! Invariants: replies are byte for byte what 2.x clients expect (`spec/client-protocol.md` 2, with the corrections of the recordings);
//! whatever a client sends, the node answers or closes the connection, in bounded time and memory; no runtime thread waits for storage,
//! execution or the pipeline. The node is seen only through [`millrace_ledger::view`].

pub mod channel;
mod counts;
mod envelope;
mod error;
pub mod gateway;
pub mod http;
mod lenient;
pub mod limits;
pub mod methods;
pub mod openrpc;
pub mod operator;
mod params;
pub mod quota;
mod server;
mod submit;
mod views;

pub use error::RpcError;
pub use gateway::{Gateway, GatewayConfig};
pub use http::{HttpConfig, HttpServer};
pub use operator::OperatorServer;

#[cfg(test)]
mod tests;
