//! Nodes of one group in one process: real ledgers in memory, real stages but ordering, a network of function calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_access::blockchain::Commit;
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock, SerialVerifier};
use millrace_administration::engine::FinalBlock;
use millrace_administration::sync::limits::MAX_CHECKS;
use millrace_base::clock::SystemClock;
use millrace_base::{BlockSignature, Bytes, GroupId, KeyPair, NodeId, Transaction, U256, VerifiedTx};
use millrace_core::Durability;
use millrace_core::storage::memory::MemoryStorage;
use millrace_ledger::view::{LedgerView, Submission};
use millrace_ledger::{Genesis, Ledger, LedgerConfig};
use millrace_vm::EvmRules;
use parking_lot::Mutex;

use crate::messages::{Checked, Incoming, Source, ToOrder, ToSync};
use crate::peers::{PeerKind, Peers};
use crate::runtime::{
    Batch, LaneQueue, LaneSender, LaneSpec, Pipeline, PipelineConfig, Policy, QueueSpec, Sender, Stage, StageSpec, TopologyBuilder,
};
use crate::stages::check::{CheckStage, ToCheck};
use crate::stages::sync::{SyncInlet, SyncInput, SyncOutputs, SyncStage, lane_spec};
use crate::stages::verify::VerifyStage;
use crate::transfer::TransferMessage;

pub fn group() -> GroupId {
    GroupId::new(1).unwrap()
}

pub fn key(index: usize) -> KeyPair {
    KeyPair::from_secret(&[u8::try_from(index + 1).unwrap(); 32]).unwrap()
}

pub fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn open(sealers: &[NodeId], own: usize) -> Arc<Ledger> {
    let genesis = Genesis {
        group: group(),
        timestamp_ms: 1,
        sealers: sealers.to_vec(),
        consensus: millrace_ledger::genesis::Consensus::Pbft,
        tx_count_limit: 1_000,
        tx_gas_limit: 300_000_000,
        consensus_timeout_s: 3,
        rules: EvmRules::default(),
        state: millrace_core::StateKind::Storage,
        mark: "test".into(),
    };
    let config = LedgerConfig {
        chain_id: 1,
        genesis,
        key: key(own),
        durability: Durability::Power,
        cache_bytes: 16 << 20,
        pool_count: 10_000,
        pool_bytes: 64 << 20,
        expiration_ms: 600_000,
        min_interval_ms: 0,
        ingress_bytes: 16 << 20,
    };
    Arc::new(Ledger::open(config, Arc::new(MemoryStorage::new())).unwrap())
}

fn execute(ledger: &Ledger, timestamp_ms: u64, sealer: u64, transactions: Vec<VerifiedTx>) -> ExecutedBlock {
    let (head, epoch) = (ledger.chain().head(), ledger.epoch());
    let order = BlockOrder {
        parent_hash: head.hash,
        number: head.header.number + 1,
        timestamp_ms,
        tx_gas_limit: epoch.tx_gas_limit,
        sealer,
        sealer_list: epoch.sealers.clone(),
        transactions,
        state: ledger.chain().state(),
        commitment: &ledger.chain().commitment().unwrap(),
        hashes: ledger.chain(),
    };
    BlockExecutor::new(ledger.rules()).execute(order).unwrap()
}

/// Makes the blocks that the group agrees on.
pub struct Chain {
    ledger: Arc<Ledger>,
    keys: Vec<KeyPair>,
    nonce: u64,
    signers: usize,
}

impl Chain {
    pub fn new(cluster: &Cluster) -> Self {
        let keys = sorted_keys(cluster.sealers.len());
        Self { ledger: open(&cluster.sealers, 0), signers: keys.len(), keys, nonce: 0 }
    }

    /// Its blocks lack a quorum.
    pub fn signed_by_one(self) -> Self {
        Self { signers: 1, nonce: 1 << 32, ..self }
    }

    pub fn transaction(&mut self) -> VerifiedTx {
        self.nonce += 1;
        let fields = Transaction {
            nonce: U256::from(self.nonce),
            gas: U256::from(1_000_000),
            block_limit: U256::from(500),
            to: Some(key(0).address()),
            chain_id: U256::from(1),
            group_id: U256::from(1),
            ..Transaction::default()
        };
        VerifiedTx::from_trusted_store(fields.sign(&key(50)), key(50).address())
    }

