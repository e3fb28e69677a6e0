//! A whole cluster in one thread from one seed: clock, network, crashes and liars are all decided by dice.
//!
//! Checked all the time: no two honest nodes finalise different blocks, each final block has a quorum of distinct valid signatures, no
//! honest node contradicts itself over restarts. Checked at the end: with the network healed every honest node goes on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use millrace_base::{B256, Bytes, NodeId};

use super::super::message::{Hash, Message, VoteKind};
use super::super::records::Record;
use super::super::signing::use_cheap_signatures;
use super::liar;
use super::world::{self, Actions, Dice, Host, Stored};
use crate::engine::{Effect, Engine, FinalBlock, Input};

/// 2023-11-14, so that clocks behind it stay positive.
const START_MS: u64 = 1_700_000_000_000;

/// What a faulty member does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Never says anything.
    Silent,
    /// Runs twice with one key, each half of it talking to other nodes.
    Twin,
    /// Follows the protocol and sends forged statements besides.
    Forger,
}

/// One run, fully described.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub sealers: usize,
    pub observers: usize,
    pub faulty: Vec<Fault>,
    pub window: u64,
    pub timeout_ms: u64,
    pub drop_percent: u64,
    pub duplicate_percent: u64,
    pub delay_ms: u64,
    pub has_crashes: bool,
    /// Crashes in 3,000 turns; five times as many in turns that record something.
    pub crashes: u64,
    pub has_partitions: bool,
    /// Whether a cut link ends the session over it; if not, messages are lost in silence.
    pub has_notice: bool,
    pub has_epoch_changes: bool,
    pub has_clock_jumps: bool,
    /// Share of transactions that reach every node at once.
    pub spread_percent: u64,
    pub chaos_ms: u64,
    /// Transactions supplied at once, at most; 0 leaves the chain idle.
    pub supplies: u64,
    /// Time between two looks for blocks of others, about.
    pub sync_ms: u64,
    /// Plants a bug of the driver: what leaves does not wait for the records.
    pub sends_before_sync: bool,
    /// Prints what happens.
    pub is_traced: bool,
}

impl Options {
    /// Everything from the seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let sealers = dice.pick(&[1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 7, 10]) as usize;
        let max_faulty = (sealers - 1) / 3;
        let count = dice.below(max_faulty as u64 + 1);
        Self {
            seed,
            sealers,
            observers: dice.below(3) as usize,
            faulty: (0..count).map(|_| dice.pick(&[Fault::Silent, Fault::Twin, Fault::Twin, Fault::Forger])).collect(),
            window: dice.pick(&[1, 2, 4, 8]),
            timeout_ms: dice.pick(&[1_000, 2_000, 3_000]),
            drop_percent: dice.pick(&[0, 0, 2, 10, 30]),
            duplicate_percent: dice.pick(&[0, 5, 50]),
            delay_ms: dice.pick(&[5, 30, 200, 1_500]),
            has_crashes: dice.percent(60),
            crashes: dice.pick(&[1, 3, 10, 20]),
            has_partitions: dice.percent(50),
            has_epoch_changes: dice.percent(40),
            has_clock_jumps: dice.percent(20),
            spread_percent: dice.pick(&[30, 90, 100]),
            chaos_ms: 10_000 + dice.below(20_000),
            supplies: 4,
            sync_ms: 1_500,
            has_notice: dice.percent(50),
            sends_before_sync: false,
            is_traced: false,
        }
    }
}

/// Who may say one thing only: node, epoch, height, view and class of vote.
type Place = (NodeId, Hash, u64, u64, VoteKind);

/// What can happen; a life that is over gets nothing any more.
enum Event {
    Frame {
        to: usize,
        from: NodeId,
        payload: Bytes,
    },
    Input {
        to: usize,
        life: u32,
        input: Box<Input>,
    },
    Executed {
        to: usize,
        life: u32,
        height: u64,
        order: u64,
    },
    Commit {
        to: usize,
        life: u32,
        height: u64,
    },
    Tick {
        to: usize,
        life: u32,
    },
    Pull {
        to: usize,
        life: u32,
    },
    Boot {
        to: usize,
    },
    /// A node finds out with whom it has a session.
    Reach {
        to: usize,
        life: u32,
    },
    Supply,
    Chaos,
    Sync,
}

