//! The interface of an ordering engine, the same for one sealer and for many, for PBFT and for Raft.
//!
//! An engine is a function of (state, input, now) to effects. The driver (the order stage, or the simulator) carries the effects out
//! **in order**, with one exception that safety rests on: whatever leaves the node, and whatever follows from it, waits until every
//! [`Effect::Record`] of the turn is durable. Engines count their own votes themselves; nothing they send comes back to them.
//!
//! Messages and records are opaque to the driver: it moves bytes between engines of the same kind and gives an engine its own records
//! back after a restart.

use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, NodeId, VerifiedTx};

use crate::epoch::Epoch;

/// What is agreed on for one height: which transactions, in which order, at which time. A later view proposes it again unchanged, so
/// the block that follows from it does not depend on the view that decided it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProposalHeader {
    /// Height of the block to be.
    pub height: u64,
    /// Digest of the epoch that governs the height.
    pub epoch: B256,
    /// Digest of the proposal one height below, or the hash of the last block before the first proposal of an epoch.
    pub previous: B256,
    /// Digest of what the block one height below holds: height, timestamp, sealer and transactions. It follows from that block alone,
    /// so it can be checked where `previous` is not known, and against a final block.
    pub below: B256,
    /// Proposed block timestamp, milliseconds; above the one below.
    pub timestamp_ms: u64,
    /// Index of the sealer that proposed it first.
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

/// A final block of another node, as sync downloaded it: its transactions match the transaction root of the header, nothing else is
/// known of it.
#[derive(Clone, Debug)]
pub struct FinalBlock {
    /// Its header.
    pub header: BlockHeader,
    /// Signatures over the header's hash.
    pub signatures: Vec<BlockSignature>,
    /// Its transactions.
    pub transactions: Vec<VerifiedTx>,
    /// Who sent it.
    pub from: NodeId,
}

/// What became of [`Effect::Gather`].
#[derive(Clone, Debug)]
pub enum Gathered {
    /// The transactions, in the order asked for. None of them, and none of their nonces, is in the chain's window, and each may be in
    /// a block of this height.
    Complete(Vec<VerifiedTx>),
    /// The proposal must not be voted for: one of its transactions cannot be in a block of this height.
    Refused(String),
}

/// What an engine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message of the engine of another sealer, which the network has authenticated as `from`.
    Frame {
        /// The sender.
        from: NodeId,
        /// As its engine sent it.
        payload: Bytes,
    },
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
    /// Answer to [`Effect::Gather`].
    Gathered {
        /// Height asked for.
        height: u64,
        /// Digest of the proposal asked for.
        digest: B256,
        /// What was found.
        outcome: Gathered,
    },
    /// A proposal handed out by [`Effect::Execute`] was executed.
    Executed {
        /// Its height.
        height: u64,
        /// The executed header.
        header: Box<BlockHeader>,
        /// Its hash.
        hash: B256,
        /// The epoch from the next height on, when executing this one changed it.
        next_epoch: Option<Epoch>,
    },
    /// Blocks up to this height are durable.
    Committed {
        /// The height.
        height: u64,
    },
    /// A downloaded block, in height order per sender; any height may come more than once.
    Block(Box<FinalBlock>),
    /// Whether transactions wait in the pool that no proposal holds: a leader that leaves them waiting is replaced.
    Pending(bool),
    /// The members of the group with which this node has a session now, ascending; told at the start and whenever it changes. It says
    /// nothing of those who are connected but silent.
    Reachable(Vec<NodeId>),
    /// This node is about to stop, or to close the group: others shall not wait for it. What is in flight may still be finished, but
    /// nothing new is begun. There is no way back but a new start.
    Leaving,
    /// Time passed; see [`Engine::deadline_ms`].
    Tick,
}

/// What an engine wants done. Order matters.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Append to the vote log and sync before anything of this turn leaves the stage. Given back to the engine after a restart until
    /// `height` is durable in the chain.
    Record {
        /// Height it speaks of.
        height: u64,
        /// As the engine will read it again.
        body: Bytes,
    },
    /// Send to one node.
    Send {
        /// To whom.
        to: NodeId,
        /// For [`Input::Frame`] there.
        payload: Bytes,
    },
    /// Send to all other sealers of the epoch.
    Broadcast(Bytes),
    /// This node leads the height: fill a proposal, when there is something to propose, and answer with [`Input::Sealed`]. Replaces
    /// an earlier wish.
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
    /// Reserve these transactions for the height, taking them from the pool and, where the pool lacks them, from other nodes; answer
    /// with [`Input::Gathered`]. The same wish may come again with more nodes to ask; a wish for another digest at the height replaces it.
    Gather {
        /// Height of the proposal.
        height: u64,
        /// Its digest.
        digest: B256,
        /// Hashes in order.
        hashes: Vec<B256>,
        /// Nodes that vouched for it and so have them, best first.
        holders: Vec<NodeId>,
    },
    /// Transactions of a proposal in flight that the engine has itself: from the vote log after a restart, or from its raft log. The pool
    /// takes them as reserved for the height, in the place of others, and gives them to nodes that ask: nobody else may have them.
    Restore {
        /// Height of the proposal.
        height: u64,
        /// Its transactions in order.
        transactions: Vec<VerifiedTx>,
    },
    /// Ordered: execute it. Handed out in height order. Its transactions are reserved for the height from now on, whether they were
    /// gathered or came with a downloaded block.
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
    /// Everything sealed, gathered, ordered or executed above this height is void; its transactions go back to the pool, and no answer
    /// to what is void may reach the engine. What executing a lower height ended stays ended.
    Void {
        /// Last height that stands.
        above: u64,
    },
    /// A message or block of a node was refused although an honest node would not have sent it.
    Refused {
        /// Whose.
        from: NodeId,
        /// Why, for the log and the status.
        reason: String,
    },
    /// Two signed statements of one sealer that contradict each other.
    Evidence {
        /// Who signed them.
        offender: NodeId,
        /// What they are about.
        what: String,
        /// Both messages as they were sent.
        statements: [Bytes; 2],
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

/// What an engine knows of one sealer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealerStatus {
    /// Who.
    pub node: NodeId,
    /// Its last durable height, as it says.
    pub height: u64,
    /// Its view, as it says.
    pub view: u64,
    /// When it was last heard, milliseconds since 1970; 0 is never.
    pub heard_ms: u64,
}

/// What an engine says about itself, for status queries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EngineStatus {
    /// Current view; of Raft the term.
    pub view: u64,
    /// View it is moving to; equal to `view` when it is not.
    pub to_view: u64,
    /// Next height to be proposed.
    pub next_height: u64,
    /// Last final height.
    pub final_height: u64,
    /// Sealers of the current epoch.
    pub sealers: Vec<NodeId>,
    /// The sealer whose turn it is at the next height.
    pub leader: Option<NodeId>,
    /// What is known of the other sealers.
    pub others: Vec<SealerStatus>,
    /// What the next step waits for, in words; empty when nothing is in flight.
    pub waits_for: String,
    /// The last refusal, in words; empty when there was none.
    pub last_refusal: String,
}

/// An ordering engine.
pub trait Engine: Send {
    /// Advances the state by one input. `now_ms` is the only clock there is; it may jump, also backwards.
    fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect>;

    /// Begins: the effects that a fresh or restarted engine wants done first.
    fn start(&mut self, now_ms: u64) -> Vec<Effect>;

    /// When [`Input::Tick`] is wanted next; earlier and later ones do no harm.
    fn deadline_ms(&self) -> Option<u64>;

    /// For status queries.
    fn status(&self) -> EngineStatus;
}
