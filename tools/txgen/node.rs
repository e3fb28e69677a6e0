//! The nodes of a run: whether each answers, and what was sent to it.
//!
//! A node that fails a request is down until it answers the watch again. Its failures are counted, so that each group can send what the
//! node had taken and not committed to another one, once a failure. Shared by connections, followers, the watch and the report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, ClientError};
use crate::options::Options;

/// Time between two looks at a node that is down, and at one that answers.
const WATCH: Duration = Duration::from_millis(200);

/// Looks after which a node that answers is asked too: a silent one that nobody happens to ask is found.
const LOOKS: u32 = 5;

/// Outages of one node that are told as they happen; all are counted.
const NAMED: u64 = 20;

/// Outages remembered of one node.
const MAX_OUTAGES: usize = 1_000;

/// A time without answers.
#[derive(Clone, Debug)]
pub struct Outage {
    /// First failed request.
    pub start: Instant,
    /// First answer after it.
    pub end: Option<Instant>,
    /// What failed.
    pub why: String,
}

/// What happened between the run and one node, in the measured phase but for outages.
#[derive(Clone, Default, Debug)]
pub struct NodeRecord {
    /// Transactions sent to it, those sent again included.
    pub submitted: u64,
    /// Answered with their hash.
    pub acknowledged: u64,
    /// Sent to it because another node, or itself, failed with them.
    pub resent: u64,
    /// Refusals and failures by code.
    pub errors: BTreeMap<String, u64>,
    /// In order.
    pub outages: Vec<Outage>,
}

/// See the module.
pub struct Node {
    /// JSON-RPC endpoint.
    pub url: String,
    /// Channel endpoint, if the run uses it.
    pub channel: Option<String>,
    /// Process on this machine, if it is to be measured.
    pub process: Option<u32>,
    is_down: AtomicBool,
    failures: AtomicU64,
    record: Mutex<NodeRecord>,
}

impl Node {
    /// All nodes that the options name; nothing is connected.
    pub fn all(options: &Options) -> Vec<Arc<Self>> {
        let node = |(index, url): (usize, &String)| {
            Arc::new(Self {
                url: url.clone(),
                channel: options.channel.get(index).cloned(),
                process: options.node_pid.get(index).copied(),
                is_down: AtomicBool::new(false),
                failures: AtomicU64::new(0),
                record: Mutex::default(),
            })
        };
        options.rpc.iter().enumerate().map(node).collect()
    }

    fn lock(&self) -> MutexGuard<'_, NodeRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it failed and has not answered since.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// How often it went down.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// A request failed at it; named once an outage.
    pub fn failed(&self, why: &str) {
        if self.is_down.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.failures.fetch_add(1, Ordering::AcqRel) < NAMED {
            eprintln!("txgen: {} stopped answering: {why}", self.url);
        }
        let mut record = self.lock();
        if record.outages.len() < MAX_OUTAGES {
            record.outages.push(Outage { start: Instant::now(), end: None, why: why.to_owned() });
        }
    }

    /// It answered the watch.
    fn answered(&self) {
        if !self.is_down.swap(false, Ordering::AcqRel) {
            return;
        }
        if self.failures() <= NAMED {
            eprintln!("txgen: {} answers again", self.url);
        }
        if let Some(outage) = self.lock().outages.last_mut() {
            outage.end.get_or_insert_with(Instant::now);
        }
    }

    /// Adds to its counts.
    pub fn note(&self, add: impl FnOnce(&mut NodeRecord)) {
        add(&mut self.lock());
    }

    /// Reads its counts.
    pub fn record(&self) -> NodeRecord {
        self.lock().clone()
    }
}

/// Asks nodes until `stop` is set: those that are down often, the others now and then.
pub fn watch(nodes: &[Arc<Node>], patience: Duration, stop: &AtomicBool) {
    let clients: Vec<Client> = nodes.iter().map(|node| Client::new(&node.url, patience)).collect();
    std::thread::scope(|scope| {
        for (node, client) in nodes.iter().zip(&clients) {
            scope.spawn(move || {
                let mut look = 0_u32;
                while !stop.load(Ordering::Acquire) {
                    look = look.wrapping_add(1);
                    if node.is_down() || look.is_multiple_of(LOOKS) {
                        match client.call::<Value>("getClientVersion", &json!([])) {
                            Err(error @ (ClientError::Unreachable(_) | ClientError::Transport(_))) => node.failed(&error.to_string()),
                            _ => node.answered(),
                        }
                    }
                    std::thread::sleep(WATCH);
                }
            });
        }
    });
}

/// The node to use in place of `home`: itself while it answers, else the next that does; itself if none does.
pub fn instead_of(nodes: &[Arc<Node>], home: usize) -> usize {
    (0..nodes.len()).map(|step| (home + step) % nodes.len()).find(|index| !nodes[*index].is_down()).unwrap_or(home)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_next_node_that_answers_takes_the_place_of_one_that_is_down() {
        let nodes = Node::all(&Options::parse_from(["txgen", "--rpc", "http://a:1,http://b:1,http://c:1"]));
        assert_eq!(instead_of(&nodes, 2), 2);
        nodes[2].failed("test");
        nodes[2].failed("test");
        assert_eq!((instead_of(&nodes, 2), nodes[2].failures()), (0, 1));
        nodes[0].failed("test");
        nodes[1].failed("test");
        assert_eq!(instead_of(&nodes, 2), 2);
        nodes[2].answered();
        assert_eq!((instead_of(&nodes, 0), nodes[2].record().outages.len()), (2, 1));
        assert!(nodes[2].record().outages[0].end.is_some());
    }
}
