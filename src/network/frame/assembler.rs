//! Puts frames together again from whatever pieces the connection delivers. Called by [`crate::connection`].
//!
//! Invariant: it holds at most one message of bounded size and one frame of each lane, and of a frame that the gate does not let in,
//! nothing. Memory grows with the bytes that have arrived, never with the bytes that are announced.

use millrace_base::GroupId;

use super::{FrameKind, HEADER_BYTES, Header, Malformed, Unit, WireFrame};

/// What is to be done with a frame, decided on its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    Keep,
    /// Its bytes pass by.
    Skip,
    /// The sender may not send this now.
    Refuse(&'static str),
}

/// A complete message.
#[derive(Debug)]
pub(crate) enum Received {
    Control(Unit, Vec<u8>),
    Frame(WireFrame),
}

/// A frame of which chunks are missing.
struct Partial {
    kind: FrameKind,
    group: Option<GroupId>,
    total: usize,
    expanded: usize,
    received: usize,
    is_skipped: bool,
    bytes: Vec<u8>,
}

enum State {
    /// Bytes of the header that have arrived.
    Header(usize),
    Control {
        unit: Unit,
        left: usize,
        body: Vec<u8>,
    },
    Chunk {
        lane: usize,
        left: usize,
    },
}

/// See the module.
pub(crate) struct Assembler {
    header: [u8; HEADER_BYTES],
    state: State,
    partial: [Option<Partial>; 2],
}

impl Default for Assembler {
    fn default() -> Self {
        Self { header: [0; HEADER_BYTES], state: State::Header(0), partial: [None, None] }
    }
}

impl Assembler {
    /// Takes bytes off the front of `input` until a message is complete; `None` when the input is used up first.
    pub fn next(&mut self, input: &mut &[u8], gate: &dyn Fn(&Header) -> Gate) -> Result<Option<Received>, Malformed> {
        loop {
            match &mut self.state {
                State::Header(filled) => {
                    let taken = take(input, HEADER_BYTES - *filled);
                    self.header[*filled..*filled + taken.len()].copy_from_slice(taken);
                    *filled += taken.len();
                    if *filled < HEADER_BYTES {
                        return Ok(None);
                    }
                    self.begin(gate)?;
                }
                State::Control { unit, left, body } => {
                    let taken = take(input, *left);
                    body.extend_from_slice(taken);
                    *left -= taken.len();
                    if *left > 0 {
                        return Ok(None);
                    }
                    let received = Received::Control(*unit, std::mem::take(body));
                    self.state = State::Header(0);
                    return Ok(Some(received));
                }
                State::Chunk { lane, left } => {
                    let taken = take(input, *left);
                    *left -= taken.len();
                    let (lane, left) = (*lane, *left);
                    let partial = self.partial[lane].as_mut().expect("a chunk is only read into a frame that was begun");
                    partial.received += taken.len();
                    if !partial.is_skipped {
                        partial.bytes.extend_from_slice(taken);
                    }
                    if left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Header(0);
                    if let Some(frame) = self.complete(lane) {
                        return Ok(Some(Received::Frame(frame)));
                    }
                }
            }
        }
    }

    /// A header is complete.
    fn begin(&mut self, gate: &dyn Fn(&Header) -> Gate) -> Result<(), Malformed> {
        let header = Header::decode(&self.header)?;
        let verdict = gate(&header);
        if let Gate::Refuse(why) = verdict {
            return Err(Malformed(why));
        }
        self.state = match header.unit {
            Unit::Data { kind, group, total, expanded } => {
                let lane = kind.lane();
                if self.partial[lane].is_some() {
                    return Err(Malformed("a frame begins before the one before it has ended"));
                }
                let is_skipped = verdict == Gate::Skip;
                // A first chunk's worth; the rest follows the bytes that arrive.
                let bytes = Vec::with_capacity(if is_skipped { 0 } else { header.chunk });
                self.partial[lane] = Some(Partial { kind, group, total, expanded, received: 0, is_skipped, bytes });
                State::Chunk { lane, left: header.chunk }
            }
            Unit::More { kind } => {
                let partial = self.partial[kind.lane()].as_mut().ok_or(Malformed("a frame goes on that was not begun"))?;
                if partial.kind != kind || header.chunk > partial.total - partial.received {
                    return Err(Malformed("a frame goes on beyond its length"));
                }
                State::Chunk { lane: kind.lane(), left: header.chunk }
            }
            Unit::Abort { kind } => {
                self.partial[kind.lane()].take().ok_or(Malformed("a frame is given up that was not begun"))?;
                State::Header(0)
            }
            unit => State::Control { unit, left: header.chunk, body: Vec::with_capacity(header.chunk) },
        };
        Ok(())
    }

    /// The frame of a lane, if this was its last chunk and it is wanted.
    fn complete(&mut self, lane: usize) -> Option<WireFrame> {
        let is_complete = self.partial[lane].as_ref().is_some_and(|partial| partial.received == partial.total);
        let partial = if is_complete { self.partial[lane].take()? } else { return None };
        let Partial { kind, group, expanded, is_skipped, bytes, .. } = partial;
        (!is_skipped).then(|| WireFrame { kind, group, expanded, bytes: bytes.into() })
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}
