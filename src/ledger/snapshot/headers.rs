//! The chain of headers of a snapshot, followed from what the operator knows.
//!
//! Each header names the one before by hash, and a quorum of the sealers that it names signed it. What it names as sealers must be those
//! of the header before, or, where the group changed them, more of those before than can be faulty must have signed the first header
//! under the new ones: one of them is honest, and an honest sealer signs no block of sealers that the chain did not choose. So whoever
//! wants to forge a chain needs the keys of that many sealers of some height. Up to a block whose hash the operator trusts, the hashes
//! alone prove everything.

use std::collections::BTreeSet;

use millrace_access::blockchain::records;
use millrace_administration::Epoch;
use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, NodeId};
use rayon::prelude::*;

use super::Trust;
use crate::verify::{Tip, check_link, check_signatures};

/// A header as it was read.
pub(super) struct SignedHeader {
    pub header: BlockHeader,
    pub hash: B256,
    pub signatures: Vec<BlockSignature>,
}

/// Decodes the headers of a chunk.
pub(super) fn decode(records: &[Bytes]) -> Result<Vec<SignedHeader>, String> {
    let decode = |record: &Bytes| {
        let (header, signatures) = records::decode_header(record).map_err(|error| error.to_string())?;
        Ok(SignedHeader { hash: header.hash(), header, signatures })
    };
    records.par_iter().map(decode).collect()
}

/// See the module.
pub(super) struct HeaderChain<'a> {
    trust: &'a Trust,
    next: u64,
    tip: Option<Tip>,
    sealers: Vec<NodeId>,
    /// Whether signatures count from here on: the trusted block, if there is one, has been seen.
    is_anchored: bool,
}

impl<'a> HeaderChain<'a> {
    pub fn new(trust: &'a Trust) -> Self {
        Self { trust, next: 0, tip: None, sealers: trust.sealers.clone(), is_anchored: trust.block.is_none() }
    }

    /// Follows the next headers.
    pub fn extend(&mut self, headers: &[SignedHeader]) -> Result<(), String> {
        let anchor = self.trust.block.and_then(|block| headers.iter().position(|header| header.hash == block));
        let first_signed = if self.is_anchored { 0 } else { anchor.map_or(headers.len(), |position| position + 1) };
        let signers: Vec<Result<BTreeSet<u32>, String>> = headers[first_signed..]
            .par_iter()
            .map(|SignedHeader { header, hash, signatures }| match header.number {
                0 => Ok(BTreeSet::new()),
                _ => check_signatures((header, *hash), signatures, self.trust.faults),
            })
            .collect();
        let nobody = || Ok(BTreeSet::new());
        let signers = (0..first_signed).map(|_| nobody()).chain(signers);
        for ((position, signed), signers) in (0..).zip(headers).zip(signers) {
            let number = self.next;
            let at = |detail: String| format!("block {number}: {detail}");
            check_link(&signed.header, number, self.tip.as_ref()).map_err(at)?;
            if number == 0 && signed.hash != self.trust.genesis {
                return Err(format!("it begins with block 0 {}, this group with {}", signed.hash, self.trust.genesis));
            }
            let signers = signers.map_err(at)?;
            if number > 0 {
                self.follow_sealers(&signed.header, &signers, position < first_signed).map_err(at)?;
            }
            let SignedHeader { header, hash, .. } = signed;
            self.tip = Some(Tip::new(header, *hash));
            self.next += 1;
        }
        self.is_anchored |= anchor.is_some();
        Ok(())
    }

    fn follow_sealers(&mut self, header: &BlockHeader, signers: &BTreeSet<u32>, is_trusted: bool) -> Result<(), String> {
        if header.sealer_list == self.sealers {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.sealers, header.sealer_list.clone());
        if is_trusted {
            return Ok(());
        }
        let named: BTreeSet<NodeId> = signers.iter().filter_map(|index| header.sealer_list.get(*index as usize)).copied().collect();
        let known = before.iter().filter(|sealer| named.contains(*sealer)).count();
        let rules =
            Epoch { start: 0, sealers: before, faults: self.trust.faults, tx_count_limit: 0, tx_gas_limit: 0, consensus_timeout_ms: 0 };
        let needed = rules.max_faulty() + 1;
        if known < needed {
            return Err(format!(
                "its sealers are others than before, and {known} of those before signed it where {needed} must: the change cannot be \
                 followed; name the hash of this block or a later one as trusted, if you know it from elsewhere"
            ));
        }
        Ok(())
    }

    /// The last header, when all that is needed was there.
    pub fn finish(&self) -> Result<Tip, String> {
        match (self.is_anchored, self.tip) {
            (true, Some(tip)) => Ok(tip),
            (false, _) => Err("the trusted block is not among its blocks".into()),
            (_, None) => Err("it has no headers".into()),
        }
    }
}