    pub fn next_block(&mut self, transactions: usize) -> Commit {
        let transactions = (0..transactions).map(|_| self.transaction()).collect();
        let timestamp_ms = self.ledger.head().timestamp_ms + 1;
        let ExecutedBlock { mut block, writes, nodes, commitment } = execute(&self.ledger, timestamp_ms, 0, transactions);
        let sign = |(index, key): (u32, &KeyPair)| BlockSignature { index, signature: key.sign(block.hash) };
        let signatures = (0..).zip(&self.keys[..self.signers]).map(sign).collect();
        block.signatures = signatures;
        let commit = Commit { block: Arc::new(block), writes, nodes, commitment, epoch_start: None };
        self.ledger.commit(std::slice::from_ref(&commit)).unwrap();
        commit
    }
}

fn sorted_keys(count: usize) -> Vec<KeyPair> {
    let mut keys: Vec<KeyPair> = (0..count).map(key).collect();
    keys.sort_by_key(KeyPair::node_id);
    keys
}

type Heard = Vec<(PeerKind, Bytes)>;

/// Who can be reached, and what was said.
#[derive(Default)]
struct Network {
    inlets: Mutex<BTreeMap<NodeId, SyncInlet>>,
    listeners: Mutex<BTreeMap<NodeId, Heard>>,
    pushed: Mutex<BTreeMap<(NodeId, NodeId), usize>>,
}

/// The network as one node sees it.
struct Line {
    own: NodeId,
    network: Arc<Network>,
}

impl Peers for Line {
    fn send(&self, group: GroupId, to: NodeId, kind: PeerKind, payload: Bytes) -> bool {
        if kind == PeerKind::Transactions
            && let Ok(TransferMessage::Push(transactions)) = TransferMessage::decode(&payload)
        {
            *self.network.pushed.lock().entry((self.own, to)).or_default() += transactions.len();
        }
        if let Some(heard) = self.network.listeners.lock().get_mut(&to) {
            heard.push((kind, payload));
            return true;
        }
        let inlet = self.network.inlets.lock().get(&to).cloned();
        inlet.is_some_and(|inlet| inlet.offer(group, self.own, kind, payload))
    }

    fn multicast(&self, group: GroupId, to: &[NodeId], kind: PeerKind, payload: Bytes) {
        for to in to {
            self.send(group, *to, kind, payload.clone());
        }
    }

    fn connected(&self, _: GroupId) -> Vec<NodeId> {
        let (inlets, listeners) = (self.network.inlets.lock(), self.network.listeners.lock());
        inlets.keys().chain(listeners.keys()).filter(|node| **node != self.own).copied().collect()
    }

    fn set_members(&self, _: GroupId, _: &[NodeId]) {}
}

/// Takes a final block if it is the next and a quorum signed it, executes and commits it.
struct TakesFinalBlocks {
    ledger: Arc<Ledger>,
    /// Held by whoever makes the chain grow.
    growing: Arc<Mutex<()>>,
    sync: Sender<ToSync>,
}

impl TakesFinalBlocks {
    fn take(&self, block: FinalBlock) -> Result<(), String> {
        let _growing = self.growing.lock();
        let (head, epoch) = (self.ledger.chain().head(), self.ledger.epoch());
        if block.header.number != head.header.number + 1 {
            return Ok(());
        }
        let hash = block.header.hash();
        let signed = |signature: &&BlockSignature| epoch.sealers[signature.index as usize].verify(hash, &signature.signature);
        if block.signatures.iter().filter(signed).count() < epoch.quorum() {
            return Err("no quorum".into());
        }
        let executed = execute(&self.ledger, block.header.timestamp_ms, block.header.sealer, block.transactions);
        let ExecutedBlock { block: mut own, writes, nodes, commitment } = executed;
        assert_eq!(own.hash, hash, "execution is deterministic");
        own.signatures = block.signatures;
        self.ledger.commit(&[Commit { block: Arc::new(own), writes, nodes, commitment, epoch_start: None }]).unwrap();
        let _ = self.sync.send(ToSync::Committed(group()));
        Ok(())
    }
}

impl Stage for TakesFinalBlocks {
    type Input = ToOrder;

    fn handle(&mut self, batch: &mut Batch<ToOrder>) {
        while let Some(item) = batch.pop_front() {
            if let ToOrder::Block { block, group } = item {
                let from = block.from;
                if let Err(reason) = self.take(*block) {
                    let _ = self.sync.send(ToSync::Refused { group, from, reason });
                }
            }
        }
    }
}

