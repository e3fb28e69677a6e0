//! The status of the node as a document ([`crate::status`]), read from what the stages, sync and the network publish.
//!
//! Invariant: reading takes no lock that a stage holds for longer than it takes to copy its own status.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use millrace_administration::engine::EngineStatus;
use millrace_base::{GroupId, NodeId};
use millrace_ledger::conduct::Misconduct;
use millrace_ledger::view::{GroupStatus, LedgerView};
use millrace_ledger::{Ledger, Registry};
use millrace_network::{Direction, DropReason, NetworkCounters, PeerInfo, PeerNetwork, PeerState, SessionInfo};
use parking_lot::Mutex;

use crate::certificates;
use crate::status::{
    AddressReport, CertificateReport, ConductReport, ConsensusReport, Deed, GroupReport, GroupState, Link, NetworkReport, PoolReport, Role,
    RunningGroup, SealerReport, SessionReport, SyncPeerReport, SyncReport,
};

/// Names kept of nodes that are gone: more than a chain has.
const MAX_NAMES: usize = 4_096;

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    milliseconds(SystemTime::now())
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |passed| u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}

/// The groups of a node, in the order of their ids.
pub(super) fn groups(
    registry: &Registry,
    (statuses, errors): (BTreeMap<GroupId, GroupStatus>, BTreeMap<GroupId, String>),
    network: &NetworkReport,
) -> Vec<GroupReport> {
    let group = |(group, status): (GroupId, GroupStatus)| {
        let state = match status {
            GroupStatus::Inexistent => return None,
            GroupStatus::Running => GroupState::Running,
            GroupStatus::Stopping => GroupState::Stopping,
            GroupStatus::Stopped => GroupState::Stopped,
            GroupStatus::Deleted => GroupState::Removed,
        };
        let running = registry.get(group).map(|ledger| running_group(&ledger, network));
        Some(GroupReport { group: group.get(), state, error: errors.get(&group).cloned(), running })
    };
    statuses.into_iter().filter_map(group).collect()
}

fn running_group(ledger: &Ledger, network: &NetworkReport) -> RunningGroup {
    let (head, now) = (ledger.head(), Instant::now());
    let rate = ledger.watch().rate(now);
    let counters = ledger.counters();
    let pool = PoolReport {
        transactions: ledger.pool().count(),
        limit: ledger.config().pool_count,
        bytes: ledger.pool().bytes(),
        ingress_bytes: ledger.ingress().bytes(),
        expired: counters.expired.load(Ordering::Relaxed),
    };
    RunningGroup {
        height: head.number,
        head_time_ms: head.timestamp_ms,
        halted: ledger.halted(),
        role: role(ledger),
        blocks_per_s: rate.blocks,
        transactions_per_s: rate.transactions,
        consensus: consensus(ledger, network, now),
        pool,
        sync: sync(ledger, network),
        conduct: conduct(ledger),
    }
}

fn role(ledger: &Ledger) -> Role {
    let (own, sealers) = (ledger.config().key.node_id(), ledger.sealers());
    match sealers.binary_search(&own) {
        Ok(index) => Role::Sealer { index: u32::try_from(index).unwrap_or(u32::MAX), of: sealers.len() },
        Err(_) if ledger.observers().contains(&own) => Role::Observer,
        Err(_) => Role::NotMember,
    }
}

fn consensus(ledger: &Ledger, network: &NetworkReport, now: Instant) -> ConsensusReport {
    let (epoch, engine) = (ledger.epoch(), ledger.engine_status());
    ConsensusReport {
        kind: ledger.config().genesis.consensus.name().into(),
        epoch_start: epoch.start,
        quorum: epoch.quorum(),
        timeout_ms: epoch.consensus_timeout_ms,
        view: engine.view,
        to_view: engine.to_view,
        view_changes: ledger.watch().view_changes(),
        next_height: engine.next_height,
        leader: engine.leader.map(|leader| leader.to_string()),
        waits_for: engine.waits_for.clone(),
        waiting_ms: ledger.watch().waiting_ms(now),
        sealers: epoch.sealers.iter().map(|sealer| self::sealer(sealer, ledger, &engine, network)).collect(),
    }
}

fn sealer(node: &NodeId, ledger: &Ledger, engine: &EngineStatus, network: &NetworkReport) -> SealerReport {
    let node_id = node.to_string();
    if *node == ledger.config().key.node_id() {
        return SealerReport {
            node_id,
            name: Some(network.own_name.clone()),
            link: Link::Own,
            height: ledger.head().number,
            view: engine.view,
            heard_ms: 0,
            address: None,
            last_error: None,
        };
    }
    let heard = engine.others.iter().find(|other| other.node == *node);
    // Sync hears heights while consensus is silent.
    let synced = ledger.sync_progress().peers.iter().find(|peer| peer.node == *node).and_then(|peer| peer.head);
    let address = network.address_of(&node_id);
    SealerReport {
        name: network.name_of(&node_id),
        link: network.link(&node_id, ledger.id().get()),
        height: heard.map_or(0, |heard| heard.height).max(synced.map_or(0, |(height, _)| height)),
        view: heard.map_or(0, |heard| heard.view),
        heard_ms: heard.map_or(0, |heard| heard.heard_ms),
        address: address.map(|address| address.address.clone()),
        last_error: address.and_then(|address| address.last_error.clone()),
        node_id,
    }
}

