//! Admission order, limits and reservations of one pool: the part under the pool's one short lock.
//!
//! Invariants: `count`, `bytes` and each submitter's share are exactly those of the slots in use; the waiting list is sorted by sequence
//! number, a strict total order of admission; a transaction is in the waiting list if and only if it may be handed out. Called by
//! [`super::TxPool`], which removes what this module marks as [`Place::Leaving`].
//!
//! ```text
//!            admit             take, claim
//!   (free) --------> Waiting <-------------> Proposed      back: give_back, void_above, settle
//!                       |  expired              |
//!                       v                       |  committed, or its nonce was
//!                    Leaving -----------------> (free) <---
//! ```

use std::collections::{BTreeMap, HashMap};

use millrace_base::{B256, U256, VerifiedTx};

use super::Submitter;
use super::refusal::Reason;

/// Index of a slot.
pub(super) type Node = u32;

/// No slot.
const NIL: Node = Node::MAX;

/// A pool this small keeps its memory when it runs empty.
const SMALL: usize = 1_024;

/// Sizes above which nothing is admitted, and above which shares count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub count: usize,
    pub bytes: usize,
    pub watermark_count: usize,
    pub watermark_bytes: usize,
    pub expiration_ms: u64,
}

/// What one submitter holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// Transactions.
    pub count: usize,
    /// Their [`VerifiedTx::memory_bytes`].
    pub bytes: usize,
}

/// Height and time that decide what is expired.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Last committed height.
    pub head: u64,
    pub now_ms: u64,
}

/// A proposal's wish.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub height: u64,
    pub count: usize,
    pub bytes: usize,
    /// Most expired transactions to mark on the way.
    pub expired: usize,
}

/// Identifies a slot's content: nodes are reused, sequence numbers are not.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ticket {
    node: Node,
    sequence: u64,
}

/// A transaction that has expired and must be removed by the pool.
pub(super) struct Leaving {
    pub transaction: VerifiedTx,
    ticket: Ticket,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Free,
    Waiting,
    /// In a proposal for this height.
    Proposed(u64),
    Leaving,
}

struct Slot {
    transaction: Option<VerifiedTx>,
    sequence: u64,
    admitted_ms: u64,
    /// Admission bounds block limits to the head plus the window, so they fit.
    block_limit: u64,
    submitter: Submitter,
    bytes: usize,
    place: Place,
    previous: Node,
    next: Node,
}

/// Counters that change under this lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct QueueCounters {
    pub admitted: u64,
    pub taken: u64,
    pub given_back: u64,
}

