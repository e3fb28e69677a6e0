//! Rates: how many requests a second are let in, for the whole node and for each group (`flow_control.limit_req`), and how many bytes
//! of AMOP leave it (`flow_control.outgoing_bandwidth_limit`).
//!
//! A token bucket that holds one second's worth, so that a burst after silence is let in. Time is a parameter.

use std::collections::BTreeMap;

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

/// Rates of the channel port. What is absent is unlimited.
#[derive(Debug, Default)]
pub struct Quotas {
    /// Requests a second, all groups together.
    pub requests: Option<Rate>,
    /// Requests a second of single groups.
    pub group_requests: BTreeMap<GroupId, Rate>,
    /// Bytes a second of AMOP messages.
    pub amop_bytes: Option<Rate>,
}

impl Quotas {
    /// Whether a request is let in. Requests that name no group count for the node alone.
    pub fn admit(&self, group: Option<GroupId>, now_ms: u64) -> bool {
        let of_node = self.requests.as_ref().is_none_or(|rate| rate.take(1, now_ms));
        let of_group = group.and_then(|group| self.group_requests.get(&group)).is_none_or(|rate| rate.take(1, now_ms));
        of_node && of_group
    }

    /// Whether an AMOP message may leave.
    pub fn admit_amop(&self, bytes: usize, now_ms: u64) -> bool {
        self.amop_bytes.as_ref().is_none_or(|rate| rate.take(u64::try_from(bytes).unwrap_or(u64::MAX), now_ms))
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
        assert!(quotas.admit(Some(group(1)), 1_000));
        assert!(!quotas.admit(Some(group(1)), 1_000));
        assert!(quotas.admit(Some(group(2)), 1_000) && quotas.admit(None, 1_000));
    }
}
