//! Requests of other nodes that wait to be answered.
//!
//! Invariant: each peer has a few requests here at most and is served in turn, at a bounded rate, so that one that catches up harms
//! neither the others nor this node's commits.

use std::collections::{BTreeMap, VecDeque};

use millrace_base::NodeId;

use super::limits::{MAX_PEERS, MAX_REQUEST_BLOCKS, MAX_WAITING_SERVES, REQUEST_BYTES, SERVE_BYTES_PER_S};

/// A request that can be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub id: u64,
    pub from: u64,
    pub count: u32,
    pub max_bytes: u32,
}

#[derive(Default)]
struct Client {
    waiting: VecDeque<Asked>,
    /// Its share is used up until then.
    next_ms: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Serving {
    clients: BTreeMap<NodeId, Client>,
    /// Being served now; one at a time.
    current: Option<NodeId>,
    /// Served last, to go on with the one behind it.
    last: Option<NodeId>,
}

impl Serving {
    pub fn ask(&mut self, node: NodeId, asked: Asked) {
        if !self.clients.contains_key(&node) && self.clients.len() >= MAX_PEERS {
            return;
        }
        let client = self.clients.entry(node).or_default();
        if client.waiting.len() >= MAX_WAITING_SERVES {
            client.waiting.pop_front();
        }
        let Asked { id, from, count, max_bytes } = asked;
        client.waiting.push_back(Asked { id, from, count: count.min(MAX_REQUEST_BLOCKS), max_bytes: max_bytes.min(REQUEST_BYTES) });
    }

    /// The next to be answered, if its peer's share allows; [`Self::done`] must follow.
    pub fn next(&mut self, now_ms: u64) -> Option<(NodeId, Asked)> {
        if self.current.is_some() {
            return None;
        }
        let is_due = |client: &Client| !client.waiting.is_empty() && client.next_ms <= now_ms;
        let behind = self.clients.iter().filter(|(node, _)| self.last.is_none_or(|last| **node > last));
        let node = behind.chain(&self.clients).find(|(_, client)| is_due(client)).map(|(node, _)| *node)?;
        let asked = self.clients.get_mut(&node)?.waiting.pop_front()?;
        self.current = Some(node);
        self.last = Some(node);
        Some((node, asked))
    }

    /// The current answer has left with so many bytes.
    pub fn done(&mut self, bytes: u64, now_ms: u64) {
        let Some(client) = self.current.take().and_then(|node| self.clients.get_mut(&node)) else { return };
        client.next_ms = now_ms.saturating_add(bytes.saturating_mul(1_000) / SERVE_BYTES_PER_S);
    }

    pub fn forget(&mut self, node: &NodeId) {
        self.clients.remove(node);
    }

    pub fn is_idle(&self) -> bool {
        self.clients.values().all(|client| client.waiting.is_empty())
    }
}
