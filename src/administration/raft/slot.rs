//! One height between its order and its durable block, and a little longer to help others.

use millrace_base::{B256, BlockHeader};

use crate::engine::{FinalBlock, Proposal};
use crate::epoch::Epoch;
use crate::pbft::message::Vote;
use crate::pbft::slot::Votes;

/// See the module.
#[derive(Default)]
pub struct Slot {
    /// What is ordered, by the log or by a final block.
    pub ordered: Option<Proposal>,
    /// Digest of what it holds; stays when the transactions are durable.
    pub contents: Option<B256>,
    pub is_handed_out: bool,
    /// Hash and header, once executed.
    pub executed: Option<(B256, BlockHeader)>,
    pub next_epoch: Option<Epoch>,
    /// The downloaded block, while its epoch may still change.
    pub imported: Option<Box<FinalBlock>>,
    /// Checkpoints.
    pub votes: Votes,
    /// A hash with good signatures of a majority over it.
    pub finality: Option<(B256, Vec<Vote>)>,
    /// When this node last said something about it, on the engine's own clock.
    pub touched_ms: u64,
}

impl Slot {
    pub fn order(&mut self, proposal: Proposal, contents: B256) {
        self.ordered = Some(proposal);
        self.contents = Some(contents);
    }
}
