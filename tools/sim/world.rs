//! A whole cluster in one thread from one seed: events in the order of their time, all of them decided by dice.
//!
//! ```text
//! faults (nodes lose power, links are cut, disks are full, clocks jump) --> healed: everything accepted gets committed, all heads equal
//! ```
//! Invariant: nothing here depends on the machine's clock, on threads or on the order of hash maps, so the same options give the same
//! events; [`Outcome::trace`] is a digest of all of them.

mod chaos;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::{Bytes, GroupId, KeyPair, NodeId};
use millrace_pipeline::peers::PeerKind;

use crate::dice::Dice;
use crate::network::Network;
use crate::options::Options;
use crate::oracle::Oracle;
use crate::power::Disk;
use crate::process::{Fault, NodeClock, Plan, Process, Told};

/// How long a healed cluster may take to commit everything: several view changes of the longest wait, 30 s.
const PATIENCE_US: u64 = 150_000_000;

/// How often a healed cluster is asked whether it is done.
const LOOK_US: u64 = 250_000;

/// Records that a vote log may hold for each group: what a window of heights can leave in some views.
const MAX_RECORDS: usize = 4_000;

/// What can happen.
enum Event {
    /// A worker of a process has its turn.
    Turn { place: usize, life: u32, worker: usize },
    /// A message arrives.
    Arrival { place: usize, life: u32, from: NodeId, group: GroupId, kind: PeerKind, payload: Bytes },
    /// A process gets power.
    Start { place: usize },
    /// A process opens a group again that it had closed.
    Reopen { place: usize, life: u32, group: GroupId },
    /// Something goes wrong.
    Mishap,
    /// Nothing goes wrong any more.
    Heal,
    /// A client sends a transaction.
    Submit { group: GroupId },
    /// Whether everything is done.
    Look,
}

struct Due {
    at_us: u64,
    /// Events of one time happen in the order in which they were planned.
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.number) == (other.at_us, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// What became of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// What happened that must never happen.
    pub violation: Option<String>,
    /// What halted a group of a faulty member: no promise, but worth a look.
    pub faulty_halt: Option<String>,
    /// What an honest node refused of another honest one, where a twin had told them different things.
    pub false_refusal: Option<String>,
    /// Digest of all events.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Blocks of all groups.
    pub blocks: usize,
    /// Transactions in them.
    pub transactions: usize,
    /// Losses of power.
    pub crashes: usize,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Of them, from the end of the faults until everything was committed.
    pub recovery_ms: u64,
}

/// See the module.
pub struct World {
    options: Options,
    dice: Dice,
    base: Instant,
    now_us: u64,
    clock_us: Arc<AtomicU64>,
    events: BinaryHeap<Reverse<Due>>,
    planned: u64,
    processes: Vec<Process>,
    network: Arc<Network>,
    groups: BTreeMap<GroupId, Vec<NodeId>>,
    /// Nodes that always stay sealers where there are faulty ones, so that these never become too many.
    fixed: BTreeSet<NodeId>,
    /// Members that contradict themselves, and all faulty ones.
    twins: BTreeSet<NodeId>,
    faulty: BTreeSet<NodeId>,
    clients: Vec<KeyPair>,
    sent: BTreeMap<GroupId, usize>,
    traffic: traffic::Traffic,
    oracle: Oracle,
    healed_us: Option<u64>,
    next_members_us: u64,
    is_done: bool,
    trace: DefaultHasher,
    outcome: Outcome,
    verbose: bool,
}

fn secret(label: u8, index: usize) -> KeyPair {
    let mut secret = [label; 32];
    secret[31] = u8::try_from(index + 1).expect("there are few keys");
    KeyPair::from_secret(&secret).expect("small numbers are keys")
}

