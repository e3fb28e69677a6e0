//! What the tests put around the order stage: a clock, peers, a record log and engines that do as they are told, and the real stages
//! behind it, driven by hand.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_access::txpool::Submitter;
use millrace_administration::engine::{EngineStatus, Proposal, ProposalHeader};
use millrace_base::{Address, KeyPair, Transaction, U256};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::storage::{StorageView, Visit};
use millrace_core::{Durability, Space, Storage, StorageError};
use millrace_ledger::{Genesis, LedgerConfig};
use millrace_vm::EvmRules;
use parking_lot::Mutex;

use super::*;
use crate::runtime::{Pinning, Policy, QueueSpec, TopologyBuilder};
use crate::stages::commit::{CommitOutputs, CommitStage};
use crate::stages::execute::ExecuteStage;
use crate::topology::Crew;

/// When every test begins.
pub const FIRST_MS: u64 = 1_700_000_000_000;

pub fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

pub fn node(index: u8) -> NodeId {
    NodeId([index; 64])
}

/// What the tests vary of a transaction.
#[derive(Clone, Copy)]
pub struct Shape {
    pub nonce: u64,
    pub block_limit: u64,
    pub chain_id: u64,
    pub salt: u64,
}

impl Shape {
    pub fn new(nonce: u64) -> Self {
        Self { nonce, block_limit: 500, chain_id: 1, salt: 0 }
    }

    pub fn signed(self, group: i64) -> VerifiedTx {
        let transaction = Transaction {
            nonce: U256::from(self.nonce),
            block_limit: U256::from(self.block_limit),
            to: Some(Address::with_last_byte(1)),
            value: U256::from(self.salt),
            chain_id: U256::from(self.chain_id),
            group_id: U256::from(group as u64),
            ..Transaction::default()
        };
        let key = KeyPair::from_secret(&[7; 32]).unwrap();
        VerifiedTx::from_trusted_store(transaction.sign(&key), Address::ZERO)
    }
}

/// Good ones with these nonces.
pub fn transactions(group: i64, nonces: Range<u64>) -> Vec<VerifiedTx> {
    nonces.map(|nonce| Shape::new(nonce).signed(group)).collect()
}

pub fn execute(height: u64, transactions: &[VerifiedTx]) -> Effect {
    let header = ProposalHeader {
        height,
        epoch: B256::ZERO,
        previous: B256::ZERO,
        below: B256::ZERO,
        timestamp_ms: FIRST_MS + height,
        sealer: 0,
        transactions: transactions.iter().map(VerifiedTx::hash).collect(),
    };
    Effect::Execute(Box::new(Proposal { header, transactions: transactions.to_vec() }))
}

pub fn finalize(height: u64) -> Effect {
    Effect::Finalize { height, hash: B256::ZERO, signatures: Vec::new() }
}

pub fn seal(height: u64, limit: u64) -> Effect {
    Effect::Seal { height, view: 0, after_timestamp_ms: 0, limit }
}

#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What happened outside the stage, in order.
#[derive(Default)]
struct Outside {
    log: Vec<String>,
    wants: Vec<(u8, Vec<B256>)>,
    connected: Vec<NodeId>,
    records: Vec<(GroupId, u64, Bytes)>,
    fails: bool,
}

type Shared = Arc<Mutex<Outside>>;

struct TestPeers(Shared);

impl Peers for TestPeers {
    fn send(&self, _: GroupId, to: NodeId, kind: PeerKind, payload: Bytes) -> bool {
        let mut outside = self.0.lock();
        match kind {
            PeerKind::Transactions => {
                let Ok(TransferMessage::Want { hashes }) = TransferMessage::decode(&payload) else { panic!("only wants are sent") };
                outside.wants.push((to.0[0], hashes));
            }
            _ => outside.log.push(format!("send {} {}", to.0[0], String::from_utf8_lossy(&payload))),
        }
        true
    }

