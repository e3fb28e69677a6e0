//! One process of a node: the real pipeline over a simulated disk, clock and network.
//!
//! Invariant: everything of a process is in [`Running`] and goes with it when the power fails; what stays is its [`Disk`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use millrace_administration::raft::ElectionTimes;
use millrace_base::clock::Clock;
use millrace_base::{B256, Block, Bytes, GroupId, KeyPair, NodeId};
use millrace_core::Durability;
use millrace_ledger::genesis::Consensus;
use millrace_ledger::view::{Submission, SubmitReply};
use millrace_ledger::{Genesis, Ledger, LedgerConfig};
use millrace_pipeline::evidence::EvidenceLog;
use millrace_pipeline::messages::{Incoming, Source};
use millrace_pipeline::runtime::Manual;
use millrace_pipeline::stages::notify::Listener;
use millrace_pipeline::topology::{self, Crew, Inlets, Parts, Workers};
use parking_lot::Mutex;

use crate::clients::CHAIN_ID;
use crate::dice::Dice;
use crate::lies::Lies;
use crate::network::{Line, Network};
use crate::options::{Bug, Options};
use crate::power::{Database, Disk, Power, Votes};

/// Wall-clock time at which every run begins.
pub const START_MS: u64 = 1_700_000_000_000;

/// How a member is faulty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// One of two processes with one key.
    Twin,
    /// Never runs.
    Silent,
    /// See [`Lies`].
    Liar,
}

/// The time of the world as one node's clock shows it.
pub struct NodeClock {
    /// Microseconds since the start, the same for all.
    pub world_us: Arc<AtomicU64>,
    /// How far the clock is off, milliseconds.
    pub off_ms: AtomicI64,
}

impl Clock for NodeClock {
    fn now_ms(&self) -> u64 {
        let world_ms = START_MS + self.world_us.load(Ordering::Relaxed) / 1_000;
        world_ms.saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }
}

/// What a client of a node was told.
pub enum Told {
    /// A block is durable.
    Block(GroupId, u64, B256),
    /// Accepted transactions were dropped.
    Expired(GroupId, Vec<B256>),
    /// A transaction was accepted.
    Accepted(GroupId, B256),
}

/// Collects what clients are told. What a process without power says reaches nobody.
pub struct Ear {
    power: Arc<Power>,
    told: Mutex<Vec<Told>>,
}

impl Ear {
    fn hear(&self, told: Told) {
        if !self.power.is_lost() {
            self.told.lock().push(told);
        }
    }

    /// What was told since the last look.
    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }
}

impl Listener for Ear {
    fn on_block(&self, group: GroupId, block: &Arc<Block>) {
        self.hear(Told::Block(group, block.header.number, block.hash));
    }

    fn on_expired(&self, group: GroupId, hashes: &[B256]) {
        self.hear(Told::Expired(group, hashes.to_vec()));
    }
}

/// A process with power.
pub struct Running {
    /// The stages.
    pub stages: Manual,
    /// The doors.
    pub inlets: Inlets,
    /// The groups that are open.
    pub ledgers: BTreeMap<GroupId, Arc<Ledger>>,
    /// Those that are not, and whether their closing is over.
    pub closed: BTreeMap<GroupId, Arc<AtomicBool>>,
    /// Its power.
    pub power: Arc<Power>,
    /// Its view of the network.
    pub line: Arc<Line>,
    /// What its clients hear.
    pub ear: Arc<Ear>,
    /// When each worker has its next turn.
    pub scheduled_us: Vec<Option<u64>>,
}

/// See the module.
pub struct Process {
    /// Its key, which a twin has too.
    pub key: KeyPair,
    /// How it is faulty.
    pub fault: Option<Fault>,
    /// What survives.
    pub disk: Arc<Disk>,
    /// Its clock.
    pub clock: Arc<NodeClock>,
    /// Height of each group that it has committed, as the oracle has seen.
    pub seen: BTreeMap<GroupId, u64>,
    /// Counts starts.
    pub life: u32,
    /// Unless it has no power.
    pub running: Option<Running>,
}

/// What all processes are started with.
pub struct Plan<'a> {
    /// Of the run.
    pub options: &'a Options,
    /// First sealers of each group, sorted.
    pub groups: &'a BTreeMap<GroupId, Vec<NodeId>>,
    /// The network.
    pub network: &'a Arc<Network>,
}

impl Process {
    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Whether it is held to what nodes promise.
    pub fn is_honest(&self) -> bool {
        self.fault.is_none()
    }

