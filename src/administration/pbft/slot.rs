//! One height in flight: its proposal in the current view, the votes for it, and how far it has got.
//!
//! Invariants: the first vote of a sealer for a (kind, view) counts; a signature is checked at most once and only when it can complete
//! a quorum; no signer is counted twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use millrace_base::{B256, BlockHeader, Bytes, VerifiedTx};

use super::message::{Brief, Certificate, Vote, VoteKind};
use crate::engine::{FinalBlock, ProposalHeader};
use crate::epoch::Epoch;

/// Whether a vote's signature was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Checked {
    NotYet,
    Valid,
    /// Kept, so that its sender cannot make this node check another one.
    Invalid,
}

/// Votes of one height: for the current view, and checkpoints.
#[derive(Default)]
pub struct Votes(BTreeMap<(VoteKind, u32), (Vote, Checked)>);

impl Votes {
    /// Takes a vote whose signature nobody looked at; gives back an earlier one of the same sealer that says something else.
    pub fn insert(&mut self, vote: Vote) -> Option<Vote> {
        self.insert_as(vote, Checked::NotYet)
    }

    /// Takes a vote whose signature is known to be good.
    pub fn insert_valid(&mut self, vote: Vote) -> Option<Vote> {
        self.insert_as(vote, Checked::Valid)
    }

    fn insert_as(&mut self, vote: Vote, checked: Checked) -> Option<Vote> {
        let classmate =
            [VoteKind::Propose, VoteKind::Prepare].into_iter().filter(|kind| *kind != vote.kind && kind.class() == vote.kind.class());
        let other = classmate
            .filter_map(|kind| self.0.get(&(kind, vote.sealer)))
            .map(|(other, _)| *other)
            .find(|other| other.subject != vote.subject);
        match self.0.entry((vote.kind, vote.sealer)) {
            Entry::Vacant(entry) => {
                entry.insert((vote, checked));
                other
            }
            Entry::Occupied(mut entry) => {
                let known = *entry.get();
                // A good signature takes the place of an unchecked or bad one: with relayed votes the first need not be the sender's own.
                if checked == Checked::Valid && known.1 != Checked::Valid {
                    entry.insert((vote, checked));
                }
                Some(known.0).filter(|known| known.subject != vote.subject).or(other)
            }
        }
    }

    pub fn get(&self, kind: VoteKind, sealer: u32) -> Option<&Vote> {
        self.0.get(&(kind, sealer)).map(|(vote, _)| vote)
    }

    /// Whether the sealer said it with this kind or, for a prepare, by proposing it.
    pub fn has(&self, kind: VoteKind, sealer: u32) -> bool {
        self.0.contains_key(&(kind, sealer)) || (kind == VoteKind::Prepare && self.0.contains_key(&(VoteKind::Propose, sealer)))
    }

    /// Sealers that voted for the subject, unchecked ones included; ascending, each once.
    pub fn supporters(&self, kind: VoteKind, subject: &B256) -> Vec<u32> {
        let said =
            |(vote, checked): &&(Vote, Checked)| vote.kind.class() == kind && vote.subject == subject.0 && *checked != Checked::Invalid;
        let mut sealers: Vec<u32> = self.0.values().filter(said).map(|(vote, _)| vote.sealer).collect();
        sealers.sort_unstable();
        sealers.dedup();
        sealers
    }

