//! Checks a whole database: `millrace db verify`.
//!
//! Every block from 0 to the head: parent hash, transactions root, receipts root, each transaction's signature, the signatures of a
//! quorum of distinct sealers, the indices, with tries every node it added; and the state: its commitment recomputed from every stored
//! value ([`state`]) and compared with the header of the head. Reads only; memory is bounded by one block.

mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_access::blockchain::{read_block, records};
use millrace_administration::{Epoch, Faults};
use millrace_base::crypto::recover;
use millrace_base::{B256, Block, merkle};
use millrace_core::trie::EMPTY_ROOT;
use millrace_core::{Space, StateKind, Storage, StorageError, mpt};

use crate::genesis::faults_of_mark;

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
    /// Transactions in all blocks.
    pub transactions: u64,
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

/// Checks everything; stops at the first fault.
pub fn verify_database(storage: &Arc<dyn Storage>, progress: &mut dyn FnMut(Progress)) -> Result<Report, VerifyError> {
    storage.verify()?;
    let height = storage.height()?.ok_or(VerifyError::Empty)?;
    let kind = state::kind(&**storage)?;
    let (mut parent, mut transactions, mut faults) = (None, 0, Faults::default());
    for number in 0..=height {
        let fault = |detail: String| VerifyError::Block { number, detail };
        let block = read_block(&**storage, number)?.ok_or_else(|| fault("it is missing".into()))?;
        if number == 0 {
            faults = block.header.extra_data.first().map_or(faults, |mark| faults_of_mark(mark));
        }
        check_block(&block, number, parent.as_ref(), faults).map_err(fault)?;
        check_indices(&**storage, &block)?.map_err(fault)?;
        if let (StateKind::Mpt, Some(parent)) = (kind, &parent) {
            check_tries(&**storage, parent, &block).map_err(|error| fault(error.to_string()))?;
        }
        transactions += block.transactions.len() as u64;
        parent = Some(block);
        progress(Progress::Blocks(number + 1, height + 1));
    }
    let head = parent.ok_or(VerifyError::Empty)?;
    let (state_values, commitment) = state::recompute(&**storage, kind, &head, progress)?;
    // Block 0 carries zero roots, as in 2.x.
    let roots = [("state root", head.header.state_root, commitment.state_root()), ("dbHash", head.header.db_hash, commitment.db_hash())];
    for (root, header, computed) in roots {
        if height > 0 && header != computed {
            return Err(VerifyError::State { root, number: height, header, computed });
        }
    }
    let state_root = commitment.state_root();
    Ok(Report { height, head: head.hash, transactions, state_values, state_root, state: kind })
}

/// Root of a block's account trie. Block 0 has no accounts, and zero in its header.
fn account_root(block: &Block) -> B256 {
    if block.header.number == 0 { EMPTY_ROOT } else { block.header.state_root }
}

/// Every node that a block added to the tries must be there, and be what its hash says.
fn check_tries(storage: &dyn Storage, parent: &Block, block: &Block) -> Result<(), StorageError> {
    let read = |hash: &B256| Ok(storage.get(Space::Trie, hash.as_slice())?.map(Into::into));
    mpt::check(account_root(parent), account_root(block), &read).map(drop)
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

fn check_block(block: &Block, number: u64, parent: Option<&Block>, faults: Faults) -> Result<(), String> {
    let header = &block.header;
    if header.number != number {
        return Err(format!("its header says height {}", header.number));
    }
    let Some(parent) = parent else { return Ok(()) };
    if header.parent_hash != parent.hash {
        return Err(format!("its parent is {}, the block before is {}", header.parent_hash, parent.hash));
    }
    if header.timestamp_ms <= parent.header.timestamp_ms {
        return Err("its timestamp is not above its parent's".into());
    }
    check_roots(block)?;
    check_signatures(block, faults)?;
    for transaction in &block.transactions {
        let sender = recover(transaction.fields().signing_digest(), transaction.signature()).map_err(|error| error.to_string())?;
        if sender != transaction.sender() {
            return Err(format!("transaction {} was signed by {sender}, not by {}", transaction.hash(), transaction.sender()));
        }
    }
    Ok(())
}

/// A quorum of distinct sealers must have signed the block hash.
fn check_signatures(block: &Block, faults: Faults) -> Result<(), String> {
    let sealers = &block.header.sealer_list;
    let mut signers = BTreeSet::new();
    for signature in &block.signatures {
        let sealer =
            sealers.get(signature.index as usize).ok_or_else(|| format!("signer {} is not in the sealer list", signature.index))?;
        if !sealer.verify(block.hash, &signature.signature) {
            return Err(format!("the signature of sealer {} does not fit the block hash", signature.index));
        }
        signers.insert(signature.index);
    }
    let rules = Epoch { start: 0, sealers: sealers.clone(), faults, tx_count_limit: 0, tx_gas_limit: 0, consensus_timeout_ms: 0 };
    if sealers.is_empty() || signers.len() < rules.quorum() {
        return Err(format!("{} distinct sealers signed, {} of {} must", signers.len(), rules.quorum(), sealers.len()));
    }
    Ok(())
}

/// The hash indices must lead back to the block.
fn check_indices(storage: &dyn Storage, block: &Block) -> Result<Result<(), String>, StorageError> {
    let number = block.header.number;
    let stored = storage.get(Space::BlockIndex, block.hash.as_slice())?.map(|bytes| records::decode_height(&bytes)).transpose()?;
    if stored != Some(number) {
        return Ok(Err(format!("the index of block hashes leads to {stored:?}")));
    }
    for (index, transaction) in (0u32..).zip(&block.transactions) {
        let bytes = storage.get(Space::TransactionIndex, transaction.hash().as_slice())?;
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
