//! The pool, case by case; [`model`] compares it with a naive one, [`stress`] uses it from many threads.

use super::*;
use alloy_rlp::Encodable;
use millrace_base::{Address, TransactionStatus, rlp};

#[path = "tests/model.rs"]
mod model;
#[path = "tests/stress.rs"]
mod stress;

const ALICE: Submitter = Submitter(1);
const BOB: Submitter = Submitter(2);

fn config() -> PoolConfig {
    PoolConfig { chain_id: 1, group: GroupId::new(1).unwrap(), count_limit: 1000, bytes_limit: 100 << 20, expiration_ms: 600_000 }
}

/// What the tests vary of a transaction.
#[derive(Clone, Copy)]
struct Shape {
    nonce: U256,
    block_limit: U256,
    chain_id: u64,
    group_id: u64,
    data_len: usize,
    /// Different values make different hashes.
    salt: u64,
}

impl Shape {
    fn new(nonce: u64) -> Self {
        Self { nonce: U256::from(nonce), block_limit: U256::from(600), chain_id: 1, group_id: 1, data_len: 4, salt: 0 }
    }

    /// A transaction with a signature that nobody made: the pool does not look at it, and signing is slow.
    fn raw(self) -> RawTx {
        let mut payload = Vec::new();
        self.nonce.encode(&mut payload);
        self.salt.encode(&mut payload);
        1u64.encode(&mut payload);
        self.block_limit.encode(&mut payload);
        Address::ZERO.encode(&mut payload);
        0u64.encode(&mut payload);
        vec![7u8; self.data_len].as_slice().encode(&mut payload);
        self.chain_id.encode(&mut payload);
        self.group_id.encode(&mut payload);
        payload.push(0x80);
        27u64.encode(&mut payload);
        1u64.encode(&mut payload);
        1u64.encode(&mut payload);
        let mut list = Vec::new();
        rlp::wrap_list(&payload, &mut list);
        RawTx::decode(&list).unwrap()
    }

    fn verified(self) -> VerifiedTx {
        VerifiedTx::from_trusted_store(self.raw(), Address::ZERO)
    }
}

fn transaction(nonce: u64) -> VerifiedTx {
    Shape::new(nonce).verified()
}

fn hashes(transactions: &[VerifiedTx]) -> Vec<B256> {
    transactions.iter().map(VerifiedTx::hash).collect()
}

fn nonces(transactions: &[VerifiedTx]) -> Vec<u64> {
    transactions.iter().map(|transaction| transaction.fields().nonce.to()).collect()
}

fn pool_of(count: u64) -> TxPool {
    let pool = TxPool::new(config(), 5, &[]);
    for nonce in 0..count {
        pool.admit(transaction(nonce), ALICE, 0).unwrap();
    }
    pool
}

/// Both doors must refuse alike.
fn refused(pool: &TxPool, shape: Shape) -> Refusal {
    let early = pool.precheck(&shape.raw(), shape.raw().hash(), ALICE).unwrap_err();
    let late = pool.admit(shape.verified(), ALICE, 0).unwrap_err();
    assert_eq!(early, late);
    late
}

fn short(shape: Shape) -> String {
    millrace_base::hex::encode(&shape.raw().hash()[..4])
}

#[test]
fn every_refusal_has_the_words_that_clients_match_on() {
    let pool = pool_of(1);
    pool.on_committed(6, &[transaction(77)]);
    let at = |block_limit: u64| Shape { block_limit: U256::from(block_limit), ..Shape::new(9) };
    let cases = [
        (Shape::new(0), TransactionStatus::AlreadyKnown, "TransactionAlreadyKown, "),
        (Shape::new(77), TransactionStatus::NonceCheckFail, "TransactionNonceCheckFail, "),
        (Shape { salt: 1, ..Shape::new(77) }, TransactionStatus::NonceCheckFail, "TransactionNonceCheckFail, "),
        (Shape { nonce: U256::MAX, ..Shape::new(0) }, TransactionStatus::NonceCheckFail, "TransactionNonceCheckFail, "),
        (Shape { salt: 1, ..Shape::new(0) }, TransactionStatus::NonceCheckFail, "TxPoolNonceCheckFail, "),
        (at(0), TransactionStatus::BlockLimitCheckFail, "BlockLimitCheckFailed, txBlockLimit=0, "),
        (at(6), TransactionStatus::BlockLimitCheckFail, "BlockLimitCheckFailed, txBlockLimit=6, "),
        (at(1007), TransactionStatus::BlockLimitCheckFail, "BlockLimitCheckFailed, txBlockLimit=1007, "),
        (Shape { chain_id: 2, ..Shape::new(9) }, TransactionStatus::InvalidChainId, "InvalidChainId, "),
        (Shape { group_id: 2, ..Shape::new(9) }, TransactionStatus::InvalidGroupId, "InvalidGroupId, "),
        (Shape { group_id: 65_537, ..Shape::new(9) }, TransactionStatus::InvalidGroupId, "InvalidGroupId, "),
    ];
    for (shape, status, words) in cases {
        let refusal = refused(&pool, shape);
        assert_eq!(refusal.status, status);
        assert_eq!(refusal.comment, format!("{words}txHash={}...", short(shape)));
    }
    let huge = Shape { block_limit: U256::MAX, ..Shape::new(9) };
    assert!(refused(&pool, huge).comment.starts_with(&format!("BlockLimitCheckFailed, txBlockLimit={}, txHash=", U256::MAX)));
    assert_eq!(pool.counters().refused, 24);
    for block_limit in [7, 1006] {
        pool.admit(Shape { nonce: U256::from(block_limit), ..at(block_limit) }.verified(), ALICE, 0).unwrap();
    }
    assert_eq!(pool.count(), 3);
}

