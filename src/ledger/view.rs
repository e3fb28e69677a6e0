//! What the outside may ask of a node and its ledgers: the face that `rpc` sees.
//!
//! Answers are snapshots; none of these calls can delay a block. Heights are `u64`, times are milliseconds since the Unix epoch.

use std::net::SocketAddr;
use std::sync::Arc;

use millrace_base::transaction::DecodeError;
use millrace_base::{Address, B256, Block, BlockHeader, BlockSignature, Bytes, ChainId, GroupId, NodeId, Refusal, U256, VerifiedTx};
pub use millrace_core::StorageError;
pub use millrace_core::mpt::{AccountProof, SlotProof};

/// The last committed block of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Height.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Timestamp of the header.
    pub timestamp_ms: u64,
}

/// A header with what belongs to it but is not hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedHeader {
    /// The header.
    pub header: BlockHeader,
    /// Its hash.
    pub hash: B256,
    /// Signatures of a quorum; empty in genesis.
    pub signatures: Vec<BlockSignature>,
}

/// Where a committed transaction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// Height of the block.
    pub number: u64,
    /// Position in the block.
    pub index: u32,
}

/// Counters of `getTotalTransactionCount`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Committed transactions.
    pub transactions: u64,
    /// Those with a non-zero status.
    pub failed: u64,
    /// Height at which the counters last changed.
    pub number: u64,
}

/// A `call`: executed on the state of a block, its writes thrown away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallRequest {
    /// Seen as sender and origin; not authenticated.
    pub from: Address,
    /// The callee.
    pub to: Address,
    /// Call data.
    pub data: Bytes,
    /// Visible to the callee.
    pub value: U256,
    /// The block whose state is used; `None` for the head.
    pub number: Option<u64>,
}

/// Result of a `call`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallOutcome {
    /// Height whose state was used.
    pub number: u64,
    /// A [`millrace_base::TransactionStatus`] code.
    pub status: u32,
    /// Return or revert data.
    pub output: Bytes,
}

/// What proves an account and slots of its storage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateProof {
    /// The block whose state root it leads to.
    pub number: u64,
    /// The account, its slots and the nodes.
    pub account: AccountProof,
}

/// Why the state of a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The block is not there yet.
    #[error("there is no such block")]
    NoSuchBlock,
    /// The group keeps the state of its last block only.
    #[error("the group keeps the state of its last block only (state.type=storage); ask without a block number")]
    NotKept,
    /// The group has no tries, so nothing can be proven.
    #[error("the group's state has no proofs (state.type=storage); groups with state.type=mpt have them")]
    NoProofs,
    /// The call reads tables, of which only the latest rows are kept.
    #[error("the call reads tables or calls a system contract, whose history is not kept; ask without a block number")]
    Tables,
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a `call` has no result at all.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The pool of call workers and its queue are busy.
    #[error("too many calls are running; try again")]
    Busy,
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The consensus part of `getConsensusStatus`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsensusStatus {
    /// `pbft`, `raft` or `rpbft`.
    pub kind: ConsensusKind,
    /// This node's position among the sealers; `None` when it is not one.
    pub index: Option<u32>,
    /// Sealers that govern the next block, sorted.
    pub sealers: Vec<NodeId>,
    /// Faulty sealers tolerated.
    pub max_faulty: u32,
    /// Current view.
    pub view: u64,
    /// View being moved to; equal to `view` outside a view change.
    pub to_view: u64,
    /// Whether the leader is considered failed.
    pub leader_failed: bool,
    /// The leader's position among the sealers, where one is known.
    pub leader: Option<u32>,
    /// Last view heard of each sealer, in sealer order.
    pub views: Vec<(NodeId, u64)>,
}

/// How a group orders its transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsensusKind {
    /// Byzantine fault tolerance.
    Pbft,
    /// Crash fault tolerance.
    Raft,
    /// PBFT with rotating working sealers.
    Rpbft,
}

