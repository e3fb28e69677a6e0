//! The channel port of a node, from its configuration: what the assembly needs beside [`millrace_rpc::channel::server`].
//!
//! The pipeline wants its listeners before it starts, the server wants a node whose pipeline runs; [`ChannelListener`] stands between
//! them: it is given to the pipeline first and learns of the server later. Three lines attach the port:
//! `let listener = Arc::new(ChannelListener::default());` into the pipeline's listeners,
//! `let server = Arc::new(ChannelServer::start(channel_port::config(&config)?, view, peers)?);` when the pipeline runs,
//! `listener.attach(&server);` at once behind it. Blocks that became durable in between are not lost: the server pushes from its heads on.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use millrace_base::fault::Fault;
use millrace_base::{B256, Block, GroupId};
use millrace_pipeline::stages::notify::Listener;
use millrace_rpc::channel::access::AllowLists;
use millrace_rpc::channel::tls::{self, IssuerRule, PortTls, TlsFiles};
use millrace_rpc::channel::{ChannelConfig, ChannelServer};
use millrace_rpc::gateway::GatewayConfig;
use millrace_rpc::quota::{Quotas, Rate};

use crate::config::{ChannelSettings, GroupConfig, NodeConfig};

/// What the channel server is started with. `gateway` holds what it shares with the other doors: membership, rates and the board of topics.
///
/// # Errors
/// Certificates that cannot be used.
pub fn config(node: &NodeConfig, gateway: GatewayConfig, access: AllowLists) -> Result<ChannelConfig, Fault> {
    let settings = &node.channel;
    let tls = certificates(settings)?;
    set_access(&access, &node.groups);
    Ok(ChannelConfig {
        threads: settings.threads,
        gateway,
        access,
        max_block_range: ranges(&node.groups),
        ..ChannelConfig::new(node.channel_listen, tls)
    })
}

/// What the port proves itself with and whom it lets in, read from its files; also for a reload.
///
/// # Errors
/// Certificates that cannot be used.
pub fn certificates(settings: &ChannelSettings) -> Result<PortTls, Fault> {
    let rule = if settings.check_issuer { IssuerRule::SameIssuer } else { IssuerRule::AnyIssuer };
    tls::server_config(&TlsFiles::in_directory(&settings.certificates), rule)
}

/// The rates that all doors for clients share.
pub fn quotas(node: &NodeConfig) -> Quotas {
    let of_group = |group: &GroupConfig| Some((group.genesis.group, Rate::new(group.requests_per_second?)));
    Quotas {
        requests: node.channel.requests_per_second.map(Rate::new),
        group_requests: node.groups.iter().filter_map(of_group).collect(),
        amop_bytes: node.channel.amop_bytes_per_second.map(Rate::new),
        ..Quotas::default()
    }
}

/// Puts the groups' lists of clients in force; also for a reload, with the groups read again.
pub fn set_access(access: &AllowLists, groups: &[GroupConfig]) {
    for group in groups {
        access.set(group.genesis.group, group.clients.allowed.iter().cloned());
    }
}

fn ranges(groups: &[GroupConfig]) -> BTreeMap<GroupId, u64> {
    groups.iter().map(|group| (group.genesis.group, group.clients.max_block_range)).collect()
}

/// Tells the channel server of blocks. See the module.
#[derive(Default)]
pub struct ChannelListener(OnceLock<Weak<ChannelServer>>);

impl ChannelListener {
    /// Names the server; the first one counts.
    pub fn attach(&self, server: &Arc<ChannelServer>) {
        let _ = self.0.set(Arc::downgrade(server));
    }

    fn server(&self) -> Option<Arc<ChannelServer>> {
        self.0.get()?.upgrade()
    }
}

impl Listener for ChannelListener {
    fn on_block(&self, group: GroupId, block: &Arc<Block>) {
        if let Some(server) = self.server() {
            server.block_committed(group, block);
        }
    }

    fn on_expired(&self, group: GroupId, hashes: &[B256]) {
        if let Some(server) = self.server() {
            server.transactions_expired(group, hashes);
        }
    }
}
