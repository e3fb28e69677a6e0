//! Tables as the system contracts of 2.x use them: core's tables, with the origin's authority checked before each write and results
//! as the numbers that 2.x answers with, a count of rows or a negative code.

use std::sync::Arc;

use millrace_base::{Address, Bytes, hex};
use millrace_core::overlay::Journal;
use millrace_core::table::{Condition, Fields, Schema, Table, TableError, access, system};
use millrace_core::{Entry, StorageError};

use super::contract::{Invocation, refused, refused_without_reason};
use super::gas::Extent;
use super::{Context, Failure, codes};

/// Grants of one table, managers of one contract, members, chargers: lists that are read as a whole, without gas, wherever they are
/// asked. Nobody administers a thousand by hand.
pub(super) const MAX_LISTED: usize = 1_000;

/// A number in decimal with an optional sign and nothing around it.
pub(super) fn parse_i64(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Values by field name from pairs.
pub(super) fn fields<const N: usize>(pairs: [(&str, &[u8]); N]) -> Fields {
    pairs.into_iter().map(|(name, value)| (name.into(), Bytes::copy_from_slice(value))).collect()
}

/// The value of a field, empty when the entry lacks it.
pub(super) fn field<'e>(entry: &'e Entry, name: &str) -> &'e [u8] {
    entry.fields.get(name).map_or(&[], |value| value)
}

/// Size of an entry as 2.x charges memory for it.
pub(super) fn capacity(fields: &Fields) -> u64 {
    fields.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// The table that stands for a contract in grants: who may write its storage, or have it write tables.
pub(super) fn contract_table(contract: Address) -> String {
    format!("c_{}", hex::encode(contract))
}

/// The name of a user's table as 2.x stores it.
pub(super) fn user_table(name: &[u8]) -> String {
    format!("u_{}", String::from_utf8_lossy(name))
}

/// A table that exists from genesis on.
pub(super) fn system_table(name: &str) -> Table {
    Table::with_schema(system::schema(name).expect("the schemas of system tables are built in"))
}

/// Whose authority a write needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writer {
    /// This origin's, by the grants that hold at `number`.
    Origin { origin: Address, number: u64 },
    /// Nobody's: the contract has judged by rules of its own.
    Contract,
}

impl Writer {
    /// The origin of a call.
    pub fn origin(origin: Address, context: &Context<'_, '_>) -> Self {
        Self::in_block(origin, context.block.number)
    }

    /// An origin in a block. A grant made in a block carries the block's number and holds in the blocks after it.
    pub fn in_block(origin: Address, number: u64) -> Self {
        Self::Origin { origin, number: number.saturating_sub(1) }
    }

    /// Whether it may write the table: everybody may until the first grant holds.
    pub fn may_write(self, journal: &Journal<'_>, table: &str) -> Result<bool, StorageError> {
        match self {
            Self::Origin { origin, number } => access::may_write(journal, table, origin, number),
            Self::Contract => Ok(true),
        }
    }

    /// Inserts an entry: 1 or a code.
    pub fn insert(self, journal: &mut Journal<'_>, table: &Table, key: &[u8], fields: Fields) -> Result<i64, Failure> {
        if !self.may_write(journal, &table.schema().name)? {
            return Ok(codes::NO_AUTHORITY);
        }
        counted(table.insert(journal, key, fields))
    }

    /// Sets fields of the entries that meet the condition: how many, or a code.
    pub fn update(
        self,
        journal: &mut Journal<'_>,
        table: &Table,
        key: &[u8],
        fields: &Fields,
        condition: &Condition,
    ) -> Result<i64, Failure> {
        if !self.may_write(journal, &table.schema().name)? {
            return Ok(codes::NO_AUTHORITY);
        }
        counted(table.update(journal, key, fields, condition))
    }

    /// Removes the entries that meet the condition: how many, or a code.
    pub fn remove(self, journal: &mut Journal<'_>, table: &Table, key: &[u8], condition: &Condition) -> Result<i64, Failure> {
        if !self.may_write(journal, &table.schema().name)? {
            return Ok(codes::NO_AUTHORITY);
        }
        counted(table.remove(journal, key, condition))
    }

    /// Registers a table: 0, or a code when it exists or the writer may not.
    pub fn create(self, journal: &mut Journal<'_>, schema: &Schema) -> Result<i64, Failure> {
        if Table::open(journal, &schema.name)?.is_some() {
            return Ok(codes::TABLE_EXISTS);
        }
        if !self.may_write(journal, system::TABLES)? {
            return Ok(codes::NO_AUTHORITY);
        }
        millrace_core::table::create(journal, schema)?;
        Ok(0)
    }
}

fn counted(result: Result<u64, TableError>) -> Result<i64, Failure> {
    Ok(i64::try_from(result?).unwrap_or(i64::MAX))
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => Self::Storage(error),
            TableError::UnknownField(_) => refused_without_reason(),
            error => refused(error.to_string()),
        }
    }
}

/// Charges a call for going through the entries of a key, before it does.
pub(super) fn charge_extent(invocation: &mut Invocation<'_, '_, '_>, table: &Table, key: &[u8], extent: Extent) -> Result<(), Failure> {
    let entries = table.entries(invocation.context.journal, key)?;
    invocation.gas.charge_extent(&entries, extent);
    Ok(())
}

/// All entries of a key, without copying them.
pub(super) fn rows(journal: &Journal<'_>, table: &Table, key: &[u8]) -> Result<Arc<Vec<Entry>>, StorageError> {
    table.entries(journal, key)
}
