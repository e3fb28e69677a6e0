//! The door for other nodes' consensus messages.
//!
//! Invariants: each member of a group has a share of its own, in frames and bytes, so whoever floods delays the others by one share at
//! most and takes nothing of theirs; what does not fit is dropped and counted, and consensus repeats what matters. Fed by the network,
//! read by the order stage.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_base::{Bytes, GroupId, NodeId};
use parking_lot::Mutex;

use crate::runtime::{LaneSender, LaneSpec};

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

/// A consensus message of another node.
pub struct Frame {
    /// The group.
    pub group: GroupId,
    /// The sender, as the network has authenticated it.
    pub from: NodeId,
    /// For its engine.
    pub payload: Bytes,
    /// Gives the room back when the frame has been handled.
    _room: Option<Room>,
}

impl Frame {
    /// A frame that takes no room: of the simulator, which bounds its network itself.
    pub fn unmetered(group: GroupId, from: NodeId, payload: Bytes) -> Self {
        Self { group, from, payload, _room: None }
    }
}

#[derive(Default)]
struct Share {
    frames: usize,
    bytes: usize,
}

/// Room taken by frames that wait; a member without any has no entry.
#[derive(Default)]
struct Shares {
    taken: Mutex<HashMap<(GroupId, NodeId), Share>>,
    dropped: AtomicU64,
}

impl Shares {
    fn enter(self: &Arc<Self>, group: GroupId, from: NodeId, bytes: usize) -> Option<Room> {
        let mut taken = self.taken.lock();
        let share = taken.entry((group, from)).or_default();
        if share.frames > 0 && (share.frames >= PEER_FRAMES || share.bytes.saturating_add(bytes) > PEER_BYTES) {
            return None;
        }
        share.frames += 1;
        share.bytes += bytes;
        Some(Room { shares: Arc::clone(self), key: (group, from), bytes })
    }
}

struct Room {
    shares: Arc<Shares>,
    key: (GroupId, NodeId),
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        let Some(share) = taken.get_mut(&self.key) else { return };
        share.frames -= 1;
        share.bytes -= self.bytes;
        if share.frames == 0 {
            taken.remove(&self.key);
        }
    }
}

/// See the module. Clones are the same door.
#[derive(Clone)]
pub struct FrameInlet {
    lanes: LaneSender<Frame>,
    shares: Arc<Shares>,
}

impl FrameInlet {
    pub(crate) fn new(lanes: LaneSender<Frame>) -> Self {
        Self { lanes, shares: Arc::default() }
    }

    /// Hands a frame of a member of the group to the order stage; `false` when it was dropped. Never waits.
    pub fn offer(&self, group: GroupId, from: NodeId, payload: Bytes) -> bool {
        let room = self.shares.enter(group, from, payload.len());
        let sent = room.is_some_and(|room| self.lanes.send(group, Frame { group, from, payload, _room: Some(room) }).is_ok());
        if !sent {
            self.shares.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Frames dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shares.dropped.load(Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flooding_member_takes_nothing_of_the_shares_of_others_and_gets_its_room_back() {
        let shares = Arc::new(Shares::default());
        let group = GroupId::new(1).unwrap();
        let (loud, quiet) = (NodeId([1; 64]), NodeId([2; 64]));
        let rooms: Vec<_> = std::iter::from_fn(|| shares.enter(group, loud, 100)).collect();
        assert_eq!(rooms.len(), PEER_FRAMES);
        assert!(shares.enter(group, quiet, PEER_BYTES + 1).is_some(), "a single large frame enters an empty share");
        let held = shares.enter(group, quiet, 3 << 20).unwrap();
        assert!(shares.enter(group, quiet, 2 << 20).is_none(), "bytes are bounded too");
        drop((rooms, held));
        assert!(shares.taken.lock().is_empty());
        assert!(shares.enter(group, loud, 1).is_some());
    }
}
