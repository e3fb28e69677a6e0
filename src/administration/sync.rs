//! Sync: how a node that lacks blocks gets them from others, as a function of (state, input, now) to effects.
//!
//! Nothing that a peer says is believed. Claims of height decide whom to ask; a downloaded block is checked by the driver for what needs
//! no other block ([`Effect::Check`]), attached here to the chain of hashes that ends in this node's own head, and handed on in order
//! ([`Effect::Deliver`]) to the ordering engine, which demands a quorum of signatures. A peer whose blocks fail is not asked for a while,
//! growing with each lie, and everything it sent is forgotten.
//!
//! A sealer leaves the last heights to consensus, which brings them anyway, and downloads only when the gap is wider than the window of
//! consensus or does not close by itself; other members download whatever they lack.
//!
//! Invariants: memory is bounded ([`limits`]) whatever peers send; no state is entered from which one honest connected peer does not get
//! this node to that peer's head. Driven by the sync stage and by the simulator.

mod download;
pub mod limits;
pub mod message;
mod peers;
mod progress;
mod serving;

use millrace_base::{B256, Bytes, NodeId};

use crate::engine::FinalBlock;
use crate::pbft::WINDOW;
use download::{Download, Request, Settled, Slot};
use limits::{IDLE_STATUS_INTERVAL_MS, LOOKAHEAD_BLOCKS, MAX_DELIVERIES, OVERDUE_MS, STALL_MS, STATUS_INTERVAL_MS};
use message::{SyncMessage, VERSION};
use peers::{Claim, Peer, Peers};
use progress::{Meter, Steady};
pub use progress::{SyncPeer, SyncProgress};
use serving::{Asked, Serving};

/// How often the driver should look in while something is under way, milliseconds.
const BUSY_TICK_MS: u64 = 50;

/// What a machine starts with.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// This node.
    pub own: NodeId,
    /// Hash of block 0.
    pub genesis: B256,
    /// Durable height.
    pub height: u64,
    /// Hash there.
    pub hash: B256,
    /// Sealers that govern the next block.
    pub sealers: Vec<NodeId>,
}

/// A block that passed every check which needs no other block.
#[derive(Clone, Debug)]
pub struct CheckedBlock {
    /// Hash of its header.
    pub hash: B256,
    /// The block.
    pub block: FinalBlock,
}

/// Result of [`Effect::Check`].
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is of the height it was asked for, its transactions match their root, and all have senders.
    Good(Box<CheckedBlock>),
    /// An honest node would not have sent it, and why.
    Bad(String),
    /// It could not be checked; nobody is to blame.
    Unknown,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A member can be reached.
    Connected(NodeId),
    /// It no longer can.
    Disconnected(NodeId),
    /// Who votes from the next block on.
    Sealers(Vec<NodeId>),
    /// A message of another member's machine.
    Frame {
        /// Who sent it, as the network has authenticated.
        from: NodeId,
        /// The message.
        payload: Bytes,
    },
    /// Blocks up to here are durable, wherever they came from.
    Head {
        /// The height.
        height: u64,
        /// The hash there.
        hash: B256,
    },
    /// This node keeps no blocks below this height, but for block 0.
    Keeps(u64),
    /// A check has ended.
    Checked {
        /// Of the effect.
        ticket: u64,
        /// Its result.
        verdict: Verdict,
    },
    /// The ordering engine found a block of this node to be false.
    Refused {
        /// Who sent the block.
        from: NodeId,
        /// Why.
        reason: String,
    },
    /// An answer asked for by [`Effect::Serve`] has left.
    Served {
        /// Its size.
        bytes: u64,
    },
    /// Time passed; see [`SyncEngine::next_tick_in_ms`].
    Tick,
}

