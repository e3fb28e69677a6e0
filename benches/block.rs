//! A block's life behind ordering: executing it serially, and committing it to RocksDB with and without a sync.

use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use millrace_access::blockchain::Commit;
use millrace_access::verifier::{BlockExecutor, ExecutedBlock};
use millrace_backends::rocksdb::{Budget, RocksStorage, SharedResources};
use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, Block, BlockHeader, U256, VerifiedTx, hex, keccak256};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{Durability, Storage};

use crate::chain::{Chain, RULES, TRANSACTIONS, key};

/// Holders that pay each other.
const ACCOUNTS: u64 = 100;

/// The DagTransfer contract, 0x5002.
const DAG_TRANSFER: Address = Address::new(hex!("0000000000000000000000000000000000005002"));

/// A block of payments between holders that have opened their accounts.
fn transfers(chain: &mut Chain) -> Vec<VerifiedTx> {
    let open = |index: u64| Encoder::call(selector("userAdd(string,uint256)")).string(&user(index)).uint(U256::from(1_000_000));
    let opened = (0..ACCOUNTS).map(|index| chain.transaction(Some(DAG_TRANSFER), open(index).finish())).collect();
    chain.apply(opened);
    let pay = |index: u64| {
        let call = Encoder::call(selector("userTransfer(string,string,uint256)"));
        call.string(&user(index % ACCOUNTS)).string(&user((index * 7 + 1) % ACCOUNTS)).uint(U256::from(1)).finish()
    };
    (0..TRANSACTIONS).map(|index| chain.transaction(Some(DAG_TRANSFER), pay(index))).collect()
}

/// A block of token payments to different holders.
fn tokens(chain: &mut Chain) -> Vec<VerifiedTx> {
    let code = hex::decode(include_str!("../tools/txgen/contracts/Token.bin").trim()).expect("compiler output");
    let deployment = chain.transaction(None, code.into());
    let token = chain.apply(vec![deployment]).receipts[0].contract_address;
    let mint = Encoder::call(selector("mint(address,uint256)")).address(key().address()).uint(U256::from(1_000_000));
    let minted = chain.transaction(Some(token), mint.finish());
    chain.apply(vec![minted]);
    let pay = |index: u64| {
        let holder = Address::from_word(keccak256((index % ACCOUNTS).to_be_bytes()));
        Encoder::call(selector("transfer(address,uint256)")).address(holder).uint(U256::from(1)).finish()
    };
    (0..TRANSACTIONS).map(|index| chain.transaction(Some(token), pay(index))).collect()
}
fn user(index: u64) -> String {
    format!("user{index}")
}

fn open(directory: &Path) -> Arc<dyn Storage> {
    let budget = Budget { cache_bytes: 64 << 20, ..Budget::default() };
    let shared = SharedResources::new(budget).expect("memory suffices");
    Arc::new(RocksStorage::open(directory, &shared).expect("the directory is new"))
}

/// Executing a block, state root and receipts included.
pub fn execution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("serial execution");
    group.throughput(Throughput::Elements(TRANSACTIONS));
    for (name, make) in [("DagTransfer", transfers as fn(&mut Chain) -> Vec<VerifiedTx>), ("token", tokens)] {
        let mut chain = Chain::new(Arc::new(MemoryStorage::new()), Durability::Process);
        let transactions = make(&mut chain);
        let mut executor = BlockExecutor::new(RULES);
        let receipts = chain.execute(&mut executor, transactions.clone()).block.receipts;
        assert!(receipts.iter().all(|receipt| receipt.status == 0), "payments succeed");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| transactions.clone(), |transactions| chain.execute(&mut executor, transactions), BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// The next block of a chain: the same payments at the next height.
fn next(template: &Commit, chain: &Chain) -> Commit {
    let head = chain.ledger.chain().head();
    let header = BlockHeader { parent_hash: head.hash, number: head.header.number + 1, ..template.block.header.clone() };
    let block = Block { hash: header.hash(), header, ..(*template.block).clone() };
    Commit {
        block: Arc::new(block),
        writes: template.writes.clone(),
        nodes: Vec::new(),
        commitment: template.commitment.clone(),
        epoch_start: None,
    }
}

/// Committing a block of token payments: encoding, the batch, the sync if there is one, caches and the pool.
pub fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block commit");
    group.throughput(Throughput::Elements(TRANSACTIONS)).sample_size(20);
    for (name, durability) in [("synced", Durability::Power), ("not synced", Durability::Process)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut chain = Chain::new(open(directory.path()), durability);
        let transactions = tokens(&mut chain);
        let ExecutedBlock { block, writes, nodes, commitment } = chain.execute(&mut BlockExecutor::new(RULES), transactions);
        let template = Commit { block: Arc::new(block), writes, nodes, commitment, epoch_start: None };
        group.bench_function(name, |bencher| {
            // One at a time: a block names the one before.
            let work = |block: Commit| chain.ledger.commit(&[block]).expect("storage works");
            bencher.iter_batched(|| next(&template, &chain), work, BatchSize::PerIteration);
        });
    }
    group.finish();
}
