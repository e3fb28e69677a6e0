//! A whole Raft cluster in one thread from one seed: clock, network and crashes are decided by dice or by the test.
//!
//! Checked all the time: one leader a term at most, logs that agree at one entry agree below it, no two final blocks at a height, each
//! with the signatures of a majority, nobody votes twice in a term over restarts, and correct nodes refuse nothing of each other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use millrace_base::{B256, Bytes, NodeId, VerifiedTx};

use super::super::log::Log;
use super::super::message::{Kind, Message};
use super::super::{ElectionTimes, RaftConfig, RaftEngine};
use crate::engine::{Effect, Engine, FinalBlock, Input};
use crate::epoch::{Epoch, Faults};
use crate::pbft::message::Hash;
use crate::pbft::signing::use_cheap_signatures;
use crate::pbft::tests::world::{self, Actions, Dice, Host, Stored};

/// 2023-11-14, so that clocks behind it stay positive.
const START_MS: u64 = 1_700_000_000_000;

/// One run, fully described.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub sealers: usize,
    pub observers: usize,
    pub window: u64,
    pub drop_percent: u64,
    pub duplicate_percent: u64,
    pub delay_ms: u64,
    /// Crashes in 3,000 turns; five times as many in turns that record something.
    pub crashes: u64,
    pub has_partitions: bool,
    pub has_changes: bool,
    /// Share of transactions that reach every node at once.
    pub spread_percent: u64,
    /// Transactions supplied at once, at most; 0 leaves the chain idle.
    pub supplies: u64,
}

impl Options {
    /// A quiet network in which tests say what happens.
    pub fn calm(sealers: usize) -> Self {
        Self {
            seed: 1,
            sealers,
            observers: 0,
            window: 8,
            drop_percent: 0,
            duplicate_percent: 0,
            delay_ms: 5,
            crashes: 0,
            has_partitions: false,
            has_changes: false,
            spread_percent: 100,
            supplies: 4,
        }
    }

    /// Everything from the seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            seed,
            sealers: dice.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]),
            observers: dice.below(3) as usize,
            window: dice.pick(&[1, 2, 4, 8]),
            drop_percent: dice.pick(&[0, 0, 2, 10, 30]),
            duplicate_percent: dice.pick(&[0, 5, 50]),
            delay_ms: dice.pick(&[5, 30, 200, 700]),
            crashes: dice.pick(&[0, 1, 3, 10, 20]),
            has_partitions: dice.percent(50),
            has_changes: dice.percent(40),
            spread_percent: dice.pick(&[30, 90, 100]),
            supplies: 4,
        }
    }
}

enum Event {
    Frame { to: usize, from: NodeId, payload: Bytes },
    Input { to: usize, life: u32, input: Box<Input> },
    Executed { to: usize, life: u32, height: u64, order: u64 },
    Commit { to: usize, life: u32, height: u64 },
    Tick { to: usize, life: u32 },
    Pull { to: usize, life: u32 },
    Boot { to: usize },
    Supply,
    Chaos,
    Sync,
}

/// See the module.
pub struct Cluster {
    pub options: Options,
    dice: Dice,
    pub now_ms: u64,
    pub hosts: Vec<Host<RaftEngine>>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, Event>,
    next_event: u64,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Hosts that do not come back before they are started.
    pub held_down: BTreeSet<usize>,
    pub has_sync: bool,
    is_healed: bool,
    actions: Actions,
    supplied: usize,
    finals: BTreeMap<u64, B256>,
    /// Who led, by epoch and term.
    leaders: BTreeMap<(Hash, u64), NodeId>,
    /// Votes given, by voter, epoch and term.
    votes: BTreeMap<(NodeId, Hash, u64), NodeId>,
    pub crashes: usize,
}

