//! Between the log and the pool: entries are taken once their transactions are here, recorded, sent and ordered.
//!
//! Invariants: no entry of a height that is not durable enters this node's log without its transactions, and with them it is recorded
//! before it is acknowledged; what the pool holds for heights in flight is what the log or a waiting message has there.

use std::collections::{BTreeMap, VecDeque};

use millrace_base::{B256, NodeId, VerifiedTx, wire};

use super::RaftEngine;
use super::log::{Item, Placed, Position, Promise};
use super::message::{Kind, Message, RaftFrame};
use super::node::Lost;
use super::records::{PROMISE_HEIGHTS, Record, kept_to};
use crate::engine::{Effect, ProposalHeader};
use crate::pbft::message::{Brief, Content, contents_of};

/// Messages with entries that wait: as many as a leader has on its way.
const HELD: usize = 64;

/// Bytes of their entries.
const HELD_BYTES: usize = 16 << 20;

/// A message whose entries may lack transactions.
struct Held {
    from: NodeId,
    sealer: u32,
    frame: RaftFrame,
    proposals: Vec<Option<Placed>>,
}

impl Held {
    fn bytes(&self) -> usize {
        self.frame.entries.iter().map(|entry| entry.data.len()).sum()
    }

    fn has(&self, height: u64, contents: B256) -> bool {
        self.proposals.iter().flatten().any(|placed| placed.header.height == height && placed.contents == contents)
    }
}

/// What becomes of a message with entries.
enum Verdict {
    /// The log takes it, or answers it.
    Step,
    /// It lacks transactions, or lies too far ahead.
    Wait,
    /// The chain went another way.
    Ignore,
    /// No honest leader sends it.
    Refuse(String),
}

/// See the module.
#[derive(Default)]
pub struct Replication {
    held: VecDeque<Held>,
    /// A place in the log that the chain has not reached.
    snapshot: Option<(u32, RaftFrame)>,
    /// What the pool is asked for.
    gathering: BTreeMap<u64, B256>,
    /// What it gave, until it is in the log.
    gathered: BTreeMap<u64, (B256, Vec<VerifiedTx>)>,
    /// What it holds for heights in flight.
    pub reserved: BTreeMap<u64, B256>,
    /// As last recorded.
    pub promised: Promise,
    pub promise_kept_to: u64,
    /// Height until which the base of the log is recorded by itself.
    pub base_kept_to: u64,
}

impl Replication {
    /// A height is handed out for execution, which makes the pool hold what it executes.
    pub fn execute(&mut self, height: u64, contents: B256) {
        if self.reserved.get(&height) != Some(&contents) {
            self.reserved.split_off(&height);
            self.reserved.insert(height, contents);
        }
        self.gathering.remove(&height);
    }

    /// Heights up to this one are durable.
    pub fn settle(&mut self, height: u64) {
        let above = height.saturating_add(1);
        self.gathering = self.gathering.split_off(&above);
        self.gathered = self.gathered.split_off(&above);
        self.reserved = self.reserved.split_off(&above);
    }
}

impl RaftEngine {
    // ---- what comes in

    pub(super) fn on_raft(&mut self, from: NodeId, frame: RaftFrame) {
        let Some(sealer) = self.epoch.index_of(&from) else {
            return self.refuse(from, "a raft message of a node that is no sealer".into());
        };
        let Some(node) = self.node.as_mut() else { return };
        if let Err(lost) = node.check(&frame) {
            return self.on_lost(&lost);
        }
        match frame.kind {
            Kind::Append => self.hold(from, sealer, frame),
            Kind::Snapshot if frame.position.is_some_and(|position| position.height > self.committed_height) => {
                self.replication.snapshot = Some((sealer, frame));
            }
            _ => node.step(sealer, frame),
        }
    }

