//! The door of a queue: lets senders in until it is closed, and tells when the last one inside has left.
//!
//! Invariant: once `close` was called and `is_vacant` holds, no further item can appear in the queue. This is what makes draining exact.

use std::sync::atomic::{AtomicUsize, Ordering};

const CLOSED: usize = 1 << (usize::BITS - 1);

/// Where a sender stands: decides which door of a queue it uses, so that the doors to the outside can be closed before those between stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A thread that the topology does not run: client gateway, network loop.
    Outside,
    /// A stage of the topology.
    Stage,
}

/// The two doors of one queue.
#[derive(Default)]
pub(crate) struct Gates {
    outside: Gate,
    stages: Gate,
}

impl Gates {
    pub(crate) fn of(&self, origin: Origin) -> &Gate {
        match origin {
            Origin::Outside => &self.outside,
            Origin::Stage => &self.stages,
        }
    }

    pub(crate) fn close_all(&self) {
        self.outside.close();
        self.stages.close();
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.outside.is_vacant() && self.stages.is_vacant()
    }
}

/// One door: the number of senders inside, and a bit that says closed.
#[derive(Default)]
pub(crate) struct Gate(AtomicUsize);

impl Gate {
    /// `None` when the gate is closed. The sender is inside until the pass is dropped.
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self);
        (before & CLOSED == 0).then_some(pass)
    }

    pub(crate) fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// True when nobody is inside.
    pub(crate) fn is_vacant(&self) -> bool {
        self.0.load(Ordering::SeqCst) & !CLOSED == 0
    }
}

/// A sender's stay inside a gate.
pub(crate) struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
