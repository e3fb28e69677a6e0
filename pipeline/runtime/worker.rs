//! The run loop: drives one stage instance on one thread.
//!
//! A turn: take what is there (up to the batch), handle it, tick, sleep if nothing was there. States of a worker:
//! ```text
//! running --stop--> stopping --(quiet)--> finishing --> ended
//!    \--panic--> failed             \--deadline--> abandoned
//! ```
//! Invariants: every instant of the thread is in one regime; a panic ends at most this worker; it ends in order only when no sender is inside its queues and they are empty.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use super::bell::Bell;
use super::inbox::Inbox;
use super::limits::DRAIN_RECHECK;
use super::manual::Turn;
use super::regime::{self, Regime, RegimeTimes};
use super::stage::{Stage, StageFault};

/// What a stage's workers are told to do. Only ever rises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    Running,
    /// Start no new work, report when drained.
    Stopping,
    /// Take what is left and end.
    Finishing,
    /// The deadline has passed: end at once.
    Abandoned,
}

impl Phase {
    fn from_code(code: u8) -> Self {
        [Phase::Running, Phase::Stopping, Phase::Finishing].get(usize::from(code)).copied().unwrap_or(Phase::Abandoned)
    }
}

/// How a worker ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Finished,
    Failed,
    Abandoned,
}

/// What others see of one worker.
pub(crate) struct WorkerState {
    pub(crate) bell: Arc<Bell>,
    pub(crate) times: Arc<RegimeTimes>,
    pub(crate) items: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) faults: AtomicU64,
    /// Stopping, nothing inside the stage, asleep.
    quiet: AtomicBool,
    /// Rises each time the worker leaves `quiet`, after it has cleared it.
    activity: AtomicU64,
    pub(crate) end: OnceLock<End>,
}

/// What the pipeline and the workers of one stage share.
pub(crate) struct StageControl {
    pub(crate) name: &'static str,
    phase: AtomicU8,
    pub(crate) workers: Vec<WorkerState>,
    live: AtomicUsize,
    notice: OnceLock<crossbeam_channel::Sender<()>>,
}

impl StageControl {
    pub(crate) fn new(name: &'static str, bells: Vec<Arc<Bell>>) -> Self {
        let workers: Vec<_> = bells
            .into_iter()
            .map(|bell| WorkerState {
                bell,
                times: Arc::new(RegimeTimes::new()),
                items: AtomicU64::new(0),
                batches: AtomicU64::new(0),
                faults: AtomicU64::new(0),
                quiet: AtomicBool::new(false),
                activity: AtomicU64::new(0),
                end: OnceLock::new(),
            })
            .collect();
        let live = AtomicUsize::new(workers.len());
        Self { name, phase: AtomicU8::new(Phase::Running as u8), workers, live, notice: OnceLock::new() }
    }

    /// Where workers report that their state has changed; a full channel means that a report is pending already.
    pub(crate) fn report_to(&self, notice: crossbeam_channel::Sender<()>) {
        let _ = self.notice.set(notice);
    }

    fn notify(&self) {
        if let Some(notice) = self.notice.get() {
            let _ = notice.try_send(());
        }
    }

    pub(crate) fn phase_is_abandoned(&self) -> bool {
        self.phase() == Phase::Abandoned
    }

    fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Ordering::SeqCst))
    }

    pub(crate) fn raise(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
        self.workers.iter().for_each(|worker| {
            worker.bell.ring();
        });
    }

    /// Rises whenever a worker wakes while stopping.
    pub(crate) fn activity(&self) -> u64 {
        self.workers.iter().map(|worker| worker.activity.load(Ordering::SeqCst)).sum()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.workers.iter().all(|worker| worker.end.get().is_some() || worker.quiet.load(Ordering::SeqCst))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.end.get().is_some())
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.workers.iter().any(|worker| worker.end.get() == Some(&End::Failed))
    }
}

/// Called with every caught panic, on the failing stage's thread.
pub(crate) type FaultHook = Arc<dyn Fn(&StageFault) + Send + Sync>;

/// A worker of whatever stage, before its thread starts.
pub(crate) type WorkerSeed = Box<dyn Run>;

/// The body of a worker's thread.
pub(crate) trait Run: Send {
    fn run(self: Box<Self>, on_fault: FaultHook);
    /// Whether an item waits.
    fn has_work(&self) -> bool;
    /// One turn without a thread: see [`super::manual`].
    fn turn(&mut self, now: Instant, most: usize) -> Turn;
}

pub(crate) struct Worker<S: Stage> {
    stage: S,
    inbox: Inbox<S::Input>,
    control: Arc<StageControl>,
    index: usize,
    max_batch: usize,
    batch: VecDeque<S::Input>,
    told_to_stop: bool,
}

impl<S: Stage> Worker<S> {
    pub(crate) fn new(stage: S, inbox: Inbox<S::Input>, control: Arc<StageControl>, index: usize, max_batch: usize) -> Self {
        Self { stage, inbox, control, index, max_batch, batch: VecDeque::new(), told_to_stop: false }
    }

    fn state(&self) -> &WorkerState {
        &self.control.workers[self.index]
    }