    fn hold(&mut self, from: NodeId, sealer: u32, frame: RaftFrame) {
        let read: Result<Vec<_>, String> = frame.entries.iter().map(|entry| self.read_entry(&entry.data)).collect();
        let proposals = match read {
            Ok(proposals) => proposals,
            Err(reason) => return self.refuse(from, reason),
        };
        let held = &mut self.replication.held;
        held.retain(|other| other.frame.term >= frame.term);
        let is_outdated = held.iter().any(|other| other.frame.term > frame.term);
        let bytes: usize = held.iter().map(Held::bytes).sum();
        // What does not fit comes again: the leader repeats what is not acknowledged. An empty message is a commit, and cheap.
        let is_full = held.len() >= HELD || (bytes > HELD_BYTES && !frame.entries.is_empty());
        if is_outdated || is_full || held.iter().any(|other| other.frame == frame) {
            return;
        }
        held.push_back(Held { from, sealer, frame, proposals });
    }

    fn read_entry(&self, data: &[u8]) -> Result<Option<Placed>, String> {
        let Some(placed) = Placed::read(data, &self.domain)? else { return Ok(None) };
        let header = &placed.header;
        if header.epoch.0 != self.epoch_hash || header.sealer as usize >= self.epoch.sealers.len() {
            return Err(format!("the raft entry of height {} is of another epoch", header.height));
        }
        if header.transactions.len() as u64 > self.epoch.tx_count_limit {
            let (count, limit) = (header.transactions.len(), self.epoch.tx_count_limit);
            return Err(format!("the raft entry of height {} has {count} transactions, {limit} are allowed", header.height));
        }
        Ok(Some(placed))
    }

    /// Gives the log what waited and need not wait any more; `true` when there was something.
    pub(super) fn take_held(&mut self) -> bool {
        // Entries must be complete before a message is judged by them.
        let mut has_moved = self.carry_out();
        let committed = self.committed_height;
        let reached = |(_, frame): &mut (u32, RaftFrame)| frame.position.is_none_or(|position| position.height <= committed);
        if let Some((sealer, frame)) = self.replication.snapshot.take_if(reached) {
            self.step(sealer, frame);
            has_moved = true;
        }
        while let Some(first) = self.replication.held.pop_front() {
            match self.judge(&first) {
                Verdict::Step => {
                    self.step(first.sealer, first.frame);
                    has_moved = true;
                }
                Verdict::Wait => {
                    self.replication.held.push_front(first);
                    return has_moved;
                }
                Verdict::Ignore => {}
                Verdict::Refuse(reason) => self.refuse(first.from, reason),
            }
        }
        has_moved
    }

    fn step(&mut self, sealer: u32, frame: RaftFrame) {
        if let Some(node) = self.node.as_mut() {
            node.step(sealer, frame);
        }
        self.carry_out();
    }

    /// Looks at the entries that are new here, and asks for what they lack.
    fn judge(&mut self, held: &Held) -> Verdict {
        let Some(node) = self.node.as_ref().filter(|node| node.takes(&held.frame)) else { return Verdict::Step };
        let first = held.frame.index + 1;
        let is_known = |(index, entry): &(u64, &super::message::WireEntry)| node.log().term_at(*index) == Some(entry.term);
        let known = (first..).zip(&held.frame.entries).take_while(is_known).count();
        let Some(Position { mut height, mut contents, .. }) = node.log().position(held.frame.index + known as u64) else {
            return Verdict::Step;
        };
        let mut verdict = Verdict::Step;
        self.reserve_log(height);
        for placed in held.proposals[known..].iter().flatten() {
            if placed.header.height != height + 1 || contents.is_some_and(|contents| placed.header.below.0 != contents) {
                return Verdict::Refuse(format!("the raft entry of height {} does not follow height {height}", placed.header.height));
            }
            (height, contents) = (placed.header.height, Some(placed.contents.0));
            if height > self.last_tracked() {
                return Verdict::Wait;
            }
            // A leader of the past whose proposal was never ordered.
            if self.slots.get(&height).and_then(|slot| slot.contents).is_some_and(|known| known != placed.contents) {
                return Verdict::Ignore;
            }
            if height < self.next_to_execute || height <= self.committed_height {
                continue;
            }
            match self.at_hand(height, placed.contents) {
                // What the pool holds is known to it from below, so this one waits for those that do.
                Some(_) if matches!(verdict, Verdict::Wait) => {}
                Some(transactions) => self.reserve(height, placed.contents, transactions),
                None => {
                    self.gather(placed, held.sealer);
                    verdict = Verdict::Wait;
                }
            }
        }
        verdict
    }

