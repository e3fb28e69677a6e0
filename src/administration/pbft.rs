//! PBFT over a window of heights: prepare and commit order a proposal, a checkpoint makes the executed block final.
//!
//! ```text
//! height:  asked ──Sealed──> prepared by us ──quorum of prepares──> committed by us ──quorum of commits──> ordered
//!          ordered ──Execute/Executed──> checkpoint signed ──quorum of equal checkpoints──> final ──Committed──> forgotten
//! ```
//! Several heights are between "asked" and "final" at once (the window), so ordering a height overlaps execution and commit of those
//! below it. Ordered heights are executed, and become final, strictly in height order.
//!
//! Invariants: a vote is recorded before it is broadcast, and never twice for one (kind, height, view); votes are counted once a
//! sealer; a view in which this node may have voted before a restart is never used again (`restored_view`).
//!
//! One sealer is a real quorum of one and goes through every step above.

use std::collections::BTreeMap;

use millrace_base::{B256, BlockSignature, Bytes, KeyPair, Signature, VerifiedTx, wire};

use crate::digest::{DigestWriter, Domain};
use crate::engine::{Effect, Engine, EngineStatus, Input, Proposal, ProposalHeader};
use crate::epoch::Epoch;

/// Heights that may be in flight above the last durable one. Enough for ordering, execution and commit to overlap with a spare each;
/// more would only lengthen the queue that an epoch change throws away.
pub const WINDOW: u64 = 8;

/// What an engine starts from.
pub struct PbftConfig {
    /// Covered by every digest.
    pub domain: Domain,
    /// This node's key; its public key is its identity among the sealers.
    pub key: KeyPair,
    /// The epoch that governs the next height.
    pub epoch: Epoch,
    /// Last durable height.
    pub head_height: u64,
    /// Its block hash.
    pub head_hash: B256,
    /// Its timestamp, milliseconds.
    pub head_timestamp_ms: u64,
    /// What this node recorded above the head before a restart, oldest first.
    pub records: Vec<Bytes>,
}

/// What a vote says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, bincode::Encode, bincode::Decode)]
enum VoteKind {
    /// "I have accepted this proposal in this view."
    Prepare,
    /// "I have seen a quorum of prepares."
    Commit,
    /// "Executing it gave this block hash." Signed over the block hash itself: these signatures end in the block.
    Checkpoint,
}

/// A sealer's signed vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Message {
    kind: VoteKind,
    height: u64,
    view: u64,
    /// Proposal digest, or block hash for [`VoteKind::Checkpoint`].
    subject: B256,
    sealer: u32,
    signature: Signature,
}

/// A vote as the vote log remembers it.
#[derive(bincode::Encode, bincode::Decode)]
struct VoteRecord {
    kind: VoteKind,
    height: u64,
    view: u64,
    subject: [u8; 32],
}

#[derive(Default)]
struct Slot {
    proposal: Option<Proposal>,
    /// View in which the proposal was accepted.
    view: u64,
    digest: B256,
    /// Votes by kind and sealer; the first one of a sealer counts.
    votes: BTreeMap<(VoteKind, u32), Message>,
    /// What this node itself voted.
    own: BTreeMap<VoteKind, Message>,
    ordered: bool,
    executed: Option<B256>,
    next_epoch: Option<Epoch>,
}

/// The state machine of one group.
pub struct PbftEngine {
    config: PbftConfig,
    view: u64,
    slots: BTreeMap<u64, Slot>,
    /// Next height without a proposal.
    next_height: u64,
    /// Whether the sealer was asked for `next_height`.
    asked: bool,
    /// Digest the next proposal builds on, and the timestamp it must exceed.
    previous: (B256, u64),
    next_to_execute: u64,
    final_height: u64,
    committed_height: u64,
    /// Height whose execution ends the epoch; nothing above it is proposed.
    epoch_ends_at: Option<u64>,
}

impl PbftEngine {
    /// A machine that continues behind the durable head.
    pub fn new(config: PbftConfig) -> Self {
        let head = config.head_height;
        let views = config.records.iter().filter_map(|body| wire::decode::<VoteRecord>(body).ok()).map(|record| record.view);
        Self {
            view: views.max().map_or(0, |view| view + 1),
            slots: BTreeMap::new(),
            next_height: head + 1,
            asked: false,
            previous: (config.head_hash, config.head_timestamp_ms),
            next_to_execute: head + 1,
            final_height: head,
            committed_height: head,
            epoch_ends_at: None,
            config,
        }
    }

    fn own_index(&self) -> Option<u32> {
        self.config.epoch.index_of(&self.config.key.node_id())
    }

