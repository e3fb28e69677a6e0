//! Ordering: proposals, prepares and commits of the heights in flight.
//!
//! Every input ends in [`PbftEngine::order_heights`], which takes each height as far as what is known allows; nothing depends on the
//! order in which messages came. Invariants: a vote is recorded before it leaves and nothing contradicts an earlier one; a commit is
//! sent only when the height below is durable or this node sent a commit for the proposal it builds on, so that what an honest node is
//! prepared for has no gaps.

use millrace_base::{B256, Bytes, NodeId, VerifiedTx};

use super::PbftEngine;
use super::message::{Brief, Certificate, Content, Message, Vote, VoteKind};
use super::records::Record;
use super::signing::sign;
use super::slot::{Ordered, Prepared, Standing};
use crate::engine::{Effect, Gathered, ProposalHeader};

/// What a proposal builds on.
struct Parent {
    /// None where any digest will do: below is durable or of another epoch.
    digest: Option<B256>,
    timestamp_ms: u64,
    /// What it holds.
    contents: B256,
}

impl PbftEngine {
    // ---- what comes in

    /// Whether a message speaks of the present epoch and view and of a height in reach. What is early is kept for later.
    fn is_timely(&mut self, from: NodeId, vote: &Vote, frame: &Bytes) -> bool {
        if vote.epoch != self.epoch_hash {
            if vote.height > self.final_height {
                self.early.keep(from, frame.clone());
            }
            return false;
        }
        if vote.height <= self.committed_height || vote.height > self.last_tracked() {
            return false;
        }
        if vote.kind == VoteKind::Checkpoint {
            return vote.view == 0;
        }
        if vote.view > self.view {
            self.early.keep(from, frame.clone());
        }
        vote.view == self.view
    }

    pub(super) fn on_propose(&mut self, from: NodeId, vote: Vote, content: Content, frame: &Bytes) {
        if vote.kind != VoteKind::Propose || !self.is_timely(from, &vote, frame) || self.changing.is_some() || vote.height <= self.base {
            return;
        }
        let digest = B256::from(vote.subject);
        let slot = self.slots.entry(vote.height).or_default();
        if slot.digest == Some(digest) && slot.header.is_some() && slot.frame.is_some() {
            return;
        }
        let header = ProposalHeader::from(content);
        let brief = match self.check_proposal(&vote, &header) {
            Ok(brief) => brief,
            Err(reason) => return self.refuse(from, format!("proposal for height {}: {reason}", vote.height)),
        };
        if self.asked.is_some_and(|(asked, _)| asked == vote.height) {
            // Somebody else has this sealer's key. The wish is taken back, with what may already be sealed for it.
            self.void_from(vote.height);
        }
        let slot = self.slots.entry(vote.height).or_default();
        let contradiction = slot.votes.insert_valid(vote);
        match slot.digest {
            None => slot.adopt(digest, Standing::Unlinked),
            Some(known) if known != digest => return self.report(contradiction, vote),
            Some(_) => {}
        }
        if slot.header.is_none() {
            slot.fill(header, brief);
        }
        slot.frame = Some(frame.clone());
        self.report(contradiction, vote);
    }

    /// Cheap checks first: whoever is not the leader costs this node no hashing.
    fn check_proposal(&self, vote: &Vote, header: &ProposalHeader) -> Result<Brief, String> {
        if vote.sealer != self.leader(vote.view, vote.height) {
            return Err(format!("sealer {} does not lead it in view {}", vote.sealer, vote.view));
        }
        if header.height != vote.height || header.epoch.0 != vote.epoch || header.sealer != vote.sealer {
            return Err("its content is of another height, epoch or sealer".into());
        }
        if header.transactions.len() as u64 > self.epoch.tx_count_limit {
            return Err(format!("{} transactions, {} are allowed", header.transactions.len(), self.epoch.tx_count_limit));
        }
        if !self.verifier().is_good(vote) {
            return Err("its signature is wrong".into());
        }
        let brief = Brief::of(header);
        if brief.digest(&self.domain).0 != vote.subject {
            return Err("its content is not what was signed".into());
        }
        Ok(brief)
    }

