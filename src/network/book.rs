//! The addresses this node connects to, with what came of it. The first loop asks what is due and reports what happened.
//!
//! ```text
//! Waiting -> Connecting -> Connected -> Waiting
//!    ^           |  \
//!    +-----------+   -> Own (never tried again)
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_base::NodeId;
use rand::Rng;

use crate::NetworkLimits;
use crate::ending::{EndReason, Ending};
use crate::limits::STABLE;

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// The next attempt comes by itself.
    Waiting,
    /// An attempt is in progress.
    Connecting,
    /// A session with the node behind it is open, whoever connected.
    Connected,
    /// It is this node's own address.
    Own,
}

/// A picture of one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// As configured or added.
    pub address: SocketAddr,
    /// Where it stands.
    pub state: PeerState,
    /// The node that was found behind it.
    pub node_id: Option<NodeId>,
    /// Why the last attempt or session ended, with what to do; kept until a session opens.
    pub last_error: Option<String>,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// Time to the next attempt, when waiting.
    pub next_attempt: Option<Duration>,
}

struct Entry {
    address: SocketAddr,
    state: PeerState,
    node_id: Option<NodeId>,
    last_error: Option<String>,
    failures: u32,
    next: Instant,
    opened: Option<Instant>,
}

impl Entry {
    fn new(address: SocketAddr, now: Instant) -> Self {
        Self { address, state: PeerState::Waiting, node_id: None, last_error: None, failures: 0, next: now, opened: None }
    }

    fn waits(&self, is_connected: &dyn Fn(&NodeId) -> bool) -> bool {
        self.state == PeerState::Waiting && !self.node_id.as_ref().is_some_and(is_connected)
    }
}

/// See the module.
pub(crate) struct PeerBook {
    entries: Vec<Entry>,
    first: Duration,
    cap: Duration,
}

impl PeerBook {
    pub fn new(addresses: Vec<SocketAddr>, limits: &NetworkLimits, now: Instant) -> Self {
        let entries = addresses.into_iter().map(|address| Entry::new(address, now)).collect();
        Self { entries, first: limits.reconnect_first, cap: limits.reconnect_cap }
    }

