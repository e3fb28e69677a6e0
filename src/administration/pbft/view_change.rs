//! View changes: leaving a leader that does not deliver, and agreeing on what the next view begins with.
//!
//! ```text
//! in view v ──timeout, leader gone, or f+1 others want higher──> changing to w ──new view w proven──> in view w
//!                 changing to w ──n−f want w or higher, and a timeout──> changing to w+1
//! ```
//! Invariants: once this node wants view w it votes for nothing below w, restarts included; it enters a view above 0 only with the proof
//! ([`NewView`]) that a quorum wanted it; it goes beyond w by itself only when a quorum has come as far, so views do not run away.

use std::collections::BTreeMap;

use millrace_base::{B256, NodeId, Signature};

use super::PbftEngine;
use super::certificate::{Known, Plan, SKIPPED_HEIGHTS};
use super::message::{Message, NewView, ViewChange};
use super::records::{PROMISE_HEIGHTS, Record};
use super::signing::sign;
use super::slot::Standing;
use crate::engine::Effect;

/// A view this node wants but has not entered.
pub struct Changing {
    pub to: u64,
    /// What it said; none after a restart in a view whose proof was lost.
    pub own: Option<ViewChange>,
    /// Heartbeats until it is said again, and how many the next time.
    pub resend: (u32, u32),
}

/// What is known of the others' views, and of the present one.
#[derive(Default)]
pub struct Views {
    /// The highest view change of each sealer.
    pub changes: BTreeMap<u32, ViewChange>,
    /// The proof of the present view; none in view 0.
    pub new_view: Option<NewView>,
    /// What it began with.
    pub plan: Plan,
    /// Sealers this node waited for in vain, with the height up to which it says so.
    suspects: BTreeMap<u32, u64>,
    /// The last refused start of a view and how often: a faulty sealer cannot make this node check many.
    refused: (u64, u32),
}

/// Times a bad start of one view is looked at.
const NEW_VIEW_CHECKS: u32 = 3;

/// Heartbeats between repetitions of a view change grow to this.
const LONGEST_RESEND: u32 = 4;

impl PbftEngine {
    /// Who leads a height in the present view; sealers that the view's start names as silent are passed over.
    pub(super) fn leader(&self, view: u64, height: u64) -> u32 {
        let plan = &self.views.plan;
        if plan.skipped.is_empty() || view != self.view || height > plan.base.saturating_add(SKIPPED_HEIGHTS) {
            return self.epoch.leader(view, height);
        }
        let count = self.epoch.sealers.len();
        let leading: Vec<u32> = (0..u32::try_from(count).unwrap_or(u32::MAX)).filter(|sealer| !plan.skipped.contains(sealer)).collect();
        let turns = leading.len().max(1) as u64;
        let turn = (view % turns + height.saturating_sub(1) % turns) % turns;
        leading.get(usize::try_from(turn).unwrap_or(0)).copied().unwrap_or(0)
    }

    /// Whether the present view's start names a sealer as silent, for a height.
    pub(super) fn is_passed_over(&self, sealer: u32, height: u64) -> bool {
        let plan = &self.views.plan;
        plan.skipped.contains(&sealer) && height <= plan.base.saturating_add(SKIPPED_HEIGHTS)
    }

    /// The view this node is in or wants.
    pub(super) fn to_view(&self) -> u64 {
        self.changing.as_ref().map_or(self.view, |changing| changing.to)
    }

    /// Whether a leader owes this node something.
    pub(super) fn is_waiting(&self) -> bool {
        if self.own.is_none() || self.epoch.sealers.len() < 2 {
            return false;
        }
        if self.changing.is_some() {
            return true;
        }
        // Others go on: this node needs their blocks and not another leader.
        self.peers_ahead() <= self.epoch.max_faulty() && (self.owes_order() || self.lacks_checkpoints())
    }

    /// Whether something waits to be ordered that a leader could order, while nobody is further than this node.
    pub(super) fn owes_order(&self) -> bool {
        if self.epoch_ends_at.is_some() || self.peers_ahead() > self.epoch.max_faulty() {
            return false;
        }
        let mut active = self.slots.range(self.final_height.saturating_add(1)..).map(|(_, slot)| slot);
        let is_unordered = active.any(|slot| slot.ordered.is_none() && (slot.digest.is_some() || slot.prepared.is_some()));
        let has_room = self.next_height() <= self.committed_height.saturating_add(self.window);
        is_unordered || (self.is_pending && has_room)
    }

