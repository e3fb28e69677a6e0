//! Bounded queues between stages: what they do when full, the sender's side, and their counters.
//!
//! Invariants: never more than `depth` items are inside; an item is either taken by the reader, still inside, or handed back to the sender
//! ([`Delivery`], [`SendError`]). The reader's side is [`super::inbox`].

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, SendTimeoutError, TrySendError};
use parking_lot::Mutex;

use super::bell::Bell;
use super::gate::{Gates, Origin};
use super::limits::BLOCKED_RECHECK;
use super::metrics::QueueMetrics;
use super::regime;

/// What a queue does when it is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The sender waits; only between stages that are pinned by group, and never in a circle.
    Block,
    /// A mailbox: a newer value takes the place of the older one with the same key; `depth` bounds the keys.
    ReplaceNewest,
    /// The bound is proven by the protocol (the queue's `why` is the proof): a full queue is a bug and panics the sender.
    NeverFull,
    /// The sender gets the item back and tells the client.
    Reject,
    /// The new item is handed back and counted; the sender need not care.
    DropNew,
    /// The oldest item is handed back to make room for the new one.
    DropOldest,
}

impl Policy {
    /// The word in pictures and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Block => "block",
            Policy::ReplaceNewest => "replace newest",
            Policy::NeverFull => "never full",
            Policy::Reject => "reject",
            Policy::DropNew => "drop new",
            Policy::DropOldest => "drop oldest",
        }
    }
}

/// The declaration of a queue of `T`.
pub struct QueueSpec<T> {
    pub(crate) name: &'static str,
    pub(crate) depth: usize,
    pub(crate) policy: Policy,
    pub(crate) why: &'static str,
    pub(crate) key: fn(&T) -> u64,
}

impl<T> QueueSpec<T> {
    /// `depth` bounds the items (for a pinned queue: of each worker); `why` gives the reason for depth and policy, for `NeverFull` the proof.
    pub fn new(name: &'static str, depth: usize, policy: Policy, why: &'static str) -> Self {
        Self { name, depth, policy, why, key: |_| 0 }
    }

    /// Which values replace each other in a `ReplaceNewest` queue; without it all do, and the queue holds one value.
    pub fn keyed(self, key: fn(&T) -> u64) -> Self {
        Self { key, ..self }
    }
}

/// What became of an item that was sent.
#[derive(PartialEq, Eq, Debug)]
pub enum Delivery<T> {
    /// It is in the queue.
    Queued,
    /// It is in the queue; an older value of the same key was taken out.
    Replaced(T),
    /// It is in the queue; the oldest was taken out to make room.
    DroppedOldest(T),
    /// The queue is full and drops what is new: here it is.
    DroppedNew(T),
}

/// Why an item was not accepted; the item is handed back.
#[derive(PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// The queue is full and its policy is to refuse: tell whoever asked.
    #[error("queue is full")]
    Full(T),
    /// The reading stage has stopped, or the node is stopping.
    #[error("queue is closed")]
    Closed(T),
}

impl<T> SendError<T> {
    /// The item that was not accepted.
    pub fn into_item(self) -> T {
        match self {
            SendError::Full(item) | SendError::Closed(item) => item,
        }
    }
}

impl<T> std::fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SendError::Full(_) => "Full(..)",
            SendError::Closed(_) => "Closed(..)",
        })
    }
}

/// The writing end of a queue, for one stage or one ingress. Clones write to the same queue.
pub struct Sender<T> {
    pub(crate) shard: Arc<Shard<T>>,
    pub(crate) origin: Origin,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shard: Arc::clone(&self.shard), origin: self.origin }
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Sends one item under the queue's policy. Waits only under [`Policy::Block`]; the wait is booked as blocked on the calling stage.
    ///
    /// # Errors
    /// [`SendError::Full`] under `Reject` and for a new key of a full mailbox, [`SendError::Closed`] once the reader has stopped.
    ///
    /// # Panics
    /// Under [`Policy::NeverFull`] when the queue is full: the stated proof is wrong.
    pub fn send(&self, item: T) -> Result<Delivery<T>, SendError<T>> {
        let shard = &*self.shard;
        let Some(_pass) = shard.gates.of(self.origin).enter() else {
            shard.counters.closed.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::Closed(item));
        };
        let delivery = shard.put(item, self.origin)?;
        if let Some(bell) = shard.bell.get() {
            bell.ring();
        }
        Ok(delivery)
    }

    /// Items waiting now.
    pub fn depth(&self) -> usize {
        self.shard.len()
    }

    /// The queue's name.
    pub fn name(&self) -> &'static str {
        self.shard.name
    }

    /// Items the queue holds at most.
    pub fn capacity(&self) -> usize {
        self.shard.capacity
    }
}

