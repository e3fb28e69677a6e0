//! The log of one epoch as the library sees it: entries above a base, each with the proposal it carries.
//!
//! Invariants: heights of proposals rise by one from entry to entry; an entry of a height that is not durable yet has its transactions;
//! everything at or below the base is decided. Entries are counted from 1 in every epoch.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use millrace_base::{B256, Bytes, VerifiedTx, wire};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::digest::Domain;
use crate::engine::{Proposal, ProposalHeader};
use crate::pbft::message::{Brief, Content, Hash};

/// A place in the log and the height up to which the chain stands for everything below.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Position {
    pub index: u64,
    pub term: u64,
    /// Height of the last proposal up to here, or of the last block before the epoch.
    pub height: u64,
    /// Digest of what that height holds, where it is known.
    pub contents: Option<Hash>,
}

impl Position {
    /// As a snapshot of the library: the position is all there is in it, the state is the chain.
    pub fn as_snapshot(&self, voters: &[u64]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.data = wire::encode(self).into();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.index, self.term);
        metadata.mut_conf_state().voters = voters.to_vec();
        snapshot
    }
}

/// A proposal in the log.
#[derive(Clone, Debug)]
pub struct Placed {
    pub header: ProposalHeader,
    /// Digest of what the block will hold: names the proposal.
    pub contents: B256,
    /// Absent where the block is durable already.
    pub transactions: Option<Vec<VerifiedTx>>,
}

impl Placed {
    /// Reads an entry; none for one without a proposal.
    ///
    /// # Errors
    /// When the bytes are no proposal.
    pub fn read(data: &[u8], domain: &Domain) -> Result<Option<Self>, String> {
        if data.is_empty() {
            return Ok(None);
        }
        let content: Content = wire::decode(data).map_err(|error| format!("a raft entry that is no proposal: {error}"))?;
        let header = ProposalHeader::from(content);
        let contents = Brief::of(&header).contents(domain);
        Ok(Some(Self { header, contents, transactions: None }))
    }

    /// The proposal, where its transactions are here.
    pub fn proposal(&self) -> Option<Proposal> {
        self.transactions.clone().map(|transactions| Proposal { header: self.header.clone(), transactions })
    }
}

/// An entry.
#[derive(Clone, Debug)]
pub struct Item {
    pub term: u64,
    pub data: Bytes,
    pub placed: Option<Placed>,
    /// Its record is given back while less than this is durable.
    pub kept_to: u64,
}

/// What the library must not forget besides entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promise {
    pub term: u64,
    pub vote: u64,
}

/// See the module.
pub struct Log {
    base: Position,
    items: VecDeque<Item>,
    promise: Promise,
    voters: Vec<u64>,
}

impl Log {
    pub fn new(base: Position, promise: Promise, voters: Vec<u64>) -> Self {
        Self { base, items: VecDeque::new(), promise, voters }
    }

    pub fn base(&self) -> &Position {
        &self.base
    }

    pub fn voters(&self) -> &[u64] {
        &self.voters
    }

    pub fn last(&self) -> u64 {
        self.base.index + self.items.len() as u64
    }

    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok().filter(|place| *place < self.items.len())
    }

    pub fn item(&self, index: u64) -> Option<&Item> {
        self.place(index).map(|place| &self.items[place])
    }

    /// Entries above an index, with theirs.
    pub fn items_above(&self, index: u64) -> impl Iterator<Item = (u64, &Item)> {
        (self.base.index + 1..).zip(&self.items).filter(move |(at, _)| *at > index)
    }

    pub fn keep_to(&mut self, kept_to: u64) {
        self.items.iter_mut().for_each(|item| item.kept_to = item.kept_to.max(kept_to));
    }

    /// Where the log stands at an index that is in it.
    pub fn position(&self, index: u64) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        let term = self.item(index)?.term;
        let below = self.items_above(0).take_while(|(at, _)| *at <= index).filter_map(|(_, item)| item.placed.as_ref()).last();
        let (height, contents) = match below {
            Some(placed) => (placed.header.height, Some(placed.contents.0)),
            None => (self.base.height, self.base.contents),
        };
        Some(Position { index, term, height, contents })
    }

    /// Where it ends.
    pub fn end(&self) -> Position {
        self.position(self.last()).expect("the last entry or the base is in the log")
    }

    /// The proposal at a height.
    pub fn at_height(&self, height: u64) -> Option<&Placed> {
        self.items.iter().filter_map(|item| item.placed.as_ref()).find(|placed| placed.header.height == height)
    }

    /// Puts an entry at its index; what was there and above is gone.
    pub fn put(&mut self, index: u64, item: Item) {
        let place = usize::try_from(index - self.base.index - 1).expect("a log fits into memory");
        assert!(place <= self.items.len(), "entries have no gaps");
        self.items.truncate(place);
        self.items.push_back(item);
    }

    /// Begins anew at a place that is decided.
    pub fn reset(&mut self, base: Position) {
        self.base = base;
        self.items.clear();
    }

    /// Forgets entries up to the proposal of this height, all of them decided; what it kept to the end is the base.
    pub fn compact(&mut self, height: u64, decided: u64) {
        while let Some(first) = self.items.front().filter(|_| self.base.index < decided) {
            if first.placed.as_ref().is_some_and(|placed| placed.header.height > height) {
                return;
            }
            let index = self.base.index + 1;
            self.base = self.position(index).expect("the first entry is in the log");
            self.items.pop_front();
        }
    }

    /// Blocks up to this height are durable: their transactions are in the chain.
    pub fn forget_transactions(&mut self, height: u64) {
        for placed in self.items.iter_mut().filter_map(|item| item.placed.as_mut()) {
            if placed.header.height > height {
                return;
            }
            placed.transactions = None;
        }
    }

    pub fn promise(&self) -> Promise {
        self.promise
    }

    pub fn set_promise(&mut self, promise: Promise) {
        self.promise = promise;
    }

    fn entry(&self, index: u64) -> Option<Entry> {
        let item = self.item(index)?;
        let mut entry = Entry::default();
        (entry.index, entry.term, entry.data) = (index, item.term, item.data.clone().into());
        Some(entry)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard = HardState::default();
        (hard.term, hard.vote, hard.commit) = (self.promise.term, self.promise.vote, self.base.index);
        let mut members = ConfState::default();
        members.voters = self.voters.clone();
        Ok(RaftState::new(hard, members))
    }

    fn entries(&self, low: u64, high: u64, max_size: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let mut entries = (low..high).map(|index| self.entry(index)).collect::<Option<Vec<_>>>().ok_or(StorageError::Unavailable)?;
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        let missing = if index < self.base.index { StorageError::Compacted } else { StorageError::Unavailable };
        self.item(index).map(|item| item.term).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        // The base is decided and durable here; entries follow from it.
        if request_index > self.base.index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.base.as_snapshot(&self.voters))
    }
}