    fn multicast(&self, _: GroupId, to: &[NodeId], _: PeerKind, payload: Bytes) {
        let to: Vec<u8> = to.iter().map(|node| node.0[0]).collect();
        self.0.lock().log.push(format!("multicast {to:?} {}", String::from_utf8_lossy(&payload)));
    }

    fn connected(&self, _: GroupId) -> Vec<NodeId> {
        self.0.lock().connected.clone()
    }

    fn set_members(&self, _: GroupId, _: &[NodeId]) {}
}

struct TestRecords {
    outside: Shared,
    unsynced: bool,
}

impl RecordLog for TestRecords {
    fn records(&self, group: GroupId, committed: u64) -> io::Result<Vec<Bytes>> {
        let outside = self.outside.lock();
        Ok(outside.records.iter().filter(|(of, height, _)| *of == group && *height > committed).map(|(_, _, body)| body.clone()).collect())
    }

    fn append(&mut self, group: GroupId, height: u64, body: &[u8]) {
        let mut outside = self.outside.lock();
        outside.log.push(format!("append {height}"));
        outside.records.push((group, height, Bytes::copy_from_slice(body)));
        self.unsynced = true;
    }

    fn sync(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.unsynced) {
            return Ok(());
        }
        let mut outside = self.outside.lock();
        if outside.fails {
            self.unsynced = true;
            outside.log.push("failed sync".into());
            return Err(io::Error::other("no space"));
        }
        outside.log.push("sync".into());
        Ok(())
    }

    fn committed(&mut self, _: GroupId, _: u64) {}
}

/// What an engine is told to say, and what it heard.
#[derive(Default)]
struct Script {
    say: HashMap<Bytes, Vec<Effect>>,
    inputs: Vec<Input>,
    deadline_ms: Option<u64>,
    view: u64,
    status_calls: usize,
}

struct TestEngine(Arc<Mutex<Script>>);

impl Engine for TestEngine {
    fn handle(&mut self, input: Input, _: u64) -> Vec<Effect> {
        let mut script = self.0.lock();
        let said = match &input {
            Input::Frame { payload, .. } => script.say.remove(payload).unwrap_or_default(),
            _ => Vec::new(),
        };
        if matches!(input, Input::Tick) {
            script.deadline_ms = None;
        }
        script.inputs.push(input);
        said
    }

    fn start(&mut self, _: u64) -> Vec<Effect> {
        Vec::new()
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.0.lock().deadline_ms
    }

    fn status(&self) -> EngineStatus {
        let mut script = self.0.lock();
        script.status_calls += 1;
        EngineStatus { view: script.view, sealers: [2, 3, 4].map(node).to_vec(), ..EngineStatus::default() }
    }
}

/// A database on a server that may be away.
struct TestStorage {
    below: MemoryStorage,
    is_away: Arc<AtomicBool>,
}

impl TestStorage {
    fn reached(&self) -> Result<&MemoryStorage, StorageError> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(StorageError::Unavailable { place: "the test".into(), detail: "away".into() }),
            false => Ok(&self.below),
        }
    }
}

impl Storage for TestStorage {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.reached()?.get(space, key)
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        self.reached()?.multi_get(space, keys)
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.reached()?.scan(space, prefix, from, visit)
    }

    fn height(&self) -> Result<Option<u64>, StorageError> {
        self.reached()?.height()
    }

    fn commit(&self, height: u64, batch: &millrace_core::Batch, durability: Durability) -> Result<(), StorageError> {
        self.reached()?.commit(height, batch, durability)
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        self.reached()?.snapshot()
    }

    fn checkpoint(&self, directory: &std::path::Path) -> Result<(), StorageError> {
        self.reached()?.checkpoint(directory)
    }

    fn verify(&self) -> Result<(), StorageError> {
        self.reached()?.verify()
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.reached()?.stats()
    }
}

type Scripts = Arc<Mutex<BTreeMap<GroupId, Arc<Mutex<Script>>>>>;

