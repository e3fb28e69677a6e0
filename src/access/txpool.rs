//! One group's transactions between admission and commit.
//!
//! Invariants: a transaction is in the pool if and only if its hash and its nonce are indexed and it has a slot in the queue, all of it
//! changed under the lock of its nonce, so a refused transaction leaves nothing behind; it is handed out to one proposal at a time; it
//! leaves by being committed, or by being returned to the caller as dropped, never silently. What proposals of other nodes name and
//! this pool lacks stands beside it, on a shelf (`shelf`). Called at once by the verify workers (`precheck`, `admit`), the order stage
//! (`proposals`, `give_back`, `expire`), the commit stage (`on_committed`) and readers of RPC.
//!
//! Locks, in the order in which they may nest: one nonce shard, the queue, one shard of the hash index; the shelf nests in none. Each is
//! held for well under a microsecond a transaction, except by `expire` (a bounded scan) and `pending` (a sort of what is reserved).

mod proposals;
mod queue;
mod refusal;
mod shelf;
mod window;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use millrace_base::limits::BLOCK_LIMIT_WINDOW;
use millrace_base::{B256, GroupId, RawTx, Refusal, Transaction, U256, VerifiedTx};
use parking_lot::Mutex;

use queue::{Leaving, Limits, Moment, Node, Queue};
use refusal::Reason;
use shelf::Shelf;
use window::NonceWindow;

pub use proposals::Verdict;
pub use queue::Holding;

/// Shards of the nonce index: several times the cores that verify, so that two workers rarely meet.
const NONCE_SHARDS: usize = 64;

/// Slots that one [`TxPool::expire`] looks at: about a millisecond under the queue's lock.
const SLOTS_PER_EXPIRE: usize = 20_000;

/// Expired transactions that sealing found and [`TxPool::expire`] has not reported yet; beyond that, sealing only steps over them.
const MAX_UNREPORTED: usize = 10_000;

/// A shard whose pending index is this small keeps its memory when it runs empty.
const SMALL_SHARD: usize = 256;

/// What a pool must know of its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// `chain.id`; transactions of other chains are refused.
    pub chain_id: u64,
    /// Transactions for other groups are refused.
    pub group: GroupId,
    /// `tx_pool.limit`: most transactions at a time. A single submitter gets three quarters of it, see [`TxPool`].
    pub count_limit: usize,
    /// `tx_pool.memory_limit` in bytes: most memory of transactions, as [`VerifiedTx::memory_bytes`] counts it.
    pub bytes_limit: usize,
    /// `tx_pool.txs_expiration_time`: milliseconds a transaction may wait to be proposed.
    pub expiration_ms: u64,
}

/// Who brought a transaction: one number for each client (of HTTP a hash of its address) or peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Submitter(pub u64);

impl Submitter {
    /// Another node that answers what this one asked for: only what a proposal wants is taken in, see [`TxPool::want`], and neither
    /// limits nor what else the pool holds can keep it out.
    pub const REPAIR: Self = Self(u64::MAX);
}

/// What happened in a pool since the node started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolCounters {
    /// Accepted.
    pub admitted: u64,
    /// Refused, before or after recovery of the sender.
    pub refused: u64,
    /// Handed out to proposals of this node.
    pub taken: u64,
    /// Taken back from proposals that died.
    pub given_back: u64,
    /// Left because a block committed them.
    pub committed: u64,
    /// Left because a block committed another transaction with their nonce.
    pub superseded: u64,
    /// Left because block limit or age ran out.
    pub expired: u64,
}

#[derive(Default)]
struct Counters {
    refused: AtomicU64,
    committed: AtomicU64,
    superseded: AtomicU64,
    expired: AtomicU64,
}

/// Sizes, readable without the queue's lock; written under it.
#[derive(Default)]
struct Gauges {
    count: AtomicUsize,
    bytes: AtomicUsize,
    waiting: AtomicUsize,
}

struct Pooled {
    transaction: VerifiedTx,
    node: Node,
}

/// The nonces that hash to one shard.
#[derive(Default)]
struct NonceShard {
    /// Used by recent blocks.
    window: NonceWindow,
    /// Of pooled transactions, with the transaction's hash.
    pending: HashMap<U256, B256>,
}

