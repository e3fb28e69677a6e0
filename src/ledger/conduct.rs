//! What other nodes of a group did that an honest node would not: for the status and for metrics.
//!
//! Written by the order and the sync stage, read by queries. Texts are cut, so it takes bounded memory whatever a peer provokes.

use std::sync::atomic::{AtomicU64, Ordering};

use millrace_base::NodeId;
use parking_lot::RwLock;

/// Characters kept of one text.
const MAX_TEXT: usize = 300;

/// One deed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misconduct {
    /// Whose.
    pub node: NodeId,
    /// What, in words.
    pub what: String,
    /// When it was noticed, milliseconds since 1970.
    pub at_ms: u64,
}

/// See the module.
#[derive(Default)]
pub struct Conduct {
    refusals: AtomicU64,
    evidence: AtomicU64,
    last_refusal: RwLock<Option<Misconduct>>,
    last_evidence: RwLock<Option<Misconduct>>,
}

impl Conduct {
    /// A message or block was refused although an honest node would not have sent it.
    pub fn note_refusal(&self, node: NodeId, what: &str, at_ms: u64) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        *self.last_refusal.write() = Some(Misconduct { node, what: cut(what), at_ms });
    }

    /// A sealer signed statements that contradict each other.
    pub fn note_evidence(&self, node: NodeId, what: &str, at_ms: u64) {
        self.evidence.fetch_add(1, Ordering::Relaxed);
        *self.last_evidence.write() = Some(Misconduct { node, what: cut(what), at_ms });
    }

    /// Refused messages and blocks since the start.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Contradictions since the start.
    pub fn evidence(&self) -> u64 {
        self.evidence.load(Ordering::Relaxed)
    }

    /// The last refusal.
    pub fn last_refusal(&self) -> Option<Misconduct> {
        self.last_refusal.read().clone()
    }

    /// The last contradiction.
    pub fn last_evidence(&self) -> Option<Misconduct> {
        self.last_evidence.read().clone()
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
