//! From ordered to durable: execution in height order, checkpoints, and the change of epochs. When a block is final is in
//! [`crate::finality`].
//!
//! Invariant: a height is handed out for execution once, in order, and within the window.

use millrace_base::{B256, BlockHeader, BlockSignature, NodeId};

use super::import::Parked;
use super::message::{Stable, Vote, VoteKind, contents_of};
use super::slot::Ordered;
use super::view_change::Views;
use super::{PbftEngine, records::Memory};
use crate::engine::{Effect, FinalBlock, Proposal};
use crate::epoch::Epoch;
use crate::finality::{Edge, Finality};

impl PbftEngine {
    pub(super) fn execute_ordered(&mut self) {
        let last = self.committed_height.saturating_add(self.window);
        while self.next_to_execute <= last && self.epoch_ends_at.is_none() {
            let height = self.next_to_execute;
            let Some(slot) = self.slots.get_mut(&height).filter(|slot| slot.ordered.is_some()) else { return };
            let (Some(header), Some(transactions)) = (&slot.header, &slot.transactions) else { return };
            let proposal = Proposal { header: header.clone(), transactions: transactions.clone() };
            (slot.is_handed_out, slot.is_reserved) = (true, true);
            self.next_to_execute += 1;
            self.effects.push(Effect::Execute(Box::new(proposal)));
        }
    }

    pub(super) fn on_executed(&mut self, height: u64, block: (BlockHeader, B256), next_epoch: Option<Epoch>) {
        let (header, hash) = block;
        let Some(slot) = self.slots.get_mut(&height).filter(|slot| slot.is_handed_out && slot.executed.is_none()) else { return };
        // The answer to an earlier order for this height, which was declared void meanwhile.
        let is_same = slot.header.as_ref().is_some_and(|ordered| {
            (ordered.timestamp_ms, u64::from(ordered.sealer), ordered.height) == (header.timestamp_ms, header.sealer, header.number)
        });
        if !is_same || self.epoch_ends_at.is_some_and(|end| height > end) {
            return;
        }
        slot.executed = Some((hash, header));
        if next_epoch.is_some() {
            self.epoch_ends_at = Some(height);
        }
        slot.next_epoch = next_epoch;
        self.timer.restart();
        self.vote(VoteKind::Checkpoint, height, hash);
    }

    /// A new set of sealers or settings governs from the next height on: views begin anew, and what was ordered above is void.
    fn begin_epoch(&mut self, epoch: Epoch) {
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
        self.stable = None;
        self.base = self.epoch.start.saturating_sub(1);
        self.view = 0;
        self.changing = None;
        self.views = Views::default();
        self.evidence.clear();
        let sealers = &self.epoch.sealers;
        self.peers.retain(|node, _| sealers.binary_search(node).is_ok());
        self.reach.begin_epoch(sealers);
        let memory = Memory::of(&self.records, self.epoch_hash, self.final_height, &self.domain);
        self.resume(memory);
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
        self.promises.settle(height);
        // A window of durable heights stays, without transactions, to help sealers that missed a message.
        let kept = height.saturating_sub(self.window);
        self.slots = self.slots.split_off(&kept.saturating_add(1));
        for slot in self.slots.range_mut(..=height).map(|(_, slot)| slot) {
            slot.transactions = None;
            slot.prepared = None;
        }
        self.renew_floor();
        if let Some((_, epoch)) = self.next_epoch.take_if(|(last, _)| *last <= height) {
            self.begin_epoch(epoch);
        }
    }

    /// Whether a block that this node waits for is ordered, executed and short of other sealers' checkpoints.
    pub(super) fn lacks_checkpoints(&self) -> bool {
        let next = self.slots.get(&self.final_height.saturating_add(1));
        next.is_some_and(|slot| slot.executed.is_some() && matches!(slot.ordered, Some(Ordered::Voted(_))))
    }
}

impl Finality for PbftEngine {
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
        self.quorum_of(height, VoteKind::Checkpoint, hash)
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
        let signatures: Vec<BlockSignature> =
            votes.iter().map(|vote| BlockSignature { index: vote.sealer, signature: vote.signature }).collect();
        if height >= self.epoch.start && self.quorum() > 1 {
            let header = self.slots.get(&height).and_then(|slot| slot.executed.as_ref()).map(|(_, header)| header.encode_rlp());
            self.stable = header.map(|header| (height, Stable { header, signatures: signatures.clone() }));
        }
        self.effects.push(Effect::Finalize { height, hash, signatures });
        self.final_height = height;
        self.final_hash = hash;
        self.timer.progress();
        let slot = self.slots.get_mut(&height).expect("it was executed");
        slot.finality = Some((hash, votes));
        slot.imported = None;
        slot.next_epoch.take()
    }

    fn change_epoch(&mut self, height: u64, epoch: Epoch) {
        // What a lone sealer decided it may decide again after a crash, until it is durable: nobody builds on it before.
        if self.quorum() > 1 {
            self.begin_epoch(epoch);
        } else {
            self.next_epoch = Some((height, epoch));
        }
    }
}