    pub(super) fn on_vote(&mut self, from: NodeId, vote: Vote, frame: &Bytes) {
        if vote.kind == VoteKind::Propose || !self.is_timely(from, &vote, frame) {
            return;
        }
        let Some(sealer) = self.epoch.sealers.get(vote.sealer as usize).copied() else { return };
        let known = self.slots.get(&vote.height).and_then(|slot| slot.votes.get(vote.kind, vote.sealer));
        if known.is_some_and(|known| known.subject == vote.subject) {
            return;
        }
        // The network vouches for the sender; votes that are passed on, or that contradict an earlier one, are checked at once.
        let is_checked = sealer != from || known.is_some();
        if is_checked && !self.verifier().is_good(&vote) {
            return self.refuse(from, format!("a {} for height {} has a wrong signature", vote.kind.name(), vote.height));
        }
        let slot = self.slots.entry(vote.height).or_default();
        let contradiction = if is_checked { slot.votes.insert_valid(vote) } else { slot.votes.insert(vote) };
        self.report(contradiction, vote);
    }

    /// Votes that somebody passed on: a quorum that decides or finalises, in whatever view it was reached.
    pub(super) fn on_votes(&mut self, from: NodeId, votes: &[Vote]) {
        let Some(first) = votes.first().copied().filter(|first| first.epoch == self.epoch_hash) else { return };
        let is_near = first.height > self.committed_height && first.height <= self.last_tracked();
        let slot = self.slots.get(&first.height);
        let is_known = match first.kind {
            VoteKind::Commit => slot.is_some_and(|slot| slot.ordered.is_some()),
            VoteKind::Checkpoint => slot.is_some_and(|slot| slot.finality.is_some()),
            VoteKind::Propose | VoteKind::Prepare => true,
        };
        if !is_near || is_known {
            return;
        }
        let same =
            |vote: &&Vote| (vote.kind, vote.height, vote.view, vote.subject) == (first.kind, first.height, first.view, first.subject);
        let verifier = self.verifier();
        // More than there are sealers cannot be distinct and is not looked at.
        let candidates = votes.iter().take(self.epoch.sealers.len());
        let mut good: Vec<Vote> = candidates.filter(same).filter(|vote| verifier.is_good(vote)).copied().collect();
        good.sort_unstable_by_key(|vote| vote.sealer);
        good.dedup_by_key(|vote| vote.sealer);
        if good.len() < self.quorum() {
            return self.refuse(from, format!("{} {}s for height {} are no quorum", good.len(), first.kind.name(), first.height));
        }
        match first.kind {
            VoteKind::Commit => self.decided(first.height, first.subject.into(), good),
            _ => self.slots.entry(first.height).or_default().finality = Some((first.subject.into(), good)),
        }
    }

    /// Two statements of one sealer that contradict each other are evidence, once for each place.
    fn report(&mut self, earlier: Option<Vote>, vote: Vote) {
        let Some(earlier) = earlier else { return };
        let place = (vote.sealer, vote.height, vote.view, vote.kind.class());
        if self.evidence.contains(&place) || self.evidence.len() >= super::MAX_EVIDENCE {
            return;
        }
        let verifier = self.verifier();
        if !verifier.is_good(&earlier) || !verifier.is_good(&vote) {
            return;
        }
        self.evidence.insert(place);
        let offender = self.epoch.sealers[vote.sealer as usize];
        let what = format!("two {} votes at height {} in view {}", vote.kind.class().name(), vote.height, vote.view);
        let statements = [Message::Vote(earlier).encode(), Message::Vote(vote).encode()];
        self.effects.push(Effect::Evidence { offender, what, statements });
    }

