//! What is wrong with a node and its groups, in sentences an operator can act on: `millrace node status --why`.
//!
//! A function of the status alone. For each group the worst comes first, loss of quorum before everything that follows from it. What a
//! node says is what it sees itself: another node may see more.

use millrace_administration::pbft::WINDOW;

use super::{CertificateReport, ConductReport, GroupReport, GroupState, Link, NodeStatus, Role, RunningGroup, SealerReport, label};
use crate::status::text::{ago, duration};

/// A step that takes longer is a sign that something is wrong, milliseconds; the first view change comes after seconds.
const SLOW_STEP_MS: u64 = 10_000;

/// A step that takes longer does not come by itself: view changes have been tried meanwhile.
const STUCK_STEP_MS: u64 = 30_000;

/// How long the last refusal counts as present trouble, milliseconds.
const RECENT_MS: u64 = 60_000;

/// Days before the end of a certificate from which on it is a trouble: as `millrace chain show` has it.
const CERTIFICATE_DAYS: i64 = 30;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// Nothing to do.
    #[default]
    Healthy,
    /// It works, and something needs an operator.
    Degraded,
    /// It does not go on by itself.
    Stuck,
}

impl Level {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Level::Healthy => "healthy",
            Level::Degraded => "degraded",
            Level::Stuck => "STUCK",
        }
    }

    /// Exit code of `millrace node status`.
    pub fn exit_code(self) -> u8 {
        match self {
            Level::Healthy => 0,
            Level::Degraded => 1,
            Level::Stuck => 2,
        }
    }
}

/// One thing worth saying; a healthy one is a remark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// In words.
    pub text: String,
}

/// Of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDiagnosis {
    /// Its id.
    pub group: u16,
    /// Worst first; those of one level in the order in which causes precede effects.
    pub findings: Vec<Finding>,
}

impl GroupDiagnosis {
    /// The worst.
    pub fn level(&self) -> Level {
        worst(&self.findings)
    }
}

/// Of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// Of each group, in the order of the status.
    pub groups: Vec<GroupDiagnosis>,
    /// Of the node itself.
    pub node: Vec<Finding>,
}

impl Diagnosis {
    /// The worst.
    pub fn level(&self) -> Level {
        self.groups.iter().map(GroupDiagnosis::level).max().unwrap_or_default().max(worst(&self.node))
    }
}

fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or_default()
}

/// Finds out what is wrong.
pub fn diagnose(status: &NodeStatus) -> Diagnosis {
    let groups = status.groups.iter().map(|group| {
        let mut findings = Findings::default();
        judge_group(group, status, &mut findings);
        GroupDiagnosis { group: group.group, findings: findings.in_order() }
    });
    let groups = groups.collect();
    let mut findings = Findings::default();
    judge_node(status, &mut findings);
    Diagnosis { groups, node: findings.in_order() }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, text: String) {
        self.0.push(Finding { level, text });
    }

    fn in_order(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        self.0
    }
}

fn judge_group(group: &GroupReport, status: &NodeStatus, findings: &mut Findings) {
    let Some(running) = &group.running else {
        let (level, text) = match group.state {
            GroupState::Running => (Level::Degraded, "It is being started."),
            GroupState::Stopping => (Level::Degraded, "It is being stopped; blocks in flight are finished first."),
            GroupState::Stopped => (Level::Healthy, "It is stopped; startGroup on the operator port starts it."),
            GroupState::Removed => (Level::Healthy, "It is removed; its files are kept, recoverGroup brings it back."),
        };
        return match &group.error {
            Some(error) => findings.add(Level::Degraded, format!("{text} When it was stopped: {error}.")),
            None => findings.add(level, text.into()),
        };
    };
    if let Some(reason) = &running.halted {
        let text = format!(
            "The group has halted at height {}: {reason}. It accepts nothing and takes part in nothing; other groups go on. Its database is \
             as of that height. Look into the log, mend the cause, start the node again.",
            running.height
        );
        return findings.add(Level::Stuck, text);
    }
    judge_quorum(running, status, findings);
    judge_steps(running, findings);
    judge_heights(running, findings);
    judge_conduct(&running.conduct, running, status, findings);
    judge_pool(running, findings);
}

