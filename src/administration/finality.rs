//! What every engine does alike with heights between their order and their durable block: an executed block is final with the signatures
//! of a quorum, and final blocks of others are imported, checked like a voter checks.
//!
//! Invariants: a block is final only with the signatures of a quorum of distinct sealers over the hash that this node computed itself. A
//! claim of a peer is worth nothing: a block of others counts when it builds on the chain here and a quorum of distinct sealers of the
//! epoch that governs its height signed it. What comes ahead of its turn waits, within a bound ([`Parked`]); a block of which the epoch may
//! still change by one that is executing below goes back to wait when it does.

use millrace_base::{B256, BlockHeader, BlockSignature, NodeId};

use crate::engine::FinalBlock;
use crate::epoch::Epoch;
use crate::pbft::import::Parked;
use crate::pbft::message::Vote;

/// Where an engine stands.
#[derive(Clone, Copy)]
pub struct Edge {
    /// Last final height.
    pub final_height: u64,
    /// Its hash.
    pub final_hash: B256,
    /// Last durable height.
    pub committed_height: u64,
    /// Its timestamp.
    pub committed_ms: u64,
    /// Heights in flight at most.
    pub window: u64,
    /// Height whose execution ends the epoch.
    pub epoch_ends_at: Option<u64>,
}

/// See the module. The methods without a body are what engines keep each in their own way.
pub trait Finality {
    /// Where the engine stands.
    fn edge(&self) -> Edge;

    /// The present epoch.
    fn epoch(&self) -> &Epoch;

    /// Hash and header of a height that was executed here.
    fn executed(&self, height: u64) -> Option<&(B256, BlockHeader)>;

    /// The block of others that was imported for a height.
    fn imported(&self, height: u64) -> Option<&FinalBlock>;

    /// A hash with good signatures of a quorum over it that others gave.
    fn given(&self, height: u64) -> Option<&(B256, Vec<Vote>)>;

    /// Hashes that checkpoints name at a height.
    fn checkpointed(&self, height: u64) -> Vec<B256>;

    /// Good checkpoints of a quorum over a hash.
    fn quorum_over(&mut self, height: u64, hash: B256) -> Option<Vec<Vote>>;

    /// The signatures of a final block of the present epoch, when they are good and a quorum's.
    fn check_final(&self, header: &BlockHeader, hash: B256, signatures: &[BlockSignature]) -> Result<Vec<Vote>, String>;

    /// Blocks that wait for their turn.
    fn parked(&mut self) -> &mut Parked;

    /// A peer sent what no honest one would.
    fn refuse_block(&mut self, from: NodeId, reason: String);

    /// This node's result is not that of a quorum: nothing can be trusted any more.
    fn diverge(&mut self, height: u64, own: B256, quorum: B256);

    /// Orders what a checked block of others holds.
    fn take_in(&mut self, block: FinalBlock, votes: Vec<Vote>);

    /// A height is final; gives the epoch that begins behind it.
    fn finalize(&mut self, height: u64, hash: B256, votes: Vec<Vote>) -> Option<Epoch>;

    /// Another epoch begins behind a final height.
    fn change_epoch(&mut self, height: u64, epoch: Epoch);

    /// Sync has downloaded a block.
    fn on_block(&mut self, block: FinalBlock) {
        let height = block.header.number;
        if height > self.edge().final_height {
            return self.parked().keep(block);
        }
        // A second final block at a height takes more faulty sealers than the group is made for.
        let own = self.executed(height).filter(|_| height >= self.epoch().start).map(|(hash, _)| *hash);
        let (Some(own), quorum) = (own, block.header.hash()) else { return };
        if own != quorum && self.check_final(&block.header, quorum, &block.signatures).is_ok() {
            self.diverge(height, own, quorum);
        }
    }

    /// Takes the blocks whose turn it is; `true` when there was one.
    fn import_parked(&mut self) -> bool {
        let edge = self.edge();
        self.parked().settle(edge.final_height);
        let mut is_any = false;
        let mut height = edge.final_height.saturating_add(1);
        while height <= edge.committed_height.saturating_add(edge.window) && edge.epoch_ends_at.is_none_or(|end| height <= end) {
            if self.imported(height).is_some() {
                height += 1;
                continue;
            }
            let Some(parent) = self.block_below(height) else { return is_any };
            let Some(block) = self.parked().take(height) else { return is_any };
            // A block below that is still executing may be the one that changes the sealers.
            let is_governed = height == edge.final_height + 1 || self.executed(height - 1).is_some();
            if block.header.sealer_list != self.epoch().sealers && !is_governed {
                self.parked().put_back(block);
                return is_any;
            }
            let from = block.from;
            match self.check_import(&block, parent) {
                Ok(votes) => {
                    self.take_in(block, votes);
                    is_any = true;
                    height += 1;
                }
                // Another sender may have the right one: look at this height again.
                Err(reason) => self.refuse_block(from, reason),
            }
        }
        is_any
    }

    /// Hash and timestamp of the block below, when this node has it or a quorum signed it.
    fn block_below(&self, height: u64) -> Option<(B256, u64)> {
        let (below, edge) = (height.checked_sub(1)?, self.edge());
        let executed = || self.executed(below).map(|(hash, header)| (*hash, header.timestamp_ms));
        let imported = || self.imported(below).map(|block| (block.header.hash(), block.header.timestamp_ms));
        let last = || (below == edge.final_height).then_some((edge.final_hash, edge.committed_ms));
        executed().or_else(imported).or_else(last)
    }

    /// A block of others follows the one below and a quorum signed it.
    fn check_import(&self, block: &FinalBlock, (parent, below_ms): (B256, u64)) -> Result<Vec<Vote>, String> {
        let height = block.header.number;
        if block.header.parent_hash != parent {
            return Err(format!("block {height} builds on {}, the block below is {parent}", block.header.parent_hash));
        }
        if block.header.timestamp_ms <= below_ms {
            return Err(format!("block {height} has a timestamp that is not above the one below"));
        }
        self.check_final(&block.header, block.header.hash(), &block.signatures)
    }

    /// Takes the next heights that became final; `true` when there was one.
    fn finalize_executed(&mut self) -> bool {
        let mut is_any = false;
        loop {
            let height = self.edge().final_height.saturating_add(1);
            let Some(own) = self.executed(height).map(|(hash, _)| *hash) else { return is_any };
            if let Some(quorum) = self.diverging(height, own) {
                self.diverge(height, own, quorum);
                return false;
            }
            let given = self.given(height).filter(|(hash, _)| *hash == own).map(|(_, votes)| votes.clone());
            let Some(votes) = given.or_else(|| self.quorum_over(height, own)) else { return is_any };
            is_any = true;
            if let Some(epoch) = self.finalize(height, own, votes) {
                self.change_epoch(height, epoch);
                return true;
            }
        }
    }

    /// The hash that a quorum signed, when it is not this node's own.
    fn diverging(&mut self, height: u64, own: B256) -> Option<B256> {
        if let Some((hash, _)) = self.given(height).filter(|(hash, _)| *hash != own) {
            return Some(*hash);
        }
        self.checkpointed(height).into_iter().find(|hash| *hash != own && self.quorum_over(height, *hash).is_some())
    }
}
