//! The door for other nodes' messages about blocks and transactions.
//!
//! Invariants: each member of a group has a share of its own, in frames and bytes and for each kind, so whoever floods takes nothing of
//! the others'; what does not fit is dropped and counted, since both sides repeat what matters. Fed by the network, read by the sync
//! stage.

use std::sync::Arc;

use millrace_base::{Bytes, GroupId, NodeId};
use millrace_ledger::Ledger;

use crate::messages::ToSync;
use crate::peers::PeerKind;
use crate::runtime::{LaneQueue, LaneSender, LaneSpec, Sender};
use crate::shares::{Limits, Room, Shares};
use crate::stages::check::ToCheck;

/// Frames of one group and kind that wait: eight members' full shares.
const LANE_FRAMES: usize = 2_048;

/// Frames of one member, group and kind that wait: far more than a member sends before it waits for answers.
const MEMBER_FRAMES: usize = 256;

/// Bytes of them, unless it is a single larger frame: all answers that one peer can owe, or a third of a second of full load.
const MEMBER_BYTES: usize = 16 << 20;

/// Bytes of one group handled before it is another's turn: a batch of transactions.
const QUANTUM_BYTES: u32 = 256 << 10;

/// Bytes in one batch of the sync stage: some milliseconds of decoding.
const BATCH_BYTES: u64 = 4 << 20;

/// A message of another node. It takes room until it is dropped.
pub struct PeerFrame {
    pub(super) group: GroupId,
    pub(super) from: NodeId,
    pub(super) kind: PeerKind,
    pub(super) payload: Bytes,
    _room: Room<Member>,
}

type Member = (GroupId, NodeId, PeerKind);

/// What the outside holds of the sync stage. Clones are the same door.
#[derive(Clone)]
pub struct SyncInlet {
    pub(crate) groups: Sender<ToSync>,
    pub(crate) lanes: [(LaneQueue<PeerFrame>, LaneSender<PeerFrame>); 2],
    pub(crate) checks: LaneQueue<ToCheck>,
    shares: Arc<Shares<Member>>,
}

impl SyncInlet {
    pub(crate) fn new(
        groups: Sender<ToSync>,
        blocks: (LaneQueue<PeerFrame>, LaneSender<PeerFrame>),
        transactions: (LaneQueue<PeerFrame>, LaneSender<PeerFrame>),
        checks: LaneQueue<ToCheck>,
    ) -> Self {
        let shares = Shares::new(Limits { frames: MEMBER_FRAMES, bytes: MEMBER_BYTES });
        Self { groups, lanes: [blocks, transactions], checks, shares }
    }

    /// Syncs this group from now on; `false` when so many groups have been opened and closed that it must be tried again.
    pub fn open(&self, ledger: Arc<Ledger>) -> bool {
        let group = ledger.id();
        for (lanes, _) in &self.lanes {
            lanes.add_group(group);
        }
        self.checks.add_group(group);
        self.groups.send(ToSync::Open(ledger)).is_ok()
    }

    /// Ends it.
    pub fn close(&self, group: GroupId) -> bool {
        for (lanes, _) in &self.lanes {
            lanes.remove_group(group);
        }
        self.checks.remove_group(group);
        self.groups.send(ToSync::Close(group)).is_ok()
    }

    /// Members of the group were connected or lost: looked at now instead of a little later.
    pub fn peers_changed(&self, group: GroupId) {
        let _ = self.groups.send(ToSync::PeersChanged(group));
    }

    /// Hands over a message of a member of the group; `false` when it was dropped, or is of a kind that is not read here. Never waits.
    pub fn offer(&self, group: GroupId, from: NodeId, kind: PeerKind, payload: Bytes) -> bool {
        let lane = match kind {
            PeerKind::Consensus => return false,
            PeerKind::Sync => &self.lanes[0].1,
            PeerKind::Transactions => &self.lanes[1].1,
        };
        let room = self.shares.enter((group, from, kind), payload.len());
        let sent = room.is_some_and(|room| lane.send(group, PeerFrame { group, from, kind, payload, _room: room }).is_ok());
        if !sent {
            self.shares.count_dropped();
        }
        sent
    }

    /// Messages dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shares.dropped()
    }
}

/// One of the queues behind the door.
pub(crate) fn lane_spec(name: &'static str, max_groups: usize) -> LaneSpec<PeerFrame> {
    LaneSpec {
        name,
        lane_depth: LANE_FRAMES,
        lane_weight: 8 * MEMBER_BYTES as u64,
        quantum: QUANTUM_BYTES,
        batch_weight: BATCH_BYTES,
        max_lanes: max_groups,
        weight: |frame| u32::try_from(frame.payload.len()).unwrap_or(u32::MAX),
        why: "from outside: each member has its share of frames and bytes; both sides repeat what was dropped",
    }
}
