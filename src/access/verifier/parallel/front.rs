//! Which transaction is executed when, by whom, and when its result stands.
//!
//! Workers take transactions in block order and execute them on what the memory holds (speculation). The *front* is the first
//! transaction whose result does not stand yet. One worker at a time moves it: a result whose reads are still true stands; what read
//! stale values is executed again right there, where everything below stands, so that its second result is final. What was not begun
//! when the front reaches it is executed there too. Therefore no transaction is executed more than twice with an effect, nobody ever
//! waits for a worker that could be waiting for him, and a block takes no longer than executing it in order takes.
//!
//! Invariant: what moves the front behaves exactly like serial execution; everything else is a guess that may be thrown away. Whenever
//! the front stands still, its transaction is being executed by a worker that will signal when it is done.
//!
//! ```text
//! Idle --worker--> Executing --> Executed --front, reads are true--> below the front
//!  ^                   |  ^          |
//!  +-- awaits another -+  +- front --+ reads are stale
//! ```

use std::any::Any;
use std::collections::HashSet;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use millrace_base::Receipt;
use millrace_core::StorageError;
use millrace_core::overlay::Writes;
use millrace_vm::{BlockEnvironment, Executed};
use parking_lot::{Condvar, Mutex};

use super::hints::Predecessors;
use super::memory::{Finder, Memory, Place};
use super::shared::Signals;
use super::view::{Read, View};
use crate::verifier::executor::{BlockOrder, TransactionRunner};

/// Speculative executions that one transaction may begin. Each but the last met a value that was about to change.
const MAX_ATTEMPTS: u32 = 4;

/// Speculations that may be lost in any case: a few for each worker.
const FREE_LOSSES: u32 = 16;

/// Values that a transaction usually reads, and those that a record kept for another execution has room for at most.
const USUAL_READS: usize = 16;
const KEPT_READS: usize = 256;

/// Records that a worker keeps: more than it has transactions in flight.
const KEPT_RECORDS: usize = 16;

/// What a block's transactions are executed with.
#[derive(Clone, Copy)]
pub(super) struct Job<'m> {
    /// The block.
    pub order: &'m BlockOrder<'m>,
    /// What its transactions see of it.
    pub environment: BlockEnvironment,
    /// Holds what they read and write.
    pub memory: &'m Memory,
}

/// Why a block cannot be executed, by a worker that saw only what stands.
pub(super) enum Failure {
    /// The storage.
    Storage(StorageError),
    /// A panic, to be continued on the thread that asked for the block.
    Panic(Box<dyn Any + Send>),
}

/// How one execution ended.
enum Ending {
    Done(Box<Receipt>),
    Failed(Failure),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Status {
    #[default]
    Idle,
    Executing,
    Executed,
}

#[derive(Default)]
struct Slot<'m> {
    status: Status,
    attempts: u32,
    reads: Vec<Read<'m>>,
    written: Vec<&'m Place>,
    ending: Option<Ending>,
    /// Transactions to try when this one is executed.
    waiting: Vec<u32>,
}

/// What an execution did.
struct Ran<'m> {
    ending: Ending,
    writes: Writes,
    reads: Vec<Read<'m>>,
    awaited: Option<u32>,
}

/// What to do at the front.
enum Step<'m> {
    /// Somebody executes its transaction.
    Leave,
    /// Its result stands; the record of its reads is not needed any more.
    Commit(Vec<Read<'m>>),
    /// Execute it; an earlier execution wrote to these places.
    Execute(Vec<&'m Place>),
    /// The block has failed.
    Fail(Failure),
}

/// How much was done for a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Effort {
    /// Transactions executed again because they had read stale values.
    pub stale: u32,
    /// Executions given up because they met a value that was about to change.
    pub awaited: u32,
}

