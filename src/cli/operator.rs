//! How commands find and read a running node: its operator port, by address or by the node's directory.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millrace_base::fault::{Fault, FaultKind};
use serde::de::DeserializeOwned;

use crate::config::ListenAddresses;
use crate::status::NodeStatus;
use crate::status::topology::TopologyReport;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer that is read, bytes: a thousand groups of a hundred sealers.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Which node.
#[derive(Args, Debug, Clone, Default)]
pub struct NodeAddress {
    /// The node's directory: its config.ini names the operator port. Without --url, the present directory.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    dir: Option<PathBuf>,
    /// The node's operator port.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl NodeAddress {
    /// Of a directory; the present one when absent.
    pub fn at(dir: Option<PathBuf>) -> Self {
        Self { dir, url: None }
    }

    /// Whether a node was named.
    pub fn is_named(&self) -> bool {
        self.dir.is_some() || self.url.is_some()
    }

    /// The client of the node that was named.
    ///
    /// # Errors
    /// A directory without a readable `config.ini`, or a node without an operator port.
    pub fn client(&self) -> Result<OperatorClient, Fault> {
        if let Some(url) = &self.url {
            return Ok(OperatorClient::new(url));
        }
        let file = self.dir.clone().unwrap_or_else(|| ".".into()).join("config.ini");
        let operator = ListenAddresses::read(&file)?.operator.ok_or_else(|| {
            let what = format!("{} sets no operator port", file.display());
            Fault::new(FaultKind::Config, what, "set operator_listen_port in [millrace] and restart the node")
        })?;
        Ok(OperatorClient::new(&format!("http://{operator}")))
    }
}

/// Reads the operator port of one node.
#[derive(Clone)]
pub struct OperatorClient {
    agent: ureq::Agent,
    url: String,
}

impl OperatorClient {
    /// Of a URL, with or without `http://`.
    pub fn new(url: &str) -> Self {
        let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_TIMEOUT)).build().into();
        let scheme = if url.contains("://") { "" } else { "http://" };
        Self { agent, url: format!("{scheme}{}", url.trim_end_matches('/')) }
    }

    /// Where it reads.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// State of the node, its groups and its peers.
    ///
    /// # Errors
    /// A node that does not answer, or something else that listens there.
    pub fn status(&self) -> Result<NodeStatus, Fault> {
        self.read("status")
    }

    /// The node's stages and queues.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn topology(&self) -> Result<TopologyReport, Fault> {
        self.read("topology")
    }

    fn read<T: DeserializeOwned>(&self, document: &str) -> Result<T, Fault> {
        let url = format!("{}/{document}", self.url);
        let unreachable = |error: ureq::Error| {
            Fault::new(
                FaultKind::Network,
                format!("{url} cannot be read: {error}"),
                "check that the node runs (its log says why not) and that this is its operator port: operator_listen_port in config.ini",
            )
        };
        let mut answer = self.agent.get(&url).call().map_err(unreachable)?;
        let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string().map_err(unreachable)?;
        serde_json::from_str(&text).map_err(|error| {
            let what = format!("{url} does not answer as an operator port of this version does: {error}");
            Fault::new(FaultKind::Operation, what, "name the operator port, and use the program that the node runs")
        })
    }
}
