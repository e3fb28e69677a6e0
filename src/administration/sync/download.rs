//! Blocks between the durable head and the edge of the lookahead: asked for, fetched, being checked, ready, handed on.
//!
//! A height's way:
//! ```text
//! missing --> requested --> fetched --> checking --> ready --> delivered --> durable (gone)
//!    ^            | timeout     |           | bad       | does not attach, refused, its sender lied
//!    \------------/-------------/-----------/-----------/
//! ```
//! Invariants: at most [`LOOKAHEAD_BLOCKS`] heights are here; at most [`MAX_CHECKS`] checks are under way, also counting those whose
//! result nobody wants any more.

use std::collections::BTreeMap;

use millrace_base::{B256, Bytes, NodeId};

use super::limits::{HELD_BYTES, LOOKAHEAD_BLOCKS, MAX_CHECKS, MAX_REQUEST_BLOCKS, MAX_REQUESTS};
use super::peers::Peer;
use crate::engine::FinalBlock;

/// Memory of a decoded block over its bytes on the wire: transactions keep their encoded form and the fields' own copies.
const DECODED_FACTOR: usize = 2;

/// A checked block.
pub(super) struct Ready {
    pub from: NodeId,
    pub hash: B256,
    pub block: FinalBlock,
    pub size: usize,
    pub is_delivered: bool,
}

/// Where a height stands.
pub(super) enum Slot {
    Requested(u64),
    Fetched { from: NodeId, bytes: Bytes },
    Checking { from: NodeId, ticket: u64, size: usize },
    Ready(Box<Ready>),
}

impl Slot {
    fn bytes(&self) -> usize {
        match self {
            Self::Requested(_) => 0,
            Self::Fetched { bytes, .. } => bytes.len(),
            Self::Checking { size, .. } => *size,
            Self::Ready(ready) => ready.size,
        }
    }

    fn sender(&self) -> Option<NodeId> {
        match self {
            Self::Requested(_) => None,
            Self::Fetched { from, .. } | Self::Checking { from, .. } => Some(*from),
            Self::Ready(ready) => Some(ready.from),
        }
    }
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub peer: NodeId,
    pub from: u64,
    pub count: u32,
    pub max_bytes: u32,
    pub sent_ms: u64,
    pub deadline_ms: u64,
}

/// What became of a check.
pub(super) enum Settled {
    /// Nobody waits for it any more.
    Stale,
    /// The block of this sender at this height.
    Wanted { height: u64, from: NodeId, size: usize },
}

/// See the module.
#[derive(Default)]
pub(super) struct Download {
    slots: BTreeMap<u64, Slot>,
    requests: BTreeMap<u64, Request>,
    /// Height by ticket of each check under way.
    tickets: BTreeMap<u64, u64>,
    held_bytes: usize,
    /// Bytes of a block, lately; 0 is not known.
    average_bytes: usize,
    next_id: u64,
}

impl Download {
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub fn held_blocks(&self) -> usize {
        self.slots.values().filter(|slot| slot.bytes() > 0).count()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn slot(&mut self, height: u64) -> Option<&mut Slot> {
        self.slots.get_mut(&height)
    }

    pub fn ready(&self, height: u64) -> Option<&Ready> {
        match self.slots.get(&height) {
            Some(Slot::Ready(ready)) => Some(ready),
            _ => None,
        }
    }

    fn put(&mut self, height: u64, slot: Slot) {
        self.held_bytes += slot.bytes();
        if let Some(old) = self.slots.insert(height, slot) {
            self.held_bytes -= old.bytes();
        }
    }

    /// The height is missing again.
    pub fn release(&mut self, height: u64) {
        if let Some(old) = self.slots.remove(&height) {
            self.held_bytes -= old.bytes();
        }
    }

    /// Forgets heights up to the durable one.
    pub fn advance(&mut self, durable: u64) {
        while let Some((height, _)) = self.slots.first_key_value().filter(|(height, _)| **height <= durable) {
            let height = *height;
            self.release(height);
        }
    }

    /// Forgets everything that is not under way elsewhere; gives the peers that were asked.
    pub fn clear(&mut self) -> Vec<NodeId> {
        self.slots.clear();
        self.held_bytes = 0;
        std::mem::take(&mut self.requests).into_values().map(|request| request.peer).collect()
    }

    /// Forgets what a peer was asked for.
    pub fn drop_requests(&mut self, node: &NodeId) {
        let asked: Vec<u64> = self.requests.iter().filter(|(_, request)| request.peer == *node).map(|(id, _)| *id).collect();
        for id in asked {
            self.take_request(id);
        }
    }

    /// Forgets what came from a peer and what it was asked for.
    pub fn drop_peer(&mut self, node: &NodeId) {
        self.drop_requests(node);
        let theirs: Vec<u64> = self.slots.iter().filter(|(_, slot)| slot.sender() == Some(*node)).map(|(height, _)| *height).collect();
        theirs.into_iter().for_each(|height| self.release(height));
    }

    /// The lowest missing heights above `durable` and up to `target`: start and length. `None` when none may be asked for now.
    pub fn gap(&self, durable: u64, target: u64) -> Option<(u64, u64)> {
        if self.requests.len() >= MAX_REQUESTS {
            return None;
        }
        let last = target.min(durable.saturating_add(LOOKAHEAD_BLOCKS));
        let start = (durable + 1..=last).find(|height| !self.slots.contains_key(height))?;
        // Whatever is held, the height that all others wait for can be asked for.
        let is_next = !self.slots.range(..start).any(|(_, slot)| matches!(slot, Slot::Requested(_)));
        let reserved: usize = self.requests.values().map(|request| request.max_bytes as usize).sum();
        if self.held_bytes + reserved > HELD_BYTES && !(is_next && self.first_unready(durable) == start) {
            return None;
        }
        let end = self.slots.range(start..).next().map_or(last, |(height, _)| last.min(height - 1));
        Some((start, end - start + 1))
    }

    fn first_unready(&self, durable: u64) -> u64 {
        let ready = self.slots.range(durable + 1..).zip(durable + 1..);
        durable + 1 + ready.take_while(|((height, slot), expected)| *height == expected && slot.bytes() > 0).count() as u64
    }

    /// Blocks to ask a peer for at once.
    pub fn shard(&self, peer: &Peer) -> u64 {
        let fits = peer.request_bytes() as usize / self.average_bytes.max(1);
        // Before the size of blocks is known, a few.
        let most = if self.average_bytes == 0 { 8 } else { u64::from(MAX_REQUEST_BLOCKS) };
        (fits as u64).clamp(1, most)
    }

    /// The request that everything else waits for, if it has been on its way since before `before_ms`: its peer, start and length.
    pub fn overdue(&self, durable: u64, before_ms: u64) -> Option<(NodeId, u64, u64)> {
        let (start, slot) = self.slots.range(durable + 1..).find(|(_, slot)| matches!(slot, Slot::Requested(_)))?;
        let Slot::Requested(id) = slot else { return None };
        let request = self.requests.get(id).filter(|request| request.sent_ms < before_ms)?;
        let same = self.slots.range(start..).take_while(|(_, slot)| matches!(slot, Slot::Requested(asked) if asked == id));
        (self.requests.len() <= MAX_REQUESTS).then_some((request.peer, *start, same.count() as u64))
    }

    pub fn ask(&mut self, request: Request) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        for height in request.from..request.from + u64::from(request.count) {
            self.put(height, Slot::Requested(id));
        }
        self.requests.insert(id, request);
        id
    }

