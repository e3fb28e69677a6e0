//! One proposal of another sealer whose transactions are being collected: from the pool, and where the pool lacks them from the nodes
//! that vouched for it, one after the other.

use millrace_access::txpool::TxPool;
use millrace_base::{B256, Bytes, NodeId, VerifiedTx};

use crate::transfer::{MAX_TRANSFER_ITEMS, TransferMessage};

/// How long a holder has to answer before the next one is asked.
const ANSWER_MS: u64 = 200;

/// The same after several rounds without success.
const MAX_ANSWER_MS: u64 = 3_200;

/// See the module.
pub(super) struct Gather {
    pub digest: B256,
    pub hashes: Vec<B256>,
    found: Vec<Option<VerifiedTx>>,
    missing: usize,
    /// What the pool held for the height may have been released meanwhile.
    reclaim: bool,
    /// [`TxPool::arrivals`] when the pool was looked at last.
    arrivals: u64,
    /// Best first.
    holders: Vec<NodeId>,
    /// Who is asked next.
    next: usize,
    answer_ms: u64,
    /// When somebody is to be asked; `None` while nothing is missing or there is nobody.
    ask_at_ms: Option<u64>,
}

impl Gather {
    pub fn new(digest: B256, hashes: Vec<B256>, holders: Vec<NodeId>) -> Self {
        let found = vec![None; hashes.len()];
        let missing = hashes.len();
        let (reclaim, arrivals, next, answer_ms, ask_at_ms) = (true, 0, 0, ANSWER_MS, None);
        Self { digest, hashes, found, missing, reclaim, arrivals, holders, next, answer_ms, ask_at_ms }
    }

    /// Who was named as having the transactions.
    pub fn into_holders(self) -> Vec<NodeId> {
        self.holders
    }

    /// The same proposal again, with more nodes to ask.
    pub fn add_holders(&mut self, holders: Vec<NodeId>) {
        let more: Vec<_> = holders.into_iter().filter(|holder| !self.holders.contains(holder)).collect();
        if !more.is_empty() {
            // The new ones have not failed yet: they are next.
            self.next = self.holders.len();
            self.holders.extend(more);
        }
    }

    /// The pool's reservations for this height were released.
    pub fn release(&mut self) {
        self.reclaim = true;
    }

    pub fn ask_at_ms(&self) -> Option<u64> {
        self.ask_at_ms
    }

    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The transactions in order, once all are there.
    pub fn complete(&self) -> Option<Vec<VerifiedTx>> {
        self.found.iter().cloned().collect()
    }

    /// Looks into the pool for what is missing, if anything may have changed there.
    pub fn collect(&mut self, height: u64, pool: &TxPool, now_ms: u64) {
        let arrivals = pool.arrivals();
        if !self.reclaim && (self.missing == 0 || arrivals == self.arrivals) {
            return;
        }
        self.arrivals = arrivals;
        let before = self.missing;
        if std::mem::take(&mut self.reclaim) {
            let claimed = pool.claim(height, &self.hashes);
            for (found, claimed) in self.found.iter_mut().zip(claimed) {
                match (claimed, &mut *found) {
                    (None, Some(kept)) => pool.hold(height, std::slice::from_ref(kept)),
                    (None, None) => {}
                    (claimed, place) => *place = claimed,
                }
            }
            self.count_missing();
            if self.missing > 0 {
                pool.want(height, &self.missing_hashes());
            }
        }
        if self.missing > 0 {
            // Also right after asking for them to be let in: some may have come in between.
            let hashes = self.missing_hashes();
            let mut claimed = pool.claim(height, &hashes).into_iter();
            self.found.iter_mut().filter(|found| found.is_none()).for_each(|found| *found = claimed.next().flatten());
            self.count_missing();
        }
        self.ask_at_ms = match self.ask_at_ms {
            _ if self.missing == 0 || self.holders.is_empty() => None,
            // An answer is under way: the rest of it may take a moment.
            Some(_) if self.missing < before => Some(now_ms + self.answer_ms),
            Some(at_ms) => Some(at_ms),
            None => Some(now_ms),
        };
    }

    fn count_missing(&mut self) {
        self.missing = self.found.iter().filter(|found| found.is_none()).count();
    }

    fn missing_hashes(&self) -> Vec<B256> {
        self.hashes.iter().zip(&self.found).filter(|(_, found)| found.is_none()).map(|(hash, _)| *hash).collect()
    }

    /// Whom to ask now, and with which messages. `connected` is sorted; who is not in it is passed over while another one is.
    pub fn ask(&mut self, now_ms: u64, connected: &[NodeId]) -> Option<(NodeId, Vec<Bytes>)> {
        let due_ms = self.ask_at_ms?;
        if self.missing == 0 || self.holders.is_empty() {
            self.ask_at_ms = None;
            return None;
        }
        // A clock that was set back must not delay the question.
        if now_ms < due_ms && due_ms <= now_ms + MAX_ANSWER_MS {
            return None;
        }
        let count = self.holders.len();
        let is_there = |offset: &usize| connected.binary_search(&self.holders[(self.next + offset) % count]).is_ok();
        let skipped = (0..count).find(is_there).unwrap_or(0);
        let asked = self.next + skipped;
        self.next = (asked + 1) % count;
        self.ask_at_ms = Some(now_ms + self.answer_ms);
        if asked + 1 >= count {
            self.answer_ms = (self.answer_ms * 2).min(MAX_ANSWER_MS);
        }
        let hashes = self.missing_hashes();
        let messages = hashes.chunks(MAX_TRANSFER_ITEMS).map(|hashes| TransferMessage::Want { hashes: hashes.to_vec() }.encode());
        Some((self.holders[asked % count], messages.collect()))
    }
}
