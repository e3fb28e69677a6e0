//! From ordered to durable: execution in height order, checkpoints, and the change of epochs. When a block is final is in
//! [`crate::finality`].
//!
//! Invariant: a height is handed out for execution once, in order, and within the window. A checkpoint is not recorded: it says what
//! executing a recorded entry gives, and a sealer that comes back says it again.

use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, NodeId};

use super::RaftEngine;
use super::message::Message;
use super::records::PROMISE_HEIGHTS;
use crate::engine::{Effect, FinalBlock};
use crate::epoch::Epoch;
use crate::finality::{Edge, Finality};
use crate::pbft::import::Parked;
use crate::pbft::message::{Vote, VoteKind, contents_of};
use crate::pbft::signing::sign;

/// Windows of durable heights whose entries stay in the log, for members that are a little behind: as many blocks as come while sync
/// downloads some.
const LOG_WINDOWS: u64 = 16;

/// Bytes of entries above which only one window of them stays.
const LOG_BYTES: usize = 8 << 20;

impl RaftEngine {
    pub(super) fn execute_ordered(&mut self) {
        let last = self.committed_height.saturating_add(self.window);
        while self.next_to_execute <= last && self.epoch_ends_at.is_none() && !self.is_halted {
            let height = self.next_to_execute;
            let Some(slot) = self.slots.get_mut(&height) else { return };
            let (Some(proposal), Some(contents)) = (slot.ordered.clone(), slot.contents) else { return };
            slot.is_handed_out = true;
            self.next_to_execute += 1;
            self.replication.execute(height, contents);
            self.effects.push(Effect::Execute(Box::new(proposal)));
        }
    }

    pub(super) fn on_executed(&mut self, height: u64, (header, hash): (BlockHeader, B256), next_epoch: Option<Epoch>) {
        let contents = contents_of(&self.domain, &header);
        let is_open = |slot: &&mut super::Slot| slot.is_handed_out && slot.executed.is_none();
        // Anything else is the answer to an earlier order for this height, which was declared void meanwhile.
        let Some(slot) = self.slots.get_mut(&height).filter(is_open).filter(|slot| slot.contents == Some(contents)) else { return };
        if self.epoch_ends_at.is_some_and(|end| height > end) {
            return;
        }
        slot.executed = Some((hash, header));
        if next_epoch.is_some() {
            self.epoch_ends_at = Some(height);
        }
        slot.next_epoch = next_epoch;
        self.say_checkpoint(height, hash);
    }

    /// Signs the executed block and tells the others.
    fn say_checkpoint(&mut self, height: u64, hash: B256) {
        let Some(sealer) = self.own.filter(|_| self.lost.is_none()) else { return };
        let signature = sign(&self.key, hash);
        let kind = VoteKind::Checkpoint;
        let vote = Vote { kind, epoch: self.epoch_hash, height, view: 0, subject: hash.0, sealer, signature };
        let now_ms = self.ticks.now_ms();
        let slot = self.slots.get_mut(&height).expect("it was executed");
        slot.votes.insert_valid(vote);
        slot.touched_ms = now_ms;
        self.broadcast(&Message::Checkpoint(vote));
    }

    pub(super) fn on_checkpoint(&mut self, from: NodeId, vote: Vote, frame: &Bytes) {
        if vote.epoch != self.epoch_hash {
            if vote.height > self.final_height {
                self.early.keep(from, frame.clone());
            }
            return;
        }
        let is_near = vote.height > self.committed_height && vote.height <= self.last_tracked();
        if vote.kind != VoteKind::Checkpoint || vote.view != 0 || !is_near {
            return;
        }
        // The network vouches for the sender; the signature is checked when it can complete a majority.
        if self.epoch.sealers.get(vote.sealer as usize) != Some(&from) {
            return self.refuse(from, format!("a checkpoint for height {} in the name of another sealer", vote.height));
        }
        self.slots.entry(vote.height).or_default().votes.insert(vote);
    }

    /// Records again what would be let go of with this height and is still needed: the promise, and a log that the blocks pass by.
    fn keep_memory(&mut self, height: u64) {
        let Some(node) = &self.node else { return };
        let (log, decided) = (node.log(), node.committed());
        let is_open = log.items_above(decided).any(|(_, item)| item.kept_to <= height);
        let is_placed = self.replication.base_kept_to > height || log.items_above(0).any(|(_, item)| item.kept_to > height);
        if log.last() > 0 && (is_open || !is_placed) {
            self.record_log();
        }
        if self.replication.promised.term > 0 && self.replication.promise_kept_to <= height.saturating_add(PROMISE_HEIGHTS / 2) {
            self.record_promise();
        }
    }