#[test]
fn of_several_faults_the_first_of_the_protocol_wins() {
    let small = PoolConfig { count_limit: 1, ..config() };
    let full = TxPool::new(small, 5, &[]);
    full.admit(transaction(0), ALICE, 0).unwrap();
    assert_eq!(refused(&full, Shape::new(0)).status, TransactionStatus::TxPoolIsFull);

    let pool = pool_of(1);
    pool.on_committed(6, &[transaction(77)]);
    let wrong = |shape: Shape| Shape { block_limit: U256::ZERO, chain_id: 9, group_id: 9, ..shape };
    assert!(refused(&pool, wrong(Shape::new(77))).comment.starts_with("TransactionNonceCheckFail"));
    assert!(refused(&pool, wrong(Shape::new(0))).comment.starts_with("BlockLimitCheckFailed"));
    assert!(refused(&pool, Shape { chain_id: 9, group_id: 9, ..Shape::new(0) }).comment.starts_with("TxPoolNonceCheckFail"));
    assert!(refused(&pool, Shape { chain_id: 9, group_id: 9, ..Shape::new(5) }).comment.starts_with("InvalidChainId"));
}

#[test]
fn refused_transaction_leaves_its_nonce_free() {
    let pool = pool_of(0);
    refused(&pool, Shape { chain_id: 2, ..Shape::new(3) });
    refused(&pool, Shape { group_id: 2, ..Shape::new(3) });
    refused(&pool, Shape { block_limit: U256::ZERO, ..Shape::new(3) });
    pool.admit(transaction(3), ALICE, 0).unwrap();
}

#[test]
fn committed_transaction_sent_again_fails_by_its_nonce() {
    let pool = pool_of(2);
    let taken = pool.take(6, 10, usize::MAX, 0);
    assert!(pool.on_committed(6, &taken).is_empty());
    assert!(refused(&pool, Shape::new(0)).comment.starts_with("TransactionNonceCheckFail"));
    assert_eq!((pool.count(), pool.bytes(), pool.waiting()), (0, 0, 0));
}

#[test]
fn nonces_of_the_last_thousand_blocks_are_remembered_and_no_others() {
    let old = |nonce: u64| B256::from(U256::from(nonce));
    let pool = TxPool::new(config(), 1005, &[(6, vec![old(60)]), (7, vec![old(70), old(71)]), (1005, vec![old(80)])]);
    let with = |nonce: u64| Shape { block_limit: U256::from(1500), ..Shape::new(nonce) };
    for nonce in [60, 70, 71, 80] {
        assert!(refused(&pool, with(nonce)).comment.starts_with("TransactionNonceCheckFail"));
    }
    pool.on_committed(1006, &[]);
    pool.admit(with(60).verified(), ALICE, 0).unwrap();
    assert!(refused(&pool, with(70)).comment.starts_with("TransactionNonceCheckFail"));
    pool.on_committed(1007, &[]);
    pool.admit(with(70).verified(), ALICE, 0).unwrap();
    assert_eq!(pool.window_nonces(), 1);
}

#[test]
fn transactions_are_handed_out_once_and_oldest_first() {
    let pool = pool_of(10);
    assert_eq!(nonces(&pool.take(6, 4, usize::MAX, 0)), [0, 1, 2, 3]);
    assert_eq!(nonces(&pool.take(7, 4, usize::MAX, 0)), [4, 5, 6, 7]);
    assert_eq!(nonces(&pool.take(8, 4, usize::MAX, 0)), [8, 9]);
    assert!(pool.take(9, 4, usize::MAX, 0).is_empty());
    assert_eq!((pool.count(), pool.waiting()), (10, 0));
    assert_eq!(nonces(&pool.pending(5)), [0, 1, 2, 3, 4]);
}

