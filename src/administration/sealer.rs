//! When to seal: the policy of 2.x (`spec/node-semantics.md` 2.3) without its empty blocks.
//!
//! A full block is sealed at once. Otherwise at least one transaction must be waiting, `min_block_generation_time` must have passed since
//! the last proposal, whoever made it, and every block below must be final: a quiet group makes few blocks, and where blocks take long,
//! because the machine is busy or the network slow, they grow instead of becoming more. Only full blocks fill the window.

/// What the policy looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealerView {
    /// Transactions waiting in the pool.
    pub waiting: usize,
    /// Most transactions the block may take.
    pub limit: usize,
    /// When the last proposal was sealed, milliseconds.
    pub last_sealed_ms: u64,
    /// Heights below the block that are proposed and not final yet.
    pub in_flight: u64,
    /// `consensus.min_block_generation_time`.
    pub min_interval_ms: u64,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Seal now.
    Seal,
    /// Look again at this time, or when transactions arrive.
    WaitUntil(u64),
    /// Nothing to seal yet; look again when transactions arrive or a block becomes final.
    Idle,
}

/// Decides for one height.
pub fn decide(view: SealerView, now_ms: u64) -> Decision {
    let due = view.last_sealed_ms.saturating_add(view.min_interval_ms);
    match view.waiting {
        0 => Decision::Idle,
        waiting if waiting >= view.limit => Decision::Seal,
        _ if view.in_flight > 0 => Decision::Idle,
        _ if now_ms >= due => Decision::Seal,
        _ => Decision::WaitUntil(due),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_block_is_sealed_at_once_and_a_partial_one_after_the_interval() {
        let view = SealerView { waiting: 10, limit: 10, last_sealed_ms: 1000, in_flight: 0, min_interval_ms: 500 };
        assert_eq!(decide(view, 1000), Decision::Seal);
        let partial = SealerView { waiting: 9, ..view };
        assert_eq!(decide(partial, 1499), Decision::WaitUntil(1500));
        assert_eq!(decide(partial, 1500), Decision::Seal);
        assert_eq!(decide(SealerView { waiting: 0, ..view }, 9999), Decision::Idle);
    }

    #[test]
    fn above_heights_in_flight_only_full_blocks_are_sealed() {
        let view = SealerView { waiting: 10, limit: 10, last_sealed_ms: 1000, in_flight: 2, min_interval_ms: 500 };
        assert_eq!(decide(view, 1000), Decision::Seal);
        assert_eq!(decide(SealerView { waiting: 9, ..view }, 9999), Decision::Idle);
        assert_eq!(decide(SealerView { waiting: 9, in_flight: 0, ..view }, 9999), Decision::Seal);
    }
}
