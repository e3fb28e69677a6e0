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

impl Outbox {
    /// Drops what a group still had to say. Whether the order to the execute stage to let go of it was among that.
    pub fn forget(&mut self, group: GroupId) -> bool {
        self.records.retain(|(of, ..)| *of != group);
        let is_close = |out: &Out| matches!(out, Out::Execute(of, ToExecute::Close(_)) if *of == group);
        let had_close = self.out.iter().any(is_close);
        self.out.retain(|out| match out {
            Out::Execute(of, _) | Out::Evidence(of, _) | Out::Refused(of, ..) => *of != group,
            Out::Commit(item) => item.ledger.id() != group,
            Out::Send { group: of, .. } | Out::Multicast { group: of, .. } => *of != group,
            Out::Done(_) => true,
        });
        had_close
    }
}
