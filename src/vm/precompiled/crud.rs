//! CRUD, 0x1002: rows of user tables by JSON texts, for clients without a contract.

use millrace_base::abi::Encoder;
use millrace_base::{Bytes, hex};
use millrace_core::Entry;
use millrace_core::table::{Comparison, Condition, Fields, MAX_KEY_BYTES, Table, system};

use super::condition::limit_of;
use super::contract::{Contract, Function, Invocation, Unknown, code, refused_without_reason};
use super::gas::{Extent, Operation};
use super::json::{Json, styled};
use super::table::{check_len, check_values};
use super::tables::{Writer, capacity, charge_extent, field, system_table, user_table};
use super::{Failure, codes};

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1002,
    name: "CRUD",
    counts_input: true,
    unknown: Unknown::Code(codes::UNKNOWN_FUNCTION),
    functions: &[
        Function { selector: hex!("a216464b"), signature: "insert(string,string,string,string)", run: |i| coded(insert(i)) },
        Function { selector: hex!("2dca76c1"), signature: "update(string,string,string,string,string)", run: |i| coded(update(i)) },
        Function { selector: hex!("a72a1e65"), signature: "remove(string,string,string,string)", run: |i| coded(remove(i)) },
        Function { selector: hex!("983c6c4f"), signature: "select(string,string,string,string)", run: |i| or_code(select(i)) },
        Function { selector: hex!("5d0d6d54"), signature: "desc(string)", run: describe },
    ],
};

/// Why a call has no result: a code that it returns, or a refusal.
enum Stop {
    Code(i64),
    Failure(Failure),
}

impl<F: Into<Failure>> From<F> for Stop {
    fn from(failure: F) -> Self {
        Self::Failure(failure.into())
    }
}

fn or_code(result: Result<Bytes, Stop>) -> Result<Bytes, Failure> {
    match result {
        Ok(output) => Ok(output),
        Err(Stop::Code(answer)) => Ok(code(answer)),
        Err(Stop::Failure(failure)) => Err(failure),
    }
}

fn coded(result: Result<i64, Stop>) -> Result<Bytes, Failure> {
    or_code(result.map(code))
}

fn open(invocation: &mut Invocation<'_, '_, '_>, name: &str) -> Result<Table, Stop> {
    invocation.gas.charge(Operation::OpenTable, 1);
    Table::open(invocation.context.journal, name)?.ok_or(Stop::Code(codes::TABLE_MISSING))
}

/// An entry from its JSON text: values of any kind but arrays and objects, stored as text.
fn parse_entry(text: &[u8]) -> Result<Fields, Stop> {
    let json = Json::parse(text).ok_or(Stop::Code(codes::ENTRY_SYNTAX))?;
    let mut fields = Fields::new();
    for (name, value) in json.members().ok_or_else(refused_without_reason)? {
        let value = value.to_text().ok_or_else(refused_without_reason)?;
        fields.insert(String::from_utf8_lossy(name).into(), value.into());
    }
    Ok(fields)
}

/// A condition from its JSON text: `{field: {operator: value}, "limit": {"limit": "offset,count"}}`.
fn parse_condition(invocation: &mut Invocation<'_, '_, '_>, text: &[u8]) -> Result<Condition, Stop> {
    let json = Json::parse(text).ok_or(Stop::Code(codes::CONDITION_SYNTAX))?;
    let mut condition = Condition::new();
    for (name, operators) in json.members().ok_or_else(refused_without_reason)? {
        if name.is_empty() || name.starts_with(b"_") || name.ends_with(b"_") {
            continue;
        }
        for (operator, value) in operators.members().ok_or_else(refused_without_reason)? {
            let comparison = match operator {
                b"eq" => Some(Comparison::Equal),
                b"ne" => Some(Comparison::NotEqual),
                b"gt" => Some(Comparison::Greater),
                b"ge" => Some(Comparison::GreaterOrEqual),
                b"lt" => Some(Comparison::Less),
                b"le" => Some(Comparison::LessOrEqual),
                b"limit" => None,
                _ => return Err(Stop::Code(codes::CONDITION_OPERATOR)),
            };
            let value = value.to_text().ok_or_else(refused_without_reason)?;
            match comparison {
                Some(comparison) => condition.compare(&String::from_utf8_lossy(name), comparison, value),
                None => {
                    let (offset, count) = parse_limit(&value).ok_or_else(refused_without_reason)?;
                    condition.limit = limit_of(offset.into(), count.into());
                }
            }
            invocation.gas.charge(Operation::Field, 1);
        }
    }
    Ok(condition)
}