    fn turns(&mut self, on_fault: &FaultHook) -> End {
        loop {
            let phase = self.control.phase();
            if phase == Phase::Abandoned {
                return End::Abandoned;
            }
            if phase == Phase::Finishing {
                self.inbox.close();
            }
            if phase > Phase::Running
                && !std::mem::replace(&mut self.told_to_stop, true)
                && !self.guarded(on_fault, |worker| worker.stage.on_stop())
            {
                return End::Failed;
            }
            let taken = self.inbox.take(&mut self.batch, self.max_batch);
            if taken > 0 {
                self.state().items.fetch_add(taken as u64, Ordering::Relaxed);
                self.state().batches.fetch_add(1, Ordering::Relaxed);
                if !self.handle_batch(on_fault) {
                    return End::Failed;
                }
            }
            regime::enter(Regime::Tick);
            let mut next_tick = None;
            if !self.guarded(on_fault, |worker| next_tick = worker.stage.tick(Instant::now())) {
                return End::Failed;
            }
            if taken > 0 {
                regime::enter(Regime::Busy);
            } else if phase < Phase::Finishing {
                self.sleep(phase, next_tick);
            } else if self.inbox.is_vacant() && !self.inbox.has_work() {
                return End::Finished;
            } else {
                thread::yield_now();
            }
        }
    }

    /// Hands over the batch until it is used up. False: the worker has failed.
    fn handle_batch(&mut self, on_fault: &FaultHook) -> bool {
        while !self.batch.is_empty() {
            let before = self.batch.len();
            if !self.guarded(on_fault, |worker| {
                worker.stage.handle(&mut worker.batch);
                assert!(worker.batch.len() < before, "the stage took nothing from its batch");
            }) {
                return false;
            }
            // After a survived panic the item that was looked at must not come again.
            if self.batch.len() >= before {
                self.batch.pop_front();
            }
        }
        true
    }

    /// Runs a call into the stage. False: it panicked, and the stage does not survive it.
    fn guarded(&mut self, on_fault: &FaultHook, call: impl FnOnce(&mut Self)) -> bool {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(self))) else { return true };
        // The panic may have come out of a wait.
        regime::enter(Regime::Busy);
        let message = panic_message(&*panic);
        let mut fault = StageFault { stage: self.control.name, worker: self.index, message, survived: false };
        fault.survived = catch_unwind(AssertUnwindSafe(|| self.stage.survives(&fault))).unwrap_or(false);
        self.state().faults.fetch_add(1, Ordering::Relaxed);
        tracing::error!(stage = fault.stage, worker = fault.worker, survived = fault.survived, "panic in stage: {}", fault.message);
        if catch_unwind(AssertUnwindSafe(|| on_fault(&fault))).is_err() {
            tracing::error!(stage = fault.stage, "the supervisor itself panicked");
        }
        fault.survived
    }

    fn sleep(&mut self, phase: Phase, next_tick: Option<Instant>) {
        regime::enter(Regime::Starved);
        let mut wake_at = next_tick;
        if phase == Phase::Stopping {
            let drained = catch_unwind(AssertUnwindSafe(|| self.stage.drained())).unwrap_or(true);
            self.state().quiet.store(drained, Ordering::SeqCst);
            self.control.notify();
            if !drained {
                let recheck = Instant::now() + DRAIN_RECHECK;
                wake_at = Some(wake_at.map_or(recheck, |tick| tick.min(recheck)));
            }
        }
        self.state().bell.wait(wake_at, || self.inbox.has_work() || self.control.phase() != phase);
        if phase == Phase::Stopping {
            self.state().quiet.store(false, Ordering::SeqCst);
            self.state().activity.fetch_add(1, Ordering::SeqCst);
        }
        regime::enter(Regime::Busy);
    }

    /// Closes and empties the queues of a worker that ends out of order, so that nobody waits for it. Queues shared with other workers stay while one of them lives.
    fn give_up(&mut self) {
        let last = self.control.live.load(Ordering::SeqCst) == 1;
        self.batch.clear();
        if !last {
            self.inbox.leave_shared();
        }
        self.inbox.close();
        while self.inbox.discard(self.max_batch) > 0 || !self.inbox.is_vacant() {
            thread::yield_now();
        }
    }
}

impl<S: Stage> Run for Worker<S> {
    fn run(mut self: Box<Self>, on_fault: FaultHook) {
        self.state().bell.attach();
        regime::start_clock(Arc::clone(&self.state().times), Regime::Busy);
        let mut end = self.turns(&on_fault);
        if end != End::Finished {
            self.give_up();
        }
        let Self { stage, control, index, .. } = *self;
        if end == End::Finished
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| stage.finish()))
        {
            end = End::Failed;
            let fault = StageFault { stage: control.name, worker: index, message: panic_message(&*panic), survived: false };
            control.workers[index].faults.fetch_add(1, Ordering::Relaxed);
            tracing::error!(stage = fault.stage, worker = fault.worker, "panic while the stage finished: {}", fault.message);
            let _ = catch_unwind(AssertUnwindSafe(|| on_fault(&fault)));
        }
        regime::end_clock();
        control.live.fetch_sub(1, Ordering::SeqCst);
        let _ = control.workers[index].end.set(end);
        control.notify();
    }

    fn has_work(&self) -> bool {
        self.inbox.has_work()
    }

    fn turn(&mut self, now: Instant, most: usize) -> Turn {
        let taken = self.inbox.take(&mut self.batch, most.clamp(1, self.max_batch));
        if taken > 0 {
            self.state().items.fetch_add(taken as u64, Ordering::Relaxed);
            self.state().batches.fetch_add(1, Ordering::Relaxed);
        }
        while !self.batch.is_empty() {
            let before = self.batch.len();
            self.stage.handle(&mut self.batch);
            assert!(self.batch.len() < before, "the stage took nothing from its batch");
        }
        Turn { taken, next_tick: self.stage.tick(now) }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panic without a message".to_owned())
}