/// See the module.
pub struct Cluster {
    options: Options,
    dice: Dice,
    now_ms: u64,
    hosts: Vec<Host>,
    /// Whether the host plays by the rules.
    honest: Vec<bool>,
    faults: Vec<Option<Fault>>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, Event>,
    next_event: u64,
    cut: BTreeSet<(NodeId, NodeId)>,
    is_healed: bool,
    actions: Actions,
    supplied: usize,
    /// Content of a proposal that a forger claims to be prepared.
    made_up: Option<Bytes>,
    finals: BTreeMap<u64, B256>,
    said: BTreeMap<Place, Hash>,
    /// Epochs of one sealer.
    lone: BTreeSet<Hash>,
    changed: BTreeMap<(NodeId, Hash), u64>,
    /// Contradictions of liars that honest nodes found.
    pub evidence: usize,
    pub crashes: usize,
    /// Messages handed to the network.
    pub sent: usize,
    /// How long it took after healing until every honest node had eight blocks more than any had before.
    pub seconds_to_heal: u64,
    /// How long it took after healing until the next block was final somewhere.
    pub seconds_to_progress: u64,
    pub handled: usize,
}

impl Cluster {
    pub fn new(options: Options) -> Self {
        use_cheap_signatures();
        let genesis = world::epoch(&(0..options.sealers).collect::<Vec<_>>(), 1, options.timeout_ms);
        let mut cluster = Self {
            dice: Dice::new(options.seed.wrapping_mul(31).wrapping_add(7)),
            now_ms: START_MS,
            hosts: Vec::new(),
            honest: Vec::new(),
            faults: Vec::new(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            next_event: 0,
            cut: BTreeSet::new(),
            is_healed: false,
            actions: Actions::new(),
            supplied: 0,
            made_up: None,
            finals: BTreeMap::new(),
            said: BTreeMap::new(),
            lone: BTreeSet::new(),
            changed: BTreeMap::new(),
            evidence: 0,
            crashes: 0,
            sent: 0,
            seconds_to_heal: 0,
            seconds_to_progress: 0,
            handled: 0,
            options,
        };
        let mut order: Vec<usize> = (0..cluster.options.sealers).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, cluster.dice.below(index as u64 + 1) as usize);
        }
        let faulty: BTreeMap<usize, Fault> = order.into_iter().zip(cluster.options.faulty.clone()).collect();
        for index in 0..cluster.options.sealers + cluster.options.observers {
            let fault = faulty.get(&index).copied();
            let copies = if fault == Some(Fault::Twin) { 2 } else { 1 };
            for _ in 0..copies {
                cluster.hosts.push(Host::new(world::key(index), cluster.options.window, genesis.clone()));
                cluster.honest.push(fault.is_none());
                cluster.faults.push(fault);
            }
        }
        for to in 0..cluster.hosts.len() {
            if cluster.dice.percent(20) {
                cluster.hosts[to].skew_ms = cluster.dice.pick(&[-120_000, -1_000, 1_000, 60_000]);
            }
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
        panic!("{what}\nat {} ms\n{:#?}", self.now_ms - START_MS, self.options);
    }

    /// Chaos, then peace; panics on any violation.
    pub fn run(&mut self) {
        self.run_for(self.options.chaos_ms);
        self.heal();
        let reached = self.height();
        let goal = reached + 8;
        // View timeouts are capped at 30 s, and two leaders in a row may be faulty.
        for seconds in 1..=120 {
            self.run_for(1_000);
            self.seconds_to_heal = seconds;
            if self.height() == reached {
                self.seconds_to_progress = seconds;
            }
            if self.live_honest().iter().all(|host| self.hosts[*host].height() >= goal) {
                return;
            }
        }
        let states: Vec<String> = self.live_honest().iter().map(|host| self.describe(*host)).collect();
        self.fail(&format!("height {goal} is not reached everywhere after healing:\n{}", states.join("\n")));
    }

    fn describe(&self, host: usize) -> String {
        let status = self.hosts[host].engine.as_ref().map(Engine::status).unwrap_or_default();
        let id = self.hosts[host].key.node_id();
        format!(
            "{id:?} durable {} final {} view {} to {} next {} waits for {:?} refused {:?} pool {}",
            self.hosts[host].height(),
            status.final_height,
            status.view,
            status.to_view,
            status.next_height,
            status.waits_for,
            status.last_refusal,
            self.hosts[host].pool.len()
        )
    }

