//! What an engine must remember over a crash, and what follows from it after a restart.
//!
//! Invariant: whatever a node said that could contradict something later is recorded before it leaves, so a restarted node says the
//! same or nothing. Promises hold for one epoch: its digest is in each of them.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use millrace_base::{Address, RawTx, VerifiedTx, wire};

use super::message::{Certificate, Content, Hash, NewView, Vote, VoteKind};
use super::slot::Prepared;
use crate::digest::Domain;
use crate::engine::ProposalHeader;

/// How far ahead a promise not to vote below a view is recorded, so that it outlives the heights that are settled meanwhile. It is
/// renewed when half of it is used up.
pub const PROMISE_HEIGHTS: u64 = 1_000;

/// A transaction as it is logged: bytes, and the sender that was recovered from them.
pub type LoggedTx = (Vec<u8>, [u8; 20]);

/// One entry of the vote log.
#[derive(Clone, Encode, Decode)]
pub enum Record {
    /// A vote was sent.
    Vote { kind: VoteKind, epoch: Hash, height: u64, view: u64, subject: Hash },
    /// A commit is about to be sent: everything needed to propose it again. Transactions are left out when an earlier record of the
    /// same proposal has them.
    Prepared { certificate: Box<Certificate>, content: Content, transactions: Option<Vec<LoggedTx>> },
    /// Nothing below this view is voted for any more; by a view change of this node's own, or because the view began.
    Floor { epoch: Hash, view: u64, is_view_change: bool },
    /// This node began a view.
    NewView { epoch: Hash, view: u64 },
    /// A view was entered, with the proof that it began: without it a chain of which all nodes were killed would have to leave its view.
    View { epoch: Hash, new_view: Box<NewView> },
}

impl Record {
    pub fn vote(vote: &Vote) -> Self {
        Self::Vote { kind: vote.kind, epoch: vote.epoch, height: vote.height, view: vote.view, subject: vote.subject }
    }

    pub fn prepared(prepared: &Prepared, has_transactions: bool) -> Self {
        Self::Prepared {
            certificate: Box::new(prepared.certificate.clone()),
            content: Content::from(&prepared.header),
            transactions: has_transactions.then(|| log_transactions(&prepared.transactions)),
        }
    }

    pub fn encode(&self) -> millrace_base::Bytes {
        wire::encode(self).into()
    }

    pub fn epoch(&self) -> Hash {
        match self {
            Self::Vote { epoch, .. } | Self::Floor { epoch, .. } | Self::NewView { epoch, .. } | Self::View { epoch, .. } => *epoch,
            Self::Prepared { certificate, .. } => certificate.brief.epoch,
        }
    }
}

/// What this node said in the present epoch.
#[derive(Default)]
pub struct Promises {
    /// By height, view and class of vote.
    said: BTreeMap<(u64, u64, VoteKind), (VoteKind, Hash)>,
    /// Lowest view it may still vote in.
    pub floor: u64,
    /// Height up to which the floor is recorded.
    pub recorded_to: u64,
    /// View changes were sent up to this view.
    pub changed_to: u64,
    /// Views it began itself, up to this one.
    pub began: u64,
}

impl Promises {
    /// What it said of this kind at this height and view.
    pub fn said(&self, kind: VoteKind, height: u64, view: u64) -> Option<(VoteKind, Hash)> {
        self.said.get(&(height, view, kind.class())).copied()
    }

    pub fn say(&mut self, vote: &Vote) {
        self.said.insert((vote.height, vote.view, vote.kind.class()), (vote.kind, vote.subject));
    }

    /// Heights up to this one are durable.
    pub fn settle(&mut self, height: u64) {
        self.said = self.said.split_off(&(height.saturating_add(1), 0, VoteKind::Propose));
    }

    /// Whether it voted at all in a view.
    fn voted_in(&self, view: u64) -> bool {
        self.said.iter().any(|((_, voted, kind), _)| *voted == view && *kind != VoteKind::Checkpoint)
    }

    /// The view it was moving to without having entered it, so that it must say the same again.
    pub fn pending_change(&self) -> Option<u64> {
        (self.floor > 0 && self.changed_to == self.floor && !self.voted_in(self.floor)).then_some(self.floor)
    }

    fn highest_view(&self) -> u64 {
        self.said.keys().map(|(_, view, _)| *view).max().unwrap_or(0).max(self.floor)
    }
}

/// What the records say about one epoch.
#[derive(Default)]
pub struct Memory {
    pub promises: Promises,
    /// By height, the one of the highest view.
    pub prepared: BTreeMap<u64, Prepared>,
    /// The proof of the highest view it entered.
    pub new_view: Option<NewView>,
    /// Whether there was any record.
    pub is_fresh: bool,
}

impl Memory {
    /// Reads the records of one epoch that speak of heights above `head`. A record that cannot be read back is as if never written:
    /// the log checks its own integrity.
    pub fn of(records: &[Record], epoch: Hash, head: u64, domain: &Domain) -> Self {
        let mut memory = Self { is_fresh: true, ..Self::default() };
        memory.promises.recorded_to = head;
        for record in records.iter().filter(|record| record.epoch() == epoch) {
            memory.is_fresh = false;
            memory.read(record, head, domain);
        }
        let highest = memory.promises.highest_view();
        memory.promises.floor = highest;
        memory
    }

    fn read(&mut self, record: &Record, head: u64, domain: &Domain) {
        let promises = &mut self.promises;
        match record {
            Record::Vote { kind, height, view, subject, .. } if *height > head => {
                promises.said.insert((*height, *view, kind.class()), (*kind, *subject));
            }
            Record::Prepared { certificate, content, transactions } if content.height > head => {
                let digest = certificate.brief.digest(domain);
                let earlier = self.prepared.get(&content.height).filter(|earlier| earlier.digest == digest);
                let transactions = match (transactions, earlier) {
                    (Some(logged), _) => restore_transactions(logged),
                    (None, Some(earlier)) => Some(earlier.transactions.clone()),
                    (None, None) => None,
                };
                let header = ProposalHeader::from(content.clone());
                if let Some(transactions) = transactions {
                    let prepared = Prepared { certificate: (**certificate).clone(), digest, header, transactions };
                    self.prepared.insert(content.height, prepared);
                }
            }
            Record::Floor { view, is_view_change, .. } => {
                promises.floor = promises.floor.max(*view);
                if *is_view_change {
                    promises.changed_to = promises.changed_to.max(*view);
                }
            }
            Record::NewView { view, .. } => promises.began = promises.began.max(*view),
            Record::View { new_view, .. } => {
                if self.new_view.as_ref().is_none_or(|known| known.view < new_view.view) {
                    self.new_view = Some((**new_view).clone());
                }
            }
            Record::Vote { .. } | Record::Prepared { .. } => {}
        }
    }
}

/// Transactions as the vote log keeps them.
pub fn log_transactions(transactions: &[VerifiedTx]) -> Vec<LoggedTx> {
    transactions.iter().map(|transaction| (transaction.encoded().to_vec(), transaction.sender().into_array())).collect()
}

/// The same back; none when one of them cannot be read.
pub fn restore_transactions(logged: &[LoggedTx]) -> Option<Vec<VerifiedTx>> {
    let restore = |(bytes, sender): &LoggedTx| Some(VerifiedTx::from_trusted_store(RawTx::decode(bytes).ok()?, Address::from(*sender)));
    logged.iter().map(restore).collect()
}
