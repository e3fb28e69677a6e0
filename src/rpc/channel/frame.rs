//! Frames of the channel protocol (`spec/client-protocol.md` 3.1): length, type, sequence text, result, body; all integers big-endian.
//!
//! Invariant: memory follows the bytes that arrived, never the length a client announces. Used by [`super::server`] for what comes in and
//! by everything that answers.

use millrace_base::Bytes;

use crate::limits::MAX_FRAME_BYTES;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 42;

/// Longest topic that a topic body can carry.
pub const MAX_TOPIC_BYTES: usize = 254;

/// What a client chose to recognise the reply by: 32 bytes, opaque to the node.
pub type Sequence = [u8; 32];

/// Sequence of frames that no request asked for.
pub const UNASKED: Sequence = [b'0'; 32];

/// Message types (`spec/client-protocol.md` 3.2).
pub mod kind {
    /// JSON-RPC, both directions.
    pub const RPC: u16 = 0x12;
    /// Heartbeat, both directions.
    pub const HEARTBEAT: u16 = 0x13;
    /// Version negotiation, both directions.
    pub const HANDSHAKE: u16 = 0x14;
    /// Subscription to event logs, both directions.
    pub const EVENT_SUBSCRIBE: u16 = 0x15;
    /// End of a subscription to event logs, both directions.
    pub const EVENT_CANCEL: u16 = 0x16;
    /// AMOP message to one subscriber.
    pub const AMOP_REQUEST: u16 = 0x30;
    /// Answer to an AMOP message.
    pub const AMOP_ANSWER: u16 = 0x31;
    /// List of topics a client subscribes to.
    pub const TOPICS: u16 = 0x32;
    /// AMOP message to all subscribers.
    pub const AMOP_BROADCAST: u16 = 0x35;
    /// The node asks a client to verify a subscriber of a private topic.
    pub const TOPIC_VERIFY: u16 = 0x37;
    /// The client's verdict.
    pub const TOPIC_STATUS: u16 = 0x38;
    /// Receipt of a transaction.
    pub const RECEIPT: u16 = 0x1000;
    /// New block.
    pub const BLOCK: u16 = 0x1001;
    /// Event logs.
    pub const EVENT_PUSH: u16 = 0x1002;
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// One of [`kind`], or anything a client sent.
    pub kind: u16,
    /// Repeated in the reply.
    pub sequence: Sequence,
    /// Zero in requests and in replies without error.
    pub result: i32,
    /// Content; its form depends on the type.
    pub body: Bytes,
}

impl Frame {
    /// A frame without error.
    pub fn new(kind: u16, sequence: Sequence, body: impl Into<Bytes>) -> Self {
        Self { kind, sequence, result: 0, body: body.into() }
    }

    /// A frame that no request asked for.
    pub fn unasked(kind: u16, body: impl Into<Bytes>) -> Self {
        Self::new(kind, UNASKED, body)
    }

    /// The same frame with another result.
    pub fn with_result(mut self, result: i32) -> Self {
        self.result = result;
        self
    }

    /// Bytes on the wire.
    pub fn length(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The frame as it is written.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.length()).expect("bodies are bounded far below 4 GiB");
        let mut bytes = Vec::with_capacity(self.length());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        bytes.extend_from_slice(&self.sequence);
        bytes.extend_from_slice(&self.result.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The frame in `bytes`, which hold exactly one, as [`announced`] said.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let length = announced(bytes)?.unwrap_or(HEADER_BYTES);
        if bytes.len() != length {
            return Err(FrameError::Length(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let sequence = bytes[6..38].try_into().expect("32 bytes");
        let kind = u16::from_be_bytes([bytes[4], bytes[5]]);
        let result = i32::from_be_bytes(bytes[38..HEADER_BYTES].try_into().expect("four bytes"));
        Ok(Self { kind, sequence, result, body: Bytes::copy_from_slice(&bytes[HEADER_BYTES..]) })
    }
}

/// Why bytes are not a frame; the session cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is below a header or above [`MAX_FRAME_BYTES`].
    #[error("a frame announces {0} bytes; allowed are {HEADER_BYTES} to {MAX_FRAME_BYTES}")]
    Length(u32),
}

/// The length of the frame that `bytes` begin with; `None` while too few bytes are there to tell.
pub fn announced(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(first) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*first);
    match usize::try_from(length) {
        Ok(fits) if (HEADER_BYTES..=MAX_FRAME_BYTES).contains(&fits) => Ok(Some(fits)),
        _ => Err(FrameError::Length(length)),
    }
}

/// Gathers the bytes of a connection into frames.
#[derive(Default)]
pub struct Assembler {
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer that were taken already.
    taken: usize,
}

impl Assembler {
    /// Adds what was read. Callers take all frames before they add again, so at most one incomplete frame is held.
    pub fn add(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held of a frame that is not complete.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// The next complete frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some(length) = announced(rest)?.filter(|length| rest.len() >= *length) else {
            if rest.is_empty() && self.buffer.capacity() > 1 << 20 {
                *self = Self::default();
            }
            return Ok(None);
        };
        let frame = Frame::decode(&rest[..length])?;
        self.taken += length;
        Ok(Some(frame))
    }
}

/// Topic and content of a topic body; `None` when it has not even the length byte. The length byte counts itself; a topic that is longer
/// than the body is cut, as in the reference node.
pub fn split_topic(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = body.split_first()?;
    let topic = usize::from(length.max(1) - 1).min(rest.len());
    Some(rest.split_at(topic))
}

/// A topic body. Longer topics than [`MAX_TOPIC_BYTES`] cannot be subscribed to, so none comes here.
pub fn topic_body(topic: &[u8], content: &[u8]) -> Vec<u8> {
    let topic = &topic[..topic.len().min(MAX_TOPIC_BYTES)];
    let mut body = Vec::with_capacity(1 + topic.len() + content.len());
    body.push(u8::try_from(topic.len() + 1).expect("topics have at most 254 bytes"));
    body.extend_from_slice(topic);
    body.extend_from_slice(content);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split_of_the_stream() {
        let frames: Vec<_> =
            (0..5u8).map(|n| Frame::new(kind::RPC, [n; 32], vec![n; usize::from(n) * 7]).with_result(-i32::from(n))).collect();
        let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for step in [1, 3, 41, 42, 43, stream.len()] {
            let (mut assembler, mut seen) = (Assembler::default(), Vec::new());
            for piece in stream.chunks(step) {
                assembler.add(piece);
                while let Some(frame) = assembler.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "pieces of {step}");
        }
    }

    #[test]
    fn announced_length_outside_the_bounds_is_refused_before_anything_is_read() {
        for length in [0u32, 10, 41, u32::try_from(MAX_FRAME_BYTES).unwrap() + 1, 104_857_601, 1 << 31, u32::MAX] {
            let mut assembler = Assembler::default();
            assembler.add(&length.to_be_bytes());
            assert_eq!(assembler.next_frame(), Err(FrameError::Length(length)));
        }
    }

    #[test]
    fn topic_bodies_are_read_as_the_reference_node_reads_them() {
        assert_eq!(split_topic(b""), None);
        assert_eq!(split_topic(b"\x01x"), Some((&b""[..], &b"x"[..])));
        assert_eq!(split_topic(b"\x00x"), Some((&b""[..], &b"x"[..])));
        assert_eq!(split_topic(b"\x03t1hello"), Some((&b"t1"[..], &b"hello"[..])));
        assert_eq!(split_topic(b"\tab"), Some((&b"ab"[..], &b""[..])));
        assert_eq!(topic_body(b"t1", b"hello"), b"\x03t1hello");
    }
}
