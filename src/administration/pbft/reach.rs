//! Whom this node reaches, and what the sealers say to each other about it: a leader that is gone is left at once, not after a timeout.
//!
//! Silence takes a timeout to notice. A lost session is noticed at once, but by nobody else than those who had it; so every sealer says
//! whom it lost, and a sealer is gone when a quorum says so. Invariants: nothing is done for what one node sees, so a link that flaps
//! between two nodes, or a partition in one direction, changes no view; what is known here decides when a view is left and which one is
//! wanted, never what may be voted; a leader is left early once between two steps of progress; with nothing to be ordered, or no quorum
//! left, none is. A leader that cannot propose says so itself, and is left for that word alone: by silence it would cost more.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::{Bytes, NodeId};

use super::PbftEngine;
use super::message::{Hash, Message};
use super::repair::HEARTBEAT_MS;
use crate::engine::Effect;

/// How long a session must be lost to count: both ends try again after 100 ms at most, and the handshake takes some milliseconds.
const GRACE_MS: u64 = 300;

/// How long the word of another sealer counts: it is repeated with every heartbeat, two of which may be lost.
const FRESH_MS: u64 = 3 * HEARTBEAT_MS;

/// What a sealer said.
struct Word {
    at_ms: u64,
    gone: BTreeSet<u32>,
}

/// See the module. All times are of the engine's own clock.
#[derive(Default)]
pub struct Reach {
    /// With whom there is a session; none before the first word of it, which came at `since_ms`.
    present: Option<BTreeSet<NodeId>>,
    since_ms: u64,
    /// Sealers that had a session, and since when they have none.
    lost: BTreeMap<NodeId, u64>,
    /// Sealers that said themselves that they go, and were not heard to be there since.
    leaving: BTreeSet<NodeId>,
    /// The others' last words.
    words: BTreeMap<u32, Word>,
    /// This node's own last word.
    said: BTreeSet<u32>,
    /// View and height in which its leader, perhaps this node, said that it proposes nothing.
    passed: Option<(u64, u64)>,
    /// Since when this node owes a proposal that it cannot make, and where.
    mute: Option<(u64, (u64, u64))>,
    pub is_leaving: bool,
}

impl Reach {
    /// From when on a sealer counts as lost; none while there is a session with it, or nothing is known yet. Whoever was never there may
    /// just be starting and has the time of a whole timeout.
    fn lost_from_ms(&self, node: &NodeId, timeout_ms: u64) -> Option<u64> {
        if self.leaving.contains(node) {
            return Some(0);
        }
        self.present.as_ref().filter(|present| !present.contains(node))?;
        let since_ms = self.lost.get(node).map(|lost_ms| lost_ms.saturating_add(GRACE_MS));
        Some(since_ms.unwrap_or_else(|| self.since_ms.saturating_add(timeout_ms)))
    }

    /// Another epoch: its sealers, ascending, have other numbers.
    pub fn begin_epoch(&mut self, sealers: &[NodeId]) {
        self.words.clear();
        self.said.clear();
        (self.passed, self.mute) = (None, None);
        self.lost.retain(|node, _| sealers.binary_search(node).is_ok());
        self.leaving.retain(|node| sealers.binary_search(node).is_ok());
    }

    /// A sealer was heard.
    pub fn heard(&mut self, node: &NodeId) {
        self.leaving.remove(node);
    }
}

