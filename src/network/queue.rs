//! What is queued for one peer, and in which order it goes.
//!
//! Two lanes. Urgent frames (control, consensus) go before bulk (sync, transactions, AMOP), even between the chunks of a bulk frame, but
//! after [`URGENT_RUN_BYTES`] in a row one bulk chunk passes. Within a lane groups take turns by bytes (deficit round robin), and within
//! a group kinds take turns by a fixed pattern, so nothing that waits waits for ever.
//!
//! Invariant: each group has its share of the lane's bytes and each kind its part of the share, so neither a busy group nor a flood of
//! transactions can keep another's frames out. A lane never holds more than its limit and one largest frame.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_base::GroupId;

use crate::frame::{Header, Unit, WireFrame};
use crate::limits::{CHUNK_BYTES, GROUP_QUANTUM_BYTES, GUARANTEED_QUEUE_BYTES, MAX_PAYLOAD_BYTES, URGENT_RUN_BYTES};
use crate::{FrameKind, NetworkLimits};

type Key = Option<GroupId>;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Push {
    Taken,
    /// The group's share or the lane is full.
    Full,
    /// The session has ended.
    Closed,
}

/// A kind's place in its lane: index, eighths of the group's share.
fn part(kind: FrameKind) -> (usize, usize) {
    match kind {
        FrameKind::Control => (0, 2),
        FrameKind::Consensus => (1, 6),
        FrameKind::Sync => (0, 4),
        FrameKind::Transactions => (1, 3),
        FrameKind::Amop => (2, 1),
    }
}

/// Whose turn it is first within a group, one pick after the other.
const TURNS: [usize; 8] = [0, 1, 0, 1, 0, 1, 0, 2];

/// The frames of one group in one lane.
#[derive(Default)]
struct Flow {
    queues: [VecDeque<WireFrame>; 3],
    bytes: [usize; 3],
    /// Bytes it may still send in this round; negative after a frame above what was left.
    deficit: i64,
    picks: usize,
}

impl Flow {
    fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    fn pop(&mut self) -> Option<WireFrame> {
        let first = TURNS[self.picks % TURNS.len()];
        self.picks = self.picks.wrapping_add(1);
        let index = [first, 0, 1, 2].into_iter().find(|index| !self.queues[*index].is_empty())?;
        let frame = self.queues[index].pop_front()?;
        self.bytes[index] -= frame.cost();
        self.deficit -= i64::try_from(frame.cost()).unwrap_or(i64::MAX);
        Some(frame)
    }
}

/// A frame of which chunks are still to be written.
struct Sending {
    frame: WireFrame,
    sent: usize,
}

#[derive(Default)]
struct Lane {
    limit: usize,
    /// Of everything queued, the frame that is being sent included.
    bytes: usize,
    frames: usize,
    flows: BTreeMap<Key, Flow>,
    /// Groups with frames, in the order of their turns.
    ring: VecDeque<Key>,
    current: Option<Sending>,
    /// The peer has to be told that the frame it has the beginning of does not go on.
    abort: Option<FrameKind>,
}

impl Lane {
    fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    fn has_work(&self) -> bool {
        self.current.is_some() || self.abort.is_some() || !self.ring.is_empty()
    }

    fn push(&mut self, frame: WireFrame, groups: usize) -> Push {
        let (index, eighths) = part(frame.kind);
        // What belongs to no group has an eighth beside the groups' shares.
        let share = self.limit / if frame.group.is_some() { groups.max(1) } else { 8 };
        let flow = self.flows.entry(frame.group).or_default();
        let is_within = flow.queues[index].is_empty() || flow.bytes[index] + frame.cost() <= share / 8 * eighths;
        if !is_within || self.bytes + frame.cost() > self.limit + MAX_PAYLOAD_BYTES {
            return Push::Full;
        }
        if flow.is_empty() {
            self.ring.push_back(frame.group);
        }
        flow.bytes[index] += frame.cost();
        self.bytes += frame.cost();
        self.frames += 1;
        flow.queues[index].push_back(frame);
        Push::Taken
    }

    /// The next frame by turns.
    fn next(&mut self) -> Option<WireFrame> {
        loop {
            let key = *self.ring.front()?;
            let flow = self.flows.get_mut(&key).expect("groups in the ring have a flow");
            if flow.deficit <= 0 {
                // Ends: each round adds a quantum, and no debt is above one frame.
                flow.deficit += GROUP_QUANTUM_BYTES;
                self.ring.rotate_left(1);
                continue;
            }
            let frame = flow.pop().expect("groups in the ring have frames");
            if flow.is_empty() {
                // Credit ends with the queue, debt stays: a group that sends one large frame after the other pays for each.
                flow.deficit = flow.deficit.min(0);
                self.ring.pop_front();
            }
            if self.ring.is_empty() {
                self.flows.clear();
            }
            return Some(frame);
        }
    }

