//! Final blocks of others: downloaded ones, checked like a voter checks, and ones whose transactions this node's log has.
//!
//! A claim of a peer is worth nothing: a block counts when it builds on the chain here and a majority of distinct sealers of the epoch
//! that governs its height signed it. What comes ahead of its turn waits, within a bound; a block of which the epoch may still change by
//! one that is executing below goes back to wait when it does.

use millrace_base::{B256, NodeId, keccak256};

use super::RaftEngine;
use crate::engine::{Effect, FinalBlock, Proposal};
use crate::pbft::import::header_of;
use crate::pbft::message::{Stable, contents_of, stable_header};

impl RaftEngine {
    pub(super) fn on_block(&mut self, block: FinalBlock) {
        if block.header.number > self.final_height {
            return self.parked.keep(block);
        }
        // A second final block at a height: nothing can be trusted any more.
        let own = self.slots.get(&block.header.number).filter(|_| block.header.number >= self.epoch.start);
        let Some((own, _)) = own.and_then(|slot| slot.executed.clone()) else { return };
        let (height, quorum) = (block.header.number, block.header.hash());
        if own != quorum && self.verifier().check_final(&block.header, quorum, &block.signatures).is_ok() {
            self.effects.push(Effect::Diverged { height, own, quorum });
            self.is_halted = true;
        }
    }

    /// A final block without its transactions: its height is ordered if the log here has what it holds.
    pub(super) fn on_final(&mut self, from: NodeId, stable: &Stable) {
        let Some(header) = stable_header(stable) else { return self.refuse(from, "a final block whose header cannot be read".into()) };
        let (height, hash) = (header.number, keccak256(&stable.header));
        let is_near = height > self.final_height && height <= self.last_tracked();
        if !is_near || header.sealer_list != self.epoch.sealers || self.slots.get(&height).is_some_and(|slot| slot.finality.is_some()) {
            return;
        }
        let votes = match self.verifier().check_final(&header, hash, &stable.signatures) {
            Ok(votes) => votes,
            Err(reason) => return self.refuse(from, reason),
        };
        let contents = contents_of(&self.domain, &header);
        let placed = self.node.as_ref().and_then(|node| node.log().at_height(height));
        let proposal = placed.filter(|placed| placed.contents == contents).and_then(super::log::Placed::proposal);
        let slot = self.slots.entry(height).or_default();
        match slot.contents {
            // The log orders something else than a majority signed.
            Some(known) if known != contents => {
                self.effects.push(Effect::Diverged { height, own: known, quorum: contents });
                self.is_halted = true;
            }
            Some(_) => slot.finality = Some((hash, votes)),
            None => {
                let Some(proposal) = proposal else { return };
                slot.order(proposal, contents);
                slot.finality = Some((hash, votes));
            }
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

    /// Hash and timestamp of the block below, when this node has it or a majority signed it.
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
        let contents = contents_of(&self.domain, &block.header);
        let known = self.slots.get(&height).and_then(|slot| slot.contents);
        if known.is_none() {
            self.make_way(height, contents);
        }
        let slot = self.slots.entry(height).or_default();
        match known {
            // What the log orders was executed already, or will be: the signatures say whether the result is right.
            Some(own) if own != contents => {
                self.effects.push(Effect::Diverged { height, own, quorum: contents });
                self.is_halted = true;
            }
            Some(_) => {}
            None => {
                let proposal = Proposal { header: header_of(&block, self.epoch_hash.into()), transactions: block.transactions.clone() };
                slot.order(proposal, contents);
            }
        }
        slot.finality = Some((block.header.hash(), votes));
        slot.imported = Some(Box::new(block));
        Ok(())
    }

    /// A block that differs from what the pool holds for its height takes its place, and nothing above stands.
    fn make_way(&mut self, height: u64, contents: B256) {
        let is_other = self.replication.reserved.get(&height).is_some_and(|reserved| *reserved != contents);
        let is_wanted = self.asked.is_some_and(|(asked, _)| asked >= height) && !self.replication.reserved.contains_key(&height);
        if is_other || is_wanted {
            self.void_from(height);
        }
    }
}
