//! Many threads at once: nothing is lost, nothing is handed out twice, and the counts come out exact.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use super::*;

const WORKERS: u64 = 4;
const EACH: u64 = 3_000;

/// Admits its share until the pool has room; every third one is offered twice.
fn submit(pool: &TxPool, worker: u64) {
    for index in 0..EACH {
        let shape = Shape { block_limit: U256::from(900), ..Shape::new(worker * EACH + index) };
        let transaction = shape.verified();
        while let Err(refusal) = pool.admit(transaction.clone(), Submitter(worker), 0) {
            assert_eq!(refusal.status, TransactionStatus::TxPoolIsFull);
            std::thread::yield_now();
        }
        if index % 3 == 0 {
            let again = pool.admit(transaction, Submitter(worker), 0).unwrap_err();
            assert!(!again.comment.starts_with("TxPoolNonceCheckFail"), "the same transaction is not its own rival");
        }
    }
}

/// Proposes and commits; gives some proposals back. Returns what it committed.
fn seal(pool: &TxPool) -> Vec<B256> {
    let mut committed = Vec::new();
    let mut height = 0;
    while committed.len() < (WORKERS * EACH) as usize {
        let taken = pool.take(height + 1, 100, usize::MAX, 0);
        let next = pool.take(height + 2, 50, usize::MAX, 0);
        if taken.is_empty() {
            pool.give_back(&hashes(&next));
            std::thread::yield_now();
            continue;
        }
        let kept = taken.len() - taken.len() / 10;
        if height % 3 == 0 {
            pool.void_above(height + 1, 0);
        }
        height += 1;
        assert!(pool.on_committed(height, &taken[..kept]).is_empty());
        committed.extend(hashes(&taken[..kept]));
        pool.give_back(&hashes(&next));
    }
    committed
}

#[test]
fn threads_lose_nothing_and_hand_out_nothing_twice() {
    let pool = TxPool::new(PoolConfig { count_limit: 2_000, ..config() }, 0, &[]);
    let done = AtomicBool::new(false);
    let committed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn({
                    let pool = &pool;
                    move || submit(pool, worker)
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let pending = pool.pending(300);
                let distinct: HashSet<B256> = hashes(&pending).into_iter().collect();
                assert_eq!(distinct.len(), pending.len());
                assert!(pool.count() <= 2_000 && pool.waiting() <= 2_000);
                assert!(pool.expire(0).is_empty());
                pending.iter().for_each(|transaction| drop(pool.get(transaction.hash())));
            }
        });
        let committed = seal(&pool);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Release);
        reader.join().unwrap();
        committed
    });
    let distinct: HashSet<B256> = committed.iter().copied().collect();
    assert_eq!((distinct.len(), committed.len()), ((WORKERS * EACH) as usize, (WORKERS * EACH) as usize));
    assert_eq!((pool.count(), pool.bytes(), pool.waiting(), pool.submitters()), (0, 0, 0, 0));
    assert_eq!(pool.window_nonces(), committed.len());
    let counters = pool.counters();
    assert_eq!((counters.admitted, counters.committed), (WORKERS * EACH, WORKERS * EACH));
    assert_eq!((counters.superseded, counters.expired), (0, 0));
}

/// Of many transactions with one nonce exactly one gets in, whoever is first.
#[test]
fn one_of_many_rivals_gets_in() {
    let pool = TxPool::new(config(), 0, &[]);
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (pool, admitted) = (&pool, &admitted);
            scope.spawn(move || {
                for nonce in 0..200 {
                    let shape = Shape { salt: worker, ..Shape::new(nonce) };
                    if pool.admit(shape.verified(), Submitter(worker), 0).is_ok() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 200);
    assert_eq!(pool.count(), 200);
}
