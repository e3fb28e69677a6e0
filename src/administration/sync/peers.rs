//! What sync knows of each connected member: what it claims, how fast it is, and how far it can be trusted.
//!
//! Invariant: a claim decides whom to ask, never what is true. A hold is a preference with an end: a peer that was wronged serves again.

use std::collections::BTreeMap;

use millrace_base::{B256, NodeId};

use super::limits::{
    ASSUMED_BYTES_PER_S, FIRST_TIMEOUT_MS, FORGET_MS, HOLD_RANGE_MS, LEAST_REQUEST_BYTES, MAX_DOUBLINGS, MAX_PEERS, MAX_REQUESTS_A_PEER,
    REQUEST_BYTES, TIMEOUT_RANGE_MS,
};

/// A peer's durable head, as it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub height: u64,
    pub hash: B256,
    /// It serves no block below.
    pub kept_from: u64,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct Peer {
    pub is_connected: bool,
    pub claim: Option<Claim>,
    /// Requests on their way.
    pub in_flight: usize,
    /// Not asked before this time.
    pub hold_until_ms: u64,
    /// Lies found.
    pub lies: u32,
    pub last_lie_ms: u64,
    pub last_lie: String,
    /// Requests in a row that it did not answer in time.
    pub timeouts: u32,
    /// 0: not known.
    pub bytes_per_s: u64,
}

fn doubled(first: u64, times: u32, most: u64) -> u64 {
    first.saturating_mul(1 << times.min(MAX_DOUBLINGS)).min(most)
}

impl Peer {
    pub fn is_usable(&self, now_ms: u64) -> bool {
        self.is_connected && self.hold_until_ms <= now_ms
    }

    /// Bytes to ask it for: less of a peer that lets requests time out.
    pub fn request_bytes(&self) -> u32 {
        (REQUEST_BYTES >> self.timeouts.min(MAX_DOUBLINGS + 1)).max(LEAST_REQUEST_BYTES)
    }

    fn speed(&self) -> u64 {
        if self.bytes_per_s == 0 { ASSUMED_BYTES_PER_S >> self.timeouts.min(MAX_DOUBLINGS) } else { self.bytes_per_s }.max(1)
    }

    /// When it would have answered one more request, milliseconds from now.
    fn answers_in_ms(&self) -> u64 {
        let bytes = u64::from(self.request_bytes()) * (self.in_flight as u64 + 1);
        bytes.saturating_mul(1_000) / self.speed()
    }

    /// How long to wait for its answer.
    pub fn timeout_ms(&self) -> u64 {
        let (least, most) = TIMEOUT_RANGE_MS;
        let patience = if self.bytes_per_s == 0 { FIRST_TIMEOUT_MS } else { 4 * self.answers_in_ms() + 500 };
        doubled(patience.clamp(least, most), self.timeouts, most)
    }

    pub fn answered(&mut self, bytes: usize, took_ms: u64) {
        self.timeouts = 0;
        let measured = (bytes as u64).saturating_mul(1_000) / took_ms.max(1);
        self.bytes_per_s = if self.bytes_per_s == 0 { measured } else { (3 * self.bytes_per_s + measured) / 4 }.max(1);
    }

    /// It did not answer: asked for less, later, and only when nobody is faster.
    pub fn timed_out(&mut self, now_ms: u64) {
        self.timeouts = self.timeouts.saturating_add(1);
        self.bytes_per_s /= 2;
        self.hold(doubled(HOLD_RANGE_MS.0 / 8, self.timeouts - 1, HOLD_RANGE_MS.1), now_ms);
    }

    pub fn hold(&mut self, for_ms: u64, now_ms: u64) {
        self.hold_until_ms = self.hold_until_ms.max(now_ms.saturating_add(for_ms));
    }

    /// It said what is not so. Gives the time for which it is not asked.
    pub fn lied(&mut self, reason: &str, now_ms: u64) -> u64 {
        if now_ms.saturating_sub(self.last_lie_ms) > FORGET_MS {
            self.lies = 0;
        }
        let for_ms = doubled(HOLD_RANGE_MS.0, self.lies, HOLD_RANGE_MS.1);
        self.lies = self.lies.saturating_add(1);
        self.last_lie_ms = now_ms;
        reason.clone_into(&mut self.last_lie);
        self.hold(for_ms, now_ms);
        for_ms
    }
}

/// Members by node id: those that are connected, and those that were, so that a new connection does not wipe out what is known of them.
#[derive(Default, Debug)]
pub(super) struct Peers(pub BTreeMap<NodeId, Peer>);

impl Peers {
    /// `false` when there is no room.
    pub fn connect(&mut self, node: NodeId) -> bool {
        if !self.0.contains_key(&node) && self.0.len() >= MAX_PEERS {
            let Some(gone) = self.0.iter().find(|(_, peer)| !peer.is_connected).map(|(gone, _)| *gone) else { return false };
            self.0.remove(&gone);
        }
        self.0.entry(node).or_default().is_connected = true;
        true
    }

    pub fn disconnect(&mut self, node: &NodeId) {
        if let Some(peer) = self.0.get_mut(node) {
            (peer.is_connected, peer.claim, peer.in_flight) = (false, None, 0);
        }
    }

    pub fn connected(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.0.iter().filter(|(_, peer)| peer.is_connected)
    }

    /// The highest claim of a peer that may be asked.
    pub fn target(&self, now_ms: u64) -> u64 {
        let usable = self.0.values().filter(|peer| peer.is_usable(now_ms));
        usable.filter_map(|peer| peer.claim).map(|claim| claim.height).max().unwrap_or(0)
    }

    /// The lowest block above `height` that a peer ahead of it serves, when none serves the very next: blocks alone do not close the gap.
    pub fn out_of_reach(&self, height: u64) -> Option<u64> {
        let ahead = || self.0.values().filter(|peer| peer.is_connected).filter_map(|peer| peer.claim).filter(|claim| claim.height > height);
        let lowest = ahead().map(|claim| claim.kept_from).min()?;
        (lowest > height + 1).then_some(lowest)
    }

    /// The highest head that more sealers claim than can be faulty: at least one honest one has it, or something above it.
    pub fn vouched(&self, sealers: &[NodeId]) -> Option<Claim> {
        let mut claims: Vec<Claim> = sealers.iter().filter_map(|sealer| self.0.get(sealer)?.claim).collect();
        claims.sort_unstable_by_key(|claim| std::cmp::Reverse(claim.height));
        claims.get(sealers.len().saturating_sub(1) / 3).copied()
    }

    /// Who would answer a request for this height first.
    pub fn pick(&self, height: u64, now_ms: u64, except: Option<NodeId>) -> Option<NodeId> {
        let able = self.0.iter().filter(|(node, peer)| {
            Some(**node) != except
                && peer.is_usable(now_ms)
                && peer.in_flight < MAX_REQUESTS_A_PEER
                && peer.claim.is_some_and(|claim| claim.height >= height && claim.kept_from <= height)
        });
        // Each lie makes it look twice as slow.
        let rank = |peer: &Peer| peer.answers_in_ms().saturating_mul(1 << peer.lies.min(MAX_DOUBLINGS));
        able.min_by_key(|(node, peer)| (rank(peer), **node)).map(|(node, _)| *node)
    }
}