impl PbftEngine {
    pub(super) fn on_reachable(&mut self, nodes: Vec<NodeId>) {
        let now_ms = self.timer.now_ms();
        let present: BTreeSet<NodeId> = nodes.into_iter().collect();
        let before = self.reach.present.replace(present.clone());
        if before.is_none() {
            self.reach.since_ms = now_ms;
        }
        let before = before.unwrap_or_default();
        let mut returned = Vec::new();
        for sealer in self.epoch.sealers.iter().filter(|sealer| before.contains(*sealer) != present.contains(*sealer)) {
            if present.contains(sealer) {
                self.reach.lost.remove(sealer);
                self.reach.leaving.remove(sealer);
                returned.push(*sealer);
            } else {
                self.reach.lost.insert(*sealer, now_ms);
            }
        }
        // Whoever comes, or comes back, learns at once how far this node is and sends what it lacks, and the other way round: what was
        // said before did not reach it.
        if self.has_heartbeat() && !returned.is_empty() {
            self.slots.values_mut().for_each(|slot| slot.touched_ms = None);
            let wanted = self.changing.as_ref().and_then(|changing| changing.own.clone()).map(Message::ViewChange);
            let words: Vec<Bytes> = [Message::Status(self.own_status())].into_iter().chain(wanted).map(|word| word.encode()).collect();
            let send = |to: NodeId| words.iter().map(move |payload| Effect::Send { to, payload: payload.clone() });
            self.effects.extend(returned.into_iter().flat_map(send));
        }
    }

    /// This node goes: it begins nothing more, and says so.
    pub(super) fn on_leaving(&mut self) {
        self.reach.is_leaving = true;
        if let Some((height, _)) = self.asked.take() {
            self.effects.push(Effect::Void { above: height - 1 });
        }
    }

    /// The word of another sealer about whom it lost; about itself, that it goes.
    pub(super) fn on_gone(&mut self, from: NodeId, epoch: Hash, gone: Vec<u32>) {
        let Some(sealer) = self.epoch.index_of(&from).filter(|_| epoch == self.epoch_hash) else { return };
        if gone.len() > self.epoch.sealers.len() {
            return self.refuse(from, "a word that more sealers are gone than there are".into());
        }
        let gone: BTreeSet<u32> = gone.into_iter().collect();
        if gone.contains(&sealer) {
            self.reach.leaving.insert(from);
        }
        match gone.is_empty() {
            true => self.reach.words.remove(&sealer),
            false => self.reach.words.insert(sealer, Word { at_ms: self.timer.now_ms(), gone }),
        };
    }

    /// A leader says that it proposes nothing; of no use where its proposal is known, since that is sent to it.
    pub(super) fn on_pass(&mut self, from: NodeId, epoch: Hash, (view, height): (u64, u64)) {
        let is_near = view == self.view && height > self.committed_height && height <= self.last_tracked();
        if epoch == self.epoch_hash && is_near && self.epoch.index_of(&from) == Some(self.leader(view, height)) {
            self.reach.passed = Some((view, height));
        }
    }

    /// A leader that was restarted may have lost what it had proposed, and must not propose anything else in the same view. When nobody
    /// sends it back, it says so.
    pub(super) fn tell_pass(&mut self) {
        let place = (self.view, self.next_height());
        let is_led = self.own == Some(self.leader(place.0, place.1)) && self.has_spoken(place.1);
        if !is_led || self.changing.is_some() || self.quorum() <= 1 || !self.owes_order() {
            self.reach.mute = None;
            return;
        }
        let now_ms = self.timer.now_ms();
        let since_ms = self.reach.mute.filter(|(_, known)| *known == place).map_or(now_ms, |(since_ms, _)| since_ms);
        self.reach.mute = Some((since_ms, place));
        if now_ms >= since_ms.saturating_add(GRACE_MS) && self.reach.passed != Some(place) {
            self.reach.passed = Some(place);
            self.broadcast(Message::Pass(self.epoch_hash, place.0, place.1).encode());
        }
    }

    pub(super) fn pass_due_ms(&self) -> Option<u64> {
        let due_ms = self.reach.mute.filter(|(_, place)| self.reach.passed != Some(*place)).map(|(since_ms, _)| since_ms + GRACE_MS);
        due_ms.filter(|due_ms| *due_ms > self.timer.now_ms())
    }

    /// Says whom this node lost, when that is not what it said last.
    pub(super) fn tell_gone(&mut self) {
        let gone = self.lost_sealers();
        if gone != self.reach.said {
            self.reach.said = gone;
            self.say_gone();
        }
    }

    /// Says it again; that nobody is lost needs no repetition, since the last word loses its force.
    pub(super) fn repeat_gone(&mut self) {
        if !self.reach.said.is_empty() {
            self.say_gone();
        }
    }

