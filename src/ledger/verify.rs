//! Checks a whole database: `millrace db verify`.
//!
//! Every block from 0 to the head: parent hash, transactions root, receipts root, each transaction's signature, the signatures of a
//! quorum of distinct sealers, the indices, with tries every node it added; and the state: its commitment recomputed from every stored
//! value ([`state`]) and compared with the header of the head. Of blocks whose bodies are not kept the header and the tries are checked.
//! Reads only; memory is bounded by one block.

mod state;

use std::collections::BTreeSet;

use millrace_access::blockchain::facts::{ChainFacts, Get};
use millrace_access::blockchain::{read_block, read_commitment, read_header, records};
use millrace_administration::{Epoch, Faults};
use millrace_base::crypto::recover;
use millrace_base::{B256, Block, BlockHeader, BlockSignature, VerifiedTx, merkle};
use millrace_core::storage::{StorageView, moment};
use millrace_core::trie::EMPTY_ROOT;
use millrace_core::{Space, StateKind, Storage, StorageError, mpt};
use rayon::prelude::*;

use crate::genesis::faults_of_mark;

/// Fewest signatures worth handing to another thread: about a millisecond of work.
const RECOVERED_AT_ONCE: usize = 16;

/// How far a check has got, for a progress bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Blocks checked, of how many.
    Blocks(u64, u64),
    /// State values read so far.
    State(u64),
}

/// What a clean database holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Height of the head.
    pub height: u64,
    /// Hash of the head.
    pub head: B256,
    /// Transactions in the blocks whose bodies are kept.
    pub transactions: u64,
    /// The lowest height above 0 whose body and receipts are kept.
    pub kept_from: u64,
    /// State values.
    pub state_values: u64,
    /// The recomputed state root.
    pub state_root: B256,
    /// How state is kept.
    pub state: StateKind,
}

/// The first thing found wrong.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Storage failed or its own checksums do not match.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no block 0.
    #[error("the database holds no block 0: it was never used by a node")]
    Empty,
    /// A block is wrong.
    #[error("block {number}: {detail}")]
    Block {
        /// Its height.
        number: u64,
        /// What is wrong.
        detail: String,
    },
    /// The state is not what the head's header says.
    #[error("{root} of block {number} is {header}, but the stored values give {computed}")]
    State {
        /// `state root` or `dbHash`.
        root: &'static str,
        /// Height of the head.
        number: u64,
        /// In the header.
        header: B256,
        /// Recomputed.
        computed: B256,
    },
}

/// Checks everything, as of one moment: a node may go on writing to a database on a server. Stops at the first fault.
///
/// # Errors
/// What is wrong, or that the engine cannot be read.
pub fn verify_database(storage: &dyn Storage, progress: &mut dyn FnMut(Progress)) -> Result<Report, VerifyError> {
    storage.verify()?;
    let (view, height) = moment(storage)?;
    verify_view(&*view, height.ok_or(VerifyError::Empty)?, progress)
}

