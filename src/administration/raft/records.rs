//! What an engine must remember over a crash, and the log that follows from it after a restart.
//!
//! The vote log gives records back while the height they name is not durable, in no particular order once its segments were rewritten;
//! so each carries a number that counts up. Invariants: a term, a vote and an entry are recorded before anything that rests on them
//! leaves; as long as an epoch governs, what is given back is enough to say where this node's log ends. For the usual case that follows
//! from one rule: the entry of a height is kept until the *next* height is durable, so that of the last durable block is there. Where
//! blocks come from sync and pass the log by, [`Record::Log`] is written before they become durable.

use bincode::{Decode, Encode};
use millrace_base::{Bytes, wire};

use super::log::{Item, Log, Placed, Position, Promise};
use crate::digest::Domain;
use crate::pbft::message::Hash;
use crate::pbft::records::{LoggedTx, log_transactions, restore_transactions};

/// How far ahead of the durable height a promise is kept; it is renewed when half of it is used up.
pub const PROMISE_HEIGHTS: u64 = 1_000;

/// One entry of the vote log.
#[derive(Clone, Encode, Decode)]
pub enum Record {
    /// The term this node is in and whom it voted for.
    Promise { epoch: Hash, number: u64, term: u64, vote: Option<u32> },
    /// An entry of the log; what was at its index and above is gone.
    Entry { epoch: Hash, number: u64, below: Position, term: u64, data: Vec<u8>, transactions: Option<Vec<LoggedTx>> },
    /// The whole log; transactions are in the chain or in earlier records.
    Log { epoch: Hash, number: u64, base: Position, entries: Vec<(u64, Vec<u8>)> },
}

impl Record {
    pub fn encode(&self) -> Bytes {
        wire::encode(self).into()
    }

    pub fn decode(body: &[u8]) -> Option<Self> {
        wire::decode(body).ok()
    }

    fn place(&self) -> (Hash, u64) {
        match self {
            Self::Promise { epoch, number, .. } | Self::Entry { epoch, number, .. } | Self::Log { epoch, number, .. } => (*epoch, *number),
        }
    }

    pub fn epoch(&self) -> Hash {
        self.place().0
    }

    /// An entry about to be appended behind `below`.
    pub fn entry(epoch: Hash, number: u64, below: Position, item: &Item) -> Self {
        let transactions = item.placed.as_ref().and_then(|placed| placed.transactions.as_deref()).map(log_transactions);
        Self::Entry { epoch, number, below, term: item.term, data: item.data.to_vec(), transactions }
    }
}

/// The number behind all of these.
pub fn next_number(records: &[Record]) -> u64 {
    records.iter().map(|record| record.place().1 + 1).max().unwrap_or(0)
}

/// The log of an epoch and the promise in it as they were before a restart; `fresh` where an epoch that nothing was recorded of begins.
pub fn restore(records: &[Record], epoch: Hash, fresh: Position, domain: &Domain) -> (Log, Promise) {
    let mut own: Vec<&Record> = records.iter().filter(|record| record.place().0 == epoch).collect();
    own.sort_by_key(|record| record.place().1);
    let (mut log, mut promise) = (Log::new(fresh), Promise::default());
    for record in own {
        match record {
            Record::Promise { term, vote, .. } => promise = Promise { term: *term, vote: *vote },
            Record::Entry { below, term, data, transactions, .. } => {
                let transactions = transactions.as_deref().and_then(restore_transactions);
                append(&mut log, *below, (*term, data), transactions, domain);
            }
            Record::Log { base, entries, .. } => {
                let earlier = std::mem::replace(&mut log, Log::new(*base));
                for (term, data) in entries {
                    let placed = Placed::read(data, domain).ok().flatten();
                    let same =
                        placed.and_then(|placed| earlier.at_height(placed.header.height).filter(|known| known.contents == placed.contents));
                    let kept = same.and_then(|placed| placed.transactions.clone());
                    let below = log.end();
                    append(&mut log, below, (*term, data), kept, domain);
                }
            }
        }
    }
    (log, promise)
}

/// Appends an entry behind `below`. Where the log does not reach there, what lies between is decided: it was let go of as durable.
fn append(
    log: &mut Log,
    below: Position,
    (term, data): (u64, &[u8]),
    transactions: Option<Vec<millrace_base::VerifiedTx>>,
    domain: &Domain,
) {
    let attaches = log.position(below.index).is_some_and(|known| known.term == below.term);
    if !attaches {
        log.reset(below);
    }
    let mut placed = Placed::read(data, domain).ok().flatten();
    if let Some(placed) = placed.as_mut() {
        placed.transactions = transactions;
    }
    let kept_to = kept_to(&below, placed.as_ref());
    log.put(below.index + 1, Item { term, data: data.to_vec().into(), placed, kept_to });
}

/// The height until which the record of an entry is given back: that above its own, so that of the last durable block is always there.
pub fn kept_to(below: &Position, placed: Option<&Placed>) -> u64 {
    placed.map_or(below.height, |placed| placed.header.height).saturating_add(1)
}
