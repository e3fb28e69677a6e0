//! KVTableFactory, 0x1010, and its temporary object KVTable: tables with one row a key.

use millrace_base::abi::Encoder;
use millrace_base::{Address, Bytes, hex};
use millrace_core::table::{Condition, Fields, MAX_KEY_BYTES, Table};

use super::contract::{Contract, Function, Invocation, Unknown, code, refused, refused_without_reason};
use super::gas::{Extent, Operation};
use super::table::{check_contract_authority, check_len, check_values};
use super::table_factory::{Refusals, check_schema, create};
use super::tables::{Writer, capacity, charge_extent, user_table};
use super::{Failure, codes};

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1010,
    name: "KVTableFactory",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("f23f63c9"), signature: "openTable(string)", run: open_table },
        Function { selector: hex!("56004b6a"), signature: "createTable(string,string,string)", run: create_table },
    ],
};

/// The object.
pub(super) const KV_TABLE: Contract = Contract {
    address: 0,
    name: "KVTable",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("693ec85e"), signature: "get(string)", run: get },
        Function { selector: hex!("a815ff15"), signature: "set(string,address)", run: set },
        Function { selector: hex!("13db9346"), signature: "newEntry()", run: new_entry },
    ],
};

fn open_table(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let name = user_table(invocation.arguments.bytes());
    invocation.gas.charge(Operation::OpenTable, 1);
    let Some(table) = Table::open(invocation.context.journal, &name)? else {
        return Err(refused(format!("{name} does not exist")));
    };
    Ok(Encoder::new().address(invocation.context.temporaries.add_kv_table(table)).finish())
}

fn create_table(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    check_contract_authority(invocation)?;
    let arguments = &mut invocation.arguments;
    let schema = check_schema(arguments.bytes(), arguments.bytes(), arguments.bytes(), Refusals::Short)?;
    let created = create(invocation, &schema)?;
    if created == codes::NO_AUTHORITY {
        return Err(refused(format!("Permission denied. {} can't create table {}", hex::encode(invocation.call.origin), schema.name)));
    }
    Ok(code(created))
}

fn table(invocation: &Invocation<'_, '_, '_>) -> Result<Table, Failure> {
    invocation.context.temporaries.kv_table(invocation.call.address).ok_or_else(refused_without_reason)
}

/// Charges for reading the rows of a key, and gives the first one.
fn read(invocation: &mut Invocation<'_, '_, '_>, table: &Table, key: &[u8]) -> Result<Option<Fields>, Failure> {
    let rows = table.entries(invocation.context.journal, key)?;
    invocation.gas.charge_extent(&rows, Extent::Read);
    invocation.gas.raise_memory(rows.iter().map(|row| capacity(&row.fields)).sum());
    invocation.gas.charge(Operation::Select, rows.len());
    Ok(rows.first().map(|row| row.fields.clone()))
}

fn get(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let table = table(invocation)?;
    let key = invocation.arguments.bytes();
    let row = read(invocation, &table, key)?;
    let is_there = row.is_some();
    let entry = row.map_or(Address::ZERO, |fields| invocation.context.temporaries.add_entry(fields));
    Ok(Encoder::new().bool(is_there).address(entry).finish())
}

fn set(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    check_contract_authority(invocation)?;
    let table = table(invocation)?;
    let (key, entry_address) = (invocation.arguments.bytes(), invocation.arguments.address());
    let mut fields = invocation.context.temporaries.entry(entry_address).cloned().ok_or_else(refused_without_reason)?;
    check_len(key, MAX_KEY_BYTES)?;
    check_values(&fields)?;
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let is_new = read(invocation, &table, key)?.is_none();
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    let journal = &mut *invocation.context.journal;
    let count = if is_new {
        writer.insert(journal, &table, key, fields.clone())?
    } else {
        writer.update(journal, &table, key, &fields, &Condition::new())?
    };
    if count == codes::NO_AUTHORITY {
        return Err(refused(format!("Permission denied. {} can't write {}", hex::encode(invocation.call.origin), table.schema().name)));
    }
    let rows = usize::try_from(count).unwrap_or_default();
    if is_new {
        fields.insert(table.schema().key_field.clone(), Bytes::copy_from_slice(key));
    }
    if rows > 0 {
        invocation.gas.set_memory(capacity(&fields).saturating_mul(rows as u64));
        invocation.gas.charge(Operation::Store, rows);
    }
    // The object is the row from now on, as in Table.insert.
    if let Some(object) = invocation.context.temporaries.entry_mut(entry_address) {
        *object = fields;
    }
    Ok(code(count))
}

fn new_entry(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let entry = invocation.context.temporaries.add_entry(Fields::new());
    Ok(Encoder::new().address(entry).finish())
}