    /// A new set of sealers or settings governs from the next height on: a log of its own begins, and what was ordered above is void.
    fn begin_epoch(&mut self, epoch: Epoch) {
        let led = self.node.as_ref().is_some_and(super::Node::is_leader);
        self.effects.push(Effect::Void { above: self.final_height });
        for slot in self.slots.split_off(&self.final_height.saturating_add(1)).into_values() {
            if let Some(block) = slot.imported {
                self.parked.put_back(*block);
            }
        }
        self.epoch_hash = epoch.digest().0;
        self.own = epoch.index_of(&self.key.node_id());
        self.epoch = epoch;
        self.epoch_ends_at = None;
        self.asked = None;
        self.next_to_execute = self.final_height.saturating_add(1);
        let sealers = &self.epoch.sealers;
        self.peers.retain(|node, _| sealers.binary_search(node).is_ok());
        // The leader goes on leading where it may: the others know that it was there a moment ago.
        self.enter_log(led);
        self.replay.extend(self.early.take());
    }

    pub(super) fn on_committed(&mut self, height: u64) {
        let height = height.min(self.final_height);
        if height <= self.committed_height {
            return;
        }
        let slot = self.slots.get(&height);
        if let Some((_, header)) = slot.and_then(|slot| slot.executed.as_ref()) {
            self.committed_contents = (header.timestamp_ms, contents_of(&self.domain, header));
        }
        self.committed_height = height;
        self.replication.settle(height);
        // A window of durable heights stays, without transactions, to help sealers that missed a message.
        let kept = height.saturating_sub(self.window);
        self.slots = self.slots.split_off(&kept.saturating_add(1));
        for slot in self.slots.range_mut(..=height).map(|(_, slot)| slot) {
            slot.ordered = None;
        }
        if let Some(node) = &mut self.node {
            let decided = node.committed();
            node.log_mut().forget_transactions(height);
            let windows = if node.log().bytes() > LOG_BYTES { 1 } else { LOG_WINDOWS };
            node.log_mut().compact(height.saturating_sub(windows * self.window), decided);
        }
    }
}

impl Finality for RaftEngine {
    fn edge(&self) -> Edge {
        Edge {
            final_height: self.final_height,
            final_hash: self.final_hash,
            committed_height: self.committed_height,
            committed_ms: self.committed_contents.0,
            window: self.window,
            epoch_ends_at: self.epoch_ends_at,
        }
    }

    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    fn executed(&self, height: u64) -> Option<&(B256, BlockHeader)> {
        self.slots.get(&height)?.executed.as_ref()
    }

    fn imported(&self, height: u64) -> Option<&FinalBlock> {
        self.slots.get(&height)?.imported.as_deref()
    }

    fn given(&self, height: u64) -> Option<&(B256, Vec<Vote>)> {
        self.slots.get(&height)?.finality.as_ref()
    }

    fn checkpointed(&self, height: u64) -> Vec<B256> {
        self.slots.get(&height).map_or_else(Vec::new, |slot| slot.votes.subjects(VoteKind::Checkpoint))
    }

    fn quorum_over(&mut self, height: u64, hash: B256) -> Option<Vec<Vote>> {
        let needed = self.epoch.quorum();
        let Self { slots, domain, epoch, epoch_hash, .. } = self;
        let verifier = super::Verifier { domain, epoch, epoch_hash: *epoch_hash };
        slots.get_mut(&height)?.votes.quorum(VoteKind::Checkpoint, &hash, needed, &|vote| verifier.is_good(vote))
    }

    fn check_final(&self, header: &BlockHeader, hash: B256, signatures: &[BlockSignature]) -> Result<Vec<Vote>, String> {
        self.verifier().check_final(header, hash, signatures)
    }

    fn parked(&mut self) -> &mut Parked {
        &mut self.parked
    }

    fn refuse_block(&mut self, from: NodeId, reason: String) {
        self.refuse(from, reason);
    }

    fn diverge(&mut self, height: u64, own: B256, quorum: B256) {
        self.effects.push(Effect::Diverged { height, own, quorum });
        self.is_halted = true;
    }

    fn take_in(&mut self, block: FinalBlock, votes: Vec<Vote>) {
        self.order_imported(block, votes);
    }

    fn finalize(&mut self, height: u64, hash: B256, votes: Vec<Vote>) -> Option<Epoch> {
        self.keep_memory(height);
        let signatures = signatures_of(&votes);
        self.effects.push(Effect::Finalize { height, hash, signatures });
        self.final_height = height;
        self.final_hash = hash;
        let slot = self.slots.get_mut(&height).expect("it was executed");
        slot.finality = Some((hash, votes));
        slot.imported = None;
        slot.next_epoch.take()
    }

    fn change_epoch(&mut self, _: u64, epoch: Epoch) {
        self.begin_epoch(epoch);
    }
}

/// As they end in the block.
pub(super) fn signatures_of(votes: &[Vote]) -> Vec<BlockSignature> {
    votes.iter().map(|vote| BlockSignature { index: vote.sealer, signature: vote.signature }).collect()
}
