//! How much AMOP each peer may send: what it sends is done for this node's clients at once, behind no queue that could hold it up.
//!
//! Invariants: a peer has a budget of its own, far above what clients send, and takes nothing of the others'; what is beyond it is
//! dropped before it is decoded, and like what cannot be read it is counted for the status under the peer's id, and named in the log once a minute. The table holds peers
//! with a session, and as many others as were dropped from. Asked by the network's threads ([`super::network`]).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use millrace_base::{NodeId, hex};
use millrace_rpc::quota::Rate;
use parking_lot::Mutex;

/// Bytes a second of one peer: a third of a gigabit line, far above what one node's clients send.
const BYTES_A_SECOND: u64 = 32 << 20;

/// What a message costs besides its bytes: 8,192 empty ones are a second's worth.
const MESSAGE_BYTES: u64 = 4 << 10;

/// Least time between two lines in the log about one peer.
const LOG_INTERVAL_MS: u64 = 60_000;

/// Peers that are kept track of: more than a chain has nodes.
const PEERS: usize = 4_096;

struct Peer {
    rate: Rate,
    dropped: u64,
    logged_ms: Option<u64>,
}

impl Peer {
    fn drop_one(&mut self, peer: &NodeId, why: &str, now_ms: u64) {
        self.dropped += 1;
        if self.logged_ms.is_none_or(|logged_ms| now_ms.saturating_sub(logged_ms) >= LOG_INTERVAL_MS) {
            self.logged_ms = Some(now_ms);
            tracing::warn!(%peer, dropped = self.dropped, why, "messages of a peer for clients are dropped");
        }
    }
}

/// See the module.
pub(super) struct PeerRates {
    started: Instant,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

impl Default for PeerRates {
    fn default() -> Self {
        Self { started: Instant::now(), peers: Mutex::default() }
    }
}

impl PeerRates {
    /// Whether a message of so many bytes is taken from the peer now.
    pub fn admit(&self, peer: NodeId, bytes: usize) -> bool {
        self.admit_at(peer, bytes, self.now_ms())
    }

    fn admit_at(&self, peer: NodeId, bytes: usize, now_ms: u64) -> bool {
        let mut peers = self.peers.lock();
        if peers.len() >= PEERS && !peers.contains_key(&peer) {
            return false;
        }
        let known = peers.entry(peer).or_insert_with(|| Peer { rate: Rate::new(BYTES_A_SECOND), dropped: 0, logged_ms: None });
        let cost = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(MESSAGE_BYTES);
        let is_admitted = known.rate.take(cost, now_ms);
        if !is_admitted {
            known.drop_one(&peer, "it sends more than any node has to", now_ms);
        }
        is_admitted
    }

    /// A message that was admitted cannot be read.
    pub fn unreadable(&self, peer: NodeId, error: &dyn Display) {
        let now_ms = self.now_ms();
        if let Some(known) = self.peers.lock().get_mut(&peer) {
            known.drop_one(&peer, &format!("it cannot be read: {error}"), now_ms);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A peer's session is over. One that was dropped from stays known.
    pub fn gone(&self, peer: &NodeId) {
        let mut peers = self.peers.lock();
        if peers.get(peer).is_some_and(|known| known.dropped == 0) {
            peers.remove(peer);
        }
    }

    /// Messages dropped since the start, by the first digits of the peer's id; peers without any are left out.
    pub fn dropped(&self) -> Vec<(String, u64)> {
        let peers = self.peers.lock();
        let dropped = peers.iter().filter(|(_, known)| known.dropped > 0);
        dropped.map(|(peer, known)| (hex::encode(&peer.0[..4]), known.dropped)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_that_floods_is_cut_to_its_rate_named_and_takes_nothing_of_others() {
        let rates = PeerRates::default();
        let (loud, quiet) = (NodeId([1; 64]), NodeId([2; 64]));
        let taken = |peer, bytes, now_ms| (0..100_000).take_while(|_| rates.admit_at(peer, bytes, now_ms)).count();
        assert_eq!(taken(loud, 0, 5_000), 8_192);
        assert_eq!(taken(loud, 0, 5_000), 0);
        assert_eq!(taken(loud, 1 << 20, 7_000), 31);
        assert!(rates.admit_at(quiet, 16 << 20, 7_000), "the largest frame of another");
        assert_eq!(rates.dropped(), [("01010101".to_owned(), 3)]);
        rates.gone(&loud);
        rates.gone(&quiet);
        assert_eq!((rates.dropped().len(), rates.peers.lock().len()), (1, 1), "what was done is not forgotten");
    }
}
