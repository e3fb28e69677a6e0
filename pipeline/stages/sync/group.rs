//! One group in the sync stage: drives its sync machine and passes its transactions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millrace_administration::sync::message::SyncMessage;
use millrace_administration::sync::{Effect, Input, SyncConfig, SyncEngine, Verdict};
use millrace_base::{Bytes, GroupId, NodeId};
use millrace_ledger::Ledger;
use millrace_ledger::view::{LedgerView, PeerStatus, SyncStatus};

use super::serve;
use super::transactions::Transactions;
use crate::messages::{Incoming, ToOrder};
use crate::peers::{PeerKind, Peers};
use crate::runtime::{self, LaneSender, Sender};
use crate::stages::check::ToCheck;

/// How often the network is asked who is connected, besides when it says that this has changed.
const PEERS_INTERVAL: Duration = Duration::from_millis(250);

/// Time between two lines about peers that lie: they choose how often they do.
const WARNING_INTERVAL_MS: u64 = 1_000;

/// Time between two lines about a download that goes on.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Ways out of the stage.
pub struct SyncOutputs {
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// Downloaded blocks.
    pub order: Sender<ToOrder>,
    /// Transactions of peers.
    pub submissions: LaneSender<Incoming>,
    /// Transactions that were asked for.
    pub repairs: LaneSender<Incoming>,
    /// Blocks to be checked.
    pub check: LaneSender<ToCheck>,
}

/// A request of another node that is answered next.
struct Answer {
    to: NodeId,
    id: u64,
    from: u64,
    count: u32,
    max_bytes: u32,
}

/// See the module.
pub(super) struct GroupSync {
    ledger: Arc<Ledger>,
    engine: SyncEngine,
    transactions: Transactions,
    /// Sealers and observers, sorted.
    members: Vec<NodeId>,
    connected: BTreeSet<NodeId>,
    /// At most one, as the machine promises.
    answer: Option<Answer>,
    next_peers: Instant,
    next_log: Instant,
    next_tick: Instant,
    next_warning_ms: u64,
    /// Of the input in hand.
    now_ms: u64,
    published: SyncStatus,
    /// The lowest block above 0 that the machine was told to be kept.
    kept_from: u64,
}

impl GroupSync {
    /// Begins at the ledger's head.
    pub fn new(ledger: Arc<Ledger>, outputs: &SyncOutputs, now_ms: u64, now: Instant) -> Self {
        let head = ledger.chain().head();
        let engine = SyncEngine::new(SyncConfig {
            own: ledger.config().key.node_id(),
            genesis: ledger.chain().genesis(),
            height: head.header.number,
            hash: head.hash,
            sealers: Vec::new(),
        });
        let transactions = Transactions::new(Arc::clone(&ledger), now);
        let mut group = Self {
            ledger,
            engine,
            transactions,
            members: Vec::new(),
            connected: BTreeSet::new(),
            answer: None,
            next_peers: now,
            next_log: now,
            next_tick: now,
            next_warning_ms: 0,
            now_ms,
            published: SyncStatus::default(),
            kept_from: 1,
        };
        group.look_at_what_is_kept(outputs, now_ms);
        group.update_members(outputs, now_ms);
        group
    }

    fn id(&self) -> GroupId {
        self.ledger.id()
    }

    /// Lets the machine react and carries out what it wants.
    pub fn advance(&mut self, input: Input, outputs: &SyncOutputs, now_ms: u64) {
        self.now_ms = now_ms;
        let mut effects = VecDeque::from(self.engine.handle(input, now_ms));
        while let Some(effect) = effects.pop_front() {
            if let Some(input) = self.carry_out(effect, outputs) {
                effects.extend(self.engine.handle(input, now_ms));
            }
        }
        self.next_tick = runtime::now() + Duration::from_millis(self.engine.next_tick_in_ms());
    }

    fn carry_out(&mut self, effect: Effect, outputs: &SyncOutputs) -> Option<Input> {
        let group = self.id();
        match effect {
            Effect::Send { to, payload } => {
                outputs.peers.send(group, to, PeerKind::Sync, payload);
            }
            Effect::Broadcast(payload) => {
                let connected: Vec<NodeId> = self.connected.iter().copied().collect();
                outputs.peers.multicast(group, &connected, PeerKind::Sync, payload);
            }
            Effect::Serve { to, id, from_height, count, max_bytes } => {
                self.answer = Some(Answer { to, id, from: from_height, count, max_bytes });
            }
            Effect::Check { ticket, from, height, bytes } => {
                let counters = self.ledger.counters();
                counters.downloaded_blocks.fetch_add(1, Ordering::Relaxed);
                counters.downloaded_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let item = ToCheck { ledger: Arc::clone(&self.ledger), ticket, from, height, bytes };
                if outputs.check.send(group, item).is_err() {
                    return Some(Input::Checked { ticket, verdict: Verdict::Unknown });
                }
            }
            Effect::Deliver(blocks) => {
                for block in blocks {
                    // What finds no room is delivered again.
                    let _ = outputs.order.send(ToOrder::Block { group, block });
                }
            }
            Effect::Demote { node, reason, for_ms } => {
                self.ledger.conduct().note_refusal(node, &reason, self.now_ms);
                if self.next_warning_ms <= self.now_ms {
                    self.next_warning_ms = self.now_ms + WARNING_INTERVAL_MS;
                    tracing::warn!(%group, %node, for_ms, "sync: a peer is not asked for a while: {reason}");
                }
            }
        }
        None
    }

