//! CNS, 0x1004: names and versions of contracts.

use millrace_base::abi::Encoder;
use millrace_base::{Bytes, hex};
use millrace_core::Entry;
use millrace_core::table::{Condition, MAX_VALUE_BYTES, system};

use super::contract::{Contract, Function, Invocation, Unknown, code, refused};
use super::entry::parse_address;
use super::gas::{Extent, Operation};
use super::json::compact;
use super::table::check_len;
use super::tables::{Writer, charge_extent, field, fields, system_table};
use super::{Failure, codes};

/// Longest name and version (`spec/node-semantics.md` 6.4).
const MAX_NAME_BYTES: usize = 128;

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1004,
    name: "CNS",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("a216464b"), signature: "insert(string,string,string,string)", run: insert },
        Function { selector: hex!("819a3d62"), signature: "selectByName(string)", run: select_by_name },
        Function { selector: hex!("897f0251"), signature: "selectByNameAndVersion(string,string)", run: select_by_version },
        Function { selector: hex!("f85f8126"), signature: "getContractAddress(string,string)", run: get_contract_address },
    ],
};

fn insert(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let arguments = &mut invocation.arguments;
    let (name, version, address, abi) = (arguments.bytes(), arguments.bytes(), arguments.bytes(), arguments.bytes());
    let is_address = parse_address(address).is_some();
    if is_address {
        check_len(name, MAX_NAME_BYTES)?;
        check_len(abi, MAX_VALUE_BYTES)?;
    }
    let table = system_table(system::CNS);
    let rows = table.entries(invocation.context.journal, name)?;
    invocation.gas.charge_extent(&rows, Extent::Rewritten);
    invocation.gas.charge(Operation::OpenTable, 1);
    invocation.gas.charge(Operation::Select, rows.len());
    if version.len() > MAX_NAME_BYTES {
        return Ok(code(codes::VERSION_TOO_LONG));
    }
    if rows.iter().any(|row| field(row, "version") == version) {
        return Ok(code(codes::VERSION_EXISTS));
    }
    if !is_address {
        return Ok(code(codes::INVALID_ADDRESS));
    }
    let row = fields([("version", version), ("address", address), ("abi", abi)]);
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    let count = writer.insert(invocation.context.journal, &table, name, row)?;
    if count > 0 {
        invocation.gas.charge(Operation::Store, 1);
    }
    Ok(code(count))
}

fn listed(rows: &[Entry]) -> Bytes {
    fn members(row: &Entry) -> Vec<(&str, &[u8])> {
        ["abi", "address", "name", "version"].into_iter().map(|name| (name, field(row, name))).collect()
    }
    Encoder::new().string(&compact(rows.iter().map(members))).finish()
}

fn select_by_name(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let name = invocation.arguments.bytes();
    let rows = system_table(system::CNS).entries(invocation.context.journal, name)?;
    invocation.gas.charge_extent(&rows, Extent::Read);
    invocation.gas.charge(Operation::OpenTable, 1);
    invocation.gas.charge(Operation::Field, rows.len());
    Ok(listed(&rows))
}

/// Charges for the rows of the name and version in the next arguments, and gives them.
fn versions(invocation: &mut Invocation<'_, '_, '_>) -> Result<Vec<Entry>, Failure> {
    let (name, version) = (invocation.arguments.bytes(), invocation.arguments.bytes());
    let of_version = Condition::equal("version", version.to_vec());
    let table = system_table(system::CNS);
    charge_extent(invocation, &table, name, Extent::Read)?;
    let rows = table.select(invocation.context.journal, name, &of_version)?;
    invocation.gas.charge(Operation::OpenTable, 1);
    invocation.gas.charge(Operation::Select, rows.len());
    Ok(rows)
}

fn select_by_version(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let rows = versions(invocation)?;
    invocation.gas.charge(Operation::Field, 1);
    Ok(listed(&rows[..rows.len().min(1)]))
}

fn get_contract_address(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let rows = versions(invocation)?;
    let row = rows.first().ok_or_else(|| refused("Entries no exists: 0"))?;
    let address = parse_address(field(row, "address")).unwrap_or_default();
    Ok(Encoder::new().address(address).finish())
}