    /// Whether a quorum has come as far as a view.
    pub(super) fn is_wanted(&self, view: u64) -> bool {
        self.views.changes.values().filter(|change| change.to_view >= view).count() >= self.quorum()
    }

    /// How long this node waits at first. One that lost the proof of its view in a crash gives the others time to send it.
    pub(super) fn patience_ms(&self) -> u64 {
        let is_lost = self.changing.as_ref().is_some_and(|changing| changing.own.is_none());
        let timeout_ms = self.epoch.consensus_timeout_ms;
        if is_lost { timeout_ms.max(3 * super::repair::HEARTBEAT_MS) } else { timeout_ms }
    }

    /// The wait was in vain.
    pub(super) fn on_timeout(&mut self) {
        let wanted = match &self.changing {
            None => {
                self.suspect_leader();
                self.view.max(self.promises.floor)
            }
            Some(changing) if changing.own.is_none() => changing.to,
            Some(changing) => {
                let to = changing.to;
                if !self.is_wanted(to) {
                    return self.timer.restart();
                }
                self.suspect(self.verifier().primary(to));
                to
            }
        };
        self.timer.lengthen();
        self.start_change(self.view_after(wanted));
    }

    pub(super) fn first_unordered(&self) -> u64 {
        let first = self.committed_height.saturating_add(1);
        (first..).find(|height| self.slots.get(height).is_none_or(|slot| slot.ordered.is_none())).unwrap_or(first)
    }

    fn suspect_leader(&mut self) {
        let late = self.first_unordered();
        // With everything ordered that has room, others' checkpoints are late and no leader is to blame.
        if late <= self.committed_height.saturating_add(self.window) && self.epoch_ends_at.is_none() {
            self.suspect(self.leader(self.view, late));
        }
    }

    fn suspect(&mut self, sealer: u32) {
        if Some(sealer) != self.own {
            self.views.suspects.insert(sealer, self.final_height.saturating_add(SKIPPED_HEIGHTS));
        }
    }

    pub(super) fn start_change(&mut self, to: u64) {
        if self.own.is_none() || to <= self.to_view() && self.changing.as_ref().is_some_and(|changing| changing.own.is_some()) {
            return;
        }
        self.raise_floor(to, true);
        if let Some((height, _)) = self.asked.take() {
            self.effects.push(Effect::Void { above: height - 1 });
        }
        self.changing = Some(Changing { to, own: None, resend: (1, 1) });
        self.say_change();
    }

    /// Says that this node wants the view it is changing to.
    pub(super) fn say_change(&mut self) {
        let (Some(sealer), Some(to_view)) = (self.own, self.changing.as_ref().map(|changing| changing.to)) else { return };
        let (above, stable) = match &self.stable {
            Some((height, stable)) => (*height, Some(stable.clone())),
            None => (self.epoch.start.saturating_sub(1), None),
        };
        let prepared = self.slots.range(above.saturating_add(1)..).filter_map(|(_, slot)| slot.prepared.as_ref());
        let certificates = prepared.map(|prepared| prepared.certificate.clone()).filter(|certificate| certificate.view < to_view).collect();
        let now = self.final_height;
        let mut suspects = self.lost_sealers();
        suspects.extend(self.views.suspects.iter().filter(|(_, until)| **until > now).map(|(sealer, _)| *sealer));
        suspects.extend((0..).zip(&self.epoch.sealers).map(|(sealer, _)| sealer).filter(|sealer| self.is_gone(*sealer)));
        let suspects = suspects.into_iter().collect();
        let signature = Signature([0; 65]);
        let mut change = ViewChange { epoch: self.epoch_hash, to_view, sealer, stable, certificates, suspects, signature };
        change.signature = sign(&self.key, change.statement(&self.domain));
        self.broadcast(Message::ViewChange(change.clone()).encode());
        self.views.changes.insert(sealer, change.clone());
        if let Some(changing) = &mut self.changing {
            changing.own = Some(change);
        }
    }

