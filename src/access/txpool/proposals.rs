//! The pool as proposals use it: handing out, claiming, completing and judging their transactions.
//!
//! Invariant: whether a set of transactions may be a block is judged by the block's height alone: by the nonces of the 1,000 blocks
//! below it, committed or in flight, and by block limits counted from the height below. What else this node happens to hold, and how
//! far it has committed, has no influence; so nodes at different heads judge alike. Called by the order stage.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use millrace_base::limits::{BLOCK_LIMIT_WINDOW, MAX_BLOCK_BYTES, MAX_BLOCK_TRANSACTIONS};
use millrace_base::{B256, U256, VerifiedTx};

use super::queue::Wish;
use super::refusal::Reason;
use super::{MAX_UNREPORTED, Submitter, TxPool};

/// What became of [`TxPool::judge`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The transactions may be the block.
    Fit,
    /// They may not: one of them can stand in no block of this height behind those below.
    Unfit(String),
    /// A block of this height has been committed meanwhile; there is nothing to judge.
    Passed,
}

impl TxPool {
    /// Hands out waiting transactions for a proposal of this node at `height`, oldest first: at most `max_count`, together at most
    /// `max_bytes` encoded, but always the first. They stay in the pool, reserved, until they are committed or come back.
    pub fn take(&self, height: u64, max_count: usize, max_bytes: usize, now_ms: u64) -> Vec<VerifiedTx> {
        self.take_free(Wish { height, count: max_count, bytes: max_bytes, expired: 0 }, now_ms, |_| true)
    }

    /// As [`Self::take`], a whole block at most, passing over transactions whose nonce a proposal in flight has used.
    pub fn take_behind(&self, height: u64, max_count: usize, now_ms: u64, in_flight: impl Fn(&U256) -> bool) -> Vec<VerifiedTx> {
        let wish = Wish { height, count: max_count.min(MAX_BLOCK_TRANSACTIONS), bytes: MAX_BLOCK_BYTES, expired: 0 };
        self.take_free(wish, now_ms, |nonce| !in_flight(nonce))
    }

    fn take_free(&self, wish: Wish, now_ms: u64, is_free: impl Fn(&U256) -> bool) -> Vec<VerifiedTx> {
        let expired = MAX_UNREPORTED.saturating_sub(self.unreported.lock().len());
        let wish = Wish { expired, ..wish };
        let (mut taken, mut leaving) = (Vec::new(), Vec::new());
        self.change(|queue| queue.take(wish, self.moment(now_ms), is_free, &mut taken, &mut leaving));
        let dropped = self.remove(&leaving);
        self.unreported.lock().extend(dropped);
        taken
    }

    /// Reserves transactions that somebody else's proposal at `height` names and returns, in the same order, those that are here.
    /// To be called before sealing above `height`, or a later proposal may contain them again.
    pub fn claim(&self, height: u64, hashes: &[B256]) -> Vec<Option<VerifiedTx>> {
        let found: Vec<_> = hashes.iter().map(|hash| self.find(hash)).collect();
        self.change(|queue| {
            for (hash, (_, node)) in hashes.iter().zip(&found).filter_map(|(hash, found)| Some((*hash, found.as_ref()?))) {
                queue.claim(*node, hash, height);
            }
        });
        let mut shelf = self.shelf.lock();
        hashes.iter().zip(found).map(|(hash, found)| found.map(|(one, _)| one).or_else(|| shelf.claim(height, hash))).collect()
    }

    /// The proposal at `height` lacks these transactions: [`Self::admit`] takes them in from [`Submitter::REPAIR`] whatever the pool's
    /// limits. Replaces what was wanted for the height before. The proposals in flight bound what is wanted.
    pub fn want(&self, height: u64, hashes: &[B256]) {
        let mut shelf = self.shelf.lock();
        shelf.want(height, hashes);
        self.wanted.store(shelf.wanted(), Ordering::Release);
    }

    /// Transactions of a block or proposal that came whole: keeps those that the pool does not have, so that others can be given them.
    pub fn hold(&self, height: u64, transactions: &[VerifiedTx]) {
        let unknown = transactions.iter().filter(|transaction| !self.transactions.contains_key(&transaction.hash()));
        let mut shelf = self.shelf.lock();
        unknown.for_each(|transaction| shelf.hold(height, transaction));
    }

    /// Rises whenever a transaction that a proposal wants has come, however it came.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    /// Transactions of proposals in flight that have no place in the queue.
    pub fn shelved(&self) -> usize {
        self.shelf.lock().len()
    }