    /// The transactions of a proposal, wherever this node keeps them.
    fn at_hand(&self, height: u64, contents: B256) -> Option<Vec<VerifiedTx>> {
        let gathered = self.replication.gathered.get(&height).filter(|(known, _)| *known == contents);
        if let Some((_, transactions)) = gathered {
            return Some(transactions.clone());
        }
        let slot = self.slots.get(&height).filter(|slot| slot.contents == Some(contents));
        let ordered = slot.and_then(|slot| slot.ordered.as_ref()).map(|proposal| proposal.transactions.clone());
        let placed = || self.node.as_ref()?.log().at_height(height).filter(|placed| placed.contents == contents)?.transactions.clone();
        ordered.or_else(placed)
    }

    /// Asks the pool; the leader has the transactions, and who else heard of them may have them.
    fn gather(&mut self, placed: &Placed, leader: u32) {
        let (height, contents) = (placed.header.height, placed.contents);
        if self.replication.gathering.get(&height) == Some(&contents) {
            return;
        }
        self.clear_from(height);
        self.replication.gathering.insert(height, contents);
        let others = (0..self.epoch.sealers.len() as u32).filter(|sealer| *sealer != leader && Some(*sealer) != self.own);
        let holders = std::iter::once(leader).chain(others).filter_map(|sealer| self.epoch.sealers.get(sealer as usize).copied());
        let (hashes, holders) = (placed.header.transactions.clone(), holders.collect());
        self.effects.push(Effect::Gather { height, digest: contents, hashes, holders });
    }

    pub(super) fn on_gathered(&mut self, height: u64, contents: B256, transactions: Vec<VerifiedTx>) {
        if self.replication.gathering.get(&height) != Some(&contents) {
            return;
        }
        self.replication.gathering.remove(&height);
        self.replication.reserved.insert(height, contents);
        self.replication.gathered.insert(height, (contents, transactions));
    }

    /// The pool says that the proposal cannot be a block: the messages that carry it are not answered.
    pub(super) fn on_refused(&mut self, height: u64, contents: B256, reason: &str) {
        if self.replication.gathering.get(&height) != Some(&contents) {
            return;
        }
        self.replication.gathering.remove(&height);
        let from = self.replication.held.iter().find(|held| held.has(height, contents)).map(|held| held.from);
        self.replication.held.retain(|held| !held.has(height, contents));
        if let Some(from) = from {
            self.refuse(from, format!("raft entry of height {height}: {reason}"));
        }
    }

    // ---- what the log wants done

    /// Records, sends and orders what follows from what the log was told; `true` when there was something.
    pub(super) fn carry_out(&mut self) -> bool {
        let mut has_moved = false;
        while let Some(work) = self.node.as_mut().and_then(super::Node::take_work) {
            has_moved = true;
            self.keep_promise();
            if work.is_replaced {
                self.record_log();
            }
            for index in work.appended {
                self.complete(index);
            }
            work.messages.into_iter().for_each(|(to, frame)| self.send(to, frame));
            for index in work.ordered {
                self.order(index);
            }
        }
        has_moved
    }

    /// Records the term and the vote when they have changed.
    fn keep_promise(&mut self) {
        let Some(promise) = self.node.as_ref().map(super::Node::promise) else { return };
        if promise != self.replication.promised {
            self.replication.promised = promise;
            self.record_promise();
        }
    }

    pub(super) fn record_promise(&mut self) {
        let Promise { term, vote } = self.replication.promised;
        let kept_to = self.final_height.saturating_add(PROMISE_HEIGHTS);
        self.replication.promise_kept_to = kept_to;
        let record = Record::Promise { epoch: self.epoch_hash, number: self.next_number, term, vote };
        self.record(kept_to, &record);
    }

    /// Records the log as it is, so that it outlives the heights that become durable without it.
    pub(super) fn record_log(&mut self) {
        let kept_to = self.final_height.saturating_add(PROMISE_HEIGHTS);
        let Some(node) = self.node.as_mut() else { return };
        node.log_mut().keep_to(kept_to);
        let log = node.log();
        let entries = log.items_above(0).map(|(_, item)| (item.term, item.data.to_vec())).collect();
        let record = Record::Log { epoch: self.epoch_hash, number: self.next_number, base: *log.base(), entries };
        self.replication.base_kept_to = kept_to;
        self.record(kept_to, &record);
    }