    pub(super) fn on_sealed(&mut self, place: (u64, u64), timestamp_ms: u64, transactions: Vec<VerifiedTx>) {
        let (height, view) = place;
        let (Some(sealer), true) = (self.own, self.asked == Some(place)) else { return };
        self.asked = None;
        // Another proposal of this sealer is there already: somebody else has its key. What is ordered must never get other content.
        let is_taken = self.slots.get(&height).is_some_and(|slot| slot.digest.is_some() || slot.ordered.is_some());
        let Some(parent) = self.parent(height).filter(|_| !is_taken) else { return self.void_from(height) };
        let header = ProposalHeader {
            height,
            epoch: self.epoch_hash.into(),
            previous: parent.digest.unwrap_or_else(|| self.known_digest(height - 1)),
            below: parent.contents,
            timestamp_ms: timestamp_ms.max(parent.timestamp_ms.saturating_add(1)),
            sealer,
            transactions: transactions.iter().map(VerifiedTx::hash).collect(),
        };
        let brief = Brief::of(&header);
        let digest = brief.digest(&self.domain);
        let content = Content::from(&header);
        let Some(vote) = self.promise(VoteKind::Propose, height, view, digest) else { return self.void_from(height) };
        let frame = Message::Propose(vote, content).encode();
        let slot = self.slots.entry(height).or_default();
        slot.adopt(digest, Standing::Linked);
        slot.fill(header, brief);
        slot.transactions = Some(transactions);
        // The pool reserved them when it handed them out.
        slot.is_gathering = true;
        slot.is_reserved = true;
        slot.frame = Some(frame.clone());
        slot.votes.insert_valid(vote);
        slot.touched_ms = Some(self.timer.now_ms());
        self.broadcast(frame);
    }

    pub(super) fn on_gathered(&mut self, height: u64, digest: B256, outcome: Gathered) {
        let Some(slot) = self.slots.get_mut(&height).filter(|slot| slot.digest == Some(digest)) else { return };
        match outcome {
            Gathered::Complete(transactions) => {
                let is_same = slot.header.as_ref().is_some_and(|header| {
                    header.transactions.len() == transactions.len()
                        && header.transactions.iter().zip(&transactions).all(|(hash, transaction)| *hash == transaction.hash())
                });
                if is_same {
                    slot.is_reserved = true;
                    slot.transactions.get_or_insert(transactions);
                }
            }
            // A quorum found it good, or this node did before: what the pool says now cannot change that.
            Gathered::Refused(_) if slot.ordered.is_some() || slot.transactions.is_some() => {}
            Gathered::Refused(reason) => {
                slot.standing = Standing::Refused;
                let sealer = slot.header.as_ref().map_or(0, |header| header.sealer);
                if let Some(from) = self.epoch.sealers.get(sealer as usize).copied() {
                    self.refuse(from, format!("proposal for height {height}: {reason}"));
                }
            }
        }
    }

    // ---- the steps of one height

    /// Takes every height in flight as far as what is known allows, lowest first: each may open the way for the next.
    pub(super) fn order_heights(&mut self) {
        let heights: Vec<u64> = self.slots.range(self.committed_height.saturating_add(1)..).map(|(height, _)| *height).collect();
        for height in heights {
            self.link(height);
            self.gather(height);
            self.prepare(height);
            self.commit(height);
            self.decide(height);
        }
    }

    /// What a proposal at this height builds on; none while that is not known.
    fn parent(&self, height: u64) -> Option<Parent> {
        let below = height.checked_sub(1)?;
        if below <= self.committed_height {
            let (timestamp_ms, contents) = self.committed_contents;
            return (below == self.committed_height).then_some(Parent { digest: None, timestamp_ms, contents });
        }
        let slot = self.slots.get(&below)?;
        let brief = slot.brief?;
        let (timestamp_ms, contents) = (brief.timestamp_ms, brief.contents(&self.domain));
        if height == self.epoch.start {
            return Some(Parent { digest: None, timestamp_ms, contents });
        }
        let stands = slot.standing == Standing::Linked || slot.ordered.is_some();
        slot.digest.filter(|_| stands).map(|digest| Parent { digest: Some(digest), timestamp_ms, contents })
    }

