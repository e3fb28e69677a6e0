//! What a node says about itself to its operator: the documents behind `/status` and `/topology` of the operator port, what follows
//! from them, and how they look as text.
//!
//! - this file: the `/status` document. [`topology`]: the `/topology` document.
//! - [`diagnosis`]: what is wrong, in sentences, and how bad it is.
//! - [`text`], [`picture`]: both documents for people.
//!
//! Invariant: pure data and functions of it; made by the node, read by the command line of the same or a neighbouring version.
//! Times are milliseconds since 1970 unless a name says otherwise; node ids are hexadecimal.

pub mod diagnosis;
#[cfg(test)]
pub mod fixture;
pub mod picture;
pub mod text;
pub mod topology;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Version of the program.
    pub version: String,
    /// Subject of its certificate.
    pub name: String,
    /// Issuer of its certificate.
    pub agency: String,
    /// Its identity.
    pub node_id: String,
    /// The chain.
    pub chain_id: u64,
    /// When this was written.
    pub now_ms: u64,
    /// Since its start, seconds.
    pub uptime_s: u64,
    /// Whether it is going down.
    pub is_stopping: bool,
    /// Its groups, ascending.
    pub groups: Vec<GroupReport>,
    /// Other nodes.
    pub network: NetworkReport,
    /// Certificates below its directory.
    pub certificates: Vec<CertificateReport>,
}

/// A group that the node knows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// Its id.
    pub group: u16,
    /// Where it is in its life.
    pub state: GroupState,
    /// What went wrong when it was stopped last.
    #[serde(default)]
    pub error: Option<String>,
    /// Figures, while it runs.
    pub running: Option<RunningGroup>,
}

/// Where a group is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GroupState {
    /// Serving.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Generated or stopped.
    Stopped,
    /// Marked as removed.
    Removed,
}

/// What this node is in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Role {
    /// It votes.
    Sealer {
        /// Its position among the sealers, from 0.
        index: u32,
        /// Number of sealers.
        of: usize,
    },
    /// It follows.
    Observer,
    /// Neither: it gets no blocks.
    #[default]
    NotMember,
}

/// A group that runs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningGroup {
    /// Last committed height.
    pub height: u64,
    /// Timestamp of that block.
    pub head_time_ms: u64,
    /// Why the group has halted.
    pub halted: Option<String>,
    /// What this node is in it.
    pub role: Role,
    /// Blocks committed a second, over the last ten seconds.
    pub blocks_per_s: f64,
    /// Transactions committed a second, likewise.
    pub transactions_per_s: f64,
    /// Agreement.
    pub consensus: ConsensusReport,
    /// Waiting transactions.
    pub pool: PoolReport,
    /// Catching up.
    pub sync: SyncReport,
    /// What other nodes did wrong.
    pub conduct: ConductReport,
}

/// State of consensus.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsensusReport {
    /// `pbft` or `raft`.
    #[serde(default)]
    pub kind: String,
    /// First height under the present members and settings.
    pub epoch_start: u64,
    /// Sealers whose votes decide.
    pub quorum: usize,
    /// Longest wait for a leader at first, milliseconds.
    pub timeout_ms: u64,
    /// Current view; with Raft the term.
    pub view: u64,
    /// View being moved to; equal to `view` outside a view change or an election.
    pub to_view: u64,
    /// Views entered since the start.
    pub view_changes: u64,
    /// Next height to be proposed.
    pub next_height: u64,
    /// Whose turn it is there.
    pub leader: Option<String>,
    /// What the next step waits for; empty when nothing is in flight.
    pub waits_for: String,
    /// For how long.
    pub waiting_ms: u64,
    /// All sealers in the order of their index, this node among them.
    pub sealers: Vec<SealerReport>,
}

impl ConsensusReport {
    /// Whether sealers elect a leader in place of taking turns.
    pub fn is_raft(&self) -> bool {
        self.kind == "raft"
    }

    /// What leaders are counted by.
    pub fn counter(&self) -> &'static str {
        if self.is_raft() { "term" } else { "view" }
    }
}

/// Whether a sealer can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Link {
    /// It is this node.
    Own,
    /// There is a session, and both count the other among the group's members.
    Connected,
    /// There is a session, but the other node does not run the group or does not count this one among its members.
    NotShared,
    /// There is no session.
    NotConnected,
}

/// One sealer as this node sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealerReport {
    /// Its identity.
    pub node_id: String,
    /// Its name, when a session has told it.
    pub name: Option<String>,
    /// Whether it can be reached.
    pub link: Link,
    /// Its last durable height, as it says.
    pub height: u64,
    /// Its view, as it says.
    pub view: u64,
    /// When it was last heard; 0 is never.
    pub heard_ms: u64,
    /// Where it is called, if it was ever reached there.
    pub address: Option<String>,
    /// Why the last call or session ended.
    pub last_error: Option<String>,
}

/// The pool.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Transactions in it.
    pub transactions: usize,
    /// Transactions it holds at most.
    pub limit: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Raw transactions waiting for verification, bytes.
    pub ingress_bytes: usize,
    /// Accepted transactions dropped since the start.
    pub expired: u64,
}

