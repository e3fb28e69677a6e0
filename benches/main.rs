//! The one benchmark binary: the steps of a transaction's life that cost CPU. `cargo bench -p millrace-benches`.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod block;
mod chain;
mod parallel;
mod queue;
mod workloads;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_access::txpool::{PoolConfig, Submitter, TxPool};
use millrace_access::verifier::{SerialVerifier, SignatureVerifier};
use millrace_base::{Address, B256, Bytes, GroupId, KeyPair, RawTx, Transaction, U256, VerifiedTx, keccak256, merkle};

const BATCH: u64 = 256;

fn transactions() -> Vec<RawTx> {
    let key = KeyPair::from_secret(&keccak256("bench").0).expect("a hash is a key");
    let transfer = |nonce| Transaction {
        nonce: U256::from(nonce),
        block_limit: U256::from(500),
        to: Some(Address::repeat_byte(7)),
        data: Bytes::from(vec![7; 68]),
        chain_id: U256::from(1),
        group_id: U256::from(1),
        ..Transaction::default()
    };
    (1..=BATCH).map(|nonce| transfer(nonce).sign(&key)).collect()
}

fn verified() -> Vec<VerifiedTx> {
    transactions().into_iter().map(|raw| raw.verify().expect("signed above")).collect()
}

fn pool() -> TxPool {
    let group = GroupId::new(1).expect("in range");
    TxPool::new(PoolConfig { chain_id: 1, group, count_limit: 10_000, bytes_limit: 64 << 20, expiration_ms: 600_000 }, 0, &[])
}

fn transaction_steps(criterion: &mut Criterion) {
    let raws = transactions();
    let encoded: Vec<Bytes> = raws.iter().map(|raw| raw.encoded().clone()).collect();
    let hashed: Vec<(RawTx, B256)> = raws.iter().map(|raw| (raw.clone(), raw.hash())).collect();
    let known = verified();
    let hashes: Vec<B256> = known.iter().map(VerifiedTx::hash).collect();
    let mut group = criterion.benchmark_group("transaction");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("decode", |bencher| bencher.iter(|| encoded.iter().filter(|bytes| RawTx::decode(bytes).is_ok()).count()));
    group.bench_function("hash", |bencher| bencher.iter(|| raws.iter().map(|raw| raw.hash().0[0]).max()));
    group.bench_function("recover", |bencher| {
        bencher.iter_batched(|| hashed.clone(), |batch| SerialVerifier.recover_batch(batch).len(), BatchSize::LargeInput);
    });
    group.bench_function("pool admit and take", |bencher| {
        let work = |pool: TxPool| {
            for transaction in &known {
                pool.admit(transaction.clone(), Submitter(1), 1).expect("there is room");
            }
            pool.take(1, usize::MAX, usize::MAX, 1).len()
        };
        bencher.iter_batched(pool, work, BatchSize::LargeInput);
    });
    group.bench_function("merkle root", |bencher| bencher.iter(|| merkle::root(&hashes)));
    group.finish();
}

criterion_group!(benches, transaction_steps, queue::hop, block::execution, block::commit, parallel::execution);
criterion_main!(benches);
