//! The time that stages schedule by.
//!
//! Invariant: within one turn of a manually driven stage there is one time, its driver's; threads of a running pipeline see the machine's
//! monotonic clock. So the same stages run in the simulator, whose time is its own. Called by stages instead of [`Instant::now`].

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    /// Set while a manual driver runs a stage on this thread.
    static DRIVEN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Now, for whoever decides when something is due.
pub fn now() -> Instant {
    DRIVEN.get().unwrap_or_else(Instant::now)
}

/// Runs `work` at a time that its driver chose.
pub(crate) fn at<R>(now: Instant, work: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            DRIVEN.set(None);
        }
    }
    DRIVEN.set(Some(now));
    let _reset = Reset;
    work()
}
