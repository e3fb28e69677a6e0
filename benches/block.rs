//! A block's life behind ordering: executing it serially, and committing it to RocksDB with and without a sync.

use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use millrace_access::blockchain::Commit;
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock};
use millrace_backends::rocksdb::{Budget, RocksStorage, SharedResources};
use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, Block, BlockHeader, Bytes, GroupId, KeyPair, Transaction, U256, VerifiedTx, hex, keccak256};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{Durability, Storage};
use millrace_ledger::{Genesis, Ledger, LedgerConfig};
use millrace_vm::{EvmRules, Fork};

/// Of one block: the default `tx_count_limit`.
const TRANSACTIONS: u64 = 1_000;

/// Holders that pay each other.
const ACCOUNTS: u64 = 100;

/// The DagTransfer contract, 0x5002.
const DAG_TRANSFER: Address = Address::new(hex!("0000000000000000000000000000000000005002"));

fn key() -> KeyPair {
    KeyPair::from_secret(&keccak256("bench").0).expect("a hash is a key")
}

/// A group with one sealer, and the machine that executes its blocks.
struct Chain {
    ledger: Ledger,
    executor: BlockExecutor,
    nonce: u64,
}

impl Chain {
    fn new(storage: Arc<dyn Storage>, durability: Durability) -> Self {
        let rules = EvmRules::Fork(Fork::Cancun);
        let genesis = Genesis {
            group: GroupId::new(1).expect("in range"),
            timestamp_ms: 1,
            sealers: vec![key().node_id()],
            consensus: millrace_ledger::genesis::Consensus::Pbft,
            tx_count_limit: TRANSACTIONS,
            tx_gas_limit: 300_000_000,
            consensus_timeout_s: 3,
            rules,
            mark: "bench".into(),
        };
        let config = LedgerConfig {
            chain_id: 1,
            genesis,
            key: key(),
            durability,
            cache_bytes: 64 << 20,
            pool_count: 10_000,
            pool_bytes: 64 << 20,
            expiration_ms: 600_000,
            min_interval_ms: 0,
            ingress_bytes: 1 << 20,
        };
        Self { ledger: Ledger::open(config, storage).expect("the database is empty"), executor: BlockExecutor::new(rules), nonce: 0 }
    }

    fn transaction(&mut self, to: Option<Address>, data: Bytes) -> VerifiedTx {
        self.nonce += 1;
        let fields = Transaction {
            nonce: U256::from(self.nonce),
            gas: U256::from(30_000_000),
            block_limit: U256::from(500),
            to,
            data,
            chain_id: U256::from(1),
            group_id: U256::from(1),
            ..Transaction::default()
        };
        // The signature is not what is measured here.
        VerifiedTx::from_trusted_store(fields.sign(&key()), key().address())
    }

    fn execute(&mut self, transactions: Vec<VerifiedTx>) -> ExecutedBlock {
        let head = self.ledger.chain().head();
        let accumulator = self.ledger.chain().accumulator().expect("in memory");
        let order = BlockOrder {
            parent_hash: head.hash,
            number: head.header.number + 1,
            timestamp_ms: head.header.timestamp_ms + 1,
            tx_gas_limit: 300_000_000,
            sealer: 0,
            sealer_list: vec![key().node_id()],
            transactions,
            state: self.ledger.chain().state(),
            accumulator: &accumulator,
            hashes: self.ledger.chain(),
        };
        self.executor.execute(order).expect("storage works")
    }

    fn apply(&mut self, transactions: Vec<VerifiedTx>) -> Block {
        let ExecutedBlock { block, writes, accumulator, .. } = self.execute(transactions);
        assert!(block.receipts.iter().all(|receipt| receipt.status == 0), "set-up succeeds");
        self.ledger.commit(&[Commit { block: Arc::new(block.clone()), writes, accumulator, epoch_start: None }]).expect("storage works");
        block
    }

    /// A block of payments between holders that have opened their accounts.
    fn transfers(&mut self) -> Vec<VerifiedTx> {
        let open = |index: u64| Encoder::call(selector("userAdd(string,uint256)")).string(&user(index)).uint(U256::from(1_000_000));
        let opened = (0..ACCOUNTS).map(|index| self.transaction(Some(DAG_TRANSFER), open(index).finish())).collect();
        self.apply(opened);
        let pay = |index: u64| {
            let call = Encoder::call(selector("userTransfer(string,string,uint256)"));
            call.string(&user(index % ACCOUNTS)).string(&user((index * 7 + 1) % ACCOUNTS)).uint(U256::from(1)).finish()
        };
        (0..TRANSACTIONS).map(|index| self.transaction(Some(DAG_TRANSFER), pay(index))).collect()
    }

    /// A block of token payments to different holders.
    fn tokens(&mut self) -> Vec<VerifiedTx> {
        let code = hex::decode(include_str!("../tools/txgen/contracts/Token.bin").trim()).expect("compiler output");
        let deployment = self.transaction(None, code.into());
        let token = self.apply(vec![deployment]).receipts[0].contract_address;
        let mint = Encoder::call(selector("mint(address,uint256)")).address(key().address()).uint(U256::from(1_000_000));
        let minted = self.transaction(Some(token), mint.finish());
        self.apply(vec![minted]);
        let pay = |index: u64| {
            let holder = Address::from_word(keccak256((index % ACCOUNTS).to_be_bytes()));
            Encoder::call(selector("transfer(address,uint256)")).address(holder).uint(U256::from(1)).finish()
        };
        (0..TRANSACTIONS).map(|index| self.transaction(Some(token), pay(index))).collect()
    }
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
    for (name, make) in [("DagTransfer", Chain::transfers as fn(&mut Chain) -> Vec<VerifiedTx>), ("token", Chain::tokens)] {
        let mut chain = Chain::new(Arc::new(MemoryStorage::new()), Durability::Process);
        let transactions = make(&mut chain);
        let receipts = chain.execute(transactions.clone()).block.receipts;
        assert!(receipts.iter().all(|receipt| receipt.status == 0), "payments succeed");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| transactions.clone(), |transactions| chain.execute(transactions), BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// The next block of a chain: the same payments at the next height.
fn next(template: &Commit, chain: &Chain) -> Commit {
    let head = chain.ledger.chain().head();
    let header = BlockHeader { parent_hash: head.hash, number: head.header.number + 1, ..template.block.header.clone() };
    let block = Block { hash: header.hash(), header, ..(*template.block).clone() };
    Commit { block: Arc::new(block), writes: template.writes.clone(), accumulator: template.accumulator.clone(), epoch_start: None }
}

/// Committing a block of token payments: encoding, the batch, the sync if there is one, caches and the pool.
pub fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block commit");
    group.throughput(Throughput::Elements(TRANSACTIONS)).sample_size(20);
    for (name, durability) in [("synced", Durability::Power), ("not synced", Durability::Process)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut chain = Chain::new(open(directory.path()), durability);
        let transactions = chain.tokens();
        let ExecutedBlock { block, writes, accumulator, .. } = chain.execute(transactions);
        let template = Commit { block: Arc::new(block), writes, accumulator, epoch_start: None };
        group.bench_function(name, |bencher| {
            // One at a time: a block names the one before.
            let work = |block: Commit| chain.ledger.commit(&[block]).expect("storage works");
            bencher.iter_batched(|| next(&template, &chain), work, BatchSize::PerIteration);
        });
    }
    group.finish();
}
