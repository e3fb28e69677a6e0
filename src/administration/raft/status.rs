//! What the engine says about itself: `node status --why` prints it.

use millrace_base::NodeId;

use super::{RaftEngine, short};
use crate::engine::{EngineStatus, SealerStatus};
use crate::pbft::message::VoteKind;

impl RaftEngine {
    pub(super) fn describe(&self) -> EngineStatus {
        let node = self.node.as_ref();
        let term = node.map_or(0, super::Node::term);
        let leader = node.and_then(super::Node::leader).and_then(|leader| self.epoch.sealers.get(leader)).copied();
        let own = self.key.node_id();
        let other = |node: &NodeId| {
            let peer = self.peers.get(node).copied().unwrap_or_default();
            SealerStatus { node: *node, height: peer.committed, view: peer.term, heard_ms: peer.heard_ms }
        };
        EngineStatus {
            view: term,
            to_view: term + u64::from(node.is_some_and(super::Node::is_campaigning)),
            next_height: node.map_or(self.final_height, |node| node.log().end().height).max(self.final_height) + 1,
            final_height: self.final_height,
            sealers: self.epoch.sealers.clone(),
            leader,
            others: self.epoch.sealers.iter().filter(|node| **node != own).map(other).collect(),
            waits_for: self.waits_for(leader),
            last_refusal: self.last_refusal.clone(),
        }
    }

    fn waits_for(&self, leader: Option<NodeId>) -> String {
        if let Some(lost) = &self.lost {
            return format!("an operator: this sealer takes no part, {lost}");
        }
        let height = self.final_height.saturating_add(1);
        let Some(node) = &self.node else { return String::new() };
        let in_log = node.log().at_height(height).is_some();
        match self.slots.get(&height) {
            Some(slot) if slot.executed.is_some() => {
                let subject = slot.executed.as_ref().map(|(hash, _)| *hash).unwrap_or_default();
                let voters = slot.votes.supporters(VoteKind::Checkpoint, &subject);
                let missing = (0u32..).zip(&self.epoch.sealers).filter(|(index, _)| !voters.contains(index));
                let missing: Vec<String> = missing.map(|(_, node)| short(node)).collect();
                let quorum = self.epoch.quorum();
                format!("height {height}: {} of {quorum} checkpoints; missing {}", voters.len(), missing.join(", "))
            }
            Some(slot) if slot.is_handed_out => format!("height {height}: being executed"),
            Some(slot) if slot.ordered.is_some() => format!("height {height}: its turn to be executed"),
            _ if leader.is_none() && (self.is_pending || in_log) => format!("height {height}: a leader, term {}", node.term()),
            _ if in_log => format!("height {height}: a majority that has the proposal of the leader"),
            _ if self.is_pending => {
                let leader = leader.as_ref().map(short).unwrap_or_default();
                format!("height {height}: a proposal by {leader}, the leader of term {}", node.term())
            }
            _ => String::new(),
        }
    }
}