/// See the module. Above three quarters of its limits a pool admits a submitter only as long as that one holds less than what is still
/// free. However many flood it, another client always finds room, and in a full pool has at least a seventh of the places.
pub struct TxPool {
    config: PoolConfig,
    limits: Limits,
    head: AtomicU64,
    /// Keyed, since clients choose nonces.
    hasher: RandomState,
    nonces: Box<[Mutex<NonceShard>]>,
    transactions: DashMap<B256, Pooled>,
    queue: Mutex<Queue>,
    gauges: Gauges,
    counters: Counters,
    /// Expired transactions that [`Self::take`] came across, for the next [`Self::expire`] to report.
    unreported: Mutex<Vec<VerifiedTx>>,
    shelf: Mutex<Shelf>,
    /// Transactions that proposals lack, readable without the shelf's lock; written under it.
    wanted: AtomicUsize,
    arrivals: AtomicU64,
}

impl TxPool {
    /// An empty pool over a chain whose last block is `head`; `recent_nonces` are those of the last [`BLOCK_LIMIT_WINDOW`] blocks,
    /// ascending by height, as `BlockChain::recent_nonces` gives them.
    pub fn new(config: PoolConfig, head: u64, recent_nonces: &[(u64, Vec<B256>)]) -> Self {
        let limits = Limits {
            count: config.count_limit.min(Node::MAX as usize - 1),
            bytes: config.bytes_limit,
            watermark_count: config.count_limit - config.count_limit / 4,
            watermark_bytes: config.bytes_limit - config.bytes_limit / 4,
            expiration_ms: config.expiration_ms,
        };
        let pool = Self {
            config,
            limits,
            head: AtomicU64::new(head),
            hasher: RandomState::new(),
            nonces: (0..NONCE_SHARDS).map(|_| Mutex::default()).collect(),
            transactions: DashMap::new(),
            queue: Mutex::new(Queue::new(limits)),
            gauges: Gauges::default(),
            counters: Counters::default(),
            unreported: Mutex::default(),
            shelf: Mutex::default(),
            wanted: AtomicUsize::new(0),
            arrivals: AtomicU64::new(0),
        };
        for (height, nonces) in recent_nonces {
            for nonce in nonces {
                let nonce = U256::from_be_bytes(nonce.0);
                let (shard, hash) = pool.shard(&nonce);
                shard.lock().window.push(*height, nonce, hash);
            }
        }
        pool
    }

    /// Every check that needs no signature, so that duplicates, expired and misdirected transactions cost no recovery. `hash` is that of
    /// `raw`. Of several faults the one reported is the first of `spec/client-protocol.md` 1.5; a signature that recovers no key comes
    /// before all of them there, so a caller that wants to answer exactly alike asks `crypto::is_recoverable` when this refuses.
    pub fn precheck(&self, raw: &RawTx, hash: B256, submitter: Submitter) -> Result<(), Refusal> {
        let fields = raw.fields();
        let checked = if submitter == Submitter::REPAIR {
            self.check_wanted(&hash)
        } else {
            let bytes = raw.encoded().len() + fields.data.len() + fields.extra_data.len();
            let (shard, nonce_hash) = self.shard(&fields.nonce);
            self.check_room(submitter, bytes).and_then(|()| self.check(&shard.lock(), nonce_hash, fields, hash))
        };
        checked.map_err(|reason| self.refuse(reason, fields, hash))
    }

    /// Takes a transaction in, after all checks again, or leaves the pool as it was.
    pub fn admit(&self, transaction: VerifiedTx, submitter: Submitter, now_ms: u64) -> Result<(), Refusal> {
        let admitted = match submitter {
            Submitter::REPAIR => self.admit_wanted(&transaction),
            _ => self.try_admit(&transaction, submitter, now_ms),
        };
        admitted.map_err(|reason| self.refuse(reason, transaction.fields(), transaction.hash()))
    }

    fn try_admit(&self, transaction: &VerifiedTx, submitter: Submitter, now_ms: u64) -> Result<(), Reason> {
        self.check_room(submitter, transaction.memory_bytes())?;
        let (hash, nonce) = (transaction.hash(), transaction.fields().nonce);
        let (shard, nonce_hash) = self.shard(&nonce);
        let mut shard = shard.lock();
        self.check(&shard, nonce_hash, transaction.fields(), hash)?;
        self.change(|queue| {
            let node = queue.admit(transaction.clone(), submitter, now_ms)?;
            // Before the queue is unlocked: who is handed a transaction can name it by its hash.
            self.transactions.insert(hash, Pooled { transaction: transaction.clone(), node });
            Ok(())
        })?;
        shard.pending.insert(nonce, hash);
        drop(shard);
        self.note_arrival(&hash);
        Ok(())
    }

