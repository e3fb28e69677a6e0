//! What a turn wants to leave the stage, in order, once its records are durable.

use std::sync::Arc;

use millrace_base::{Bytes, GroupId, NodeId};

use crate::evidence::Case;
use crate::messages::{Done, ToCommit, ToExecute};
use crate::peers::PeerKind;

/// One thing that leaves.
pub(super) enum Out {
    Execute(GroupId, ToExecute),
    Commit(ToCommit),
    Send {
        group: GroupId,
        to: NodeId,
        kind: PeerKind,
        payload: Bytes,
    },
    Multicast {
        group: GroupId,
        to: Arc<[NodeId]>,
        payload: Bytes,
    },
    Evidence(GroupId, Case),
    /// A node sent what an honest one would not, and why.
    Refused(GroupId, NodeId, String),
    Done(Done),
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    /// Group, height and body.
    pub records: Vec<(GroupId, u64, Bytes)>,
    pub out: Vec<Out>,
    /// Executions handed out since the start, of all groups.
    pub runs: u64,
}