fn verify_view(view: &dyn StorageView, height: u64, progress: &mut dyn FnMut(Progress)) -> Result<Report, VerifyError> {
    let get: Get<'_> = &|space, key| view.get(space, key);
    let kept_from = ChainFacts::read(get)?.kept_from;
    let kind = read_commitment(get)?.kind();
    let (mut parent, mut transactions, mut faults) = (None, 0, Faults::default());
    for number in 0..=height {
        let fault = |detail: String| VerifyError::Block { number, detail };
        let missing = || fault("it is missing".into());
        let tip = if number > 0 && number < kept_from {
            let (header, signatures) = read_header(get, number)?.ok_or_else(missing)?;
            let tip = check_header((&header, &signatures), number, parent.as_ref(), faults).map_err(fault)?;
            check_block_index(get, number, tip.hash)?.map_err(fault)?;
            tip
        } else {
            let block = read_block(get, number)?.ok_or_else(missing)?;
            if number == 0 {
                faults = faults_of_genesis(&block.header);
            }
            let tip = check_header((&block.header, &block.signatures), number, parent.as_ref(), faults).map_err(fault)?;
            check_content(&block).map_err(fault)?;
            check_indices(get, &block)?.map_err(fault)?;
            transactions += block.transactions.len() as u64;
            tip
        };
        if let (StateKind::Mpt, Some(parent)) = (kind, &parent) {
            check_tries(get, parent, &tip).map_err(|error| fault(error.to_string()))?;
        }
        parent = Some(tip);
        progress(Progress::Blocks(number + 1, height + 1));
    }
    let head = parent.ok_or(VerifyError::Empty)?;
    let (state_values, commitment) = state::recompute(view, kind, &head, progress)?;
    // Block 0 carries zero roots, as in 2.x.
    let roots = [("state root", head.state_root, commitment.state_root()), ("dbHash", head.db_hash, commitment.db_hash())];
    for (root, header, computed) in roots {
        if height > 0 && header != computed {
            return Err(VerifyError::State { root, number: height, header, computed });
        }
    }
    let state_root = commitment.state_root();
    Ok(Report { height, head: head.hash, transactions, kept_from, state_values, state_root, state: kind })
}

/// What quorums of a chain are made for, by the header of its block 0.
pub(crate) fn faults_of_genesis(header: &BlockHeader) -> Faults {
    header.extra_data.first().map_or(Faults::default(), |mark| faults_of_mark(mark))
}

/// Every node that a block added to the tries must be there, and be what its hash says.
fn check_tries(get: Get<'_>, parent: &Tip, tip: &Tip) -> Result<(), StorageError> {
    let read = |hash: &B256| Ok(get(Space::Trie, hash.as_slice())?.map(Into::into));
    mpt::check(parent.account_root(), tip.account_root(), &read).map(drop)
}

/// Recomputes the Merkle roots of a block.
pub fn check_roots(block: &Block) -> Result<(), String> {
    let header = &block.header;
    let hashes: Vec<B256> = block.transactions.iter().map(millrace_base::VerifiedTx::hash).collect();
    expect_root("transactions root", header.transactions_root, merkle::root(&hashes))?;
    let hashes: Vec<B256> = block.receipts.iter().map(millrace_base::Receipt::hash).collect();
    expect_root("receipts root", header.receipts_root, merkle::root(&hashes))?;
    if block.receipts.iter().any(|receipt| receipt.state_root != header.state_root) {
        return Err("a receipt carries another state root than the header".into());
    }
    Ok(())
}

fn expect_root(name: &str, header: B256, computed: B256) -> Result<(), String> {
    if header == computed { Ok(()) } else { Err(format!("{name} in the header is {header}, the content gives {computed}")) }
}

/// What the next block is checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tip {
    pub number: u64,
    pub hash: B256,
    pub timestamp_ms: u64,
    pub state_root: B256,
    pub db_hash: B256,
}

impl Tip {
    /// Of a header with this hash.
    pub fn new(header: &BlockHeader, hash: B256) -> Self {
        let BlockHeader { number, timestamp_ms, state_root, db_hash, .. } = *header;
        Self { number, hash, timestamp_ms, state_root, db_hash }
    }

    /// Root of the block's account trie, with tries. Block 0 has no accounts, and zero in its header.
    fn account_root(&self) -> B256 {
        if self.number == 0 { EMPTY_ROOT } else { self.state_root }
    }
}

/// A header in its place, signed by a quorum of those whom it names.
fn check_header(
    (header, signatures): (&BlockHeader, &[BlockSignature]),
    number: u64,
    parent: Option<&Tip>,
    faults: Faults,
) -> Result<Tip, String> {
    let tip = Tip::new(header, header.hash());
    check_link(header, number, parent)?;
    if parent.is_some() {
        check_signatures((header, tip.hash), signatures, faults)?;
    }
    Ok(tip)
}

