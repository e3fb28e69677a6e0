//! Permission, 0x1005: who may write which table. A grant holds from the block after the one it was made in.

use millrace_base::abi::Encoder;
use millrace_base::{Address, Bytes, hex};
use millrace_core::Entry;
use millrace_core::table::{Condition, system};

use super::contract::{Contract, Function, Invocation, Unknown, code, refused};
use super::entry::parse_address;
use super::governance::address_text;
use super::guards::{self, Guard, Kind};
use super::json::compact;
use super::tables::{MAX_LISTED, Writer, contract_table, field, fields, system_table, user_table};
use super::{Failure, codes};

/// Longest name of a table, prefix included, that a grant can name.
const MAX_TABLE_NAME_BYTES: usize = 64;

/// Tables that grants name as they are; all others are user tables.
const SYSTEM_TABLES: [&str; 5] = [system::TABLE_ACCESS, system::CONSENSUS, system::TABLES, system::CNS, system::CONFIG];

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1005,
    name: "Permission",
    counts_input: false,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("06e63ff8"), signature: "insert(string,string)", run: |i| insert(i).map(code) },
        Function { selector: hex!("44590a7e"), signature: "remove(string,string)", run: |i| remove(i).map(code) },
        Function { selector: hex!("20586031"), signature: "queryByName(string)", run: query_by_name },
        Function { selector: hex!("96ec37c4"), signature: "grantWrite(address,address)", run: |i| grant_write(i).map(code) },
        Function { selector: hex!("99c26010"), signature: "revokeWrite(address,address)", run: |i| revoke_write(i).map(code) },
        Function { selector: hex!("54ad6352"), signature: "queryPermission(address)", run: query_permission },
    ],
};

fn full_name(table: &[u8]) -> String {
    let system = SYSTEM_TABLES.iter().find(|name| name.as_bytes() == table);
    system.map_or_else(|| user_table(table), |name| (*name).into())
}

fn is_member(invocation: &Invocation<'_, '_, '_>, address: &[u8]) -> Result<bool, Failure> {
    let grants = system_table(system::TABLE_ACCESS).entries(invocation.context.journal, system::TABLE_ACCESS.as_bytes())?;
    Ok(grants.iter().any(|grant| field(grant, "address") == address))
}

fn insert(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (table, address) = (invocation.arguments.bytes(), invocation.arguments.bytes().to_ascii_lowercase());
    if table == system::TABLE_ACCESS.as_bytes() {
        return Ok(codes::COMMITTEE_RULES);
    }
    if [system::TABLES, system::CNS].iter().any(|name| name.as_bytes() == table) && is_member(invocation, &address)? {
        return Ok(codes::MEMBER_CANNOT_BE_OPERATOR);
    }
    let table = full_name(table);
    let access = system_table(system::TABLE_ACCESS);
    let journal = &*invocation.context.journal;
    let grants = access.entries(journal, table.as_bytes())?;
    if grants.iter().any(|grant| field(grant, "address") == address) {
        return Ok(codes::GRANT_EXISTS);
    }
    if table.len() > MAX_TABLE_NAME_BYTES {
        return Ok(codes::TABLE_NAME_TOO_LONG);
    }
    if parse_address(&address).is_none() {
        return Ok(codes::INVALID_ADDRESS);
    }
    check_count(grants.len())?;
    let enable_num = invocation.context.block.number.to_string();
    let grant = fields([("address", &address), ("enable_num", enable_num.as_bytes())]);
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    writer.insert(invocation.context.journal, &access, table.as_bytes(), grant)
}

fn remove(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (table, address) = (invocation.arguments.bytes(), invocation.arguments.bytes().to_ascii_lowercase());
    if table == system::TABLE_ACCESS.as_bytes() {
        return Ok(codes::COMMITTEE_RULES);
    }
    if [system::CONSENSUS, system::CONFIG].iter().any(|name| name.as_bytes() == table) && is_member(invocation, &address)? {
        return Ok(codes::NO_AUTHORITY);
    }
    let table = full_name(table);
    let access = system_table(system::TABLE_ACCESS);
    let of_address = Condition::equal("address", address);
    if access.select(invocation.context.journal, table.as_bytes(), &of_address)?.is_empty() {
        return Ok(codes::GRANT_MISSING);
    }
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    writer.remove(invocation.context.journal, &access, table.as_bytes(), &of_address)
}

/// The code for an origin that may not say who writes the storage of a contract: its managers may.
fn refusal(invocation: &mut Invocation<'_, '_, '_>, contract: Address) -> Result<Option<i64>, Failure> {
    if Kind::of(invocation, contract)? == Kind::Missing {
        return Ok(Some(codes::GRANTED_CONTRACT_MISSING));
    }
    let managers = guards::managers(invocation.context.journal, contract)?;
    Ok((!managers.contains(&invocation.call.origin)).then_some(codes::NO_AUTHORITY))
}

fn grant_write(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (contract, user) = (invocation.arguments.address(), invocation.arguments.address());
    if let Some(code) = refusal(invocation, contract)? {
        return Ok(code);
    }
    let (table, address) = (contract_table(contract), address_text(user));
    let access = system_table(system::TABLE_ACCESS);
    let enable_num = invocation.context.block.number.to_string();
    let journal = &mut *invocation.context.journal;
    let grants = access.entries(journal, table.as_bytes())?;
    if grants.iter().any(|grant| field(grant, "address") == address.as_bytes()) {
        return Ok(codes::GRANT_EXISTS);
    }
    check_count(grants.len())?;
    guards::arm(journal, Guard::Writers)?;
    let grant = fields([("address", address.as_bytes()), ("enable_num", enable_num.as_bytes())]);
    Writer::Contract.insert(journal, &access, table.as_bytes(), grant)
}

fn revoke_write(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (contract, user) = (invocation.arguments.address(), invocation.arguments.address());
    if let Some(code) = refusal(invocation, contract)? {
        return Ok(code);
    }
    let of_user = Condition::equal("address", address_text(user).into_bytes());
    let access = system_table(system::TABLE_ACCESS);
    let removed = Writer::Contract.remove(invocation.context.journal, &access, contract_table(contract).as_bytes(), &of_user)?;
    Ok(if removed == 0 { codes::GRANT_MISSING } else { removed })
}

/// Grants are read as a whole at every write, so there is a limit to them that 2.x does not have.
fn check_count(grants: usize) -> Result<(), Failure> {
    if grants < MAX_LISTED { Ok(()) } else { Err(refused(format!("a table has at most {MAX_LISTED} grants"))) }
}

fn query_by_name(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let table = full_name(invocation.arguments.bytes());
    listed(invocation, &table)
}

fn query_permission(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let table = contract_table(invocation.arguments.address());
    listed(invocation, &table)
}

fn listed(invocation: &Invocation<'_, '_, '_>, table: &str) -> Result<Bytes, Failure> {
    fn members(grant: &Entry) -> Vec<(&str, &[u8])> {
        ["address", "enable_num", "table_name"].into_iter().map(|name| (name, field(grant, name))).collect()
    }
    let grants = system_table(system::TABLE_ACCESS).entries(invocation.context.journal, table.as_bytes())?;
    Ok(Encoder::new().string(&compact(grants.iter().map(members))).finish())
}