/// What the machine wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to one member.
    Send {
        /// To whom.
        to: NodeId,
        /// For [`Input::Frame`] there.
        payload: Bytes,
    },
    /// Send to every connected member.
    Broadcast(Bytes),
    /// Read blocks and send them as [`SyncMessage::Blocks`], then say [`Input::Served`]. One at a time.
    Serve {
        /// Who asked.
        to: NodeId,
        /// For the answer.
        id: u64,
        /// First height; durable.
        from_height: u64,
        /// Blocks at most.
        count: u32,
        /// Bytes at most, unless the first block alone is larger.
        max_bytes: u32,
    },
    /// Check a block by itself and answer with [`Input::Checked`]. At most [`limits::MAX_CHECKS`] are under way.
    Check {
        /// For the answer.
        ticket: u64,
        /// Who sent it.
        from: NodeId,
        /// The height it must have.
        height: u64,
        /// See [`message::WireBlock`].
        bytes: Bytes,
    },
    /// Blocks for the ordering engine, in height order, each attached to the one before. May come again.
    Deliver(Vec<Box<FinalBlock>>),
    /// A peer lied; it is not asked for a while. For the log.
    Demote {
        /// Who.
        node: NodeId,
        /// What was wrong.
        reason: String,
        /// For how long.
        for_ms: u64,
    },
}

/// See the module.
pub struct SyncEngine {
    config: SyncConfig,
    time: Steady,
    peers: Peers,
    download: Download,
    serving: Serving,
    meter: Meter,
    is_syncing: bool,
    /// Since when somebody has been ahead without this node's head moving.
    behind_since_ms: Option<u64>,
    delivered_ms: u64,
    /// How often the blocks at hand have been delivered without result.
    deliveries: u32,
    status_sent_ms: u64,
    status_is_news: bool,
    /// The lowest block above 0 that this node can serve.
    kept_from: u64,
}

impl SyncEngine {
    /// A machine that knows nobody yet.
    pub fn new(config: SyncConfig) -> Self {
        Self {
            config,
            time: Steady::default(),
            peers: Peers::default(),
            download: Download::default(),
            serving: Serving::default(),
            meter: Meter::default(),
            is_syncing: false,
            behind_since_ms: None,
            delivered_ms: 0,
            deliveries: 0,
            status_sent_ms: 0,
            status_is_news: true,
            kept_from: 1,
        }
    }

    /// Advances the state by one input. `wall_ms` is the only clock there is; it may jump.
    pub fn handle(&mut self, input: Input, wall_ms: u64) -> Vec<Effect> {
        let now_ms = self.time.advance(wall_ms);
        let mut effects = Vec::new();
        match input {
            Input::Connected(node) => self.connected(node, &mut effects),
            Input::Disconnected(node) => {
                // What it sent stays: it is judged by itself. So does what it is remembered for.
                self.peers.disconnect(&node);
                self.serving.forget(&node);
                self.download.drop_requests(&node);
            }
            Input::Sealers(sealers) => self.config.sealers = sealers,
            Input::Frame { from, payload } => self.frame(from, &payload, now_ms, &mut effects),
            Input::Head { height, hash } => self.head(height, hash, now_ms, &mut effects),
            Input::Keeps(from) => self.kept_from = from,
            Input::Checked { ticket, verdict } => self.checked(ticket, verdict, now_ms, &mut effects),
            Input::Refused { from, reason } => self.accuse(from, &reason, now_ms, &mut effects),
            Input::Served { bytes } => self.serving.done(bytes, now_ms),
            Input::Tick => {}
        }
        self.run(now_ms, &mut effects);
        effects
    }

    /// How long the driver may leave it alone when nothing happens.
    pub fn next_tick_in_ms(&self) -> u64 {
        if self.peers.connected().next().is_none() {
            return IDLE_STATUS_INTERVAL_MS;
        }
        let status = if self.status_is_news { STATUS_INTERVAL_MS } else { IDLE_STATUS_INTERVAL_MS };
        let status_in_ms = (self.status_sent_ms + status).saturating_sub(self.time.now_ms());
        if self.behind_since_ms.is_some() || !self.serving.is_idle() { status_in_ms.min(BUSY_TICK_MS) } else { status_in_ms }.max(1)
    }

