//! Heartbeats of the engine, and what they make the others repeat.
//!
//! The leader repeats what concerns the log. What the log does not know of are checkpoints, and members that have left the log behind with
//! its epoch: each sealer says about once a second how far it is, and whoever is further sends it what it lacks. Bounded by the window;
//! a node further behind needs sync.

use millrace_base::NodeId;

use super::RaftEngine;
use super::finality::signatures_of;
use super::message::{Message, Status};
use crate::engine::Effect;
use crate::pbft::message::{Stable, VoteKind};

/// Time between two heartbeats.
const HEARTBEAT_MS: u64 = 1_000;

/// What was said less than this ago may still be on its way and is not repeated.
const ON_ITS_WAY_MS: u64 = 400;

/// Nodes that are kept track of: more than a group has sealers, and some may still be in an earlier epoch.
const PEERS: usize = 128;

/// Heartbeats of one node that are answered between two of this node's own.
const HELPS: u32 = 3;

/// What is known of another node.
#[derive(Clone, Copy, Default)]
pub struct Peer {
    pub committed: u64,
    pub term: u64,
    pub heard_ms: u64,
    helps: u32,
}

impl RaftEngine {
    pub(super) fn on_heartbeat(&mut self) {
        self.next_heartbeat_ms = self.ticks.now_ms().saturating_add(HEARTBEAT_MS);
        let term = self.node.as_ref().map_or(0, super::Node::term);
        let status = Status { epoch: self.epoch_hash, term, final_height: self.final_height, committed: self.committed_height };
        self.broadcast(&Message::Status(status));
        for peer in self.peers.values_mut() {
            peer.helps = HELPS;
        }
        if let Some(node) = &mut self.node {
            node.repeat_places();
        }
    }

    pub(super) fn on_status(&mut self, from: NodeId, status: &Status) {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&from) {
            return;
        }
        let heard_ms = self.ticks.outer_ms();
        let peer = self.peers.entry(from).or_insert(Peer { helps: HELPS, ..Peer::default() });
        (peer.committed, peer.term, peer.heard_ms) = (status.committed, status.term, heard_ms);
        if peer.helps > 0 {
            peer.helps -= 1;
            self.help(from, status.final_height);
        }
    }

    /// Sends a sealer the signatures that it lacks above its last final block.
    fn help(&mut self, to: NodeId, final_height: u64) {
        let (now_ms, own) = (self.ticks.now_ms(), self.own.unwrap_or(u32::MAX));
        let mut messages = Vec::new();
        for slot in self.slots.range(final_height.saturating_add(1)..).map(|(_, slot)| slot) {
            if now_ms.saturating_sub(slot.touched_ms) < ON_ITS_WAY_MS {
                continue;
            }
            let own_vote = slot.votes.get(VoteKind::Checkpoint, own).copied().map(Message::Checkpoint);
            let stable =
                slot.executed.as_ref().zip(slot.finality.as_ref()).map(|((_, header), (_, votes))| {
                    Message::Final(Stable { header: header.encode_rlp(), signatures: signatures_of(votes) })
                });
            messages.extend(stable.or(own_vote));
        }
        self.effects.extend(messages.into_iter().map(|message| Effect::Send { to, payload: message.encode() }));
    }
}
