//! The log of one epoch: entries above a base, each with the proposal it carries.
//!
//! Invariants: heights of proposals rise by one from entry to entry; an entry of a height that is not durable yet has its transactions;
//! everything at or below the base is decided. Entries are counted from 1 in every epoch.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use millrace_base::{B256, Bytes, VerifiedTx, wire};

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

/// What a member must not forget besides entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promise {
    pub term: u64,
    /// Whom it voted for in this term.
    pub vote: Option<u32>,
}

/// See the module.
pub struct Log {
    base: Position,
    items: VecDeque<Item>,
}

impl Log {
    pub fn new(base: Position) -> Self {
        Self { base, items: VecDeque::new() }
    }

    pub fn base(&self) -> &Position {
        &self.base
    }

    pub fn last(&self) -> u64 {
        self.base.index + self.items.len() as u64
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.data.len()).sum()
    }

    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok().filter(|place| *place < self.items.len())
    }

    pub fn item(&self, index: u64) -> Option<&Item> {
        self.place(index).map(|place| &self.items[place])
    }

    pub fn item_mut(&mut self, index: u64) -> Option<&mut Item> {
        let place = self.place(index)?;
        self.items.get_mut(place)
    }

    /// Term of an entry or of the base; none where the log has neither.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index { Some(self.base.term) } else { self.item(index).map(|item| item.term) }
    }

    /// The highest place up to `index` whose term is not above `term`: nothing above it can be shared with a log whose last term is that.
    pub fn agreeing(&self, index: u64, term: u64) -> (u64, u64) {
        let mut index = index.clamp(self.base.index, self.last());
        while index > self.base.index && self.term_at(index).is_some_and(|known| known > term) {
            index -= 1;
        }
        (index, self.term_at(index).unwrap_or(0))
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
}
