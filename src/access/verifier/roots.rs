//! Roots and hashes of a block, shared with the crew when the block is big.
//!
//! Invariant: every function gives what its serial form gives. Called by the block executor.

use millrace_base::{B256, Receipt, merkle};
use millrace_core::overlay::Writes;
use millrace_core::root::StateAccumulator;
use millrace_core::trie::TrieNodes;
use millrace_core::{StateCommitment, StateKey, StateReader, StateValue, StorageError, mpt};

use super::crew::Crew;

/// Least hashes worth handing to another thread: about a tenth of a millisecond of work.
const MIN_SHARE: usize = 64;

/// Shares for each thread, so that a late one does not hold up the others.
const SHARES: usize = 4;

/// Who works.
#[derive(Clone, Copy)]
pub(super) struct Hands<'c> {
    /// The crew.
    pub crew: &'c Crew,
    /// So many of it at most, beside the calling thread.
    pub helpers: usize,
}

impl Hands<'_> {
    /// Length of the shares of `length` items; `length` itself when sharing does not pay.
    fn share(self, length: usize) -> usize {
        if self.helpers == 0 || length < 2 * MIN_SHARE {
            return length.max(1);
        }
        length.div_ceil((self.helpers + 1) * SHARES).max(MIN_SHARE)
    }
}

/// [`StateCommitment::after`]. What is hashed value by value is shared; tries are the calling thread's.
pub(super) fn committed(
    hands: Hands<'_>,
    commitment: &StateCommitment,
    below: &(dyn StateReader + Send + Sync),
    writes: &Writes,
) -> Result<(StateCommitment, TrieNodes), StorageError> {
    match commitment {
        StateCommitment::Storage(accumulator) => {
            let accumulator = updated(hands, accumulator, below, writes)?;
            Ok((StateCommitment::Storage(accumulator), TrieNodes::new()))
        }
        StateCommitment::Mpt { accounts, tables } => {
            let mut nodes = TrieNodes::new();
            let accounts = mpt::update(*accounts, below, writes, &mut nodes)?;
            let rows = writes.partition_point(|(key, _)| !matches!(key, StateKey::Row(..)));
            let tables = updated(hands, tables, below, &writes[rows..])?;
            Ok((StateCommitment::Mpt { accounts, tables }, nodes))
        }
    }
}

/// The accumulator after a block's writes; `below` is the state before it.
fn updated(
    hands: Hands<'_>,
    accumulator: &StateAccumulator,
    below: &(dyn StateReader + Send + Sync),
    writes: &[(StateKey, Option<StateValue>)],
) -> Result<StateAccumulator, StorageError> {
    let mut updated = accumulator.clone();
    let parts = hands.crew.map(writes.chunks(hands.share(writes.len())).collect(), |writes: &[_]| {
        let mut part = StateAccumulator::new();
        for (key, new) in writes {
            part.replace(key, below.read(key)?.as_ref(), Option::as_ref(new));
        }
        Ok::<_, StorageError>(part)
    });
    for part in parts {
        updated.merge(&part?);
    }
    Ok(updated)
}

/// Puts the state root into every receipt and gives their hashes.
pub(super) fn receipt_hashes(hands: Hands<'_>, receipts: &mut [Receipt], state_root: B256) -> Vec<B256> {
    let share = hands.share(receipts.len());
    let shares = hands.crew.map(receipts.chunks_mut(share).collect(), |receipts: &mut [Receipt]| {
        let finish = |receipt: &mut Receipt| {
            receipt.state_root = state_root;
            receipt.hash()
        };
        receipts.iter_mut().map(finish).collect::<Vec<_>>()
    });
    shares.into_iter().flatten().collect()
}

/// [`merkle::root`].
pub(super) fn merkle_root(hands: Hands<'_>, hashes: &[B256]) -> B256 {
    let share = hands.share(hashes.len());
    if share == hashes.len() {
        return merkle::root(hashes);
    }
    let share = share.next_multiple_of(merkle::WIDTH);
    let shares = hashes.chunks(share).enumerate().map(|(index, hashes)| (index * share, hashes)).collect();
    let parents = hands.crew.map(shares, |(first, hashes)| merkle::parents_of_leaves(first, hashes));
    merkle::root_of_parents(parents.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::{Address, U256};
    use millrace_core::StateKind;

    struct Nothing;

    impl StateReader for Nothing {
        fn read(&self, _: &StateKey) -> Result<Option<StateValue>, StorageError> {
            Ok(None)
        }
    }

    struct Ones;

    impl StateReader for Ones {
        fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
            match key {
                StateKey::Slot(_, 9, _) => Err(StorageError::Engine("broken".into())),
                StateKey::Slot(_, _, index) => Ok((index.bit(0)).then_some(StateValue::Slot(U256::ONE))),
                _ => Ok(None),
            }
        }
    }

    #[test]
    fn shared_work_gives_what_one_thread_gives() {
        for threads in [1, 2, 4] {
            let crew = &Crew::new(threads).unwrap();
            let hands = Hands { crew, helpers: threads - 1 };
            for count in [0, 1, 2, 16, 17, 127, 128, 129, 1_000, 2_049] {
                let hashes: Vec<B256> = (0..count).map(|index| B256::from(U256::from(index))).collect();
                assert_eq!(merkle_root(hands, &hashes), merkle::root(&hashes), "{count} leaves, {threads} threads");
                let key = |index: u64| StateKey::Slot(Address::ZERO, 0, U256::from(index));
                let value = |index: u64| (!index.is_multiple_of(3)).then(|| StateValue::Slot(U256::from(index)));
                let writes: Writes = (0..count).map(|index| (key(index), value(index))).collect();
                let mut expected = StateAccumulator::new();
                expected.update(&Ones, &writes).unwrap();
                assert_eq!(updated(hands, &StateAccumulator::new(), &Ones, &writes).unwrap(), expected);
                for kind in [StateKind::Storage, StateKind::Mpt] {
                    let empty = StateCommitment::empty(kind);
                    let one = empty.after(&Nothing, &writes).unwrap();
                    assert_eq!(committed(hands, &empty, &Nothing, &writes).unwrap(), one);
                }
                let mut receipts: Vec<_> = (0..count).map(|gas| Receipt { gas_used: U256::from(gas), ..Receipt::default() }).collect();
                let hashes = receipt_hashes(hands, &mut receipts, B256::repeat_byte(3));
                assert!(receipts.iter().all(|receipt| receipt.state_root == B256::repeat_byte(3)));
                assert_eq!(hashes, receipts.iter().map(Receipt::hash).collect::<Vec<_>>());
            }
            let broken: Writes = (0..500u64).map(|index| (StateKey::Slot(Address::ZERO, 9, U256::from(index)), None)).collect();
            assert!(updated(hands, &StateAccumulator::new(), &Ones, &broken).is_err());
        }
    }
}