/// See the module.
pub(super) struct Queue {
    limits: Limits,
    slots: Vec<Slot>,
    free: Node,
    first: Node,
    last: Node,
    waiting: usize,
    count: usize,
    bytes: usize,
    next_sequence: u64,
    submitters: HashMap<Submitter, Holding>,
    /// By height; tickets whose slot has moved on are ignored.
    reserved: BTreeMap<u64, Vec<Ticket>>,
    /// How many tickets that is.
    tickets: usize,
    /// Where the next timer scan begins.
    scan: usize,
    pub counters: QueueCounters,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: NIL,
            first: NIL,
            last: NIL,
            waiting: 0,
            count: 0,
            bytes: 0,
            next_sequence: 0,
            submitters: HashMap::new(),
            reserved: BTreeMap::new(),
            tickets: 0,
            scan: 0,
            counters: QueueCounters::default(),
        }
    }

    /// Whether a transaction of `bytes` may come in. Above the watermark a submitter may hold at most as much as is still free, so any
    /// number of greedy ones leave room, and the last place goes to one who holds nothing.
    pub(super) fn room(&self, submitter: Submitter, bytes: usize) -> Result<(), Reason> {
        let Limits { count: most, bytes: most_bytes, watermark_count, watermark_bytes, .. } = self.limits;
        let bytes_after = self.bytes.saturating_add(bytes);
        if bytes_after > most_bytes {
            return Err(Reason::OverMemory);
        }
        if self.count >= most {
            return Err(Reason::Full);
        }
        if self.count < watermark_count && bytes_after <= watermark_bytes {
            return Ok(());
        }
        let held = self.holding(submitter);
        if bytes_after > watermark_bytes && held.bytes > 0 && held.bytes >= most_bytes - self.bytes {
            return Err(Reason::OverMemory);
        }
        if self.count >= watermark_count && held.count >= most - self.count {
            return Err(Reason::Full);
        }
        Ok(())
    }

    /// Takes the transaction in, at the end of the waiting list, if there is [`Self::room`].
    pub(super) fn admit(&mut self, transaction: VerifiedTx, submitter: Submitter, now_ms: u64) -> Result<Node, Reason> {
        let bytes = transaction.memory_bytes();
        self.room(submitter, bytes)?;
        let slot = Slot {
            sequence: self.next_sequence,
            admitted_ms: now_ms,
            block_limit: transaction.fields().block_limit.saturating_to(),
            transaction: Some(transaction),
            submitter,
            bytes,
            place: Place::Waiting,
            previous: NIL,
            next: NIL,
        };
        self.next_sequence += 1;
        self.counters.admitted += 1;
        self.count += 1;
        self.bytes += bytes;
        let holding = self.submitters.entry(submitter).or_default();
        holding.count += 1;
        holding.bytes += bytes;
        let node = self.store(slot);
        self.link(node, self.last, NIL);
        Ok(node)
    }

    fn store(&mut self, slot: Slot) -> Node {
        if self.free == NIL {
            let node = Node::try_from(self.slots.len()).expect("count limits are below 2^32 - 1");
            self.slots.push(slot);
            return node;
        }
        let node = self.free;
        self.free = self.slots[node as usize].next;
        self.slots[node as usize] = slot;
        node
    }

    fn slot(&mut self, node: Node) -> &mut Slot {
        &mut self.slots[node as usize]
    }

    /// Puts a node into the waiting list between two neighbours.
    fn link(&mut self, node: Node, previous: Node, next: Node) {
        let slot = self.slot(node);
        (slot.previous, slot.next, slot.place) = (previous, next, Place::Waiting);
        match previous {
            NIL => self.first = node,
            _ => self.slot(previous).next = node,
        }
        match next {
            NIL => self.last = node,
            _ => self.slot(next).previous = node,
        }
        self.waiting += 1;
    }

    /// Takes a node out of the waiting list, to stand at `place`.
    fn unlink(&mut self, node: Node, place: Place) {
        let slot = self.slot(node);
        debug_assert_eq!(slot.place, Place::Waiting);
        let (previous, next) = (slot.previous, slot.next);
        slot.place = place;
        match previous {
            NIL => self.first = next,
            _ => self.slot(previous).next = next,
        }
        match next {
            NIL => self.last = previous,
            _ => self.slot(next).previous = previous,
        }
        self.waiting -= 1;
    }

    /// Removes a transaction whatever its state. The caller knows that `node` is its: the pool's indices say so under their lock.
    pub(super) fn release(&mut self, node: Node) {
        if self.slot(node).place == Place::Waiting {
            self.unlink(node, Place::Free);
        }
        let free = self.free;
        let slot = self.slot(node);
        let (submitter, bytes) = (slot.submitter, slot.bytes);
        (slot.place, slot.transaction, slot.next) = (Place::Free, None, free);
        self.free = node;
        self.count -= 1;
        self.bytes -= bytes;
        let holding = self.submitters.get_mut(&submitter).expect("a submitter with a transaction has a holding");
        holding.count -= 1;
        holding.bytes -= bytes;
        if holding.count == 0 {
            self.submitters.remove(&submitter);
        }
    }

    /// As [`Self::release`], if the transaction is still leaving: a claim may have called it back, a commit removed it. Whether it was.
    pub(super) fn release_leaving(&mut self, leaving: &Leaving) -> bool {
        let is_leaving = self.stands(leaving.ticket, Place::Leaving);
        if is_leaving {
            self.release(leaving.ticket.node);
        }
        is_leaving
    }

    /// Whether a ticket's transaction still is where it was when the ticket was written.
    fn stands(&self, ticket: Ticket, place: Place) -> bool {
        self.slots.get(ticket.node as usize).is_some_and(|slot| slot.sequence == ticket.sequence && slot.place == place)
    }

    /// Writes down that a slot stands in the proposal at `height`.
    fn reserve(&mut self, height: u64, ticket: Ticket) {
        self.reserved.entry(height).or_default().push(ticket);
        self.tickets += 1;
        if self.tickets > SMALL + 2 * self.count {
            self.forget_void_tickets();
        }
    }

    /// Drops tickets of proposals that died, so that a height proposed again and again keeps no more tickets than there are slots.
    fn forget_void_tickets(&mut self) {
        let mut reserved = std::mem::take(&mut self.reserved);
        for (height, tickets) in &mut reserved {
            tickets.sort_unstable_by_key(|ticket| ticket.sequence);
            tickets.dedup();
            tickets.retain(|ticket| self.stands(*ticket, Place::Proposed(*height)));
        }
        reserved.retain(|_, tickets| !tickets.is_empty());
        self.tickets = reserved.values().map(Vec::len).sum();
        self.reserved = reserved;
    }

    /// Hands out waiting transactions with a free nonce, oldest first, until one does not fit. The first fits always, so that none can
    /// block the others.
    pub(super) fn take(
        &mut self,
        wish: Wish,
        moment: Moment,
        is_free: impl Fn(&U256) -> bool,
        out: &mut Vec<VerifiedTx>,
        leaving: &mut Vec<Leaving>,
    ) {
        let (mut node, mut count, mut bytes) = (self.first, 0, 0_usize);
        while node != NIL && count < wish.count {
            let slot = &self.slots[node as usize];
            let (next, ticket) = (slot.next, Ticket { node, sequence: slot.sequence });
            let transaction = slot.transaction.as_ref().expect("waiting slots are in use");
            if self.is_expired(slot, moment) {
                if leaving.len() < wish.expired {
                    leaving.push(Leaving { transaction: transaction.clone(), ticket });
                    self.unlink(node, Place::Leaving);
                }
            } else if slot.block_limit >= wish.height && is_free(&transaction.fields().nonce) {
                bytes = bytes.saturating_add(transaction.encoded().len());
                if bytes > wish.bytes && count > 0 {
                    break;
                }
                out.push(transaction.clone());
                count += 1;
                self.unlink(node, Place::Proposed(wish.height));
                self.reserve(wish.height, ticket);
            }
            node = next;
        }
        self.counters.taken += count as u64;
    }

    fn is_expired(&self, slot: &Slot, moment: Moment) -> bool {
        slot.block_limit <= moment.head || moment.now_ms.saturating_sub(slot.admitted_ms) >= self.limits.expiration_ms
    }

    /// The slot of `hash`, if `node` is still its.
    fn find(&mut self, node: Node, hash: B256) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(node as usize)?;
        let is_same = slot.transaction.as_ref().is_some_and(|transaction| transaction.hash() == hash);
        is_same.then_some(slot)
    }

    /// Reserves a transaction for someone else's proposal at `height`; the last claim counts.
    pub(super) fn claim(&mut self, node: Node, hash: B256, height: u64) {
        let Some(slot) = self.find(node, hash) else { return };
        let ticket = Ticket { node, sequence: slot.sequence };
        match slot.place {
            Place::Proposed(other) if other == height => return,
            Place::Waiting => self.unlink(node, Place::Proposed(height)),
            _ => slot.place = Place::Proposed(height),
        }
        self.reserve(height, ticket);
    }

    /// Makes transactions of a dead proposal available again, each at its old place in the order.
    pub(super) fn give_back(&mut self, nodes: impl Iterator<Item = (Node, B256)>) {
        let mut back = Vec::new();
        for (node, hash) in nodes {
            if let Some(slot) = self.find(node, hash)
                && matches!(slot.place, Place::Proposed(_))
            {
                back.push(Ticket { node, sequence: slot.sequence });
            }
        }
        self.return_all(back);
    }

    /// Makes everything reserved for heights above `height` available again.
    pub(super) fn void_above(&mut self, height: u64) {
        let void = match height.checked_add(1) {
            Some(from) => self.reserved.split_off(&from),
            None => BTreeMap::new(),
        };
        self.return_reserved(void);
    }

    /// The block at `height` is committed: what was reserved for it, or below, and is still here was not part of it.
    pub(super) fn settle(&mut self, height: u64) {
        let above = match height.checked_add(1) {
            Some(from) => self.reserved.split_off(&from),
            None => BTreeMap::new(),
        };
        let settled = std::mem::replace(&mut self.reserved, above);
        self.return_reserved(settled);
    }

    fn return_reserved(&mut self, reservations: BTreeMap<u64, Vec<Ticket>>) {
        let mut back = Vec::new();
        for (height, tickets) in reservations {
            self.tickets -= tickets.len();
            back.extend(tickets.into_iter().filter(|ticket| self.stands(*ticket, Place::Proposed(height))));
        }
        self.return_all(back);
    }

    /// Merges tickets of proposed slots into the waiting list. What comes back is usually older than what waits, so the walk is short.
    fn return_all(&mut self, mut back: Vec<Ticket>) {
        back.sort_unstable_by_key(|ticket| ticket.sequence);
        let mut next = self.first;
        for ticket in back {
            if !matches!(self.slot(ticket.node).place, Place::Proposed(_)) {
                continue; // named twice
            }
            while next != NIL && self.slot(next).sequence < ticket.sequence {
                next = self.slot(next).next;
            }
            let previous = if next == NIL { self.last } else { self.slot(next).previous };
            self.link(ticket.node, previous, next);
            self.counters.given_back += 1;
        }
    }

    /// Looks at the next `limit` slots, round and round, and marks waiting transactions that have expired.
    pub(super) fn expire(&mut self, moment: Moment, limit: usize, leaving: &mut Vec<Leaving>) {
        for _ in 0..limit.min(self.slots.len()) {
            if self.scan >= self.slots.len() {
                self.scan = 0;
            }
            let slot = &self.slots[self.scan];
            if slot.place == Place::Waiting && self.is_expired(slot, moment) {
                let node = self.scan as Node;
                let transaction = slot.transaction.clone().expect("waiting slots are in use");
                leaving.push(Leaving { transaction, ticket: Ticket { node, sequence: slot.sequence } });
                self.unlink(node, Place::Leaving);
            }
            self.scan += 1;
        }
    }

    /// Frees the memory of a busy time once nothing is left. Tickets of the old slots die with them.
    pub(super) fn shrink_when_empty(&mut self) -> bool {
        let shrinks = self.count == 0 && self.slots.capacity() > SMALL;
        if shrinks {
            (self.slots, self.free, self.scan) = (Vec::new(), NIL, 0);
            self.reserved.clear();
            self.tickets = 0;
            self.submitters.shrink_to_fit();
        }
        shrinks
    }

    /// What the pool holds, reserved or waiting, oldest first, at most `limit`.
    pub(super) fn oldest(&self, limit: usize) -> Vec<VerifiedTx> {
        let mut nodes: Vec<(u64, Node)> = Vec::new();
        for (height, tickets) in &self.reserved {
            let standing = tickets.iter().filter(|ticket| self.stands(**ticket, Place::Proposed(*height)));
            nodes.extend(standing.map(|ticket| (ticket.sequence, ticket.node)));
        }
        let exists = |node: &Node| *node != NIL;
        let waiting = std::iter::successors(Some(self.first).filter(exists), |node| Some(self.slots[*node as usize].next).filter(exists));
        nodes.extend(waiting.take(limit).map(|node| (self.slots[node as usize].sequence, node)));
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().take(limit).filter_map(|(_, node)| self.slots[node as usize].transaction.clone()).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Tickets of all proposals, void ones included.
    #[cfg(test)]
    pub(super) fn tickets(&self) -> usize {
        self.tickets
    }

    pub(super) fn submitters(&self) -> usize {
        self.submitters.len()
    }

    pub(super) fn holding(&self, submitter: Submitter) -> Holding {
        self.submitters.get(&submitter).copied().unwrap_or_default()
    }
}