/// See the module.
pub struct Bench {
    pub stage: OrderStage,
    execute: ExecuteStage,
    commit: CommitStage,
    clock: Arc<TestClock>,
    outside: Shared,
    scripts: Scripts,
    ledgers: BTreeMap<GroupId, Arc<Ledger>>,
    to_order: Sender<ToOrder>,
    to_execute: Fanout<ToExecute>,
    to_commit: Fanout<ToCommit>,
    /// Whether the databases of all groups are away.
    pub is_away: Arc<AtomicBool>,
    /// Taken from the queue to execution and not run yet.
    held: VecDeque<ToExecute>,
    pool_count: usize,
    /// `min_block_generation_time` of groups that are opened from now on, milliseconds.
    pub min_interval_ms: u64,
    next_frame: u64,
    directory: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_pool_of(1_000)
    }

    /// With pools of so many places.
    pub fn with_pool_of(pool_count: usize) -> Self {
        let mut builder = TopologyBuilder::new("bench");
        let pinning = Pinning::new(1);
        let order = builder.queue::<ToOrder>(QueueSpec::new("order", 1_000, Policy::NeverFull, "test"));
        let execute = builder.pinned_queue::<ToExecute>(QueueSpec::new("execute", 1_000, Policy::NeverFull, "test"), &pinning);
        let commit = builder.pinned_queue::<ToCommit>(QueueSpec::new("commit", 1_000, Policy::NeverFull, "test"), &pinning);
        let notify = builder.queue::<ToNotify>(QueueSpec::new("notify", 1_000, Policy::DropOldest, "test"));
        let sync = builder.queue::<ToSync>(QueueSpec::new("sync", 1_000, Policy::DropOldest, "test"));
        let to_sync = builder.ingress("test", &sync);
        let to_order = builder.ingress("test", &order);
        let to_execute = builder.ingress("test", &execute);
        let to_commit = builder.ingress("test", &commit);
        let to_notify = builder.ingress("test", &notify);
        let directory = tempfile::tempdir().unwrap();
        let outside = Shared::default();
        let scripts = Scripts::default();
        let clock = Arc::new(TestClock(AtomicU64::new(FIRST_MS)));
        let of_engines = Arc::clone(&scripts);
        let parts = OrderParts {
            votes: Box::new(TestRecords { outside: Arc::clone(&outside), unsynced: false }),
            evidence: EvidenceLog::new(directory.path().join("evidence")),
            peers: Arc::new(TestPeers(Arc::clone(&outside))),
            clock: clock.clone(),
            engines: Arc::new(move |ledger, _| {
                let script = Arc::new(Mutex::new(Script::default()));
                of_engines.lock().insert(ledger.id(), Arc::clone(&script));
                Ok(Box::new(TestEngine(script)))
            }),
        };
        let outputs =
            OrderOutputs { execute: to_execute.clone(), commit: to_commit.clone(), notify: to_notify.clone(), sync: to_sync.clone() };
        let commit_outputs = CommitOutputs { order: to_order.clone(), execute: to_execute.clone(), notify: to_notify, sync: to_sync };
        Self {
            stage: OrderStage::new(parts, outputs),
            execute: ExecuteStage::new(to_order.clone(), Crew::alone()),
            commit: CommitStage::new(commit_outputs),
            clock,
            outside,
            scripts,
            ledgers: BTreeMap::new(),
            to_order,
            to_execute,
            to_commit,
            is_away: Arc::default(),
            held: VecDeque::new(),
            pool_count,
            min_interval_ms: 0,
            next_frame: 0,
            directory,
        }
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn ledger(&self, id: i64) -> &Arc<Ledger> {
        &self.ledgers[&group(id)]
    }

    /// Opens a group, over its chain if it was open before.
    pub fn open(&mut self, id: i64) {
        let genesis = Genesis {
            group: group(id),
            timestamp_ms: 1,
            sealers: [2, 3, 4].map(node).to_vec(),
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
            key: KeyPair::from_secret(&[9; 32]).unwrap(),
            durability: Durability::Process,
            cache_bytes: 1 << 20,
            pool_count: self.pool_count,
            pool_bytes: 64 << 20,
            expiration_ms: 600_000,
            min_interval_ms: self.min_interval_ms,
            ingress_bytes: 1 << 20,
        };
        let storage = match self.ledgers.get(&group(id)) {
            Some(ledger) => Arc::clone(ledger.chain().storage()),
            None => Arc::new(TestStorage { below: MemoryStorage::new(), is_away: Arc::clone(&self.is_away) }),
        };
        let ledger = Arc::new(Ledger::open(config, storage).unwrap());
        self.ledgers.insert(group(id), Arc::clone(&ledger));
        self.hand(ToOrder::Open(ledger));
    }

    pub fn close(&mut self, id: i64) -> Arc<AtomicBool> {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        self.hand(ToOrder::Close(group(id), Box::new(move || told.store(true, Ordering::Release))));
        done
    }

    /// As [`Self::close`], for a group that does not come to its end.
    pub fn abandon(&mut self, id: i64) -> Arc<AtomicBool> {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        self.hand(ToOrder::Abandon(group(id), Box::new(move || told.store(true, Ordering::Release))));
        done
    }

    /// One turn with one input.
    pub fn hand(&mut self, input: ToOrder) {
        self.stage.handle(&mut VecDeque::from([input]));
    }

    /// Makes the engine answer a frame with these effects.
    pub fn say(&mut self, id: i64, effects: Vec<Effect>) {
        self.next_frame += 1;
        let payload: Bytes = self.next_frame.to_be_bytes().to_vec().into();
        self.script(id, |script| script.say.insert(payload.clone(), effects));
        self.hand(ToOrder::Frame(Frame::unmetered(group(id), node(2), payload)));
    }

    fn script<T>(&self, id: i64, work: impl FnOnce(&mut Script) -> T) -> T {
        let script = Arc::clone(&self.scripts.lock()[&group(id)]);
        let mut script = script.lock();
        work(&mut script)
    }

    pub fn set_deadline(&self, id: i64, deadline_ms: Option<u64>) {
        self.script(id, |script| script.deadline_ms = deadline_ms);
    }

    pub fn set_view(&self, id: i64, view: u64) {
        self.script(id, |script| script.view = view);
    }

    pub fn status_calls(&self, id: i64) -> usize {
        self.script(id, |script| script.status_calls)
    }

    /// What the engine heard since the last look.
    pub fn inputs(&self, id: i64) -> Vec<Input> {
        self.script(id, |script| std::mem::take(&mut script.inputs))
    }

    /// Of these, the answers to gatherings.
    pub fn gathered(&self, id: i64) -> Vec<(u64, Result<Vec<VerifiedTx>, String>)> {
        let answer = |input| match input {
            Input::Gathered { height, outcome: Gathered::Complete(transactions), .. } => Some((height, Ok(transactions))),
            Input::Gathered { height, outcome: Gathered::Refused(reason), .. } => Some((height, Err(reason))),
            _ => None,
        };
        self.inputs(id).into_iter().filter_map(answer).collect()
    }

    /// Of these, the filled proposals.
    pub fn sealed(&self, id: i64) -> Vec<(u64, Vec<VerifiedTx>)> {
        let sealed = |input| match input {
            Input::Sealed { height, transactions, .. } => Some((height, transactions)),
            _ => None,
        };
        self.inputs(id).into_iter().filter_map(sealed).collect()
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.outside.lock().log)
    }

    pub fn wants(&self) -> Vec<(u8, Vec<B256>)> {
        std::mem::take(&mut self.outside.lock().wants)
    }

    pub fn connect(&self, nodes: &[u8]) {
        self.outside.lock().connected = nodes.iter().map(|index| node(*index)).collect();
    }

    pub fn fail_syncs(&self, fails: bool) {
        self.outside.lock().fails = fails;
    }

    pub fn set_clock(&self, now_ms: u64) {
        self.clock.0.store(now_ms, Ordering::SeqCst);
    }

    /// Lets time pass as the runtime would: the stage is called when it wants to be.
    pub fn pass_ms(&mut self, milliseconds: u64) {
        let end_ms = self.clock.now_ms() + milliseconds;
        loop {
            let wait_ms = self.stage.on_time();
            let next_ms = self.clock.now_ms() + wait_ms;
            if next_ms > end_ms {
                break;
            }
            self.set_clock(next_ms);
        }
        self.set_clock(end_ms);
        self.stage.on_time();
    }

    /// As the verify stage does.
    pub fn admit(&mut self, id: i64, transactions: &[VerifiedTx], submitter: Submitter) {
        let ledger = Arc::clone(self.ledger(id));
        for transaction in transactions {
            let _ = ledger.pool().admit(transaction.clone(), submitter, self.clock.now_ms());
        }
        if ledger.request_wake() {
            self.hand(ToOrder::Wake(group(id)));
        }
    }

    /// As another node's answer.
    pub fn give(&mut self, id: i64, transactions: &[VerifiedTx]) {
        self.admit(id, transactions, Submitter::REPAIR);
    }

    fn take_executes(&mut self) {
        self.to_execute.worker(0).unwrap().shard.take(&mut self.held, usize::MAX, |item| item);
    }

    /// What was handed to execution since the last look, in words; it is not executed.
    pub fn executes(&mut self) -> Vec<String> {
        self.take_executes();
        let word = |item: ToExecute| match item {
            ToExecute::Open(_) => "open".to_owned(),
            ToExecute::Run { proposal, .. } => format!("run {}", proposal.header.height),
            ToExecute::Void { above, .. } => format!("void {above}"),
            ToExecute::Committed { height, .. } => format!("committed {height}"),
            ToExecute::Close(_) => "close".to_owned(),
        };
        self.held.drain(..).map(word).collect()
    }

    /// Lets the execute stage run and hands its results back. The heights that the engine was told of.
    pub fn execute_all(&mut self, id: i64) -> Vec<u64> {
        self.inputs(id);
        self.run_executes();
        let height = |input| if let Input::Executed { height, .. } = input { Some(height) } else { None };
        self.inputs(id).into_iter().filter_map(height).collect()
    }

    fn run_executes(&mut self) -> bool {
        self.take_executes();
        let ran = !self.held.is_empty();
        self.execute.handle(&mut self.held);
        let mut back = VecDeque::new();
        self.to_order.shard.take(&mut back, usize::MAX, |item| item);
        let ran = ran || !back.is_empty();
        self.stage.handle(&mut back);
        ran
    }

    /// Runs the stages behind as if so many seconds had passed, when they try again what failed.
    pub fn try_again(&mut self, after_s: u64) {
        let later = Instant::now() + Duration::from_secs(after_s);
        self.execute.tick(later);
        self.commit.tick(later);
        self.run_stages();
    }

    /// Runs the stages behind until nothing is left to do.
    pub fn run_stages(&mut self) {
        loop {
            let mut commits = VecDeque::new();
            self.to_commit.worker(0).unwrap().shard.take(&mut commits, usize::MAX, |item| item);
            let commits_ran = !commits.is_empty();
            self.commit.handle(&mut commits);
            if !self.run_executes() && !commits_ran {
                return;
            }
        }
    }

    /// Orders, executes, finishes and commits a block.
    pub fn run_block(&mut self, id: i64, height: u64, transactions: &[VerifiedTx]) {
        self.say(id, vec![execute(height, transactions)]);
        assert_eq!(self.execute_all(id), [height]);
        self.say(id, vec![finalize(height)]);
        self.run_stages();
        assert_eq!(self.ledger(id).chain().head().header.number, height);
        self.inputs(id);
    }
}