impl World {
    /// A cluster whose nodes start one after the other.
    pub fn new(options: Options, verbose: bool) -> Self {
        let mut dice = Dice::new(options.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(11));
        let keys: Vec<KeyPair> = (0..options.sealers + options.others).map(|index| secret(1, index)).collect();
        let ids: Vec<NodeId> = keys.iter().map(KeyPair::node_id).collect();
        let groups = first_members(&options, &ids, &mut dice);
        let faulty_at = options.sealers - options.faulty();
        let kinds = [(Fault::Twin, options.twins), (Fault::Silent, options.silent), (Fault::Liar, options.liars)];
        let faults: Vec<Fault> = kinds.iter().flat_map(|(fault, count)| vec![*fault; *count]).collect();
        let (network, clock_us) = (Arc::new(Network::default()), Arc::new(AtomicU64::new(0)));
        let mut processes = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let fault = index.checked_sub(faulty_at).and_then(|index| faults.get(index)).copied();
            for _ in 0..if fault == Some(Fault::Twin) { 2 } else { 1 } {
                network.add(key.node_id());
                let clock = Arc::new(NodeClock { world_us: Arc::clone(&clock_us), off_ms: AtomicI64::new(0) });
                processes.push(Process {
                    key: key.clone(),
                    fault,
                    disk: Arc::new(Disk::default()),
                    clock,
                    seen: BTreeMap::new(),
                    life: 0,
                    running: None,
                });
            }
        }
        let fixed = if options.faulty() > 0 { ids[..options.sealers].iter().copied().collect() } else { BTreeSet::new() };
        let ids_of = |is_one: fn(&Process) -> bool| processes.iter().filter(|process| is_one(process)).map(Process::id).collect();
        let (twins, faulty) = (ids_of(|process| process.fault == Some(Fault::Twin)), ids_of(|process| !process.is_honest()));
        let oracle = Oracle::new(&groups, &options);
        let mut world = Self {
            dice,
            base: Instant::now(),
            now_us: 0,
            clock_us,
            events: BinaryHeap::new(),
            planned: 0,
            processes,
            network,
            groups,
            fixed,
            twins,
            faulty,
            clients: (0..5).map(|index| secret(2, index)).collect(),
            sent: BTreeMap::new(),
            traffic: traffic::Traffic::default(),
            oracle,
            healed_us: None,
            next_members_us: 0,
            is_done: false,
            trace: DefaultHasher::new(),
            outcome: Outcome::default(),
            verbose,
            options,
        };
        world.plan_run();
        world
    }

    fn plan_run(&mut self) {
        for place in 0..self.processes.len() {
            let after_us = self.dice.below(500_000);
            self.plan(after_us, Event::Start { place });
        }
        let faults_us = self.options.faults_ms * 1_000;
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            for _ in 0..self.options.transactions {
                let at_us = 300_000 + self.dice.below(faults_us + 1_500_000);
                self.plan(at_us, Event::Submit { group });
            }
        }
        self.plan(1_000_000, Event::Mishap);
        self.plan(faults_us, Event::Heal);
    }

    fn plan(&mut self, after_us: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse(Due { at_us: self.now_us + after_us, number: self.planned, event }));
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>10.3} ms  {}", self.now_us as f64 / 1_000.0, what());
        }
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> Outcome {
        while !self.is_done
            && let Some(Reverse(due)) = self.events.pop()
        {
            self.now_us = due.at_us;
            self.clock_us.store(self.now_us, Ordering::Relaxed);
            self.outcome.events += 1;
            self.now_us.hash(&mut self.trace);
            if let Err(violation) = self.handle(due.event) {
                self.note(|| format!("VIOLATION {violation}"));
                self.outcome.violation = Some(violation);
                break;
            }
        }
        self.outcome.trace = self.trace.finish();
        self.outcome.blocks = self.oracle.blocks();
        self.outcome.transactions = self.oracle.transactions();
        self.outcome.simulated_ms = self.now_us / 1_000;
        self.outcome.recovery_ms = self.healed_us.map_or(0, |healed_us| (self.now_us - healed_us) / 1_000);
        self.outcome
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Turn { place, life, worker } => return self.turn(place, life, worker),
            Event::Arrival { place, life, from, group, kind, payload } => {
                (1, place, kind as u8, &payload[..]).hash(&mut self.trace);
                self.arrive((place, life), from, (group, kind), payload);
                self.schedule(place);
            }
            Event::Start { place } => return self.start(place),
            Event::Reopen { place, life, group } => return self.reopen(place, life, group),
            Event::Mishap => self.mishap(),
            Event::Heal => self.heal(),
            Event::Submit { group } => self.submit(group),
            Event::Look => return self.look(),
        }
        Ok(())
    }

    fn start(&mut self, place: usize) -> Result<(), String> {
        let Self { processes, options, groups, network, dice, .. } = self;
        let process = &mut processes[place];
        if process.running.is_some() || process.fault == Some(Fault::Silent) {
            return Ok(());
        }
        process.start(place, &Plan { options, groups, network }, dice).map_err(|error| format!("process {place}: {error}"))?;
        (2, place).hash(&mut self.trace);
        self.network.set_up(place, true);
        self.note(|| format!("process {place} starts"));
        self.tell_links();
        // Every stage has a first turn, whether something waits or not.
        let running = self.processes[place].running.as_ref().expect("it was started above");
        for worker in 0..running.stages.workers() {
            self.schedule_at(place, worker, self.now_us);
        }
        Ok(())
    }

    fn turn(&mut self, place: usize, life: u32, worker: usize) -> Result<(), String> {
        let now = self.base + Duration::from_micros(self.now_us);
        let most = self.dice.pick(&[1, 2, 4, 16, 256]);
        let process = &mut self.processes[place];
        let Some(running) = process.running.as_mut().filter(|_| process.life == life) else { return Ok(()) };
        if running.scheduled_us[worker] != Some(self.now_us) {
            return Ok(());
        }
        let turn = running.stages.turn(worker, now, most);
        running.scheduled_us[worker] = None;
        (3, place, worker, turn.taken).hash(&mut self.trace);
        if let Some(at) = turn.next_tick {
            let wait_us = at.saturating_duration_since(now).as_nanos().div_ceil(1_000) as u64;
            self.schedule_at(place, worker, self.now_us + wait_us.max(20));
        }
        self.route();
        self.hear(place)?;
        self.learn(place)?;
        if self.processes[place].running.as_ref().is_some_and(|running| running.power.is_lost()) {
            self.lose_power(place);
        }
        self.schedule(place);
        Ok(())
    }

    /// Gives a turn to each worker that has something to do.
    fn schedule(&mut self, place: usize) {
        let Some(running) = &self.processes[place].running else { return };
        let is_due = |worker: &usize| running.stages.has_work(*worker);
        let ready: Vec<(usize, &'static str)> =
            (0..running.stages.workers()).filter(is_due).map(|worker| (worker, running.stages.stage(worker))).collect();
        for (worker, stage) in ready {
            let most_us = match stage {
                "execute" => 4_000,
                "commit" => 8_000,
                _ => 400,
            };
            let slow = if self.dice.percent(1) { 20 } else { 1 };
            let after_us = 1 + self.dice.below(most_us * slow);
            let scheduled = self.processes[place].running.as_ref().and_then(|running| running.scheduled_us[worker]);
            if scheduled.is_none_or(|at_us| at_us > self.now_us + most_us * 20) {
                self.schedule_at(place, worker, self.now_us + after_us);
            }
        }
    }

    fn schedule_at(&mut self, place: usize, worker: usize, at_us: u64) {
        let process = &mut self.processes[place];
        let Some(running) = process.running.as_mut() else { return };
        if running.scheduled_us[worker].is_some_and(|known_us| known_us <= at_us) {
            return;
        }
        running.scheduled_us[worker] = Some(at_us);
        let life = process.life;
        self.plan(at_us - self.now_us, Event::Turn { place, life, worker });
    }

    /// What the clients of a process were told.
    fn hear(&mut self, place: usize) -> Result<(), String> {
        let process = &self.processes[place];
        let (Some(running), life) = (&process.running, process.life) else { return Ok(()) };
        let told = running.ear.take();
        if !process.is_honest() {
            return Ok(());
        }
        for told in told {
            match told {
                Told::Block(group, height, hash) => {
                    self.oracle.told(group, height, hash).map_err(|error| format!("process {place}: {error}"))?
                }
                Told::Expired(group, hashes) => {
                    self.oracle.expired(group, &hashes).map_err(|error| format!("process {place}: {error}"))?;
                }
                Told::Accepted(group, hash) => self.oracle.accepted(place, life, group, hash),
            }
        }
        Ok(())
    }

    /// Shows the oracle what a process has committed.
    fn learn(&mut self, place: usize) -> Result<(), String> {
        let process = &mut self.processes[place];
        let (is_honest, records) = (process.is_honest(), process.disk.records());
        let Some(running) = process.running.as_mut() else { return Ok(()) };
        let is_lost = running.power.is_lost();
        for (group, ledger) in &running.ledgers {
            if let Some(reason) = ledger.halted().filter(|_| !is_lost) {
                let halted = format!("process {place}: group {group} has halted: {reason}");
                if is_honest {
                    return Err(halted);
                }
                self.outcome.faulty_halt.get_or_insert(halted);
            }
            if is_honest && let Some(case) = ledger.conduct().last_evidence().filter(|case| !self.twins.contains(&case.node)) {
                return Err(format!("process {place}: group {group} has evidence against honest {:?}: {}", case.node, case.what));
            }
            if is_honest && let Some(case) = ledger.conduct().last_refusal().filter(|case| !self.faulty.contains(&case.node)) {
                let refused = format!("process {place}: group {group} refused honest {:?}: {}", case.node, case.what);
                // Who was told something else by a twin may say what others must refuse.
                if self.twins.is_empty() {
                    return Err(refused);
                }
                self.outcome.false_refusal.get_or_insert(refused);
            }
            let head = ledger.chain().head().header.number;
            let seen = process.seen.entry(*group).or_default();
            while *seen < head {
                *seen += 1;
                let block = ledger.chain().block(*seen).map_err(|error| error.to_string())?.ok_or("a committed block cannot be read")?;
                (4, place, block.hash.0).hash(&mut self.trace);
                if self.verbose {
                    let at_ms = self.now_us as f64 / 1_000.0;
                    println!("{at_ms:>10.3} ms  process {place} group {group} block {seen} {} of {}", block.hash, block.transactions.len());
                }
                if is_honest {
                    self.oracle.committed(*group, &block).map_err(|error| format!("process {place}: {error}"))?;
                }
            }
        }
        if records > MAX_RECORDS * self.groups.len() {
            return Err(format!("process {place}: its vote log has {records} records"));
        }
        Ok(())
    }

    fn lose_power(&mut self, place: usize) {
        self.outcome.crashes += 1;
        self.note(|| format!("process {place} loses power"));
        (5, place).hash(&mut self.trace);
        self.processes[place].running = None;
        self.network.set_up(place, false);
        let after_us = match self.healed_us {
            Some(_) => 100_000,
            None => self.dice.pick(&[50_000, 500_000, 2_000_000, 6_000_000]),
        };
        self.plan(after_us, Event::Start { place });
        self.tell_links();
    }

    /// Looks whether everything is done, once nothing goes wrong any more.
    fn look(&mut self) -> Result<(), String> {
        if self.now_us >= self.next_members_us {
            self.next_members_us = self.now_us + 3_000_000;
            self.bring_everybody_in();
        }
        let Err(reason) = self.is_settled() else { return self.finish() };
        let healed_us = self.healed_us.expect("only a healed cluster is looked at");
        if self.now_us > healed_us + PATIENCE_US {
            return Err(format!("STUCK {} s after everything was healed: {reason}", PATIENCE_US / 1_000_000));
        }
        self.plan(LOOK_US, Event::Look);
        Ok(())
    }

    /// Why the cluster is not done yet.
    fn is_settled(&mut self) -> Result<(), String> {
        let honest: Vec<usize> = (0..self.processes.len()).filter(|place| self.processes[*place].is_honest()).collect();
        let mut lives = BTreeMap::new();
        for place in &honest {
            let process = &self.processes[*place];
            let Some(running) = &process.running else { return Err(format!("process {place} has no power")) };
            lives.insert(*place, process.life);
            if let Some(group) = running.closed.keys().next() {
                return Err(format!("process {place} has not opened group {group} again"));
            }
            for (group, ledger) in &running.ledgers {
                let (head, height) = (ledger.chain().head().header.number, self.oracle.height(*group));
                let status = ledger.engine_status();
                if head != height {
                    return Err(format!(
                        "process {place}, group {group}: at height {head} of {height}; view {}, waits for {}",
                        status.view, status.waits_for
                    ));
                }
                if ledger.pool().count() > 0 {
                    let count = ledger.pool().count();
                    return Err(format!(
                        "process {place}, group {group}: {count} transactions in the pool; view {}, waits for {}",
                        status.view, status.waits_for
                    ));
                }
                let (sealers, observers) = self.oracle.members(*group);
                if !sealers.contains(&process.id()) && !observers.contains(&process.id()) {
                    return Err(format!("process {place}, group {group}: not a member yet"));
                }
            }
        }
        if self.events.iter().any(|Reverse(due)| matches!(due.event, Event::Submit { .. })) {
            return Err("clients have not sent everything".into());
        }
        self.oracle.owed(&lives).map_or(Ok(()), Err)
    }

    fn finish(&mut self) -> Result<(), String> {
        for (place, process) in self.processes.iter().enumerate().filter(|(_, process)| process.is_honest()) {
            let Some(running) = &process.running else { continue };
            for (group, ledger) in &running.ledgers {
                self.oracle.check_state(*group, ledger).map_err(|error| format!("process {place}: {error}"))?;
            }
            let metrics = running.stages.metrics();
            if let Some(queue) = metrics.queues.iter().find(|queue| queue.high_water > queue.capacity || queue.depth > queue.capacity) {
                return Err(format!("process {place}: queue {} has held {} of {}", queue.queue, queue.high_water, queue.capacity));
            }
        }
        self.is_done = true;
        Ok(())
    }
}

/// First sealers of each group, sorted: all of them in the first; in others all faulty ones with enough honest ones, or honest ones only.
fn first_members(options: &Options, ids: &[NodeId], dice: &mut Dice) -> BTreeMap<GroupId, Vec<NodeId>> {
    let honest = options.sealers - options.faulty();
    let mut groups = BTreeMap::new();
    for number in 1..=options.groups {
        let mut members: Vec<NodeId> = ids[..options.sealers].to_vec();
        if number > 1 && options.faulty() == 0 {
            members = ids.to_vec();
            dice.shuffle(&mut members);
            members.truncate(1 + dice.index(ids.len()));
        } else if number > 1 && dice.percent(50) {
            members.truncate(1 + dice.index(honest));
        }
        members.sort_unstable();
        groups.insert(GroupId::new(number as i64).expect("there are few groups"), members);
    }
    groups
}
