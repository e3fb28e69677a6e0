//! ContractLifeCycle, 0x1007: contracts are frozen and thawed by their managers or by the committee.
//!
//! What is frozen is refused by the executor from the next call on. Codes and texts: recordings of a 2.x node.

use millrace_base::abi::Encoder;
use millrace_base::{Address, Bytes, hex};

use super::contract::{Contract, Function, Invocation, Unknown, code};
use super::guards::{self, Frozen, Kind};
use super::{Failure, codes, governance};

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1007,
    name: "ContractLifeCycle",
    counts_input: false,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("8d1fdf2f"), signature: "freeze(address)", run: |i| set_frozen(i, Frozen::Yes).map(code) },
        Function { selector: hex!("45c8b1a6"), signature: "unfreeze(address)", run: |i| set_frozen(i, Frozen::No).map(code) },
        Function { selector: hex!("a721fb43"), signature: "grantManager(address,address)", run: |i| grant_manager(i).map(code) },
        Function { selector: hex!("3a67288f"), signature: "revokeManager(address,address)", run: |i| revoke_manager(i).map(code) },
        Function { selector: hex!("30ccebb5"), signature: "getStatus(address)", run: get_status },
        Function { selector: hex!("c5252d0e"), signature: "listManager(address)", run: list_manager },
    ],
};

/// The code for an address that is no contract.
fn no_contract(kind: Kind) -> Option<i64> {
    match kind {
        Kind::Missing => Some(codes::CONTRACT_MISSING),
        Kind::Account => Some(codes::NOT_A_CONTRACT),
        Kind::Contract => None,
    }
}

/// Whether the origin may not manage `contract`: the code to answer with.
fn refusal(invocation: &mut Invocation<'_, '_, '_>, contract: Address) -> Result<Option<i64>, Failure> {
    if let Some(code) = no_contract(Kind::of(invocation, contract)?) {
        return Ok(Some(code));
    }
    let (origin, journal) = (invocation.call.origin, &*invocation.context.journal);
    let may = guards::managers(journal, contract)?.contains(&origin) || governance::is_member(journal, origin)?;
    Ok((!may).then_some(codes::MANAGER_NEEDED))
}

fn set_frozen(invocation: &mut Invocation<'_, '_, '_>, frozen: Frozen) -> Result<i64, Failure> {
    let contract = invocation.arguments.address();
    if let Some(code) = refusal(invocation, contract)? {
        return Ok(code);
    }
    let journal = &mut *invocation.context.journal;
    match (guards::is_frozen(journal, contract)?, frozen) {
        (true, Frozen::Yes) => return Ok(codes::CONTRACT_FROZEN),
        (false, Frozen::No) => return Ok(codes::CONTRACT_AVAILABLE),
        _ => {}
    }
    guards::set_frozen(journal, contract, frozen)?;
    Ok(1)
}

fn grant_manager(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (contract, manager) = (invocation.arguments.address(), invocation.arguments.address());
    if let Some(code) = refusal(invocation, contract)? {
        return Ok(code);
    }
    let journal = &mut *invocation.context.journal;
    if guards::managers(journal, contract)?.contains(&manager) {
        return Ok(codes::MANAGER_EXISTS);
    }
    guards::add_manager(journal, contract, manager)?;
    Ok(1)
}

fn revoke_manager(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (contract, manager) = (invocation.arguments.address(), invocation.arguments.address());
    if let Some(code) = refusal(invocation, contract)? {
        return Ok(code);
    }
    let journal = &mut *invocation.context.journal;
    let managers = guards::managers(journal, contract)?;
    if !managers.contains(&manager) {
        return Ok(codes::MANAGER_MISSING);
    }
    if managers.len() == 1 {
        return Ok(codes::LAST_MANAGER);
    }
    guards::remove_manager(journal, contract, manager)?;
    Ok(1)
}

fn get_status(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let contract = invocation.arguments.address();
    let text = match Kind::of(invocation, contract)? {
        Kind::Missing => "The address is nonexistent.",
        Kind::Account => "This is not a contract address.",
        Kind::Contract if guards::is_frozen(invocation.context.journal, contract)? => {
            "The contract has been frozen. You can invoke this contract after unfreezing it."
        }
        Kind::Contract => "The contract is available.",
    };
    Ok(Encoder::new().int(0).string(text).finish())
}

fn list_manager(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let contract = invocation.arguments.address();
    if let Some(code) = no_contract(Kind::of(invocation, contract)?) {
        return Ok(Encoder::new().int(code).addresses(&[]).finish());
    }
    let managers = guards::managers(invocation.context.journal, contract)?;
    Ok(Encoder::new().int(0).addresses(&managers).finish())
}
