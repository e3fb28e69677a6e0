//! A node that makes a block of every transaction it accepts, with the checks of a pool that clients see.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use millrace_base::{
    Address, B256, Block, BlockHeader, Bloom, Bytes, GroupId, KeyPair, LogEntry, NodeId, RawTx, Receipt, Refusal, Transaction,
    TransactionStatus, U256, VerifiedTx,
};
use millrace_core::StorageError;
use millrace_ledger::view::*;

use super::super::fake::group;
use crate::channel::ChannelServer;

#[derive(Default)]
struct Chain {
    blocks: Vec<Arc<Block>>,
    nonces: BTreeSet<U256>,
    places: HashMap<B256, Location>,
}

pub struct ChainLedger {
    group: GroupId,
    node: NodeId,
    chain: Mutex<Chain>,
}

/// The receipt of a transaction, and the hash of its block where a test wants one.
pub type MakeReceipt = Box<dyn Fn(&VerifiedTx) -> (Receipt, Option<B256>) + Send + Sync>;

pub struct ChainNode {
    info: NodeInfo,
    ledgers: BTreeMap<u16, Arc<ChainLedger>>,
    server: Mutex<Weak<ChannelServer>>,
    make: MakeReceipt,
    /// Accepted transactions wait here instead of going into blocks.
    held: Mutex<Option<Vec<(GroupId, VerifiedTx)>>>,
}

/// A receipt without events.
pub fn plain(_: &VerifiedTx) -> (Receipt, Option<B256>) {
    (with_logs(Vec::new()), None)
}

pub fn with_logs(logs: Vec<LogEntry>) -> Receipt {
    Receipt {
        state_root: B256::ZERO,
        gas_used: U256::from(21_000),
        contract_address: Address::ZERO,
        logs_bloom: Receipt::bloom_of(&logs),
        status: 0,
        output: Bytes::new(),
        remain_gas: U256::ZERO,
        logs,
    }
}

fn block(number: u64, hash: Option<B256>, transactions: Vec<VerifiedTx>, receipts: Vec<Receipt>) -> Arc<Block> {
    let header = BlockHeader {
        parent_hash: B256::ZERO,
        state_root: B256::ZERO,
        transactions_root: B256::ZERO,
        receipts_root: B256::ZERO,
        db_hash: B256::ZERO,
        logs_bloom: Bloom::ZERO,
        number,
        gas_limit: 0,
        gas_used: 0,
        timestamp_ms: number,
        extra_data: Vec::new(),
        sealer: 0,
        sealer_list: Vec::new(),
    };
    let hash = hash.unwrap_or_else(|| header.hash());
    Arc::new(Block { header, hash, signatures: Vec::new(), transactions, receipts })
}

/// A transaction of group 1 that calls `to`.
pub fn transaction(nonce: u64, to: Address, block_limit: u64) -> Bytes {
    transaction_of(1, nonce, to, block_limit)
}

pub fn transaction_of(group: u64, nonce: u64, to: Address, block_limit: u64) -> Bytes {
    let fields = Transaction {
        nonce: U256::from(nonce),
        gas_price: U256::from(1),
        gas: U256::from(1_000_000),
        block_limit: U256::from(block_limit),
        to: Some(to),
        value: U256::ZERO,
        data: Bytes::new(),
        chain_id: U256::from(1),
        group_id: U256::from(group),
        extra_data: Bytes::new(),
    };
    fields.sign(&KeyPair::from_secret(&[7; 32]).unwrap()).encoded().clone()
}

impl ChainNode {
    /// With groups 1 and 2, whose heads are `height`.
    pub fn new(height: u64, make: MakeReceipt) -> Arc<Self> {
        Self::with_id(NodeId([1; 64]), height, make)
    }

    pub fn with_id(node: NodeId, height: u64, make: MakeReceipt) -> Arc<Self> {
        let ledger = |id: i64| {
            let blocks = (0..=height).map(|number| block(number, None, Vec::new(), Vec::new())).collect();
            let chain = Chain { blocks, ..Chain::default() };
            (group(id).get(), Arc::new(ChainLedger { group: group(id), node, chain: Mutex::new(chain) }))
        };
        let info = NodeInfo {
            chain_id: 1,
            node_id: node,
            p2p_endpoint: "127.0.0.1:30300".into(),
            agency: "agency".into(),
            name: "node0".into(),
            supported_version: "2.11.1".into(),
        };
        let (ledgers, server) = (BTreeMap::from([ledger(1), ledger(2)]), Mutex::default());
        Arc::new(Self { info, ledgers, server, make, held: Mutex::default() })
    }

