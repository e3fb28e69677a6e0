//! A naive pool, one list, and random histories that both must answer alike.

use super::*;
use proptest::prelude::*;

const TRANSACTIONS: usize = 48;
const NONCES: u64 = 40;
const LIMIT: usize = 24;

#[derive(Clone, Debug)]
enum Step {
    Admit(usize, u64),
    Take(u64, usize),
    Claim(u64, Vec<usize>),
    GiveBack(Vec<usize>),
    VoidAbove(u64),
    Commit(Vec<usize>),
    Expire,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec(0..TRANSACTIONS, 0..6);
    let step = prop_oneof![
        8 => (0..TRANSACTIONS, 0..3u64).prop_map(|(index, submitter)| Step::Admit(index, submitter)),
        3 => (1..4u64, 0..8usize).prop_map(|(ahead, count)| Step::Take(ahead, count)),
        1 => (1..4u64, some()).prop_map(|(ahead, indices)| Step::Claim(ahead, indices)),
        1 => some().prop_map(Step::GiveBack),
        1 => (0..4u64).prop_map(Step::VoidAbove),
        2 => some().prop_map(Step::Commit),
        1 => Just(Step::Expire),
        1 => (0..40u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Some share a nonce; block limits lie before, within and behind the heights that a history reaches.
fn universe() -> Vec<VerifiedTx> {
    let shape = |index: u64| Shape {
        block_limit: U256::from(5 + (index * 7) % 40),
        salt: index,
        data_len: 4 + (index as usize * 13) % 50,
        ..Shape::new(index % NONCES)
    };
    (0..TRANSACTIONS as u64).map(|index| shape(index).verified()).collect()
}

#[derive(Clone)]
struct Entry {
    transaction: VerifiedTx,
    submitter: u64,
    admitted_ms: u64,
    proposed: Option<u64>,
}

struct Model {
    config: PoolConfig,
    head: u64,
    entries: Vec<Entry>,
    used: Vec<U256>,
    unreported: Vec<VerifiedTx>,
}

impl Model {
    fn is_expired(&self, entry: &Entry, now_ms: u64) -> bool {
        entry.transaction.fields().block_limit <= U256::from(self.head) || now_ms - entry.admitted_ms >= self.config.expiration_ms
    }

    fn admit(&mut self, transaction: &VerifiedTx, submitter: u64, now_ms: u64) -> Option<&'static str> {
        let (count, held) = (self.entries.len(), self.entries.iter().filter(|entry| entry.submitter == submitter).count());
        let limit = transaction.fields().block_limit;
        let nonce = transaction.fields().nonce;
        if count >= LIMIT || (count >= LIMIT * 3 / 4 && held >= LIMIT - count) {
            return Some("TransactionPoolIsFull");
        }
        if self.entries.iter().any(|entry| entry.transaction == *transaction) {
            return Some("TransactionAlreadyKown");
        }
        if self.used.contains(&nonce) {
            return Some("TransactionNonceCheckFail");
        }
        if limit <= U256::from(self.head) {
            return Some("BlockLimitCheckFailed");
        }
        if self.entries.iter().any(|entry| entry.transaction.fields().nonce == nonce) {
            return Some("TxPoolNonceCheckFail");
        }
        self.entries.push(Entry { transaction: transaction.clone(), submitter, admitted_ms: now_ms, proposed: None });
        None
    }

    fn take(&mut self, height: u64, count: usize, now_ms: u64) -> Vec<VerifiedTx> {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for mut entry in std::mem::take(&mut self.entries) {
            if taken.len() < count && entry.proposed.is_none() {
                if self.is_expired(&entry, now_ms) {
                    self.unreported.push(entry.transaction);
                    continue;
                }
                if entry.transaction.fields().block_limit >= U256::from(height) {
                    taken.push(entry.transaction.clone());
                    entry.proposed = Some(height);
                }
            }
            kept.push(entry);
        }
        self.entries = kept;
        taken
    }

    fn commit(&mut self, number: u64, transactions: &[VerifiedTx]) -> Vec<VerifiedTx> {
        self.head = number;
        let mut superseded = Vec::new();
        for transaction in transactions {
            self.used.push(transaction.fields().nonce);
            let same = |entry: &Entry| entry.transaction.fields().nonce == transaction.fields().nonce;
            if let Some(index) = self.entries.iter().position(same) {
                let left = self.entries.remove(index).transaction;
                if left != *transaction {
                    superseded.push(left);
                }
            }
        }
        for entry in &mut self.entries {
            entry.proposed = entry.proposed.filter(|height| *height > number);
        }
        superseded
    }

    fn expire(&mut self, now_ms: u64) -> Vec<VerifiedTx> {
        let mut dropped = std::mem::take(&mut self.unreported);
        let (gone, kept): (Vec<_>, Vec<_>) =
            self.entries.clone().into_iter().partition(|entry| entry.proposed.is_none() && self.is_expired(entry, now_ms));
        self.entries = kept;
        dropped.extend(gone.into_iter().map(|entry| entry.transaction));
        dropped
    }
}

fn sorted(transactions: &[VerifiedTx]) -> Vec<B256> {
    let mut all = hashes(transactions);
    all.sort_unstable();
    all
}

fn run(history: Vec<Step>) -> Result<(), TestCaseError> {
    let universe = universe();
    let config = PoolConfig { count_limit: LIMIT, expiration_ms: 100, ..config() };
    let pool = TxPool::new(config, 3, &[]);
    let mut model = Model { config, head: 3, entries: Vec::new(), used: Vec::new(), unreported: Vec::new() };
    let mut now_ms = 1000;
    let pick = |indices: &[usize]| indices.iter().map(|index| universe[*index].clone()).collect::<Vec<_>>();
    for step in history {
        match step {
            Step::Admit(index, submitter) => {
                let word = pool.admit(universe[index].clone(), Submitter(submitter), now_ms).err().map(|refusal| refusal.comment);
                let expected = model.admit(&universe[index], submitter, now_ms);
                prop_assert_eq!(word.as_deref().map(|comment| comment.split(',').next().unwrap()), expected);
            }
            Step::Take(ahead, count) => {
                let height = model.head + ahead;
                prop_assert_eq!(pool.take(height, count, usize::MAX, now_ms), model.take(height, count, now_ms));
            }
            Step::Claim(ahead, indices) => {
                let (height, wanted) = (model.head + ahead, pick(&indices));
                let found = pool.claim(height, &hashes(&wanted));
                for (transaction, found) in wanted.iter().zip(found) {
                    let entry = model.entries.iter_mut().find(|entry| entry.transaction == *transaction);
                    prop_assert_eq!(
                        found,
                        entry.map(|entry| {
                            entry.proposed = Some(height);
                            entry.transaction.clone()
                        })
                    );
                }
            }
            Step::GiveBack(indices) => {
                let back = pick(&indices);
                pool.give_back(&hashes(&back));
                model.entries.iter_mut().filter(|entry| back.contains(&entry.transaction)).for_each(|entry| entry.proposed = None);
            }
            Step::VoidAbove(ahead) => {
                let height = model.head + ahead;
                pool.void_above(height, now_ms);
                model.entries.iter_mut().for_each(|entry| entry.proposed = entry.proposed.filter(|proposed| *proposed <= height));
            }
            Step::Commit(indices) => {
                let mut block = pick(&indices);
                let mut seen = std::collections::HashSet::new();
                block.retain(|transaction| seen.insert(transaction.fields().nonce));
                let number = model.head + 1;
                prop_assert_eq!(pool.on_committed(number, &block), model.commit(number, &block));
            }
            Step::Expire => prop_assert_eq!(sorted(&pool.expire(now_ms)), sorted(&model.expire(now_ms))),
            Step::Wait(milliseconds) => now_ms += milliseconds,
        }
        let all: Vec<VerifiedTx> = model.entries.iter().map(|entry| entry.transaction.clone()).collect();
        prop_assert_eq!(pool.count(), all.len());
        prop_assert_eq!(pool.bytes(), all.iter().map(VerifiedTx::memory_bytes).sum::<usize>());
        prop_assert_eq!(pool.waiting(), model.entries.iter().filter(|entry| entry.proposed.is_none()).count());
        prop_assert!(universe.iter().all(|transaction| pool.contains(transaction.hash()) == all.contains(transaction)));
        prop_assert_eq!(pool.pending(usize::MAX), all);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pool_answers_as_a_naive_one_would(history in steps()) {
        run(history)?;
    }
}