/// Counters of one queue (of one worker's part of a pinned queue).
#[derive(Default)]
pub(crate) struct QueueCounters {
    pub(crate) received: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) replaced: AtomicU64,
    pub(crate) blocked: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) high_water: AtomicUsize,
}

impl QueueCounters {
    /// Keeps the largest depth seen; the reader calls it before it takes, when the depth is at its peak.
    pub(crate) fn note_depth(&self, depth: usize) {
        if depth > self.high_water.load(Ordering::Relaxed) {
            self.high_water.fetch_max(depth, Ordering::Relaxed);
        }
    }

    pub(crate) fn fill(&self, metrics: QueueMetrics) -> QueueMetrics {
        QueueMetrics {
            high_water: self.high_water.load(Ordering::Relaxed).max(metrics.depth),
            received: self.received.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed) + self.closed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            replaced: self.replaced.load(Ordering::Relaxed),
            blocked_sends: self.blocked.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            ..metrics
        }
    }
}

/// A mailbox: the newest value of each key, keys in the order in which they became pending.
struct Mailbox<T> {
    order: VecDeque<u64>,
    values: HashMap<u64, T>,
}

enum Store<T> {
    Channel { sender: crossbeam_channel::Sender<T>, receiver: Receiver<T> },
    Mailbox(Mutex<Mailbox<T>>, fn(&T) -> u64),
    Ring(Mutex<VecDeque<T>>),
}

/// One queue as one worker reads it: a plain queue is one shard, a pinned queue has one a worker.
pub struct Shard<T> {
    name: &'static str,
    worker: usize,
    policy: Policy,
    capacity: usize,
    why: &'static str,
    store: Store<T>,
    pub(crate) gates: Gates,
    pub(crate) bell: OnceLock<Arc<Bell>>,
    pub(crate) counters: QueueCounters,
}

