//! The node as gateways see it: [`NodeView`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use millrace_base::GroupId;
use millrace_base::fault::Fault;
use millrace_ledger::view::{GroupChange, GroupChangeError, GroupStatus, LedgerView, NodeInfo, NodeView, Submission, SubmitError};
use millrace_network::{PeerNetwork, SessionInfo};
use millrace_pipeline::frames::FrameInlet;
use millrace_pipeline::messages::{Incoming, Source};
use millrace_pipeline::runtime::{LaneError, LaneSender, MetricsHandle};
use millrace_pipeline::stages::sync::SyncInlet;
use millrace_pipeline::topology::Crew;

use crate::config::{GroupConfig, NodeConfig, PeerLists};
use crate::node::groups::Groups;
use crate::node::metrics;
use crate::node::peer_rates::PeerRates;
use crate::node::report::KnownNames;
use crate::node::{network, report};
use crate::reload::{PortCertificates, Target};
use crate::status::NodeStatus;
use crate::status::topology::TopologyReport;
use millrace_rpc::channel::ChannelServer;
use millrace_rpc::channel::access::AllowLists;

/// What is done to the list of peers.
type PeerChange = fn(&PeerNetwork, &[SocketAddr]) -> Result<(), Fault>;

/// The ways into the pipeline.
pub(super) struct Doors {
    pub submissions: LaneSender<Incoming>,
    pub frames: FrameInlet,
    pub sync: SyncInlet,
    pub rates: Arc<PeerRates>,
}

/// See the module.
pub(super) struct NodeHandle {
    info: NodeInfo,
    configured_peers: Vec<String>,
    groups: Groups,
    doors: Doors,
    metrics: MetricsHandle,
    crew: Arc<Crew>,
    started: Instant,
    /// Where the node's files lie.
    directory: PathBuf,
    names: KnownNames,
    is_stopping: AtomicBool,
    network: Option<Arc<PeerNetwork>>,
}

impl NodeHandle {
    pub fn new(
        config: &NodeConfig,
        groups: Groups,
        doors: Doors,
        (metrics, crew): (MetricsHandle, Arc<Crew>),
        network: Option<Arc<PeerNetwork>>,
    ) -> Self {
        let info = NodeInfo {
            chain_id: config.chain_id,
            node_id: config.key.node_id(),
            p2p_endpoint: config.p2p.listen.to_string(),
            agency: config.agency.clone(),
            name: config.name.clone(),
            supported_version: config.supported_version.clone(),
        };
        let configured_peers = config.p2p.peers.clone();
        let directory = config.file.parent().map(Into::into).unwrap_or_default();
        let is_stopping = AtomicBool::new(false);
        let (started, names) = (Instant::now(), KnownNames::default());
        Self { info, configured_peers, groups, doors, metrics, crew, started, directory, names, is_stopping, network }
    }

    /// From now on every submission is refused.
    pub fn stop_accepting(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// How many addresses were added to or taken off the list.
    fn change_peers(&self, peers: &[SocketAddr], change: PeerChange) -> Result<usize, String> {
        let network = self.network.as_ref().ok_or("this node has no P2P certificate: it runs alone")?;
        let before = network.peers().len();
        change(network, peers).map_err(|fault| fault.to_string())?;
        Ok(network.peers().len().abs_diff(before))
    }

    fn submit_one(&self, submission: Submission) {
        if self.is_stopping.load(Ordering::Acquire) {
            return (submission.reply)(Err(SubmitError::Busy("the node is stopping".into())));
        }
        let group = submission.group;
        let Some(ledger) = self.groups.registry().get(group) else { return (submission.reply)(Err(SubmitError::NoSuchGroup)) };
        let bytes = submission.raw.len();
        if !ledger.ingress().enter(bytes) {
            let message =
                format!("group {group} has {} bytes of transactions waiting for verification; try again", ledger.ingress().bytes());
            return (submission.reply)(Err(SubmitError::Busy(message)));
        }
        let Err(error) = self.doors.submissions.send(group, Incoming { ledger: Arc::clone(&ledger), submission, source: Source::Client })
        else {
            return;
        };
        ledger.ingress().leave(bytes);
        let error_reply = match &error {
            LaneError::Full(_) => SubmitError::Busy(format!("group {group} has too many transactions waiting for verification; try again")),
            LaneError::NoLane(_) => SubmitError::NoSuchGroup,
            LaneError::Closed(_) => SubmitError::Busy("the node is stopping".into()),
        };
        (error.into_item().submission.reply)(Err(error_reply));
    }
}

impl NodeView for NodeHandle {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn ledger(&self, group: GroupId) -> Option<Arc<dyn LedgerView>> {
        self.groups.registry().get(group).map(|ledger| ledger as Arc<dyn LedgerView>)
    }