#[test]
fn transactions_of_a_dead_proposal_come_back_at_their_old_place() {
    let pool = pool_of(6);
    let first = pool.take(6, 2, usize::MAX, 0);
    let second = pool.take(7, 2, usize::MAX, 0);
    pool.give_back(&hashes(&second[1..]));
    pool.give_back(&hashes(&first));
    pool.give_back(&[B256::ZERO]);
    assert_eq!(nonces(&pool.take(7, 10, usize::MAX, 0)), [0, 1, 3, 4, 5]);
    assert_eq!(pool.counters().given_back, 3);
    pool.void_above(6, 0);
    assert_eq!(nonces(&pool.take(8, 10, usize::MAX, 0)), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn what_a_committed_block_left_out_is_available_again() {
    let pool = pool_of(4);
    let taken = pool.take(6, 3, usize::MAX, 0);
    pool.on_committed(6, &taken[1..2]);
    assert_eq!(nonces(&pool.take(7, 10, usize::MAX, 0)), [0, 2, 3]);
}

#[test]
fn claimed_transactions_are_not_handed_out() {
    let pool = pool_of(4);
    let claimed = pool.claim(6, &[transaction(2).hash(), B256::ZERO, transaction(0).hash()]);
    assert_eq!(claimed, [Some(transaction(2)), None, Some(transaction(0))]);
    assert_eq!(nonces(&pool.take(7, 10, usize::MAX, 0)), [1, 3]);
    pool.claim(8, &[transaction(2).hash()]);
    pool.void_above(6, 0);
    assert_eq!(nonces(&pool.take(7, 10, usize::MAX, 0)), [1, 2, 3]);
}

#[test]
fn transaction_whose_nonce_another_block_used_is_dropped_and_returned() {
    let pool = pool_of(3);
    let foreign = Shape { salt: 1, ..Shape::new(1) }.verified();
    assert_eq!(pool.on_committed(6, &[foreign, transaction(2)]), [transaction(1)]);
    assert_eq!(nonces(&pool.pending(10)), [0]);
    let counters = pool.counters();
    assert_eq!((counters.committed, counters.superseded), (1, 1));
}

#[test]
fn proposal_stays_below_its_bytes_but_always_holds_one() {
    let pool = pool_of(3);
    let size = transaction(0).encoded().len();
    assert_eq!(pool.take(6, 10, 1, 0).len(), 1);
    assert_eq!(pool.take(7, 10, 2 * size + 1, 0).len(), 2);
}

#[test]
fn transaction_is_not_proposed_for_a_height_above_its_block_limit() {
    let pool = pool_of(1);
    pool.admit(Shape { block_limit: U256::from(6), ..Shape::new(1) }.verified(), ALICE, 0).unwrap();
    assert_eq!(nonces(&pool.take(7, 10, usize::MAX, 0)), [0]);
    assert_eq!(nonces(&pool.take(6, 10, usize::MAX, 0)), [1]);
}

#[test]
fn expired_transactions_are_reported_once_whoever_finds_them() {
    let pool = pool_of(2);
    pool.admit(Shape { block_limit: U256::from(6), ..Shape::new(2) }.verified(), ALICE, 500_000).unwrap();
    pool.admit(transaction(3), ALICE, 500_000).unwrap();
    let reserved = pool.take(6, 1, usize::MAX, 0);
    assert!(pool.expire(599_999).is_empty());
    assert!(pool.take(6, 0, 0, 600_000).is_empty());
    assert_eq!(nonces(&pool.take(7, 1, usize::MAX, 600_000)), [3]);
    assert_eq!(nonces(&pool.expire(600_000)), [1]);
    assert!(pool.expire(600_000).is_empty());
    pool.on_committed(6, &[]);
    let mut dropped = nonces(&pool.expire(600_000));
    dropped.sort_unstable();
    assert_eq!(dropped, [0, 2], "the block limit of one ran out, the age of the other when it came back");
    assert_eq!(pool.count(), 1);
    assert_eq!(pool.counters().expired, 3);
    assert!(!pool.contains(reserved[0].hash()));
}

#[test]
fn greedy_submitter_leaves_room_for_others() {
    let pool = TxPool::new(PoolConfig { count_limit: 100, ..config() }, 5, &[]);
    let flood = |submitter, base: u64| (0..200).take_while(|nonce| pool.admit(transaction(base + nonce), submitter, 0).is_ok()).count();
    assert_eq!(flood(ALICE, 0), 75);
    assert_eq!(refused(&pool, Shape::new(999)).status, TransactionStatus::TxPoolIsFull);
    let bob = flood(BOB, 1000);
    assert!(bob >= 12 && bob * 100 >= pool.count() * 14, "a seventh of the full pool, not {bob}");
    assert!(!pool.is_over_watermark());
    for submitter in 10..1000 {
        let _ = flood(Submitter(submitter), submitter * 1000);
    }
    assert_eq!(pool.count(), 100);
    assert!(pool.is_over_watermark());
    let holding = pool.holding(ALICE);
    assert_eq!((holding.count, holding.bytes), (75, 75 * transaction(0).memory_bytes()));
    let taken = pool.take(6, 100, usize::MAX, 0);
    pool.on_committed(6, &taken);
    assert_eq!((pool.submitters(), pool.count(), pool.bytes()), (0, 0, 0));
}

#[test]
fn bytes_are_limited_and_shared_like_places() {
    let big = |nonce: u64| Shape { data_len: 10_000, ..Shape::new(nonce) };
    let one = big(0).verified().memory_bytes();
    let pool = TxPool::new(PoolConfig { bytes_limit: one * 16, ..config() }, 5, &[]);
    let flood = |submitter, base: u64| (0..40).take_while(|nonce| pool.admit(big(base + nonce).verified(), submitter, 0).is_ok()).count();
    assert_eq!(flood(ALICE, 0), 12);
    assert!(flood(BOB, 100) >= 2);
    let refusal = refused(&pool, big(99));
    assert_eq!(refusal.status, TransactionStatus::OverGroupMemoryLimit);
    assert_eq!(refusal.comment, format!("OverGroupMemoryLimit, txHash={}...", short(big(99))));
    assert!(pool.bytes() <= one * 16);
}

#[test]
fn height_proposed_again_and_again_takes_no_memory() {
    let pool = pool_of(100);
    for _ in 0..1000 {
        let taken = pool.take(6, 100, usize::MAX, 0);
        pool.give_back(&hashes(&taken));
    }
    assert!(pool.queue.lock().tickets() <= 1024 + 200);
    assert_eq!(pool.take(6, 100, usize::MAX, 0).len(), 100);
}

#[test]
fn memory_of_a_busy_time_is_given_back() {
    let pool = TxPool::new(PoolConfig { count_limit: 100_000, ..config() }, 5, &[]);
    for nonce in 0..5_000 {
        pool.admit(transaction(nonce), ALICE, 0).unwrap();
    }
    let taken = pool.take(6, 5_000, usize::MAX, 0);
    pool.on_committed(6, &taken);
    assert!(pool.expire(0).is_empty());
    pool.give_back(&hashes(&taken));
    pool.admit(transaction(9_000), ALICE, 0).unwrap();
    assert_eq!(nonces(&pool.take(7, 5, usize::MAX, 0)), [9_000]);
}

#[test]
fn sets_are_judged_by_their_height_and_not_by_the_head() {
    let nonce = |nonce: u64| B256::from(U256::from(nonce));
    let ahead = TxPool::new(config(), 1_005, &[(7, vec![nonce(7)]), (8, vec![nonce(8)]), (1_005, vec![nonce(1_005)])]);
    let behind = TxPool::new(config(), 1_003, &[(5, vec![nonce(5)]), (7, vec![nonce(7)]), (8, vec![nonce(8)])]);
    let in_flight_behind = |used: &U256| *used == U256::from(1_005);
    let at = |nonce: u64, block_limit: u64| Shape { block_limit: U256::from(block_limit), ..Shape::new(nonce) }.verified();
    let cases = [
        (at(5, 1_100), true),
        (at(7, 1_100), true),
        (at(8, 1_100), false),
        (at(1_005, 1_100), false),
        (at(9, 1_007), false),
        (at(9, 1_008), true),
        (at(9, 2_007), true),
        (at(9, 2_008), false),
    ];
    for (transaction, fits) in cases {
        let set = [transaction];
        let verdict = ahead.judge(1_008, &set, |_| false);
        assert_eq!(verdict == Verdict::Fit, fits, "{verdict:?}");
        assert_eq!(behind.judge(1_008, &set, in_flight_behind), verdict);
    }
    assert_eq!(ahead.judge(1_005, &[], |_| false), Verdict::Passed);
    assert!(matches!(ahead.judge(1_006, &[at(7, 1_100)], |_| false), Verdict::Unfit(_)), "7 is in the window of 1,006");
}

#[test]
fn oversized_sets_are_unfit_but_a_single_large_transaction_is_not() {
    let pool = pool_of(0);
    let large = |nonce: u64| Shape { data_len: 4_000_000, ..Shape::new(nonce) }.verified();
    let seven: Vec<_> = (0..7).map(large).collect();
    assert!(matches!(pool.judge(6, &seven, |_| false), Verdict::Unfit(reason) if reason.contains("bytes")));
    assert_eq!(pool.judge(6, &seven[..6], |_| false), Verdict::Fit);
    pool.want(6, &hashes(&seven));
    let kept = seven.iter().filter(|one| pool.admit((*one).clone(), Submitter::REPAIR, 0).is_ok()).count();
    assert_eq!(kept, 7, "one more than fits is kept, so that the proposal can be judged");
    pool.want(6, &[large(8).hash()]);
    assert!(pool.admit(large(8), Submitter::REPAIR, 0).is_err());
}

#[test]
fn full_pool_takes_in_what_a_proposal_wants_and_nothing_else_from_peers() {
    let pool = TxPool::new(PoolConfig { count_limit: 2, ..config() }, 5, &[]);
    pool.admit(transaction(1), ALICE, 0).unwrap();
    pool.admit(transaction(2), BOB, 0).unwrap();
    let rival = Shape { salt: 1, ..Shape::new(1) }.verified();
    pool.want(6, &[rival.hash(), transaction(3).hash()]);
    assert!(pool.admit(transaction(4), Submitter::REPAIR, 0).is_err());
    pool.admit(rival.clone(), Submitter::REPAIR, 0).unwrap();
    pool.admit(transaction(3), Submitter::REPAIR, 0).unwrap();
    assert_eq!((pool.count(), pool.shelved(), pool.arrivals()), (2, 2, 2));
    let claimed = pool.claim(6, &[transaction(3).hash(), rival.hash()]);
    assert_eq!(claimed, [Some(transaction(3)), Some(rival.clone())]);
    let superseded = pool.on_committed(6, &[transaction(3), rival]);
    assert_eq!(superseded, [transaction(1)], "the proposal's transaction wins over the one that waited");
    assert_eq!((pool.count(), pool.shelved()), (1, 0));
}

#[test]
fn what_a_void_proposal_was_given_comes_into_the_pool() {
    let pool = pool_of(0);
    pool.want(7, &[transaction(3).hash()]);
    pool.admit(transaction(3), Submitter::REPAIR, 0).unwrap();
    pool.void_above(7, 0);
    assert_eq!((pool.waiting(), pool.shelved()), (0, 1));
    pool.void_above(6, 0);
    assert_eq!((pool.waiting(), pool.shelved()), (1, 0));
    assert_eq!(nonces(&pool.take(7, 10, usize::MAX, 0)), [3]);
}

/// Replays what a reference node refused, as far as the pool decides it.
#[test]
fn recorded_refusals_are_given_word_for_word() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/reference-node/reject.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: {path} is not here");
        return;
    };
    let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for case in recorded["cases"].as_array().unwrap() {
        let message = case["response"]["error"]["message"].as_str().unwrap_or_default();
        let Some((_, comment)) = message.split_once("TransactionRefused>").and_then(|(_, rest)| rest.split_once("tag_comment*] = ")) else {
            continue;
        };
        let (Some(raw), Some(height)) = (case["raw"].as_str(), case["heightBefore"].as_u64()) else { continue };
        let Ok(raw) = RawTx::decode(&millrace_base::hex::decode(raw).unwrap()) else { continue };
        let used = |on_chain: bool| if on_chain { vec![(height, vec![B256::from(raw.fields().nonce)])] } else { Vec::new() };
        let window = used(comment.starts_with("TransactionNonceCheckFail"));
        let pool = TxPool::new(config(), height, &window);
        let name = case["name"].as_str().unwrap();
        if comment.starts_with("TransactionAlreadyKown") {
            pool.admit(raw.clone().verify().unwrap(), ALICE, 0).unwrap();
        } else if comment.starts_with("TxPoolNonceCheckFail") {
            let rival = Shape { nonce: raw.fields().nonce, block_limit: U256::from(height + 1), ..Shape::new(0) };
            pool.admit(rival.verified(), ALICE, 0).unwrap();
        }
        let refusal = pool.precheck(&raw, raw.hash(), ALICE).expect_err(name);
        assert_eq!(refusal.comment, comment.trim_end(), "{name}");
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} cases were understood");
}