    /// Gives a new entry its proposal with the transactions, and records it.
    fn complete(&mut self, index: u64) {
        let Some((data, term)) = self.node.as_ref().and_then(|node| node.log().item(index)).map(|item| (item.data.clone(), item.term))
        else {
            return;
        };
        let read = Placed::read(&data, &self.domain).expect("entries were read before they were taken");
        let placed = read.map(|placed| {
            let (height, contents) = (placed.header.height, placed.contents);
            let transactions = (height > self.committed_height).then(|| self.at_hand(height, contents)).flatten();
            assert!(transactions.is_some() || height <= self.committed_height, "an entry is taken with its transactions");
            Placed { transactions, ..placed }
        });
        let node = self.node.as_mut().expect("its entry was just there");
        let below = node.log().position(index - 1).expect("entries have no gaps");
        let mut kept_to = kept_to(&below, placed.as_ref());
        if kept_to <= self.final_height.saturating_add(1) {
            kept_to = self.final_height.saturating_add(PROMISE_HEIGHTS);
        }
        if let Some(placed) = &placed {
            self.replication.gathered.remove(&placed.header.height);
        }
        let item = Item { term, data, placed, kept_to };
        let record = Record::entry(self.epoch_hash, self.next_number, below, &item);
        *node.log_mut().item_mut(index).expect("it was just there") = item;
        self.record(kept_to, &record);
    }

    fn send(&mut self, to: u32, frame: RaftFrame) {
        if let Some(to) = self.epoch.sealers.get(to as usize).copied() {
            let payload = Message::Raft(self.epoch_hash, self.epoch.start, frame).encode();
            self.effects.push(Effect::Send { to, payload });
        }
    }

    /// A majority has the entry.
    fn order(&mut self, index: u64) {
        let Some(placed) = self.node.as_ref().and_then(|node| node.log().item(index)?.placed.clone()) else { return };
        let (height, contents) = (placed.header.height, placed.contents);
        if height <= self.final_height {
            return;
        }
        let slot = self.slots.entry(height).or_default();
        match slot.contents {
            Some(known) if known != contents => {
                // Somebody has lost what it acknowledged.
                self.effects.push(Effect::Diverged { height, own: contents, quorum: known });
                self.is_halted = true;
            }
            Some(_) => {}
            None => slot.order(placed.proposal().expect("an entry of a height that is not durable has its transactions"), contents),
        }
    }

    /// A leader counts entries that this node does not have, or a follower some that this leader never had.
    fn on_lost(&mut self, lost: &Lost) {
        let Lost { own, claimed } = *lost;
        self.lost = Some(format!(
            "it acknowledged raft entries up to {claimed} and has them up to {own}: its data was lost or is an old copy; remove it from \
             the sealers and add it again"
        ));
        self.node = None;
        self.replication.held.clear();
        self.void_from(self.next_to_execute);
    }

    // ---- what the pool holds

    /// Makes the pool hold what the log has for the heights in flight up to this one.
    pub(super) fn reserve_log(&mut self, upto: u64) {
        for height in self.next_to_execute.max(self.committed_height + 1)..=upto {
            let Some(placed) = self.node.as_ref().and_then(|node| node.log().at_height(height)) else { return };
            if self.replication.reserved.get(&height) == Some(&placed.contents) {
                continue;
            }
            let (contents, transactions) = (placed.contents, placed.transactions.clone());
            if let Some(transactions) = transactions {
                self.reserve(height, contents, transactions);
            }
        }
    }

    /// Makes the pool hold these transactions for the height, in the place of others.
    fn reserve(&mut self, height: u64, contents: B256, transactions: Vec<VerifiedTx>) {
        if self.replication.reserved.get(&height) != Some(&contents) {
            self.clear_from(height);
            self.replication.reserved.insert(height, contents);
            self.effects.push(Effect::Restore { height, transactions });
        }
    }

    /// Makes way for other content of a height.
    fn clear_from(&mut self, height: u64) {
        let replication = &self.replication;
        if replication.reserved.range(height..).next().is_some() || replication.gathering.range(height..).next().is_some() {
            self.void_from(height);
        }
    }

