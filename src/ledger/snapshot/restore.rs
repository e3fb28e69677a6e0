//! Checks a snapshot, and makes a database of it.
//!
//! One batch a height, as the chain was made: its header; bodies of the last blocks; the state spread over all heights but the last. The
//! last batch makes the database usable, and is only written when everything was proven. A restore that was cut short goes on where the
//! database ends: what is below is read and checked again, not written again.

use std::ops::ControlFlow;

use millrace_access::Totals;
use millrace_access::blockchain::records::{self, decode_receipt, decode_transaction};
use millrace_access::blockchain::restore::{self as batches, Tail};
use millrace_base::{Block, Bytes};
use millrace_core::storage::Storage;
use millrace_core::{Batch, Durability, StateCommitment, StorageError};

use super::chunk::Snapshot;
use super::create::sum_pairs;
use super::headers::{self, HeaderChain, SignedHeader};
use super::manifest::{Chunk, Kind};
use super::{Progress, SnapshotError, Step, Trust, check_kind, kept_from};
use crate::state_sum::StateSum;
use crate::verify::{Tip, check_content};

/// What a check or a restore found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Height of the snapshot.
    pub height: u64,
    /// Pairs of the state.
    pub state_values: u64,
    /// Blocks with bodies.
    pub blocks: u64,
    /// Height at which an earlier restore had stopped; 0 when it began here.
    pub resumed_at: u64,
}

/// What to restore, believing what, into what.
pub struct Restore<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// What the operator knows.
    pub trust: &'a Trust,
    /// A database that is empty or holds the same restore, cut short.
    pub target: &'a dyn Storage,
}

/// Checks a snapshot, every byte of it.
///
/// # Errors
/// The file that is refused, and why.
pub fn verify(snapshot: &Snapshot, trust: &Trust, progress: &mut Progress<'_>) -> Result<Outcome, SnapshotError> {
    Walk::new(snapshot, trust, None, progress)?.run()
}

/// Checks a snapshot and writes it into a database. When it returns, the database is durable and a node can open it.
///
/// # Errors
/// As [`verify`]; the database is in use or fails. After [`SnapshotError::Stopped`] and failures of the database or of reading, the same restore goes on
/// when it is called again; a database of a snapshot that was refused is of no use and must be removed.
pub fn restore(order: &Restore<'_>, progress: &mut Progress<'_>) -> Result<Outcome, SnapshotError> {
    Walk::new(order.snapshot, order.trust, Some(order.target), progress)?.run()
}

/// An item of a chunk.
struct Item<'a> {
    chunk: &'a Chunk,
    strings: Vec<Bytes>,
    /// Bytes of the chunks that were read to find it.
    read_bytes: u64,
}

/// The chunks of one kind, item by item.
struct Items<'a> {
    snapshot: &'a Snapshot,
    chunks: std::vec::IntoIter<&'a Chunk>,
    current: Option<(&'a Chunk, std::vec::IntoIter<Bytes>)>,
    each: usize,
}

impl<'a> Items<'a> {
    fn new(snapshot: &'a Snapshot, kind: Kind, each: usize) -> Self {
        let chunks = snapshot.manifest().of(kind).collect::<Vec<_>>().into_iter();
        Self { snapshot, chunks, current: None, each }
    }

    /// The next item.
    fn next(&mut self) -> Result<Option<Item<'a>>, SnapshotError> {
        let mut read_bytes = 0;
        loop {
            if let Some((chunk, strings)) = &mut self.current {
                let strings: Vec<Bytes> = strings.by_ref().take(self.each).collect();
                if !strings.is_empty() {
                    return Ok(Some(Item { chunk, strings, read_bytes }));
                }
            }
            let Some(chunk) = self.chunks.next() else { return Ok(None) };
            self.current = Some((chunk, self.snapshot.strings(chunk, self.each)?.into_iter()));
            read_bytes += chunk.bytes;
        }
    }
}