    pub fn describe_all(&self) -> String {
        (0..self.hosts.len()).map(|host| self.describe(host)).collect::<Vec<_>>().join("\n")
    }

    fn live_honest(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.honest[*host]).collect()
    }

    pub fn run_for(&mut self, duration_ms: u64) {
        let end = self.now_ms + duration_ms;
        while let Some(Reverse((at, number))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now_ms = self.now_ms.max(at);
            let event = self.what.remove(&number).expect("each event has a number of its own");
            self.handled += 1;
            self.happen(event);
        }
        self.now_ms = end;
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
                let stored = self.hosts[to].head().clone();
                self.check_final(to, &stored, stored.hash);
                self.tell(to, input);
            }
            Event::Tick { to, life } if self.is_alive(to, life) => self.tick(to),
            Event::Pull { to, life } if self.is_alive(to, life) => self.pull(to),
            Event::Boot { to } if self.hosts[to].engine.is_none() => self.boot(to),
            Event::Reach { to, life } if self.is_alive(to, life) => self.reach(to),
            Event::Supply => self.supply(),
            Event::Chaos => self.chaos(),
            Event::Sync => self.sync(),
            _ => {}
        }
    }

    fn tick(&mut self, to: usize) {
        if self.hosts[to].engine.as_ref().and_then(Engine::deadline_ms).is_some_and(|due| due <= self.clock(to)) {
            self.tell(to, Input::Tick);
        }
    }

    fn is_alive(&self, host: usize, life: u32) -> bool {
        self.hosts[host].life == life && self.hosts[host].engine.is_some()
    }

    fn clock(&self, host: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.hosts[host].skew_ms)
    }

    fn boot(&mut self, to: usize) {
        self.hosts[to].boot();
        let now_ms = self.clock(to);
        let effects = self.hosts[to].engine.as_mut().expect("just booted").start(now_ms);
        self.carry_out(to, effects);
        self.sessions_changed();
    }

    /// Every node hears of it a little later, each at its own time.
    fn sessions_changed(&mut self) {
        for to in 0..self.hosts.len() {
            let life = self.hosts[to].life;
            self.after(2 + 7 * to as u64, Event::Reach { to, life });
        }
    }

    fn reach(&mut self, to: usize) {
        let own = self.hosts[to].key.node_id();
        let is_cut = |node: NodeId| self.options.has_notice && (self.cut.contains(&(own, node)) || self.cut.contains(&(node, own)));
        let others = self.hosts.iter().filter(|host| host.engine.is_some()).map(|host| host.key.node_id());
        let mut nodes: Vec<NodeId> = others.filter(|node| *node != own && !is_cut(*node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        self.tell(to, Input::Reachable(nodes));
    }

    /// A process ends and does not come back by itself.
    pub fn kill(&mut self, host: usize) {
        self.hosts[host].crash();
        self.sessions_changed();
    }

    /// All processes end at once and come back.
    pub fn restart_all(&mut self) {
        for to in 0..self.hosts.len() {
            self.hosts[to].crash();
            self.after(100, Event::Boot { to });
        }
    }

    /// The longest time without a new height while this much time passes.
    pub fn longest_pause(&mut self, duration_ms: u64) -> u64 {
        let (mut last, mut longest, mut height) = (self.now_ms, 0, self.height());
        let end_ms = self.now_ms + duration_ms;
        while self.now_ms < end_ms {
            self.run_for(10);
            if self.height() > height {
                (last, height) = (self.now_ms, self.height());
            }
            longest = longest.max(self.now_ms - last);
        }
        longest
    }

    fn tell(&mut self, to: usize, input: Input) {
        let now_ms = self.clock(to);
        let Some(engine) = self.hosts[to].engine.as_mut() else { return };
        let effects = engine.handle(input, now_ms);
        self.carry_out(to, effects);
    }

    /// Like the order stage: records first, then everything else in order. A crash may come at any point.
    fn carry_out(&mut self, host: usize, effects: Vec<Effect>) {
        let (records, others): (Vec<Effect>, Vec<Effect>) = effects.into_iter().partition(|effect| matches!(effect, Effect::Record { .. }));
        // A crash between a record and what follows from it is the one to look for.
        let chance = if records.is_empty() { self.options.crashes } else { 5 * self.options.crashes };
        let may_die = self.options.has_crashes && !self.is_healed && self.faults[host].is_none();
        let dies = may_die && self.dice.below(3_000) < chance;
        let survives = others.len() as u64;
        let last = if dies { self.dice.below(survives + 1) } else { survives };
        if dies && self.dice.percent(50) {
            // Before the sync: neither records nor anything else.
            if self.options.sends_before_sync {
                others.into_iter().for_each(|effect| self.carry_out_one(host, effect));
            }
            return self.crash(host);
        }
        for record in records {
            if let Effect::Record { height, body } = record {
                if self.honest[host] {
                    self.check_record(host, &body);
                }
                self.hosts[host].log.push((height, body));
            }
        }
        for effect in others.into_iter().take(last as usize) {
            self.carry_out_one(host, effect);
        }
        if dies {
            return self.crash(host);
        }
        self.after_turn(host);
    }

    fn after_turn(&mut self, host: usize) {
        let now_ms = self.clock(host);
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
            let delay = due.saturating_sub(now_ms).max(1);
            self.after(delay, Event::Tick { to: host, life });
        }
    }

    fn carry_out_one(&mut self, host: usize, effect: Effect) {
        let life = self.hosts[host].life;
        if self.options.is_traced
            && matches!(effect, Effect::Void { .. } | Effect::Execute(_) | Effect::Seal { .. } | Effect::Finalize { .. })
        {
            let text = format!("{effect:?}");
            println!("{} host {host} life {life} {}", self.now_ms - START_MS, text.get(..120).unwrap_or(&text));
        }
        match effect {
            Effect::Record { .. } => unreachable!("records were taken out"),
            Effect::Send { to, payload } => self.send(host, &[to], &payload),
            Effect::Broadcast(payload) => {
                let own = self.hosts[host].key.node_id();
                let others: Vec<NodeId> = self.hosts[host].sealers().into_iter().filter(|node| *node != own).collect();
                let payload = if self.faults[host] == Some(Fault::Forger) { self.forge(host, &others, payload) } else { payload };
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
                self.check_final(host, &stored, hash);
                let at = self.hosts[host].commit_until.max(self.now_ms) + 1 + self.dice.below(30);
                self.hosts[host].commit_until = at;
                self.after(at - self.now_ms, Event::Commit { to: host, life, height });
            }
            Effect::Void { above } => self.hosts[host].void(above),
            Effect::Refused { from, reason } => self.check_refusal(host, from, &reason),
            Effect::Evidence { offender, what, .. } => {
                self.evidence += 1;
                let is_liar = (0..self.hosts.len()).any(|other| !self.honest[other] && self.hosts[other].key.node_id() == offender);
                if !is_liar {
                    self.fail(&format!("evidence against honest {offender:?}: {what}"));
                }
            }
            Effect::Diverged { height, .. } if self.honest[host] => self.fail(&format!("diverged at height {height}")),
            Effect::Diverged { .. } => self.crash(host),
        }
    }

    /// Among honest nodes nothing is ever refused but for clocks; a liar can make them differ in more than that, but not in signatures.
    fn check_refusal(&self, host: usize, from: NodeId, reason: &str) {
        let is_honest = (0..self.hosts.len()).all(|other| self.honest[other] || self.hosts[other].key.node_id() != from);
        let is_excused = !self.options.faulty.is_empty() && !reason.contains("signature");
        if self.honest[host] && is_honest && !is_excused && !reason.contains("ahead of this node's clock") {
            self.fail(&format!("honest {from:?} refused: {reason}"));
        }
    }

    fn check_final(&mut self, host: usize, stored: &Stored, hash: B256) {
        if !self.honest[host] {
            return;
        }
        let header = &stored.block.header;
        assert_eq!(hash, stored.hash);
        // What a lone sealer calls final is told to nobody before it is durable: there it is looked at again.
        let is_told = header.sealer_list.len() > 1 || self.hosts[host].height() >= header.number;
        if is_told && *self.finals.entry(header.number).or_insert(hash) != hash {
            self.fail(&format!("two final blocks at height {}", header.number));
        }
        let mut signers = BTreeSet::new();
        for signature in &stored.block.signatures {
            let sealer = header.sealer_list[signature.index as usize];
            if !super::super::signing::verify(&sealer, hash, &signature.signature) {
                self.fail("a final block has a wrong signature");
            }
            signers.insert(sealer);
        }
        let count = header.sealer_list.len();
        if signers.len() < count - (count - 1) / 3 {
            self.fail(&format!("block {} is final with {} of {count} signers", header.number, signers.len()));
        }
    }

    /// What an honest node records, and so may say at any time from now on, must agree with everything it ever recorded.
    fn check_record(&mut self, host: usize, body: &Bytes) {
        let node = self.hosts[host].key.node_id();
        let engine = self.hosts[host].engine.as_ref().expect("it just acted");
        if engine.epoch.sealers.len() == 1 {
            self.lone.insert(engine.epoch_hash);
        }
        match millrace_base::wire::decode(body).expect("a record can be read back") {
            Record::Vote { kind, epoch, height, view, subject } => self.note((node, epoch, height, view, kind.class()), subject),
            Record::Floor { epoch, view, is_view_change: true } => {
                let highest = self.changed.entry((node, epoch)).or_default();
                *highest = view.max(*highest);
            }
            Record::Floor { .. } | Record::Prepared { .. } | Record::NewView { .. } | Record::View { .. } => {}
        }
    }

    fn note(&mut self, place: Place, subject: Hash) {
        let (node, epoch, height, view, class) = place;
        // A lone sealer's words leave it only with a durable block: after a crash it may say others.
        if self.lone.contains(&epoch) {
            return;
        }
        let floor = self.changed.get(&(node, epoch)).copied().unwrap_or(0);
        match self.said.insert(place, subject) {
            Some(said) if said != subject => {
                self.fail(&format!("{node:?} contradicts itself: {class:?} at height {height} in view {view}"))
            }
            None if class != VoteKind::Checkpoint && view < floor => {
                self.fail(&format!("{node:?} votes below view {floor}: {class:?} at height {height} in view {view}"));
            }
            _ => {}
        }
    }

    /// Nothing an honest node signs leaves before it is recorded.
    fn check_said(&mut self, host: usize, payload: &Bytes) {
        let node = self.hosts[host].key.node_id();
        let vote = match Message::decode(payload) {
            Ok(Message::Propose(vote, _) | Message::Vote(vote)) => vote,
            Ok(Message::ViewChange(change)) if self.options.is_traced => {
                println!("{} VC to {} suspects {:?}; {}", self.now_ms - START_MS, change.to_view, change.suspects, self.describe(host));
                return;
            }
            _ => return,
        };
        // Others' votes may be passed on.
        if !super::super::signing::verify(&node, vote.statement(&world::domain()), &vote.signature) {
            return;
        }
        let place = (node, vote.epoch, vote.height, vote.view, vote.kind.class());
        if self.options.sends_before_sync {
            return self.note(place, vote.subject);
        }
        if !self.lone.contains(&vote.epoch) && self.said.get(&place) != Some(&vote.subject) {
            self.fail(&format!("{node:?} sends what it did not record: {vote:?}"));
        }
    }

    fn send(&mut self, host: usize, to: &[NodeId], payload: &Bytes) {
        if self.honest[host] {
            self.check_said(host, payload);
        }
        let from = self.hosts[host].key.node_id();
        self.sent += to.len();
        for node in to {
            if self.faults[host] == Some(Fault::Silent) || !self.reaches(host, *node) {
                continue;
            }
            for target in 0..self.hosts.len() {
                if self.hosts[target].key.node_id() != *node || *node == from {
                    continue;
                }
                let copies = 1 + u64::from(!self.is_healed && self.dice.percent(self.options.duplicate_percent));
                for _ in 0..copies {
                    if !self.is_healed && self.dice.percent(self.options.drop_percent) {
                        continue;
                    }
                    let longest = if self.is_healed { 30 } else { self.options.delay_ms };
                    let delay = 1 + self.dice.below(longest);
                    self.after(delay, Event::Frame { to: target, from, payload: payload.clone() });
                }
            }
        }
    }

    /// Whether the network carries anything; each half of a twin talks to its own part of the others, which changes with time.
    fn reaches(&self, host: usize, node: NodeId) -> bool {
        let from = self.hosts[host].key.node_id();
        if self.faults[host] == Some(Fault::Twin) {
            let is_second = host > 0 && self.hosts[host - 1].key.node_id() == from;
            let period = (self.now_ms - START_MS) / 4_000;
            let side = (u64::from(node.0[0]) + u64::from(node.0[1]) / 3 + period) % 5;
            return side == 4 || (side % 2 == 1) == is_second;
        }
        !self.cut.contains(&(from, node))
    }

    /// Sends what nobody should believe, and gives what goes in the place of an honest message.
    fn forge(&mut self, host: usize, others: &[NodeId], payload: Bytes) -> Bytes {
        if let Ok(Message::ViewChange(change)) = Message::decode(&payload) {
            let (key, head) = (self.hosts[host].key.clone(), self.hosts[host].head().clone());
            let (change, content) = liar::spoil(&mut self.dice, &key, change, &head);
            self.made_up = Some(Message::Content(content).encode());
            return Message::ViewChange(change).encode();
        }
        if let Some(content) = self.made_up.clone() {
            self.send(host, others, &content);
        }
        if self.dice.percent(20) {
            self.send_forgeries(host, others);
        }
        payload
    }

    fn send_forgeries(&mut self, host: usize, others: &[NodeId]) {
        let key = self.hosts[host].key.clone();
        let head = self.hosts[host].head().clone();
        let view = self.hosts[host].engine.as_ref().map_or(0, |engine| engine.view);
        for payload in liar::frames(&mut self.dice, &key, &head, view) {
            let target = self.dice.pick(others);
            self.send(host, &[target], &payload);
        }
        let block = liar::block(&mut self.dice, &key, &head);
        let target = self.dice.below(self.hosts.len() as u64) as usize;
        let life = self.hosts[target].life;
        self.after(1, Event::Input { to: target, life, input: Box::new(Input::Block(Box::new(block))) });
    }

    fn crash(&mut self, host: usize) {
        self.hosts[host].crash();
        self.crashes += 1;
        let down = self.dice.below(6_000);
        self.after(100 + down, Event::Boot { to: host });
        self.sessions_changed();
    }

    /// Asks other nodes for the transactions of proposals.
    fn pull(&mut self, host: usize) {
        let own = self.hosts[host].key.node_id();
        let mut is_open = false;
        for (height, missing, holders) in self.hosts[host].gatherings() {
            for hash in missing {
                for other in 0..self.hosts.len() {
                    let node = self.hosts[other].key.node_id();
                    let is_cut = self.cut.contains(&(node, own)) || self.cut.contains(&(own, node)) || self.hosts[other].engine.is_none();
                    if is_cut || !holders.contains(&node) || self.faults[other] == Some(Fault::Silent) || self.dice.percent(20) {
                        continue;
                    }
                    if let Some(transaction) = self.hosts[other].find(&hash) {
                        self.hosts[host].offer(&transaction);
                        break;
                    }
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
        let count = self.dice.below(self.options.supplies.max(1));
        for _ in 0..count {
            let transaction = world::transaction(self.supplied);
            self.supplied += 1;
            if self.options.has_epoch_changes && self.dice.percent(4) {
                let sealers = self.next_sealers();
                self.actions.insert(transaction.hash(), sealers);
            }
            let everywhere = self.dice.percent(self.options.spread_percent);
            let only = self.dice.below(self.hosts.len() as u64) as usize;
            for host in 0..self.hosts.len() {
                if everywhere || host == only {
                    self.hosts[host].offer(&transaction);
                    if self.hosts[host].engine.is_some() {
                        self.after_turn(host);
                    }
                }
            }
        }
        let delay = 50 + self.dice.below(400);
        self.after(delay, Event::Supply);
    }

    /// A set of sealers in which the faulty ones are no more than it tolerates.
    fn next_sealers(&mut self) -> Vec<usize> {
        let total = self.options.sealers + self.options.observers;
        let faulty: Vec<usize> = (0..self.options.sealers)
            .filter(|index| {
                (0..self.hosts.len()).any(|host| !self.honest[host] && self.hosts[host].key.node_id() == world::key(*index).node_id())
            })
            .collect();
        let mut sealers: Vec<usize> = (0..total).filter(|_| self.dice.percent(70)).collect();
        let liars = sealers.iter().filter(|index| faulty.contains(index)).count();
        if sealers.is_empty() || liars > (sealers.len() - 1) / 3 {
            sealers = (0..total).collect();
        }
        sealers
    }

    fn chaos(&mut self) {
        if !self.is_healed && self.options.has_partitions && self.dice.percent(50) {
            self.cut.clear();
            let nodes: Vec<NodeId> = self.hosts.iter().map(|host| host.key.node_id()).collect();
            match self.dice.below(4) {
                0 => {}
                1 => {
                    let side: BTreeSet<NodeId> = nodes.iter().copied().filter(|_| self.dice.percent(50)).collect();
                    let crossing = |a: &NodeId, b: &NodeId| side.contains(a) != side.contains(b);
                    self.cut = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b))).filter(|(a, b)| crossing(a, b)).collect();
                }
                2 => {
                    let (deaf, is_deaf) = (self.dice.pick(&nodes), self.dice.percent(50));
                    self.cut = nodes.iter().map(|node| if is_deaf { (*node, deaf) } else { (deaf, *node) }).collect();
                }
                _ => {
                    for a in &nodes {
                        for b in &nodes {
                            if self.dice.percent(30) {
                                self.cut.insert((*a, *b));
                            }
                        }
                    }
                }
            }
        }
        if !self.is_healed && self.options.has_crashes && self.dice.percent(4) {
            (0..self.hosts.len()).filter(|host| self.honest[*host]).collect::<Vec<_>>().into_iter().for_each(|host| self.crash(host));
        }
        if self.options.has_clock_jumps && !self.is_healed && self.dice.percent(20) {
            let host = self.dice.below(self.hosts.len() as u64) as usize;
            let jump = self.dice.pick(&[-3_600_000, -5_000, 4_000, 60_000]);
            self.hosts[host].skew_ms = jump;
        }
        self.sessions_changed();
        let delay = 500 + self.dice.below(4_000);
        self.after(delay, Event::Chaos);
    }

    fn heal(&mut self) {
        self.is_healed = true;
        self.cut.clear();
        self.sessions_changed();
        for to in 0..self.hosts.len() {
            self.hosts[to].skew_ms = 0;
            if self.hosts[to].engine.is_none() {
                self.after(1, Event::Boot { to });
            } else {
                self.tell(to, Input::Tick);
            }
        }
    }

    /// Each node that is behind gets blocks from somebody who has them.
    fn sync(&mut self) {
        for to in 0..self.hosts.len() {
            let from = self.dice.below(self.hosts.len() as u64) as usize;
            let (own, node) = (self.hosts[to].key.node_id(), self.hosts[from].key.node_id());
            let is_cut = self.cut.contains(&(node, own)) || self.hosts[from].engine.is_none() || self.faults[from] == Some(Fault::Silent);
            let height = self.hosts[to].height();
            if is_cut || self.hosts[to].engine.is_none() || self.hosts[from].height() <= height {
                continue;
            }
            let count = 1 + self.dice.below(12) as usize;
            let blocks: Vec<FinalBlock> =
                self.hosts[from].chain.iter().skip(height as usize + 1).take(count).map(|stored| stored.block.clone()).collect();
            let life = self.hosts[to].life;
            for (number, block) in blocks.into_iter().enumerate() {
                let input = Box::new(Input::Block(Box::new(FinalBlock { from: node, ..block })));
                let delay = 10 + number as u64 + self.dice.below(40);
                self.after(delay, Event::Input { to, life, input });
            }
        }
        let delay = self.options.sync_ms / 5 + self.dice.below(self.options.sync_ms);
        self.after(delay, Event::Sync);
    }

    /// The highest view an honest node has entered.
    pub fn highest_view(&self) -> u64 {
        let honest = self.live_honest().into_iter().filter_map(|host| self.hosts[host].engine.as_ref());
        honest.map(|engine| engine.view).max().unwrap_or(0)
    }

    /// Heights that are final somewhere.
    pub fn height(&self) -> u64 {
        self.finals.keys().last().copied().unwrap_or(0)
    }
}