/// One peer's state as sync knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub node_id: NodeId,
    /// Its claimed head.
    pub number: u64,
    /// Hash of its claimed head.
    pub latest_hash: B256,
    /// Genesis it runs on.
    pub genesis_hash: B256,
}

/// The sync part of `getSyncStatus`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncStatus {
    /// Whether blocks are being downloaded.
    pub is_syncing: bool,
    /// Highest head known of any member.
    pub known_highest_number: u64,
    /// Hash of that head.
    pub known_latest_hash: B256,
    /// Peers in this group.
    pub peers: Vec<PeerStatus>,
}

/// One group, as clients see it.
pub trait LedgerView: Send + Sync {
    /// The group's id.
    fn group(&self) -> GroupId;
    /// Hash of block 0.
    fn genesis_hash(&self) -> B256;
    /// The last committed block.
    fn head(&self) -> Head;
    /// Whether this node is sealer or observer of the group (`spec/client-protocol.md` 2.6).
    fn is_member(&self) -> bool;
    /// A whole block; recent ones come from memory. [`StorageError::Pruned`] below [`Self::kept_from`].
    fn block(&self, number: u64) -> Result<Option<Arc<Block>>, StorageError>;
    /// The lowest height above 0 whose transactions and receipts are kept: 1 on a node that keeps all. It may rise at any time.
    fn kept_from(&self) -> u64 {
        1
    }
    /// A header without the body; kept of every block.
    fn header(&self, number: u64) -> Result<Option<Arc<SignedHeader>>, StorageError>;
    /// Height of a block hash.
    fn number_of(&self, hash: B256) -> Result<Option<u64>, StorageError>;
    /// Where a transaction was committed.
    fn locate(&self, transaction: B256) -> Result<Option<Location>, StorageError>;
    /// Counters.
    fn totals(&self) -> Totals;
    /// Pool content, at most `limit`, oldest first.
    fn pending(&self, limit: usize) -> Vec<VerifiedTx>;
    /// Number of transactions in the pool.
    fn pending_count(&self) -> usize;
    /// Runtime code of an account as of a block, `None` for the head; empty when none.
    fn code(&self, address: Address, number: Option<u64>) -> Result<Bytes, StateError>;
    /// A slot of a contract's storage as of a block, `None` for the head; zero when none.
    fn storage_at(&self, address: Address, slot: U256, number: Option<u64>) -> Result<U256, StateError>;
    /// An account and slots of its storage with proofs against the state root of a block, `None` for the head. Only with tries.
    fn account_proof(&self, address: Address, slots: &[U256], number: Option<u64>) -> Result<StateProof, StateError>;
    /// Executes on the state of a block. Blocks the calling thread for at most the time the gas limit allows; never called from async code directly.
    fn call(&self, request: CallRequest) -> Result<CallOutcome, CallError>;
    /// An on-chain setting effective for the next block; `None` when unset.
    fn system_config(&self, key: &str) -> Result<Option<String>, StorageError>;
    /// Sealers that govern the next block, sorted.
    fn sealers(&self) -> Vec<NodeId>;
    /// Observers, sorted.
    fn observers(&self) -> Vec<NodeId>;
    /// State of consensus.
    fn consensus_status(&self) -> ConsensusStatus;
    /// State of sync.
    fn sync_status(&self) -> SyncStatus;
}

/// Why a submission was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The bytes are not a transaction, or its signature recovers no key.
    #[error("{0}")]
    Decode(DecodeError),
    /// Pool or cheap checks refuse it.
    #[error("{0}")]
    Refused(Refusal),
    /// The group does not run here.
    #[error("GroupID does not exist")]
    NoSuchGroup,
    /// The node is over its limits or stopping; nothing was accepted.
    #[error("{0}")]
    Busy(String),
}

/// Told once what became of a submission: its hash when the pool accepted it.
pub type SubmitReply = Box<dyn FnOnce(Result<B256, SubmitError>) + Send>;