    fn say_gone(&mut self) {
        if self.own.is_some() {
            let gone = self.reach.said.iter().copied().collect();
            self.broadcast(Message::Gone(self.epoch_hash, gone).encode());
        }
    }

    /// Sealers that this node lost, itself if it leaves.
    pub(super) fn lost_sealers(&self) -> BTreeSet<u32> {
        let (now_ms, timeout_ms) = (self.timer.now_ms(), self.epoch.consensus_timeout_ms);
        let is_lost = |index: u32, sealer: &NodeId| match self.own {
            Some(own) if own == index => self.reach.is_leaving,
            _ => self.reach.lost_from_ms(sealer, timeout_ms).is_some_and(|from_ms| now_ms >= from_ms),
        };
        (0..).zip(&self.epoch.sealers).filter(|(index, sealer)| is_lost(*index, sealer)).map(|(index, _)| index).collect()
    }

    /// When the next session will have been lost for long enough.
    pub(super) fn gone_due_ms(&self) -> Option<u64> {
        let (now_ms, timeout_ms) = (self.timer.now_ms(), self.epoch.consensus_timeout_ms);
        let others = (0..).zip(&self.epoch.sealers).filter(|(index, _)| Some(*index) != self.own);
        let due = others.filter_map(|(_, sealer)| self.reach.lost_from_ms(sealer, timeout_ms)).filter(|from_ms| *from_ms > now_ms).min();
        due.filter(|_| self.own.is_some())
    }

    /// Whether a quorum says that a sealer is gone: more honest ones than can be faulty are among them.
    pub(super) fn is_gone(&self, sealer: u32) -> bool {
        if Some(sealer) == self.own {
            return false;
        }
        let oldest_ms = self.timer.now_ms().saturating_sub(FRESH_MS);
        let says = |(_, word): &(&u32, &Word)| word.at_ms >= oldest_ms && word.gone.contains(&sealer);
        let others = self.reach.words.iter().filter(says).count();
        others + usize::from(self.reach.said.contains(&sealer)) >= self.quorum()
    }

    /// The next view that is worth wanting: those whose start is up to a sealer that is gone, or that the present view passes over, are
    /// left out.
    pub(super) fn view_after(&self, view: u64) -> u64 {
        let first = view.saturating_add(1);
        let turns = self.epoch.sealers.len() as u64;
        let is_there = |sealer: u32| !self.is_gone(sealer) && !self.is_passed_over(sealer, self.final_height);
        (first..first.saturating_add(turns)).find(|view| is_there(self.verifier().primary(*view))).unwrap_or(first)
    }

    /// Leaves the view of a leader that is gone, when something waits to be ordered and it is that leader's turn; or a view that is only
    /// wanted, when whoever was to begin it is gone. Whether it did.
    pub(super) fn leave_the_gone(&mut self) -> bool {
        if self.own.is_none() || self.reach.is_leaving || (self.reach.words.is_empty() && self.reach.passed.is_none()) {
            return false;
        }
        let left = match &self.changing {
            None => {
                let late = self.first_unordered();
                let is_owed = self.timer.is_first() && self.owes_order() && late <= self.committed_height.saturating_add(self.window);
                let is_known = self.slots.get(&late).is_some_and(|slot| slot.digest.is_some());
                let is_passed = self.reach.passed == Some((self.view, late)) && !is_known;
                (is_owed && (is_passed || self.is_gone(self.leader(self.view, late)))).then(|| self.view.max(self.promises.floor))
            }
            Some(changing) => {
                let is_gone = changing.own.is_some() && self.is_gone(self.verifier().primary(changing.to));
                (is_gone && self.is_wanted(changing.to)).then_some(changing.to)
            }
        };
        let count = self.epoch.sealers.len();
        let remaining = || (0..).take(count).filter(|sealer| !self.is_gone(*sealer)).count();
        let Some(left) = left.filter(|_| remaining() >= self.quorum()) else { return false };
        self.timer.lengthen();
        self.start_change(self.view_after(left));
        true
    }
}
