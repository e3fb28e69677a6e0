//! Heartbeats, and what they make the others repeat.
//!
//! Messages may be lost. Each sealer says about once a second how far it is, and whoever is further sends it what it lacks: the start
//! of the view, proposals, votes, certificates, signatures of final blocks. Bounded by the window; a node further behind needs sync.

use millrace_base::{Bytes, NodeId};

use super::PbftEngine;
use super::message::{Content, Hash, Message, Status, VoteKind, progress};
use super::slot::{Ordered, Slot};
use crate::engine::Effect;

/// Time between two heartbeats.
pub const HEARTBEAT_MS: u64 = 1_000;

/// What was said less than this ago may still be on its way and is not repeated.
const ON_ITS_WAY_MS: u64 = 400;

/// Proposals sent again for one heartbeat: they may be large.
const PROPOSALS: usize = 4;

/// Nodes that are kept track of: more than a group has sealers, and some may still be in an earlier epoch.
const PEERS: usize = 128;

/// Messages of one node that are answered between two heartbeats: small questions have large answers.
const ANSWERS: u32 = 4 * super::MAX_WINDOW as u32;

/// Heartbeats of one node that are answered between two of this node's own.
const HELPS: u32 = 3;

/// What is known of another node.
#[derive(Clone, Copy, Default)]
pub struct Peer {
    pub committed: u64,
    pub view: u64,
    pub heard_ms: u64,
    /// Answers it may still get before the next heartbeat: to heartbeats, and to questions for content.
    helps: u32,
    answers: u32,
}

impl PbftEngine {
    pub(super) fn heartbeat_due_ms(&self) -> Option<u64> {
        self.has_heartbeat().then_some(self.next_heartbeat_ms)
    }

    /// Whether others wait for word of this node: it seals with others and is not about to stop.
    pub(super) fn has_heartbeat(&self) -> bool {
        self.own.is_some() && self.epoch.sealers.len() > 1 && !self.reach.is_leaving
    }

    pub(super) fn on_heartbeat(&mut self) {
        self.next_heartbeat_ms = self.timer.now_ms().saturating_add(HEARTBEAT_MS);
        self.broadcast(Message::Status(self.own_status()).encode());
        for peer in self.peers.values_mut() {
            (peer.helps, peer.answers) = (HELPS, ANSWERS);
        }
        self.repeat_gone();
        self.repeat_change();
        self.repeat_wishes();
    }

    pub(super) fn own_status(&self) -> Status {
        let above = self.final_height.saturating_add(1);
        let last = self.slots.last_key_value().map_or(0, |(height, _)| *height);
        let have = (above..=last).map(|height| self.slots.get(&height).map_or(progress::NOTHING, Slot::progress)).collect();
        // A view whose start was lost in a crash is not claimed, so that somebody sends it again.
        Status {
            epoch: self.epoch_hash,
            view: self.view,
            to_view: self.to_view(),
            final_height: self.final_height,
            committed: self.committed_height,
            have,
        }
    }

    /// Asks again for what did not come, with everybody who may have it by now.
    fn repeat_wishes(&mut self) {
        let lacks = |slot: &&Slot| slot.is_gathering && !slot.is_reserved;
        let heights: Vec<u64> = self
            .slots
            .range(self.committed_height.saturating_add(1)..)
            .filter(|(_, slot)| lacks(slot))
            .map(|(height, _)| *height)
            .collect();
        heights.into_iter().for_each(|height| self.ask(height));
    }

    pub(super) fn on_status(&mut self, from: NodeId, status: &Status) {
        if status.have.len() as u64 > 4 * super::MAX_WINDOW {
            return self.refuse(from, "a heartbeat that claims more heights in flight than a window has".into());
        }
        let now_ms = self.timer.outer_ms();
        self.reach.heard(&from);
        let Some(peer) = self.peer(from) else { return };
        (peer.committed, peer.view, peer.heard_ms) = (status.committed, status.view, now_ms);
        if peer.helps == 0 {
            return;
        }
        peer.helps -= 1;
        let is_behind = status.epoch == self.epoch_hash && status.view < self.view;
        if let Some(new_view) = self.views.new_view.as_ref().filter(|_| is_behind) {
            let payload = Message::NewView(new_view.clone()).encode();
            self.effects.push(Effect::Send { to: from, payload });
        }
        self.help(from, status);
    }

