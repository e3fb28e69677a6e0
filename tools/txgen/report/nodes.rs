//! What a run found about each node: what it was sent, how long it did not answer, and what its process cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::round;
use crate::node::{Node, NodeRecord};

/// One node's part of the report.
pub struct NodeReport {
    url: String,
    record: NodeRecord,
    /// Of its process in the measured phase.
    cpu: Option<Duration>,
}

impl NodeReport {
    /// Of all nodes, with the CPU time of each.
    pub fn all(nodes: &[Arc<Node>], cpu: Vec<Option<Duration>>) -> Vec<Self> {
        let report = |(node, cpu): (&Arc<Node>, Option<Duration>)| Self { url: node.url.clone(), record: node.record(), cpu };
        nodes.iter().zip(cpu).map(report).collect()
    }

    /// Whether there is more to say than a run's totals do.
    pub fn is_notable(&self) -> bool {
        self.cpu.is_some() || !self.record.outages.is_empty()
    }

    fn cpu_us_per_tx(&self, committed: u64) -> Option<f64> {
        self.cpu.filter(|_| committed > 0).map(|cpu| round(cpu.as_secs_f64() * 1e6 / committed as f64))
    }

    /// For scripts. `start` is the run's; `heads` are the last heights of nodes, a group.
    pub fn to_json(&self, start: Option<Instant>, committed: u64, heads: &[(u16, &[(String, u64)])]) -> Value {
        let head = |(group, nodes): &(u16, &[(String, u64)])| {
            let (_, height) = nodes.iter().find(|(url, _)| *url == self.url)?;
            Some((group.to_string(), json!(height)))
        };
        let outage = |outage: &crate::node::Outage| {
            let at = start.map(|start| round(outage.start.saturating_duration_since(start).as_secs_f64()));
            let seconds = outage.end.map(|end| round((end - outage.start).as_secs_f64()));
            json!({ "at_s": at, "seconds": seconds, "why": outage.why })
        };
        let record = &self.record;
        json!({
            "url": self.url, "submitted": record.submitted, "acknowledged": record.acknowledged, "resent": record.resent,
            "errors": record.errors, "outages": record.outages.iter().map(outage).collect::<Vec<_>>(),
            "heights": heads.iter().filter_map(head).collect::<serde_json::Map<_, _>>(),
            "cpu_s": self.cpu.map(|cpu| cpu.as_secs_f64()), "cpu_us_per_tx": self.cpu_us_per_tx(committed),
        })
    }

    /// For people.
    pub fn to_text(&self, committed: u64) -> String {
        let record = &self.record;
        let mut text = format!("node {}  {} submitted, {} acknowledged", self.url, record.submitted, record.acknowledged);
        record.errors.iter().for_each(|(code, count)| text += &format!(", {count} times {code}"));
        if let Some(us) = self.cpu_us_per_tx(committed) {
            text += &format!(", {us:.1} µs CPU a transaction");
        }
        for outage in &record.outages {
            let length = outage.end.map_or("until the end".into(), |end| format!("for {:.1} s", (end - outage.start).as_secs_f64()));
            text += &format!("\n     no answer {length}: {}", outage.why);
        }
        text
    }
}