struct Walk<'a, 'p> {
    snapshot: &'a Snapshot,
    target: Option<&'a dyn Storage>,
    /// The first height that is not in the target.
    first: u64,
    headers: HeaderChain<'a>,
    blocks: Items<'a>,
    states: Vec<&'a Chunk>,
    next_state: usize,
    sum: StateSum,
    read_bytes: u64,
    progress: &'p mut Progress<'p>,
}

impl<'a, 'p> Walk<'a, 'p> {
    fn new(
        snapshot: &'a Snapshot,
        trust: &'a Trust,
        target: Option<&'a dyn Storage>,
        progress: &'p mut Progress<'p>,
    ) -> Result<Self, SnapshotError> {
        check_kind(trust.state)?;
        let manifest = snapshot.manifest();
        if manifest.genesis != trust.genesis {
            let detail =
                format!("it is of the chain that starts with block 0 {}, this group starts with {}", manifest.genesis, trust.genesis);
            return Err(snapshot.refuse(detail));
        }
        let headers: u64 = manifest.of(Kind::Headers).map(|chunk| chunk.items).sum();
        let blocks: u64 = manifest.of(Kind::Blocks).map(|chunk| chunk.items).sum();
        let first_block = kept_from(manifest.height);
        let is_whole = manifest.height > 0
            && headers == manifest.height + 1
            && blocks == manifest.height + 1 - first_block
            && manifest.counted_at <= manifest.height
            && manifest.failed <= manifest.transactions
            && (1..=manifest.height + 1).contains(&manifest.epoch_start);
        if !is_whole {
            return Err(snapshot.refuse("its numbers of headers, blocks and transactions do not fit its height".into()));
        }
        let first = target.map_or(Ok(0), |target| first_height(target, snapshot))?;
        Ok(Self {
            snapshot,
            target,
            first,
            headers: HeaderChain::new(trust),
            blocks: Items::new(snapshot, Kind::Blocks, 2),
            states: manifest.of(Kind::State).collect(),
            next_state: 0,
            sum: StateSum::default(),
            read_bytes: 0,
            progress,
        })
    }

    fn run(mut self) -> Result<Outcome, SnapshotError> {
        let manifest = self.snapshot.manifest();
        for chunk in manifest.of(Kind::Headers) {
            let refuse = |detail| self.snapshot.refuse_chunk(chunk, detail);
            let headers = headers::decode(&self.snapshot.strings(chunk, 1)?).map_err(refuse)?;
            self.headers.extend(&headers).map_err(refuse)?;
            self.read_bytes += chunk.bytes;
            for header in headers {
                self.take(header)?;
            }
        }
        Ok(Outcome {
            height: manifest.height,
            state_values: self.sum.values(),
            blocks: manifest.height + 1 - kept_from(manifest.height),
            resumed_at: self.first,
        })
    }

    /// One height.
    fn take(&mut self, signed: SignedHeader) -> Result<(), SnapshotError> {
        let manifest = self.snapshot.manifest();
        let number = signed.header.number;
        let mut batch = Batch::default();
        let SignedHeader { header, hash, signatures } = signed;
        let mut block = Block { header, hash, signatures, transactions: Vec::new(), receipts: Vec::new() };
        if number == 0 {
            batches::begin(&mut batch, manifest.name());
        }
        if number < manifest.height {
            self.take_state(number, &mut batch)?;
        }
        batches::header(&mut batch, &block);
        if number == 0 || number >= kept_from(manifest.height) {
            if number > 0 {
                self.take_body(&mut block)?;
            }
            batches::body(&mut batch, &block);
        }
        if number == manifest.height {
            self.finish(&mut batch)?;
        }
        if let Some(target) = self.target.filter(|_| number >= self.first) {
            let durability = if number == manifest.height { Durability::Power } else { Durability::Process };
            target.commit(number, &batch, durability)?;
        }
        match (self.progress)(Step::Bytes, self.read_bytes, manifest.bytes()) {
            ControlFlow::Break(()) if number < manifest.height => Err(SnapshotError::Stopped),
            _ => Ok(()),
        }
    }

