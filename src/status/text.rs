//! The status for people: `millrace node status`.

use std::fmt::Write;

use super::diagnosis::{Diagnosis, Finding, Level};
use super::{GroupReport, GroupState, Link, NodeStatus, Role, RunningGroup, label};

/// Certificates shown when none is near its end.
const SHOWN_CERTIFICATES: usize = 1;

/// Figures of the node, its groups and its peers.
pub fn status(status: &NodeStatus, diagnosis: &Diagnosis) -> String {
    let mut text = headline(status, diagnosis.level());
    for (group, found) in status.groups.iter().zip(&diagnosis.groups) {
        draw_group(group, found.level(), status, &mut text);
    }
    draw_sessions(status, &mut text);
    draw_certificates(status, &mut text);
    if diagnosis.level() > Level::Healthy {
        text.push_str("\n--why says what is wrong.\n");
    }
    text
}

/// What is wrong, group by group.
pub fn why(status: &NodeStatus, diagnosis: &Diagnosis) -> String {
    let mut text = headline(status, diagnosis.level());
    for (group, found) in status.groups.iter().zip(&diagnosis.groups) {
        let figures = match &group.running {
            Some(running) => format!(
                "  (height {}, last block {}, {}, {} {})",
                running.height,
                block_age(status.now_ms, running.head_time_ms),
                role(&running.role),
                running.consensus.counter(),
                running.consensus.view
            ),
            None => String::new(),
        };
        let _ = writeln!(text, "\ngroup {}: {}{figures}", group.group, found.level().name());
        list(&found.findings, &mut text);
    }
    if !diagnosis.node.is_empty() {
        text.push_str("\nnode\n");
        list(&diagnosis.node, &mut text);
    }
    text
}

fn list(findings: &[Finding], text: &mut String) {
    for finding in findings {
        let mark = match finding.level {
            Level::Healthy => "-",
            Level::Degraded => "!",
            Level::Stuck => "!!",
        };
        let _ = writeln!(text, "  {mark:<2} {}", finding.text);
    }
}

fn headline(status: &NodeStatus, level: Level) -> String {
    format!(
        "{} of {}, chain {}, version {}, up {}: {}\nnode id {}\n",
        status.name,
        status.agency,
        status.chain_id,
        status.version,
        duration(status.uptime_s),
        level.name(),
        status.node_id
    )
}

fn draw_group(group: &GroupReport, level: Level, status: &NodeStatus, text: &mut String) {
    let Some(running) = &group.running else {
        let _ = writeln!(text, "\ngroup {}: {}", group.group, state(group.state));
        return;
    };
    let consensus = &running.consensus;
    let _ = writeln!(
        text,
        "\ngroup {}: {}, {}\n  height {}, last block {}, {:.1} blocks/s, {:.1} transactions/s",
        group.group,
        level.name(),
        role(&running.role),
        running.height,
        block_age(status.now_ms, running.head_time_ms),
        running.blocks_per_s,
        running.transactions_per_s
    );
    let leader = consensus.leader.as_ref().map_or_else(
        || "none".into(),
        |leader| {
            let known = consensus.sealers.iter().find(|sealer| &sealer.node_id == leader);
            known.map_or_else(|| label(None, leader), super::SealerReport::label)
        },
    );
    let counter = consensus.counter();
    let changing = if consensus.to_view > consensus.view { format!(" moving to {}", consensus.to_view) } else { String::new() };
    let _ = writeln!(
        text,
        "  {counter} {}{changing}, leader {leader}, {} {counter} changes, members since block {}, {} of {} sealers connected, {} needed",
        consensus.view,
        consensus.view_changes,
        consensus.epoch_start,
        running.present(),
        consensus.sealers.len(),
        consensus.quorum
    );
    let pool = &running.pool;
    let _ = writeln!(
        text,
        "  pool {} of {} transactions ({}), {} expired; {} refusals, {} cases of evidence",
        pool.transactions,
        pool.limit,
        bytes(pool.bytes as u64),
        pool.expired,
        running.conduct.refusals,
        running.conduct.evidence
    );
    draw_sync(running, text);
    if consensus.sealers.len() > 1 {
        draw_sealers(running, status.now_ms, text);
    }
}