    /// Sealers that say they have blocks this node has not.
    pub(super) fn peers_ahead(&self) -> usize {
        let is_ahead = |(node, peer): &(&NodeId, &Peer)| peer.committed > self.final_height && self.epoch.index_of(node).is_some();
        self.peers.iter().filter(is_ahead).count()
    }

    /// What is known of a node, if there is room to know something.
    fn peer(&mut self, node: NodeId) -> Option<&mut Peer> {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&node) {
            return None;
        }
        Some(self.peers.entry(node).or_insert(Peer { helps: HELPS, answers: ANSWERS, ..Peer::default() }))
    }

    /// Sends a sealer what it lacks above its last final block.
    fn help(&mut self, to: NodeId, status: &Status) {
        let first = status.final_height.saturating_add(1);
        let now_ms = self.timer.now_ms();
        let own = self.own.unwrap_or(u32::MAX);
        let mut proposals = 0;
        let mut frames: Vec<Bytes> = Vec::new();
        for (height, slot) in self.slots.range_mut(first..) {
            if slot.touched_ms.is_some_and(|touched_ms| now_ms.saturating_sub(touched_ms) < ON_ITS_WAY_MS) {
                continue;
            }
            let offset = usize::try_from(height - first).unwrap_or(usize::MAX);
            let has = status.have.get(offset).copied().unwrap_or(progress::NOTHING);
            if has < progress::PROPOSED && proposals < PROPOSALS {
                proposals += usize::from(slot.frame.is_some());
                frames.extend(slot.frame.clone());
            }
            frames.extend(slot.votes_for(has, own).map(|message| message.encode()));
            frames.extend(slot.signatures_for(own).map(|message| message.encode()));
        }
        self.effects.extend(frames.into_iter().map(|payload| Effect::Send { to, payload }));
    }

    /// Somebody knows a proposal by its digest only.
    pub(super) fn on_fetch(&mut self, from: NodeId, height: u64, digest: Hash) {
        let Some(peer) = self.peer(from).filter(|peer| peer.answers > 0) else { return };
        peer.answers -= 1;
        let content = self.slots.get(&height).and_then(|slot| slot.content(digest.into()));
        if let Some(header) = content {
            let payload = Message::Content(Content::from(header)).encode();
            self.effects.push(Effect::Send { to: from, payload });
        }
    }
}

impl Slot {
    /// How far it has got, for the heartbeat.
    fn progress(&self) -> u8 {
        match self {
            Slot { ordered: Some(_), .. } => progress::ORDERED,
            Slot { frame: Some(_), .. } | Slot { header: Some(_), .. } => progress::PROPOSED,
            _ => progress::NOTHING,
        }
    }

    /// Votes for somebody who has got as far as `has`.
    fn votes_for(&self, has: u8, own: u32) -> impl Iterator<Item = Message> {
        let proof = match &self.ordered {
            Some(Ordered::Voted(proof)) => Some(Message::Votes(proof.clone())),
            _ => None,
        };
        let own_votes = [VoteKind::Prepare, VoteKind::Commit].into_iter().filter_map(move |kind| self.votes.get(kind, own).copied());
        let is_wanted = has < progress::ORDERED;
        proof.into_iter().chain(own_votes.map(Message::Vote)).filter(move |_| is_wanted)
    }

    /// Checkpoints: all of them once the block is final, else this node's own.
    fn signatures_for(&self, own: u32) -> Option<Message> {
        match &self.finality {
            Some((_, votes)) => Some(Message::Votes(votes.clone())),
            None => self.votes.get(VoteKind::Checkpoint, own).copied().map(Message::Vote),
        }
    }
}
