//! ParallelConfig, 0x1006: declarations of which parameters a function conflicts on.
//!
//! They are kept for clients that ask for them. Execution finds conflicts by itself, so they can neither speed anything up nor, as on
//! 2.x, make nodes disagree: anybody may declare anything about any contract.

use millrace_base::abi::selector;
use millrace_base::{Address, Bytes, hex};
use millrace_core::table::{Condition, Schema, Table};

use super::Failure;
use super::contract::{Contract, Function, Invocation, Unknown, code};
use super::tables::{Writer, fields};

/// The one key of each contract's table.
const KEY: &[u8] = b"parallel";
const FIELDS: &str = "selector,functionName,criticalSize";

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1006,
    name: "ParallelConfig",
    counts_input: false,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("0553904e"), signature: "registerParallelFunctionInternal(address,string,uint256)", run: register },
        Function { selector: hex!("11e3f2af"), signature: "unregisterParallelFunctionInternal(address,string)", run: unregister },
    ],
};

fn open(invocation: &mut Invocation<'_, '_, '_>, contract: Address) -> Result<Table, Failure> {
    let schema = Schema::new(&format!("cp_{}", hex::encode(contract)), "parallel", FIELDS);
    let journal = &mut *invocation.context.journal;
    if Table::open(journal, &schema.name)?.is_none() {
        Writer::Contract.create(journal, &schema)?;
    }
    Ok(Table::with_schema(schema))
}

fn selector_text(function: &[u8]) -> String {
    u32::from_be_bytes(selector(&String::from_utf8_lossy(function))).to_string()
}

fn register(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (contract, function) = (invocation.arguments.address(), invocation.arguments.bytes());
    let size = invocation.arguments.uint().to_string();
    let selector = selector_text(function);
    let table = open(invocation, contract)?;
    let row = fields([("selector", selector.as_bytes()), ("functionName", function), ("criticalSize", size.as_bytes())]);
    let of_function = Condition::equal("selector", selector.into_bytes());
    let journal = &mut *invocation.context.journal;
    if Writer::Contract.update(journal, &table, KEY, &row, &of_function)? == 0 {
        Writer::Contract.insert(journal, &table, KEY, row)?;
    }
    Ok(code(0))
}

fn unregister(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (contract, function) = (invocation.arguments.address(), invocation.arguments.bytes());
    let table = open(invocation, contract)?;
    let of_function = Condition::equal("selector", selector_text(function).into_bytes());
    Writer::Contract.remove(invocation.context.journal, &table, KEY, &of_function)?;
    Ok(code(0))
}
