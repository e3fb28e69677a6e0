//! Blocks that sync downloaded: checked like a voter checks, then executed like any ordered proposal.
//!
//! A claim of a peer is worth nothing: a block counts when it builds on the chain here and a quorum of distinct sealers of the epoch
//! that governs its height signed it. What comes ahead of its turn waits, within a bound; a block of which the epoch may still change
//! by one that is executing below goes back to wait when it does.

use std::collections::BTreeMap;

use millrace_base::{B256, VerifiedTx};

use super::PbftEngine;
use super::message::Brief;
use super::slot::{Ordered, Standing};
use crate::engine::{Effect, FinalBlock, ProposalHeader};

/// Blocks that wait for their turn: some windows of them, so that sync can fill the pipeline.
const PARKED: usize = 64;

/// Memory that their transactions may take.
const PARKED_BYTES: usize = 128 << 20;

/// Versions of one height from different senders: one of them may lie.
const VERSIONS: usize = 3;

/// Blocks that wait for the one below.
#[derive(Default)]
pub struct Parked {
    blocks: BTreeMap<u64, Vec<FinalBlock>>,
    count: usize,
    /// Memory of their transactions.
    bytes: usize,
}

impl Parked {
    /// Keeps a block; the last one of a sender counts, and what is furthest ahead is dropped first.
    pub fn keep(&mut self, block: FinalBlock) {
        let height = block.header.number;
        let mut versions = self.remove(height);
        versions.retain(|other| other.from != block.from);
        if versions.len() < VERSIONS {
            versions.push(block);
        }
        versions.into_iter().for_each(|version| self.add(version));
        while self.count > PARKED || (self.bytes > PARKED_BYTES && self.blocks.len() > 1) {
            let Some(last) = self.blocks.last_key_value().map(|(height, _)| *height) else { return };
            self.remove(last);
        }
    }

    /// Lets a block wait again that was taken too early.
    pub fn put_back(&mut self, block: FinalBlock) {
        let others = self.remove(block.header.number);
        [block].into_iter().chain(others).for_each(|block| self.add(block));
    }

    /// A block of a height; of several versions one after the other.
    pub fn take(&mut self, height: u64) -> Option<FinalBlock> {
        let mut versions = self.remove(height).into_iter();
        let first = versions.next();
        versions.for_each(|version| self.add(version));
        first
    }

    /// Heights up to this one are final.
    pub fn settle(&mut self, height: u64) {
        while let Some(first) = self.blocks.first_key_value().map(|(first, _)| *first).filter(|first| *first <= height) {
            self.remove(first);
        }
    }

    fn add(&mut self, block: FinalBlock) {
        self.count += 1;
        self.bytes += bytes_of(&block);
        self.blocks.entry(block.header.number).or_default().push(block);
    }

    fn remove(&mut self, height: u64) -> Vec<FinalBlock> {
        let removed = self.blocks.remove(&height).unwrap_or_default();
        self.count -= removed.len();
        self.bytes -= removed.iter().map(bytes_of).sum::<usize>();
        removed
    }
}

fn bytes_of(block: &FinalBlock) -> usize {
    block.transactions.iter().map(VerifiedTx::memory_bytes).sum()
}

impl PbftEngine {
    pub(super) fn on_block(&mut self, block: FinalBlock) {
        if block.header.number > self.final_height {
            return self.parked.keep(block);
        }
        // A second final block at a height takes more than f faulty sealers: nothing can be trusted any more.
        let own = self.slots.get(&block.header.number).filter(|_| block.header.number >= self.epoch.start);
        let Some((own, _)) = own.and_then(|slot| slot.executed.clone()) else { return };
        let (height, quorum) = (block.header.number, block.header.hash());
        if own != quorum && self.verifier().check_final(&block.header, quorum, &block.signatures).is_ok() {
            self.effects.push(Effect::Diverged { height, own, quorum });
            self.is_halted = true;
        }
    }