    fn proposal_digest(&self, header: &ProposalHeader) -> B256 {
        DigestWriter::new(&self.config.domain, "proposal")
            .number(header.height)
            .hash(header.epoch)
            .hash(header.previous)
            .number(header.timestamp_ms)
            .number(u64::from(header.sealer))
            .hashes(&header.transactions)
            .finish()
    }

    /// The digest a vote signs. Checkpoints sign the block hash itself: clients verify them (`spec/client-protocol.md` 2.2).
    fn vote_digest(&self, kind: VoteKind, height: u64, view: u64, subject: B256) -> B256 {
        let name = match kind {
            VoteKind::Prepare => "prepare",
            VoteKind::Commit => "commit",
            VoteKind::Checkpoint => return subject,
        };
        DigestWriter::new(&self.config.domain, name).number(height).number(view).hash(self.config.epoch.digest()).hash(subject).finish()
    }

    fn ask_for_proposal(&mut self, effects: &mut Vec<Effect>) {
        let in_window = self.next_height <= self.committed_height.saturating_add(WINDOW);
        if self.asked || !in_window || self.epoch_ends_at.is_some() {
            return;
        }
        if self.own_index() != Some(self.config.epoch.leader(self.view, self.next_height)) {
            return;
        }
        self.asked = true;
        effects.push(Effect::Seal {
            height: self.next_height,
            view: self.view,
            after_timestamp_ms: self.previous.1,
            limit: self.config.epoch.tx_count_limit,
        });
    }

    fn on_sealed(&mut self, seal: (u64, u64), timestamp_ms: u64, transactions: Vec<VerifiedTx>, effects: &mut Vec<Effect>) {
        let (height, view) = seal;
        let Some(index) = self.own_index() else { return };
        if !self.asked || height != self.next_height || view != self.view {
            return;
        }
        let header = ProposalHeader {
            height,
            epoch: self.config.epoch.digest(),
            previous: self.previous.0,
            timestamp_ms: timestamp_ms.max(self.previous.1 + 1),
            sealer: index,
            transactions: transactions.iter().map(VerifiedTx::hash).collect(),
        };
        let digest = self.proposal_digest(&header);
        self.previous = (digest, header.timestamp_ms);
        self.next_height += 1;
        self.asked = false;
        let slot = self.slots.entry(height).or_default();
        (slot.digest, slot.view) = (digest, view);
        slot.proposal = Some(Proposal { header, transactions });
        self.vote(VoteKind::Prepare, height, view, digest, effects);
    }

    fn vote(&mut self, kind: VoteKind, height: u64, view: u64, subject: B256, effects: &mut Vec<Effect>) {
        let Some(sealer) = self.own_index() else { return };
        let signature = self.config.key.sign(self.vote_digest(kind, height, view, subject));
        let message = Message { kind, height, view, subject, sealer, signature };
        let slot = self.slots.entry(height).or_default();
        if slot.own.contains_key(&kind) {
            return;
        }
        slot.own.insert(kind, message);
        let record = VoteRecord { kind, height, view, subject: subject.0 };
        effects.push(Effect::Record { height, body: wire::encode(&record).into() });
        self.on_vote(message, effects);
    }

    fn on_vote(&mut self, message: Message, effects: &mut Vec<Effect>) {
        let in_window = message.height > self.final_height && message.height <= self.committed_height.saturating_add(WINDOW);
        if !in_window || !self.is_authentic(&message) {
            return;
        }
        let slot = self.slots.entry(message.height).or_default();
        slot.votes.entry((message.kind, message.sealer)).or_insert(message);
        self.advance(message.height, effects);
    }

    fn is_authentic(&self, message: &Message) -> bool {
        let own = self.slots.get(&message.height).and_then(|slot| slot.own.get(&message.kind));
        if own == Some(message) {
            return true;
        }
        let Some(sealer) = self.config.epoch.sealers.get(message.sealer as usize) else { return false };
        sealer.verify(self.vote_digest(message.kind, message.height, message.view, message.subject), &message.signature)
    }

    /// Signatures of distinct sealers for one kind and subject.
    fn supporters(slot: &Slot, kind: VoteKind, subject: B256) -> impl Iterator<Item = &Message> {
        slot.votes.range((kind, 0)..=(kind, u32::MAX)).map(|(_, vote)| vote).filter(move |vote| vote.subject == subject)
    }

    fn has_quorum(&self, height: u64, kind: VoteKind, subject: B256) -> bool {
        self.slots.get(&height).is_some_and(|slot| Self::supporters(slot, kind, subject).count() >= self.config.epoch.quorum())
    }

