//! The last committed blocks, decoded: what clients that wait for receipts ask about.
//!
//! Invariant: heights are contiguous and end at the head, so a lookup is an index and readers change nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_base::{Block, Receipt};

/// Most blocks kept: at one block a second a minute of history.
const RECENT_BLOCKS: usize = 64;

/// Most memory of them; the last block is kept whatever it takes. Nodes run dozens of groups.
const RECENT_BYTES: usize = 32 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    blocks: VecDeque<(Arc<Block>, usize)>,
    bytes: usize,
}

impl Recent {
    /// Adds blocks that follow the last one, and returns those that had to go, for the caller to drop outside its lock.
    pub(super) fn push(&mut self, blocks: impl Iterator<Item = Arc<Block>>) -> Vec<Arc<Block>> {
        for block in blocks {
            let bytes = weight(&block);
            self.bytes += bytes;
            self.blocks.push_back((block, bytes));
        }
        let mut retired = Vec::new();
        while self.blocks.len() > RECENT_BLOCKS || (self.blocks.len() > 1 && self.bytes > RECENT_BYTES) {
            let (block, bytes) = self.blocks.pop_front().expect("there are several");
            self.bytes -= bytes;
            retired.push(block);
        }
        retired
    }

    pub(super) fn get(&self, number: u64) -> Option<&Arc<Block>> {
        let first = self.blocks.front()?.0.header.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.blocks.get(index).map(|(block, _)| block)
    }
}

/// Memory of a decoded block, about.
pub(super) fn weight(block: &Block) -> usize {
    let transactions: usize = block.transactions.iter().map(millrace_base::VerifiedTx::memory_bytes).sum();
    let log_bytes =
        |receipt: &Receipt| receipt.logs.iter().map(|log| size_of_val(log) + 32 * log.topics.len() + log.data.len()).sum::<usize>();
    let receipts: usize = block.receipts.iter().map(|receipt| size_of::<Receipt>() + receipt.output.len() + log_bytes(receipt)).sum();
    size_of::<Block>() + transactions + receipts
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::{B256, BlockHeader, Bytes};

    fn block(number: u64, output_bytes: usize) -> Arc<Block> {
        let receipt = Receipt { output: Bytes::from(vec![0; output_bytes]), ..Receipt::default() };
        let header = BlockHeader { number, ..BlockHeader::default() };
        Arc::new(Block { header, hash: B256::ZERO, signatures: Vec::new(), transactions: Vec::new(), receipts: vec![receipt] })
    }

    #[test]
    fn recent_blocks_are_bounded_by_count_and_bytes() {
        let mut recent = Recent::default();
        assert!(recent.get(0).is_none());
        recent.push((10..200).map(|number| block(number, 10)));
        assert!(recent.get(135).is_none() && recent.get(200).is_none());
        assert!((136..200).all(|number| recent.get(number).is_some_and(|block| block.header.number == number)));
        let retired = recent.push(std::iter::once(block(200, RECENT_BYTES)));
        assert_eq!(retired.len(), 64);
        assert!(recent.get(200).is_some(), "the last one is kept whatever its size");
        recent.push(std::iter::once(block(201, 10)));
        assert!(recent.get(200).is_none() && recent.get(201).is_some());
    }
}