fn draw_sync(running: &RunningGroup, text: &mut String) {
    let sync = &running.sync;
    if !sync.is_syncing {
        return;
    }
    let left = sync.remaining_s.map_or_else(|| "time left unknown".into(), |left| format!("{} left", duration(left)));
    let _ = writeln!(
        text,
        "  downloading: height {} of {}, {} blocks/s, {}/s, {} blocks at hand, {left}",
        running.height,
        sync.known_height.max(sync.target_height),
        sync.blocks_per_s,
        bytes(sync.bytes_per_s),
        sync.held_blocks
    );
}

fn draw_sealers(running: &RunningGroup, now_ms: u64, text: &mut String) {
    let _ = writeln!(text, "    {:<18} {:<14} {:>10} {:>6}  heard", "sealer", "link", "height", running.consensus.counter());
    for sealer in &running.consensus.sealers {
        let (link, heard) = match sealer.link {
            Link::Own => ("this node", String::new()),
            Link::Connected => ("connected", heard(now_ms, sealer.heard_ms)),
            Link::NotShared => ("other groups", heard(now_ms, sealer.heard_ms)),
            Link::NotConnected => ("NOT CONNECTED", heard(now_ms, sealer.heard_ms)),
        };
        let line = format!("    {:<18} {link:<14} {:>10} {:>6}  {heard}", sealer.label(), sealer.height, sealer.view);
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn draw_sessions(status: &NodeStatus, text: &mut String) {
    let network = &status.network;
    if !network.sessions.is_empty() {
        let _ = writeln!(text, "\n{:<18} {:<22} {:>8} {:>16} {:>10} {:>10}  groups", "peer", "address", "rtt", "queued", "in", "out");
    }
    for session in &network.sessions {
        let rtt = session.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.1} ms"));
        let queued = format!("{} ({})", session.queued_frames, bytes(session.queued_bytes as u64));
        let groups: Vec<String> = session.groups.iter().map(u16::to_string).collect();
        let _ = writeln!(
            text,
            "{:<18} {:<22} {rtt:>8} {queued:>16} {:>10} {:>10}  {}",
            label(Some(&session.name), &session.node_id),
            session.address,
            bytes(session.bytes_in),
            bytes(session.bytes_out),
            groups.join(",")
        );
    }
    if !network.dropped.is_empty() {
        let dropped: Vec<String> = network.dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = writeln!(text, "frames dropped since the start: {}", dropped.join(", "));
    }
}

fn draw_certificates(status: &NodeStatus, text: &mut String) {
    let mut certificates: Vec<_> = status.certificates.iter().collect();
    certificates.sort_by_key(|certificate| certificate.days_left);
    for certificate in certificates.into_iter().take(SHOWN_CERTIFICATES) {
        let _ = writeln!(text, "\ncertificates: the first to end is {}, in {} days", certificate.file, certificate.days_left);
    }
}

fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Running => "starting",
        GroupState::Stopping => "stopping",
        GroupState::Stopped => "stopped",
        GroupState::Removed => "removed",
    }
}

/// What the node is in a group.
pub fn role(role: &Role) -> String {
    match role {
        Role::Sealer { index, of } => format!("sealer {index} of {of}"),
        Role::Observer => "observer".into(),
        Role::NotMember => "not a member".into(),
    }
}

/// Block 0 of a devnet may be dated long before the chain.
fn block_age(now_ms: u64, head_time_ms: u64) -> String {
    if head_time_ms == 0 { "never".into() } else { ago(now_ms, head_time_ms) }
}

fn heard(now_ms: u64, heard_ms: u64) -> String {
    if heard_ms == 0 { "never".into() } else { ago(now_ms, heard_ms) }
}

/// "3.2 s ago".
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) {
        passed @ 0..10_000 => format!("{}.{} s ago", passed / 1_000, passed % 1_000 / 100),
        passed => format!("{} ago", duration(passed / 1_000)),
    }
}

/// "2 h 3 min".
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// "1.2 MB".
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let unit = (0..UNITS.len() - 1).find(|unit| count < 1_000_u64.pow(*unit as u32 + 1)).unwrap_or(UNITS.len() - 1);
    let tenths = count / (1_000_u64.pow(unit as u32) / 10).max(1);
    if unit == 0 { format!("{count} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

#[cfg(test)]
#[path = "text/tests.rs"]
mod tests;
