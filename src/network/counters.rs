//! What the network counts. Loops and callers add, [`PeerNetwork::counters`](crate::PeerNetwork::counters) takes a picture.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::{EndReason, FrameKind};

/// Why a frame was dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum DropReason {
    /// Outgoing: no session with the peer.
    NotConnected = 0,
    /// Outgoing: the peer is not a member of the frame's group.
    PeerNotMember = 1,
    /// Outgoing: the peer does not count this node among the group's members, or does not run the group.
    GroupNotShared = 2,
    /// Outgoing: the peer's queue has no room for the group's share.
    QueueFull = 3,
    /// Outgoing: larger than a frame may be, or without the group its kind needs.
    Unsendable = 4,
    /// Outgoing: queued when the session ended or the peer left the group.
    Discarded = 5,
    /// Incoming: the sender is not a member of the frame's group, or the group is unknown here.
    SenderNotMember = 6,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [DropReason; 7] = [
        DropReason::NotConnected,
        DropReason::PeerNotMember,
        DropReason::GroupNotShared,
        DropReason::QueueFull,
        DropReason::Unsendable,
        DropReason::Discarded,
        DropReason::SenderNotMember,
    ];

    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::NotConnected => "not_connected",
            DropReason::PeerNotMember => "peer_not_member",
            DropReason::GroupNotShared => "group_not_shared",
            DropReason::QueueFull => "queue_full",
            DropReason::Unsendable => "unsendable",
            DropReason::Discarded => "discarded",
            DropReason::SenderNotMember => "sender_not_member",
        }
    }
}

/// Counters of one kind of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KindCounters {
    /// Frames delivered to the sink.
    pub frames_in: u64,
    /// Frames taken into a queue.
    pub frames_out: u64,
    /// Payload bytes delivered, after decompression.
    pub bytes_in: u64,
    /// Payload bytes taken into a queue, as they go over the wire.
    pub bytes_out: u64,
}

/// A picture of the counters. All count since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkCounters {
    /// Of each kind, in the order of [`FrameKind::ALL`].
    pub kinds: [KindCounters; 5],
    /// Dropped frames, in the order of [`DropReason::ALL`].
    pub dropped: [u64; 7],
    /// Connections and sessions that ended or were refused, in the order of [`EndReason::ALL`].
    pub ended: [u64; 17],
    /// Bytes read from and written to sockets, TLS included.
    pub wire_in: u64,
    /// See `wire_in`.
    pub wire_out: u64,
    /// Reads and writes of sockets.
    pub socket_calls: u64,
    /// Incoming connections refused because of a limit.
    pub over_limit: u64,
    /// Open sessions now.
    pub sessions: u64,
    /// Bytes queued for all peers now.
    pub queued_bytes: u64,
    /// Times that two live processes with one node id were found.
    pub duplicate_identities: u64,
    /// Where another process with this node's own id was seen last.
    pub own_duplicate: Option<SocketAddr>,
}

impl NetworkCounters {
    /// Of one kind.
    pub fn kind(&self, kind: FrameKind) -> KindCounters {
        self.kinds[kind as usize]
    }

    /// For one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// For one reason.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize - 1]
    }
}

#[derive(Default)]
struct OfKind {
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The live counters.
#[derive(Default)]
pub(crate) struct Counters {
    kinds: [OfKind; 5],
    dropped: [AtomicU64; 7],
    ended: [AtomicU64; 17],
    wire_in: AtomicU64,
    wire_out: AtomicU64,
    socket_calls: AtomicU64,
    over_limit: AtomicU64,
    duplicate_identities: AtomicU64,
    own_duplicate: Mutex<Option<SocketAddr>>,
}

fn add(counter: &AtomicU64, value: usize) {
    counter.fetch_add(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Counters {
    pub fn frame_in(&self, kind: FrameKind, bytes: usize) {
        add(&self.kinds[kind as usize].frames_in, 1);
        add(&self.kinds[kind as usize].bytes_in, bytes);
    }

    pub fn frame_out(&self, kind: FrameKind, bytes: usize) {
        add(&self.kinds[kind as usize].frames_out, 1);
        add(&self.kinds[kind as usize].bytes_out, bytes);
    }

    pub fn dropped(&self, reason: DropReason, frames: usize) {
        add(&self.dropped[reason as usize], frames);
    }

    pub fn ended(&self, reason: EndReason) {
        add(&self.ended[reason as usize - 1], 1);
    }

    pub fn read(&self, bytes: usize) {
        add(&self.wire_in, bytes);
        add(&self.socket_calls, 1);
    }

    pub fn written(&self, bytes: usize) {
        add(&self.wire_out, bytes);
        add(&self.socket_calls, 1);
    }

    pub fn over_limit(&self) {
        add(&self.over_limit, 1);
    }

    pub fn duplicate_identity(&self) {
        add(&self.duplicate_identities, 1);
    }

    pub fn own_duplicate(&self, seen: SocketAddr) {
        self.own_duplicate.lock().replace(seen);
    }

    /// All but what is not counted here.
    pub fn snapshot(&self) -> NetworkCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let kind = |index: usize| {
            let of: &OfKind = &self.kinds[index];
            KindCounters {
                frames_in: get(&of.frames_in),
                frames_out: get(&of.frames_out),
                bytes_in: get(&of.bytes_in),
                bytes_out: get(&of.bytes_out),
            }
        };
        NetworkCounters {
            kinds: std::array::from_fn(kind),
            dropped: std::array::from_fn(|index| get(&self.dropped[index])),
            ended: std::array::from_fn(|index| get(&self.ended[index])),
            wire_in: get(&self.wire_in),
            wire_out: get(&self.wire_out),
            socket_calls: get(&self.socket_calls),
            over_limit: get(&self.over_limit),
            duplicate_identities: get(&self.duplicate_identities),
            own_duplicate: *self.own_duplicate.lock(),
            ..NetworkCounters::default()
        }
    }
}
