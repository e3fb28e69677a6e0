//! AMDB: tables with a primary key, several entries a key, and conditions over their fields.
//!
//! A table is its schema (a row of `_sys_tables_`, or built in for system tables) and its rows: all entries of one primary key are one
//! [`StateValue::Row`], the unit that transactions read, write and conflict on. Precompiled contracts work on a transaction's
//! [`Journal`]; queries on any [`StateReader`].
//!
//! Semantics are those of 2.x (`spec/node-semantics.md` 6.3, 6.4 and the recordings). Invariants: entries of a key stand in insertion
//! order with ascending ids; every entry carries its primary key; a key without entries is absent. Who may write is the caller's
//! question ([`access`]), as are the codes clients see.

pub mod access;
pub mod condition;
pub mod schema;
pub mod system;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_base::Bytes;

pub use condition::{Comparison, Condition, Limit};
pub use schema::{Schema, create, schema};

use crate::overlay::Journal;
use crate::state::{Entry, StateKey, StateReader, StateValue};
use crate::storage::StorageError;

/// Longest table name as clients give it, without the prefix `u_` (bytes).
pub const MAX_TABLE_NAME_BYTES: usize = 48;
/// Longest field name, the key field's included (bytes).
pub const MAX_FIELD_NAME_BYTES: usize = 64;
/// All value field names of a table with their commas (bytes).
pub const MAX_FIELD_NAMES_BYTES: usize = 1024;
/// Longest primary key that the contracts of user tables take (bytes). They check it themselves: others, such as DagTransfer, do not.
pub const MAX_KEY_BYTES: usize = 255;
/// Longest primary key of any table (bytes).
pub const MAX_STORED_KEY_BYTES: usize = 64 << 10;
/// Largest field value: that of a SQL mediumblob (bytes).
pub const MAX_VALUE_BYTES: usize = (16 << 20) - 1;
/// Largest encoded size of all entries of one key. Every change of an entry rewrites them all, so without a bound one key could be grown
/// until each insert stops the group; no 2.x application lives beyond what its own row cache (32 MB) could hold.
pub const MAX_ROW_BYTES: usize = 32 << 20;

/// Fields that 2.x keeps beside every entry, and that entries may name.
const HIDDEN_FIELDS: [&str; 4] = ["_id_", "_num_", "_hash_", "_status_"];

/// Field values of an entry by name.
pub type Fields = BTreeMap<Arc<str>, Bytes>;

/// Why a table cannot be written. Deterministic but for [`TableError::Storage`].
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The schema has no such field.
    #[error("the table has no field {0:?}")]
    UnknownField(Arc<str>),
    /// Longer than [`MAX_STORED_KEY_BYTES`].
    #[error("a key of {0} bytes is too long")]
    KeyTooLong(usize),
    /// Longer than [`MAX_VALUE_BYTES`].
    #[error("a value of {0} bytes is too long")]
    ValueTooLong(usize),
    /// The entries of the key would exceed [`MAX_ROW_BYTES`].
    #[error("the entries of one key would take {0} bytes")]
    RowTooLarge(usize),
    /// Storage failed; the transaction has no result.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// An open table. Cheap to clone; holds no state besides the schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    schema: Arc<Schema>,
}

impl Table {
    /// Opens a table by its full name (prefix included); `None` when it does not exist.
    pub fn open(state: &dyn StateReader, name: &str) -> Result<Option<Self>, StorageError> {
        Ok(schema(state, name)?.map(|schema| Self { schema: Arc::new(schema) }))
    }

    /// A table whose schema is known.
    pub fn with_schema(schema: Schema) -> Self {
        Self { schema: Arc::new(schema) }
    }

    /// The table's schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The entries of `key` that meet `condition`, in insertion order, as many as its limit asks for.
    pub fn select(&self, state: &dyn StateReader, key: &[u8], condition: &Condition) -> Result<Vec<Entry>, StorageError> {
        let entries = self.entries(state, key)?;
        Ok(self.chosen(&entries, condition).into_iter().map(|index| entries[index].clone()).collect())
    }

    /// All entries of `key`, without copying them.
    pub fn entries(&self, state: &dyn StateReader, key: &[u8]) -> Result<Arc<Vec<Entry>>, StorageError> {
        let key = self.state_key(key);
        match state.read(&key)? {
            Some(StateValue::Row(entries)) => Ok(entries),
            Some(_) => Err(wrong_kind(&key)),
            None => Ok(Arc::default()),
        }
    }

