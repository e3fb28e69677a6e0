//! Blocks that sync downloaded: those that wait for their turn, and their place among what is in flight. How they are checked is in
//! [`crate::finality`]; then they are executed like any ordered proposal.

use std::collections::BTreeMap;

use millrace_base::{B256, VerifiedTx};

use super::PbftEngine;
use super::message::{Brief, Vote};
use super::slot::{Ordered, Standing};
use crate::engine::{FinalBlock, ProposalHeader};

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
    /// Orders what a final block of others holds: it takes the place of what was in flight at its height.
    pub(super) fn order_imported(&mut self, block: FinalBlock, votes: Vec<Vote>) {
        let height = block.header.number;
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