/// See the module.
pub(super) struct Front<'m> {
    job: Job<'m>,
    predecessors: Option<Predecessors>,
    slots: Vec<Mutex<Slot<'m>>>,
    /// The next transaction that nobody took.
    next: AtomicU32,
    /// All transactions before it stand.
    committed: AtomicU32,
    signals: Signals,
    /// Workers leave. The front may still be moving.
    is_over: AtomicBool,
    stale: AtomicU32,
    awaited: AtomicU32,
    failure: Mutex<Option<Failure>>,
    /// Transactions whose turn it is, for workers that sleep.
    released: Mutex<Vec<u32>>,
    sleepers: AtomicU32,
    bell: Condvar,
}

struct Worker<'w, 'm, R> {
    runner: &'w mut R,
    finder: Finder<'m>,
    /// Transactions whose turn it is, the first of them last.
    ready: Vec<u32>,
    /// Empty records of reads, for the next executions.
    records: Vec<Vec<Read<'m>>>,
}

impl<'m, R> Worker<'_, 'm, R> {
    fn record(&mut self) -> Vec<Read<'m>> {
        self.records.pop().unwrap_or_else(|| Vec::with_capacity(USUAL_READS))
    }

    fn recycle(&mut self, mut record: Vec<Read<'m>>) {
        if self.records.len() < KEPT_RECORDS && record.capacity() <= KEPT_READS {
            record.clear();
            self.records.push(record);
        }
    }
}

/// Ends the block for all workers when one of them panics outside a transaction.
struct Alarm<'f, 'm>(&'f Front<'m>);

impl Drop for Alarm<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

impl<'m> Front<'m> {
    /// Of a block that nobody works at yet.
    pub fn new(job: Job<'m>, predecessors: Option<Predecessors>) -> Self {
        Self {
            job,
            predecessors,
            slots: job.order.transactions.iter().map(|_| Mutex::default()).collect(),
            next: AtomicU32::new(0),
            committed: AtomicU32::new(0),
            signals: Signals::default(),
            is_over: AtomicBool::new(false),
            stale: AtomicU32::new(0),
            awaited: AtomicU32::new(0),
            failure: Mutex::default(),
            released: Mutex::default(),
            sleepers: AtomicU32::new(0),
            bell: Condvar::new(),
        }
    }

    /// Works at the block until there is nothing to do for this worker. One worker is enough to complete it.
    pub fn work<R: TransactionRunner>(&self, runner: &mut R) {
        let _alarm = Alarm(self);
        let mut worker = Worker { runner, finder: Finder::new(self.job.memory), ready: Vec::new(), records: Vec::new() };
        self.signal(&mut worker);
        while !self.is_over.load(Ordering::Acquire) {
            match worker.ready.pop().or_else(|| self.take()) {
                Some(index) => self.attempt(&mut worker, index),
                None => match self.sleep() {
                    Some(index) => self.attempt(&mut worker, index),
                    None => return,
                },
            }
        }
    }

