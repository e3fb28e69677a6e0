//! Which worker of a stage owns which group, and the sender that follows it.
//!
//! Invariant: while a group is pinned, all queues of a stage send its items to the same worker, so per-group state has one owner. Called by stages and gateways.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use millrace_base::GroupId;
use parking_lot::Mutex;

use super::limits::MAX_WORKERS;
use super::queue::{Delivery, SendError, Sender};

/// Table slot of a group that has no worker yet.
const UNPINNED: u16 = u16::MAX;

/// The assignment of groups to the workers of one stage. A group is given to the worker with the fewest groups when it is first named.
pub struct Pinning {
    worker_of: Vec<AtomicU16>,
    groups_of: Mutex<Vec<usize>>,
}

impl Pinning {
    /// An empty assignment over `workers` workers (cut to 1..=[`MAX_WORKERS`]).
    pub fn new(workers: usize) -> Arc<Self> {
        let workers = workers.clamp(1, MAX_WORKERS);
        let worker_of = (0..=GroupId::MAX).map(|_| AtomicU16::new(UNPINNED)).collect();
        Arc::new(Self { worker_of, groups_of: Mutex::new(vec![0; workers]) })
    }

    /// Workers to choose from.
    pub fn workers(&self) -> usize {
        self.groups_of.lock().len()
    }

    /// The worker that owns `group`; pins the group if it is new.
    pub fn worker_of(&self, group: GroupId) -> usize {
        let slot = &self.worker_of[usize::from(group.get())];
        let worker = slot.load(Ordering::Acquire);
        if worker != UNPINNED {
            return usize::from(worker);
        }
        let mut groups_of = self.groups_of.lock();
        // Another thread may have pinned it while this one waited for the lock.
        let worker = slot.load(Ordering::Acquire);
        if worker != UNPINNED {
            return usize::from(worker);
        }
        let worker = (0..groups_of.len()).min_by_key(|&worker| groups_of[worker]).unwrap_or(0);
        groups_of[worker] += 1;
        slot.store(worker as u16, Ordering::Release);
        worker
    }

    /// Forgets a removed group, so that its place counts as free. Call it only when no item of the group is in flight.
    pub fn release(&self, group: GroupId) {
        let mut groups_of = self.groups_of.lock();
        let worker = self.worker_of[usize::from(group.get())].swap(UNPINNED, Ordering::AcqRel);
        if worker != UNPINNED {
            groups_of[usize::from(worker)] -= 1;
        }
    }
}

/// The writing end of a pinned queue: picks the queue of the worker that owns the group.
pub struct Fanout<T> {
    pub(crate) senders: Vec<Sender<T>>,
    pub(crate) pinning: Arc<Pinning>,
}

impl<T> Clone for Fanout<T> {
    fn clone(&self) -> Self {
        Self { senders: self.senders.clone(), pinning: Arc::clone(&self.pinning) }
    }
}

impl<T: Send + 'static> Fanout<T> {
    /// Sends one item of `group` to the worker that owns it; see [`Sender::send`].
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send(&self, group: GroupId, item: T) -> Result<Delivery<T>, SendError<T>> {
        self.senders[self.pinning.worker_of(group)].send(item)
    }

    /// The sender of one worker's queue, for messages to each worker (a timer, a stop of all groups).
    pub fn worker(&self, worker: usize) -> Option<&Sender<T>> {
        self.senders.get(worker)
    }

    /// The assignment that the sender follows.
    pub fn pinning(&self) -> &Arc<Pinning> {
        &self.pinning
    }
}
