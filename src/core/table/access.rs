//! Who may write a table: the rows of `_sys_table_access_`.
//!
//! A table without rows is open to everybody. Rows carry the number from which they hold (`enable_num`); callers pass the number that
//! they judge by. Addresses are compared as accounts, so a text that is no 0x-prefixed address of 20 bytes is a grant that nobody can
//! use, but which closes the table (README of the recordings, correction 26).

use millrace_base::{Address, hex};

use super::{Condition, Table, system};
use crate::state::{Entry, StateReader};
use crate::storage::StorageError;

/// Whether transactions of `origin` may write `table` (full name), by the grants that hold at `number`.
pub fn may_write(state: &dyn StateReader, table: &str, origin: Address, number: u64) -> Result<bool, StorageError> {
    let access = Table::with_schema(system::schema(system::TABLE_ACCESS).expect("a system table"));
    let entries = access.entries(state, table.as_bytes())?;
    let mut grants = entries.iter().filter(|grant| holds(grant, number)).peekable();
    Ok(grants.peek().is_none() || grants.any(|grant| grantee(grant) == Some(origin)))
}

/// The grants of a table that hold at `number`, in the order they were given; `u64::MAX` for all.
pub fn grants(state: &dyn StateReader, table: &str, number: u64) -> Result<Vec<Entry>, StorageError> {
    let access = Table::with_schema(system::schema(system::TABLE_ACCESS).expect("a system table"));
    let mut grants = access.select(state, table.as_bytes(), &Condition::new())?;
    grants.retain(|grant| holds(grant, number));
    Ok(grants)
}

fn holds(grant: &Entry, number: u64) -> bool {
    system::number_field(grant, system::ENABLE_NUMBER).is_none_or(|enabled| enabled <= number)
}

/// The account that a grant names.
pub fn grantee(grant: &Entry) -> Option<Address> {
    let text = std::str::from_utf8(grant.fields.get("address")?).ok()?;
    let mut bytes = [0; 20];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(bytes.into())
}
