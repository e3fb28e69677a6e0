//! Statuses for tests: four sealers that are well, as node0 sees them, and one sealer alone. Tests change what they need.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_pipeline::runtime::check_golden;

use super::topology::{PartReport, QueueReport, Shares, StageReport, TopologyReport, WorkerReport};
use super::*;

/// When all of it is.
pub const NOW_MS: u64 = 1_800_000_000_000;

/// The id of a node: its digit in every place but the first eight, which name it.
pub fn id(node: usize) -> String {
    format!("a0b1c2d{node}{}", node.to_string().repeat(120))
}

fn sealer(node: usize) -> SealerReport {
    SealerReport {
        node_id: id(node),
        name: Some(format!("node{node}")),
        link: if node == 0 { Link::Own } else { Link::Connected },
        height: 120,
        view: 3,
        heard_ms: if node == 0 { 0 } else { NOW_MS - 400 },
        address: (node > 0).then(|| format!("10.0.0.{node}:30300")),
        last_error: None,
    }
}

/// A group of so many sealers, idle.
pub fn group(count: usize) -> RunningGroup {
    RunningGroup {
        height: 120,
        head_time_ms: NOW_MS - 3_200,
        halted: None,
        role: Role::Sealer { index: 0, of: count },
        blocks_per_s: 1.5,
        transactions_per_s: 820.3,
        consensus: ConsensusReport {
            kind: "pbft".into(),
            epoch_start: 1,
            quorum: count - (count - 1) / 3,
            timeout_ms: 3_000,
            view: 3,
            to_view: 3,
            view_changes: 3,
            next_height: 121,
            leader: Some(id(count - 1)),
            waits_for: String::new(),
            waiting_ms: 0,
            sealers: (0..count).map(sealer).collect(),
        },
        pool: PoolReport { transactions: 12, limit: 150_000, bytes: 4_096, ingress_bytes: 0, expired: 0 },
        sync: SyncReport { known_height: 120, target_height: 120, ..SyncReport::default() },
        conduct: ConductReport::default(),
    }
}

/// A node in group 1 of so many sealers.
pub fn node(count: usize) -> NodeStatus {
    let session = |node: usize| SessionReport {
        node_id: id(node),
        name: format!("node{node}"),
        agency: "bank".into(),
        address: format!("10.0.0.{node}:30300"),
        is_outgoing: node != 2,
        since_ms: NOW_MS - 60_000,
        rtt_ms: Some(0.4),
        queued_frames: 2,
        queued_bytes: 1_500,
        bytes_in: 12_345_678,
        bytes_out: 987,
        groups: vec![1],
        duplicate: None,
    };
    NodeStatus {
        version: "0.1.0".into(),
        name: "node0".into(),
        agency: "bank".into(),
        node_id: id(0),
        chain_id: 1,
        now_ms: NOW_MS,
        uptime_s: 3_725,
        is_stopping: false,
        groups: vec![GroupReport { group: 1, state: GroupState::Running, error: None, running: Some(group(count)) }],
        network: NetworkReport {
            own_name: "node0".into(),
            known_names: BTreeMap::new(),
            sessions: (1..count).map(session).collect(),
            addresses: Vec::new(),
            dropped: BTreeMap::new(),
            own_duplicate: None,
        },
        certificates: vec![
            CertificateReport { file: "conf/channel_cert/node.crt".into(), days_left: 3_650 },
            CertificateReport { file: "conf/p2p.crt".into(), days_left: 365 },
        ],
    }
}

/// The same node with its first group changed.
pub fn node_with(count: usize, change: impl FnOnce(&mut RunningGroup)) -> NodeStatus {
    let mut status = node(count);
    change(status.groups[0].running.as_mut().unwrap());
    status
}

/// Loses the session with a sealer, which was heard `ago_ms` before now.
pub fn lose(group: &mut RunningGroup, node: usize, ago_ms: u64) {
    let sealer = &mut group.consensus.sealers[node];
    (sealer.link, sealer.name, sealer.heard_ms) = (Link::NotConnected, None, NOW_MS - ago_ms);
    sealer.last_error = Some("connection refused (socket); what to do: start the node".into());
}

/// Two stages after so many seconds: one is busy for a quarter of the time and takes 100 items a second, the other waits.
pub fn topology(seconds: u64) -> TopologyReport {
    let second = 1_000_000_000;
    let worker = |busy: u64| WorkerReport {
        busy_ns: busy * second / 4,
        starved_ns: (4 * seconds - busy) * second / 4,
        items: busy * 50,
        batches: busy,
        state: "runs".into(),
        ..WorkerReport::default()
    };
    let stage = |name: &str, what: &str, (reads, writes): (&str, &[&str]), workers: Vec<WorkerReport>| StageReport {
        name: name.into(),
        what: what.into(),
        reads: vec![reads.into()],
        writes: writes.iter().map(|name| (*name).into()).collect(),
        shares: Shares::default(),
        workers,
    };
    let queue = |name: &str, (from, to): (&str, &str), parts: Vec<PartReport>| QueueReport {
        name: name.into(),
        policy: "reject".into(),
        from: vec![from.into()],
        to: vec![to.into()],
        parts,
        ..QueueReport::default()
    };
    let part = |depth: usize, rejected: u64| PartReport { depth, capacity: 100, high_water: depth + 5, rejected, ..PartReport::default() };
    TopologyReport {
        name: "millrace".into(),
        stages: vec![
            stage("verify", "recover the sender", ("submissions", &["to-order"]), vec![worker(seconds), worker(seconds)]),
            stage("order", "agree", ("to-order", &[]), vec![worker(0)]),
        ],
        queues: vec![
            queue("submissions", ("(rpc)", "verify"), vec![part(3, 7), part(4, 0)]),
            queue("to-order", ("verify", "order"), vec![part(0, 0)]),
        ],
    }
}

/// Compares a text with a file of `src/status/golden`; `MILLRACE_BLESS=1` writes it.
pub fn golden(name: &str, text: &str) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/status/golden")).join(name);
    check_golden(&path, text).unwrap_or_else(|error| panic!("{error}"));
}
