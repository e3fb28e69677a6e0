//! Wakes a sleeping worker when one of its queues gets an item.
//!
//! Invariant: no wake-up is lost. The sleeper announces itself, then looks at its queues once more; a sender puts its item, then looks for the
//! announcement. Both sides order the two steps with a sequentially consistent fence, so at least one of them sees the other. Called by queues and workers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Instant;

/// One worker's bell. A ring while the worker is awake costs a fence and a load.
#[derive(Default)]
pub struct Bell {
    sleeping: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// Makes the calling thread the one that this bell wakes.
    pub(crate) fn attach(&self) {
        let _ = self.thread.set(thread::current());
    }

    /// Wakes the worker if it sleeps; true if it did.
    pub(crate) fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        if !self.sleeping.load(Ordering::Relaxed) || !self.sleeping.swap(false, Ordering::AcqRel) {
            return false;
        }
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        true
    }

    /// Sleeps until rung or until `deadline`, unless `has_work` holds.
    pub(crate) fn wait(&self, deadline: Option<Instant>, has_work: impl Fn() -> bool) {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if has_work() {
            self.sleeping.store(false, Ordering::Relaxed);
            return;
        }
        // A left-over unpark of another primitive ends a park early; the flag decides.
        while self.sleeping.load(Ordering::Acquire) {
            match deadline {
                None => thread::park(),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(rest) if !rest.is_zero() => thread::park_timeout(rest),
                    _ => self.sleeping.store(false, Ordering::Relaxed),
                },
            }
        }
    }
}

/// Wakes one sleeping worker of those that share a queue, if any sleeps.
pub(crate) fn ring_one(bells: &[std::sync::Arc<Bell>]) {
    let _ = bells.iter().any(|bell| bell.ring());
}
