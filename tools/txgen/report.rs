//! Figures of a run: as text for people, as JSON for scripts.

mod nodes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use millrace_base::clock::{Clock, SystemClock};
use serde_json::{Map, Value, json};

pub use self::nodes::NodeReport;
use crate::check::Verdict;
use crate::options::Options;
use crate::setup::Group;
use crate::tracker::{Counts, Record};

/// Share of the transactions at either end that the steady rate leaves out.
const EDGE: f64 = 0.1;

/// Longest pauses between commits that are listed.
const GAPS: usize = 20;

/// Figures of one group, or of all.
pub struct Figures {
    counts: Counts,
    errors: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    statuses: BTreeMap<u32, u64>,
    latency: Histogram<u64>,
    acknowledgement: Histogram<u64>,
    commits: Vec<(Instant, u64)>,
    blocks: u64,
    first_submit: Option<Instant>,
}

impl Figures {
    /// Of one group.
    pub fn of(record: &Record) -> Self {
        Self {
            counts: record.counts,
            errors: record.errors.clone(),
            faults: record.faults.clone(),
            statuses: record.statuses.clone(),
            latency: record.latency.clone(),
            acknowledgement: record.acknowledgement.clone(),
            commits: record.commits.clone(),
            blocks: record.blocks.len() as u64,
            first_submit: record.first_submit,
        }
    }

    /// Adds another group's.
    fn add(&mut self, other: &Self) {
        let (sum, part) = (&mut self.counts, &other.counts);
        sum.submitted += part.submitted;
        sum.acknowledged += part.acknowledged;
        sum.committed += part.committed;
        sum.failed += part.failed;
        sum.refused += part.refused;
        sum.unknown += part.unknown;
        sum.foreign += part.foreign;
        sum.resent += part.resent;
        sum.pushed += part.pushed;
        other.errors.iter().for_each(|(code, count)| *self.errors.entry(code.clone()).or_default() += count);
        other.faults.iter().for_each(|(fault, count)| *self.faults.entry(fault.clone()).or_default() += count);
        other.statuses.iter().for_each(|(status, count)| *self.statuses.entry(*status).or_default() += count);
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.acknowledgement.add(&other.acknowledgement).expect("all histograms have the same bounds");
        self.blocks += other.blocks;
        self.commits.extend(&other.commits);
        self.commits.sort_by_key(|(at, _)| *at);
        self.first_submit = [self.first_submit, other.first_submit].into_iter().flatten().min();
    }

