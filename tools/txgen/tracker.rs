//! What became of every transaction of one group: sent, acknowledged or refused, seen in a block.
//!
//! ```text
//! Sent -> Acknowledged      the node returned the hash: a receipt must follow
//!      -> Refused           the node said no: forgotten, unless it is sent again
//!      -> Unknown           the connection failed: a receipt may follow
//! Unknown -> Sent           the same bytes once more, to another node while there is one
//! ```
//! A receipt may be seen in any of these states, also before the acknowledgement. Entries are made before the request leaves, so a
//! receipt of an unknown hash is somebody else's. Written by the connections and the follower, read by the checks and the report.

mod record;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_base::{Address, B256};

pub use self::record::{Counts, MAX_PROBLEMS, Record};
use crate::supply::Prepared;
use crate::workload::{AMOUNT, Workload};

/// Which part of a run a transaction belongs to; only the last is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Accounts and contracts.
    Setup,
    /// Load before the measurement.
    Warmup,
    /// Load that counts.
    Measured,
}

impl Phase {
    /// Word for nonces and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Warmup => "warmup",
            Self::Measured => "load",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Sent,
    Acknowledged,
    Unknown,
}

struct Entry {
    /// When it was sent, or due in an open loop.
    start: Instant,
    phase: Phase,
    state: State,
    workload: u8,
    transfer: Option<(u32, u32)>,
    /// Sightings in blocks; one is right.
    receipts: u32,
    block: u64,
    /// Of a creation.
    contract: Address,
    holds_room: bool,
    /// Receipts that the channel port pushed.
    pushes: u32,
    /// Position of the node it was sent to last.
    node: usize,
    /// Until it is seen: to be sent to another node.
    kept: Option<Box<Prepared>>,
}

impl Entry {
    fn is_seen(&self) -> bool {
        self.receipts > 0 || self.pushes > 0
    }
}

/// A receipt as the follower read it.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Of the transaction.
    pub hash: B256,
    /// Of the receipt; 0 is success.
    pub status: u32,
    /// Return data.
    pub output: Vec<u8>,
    /// Created contract, else zero.
    pub contract: Address,
}

struct Inner {
    entries: HashMap<B256, Entry>,
    /// Places taken in the closed loop's window.
    in_flight: usize,
    /// Acknowledged and not seen yet.
    awaited: usize,
    /// Unknown and not seen.
    unsure: usize,
    record: Record,
}

impl Inner {
    /// Moves an entry to another state; what was acknowledged stays so.
    fn set_state(&mut self, hash: &B256, state: State) -> Option<&mut Entry> {
        let Self { entries, awaited, unsure, record, .. } = self;
        let entry = entries.get_mut(hash)?;
        if entry.state == State::Acknowledged {
            return Some(entry);
        }
        if !entry.is_seen() {
            *unsure -= usize::from(entry.state == State::Unknown);
            *unsure += usize::from(state == State::Unknown);
            *awaited += usize::from(state == State::Acknowledged);
        }
        if entry.phase == Phase::Measured {
            record.counts.unknown -= u64::from(entry.state == State::Unknown);
            record.counts.unknown += u64::from(state == State::Unknown);
            record.counts.acknowledged += u64::from(state == State::Acknowledged);
        }
        entry.state = state;
        Some(entry)
    }
}

/// See the module's text.
pub struct Tracker {
    inner: Mutex<Inner>,
    changed: Condvar,
    height: AtomicU64,
    /// Whether receipts come from blocks; else they are pushed.
    reads_blocks: AtomicBool,
    /// Whether each acknowledged transaction's receipt must be pushed: no session was lost, nothing was sent twice.
    expects_pushes: AtomicBool,
    workloads: Vec<&'static dyn Workload>,
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

impl Tracker {
    /// For a group with these workloads and so many accounts.
    pub fn new(workloads: Vec<&'static dyn Workload>, accounts: u32) -> Self {
        let record = Record::new(&workloads, accounts);
        let inner = Inner { entries: HashMap::new(), in_flight: 0, awaited: 0, unsure: 0, record };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            height: AtomicU64::new(0),
            reads_blocks: AtomicBool::new(true),
            expects_pushes: AtomicBool::new(false),
            workloads,
        }
    }

