//! The channel port over real TLS sockets, against a node that makes a block of every transaction.

mod amop;
mod hostile;
mod node;
mod pitfalls;
mod pki;
mod pushes;
mod replay;
mod sdk;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use self::node::{ChainNode, View};
use self::pki::Pki;
use self::sdk::Sdk;
use crate::channel::amop::{AmopPeers, NoPeers};
use crate::channel::{ChannelConfig, ChannelServer};

/// Time for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A channel port and the node behind it.
pub struct Port {
    pub server: Arc<ChannelServer>,
    pub node: Arc<ChainNode>,
    pub pki: &'static Pki,
}

impl Port {
    pub fn start(node: Arc<ChainNode>) -> Self {
        Self::start_with(node, Arc::new(NoPeers), |_| {})
    }

    pub fn start_with(node: Arc<ChainNode>, peers: Arc<dyn AmopPeers>, adapt: impl FnOnce(&mut ChannelConfig)) -> Self {
        let pki = Pki::get();
        let mut config = ChannelConfig::new("127.0.0.1:0".parse().unwrap(), pki.server());
        adapt(&mut config);
        let server = Arc::new(ChannelServer::start(config, Arc::new(View(Arc::clone(&node))), peers).unwrap());
        node.attach(&server);
        Self { server, node, pki }
    }

    pub fn sdk(&self) -> Sdk {
        Sdk::connect(self.server.local_addr(), self.pki.client()).unwrap()
    }

    /// Waits until so many sessions are open.
    pub fn await_sessions(&self, count: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.server.session_count() != count {
            assert!(std::time::Instant::now() < end, "{} sessions, not {count}", self.server.session_count());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