    /// What a proposal names as previous when nobody can check it: the digest below if known, else the last block.
    fn known_digest(&self, height: u64) -> B256 {
        let digest = self.slots.get(&height).and_then(|slot| slot.digest).filter(|_| height >= self.epoch.start);
        digest.unwrap_or(self.final_hash)
    }

    fn link(&mut self, height: u64) {
        let Some(slot) = self.slots.get(&height).filter(|slot| slot.ordered.is_none() && slot.standing == Standing::Unlinked) else {
            return;
        };
        let Some(header) = slot.header.as_ref() else { return };
        let Some(parent) = self.parent(height) else { return };
        let latest_ms = self.timer.outer_ms().saturating_add(self.max_ahead_ms);
        // A leader that does not know the digest below, since it downloaded that block or was restarted, names the block: wait until it
        // is durable here, from when on any digest will do.
        if parent.digest.is_some_and(|digest| digest != header.previous) {
            return;
        }
        let refusal = if header.below != parent.contents {
            Some("it was made for another block below".to_owned())
        } else if header.timestamp_ms <= parent.timestamp_ms {
            Some("its timestamp is not above the one below".to_owned())
        } else if header.timestamp_ms > latest_ms && header.timestamp_ms != parent.timestamp_ms.saturating_add(1) {
            Some(format!("its timestamp is {} ms ahead of this node's clock", header.timestamp_ms - self.timer.outer_ms()))
        } else {
            None
        };
        let sealer = header.sealer;
        let slot = self.slots.get_mut(&height).expect("it was just there");
        match refusal {
            None => slot.standing = Standing::Linked,
            Some(reason) => {
                slot.standing = Standing::Refused;
                let from = self.epoch.sealers[sealer as usize];
                self.refuse(from, format!("proposal for height {height}: {reason}"));
            }
        }
    }

    /// Whether the pool holds what is below, so that no transaction can be in two proposals in flight.
    fn is_next(&self, height: u64) -> bool {
        let below = height - 1;
        below <= self.committed_height || height == self.epoch.start || self.slots.get(&below).is_some_and(|slot| slot.is_reserved)
    }

    /// Asks for the transactions of a proposal, or for its content when only its digest is known.
    fn gather(&mut self, height: u64) {
        let is_next = self.is_next(height);
        let Some(slot) = self.slots.get_mut(&height) else { return };
        let stands = slot.standing == Standing::Linked || slot.ordered.is_some();
        if slot.is_gathering || !stands || slot.imported.is_some() || (slot.header.is_some() && !is_next) {
            return;
        }
        slot.is_gathering = true;
        self.ask(height);
    }

    /// Sends the wish for content or transactions; again and again until it is granted, see [`super::repair`].
    pub(super) fn ask(&mut self, height: u64) {
        let Some(slot) = self.slots.get(&height) else { return };
        let Some(digest) = slot.digest else { return };
        let mut holders = slot.votes.supporters(VoteKind::Prepare, &digest);
        if let Some(Ordered::Voted(proof)) = &slot.ordered {
            holders.extend(proof.iter().map(|vote| vote.sealer));
        }
        holders.extend(self.plan_holders(height, digest));
        let own = self.own;
        let mut seen = std::collections::BTreeSet::new();
        holders.retain(|sealer| Some(*sealer) != own && seen.insert(*sealer));
        let holders: Vec<NodeId> = holders.into_iter().filter_map(|sealer| self.epoch.sealers.get(sealer as usize).copied()).collect();
        match &slot.header {
            Some(header) => self.effects.push(Effect::Gather { height, digest, hashes: header.transactions.clone(), holders }),
            None => {
                let payload = Message::Fetch(height, digest.0).encode();
                self.effects.extend(holders.into_iter().map(|to| Effect::Send { to, payload: payload.clone() }));
            }
        }
    }

    /// Content that was asked for.
    pub(super) fn on_content(&mut self, content: Content) {
        let height = content.height;
        let Some(slot) = self.slots.get(&height).filter(|slot| slot.header.is_none()) else { return };
        let Some(digest) = slot.digest else { return };
        let header = ProposalHeader::from(content);
        let brief = Brief::of(&header);
        if brief.digest(&self.domain) != digest {
            return;
        }
        self.slots.get_mut(&height).expect("it was just there").fill(header, brief);
    }

