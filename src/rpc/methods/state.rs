//! Methods about accounts and storage: code, slots, and proofs (EIP-1186) against the state root of a block.
//!
//! The block number is ours: 2.x methods have none. It is the last parameter and may be left out.

use millrace_base::U256;
use millrace_ledger::view::{AccountProof, SlotProof, StateProof};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Context;
use crate::envelope::{Answer, Outcome, text};
use crate::error::RpcError;
use crate::limits::MAX_PROOF_SLOTS;
use crate::params::{self, Arguments, elements};
use crate::views::{Hex, Quantity};

/// The block number at a position, if there is one.
pub fn number(arguments: &Arguments<'_>, position: usize) -> Result<Option<u64>, RpcError> {
    arguments.optional_text(position).map(params::height).transpose()
}

pub fn code(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let address = params::address(arguments.text(1))?;
    let code = ledger.code(address, number(arguments, 2)?).map_err(|error| RpcError::state(&error))?;
    Answer::of(&Hex(&code))
}

pub fn storage_at(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let address = params::address(arguments.text(1))?;
    let slot = params::number(arguments.text(2))?;
    let value = ledger.storage_at(address, slot, number(arguments, 3)?).map_err(|error| RpcError::state(&error))?;
    Ok(Answer::Hash(value.into()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProofView<'a> {
    block_number: Quantity,
    address: Hex<'a>,
    account_proof: Vec<Hex<'a>>,
    balance: Quantity,
    code_hash: Hex<'a>,
    nonce: Quantity,
    storage_hash: Hex<'a>,
    storage_proof: Vec<SlotView<'a>>,
}

#[derive(Serialize)]
struct SlotView<'a> {
    key: Quantity,
    value: Quantity,
    proof: Vec<Hex<'a>>,
}

impl<'a> SlotView<'a> {
    fn of(slot: &'a SlotProof) -> Self {
        Self { key: Quantity(slot.index), value: Quantity(slot.value), proof: slot.nodes.iter().map(|node| Hex(node)).collect() }
    }
}

pub fn proof(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let address = params::address(arguments.text(1))?;
    let slots = slots(arguments.object(2))?;
    let proof = ledger.account_proof(address, &slots, number(arguments, 3)?).map_err(|error| RpcError::state(&error))?;
    let StateProof { number, account } = &proof;
    let AccountProof { address, nonce, balance, code_hash, storage_root, nodes, slots } = account;
    Answer::of(&ProofView {
        block_number: Quantity::of(*number),
        address: Hex(address.as_slice()),
        account_proof: nodes.iter().map(|node| Hex(node)).collect(),
        balance: Quantity(*balance),
        code_hash: Hex(code_hash.as_slice()),
        nonce: Quantity::of(*nonce),
        storage_hash: Hex(storage_root.as_slice()),
        storage_proof: slots.iter().map(SlotView::of).collect(),
    })
}

/// The slots of a list of numbers as texts.
fn slots(list: &RawValue) -> Result<Vec<U256>, RpcError> {
    let slots = elements(list, MAX_PROOF_SLOTS).ok_or(RpcError::CONVERSION)?;
    slots.into_iter().map(|slot| params::number(&text(slot).ok_or(RpcError::CONVERSION)?)).collect()
}