    /// Makes transactions of a dead proposal available again, each at its old place in the order. Unknown ones are ignored.
    pub fn give_back(&self, hashes: &[B256]) {
        let found: Vec<_> = hashes.iter().filter_map(|hash| Some((self.find(hash)?.1, *hash))).collect();
        self.change(|queue| queue.give_back(found.into_iter()));
    }

    /// The block at `number` is committed: its transactions leave, its nonces enter the window, and what was reserved for it or below
    /// without becoming part of it is available again. Returns what was dropped because the block used its nonce
    /// ([`millrace_base::TransactionStatus::NonceCheckFail`]); whoever submitted it wants to know.
    pub fn on_committed(&self, number: u64, transactions: &[VerifiedTx]) -> Vec<VerifiedTx> {
        self.head.fetch_max(number, Ordering::AcqRel);
        let mut superseded = Vec::new();
        let mut committed = 0;
        for transaction in transactions {
            let nonce = transaction.fields().nonce;
            let (shard, nonce_hash) = self.shard(&nonce);
            let mut shard = shard.lock();
            shard.window.push(number, nonce, nonce_hash);
            let Some(hash) = shard.pending.remove(&nonce) else { continue };
            let left = self.change(|queue| {
                let (_, pooled) = self.transactions.remove(&hash).expect("a pending nonce belongs to a pooled transaction");
                queue.release(pooled.node);
                pooled.transaction
            });
            match hash == transaction.hash() {
                true => committed += 1,
                false => superseded.push(left),
            }
        }
        self.counters.committed.fetch_add(committed, Ordering::Relaxed);
        self.counters.superseded.fetch_add(superseded.len() as u64, Ordering::Relaxed);
        self.slide(number.saturating_sub(BLOCK_LIMIT_WINDOW - 1));
        self.change(|queue| queue.settle(number));
        self.settle_shelf(number);
        superseded
    }

    /// Forgets nonces of blocks below `oldest`.
    fn slide(&self, oldest: u64) {
        for shard in &self.nonces {
            let mut shard = shard.lock();
            shard.window.slide(oldest, |nonce| self.hasher.hash_one(nonce));
            if shard.pending.is_empty() && shard.pending.capacity() > SMALL_SHARD {
                shard.pending.shrink_to(SMALL_SHARD);
            }
        }
    }

    /// Drops waiting transactions whose block limit or age has run out and returns them, for the caller to report
    /// ([`millrace_base::TransactionStatus::TransactionRefused`]). Looks at a bounded part of the pool, in turn; to be called every
    /// second or so.
    pub fn expire(&self, now_ms: u64) -> Vec<VerifiedTx> {
        let mut dropped = std::mem::take(&mut *self.unreported.lock());
        let mut leaving = Vec::new();
        self.change(|queue| queue.expire(self.moment(now_ms), SLOTS_PER_EXPIRE, &mut leaving));
        dropped.extend(self.remove(&leaving));
        if self.change(Queue::shrink_when_empty) {
            self.transactions.shrink_to_fit();
        }
        dropped
    }

    /// Removes expired transactions from the indices, but those that a claim has called back or a block has taken along.
    fn remove(&self, leaving: &[Leaving]) -> Vec<VerifiedTx> {
        let mut dropped = Vec::new();
        for one in leaving {
            let nonce = one.transaction.fields().nonce;
            let mut shard = self.shard(&nonce).0.lock();
            let released = self.change(|queue| {
                let released = queue.release_leaving(one);
                if released {
                    self.transactions.remove(&one.transaction.hash());
                }
                released
            });
            if released {
                shard.pending.remove(&nonce);
                dropped.push(one.transaction.clone());
            }
        }
        self.counters.expired.fetch_add(dropped.len() as u64, Ordering::Relaxed);
        dropped
    }

    /// The checks of `spec/client-protocol.md` 1.5 that depend on indices and fields, in its order, without the two for room.
    fn check(&self, shard: &NonceShard, nonce_hash: u64, fields: &Transaction, hash: B256) -> Result<(), Reason> {
        if self.transactions.contains_key(&hash) {
            return Err(Reason::Known);
        }
        if fields.nonce == U256::MAX || shard.window.contains(&fields.nonce, nonce_hash) {
            return Err(Reason::NonceUsed);
        }
        let head = self.head.load(Ordering::Acquire);
        if fields.block_limit <= U256::from(head) || fields.block_limit > U256::from(head) + U256::from(BLOCK_LIMIT_WINDOW) {
            return Err(Reason::BlockLimit);
        }
        if shard.pending.contains_key(&fields.nonce) {
            return Err(Reason::NoncePending);
        }
        if fields.chain_id != U256::from(self.config.chain_id) {
            return Err(Reason::ChainId);
        }
        if fields.group_id != U256::from(self.config.group.get()) {
            return Err(Reason::GroupId);
        }
        Ok(())
    }