    /// Repeats the view change, less and less often, as long as it is not answered.
    pub(super) fn repeat_change(&mut self) {
        let Some(changing) = &mut self.changing else { return };
        let (left, last) = changing.resend;
        if left > 1 {
            changing.resend = (left - 1, last);
            return;
        }
        let next = (last * 2).min(LONGEST_RESEND);
        changing.resend = (next, next);
        if let Some(own) = &changing.own {
            let frame = Message::ViewChange(own.clone()).encode();
            self.broadcast(frame);
        }
    }

    pub(super) fn on_view_change(&mut self, from: NodeId, change: ViewChange) {
        let is_own_words = self.epoch.sealers.get(change.sealer as usize) == Some(&from);
        if change.epoch != self.epoch_hash || !is_own_words || change.to_view <= self.view {
            return;
        }
        if self.views.changes.get(&change.sealer).is_some_and(|known| known.to_view >= change.to_view) {
            return;
        }
        if !self.verifier().is_bounded(&change) {
            return self.refuse(from, format!("view change to {}: it is larger than one can be", change.to_view));
        }
        self.views.changes.insert(change.sealer, change);
        self.follow();
        self.begin_view();
    }

    /// Goes along when more sealers than can be faulty want a higher view.
    fn follow(&mut self) {
        let to = self.to_view();
        let mut higher: Vec<u64> = self.views.changes.values().map(|change| change.to_view).filter(|view| *view > to).collect();
        higher.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(view) = higher.get(self.epoch.max_faulty()).copied() {
            // Whoever was about to give up as well says who it waited for.
            if self.changing.is_none() && self.timer.is_half_over(self.patience_ms()) {
                self.suspect_leader();
            }
            // It waits for the new leader from now on, as long as those it goes along with. Its wait for the old one would be over a
            // moment later, since all began it with the same block, and would take it past the view that the others are about to enter.
            self.timer.lengthen();
            self.start_change(view);
        }
    }

    /// Begins the wanted view, when it is this node's turn and a quorum wants it.
    pub(super) fn begin_view(&mut self) {
        let Some(view) = self.changing.as_ref().filter(|changing| changing.own.is_some()).map(|changing| changing.to) else { return };
        if self.own != Some(self.verifier().primary(view)) || self.promises.began >= view {
            return;
        }
        let wanting: Vec<u32> = self.views.changes.values().filter(|change| change.to_view == view).map(|change| change.sealer).collect();
        if wanting.len() < self.quorum() {
            return;
        }
        let mut known = self.known();
        let mut changes = Vec::new();
        for sealer in wanting {
            match self.verifier().check_change(&self.views.changes[&sealer], &mut known) {
                Ok(()) => changes.push(self.views.changes[&sealer].clone()),
                Err(reason) => {
                    self.views.changes.remove(&sealer);
                    self.refuse(self.epoch.sealers[sealer as usize], format!("view change to {view}: {reason}"));
                }
            }
        }
        if changes.len() < self.quorum() {
            return;
        }
        let mut new_view = NewView { epoch: self.epoch_hash, view, changes, signature: Signature([0; 65]) };
        new_view.signature = sign(&self.key, new_view.statement(&self.domain));
        self.promises.began = view;
        let record = Record::NewView { epoch: self.epoch_hash, view };
        self.effects.push(Effect::Record { height: self.committed_height.saturating_add(PROMISE_HEIGHTS), body: record.encode() });
        self.broadcast(Message::NewView(new_view.clone()).encode());
        self.enter(new_view);
    }

    /// Proposals this node knows to be prepared, whose proofs it need not check again.
    fn known(&self) -> Known {
        let prepared = self.slots.values().filter_map(|slot| slot.prepared.as_ref());
        prepared.map(|prepared| (prepared.header.height, prepared.certificate.view, prepared.digest)).collect()
    }

    pub(super) fn on_new_view(&mut self, from: NodeId, new_view: NewView) {
        let view = new_view.view;
        if new_view.epoch != self.epoch_hash || view <= self.view || view < self.promises.floor || view < self.to_view() {
            return;
        }
        if self.views.refused.0 == view && self.views.refused.1 >= NEW_VIEW_CHECKS {
            return;
        }
        let mut known = self.known();
        match self.verifier().check_new_view(&new_view, &mut known) {
            Ok(()) => self.enter(new_view),
            Err(reason) => {
                let times = if self.views.refused.0 == view { self.views.refused.1 + 1 } else { 1 };
                self.views.refused = (view, times);
                self.refuse(from, reason);
            }
        }
    }