    /// Gives back what neither the log nor a waiting message has any more; `true` when there was something.
    pub(super) fn release_unused(&mut self) -> bool {
        let Self { replication, node, .. } = self;
        let top = node.as_ref().map_or(0, |node| node.log().end().height).max(self.next_to_execute.saturating_sub(1));
        let is_wanted = |height: u64, contents: B256| replication.held.iter().any(|held| held.has(height, contents));
        let dead = replication.gathering.iter().find(|(height, contents)| !is_wanted(**height, **contents)).map(|(height, _)| *height);
        let unused = replication.reserved.range(top.saturating_add(1)..).find(|(height, contents)| !is_wanted(**height, **contents));
        let unused = unused.map(|(height, _)| *height);
        let Some(height) = dead.into_iter().chain(unused).min() else { return false };
        self.void_from(height);
        true
    }

    /// Nothing that was in flight from this height on stands; what is handed out for execution is not touched.
    pub(super) fn void_from(&mut self, height: u64) {
        // A wish for a lower height is repeated.
        self.asked = None;
        let height = height.max(self.next_to_execute);
        self.replication.reserved.split_off(&height);
        self.replication.gathering.retain(|gathered, _| *gathered < height && *gathered >= self.next_to_execute);
        self.effects.push(Effect::Void { above: height - 1 });
    }

    // ---- leading

    /// Asks for a proposal while this node leads, and takes the wish back when it does not any more.
    pub(super) fn ask_for_proposal(&mut self) {
        let leads_in = self.node.as_ref().filter(|node| node.is_leader()).map(super::Node::term);
        if let Some((height, _)) = self.asked.filter(|(_, term)| Some(*term) != leads_in) {
            self.void_from(height);
        }
        let (Some(term), None, None) = (leads_in, self.asked, self.epoch_ends_at) else { return };
        let Some(end) = self.node.as_ref().map(|node| node.log().end()) else { return };
        let height = end.height + 1;
        let is_decided = height <= self.final_height || self.slots.get(&height).is_some_and(|slot| slot.contents.is_some());
        if is_decided || height > self.committed_height.saturating_add(self.window) {
            return;
        }
        let Some((timestamp_ms, _)) = self.parent(&end) else { return };
        self.reserve_log(end.height);
        self.asked = Some((height, term));
        let limit = self.epoch.tx_count_limit;
        self.effects.push(Effect::Seal { height, view: term, after_timestamp_ms: timestamp_ms, limit });
    }

    /// Timestamp and contents of what a proposal at the end of the log builds on.
    fn parent(&self, end: &Position) -> Option<(u64, B256)> {
        let placed = self.node.as_ref().and_then(|node| node.log().at_height(end.height));
        let placed = placed.map(|placed| (placed.header.timestamp_ms, placed.contents));
        let executed =
            || self.slots.get(&end.height)?.executed.as_ref().map(|(_, header)| (header.timestamp_ms, contents_of(&self.domain, header)));
        let committed = || (end.height == self.committed_height).then_some(self.committed_contents);
        placed.or_else(committed).or_else(executed)
    }

    pub(super) fn on_sealed(&mut self, place: (u64, u64), timestamp_ms: u64, transactions: Vec<VerifiedTx>) {
        let (Some(sealer), true) = (self.own, self.asked == Some(place)) else { return };
        self.asked = None;
        let (height, term) = place;
        let end = self.node.as_ref().filter(|node| node.is_leader() && node.term() == term).map(|node| node.log().end());
        let parent = end.filter(|end| end.height + 1 == height).and_then(|end| self.parent(&end));
        let Some((below_ms, below)) = parent else { return self.void_from(height) };
        let header = ProposalHeader {
            height,
            epoch: self.epoch_hash.into(),
            previous: below,
            below,
            timestamp_ms: timestamp_ms.max(below_ms.saturating_add(1)),
            sealer,
            transactions: transactions.iter().map(VerifiedTx::hash).collect(),
        };
        let contents = Brief::of(&header).contents(&self.domain);
        self.replication.reserved.insert(height, contents);
        self.replication.gathered.insert(height, (contents, transactions));
        let data = wire::encode(&Content::from(&header));
        if !self.node.as_mut().is_some_and(|node| node.propose(data)) {
            self.replication.gathered.remove(&height);
            self.void_from(height);
        }
    }
}