/// Sync.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    /// Whether blocks are being downloaded.
    pub is_syncing: bool,
    /// Highest head that is vouched for.
    pub known_height: u64,
    /// Where the download aims.
    pub target_height: u64,
    /// Blocks made durable a second.
    pub blocks_per_s: u64,
    /// Bytes downloaded a second.
    pub bytes_per_s: u64,
    /// Seconds to the known head at this speed.
    pub remaining_s: Option<u64>,
    /// The lowest block that peers ahead still keep, when the next one needed here is below it.
    #[serde(default)]
    pub out_of_reach: Option<u64>,
    /// Blocks at hand that are not durable.
    pub held_blocks: usize,
    /// Blocks downloaded since the start.
    pub downloaded_blocks: u64,
    /// Their bytes.
    pub downloaded_bytes: u64,
    /// Connected members.
    pub peers: Vec<SyncPeerReport>,
}

/// A member as sync knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncPeerReport {
    /// Who.
    pub node_id: String,
    /// Its name, when a session told it.
    pub name: Option<String>,
    /// Its durable height, as it says.
    pub height: Option<u64>,
    /// Speed of its answers; 0 is not known.
    pub bytes_per_s: u64,
    /// Milliseconds for which it is not asked.
    pub held_for_ms: u64,
    /// Lies found.
    pub lies: u32,
    /// The last of them.
    pub last_lie: String,
}

/// What other nodes did that an honest node would not.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConductReport {
    /// Refused messages and blocks since the start.
    pub refusals: u64,
    /// The last of them.
    pub last_refusal: Option<Deed>,
    /// Contradictions signed by one sealer, since the start.
    pub evidence: u64,
    /// The last of them.
    pub last_evidence: Option<Deed>,
}

/// One deed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deed {
    /// Whose.
    pub node_id: String,
    /// What.
    pub what: String,
    /// When it was noticed.
    pub at_ms: u64,
}

/// Sessions with other nodes, and the addresses this one calls.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkReport {
    /// This node's own name.
    pub own_name: String,
    /// Names of nodes by their ids, also of those whose session has ended; not part of the document.
    #[serde(skip)]
    pub known_names: BTreeMap<String, String>,
    /// Open sessions.
    pub sessions: Vec<SessionReport>,
    /// Addresses that are called.
    pub addresses: Vec<AddressReport>,
    /// Frames dropped since the start, by reason; reasons without any are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Where another process with this node's own identity was seen.
    pub own_duplicate: Option<String>,
}

/// An open session.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionReport {
    /// The peer, proven.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// Its agency.
    pub agency: String,
    /// The other end.
    pub address: String,
    /// Whether this node called.
    pub is_outgoing: bool,
    /// When it was opened.
    pub since_ms: u64,
    /// Last round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Frames waiting to be sent.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Received since it was opened.
    pub bytes_in: u64,
    /// Sent since it was opened.
    pub bytes_out: u64,
    /// Groups in which both are members.
    pub groups: Vec<u16>,
    /// Where another live process with the same identity was seen.
    pub duplicate: Option<String>,
}

/// An address that is called.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressReport {
    /// As configured or added.
    pub address: String,
    /// `waiting`, `connecting`, `connected` or `own`.
    pub state: String,
    /// The node that was found there.
    pub node_id: Option<String>,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
    /// Attempts in a row that failed.
    pub failures: u32,
}

/// A certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateReport {
    /// Path below the node's directory.
    pub file: String,
    /// Days until it or one it depends on ends; negative when it has ended.
    pub days_left: i64,
}

impl NetworkReport {
    /// Name of a node with which there is a session, or was one.
    pub fn name_of(&self, node_id: &str) -> Option<String> {
        let session = self.sessions.iter().find(|session| session.node_id == node_id).map(|session| &session.name);
        session.or_else(|| self.known_names.get(node_id)).cloned()
    }

    /// How a sealer of a group can be reached.
    pub fn link(&self, node_id: &str, group: u16) -> Link {
        match self.sessions.iter().find(|session| session.node_id == node_id) {
            None => Link::NotConnected,
            Some(session) if session.groups.contains(&group) => Link::Connected,
            Some(_) => Link::NotShared,
        }
    }

    /// The address at which a node was found.
    pub fn address_of(&self, node_id: &str) -> Option<&AddressReport> {
        self.addresses.iter().find(|address| address.node_id.as_deref() == Some(node_id))
    }
}

impl RunningGroup {
    /// Sealers that can be reached, this node included.
    pub fn present(&self) -> usize {
        self.consensus.sealers.iter().filter(|sealer| sealer.is_present()).count()
    }
}

impl SealerReport {
    /// Whether votes can be exchanged with it.
    pub fn is_present(&self) -> bool {
        matches!(self.link, Link::Own | Link::Connected)
    }

    /// Its name, or the beginning of its id as the log and the engine write it.
    pub fn label(&self) -> String {
        label(self.name.as_deref(), &self.node_id)
    }
}

/// A name for people: the node's name, or the first 8 digits of its id.
pub fn label(name: Option<&str>, node_id: &str) -> String {
    name.filter(|name| !name.is_empty()).map_or_else(|| node_id.chars().take(8).collect(), str::to_owned)
}