    /// From now on the channel port pushes receipts; blocks are not read.
    pub fn expect_pushes(&self) {
        self.expects_pushes.store(true, Ordering::Release);
        self.reads_blocks.store(false, Ordering::Release);
    }

    /// Receipts are read from blocks again, all of them.
    pub fn read_blocks(&self) {
        self.reads_blocks.store(true, Ordering::Release);
    }

    /// Some receipts will not be pushed: a session was lost, or a second node has a transaction.
    pub fn miss_pushes(&self) {
        self.expects_pushes.store(false, Ordering::Release);
        self.read_blocks();
    }

    /// Whether blocks are to be read.
    pub fn reads_blocks(&self) -> bool {
        self.reads_blocks.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Greatest height of the group's chain that was seen.
    pub fn height(&self) -> u64 {
        self.height.load(Ordering::Relaxed)
    }

    /// Some node showed this height.
    pub fn raise_height(&self, height: u64) {
        self.height.fetch_max(height, Ordering::Relaxed);
    }

    /// Waits until `wanted` more transactions may be in flight and takes the places. False, and nothing taken, when that took longer than
    /// `patience`.
    pub fn take_room(&self, wanted: usize, window: usize, patience: Duration) -> bool {
        let guard = self.lock();
        let is_full = |inner: &mut Inner| inner.in_flight > 0 && inner.in_flight + wanted > window;
        let (mut guard, waited) = self.changed.wait_timeout_while(guard, patience, is_full).unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            guard.in_flight += wanted;
        }
        !waited.timed_out()
    }

    /// The batch is about to be sent to the node at this position. Each transaction keeps the place it took, if `has_room`.
    pub fn sent(&self, batch: &[Prepared], start: Instant, phase: Phase, has_room: HasRoom, node: usize) {
        let has_room = has_room == HasRoom::Yes;
        let mut guard = self.lock();
        let inner = &mut *guard;
        if phase == Phase::Measured {
            inner.record.first_submit.get_or_insert_with(Instant::now);
        }
        for item in batch {
            if item.is_resent {
                self.miss_pushes();
            }
            inner.record.counts.resent += u64::from(item.is_resent && phase == Phase::Measured);
            if let Some(entry) = inner.set_state(&item.hash, State::Sent) {
                entry.node = node;
                let needs_room = has_room && !entry.is_seen() && !entry.holds_room;
                entry.holds_room |= needs_room;
                inner.in_flight -= usize::from(has_room && !needs_room);
                continue;
            }
            inner.record.counts.submitted += u64::from(phase == Phase::Measured);
            let entry = Entry {
                start: item.due.unwrap_or(start),
                phase,
                state: State::Sent,
                workload: item.workload,
                transfer: item.transfer,
                receipts: 0,
                block: 0,
                contract: Address::ZERO,
                holds_room: has_room,
                pushes: 0,
                node,
                kept: Some(Box::new(item.clone())),
            };
            inner.entries.insert(item.hash, entry);
        }
        drop(guard);
        self.changed.notify_all();
    }

