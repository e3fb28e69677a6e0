//! The temporary object Table: selection and changes of rows.

use millrace_base::abi::Encoder;
use millrace_base::{Address, Bytes, hex};
use millrace_core::table::{Condition, Fields, MAX_KEY_BYTES, MAX_VALUE_BYTES, Table};

use super::Failure;
use super::contract::{Contract, Function, Invocation, Unknown, code, refused, refused_without_reason};
use super::gas::{Extent, Operation};
use super::tables::{Writer, capacity, charge_extent, contract_table};

/// The object.
pub(super) const TABLE: Contract = Contract {
    address: 0,
    name: "Table",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("e8434e39"), signature: "select(string,address)", run: select },
        Function { selector: hex!("31afac36"), signature: "insert(string,address)", run: insert },
        Function { selector: hex!("bf2b70a1"), signature: "update(string,address,address)", run: update },
        Function { selector: hex!("28bb2117"), signature: "remove(string,address)", run: remove },
        Function { selector: hex!("13db9346"), signature: "newEntry()", run: new_entry },
        Function { selector: hex!("7857d7c9"), signature: "newCondition()", run: new_condition },
    ],
};

fn table(invocation: &Invocation<'_, '_, '_>) -> Result<Table, Failure> {
    invocation.context.temporaries.table(invocation.call.address).ok_or_else(refused_without_reason)
}

fn condition(invocation: &Invocation<'_, '_, '_>, address: Address) -> Result<Condition, Failure> {
    invocation.context.temporaries.condition(address).cloned().ok_or_else(refused_without_reason)
}

fn entry(invocation: &Invocation<'_, '_, '_>, address: Address) -> Result<Fields, Failure> {
    invocation.context.temporaries.entry(address).cloned().ok_or_else(refused_without_reason)
}

/// Whether the origin may have the calling contract write tables.
pub(super) fn check_contract_authority(invocation: &Invocation<'_, '_, '_>) -> Result<(), Failure> {
    let (call, context) = (&invocation.call, &invocation.context);
    if Writer::origin(call.origin, context).may_write(context.journal, &contract_table(call.sender))? {
        return Ok(());
    }
    let (origin, sender) = (hex::encode(call.origin), hex::encode(call.sender));
    Err(refused(format!("Permission denied. {origin} can't call contract {sender}")))
}

/// Keys and values have a greatest length.
pub(super) fn check_len(text: &[u8], max_bytes: usize) -> Result<(), Failure> {
    if text.len() <= max_bytes { Ok(()) } else { Err(refused(format!("size of value/key greater than{max_bytes}"))) }
}

/// As [`check_len`] for every value.
pub(super) fn check_values(fields: &Fields) -> Result<(), Failure> {
    fields.values().try_for_each(|value| check_len(value, MAX_VALUE_BYTES))
}

fn select(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (key, condition_address) = (invocation.arguments.bytes(), invocation.arguments.address());
    let condition = condition(invocation, condition_address)?;
    let table = table(invocation)?;
    charge_extent(invocation, &table, key, Extent::Read)?;
    let rows = table.select(invocation.context.journal, key, &condition)?;
    invocation.gas.raise_memory(rows.iter().map(|row| capacity(&row.fields)).sum());
    invocation.gas.charge(Operation::Select, rows.len());
    let entries = invocation.context.temporaries.add_entries(rows);
    Ok(Encoder::new().address(entries).finish())
}

fn insert(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    check_contract_authority(invocation)?;
    let (key, entry_address) = (invocation.arguments.bytes(), invocation.arguments.address());
    let mut fields = entry(invocation, entry_address)?;
    check_len(key, MAX_KEY_BYTES)?;
    check_values(&fields)?;
    let table = table(invocation)?;
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let count = writer.insert(invocation.context.journal, &table, key, fields.clone())?;
    if count > 0 {
        fields.insert(table.schema().key_field.clone(), Bytes::copy_from_slice(key));
        invocation.gas.raise_memory(capacity(&fields));
        invocation.gas.charge(Operation::Store, 1);
        // The object is the row from now on: it has the key's field, and is charged for it when it is used again.
        if let Some(object) = invocation.context.temporaries.entry_mut(entry_address) {
            *object = fields;
        }
    }
    Ok(code(count))
}

fn update(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    check_contract_authority(invocation)?;
    let key = invocation.arguments.bytes();
    let (entry_address, condition_address) = (invocation.arguments.address(), invocation.arguments.address());
    let fields = entry(invocation, entry_address)?;
    let condition = condition(invocation, condition_address)?;
    check_values(&fields)?;
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    let table = table(invocation)?;
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let count = writer.update(invocation.context.journal, &table, key, &fields, &condition)?;
    if let Some(rows) = usize::try_from(count).ok().filter(|rows| *rows > 0) {
        invocation.gas.set_memory(capacity(&fields).saturating_mul(rows as u64));
        invocation.gas.charge(Operation::Store, rows);
    }
    Ok(code(count))
}

fn remove(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    check_contract_authority(invocation)?;
    let (key, condition_address) = (invocation.arguments.bytes(), invocation.arguments.address());
    let condition = condition(invocation, condition_address)?;
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    let table = table(invocation)?;
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let count = writer.remove(invocation.context.journal, &table, key, &condition)?;
    if let Ok(rows) = usize::try_from(count) {
        invocation.gas.charge(Operation::Remove, rows);
    }
    Ok(code(count))
}

fn new_entry(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let entry = invocation.context.temporaries.add_entry(Fields::new());
    Ok(Encoder::new().address(entry).finish())
}

fn new_condition(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let condition = invocation.context.temporaries.add_condition();
    Ok(Encoder::new().address(condition).finish())
}
