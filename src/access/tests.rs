//! The whole way through the layer with the real machine: pool, executor, chain, and what a restart finds.

use std::ops::ControlFlow;
use std::sync::Arc;

use millrace_base::{Address, B256, Block, BlockHeader, Bytes, GroupId, KeyPair, NodeId, Transaction, U256, VerifiedTx, hex};
use millrace_core::root::StateAccumulator;
use millrace_core::state::codec;
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{Durability, Space, StateCommitment, StateKind, Storage};
use millrace_vm::EvmRules;

use crate::{
    BlockChain, BlockExecutor, BlockOrder, Commit, ExecutedBlock, PoolConfig, SerialVerifier, SignatureVerifier, Submitter, TxPool,
};

/// Init code of a contract that adds one to its slot 0, and logs and returns the sum.
const COUNTER: [u8; 35] = hex!("6017600c60003960176000f36000546001018060005560005260206000a060206000f3");

/// Init code that reverts.
const REVERT: [u8; 5] = hex!("60006000fd");

struct Node {
    chain: BlockChain,
    pool: TxPool,
    executor: BlockExecutor,
}

fn open(storage: &Arc<dyn Storage>) -> Node {
    let chain = match BlockChain::open(Arc::clone(storage), Durability::Power, 1 << 20).unwrap() {
        Some(chain) => chain,
        None => {
            let header = BlockHeader { timestamp_ms: 1, ..BlockHeader::default() };
            let block = Block { hash: header.hash(), header, signatures: Vec::new(), transactions: Vec::new(), receipts: Vec::new() };
            let genesis = Commit {
                block: Arc::new(block),
                writes: Vec::new(),
                nodes: Vec::new(),
                commitment: StateCommitment::empty(StateKind::Storage),
                epoch_start: None,
            };
            BlockChain::create(Arc::clone(storage), Durability::Power, 1 << 20, genesis).unwrap()
        }
    };
    let config =
        PoolConfig { chain_id: 1, group: GroupId::new(1).unwrap(), count_limit: 100, bytes_limit: 1 << 20, expiration_ms: 600_000 };
    let pool = TxPool::new(config, chain.head().header.number, &chain.recent_nonces().unwrap());
    Node { chain, pool, executor: BlockExecutor::new(EvmRules::Fisco2 { free_storage: false }) }
}

fn transaction(nonce: u64, to: Option<Address>, data: &[u8]) -> VerifiedTx {
    let fields = Transaction {
        nonce: U256::from(nonce),
        block_limit: U256::from(100),
        to,
        data: Bytes::copy_from_slice(data),
        chain_id: U256::from(1),
        group_id: U256::from(1),
        ..Transaction::default()
    };
    let raw = fields.sign(&KeyPair::from_secret(&[1; 32]).unwrap());
    let hash = raw.hash();
    SerialVerifier.recover_batch(vec![(raw, hash)]).remove(0).unwrap()
}

impl Node {
    fn execute(&mut self, transactions: Vec<VerifiedTx>) -> ExecutedBlock {
        let head = self.chain.head();
        let order = BlockOrder {
            parent_hash: head.hash,
            number: head.header.number + 1,
            timestamp_ms: head.header.timestamp_ms + 1,
            tx_gas_limit: 300_000_000,
            sealer: 0,
            sealer_list: vec![NodeId([2; 64])],
            transactions,
            state: self.chain.state(),
            commitment: &self.chain.commitment().unwrap(),
            hashes: &self.chain,
        };
        self.executor.execute(order).unwrap()
    }

    /// Admits, executes twice, and commits a block.
    fn run(&mut self, transactions: &[VerifiedTx]) -> Arc<Block> {
        for transaction in transactions {
            self.pool.admit(transaction.clone(), Submitter(1), 0).unwrap();
        }
        let taken = self.pool.take(self.chain.head().header.number + 1, 100, 1 << 20, 0);
        assert_eq!(taken, transactions);
        let executed = self.execute(taken.clone());
        assert_eq!(executed.block, self.execute(taken).block, "the same order gives the same block");
        let block = Arc::new(executed.block);
        let commit = Commit {
            block: Arc::clone(&block),
            writes: executed.writes,
            nodes: executed.nodes,
            commitment: executed.commitment,
            epoch_start: None,
        };
        self.chain.commit(&[commit]).unwrap();
        assert!(self.pool.on_committed(block.header.number, &block.transactions).is_empty());
        block
    }
}

/// The state root, from what is in the database.
fn recomputed_root(storage: &dyn Storage) -> B256 {
    let mut accumulator = StateAccumulator::new();
    let mut add = |key: &[u8], value: &[u8]| {
        let key = codec::decode_key(key).unwrap();
        accumulator.replace(&key, None, Some(&codec::decode_value(&key, value).unwrap()));
        ControlFlow::Continue(())
    };
    storage.scan(Space::State, &[], &[], &mut add).unwrap();
    accumulator.root()
}

#[test]
fn contract_keeps_counting_over_blocks_and_restarts() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut node = open(&storage);
    let first = node.run(&[transaction(1, None, &COUNTER), transaction(2, None, &REVERT)]);
    assert_eq!(first.receipts.iter().map(|receipt| receipt.status).collect::<Vec<_>>(), [0, 22]);
    let counter = first.receipts[0].contract_address;
    let call = |nonce| transaction(nonce, Some(counter), &[1, 2, 3, 4]);
    node.run(&[call(3), call(4)]);

    let mut node = open(&storage);
    assert!(node.pool.admit(call(4), Submitter(1), 0).unwrap_err().comment.starts_with("TransactionNonceCheckFail"));
    let third = node.run(&[call(5), transaction(6, Some(Address::repeat_byte(9)), &[1, 2, 3, 4]), call(7)]);
    let sum = |index: usize| U256::from_be_slice(&third.receipts[index].output);
    assert_eq!((sum(0), sum(2)), (U256::from(3), U256::from(4)));
    assert_eq!(third.receipts[1].status, 26, "nothing is at that address");
    assert_eq!(third.receipts[2].logs[0].address, counter);
    assert_eq!(recomputed_root(&*storage), third.header.state_root);
    assert_eq!((node.chain.head().totals.transactions, node.chain.head().totals.failed), (7, 2));
}
