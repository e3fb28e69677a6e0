//! How long bodies and receipts of blocks are kept.
//!
//! Invariants: what goes, goes in the batch of a block together with the note of the first height that is kept, so a crash leaves both
//! or neither; one block takes a bounded number of older ones with it; headers, indices, block 0, and the blocks whose nonces count
//! always stay.

use std::sync::atomic::{AtomicU64, Ordering};

use millrace_base::limits::{BLOCK_LIMIT_WINDOW, LEAST_KEPT_BLOCKS};
use millrace_base::wire;
use millrace_core::storage::height_key;
use millrace_core::{Batch, Space};

use super::batch::meta;

const _: () = assert!(LEAST_KEPT_BLOCKS > BLOCK_LIMIT_WINDOW, "a block must be here for as long as its nonces count");

/// Blocks that one commit takes away at most: a chain that is switched to pruning shrinks many times faster than it grows, and no
/// commit is slowed by it.
const PRUNED_A_BLOCK: u64 = 32;

/// See the module.
pub(super) struct Retention {
    /// Blocks to keep; `u64::MAX` is all.
    keep: AtomicU64,
    /// The lowest height above 0 that readers may expect.
    first: AtomicU64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: AtomicU64::new(u64::MAX), first: AtomicU64::new(1) }
    }
}

impl Retention {
    pub fn keep(&self, blocks: Option<u64>) {
        self.keep.store(blocks.map_or(u64::MAX, |blocks| blocks.max(LEAST_KEPT_BLOCKS)), Ordering::Relaxed);
    }

    /// Whether anything ever goes.
    pub fn is_bounded(&self) -> bool {
        self.keep.load(Ordering::Relaxed) != u64::MAX
    }

    pub fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    pub fn set_first(&self, first: u64) {
        self.first.store(first, Ordering::Release);
    }

    /// Adds to the batch of block `number` what goes with it; `first` is the first height that is kept before it, the result the one
    /// after it. Readers expect nothing below from now on, before it is gone.
    pub fn prune(&self, batch: &mut Batch, first: u64, number: u64) -> u64 {
        let wanted = number.saturating_add(1).saturating_sub(self.keep.load(Ordering::Relaxed));
        if wanted <= first {
            return first;
        }
        let end = wanted.min(first + PRUNED_A_BLOCK);
        for space in [Space::Body, Space::Receipts] {
            (first..end).for_each(|height| batch.delete(space, height_key(height)));
        }
        batch.put(Space::Meta, meta::KEPT_FROM, wire::encode(&end));
        self.set_first(end);
        end
    }
}
