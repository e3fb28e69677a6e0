//! HelloWorld, 0x5100: an example of a contract of one's own, which keeps a greeting in a table.

use millrace_base::abi::Encoder;
use millrace_base::{Bytes, hex};
use millrace_core::table::{Condition, Schema, Table};

use super::Failure;
use super::contract::{Contract, Function, Invocation, Unknown, code};
use super::gas::Operation;
use super::table::check_len;
use super::tables::{Writer, field, fields, rows};

/// Longest greeting in bytes: what a call stores is bounded.
const MAX_GREETING_BYTES: usize = 255;
const KEY: &[u8] = b"greeting";

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x5100,
    name: "HelloWorld",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("6d4ce63c"), signature: "get()", run: get },
        Function { selector: hex!("4ed3885e"), signature: "set(string)", run: set },
    ],
};

/// The table of the contract: `u_` makes it one that clients can read through CRUD.
fn schema() -> Schema {
    Schema::new("u_hello_world", "key", "value")
}

fn get(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let rows = rows(invocation.context.journal, &Table::with_schema(schema()), KEY)?;
    invocation.gas.charge(Operation::Select, rows.len());
    let greeting = rows.first().map_or(&b"Hello World!"[..], |row| field(row, "value"));
    Ok(Encoder::new().bytes(greeting).finish())
}

fn set(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let greeting = invocation.arguments.bytes();
    check_len(greeting, MAX_GREETING_BYTES)?;
    // The origin's authority, as for every table: a code when it has no grant.
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    let journal = &mut *invocation.context.journal;
    if Table::open(journal, &schema().name)?.is_none() {
        Writer::Contract.create(journal, &schema())?;
        invocation.gas.charge(Operation::CreateTable, 1);
    }
    let (table, row) = (Table::with_schema(schema()), fields([("value", greeting)]));
    let mut count = writer.update(journal, &table, KEY, &row, &Condition::new())?;
    if count == 0 {
        count = writer.insert(journal, &table, KEY, row)?;
    }
    invocation.gas.charge(Operation::Store, 1);
    Ok(code(count))
}