    fn may_vote(&self, height: u64) -> Option<u32> {
        self.own.filter(|_| self.changing.is_none() && height > self.base && self.view >= self.promises.floor)
    }

    fn prepare(&mut self, height: u64) {
        let Some(own) = self.may_vote(height) else { return };
        let Some(slot) = self.slots.get(&height) else { return };
        let (Some(digest), Standing::Linked, true) = (slot.digest, slot.standing, slot.transactions.is_some()) else { return };
        if !slot.votes.has(VoteKind::Prepare, own) {
            self.vote(VoteKind::Prepare, height, digest);
        }
    }

    fn commit(&mut self, height: u64) {
        let Some(own) = self.may_vote(height) else { return };
        let Some(slot) = self.slots.get(&height) else { return };
        let (Some(digest), Standing::Linked, true) = (slot.digest, slot.standing, slot.transactions.is_some()) else { return };
        let Some(previous) = slot.header.as_ref().map(|header| header.previous) else { return };
        if slot.votes.has(VoteKind::Commit, own) || !self.is_contiguous(height, previous) {
            return;
        }
        let Some(votes) = self.quorum_of(height, VoteKind::Prepare, digest) else { return };
        let Some(slot) = self.slots.get(&height).filter(|_| self.quorum() > 1) else { return self.vote(VoteKind::Commit, height, digest) };
        if let (Some(header), Some(brief), Some(transactions)) = (slot.header.clone(), slot.brief, slot.transactions.clone()) {
            let signers = votes.iter().map(|vote| (vote.sealer, vote.kind, vote.signature)).collect();
            let certificate = Certificate { brief, view: self.view, signers };
            self.remember(Prepared { certificate, digest, header, transactions });
        }
        self.vote(VoteKind::Commit, height, digest);
    }

    fn is_contiguous(&self, height: u64, previous: B256) -> bool {
        let below = height - 1;
        let said = self.promises.said(VoteKind::Commit, below, self.view);
        below <= self.committed_height || height == self.epoch.start || said.is_some_and(|(_, subject)| subject == previous.0)
    }

    /// Records what makes this node a witness of the proposal, before it says so.
    fn remember(&mut self, prepared: Prepared) {
        let height = prepared.header.height;
        let slot = self.slots.get_mut(&height).expect("only a slot's proposal is prepared");
        let is_new = slot.logged != Some(prepared.digest);
        slot.logged = Some(prepared.digest);
        let body = Record::prepared(&prepared, is_new).encode();
        slot.prepared = Some(prepared);
        self.effects.push(Effect::Record { height, body });
    }

    pub(super) fn quorum_of(&mut self, height: u64, kind: VoteKind, subject: B256) -> Option<Vec<Vote>> {
        let needed = self.quorum();
        let Self { slots, domain, epoch, epoch_hash, .. } = self;
        let verifier = super::certificate::Verifier { domain, epoch, epoch_hash: *epoch_hash };
        slots.get_mut(&height)?.votes.quorum(kind, &subject, needed, &|vote| verifier.is_good(vote))
    }

    fn decide(&mut self, height: u64) {
        let Some(slot) = self.slots.get(&height).filter(|slot| slot.ordered.is_none()) else { return };
        for subject in slot.votes.subjects(VoteKind::Commit) {
            if let Some(proof) = self.quorum_of(height, VoteKind::Commit, subject) {
                return self.decided(height, subject, proof);
            }
        }
    }

    /// A quorum committed a proposal, whatever this node thought of it.
    fn decided(&mut self, height: u64, digest: B256, proof: Vec<Vote>) {
        let is_wanted = self.asked.is_some_and(|(asked, _)| asked >= height);
        let is_taken = self.slots.range(height..).any(|(_, slot)| slot.digest.is_some());
        let slot = self.slots.entry(height).or_default();
        let is_other = slot.digest != Some(digest);
        slot.adopt(digest, Standing::Linked);
        slot.ordered = Some(Ordered::Voted(proof));
        self.timer.progress();
        if is_other && (is_wanted || is_taken) {
            self.void_from(height);
        }
    }

