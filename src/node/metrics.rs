//! Metrics of groups and of the process, in Prometheus text form.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use millrace_ledger::view::LedgerView;
use millrace_ledger::{Ledger, Registry};

/// One figure a group: name, kind, help, and how to read it.
type Figure = (&'static str, &'static str, &'static str, fn(&Ledger) -> u64);

const FIGURES: [Figure; 9] = [
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
];

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
