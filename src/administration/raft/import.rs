//! Final blocks of others: the place of downloaded ones among what is in flight ([`crate::finality`] checks them), and ones whose
//! transactions this node's log has.

use millrace_base::{B256, NodeId, keccak256};

use super::RaftEngine;
use crate::engine::{FinalBlock, Proposal};
use crate::finality::Finality;
use crate::pbft::import::header_of;
use crate::pbft::message::{Stable, Vote, contents_of, stable_header};

impl RaftEngine {
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
            Some(known) if known != contents => self.diverge(height, known, contents),
            Some(_) => slot.finality = Some((hash, votes)),
            None => {
                let Some(proposal) = proposal else { return };
                slot.order(proposal, contents);
                slot.finality = Some((hash, votes));
            }
        }
    }

    /// Orders what a final block of others holds: it takes the place of what was in flight at its height.
    pub(super) fn order_imported(&mut self, block: FinalBlock, votes: Vec<Vote>) {
        let height = block.header.number;
        let contents = contents_of(&self.domain, &block.header);
        let known = self.slots.get(&height).and_then(|slot| slot.contents);
        if known.is_none() {
            self.make_way(height, contents);
        }
        // What the log orders was executed already, or will be: the signatures say whether the result is right.
        if let Some(own) = known.filter(|own| *own != contents) {
            self.diverge(height, own, contents);
        }
        let slot = self.slots.entry(height).or_default();
        if known.is_none() {
            let proposal = Proposal { header: header_of(&block, self.epoch_hash.into()), transactions: block.transactions.clone() };
            slot.order(proposal, contents);
        }
        slot.finality = Some((block.header.hash(), votes));
        slot.imported = Some(Box::new(block));
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
