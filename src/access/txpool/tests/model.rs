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
    TakeBehind(u64, usize, Vec<u64>),
    Claim(u64, Vec<usize>),
    Want(u64, Vec<usize>),
    Repair(usize),
    Hold(u64, Vec<usize>),
    Judge(u64, Vec<usize>, Vec<u64>),
    GiveBack(Vec<usize>),
    VoidAbove(u64),
    Commit(Vec<usize>),
    Expire,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec(0..TRANSACTIONS, 0..6);
    let nonces = || proptest::collection::vec(0..NONCES, 0..4);
    let step = prop_oneof![
        8 => (0..TRANSACTIONS, 0..3u64).prop_map(|(index, submitter)| Step::Admit(index, submitter)),
        3 => (1..4u64, 0..8usize).prop_map(|(ahead, count)| Step::Take(ahead, count)),
        1 => (1..4u64, 0..8usize, nonces()).prop_map(|(ahead, count, in_flight)| Step::TakeBehind(ahead, count, in_flight)),
        1 => (1..4u64, some()).prop_map(|(ahead, indices)| Step::Claim(ahead, indices)),
        2 => (1..4u64, some()).prop_map(|(ahead, indices)| Step::Want(ahead, indices)),
        3 => (0..TRANSACTIONS).prop_map(Step::Repair),
        1 => (1..4u64, some()).prop_map(|(ahead, indices)| Step::Hold(ahead, indices)),
        2 => (0..5u64, some(), nonces()).prop_map(|(ahead, indices, in_flight)| Step::Judge(ahead, indices, in_flight)),
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
    /// Height and hash of what proposals lack, and what they were given.
    wanted: Vec<(u64, B256)>,
    shelf: Vec<(u64, VerifiedTx)>,
}

impl Model {
    fn holds(&self, hash: &B256) -> bool {
        self.entries.iter().any(|entry| entry.transaction.hash() == *hash)
    }

    fn is_shelved(&self, hash: &B256) -> bool {
        self.shelf.iter().any(|(_, kept)| kept.hash() == *hash)
    }

    fn want(&mut self, height: u64, hashes: &[B256]) {
        self.wanted.retain(|(wanted_for, _)| *wanted_for != height);
        let missing: Vec<B256> = hashes.iter().filter(|hash| !self.is_shelved(hash)).copied().collect();
        for hash in &missing {
            self.wanted.retain(|(_, wanted)| wanted != hash);
            self.wanted.push((height, *hash));
        }
    }

    /// Whether a proposal wants the transaction; it is given it.
    fn repair(&mut self, transaction: &VerifiedTx) -> bool {
        let wanted = self.wanted.iter().position(|(_, hash)| *hash == transaction.hash());
        let height = wanted.map(|index| self.wanted.remove(index).0);
        self.shelf.extend(height.map(|height| (height, transaction.clone())));
        height.is_some()
    }

    fn hold(&mut self, height: u64, transaction: &VerifiedTx) {
        if self.holds(&transaction.hash()) {
            return;
        }
        if let Some(kept) = self.shelf.iter_mut().find(|(_, kept)| kept == transaction) {
            kept.0 = height;
            return;
        }
        self.wanted.retain(|(_, wanted)| *wanted != transaction.hash());
        self.shelf.push((height, transaction.clone()));
    }

    fn void_above(&mut self, height: u64, now_ms: u64) {
        self.entries.iter_mut().for_each(|entry| entry.proposed = entry.proposed.filter(|proposed| *proposed <= height));
        self.wanted.retain(|(wanted_for, _)| *wanted_for <= height);
        let (mut void, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.shelf).into_iter().partition(|(kept_for, _)| *kept_for > height);
        self.shelf = kept;
        void.sort_by_key(|(_, transaction)| transaction.hash());
        for (_, transaction) in void {
            let _ = self.admit(&transaction, Submitter::REPAIR.0, now_ms);
        }
    }