    /// A message of another node. Members alone have a say.
    pub fn frame(&mut self, (from, kind): (NodeId, PeerKind), payload: Bytes, outputs: &SyncOutputs, now_ms: u64) {
        if self.members.binary_search(&from).is_err() {
            return;
        }
        if kind == PeerKind::Sync {
            return self.advance(Input::Frame { from, payload }, outputs, now_ms);
        }
        if let Err(reason) = self.transactions.frame(from, &payload, outputs) {
            self.advance(Input::Refused { from, reason }, outputs, now_ms);
        }
    }

    /// Transactions of this node's clients have entered the pool.
    pub fn admitted(&mut self, transactions: &[millrace_base::VerifiedTx], outputs: &SyncOutputs, now: Instant) {
        self.transactions.admitted(transactions, &*outputs.peers, now);
    }

    /// The chain has grown.
    pub fn committed(&mut self, outputs: &SyncOutputs, now_ms: u64) {
        let head = self.ledger.chain().head();
        self.look_at_what_is_kept(outputs, now_ms);
        self.update_members(outputs, now_ms);
        self.advance(Input::Head { height: head.header.number, hash: head.hash }, outputs, now_ms);
    }

    fn look_at_what_is_kept(&mut self, outputs: &SyncOutputs, now_ms: u64) {
        let kept_from = self.ledger.chain().kept_from();
        if kept_from != self.kept_from {
            self.kept_from = kept_from;
            self.advance(Input::Keeps(kept_from), outputs, now_ms);
        }
    }

    fn update_members(&mut self, outputs: &SyncOutputs, now_ms: u64) {
        let (sealers, observers) = (self.ledger.sealers(), self.ledger.observers());
        let mut members: Vec<NodeId> = sealers.iter().chain(&observers).copied().collect();
        members.sort_unstable();
        let own = self.ledger.config().key.node_id();
        if members == self.members && self.transactions.has_sealers(&sealers, &own) {
            return;
        }
        outputs.peers.set_members(self.id(), &members);
        self.members = members;
        self.transactions.set_sealers(&sealers, &own);
        self.advance(Input::Sealers(sealers), outputs, now_ms);
    }

    /// Asks the network who is there.
    pub fn look_for_peers(&mut self, outputs: &SyncOutputs, now_ms: u64) {
        let connected: BTreeSet<NodeId> = outputs.peers.connected(self.id()).into_iter().collect();
        let before = std::mem::replace(&mut self.connected, connected);
        let lost: Vec<NodeId> = before.difference(&self.connected).copied().collect();
        let found: Vec<NodeId> = self.connected.difference(&before).copied().collect();
        lost.into_iter().for_each(|node| self.advance(Input::Disconnected(node), outputs, now_ms));
        found.into_iter().for_each(|node| self.advance(Input::Connected(node), outputs, now_ms));
    }

    /// Answers one request of another node.
    fn serve(&mut self, outputs: &SyncOutputs, now_ms: u64) {
        let Some(Answer { to, id, from, count, max_bytes }) = self.answer.take() else { return };
        let blocks = serve::blocks(self.ledger.chain(), from, count, max_bytes as usize).unwrap_or_else(|error| {
            tracing::error!(group = %self.id(), %error, from, "blocks cannot be read for another node");
            Vec::new()
        });
        let kept_from = self.ledger.chain().kept_from();
        // They may have gone since the machine promised them.
        let answer = if blocks.is_empty() && from > 0 && from < kept_from {
            SyncMessage::Pruned { id, kept_from }
        } else {
            SyncMessage::Blocks { id, from, blocks }
        };
        let payload = answer.encode();
        let bytes = payload.len() as u64;
        outputs.peers.send(self.id(), to, PeerKind::Sync, payload);
        self.advance(Input::Served { bytes }, outputs, now_ms);
    }

    /// What is due; gives the next time.
    pub fn tick(&mut self, outputs: &SyncOutputs, now_ms: u64, now: Instant) -> Instant {
        if now >= self.next_peers {
            self.next_peers = now + PEERS_INTERVAL;
            self.look_for_peers(outputs, now_ms);
            // Repairs an announcement that found no room.
            self.committed(outputs, now_ms);
            self.publish(now);
        }
        self.serve(outputs, now_ms);
        if now >= self.next_tick {
            self.advance(Input::Tick, outputs, now_ms);
        }
        let transactions = self.transactions.tick(&*outputs.peers, now);
        let due = self.next_peers.min(self.next_tick).min(transactions);
        if self.answer.is_some() { now } else { due }
    }

    /// The node is stopping.
    pub fn hurry(&mut self, outputs: &SyncOutputs) {
        self.transactions.hurry(&*outputs.peers);
    }

    fn publish(&mut self, now: Instant) {
        let progress = self.engine.progress();
        let genesis_hash = self.ledger.chain().genesis();
        let peers = progress.peers.iter().filter_map(|peer| {
            let (number, latest_hash) = peer.head?;
            Some(PeerStatus { node_id: peer.node, number, latest_hash, genesis_hash })
        });
        let status = SyncStatus {
            is_syncing: progress.is_syncing,
            known_highest_number: progress.known.0,
            known_latest_hash: progress.known.1,
            peers: peers.collect(),
        };
        if progress.is_syncing && now >= self.next_log {
            self.next_log = now + LOG_INTERVAL;
            let remaining = progress.remaining_s.map_or_else(|| "unknown".into(), |seconds| format!("{seconds} s"));
            tracing::info!(
                "[g:{}] sync: height {} of {}, {} blocks/s, {} kB/s, {} blocks ({} kB) at hand, {} peers, remaining time {remaining}",
                self.id(),
                progress.height,
                progress.known.0,
                progress.blocks_per_s,
                progress.bytes_per_s / 1_000,
                progress.held_blocks,
                progress.held_bytes / 1_000,
                progress.peers.len(),
            );
        }
        self.ledger.publish_progress(progress);
        if status != self.published {
            self.ledger.publish_sync(status.clone());
            self.published = status;
        }
    }
}