    /// Takes every step that the votes for a height allow.
    fn advance(&mut self, height: u64, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.get(&height) else { return };
        let digest = slot.digest;
        let view = slot.view;
        if slot.proposal.is_some() {
            if self.has_quorum(height, VoteKind::Prepare, digest) {
                self.vote(VoteKind::Commit, height, view, digest, effects);
            }
            if self.has_quorum(height, VoteKind::Commit, digest) {
                self.slots.entry(height).or_default().ordered = true;
            }
        }
        self.execute_ordered(effects);
        self.finalize_executed(effects);
        self.ask_for_proposal(effects);
    }

    fn execute_ordered(&mut self, effects: &mut Vec<Effect>) {
        while let Some(slot) = self.slots.get(&self.next_to_execute) {
            let Some(proposal) = slot.proposal.as_ref().filter(|_| slot.ordered) else { break };
            effects.push(Effect::Execute(Box::new(proposal.clone())));
            self.next_to_execute += 1;
        }
    }

    fn on_executed(&mut self, height: u64, hash: B256, next_epoch: Option<Epoch>, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.get_mut(&height) else { return };
        if slot.executed.is_some() {
            return;
        }
        let view = slot.view;
        slot.executed = Some(hash);
        if next_epoch.is_some() {
            self.epoch_ends_at = Some(height);
        }
        slot.next_epoch = next_epoch;
        self.vote(VoteKind::Checkpoint, height, view, hash, effects);
        self.advance(height, effects);
    }

    fn finalize_executed(&mut self, effects: &mut Vec<Effect>) {
        loop {
            let height = self.final_height + 1;
            let Some(slot) = self.slots.get(&height) else { return };
            let Some(own) = slot.executed else { return };
            if let Some(other) = self.diverging_checkpoint(slot, own) {
                effects.push(Effect::Diverged { height, own, quorum: other });
                return;
            }
            if !self.has_quorum(height, VoteKind::Checkpoint, own) {
                return;
            }
            let signatures = Self::supporters(slot, VoteKind::Checkpoint, own)
                .map(|vote| BlockSignature { index: vote.sealer, signature: vote.signature })
                .collect();
            effects.push(Effect::Finalize { height, hash: own, signatures });
            self.final_height = height;
            let next_epoch = self.slots.get_mut(&height).and_then(|slot| slot.next_epoch.take());
            if let Some(epoch) = next_epoch {
                let timestamp_ms =
                    self.slots.get(&height).and_then(|slot| slot.proposal.as_ref()).map_or(0, |proposal| proposal.header.timestamp_ms);
                self.begin_epoch(epoch, (own, timestamp_ms), effects);
                return;
            }
        }
    }

    fn diverging_checkpoint(&self, slot: &Slot, own: B256) -> Option<B256> {
        let others = slot.votes.range((VoteKind::Checkpoint, 0)..=(VoteKind::Checkpoint, u32::MAX)).map(|(_, vote)| vote.subject);
        others
            .filter(|subject| *subject != own)
            .find(|subject| Self::supporters(slot, VoteKind::Checkpoint, *subject).count() >= self.config.epoch.quorum())
    }

    fn begin_epoch(&mut self, epoch: Epoch, last: (B256, u64), effects: &mut Vec<Effect>) {
        effects.push(Effect::Void { above: self.final_height });
        self.slots.retain(|height, _| *height <= self.final_height);
        self.config.epoch = epoch;
        self.next_height = self.final_height + 1;
        self.next_to_execute = self.next_height;
        self.previous = last;
        self.asked = false;
        self.epoch_ends_at = None;
    }
}

impl Engine for PbftEngine {
    fn handle(&mut self, input: Input, _now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Sealed { height, view, timestamp_ms, transactions } => {
                self.on_sealed((height, view), timestamp_ms, transactions, &mut effects);
            }
            Input::Executed { height, hash, next_epoch } => self.on_executed(height, hash, next_epoch, &mut effects),
            Input::Committed { height } => {
                self.committed_height = self.committed_height.max(height.min(self.final_height));
                self.slots.retain(|slot, _| *slot > self.committed_height);
            }
            Input::Frame { .. } | Input::Gathered { .. } | Input::Block(_) | Input::Pending(_) | Input::Tick => {}
        }
        self.ask_for_proposal(&mut effects);
        effects
    }

    fn start(&mut self, _now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.ask_for_proposal(&mut effects);
        effects
    }

    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    fn status(&self) -> EngineStatus {
        EngineStatus {
            view: self.view,
            to_view: self.view,
            next_height: self.next_height,
            final_height: self.final_height,
            sealers: self.config.epoch.sealers.clone(),
            ..EngineStatus::default()
        }
    }
}

#[cfg(test)]
#[path = "pbft/tests.rs"]
mod tests;
