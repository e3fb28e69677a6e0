//! A group in memory or on disk whose blocks are executed and committed by hand.

use std::sync::Arc;

use millrace_access::blockchain::Commit;
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock};
use millrace_base::{Address, Block, Bytes, GroupId, KeyPair, Transaction, U256, VerifiedTx, keccak256};
use millrace_core::{Durability, Storage};
use millrace_ledger::{Genesis, Ledger, LedgerConfig};
use millrace_vm::{EvmRules, Fork};

/// Of one block: the default `tx_count_limit`.
pub const TRANSACTIONS: u64 = 1_000;

/// Gas of one transaction at most: the default `tx_gas_limit`.
pub const GAS_LIMIT: u64 = 300_000_000;

/// What the group's machine does.
pub const RULES: EvmRules = EvmRules::Fork(Fork::Cancun);

/// Signs everything.
pub fn key() -> KeyPair {
    KeyPair::from_secret(&keccak256("bench").0).expect("a hash is a key")
}

/// A group with one sealer.
pub struct Chain {
    /// Its blocks and state.
    pub ledger: Ledger,
    nonce: u64,
}

impl Chain {
    /// An empty group.
    pub fn new(storage: Arc<dyn Storage>, durability: Durability) -> Self {
        let genesis = Genesis {
            group: GroupId::new(1).expect("in range"),
            timestamp_ms: 1,
            sealers: vec![key().node_id()],
            consensus: millrace_ledger::genesis::Consensus::Pbft,
            tx_count_limit: TRANSACTIONS,
            tx_gas_limit: GAS_LIMIT,
            consensus_timeout_s: 3,
            rules: RULES,
            state: millrace_core::StateKind::Storage,
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
        Self { ledger: Ledger::open(config, storage).expect("the database is empty"), nonce: 0 }
    }

    /// A transaction of the owner.
    pub fn transaction(&mut self, to: Option<Address>, data: Bytes) -> VerifiedTx {
        self.transaction_of(key().address(), to, data)
    }

    /// A transaction of anybody.
    pub fn transaction_of(&mut self, sender: Address, to: Option<Address>, data: Bytes) -> VerifiedTx {
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
        VerifiedTx::from_trusted_store(fields.sign(&key()), sender)
    }

    /// Executes the next block.
    pub fn execute(&self, executor: &mut BlockExecutor, transactions: Vec<VerifiedTx>) -> ExecutedBlock {
        let head = self.ledger.chain().head();
        let commitment = self.ledger.chain().commitment().expect("in memory");
        let order = BlockOrder {
            parent_hash: head.hash,
            number: head.header.number + 1,
            timestamp_ms: head.header.timestamp_ms + 1,
            tx_gas_limit: GAS_LIMIT,
            sealer: 0,
            sealer_list: vec![key().node_id()],
            transactions,
            state: self.ledger.chain().state(),
            commitment: &commitment,
            hashes: self.ledger.chain(),
        };
        executor.execute(order).expect("storage works")
    }

    /// Executes and commits a block whose transactions all succeed.
    pub fn apply(&mut self, transactions: Vec<VerifiedTx>) -> Block {
        let ExecutedBlock { block, writes, nodes, commitment } = self.execute(&mut BlockExecutor::new(RULES), transactions);
        assert!(block.receipts.iter().all(|receipt| receipt.status == 0), "set-up succeeds");
        self.ledger
            .commit(&[Commit { block: Arc::new(block.clone()), writes, nodes, commitment, epoch_start: None }])
            .expect("storage works");
        block
    }
}