    /// For queries and the log.
    pub fn progress(&self) -> SyncProgress {
        let now_ms = self.time.now_ms();
        let own = (self.config.height, self.config.hash);
        let vouched = self.peers.vouched(&self.config.sealers).map(|claim| (claim.height, claim.hash));
        let known = vouched.filter(|(height, _)| *height > own.0).unwrap_or(own);
        let (speed, left) = (self.meter.blocks_per_s, known.0 - own.0);
        let peer = |(node, peer): (&NodeId, &Peer)| SyncPeer {
            node: *node,
            head: peer.claim.map(|claim| (claim.height, claim.hash)),
            bytes_per_s: peer.bytes_per_s,
            held_for_ms: peer.hold_until_ms.saturating_sub(now_ms),
            lies: peer.lies,
            last_lie: peer.last_lie.clone(),
        };
        SyncProgress {
            is_syncing: self.is_syncing,
            height: own.0,
            known,
            target: self.peers.target(now_ms).max(own.0),
            blocks_per_s: speed,
            bytes_per_s: self.meter.bytes_per_s,
            remaining_s: (speed > 0).then(|| left / speed.max(1)),
            out_of_reach: self.peers.out_of_reach(own.0),
            held_blocks: self.download.held_blocks(),
            held_bytes: self.download.held_bytes(),
            peers: self.peers.connected().map(peer).collect(),
        }
    }

    fn connected(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if node != self.config.own && self.peers.connect(node) {
            effects.push(Effect::Send { to: node, payload: self.status() });
        }
    }

    fn status(&self) -> Bytes {
        let SyncConfig { genesis, height, hash, .. } = self.config;
        SyncMessage::Status { version: VERSION, genesis, height, hash, kept_from: self.kept_from }.encode()
    }

    fn frame(&mut self, from: NodeId, payload: &Bytes, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.0.get_mut(&from).filter(|peer| peer.is_connected) else { return };
        match SyncMessage::decode(payload) {
            Ok(SyncMessage::Status { version, genesis, height, hash, kept_from }) => {
                let is_ours = version == VERSION && genesis == self.config.genesis;
                peer.claim = is_ours.then_some(Claim { height, hash, kept_from });
                if genesis != self.config.genesis {
                    self.accuse(from, "it runs this group from another genesis block", now_ms, effects);
                }
            }
            Ok(SyncMessage::Request { id, from: height, count, max_bytes }) => {
                if count == 0 || height > self.config.height {
                    let nothing = SyncMessage::Blocks { id, from: height, blocks: Vec::new() };
                    effects.push(Effect::Send { to: from, payload: nothing.encode() });
                } else if height > 0 && height < self.kept_from {
                    let pruned = SyncMessage::Pruned { id, kept_from: self.kept_from };
                    effects.push(Effect::Send { to: from, payload: pruned.encode() });
                } else {
                    self.serving.ask(from, Asked { id, from: height, count, max_bytes });
                }
            }
            Ok(SyncMessage::Blocks { id, from: height, blocks }) => self.blocks(from, id, (height, blocks), now_ms, effects),
            Ok(SyncMessage::Pruned { id, kept_from }) => self.pruned(from, id, kept_from),
            Err(error) => self.accuse(from, &format!("its message cannot be read: {error}"), now_ms, effects),
        }
    }

    /// A peer dropped blocks after it had said that it keeps them: no lie, but others have to be asked.
    fn pruned(&mut self, from: NodeId, id: u64, kept_from: u64) {
        let Some(request) = self.download.request(id).copied().filter(|request| request.peer == from) else { return };
        self.download.take_request(id);
        let Some(peer) = self.peers.0.get_mut(&from) else { return };
        peer.in_flight = peer.in_flight.saturating_sub(1);
        // Whatever it says: it did not serve this height, so it is asked for later ones alone until its next status.
        if let Some(claim) = &mut peer.claim {
            claim.kept_from = kept_from.max(request.from.saturating_add(1));
        }
    }

