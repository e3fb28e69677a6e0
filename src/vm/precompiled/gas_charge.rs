//! GasChargeManage, 0x1009: gas that accounts may use up while `enable_charge_mgr` is on. Members of the committee and the chargers they
//! name give it and take it back; the executor takes what each transaction used.

use millrace_base::abi::{Encoder, parse_uint256};
use millrace_base::{Address, Bytes, U256, hex};
use millrace_core::table::{Condition, system};
use millrace_core::{StateKey, StateReader, StateValue, StorageError};

use super::contract::{Contract, Function, Invocation, Unknown, code, refused};
use super::governance;
use super::guards::{self, Kind};
use super::tables::{MAX_LISTED, Writer, field, fields, system_table};
use super::{Failure, codes};

/// Key of an account's row that says how much gas it has left.
pub(super) const REMAINING: &[u8] = b"remain_gas";

/// The one key of [`system::CHARGERS`].
const CHARGERS_KEY: &[u8] = b"charger";

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1009,
    name: "GasCharge",
    counts_input: false,
    unknown: Unknown::Code(codes::GAS_UNKNOWN_FUNCTION),
    functions: &[
        Function {
            selector: hex!("a3ffa9cd"),
            signature: "charge(address,uint256)",
            run: |i| change(i, U256::checked_add, codes::GAS_OVERFLOW),
        },
        Function {
            selector: hex!("47055321"),
            signature: "deduct(address,uint256)",
            run: |i| change(i, U256::checked_sub, codes::GAS_TOO_LITTLE),
        },
        Function { selector: hex!("f001f6a3"), signature: "queryRemainGas(address)", run: query },
        Function { selector: hex!("caf39c51"), signature: "grantCharger(address)", run: |i| grant(i).map(code) },
        Function { selector: hex!("867bde5d"), signature: "revokeCharger(address)", run: |i| revoke(i).map(code) },
        Function { selector: hex!("a9f2b9a8"), signature: "listChargers()", run: list },
    ],
};

/// What an account has left.
pub(crate) fn remaining(state: &dyn StateReader, account: Address) -> Result<U256, StorageError> {
    let value = guards::account_value(state, account, REMAINING)?;
    let number = value.and_then(|text| parse_uint256(std::str::from_utf8(&text).ok()?));
    Ok(number.unwrap_or_default())
}

/// The write that leaves an account `remaining` gas.
pub(crate) fn remaining_write(account: Address, remaining: U256) -> (StateKey, StateValue) {
    guards::account_row(account, REMAINING, Bytes::from(remaining.to_string().into_bytes()))
}

fn chargers(state: &dyn StateReader) -> Result<Vec<Address>, StorageError> {
    let rows = system_table(system::CHARGERS).entries(state, CHARGERS_KEY)?;
    Ok(rows.iter().filter_map(|row| super::entry::parse_address(field(row, "address"))).collect())
}

/// Whether transactions of `origin` are free: the committee's and the chargers'.
pub(crate) fn is_exempt(state: &dyn StateReader, origin: Address) -> Result<bool, StorageError> {
    Ok(governance::is_member(state, origin)? || chargers(state)?.contains(&origin))
}

fn answer(code: i64, remaining: U256) -> Bytes {
    Encoder::new().int(code).uint(remaining).finish()
}

/// Changes what an account has left by `operation`, which fails with `failure`.
fn change(invocation: &mut Invocation<'_, '_, '_>, operation: fn(U256, U256) -> Option<U256>, failure: i64) -> Result<Bytes, Failure> {
    let (account, amount) = (invocation.arguments.address(), invocation.arguments.uint());
    if !is_exempt(invocation.context.journal, invocation.call.origin)? {
        return Ok(answer(codes::GAS_DENIED, U256::ZERO));
    }
    if amount.is_zero() {
        return Ok(answer(codes::GAS_ZERO, U256::ZERO));
    }
    if Kind::of(invocation, account)? == Kind::Contract {
        return Ok(answer(codes::NOT_AN_ACCOUNT, U256::ZERO));
    }
    let journal = &mut *invocation.context.journal;
    let Some(left) = operation(remaining(journal, account)?, amount) else {
        return Ok(answer(failure, U256::ZERO));
    };
    guards::set_account_value(journal, account, REMAINING, left.to_string().as_bytes())?;
    Ok(answer(0, left))
}

fn query(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let account = invocation.arguments.address();
    Ok(match Kind::of(invocation, account)? {
        Kind::Missing => answer(codes::ACCOUNT_MISSING, U256::ZERO),
        Kind::Contract => answer(codes::NOT_AN_ACCOUNT, U256::ZERO),
        Kind::Account => answer(0, remaining(invocation.context.journal, account)?),
    })
}

fn grant(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let charger = invocation.arguments.address();
    let journal = &mut *invocation.context.journal;
    if !governance::is_member(journal, invocation.call.origin)? {
        return Ok(codes::CHARGER_GRANT_DENIED);
    }
    let chargers = chargers(journal)?;
    if chargers.contains(&charger) {
        return Ok(codes::CHARGER_EXISTS);
    }
    if chargers.len() >= MAX_LISTED {
        return Err(refused(format!("there are at most {MAX_LISTED} chargers")));
    }
    let text = governance::address_text(charger);
    Writer::Contract.insert(journal, &system_table(system::CHARGERS), CHARGERS_KEY, fields([("address", text.as_bytes())]))?;
    Ok(0)
}

fn revoke(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let charger = invocation.arguments.address();
    let journal = &mut *invocation.context.journal;
    if !governance::is_member(journal, invocation.call.origin)? {
        return Ok(codes::CHARGER_REVOKE_DENIED);
    }
    let of_charger = Condition::equal("address", governance::address_text(charger).into_bytes());
    let removed = Writer::Contract.remove(journal, &system_table(system::CHARGERS), CHARGERS_KEY, &of_charger)?;
    Ok(if removed == 0 { codes::CHARGER_MISSING } else { 0 })
}

fn list(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    Ok(Encoder::new().addresses(&chargers(invocation.context.journal)?).finish())
}