    pub fn attach(&self, server: &Arc<ChannelServer>) {
        *self.server.lock().unwrap() = Arc::downgrade(server);
    }

    /// From now on accepted transactions wait.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    /// Puts all that waits into one block.
    pub fn release(&self) -> usize {
        let held = self.held.lock().unwrap().take().unwrap_or_default();
        let count = held.len();
        if let Some((group, _)) = held.first() {
            self.commit(*group, held.into_iter().map(|(_, tx)| tx).collect());
        }
        count
    }

    /// Makes an empty block.
    pub fn commit_empty(&self, group: GroupId) {
        self.commit(group, Vec::new());
    }

    pub fn expire(&self, group: GroupId, hashes: &[B256]) {
        self.server.lock().unwrap().upgrade().unwrap().transactions_expired(group, hashes);
    }

    pub fn head(&self) -> u64 {
        self.ledgers[&1].head().number
    }

    /// Queries of group 1 wait for as long as the guard lives.
    pub fn hold_queries(&self) -> impl Drop + '_ {
        self.ledgers[&1].chain.lock().unwrap()
    }

    fn commit(&self, group: GroupId, transactions: Vec<VerifiedTx>) {
        let ledger = &self.ledgers[&group.get()];
        let committed = {
            let mut chain = ledger.chain.lock().unwrap();
            let number = u64::try_from(chain.blocks.len()).unwrap();
            let made: Vec<_> = transactions.iter().map(|tx| (self.make)(tx)).collect();
            let hash = made.iter().find_map(|(_, hash)| *hash);
            for (tx, index) in transactions.iter().zip(0..) {
                chain.places.insert(tx.hash(), Location { number, index });
            }
            let committed = block(number, hash, transactions, made.into_iter().map(|(receipt, _)| receipt).collect());
            chain.blocks.push(Arc::clone(&committed));
            committed
        };
        if let Some(server) = self.server.lock().unwrap().upgrade() {
            server.block_committed(group, &committed);
        }
    }

    fn admit(&self, submission: &Submission) -> Result<VerifiedTx, SubmitError> {
        let raw = RawTx::decode(&submission.raw).map_err(SubmitError::Decode)?;
        let tx = raw.verify().map_err(|_| SubmitError::Decode(millrace_base::transaction::DecodeError::Signature))?;
        let ledger = self.ledgers.get(&submission.group.get()).ok_or(SubmitError::NoSuchGroup)?;
        let mut chain = ledger.chain.lock().unwrap();
        let head = U256::from(chain.blocks.len() - 1);
        let (fields, limit) = (tx.fields(), tx.fields().block_limit);
        let refused = |status: TransactionStatus| {
            Err(SubmitError::Refused(Refusal { status, comment: format!("{}, txHash={}", status.refusal_word(), tx.hash()) }))
        };
        match () {
            () if chain.nonces.contains(&fields.nonce) => refused(TransactionStatus::NonceCheckFail),
            () if limit <= head || limit > head + U256::from(1_000) => refused(TransactionStatus::BlockLimitCheckFail),
            // As in the reference node the nonce stays taken by what is refused from here on.
            () if !chain.nonces.insert(fields.nonce) => unreachable!(),
            () if fields.chain_id != U256::from(1) => refused(TransactionStatus::InvalidChainId),
            () if fields.group_id != U256::from(submission.group.get()) => refused(TransactionStatus::InvalidGroupId),
            () => Ok(tx),
        }
    }

    fn handle(&self, submission: Submission) {
        let admitted = self.admit(&submission);
        let Ok(tx) = admitted else { return (submission.reply)(admitted.map(|tx| tx.hash())) };
        if let Some(held) = &mut *self.held.lock().unwrap() {
            held.push((submission.group, tx.clone()));
            return (submission.reply)(Ok(tx.hash()));
        }
        // A block may be faster than the answer to who sent its transaction.
        let hash = tx.hash();
        self.commit(submission.group, vec![tx]);
        (submission.reply)(Ok(hash));
    }
}

/// The node as the port sees it.
pub struct View(pub Arc<ChainNode>);

