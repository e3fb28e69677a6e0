//! What travels between the stages. Every item names its group.

use std::sync::Arc;

use millrace_access::blockchain::Commit;
use millrace_access::verifier::ExecutedBlock;
use millrace_administration::engine::FinalBlock;
use millrace_administration::pbft::WINDOW;
use millrace_administration::sync::Verdict;
use millrace_administration::{Epoch, Proposal};
use millrace_base::{B256, Block, BlockSignature, GroupId, NodeId, VerifiedTx};
use millrace_ledger::Ledger;
use millrace_ledger::view::{Submission, SubmitError};

use crate::frames::Frame;

/// Who brought a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A client of this node: the sealers have to be told.
    Client,
    /// Another node, which has told the sealers.
    Peer,
}

/// To the verify stage: a raw transaction with the ledger it is for.
pub struct Incoming {
    /// Where it goes when it is good.
    pub ledger: Arc<Ledger>,
    /// The bytes and whom to tell.
    pub submission: Submission,
    /// Who brought it.
    pub source: Source,
}

impl Incoming {
    /// Says that it was not accepted, and gives back the room it took.
    pub fn refuse(self, error: SubmitError) {
        self.ledger.ingress().leave(self.submission.raw.len());
        (self.submission.reply)(Err(error));
    }
}

/// Told once that something has been done.
pub type Done = Box<dyn FnOnce() + Send>;

/// To the order stage.
pub enum ToOrder {
    /// Order this group from now on.
    Open(Arc<Ledger>),
    /// Order this group no more, and answer once no stage holds anything of it but what [`Done`]'s owner still sends. Blocks that are
    /// final already are committed first; everything else is taken up again when the group is opened.
    Close(GroupId, Done),
    /// Forget this group at once, as a crash would, because it could not be closed in time; and answer once the execute stage has let go of
    /// it. What was not durable is lost here, and taken from the other nodes or done again when the group is opened.
    Abandon(GroupId, Done),
    /// The execute stage has let go of a group that is being closed.
    Closed(GroupId),
    /// The pool has transactions that it did not have before.
    Wake(GroupId),
    /// A message of another node's engine.
    Frame(Frame),
    /// A block that sync downloaded; at most [`MAX_BLOCKS_HANDED_IN`] of a group at a time.
    Block {
        /// The group.
        group: GroupId,
        /// The block.
        block: Box<FinalBlock>,
    },
    /// A block was executed.
    Executed(Box<Executed>),
    /// Blocks up to this height are durable.
    Committed {
        /// The group.
        group: GroupId,
        /// The height.
        height: u64,
    },
    /// Executing or committing failed for good: order nothing more in this group.
    Failed(GroupId),
    /// Sessions with other nodes were opened or lost: engines are told whom they reach. A hint, which is looked for as well.
    PeersChanged,
}

/// Downloaded blocks of one group that may be on their way to the order stage, above the last height that is durable: enough to keep
/// execution and commit busy while the next ones are checked.
pub const MAX_BLOCKS_HANDED_IN: usize = 2 * WINDOW as usize;

/// An executed block on its way back to the order stage.
pub struct Executed {
    /// The group.
    pub group: GroupId,
    /// Number of the [`ToExecute::Run`] it answers.
    pub run: u64,
    /// The block without signatures, what it writes, and the commitment to the state after it.
    pub block: ExecutedBlock,
    /// The epoch from the next height on, when this block changed it.
    pub next_epoch: Option<Epoch>,
}

/// To the execute stage.
pub enum ToExecute {
    /// Execute this group's blocks from now on.
    Open(Arc<Ledger>),
    /// Execute an ordered proposal.
    Run {
        /// The group.
        group: GroupId,
        /// Names this execution among all of the node: a result that comes after its height was made void is of no use.
        run: u64,
        /// The proposal.
        proposal: Box<Proposal>,
    },
    /// Everything executed above this height is void.
    Void {
        /// The group.
        group: GroupId,
        /// Last height that stands.
        above: u64,
    },
    /// Blocks up to this height are durable: their writes need not be kept here.
    Committed {
        /// The group.
        group: GroupId,
        /// The height.
        height: u64,
    },
    /// Forget the group, and answer with [`ToOrder::Closed`].
    Close(GroupId),
}

/// To the commit stage.
pub struct ToCommit {
    /// Where to.
    pub ledger: Arc<Ledger>,
    /// The final block with its writes.
    pub commit: Commit,
}

/// To the sync stage. All but opening, closing and checking are hints: one that is lost delays.
pub enum ToSync {
    /// Sync this group from now on.
    Open(Arc<Ledger>),
    /// No longer.
    Close(GroupId),
    /// Members of the group were connected or lost.
    PeersChanged(GroupId),
    /// Blocks became durable: the head is in the chain.
    Committed(GroupId),
    /// Transactions of this node's clients entered the pool.
    Admitted {
        /// The group.
        group: GroupId,
        /// The transactions.
        transactions: Vec<VerifiedTx>,
    },
    /// The ordering engine refused a message or block that an honest node would not have sent.
    Refused {
        /// The group.
        group: GroupId,
        /// Who sent it.
        from: NodeId,
        /// Why.
        reason: String,
    },
    /// A downloaded block was checked.
    Checked(Checked),
}

/// What became of a check.
pub struct Checked {
    /// The group.
    pub group: GroupId,
    /// Of the check.
    pub ticket: u64,
    /// Its result.
    pub verdict: Verdict,
}

/// To the notify stage.
pub enum ToNotify {
    /// A block is durable.
    Block {
        /// The group.
        group: GroupId,
        /// The block.
        block: Arc<Block>,
    },
    /// Transactions that had been accepted were dropped because they expired.
    Expired {
        /// The group.
        group: GroupId,
        /// Their hashes.
        hashes: Vec<B256>,
    },
}

/// Attaches the signatures that made an executed block final.
pub fn seal(executed: Executed, signatures: Vec<BlockSignature>) -> Commit {
    let ExecutedBlock { mut block, writes, nodes, commitment } = executed.block;
    block.signatures = signatures;
    let epoch_start = executed.next_epoch.map(|epoch| epoch.start);
    Commit { block: Arc::new(block), writes, nodes, commitment, epoch_start }
}