    /// Below the watermarks there is room for everybody, and no lock is taken.
    fn check_room(&self, submitter: Submitter, bytes: usize) -> Result<(), Reason> {
        let fits = self.bytes().saturating_add(bytes) <= self.limits.watermark_bytes;
        if fits && self.count() < self.limits.watermark_count {
            return Ok(());
        }
        self.queue.lock().room(submitter, bytes)
    }

    fn refuse(&self, reason: Reason, fields: &Transaction, hash: B256) -> Refusal {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        reason.refusal(fields, hash)
    }

    fn find(&self, hash: &B256) -> Option<(VerifiedTx, Node)> {
        self.transactions.get(hash).map(|pooled| (pooled.transaction.clone(), pooled.node))
    }

    /// The shard of a nonce, and its keyed hash.
    fn shard(&self, nonce: &U256) -> (&Mutex<NonceShard>, u64) {
        let hash = self.hasher.hash_one(nonce);
        // The window's fingerprints are the low half; shards are chosen by the high one.
        (&self.nonces[(hash >> 32) as usize % NONCE_SHARDS], hash)
    }

    fn moment(&self, now_ms: u64) -> Moment {
        Moment { head: self.head.load(Ordering::Acquire), now_ms }
    }

    /// Changes the queue under its lock and shows the new sizes.
    fn change<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let result = work(&mut queue);
        self.gauges.count.store(queue.count(), Ordering::Relaxed);
        self.gauges.bytes.store(queue.bytes(), Ordering::Relaxed);
        self.gauges.waiting.store(queue.waiting(), Ordering::Relaxed);
        result
    }

    /// Transactions that can be handed out now.
    pub fn waiting(&self) -> usize {
        self.gauges.waiting.load(Ordering::Relaxed)
    }

    /// Transactions in the pool, reserved ones included.
    pub fn count(&self) -> usize {
        self.gauges.count.load(Ordering::Relaxed)
    }

    /// Memory of them, as [`VerifiedTx::memory_bytes`] counts it.
    pub fn bytes(&self) -> usize {
        self.gauges.bytes.load(Ordering::Relaxed)
    }

    /// Last committed height the pool knows of.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Whether the pool is so full (31/32 of a limit) that doors should turn transactions away before they decode them. Fair shares
    /// begin far below, so a client that holds little has got in by then.
    pub fn is_over_watermark(&self) -> bool {
        let Limits { count, bytes, .. } = self.limits;
        self.count() >= count - count / 32 || self.bytes() >= bytes - bytes / 32
    }

    /// What is in the pool, reserved or waiting, in the order of admission, at most `limit`.
    pub fn pending(&self, limit: usize) -> Vec<VerifiedTx> {
        self.queue.lock().oldest(limit)
    }

    /// Whether the pool holds the transaction, or a proposal in flight.
    pub fn contains(&self, hash: B256) -> bool {
        self.transactions.contains_key(&hash) || self.shelf.lock().get(&hash).is_some()
    }

    /// A transaction of the pool, or of a proposal in flight.
    pub fn get(&self, hash: B256) -> Option<VerifiedTx> {
        let pooled = self.find(&hash).map(|(transaction, _)| transaction);
        pooled.or_else(|| self.shelf.lock().get(&hash).cloned())
    }

    /// What one submitter holds.
    pub fn holding(&self, submitter: Submitter) -> Holding {
        self.queue.lock().holding(submitter)
    }

    /// Submitters that hold something.
    pub fn submitters(&self) -> usize {
        self.queue.lock().submitters()
    }

    /// What happened so far.
    pub fn counters(&self) -> PoolCounters {
        let queue = self.queue.lock().counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolCounters {
            admitted: queue.admitted,
            refused: read(&self.counters.refused),
            taken: queue.taken,
            given_back: queue.given_back,
            committed: read(&self.counters.committed),
            superseded: read(&self.counters.superseded),
            expired: read(&self.counters.expired),
        }
    }

    /// Nonces of recent blocks that the pool remembers.
    pub fn window_nonces(&self) -> usize {
        self.nonces.iter().map(|shard| shard.lock().window.len()).sum()
    }
}

#[cfg(test)]
#[path = "txpool/tests.rs"]
mod tests;