    pub fn contains(&self, address: &SocketAddr) -> bool {
        self.entries.iter().any(|entry| entry.address == *address)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn add(&mut self, address: SocketAddr, now: Instant) {
        if !self.contains(&address) {
            self.entries.push(Entry::new(address, now));
        }
    }

    /// Forgets an address; the node that was found behind it.
    pub fn erase(&mut self, address: &SocketAddr) -> Option<NodeId> {
        let index = self.entries.iter().position(|entry| entry.address == *address)?;
        self.entries.remove(index).node_id
    }

    /// Addresses to connect to now; they count as connecting from here on.
    pub fn take_due(&mut self, now: Instant, is_connected: &dyn Fn(&NodeId) -> bool) -> Vec<SocketAddr> {
        let due = self.entries.iter_mut().filter(|entry| entry.next <= now && entry.waits(is_connected));
        due.map(|entry| {
            entry.state = PeerState::Connecting;
            entry.address
        })
        .collect()
    }

    /// When the next address is due.
    pub fn next_due(&self, is_connected: &dyn Fn(&NodeId) -> bool) -> Option<Instant> {
        self.entries.iter().filter(|entry| entry.waits(is_connected)).map(|entry| entry.next).min()
    }

    /// Which node is behind an address.
    pub fn identified(&mut self, address: &SocketAddr, id: NodeId) {
        if let Some(entry) = self.entry(address) {
            entry.node_id = Some(id);
        }
    }

    /// A session is open; false when the address was erased meanwhile.
    pub fn opened(&mut self, address: &SocketAddr, now: Instant) -> bool {
        let Some(entry) = self.entry(address) else { return false };
        entry.state = PeerState::Connected;
        entry.last_error = None;
        entry.opened = Some(now);
        true
    }

    /// An attempt or session has ended; the failures in a row.
    pub fn ended(&mut self, address: &SocketAddr, ending: &Ending, now: Instant) -> u32 {
        let (first, cap) = (self.first, self.cap);
        let Some(entry) = self.entry(address) else { return 0 };
        entry.state = PeerState::Waiting;
        match ending.reason {
            EndReason::Itself => {
                entry.state = PeerState::Own;
                return 0;
            }
            // Another connection to the same node is open.
            EndReason::Replaced => entry.failures = 0,
            _ => {
                let lived = entry.opened.map_or(Duration::ZERO, |opened| now.saturating_duration_since(opened));
                entry.failures = if lived >= STABLE { 1 } else { entry.failures.saturating_add(1) };
                entry.last_error = Some(ending.to_string());
            }
        }
        entry.opened = None;
        entry.next = now + backoff(entry.failures, first, cap);
        entry.failures
    }

    /// The session with a node is over, whoever had connected: its addresses are tried again soon, not at once by both sides.
    pub fn peer_gone(&mut self, id: &NodeId, now: Instant) {
        let first = self.first;
        for entry in self.entries.iter_mut().filter(|entry| entry.node_id == Some(*id) && entry.state == PeerState::Waiting) {
            entry.next = entry.next.max(now + backoff(1, first, first));
        }
    }

    pub fn list(&self, now: Instant, is_connected: &dyn Fn(&NodeId) -> bool) -> Vec<PeerInfo> {
        let info = |entry: &Entry| {
            let is_open = entry.state != PeerState::Own && entry.node_id.as_ref().is_some_and(is_connected);
            let state = if is_open { PeerState::Connected } else { entry.state };
            PeerInfo {
                address: entry.address,
                state,
                node_id: entry.node_id,
                last_error: entry.last_error.clone(),
                failures: entry.failures,
                next_attempt: (state == PeerState::Waiting).then(|| entry.next.saturating_duration_since(now)),
            }
        };
        self.entries.iter().map(info).collect()
    }

    fn entry(&mut self, address: &SocketAddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.address == *address)
    }
}

/// Doubles with each failure up to the cap; half of it is chance, so that nodes do not meet again and again.
fn backoff(failures: u32, first: Duration, cap: Duration) -> Duration {
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> (PeerBook, SocketAddr, Instant) {
        let (address, now) = (SocketAddr::from(([127, 0, 0, 1], 1)), Instant::now());
        (PeerBook::new(vec![address], &NetworkLimits::default(), now), address, now)
    }

    fn nobody(_: &NodeId) -> bool {
        false
    }

    #[test]
    fn waits_grow_to_the_cap_and_a_lasting_session_resets_them() {
        let (mut book, address, mut now) = book();
        let failure = Ending::new(EndReason::Socket, "refused");
        for failures in 1..20u32 {
            assert_eq!(book.take_due(now, &nobody), [address]);
            assert!(book.take_due(now, &nobody).is_empty(), "one attempt at a time");
            assert_eq!(book.ended(&address, &failure, now), failures);
            let wait = book.next_due(&nobody).unwrap() - now;
            let full = Duration::from_millis(100 << (failures - 1).min(16)).min(Duration::from_secs(10));
            assert!(wait >= full / 2 && wait <= full, "{wait:?} after {failures} failures");
            now += wait;
        }
        book.take_due(now, &nobody);
        assert!(book.opened(&address, now));
        assert_eq!(book.ended(&address, &failure, now + STABLE), 1);
    }

    #[test]
    fn own_and_connected_addresses_are_left_alone() {
        let (mut book, address, now) = book();
        book.identified(&address, NodeId([1; 64]));
        assert!(book.take_due(now, &|_| true).is_empty());
        assert_eq!(book.list(now, &|_| true)[0].state, PeerState::Connected);
        book.take_due(now, &nobody);
        book.ended(&address, &Ending::new(EndReason::Itself, ""), now);
        assert!(book.take_due(now + Duration::from_secs(60), &nobody).is_empty());
        assert_eq!(book.list(now, &nobody)[0].state, PeerState::Own);
    }
}