impl NodeView for View {
    fn info(&self) -> &NodeInfo {
        &self.0.info
    }
    fn ledger(&self, group: GroupId) -> Option<Arc<dyn LedgerView>> {
        self.0.ledgers.get(&group.get()).map(|ledger| Arc::clone(ledger) as Arc<dyn LedgerView>)
    }
    fn groups(&self) -> Vec<GroupId> {
        self.0.ledgers.values().map(|ledger| ledger.group).collect()
    }
    fn group_status(&self, group: GroupId) -> GroupStatus {
        if self.0.ledgers.contains_key(&group.get()) { GroupStatus::Running } else { GroupStatus::Inexistent }
    }
    fn peers(&self) -> Vec<NodeInfo> {
        Vec::new()
    }
    fn configured_peers(&self) -> Vec<String> {
        Vec::new()
    }
    fn change_group(&self, _: GroupId, _: GroupChange) -> Result<(), GroupChangeError> {
        Err(GroupChangeError::Failed("not of this node".into()))
    }
    fn add_peers(&self, _: &[SocketAddr]) -> Result<usize, String> {
        Err("not of this node".into())
    }
    fn erase_peers(&self, _: &[SocketAddr]) -> Result<usize, String> {
        Err("not of this node".into())
    }
    fn submit(&self, submissions: Vec<Submission>) {
        let node = Arc::clone(&self.0);
        std::thread::spawn(move || submissions.into_iter().for_each(|submission| node.handle(submission)));
    }
    fn status(&self) -> String {
        String::new()
    }
    fn topology(&self) -> String {
        String::new()
    }
    fn metrics(&self) -> String {
        String::new()
    }
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
}

impl LedgerView for ChainLedger {
    fn group(&self) -> GroupId {
        self.group
    }
    fn genesis_hash(&self) -> B256 {
        self.chain.lock().unwrap().blocks[0].hash
    }
    fn head(&self) -> Head {
        let chain = self.chain.lock().unwrap();
        let head = chain.blocks.last().unwrap();
        Head { number: head.header.number, hash: head.hash, timestamp_ms: head.header.timestamp_ms }
    }
    fn is_member(&self) -> bool {
        true
    }
    fn block(&self, number: u64) -> Result<Option<Arc<Block>>, StorageError> {
        Ok(usize::try_from(number).ok().and_then(|number| self.chain.lock().unwrap().blocks.get(number).cloned()))
    }
    fn header(&self, number: u64) -> Result<Option<Arc<SignedHeader>>, StorageError> {
        let signed = |block: Arc<Block>| SignedHeader { header: block.header.clone(), hash: block.hash, signatures: Vec::new() };
        Ok(self.block(number)?.map(|block| Arc::new(signed(block))))
    }
    fn number_of(&self, hash: B256) -> Result<Option<u64>, StorageError> {
        Ok(self.chain.lock().unwrap().blocks.iter().find(|block| block.hash == hash).map(|block| block.header.number))
    }
    fn locate(&self, transaction: B256) -> Result<Option<Location>, StorageError> {
        Ok(self.chain.lock().unwrap().places.get(&transaction).copied())
    }
    fn totals(&self) -> Totals {
        Totals::default()
    }
    fn pending(&self, _: usize) -> Vec<VerifiedTx> {
        Vec::new()
    }
    fn pending_count(&self) -> usize {
        0
    }
    fn storage_at(&self, _: Address, _: U256, _: Option<u64>) -> Result<U256, StateError> {
        Ok(U256::ZERO)
    }
    fn account_proof(&self, _: Address, _: &[U256], _: Option<u64>) -> Result<StateProof, StateError> {
        Err(StateError::NoProofs)
    }
    fn code(&self, _: Address, _: Option<u64>) -> Result<Bytes, StateError> {
        Ok(Bytes::new())
    }
    fn call(&self, _: CallRequest) -> Result<CallOutcome, CallError> {
        Err(CallError::Busy)
    }
    fn system_config(&self, _: &str) -> Result<Option<String>, StorageError> {
        Ok(None)
    }
    fn sealers(&self) -> Vec<NodeId> {
        vec![self.node]
    }
    fn observers(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn consensus_status(&self) -> ConsensusStatus {
        ConsensusStatus {
            kind: ConsensusKind::Pbft,
            index: Some(0),
            sealers: vec![self.node],
            max_faulty: 0,
            leader: None,
            view: 0x1f4,
            to_view: 0x1f4,
            leader_failed: false,
            views: Vec::new(),
        }
    }
    fn sync_status(&self) -> SyncStatus {
        SyncStatus::default()
    }
}