struct Running {
    pipeline: Pipeline,
    inlet: SyncInlet,
    submissions: LaneSender<Incoming>,
    notices: Sender<ToSync>,
}

/// See the module.
pub struct Cluster {
    pub sealers: Vec<NodeId>,
    ledgers: Vec<Arc<Ledger>>,
    growing: Vec<Arc<Mutex<()>>>,
    running: BTreeMap<usize, Running>,
    network: Arc<Network>,
}

impl Cluster {
    /// So many sealers, none of them started.
    pub fn new(nodes: usize) -> Self {
        let sealers: Vec<NodeId> = sorted_keys(nodes).iter().map(KeyPair::node_id).collect();
        let ledgers = (0..nodes).map(|node| open(&sealers, node)).collect();
        let growing = (0..nodes).map(|_| Arc::default()).collect();
        Self { sealers, ledgers, growing, running: BTreeMap::new(), network: Arc::default() }
    }

    pub fn ledger(&self, node: usize) -> &Arc<Ledger> {
        &self.ledgers[node]
    }

    pub fn inlet(&self, node: usize) -> &SyncInlet {
        &self.running[&node].inlet
    }

    pub fn start(&mut self, node: usize) {
        let own = key(node).node_id();
        let line = Arc::new(Line { own, network: Arc::clone(&self.network) });
        let (builder, ends) = wire((&self.ledgers[node], &self.growing[node]), line);
        let pipeline = Pipeline::start(builder.build().unwrap(), &PipelineConfig::default()).unwrap();
        ends.lanes.add_group(group());
        assert!(ends.inlet.open(Arc::clone(&self.ledgers[node])));
        self.network.inlets.lock().insert(own, ends.inlet.clone());
        let running = Running { pipeline, inlet: ends.inlet, submissions: ends.submissions, notices: ends.notices };
        self.running.insert(node, running);
    }

    /// A door behind which nobody reads.
    pub fn idle_inlet(&self) -> SyncInlet {
        let line = Arc::new(Line { own: key(0).node_id(), network: Arc::clone(&self.network) });
        let (_, ends) = wire((&self.ledgers[0], &self.growing[0]), line);
        ends.inlet.open(Arc::clone(&self.ledgers[0]));
        ends.inlet
    }

    /// Somebody whom nodes can talk to and who only listens.
    pub fn listen(&self, node: usize) {
        self.network.listeners.lock().insert(key(node).node_id(), Vec::new());
    }

    pub fn heard(&self, node: usize) -> Heard {
        self.network.listeners.lock()[&key(node).node_id()].clone()
    }

    /// As if consensus had brought the blocks.
    pub fn commit(&self, node: usize, blocks: &[Commit]) {
        let copies: Vec<Commit> = blocks
            .iter()
            .map(|commit| Commit {
                block: Arc::clone(&commit.block),
                writes: commit.writes.clone(),
                nodes: commit.nodes.clone(),
                commitment: commit.commitment.clone(),
                epoch_start: commit.epoch_start,
            })
            .collect();
        let _growing = self.growing[node].lock();
        self.ledgers[node].commit(&copies).unwrap();
        let _ = self.running[&node].notices.send(ToSync::Committed(group()));
    }

    /// As a client does.
    pub fn submit(&self, node: usize, raw: Bytes) {
        let ledger = Arc::clone(&self.ledgers[node]);
        assert!(ledger.ingress().enter(raw.len()));
        let reply = Box::new(|outcome: Result<_, _>| {
            outcome.unwrap();
        });
        let submission = Submission { group: group(), submitter: 1, raw, reply };
        self.running[&node].submissions.send(group(), Incoming { ledger, submission, source: Source::Client }).unwrap();
    }

    /// Transactions pushed, by sender and receiver.
    pub fn pushed(&self) -> BTreeMap<(usize, usize), usize> {
        let index = |node: &NodeId| (0..self.sealers.len()).find(|index| key(*index).node_id() == *node).unwrap();
        self.network.pushed.lock().iter().map(|((from, to), count)| ((index(from), index(to)), *count)).collect()
    }

    pub fn stop(self) {
        for running in self.running.into_values() {
            assert!(running.pipeline.stop(Duration::from_secs(10)).is_clean());
        }
    }
}