    /// Takes the blocks whose turn it is; `true` when there was one.
    pub(super) fn import_parked(&mut self) -> bool {
        self.parked.settle(self.final_height);
        let mut is_any = false;
        let mut height = self.final_height.saturating_add(1);
        while height <= self.committed_height.saturating_add(self.window) && self.epoch_ends_at.is_none_or(|end| height <= end) {
            if self.slots.get(&height).is_some_and(|slot| slot.imported.is_some()) {
                height += 1;
                continue;
            }
            let Some(parent) = self.block_below(height) else { return is_any };
            let Some(block) = self.parked.take(height) else { return is_any };
            // A block below that is still executing may be the one that changes the sealers.
            let is_governed = height == self.final_height + 1 || self.slots.get(&(height - 1)).is_some_and(|slot| slot.executed.is_some());
            if block.header.sealer_list != self.epoch.sealers && !is_governed {
                self.parked.put_back(block);
                return is_any;
            }
            let from = block.from;
            match self.import(block, parent) {
                Ok(()) => {
                    is_any = true;
                    height += 1;
                }
                // Another sender may have the right one: look at this height again.
                Err(reason) => self.refuse(from, reason),
            }
        }
        is_any
    }

    /// Hash and timestamp of the block below, when this node has it or a quorum signed it.
    fn block_below(&self, height: u64) -> Option<(B256, Option<u64>)> {
        let below = height.checked_sub(1)?;
        let slot = self.slots.get(&below);
        let imported = || slot.and_then(|slot| slot.imported.as_ref()).map(|block| (block.header.hash(), Some(block.header.timestamp_ms)));
        let executed = || slot.and_then(|slot| slot.executed.as_ref()).map(|(hash, header)| (*hash, Some(header.timestamp_ms)));
        let last = || (below == self.final_height).then_some((self.final_hash, None));
        executed().or_else(imported).or_else(last)
    }

    fn import(&mut self, block: FinalBlock, parent: (B256, Option<u64>)) -> Result<(), String> {
        let height = block.header.number;
        if block.header.parent_hash != parent.0 {
            return Err(format!("block {height} builds on {}, the block below is {}", block.header.parent_hash, parent.0));
        }
        let below_ms = parent.1.unwrap_or(self.committed_contents.0);
        if block.header.timestamp_ms <= below_ms {
            return Err(format!("block {height} has a timestamp that is not above the one below"));
        }
        let votes = self.verifier().check_final(&block.header, block.header.hash(), &block.signatures)?;
        self.make_way(&block);
        let slot = self.slots.entry(height).or_default();
        slot.finality = Some((block.header.hash(), votes));
        if slot.ordered.is_none() || slot.transactions.is_none() {
            if !slot.header.as_ref().is_some_and(|header| is_content(header, &block)) {
                let header = header_of(&block, self.epoch_hash.into());
                let brief = Brief::of(&header);
                slot.fill(header, brief);
            }
            slot.transactions = Some(block.transactions.clone());
            slot.standing = Standing::Linked;
            slot.ordered.get_or_insert(Ordered::Imported);
        }
        slot.imported = Some(Box::new(block));
        self.timer.progress();
        Ok(())
    }

    /// A block that differs from what is in flight at its height takes its place, and nothing above stands.
    fn make_way(&mut self, block: &FinalBlock) {
        let height = block.header.number;
        let slot = self.slots.get(&height);
        if slot.is_some_and(|slot| slot.ordered.is_some() || slot.header.as_ref().is_some_and(|header| is_content(header, block))) {
            return;
        }
        let is_wanted = self.asked.is_some_and(|(asked, _)| asked >= height);
        let is_taken = self.slots.range(height..).any(|(_, slot)| slot.digest.is_some());
        if is_wanted || is_taken {
            self.void_from(height);
        }
    }
}

/// Whether a block is what a proposal became.
pub fn is_content(header: &ProposalHeader, block: &FinalBlock) -> bool {
    (header.timestamp_ms, u64::from(header.sealer)) == (block.header.timestamp_ms, block.header.sealer)
        && header.transactions.len() == block.transactions.len()
        && header.transactions.iter().zip(&block.transactions).all(|(hash, transaction)| *hash == transaction.hash())
}

/// The proposal a block came from. What it named as built on is not needed any more: the block's parent hash was checked.
pub fn header_of(block: &FinalBlock, epoch: B256) -> ProposalHeader {
    ProposalHeader {
        height: block.header.number,
        epoch,
        previous: B256::ZERO,
        below: B256::ZERO,
        timestamp_ms: block.header.timestamp_ms,
        sealer: u32::try_from(block.header.sealer).expect("below the number of sealers"),
        transactions: block.transactions.iter().map(VerifiedTx::hash).collect(),
    }
}