/// A header is of its height and follows the block before.
pub(crate) fn check_link(header: &BlockHeader, number: u64, parent: Option<&Tip>) -> Result<(), String> {
    if header.number != number {
        return Err(format!("its header says height {}", header.number));
    }
    let Some(parent) = parent else { return Ok(()) };
    if header.parent_hash != parent.hash {
        return Err(format!("its parent is {}, the block before is {}", header.parent_hash, parent.hash));
    }
    if header.timestamp_ms <= parent.timestamp_ms {
        return Err("its timestamp is not above its parent's".into());
    }
    Ok(())
}

/// Transactions and receipts are those of the header, and each transaction is its sender's. Block 0 has none, and zero roots.
pub(crate) fn check_content(block: &Block) -> Result<(), String> {
    if block.header.number == 0 {
        return Ok(());
    }
    check_roots(block)?;
    let check_sender = |transaction: &VerifiedTx| {
        let sender = recover(transaction.fields().signing_digest(), transaction.signature()).map_err(|error| error.to_string())?;
        if sender == transaction.sender() {
            return Ok(());
        }
        Err(format!("transaction {} was signed by {sender}, not by {}", transaction.hash(), transaction.sender()))
    };
    block.transactions.par_iter().with_min_len(RECOVERED_AT_ONCE).try_for_each(check_sender)
}

/// A quorum of distinct sealers must have signed the block hash: those that the header, given with its hash, names. Gives who did, as
/// indices.
pub(crate) fn check_signatures(
    (header, hash): (&BlockHeader, B256),
    signatures: &[BlockSignature],
    faults: Faults,
) -> Result<BTreeSet<u32>, String> {
    let sealers = &header.sealer_list;
    if signatures.len() > sealers.len() {
        return Err(format!("{} signatures of {} sealers", signatures.len(), sealers.len()));
    }
    let mut signers = BTreeSet::new();
    for signature in signatures {
        let sealer =
            sealers.get(signature.index as usize).ok_or_else(|| format!("signer {} is not in the sealer list", signature.index))?;
        if !sealer.verify(hash, &signature.signature) {
            return Err(format!("the signature of sealer {} does not fit the block hash", signature.index));
        }
        signers.insert(signature.index);
    }
    let rules = Epoch { start: 0, sealers: sealers.clone(), faults, tx_count_limit: 0, tx_gas_limit: 0, consensus_timeout_ms: 0 };
    if sealers.is_empty() || signers.len() < rules.quorum() {
        return Err(format!("{} distinct sealers signed, {} of {} must", signers.len(), rules.quorum(), sealers.len()));
    }
    Ok(signers)
}

fn check_block_index(get: Get<'_>, number: u64, hash: B256) -> Result<Result<(), String>, StorageError> {
    let stored = get(Space::BlockIndex, hash.as_slice())?.map(|bytes| records::decode_height(&bytes)).transpose()?;
    Ok(if stored == Some(number) { Ok(()) } else { Err(format!("the index of block hashes leads to {stored:?}")) })
}

/// The hash indices must lead back to the block.
fn check_indices(get: Get<'_>, block: &Block) -> Result<Result<(), String>, StorageError> {
    let number = block.header.number;
    if let Err(fault) = check_block_index(get, number, block.hash)? {
        return Ok(Err(fault));
    }
    for (index, transaction) in (0u32..).zip(&block.transactions) {
        let bytes = get(Space::TransactionIndex, transaction.hash().as_slice())?;
        let location = bytes.map(|bytes| records::decode_location(&bytes)).transpose()?;
        if location != Some((number, index)) {
            return Ok(Err(format!("the index of transaction {} leads to {location:?}", transaction.hash())));
        }
    }
    Ok(Ok(()))
}

#[cfg(test)]
#[path = "verify/tests.rs"]
mod tests;
