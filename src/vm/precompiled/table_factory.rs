//! TableFactory, 0x1001: creates user tables and opens them as Table objects. The checks of names are shared with KVTableFactory.

use std::collections::BTreeSet;

use millrace_base::abi::Encoder;
use millrace_base::{Address, Bytes, hex};
use millrace_core::table::{MAX_FIELD_NAME_BYTES, MAX_FIELD_NAMES_BYTES, MAX_TABLE_NAME_BYTES, Schema, Table};

use super::Failure;
use super::contract::{Contract, Function, Invocation, Unknown, code, refused};
use super::gas::Operation;
use super::table::check_contract_authority;
use super::tables::{Writer, user_table};

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1001,
    name: "TableFactory",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("f23f63c9"), signature: "openTable(string)", run: open_table },
        Function { selector: hex!("56004b6a"), signature: "createTable(string,string,string)", run: create_table },
    ],
};

fn open_table(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let name = user_table(invocation.arguments.bytes());
    invocation.gas.charge(Operation::OpenTable, 1);
    let table = Table::open(invocation.context.journal, &name)?;
    let address = table.map_or(Address::ZERO, |table| invocation.context.temporaries.add_table(table));
    Ok(Encoder::new().address(address).finish())
}

fn create_table(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    check_contract_authority(invocation)?;
    let arguments = &mut invocation.arguments;
    let schema = check_schema(arguments.bytes(), arguments.bytes(), arguments.bytes(), Refusals::Full)?;
    create(invocation, &schema).map(code)
}

/// Creates the table: 0, or a code when it exists or the origin may not.
pub(super) fn create(invocation: &mut Invocation<'_, '_, '_>, schema: &Schema) -> Result<i64, Failure> {
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    let created = writer.create(invocation.context.journal, schema)?;
    if created == 0 {
        invocation.gas.charge(Operation::CreateTable, 1);
    }
    Ok(created)
}

/// How refusals of names are worded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusals {
    /// With the rule, as TableFactory does.
    Full,
    /// The name only, as KVTableFactory does.
    Short,
}

/// Checks a new table's name, its key field and its value fields, the latter separated by commas. White space around fields goes, the
/// name gets its prefix.
pub(super) fn check_schema(name: &[u8], key_field: &[u8], value_fields: &[u8], refusals: Refusals) -> Result<Schema, Failure> {
    let key_field = trim(key_field);
    let value_fields: Vec<&[u8]> = value_fields.split(|byte| *byte == b',').map(trim).collect();
    if key_field.len() > MAX_FIELD_NAME_BYTES || value_fields.iter().any(|field| field.len() > MAX_FIELD_NAME_BYTES) {
        return Err(refused(format!("table field name length overflow {MAX_FIELD_NAME_BYTES}")));
    }
    check_table_name(name, refusals)?;
    check_field_name(key_field, refusals)?;
    let mut seen = BTreeSet::from([key_field]);
    for field in &value_fields {
        if !seen.insert(field) {
            // "dumplicate": as 2.x spells it.
            let word = if refusals == Refusals::Full { "duplicate" } else { "dumplicate" };
            return Err(refused(format!("{word} field:{}", String::from_utf8_lossy(field))));
        }
        check_field_name(field, refusals)?;
    }
    let value_fields = value_fields.join(&b","[..]);
    if value_fields.len() > MAX_FIELD_NAMES_BYTES {
        return Err(refused(format!("total table field name length overflow {MAX_FIELD_NAMES_BYTES}")));
    }
    if name.len() > MAX_TABLE_NAME_BYTES {
        // The text counts the prefix.
        return Err(refused(format!("tableName length overflow {}", MAX_TABLE_NAME_BYTES + 2)));
    }
    Ok(Schema::new(&user_table(name), &String::from_utf8_lossy(key_field), &String::from_utf8_lossy(&value_fields)))
}

fn trim(text: &[u8]) -> &[u8] {
    // C's isspace: ASCII white space and the vertical tab.
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

fn has_allowed_characters(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"$_@".contains(byte))
}

fn check_table_name(name: &[u8], refusals: Refusals) -> Result<(), Failure> {
    if has_allowed_characters(name) {
        return Ok(());
    }
    Err(match refusals {
        Refusals::Full => refused_name("table name", "table name", name),
        Refusals::Short => refused_bytes(&[b"invalid tablename:", name]),
    })
}

fn check_field_name(name: &[u8], refusals: Refusals) -> Result<(), Failure> {
    let is_visible = !name.is_empty() && !name.starts_with(b"_");
    if is_visible && has_allowed_characters(name) {
        return Ok(());
    }
    Err(match refusals {
        Refusals::Short => refused_bytes(&[b"invalid field:", name]),
        Refusals::Full if is_visible => refused_name("field", "field name", name),
        Refusals::Full => {
            let rule = b"\", the size of the field must be larger than 0 and the field can't start with \"_\"";
            refused_bytes(&[b"Invalid field \"", name, rule])
        }
    })
}

fn refused_name(kind: &str, noun: &str, name: &[u8]) -> Failure {
    let rule = format!("\", the {noun} must be letters or numbers, and only supports \"{{$, _, @}}\" as special character set");
    refused_bytes(&[b"Invalid ", kind.as_bytes(), b" \"", name, rule.as_bytes()])
}

fn refused_bytes(parts: &[&[u8]]) -> Failure {
    refused(String::from_utf8_lossy(&parts.concat()))
}
