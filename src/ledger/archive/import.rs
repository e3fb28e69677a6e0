//! Takes blocks of a file into a database: checked and executed like blocks of peers.
//!
//! Invariant: the database always ends with a whole block that was verified, whatever the file holds and wherever the import stops. The
//! importer owns the database; no node uses it meanwhile.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use millrace_access::blockchain::{BlockChain, Commit, records};
use millrace_access::verifier::{BlockExecutor, BlockOrder, ExecutedBlock, ParallelVerifier, SignatureVerifier};
use millrace_administration::Epoch;
use millrace_administration::sync::CheckedBlock;
use millrace_administration::sync::message::WireBlock;
use millrace_base::frame::FrameReader;
use millrace_base::{B256, BlockHeader, Bytes, ChainId, NodeId, Receipt, merkle, wire};
use millrace_core::overlay::{Layer, LayeredState};
use millrace_core::{Durability, Storage, StorageError};

use super::record::{Place, Record, RecordError, RecordReader};
use super::{ArchiveError, End, Head, Progress, kind};
use crate::check::check_block;
use crate::genesis::Genesis;
use crate::ledger::{OpenError, changed_epoch, check_head, epoch_at};
use crate::verify::{Tip, check_link, check_signatures};

/// Decoded state kept while blocks are executed.
const CACHE_BYTES: usize = 256 << 20;

/// What an import did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImportReport {
    /// Blocks taken.
    pub blocks: u64,
    /// Their transactions.
    pub transactions: u64,
    /// Blocks that were there already, compared by hash.
    pub known: u64,
    /// Height of the database afterwards.
    pub height: u64,
    /// Whether the whole file was taken.
    pub is_complete: bool,
}

/// A block of a file.
struct Stored {
    block: Bytes,
    receipts: Bytes,
}

/// See the module.
pub struct Importer {
    chain: BlockChain,
    executor: BlockExecutor,
    epoch: Epoch,
    /// What a file must be of; `from` does not count.
    head: Head,
}

