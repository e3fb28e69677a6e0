//! Metrics of groups and of the process, in Prometheus text form.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Instant;

use millrace_ledger::view::LedgerView;
use millrace_ledger::{Ledger, Registry};
use millrace_network::{DropReason, EndReason, FrameKind, NetworkCounters};
use millrace_pipeline::frames::FrameInlet;
use millrace_pipeline::stages::sync::SyncInlet;
use millrace_pipeline::topology::Crew;

use super::peer_rates::PeerRates;
use crate::status::CertificateReport;

/// One figure a group: name, kind, help, and how to read it.
type Figure = (&'static str, &'static str, &'static str, fn(&Ledger) -> u64);

const FIGURES: [Figure; 21] = [
    ("millrace_block_number", "gauge", "Height of the last committed block.", |ledger| ledger.head().number),
    ("millrace_blocks_total", "counter", "Blocks committed since the start.", |ledger| ledger.counters().blocks.load(Ordering::Relaxed)),
    ("millrace_transactions_total", "counter", "Transactions committed since the start.", |ledger| {
        ledger.counters().transactions.load(Ordering::Relaxed)
    }),
    ("millrace_failed_transactions_total", "counter", "Of those, with a status other than 0.", |ledger| {
        ledger.counters().failed.load(Ordering::Relaxed)
    }),
    ("millrace_expired_transactions_total", "counter", "Accepted transactions dropped because they waited too long.", |ledger| {
        ledger.counters().expired.load(Ordering::Relaxed)
    }),
    ("millrace_pool_transactions", "gauge", "Transactions in the pool.", |ledger| ledger.pool().count() as u64),
    ("millrace_pool_bytes", "gauge", "Memory of the pool's transactions, bytes.", |ledger| ledger.pool().bytes() as u64),
    ("millrace_ingress_bytes", "gauge", "Raw transactions waiting for verification, bytes.", |ledger| ledger.ingress().bytes() as u64),
    ("millrace_group_halted", "gauge", "1 when the group has halted because of a fault.", |ledger| u64::from(ledger.halted().is_some())),
    ("millrace_view", "gauge", "Current view.", |ledger| ledger.engine_status().view),
    ("millrace_view_changes_total", "counter", "Views entered since the start.", |ledger| ledger.watch().view_changes()),
    ("millrace_step_waiting_ms", "gauge", "For how long the next step of consensus is waited for.", |ledger| {
        ledger.watch().waiting_ms(Instant::now())
    }),
    ("millrace_sealers", "gauge", "Sealers of the group.", |ledger| ledger.sealers().len() as u64),
    ("millrace_height_gap", "gauge", "Blocks between the highest head that is vouched for and this node's.", height_gap),
    ("millrace_refusals_total", "counter", "Messages and blocks of other nodes refused.", |ledger| ledger.conduct().refusals()),
    ("millrace_evidence_total", "counter", "Contradicting statements signed by one sealer.", |ledger| ledger.conduct().evidence()),
    ("millrace_sync_active", "gauge", "1 while blocks are being downloaded.", |ledger| u64::from(ledger.sync_progress().is_syncing)),
    ("millrace_sync_target_height", "gauge", "Height that the download aims at.", |ledger| ledger.sync_progress().target),
    ("millrace_sync_blocks_downloaded_total", "counter", "Blocks downloaded.", |ledger| {
        ledger.counters().downloaded_blocks.load(Ordering::Relaxed)
    }),
    ("millrace_sync_bytes_downloaded_total", "counter", "Bytes of downloaded blocks.", |ledger| {
        ledger.counters().downloaded_bytes.load(Ordering::Relaxed)
    }),
    ("millrace_group_peers", "gauge", "Members of the group that are connected.", |ledger| ledger.sync_progress().peers.len() as u64),
];

fn height_gap(ledger: &Ledger) -> u64 {
    ledger.sync_progress().known.0.saturating_sub(ledger.head().number)
}

/// Appends the figures of every group.
pub(super) fn render_ledgers(registry: &Registry, text: &mut String) {
    let ledgers = registry.all();
    for (name, kind, help, read) in FIGURES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for ledger in &ledgers {
            let _ = writeln!(text, "{name}{{group=\"{}\"}} {}", ledger.id(), read(ledger));
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Appends what the network counts.
pub(super) fn render_network(counters: &NetworkCounters, text: &mut String) {
    let name = "millrace_p2p_messages_total";
    head(text, name, "counter", "Messages between nodes: delivered, and taken into a queue.");
    for kind in FrameKind::ALL {
        let (of, kind) = (counters.kind(kind), kind.name());
        let _ = writeln!(text, "{name}{{kind=\"{kind}\",direction=\"in\"}} {}", of.frames_in);
        let _ = writeln!(text, "{name}{{kind=\"{kind}\",direction=\"out\"}} {}", of.frames_out);
    }
    let name = "millrace_p2p_bytes_total";
    head(text, name, "counter", "Payload bytes of messages between nodes.");
    for kind in FrameKind::ALL {
        let (of, kind) = (counters.kind(kind), kind.name());
        let _ = writeln!(text, "{name}{{kind=\"{kind}\",direction=\"in\"}} {}", of.bytes_in);
        let _ = writeln!(text, "{name}{{kind=\"{kind}\",direction=\"out\"}} {}", of.bytes_out);
    }
    let name = "millrace_p2p_dropped_total";
    head(text, name, "counter", "Messages between nodes that were dropped, by reason.");
    for reason in DropReason::ALL {
        let _ = writeln!(text, "{name}{{reason=\"{}\"}} {}", reason.name(), counters.dropped(reason));
    }
    let name = "millrace_p2p_ended_total";
    head(text, name, "counter", "Connections and sessions that ended or were refused, by reason.");
    for reason in EndReason::ALL {
        let _ = writeln!(text, "{name}{{reason=\"{}\"}} {}", reason.name(), counters.ended(reason));
    }
    let single = [
        ("millrace_peers_connected", "gauge", "Open sessions with other nodes.", counters.sessions),
        ("millrace_p2p_wire_in_bytes_total", "counter", "Bytes read from sockets, TLS included.", counters.wire_in),
        ("millrace_p2p_wire_out_bytes_total", "counter", "Bytes written to sockets, TLS included.", counters.wire_out),
        ("millrace_p2p_socket_calls_total", "counter", "Reads and writes of sockets.", counters.socket_calls),
        ("millrace_p2p_over_limit_total", "counter", "Incoming connections refused because of a limit.", counters.over_limit),
        (
            "millrace_p2p_duplicate_identities_total",
            "counter",
            "Times that two processes with one node id were found.",
            counters.duplicate_identities,
        ),
    ];
    for (name, kind, help, value) in single {
        head(text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    }
}

/// Appends how blocks were executed.
pub(super) fn render_crew(crew: &Crew, text: &mut String) {
    let totals = crew.totals();
    let figures = [
        ("millrace_execute_parallel_blocks_total", "Blocks executed by several threads.", totals.parallel_blocks),
        ("millrace_execute_serial_blocks_total", "Blocks executed by one thread.", totals.serial_blocks),
        ("millrace_execute_reexecutions_total", "Executions of transactions whose result was not used.", totals.reexecutions),
    ];
    for (name, help, value) in figures {
        head(text, name, "counter", help);
        let _ = writeln!(text, "{name} {value}");
    }
}

/// Appends what was dropped at the pipeline's doors for other nodes.
pub(super) fn render_doors((frames, sync, rates): (&FrameInlet, &SyncInlet, &PeerRates), text: &mut String) {
    let name = "millrace_inlet_dropped_total";
    head(text, name, "counter", "Messages of other nodes that found no room in their sender's share or were beyond its rate.");
    let clients: u64 = rates.dropped().iter().map(|(_, count)| count).sum();
    for (inlet, dropped) in [("consensus", frames.dropped()), ("sync", sync.dropped()), ("clients", clients)] {
        let _ = writeln!(text, "{name}{{inlet=\"{inlet}\"}} {dropped}");
    }
}

/// Appends days to the end of each certificate.
pub(super) fn render_certificates(certificates: &[CertificateReport], text: &mut String) {
    let name = "millrace_certificate_days_left";
    head(text, name, "gauge", "Days until a certificate or one it depends on ends; negative when it has ended.");
    for certificate in certificates {
        // Paths of this node's own directory; a quote or backslash in one would break the line.
        let file = certificate.file.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(text, "{name}{{file=\"{file}\"}} {}", certificate.days_left);
    }
}

/// Appends memory and threads of the process, as Linux tells them; nothing elsewhere.
pub(super) fn render_process(text: &mut String) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(kib) = field("VmRSS:") {
        let name = "process_resident_memory_bytes";
        let _ = writeln!(text, "# HELP {name} Resident memory.\n# TYPE {name} gauge\n{name} {}", kib * 1024);
    }
    if let Some(threads) = field("Threads:") {
        let name = "process_threads";
        let _ = writeln!(text, "# HELP {name} Threads of the process.\n# TYPE {name} gauge\n{name} {threads}");
    }
}