    /// Starts it over what its disk has.
    ///
    /// # Errors
    /// In words, when a group cannot be opened or the pipeline not be wired: a violation.
    pub fn start(&mut self, place: usize, plan: &Plan<'_>, dice: &mut Dice) -> Result<(), String> {
        self.life += 1;
        self.disk.set_full(false);
        let power = Power::on();
        let mut ledgers = BTreeMap::new();
        for group in plan.groups.keys() {
            ledgers.insert(*group, Arc::new(self.open_ledger(*group, plan, &power)?));
        }
        let is_liar = self.fault == Some(Fault::Liar);
        let lies = is_liar.then(|| Mutex::new(Lies::new(Dice::new(dice.next()), self.key.clone(), ledgers.clone())));
        let line = Line { place, network: Arc::clone(plan.network), power: Arc::clone(&power), lies, members: Mutex::default() };
        let line = Arc::new(line);
        let ear = Arc::new(Ear { power: Arc::clone(&power), told: Mutex::default() });
        let is_lazy = plan.options.planted == Some(Bug::Durable);
        let parts = Parts {
            votes: Box::new(Votes::new(Arc::clone(&self.disk), Arc::clone(&power), is_lazy)),
            evidence: EvidenceLog::unkept(),
            peers: line.clone(),
            clock: self.clock.clone(),
            listeners: vec![ear.clone()],
            max_groups: plan.groups.len(),
            crew: Crew::alone(),
            window: plan.options.window,
        };
        let workers = Workers { verify: dice.pick(&[1, 2]), execute: dice.pick(&[1, 2]), commit: dice.pick(&[1, 2]) };
        let (topology, inlets) = topology::wire(workers, parts).map_err(|error| error.to_string())?;
        let stages = topology.into_manual();
        for ledger in ledgers.values() {
            if !inlets.groups.open(Arc::clone(ledger)) {
                return Err(format!("group {} finds no room", ledger.id()));
            }
        }
        let scheduled_us = vec![None; stages.workers()];
        let closed = BTreeMap::new();
        self.running = Some(Running { stages, inlets, ledgers, closed, power, line, ear, scheduled_us });
        Ok(())
    }

    fn open_ledger(&mut self, group: GroupId, plan: &Plan<'_>, power: &Arc<Power>) -> Result<Ledger, String> {
        let database = Database::new(Arc::clone(&self.disk), Arc::clone(power), group);
        let config = self.config(group, &plan.groups[&group], plan.options);
        let ledger = Ledger::open(config, Arc::new(database)).map_err(|error| format!("group {group} cannot be opened: {error}"))?;
        let (head, seen) = (ledger.chain().head().header.number, self.seen.entry(group).or_default());
        match head < *seen {
            true => Err(format!("group {group} had committed block {seen} and is at {head} after it was opened again")),
            false => Ok(ledger),
        }
    }

    /// Closes a group; `false` when it is not open.
    pub fn close_group(&mut self, group: GroupId) -> bool {
        let Some(running) = self.running.as_mut() else { return false };
        if running.ledgers.remove(&group).is_none() {
            return false;
        }
        let done = Arc::new(AtomicBool::new(false));
        running.closed.insert(group, Arc::clone(&done));
        running.inlets.groups.close(group, Box::new(move || done.store(true, Ordering::Release)))
    }

    /// Opens a group again that was closed. `false` while the closing is not over.
    ///
    /// # Errors
    /// When it cannot be opened: a violation.
    pub fn open_group(&mut self, group: GroupId, plan: &Plan<'_>) -> Result<bool, String> {
        let Some(running) = self.running.as_ref() else { return Ok(true) };
        let Some(done) = running.closed.get(&group) else { return Ok(true) };
        if running.power.is_lost() || !done.load(Ordering::Acquire) {
            return Ok(running.power.is_lost());
        }
        let power = Arc::clone(&running.power);
        let ledger = Arc::new(self.open_ledger(group, plan, &power)?);
        let running = self.running.as_mut().expect("it was there above");
        running.closed.remove(&group);
        running.ledgers.insert(group, Arc::clone(&ledger));
        match running.inlets.groups.open(ledger) {
            true => Ok(true),
            false => Err(format!("group {group} finds no room")),
        }
    }

    fn config(&self, group: GroupId, sealers: &[NodeId], options: &Options) -> LedgerConfig {
        let min_ms = [250, 500, 1_000][(options.seed % 3) as usize];
        let times = ElectionTimes { min_ms, max_ms: 2 * min_ms };
        let genesis = Genesis {
            group,
            timestamp_ms: START_MS - 60_000,
            sealers: sealers.to_vec(),
            consensus: if options.runs_raft(group) { Consensus::Raft(times) } else { Consensus::Pbft },
            tx_count_limit: options.block_limit,
            tx_gas_limit: 300_000_000,
            consensus_timeout_s: options.timeout_s,
            rules: millrace_vm::EvmRules::default(),
            state: millrace_core::StateKind::Storage,
            mark: format!("sim-{}-{group}", options.seed),
        };
        LedgerConfig {
            chain_id: CHAIN_ID,
            genesis,
            key: self.key.clone(),
            durability: if options.has_power_durability { Durability::Power } else { Durability::Process },
            cache_bytes: 1 << 20,
            pool_count: 1_000,
            pool_bytes: 16 << 20,
            expiration_ms: 600_000,
            min_interval_ms: 10,
            ingress_bytes: 4 << 20,
        }
    }
}

impl Running {
    /// As a client does. Nothing is promised when there is no room.
    pub fn submit(&self, group: GroupId, submitter: u64, raw: Bytes) {
        let Some(ledger) = self.ledgers.get(&group) else { return };
        if !ledger.ingress().enter(raw.len()) {
            return;
        }
        let ear = Arc::clone(&self.ear);
        let reply: SubmitReply = Box::new(move |outcome| {
            if let Ok(hash) = outcome {
                ear.hear(Told::Accepted(group, hash));
            }
        });
        let submission = Submission { group, submitter, raw, reply };
        let incoming = Incoming { ledger: Arc::clone(ledger), submission, source: Source::Client };
        let _ = self.inlets.submissions.send(group, incoming);
    }
}
