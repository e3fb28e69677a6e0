//! Frames: what nodes send each other, and how it looks inside TLS.
//!
//! A unit is a header of 16 bytes and at most [`CHUNK_BYTES`] behind it. Frames above that are cut into chunks; between the chunks of a
//! bulk frame urgent frames may pass. Invariant: a header is checked completely before anything is kept because of it.

pub(crate) mod assembler;

use std::fmt;

use millrace_base::{Bytes, GroupId};

use crate::limits::{CHUNK_BYTES, MAX_GROUPS_BYTES, MAX_HELLO_BYTES, MAX_PAYLOAD_BYTES};

/// What a frame is about; decides how urgently it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Small messages between nodes that are no group's, or a group's own housekeeping. Urgent.
    Control = 0,
    /// Proposals, votes, view changes, checkpoints. Urgent. Needs a group.
    Consensus = 1,
    /// Status and blocks. Needs a group.
    Sync = 2,
    /// Transactions. Needs a group.
    Transactions = 3,
    /// Messages between clients of different nodes.
    Amop = 4,
}

impl FrameKind {
    /// All kinds, in the order of their urgency.
    pub const ALL: [FrameKind; 5] = [FrameKind::Control, FrameKind::Consensus, FrameKind::Sync, FrameKind::Transactions, FrameKind::Amop];

    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            FrameKind::Control => "control",
            FrameKind::Consensus => "consensus",
            FrameKind::Sync => "sync",
            FrameKind::Transactions => "transactions",
            FrameKind::Amop => "amop",
        }
    }

    /// Sent before everything else.
    pub fn is_urgent(self) -> bool {
        matches!(self, FrameKind::Control | FrameKind::Consensus)
    }

    /// Whether a frame of this kind may belong to no group.
    pub fn may_lack_group(self) -> bool {
        matches!(self, FrameKind::Control | FrameKind::Amop)
    }

    pub(crate) fn lane(self) -> usize {
        usize::from(!self.is_urgent())
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// A message between two nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The group it belongs to. `None` only for kinds that [may lack one](FrameKind::may_lack_group).
    pub group: Option<GroupId>,
    /// What it is about.
    pub kind: FrameKind,
    /// At most [`MAX_PAYLOAD_BYTES`]; cheap to clone.
    pub payload: Bytes,
}

impl Frame {
    /// A frame of a group.
    pub fn of_group(group: GroupId, kind: FrameKind, payload: impl Into<Bytes>) -> Self {
        Self { group: Some(group), kind, payload: payload.into() }
    }

    /// Whether it can be sent at all.
    pub(crate) fn is_sendable(&self) -> bool {
        self.payload.len() <= MAX_PAYLOAD_BYTES && (self.group.is_some() || self.kind.may_lack_group())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?}, group {:?}, {} bytes)", self.kind, self.group.map(GroupId::get), self.payload.len())
    }
}

/// A frame as it goes over the wire: compressed once, however many peers get it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireFrame {
    pub kind: FrameKind,
    pub group: Option<GroupId>,
    /// Bytes of the payload when it is compressed, 0 when it is not.
    pub expanded: usize,
    pub bytes: Bytes,
}

impl WireFrame {
    /// Compresses a payload above `compress_above` bytes when that saves a sixteenth or more.
    pub fn new(frame: Frame, compress_above: usize) -> Self {
        let Frame { group, kind, payload } = frame;
        if payload.len() > compress_above {
            let compressed = lz4_flex::block::compress(&payload);
            if compressed.len() + payload.len() / 16 < payload.len() {
                return Self { kind, group, expanded: payload.len(), bytes: compressed.into() };
            }
        }
        Self { kind, group, expanded: 0, bytes: payload }
    }

    /// The payload. The expanded size was bounded with the header.
    pub fn open(self) -> Result<Frame, Malformed> {
        let payload = match self.expanded {
            0 => self.bytes,
            expanded => {
                let mut payload = vec![0; expanded];
                match lz4_flex::block::decompress_into(&self.bytes, &mut payload) {
                    Ok(written) if written == expanded => payload.into(),
                    _ => return Err(Malformed("a compressed payload does not expand to the size it names")),
                }
            }
        };
        Ok(Frame { group: self.group, kind: self.kind, payload })
    }

    /// Bytes it takes in queues and on the wire, about.
    pub fn cost(&self) -> usize {
        HEADER_BYTES + self.bytes.len()
    }

    pub fn header(&self, chunk: usize) -> Header {
        let unit = Unit::Data { kind: self.kind, group: self.group, total: self.bytes.len(), expanded: self.expanded };
        Header { unit, chunk }
    }
}

/// Why bytes are not this protocol, or beyond its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub &'static str);

/// Bytes in front of every chunk.
pub(crate) const HEADER_BYTES: usize = 16;