    /// The receipts in order, when all workers have left.
    pub fn end_with_receipts(self) -> (Result<Vec<Receipt>, Failure>, Effort) {
        let effort = Effort { stale: self.stale.into_inner(), awaited: self.awaited.into_inner() };
        if let Some(failure) = self.failure.into_inner() {
            return (Err(failure), effort);
        }
        assert_eq!(self.committed.into_inner() as usize, self.slots.len(), "workers leave when the front has passed the block");
        let receipt = |slot: Mutex<Slot<'m>>| match slot.into_inner().ending {
            Some(Ending::Done(receipt)) => *receipt,
            _ => unreachable!("the front passes transactions that have a receipt"),
        };
        (Ok(self.slots.into_iter().map(receipt).collect()), effort)
    }

    fn take(&self) -> Option<u32> {
        let count = self.slots.len() as u32;
        if self.next.load(Ordering::Relaxed) >= count {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::AcqRel);
        (index < count).then_some(index)
    }

    /// Waits for a transaction whose turn it is; `None` when there is nothing to wait for.
    fn sleep(&self) -> Option<u32> {
        self.predecessors.as_ref()?;
        let mut released = self.released.lock();
        self.sleepers.fetch_add(1, Ordering::AcqRel);
        let index = loop {
            if self.is_over.load(Ordering::Acquire) {
                break None;
            }
            if let Some(index) = released.pop() {
                break Some(index);
            }
            self.bell.wait(&mut released);
        };
        self.sleepers.fetch_sub(1, Ordering::AcqRel);
        index
    }

    fn end(&self) {
        let _released = self.released.lock();
        self.is_over.store(true, Ordering::Release);
        self.bell.notify_all();
    }

    /// Executes a transaction if nobody has and nothing that it probably reads is still to be written.
    fn attempt<R: TransactionRunner>(&self, worker: &mut Worker<'_, 'm, R>, index: u32) {
        if self.is_deferred(index) || !self.claim(index) {
            return;
        }
        let ran = self.execute(worker, index);
        match ran.awaited {
            Some(writer) => self.postpone(worker, index, writer),
            None => {
                let written = publish(worker, index, 0, ran.writes);
                self.finish(worker, index, Slot { reads: ran.reads, written, ending: Some(ran.ending), ..Slot::default() });
            }
        }
        self.signal(worker);
    }

    /// Whether the transaction was left to whoever executes one that it probably depends on.
    fn is_deferred(&self, index: u32) -> bool {
        let Some(predecessors) = &self.predecessors else { return false };
        let committed = self.committed.load(Ordering::Acquire);
        predecessors.of(index).filter(|predecessor| *predecessor >= committed).any(|predecessor| self.await_(index, predecessor))
    }

    /// Has `index` tried again when `writer` is executed; `false` if it is.
    fn await_(&self, index: u32, writer: u32) -> bool {
        let mut slot = self.slots[writer as usize].lock();
        let is_waiting = slot.status != Status::Executed;
        if is_waiting {
            slot.waiting.push(index);
        }
        is_waiting
    }

    fn claim(&self, index: u32) -> bool {
        let mut slot = self.slots[index as usize].lock();
        if slot.status != Status::Idle || slot.attempts >= MAX_ATTEMPTS {
            return false;
        }
        slot.attempts += 1;
        slot.status = Status::Executing;
        true
    }

    fn execute<R: TransactionRunner>(&self, worker: &mut Worker<'_, 'm, R>, index: u32) -> Ran<'m> {
        let Job { order, environment, .. } = &self.job;
        let record = worker.record();
        let view = View::new(&worker.finder, &*order.state, index, record);
        let transaction = &order.transactions[index as usize];
        let runner = &mut *worker.runner;
        let ran = catch_unwind(AssertUnwindSafe(|| runner.transact(&view, order.hashes, environment, transaction)));
        let (reads, awaited) = view.end();
        let (ending, writes) = match ran {
            Ok(Ok(Executed { receipt, writes })) => (Ending::Done(Box::new(receipt)), writes),
            Ok(Err(error)) => (Ending::Failed(Failure::Storage(error)), Writes::new()),
            Err(panic) => (Ending::Failed(Failure::Panic(panic)), Writes::new()),
        };
        Ran { ending, writes, reads, awaited }
    }

    fn postpone<R>(&self, worker: &mut Worker<'_, 'm, R>, index: u32, writer: u32) {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        self.slots[index as usize].lock().status = Status::Idle;
        if !self.await_(index, writer) {
            worker.ready.push(index);
        }
    }

    /// Puts a result into its slot and releases who waits for it.
    fn finish<R>(&self, worker: &mut Worker<'_, 'm, R>, index: u32, result: Slot<'m>) {
        let mut waiting = {
            let mut slot = self.slots[index as usize].lock();
            let waiting = mem::take(&mut slot.waiting);
            *slot = Slot { status: Status::Executed, attempts: slot.attempts, ..result };
            waiting
        };
        if waiting.is_empty() {
            return;
        }
        waiting.sort_unstable_by(|left, right| right.cmp(left));
        worker.ready.append(&mut waiting);
        if worker.ready.len() > 1 && self.sleepers.load(Ordering::Acquire) > 0 {
            let mut released = self.released.lock();
            released.extend(worker.ready.drain(..worker.ready.len() - 1));
            self.bell.notify_all();
        }
    }

    fn signal<R: TransactionRunner>(&self, worker: &mut Worker<'_, 'm, R>) {
        self.signals.raise(|| self.advance(worker));
    }

    /// Moves the front as far as it goes.
    fn advance<R: TransactionRunner>(&self, worker: &mut Worker<'_, 'm, R>) {
        loop {
            let front = self.committed.load(Ordering::Acquire);
            if front as usize == self.slots.len() {
                return self.end();
            }
            match self.look(front) {
                Step::Leave => return,
                Step::Commit(record) => worker.recycle(record),
                Step::Execute(before) => {
                    if !self.execute_at_front(worker, front, before) {
                        return;
                    }
                }
                Step::Fail(failure) => return self.fail(failure),
            }
            self.committed.store(front + 1, Ordering::Release);
        }
    }

    fn look(&self, front: u32) -> Step<'m> {
        let mut slot = self.slots[front as usize].lock();
        match slot.status {
            Status::Executing => Step::Leave,
            Status::Idle => {
                // Whoever took it in this moment finds it being executed.
                let _ = self.next.compare_exchange(front, front + 1, Ordering::AcqRel, Ordering::Acquire);
                slot.status = Status::Executing;
                Step::Execute(Vec::new())
            }
            Status::Executed if slot.reads.iter().all(|read| read.is_current(front)) => match slot.ending.take() {
                Some(Ending::Failed(Failure::Storage(error))) => Step::Fail(Failure::Storage(error)),
                Some(Ending::Failed(Failure::Panic(_))) | None => {
                    slot.status = Status::Executing;
                    Step::Execute(mem::take(&mut slot.written))
                }
                done => {
                    slot.ending = done;
                    slot.written = Vec::new();
                    Step::Commit(mem::take(&mut slot.reads))
                }
            },
            Status::Executed => {
                slot.status = Status::Executing;
                let before = mem::take(&mut slot.written);
                before.iter().for_each(|place| place.versions.announce(front));
                drop(slot);
                self.stale.fetch_add(1, Ordering::Relaxed);
                self.stop_waste(front);
                Step::Execute(before)
            }
        }
    }

    /// Sends the other workers away when half of what they do is lost.
    fn stop_waste(&self, front: u32) {
        let lost = self.stale.load(Ordering::Relaxed) + self.awaited.load(Ordering::Relaxed);
        if lost > FREE_LOSSES + front / 2 {
            self.end();
        }
    }

    /// Executes a transaction where everything below stands. `false` when the block has failed.
    fn execute_at_front<R: TransactionRunner>(&self, worker: &mut Worker<'_, 'm, R>, front: u32, before: Vec<&'m Place>) -> bool {
        let Ran { ending, writes, reads, awaited } = self.execute(worker, front);
        worker.recycle(reads);
        assert!(awaited.is_none(), "nothing below the front is executed again");
        if let Ending::Failed(failure) = ending {
            self.fail(failure);
            return false;
        }
        let written = publish(worker, front, 1, writes);
        if !before.is_empty() {
            let again: HashSet<*const Place> = written.iter().map(|place| std::ptr::from_ref(*place)).collect();
            before.iter().filter(|place| !again.contains(&std::ptr::from_ref(**place))).for_each(|place| place.versions.withdraw(front));
        }
        self.finish(worker, front, Slot { ending: Some(ending), ..Slot::default() });
        true
    }

    fn fail(&self, failure: Failure) {
        *self.failure.lock() = Some(failure);
        self.end();
    }
}

/// Makes the writes of an execution visible to the transactions after it.
fn publish<'m, R>(worker: &Worker<'_, 'm, R>, index: u32, execution: u32, writes: Writes) -> Vec<&'m Place> {
    let publish = |(key, value)| {
        let place = worker.finder.find(&key);
        place.versions.publish(index, execution, value);
        place
    };
    writes.into_iter().map(publish).collect()
}