    /// Subjects with any vote of the kind.
    pub fn subjects(&self, kind: VoteKind) -> Vec<B256> {
        let mut subjects: Vec<B256> = self.0.values().filter(|(vote, _)| vote.kind == kind).map(|(vote, _)| vote.subject.into()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects
    }

    /// Good votes of `needed` distinct sealers for the subject, checking no more signatures than that takes.
    pub fn quorum(&mut self, kind: VoteKind, subject: &B256, needed: usize, is_good: &dyn Fn(&Vote) -> bool) -> Option<Vec<Vote>> {
        if self.supporters(kind, subject).len() < needed {
            return None;
        }
        let mut found: BTreeMap<u32, Vote> = BTreeMap::new();
        for (vote, checked) in self.0.values_mut() {
            if vote.kind.class() != kind || vote.subject != subject.0 || found.contains_key(&vote.sealer) {
                continue;
            }
            if *checked == Checked::NotYet {
                *checked = if is_good(vote) { Checked::Valid } else { Checked::Invalid };
            }
            if *checked == Checked::Valid {
                found.insert(vote.sealer, *vote);
            }
            if found.len() >= needed {
                return Some(found.into_values().collect());
            }
        }
        None
    }

    /// Forgets what was said in an earlier view; checkpoints belong to none.
    pub fn leave_view(&mut self) {
        self.0.retain(|(kind, _), _| *kind == VoteKind::Checkpoint);
    }
}

/// A proposal this node sent a commit for, with all that is needed to propose it again.
pub struct Prepared {
    pub certificate: Certificate,
    pub digest: B256,
    pub header: ProposalHeader,
    pub transactions: Vec<VerifiedTx>,
}

/// Why a height is known to be ordered.
pub enum Ordered {
    /// A quorum of commits for the slot's proposal.
    Voted(Vec<Vote>),
    /// A final block that was downloaded.
    Imported,
}

/// Whether the proposal of the current view may be voted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// ```text
    /// Unlinked ──height below known and the same──> Linked
    ///     └──────────────> Refused <──pool says no────┘
    /// ```
    /// What it builds on is not known yet.
    #[default]
    Unlinked,
    /// It builds on what this node has below.
    Linked,
    /// This node does not vote for it.
    Refused,
}

/// See the module.
#[derive(Default)]
pub struct Slot {
    /// The proposal of the current view, or the one that was ordered.
    pub digest: Option<B256>,
    /// Its content.
    pub header: Option<ProposalHeader>,
    /// The content in short; there when the content is.
    pub brief: Option<Brief>,
    /// As its leader signed it in this view, to pass it on.
    pub frame: Option<Bytes>,
    pub standing: Standing,
    /// Its transactions.
    pub transactions: Option<Vec<VerifiedTx>>,
    /// Whether the pool was asked for its transactions.
    pub is_gathering: bool,
    /// Whether the pool holds them for this height, so that it gives them to no proposal above.
    pub is_reserved: bool,
    pub votes: Votes,
    pub prepared: Option<Prepared>,
    /// Digest whose transactions are in the vote log.
    pub logged: Option<B256>,
    pub ordered: Option<Ordered>,
    /// The downloaded block, while its epoch may still change.
    pub imported: Option<Box<FinalBlock>>,
    pub is_handed_out: bool,
    /// Hash and header, once executed.
    pub executed: Option<(B256, BlockHeader)>,
    pub next_epoch: Option<Epoch>,
    /// A hash with good signatures of a quorum over it: from a downloaded block, from somebody who passed them on, or counted here.
    /// Complete in itself, so that a sealer who signed another hash as well cannot take its signature out.
    pub finality: Option<(B256, Vec<Vote>)>,
    /// When this node last said something about it, on the engine's own clock; none when that may have reached nobody.
    pub touched_ms: Option<u64>,
}

impl Slot {
    /// Takes the proposal away; what was ordered stays.
    pub fn drop_proposal(&mut self) {
        if self.ordered.is_some() {
            return;
        }
        self.digest = None;
        self.header = None;
        self.brief = None;
        self.frame = None;
        self.standing = Standing::Unlinked;
        self.transactions = None;
        self.is_gathering = false;
        self.is_reserved = false;
    }

    /// Makes `digest` the slot's proposal, with what is known of its content.
    pub fn adopt(&mut self, digest: B256, standing: Standing) {
        self.standing = standing;
        if self.digest == Some(digest) {
            return;
        }
        self.drop_proposal();
        self.standing = standing;
        self.digest = Some(digest);
        if let Some(prepared) = self.prepared.as_ref().filter(|prepared| prepared.digest == digest) {
            self.header = Some(prepared.header.clone());
            self.brief = Some(prepared.certificate.brief);
            self.transactions = Some(prepared.transactions.clone());
        }
    }

    /// Gives the slot's proposal its content.
    pub fn fill(&mut self, header: ProposalHeader, brief: Brief) {
        self.header = Some(header);
        self.brief = Some(brief);
        self.is_gathering = false;
    }

    /// The content of a proposal, wherever this node keeps it.
    pub fn content(&self, digest: B256) -> Option<&ProposalHeader> {
        let current = self.header.as_ref().filter(|_| self.digest == Some(digest));
        current.or_else(|| self.prepared.as_ref().filter(|prepared| prepared.digest == digest).map(|prepared| &prepared.header))
    }
}