    /// Appends an entry; gives the number of entries inserted, which is 1. A value given for the key field is replaced by `key`.
    pub fn insert(&self, journal: &mut Journal<'_>, key: &[u8], fields: Fields) -> Result<u64, TableError> {
        self.check(key, &fields)?;
        let mut entries = Vec::clone(&*self.entries(journal, key)?);
        let id = entries.last().map_or(0, |last| last.id + 1);
        let mut entry = Entry { id, fields };
        entry.fields.insert(self.schema.key_field.clone(), Bytes::copy_from_slice(key));
        entries.push(entry);
        self.write(journal, key, entries)?;
        Ok(1)
    }

    /// Overwrites `fields` in the entries that meet `condition`, within its limit; gives their number. The key field and `_id_` stay as
    /// they are.
    pub fn update(&self, journal: &mut Journal<'_>, key: &[u8], fields: &Fields, condition: &Condition) -> Result<u64, TableError> {
        self.check(key, fields)?;
        let before = self.entries(journal, key)?;
        let chosen = self.chosen(&before, condition);
        if chosen.is_empty() {
            return Ok(0);
        }
        let mut entries = Vec::clone(&*before);
        for index in &chosen {
            let changed = fields.iter().filter(|(name, _)| **name != self.schema.key_field && &***name != "_id_");
            entries[*index].fields.extend(changed.map(|(name, value)| (name.clone(), value.clone())));
        }
        self.write(journal, key, entries)?;
        Ok(chosen.len() as u64)
    }

    /// Removes the entries that meet `condition`, within its limit; gives their number.
    pub fn remove(&self, journal: &mut Journal<'_>, key: &[u8], condition: &Condition) -> Result<u64, TableError> {
        let before = self.entries(journal, key)?;
        let chosen = self.chosen(&before, condition);
        if chosen.is_empty() {
            return Ok(0);
        }
        let is_kept = |(index, _): &(usize, &Entry)| chosen.binary_search(index).is_err();
        let entries = before.iter().enumerate().filter(is_kept).map(|(_, entry)| entry.clone()).collect();
        self.write(journal, key, entries)?;
        Ok(chosen.len() as u64)
    }

    /// Positions of the entries that a condition chooses, ascending.
    fn chosen(&self, entries: &[Entry], condition: &Condition) -> Vec<usize> {
        // As 2.x: what begins or ends with an underscore counts as hidden, and the key was chosen already.
        let is_hidden = |field: &str| field.is_empty() || field.starts_with('_') || field.ends_with('_');
        let is_ignored = |field: &str| *field == *self.schema.key_field || is_hidden(field);
        let meeting = entries.iter().enumerate().filter(|(_, entry)| condition.holds(&entry.fields, is_ignored)).map(|(index, _)| index);
        match condition.limit {
            Some(limit) => meeting.skip(to_size(limit.offset)).take(to_size(limit.count)).collect(),
            None => meeting.collect(),
        }
    }

    fn check(&self, key: &[u8], fields: &Fields) -> Result<(), TableError> {
        if key.len() > MAX_STORED_KEY_BYTES {
            return Err(TableError::KeyTooLong(key.len()));
        }
        for (name, value) in fields {
            if !self.schema.has_field(name) && !HIDDEN_FIELDS.contains(&&**name) {
                return Err(TableError::UnknownField(name.clone()));
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(TableError::ValueTooLong(value.len()));
            }
        }
        Ok(())
    }

    fn write(&self, journal: &mut Journal<'_>, key: &[u8], entries: Vec<Entry>) -> Result<(), TableError> {
        let size = entries.iter().flat_map(|entry| entry.fields.values()).map(|value| value.len() + 8).sum();
        if size > MAX_ROW_BYTES {
            return Err(TableError::RowTooLarge(size));
        }
        let value = (!entries.is_empty()).then(|| StateValue::Row(Arc::new(entries)));
        journal.set(self.state_key(key), value);
        Ok(())
    }

    fn state_key(&self, key: &[u8]) -> StateKey {
        StateKey::Row(self.schema.name.clone(), key.into())
    }
}

fn to_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn wrong_kind(key: &StateKey) -> StorageError {
    StorageError::Corrupt { place: format!("{key:?}"), detail: "the value is no table row".into() }
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
