//! Event subscriptions (`spec/client-protocol.md` 5): what a client asks for, and which logs match.
//!
//! [`request`] reads a subscription, [`feed`] serves all of them from the chain. Codes and strictness are the reference node's, its
//! crashes excepted: a log with fewer topics than the filter simply does not match.

pub mod feed;
pub mod request;
mod written;

use millrace_base::{Address, B256, LogEntry};

/// Result codes of subscriptions and pushes.
pub mod code {
    /// Accepted; in pushes: more may follow.
    pub const OK: i32 = 0;
    /// The range is served completely.
    pub const COMPLETE: i32 = 1;
    /// The request cannot be read, or the client has too many subscriptions.
    pub const INVALID_REQUEST: i32 = -41_001;
    /// The group does not run here.
    pub const NO_GROUP: i32 = -41_002;
    /// The range is empty, longer than allowed, or begins below what this node keeps; in pushes: the client read so slowly that this node
    /// does not keep any more what comes next.
    pub const INVALID_RANGE: i32 = -41_003;
    /// The client may not see the group.
    pub const NOT_ALLOWED: i32 = -41_006;
}

/// Topics that a position of a log may have; empty allows any. A text that is no hash is kept as a place that nothing matches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Allowed topics.
    pub hashes: Vec<B256>,
    /// Whether the client named anything at all.
    pub is_bound: bool,
}

/// Which logs a client wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Matcher {
    /// Emitting contracts; empty allows any.
    pub addresses: Vec<Address>,
    /// Condition on topic 0, 1, 2, 3.
    pub positions: Vec<Position>,
}

impl Matcher {
    /// Whether the client wants this log.
    pub fn matches(&self, log: &LogEntry) -> bool {
        let address_fits = self.addresses.is_empty() || self.addresses.contains(&log.address);
        address_fits && self.positions.iter().enumerate().all(|(place, position)| position.allows(log.topics.get(place)))
    }
}

impl Position {
    fn allows(&self, topic: Option<&B256>) -> bool {
        !self.is_bound || topic.is_some_and(|topic| self.hashes.contains(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_without_topics_meets_only_filters_without_topics() {
        let log = LogEntry { address: Address::repeat_byte(1), topics: Vec::new(), data: Default::default() };
        let bound = Position { hashes: vec![B256::repeat_byte(7)], is_bound: true };
        assert!(Matcher::default().matches(&log));
        assert!(Matcher { positions: vec![Position::default(); 4], ..Matcher::default() }.matches(&log));
        assert!(!Matcher { positions: vec![bound.clone()], ..Matcher::default() }.matches(&log));
        assert!(!Matcher { positions: vec![Position::default(), bound], ..Matcher::default() }.matches(&log));
    }

    #[test]
    fn positions_are_alternatives_inside_and_conditions_between() {
        let topic = B256::repeat_byte;
        let log = LogEntry { address: Address::repeat_byte(1), topics: vec![topic(1), topic(2)], data: Default::default() };
        let position = |hashes: &[B256]| Position { hashes: hashes.to_vec(), is_bound: true };
        let matcher = |positions| Matcher { addresses: vec![Address::repeat_byte(1)], positions };
        assert!(matcher(vec![position(&[topic(9), topic(1)]), position(&[topic(2)])]).matches(&log));
        assert!(!matcher(vec![position(&[topic(1)]), position(&[topic(3)])]).matches(&log));
        let elsewhere = Matcher { addresses: vec![Address::repeat_byte(2)], ..Matcher::default() };
        assert!(!elsewhere.matches(&log));
    }
}