/// What follows a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Who the sender is ([`crate::hello`]).
    Hello,
    /// In which groups the sender counts the receiver among the members.
    Groups,
    /// To be answered with the same eight bytes.
    Ping,
    Pong,
    /// One byte: why the sender closes the connection.
    Goodbye,
    /// The first chunk of a frame.
    Data {
        kind: FrameKind,
        group: Option<GroupId>,
        /// Bytes on the wire in all chunks.
        total: usize,
        /// Bytes after decompression, 0 for none.
        expanded: usize,
    },
    /// The next chunk of the frame begun last in this kind's lane.
    More {
        kind: FrameKind,
    },
    /// The frame begun last in this kind's lane does not go on.
    Abort {
        kind: FrameKind,
    },
}

/// A header: `type, kind, group (2), chunk length (4), total length (4), expanded length (4)`, numbers in big-endian order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub unit: Unit,
    /// Bytes that follow.
    pub chunk: usize,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (code, kind, group, total, expanded) = match self.unit {
            Unit::Hello => (1, 0, None, 0, 0),
            Unit::Groups => (2, 0, None, 0, 0),
            Unit::Ping => (3, 0, None, 0, 0),
            Unit::Pong => (4, 0, None, 0, 0),
            Unit::Goodbye => (5, 0, None, 0, 0),
            Unit::Data { kind, group, total, expanded } => (6, kind as u8, group, total, expanded),
            Unit::More { kind } => (7, kind as u8, None, 0, 0),
            Unit::Abort { kind } => (8, kind as u8, None, 0, 0),
        };
        let length = |value: usize| u32::try_from(value).expect("lengths are bounded by the frame limit").to_be_bytes();
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = code;
        bytes[1] = kind;
        bytes[2..4].copy_from_slice(&group.map_or(0, GroupId::get).to_be_bytes());
        bytes[4..8].copy_from_slice(&length(self.chunk));
        bytes[8..12].copy_from_slice(&length(total));
        bytes[12..].copy_from_slice(&length(expanded));
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let length = |at: usize| usize::try_from(number(at)).unwrap_or(usize::MAX);
        let (chunk, total, expanded) = (length(4), length(8), length(12));
        let kind = || FrameKind::from_code(bytes[1]).ok_or(Malformed("the kind of frame is unknown"));
        let plain = |unit| match bytes[1..4] == [0; 3] && total == 0 && expanded == 0 {
            true => Ok(unit),
            false => Err(Malformed("a header has values where none belong")),
        };
        let unit = match bytes[0] {
            1 => plain(Unit::Hello)?,
            2 => plain(Unit::Groups)?,
            3 => plain(Unit::Ping)?,
            4 => plain(Unit::Pong)?,
            5 => plain(Unit::Goodbye)?,
            6 => Self::data(kind()?, u16::from_be_bytes([bytes[2], bytes[3]]), total, expanded)?,
            7 => Unit::More { kind: kind()? },
            8 => Unit::Abort { kind: kind()? },
            _ => return Err(Malformed("the type of message is unknown")),
        };
        let fits = match unit {
            Unit::Hello => chunk <= MAX_HELLO_BYTES,
            Unit::Groups => chunk <= MAX_GROUPS_BYTES,
            Unit::Ping | Unit::Pong => chunk == 8,
            Unit::Goodbye => chunk == 1,
            Unit::Data { total, .. } => chunk == total.min(CHUNK_BYTES),
            Unit::More { .. } => (1..=CHUNK_BYTES).contains(&chunk),
            Unit::Abort { .. } => chunk == 0,
        };
        if !fits {
            return Err(Malformed("the length of a message is out of bounds"));
        }
        Ok(Self { unit, chunk })
    }

    fn data(kind: FrameKind, group: u16, total: usize, expanded: usize) -> Result<Unit, Malformed> {
        let group = match group {
            0 if kind.may_lack_group() => None,
            0 => return Err(Malformed("a frame of this kind needs a group")),
            id => Some(GroupId::new(i64::from(id)).ok_or(Malformed("the group's id is out of range"))?),
        };
        if total > MAX_PAYLOAD_BYTES || expanded > MAX_PAYLOAD_BYTES {
            return Err(Malformed("the length of a frame is out of bounds"));
        }
        // No input of the algorithm expands to more than 255 times its size.
        if expanded != 0 && (expanded <= total || expanded.div_ceil(255) > total) {
            return Err(Malformed("the expanded length of a frame is not possible"));
        }
        Ok(Unit::Data { kind, group, total, expanded })
    }
}

/// A whole control message.
pub(crate) fn control(unit: Unit, body: &[u8]) -> Vec<u8> {
    let mut bytes = Header { unit, chunk: body.len() }.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}