    fn blocks(&mut self, from: NodeId, id: u64, answer: (u64, Vec<Bytes>), now_ms: u64, effects: &mut Vec<Effect>) {
        let (height, blocks) = answer;
        // An answer that came too late, or after the download had ended, is no lie.
        let Some(request) = self.download.request(id).copied().filter(|request| request.peer == from) else { return };
        let size = blocks.iter().map(|block| block.len()).sum::<usize>();
        let wrong = if blocks.is_empty() {
            Some("it cannot serve a height that it claims to have")
        } else if height != request.from || blocks.len() > request.count as usize {
            Some("it answers with blocks that it was not asked for")
        } else if blocks.len() > 1 && size > request.max_bytes as usize {
            Some("it answers with more bytes than it was asked for")
        } else {
            None
        };
        if let Some(peer) = self.peers.0.get_mut(&from) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
            if wrong.is_none() {
                peer.answered(size, now_ms.saturating_sub(request.sent_ms));
            } else {
                peer.claim = None;
            }
        }
        match wrong {
            Some(reason) => {
                self.download.take_request(id);
                self.accuse(from, reason, now_ms, effects);
            }
            None => {
                self.meter.received(size);
                self.download.fill(id, blocks);
            }
        }
    }

    fn head(&mut self, height: u64, hash: B256, now_ms: u64, effects: &mut Vec<Effect>) {
        if height <= self.config.height {
            return;
        }
        let liar = self.download.ready(height).filter(|ready| ready.hash != hash).map(|ready| ready.from);
        (self.config.height, self.config.hash) = (height, hash);
        self.download.advance(height);
        self.status_is_news = true;
        self.deliveries = 0;
        self.delivered_ms = now_ms;
        self.behind_since_ms = self.behind_since_ms.map(|_| now_ms);
        if let Some(liar) = liar {
            self.accuse(liar, &format!("it sent another block at height {height} than the group agreed on"), now_ms, effects);
        }
    }

    fn checked(&mut self, ticket: u64, verdict: Verdict, now_ms: u64, effects: &mut Vec<Effect>) {
        let Settled::Wanted { height, from, size } = self.download.settle(ticket) else { return };
        match verdict {
            Verdict::Good(checked) => {
                let CheckedBlock { hash, block } = *checked;
                self.download.set_ready(height, from, hash, block, size);
            }
            Verdict::Bad(reason) => self.accuse(from, &format!("its block {height} is false: {reason}"), now_ms, effects),
            Verdict::Unknown => self.download.release(height),
        }
    }

    /// A peer lied: nothing of it is kept, and it is not asked for a while.
    fn accuse(&mut self, node: NodeId, reason: &str, now_ms: u64, effects: &mut Vec<Effect>) {
        self.download.drop_peer(&node);
        let Some(peer) = self.peers.0.get_mut(&node) else { return };
        peer.in_flight = 0;
        let for_ms = peer.lied(reason, now_ms);
        effects.push(Effect::Demote { node, reason: reason.to_owned(), for_ms });
    }

    /// Everything that follows from the state and the time.
    fn run(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.meter.sample(self.config.height, now_ms);
        self.expire_requests(now_ms);
        self.decide(now_ms);
        if self.is_syncing {
            self.attach(now_ms, effects);
            self.watch_delivery(now_ms);
            self.ask(now_ms, effects);
            while let Some((ticket, from, height, bytes)) = self.download.next_check() {
                effects.push(Effect::Check { ticket, from, height, bytes });
            }
        }
        if let Some((to, asked)) = self.serving.next(now_ms) {
            let Asked { id, from: from_height, count, max_bytes } = asked;
            effects.push(Effect::Serve { to, id, from_height, count, max_bytes });
        }
        self.gossip(now_ms, effects);
    }

    fn gossip(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let interval_ms = if self.status_is_news { STATUS_INTERVAL_MS } else { IDLE_STATUS_INTERVAL_MS };
        if now_ms >= self.status_sent_ms + interval_ms && self.peers.connected().next().is_some() {
            self.status_sent_ms = now_ms;
            self.status_is_news = false;
            effects.push(Effect::Broadcast(self.status()));
        }
    }

    fn expire_requests(&mut self, now_ms: u64) {
        while let Some(id) = self.download.expired(now_ms) {
            let Some(request) = self.download.take_request(id) else { return };
            if let Some(peer) = self.peers.0.get_mut(&request.peer) {
                peer.in_flight = peer.in_flight.saturating_sub(1);
                peer.timed_out(now_ms);
            }
        }
    }

    /// Begins and ends downloading.
    fn decide(&mut self, now_ms: u64) {
        let height = self.config.height;
        let target = self.peers.target(now_ms);
        if target <= height && !self.is_waiting() {
            if self.is_syncing {
                self.is_syncing = false;
                self.stop_asking();
            }
            self.behind_since_ms = None;
            return;
        }
        let since_ms = *self.behind_since_ms.get_or_insert(now_ms);
        let brings_itself = self.config.sealers.contains(&self.config.own) && target - height.min(target) <= WINDOW;
        if !brings_itself || now_ms.saturating_sub(since_ms) >= STALL_MS {
            self.is_syncing = true;
        }
    }

    /// Blocks are at hand although whoever sent them is not asked at the moment.
    fn is_waiting(&self) -> bool {
        self.is_syncing && !self.download.is_empty()
    }

    fn stop_asking(&mut self) {
        for node in self.download.clear() {
            if let Some(peer) = self.peers.0.get_mut(&node) {
                peer.in_flight = peer.in_flight.saturating_sub(1);
            }
        }
    }

    /// Hands on what attaches to the durable head, as far as consensus takes it.
    fn attach(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let durable = self.config.height;
        let mut tip = (self.config.hash, None::<NodeId>);
        let mut batch = Vec::new();
        let mut liar = None;
        for height in durable + 1..=durable + LOOKAHEAD_BLOCKS {
            let Some(Slot::Ready(ready)) = self.download.slot(height) else { break };
            if ready.block.header.parent_hash != tip.0 {
                // Where two peers contradict each other, consensus first has to say whether the lower block is true.
                if height == durable + 1 || tip.1 == Some(ready.from) {
                    liar = Some((height, ready.from));
                }
                break;
            }
            tip = (ready.hash, Some(ready.from));
            if !ready.is_delivered && height <= durable + WINDOW {
                ready.is_delivered = true;
                batch.push(Box::new(ready.block.clone()));
            }
        }
        if !batch.is_empty() {
            self.delivered_ms = now_ms;
            effects.push(Effect::Deliver(batch));
        }
        if let Some((height, node)) = liar {
            self.accuse(node, &format!("its block {height} does not follow the block before it"), now_ms, effects);
        }
    }

    /// Blocks that were handed on should become durable. If not, they are handed on again, and at last fetched from somebody else.
    fn watch_delivery(&mut self, now_ms: u64) {
        let patience_ms = STALL_MS << self.deliveries.min(MAX_DELIVERIES);
        if now_ms.saturating_sub(self.delivered_ms) < patience_ms {
            return;
        }
        let delivered = self.download.delivered();
        let Some(&(_, sender)) = delivered.first() else { return };
        self.deliveries += 1;
        self.delivered_ms = now_ms;
        if self.deliveries >= MAX_DELIVERIES {
            self.deliveries = 0;
            delivered.iter().for_each(|(height, _)| self.download.release(*height));
            if let Some(peer) = self.peers.0.get_mut(&sender) {
                peer.hold(STALL_MS, now_ms);
            }
            return;
        }
        for (height, _) in delivered {
            if let Some(Slot::Ready(ready)) = self.download.slot(height) {
                ready.is_delivered = false;
            }
        }
    }

    fn ask(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let target = self.peers.target(now_ms);
        if let Some((slow, start, length)) = self.download.overdue(self.config.height, now_ms.saturating_sub(OVERDUE_MS)) {
            self.ask_for(start, length, Some(slow), now_ms, effects);
        }
        while let Some((start, length)) = self.download.gap(self.config.height, target) {
            if !self.ask_for(start, length, None, now_ms, effects) {
                return;
            }
        }
    }

    /// Asks the best peer for heights from `start` on, at most so many; `false` when there is nobody to ask.
    fn ask_for(&mut self, start: u64, length: u64, except: Option<NodeId>, now_ms: u64, effects: &mut Vec<Effect>) -> bool {
        let Some(node) = self.peers.pick(start, now_ms, except) else { return false };
        let Some(peer) = self.peers.0.get_mut(&node) else { return false };
        let Some(claim) = peer.claim else { return false };
        let count = length.min(self.download.shard(peer)).min(claim.height - start + 1);
        let count = u32::try_from(count).expect("a shard has few blocks");
        let (max_bytes, deadline_ms) = (peer.request_bytes(), now_ms + peer.timeout_ms());
        peer.in_flight += 1;
        let id = self.download.ask(Request { peer: node, from: start, count, max_bytes, sent_ms: now_ms, deadline_ms });
        let request = SyncMessage::Request { id, from: start, count, max_bytes };
        effects.push(Effect::Send { to: node, payload: request.encode() });
        true
    }
}

#[cfg(test)]
#[path = "sync/tests.rs"]
mod tests;
