//! The door for other nodes' messages about blocks and transactions.
//!
//! Invariants: each member of a group has a share of its own, in frames and bytes and for each kind, so whoever floods takes nothing of
//! the others'; what does not fit is dropped and counted, since both sides repeat what matters. Fed by the network, read by the sync
//! stage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_base::{Bytes, GroupId, NodeId};
use millrace_ledger::Ledger;
use parking_lot::Mutex;

use crate::messages::ToSync;
use crate::peers::PeerKind;
use crate::runtime::{LaneQueue, LaneSender, LaneSpec, Sender};
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
    _room: Room,
}

type Member = (GroupId, NodeId, PeerKind);

#[derive(Default)]
struct Share {
    frames: usize,
    bytes: usize,
}

/// Room taken by frames that wait; a member without any has no entry.
#[derive(Default)]
struct Shares {
    taken: Mutex<BTreeMap<Member, Share>>,
    dropped: AtomicU64,
}

struct Room {
    shares: Arc<Shares>,
    member: Member,
    bytes: usize,
}

impl Shares {
    fn enter(self: &Arc<Self>, member: Member, bytes: usize) -> Option<Room> {
        let mut taken = self.taken.lock();
        let share = taken.entry(member).or_default();
        if share.frames > 0 && (share.frames >= MEMBER_FRAMES || share.bytes.saturating_add(bytes) > MEMBER_BYTES) {
            return None;
        }
        share.frames += 1;
        share.bytes += bytes;
        Some(Room { shares: Arc::clone(self), member, bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        let Some(share) = taken.get_mut(&self.member) else { return };
        share.frames -= 1;
        share.bytes -= self.bytes;
        if share.frames == 0 {
            taken.remove(&self.member);
        }
    }
}

/// What the outside holds of the sync stage. Clones are the same door.
#[derive(Clone)]
pub struct SyncInlet {
    pub(crate) groups: Sender<ToSync>,
    pub(crate) lanes: [(LaneQueue<PeerFrame>, LaneSender<PeerFrame>); 2],
    pub(crate) checks: LaneQueue<ToCheck>,
    shares: Arc<Shares>,
}

impl SyncInlet {
    pub(crate) fn new(
        groups: Sender<ToSync>,
        blocks: (LaneQueue<PeerFrame>, LaneSender<PeerFrame>),
        transactions: (LaneQueue<PeerFrame>, LaneSender<PeerFrame>),
        checks: LaneQueue<ToCheck>,
    ) -> Self {
        Self { groups, lanes: [blocks, transactions], checks, shares: Arc::default() }
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
            self.shares.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Messages dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shares.dropped.load(Ordering::Relaxed)
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