impl<T: Send + 'static> Shard<T> {
    /// `spec.depth` has been checked against [`super::limits::MAX_DEPTH`], or is cut to it here and refused by the validator.
    pub(crate) fn new(spec: &QueueSpec<T>, worker: usize) -> Self {
        let capacity = spec.depth.clamp(1, super::limits::MAX_DEPTH);
        let store = match spec.policy {
            Policy::ReplaceNewest => Store::Mailbox(Mutex::new(Mailbox { order: VecDeque::new(), values: HashMap::new() }), spec.key),
            Policy::DropOldest => Store::Ring(Mutex::new(VecDeque::new())),
            Policy::Block | Policy::NeverFull | Policy::Reject | Policy::DropNew => {
                let (sender, receiver) = crossbeam_channel::bounded(capacity);
                Store::Channel { sender, receiver }
            }
        };
        Self {
            name: spec.name,
            worker,
            policy: spec.policy,
            capacity,
            why: spec.why,
            store,
            gates: Gates::default(),
            bell: OnceLock::new(),
            counters: QueueCounters::default(),
        }
    }

    fn put(&self, item: T, origin: Origin) -> Result<Delivery<T>, SendError<T>> {
        match &self.store {
            Store::Channel { sender, .. } => match sender.try_send(item) {
                Ok(()) => Ok(Delivery::Queued),
                Err(TrySendError::Full(item) | TrySendError::Disconnected(item)) => self.put_into_full(sender, item, origin),
            },
            Store::Mailbox(mailbox, key) => self.put_newest(&mut mailbox.lock(), key(&item), item),
            Store::Ring(ring) => {
                let mut ring = ring.lock();
                let oldest = if ring.len() >= self.capacity { ring.pop_front() } else { None };
                ring.push_back(item);
                self.counters.note_depth(ring.len());
                drop(ring);
                Ok(oldest.map_or(Delivery::Queued, |oldest| {
                    self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                    Delivery::DroppedOldest(oldest)
                }))
            }
        }
    }

    fn put_newest(&self, mailbox: &mut Mailbox<T>, key: u64, item: T) -> Result<Delivery<T>, SendError<T>> {
        if let Some(value) = mailbox.values.get_mut(&key) {
            self.counters.replaced.fetch_add(1, Ordering::Relaxed);
            return Ok(Delivery::Replaced(std::mem::replace(value, item)));
        }
        if mailbox.values.len() >= self.capacity {
            self.counters.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::Full(item));
        }
        mailbox.values.insert(key, item);
        mailbox.order.push_back(key);
        self.counters.note_depth(mailbox.order.len());
        Ok(Delivery::Queued)
    }

    fn put_into_full(&self, sender: &crossbeam_channel::Sender<T>, item: T, origin: Origin) -> Result<Delivery<T>, SendError<T>> {
        self.counters.note_depth(self.capacity);
        match self.policy {
            Policy::Block => {
                self.counters.blocked.fetch_add(1, Ordering::Relaxed);
                regime::blocked(|| self.put_when_room(sender, item, origin))
            }
            Policy::NeverFull => {
                panic!("queue {} of worker {} is full with {} items, against: {}", self.name, self.worker, self.capacity, self.why)
            }
            Policy::DropNew => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(Delivery::DroppedNew(item))
            }
            // The other two have stores of their own and never come here.
            Policy::Reject | Policy::ReplaceNewest | Policy::DropOldest => {
                self.counters.rejected.fetch_add(1, Ordering::Relaxed);
                Err(SendError::Full(item))
            }
        }
    }

    fn put_when_room(&self, sender: &crossbeam_channel::Sender<T>, item: T, origin: Origin) -> Result<Delivery<T>, SendError<T>> {
        let mut waiting = item;
        loop {
            match sender.send_timeout(waiting, BLOCKED_RECHECK) {
                Ok(()) => return Ok(Delivery::Queued),
                Err(SendTimeoutError::Timeout(item) | SendTimeoutError::Disconnected(item)) => {
                    if self.gates.of(origin).is_closed() {
                        self.counters.closed.fetch_add(1, Ordering::Relaxed);
                        return Err(SendError::Closed(item));
                    }
                    waiting = item;
                }
            }
        }
    }

    /// Items waiting now.
    pub(crate) fn len(&self) -> usize {
        match &self.store {
            Store::Channel { receiver, .. } => receiver.len(),
            Store::Mailbox(mailbox, _) => mailbox.lock().order.len(),
            Store::Ring(ring) => ring.lock().len(),
        }
    }

    /// Takes up to `max` items that are there now, oldest first. Called by the one reader.
    pub(crate) fn take<I>(&self, batch: &mut VecDeque<I>, max: usize, map: fn(T) -> I) -> usize {
        let before = batch.len();
        match &self.store {
            Store::Channel { receiver, .. } => {
                self.counters.note_depth(receiver.len());
                batch.extend(receiver.try_iter().take(max).map(map));
            }
            Store::Mailbox(mailbox, _) => {
                let mut mailbox = mailbox.lock();
                let count = max.min(mailbox.order.len());
                let Mailbox { order, values } = &mut *mailbox;
                batch.extend(order.drain(..count).filter_map(|key| values.remove(&key)).map(map));
            }
            Store::Ring(ring) => {
                let mut ring = ring.lock();
                let count = max.min(ring.len());
                batch.extend(ring.drain(..count).map(map));
            }
        }
        let taken = batch.len() - before;
        if taken > 0 {
            self.counters.received.fetch_add(taken as u64, Ordering::Relaxed);
        }
        taken
    }
}

/// A queue as the topology watches and closes it, whatever its items.
pub trait Probe: Send + Sync {
    /// Adds one row a shard.
    fn metrics(&self, rows: &mut Vec<QueueMetrics>);
    /// Refuses further items of that origin.
    fn close(&self, origin: Origin);
    /// True when no sender of any origin is between entering and leaving.
    fn is_vacant(&self, origin: Origin) -> bool;
}

/// All shards of a queue.
pub(crate) struct Shards<T> {
    pub(crate) item: &'static str,
    pub(crate) shards: Vec<Arc<Shard<T>>>,
}

impl<T: Send + 'static> Probe for Shards<T> {
    fn metrics(&self, rows: &mut Vec<QueueMetrics>) {
        rows.extend(self.shards.iter().map(|shard| {
            shard.counters.fill(QueueMetrics {
                queue: shard.name,
                item: self.item,
                part: shard.worker,
                depth: shard.len(),
                capacity: shard.capacity,
                ..QueueMetrics::default()
            })
        }));
    }

    fn close(&self, origin: Origin) {
        self.shards.iter().for_each(|shard| shard.gates.of(origin).close());
    }

    fn is_vacant(&self, origin: Origin) -> bool {
        self.shards.iter().all(|shard| shard.gates.of(origin).is_vacant())
    }
}
