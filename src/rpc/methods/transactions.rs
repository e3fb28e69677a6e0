//! Methods about transactions and receipts, with proofs and in batches (`spec/client-protocol.md` 2.7, 2.9, 6).

use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use millrace_base::merkle::{self, ProofStep};
use millrace_base::{B256, Block};
use millrace_ledger::view::LedgerView;
use serde::Serialize;

use super::Context;
use super::chain::{block_at, block_with_hash};
use crate::envelope::{Answer, Outcome};
use crate::error::RpcError;
use crate::limits::MAX_PENDING_SHOWN;
use crate::params::{self, Arguments};
use crate::views::{BriefReceiptView, Hex, ProofStepView, Quantity, ReceiptView, TransactionView, proof};

/// A committed transaction: its block and its position there.
struct Found {
    block: Arc<Block>,
    index: u32,
}

impl Found {
    fn transaction(&self) -> Option<TransactionView<'_>> {
        let tx = self.block.transactions.get(usize::try_from(self.index).ok()?)?;
        Some(TransactionView::committed(tx, &self.block, self.index))
    }

    fn receipt(&self) -> Option<ReceiptView<'_>> {
        ReceiptView::committed(&self.block, self.index)
    }

    fn proof(&self, leaves: &[B256]) -> Option<Vec<ProofStep>> {
        merkle::proof(leaves, usize::try_from(self.index).ok()?)
    }
}

/// The transaction named by group and hash; `None` when it is not committed, pending ones included.
fn find(context: &Context, arguments: &Arguments<'_>) -> Result<Option<Found>, RpcError> {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let storage = |error| RpcError::storage(&error);
    let Some(location) = ledger.locate(params::hash(arguments.text(1))).map_err(storage)? else { return Ok(None) };
    let block = ledger.block(location.number).map_err(storage)?;
    Ok(block.map(|block| Found { block, index: location.index }))
}

pub fn by_hash(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let found = find(context, arguments)?;
    Answer::of(&found.as_ref().and_then(Found::transaction))
}

pub fn receipt(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let found = find(context, arguments)?;
    Answer::of(&found.as_ref().and_then(Found::receipt))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProvenTransaction<'a> {
    transaction: TransactionView<'a>,
    tx_proof: Vec<ProofStepView<'a>>,
}

pub fn by_hash_with_proof(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let Some(found) = find(context, arguments)? else { return Answer::of(&()) };
    let leaves: Vec<_> = found.block.transactions.iter().map(|tx| tx.hash()).collect();
    let steps = found.proof(&leaves).unwrap_or_default();
    Answer::of(&found.transaction().map(|transaction| ProvenTransaction { transaction, tx_proof: proof(&steps) }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProvenReceipt<'a> {
    receipt_proof: Vec<ProofStepView<'a>>,
    transaction_receipt: ReceiptView<'a>,
}

pub fn receipt_with_proof(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let Some(found) = find(context, arguments)? else { return Answer::of(&()) };
    let leaves: Vec<_> = found.block.receipts.iter().map(|receipt| receipt.hash()).collect();
    let steps = found.proof(&leaves).unwrap_or_default();
    Answer::of(&found.receipt().map(|transaction_receipt| ProvenReceipt { receipt_proof: proof(&steps), transaction_receipt }))
}

fn at_index(block: Arc<Block>, index: &str) -> Outcome {
    let index = u32::try_from(params::position(index)?).map_err(|_| RpcError::NO_INDEX)?;
    let found = Found { block, index };
    Answer::of(&found.transaction().ok_or(RpcError::NO_INDEX)?)
}

pub fn by_number_and_index(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    at_index(block_at(ledger.as_ref(), arguments.text(1))?, arguments.text(2))
}

pub fn by_hash_and_index(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    at_index(block_with_hash(ledger.as_ref(), arguments.text(1), RpcError::NO_BLOCK_HASH)?, arguments.text(2))
}

/// Shown by any node that runs the group, member or not.
pub fn pending(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let pending = context.ledger(arguments.integer(0))?.pending(MAX_PENDING_SHOWN);
    Answer::of(&pending.iter().map(TransactionView::pending).collect::<Vec<_>>())
}

/// Shown by any node that runs the group, member or not.
pub fn pending_count(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger: Arc<dyn LedgerView> = context.ledger(arguments.integer(0))?;
    Answer::of(&Quantity::of(u64::try_from(ledger.pending_count()).unwrap_or(u64::MAX)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockInfo<'a> {
    block_hash: Hex<'a>,
    block_number: Quantity,
    receipt_root: Hex<'a>,
    receipts_count: Quantity,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchReceipts<'a> {
    block_info: BlockInfo<'a>,
    /// Absent when the range is empty, as in the reference node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transaction_receipts: Vec<BriefReceiptView<'a>>,
}

pub fn batch_receipts_by_number(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    batch_receipts(block_at(ledger.as_ref(), arguments.text(1))?.as_ref(), arguments)
}

/// An unknown hash is reported as an unknown number, as in the reference node.
pub fn batch_receipts_by_hash(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    batch_receipts(block_with_hash(ledger.as_ref(), arguments.text(1), RpcError::NO_BLOCK_NUMBER)?.as_ref(), arguments)
}

fn batch_receipts(block: &Block, arguments: &Arguments<'_>) -> Outcome {
    let total = block.receipts.len();
    let start = usize::try_from(params::position(arguments.text(2))?).unwrap_or(usize::MAX);
    let count = match arguments.text(3) {
        "-1" => usize::MAX,
        text => usize::try_from(params::position(text)?).unwrap_or(usize::MAX),
    };
    if start >= total {
        return Err(RpcError::method(-40099, format!("start index out of range, the number of receipt is {total}")));
    }
    let pairs = block.transactions.iter().zip(&block.receipts).zip(0u64..);
    let view = BatchReceipts {
        block_info: BlockInfo {
            block_hash: Hex(block.hash.as_slice()),
            block_number: Quantity::of(block.header.number),
            receipt_root: Hex(block.header.receipts_root.as_slice()),
            receipts_count: Quantity::of(u64::try_from(total).unwrap_or(u64::MAX)),
        },
        transaction_receipts: pairs
            .skip(start)
            .take(count)
            .map(|((tx, receipt), index)| BriefReceiptView::of(tx, receipt, index))
            .collect(),
    };
    if !arguments.flag(4) {
        return Answer::of(&view);
    }
    Answer::of(&compress(&view))
}

/// Base64 of the deflated JSON with the newline that ends it.
fn compress(view: &impl Serialize) -> String {
    let mut json = serde_json::to_vec(view).expect("results have text keys and do not fail");
    json.push(b'\n');
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(json.len() / 8), Compression::default());
    encoder.write_all(&json).expect("writing to memory cannot fail");
    STANDARD.encode(encoder.finish().expect("writing to memory cannot fail"))
}
