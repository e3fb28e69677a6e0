//! A follower, its peers, the links between them and an ordering engine that knows the truth, all from one seed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::message::WireBlock;
use super::super::*;
use millrace_base::BlockHeader;

/// Content of blocks whose transactions do not match their root.
const BAD_ROOT: u8 = 0xad;

/// A small generator of numbers: tests must replay exactly.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// How a peer behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduct {
    Honest,
    /// Answers after seconds.
    Slow,
    /// Claims, and never answers.
    Silent,
    /// Claims the highest number there is and serves what it really has.
    Absurd,
    /// A chain of its own on top of what the follower has, without a quorum.
    Forged,
    /// Blocks that do not follow each other.
    Broken,
    /// Blocks whose content does not match the header.
    WrongRoot,
    /// Blocks of other heights.
    WrongHeight,
    /// Bytes.
    Garbage,
    /// More blocks than were asked for.
    TooMany,
    /// Claims and answers with nothing.
    Empty,
    /// Keeps the upper half of its blocks and says so.
    Pruned,
    /// As [`Self::Pruned`], but says so only when it is asked for others.
    Forgetful,
}

impl Conduct {
    pub const LIES: [Conduct; 11] = [
        Self::Slow,
        Self::Silent,
        Self::Absurd,
        Self::Forged,
        Self::Broken,
        Self::WrongRoot,
        Self::WrongHeight,
        Self::Garbage,
        Self::TooMany,
        Self::Empty,
        Self::Forgetful,
    ];
}

/// What the network does.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub lost_of_1000: u64,
    pub delay_ms: u64,
    /// Chance each tick that a peer is disconnected for a while.
    pub cut_of_10_000: u64,
}

enum Event {
    ToFollower(NodeId, Bytes),
    ToPeer(NodeId, Bytes),
    Verdict(u64, Verdict),
    Durable(u64),
    Reconnect(NodeId),
    Tick,
}

/// See the module.
pub struct World {
    random: Random,
    truth: Vec<(BlockHeader, B256)>,
    peers: Vec<(NodeId, Conduct)>,
    machine: Option<SyncEngine>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    now_ms: u64,
    height: u64,
    executing: u64,
    link: Link,
    cut: BTreeSet<NodeId>,
    checks: usize,
    pub most_checks: usize,
    pub most_held: usize,
    pub demoted: usize,
    pub honest_was_demoted: bool,
    /// Blocks that each peer's answers brought.
    pub served: Vec<u64>,
}

fn header(number: u64, parent_hash: B256, salt: u8, bytes: usize) -> BlockHeader {
    BlockHeader { number, parent_hash, extra_data: vec![Bytes::from(vec![salt; bytes])], ..BlockHeader::default() }
}

fn encoded(header: &BlockHeader) -> Bytes {
    WireBlock::encode(header, &[], std::iter::empty()).into()
}

impl World {
    /// A chain of so many blocks of this size.
    pub fn new(seed: u64, blocks: u64, bytes: usize) -> Self {
        let mut truth: Vec<(BlockHeader, B256)> = Vec::new();
        for number in 0..=blocks {
            let parent = truth.last().map_or(B256::ZERO, |(_, hash)| *hash);
            let header = header(number, parent, 0, bytes);
            let hash = header.hash();
            truth.push((header, hash));
        }
        Self {
            random: Random(seed),
            truth,
            peers: Vec::new(),
            machine: None,
            events: BTreeMap::new(),
            sequence: 0,
            now_ms: 0,
            height: 0,
            executing: 0,
            link: Link { lost_of_1000: 0, delay_ms: 1, cut_of_10_000: 0 },
            cut: BTreeSet::new(),
            checks: 0,
            most_checks: 0,
            most_held: 0,
            demoted: 0,
            honest_was_demoted: false,
            served: Vec::new(),
        }
    }

    pub fn genesis(&self) -> B256 {
        self.truth[0].1
    }

    pub fn hash(&self, height: u64) -> B256 {
        self.truth[height as usize].1
    }

    pub fn bytes(&self, height: u64) -> Bytes {
        encoded(&self.truth[height as usize].0)
    }

    pub fn add_peer(&mut self, conduct: Conduct) {
        let node = NodeId([u8::try_from(self.peers.len() + 1).unwrap(); 64]);
        self.peers.push((node, conduct));
        self.served.push(0);
    }

