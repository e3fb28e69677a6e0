//! Epochs: who votes and under which settings, between two changes of either.
//!
//! Ordering runs ahead of execution, but a change made by block N must govern from N+1. So the membership and the settings that
//! consensus reads form an epoch, named in every digest; when executing N changes them, everything ordered above N is void.

use millrace_base::{B256, NodeId, keccak256};

/// Which faults of sealers a group's quorums are made for; fixed by its genesis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Faults {
    /// A sealer may say anything (PBFT): n > 3f.
    #[default]
    Byzantine,
    /// A sealer may stop at any time and come back with its data (Raft): n > 2f.
    Crash,
}

/// Membership and consensus settings that govern a range of heights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epoch {
    /// First height it governs.
    pub start: u64,
    /// Voting members, sorted by node id; a sealer's index is its position.
    pub sealers: Vec<NodeId>,
    /// What quorums are made for.
    pub faults: Faults,
    /// `tx_count_limit`: transactions in one block.
    pub tx_count_limit: u64,
    /// `tx_gas_limit`: gas of each transaction.
    pub tx_gas_limit: u64,
    /// `consensus_timeout`, milliseconds.
    pub consensus_timeout_ms: u64,
}

impl Epoch {
    /// Faulty sealers tolerated: ⌊(n−1)/3⌋, or ⌊(n−1)/2⌋ where they can only stop.
    pub fn max_faulty(&self) -> usize {
        let others = self.sealers.len().saturating_sub(1);
        match self.faults {
            Faults::Byzantine => others / 3,
            Faults::Crash => others / 2,
        }
    }

    /// Distinct sealers whose votes decide: n − f.
    pub fn quorum(&self) -> usize {
        let quorum = self.sealers.len() - self.max_faulty();
        #[cfg(feature = "planted")]
        if crate::planted::is_planted(crate::planted::Bug::SmallQuorum) {
            return quorum.saturating_sub(1).max(1);
        }
        quorum
    }

    /// Position of a sealer.
    pub fn index_of(&self, node: &NodeId) -> Option<u32> {
        self.sealers.binary_search(node).ok().and_then(|index| u32::try_from(index).ok())
    }

    /// The leader of a view at a height: (view + height − 1) mod n, as in 2.x where the highest block number counts.
    pub fn leader(&self, view: u64, height: u64) -> u32 {
        let count = self.sealers.len().max(1) as u64;
        let index = (view % count + height.saturating_sub(1) % count) % count;
        u32::try_from(index).expect("below the number of sealers")
    }

    /// Whether both govern the same way, whatever their start.
    pub fn same_rules(&self, other: &Epoch) -> bool {
        Epoch { start: 0, ..self.clone() } == Epoch { start: 0, ..other.clone() }
    }

    /// Names the epoch in digests.
    pub fn digest(&self) -> B256 {
        let mut bytes = Vec::with_capacity(64 + 64 * self.sealers.len());
        bytes.extend_from_slice(b"millrace/epoch/1");
        for number in [self.start, self.tx_count_limit, self.tx_gas_limit, self.consensus_timeout_ms, self.sealers.len() as u64] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for sealer in &self.sealers {
            bytes.extend_from_slice(&sealer.0);
        }
        if self.faults == Faults::Crash {
            bytes.extend_from_slice(b"crash");
        }
        keccak256(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(count: u8) -> Epoch {
        let sealers = (0..count).map(|i| NodeId([i; 64])).collect();
        Epoch { start: 1, sealers, faults: Faults::Byzantine, tx_count_limit: 1000, tx_gas_limit: 300_000_000, consensus_timeout_ms: 3000 }
    }

    #[test]
    fn quorum_is_n_minus_f() {
        let expected = [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 3), (6, 1, 5), (7, 2, 5), (10, 3, 7)];
        for (count, faulty, quorum) in expected {
            assert_eq!((epoch(count).max_faulty(), epoch(count).quorum()), (faulty, quorum));
        }
    }

    #[test]
    fn quorum_is_a_majority_where_sealers_can_only_stop() {
        for (count, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)] {
            assert_eq!(Epoch { faults: Faults::Crash, ..epoch(count) }.quorum(), quorum);
        }
    }

    #[test]
    fn leader_moves_with_view_and_height_without_overflow() {
        assert_eq!(epoch(4).leader(0, 1), 0);
        assert_eq!(epoch(4).leader(1, 1), 1);
        assert_eq!(epoch(4).leader(0, 6), 1);
        assert!(epoch(3).leader(u64::MAX, u64::MAX) < 3);
    }

    #[test]
    fn digest_names_start_members_and_settings() {
        let base = epoch(4);
        let others = [
            Epoch { start: 2, ..base.clone() },
            Epoch { tx_count_limit: 1, ..base.clone() },
            epoch(3),
            Epoch { tx_gas_limit: 7, ..base.clone() },
            Epoch { faults: Faults::Crash, ..base.clone() },
        ];
        assert!(others.iter().all(|other| other.digest() != base.digest()));
    }
}