fn parse_limit(text: &[u8]) -> Option<(i32, i32)> {
    let mut numbers = std::str::from_utf8(text).ok()?.split(',');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn insert(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Stop> {
    let arguments = &mut invocation.arguments;
    let (name, key, entry) = (arguments.bytes(), arguments.bytes(), arguments.bytes());
    check_len(key, MAX_KEY_BYTES)?;
    let table = open(invocation, &user_table(name))?;
    let mut fields = parse_entry(entry)?;
    check_values(&fields)?;
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let count = writer.insert(invocation.context.journal, &table, key, fields.clone())?;
    if count > 0 {
        fields.insert(table.schema().key_field.clone(), Bytes::copy_from_slice(key));
        invocation.gas.raise_memory(capacity(&fields));
        invocation.gas.charge(Operation::Store, 1);
    }
    Ok(count)
}

fn update(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Stop> {
    let arguments = &mut invocation.arguments;
    let (name, key, entry, condition) = (arguments.bytes(), arguments.bytes(), arguments.bytes(), arguments.bytes());
    let table = open(invocation, &user_table(name))?;
    let fields = parse_entry(entry)?;
    if fields.contains_key(&table.schema().key_field) {
        return Err(Stop::Code(codes::KEY_UPDATE));
    }
    let condition = parse_condition(invocation, condition)?;
    check_values(&fields)?;
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let count = writer.update(invocation.context.journal, &table, key, &fields, &condition)?;
    if let Ok(rows) = usize::try_from(count) {
        invocation.gas.raise_memory(capacity(&fields).saturating_mul(rows as u64));
        invocation.gas.charge(Operation::Store, rows);
    }
    Ok(count)
}

fn remove(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Stop> {
    let arguments = &mut invocation.arguments;
    let (name, key, condition) = (arguments.bytes(), arguments.bytes(), arguments.bytes());
    let table = open(invocation, &user_table(name))?;
    let condition = parse_condition(invocation, condition)?;
    let writer = Writer::origin(invocation.call.origin, invocation.context);
    charge_extent(invocation, &table, key, Extent::Rewritten)?;
    let count = writer.remove(invocation.context.journal, &table, key, &condition)?;
    if let Ok(rows) = usize::try_from(count) {
        invocation.gas.charge(Operation::Remove, rows);
    }
    Ok(count)
}

fn select(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Stop> {
    let arguments = &mut invocation.arguments;
    let (name, key, condition) = (arguments.bytes(), arguments.bytes(), arguments.bytes());
    let name = if name == system::TABLES.as_bytes() { system::TABLES.into() } else { user_table(name) };
    let table = open(invocation, &name)?;
    let condition = parse_condition(invocation, condition)?;
    charge_extent(invocation, &table, key, Extent::Read)?;
    let rows = table.select(invocation.context.journal, key, &condition)?;
    invocation.gas.charge(Operation::Select, rows.len());
    fn members(row: &Entry) -> Vec<(&str, &[u8])> {
        row.fields.iter().map(|(name, value)| (&**name, value.as_ref())).collect()
    }
    Ok(Encoder::new().string(&styled(rows.iter().map(members))).finish())
}

fn describe(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let name = user_table(invocation.arguments.bytes());
    invocation.gas.charge(Operation::OpenTable, 1);
    let rows = system_table(system::TABLES).entries(invocation.context.journal, name.as_bytes())?;
    invocation.gas.charge(Operation::Select, rows.len());
    let text = |name| rows.first().map_or(&[][..], |row| field(row, name));
    Ok(Encoder::new().bytes(text("key_field")).bytes(text("value_field")).finish())
}