    pub fn height(&self) -> u64 {
        self.height
    }

    pub fn progress(&self) -> SyncProgress {
        self.machine.as_ref().unwrap().progress()
    }

    fn schedule(&mut self, in_ms: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now_ms + in_ms, self.sequence), event);
    }

    fn send(&mut self, event: Event, extra_ms: u64) {
        if self.random.below(1_000) >= self.link.lost_of_1000 {
            let delay_ms = 1 + self.random.below(2 * self.link.delay_ms) + extra_ms;
            self.schedule(delay_ms, event);
        }
    }

    /// Until the follower is at the end of the chain or the time is up.
    pub fn run(&mut self, link: Link, patience_ms: u64) {
        self.link = link;
        let sealers = self.peers.iter().map(|(node, _)| *node).collect();
        let config = SyncConfig { own: NodeId([0; 64]), genesis: self.genesis(), height: 0, hash: self.genesis(), sealers };
        self.machine = Some(SyncEngine::new(config));
        for (node, _) in self.peers.clone() {
            self.schedule(1, Event::Reconnect(node));
        }
        self.schedule(1, Event::Tick);
        while self.height + 1 < self.truth.len() as u64 && self.now_ms < patience_ms {
            let ((at_ms, _), event) = self.events.pop_first().expect("ticks never end");
            self.now_ms = at_ms;
            self.happen(event);
            let progress = self.progress();
            self.most_held = self.most_held.max(progress.held_bytes);
        }
    }

    fn tell(&mut self, input: Input) {
        let effects = self.machine.as_mut().unwrap().handle(input, self.now_ms);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToFollower(from, payload) if !self.cut.contains(&from) => self.tell(Input::Frame { from, payload }),
            Event::ToPeer(to, payload) if !self.cut.contains(&to) => self.peer_receives(to, &payload),
            Event::ToFollower(..) | Event::ToPeer(..) => {}
            Event::Verdict(ticket, verdict) => {
                self.checks -= 1;
                self.tell(Input::Checked { ticket, verdict });
            }
            Event::Durable(height) => {
                self.height = height;
                let hash = self.hash(height);
                self.tell(Input::Head { height, hash });
            }
            Event::Reconnect(node) => {
                self.cut.remove(&node);
                self.tell(Input::Connected(node));
                self.peer_says_where_it_is(node);
            }
            Event::Tick => {
                self.schedule(50, Event::Tick);
                self.tell(Input::Tick);
                for (node, _) in self.peers.clone() {
                    if self.random.below(40) == 0 {
                        self.peer_says_where_it_is(node);
                    }
                    if self.random.below(10_000) < self.link.cut_of_10_000 && self.cut.insert(node) {
                        self.tell(Input::Disconnected(node));
                        let back_ms = 100 + self.random.below(5_000);
                        self.schedule(back_ms, Event::Reconnect(node));
                    }
                }
            }
        }
    }

    fn conduct(&self, node: NodeId) -> (usize, Conduct) {
        let index = self.peers.iter().position(|(known, _)| *known == node).unwrap();
        (index, self.peers[index].1)
    }

    fn peer_says_where_it_is(&mut self, node: NodeId) {
        let top = self.truth.len() as u64 - 1;
        let height = if self.conduct(node).1 == Conduct::Absurd { u64::MAX } else { top };
        let kept_from = if self.conduct(node).1 == Conduct::Pruned { top / 2 } else { 1 };
        let status = SyncMessage::Status { version: VERSION, genesis: self.genesis(), height, hash: self.hash(top), kept_from };
        self.send(Event::ToFollower(node, status.encode()), 0);
    }

    fn peer_receives(&mut self, node: NodeId, payload: &Bytes) {
        let Ok(SyncMessage::Request { id, from, count, max_bytes }) = SyncMessage::decode(payload) else { return };
        let (index, conduct) = self.conduct(node);
        let top = self.truth.len() as u64 - 1;
        let last = top.min(from.saturating_add(u64::from(count)) - 1);
        let mut room = max_bytes as usize;
        let mut fits = |block: &Bytes| {
            let is_first = room == max_bytes as usize;
            let fits = is_first || block.len() <= room;
            room = room.saturating_sub(block.len());
            fits
        };
        let honest: Vec<Bytes> = (from..=last).map(|height| self.bytes(height)).take_while(|block| fits(block)).collect();
        let blocks = match conduct {
            Conduct::Pruned | Conduct::Forgetful if from < top / 2 => {
                assert_eq!(conduct, Conduct::Forgetful, "who says what it keeps is not asked for more");
                return self.send(Event::ToFollower(node, SyncMessage::Pruned { id, kept_from: top / 2 }.encode()), 0);
            }
            Conduct::Honest | Conduct::Slow | Conduct::Absurd | Conduct::Pruned | Conduct::Forgetful => honest,
            Conduct::Silent => return,
            Conduct::Forged => self.forged(from, last),
            Conduct::Broken => (from..=last).map(|height| encoded(&header(height, B256::repeat_byte(9), 1, 10))).collect(),
            Conduct::WrongRoot => {
                (from..=last).map(|height| encoded(&header(height, self.truth[height as usize - 1].1, BAD_ROOT, 11))).collect()
            }
            Conduct::WrongHeight => (from..=last).map(|height| self.bytes(height - 1)).collect(),
            Conduct::Garbage => vec![Bytes::from(vec![7; 100])],
            Conduct::TooMany => (0..count + 1).map(|_| self.bytes(1)).collect(),
            Conduct::Empty => Vec::new(),
        };
        self.served[index] += blocks.len() as u64;
        let extra_ms = if conduct == Conduct::Slow { 500 + self.random.below(5_000) } else { 0 };
        self.send(Event::ToFollower(node, SyncMessage::Blocks { id, from, blocks }.encode()), extra_ms);
    }

    /// Blocks that follow the true one below them, with true roots, which no quorum has signed.
    fn forged(&self, from: u64, last: u64) -> Vec<Bytes> {
        let mut parent = self.hash(from - 1);
        let chain = (from..=last).map(|height| {
            let header = header(height, parent, 2, 20);
            parent = header.hash();
            encoded(&header)
        });
        chain.collect()
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, payload } => self.send(Event::ToPeer(to, payload), 0),
            Effect::Broadcast(_) => {}
            Effect::Serve { .. } => panic!("nobody asks the follower"),
            Effect::Check { ticket, from, height, bytes } => {
                self.checks += 1;
                self.most_checks = self.most_checks.max(self.checks);
                let verdict = check(from, height, &bytes);
                let took_ms = 1 + self.random.below(30);
                self.schedule(took_ms, Event::Verdict(ticket, verdict));
            }
            Effect::Deliver(blocks) => blocks.into_iter().for_each(|block| self.order(*block)),
            Effect::Demote { node, .. } => {
                self.demoted += 1;
                self.honest_was_demoted |= self.conduct(node).1 == Conduct::Honest;
            }
        }
    }

    /// The ordering engine: takes the next height if a quorum signed it, names whoever sent another one, passes over what it has.
    fn order(&mut self, block: FinalBlock) {
        let height = block.header.number;
        assert!(height <= self.height + WINDOW, "no more is handed on than consensus takes");
        self.executing = self.executing.max(self.height);
        if height != self.executing + 1 || self.random.below(50) == 0 {
            return;
        }
        if block.header.hash() == self.hash(height) {
            self.executing = height;
            let took_ms = 5 + self.random.below(10);
            let order = self.events.iter().rev().find(|(_, event)| matches!(event, Event::Durable(_))).map_or(0, |((at, _), _)| *at);
            self.schedule(order.saturating_sub(self.now_ms) + took_ms, Event::Durable(height));
        } else {
            self.sequence += 1;
            let effects =
                self.machine.as_mut().unwrap().handle(Input::Refused { from: block.from, reason: "no quorum".into() }, self.now_ms);
            effects.into_iter().for_each(|effect| self.carry_out(effect));
        }
    }
}

/// What the checking threads do.
fn check(from: NodeId, height: u64, bytes: &Bytes) -> Verdict {
    let block = match WireBlock::decode(bytes) {
        Ok(block) => block,
        Err(error) => return Verdict::Bad(error.to_string()),
    };
    if block.header.number != height {
        return Verdict::Bad("another height".into());
    }
    if block.header.extra_data[0].first() == Some(&BAD_ROOT) {
        return Verdict::Bad("transactions root".into());
    }
    let hash = block.header.hash();
    let block = FinalBlock { header: block.header, signatures: block.signatures, transactions: Vec::new(), from };
    Verdict::Good(Box::new(CheckedBlock { hash, block }))
}
