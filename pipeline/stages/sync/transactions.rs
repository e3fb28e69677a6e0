//! Transactions between nodes: those of this node's clients are pushed to the sealers, once; those that another node lacks are given.
//!
//! A transaction that came from a peer is not passed on: sealers are connected to each other, and whoever accepted it from a client has
//! told all of them. What stays in the pool for long is pushed again, a bounded number a second, in case a push was lost.
//!
//! Invariants: nothing waits here for a peer; what the lanes of the verify stage do not take is dropped and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_access::Submitter;
use millrace_base::{B256, Bytes, NodeId, VerifiedTx};
use millrace_ledger::Ledger;
use millrace_ledger::view::Submission;

use super::group::SyncOutputs;
use crate::messages::{Incoming, Source};
use crate::peers::{PeerKind, Peers};
use crate::runtime::{self, LaneSender};
use crate::transfer::{MAX_TRANSFER_ITEMS, TransferMessage, batches};

/// How long a transaction may wait for others to travel with: below what a client notices.
const PUSH_DELAY: Duration = Duration::from_millis(5);

/// Transactions that travel without waiting for more.
const PUSH_COUNT: usize = 512;

/// Bytes of them.
const PUSH_BYTES: usize = 256 << 10;

/// How often the pool is looked through for transactions that stay.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Transactions looked at, oldest first.
const LOOK_COUNT: usize = 4_096;

/// A transaction that is in the pool this long may not have reached the sealers.
const OVERDUE: Duration = Duration::from_secs(2);

/// Time between two repairs of the same transaction.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// Transactions repaired in one look, and their bytes: a push more, at full load a few percent of what travels anyway.
const REPAIR_COUNT: usize = 512;

/// Transactions given to one peer a second, bytes; a proposal's worth can be asked for at once.
const GIVE_BYTES_PER_S: usize = 32 << 20;

/// Hashes of one message that are looked up in the chain when the pool does not have them.
const CHAIN_LOOKUPS: usize = 1_024;

/// A transaction seen in the pool.
struct Look {
    since: Instant,
    repaired: Option<Instant>,
}

/// What one peer may still be given in the current second.
struct Allowance {
    from: Instant,
    bytes: usize,
}

/// Work done, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransferCounters {
    /// Transactions of this node's clients pushed to sealers.
    pub pushed: u64,
    /// Of them, pushed again.
    pub repaired: u64,
    /// Transactions that peers sent.
    pub received: u64,
    /// Of them, dropped because verification could not keep up.
    pub dropped: u64,
    /// Transactions given to peers that asked.
    pub given: u64,
}

/// See the module.
pub(super) struct Transactions {
    ledger: Arc<Ledger>,
    /// Sealers other than this node.
    sealers: Vec<NodeId>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    send_at: Option<Instant>,
    looks: BTreeMap<B256, Look>,
    next_look: Instant,
    allowances: BTreeMap<NodeId, Allowance>,
    pub counters: TransferCounters,
}

/// A number for the peer as a submitter, so that one that floods takes no other's share of the pool.
fn submitter(node: &NodeId) -> Submitter {
    Submitter(u64::from_be_bytes(*node.0.first_chunk().expect("a node id has 64 bytes")) >> 1)
}

impl Transactions {
    pub fn new(ledger: Arc<Ledger>, now: Instant) -> Self {
        Self {
            ledger,
            sealers: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            send_at: None,
            looks: BTreeMap::new(),
            next_look: now + LOOK_INTERVAL,
            allowances: BTreeMap::new(),
            counters: TransferCounters::default(),
        }
    }

    /// Whether these sealers, which may include this node, are those it pushes to.
    pub fn has_sealers(&self, sealers: &[NodeId], own: &NodeId) -> bool {
        self.sealers.iter().eq(sealers.iter().filter(|sealer| *sealer != own))
    }

    pub fn set_sealers(&mut self, sealers: &[NodeId], own: &NodeId) {
        self.sealers = sealers.iter().filter(|sealer| *sealer != own).copied().collect();
        self.allowances.clear();
    }

    /// Transactions of this node's clients have entered the pool.
    pub fn admitted(&mut self, transactions: &[VerifiedTx], peers: &dyn Peers, now: Instant) {
        if self.sealers.is_empty() {
            return;
        }
        for transaction in transactions {
            self.batch_bytes += transaction.encoded().len();
            self.batch.push(transaction.encoded().clone());
            if self.batch.len() >= PUSH_COUNT || self.batch_bytes >= PUSH_BYTES {
                self.flush(peers);
            }
        }
        if !self.batch.is_empty() {
            self.send_at.get_or_insert(now + PUSH_DELAY);
        }
    }

    fn flush(&mut self, peers: &dyn Peers) {
        self.send_at = None;
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.counters.pushed += batch.len() as u64;
        self.push(batch, peers);
    }

