//! The interface of an ordering engine, the same for one sealer and for many.
//!
//! An engine is a function of (state, input, now) to effects. The driver (the order stage, or the simulator) carries the effects out
//! **in order**: it appends the vote records of a turn to the vote log and syncs it *before* any message of that turn leaves, then it
//! delivers messages, starts executions and commits final blocks.

use millrace_base::{B256, BlockSignature, NodeId, Signature, VerifiedTx};

use crate::epoch::Epoch;

/// What a leader proposes: which transactions, in which order, at which time. Names transactions by hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProposalHeader {
    /// Height of the block to be.
    pub height: u64,
    /// View it was proposed in.
    pub view: u64,
    /// Digest of the epoch that governs the height.
    pub epoch: B256,
    /// Digest of the proposal one height below, or the hash of the last block of the epoch before.
    pub previous: B256,
    /// Proposed block timestamp, milliseconds; above the one below.
    pub timestamp_ms: u64,
    /// Index of the proposer.
    pub sealer: u32,
    /// Transaction hashes in execution order.
    pub transactions: Vec<B256>,
}

/// A proposal with the transactions at hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// What is agreed on.
    pub header: ProposalHeader,
    /// The transactions that [`ProposalHeader::transactions`] names.
    pub transactions: Vec<VerifiedTx>,
}

/// What a vote says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VoteKind {
    /// "I have accepted this proposal in this view."
    Prepare,
    /// "I have seen a quorum of prepares."
    Commit,
    /// "Executing it gave this block hash." Signed over the block hash itself: these signatures end in the block.
    Checkpoint,
}

/// A sealer's signed vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it says.
    pub kind: VoteKind,
    /// Height voted on.
    pub height: u64,
    /// View of the proposal.
    pub view: u64,
    /// Proposal digest, or block hash for [`VoteKind::Checkpoint`].
    pub subject: B256,
    /// Index of the voter in the epoch.
    pub sealer: u32,
    /// By the voter's node key.
    pub signature: Signature,
}

/// A vote as the vote log remembers it. It must be durable before the vote leaves the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteRecord {
    /// What was voted.
    pub kind: VoteKind,
    /// Height.
    pub height: u64,
    /// View.
    pub view: u64,
    /// Digest or block hash.
    pub subject: B256,
}

/// What an engine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The sealer filled the proposal asked for by [`Effect::Seal`].
    Sealed {
        /// Height asked for.
        height: u64,
        /// View asked for.
        view: u64,
        /// Timestamp the sealer chose, milliseconds.
        timestamp_ms: u64,
        /// Transactions in order.
        transactions: Vec<VerifiedTx>,
    },
    /// A vote arrived, this node's own included.
    Vote(Message),
    /// A proposal handed out by [`Effect::Execute`] was executed.
    Executed {
        /// Its height.
        height: u64,
        /// Hash of the executed header.
        hash: B256,
        /// The epoch from the next height on, when executing this one changed it.
        next_epoch: Option<Epoch>,
    },
    /// Blocks up to this height are durable.
    Committed {
        /// The height.
        height: u64,
    },
    /// Time passed.
    Tick,
}

/// What an engine wants done. Order matters.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Append to the vote log and sync before any message of this turn leaves.
    Record(VoteRecord),
    /// Send to all sealers, this node included.
    Broadcast(Message),
    /// This node leads the height: fill a proposal, when there is something to propose, and answer with [`Input::Sealed`].
    Seal {
        /// Height to fill.
        height: u64,
        /// View it will be proposed in.
        view: u64,
        /// Timestamp must be above this, milliseconds.
        after_timestamp_ms: u64,
        /// At most this many transactions.
        limit: u64,
    },
    /// Ordered: execute it. Handed out in height order.
    Execute(Box<Proposal>),
    /// Final: a quorum signed the executed block. Commit it, with these signatures.
    Finalize {
        /// Height.
        height: u64,
        /// Block hash.
        hash: B256,
        /// Signatures of distinct sealers.
        signatures: Vec<BlockSignature>,
    },
    /// Everything ordered or asked for above this height is void; its transactions go back to the pool.
    Void {
        /// Last height that stands.
        above: u64,
    },
    /// This node's own execution differs from what a quorum signed: stop the group, keep the evidence.
    Diverged {
        /// Height.
        height: u64,
        /// What this node computed.
        own: B256,
        /// What the quorum signed.
        quorum: B256,
    },
}

/// What an engine says about itself, for status queries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EngineStatus {
    /// Current view.
    pub view: u64,
    /// View it is moving to; equal to `view` when it is not.
    pub to_view: u64,
    /// Next height to be proposed.
    pub next_height: u64,
    /// Last final height.
    pub final_height: u64,
    /// Sealers of the current epoch.
    pub sealers: Vec<NodeId>,
}

/// An ordering engine.
pub trait Engine: Send {
    /// Advances the state by one input. `now_ms` is the only clock there is.
    fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect>;

    /// Begins: the effects that a fresh or restarted engine wants done first.
    fn start(&mut self, now_ms: u64) -> Vec<Effect>;

    /// For status queries.
    fn status(&self) -> EngineStatus;
}
