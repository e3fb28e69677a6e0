//! Temporary: the signatures of the node's assembly that the command line is written against.
#![allow(missing_docs, reason = "replaced by the assembly")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_base::fault::{Fault, FaultKind};
use millrace_core::Storage;

use crate::config::NodeConfig;

pub struct Node {
    http_addr: SocketAddr,
    operator_addr: Option<SocketAddr>,
}

impl Node {
    pub fn start(config: NodeConfig) -> Result<Node, Fault> {
        Ok(Node { http_addr: config.rpc.listen, operator_addr: config.operator_listen })
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    pub fn operator_addr(&self) -> Option<SocketAddr> {
        self.operator_addr
    }

    pub fn stop(self, _deadline: Duration) -> Result<(), Fault> {
        Ok(())
    }
}

pub struct Workers;

impl Workers {
    pub fn for_cores(_cores: usize) -> Self {
        Self
    }
}

pub fn topology_picture(_workers: Workers) -> Result<String, Fault> {
    Ok(String::new())
}

/// Opens the database of a group for reading, also while a node uses it.
pub fn open_read_only(path: &Path) -> Result<Arc<dyn Storage>, Fault> {
    Err(Fault::new(FaultKind::Storage, format!("{} cannot be opened", path.display()), "wait for the storage engine"))
}