    /// Appends one chunk; the bytes it took, zero when there is nothing.
    fn chunk(&mut self, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        if let Some(kind) = self.abort.take() {
            out.extend_from_slice(&Header { unit: Unit::Abort { kind }, chunk: 0 }.encode());
        }
        let next = self.current.take().or_else(|| self.next().map(|frame| Sending { frame, sent: 0 }));
        let Some(Sending { frame, sent }) = next else { return out.len() - before };
        let chunk = (frame.bytes.len() - sent).min(CHUNK_BYTES);
        let header = match sent {
            0 => frame.header(chunk),
            _ => Header { unit: Unit::More { kind: frame.kind }, chunk },
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&frame.bytes[sent..sent + chunk]);
        if sent + chunk < frame.bytes.len() {
            self.current = Some(Sending { frame, sent: sent + chunk });
        } else {
            self.bytes -= frame.cost();
            self.frames -= 1;
        }
        out.len() - before
    }

    /// Takes out what belongs to a group; the number of frames.
    fn drop_group(&mut self, group: GroupId) -> usize {
        let before = self.frames;
        if let Some(Sending { frame, .. }) = self.current.take_if(|sending| sending.frame.group == Some(group)) {
            self.abort = Some(frame.kind);
            self.bytes -= frame.cost();
            self.frames -= 1;
        }
        if let Some(flow) = self.flows.remove(&Some(group)) {
            self.bytes -= flow.bytes.iter().sum::<usize>();
            self.frames -= flow.queues.iter().map(VecDeque::len).sum::<usize>();
            self.ring.retain(|key| *key != Some(group));
        }
        before - self.frames
    }
}

/// What the queues of all peers hold together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    fn is_exhausted(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }

    /// Bytes in all queues.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// See the module.
pub(crate) struct SendQueue {
    lanes: [Lane; 2],
    budget: Arc<Budget>,
    /// Bytes of this queue that are counted in the budget.
    counted: usize,
    /// Urgent bytes since the last bulk chunk, while bulk waited.
    urgent_run: usize,
    is_closed: bool,
}

impl SendQueue {
    pub fn new(limits: &NetworkLimits, budget: &Arc<Budget>) -> Self {
        let lanes = [Lane::new(limits.urgent_queue_bytes), Lane::new(limits.queue_bytes)];
        Self { lanes, budget: Arc::clone(budget), counted: 0, urgent_run: 0, is_closed: false }
    }

    /// Brings the budget up to date.
    fn count(&mut self) {
        let bytes = self.depth().1;
        if bytes >= self.counted {
            self.budget.used.fetch_add(bytes - self.counted, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.counted - bytes, Ordering::Relaxed);
        }
        self.counted = bytes;
    }

    /// Queues a frame. `groups`: how many groups share the queue.
    pub fn push(&mut self, frame: WireFrame, groups: usize) -> Push {
        if self.is_closed {
            return Push::Closed;
        }
        let lane = &mut self.lanes[frame.kind.lane()];
        let is_guaranteed = lane.frames == 0 || lane.bytes + frame.cost() <= GUARANTEED_QUEUE_BYTES;
        if !is_guaranteed && self.budget.is_exhausted() {
            return Push::Full;
        }
        let result = lane.push(frame, groups);
        self.count();
        result
    }

    /// Appends chunks until `out` has `target` bytes or more, or nothing is left.
    pub fn fill(&mut self, out: &mut Vec<u8>, target: usize) {
        while out.len() < target {
            let [urgent, bulk] = &mut self.lanes;
            let bulk_waits = bulk.has_work();
            if urgent.has_work() && !(bulk_waits && self.urgent_run >= URGENT_RUN_BYTES) {
                let taken = urgent.chunk(out);
                self.urgent_run = if bulk_waits { self.urgent_run + taken } else { 0 };
            } else if bulk_waits {
                bulk.chunk(out);
                self.urgent_run = 0;
            } else {
                break;
            }
        }
        self.count();
    }

    pub fn has_work(&self) -> bool {
        self.lanes.iter().any(Lane::has_work)
    }

    /// Frames and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        (self.lanes.iter().map(|lane| lane.frames).sum(), self.lanes.iter().map(|lane| lane.bytes).sum())
    }

    /// Takes out what belongs to a group; the number of frames.
    pub fn drop_group(&mut self, group: GroupId) -> usize {
        let dropped = self.lanes.iter_mut().map(|lane| lane.drop_group(group)).sum();
        self.count();
        dropped
    }

    /// Nothing is taken or sent any more; the number of frames that were left.
    pub fn close(&mut self) -> usize {
        let left = self.depth().0;
        self.is_closed = true;
        self.lanes = [Lane::default(), Lane::default()];
        self.count();
        left
    }

    /// Closes this queue and hands on what is left, for another connection to the same peer. A frame of which the peer has the
    /// beginning is sent again from its start.
    pub fn hand_over(&mut self, limits: &NetworkLimits) -> Self {
        let mut successor = std::mem::replace(self, Self::new(limits, &Arc::clone(&self.budget)));
        self.is_closed = true;
        for lane in &mut successor.lanes {
            lane.abort = None;
            if let Some(sending) = &mut lane.current {
                sending.sent = 0;
            }
        }
        successor
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