impl Cluster {
    pub fn new(options: Options) -> Self {
        use_cheap_signatures();
        let epoch = world::epoch(&(0..options.sealers).collect::<Vec<_>>(), 1, 3_000);
        let epoch = Epoch { faults: Faults::Crash, ..epoch };
        let total = options.sealers + options.observers;
        let hosts = (0..total).map(|index| Host::new(world::key(index), options.window, epoch.clone())).collect();
        let mut cluster = Self {
            dice: Dice::new(options.seed.wrapping_mul(31).wrapping_add(7)),
            now_ms: START_MS,
            hosts,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            next_event: 0,
            cut: BTreeSet::new(),
            held_down: BTreeSet::new(),
            has_sync: true,
            is_healed: false,
            actions: Actions::new(),
            supplied: 0,
            finals: BTreeMap::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            crashes: 0,
            options,
        };
        for to in 0..total {
            let at = cluster.dice.below(300);
            cluster.after(at, Event::Boot { to });
        }
        cluster.after(100, Event::Supply);
        cluster.after(500, Event::Chaos);
        cluster.after(700, Event::Sync);
        cluster
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now_ms + delay_ms, self.next_event)));
        self.what.insert(self.next_event, event);
    }

    fn fail(&self, what: &str) -> ! {
        let states: Vec<String> = (0..self.hosts.len()).map(|host| self.describe(host)).collect();
        panic!("{what}\nat {} ms\n{:#?}\n{}", self.now_ms - START_MS, self.options, states.join("\n"));
    }

    fn describe(&self, host: usize) -> String {
        let status = self.hosts[host].engine.as_ref().map(Engine::status).unwrap_or_default();
        let (durable, pool) = (self.hosts[host].height(), self.hosts[host].pool.len());
        format!(
            "{host}: durable {durable} final {} term {} to {} next {} waits for {:?} refused {:?} pool {pool}",
            status.final_height, status.view, status.to_view, status.next_height, status.waits_for, status.last_refusal,
        )
    }

    pub fn run_for(&mut self, duration_ms: u64) {
        let end = self.now_ms + duration_ms;
        while let Some(Reverse((at, number))) = self.events.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.events.pop();
            self.now_ms = self.now_ms.max(at);
            let event = self.what.remove(&number).expect("each event has a number of its own");
            self.happen(event);
        }
        self.now_ms = end;
    }

    /// Runs until something holds.
    pub fn run_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> u64 {
        let begun = self.now_ms;
        while !holds(self) {
            if self.now_ms > begun + 60_000 {
                self.fail(&format!("not within a minute: {what}"));
            }
            self.run_for(10);
        }
        self.now_ms - begun
    }

    /// Mends everything; every node goes on.
    pub fn heal(&mut self) {
        self.is_healed = true;
        self.cut.clear();
        for to in std::mem::take(&mut self.held_down) {
            self.after(1, Event::Boot { to });
        }
        for to in 0..self.hosts.len() {
            if self.hosts[to].engine.is_none() {
                self.after(1, Event::Boot { to });
            }
        }
    }

    /// Chaos, then peace, then eight blocks more at every node.
    pub fn survive(&mut self, chaos_ms: u64) {
        self.run_for(chaos_ms);
        self.heal();
        let goal = self.height() + 8;
        self.run_until("all nodes have eight blocks more", |cluster| cluster.hosts.iter().all(|host| host.height() >= goal));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame { to, from, payload } => self.tell(to, Input::Frame { from, payload }),
            Event::Input { to, life, input } if self.is_alive(to, life) => self.tell(to, *input),
            Event::Executed { to, life, height, order } if self.is_alive(to, life) => {
                if let Some(input) = self.hosts[to].executed(height, order) {
                    self.tell(to, input);
                }
            }
            Event::Commit { to, life, height } if self.is_alive(to, life) => {
                let input = self.hosts[to].commit(height);
                self.tell(to, input);
            }
            Event::Tick { to, life } if self.is_alive(to, life) => self.tick(to),
            Event::Pull { to, life } if self.is_alive(to, life) => self.pull(to),
            Event::Boot { to } if self.hosts[to].engine.is_none() && !self.held_down.contains(&to) => self.boot(to),
            Event::Supply => self.supply(),
            Event::Chaos => self.chaos(),
            Event::Sync => self.sync(),
            _ => {}
        }
    }

    fn tick(&mut self, to: usize) {
        if self.hosts[to].engine.as_ref().and_then(Engine::deadline_ms).is_some_and(|due| due <= self.now_ms) {
            self.tell(to, Input::Tick);
        }
    }

    fn is_alive(&self, host: usize, life: u32) -> bool {
        self.hosts[host].life == life && self.hosts[host].engine.is_some()
    }

    pub fn boot(&mut self, to: usize) {
        self.held_down.remove(&to);
        let (head, records) = self.hosts[to].restart();
        self.hosts[to].engine = Some(RaftEngine::new(RaftConfig {
            domain: world::domain(),
            key: self.hosts[to].key.clone(),
            epoch: head.epoch,
            head: head.block.header,
            head_hash: head.hash,
            records,
            window: self.options.window,
            times: ElectionTimes::default(),
        }));
        let now_ms = self.now_ms;
        let effects = self.hosts[to].engine.as_mut().expect("just booted").start(now_ms);
        self.carry_out(to, effects);
    }

    pub fn tell(&mut self, to: usize, input: Input) {
        let now_ms = self.now_ms;
        let Some(engine) = self.hosts[to].engine.as_mut() else { return };
        let effects = engine.handle(input, now_ms);
        self.carry_out(to, effects);
        self.check_leader(to);
        if self.next_event.is_multiple_of(16) {
            self.check_logs();
        }
    }

    /// Like the order stage: records first, then everything else in order. A crash may come at any point.
    fn carry_out(&mut self, host: usize, effects: Vec<Effect>) {
        let (records, others): (Vec<Effect>, Vec<Effect>) = effects.into_iter().partition(|effect| matches!(effect, Effect::Record { .. }));
        let chance = if records.is_empty() { self.options.crashes } else { 5 * self.options.crashes };
        let dies = !self.is_healed && self.dice.below(3_000) < chance;
        let last = if dies { self.dice.below(others.len() as u64 + 1) as usize } else { others.len() };
        if dies && self.dice.percent(50) {
            return self.crash(host);
        }
        for record in records {
            if let Effect::Record { height, body } = record {
                self.hosts[host].log.push((height, body));
            }
        }
        // The vote log may give records back in another order, see there.
        if self.dice.percent(2) {
            let from = self.hosts[host].log.len() / 2;
            self.hosts[host].log.rotate_left(from);
        }
        for effect in others.into_iter().take(last) {
            self.carry_out_one(host, effect);
        }
        if dies {
            return self.crash(host);
        }
        self.after_turn(host);
    }

    fn after_turn(&mut self, host: usize) {
        let now_ms = self.now_ms;
        if let Some(input) = self.hosts[host].seal(now_ms) {
            return self.tell(host, input);
        }
        let is_pending = !self.hosts[host].pool.is_empty();
        if self.hosts[host].said_pending != is_pending {
            self.hosts[host].said_pending = is_pending;
            return self.tell(host, Input::Pending(is_pending));
        }
        let life = self.hosts[host].life;
        if let Some(due) = self.hosts[host].engine.as_ref().and_then(Engine::deadline_ms) {
            self.after(due.saturating_sub(now_ms).max(1), Event::Tick { to: host, life });
        }
    }

    fn carry_out_one(&mut self, host: usize, effect: Effect) {
        let life = self.hosts[host].life;
        match effect {
            Effect::Record { .. } => unreachable!("records were taken out"),
            Effect::Send { to, payload } => self.send(host, &[to], &payload),
            Effect::Broadcast(payload) => {
                let own = self.hosts[host].key.node_id();
                let others: Vec<NodeId> = self.hosts[host].sealers().into_iter().filter(|node| *node != own).collect();
                self.send(host, &others, &payload);
            }
            Effect::Seal { height, view, after_timestamp_ms, limit } => {
                self.hosts[host].wanted = Some((height, view, after_timestamp_ms, limit));
            }
            Effect::Gather { height, digest, hashes, holders } => {
                self.hosts[host].gather(height, digest, hashes, holders);
                let delay = 1 + self.dice.below(20);
                self.after(delay, Event::Pull { to: host, life });
            }
            Effect::Restore { height, transactions } => self.hosts[host].restore(height, transactions),
            Effect::Execute(proposal) => {
                let height = proposal.header.height;
                if let Some(order) = self.hosts[host].execute(*proposal, &self.actions) {
                    let at = self.hosts[host].busy_until.max(self.now_ms) + 1 + self.dice.below(30);
                    self.hosts[host].busy_until = at;
                    self.after(at - self.now_ms, Event::Executed { to: host, life, height, order });
                }
            }
            Effect::Finalize { height, hash, signatures } => {
                let stored = self.hosts[host].finalize(height, signatures);
                self.check_final(&stored, hash);
                let at = self.hosts[host].commit_until.max(self.now_ms) + 1 + self.dice.below(30);
                self.hosts[host].commit_until = at;
                self.after(at - self.now_ms, Event::Commit { to: host, life, height });
            }
            Effect::Void { above } => self.hosts[host].void(above),
            Effect::Refused { from, reason } => self.fail(&format!("host {host} refused {from:?}: {reason}")),
            Effect::Evidence { what, .. } => self.fail(&format!("host {host} has evidence: {what}")),
            Effect::Diverged { height, .. } => self.fail(&format!("host {host} diverged at height {height}")),
        }
    }

    fn check_final(&mut self, stored: &Stored, hash: B256) {
        let header = &stored.block.header;
        if *self.finals.entry(header.number).or_insert(hash) != hash {
            self.fail(&format!("two final blocks at height {}", header.number));
        }
        let signers: BTreeSet<u32> = stored.block.signatures.iter().map(|signature| signature.index).collect();
        let valid = stored
            .block
            .signatures
            .iter()
            .all(|signature| crate::pbft::signing::verify(&header.sealer_list[signature.index as usize], hash, &signature.signature));
        if !valid || 2 * signers.len() <= header.sealer_list.len() {
            self.fail(&format!("block {} is final with {} signers of {}", header.number, signers.len(), header.sealer_list.len()));
        }
    }

    fn check_leader(&mut self, host: usize) {
        let Some(engine) = &self.hosts[host].engine else { return };
        let Some(term) = engine.node.as_ref().filter(|node| node.is_leader()).map(super::super::Node::term) else { return };
        let own = self.hosts[host].key.node_id();
        if *self.leaders.entry((engine.epoch_hash, term)).or_insert(own) != own {
            self.fail(&format!("two leaders in term {term}"));
        }
    }

    /// Logs of one epoch that have an entry of one term at one index are equal up to there.
    fn check_logs(&self) {
        let logs: Vec<(Hash, &Log)> = self
            .hosts
            .iter()
            .filter_map(|host| host.engine.as_ref())
            .filter_map(|engine| Some((engine.epoch_hash, engine.node.as_ref()?.log())))
            .collect();
        for (at, (epoch, one)) in logs.iter().enumerate() {
            for (_, other) in logs[..at].iter().filter(|(other, _)| other == epoch) {
                let mut must_match = false;
                for index in (1..=one.last().min(other.last())).rev() {
                    let (Some(a), Some(b)) = (one.item(index), other.item(index)) else { break };
                    must_match |= a.term == b.term;
                    if must_match && (a.term, &a.data) != (b.term, &b.data) {
                        self.fail(&format!("logs differ at {index} below an entry they share"));
                    }
                }
            }
        }
    }

    fn send(&mut self, host: usize, to: &[NodeId], payload: &Bytes) {
        let from = self.hosts[host].key.node_id();
        for node in to {
            self.check_vote(from, *node, payload);
            if self.cut.contains(&(from, *node)) {
                continue;
            }
            let Some(target) = self.place(*node) else { continue };
            let copies = 1 + u64::from(!self.is_healed && self.dice.percent(self.options.duplicate_percent));
            for _ in 0..copies {
                if !self.is_healed && self.dice.percent(self.options.drop_percent) {
                    continue;
                }
                let delay = 1 + self.dice.below(if self.is_healed { 10 } else { self.options.delay_ms });
                self.after(delay, Event::Frame { to: target, from, payload: payload.clone() });
            }
        }
    }

    /// A vote that is given must be the only one in its term, over restarts.
    fn check_vote(&mut self, from: NodeId, to: NodeId, payload: &Bytes) {
        let Ok(Message::Raft(epoch, _, frame)) = Message::decode(payload) else { return };
        if frame.kind == Kind::RequestVoteResponse && !frame.is_rejected && *self.votes.entry((from, epoch, frame.term)).or_insert(to) != to
        {
            self.fail(&format!("{from:?} voted twice in term {}", frame.term));
        }
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.key.node_id() == node)
    }

    pub fn crash(&mut self, host: usize) {
        self.hosts[host].crash();
        self.crashes += 1;
        let down = self.dice.below(6_000);
        self.after(100 + down, Event::Boot { to: host });
    }

    /// A host that stays down until [`Self::boot`] or [`Self::heal`].
    pub fn take_down(&mut self, host: usize) {
        self.held_down.insert(host);
        self.hosts[host].crash();
    }

    /// Asks other nodes for the transactions of proposals.
    fn pull(&mut self, host: usize) {
        let own = self.hosts[host].key.node_id();
        let mut is_open = false;
        for (height, missing, holders) in self.hosts[host].gatherings() {
            for hash in missing {
                let reaches = |other: &Host<RaftEngine>| {
                    let node = other.key.node_id();
                    let is_cut = self.cut.contains(&(node, own)) || self.cut.contains(&(own, node));
                    other.engine.is_some() && !is_cut && holders.contains(&node)
                };
                let found: Option<VerifiedTx> = self.hosts.iter().filter(|other| reaches(other)).find_map(|other| other.find(&hash));
                if let Some(transaction) = found.filter(|_| !self.dice.percent(20)) {
                    self.hosts[host].offer(&transaction);
                }
            }
            match self.hosts[host].gathered(height) {
                Some(input) => self.tell(host, input),
                None => is_open = true,
            }
            if self.hosts[host].engine.is_none() {
                return;
            }
        }
        if is_open {
            let life = self.hosts[host].life;
            self.after(50, Event::Pull { to: host, life });
        }
    }

    fn supply(&mut self) {
        for _ in 0..self.dice.below(self.options.supplies.max(1)) {
            let change = (self.options.has_changes && self.dice.percent(4)).then(|| self.some_sealers());
            let everywhere = self.dice.percent(self.options.spread_percent);
            let only = self.dice.below(self.hosts.len() as u64) as usize;
            let to: Vec<usize> = (0..self.hosts.len()).filter(|host| everywhere || *host == only).collect();
            self.offer(&to, change);
        }
        let delay = 50 + self.dice.below(400);
        self.after(delay, Event::Supply);
    }

    /// Gives some hosts a new transaction, which may say who seals from then on.
    pub fn offer(&mut self, to: &[usize], change: Option<Vec<usize>>) -> VerifiedTx {
        let transaction = world::transaction(self.supplied);
        self.supplied += 1;
        if let Some(sealers) = change {
            self.actions.insert(transaction.hash(), sealers);
        }
        for host in to {
            self.hosts[*host].offer(&transaction);
            if self.hosts[*host].engine.is_some() {
                self.after_turn(*host);
            }
        }
        transaction
    }

    fn some_sealers(&mut self) -> Vec<usize> {
        let total = self.hosts.len();
        let sealers: Vec<usize> = (0..total).filter(|_| self.dice.percent(60)).collect();
        if sealers.is_empty() { (0..total).collect() } else { sealers }
    }

    fn chaos(&mut self) {
        if !self.is_healed && self.options.has_partitions && self.dice.percent(50) {
            self.cut.clear();
            let nodes: Vec<NodeId> = self.hosts.iter().map(|host| host.key.node_id()).collect();
            match self.dice.below(4) {
                0 => {}
                1 => {
                    let side: Vec<usize> = (0..nodes.len()).filter(|_| self.dice.percent(50)).collect();
                    self.part(&side);
                }
                2 => {
                    let (deaf, is_deaf) = (self.dice.pick(&nodes), self.dice.percent(50));
                    self.cut = nodes.iter().map(|node| if is_deaf { (*node, deaf) } else { (deaf, *node) }).collect();
                }
                _ => {
                    let pairs: Vec<(NodeId, NodeId)> = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b))).collect();
                    self.cut = pairs.into_iter().filter(|_| self.dice.percent(30)).collect();
                }
            }
        }
        if !self.is_healed && self.options.crashes > 0 && self.dice.percent(4) {
            (0..self.hosts.len()).for_each(|host| self.crash(host));
        }
        let delay = 500 + self.dice.below(4_000);
        self.after(delay, Event::Chaos);
    }

    /// Cuts some hosts off from the others.
    pub fn part(&mut self, side: &[usize]) {
        let nodes: Vec<(bool, NodeId)> = self.hosts.iter().enumerate().map(|(at, host)| (side.contains(&at), host.key.node_id())).collect();
        let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b)));
        self.cut = pairs.filter(|(a, b)| a.0 != b.0).map(|(a, b)| (a.1, b.1)).collect();
    }

    /// Each node that is behind gets blocks from somebody who has them.
    fn sync(&mut self) {
        for to in 0..self.hosts.len() {
            let from = self.dice.below(self.hosts.len() as u64) as usize;
            let (own, node) = (self.hosts[to].key.node_id(), self.hosts[from].key.node_id());
            let height = self.hosts[to].height();
            let is_cut = self.cut.contains(&(node, own)) || self.hosts[from].engine.is_none() || !self.has_sync;
            if is_cut || self.hosts[to].engine.is_none() || self.hosts[from].height() <= height {
                continue;
            }
            let count = 1 + self.dice.below(40) as usize;
            let blocks: Vec<FinalBlock> =
                self.hosts[from].chain.iter().skip(height as usize + 1).take(count).map(|stored| stored.block.clone()).collect();
            let life = self.hosts[to].life;
            for (number, block) in blocks.into_iter().enumerate() {
                let input = Box::new(Input::Block(Box::new(FinalBlock { from: node, ..block })));
                let delay = 10 + number as u64 + self.dice.below(40);
                self.after(delay, Event::Input { to, life, input });
            }
        }
        let delay = 300 + self.dice.below(1_500);
        self.after(delay, Event::Sync);
    }

    /// Heights that are final somewhere.
    pub fn height(&self) -> u64 {
        self.finals.keys().last().copied().unwrap_or(0)
    }

    /// The host that leads the highest term, if one does.
    pub fn leader(&self) -> Option<usize> {
        let leads = |host: &usize| {
            let node = self.hosts[*host].engine.as_ref()?.node.as_ref()?;
            node.is_leader().then(|| node.term())
        };
        (0..self.hosts.len()).filter(|host| leads(host).is_some()).max_by_key(|host| leads(host))
    }

    pub fn engine(&self, host: usize) -> &RaftEngine {
        self.hosts[host].engine.as_ref().expect("it runs")
    }

    pub fn term(&self, host: usize) -> u64 {
        self.engine(host).status().view
    }

    /// Heights of blocks of a host that hold a transaction.
    pub fn blocks_with(&self, host: usize, transaction: &VerifiedTx) -> Vec<u64> {
        let has = |stored: &&Stored| stored.block.transactions.iter().any(|other| other.hash() == transaction.hash());
        self.hosts[host].chain.iter().filter(has).map(|stored| stored.block.header.number).collect()
    }
}