    fn judge(&self, height: u64, transactions: &[VerifiedTx], in_flight: &[u64]) -> Verdict {
        if height <= self.head {
            return Verdict::Passed;
        }
        let is_good = |(index, transaction): (usize, &VerifiedTx)| {
            let fields = transaction.fields();
            fields.block_limit >= U256::from(height)
                && !self.used.contains(&fields.nonce)
                && !in_flight.contains(&fields.nonce.to())
                && transactions[..index].iter().all(|other| other.fields().nonce != fields.nonce)
        };
        if transactions.iter().enumerate().all(is_good) { Verdict::Fit } else { Verdict::Unfit(String::new()) }
    }

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
        self.wanted.retain(|(_, hash)| *hash != transaction.hash());
        None
    }

    fn take(&mut self, height: u64, count: usize, now_ms: u64, in_flight: &[u64]) -> Vec<VerifiedTx> {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for mut entry in std::mem::take(&mut self.entries) {
            if taken.len() < count && entry.proposed.is_none() {
                if self.is_expired(&entry, now_ms) {
                    self.unreported.push(entry.transaction);
                    continue;
                }
                let is_free = !in_flight.contains(&entry.transaction.fields().nonce.to());
                if is_free && entry.transaction.fields().block_limit >= U256::from(height) {
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
        self.wanted.retain(|(height, _)| *height > number);
        self.shelf.retain(|(height, _)| *height > number);
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
    let mut model =
        Model { config, head: 3, entries: Vec::new(), used: Vec::new(), unreported: Vec::new(), wanted: Vec::new(), shelf: Vec::new() };
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
                prop_assert_eq!(pool.take(height, count, usize::MAX, now_ms), model.take(height, count, now_ms, &[]));
            }
            Step::TakeBehind(ahead, count, in_flight) => {
                let height = model.head + ahead;
                let taken = pool.take_behind(height, count, now_ms, |nonce| in_flight.contains(&nonce.to()));
                prop_assert_eq!(taken, model.take(height, count, now_ms, &in_flight));
            }
            Step::Want(ahead, indices) => {
                let (height, wanted) = (model.head + ahead, hashes(&pick(&indices)));
                let missing: Vec<B256> = wanted.into_iter().filter(|hash| !model.holds(hash)).collect();
                pool.want(height, &missing);
                model.want(height, &missing);
            }
            Step::Repair(index) => {
                let (transaction, before) = (&universe[index], pool.arrivals());
                let hash = transaction.hash();
                let raw = RawTx::decode(transaction.encoded()).unwrap();
                let is_wanted = pool.precheck(&raw, hash, Submitter::REPAIR).is_ok();
                let admitted = pool.admit(transaction.clone(), Submitter::REPAIR, now_ms).is_ok();
                let expected = model.repair(transaction);
                prop_assert_eq!((is_wanted, admitted, pool.arrivals() - before), (expected, expected, u64::from(expected)));
            }
            Step::Hold(ahead, indices) => {
                let (height, held) = (model.head + ahead, pick(&indices));
                pool.hold(height, &held);
                held.iter().for_each(|transaction| model.hold(height, transaction));
            }
            Step::Judge(ahead, indices, in_flight) => {
                let (height, set) = (model.head + ahead, pick(&indices));
                let verdict = pool.judge(height, &set, |nonce| in_flight.contains(&nonce.to()));
                let expected = model.judge(height, &set, &in_flight);
                prop_assert_eq!(std::mem::discriminant(&verdict), std::mem::discriminant(&expected), "{:?}", verdict);
            }
            Step::Claim(ahead, indices) => {
                let (height, wanted) = (model.head + ahead, pick(&indices));
                let found = pool.claim(height, &hashes(&wanted));
                for (transaction, found) in wanted.iter().zip(found) {
                    let entry = model.entries.iter_mut().find(|entry| entry.transaction == *transaction);
                    let pooled = entry.map(|entry| {
                        entry.proposed = Some(height);
                        entry.transaction.clone()
                    });
                    let shelved = model.shelf.iter_mut().find(|(_, kept)| pooled.is_none() && kept == transaction);
                    let shelved = shelved.map(|kept| {
                        kept.0 = height;
                        kept.1.clone()
                    });
                    prop_assert_eq!(found, pooled.or(shelved));
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
                model.void_above(height, now_ms);
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
        let is_known = |transaction: &VerifiedTx| all.contains(transaction) || model.is_shelved(&transaction.hash());
        prop_assert!(universe.iter().all(|transaction| pool.contains(transaction.hash()) == is_known(transaction)));
        prop_assert_eq!(pool.shelved(), model.shelf.len());
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