    /// Judges whether these transactions, in this order, may be the block at `height`. `in_flight` says whether a proposal between the
    /// head and `height` has used a nonce; all of these must be known.
    pub fn judge(&self, height: u64, transactions: &[VerifiedTx], in_flight: impl Fn(&U256) -> bool) -> Verdict {
        let fault = self.find_fault(height, transactions, in_flight);
        // Read last: once the height is committed, its own nonces are in the window and the oldest are gone.
        match fault {
            _ if self.head() >= height => Verdict::Passed,
            Some(fault) => Verdict::Unfit(fault),
            None => Verdict::Fit,
        }
    }

    fn find_fault(&self, height: u64, transactions: &[VerifiedTx], in_flight: impl Fn(&U256) -> bool) -> Option<String> {
        if transactions.len() > MAX_BLOCK_TRANSACTIONS {
            return Some(format!("{} transactions, a block has at most {MAX_BLOCK_TRANSACTIONS}", transactions.len()));
        }
        let bytes: usize = transactions.iter().map(|transaction| transaction.encoded().len()).sum();
        if bytes > MAX_BLOCK_BYTES && transactions.len() > 1 {
            return Some(format!("{bytes} bytes of transactions, a block has at most {MAX_BLOCK_BYTES}"));
        }
        let mut nonces = HashSet::with_capacity(transactions.len());
        for transaction in transactions {
            let fields = transaction.fields();
            let fault = if fields.chain_id != U256::from(self.config.chain_id) {
                "is signed for another chain"
            } else if fields.group_id != U256::from(self.config.group.get()) {
                "is signed for another group"
            } else if fields.block_limit < U256::from(height) {
                "has expired by its block limit"
            } else if fields.block_limit > U256::from(height.saturating_sub(1)) + U256::from(BLOCK_LIMIT_WINDOW) {
                "has a block limit too far ahead"
            } else if fields.nonce == U256::MAX || self.was_used(height, &fields.nonce) || in_flight(&fields.nonce) {
                "has a nonce that a block before it has used"
            } else if !nonces.insert(fields.nonce) {
                "has a nonce that another transaction of the proposal has"
            } else {
                continue;
            };
            return Some(format!("transaction {} {fault}", transaction.hash()));
        }
        None
    }

    /// Whether one of the 1,000 blocks below `height` has used the nonce, as far as they are committed.
    fn was_used(&self, height: u64, nonce: &U256) -> bool {
        let (shard, hash) = self.shard(nonce);
        shard.lock().window.was_used(nonce, hash, height.saturating_sub(BLOCK_LIMIT_WINDOW), height.saturating_sub(1))
    }

    /// The cheap part of [`Self::admit_wanted`].
    pub(super) fn check_wanted(&self, hash: &B256) -> Result<(), Reason> {
        let is_wanted = !self.transactions.contains_key(hash) && self.shelf.lock().is_wanted(hash);
        if is_wanted { Ok(()) } else { Err(Reason::Known) }
    }

    /// Takes in what a proposal wants. Nothing else is checked: the proposal is judged as a whole, and by its height.
    pub(super) fn admit_wanted(&self, transaction: &VerifiedTx) -> Result<(), Reason> {
        let mut shelf = self.shelf.lock();
        let kept = shelf.keep(transaction);
        self.wanted.store(shelf.wanted(), Ordering::Release);
        if !kept {
            return Err(Reason::Known);
        }
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// A transaction has come by another door; a proposal may have been waiting for it.
    pub(super) fn note_arrival(&self, hash: &B256) {
        if self.wanted.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut shelf = self.shelf.lock();
        if shelf.arrived(hash) {
            self.wanted.store(shelf.wanted(), Ordering::Release);
            self.arrivals.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Makes everything that is reserved for heights above `height` available again. What other nodes gave comes into the queue if the
    /// limits allow it; otherwise those that accepted it have it still.
    pub fn void_above(&self, height: u64, now_ms: u64) {
        self.change(|queue| queue.void_above(height));
        let back = {
            let mut shelf = self.shelf.lock();
            let back = shelf.void_above(height);
            self.wanted.store(shelf.wanted(), Ordering::Release);
            back
        };
        for transaction in back {
            let _ = self.try_admit(&transaction, Submitter::REPAIR, now_ms);
        }
    }

    /// The block at `height` is committed: nothing is wanted or kept for it.
    pub(super) fn settle_shelf(&self, height: u64) {
        let mut shelf = self.shelf.lock();
        shelf.settle(height);
        self.wanted.store(shelf.wanted(), Ordering::Release);
    }
}