/// Who is there, and whether that is enough.
fn judge_quorum(running: &RunningGroup, status: &NodeStatus, findings: &mut Findings) {
    let sealers = &running.consensus.sealers;
    let (total, quorum, present) = (sealers.len(), running.consensus.quorum, running.present());
    let absent: Vec<&SealerReport> = sealers.iter().filter(|sealer| !sealer.is_present()).collect();
    if running.role == Role::NotMember {
        let text = "This node is neither sealer nor observer of the group, so it gets no blocks: have a sealer's administrator make it an \
                    observer (addObserver).";
        return findings.add(Level::Degraded, text.into());
    }
    if absent.is_empty() {
        return;
    }
    let names = absent.iter().map(|sealer| describe_absent(sealer, status.now_ms)).collect::<Vec<_>>().join("; ");
    let is_sealer = matches!(running.role, Role::Sealer { .. });
    match (is_sealer, present) {
        (true, present) if present < quorum => {
            let who = if present == 1 { "only this node is there".into() } else { format!("{present} are connected, this node included") };
            let back = match (quorum - present, absent.len()) {
                (1, 1) => "this one is back".into(),
                (needed, missing) if needed == missing => "all of these are back".into(),
                (1, _) => "one of these is back".into(),
                (needed, _) => format!("{needed} of these are back"),
            };
            let text = format!(
                "No quorum: {quorum} of {total} sealers are needed, {who}. Nothing is committed until {back}: {names}. Start them, or mend \
                 the network between them and this node."
            );
            findings.add(Level::Stuck, text);
        }
        (true, present) => {
            let spare = match present - quorum {
                0 => "none may fail besides".into(),
                spare => format!("{spare} more may fail"),
            };
            findings.add(Level::Degraded, format!("{present} of {total} sealers are connected, {quorum} are needed, {spare}. Missing: {names}."));
        }
        (false, 0) => findings.add(
            Level::Stuck,
            format!("This observer is connected to none of the {total} sealers, so it gets no blocks: {names}. Whether they have a quorum cannot be seen from here."),
        ),
        (false, present) => {
            findings.add(Level::Degraded, format!("This observer is connected to {present} of {total} sealers. Missing: {names}."));
        }
    }
}

/// Who it is, since when it was not heard, and why it cannot be reached.
fn describe_absent(sealer: &SealerReport, now_ms: u64) -> String {
    let address = sealer.address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
    if sealer.link == Link::NotShared {
        return format!(
            "{}{address} is connected but does not run the group or does not count this node among its members",
            sealer.label()
        );
    }
    let heard = match sealer.heard_ms {
        0 => "was not heard since this node started".into(),
        at => format!("is not reachable, last heard {}", ago(now_ms, at)),
    };
    // What to do about it stands once, under the node.
    let error = sealer.last_error.as_ref().and_then(|error| error.split("; what to do").next());
    let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
    format!("{}{address} {heard}{error}", sealer.label())
}

