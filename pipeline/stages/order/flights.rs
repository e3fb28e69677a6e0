//! The contents of the heights in flight: what stands between the last durable block and the next proposal.
//!
//! Invariants: heights are known without gaps from the last durable one, so when a height can be judged, everything below it is known;
//! a height that is given other content takes those above it along, since they were built on the old one.

use std::collections::{HashMap, VecDeque};

use millrace_base::{B256, U256, VerifiedTx};

struct Flight {
    hashes: Vec<B256>,
    nonces: Vec<U256>,
}

/// See the module.
pub(super) struct Flights {
    /// Last durable height.
    base: u64,
    /// From `base + 1` up.
    above: VecDeque<Flight>,
    /// The height that uses a nonce; the lowest of several.
    nonces: HashMap<U256, u64>,
}

impl Flights {
    pub fn new(base: u64) -> Self {
        Self { base, above: VecDeque::new(), nonces: HashMap::new() }
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    /// Highest height whose content is known.
    pub fn top(&self) -> u64 {
        self.base + self.above.len() as u64
    }

    /// Whether the height is above the last durable one and everything below it is known.
    pub fn is_next_to(&self, height: u64) -> bool {
        height > self.base && height <= self.top() + 1
    }

    fn index(&self, height: u64) -> Option<usize> {
        usize::try_from(height.checked_sub(self.base + 1)?).ok()
    }

    /// Whether this is the content of the height.
    pub fn holds(&self, height: u64, hashes: &[B256]) -> bool {
        self.index(height).and_then(|index| self.above.get(index)).is_some_and(|flight| flight.hashes == hashes)
    }

    /// Whether a height in flight below `height` uses the nonce.
    pub fn uses_below(&self, height: u64, nonce: &U256) -> bool {
        self.nonces.get(nonce).is_some_and(|user| *user < height)
    }

    /// The content of a height; its former content, and those above, are forgotten.
    pub fn put(&mut self, height: u64, transactions: &[VerifiedTx]) {
        assert!(self.is_next_to(height), "heights become known in order");
        self.forget_from(height);
        let nonces: Vec<U256> = transactions.iter().map(|transaction| transaction.fields().nonce).collect();
        for nonce in &nonces {
            self.nonces.entry(*nonce).or_insert(height);
        }
        self.above.push_back(Flight { hashes: transactions.iter().map(VerifiedTx::hash).collect(), nonces });
    }

    /// Forgets the contents of `height` and above.
    pub fn forget_from(&mut self, height: u64) {
        while self.top() >= height
            && let Some(flight) = self.above.pop_back()
        {
            let dead = self.top() + 1;
            self.forget(&flight, dead);
        }
    }

    fn forget(&mut self, flight: &Flight, height: u64) {
        for nonce in &flight.nonces {
            if self.nonces.get(nonce) == Some(&height) {
                self.nonces.remove(nonce);
            }
        }
        if self.nonces.is_empty() {
            self.nonces.shrink_to(1_024);
        }
    }

    /// Blocks up to the height are durable.
    pub fn committed(&mut self, height: u64) {
        while self.base < height
            && let Some(flight) = self.above.pop_front()
        {
            self.base += 1;
            let durable = self.base;
            self.forget(&flight, durable);
        }
        self.base = self.base.max(height);
    }
}
