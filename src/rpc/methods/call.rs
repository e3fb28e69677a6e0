//! `call` (`spec/client-protocol.md` 2.8). Failures of execution are results, not errors.

use std::borrow::Cow;

use millrace_base::{Address, Bytes, U256};
use millrace_ledger::view::CallRequest;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Context;
use crate::envelope::{Answer, Integer, Outcome, integer, members, text};
use crate::error::RpcError;
use crate::params::{self, Arguments};
use crate::views::{Hex, Quantity};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallView<'a> {
    current_block_number: Quantity,
    output: Hex<'a>,
    status: Quantity,
}

pub fn call(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let number = arguments.optional_text(2).map(params::height).transpose()?;
    let request = CallRequest { number, ..request(arguments.object(1))? };
    let outcome = ledger.call(request).map_err(|error| RpcError::call(&error))?;
    Answer::of(&CallView {
        current_block_number: Quantity::of(outcome.number),
        output: Hex(&outcome.output),
        status: Quantity::of(outcome.status),
    })
}

/// Reads the object. `gas`, `gasPrice`, `blockLimit` and `randomid` must be numbers but have no effect.
fn request(object: &RawValue) -> Result<CallRequest, RpcError> {
    let names = ["from", "to", "data", "code", "value", "gas", "gasPrice", "blockLimit", "randomid"];
    let [from, to, data, code, value, ignored @ ..] = members(object, names).ok_or(RpcError::CONVERSION)?;
    let from = from.map(as_text).transpose()?.filter(|from| !from.is_empty()).ok_or(RpcError::NO_FROM)?;
    let from = params::address(&from)?;
    let to = match to.map(as_text).transpose()?.as_deref() {
        None | Some("" | "0x") => Address::ZERO,
        Some(to) => params::address(to)?,
    };
    let value = as_number(value)?;
    for member in ignored {
        as_number(member)?;
    }
    let data = data.map(as_data).transpose()?.flatten();
    let code = code.map(as_data).transpose()?.flatten();
    Ok(CallRequest { from, to, data: code.or(data).unwrap_or_default(), value, number: None })
}

/// The text of a string, number or flag; null is empty; arrays and objects cannot be converted.
fn as_text(raw: &RawValue) -> Result<Cow<'_, str>, RpcError> {
    match raw.get().as_bytes()[0] {
        b'"' => text(raw).ok_or(RpcError::CONVERSION),
        b'n' => Ok(Cow::Borrowed("")),
        b'[' | b'{' => Err(RpcError::CONVERSION),
        _ => Ok(Cow::Borrowed(raw.get())),
    }
}

/// Data as text; null counts as absent.
fn as_data(raw: &RawValue) -> Result<Option<Bytes>, RpcError> {
    match raw.get().as_bytes()[0] {
        b'n' => Ok(None),
        _ => params::data(&as_text(raw)?).map(Some),
    }
}

/// A JSON integer, or a text in the form of [`params::number`]; anything else counts as absent.
fn as_number(raw: Option<&RawValue>) -> Result<U256, RpcError> {
    let Some(raw) = raw else { return Ok(U256::ZERO) };
    match raw.get().as_bytes()[0] {
        b'"' => params::number(&text(raw).ok_or(RpcError::CONVERSION)?),
        b'-' | b'0'..=b'9' => match integer(raw.get()) {
            Some(Integer::Exact(number)) if number < 0 => Ok(U256::from(number.unsigned_abs()).wrapping_neg()),
            Some(Integer::Exact(number)) => Ok(U256::from(number.unsigned_abs())),
            _ => Err(RpcError::CONVERSION),
        },
        _ => Ok(U256::ZERO),
    }
}