    pub fn request(&self, id: u64) -> Option<&Request> {
        self.requests.get(&id)
    }

    /// Ends a request; the heights it has not brought are missing again.
    pub fn take_request(&mut self, id: u64) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        for height in request.from..request.from + u64::from(request.count) {
            if matches!(self.slots.get(&height), Some(Slot::Requested(asked)) if *asked == id) {
                self.release(height);
            }
        }
        Some(request)
    }

    /// Blocks of an answer, no more than were asked for. The request ends.
    pub fn fill(&mut self, id: u64, blocks: Vec<Bytes>) {
        let Some(request) = self.requests.get(&id).copied() else { return };
        for (height, bytes) in (request.from..).zip(blocks) {
            let size = bytes.len();
            self.average_bytes = if self.average_bytes == 0 { size } else { (7 * self.average_bytes + size) / 8 }.max(1);
            // Whoever of two that were asked answers first.
            if matches!(self.slots.get(&height), Some(Slot::Requested(_))) {
                self.put(height, Slot::Fetched { from: request.peer, bytes });
            }
        }
        self.take_request(id);
    }

    /// A request whose time has run out.
    pub fn expired(&self, now_ms: u64) -> Option<u64> {
        self.requests.iter().find(|(_, request)| request.deadline_ms <= now_ms).map(|(id, _)| *id)
    }

    /// The next block to be checked, lowest first: ticket, sender, height, bytes.
    pub fn next_check(&mut self) -> Option<(u64, NodeId, u64, Bytes)> {
        if self.tickets.len() >= MAX_CHECKS {
            return None;
        }
        let fetched = self.slots.iter().find_map(|(height, slot)| match slot {
            Slot::Fetched { from, bytes } => Some((*height, *from, bytes.clone())),
            _ => None,
        });
        let (height, from, bytes) = fetched?;
        self.next_id += 1;
        let ticket = self.next_id;
        self.tickets.insert(ticket, height);
        self.put(height, Slot::Checking { from, ticket, size: bytes.len() });
        Some((ticket, from, height, bytes))
    }

    /// A check has ended.
    pub fn settle(&mut self, ticket: u64) -> Settled {
        let Some(height) = self.tickets.remove(&ticket) else { return Settled::Stale };
        match self.slots.get(&height) {
            Some(Slot::Checking { from, ticket: current, size }) if *current == ticket => {
                Settled::Wanted { height, from: *from, size: *size }
            }
            _ => Settled::Stale,
        }
    }

    pub fn set_ready(&mut self, height: u64, from: NodeId, hash: B256, block: FinalBlock, wire_bytes: usize) {
        let size = wire_bytes.max(1) * DECODED_FACTOR;
        self.put(height, Slot::Ready(Box::new(Ready { from, hash, block, size, is_delivered: false })));
    }

    /// Heights that were handed on and are not durable yet.
    pub fn delivered(&self) -> Vec<(u64, NodeId)> {
        let delivered = self.slots.iter().filter_map(|(height, slot)| match slot {
            Slot::Ready(ready) if ready.is_delivered => Some((*height, ready.from)),
            _ => None,
        });
        delivered.collect()
    }
}
