//! The network as nodes see it ([`Peers`]) and as the world carries it: what is sent is collected here, and the world decides what
//! becomes of it.
//!
//! Invariants: nothing of a group leaves for, or is taken from, a node that the sender or receiver does not count among its members;
//! nothing leaves a process without power. A process that lies ([`Lies`]) does so here, behind an honest node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_base::{Bytes, GroupId, NodeId};
use millrace_pipeline::peers::{PeerKind, Peers};
use parking_lot::Mutex;

use crate::lies::Lies;
use crate::power::Power;

/// A message on its way. Processes are named by their place in the world, since a faulty node may run twice.
pub struct Message {
    /// The process that sent it.
    pub from: usize,
    /// The node it is for.
    pub to: NodeId,
    /// The group.
    pub group: GroupId,
    /// What it is about.
    pub kind: PeerKind,
    /// Its content.
    pub payload: Bytes,
}

/// Who runs and who is linked.
#[derive(Default)]
struct Links {
    nodes: Vec<NodeId>,
    is_up: Vec<bool>,
    /// Pairs without a session, lower place first.
    broken: BTreeSet<(usize, usize)>,
}

/// See the module.
#[derive(Default)]
pub struct Network {
    links: Mutex<Links>,
    sent: Mutex<Vec<Message>>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// Adds a process, which is down; gives its place.
    pub fn add(&self, node: NodeId) -> usize {
        let mut links = self.links.lock();
        links.nodes.push(node);
        links.is_up.push(false);
        links.nodes.len() - 1
    }

    /// A process has started or ended.
    pub fn set_up(&self, place: usize, is_up: bool) {
        self.links.lock().is_up[place] = is_up;
    }

    /// Ends or restores the session of two processes.
    pub fn set_broken(&self, a: usize, b: usize, is_broken: bool) {
        let mut links = self.links.lock();
        if is_broken {
            links.broken.insert(pair(a, b));
        } else {
            links.broken.remove(&pair(a, b));
        }
    }

    /// Restores all sessions.
    pub fn restore(&self) {
        self.links.lock().broken.clear();
    }

    /// Whether two processes have a session.
    pub fn is_linked(&self, a: usize, b: usize) -> bool {
        let links = self.links.lock();
        a != b && links.is_up[a] && links.is_up[b] && !links.broken.contains(&pair(a, b))
    }

    /// The processes of a node.
    pub fn places(&self, node: &NodeId) -> Vec<usize> {
        let links = self.links.lock();
        (0..links.nodes.len()).filter(|place| links.nodes[*place] == *node).collect()
    }

    /// What was sent since the last look, in order.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.sent.lock())
    }

    fn linked_nodes(&self, place: usize) -> BTreeSet<NodeId> {
        let count = self.links.lock().nodes.len();
        let linked: Vec<usize> = (0..count).filter(|other| self.is_linked(place, *other)).collect();
        let links = self.links.lock();
        linked.into_iter().map(|other| links.nodes[other]).filter(|node| *node != links.nodes[place]).collect()
    }
}

/// The network as one process sees it.
pub struct Line {
    /// The process.
    pub place: usize,
    /// Where everything goes.
    pub network: Arc<Network>,
    /// Of the process.
    pub power: Arc<Power>,
    /// For a liar.
    pub lies: Option<Mutex<Lies>>,
    /// Members of each group, as the process last said.
    pub members: Mutex<BTreeMap<GroupId, Vec<NodeId>>>,
}

impl Line {
    /// Whether the node belongs to the group, as this process sees it.
    pub fn has_member(&self, group: GroupId, node: &NodeId) -> bool {
        self.members.lock().get(&group).is_some_and(|members| members.contains(node))
    }
}

impl Peers for Line {
    fn send(&self, group: GroupId, to: NodeId, kind: PeerKind, payload: Bytes) -> bool {
        if self.power.fails() || !self.has_member(group, &to) || !self.network.linked_nodes(self.place).contains(&to) {
            return false;
        }
        let payload = match &self.lies {
            Some(lies) if kind == PeerKind::Sync => lies.lock().twist(group, payload),
            _ => payload,
        };
        self.network.sent.lock().push(Message { from: self.place, to, group, kind, payload });
        true
    }

    fn multicast(&self, group: GroupId, to: &[NodeId], kind: PeerKind, payload: Bytes) {
        for to in to {
            self.send(group, *to, kind, payload.clone());
        }
    }

    fn connected(&self, group: GroupId) -> Vec<NodeId> {
        self.network.linked_nodes(self.place).into_iter().filter(|node| self.has_member(group, node)).collect()
    }

    fn set_members(&self, group: GroupId, members: &[NodeId]) {
        self.members.lock().insert(group, members.to_vec());
    }
}
