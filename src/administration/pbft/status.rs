//! What the engine says about itself: `node status --why` prints it.

use millrace_base::NodeId;

use super::PbftEngine;
use super::message::VoteKind;
use super::slot::{Slot, Standing};
use crate::engine::{EngineStatus, SealerStatus};

impl PbftEngine {
    pub(super) fn describe(&self) -> EngineStatus {
        let next_height = self.next_height();
        let leader = self.epoch.sealers.get(self.leader(self.view, next_height) as usize).copied();
        let own = self.key.node_id();
        let other = |node: &NodeId| {
            let peer = self.peers.get(node).copied().unwrap_or_default();
            SealerStatus { node: *node, height: peer.committed, view: peer.view, heard_ms: peer.heard_ms }
        };
        EngineStatus {
            view: self.view,
            to_view: self.to_view(),
            next_height,
            final_height: self.final_height,
            sealers: self.epoch.sealers.clone(),
            leader: leader.filter(|_| self.changing.is_none()),
            others: self.epoch.sealers.iter().filter(|node| **node != own).map(other).collect(),
            waits_for: self.waits_for(),
            last_refusal: self.last_refusal.clone(),
        }
    }

    fn waits_for(&self) -> String {
        if let Some(changing) = &self.changing {
            let wanting = self.views.changes.values().filter(|change| change.to_view >= changing.to).map(|change| change.sealer).collect();
            return format!("view {}: {}", changing.to, self.tally("view changes", wanting));
        }
        let height = self.final_height.saturating_add(1);
        let Some(slot) = self.slots.get(&height) else { return self.waits_for_proposal(height) };
        if slot.executed.is_some() {
            let subject = slot.executed.as_ref().map(|(hash, _)| *hash).unwrap_or_default();
            return format!("height {height}: {}", self.tally("checkpoints", slot.votes.supporters(VoteKind::Checkpoint, &subject)));
        }
        match (&slot.ordered, slot.digest) {
            (Some(_), _) if slot.is_handed_out => format!("height {height}: being executed"),
            (Some(_), _) => format!("height {height}: ordered, lacks its transactions"),
            (None, Some(_)) => self.waits_for_votes(height, slot),
            (None, None) => self.waits_for_proposal(height),
        }
    }

    fn waits_for_proposal(&self, height: u64) -> String {
        if !self.is_pending || self.own.is_none() {
            return String::new();
        }
        let leader = self.leader(self.view, height) as usize;
        let leader = self.epoch.sealers.get(leader).map(short).unwrap_or_default();
        format!("height {height}: a proposal by {leader} in view {}", self.view)
    }

    fn waits_for_votes(&self, height: u64, slot: &Slot) -> String {
        match slot.standing {
            Standing::Unlinked => return format!("height {height}: the proposal below"),
            Standing::Refused => return format!("height {height}: a view change, the proposal was refused"),
            Standing::Linked => {}
        }
        if slot.transactions.is_none() {
            return format!("height {height}: transactions of the proposal");
        }
        let digest = slot.digest.unwrap_or_default();
        let has_committed = self.own.is_some_and(|own| slot.votes.has(VoteKind::Commit, own));
        let (kind, name) = if has_committed { (VoteKind::Commit, "commits") } else { (VoteKind::Prepare, "prepares") };
        format!("height {height}: {} in view {}", self.tally(name, slot.votes.supporters(kind, &digest)), self.view)
    }

    fn tally(&self, what: &str, voters: Vec<u32>) -> String {
        let missing = (0u32..).zip(&self.epoch.sealers).filter(|(index, _)| !voters.contains(index));
        let missing: Vec<String> = missing.map(|(_, node)| short(node)).collect();
        format!("{} of {} {what}; missing {}", voters.len(), self.quorum(), missing.join(", "))
    }
}

fn short(node: &NodeId) -> String {
    millrace_base::hex::encode(&node.0[..4])
}