    /// The node returned these hashes, or said that it knows them.
    pub fn acknowledged(&self, hashes: &[B256], now: Instant) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for hash in hashes {
            let Some(entry) = inner.entries.get(hash).filter(|entry| entry.state != State::Acknowledged) else { continue };
            let (start, phase) = (entry.start, entry.phase);
            inner.set_state(hash, State::Acknowledged);
            if phase == Phase::Measured {
                inner.record.acknowledgement.saturating_record(micros(start, now).max(1));
            }
        }
    }

    /// The node refused this transaction; its place is free. It may be sent again.
    pub fn refused(&self, hash: &B256, code: &str, outlook: Outlook) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        *inner.record.errors.entry(code.to_owned()).or_default() += 1;
        let Some(entry) = inner.entries.get(hash) else { return };
        if entry.receipts > 0 {
            return inner.record.problem(format!("{hash} was refused ({code}) and is in block {} all the same", entry.block));
        }
        let (phase, held) = (entry.phase, entry.holds_room);
        inner.entries.remove(hash);
        inner.in_flight -= usize::from(held);
        if phase == Phase::Measured {
            match outlook {
                Outlook::SentAgain => inner.record.counts.submitted -= 1,
                Outlook::GivenUp => inner.record.counts.refused += 1,
            }
        }
        drop(guard);
        self.changed.notify_all();
    }

    /// The connection failed with these on the way, or a node refused what another may have.
    pub fn unknown(&self, hashes: &[B256], code: &str) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        *inner.record.errors.entry(code.to_owned()).or_default() += hashes.len() as u64;
        for hash in hashes {
            let Some(entry) = inner.set_state(hash, State::Unknown) else { continue };
            let held = std::mem::take(&mut entry.holds_room);
            inner.in_flight -= usize::from(held);
        }
        drop(guard);
        self.changed.notify_all();
    }

    /// What the node at this position acknowledged and no block has shown: to be sent to another. Without a node: what is unknown.
    pub fn orphans(&self, of_node: Option<usize>) -> Vec<Prepared> {
        let mut guard = self.lock();
        let Inner { entries, in_flight, .. } = &mut *guard;
        let is_orphan = |entry: &&mut Entry| match of_node {
            Some(node) => entry.state == State::Acknowledged && entry.node == node && !entry.is_seen(),
            None => entry.state == State::Unknown && !entry.is_seen(),
        };
        let mut orphans = Vec::new();
        for entry in entries.values_mut().filter(is_orphan) {
            let Some(kept) = &entry.kept else { continue };
            *in_flight -= usize::from(std::mem::take(&mut entry.holds_room));
            orphans.push(Prepared { is_resent: true, ..(**kept).clone() });
        }
        drop(guard);
        self.changed.notify_all();
        orphans.sort_by_key(|item| item.id);
        orphans
    }

    /// Notes what must not happen.
    pub fn problem(&self, text: String) {
        self.lock().record.problem(text);
    }

    /// A block with these receipts was read at `now`.
    pub fn saw_block(&self, number: u64, receipts: &[Sighting], now: Instant) {
        let mut guard = self.lock();
        let measured: u64 = receipts.iter().map(|receipt| u64::from(self.saw_receipt(&mut guard, number, receipt, now))).sum();
        if measured > 0 {
            guard.record.commit(number, now, measured);
        }
        drop(guard);
        self.changed.notify_all();
    }

    /// The channel port pushed these receipts, each with the number of its block.
    pub fn saw_pushes(&self, receipts: &[(Sighting, u64)], now: Instant) {
        let mut guard = self.lock();
        for (receipt, number) in receipts {
            let Inner { entries, record, .. } = &mut *guard;
            let Some(entry) = entries.get_mut(&receipt.hash) else { continue };
            let is_first = !entry.is_seen();
            self.raise_height(*number);
            entry.pushes += 1;
            record.counts.pushed += u64::from(entry.phase == Phase::Measured);
            if entry.pushes > 1 && self.expects_pushes.load(Ordering::Acquire) {
                record.problem(format!("the receipt of {} was pushed {} times", receipt.hash, entry.pushes));
            }
            if !is_first && entry.block != *number {
                record.problem(format!("{} is in block {}, its pushed receipt names block {number}", receipt.hash, entry.block));
            }
            if is_first && self.settle_entry(&mut guard, *number, receipt, now) {
                guard.record.commit(*number, now, 1);
            }
        }
        drop(guard);
        self.changed.notify_all();
    }

    /// True if the receipt is the first sign of a measured transaction.
    fn saw_receipt(&self, inner: &mut Inner, number: u64, receipt: &Sighting, now: Instant) -> bool {
        let Inner { entries, record, .. } = inner;
        let Some(entry) = entries.get_mut(&receipt.hash) else {
            record.counts.foreign += 1;
            return false;
        };
        let is_first = !entry.is_seen();
        entry.receipts += 1;
        if entry.receipts > 1 {
            record.problem(format!("{} has {} receipts: in block {} and in block {number}", receipt.hash, entry.receipts, entry.block));
            return false;
        }
        if !is_first && entry.block != number {
            record.problem(format!("{} is in block {number}, its pushed receipt named block {}", receipt.hash, entry.block));
        }
        is_first && self.settle_entry(inner, number, receipt, now)
    }

    /// The first sign that a transaction is in a block; true if it is a measured one. Its counters say already that it is seen.
    fn settle_entry(&self, inner: &mut Inner, number: u64, receipt: &Sighting, now: Instant) -> bool {
        let Inner { entries, in_flight, awaited, unsure, record } = inner;
        let Some(entry) = entries.get_mut(&receipt.hash) else { return false };
        entry.block = number;
        entry.contract = receipt.contract;
        entry.kept = None;
        *in_flight -= usize::from(std::mem::take(&mut entry.holds_room));
        *awaited -= usize::from(entry.state == State::Acknowledged);
        *unsure -= usize::from(entry.state == State::Unknown);
        let workload = usize::from(entry.workload);
        let fault = match receipt.status {
            0 => self.workloads.get(workload).and_then(|workload| workload.hidden_error(&receipt.output)),
            status => Some(format!("receipt status {status}")),
        };
        let is_measured = entry.phase == Phase::Measured;
        if is_measured {
            record.counts.committed += 1;
            *record.statuses.entry(receipt.status).or_default() += 1;
            record.latency.saturating_record(micros(entry.start, now).max(1));
        }
        match (fault, entry.transfer) {
            (Some(fault), _) => {
                record.counts.failed += u64::from(is_measured);
                *record.faults.entry(fault.clone()).or_default() += 1;
                if entry.phase == Phase::Setup {
                    record.problem(format!("set-up transaction {} in block {number}: {fault}", receipt.hash));
                }
            }
            (None, Some((from, to))) => {
                let changes = &mut record.changes[workload];
                let amount = i64::try_from(AMOUNT).expect("a small constant");
                changes[from as usize] -= amount;
                changes[to as usize] += amount;
            }
            (None, None) => {}
        }
        is_measured
    }

    /// Waits until each acknowledged transaction was seen, true, or none was for `patience`, false.
    pub fn settle(&self, patience: Duration) -> bool {
        let mut guard = self.lock();
        loop {
            let before = guard.awaited;
            if before == 0 {
                return true;
            }
            let no_news = |inner: &mut Inner| inner.awaited >= before;
            let (next, waited) = self.changed.wait_timeout_while(guard, patience, no_news).unwrap_or_else(PoisonError::into_inner);
            guard = next;
            if waited.timed_out() {
                return false;
            }
        }
    }

    /// How many acknowledged transactions were not seen yet.
    pub fn awaited(&self) -> usize {
        self.lock().awaited
    }

    /// Acknowledged transactions that no block has shown.
    pub fn missing(&self) -> Vec<B256> {
        self.hashes(|entry| entry.state == State::Acknowledged && entry.receipts == 0)
    }

    /// Measured transactions whose receipt should have been pushed and was not.
    pub fn missing_pushes(&self) -> usize {
        if !self.expects_pushes.load(Ordering::Acquire) {
            return 0;
        }
        let is_unpushed = |entry: &&Entry| {
            entry.phase == Phase::Measured && entry.state == State::Acknowledged && entry.receipts > 0 && entry.pushes == 0
        };
        self.lock().entries.values().filter(is_unpushed).count()
    }

    /// Acknowledged transactions that were seen, with their blocks: at most `limit`, in no order.
    pub fn sample_of_committed(&self, limit: usize) -> Vec<(B256, u64)> {
        let guard = self.lock();
        let seen = guard.entries.iter().filter(|(_, entry)| entry.state == State::Acknowledged && entry.receipts > 0);
        seen.take(limit).map(|(hash, entry)| (*hash, entry.block)).collect()
    }

    fn hashes(&self, is_wanted: impl Fn(&Entry) -> bool) -> Vec<B256> {
        self.lock().entries.iter().filter(|(_, entry)| is_wanted(entry)).map(|(hash, _)| *hash).collect()
    }

    /// Whether transactions whose connection failed may still reach a block.
    pub fn has_unsure(&self) -> bool {
        self.lock().unsure > 0
    }

    /// The contract that a seen creation made.
    pub fn created(&self, hash: &B256) -> Option<Address> {
        self.lock().entries.get(hash).filter(|entry| entry.is_seen()).map(|entry| entry.contract)
    }

    /// Reads the record.
    pub fn with_record<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.lock().record)
    }
}

/// Whether sent transactions hold places of the closed loop's window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HasRoom {
    /// Closed loop.
    Yes,
    /// Open loop.
    No,
}

/// What becomes of a refused transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outlook {
    /// It will be sent once more.
    SentAgain,
    /// It will not.
    GivenUp,
}

#[cfg(test)]
#[path = "tracker/tests.rs"]
mod tests;
