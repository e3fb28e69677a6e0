//! Frames of the channel protocol: length, type, sequence text, result, body; all integers big-endian (`spec/client-protocol.md` 3.1).
//!
//! The sequence carries the request's id as 32 hexadecimal digits. Used by [`super::Session`].

use std::io;

/// Bytes before the body.
const HEADER_BYTES: usize = 42;

/// Longest frame that a node may send here; a receipt or a short answer is far below.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Message types.
pub mod kind {
    /// JSON-RPC.
    pub const RPC: u16 = 0x12;
    /// Sign of life.
    pub const HEARTBEAT: u16 = 0x13;
    /// Pushed receipt.
    pub const RECEIPT: u16 = 0x1000;
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Of [`kind`].
    pub kind: u16,
    /// Repeated in the reply and in the pushed receipt.
    pub sequence: [u8; 32],
    /// Content.
    pub body: Vec<u8>,
}

/// The sequence of the request with this id.
pub fn sequence_of(id: u64) -> [u8; 32] {
    format!("{id:032x}").into_bytes().try_into().expect("32 digits")
}

impl Frame {
    /// A request.
    pub fn new(kind: u16, sequence: [u8; 32], body: &[u8]) -> Self {
        Self { kind, sequence, body: body.to_vec() }
    }

    /// The id of the request that it belongs to.
    pub fn number(&self) -> Option<u64> {
        u64::from_str_radix(std::str::from_utf8(&self.sequence).ok()?, 16).ok()
    }

    /// As it is written.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).expect("requests are far below 4 GiB");
        [&length.to_be_bytes()[..], &self.kind.to_be_bytes(), &self.sequence, &[0; 4], &self.body].concat()
    }
}

/// Gathers the bytes of a session into frames.
#[derive(Default)]
pub struct Assembler {
    buffer: Vec<u8>,
    taken: usize,
}

impl Assembler {
    /// Adds what was read; callers take all frames before they add again.
    pub fn add(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame; an error when the stream is none of frames.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let rest = &self.buffer[self.taken..];
        let Some(first) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*first)).unwrap_or(usize::MAX);
        if !(HEADER_BYTES..=MAX_FRAME_BYTES).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let frame = Frame {
            kind: u16::from_be_bytes([bytes[4], bytes[5]]),
            sequence: bytes[6..38].try_into().expect("32 bytes"),
            body: bytes[HEADER_BYTES..].to_vec(),
        };
        self.taken += length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split_of_the_stream() {
        let frames: Vec<Frame> = (0..4_u64).map(|id| Frame::new(kind::RPC, sequence_of(id), &vec![7; id as usize * 50])).collect();
        let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for step in [1, 41, 43, stream.len()] {
            let (mut assembler, mut seen) = (Assembler::default(), Vec::new());
            for piece in stream.chunks(step) {
                assembler.add(piece);
                while let Some(frame) = assembler.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "pieces of {step}");
        }
        assert_eq!(frames[3].number(), Some(3));
    }

    #[test]
    fn a_length_outside_the_bounds_ends_the_stream() {
        for length in [0_u32, 41, u32::MAX] {
            let mut assembler = Assembler::default();
            assembler.add(&length.to_be_bytes());
            assert!(assembler.next_frame().is_err());
        }
    }

    #[test]
    fn recorded_frames_of_the_reference_node_are_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/reference-node/channel.json");
        let Ok(text) = std::fs::read_to_string(path) else {
            return eprintln!("skipped: no recordings beside the repository");
        };
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sessions = recorded["parts"].as_array().unwrap().iter().flat_map(|part| part["sessions"].as_array().into_iter().flatten());
        let mut receipts = 0;
        for frame in sessions.flat_map(|session| session["frames"].as_array().into_iter().flatten()) {
            if frame["type"] == "0x1000" {
                let body = frame["body"].as_str().unwrap();
                if crate::follow::read_receipt(body.as_bytes()).is_ok() {
                    receipts += 1;
                }
            }
        }
        assert!(receipts > 0, "no recorded receipt was read");
    }
}
