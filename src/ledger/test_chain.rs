//! A chain in memory whose blocks are executed and signed as a group would: for the tests of files and snapshots.

use std::sync::Arc;

use millrace_access::blockchain::{BlockChain, Commit};
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock};
use millrace_administration::Epoch;
use millrace_administration::raft::ElectionTimes;
use millrace_base::{Address, BlockSignature, Bytes, GroupId, KeyPair, NodeId, Transaction, U256, VerifiedTx, hex};
use millrace_core::overlay::{Layer, LayeredState};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{Durability, StateKind, Storage};
use millrace_vm::EvmRules;

use crate::genesis::{Consensus, Genesis};
use crate::ledger::{changed_epoch, epoch_at};
use crate::snapshot::Trust;

/// Init code of a contract that adds one to its slot 0, and logs and returns the sum.
const COUNTER: [u8; 35] = hex!("6017600c60003960176000f36000546001018060005560005260206000a060206000f3");

/// The Consensus contract, 0x1003.
const CONSENSUS: Address = Address::new(hex!("0000000000000000000000000000000000001003"));

pub fn key(index: usize) -> KeyPair {
    KeyPair::from_secret(&[u8::try_from(index + 1).unwrap(); 32]).unwrap()
}

pub fn genesis(sealers: usize, mark: &str) -> Genesis {
    let mut sealers: Vec<NodeId> = (0..sealers).map(|index| key(index).node_id()).collect();
    sealers.sort_unstable();
    Genesis {
        group: GroupId::new(1).unwrap(),
        timestamp_ms: 1,
        sealers,
        consensus: Consensus::Pbft,
        tx_count_limit: 1_000,
        tx_gas_limit: 300_000_000,
        consensus_timeout_s: 3,
        rules: EvmRules::default(),
        state: StateKind::Storage,
        mark: mark.into(),
    }
}

/// See the module.
pub struct TestChain {
    pub storage: Arc<dyn Storage>,
    pub genesis: Genesis,
    pub chain: BlockChain,
    executor: BlockExecutor,
    epoch: Epoch,
    nonce: u64,
    counter: Option<Address>,
    /// How many sealers sign a block, if there are as many.
    pub signers: usize,
}

impl TestChain {
    pub fn new(sealers: usize) -> Self {
        Self::of(genesis(sealers, "test"))
    }

    /// With tries.
    pub fn with_tries(sealers: usize) -> Self {
        Self::of(Genesis { state: StateKind::Mpt, ..genesis(sealers, "tries") })
    }

    /// Whose blocks a majority signs.
    pub fn raft(sealers: usize) -> Self {
        let consensus = Consensus::Raft(ElectionTimes::default());
        let chain = Self::of(Genesis { consensus, ..genesis(sealers, "1-sealers-raft-test") });
        Self { signers: sealers / 2 + 1, ..chain }
    }

    fn of(genesis: Genesis) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let chain = BlockChain::create(storage.clone(), Durability::Power, 1 << 20, genesis.commit().unwrap()).unwrap();
        let epoch = epoch_at(&*chain.state(), 1, genesis.consensus.faults()).unwrap();
        let executor = BlockExecutor::new(genesis.rules);
        Self { storage, chain, executor, genesis, epoch, nonce: 0, counter: None, signers: usize::MAX }
    }

    pub fn trust(&self) -> Trust {
        let Genesis { sealers, consensus, state, .. } = &self.genesis;
        Trust { genesis: self.genesis.hash(), sealers: sealers.clone(), faults: consensus.faults(), state: *state, block: None }
    }

    /// The contract that counts; there from block 1 on.
    pub fn counter(&self) -> Address {
        self.counter.expect("block 1 makes it")
    }

    pub fn height(&self) -> u64 {
        self.chain.head().header.number
    }

    pub fn transaction(&mut self, to: Option<Address>, data: &[u8]) -> VerifiedTx {
        self.nonce += 1;
        let fields = Transaction {
            nonce: U256::from(self.nonce),
            gas: U256::from(10_000_000),
            block_limit: U256::from(self.height() + 500),
            to,
            data: Bytes::copy_from_slice(data),
            chain_id: U256::from(1),
            group_id: U256::from(1),
            ..Transaction::default()
        };
        fields.sign(&key(50)).verify().unwrap()
    }

    /// Adds blocks that count, each with so many transactions.
    pub fn grow(&mut self, blocks: usize, transactions: usize) {
        for _ in 0..blocks {
            let counter = self.counter;
            let data: &[u8] = if counter.is_some() { &[1, 2, 3, 4] } else { &COUNTER };
            let transactions = (0..transactions).map(|_| self.transaction(counter, data)).collect();
            self.block(transactions);
        }
    }

    /// Makes a node a sealer from the next block but one on.
    pub fn add_sealer(&mut self, index: usize) {
        let node = key(index).node_id().to_string();
        let mut data = hex!("89152d1f").to_vec();
        data.extend_from_slice(&U256::from(32).to_be_bytes::<32>());
        data.extend_from_slice(&U256::from(node.len()).to_be_bytes::<32>());
        data.extend_from_slice(node.as_bytes());
        let transaction = self.transaction(Some(CONSENSUS), &data);
        self.block(vec![transaction]);
        assert!(self.epoch.sealers.contains(&key(index).node_id()), "the contract took it");
    }

    /// Adds a block, signed by all sealers or as many as [`Self::signers`] says.
    pub fn block(&mut self, transactions: Vec<VerifiedTx>) {
        let head = self.chain.head();
        let number = head.header.number + 1;
        let ExecutedBlock { mut block, writes, nodes, commitment } = self
            .executor
            .execute(BlockOrder {
                parent_hash: head.hash,
                number,
                timestamp_ms: head.header.timestamp_ms + 1,
                tx_gas_limit: self.epoch.tx_gas_limit,
                sealer: 0,
                sealer_list: self.epoch.sealers.clone(),
                transactions,
                state: self.chain.state(),
                commitment: &self.chain.commitment().unwrap(),
                hashes: &self.chain,
            })
            .unwrap();
        let keys: Vec<KeyPair> = (0..10).map(key).collect();
        let signature = |(index, sealer): (u32, &NodeId)| {
            let key = keys.iter().find(|key| key.node_id() == *sealer).expect("a key of this test");
            BlockSignature { index, signature: key.sign(block.hash) }
        };
        let signatures = (0..).zip(&self.epoch.sealers).take(self.signers).map(signature).collect();
        block.signatures = signatures;
        if self.counter.is_none() {
            self.counter = block.receipts.iter().map(|receipt| receipt.contract_address).find(|address| *address != Address::ZERO);
        }
        let after = || Arc::new(LayeredState::new(self.chain.state(), vec![Arc::new(Layer::new(&writes, &nodes))]));
        let next = changed_epoch(&self.epoch, number, &writes, after).unwrap();
        let epoch_start = next.as_ref().map(|epoch| epoch.start);
        self.chain.commit(&[Commit { block: Arc::new(block), writes, nodes, commitment, epoch_start }]).unwrap();
        if let Some(epoch) = next {
            self.epoch = epoch;
        }
    }
}

/// Everything in a database but what only says how it came about.
pub fn content(storage: &dyn Storage) -> Vec<(millrace_core::Space, Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    for space in millrace_core::Space::ALL {
        let mut take = |key: &[u8], value: &[u8]| {
            pairs.push((space, key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        };
        storage.scan(space, &[], &[], &mut take).unwrap();
    }
    pairs
}