    /// Nothing that was in flight from this height on stands, but for what is ordered; what is handed out for execution is not touched.
    pub(super) fn void_from(&mut self, height: u64) {
        self.asked = self.asked.filter(|(asked, _)| *asked < height);
        let height = height.max(self.next_to_execute);
        for slot in self.slots.range_mut(height..).map(|(_, slot)| slot) {
            slot.drop_proposal();
            (slot.is_gathering, slot.is_reserved) = (false, false);
        }
        self.effects.push(Effect::Void { above: height - 1 });
    }

    // ---- this node's own statements

    /// Signs a statement, unless it would contradict what this node said or promised; recorded before anything of this turn leaves.
    fn promise(&mut self, kind: VoteKind, height: u64, view: u64, subject: B256) -> Option<Vote> {
        let sealer = self.own?;
        let is_view_vote = kind != VoteKind::Checkpoint;
        let earlier = self.promises.said(kind, height, view);
        if (is_view_vote && view < self.promises.floor) || earlier.is_some_and(|said| said != (kind, subject.0)) {
            return None;
        }
        let mut vote =
            Vote { kind, epoch: self.epoch_hash, height, view, subject: subject.0, sealer, signature: millrace_base::Signature([0; 65]) };
        vote.signature = sign(&self.key, vote.statement(&self.domain));
        if earlier.is_none() {
            self.promises.say(&vote);
            self.effects.push(Effect::Record { height, body: Record::vote(&vote).encode() });
        }
        Some(vote)
    }

    /// Sends and counts this node's vote in the present view.
    pub(super) fn vote(&mut self, kind: VoteKind, height: u64, subject: B256) {
        let view = if kind == VoteKind::Checkpoint { 0 } else { self.view };
        let Some(vote) = self.promise(kind, height, view, subject) else { return };
        let now_ms = self.timer.now_ms();
        let slot = self.slots.entry(height).or_default();
        slot.votes.insert_valid(vote);
        slot.touched_ms = Some(now_ms);
        self.broadcast(Message::Vote(vote).encode());
    }

    pub(super) fn broadcast(&mut self, frame: Bytes) {
        if self.epoch.sealers.len() > 1 {
            self.effects.push(Effect::Broadcast(frame));
        }
    }

    // ---- leading

    /// Asks for a proposal when it is this node's turn.
    pub(super) fn ask_for_proposal(&mut self) {
        let height = self.next_height();
        let is_open = self.changing.is_none() && self.epoch_ends_at.is_none() && !self.reach.is_leaving;
        if !is_open || self.asked == Some((height, self.view)) {
            return;
        }
        if height > self.committed_height.saturating_add(self.window) || self.own != Some(self.leader(self.view, height)) {
            return;
        }
        let has_spoken = self.has_spoken(height);
        let is_next = self.is_next(height);
        let Some(parent) = self.parent(height).filter(|_| is_next && !has_spoken && self.may_vote(height).is_some()) else { return };
        self.asked = Some((height, self.view));
        let limit = self.epoch.tx_count_limit;
        self.effects.push(Effect::Seal { height, view: self.view, after_timestamp_ms: parent.timestamp_ms, limit });
    }

    /// Whether this node voted at a height in the present view.
    pub(super) fn has_spoken(&self, height: u64) -> bool {
        [VoteKind::Prepare, VoteKind::Commit].iter().any(|kind| self.promises.said(*kind, height, self.view).is_some())
    }

    /// The lowest height without a proposal that may still get one in this view.
    pub(super) fn next_height(&self) -> u64 {
        let first = self.committed_height.max(self.base).saturating_add(1);
        (first..)
            .find(|height| self.slots.get(height).is_none_or(|slot| slot.digest.is_none() && slot.ordered.is_none()))
            .unwrap_or(u64::MAX)
    }
}