/// What the next step waits for.
fn judge_steps(running: &RunningGroup, findings: &mut Findings) {
    let consensus = &running.consensus;
    let has_quorum = !matches!(running.role, Role::Sealer { .. }) || running.present() >= consensus.quorum;
    let level = match consensus.waiting_ms {
        0..SLOW_STEP_MS => Level::Healthy,
        SLOW_STEP_MS..STUCK_STEP_MS => Level::Degraded,
        _ => Level::Stuck,
    };
    if consensus.to_view > consensus.view && consensus.is_raft() {
        let text = format!("This sealer hears of no leader in term {} and asks the others for their votes. ", consensus.view);
        let hope =
            if has_quorum { "With a majority connected an election ends within seconds." } else { "Without a majority nobody is elected." };
        findings.add(level.max(Level::Degraded), text + hope);
    } else if consensus.to_view > consensus.view {
        let text = format!(
            "A view change from view {} to view {} is under way: the sealers replace a leader that was too slow. ",
            consensus.view, consensus.to_view
        );
        let hope = if has_quorum { "With a quorum connected it ends within seconds." } else { "Without a quorum it cannot end." };
        findings.add(level.max(Level::Degraded), text + hope);
    }
    if !consensus.waits_for.is_empty() {
        let (what, time) = (with_names(&consensus.waits_for, &consensus.sealers), duration(consensus.waiting_ms / 1_000));
        findings.add(level, format!("The next step waits for {what}; for {time} so far."));
    }
    let differing: Vec<String> = consensus
        .sealers
        .iter()
        .filter(|sealer| sealer.link == Link::Connected && sealer.heard_ms > 0 && sealer.view != consensus.view)
        .map(|sealer| format!("{} is in {} {}", sealer.label(), consensus.counter(), sealer.view))
        .collect();
    if !differing.is_empty() {
        // Views are told with other messages: a difference is a trouble only where a step waits.
        let level = if consensus.waiting_ms >= SLOW_STEP_MS { Level::Degraded } else { Level::Healthy };
        let (counter, differing) = (consensus.counter(), differing.join(", "));
        let named = if consensus.is_raft() { "Terms" } else { "Views" };
        findings.add(level, format!("{named} differ: this node is in {counter} {}, {differing}.", consensus.view));
    }
}

/// Who lacks blocks.
fn judge_heights(running: &RunningGroup, findings: &mut Findings) {
    let sync = &running.sync;
    let highest = running.consensus.sealers.iter().map(|sealer| sealer.height).max().unwrap_or(0);
    let known = sync.known_height.max(sync.target_height);
    if known > running.height + WINDOW {
        let from: Vec<String> = sync
            .peers
            .iter()
            .filter(|peer| peer.held_for_ms == 0 && peer.height > Some(running.height))
            .map(|peer| label(peer.name.as_deref(), &peer.node_id))
            .collect();
        let progress = match (sync.is_syncing, from.is_empty()) {
            (true, false) => {
                let left =
                    sync.remaining_s.map_or_else(|| "the time left is not known yet".into(), |left| format!("{} left", duration(left)));
                format!("it downloads them from {} at {} blocks/s, {left}", from.join(", "), sync.blocks_per_s)
            }
            (false, false) => "the download has not begun".into(),
            (_, true) => "no member that has them is connected".into(),
        };
        let text = format!("This node is {} blocks behind (height {} of {known}): {progress}.", known - running.height, running.height);
        findings.add(Level::Degraded, text);
    }
    if let Some(lowest) = sync.out_of_reach {
        let text = format!(
            "No connected member keeps block {}, which this node needs next, only blocks from {lowest} on: connect a node that keeps all, or \
             restore a snapshot (`millrace db snapshot`).",
            running.height + 1
        );
        findings.add(Level::Degraded, text);
    }
    for sealer in &running.consensus.sealers {
        if sealer.link == Link::Connected && sealer.heard_ms > 0 && sealer.height + WINDOW < highest.max(running.height) {
            let behind = highest.max(running.height) - sealer.height;
            let text = format!(
                "{} is {behind} blocks behind (height {} of {}), so its vote is missing until it has caught up.",
                sealer.label(),
                sealer.height,
                highest.max(running.height)
            );
            findings.add(Level::Degraded, text);
        }
    }
    for peer in sync.peers.iter().filter(|peer| peer.held_for_ms > 0) {
        let text = format!(
            "{} is not asked for blocks for another {}: it sent {} that did not hold, the last: {}.",
            label(peer.name.as_deref(), &peer.node_id),
            duration(peer.held_for_ms.div_ceil(1_000)),
            peer.lies,
            peer.last_lie
        );
        findings.add(Level::Degraded, text);
    }
}