/// A raw transaction on its way in.
pub struct Submission {
    /// The group it was addressed to (not the one it was signed for).
    pub group: GroupId,
    /// Who submits, for fair shares of a full pool: the same number for the same client (of HTTP a hash of its address).
    pub submitter: u64,
    /// Signed RLP.
    pub raw: Bytes,
    /// Told the outcome of admission.
    pub reply: SubmitReply,
}

/// Static facts about the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// `chain.id`.
    pub chain_id: ChainId,
    /// This node's identity.
    pub node_id: NodeId,
    /// `ip:port` of the P2P listener.
    pub p2p_endpoint: String,
    /// Issuer CN of the P2P certificate.
    pub agency: String,
    /// Subject CN of the P2P certificate.
    pub name: String,
    /// `compatibility.supported_version`.
    pub supported_version: String,
}

/// State of a group in its lifecycle (`spec/client-protocol.md` 2.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupStatus {
    /// Unknown to this node.
    Inexistent,
    /// Serving.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Generated or stopped.
    Stopped,
    /// Marked as removed; files are kept.
    Deleted,
}

/// What `generateGroup` makes a group of; everything else comes from the node's templates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSeed {
    /// Timestamp of block 0, milliseconds.
    pub timestamp_ms: u64,
    /// Initial sealers.
    pub sealers: Vec<NodeId>,
    /// `enable_free_storage`.
    pub free_storage: bool,
}

/// A step in a group's life (`spec/node-semantics.md` 1.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupChange {
    /// Write its files; it is stopped afterwards.
    Generate(GroupSeed),
    /// Stopped to running.
    Start,
    /// Running to stopped, by way of stopping.
    Stop,
    /// Stopped to deleted; the files stay.
    Remove,
    /// Deleted to stopped.
    Recover,
}

/// Why a step was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupChangeError {
    /// The group's status has no such step: it changed since it was asked for.
    #[error("the group is {0:?}")]
    Status(GroupStatus),
    /// `group.N.genesis` is there already.
    #[error("{0} exists already")]
    GenesisExists(String),
    /// `group.N.ini` is there already.
    #[error("{0} exists already")]
    SettingsExist(String),
    /// `group.N.genesis` is missing.
    #[error("{0} is missing")]
    GenesisMissing(String),
    /// `group.N.ini` is missing.
    #[error("{0} is missing")]
    SettingsMissing(String),
    /// Anything else, in words.
    #[error("{0}")]
    Failed(String),
}

/// The node, as clients see it.
pub trait NodeView: Send + Sync {
    /// Static facts.
    fn info(&self) -> &NodeInfo;
    /// A group that runs here.
    fn ledger(&self, group: GroupId) -> Option<Arc<dyn LedgerView>>;
    /// Groups that run here, ascending.
    fn groups(&self) -> Vec<GroupId>;
    /// State of any group id.
    fn group_status(&self, group: GroupId) -> GroupStatus;
    /// Takes a step in a group's life. Durable when it returns; stopping takes as long as what is in flight.
    fn change_group(&self, group: GroupId, change: GroupChange) -> Result<(), GroupChangeError>;
    /// Connected peers.
    fn peers(&self) -> Vec<NodeInfo>;
    /// Adds peers to call, kept over restarts; gives how many were not known. The error is in words.
    fn add_peers(&self, peers: &[SocketAddr]) -> Result<usize, String>;
    /// Removes peers to call, kept over restarts; gives how many were known. Sessions that exist stay. The error is in words.
    fn erase_peers(&self, peers: &[SocketAddr]) -> Result<usize, String>;
    /// `ip:port` of configured peers.
    fn configured_peers(&self) -> Vec<String>;
    /// Hands raw transactions to the pipeline. Each reply is called exactly once, soon, from some thread.
    fn submit(&self, submissions: Vec<Submission>);
    /// Metrics in Prometheus text form.
    fn metrics(&self) -> String;
    /// State of the node, its groups and its peers, as a JSON object for its operator.
    fn status(&self) -> String;
    /// Stages and queues with their figures, as a JSON object for the node's operator.
    fn topology(&self) -> String;
    /// Whether every running group accepts transactions; the reason when not.
    fn readiness(&self) -> Result<(), String>;
}