    fn groups(&self) -> Vec<GroupId> {
        self.groups.registry().ids()
    }

    fn group_status(&self, group: GroupId) -> GroupStatus {
        self.groups.status(group)
    }

    fn change_group(&self, group: GroupId, change: GroupChange) -> Result<(), GroupChangeError> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(GroupChangeError::Failed("the node is stopping".into()));
        }
        self.groups.change(group, change)
    }

    fn peers(&self) -> Vec<NodeInfo> {
        let sessions = self.network.as_ref().map(|network| network.sessions()).unwrap_or_default();
        let info = |session: SessionInfo| NodeInfo {
            chain_id: self.info.chain_id,
            node_id: session.node_id,
            p2p_endpoint: session.address.to_string(),
            agency: session.agency,
            name: session.name,
            supported_version: String::new(),
        };
        sessions.into_iter().map(info).collect()
    }

    fn configured_peers(&self) -> Vec<String> {
        match &self.network {
            Some(network) => network.peers().iter().map(|peer| peer.address.to_string()).collect(),
            None => self.configured_peers.clone(),
        }
    }

    fn add_peers(&self, peers: &[SocketAddr]) -> Result<usize, String> {
        self.change_peers(peers, PeerNetwork::add_peers)
    }

    fn erase_peers(&self, peers: &[SocketAddr]) -> Result<usize, String> {
        self.change_peers(peers, |network, peers| network.erase_peers(peers).map(drop))
    }

    fn submit(&self, submissions: Vec<Submission>) {
        submissions.into_iter().for_each(|submission| self.submit_one(submission));
    }

    fn metrics(&self) -> String {
        let mut text = self.metrics.snapshot().to_prometheus();
        metrics::render_ledgers(self.groups.registry(), &mut text);
        // Whoever is connected while metrics are read can be named when it is gone.
        let _ = report::network(self.network.as_deref(), &self.info.name, &self.names);
        if let Some(network) = &self.network {
            metrics::render_network(&network.counters(), &mut text);
        }
        metrics::render_crew(&self.crew, &mut text);
        metrics::render_doors((&self.doors.frames, &self.doors.sync, &self.doors.rates), &mut text);
        metrics::render_certificates(&report::certificates(&self.directory), &mut text);
        metrics::render_process(&mut text);
        text
    }

    fn status(&self) -> String {
        let mut network = report::network(self.network.as_deref(), &self.info.name, &self.names);
        let amop = self.doors.rates.dropped().into_iter().map(|(peer, count)| (format!("amop_of_{peer}"), count));
        network.dropped.extend(amop);
        let status = NodeStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.info.name.clone(),
            agency: self.info.agency.clone(),
            node_id: self.info.node_id.to_string(),
            chain_id: self.info.chain_id,
            now_ms: report::now_ms(),
            uptime_s: self.started.elapsed().as_secs(),
            is_stopping: self.is_stopping.load(Ordering::Acquire),
            groups: report::groups(self.groups.registry(), (self.groups.statuses(), self.groups.errors()), &network),
            network,
            certificates: report::certificates(&self.directory),
        };
        serde_json::to_string(&status).expect("the document has no maps with keys other than texts")
    }

    fn topology(&self) -> String {
        serde_json::to_string(&TopologyReport::read(&self.metrics)).expect("the document has no maps")
    }

    fn readiness(&self) -> Result<(), String> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err("the node is stopping".into());
        }
        let halted =
            |ledger: &Arc<millrace_ledger::Ledger>| ledger.halted().map(|reason| format!("group {} has halted: {reason}", ledger.id()));
        match self.groups.registry().all().iter().find_map(halted) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }
}

/// Puts in force what a signal file asked to be read again.
pub(super) struct Reloaded {
    pub handle: Arc<NodeHandle>,
    pub access: AllowLists,
    pub channel: Weak<ChannelServer>,
}

impl Target for Reloaded {
    fn peer_lists(&self, lists: PeerLists) {
        if let Some(network) = &self.handle.network {
            network.set_lists(network::access_lists(&lists));
        }
    }

    fn client_lists(&self, lists: Vec<(GroupId, Vec<String>)>) {
        for (group, keys) in lists {
            self.access.set(group, keys);
        }
    }

    fn groups(&self, groups: Vec<GroupConfig>) {
        self.handle.groups.append(&groups);
    }

    fn certificates(&self, certificates: PortCertificates) -> Result<(), Fault> {
        if let (Some(network), Some(material)) = (&self.handle.network, &certificates.peers) {
            network.reload_certificates(material)?;
        }
        if let Some(channel) = self.channel.upgrade() {
            channel.set_tls(certificates.clients);
        }
        Ok(())
    }
}