fn judge_conduct(conduct: &ConductReport, running: &RunningGroup, status: &NodeStatus, findings: &mut Findings) {
    let sealers = &running.consensus.sealers;
    let name = |node_id: &str| {
        let sealer = sealers.iter().find(|sealer| sealer.node_id == node_id);
        label(sealer.and_then(|sealer| sealer.name.clone()).or_else(|| status.network.name_of(node_id)).as_deref(), node_id)
    };
    if let Some(last) = &conduct.last_evidence {
        let text = format!(
            "{} signed two statements that contradict each other ({} cases, the last {}: {}). Only a faulty or taken-over node does that; \
             both statements are kept below data/evidence. Find out whether its key runs twice, else remove it.",
            name(&last.node_id),
            conduct.evidence,
            ago(status.now_ms, last.at_ms),
            last.what
        );
        findings.add(Level::Degraded, text);
    }
    if let Some(last) = &conduct.last_refusal {
        let level = if status.now_ms.saturating_sub(last.at_ms) < RECENT_MS { Level::Degraded } else { Level::Healthy };
        let text = format!(
            "{} messages of other nodes were refused; the last, {}, of {}: {}.",
            conduct.refusals,
            ago(status.now_ms, last.at_ms),
            name(&last.node_id),
            last.what.trim_end_matches('.')
        );
        findings.add(level, text);
    }
}

fn judge_pool(running: &RunningGroup, findings: &mut Findings) {
    let pool = &running.pool;
    if pool.transactions.saturating_mul(10) >= pool.limit.saturating_mul(9) && pool.limit > 0 {
        let text = format!(
            "The pool holds {} of {} transactions: clients send more than is committed ({:.0} a second), and new ones are refused.",
            pool.transactions, pool.limit, running.transactions_per_s
        );
        findings.add(Level::Degraded, text);
    }
}

fn judge_node(status: &NodeStatus, findings: &mut Findings) {
    if status.is_stopping {
        findings.add(Level::Degraded, "The node is stopping.".into());
    }
    if let Some(seen) = &status.network.own_duplicate {
        let text = format!(
            "Another process uses this node's identity; it was seen at {seen}. Stop one of them: two nodes must never share a key."
        );
        findings.add(Level::Stuck, text);
    }
    for session in &status.network.sessions {
        if let Some(seen) = &session.duplicate {
            let text =
                format!("Two processes use the identity of {}: at {} and at {seen}. Stop one of them.", session.name, session.address);
            findings.add(Level::Degraded, text);
        }
    }
    status.certificates.iter().for_each(|certificate| judge_certificate(certificate, findings));
    for address in &status.network.addresses {
        let is_silent = address.state != "connected" && address.state != "own" && address.failures > 0;
        if let Some(error) = address.last_error.as_ref().filter(|_| is_silent) {
            findings.add(Level::Healthy, format!("{} cannot be reached ({} attempts): {error}", address.address, address.failures));
        }
    }
}

fn judge_certificate(certificate: &CertificateReport, findings: &mut Findings) {
    let (file, days) = (&certificate.file, certificate.days_left);
    let remedy = "Renew it with `millrace chain renew`, then restart the node.";
    match days {
        ..0 => findings.add(Level::Degraded, format!("The certificate {file} ended {} days ago. {remedy}", -days)),
        0..CERTIFICATE_DAYS => findings.add(Level::Degraded, format!("The certificate {file} ends in {days} days. {remedy}")),
        _ => {}
    }
}

/// The engine names sealers by the first digits of their ids; people know their names.
fn with_names(text: &str, sealers: &[SealerReport]) -> String {
    sealers.iter().filter(|sealer| sealer.node_id.len() >= 8).fold(text.to_owned(), |text, sealer| {
        let short: String = sealer.node_id.chars().take(8).collect();
        if sealer.name.is_some() { text.replace(&short, &sealer.label()) } else { text }
    })
}

#[cfg(test)]
#[path = "diagnosis/tests.rs"]
mod tests;
