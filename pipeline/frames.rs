//! The door for other nodes' consensus messages.
//!
//! Invariants: each member of a group has a share of its own, in frames and bytes, so whoever floods delays the others by one share at
//! most and takes nothing of theirs; what does not fit is dropped and counted, and consensus repeats what matters. Fed by the network,
//! read by the order stage.

use std::sync::Arc;

use millrace_base::{Bytes, GroupId, NodeId};

use crate::runtime::{LaneSender, LaneSpec};
use crate::shares::{Limits, Room, Shares};

/// Frames of one group that wait: sixteen members' full shares.
const LANE_FRAMES: usize = 8_192;

/// Bytes of them: likewise.
const LANE_BYTES: u64 = 16 * PEER_BYTES as u64;

/// Frames of one member that wait: the votes of several windows.
const PEER_FRAMES: usize = 512;

/// Bytes of them, unless it is a single larger frame: a window of full proposals of ordinary size, or the largest proof of a new view.
const PEER_BYTES: usize = 4 << 20;

/// Bytes of one group handled before it is another's turn.
const QUANTUM_BYTES: u32 = 64 << 10;

/// Bytes in one batch of the order stage: some milliseconds of decoding.
const BATCH_BYTES: u64 = 2 << 20;

type Member = (GroupId, NodeId);

/// A consensus message of another node.
pub struct Frame {
    /// The group.
    pub group: GroupId,
    /// The sender, as the network has authenticated it.
    pub from: NodeId,
    /// For its engine.
    pub payload: Bytes,
    /// Gives the room back when the frame has been handled.
    _room: Option<Room<Member>>,
}

impl Frame {
    /// A frame that takes no room: of the simulator, which bounds its network itself.
    pub fn unmetered(group: GroupId, from: NodeId, payload: Bytes) -> Self {
        Self { group, from, payload, _room: None }
    }
}

/// See the module. Clones are the same door.
#[derive(Clone)]
pub struct FrameInlet {
    lanes: LaneSender<Frame>,
    shares: Arc<Shares<Member>>,
}

impl FrameInlet {
    pub(crate) fn new(lanes: LaneSender<Frame>) -> Self {
        Self { lanes, shares: Shares::new(Limits { frames: PEER_FRAMES, bytes: PEER_BYTES }) }
    }

    /// Hands a frame of a member of the group to the order stage; `false` when it was dropped. Never waits.
    pub fn offer(&self, group: GroupId, from: NodeId, payload: Bytes) -> bool {
        let room = self.shares.enter((group, from), payload.len());
        let sent = room.is_some_and(|room| self.lanes.send(group, Frame { group, from, payload, _room: Some(room) }).is_ok());
        if !sent {
            self.shares.count_dropped();
        }
        sent
    }

    /// Frames dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shares.dropped()
    }
}

/// The queue behind the door.
pub(crate) fn lane_spec(max_groups: usize) -> LaneSpec<Frame> {
    LaneSpec {
        name: "frames",
        lane_depth: LANE_FRAMES,
        lane_weight: LANE_BYTES,
        quantum: QUANTUM_BYTES,
        batch_weight: BATCH_BYTES,
        max_lanes: max_groups,
        weight: |frame| u32::try_from(frame.payload.len()).unwrap_or(u32::MAX),
        why: "from outside: each member has its share of frames and bytes; consensus repeats what was dropped",
    }
}
