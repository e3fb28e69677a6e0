//! Bugs that the simulator plants to show that it finds them. Only with the feature `planted`, which no node is built with.

use std::cell::Cell;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A quorum is n − f − 1.
    SmallQuorum,
    /// Signatures of one sealer under a block count as often as they are given.
    RepeatedSigners,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug into all engines of this thread, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether it is planted.
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