    /// Enters a view that is proven: what its start names is proposed again, all else that is not ordered is free.
    fn enter(&mut self, new_view: NewView) {
        let view = new_view.view;
        self.raise_floor(view, false);
        self.stand_in(new_view);
        self.record_view();
        self.changing = None;
        self.views.changes.retain(|_, change| change.to_view > view);
        let first_open = self.first_unordered();
        for slot in self.slots.values_mut() {
            slot.votes.leave_view();
            slot.frame = None;
        }
        self.void_from(first_open);
        self.propose_planned();
        self.timer.restart();
        self.replay.extend(self.early.take());
    }

    /// Takes a proven view for the present one.
    pub(super) fn stand_in(&mut self, new_view: NewView) {
        let plan = self.verifier().plan(&new_view);
        (self.view, self.base) = (new_view.view, plan.base);
        self.views.plan = plan;
        self.views.new_view = Some(new_view);
    }

    /// After a restart: whom the present view passes over this node goes on to suspect for as long as the view does.
    pub(super) fn remember_passed_over(&mut self) {
        let until = self.views.plan.base.saturating_add(SKIPPED_HEIGHTS);
        let skipped = self.views.plan.skipped.iter().filter(|sealer| Some(**sealer) != self.own);
        self.views.suspects = skipped.map(|sealer| (*sealer, until)).collect();
    }

    /// Proposes again what the start of the present view names.
    pub(super) fn propose_planned(&mut self) {
        let planned: Vec<(u64, B256)> = self.views.plan.proposals.iter().map(|planned| (planned.brief.height, planned.digest)).collect();
        planned.into_iter().for_each(|(height, digest)| self.propose_again(height, digest));
    }

    fn propose_again(&mut self, height: u64, digest: B256) {
        if height <= self.committed_height || height > self.last_tracked() {
            return;
        }
        let slot = self.slots.entry(height).or_default();
        // What is ordered here cannot be proposed differently while no more than f sealers are faulty; if more are, nothing is voted for.
        if slot.ordered.is_some() && slot.digest != Some(digest) {
            return;
        }
        slot.adopt(digest, Standing::Linked);
    }

    /// Sealers whose view changes proved a proposal of this view's start.
    pub(super) fn plan_holders(&self, height: u64, digest: B256) -> Vec<u32> {
        let planned = self.views.plan.proposals.iter().find(|planned| planned.brief.height == height && planned.digest == digest);
        planned.map(|planned| planned.holders.clone()).unwrap_or_default()
    }

    /// Promises to vote for nothing below a view.
    fn raise_floor(&mut self, view: u64, is_view_change: bool) {
        self.promises.floor = self.promises.floor.max(view);
        if is_view_change {
            self.promises.changed_to = self.promises.changed_to.max(view);
        }
        self.record_floor(view, is_view_change);
    }

    fn record_floor(&mut self, view: u64, is_view_change: bool) {
        let height = self.committed_height.saturating_add(PROMISE_HEIGHTS);
        let record = Record::Floor { epoch: self.epoch_hash, view, is_view_change };
        self.effects.push(Effect::Record { height, body: record.encode() });
        self.promises.recorded_to = height;
    }

    /// Records the promise again before the log forgets it.
    pub(super) fn renew_floor(&mut self) {
        if self.promises.floor > 0 && self.promises.recorded_to < self.committed_height.saturating_add(PROMISE_HEIGHTS / 2) {
            let is_view_change = self.promises.changed_to == self.promises.floor;
            self.record_floor(self.promises.floor, is_view_change);
            self.record_view();
        }
    }

    /// Records the proof of the present view, for as long as the promise to vote for nothing below it.
    fn record_view(&mut self) {
        if let Some(new_view) = self.views.new_view.clone() {
            let record = Record::View { epoch: self.epoch_hash, new_view: Box::new(new_view) };
            self.effects.push(Effect::Record { height: self.promises.recorded_to, body: record.encode() });
        }
    }
}
