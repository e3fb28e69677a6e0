//! Rates: how many requests a second are let in, for the whole node and for each group (`flow_control.limit_req`), and how many bytes
//! of AMOP leave it (`flow_control.outgoing_bandwidth_limit`).
//!
//! Invariant: the doors of a node share one [`Quotas`], so that a client gains nothing by going to another door. A token bucket holds one
//! second's worth, so that a burst after silence is let in. Checked by [`crate::gateway`] and [`crate::channel`].

use std::collections::BTreeMap;
use std::time::Instant;

use millrace_base::GroupId;
use parking_lot::Mutex;

/// Units of a bucket are thousandths of what it counts, so that a millisecond's share of a small rate is not lost.
const SCALE: u64 = 1_000;

/// A token bucket.
#[derive(Debug)]
pub struct Rate {
    a_second: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    available: u64,
    at_ms: u64,
}

impl Rate {
    /// `a_second` of whatever is counted; at least one.
    pub fn new(a_second: u64) -> Self {
        let a_second = a_second.clamp(1, u64::MAX / SCALE / SCALE);
        Self { a_second, state: Mutex::new(State { available: a_second * SCALE, at_ms: 0 }) }
    }

    /// Takes `amount`, or nothing. More than a second's worth is let in when the bucket is full, and paid off afterwards by waiting.
    pub fn take(&self, amount: u64, now_ms: u64) -> bool {
        let full = self.a_second * SCALE;
        let mut state = self.state.lock();
        let passed_ms = now_ms.saturating_sub(state.at_ms).min(SCALE);
        state.available = full.min(state.available + passed_ms * self.a_second);
        state.at_ms = now_ms.max(state.at_ms);
        let wanted = amount.saturating_mul(SCALE).min(full);
        let allowed = state.available >= wanted;
        if allowed {
            state.available -= wanted;
        }
        allowed
    }
}

/// Rates of a node. What is absent is unlimited.
#[derive(Debug)]
pub struct Quotas {
    /// Requests a second, all groups and doors together.
    pub requests: Option<Rate>,
    /// Requests a second of single groups.
    pub group_requests: BTreeMap<GroupId, Rate>,
    /// Bytes a second of AMOP messages.
    pub amop_bytes: Option<Rate>,
    /// Where the time of all rates begins.
    pub started: Instant,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { requests: None, group_requests: BTreeMap::new(), amop_bytes: None, started: Instant::now() }
    }
}

impl Quotas {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a request is let in now. Requests that name no group count for the node alone; the version is always told, because SDKs
    /// ask for it before anything else (`spec/client-protocol.md` 3.9).
    pub fn admit(&self, method: &str, group: Option<GroupId>) -> bool {
        method == "getClientVersion" || self.is_unlimited() || self.admit_at(group, self.now_ms())
    }

    /// Whether an AMOP message may leave now.
    pub fn admit_amop(&self, bytes: usize) -> bool {
        self.amop_bytes.as_ref().is_none_or(|rate| rate.take(u64::try_from(bytes).unwrap_or(u64::MAX), self.now_ms()))
    }

    fn is_unlimited(&self) -> bool {
        self.requests.is_none() && self.group_requests.is_empty()
    }

    fn admit_at(&self, group: Option<GroupId>, now_ms: u64) -> bool {
        let of_node = self.requests.as_ref().is_none_or(|rate| rate.take(1, now_ms));
        let of_group = group.and_then(|group| self.group_requests.get(&group)).is_none_or(|rate| rate.take(1, now_ms));
        of_node && of_group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_lets_in_its_number_a_second_and_no_more() {
        let rate = Rate::new(10);
        let taken = |now_ms| (0..100).filter(|_| rate.take(1, now_ms)).count();
        assert_eq!(taken(5_000), 10);
        assert_eq!(taken(5_050), 0);
        assert_eq!(taken(5_100), 1);
        assert_eq!(taken(6_200), 10);
        assert_eq!(taken(1_000), 0, "a clock that is set back gives nothing");
    }

    #[test]
    fn group_is_limited_apart_from_others() {
        let group = |id| GroupId::new(id).unwrap();
        let quotas = Quotas { group_requests: BTreeMap::from([(group(1), Rate::new(1))]), ..Quotas::default() };
        assert!(quotas.admit_at(Some(group(1)), 1_000));
        assert!(!quotas.admit_at(Some(group(1)), 1_000));
        assert!(quotas.admit_at(Some(group(2)), 1_000) && quotas.admit_at(None, 1_000));
        assert!(quotas.admit("getClientVersion", Some(group(1))));
    }
}
