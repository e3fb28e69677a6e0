//! Methods about blocks, headers, counters and settings of a group (`spec/client-protocol.md` 2.7).

use std::sync::Arc;

use millrace_base::Block;
use millrace_ledger::view::{LedgerView, SignedHeader};
use serde::Serialize;

use super::Context;
use crate::envelope::{Answer, Outcome};
use crate::error::RpcError;
use crate::params::{self, Arguments};
use crate::views::{BlockView, Quantity, Transactions};

/// On-chain settings that clients may ask for.
const SYSTEM_KEYS: [&str; 6] =
    ["tx_count_limit", "tx_gas_limit", "rpbft_epoch_sealer_num", "rpbft_epoch_block_num", "consensus_timeout", "enable_charge_mgr"];

pub fn block_number(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    Answer::of(&Quantity::of(context.member_ledger(arguments.integer(0))?.head().number))
}

/// The block at a height given as text.
pub fn block_at(ledger: &dyn LedgerView, number: &str) -> Result<Arc<Block>, RpcError> {
    let number = params::height(number)?;
    ledger.block(number).map_err(|error| RpcError::storage(&error))?.ok_or(RpcError::NO_BLOCK_NUMBER)
}

/// The block with a hash given as text; `missing` when there is none.
pub fn block_with_hash(ledger: &dyn LedgerView, hash: &str, missing: RpcError) -> Result<Arc<Block>, RpcError> {
    let Some(number) = number_with_hash(ledger, hash)? else { return Err(missing) };
    ledger.block(number).map_err(|error| RpcError::storage(&error))?.ok_or(missing)
}

fn number_with_hash(ledger: &dyn LedgerView, hash: &str) -> Result<Option<u64>, RpcError> {
    ledger.number_of(params::hash(hash)).map_err(|error| RpcError::storage(&error))
}

fn show(block: &Block, whole: bool) -> Outcome {
    Answer::of(&BlockView::block(block, if whole { Transactions::Whole } else { Transactions::Hashes }))
}

pub fn block_by_number(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    show(block_at(ledger.as_ref(), arguments.text(1))?.as_ref(), arguments.flag(2))
}

pub fn block_by_hash(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    show(block_with_hash(ledger.as_ref(), arguments.text(1), RpcError::NO_BLOCK_HASH)?.as_ref(), arguments.flag(2))
}

fn header_at(ledger: &dyn LedgerView, number: u64, missing: RpcError) -> Result<Arc<SignedHeader>, RpcError> {
    ledger.header(number).map_err(|error| RpcError::storage(&error))?.ok_or(missing)
}

fn show_header(signed: &SignedHeader, with_signatures: bool) -> Outcome {
    Answer::of(&BlockView::header(&signed.header, &signed.hash, with_signatures.then_some(signed.signatures.as_slice())))
}

pub fn header_by_number(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let number = params::height(arguments.text(1))?;
    show_header(header_at(ledger.as_ref(), number, RpcError::NO_BLOCK_NUMBER)?.as_ref(), arguments.flag(2))
}

pub fn header_by_hash(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let number = number_with_hash(ledger.as_ref(), arguments.text(1))?.ok_or(RpcError::NO_BLOCK_HASH)?;
    show_header(header_at(ledger.as_ref(), number, RpcError::NO_BLOCK_HASH)?.as_ref(), arguments.flag(2))
}

pub fn block_hash_by_number(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let number = params::height(arguments.text(1))?;
    Ok(Answer::Hash(header_at(ledger.as_ref(), number, RpcError::NO_BLOCK_NUMBER)?.hash))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TotalsView {
    block_number: Quantity,
    failed_tx_sum: Quantity,
    tx_sum: Quantity,
}

pub fn totals(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let totals = context.member_ledger(arguments.integer(0))?.totals();
    Answer::of(&TotalsView {
        block_number: Quantity::of(totals.number),
        failed_tx_sum: Quantity::of(totals.failed),
        tx_sum: Quantity::of(totals.transactions),
    })
}

pub fn system_config(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let key = arguments.text(1);
    if !SYSTEM_KEYS.contains(&key) {
        return Err(RpcError::NO_SYSTEM_CONFIG);
    }
    let value = ledger.system_config(key).map_err(|error| RpcError::storage(&error))?;
    Answer::of(&value.unwrap_or_default())
}