fn sync(ledger: &Ledger, network: &NetworkReport) -> SyncReport {
    let progress = ledger.sync_progress();
    let counters = ledger.counters();
    let peers = progress.peers.iter().map(|peer| {
        let node_id = peer.node.to_string();
        SyncPeerReport {
            name: network.name_of(&node_id),
            node_id,
            height: peer.head.map(|(height, _)| height),
            bytes_per_s: peer.bytes_per_s,
            held_for_ms: peer.held_for_ms,
            lies: peer.lies,
            last_lie: peer.last_lie.clone(),
        }
    });
    SyncReport {
        is_syncing: progress.is_syncing,
        known_height: progress.known.0.max(ledger.head().number),
        target_height: progress.target,
        blocks_per_s: progress.blocks_per_s,
        bytes_per_s: progress.bytes_per_s,
        remaining_s: progress.remaining_s,
        out_of_reach: progress.out_of_reach,
        held_blocks: progress.held_blocks,
        downloaded_blocks: counters.downloaded_blocks.load(Ordering::Relaxed),
        downloaded_bytes: counters.downloaded_bytes.load(Ordering::Relaxed),
        peers: peers.collect(),
    }
}

fn conduct(ledger: &Ledger) -> ConductReport {
    let deed = |deed: Misconduct| Deed { node_id: deed.node.to_string(), what: deed.what, at_ms: deed.at_ms };
    let conduct = ledger.conduct();
    ConductReport {
        refusals: conduct.refusals(),
        last_refusal: conduct.last_refusal().map(deed),
        evidence: conduct.evidence(),
        last_evidence: conduct.last_evidence().map(deed),
    }
}

/// Names of nodes that had a session, so that those that are gone can be named.
#[derive(Default)]
pub(super) struct KnownNames(Mutex<BTreeMap<String, String>>);

impl KnownNames {
    /// Learns the names of those that are there, and gives all.
    fn update(&self, sessions: &[SessionReport]) -> BTreeMap<String, String> {
        let mut known = self.0.lock();
        for session in sessions {
            if known.len() < MAX_NAMES || known.contains_key(&session.node_id) {
                known.insert(session.node_id.clone(), session.name.clone());
            }
        }
        known.clone()
    }
}

/// Sessions, addresses and losses; nothing of a node that runs alone.
pub(super) fn network(network: Option<&PeerNetwork>, own_name: &str, names: &KnownNames) -> NetworkReport {
    let report = network.map(|network| network_report(&network.sessions(), &network.peers(), &network.counters())).unwrap_or_default();
    NetworkReport { own_name: own_name.to_owned(), known_names: names.update(&report.sessions), ..report }
}

fn network_report(sessions: &[SessionInfo], peers: &[PeerInfo], counters: &NetworkCounters) -> NetworkReport {
    let dropped = DropReason::ALL.map(|reason| (reason.name().to_owned(), counters.dropped(reason)));
    NetworkReport {
        sessions: sessions.iter().map(session).collect(),
        addresses: peers.iter().map(address).collect(),
        dropped: dropped.into_iter().filter(|(_, count)| *count > 0).collect(),
        own_duplicate: counters.own_duplicate.map(|seen| seen.to_string()),
        ..NetworkReport::default()
    }
}

fn session(session: &SessionInfo) -> SessionReport {
    SessionReport {
        node_id: session.node_id.to_string(),
        name: session.name.clone(),
        agency: session.agency.clone(),
        address: session.address.to_string(),
        is_outgoing: session.direction == Direction::Outgoing,
        since_ms: milliseconds(session.since),
        rtt_ms: session.rtt.map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 1e2),
        queued_frames: session.queued_frames,
        queued_bytes: session.queued_bytes,
        bytes_in: session.bytes_in,
        bytes_out: session.bytes_out,
        groups: session.groups.iter().map(|group| group.get()).collect(),
        duplicate: session.duplicate.map(|seen| seen.to_string()),
    }
}

fn address(peer: &PeerInfo) -> AddressReport {
    let state = match peer.state {
        PeerState::Waiting => "waiting",
        PeerState::Connecting => "connecting",
        PeerState::Connected => "connected",
        PeerState::Own => "own",
    };
    AddressReport {
        address: peer.address.to_string(),
        state: state.into(),
        node_id: peer.node_id.map(|node| node.to_string()),
        last_error: peer.last_error.clone(),
        failures: peer.failures,
    }
}

/// The certificates below a node's directory.
pub(super) fn certificates(directory: &Path) -> Vec<CertificateReport> {
    certificates::expiry(directory).into_iter().map(|(file, days_left)| CertificateReport { file, days_left }).collect()
}