    /// The part of the state that is written with a height below the last: all of it is there before the last.
    fn take_state(&mut self, number: u64, batch: &mut Batch) -> Result<(), SnapshotError> {
        let (all, heights) = (self.states.len() as u64, self.snapshot.manifest().height);
        let end = u64::try_from(u128::from(all) * u128::from(number + 1) / u128::from(heights)).expect("at most as many as there are");
        while (self.next_state as u64) < end {
            let chunk = self.states[self.next_state];
            let strings = self.snapshot.strings(chunk, 2)?;
            let sum = sum_pairs(&strings).map_err(|error| self.snapshot.refuse_chunk(chunk, error.to_string()))?;
            self.sum.merge(&sum);
            if self.target.is_some() && number >= self.first {
                strings.chunks_exact(2).for_each(|pair| batches::state(batch, &pair[0], &pair[1]));
            }
            self.read_bytes += chunk.bytes;
            self.next_state += 1;
        }
        Ok(())
    }

    fn take_body(&mut self, block: &mut Block) -> Result<(), SnapshotError> {
        let number = block.header.number;
        let Some(Item { chunk, strings, read_bytes }) = self.blocks.next()? else {
            return Err(self.snapshot.refuse(format!("block {number} is missing")));
        };
        self.read_bytes += read_bytes;
        let refuse = |detail: String| self.snapshot.refuse_chunk(chunk, format!("block {number}: {detail}"));
        let in_words = |error: StorageError| refuse(error.to_string());
        block.transactions = records::unpack(&strings[0], "block body", decode_transaction).map_err(in_words)?;
        block.receipts = records::unpack(&strings[1], "receipts", decode_receipt).map_err(in_words)?;
        if block.receipts.len() != block.transactions.len() {
            return Err(refuse("there is not one receipt for each transaction".into()));
        }
        check_content(block).map_err(refuse)
    }

    /// Everything is there: it must be what the last header says.
    fn finish(&mut self, batch: &mut Batch) -> Result<(), SnapshotError> {
        let (snapshot, manifest) = (self.snapshot, self.snapshot.manifest());
        let tip = self.headers.finish().map_err(|detail| snapshot.refuse(detail))?;
        if (tip.hash, tip.state_root) != (manifest.hash, manifest.state_root) {
            return Err(snapshot.refuse(format!("it names block {}, its headers end with {}", manifest.hash, tip.hash)));
        }
        let sum = std::mem::take(&mut self.sum);
        let (root, values) = (sum.root(), sum.values());
        if (root, root) != (tip.state_root, tip.db_hash) {
            let Tip { state_root, db_hash, .. } = tip;
            let detail = format!(
                "its state gives the root {root}, the signed header of block {} has state root {state_root} and dbHash {db_hash}",
                manifest.height
            );
            return Err(snapshot.refuse(detail));
        }
        if values != manifest.state_values {
            return Err(snapshot.refuse(format!("it names {} values of the state and has {values}", manifest.state_values)));
        }
        let totals = Totals { transactions: manifest.transactions, failed: manifest.failed, number: manifest.counted_at };
        let tail = Tail {
            genesis: manifest.genesis,
            commitment: StateCommitment::Storage(sum.clone().into_accumulator()),
            totals,
            epoch_start: manifest.epoch_start,
            kept_from: kept_from(manifest.height),
        };
        self.sum = sum;
        batches::finish(batch, &tail);
        Ok(())
    }
}

/// The first height that the target lacks.
fn first_height(target: &dyn Storage, snapshot: &Snapshot) -> Result<u64, SnapshotError> {
    let Some(height) = target.height()? else { return Ok(0) };
    match batches::unfinished(&|space, key| target.get(space, key))? {
        Some(name) if name == snapshot.manifest().name() => Ok(height + 1),
        Some(_) => Err(SnapshotError::Impossible(
            "the database holds the restore of another snapshot that was cut short: restore that one, or remove the database".into(),
        )),
        None => Err(SnapshotError::Impossible(format!(
            "the database holds blocks up to {height}: move it away first, a snapshot is restored into an empty one"
        ))),
    }
}