struct Ends {
    lanes: LaneQueue<Incoming>,
    submissions: LaneSender<Incoming>,
    inlet: SyncInlet,
    notices: Sender<ToSync>,
}

fn wire((ledger, growing): (&Arc<Ledger>, &Arc<Mutex<()>>), peers: Arc<dyn Peers>) -> (TopologyBuilder, Ends) {
    let mut builder = TopologyBuilder::new("sync");
    let lanes_of = |name: &'static str| LaneSpec::<Incoming> {
        name,
        lane_depth: 1_024,
        lane_weight: 1_024,
        quantum: 32,
        batch_weight: 128,
        max_lanes: 1,
        weight: |_| 1,
        why: "a test",
    };
    let (lanes, repairs) = (builder.lanes(lanes_of("submissions")), builder.lanes(lanes_of("repairs")));
    let checking = builder.lanes(LaneSpec::<ToCheck> {
        name: "to-check",
        lane_depth: MAX_CHECKS,
        lane_weight: u64::MAX,
        quantum: 1 << 18,
        batch_weight: 1 << 17,
        max_lanes: 1,
        weight: |item| u32::try_from(item.bytes.len()).unwrap(),
        why: "a test",
    });
    let checked = builder.queue::<Checked>(QueueSpec::new("checked", MAX_CHECKS, Policy::NeverFull, "a test"));
    let to_order = builder.queue::<ToOrder>(QueueSpec::new("to-order", 1_024, Policy::DropNew, "a test"));
    let to_sync = builder.queue::<ToSync>(QueueSpec::new("to-sync", 1_024, Policy::DropNew, "a test"));
    let groups = builder.queue::<ToSync>(QueueSpec::new("sync-groups", 1_024, Policy::Reject, "a test"));
    let (blocks, transfers) = (builder.lanes(lane_spec("block-frames", 1)), builder.lanes(lane_spec("tx-frames", 1)));
    let (block_end, transfer_end) = (builder.ingress("peers", &blocks), builder.ingress("peers", &transfers));
    let inlet =
        SyncInlet::new(builder.ingress("node", &groups), (blocks.clone(), block_end), (transfers.clone(), transfer_end), checking.clone());
    let (submissions, notices) = (builder.ingress("rpc", &lanes), builder.ingress("test", &to_sync));

    let mut sync = builder.stage::<SyncStage>(StageSpec { name: "sync", workers: 1, max_batch: 64, what: "the stage" });
    sync.reads(&to_sync, SyncInput::Notice);
    sync.reads(&groups, SyncInput::Notice);
    sync.reads(&checked, |checked| SyncInput::Notice(ToSync::Checked(checked)));
    sync.reads(&blocks, SyncInput::Frame);
    sync.reads(&transfers, SyncInput::Frame);
    let outputs = SyncOutputs {
        peers,
        order: sync.writes(&to_order),
        submissions: sync.writes(&lanes),
        repairs: sync.writes(&repairs),
        check: sync.writes(&checking),
    };
    let mut once = Some(SyncStage::new(outputs, Arc::new(SystemClock)));
    sync.instances(move |_| once.take().unwrap());

    let mut check = builder.stage::<CheckStage>(StageSpec { name: "check", workers: 2, max_batch: 8, what: "the stage" });
    check.reads(&checking, |item| item);
    let results = check.writes(&checked);
    check.instances(move |_| CheckStage::new(Box::new(SerialVerifier), results.clone()));

    let mut verify = builder.stage::<VerifyStage>(StageSpec { name: "verify", workers: 1, max_batch: 128, what: "the stage" });
    verify.reads(&lanes, |item| item);
    verify.reads(&repairs, |item| item);
    let (wake, fresh) = (verify.writes(&to_order), verify.writes(&to_sync));
    verify.instances(move |_| VerifyStage::new(Box::new(SerialVerifier), wake.clone(), fresh.clone(), Arc::new(SystemClock)));

    let mut order = builder.stage::<TakesFinalBlocks>(StageSpec { name: "order", workers: 1, max_batch: 64, what: "takes blocks" });
    order.reads(&to_order, |item| item);
    let back = order.writes(&to_sync);
    let mut once = Some(TakesFinalBlocks { ledger: Arc::clone(ledger), growing: Arc::clone(growing), sync: back });
    order.instances(move |_| once.take().unwrap());
    (builder, Ends { lanes, submissions, inlet, notices })
}