    /// First submission to last receipt.
    fn seconds(&self) -> f64 {
        match (self.first_submit, self.commits.last()) {
            (Some(first), Some((last, _))) => last.saturating_duration_since(first).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// Committed transactions a second.
    fn tps(&self) -> f64 {
        rate(self.counts.committed, self.seconds())
    }

    /// Committed transactions a second without start and end of the run; the plain rate where there are too few blocks to tell.
    fn steady_tps(&self) -> f64 {
        let edge = (self.counts.committed as f64 * EDGE) as u64;
        let (mut seen, mut start, mut inside) = (0, None, 0);
        for &(at, count) in &self.commits {
            if let Some((begin, _)) = start {
                inside += count;
                start = Some((begin, at));
            } else if seen + count > edge {
                start = Some((at, at));
            }
            seen += count;
            if seen + edge >= self.counts.committed {
                break;
            }
        }
        let steady = start.map_or(0.0, |(begin, end): (Instant, Instant)| rate(inside, (end - begin).as_secs_f64()));
        if steady > 0.0 { steady } else { self.tps() }
    }

    /// Pauses between commits, longest first: when each began, seconds since the first submission, and how long it was, ms. With several
    /// groups a pause is one in which none of them committed.
    fn gaps(&self) -> Vec<(f64, f64)> {
        let Some(first) = self.first_submit else { return Vec::new() };
        let pause = |pair: &[(Instant, u64)]| {
            let since = |at: Instant| at.saturating_duration_since(first).as_secs_f64();
            (since(pair[0].0), (since(pair[1].0) - since(pair[0].0)) * 1_000.0)
        };
        let mut gaps: Vec<(f64, f64)> = self.commits.windows(2).map(pause).collect();
        gaps.sort_by(|one, other| other.1.total_cmp(&one.1));
        gaps.truncate(GAPS);
        gaps
    }

    /// Wall clock at the first submission, ms since 1970.
    fn started_ms(&self) -> Option<u64> {
        let elapsed = u64::try_from(self.first_submit?.elapsed().as_millis()).ok()?;
        Some(SystemClock.now_ms().saturating_sub(elapsed))
    }

    fn to_json(&self) -> Value {
        let ms = |quantile| milliseconds(&self.latency, quantile);
        let counts = &self.counts;
        let gaps = self.gaps();
        json!({
            "tps": round(self.tps()), "steady_tps": round(self.steady_tps()), "seconds": round(self.seconds()),
            "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99), "p99_9_ms": ms(0.999), "max_ms": ms(1.0),
            "mean_ms": round(self.latency.mean() / 1_000.0),
            "ack_p50_ms": milliseconds(&self.acknowledgement, 0.5), "ack_p99_ms": milliseconds(&self.acknowledgement, 0.99),
            "submitted": counts.submitted, "acknowledged": counts.acknowledged, "committed": counts.committed, "failed": counts.failed,
            "refused": counts.refused, "unknown": counts.unknown, "foreign": counts.foreign,
            "resent": counts.resent, "pushed": counts.pushed, "blocks": self.blocks, "started_unix_ms": self.started_ms(),
            "longest_gap_ms": round(gaps.first().map_or(0.0, |gap| gap.1)),
            "gaps": gaps.iter().map(|gap| json!({ "at_s": round(gap.0), "ms": round(gap.1) })).collect::<Vec<_>>(),
            "errors": self.errors, "faults": self.faults,
            "statuses": self.statuses.iter().map(|(status, count)| (status.to_string(), json!(count))).collect::<Map<_, _>>(),
        })
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    if histogram.is_empty() { 0.0 } else { round(histogram.value_at_quantile(quantile) as f64 / 1_000.0) }
}

/// Everything a run found.
pub struct Report {
    groups: Vec<(u16, Figures, Verdict)>,
    total: Figures,
    nodes: Vec<NodeReport>,
    check_time: Duration,
}

impl Report {
    /// Of groups and their verdicts.
    pub fn new(groups: &[Group], verdicts: Vec<Verdict>, nodes: Vec<NodeReport>, check_time: Duration) -> Self {
        let parts: Vec<(u16, Figures, Verdict)> =
            groups.iter().zip(verdicts).map(|(group, verdict)| (group.id.get(), group.tracker.with_record(Figures::of), verdict)).collect();
        let mut total = Figures::of(&Record::new(&[], 0));
        parts.iter().for_each(|(_, figures, _)| total.add(figures));
        Self { groups: parts, total, nodes, check_time }
    }

    /// Whether every acknowledged transaction got its one receipt, balances conserve, and anything was committed at all.
    pub fn is_good(&self) -> bool {
        self.findings().next().is_none() && self.total.counts.committed > 0
    }

    fn findings(&self) -> impl Iterator<Item = &String> {
        self.groups.iter().flat_map(|(_, _, verdict)| verdict.receipts.iter().chain(&verdict.balances).chain(&verdict.nodes.findings))
    }

    /// For scripts; figures of all groups together stand at the top.
    pub fn to_json(&self, options: &Options) -> Value {
        let word = |is_good: bool| if is_good { "ok" } else { "failed" };
        let groups: Map<String, Value> = self.groups.iter().map(|(id, figures, _)| (id.to_string(), figures.to_json())).collect();
        let run = json!({
            "ok": self.is_good(), "workload": format!("{:?}", options.workload).to_lowercase(),
            "groups": self.groups.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), "endpoints": options.rpc,
            "count": options.count, "loop": if options.rate.is_some() { "open" } else { "closed" }, "rate": options.rate,
            "transport": options.door().name(), "in_flight": options.in_flight, "connections": options.connections, "batch": options.batch, "accounts": options.accounts,
            "distribution": format!("{:?}", options.distribution).to_lowercase(), "conflict": options.conflict, "seed": options.seed,
        });
        let checks = json!({
            "receipts": word(self.groups.iter().all(|(_, _, verdict)| verdict.receipts.is_empty())),
            "balances": word(self.groups.iter().all(|(_, _, verdict)| verdict.balances.is_empty())),
            "nodes": word(self.groups.iter().all(|(_, _, verdict)| verdict.nodes.findings.is_empty())),
            "heights_compared": self.groups.iter().map(|(_, _, verdict)| verdict.nodes.heights).sum::<u64>(),
            "blocks_compared": self.groups.iter().map(|(_, _, verdict)| verdict.nodes.blocks).sum::<u64>(),
            "accounts": self.groups.iter().map(|(_, _, verdict)| verdict.accounts_checked).sum::<u64>(),
            "seconds": round(self.check_time.as_secs_f64()), "findings": self.findings().collect::<Vec<_>>(),
        });
        let mut all = Map::new();
        for part in [self.total.to_json(), run] {
            all.extend(part.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        }
        all.insert("checks".into(), checks);
        all.insert("per_group".into(), Value::Object(groups));
        let heads: Vec<(u16, &[(String, u64)])> = self.groups.iter().map(|(id, _, verdict)| (*id, &verdict.nodes.heads[..])).collect();
        let (first, committed) = (self.total.first_submit, self.total.counts.committed);
        all.insert("nodes".into(), self.nodes.iter().map(|node| node.to_json(first, committed, &heads)).collect());
        Value::Object(all)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("writing to a string cannot fail");
        if self.groups.len() > 1 {
            for (id, figures, _) in &self.groups {
                line(format!("group {id:<5} {}", one_line(figures)));
            }
        }
        let (total, counts) = (&self.total, &self.total.counts);
        line(format!(
            "committed   {} of {} acknowledged, {} sent, in {:.2} s",
            counts.committed,
            counts.acknowledged,
            counts.submitted,
            total.seconds()
        ));
        line(format!("rate        {:.0} tx/s committed, {:.0} tx/s steady, {} blocks", total.tps(), total.steady_tps(), total.blocks));
        line(format!("latency     {}", latencies(&total.latency)));
        line(format!("acknowledge {}", latencies(&total.acknowledgement)));
        line(format!("longest gap {:.0} ms between commits", total.gaps().first().map_or(0.0, |gap| gap.1)));
        if self.nodes.len() > 1 || self.nodes.iter().any(NodeReport::is_notable) {
            self.nodes.iter().for_each(|node| line(node.to_text(total.counts.committed)));
        }
        if counts.resent > 0 {
            line(format!("sent again  {} after a node failed", counts.resent));
        }
        if counts.failed + counts.refused + counts.unknown > 0 {
            line(format!("without success: {} failed in a block, {} refused, {} unknown", counts.failed, counts.refused, counts.unknown));
        }
        for (code, count) in &total.errors {
            line(format!("  {count} times {code}"));
        }
        let accounts: u64 = self.groups.iter().map(|(_, _, verdict)| verdict.accounts_checked).sum();
        if self.is_good() {
            line(format!("checked     every acknowledged transaction has its one receipt; {accounts} balances are right"));
            let heights: u64 = self.groups.iter().map(|(_, _, verdict)| verdict.nodes.heights).sum();
            if heights > 0 {
                line(format!("            {} nodes agree on block, state and receipts at {heights} heights", self.nodes.len()));
            }
        } else {
            line("CHECK FAILED".into());
            self.findings().for_each(|finding| line(format!("  {finding}")));
            if counts.committed == 0 {
                line("  nothing was committed".into());
            }
        }
        out
    }
}

fn one_line(figures: &Figures) -> String {
    let counts = &figures.counts;
    format!(
        "{} committed, {:.0} tx/s, p50 {:.1} ms, p99 {:.1} ms, gap {:.0} ms, {} failed, {} refused",
        counts.committed,
        figures.tps(),
        milliseconds(&figures.latency, 0.5),
        milliseconds(&figures.latency, 0.99),
        figures.gaps().first().map_or(0.0, |gap| gap.1),
        counts.failed,
        counts.refused
    )
}

fn latencies(histogram: &Histogram<u64>) -> String {
    let ms = |quantile| milliseconds(histogram, quantile);
    format!("p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms", ms(0.5), ms(0.9), ms(0.99), ms(0.999), ms(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_rate_leaves_out_start_and_end() {
        let mut record = Record::new(&[], 0);
        let start = Instant::now();
        record.first_submit = Some(start);
        record.counts.committed = 1_000;
        // Two slow seconds, then 100 transactions each tenth of a second, then a straggler.
        record.commits = (0..10).map(|block| (start + Duration::from_millis(2_000 + block * 100), 100)).collect();
        record.commits[9].0 = start + Duration::from_secs(10);
        let figures = Figures::of(&record);
        assert_eq!(figures.tps().round(), 100.0);
        assert_eq!(figures.steady_tps().round(), 1_000.0);
        let gaps = figures.gaps();
        assert_eq!((gaps.len(), gaps[0].0.round(), gaps[0].1.round(), gaps[1].1.round()), (9, 3.0, 7_200.0, 100.0));
    }

    #[test]
    fn a_run_that_committed_nothing_is_not_good() {
        let report = Report::new(&[], Vec::new(), Vec::new(), Duration::ZERO);
        assert!(!report.is_good());
        assert!(report.to_text().contains("nothing was committed"));
    }

    #[test]
    fn percentiles_and_errors_have_the_keys_that_scripts_read() {
        let mut record = Record::new(&[], 0);
        record.latency.record(1_500).unwrap();
        record.errors.insert("28 TransactionPoolIsFull".into(), 3);
        let json = Figures::of(&record).to_json();
        assert!([&json["p50_ms"], &json["p90_ms"], &json["p99_ms"], &json["p99_9_ms"]].iter().all(|value| value.as_f64() == Some(1.5)));
        assert_eq!(json["errors"]["28 TransactionPoolIsFull"], 3);
        assert!(json["tps"].is_number());
    }
}
