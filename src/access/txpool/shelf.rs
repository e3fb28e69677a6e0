//! Transactions of proposals in flight that have no place in the queue: asked from other nodes, or brought by a block.
//!
//! Invariants: nothing is taken in from another node unless a proposal wants it, so a full pool cannot keep a proposal from being
//! completed and a peer cannot fill memory by it; each height holds at most a block's bytes and one transaction more; whatever is here
//! goes when its height is committed or void. Called by [`super::TxPool`] under a lock of its own, which nests in no other.

use std::collections::{BTreeMap, HashMap};

use millrace_base::limits::MAX_BLOCK_BYTES;
use millrace_base::{B256, VerifiedTx};

struct Kept {
    transaction: VerifiedTx,
    height: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Shelf {
    /// Height of the proposal that lacks it.
    wanted: HashMap<B256, u64>,
    kept: HashMap<B256, Kept>,
    /// Encoded bytes kept, by height.
    bytes: BTreeMap<u64, usize>,
}

impl Shelf {
    /// The proposal at `height` lacks these; what was wanted for the height before is not any more.
    pub(super) fn want(&mut self, height: u64, hashes: &[B256]) {
        self.wanted.retain(|_, wanted_for| *wanted_for != height);
        self.wanted.extend(hashes.iter().filter(|hash| !self.kept.contains_key(*hash)).map(|hash| (*hash, height)));
    }

    pub(super) fn is_wanted(&self, hash: &B256) -> bool {
        self.wanted.contains_key(hash)
    }

    /// Hashes that are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// The transaction is in the queue now. Whether it was wanted.
    pub(super) fn arrived(&mut self, hash: &B256) -> bool {
        self.wanted.remove(hash).is_some()
    }

    /// Keeps a transaction that is wanted, unless its proposal has more bytes than a block may have. Whether it was kept.
    pub(super) fn keep(&mut self, transaction: &VerifiedTx) -> bool {
        let Some(height) = self.wanted.get(&transaction.hash()).copied() else { return false };
        if self.bytes.get(&height).is_some_and(|bytes| *bytes > MAX_BLOCK_BYTES) {
            return false;
        }
        self.wanted.remove(&transaction.hash());
        self.hold(height, transaction);
        true
    }

    /// Keeps a transaction of the proposal at `height`, wanted or not.
    pub(super) fn hold(&mut self, height: u64, transaction: &VerifiedTx) {
        let hash = transaction.hash();
        if self.claim(height, &hash).is_none() {
            self.wanted.remove(&hash);
            self.kept.insert(hash, Kept { transaction: transaction.clone(), height });
            *self.bytes.entry(height).or_default() += transaction.encoded().len();
        }
    }

    pub(super) fn get(&self, hash: &B256) -> Option<&VerifiedTx> {
        self.kept.get(hash).map(|kept| &kept.transaction)
    }

    /// The transaction, from now on kept for the proposal at `height`.
    pub(super) fn claim(&mut self, height: u64, hash: &B256) -> Option<VerifiedTx> {
        let kept = self.kept.get_mut(hash)?;
        let before = std::mem::replace(&mut kept.height, height);
        let transaction = kept.transaction.clone();
        self.subtract(before, transaction.encoded().len());
        *self.bytes.entry(height).or_default() += transaction.encoded().len();
        Some(transaction)
    }

    fn subtract(&mut self, height: u64, length: usize) {
        if let Some(bytes) = self.bytes.get_mut(&height) {
            *bytes -= length;
            if *bytes == 0 {
                self.bytes.remove(&height);
            }
        }
    }

    /// The block at `height` is committed: nothing is wanted or kept for it or below any more.
    pub(super) fn settle(&mut self, height: u64) {
        self.wanted.retain(|_, wanted_for| *wanted_for > height);
        if self.bytes.first_key_value().is_none_or(|(lowest, _)| *lowest > height) {
            return;
        }
        self.kept.retain(|_, kept| kept.height > height);
        self.bytes.retain(|kept_for, _| *kept_for > height);
        if self.kept.is_empty() {
            self.kept.shrink_to(1_024);
        }
    }

    /// Proposals above `height` are void: gives what was kept for them.
    pub(super) fn void_above(&mut self, height: u64) -> Vec<VerifiedTx> {
        self.wanted.retain(|_, wanted_for| *wanted_for <= height);
        if self.bytes.last_key_value().is_none_or(|(highest, _)| *highest <= height) {
            return Vec::new();
        }
        self.bytes.retain(|kept_for, _| *kept_for <= height);
        let void = self.kept.extract_if(|_, kept| kept.height > height);
        let mut back: Vec<VerifiedTx> = void.map(|(_, kept)| kept.transaction).collect();
        // The map's order is chance; pools are filled in the same order in every run of the simulator.
        back.sort_unstable_by_key(VerifiedTx::hash);
        back
    }

    /// Transactions kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}