/// Why a block is not taken: its own fault, or the database's.
enum Fault {
    Refused(String),
    Storage(StorageError),
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl Importer {
    /// Over a group's database, which may be empty. Blocks are durable when the database is closed in order, or as soon as the operating
    /// system has written them: an import that is lost is repeated.
    ///
    /// # Errors
    /// As [`crate::Ledger::open`].
    pub fn open(storage: Arc<dyn Storage>, chain_id: ChainId, genesis: &Genesis) -> Result<Self, OpenError> {
        let chain = match BlockChain::open(Arc::clone(&storage), Durability::Process, CACHE_BYTES)? {
            Some(chain) => chain,
            None => BlockChain::create(storage, Durability::Process, CACHE_BYTES, genesis.commit()?)?,
        };
        let (group, configured) = (genesis.group, genesis.hash());
        if chain.genesis() != configured {
            return Err(OpenError::OtherChain { group, stored: chain.genesis(), configured });
        }
        check_head(&chain, group)?;
        let epoch =
            Epoch { start: chain.epoch_start()?, ..epoch_at(&*chain.state(), chain.head().header.number + 1, genesis.consensus.faults())? };
        let head = Head { chain_id, group, genesis: configured.0, from: 0 };
        Ok(Self { chain, executor: BlockExecutor::new(genesis.rules), epoch, head })
    }

    /// The chain that grows.
    pub fn chain(&self) -> &BlockChain {
        &self.chain
    }

    /// Takes the blocks of a file that follow the head; those below are compared.
    ///
    /// # Errors
    /// The file with offset and reason; what was taken before stays.
    pub fn import(&mut self, file: &Path, progress: &mut Progress<'_>) -> Result<ImportReport, ArchiveError> {
        let refused = |offset: u64, detail: String| ArchiveError::Refused { file: file.to_owned(), offset, detail };
        let failed = |offset: u64, error| match error {
            RecordError::Io(error) => ArchiveError::Io { file: file.to_owned(), error },
            RecordError::Damaged(detail) => ArchiveError::Refused { file: file.to_owned(), offset, detail },
        };
        let opened = File::open(file).map_err(ArchiveError::io(file))?;
        let mut reader = RecordReader::begin(BufReader::with_capacity(1 << 20, opened)).map_err(|error| failed(0, error))?;
        let start = Place::START.offset;
        let first = reader.next().map_err(|error| failed(start, error))?.filter(|record| record.kind == kind::HEAD);
        let head = first.and_then(|record| wire::decode::<Head>(&record.content).ok());
        let head = head.ok_or_else(|| refused(start, "it does not say what its blocks belong to".into()))?;
        if let Some(reason) = head.differs(&self.head) {
            return Err(refused(start, reason));
        }
        let next = self.chain.head().header.number + 1;
        if head.from > next {
            return Err(refused(start, format!("its first block is {}, the database needs block {next} first", head.from)));
        }
        let mut report = ImportReport { height: next - 1, ..ImportReport::default() };
        let mut number = head.from;
        loop {
            let place = reader.place().offset;
            let Some(record) = reader.next().map_err(|error| failed(place, error))? else {
                return Err(refused(
                    place,
                    format!("the file ends after block {} without its end: the export was not completed", number - 1),
                ));
            };
            if record.kind == kind::END {
                report.is_complete = wire::decode::<End>(&record.content).is_ok_and(|end| end.last + 1 == number);
                return if report.is_complete { Ok(report) } else { Err(refused(place, "its end names another last block".into())) };
            }
            self.take(&record, number, &mut report).map_err(|fault| match fault {
                Fault::Refused(detail) => refused(place, format!("block {number}: {detail}")),
                Fault::Storage(error) => ArchiveError::Storage(error),
            })?;
            number += 1;
            if progress(report.known + report.blocks, 0) == ControlFlow::Break(()) {
                return Ok(report);
            }
        }
    }

    fn take(&mut self, record: &Record, number: u64, report: &mut ImportReport) -> Result<(), Fault> {
        let Stored { block, receipts } = read(record).map_err(Fault::Refused)?;
        if number <= self.chain.head().header.number {
            self.compare(&block, number)?;
            report.known += 1;
            return Ok(());
        }
        let checked = check_block(&block, number, NodeId([0; 64]), |raws| {
            let results = ParallelVerifier.recover_batch(raws).into_iter().enumerate();
            results.map(|(index, result)| result.map_err(|error| format!("transaction {index}: {error}"))).collect()
        });
        report.transactions += self.append(checked.map_err(Fault::Refused)?, &receipts)?;
        report.blocks += 1;
        report.height = number;
        Ok(())
    }

    /// A block that is here already must be the same.
    fn compare(&self, block: &Bytes, number: u64) -> Result<(), Fault> {
        let header = header_of(block).map_err(Fault::Refused)?;
        let stored = self.chain.hash_of(number)?;
        if header.number == number && stored == Some(header.hash()) {
            return Ok(());
        }
        let stored = stored.unwrap_or_default();
        Err(Fault::Refused(format!("it has hash {}, the database has block {stored} at this height: another chain", header.hash())))
    }

    /// Judges and executes a block as a voter does, and commits it.
    fn append(&mut self, checked: CheckedBlock, receipts: &Bytes) -> Result<u64, Fault> {
        let CheckedBlock { hash, block } = checked;
        let (header, number) = (&block.header, block.header.number);
        let head = self.chain.head();
        check_link(header, number, Some(&Tip::new(&head.header, head.hash))).map_err(Fault::Refused)?;
        if header.sealer_list != self.epoch.sealers || header.sealer >= self.epoch.sealers.len() as u64 {
            return Err(Fault::Refused("it was not made by the sealers that govern it".into()));
        }
        check_signatures((header, hash), &block.signatures, self.epoch.faults).map_err(Fault::Refused)?;
        let given = decode_receipts(receipts, header).map_err(Fault::Refused)?;
        let ExecutedBlock { block: mut own, writes, nodes, commitment } = self.executor.execute(BlockOrder {
            parent_hash: header.parent_hash,
            number,
            timestamp_ms: header.timestamp_ms,
            tx_gas_limit: self.epoch.tx_gas_limit,
            sealer: header.sealer,
            sealer_list: header.sealer_list.clone(),
            transactions: block.transactions,
            state: self.chain.state(),
            commitment: &self.chain.commitment()?,
            hashes: &self.chain,
        })?;
        if own.hash != hash {
            return Err(Fault::Refused(format!(
                "executing it gives another block: {}",
                difference(header, &own.header, &given, &own.receipts)
            )));
        }
        own.signatures = block.signatures;
        let count = own.transactions.len() as u64;
        let after = || Arc::new(LayeredState::new(self.chain.state(), vec![Arc::new(Layer::new(&writes, &nodes))]));
        let next = changed_epoch(&self.epoch, number, &writes, after)?;
        let epoch_start = next.as_ref().map(|epoch| epoch.start);
        let commit = Commit { block: Arc::new(own), writes, nodes, commitment, epoch_start };
        self.chain.commit(&[commit])?;
        if let Some(epoch) = next {
            self.epoch = epoch;
        }
        Ok(count)
    }
}

fn read(record: &Record) -> Result<Stored, String> {
    if record.kind != kind::BLOCK {
        return Err(format!("there is a record of kind {} in its place", record.kind));
    }
    let mut reader = FrameReader::new(Bytes::copy_from_slice(&record.content));
    let mut string = || reader.string().map_err(|error| error.to_string());
    let stored = Stored { block: string()?, receipts: string()? };
    reader.finish().map_err(|error| error.to_string())?;
    Ok(stored)
}

fn header_of(block: &Bytes) -> Result<BlockHeader, String> {
    WireBlock::decode(block).map(|block| block.header).map_err(|error| error.to_string())
}

/// The receipts in the file, which must be those of the header.
fn decode_receipts(bytes: &[u8], header: &BlockHeader) -> Result<Vec<Receipt>, String> {
    let receipts = records::unpack(bytes, "receipts", records::decode_receipt).map_err(|error| error.to_string())?;
    let hashes: Vec<B256> = receipts.iter().map(Receipt::hash).collect();
    let root = merkle::root(&hashes);
    if root != header.receipts_root {
        return Err(format!("its header has receipts root {}, its receipts give {root}", header.receipts_root));
    }
    Ok(receipts)
}

/// Where this node's result is another than the file's, as close as it can be told.
fn difference(header: &BlockHeader, own: &BlockHeader, given: &[Receipt], receipts: &[Receipt]) -> String {
    let effects = |receipt: &Receipt| Receipt { state_root: B256::ZERO, ..receipt.clone() };
    match given.iter().zip(receipts).position(|(given, own)| effects(given) != effects(own)) {
        Some(index) => format!("the receipt of transaction {index} is another"),
        None if own.state_root != header.state_root => {
            format!("the state root is {}, its header says {}", own.state_root, header.state_root)
        }
        None if own.db_hash != header.db_hash => format!("dbHash is {}, its header says {}", own.db_hash, header.db_hash),
        None => "its header has fields that no node writes".into(),
    }
}