    fn push(&self, transactions: Vec<Bytes>, peers: &dyn Peers) {
        for batch in batches(transactions) {
            let payload = TransferMessage::Push(batch).encode();
            peers.multicast(self.ledger.id(), &self.sealers, PeerKind::Transactions, payload);
        }
    }

    /// What is due; gives the next time.
    pub fn tick(&mut self, peers: &dyn Peers, now: Instant) -> Instant {
        if self.send_at.is_some_and(|at| at <= now) {
            self.flush(peers);
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_INTERVAL;
            self.repair(peers, now);
        }
        self.send_at.unwrap_or(self.next_look).min(self.next_look)
    }

    /// Sends at once what waits.
    pub fn hurry(&mut self, peers: &dyn Peers) {
        if !self.batch.is_empty() {
            self.flush(peers);
        }
    }

    fn repair(&mut self, peers: &dyn Peers, now: Instant) {
        if self.sealers.is_empty() || self.ledger.pool().count() == 0 {
            self.looks.clear();
            return;
        }
        let mut before = std::mem::take(&mut self.looks);
        let (mut overdue, mut bytes) = (Vec::new(), 0);
        for transaction in self.ledger.pool().pending(LOOK_COUNT) {
            let hash = transaction.hash();
            let mut look = before.remove(&hash).unwrap_or(Look { since: now, repaired: None });
            let is_due = now - look.since >= OVERDUE && look.repaired.is_none_or(|at| now - at >= REPAIR_INTERVAL);
            if is_due && overdue.len() < REPAIR_COUNT && bytes < PUSH_BYTES {
                look.repaired = Some(now);
                bytes += transaction.encoded().len();
                overdue.push(transaction.encoded().clone());
            }
            self.looks.insert(hash, look);
        }
        self.counters.repaired += overdue.len() as u64;
        self.push(overdue, peers);
    }

    /// A message of another member.
    ///
    /// # Errors
    /// What an honest node never sends.
    pub fn frame(&mut self, from: NodeId, payload: &[u8], outputs: &SyncOutputs) -> Result<(), String> {
        match TransferMessage::decode(payload).map_err(|error| error.to_string())? {
            TransferMessage::Push(transactions) => {
                transactions.into_iter().for_each(|raw| self.take(submitter(&from), raw, &outputs.submissions));
            }
            TransferMessage::Give(transactions) => {
                transactions.into_iter().for_each(|raw| self.take(Submitter::REPAIR, raw, &outputs.repairs));
            }
            TransferMessage::Want { hashes } => self.give(from, hashes, &*outputs.peers),
        }
        Ok(())
    }

    /// To the verify stage, like any client's; a known one costs it a hash.
    fn take(&mut self, submitter: Submitter, raw: Bytes, submissions: &LaneSender<Incoming>) {
        self.counters.received += 1;
        let bytes = raw.len();
        if !self.ledger.ingress().enter(bytes) {
            self.counters.dropped += 1;
            return;
        }
        let group = self.ledger.id();
        let submission = Submission { group, submitter: submitter.0, raw, reply: Box::new(|_| ()) };
        if submissions.send(group, Incoming { ledger: Arc::clone(&self.ledger), submission, source: Source::Peer }).is_err() {
            self.ledger.ingress().leave(bytes);
            self.counters.dropped += 1;
        }
    }

    fn give(&mut self, to: NodeId, hashes: Vec<B256>, peers: &dyn Peers) {
        let now = runtime::now();
        let allowance = self.allowances.entry(to).or_insert(Allowance { from: now, bytes: GIVE_BYTES_PER_S });
        if now - allowance.from >= Duration::from_secs(1) {
            *allowance = Allowance { from: now, bytes: GIVE_BYTES_PER_S };
        }
        let mut lookups = CHAIN_LOOKUPS;
        let mut found = Vec::new();
        for hash in hashes.into_iter().take(MAX_TRANSFER_ITEMS) {
            let transaction = self.ledger.pool().get(hash).or_else(|| {
                lookups = lookups.checked_sub(1)?;
                committed(&self.ledger, hash)
            });
            let Some(transaction) = transaction else { continue };
            let Some(left) = allowance.bytes.checked_sub(transaction.encoded().len()) else { break };
            allowance.bytes = left;
            found.push(transaction.encoded().clone());
        }
        self.counters.given += found.len() as u64;
        for batch in batches(found) {
            peers.send(self.ledger.id(), to, PeerKind::Transactions, TransferMessage::Give(batch).encode());
        }
    }
}

/// A transaction that a block took out of the pool while somebody still asks for it.
fn committed(ledger: &Ledger, hash: B256) -> Option<VerifiedTx> {
    let (number, index) = ledger.chain().locate(hash).ok().flatten()?;
    ledger.chain().transaction_at(number, index).ok().flatten()
}
