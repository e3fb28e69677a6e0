//! The rows of an AMDB table as a SQL table of the same name and fields.
//!
//! Each entry is a row under its primary key and id; only entries that a block changed are written. Names that SQL cannot take as they
//! are (too long, capitals, which some servers do not tell from small letters) end with a digest, behind a character that other names do
//! not have.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::mysql::prelude::Queryable;
use ::mysql::{Conn, Value};
use millrace_core::state::codec::{decode_value, encode_key};
use millrace_core::table::{self, Schema};
use millrace_core::{Entry, Space, StateKey, StateReader, StateValue, StorageError, TableName};

use crate::mysql::fault::{Failure, Faults};
use crate::mysql::layout::{hex_text, repeat};
use crate::mysql::read;
use crate::mysql::write::{Final, Rows};

/// Longest name of a table or column in SQL, bytes.
const NAME_BYTES: usize = 64;

/// Bytes of a primary key that are shown; of longer ones a digest tells them apart.
const KEY_BYTES: usize = 255;

/// Bytes of a value that are shown: with all fields, a row stays below the size of a statement.
const VALUE_BYTES: usize = 16 << 10;

/// Fields that are shown at most: InnoDB limits what a row keeps of its fields in one place.
const MOST_FIELDS: usize = 64;

/// Keys whose old entries are read at a time.
const KEYS: usize = 256;

/// A changed primary key.
pub(super) struct TableChange<'b> {
    /// The encoded state key.
    pub key: &'b [u8],
    /// The primary key.
    pub primary: Arc<[u8]>,
    /// The encoded entries; `None` when none are left.
    pub value: Option<&'b [u8]>,
}

/// See the module.
pub(super) struct ShownTable {
    pub name: TableName,
    pub sql_name: String,
    key_column: String,
    /// Field and column.
    columns: Vec<(Arc<str>, String)>,
}

impl ShownTable {
    /// The table by its schema, which the block itself may create; `None` when there is none or it has too many fields.
    pub fn find(connection: &mut Conn, name: &TableName, finals: &Final<'_>, faults: &Faults) -> Result<Option<Self>, Failure> {
        let state = SchemaReader { connection: RefCell::new(connection), finals, faults, failure: RefCell::default() };
        let found = table::schema(&state, name);
        if let Some(failure) = state.failure.into_inner() {
            return Err(failure);
        }
        // A damaged registry is found by whoever needs it.
        Ok(found.ok().flatten().filter(|schema| schema.value_fields.len() <= MOST_FIELDS).map(|schema| Self::new(&schema)))
    }

    fn new(schema: &Schema) -> Self {
        let mut taken = BTreeSet::from(["_id_".to_owned(), "_digest_".to_owned()]);
        let mut column = |field: &str| {
            let mut column = sql_name(field);
            if !taken.insert(column.to_lowercase()) {
                column = digested(field);
                taken.insert(column.clone());
            }
            column
        };
        let key_column = column(&schema.key_field);
        let fields = schema.value_fields.iter().filter(|field| **field != schema.key_field);
        let columns = fields.map(|field| (field.clone(), column(field))).collect();
        Self { name: schema.name.clone(), sql_name: table_name(&schema.name), key_column, columns }
    }

    /// Makes the SQL table if it is not there.
    pub fn define(&self, connection: &mut Conn) -> Result<(), Failure> {
        let Self { sql_name, key_column, columns, .. } = self;
        let fields: String = columns.iter().map(|(_, column)| format!("`{column}` BLOB NULL, ")).collect();
        Ok(connection.query_drop(format!(
            "CREATE TABLE IF NOT EXISTS `{sql_name}` (`{key_column}` VARBINARY({KEY_BYTES}) NOT NULL, _digest_ VARBINARY(32) NOT NULL, _id_ \
             BIGINT UNSIGNED NOT NULL, {fields}PRIMARY KEY (`{key_column}`, _digest_, _id_)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC \
             COMMENT='Millrace: for people, the node does not read it'"
        ))?)
    }

    /// Brings the entries of the changed keys up to date.
    pub fn write(&self, connection: &mut Conn, changes: &[TableChange<'_>], faults: &Faults) -> Result<(), Failure> {
        let (table, key_column) = (&self.sql_name, &self.key_column);
        let columns: String = self.columns.iter().map(|(_, column)| format!(", `{column}`")).collect();
        let marks = format!("({})", repeat("?", 3 + self.columns.len(), ","));
        let mut put = Rows::new(format!("REPLACE INTO `{table}` (`{key_column}`, _digest_, _id_{columns}) VALUES "), marks, "");
        let mut remove =
            Rows::new(format!("DELETE FROM `{table}` WHERE "), format!("(`{key_column}` = ? AND _digest_ = ? AND _id_ = ?)"), "")
                .separated_by(" OR ");
        for chunk in changes.chunks(KEYS) {
            let keys: Vec<&[u8]> = chunk.iter().map(|change| change.key).collect();
            let before = read::multi_get(connection, Space::State, &keys, faults)?;
            for (change, before) in chunk.iter().zip(before) {
                let mut before: BTreeMap<u64, Entry> =
                    self.entries(change, before.as_deref()).into_iter().map(|entry| (entry.id, entry)).collect();
                let (key, digest) = shown_key(&change.primary);
                for entry in self.entries(change, change.value) {
                    if before.remove(&entry.id).is_some_and(|before| before == entry) {
                        continue;
                    }
                    let value = |(field, _): &(Arc<str>, String)| {
                        Value::from(entry.fields.get(field).map(|value| &value[..value.len().min(VALUE_BYTES)]))
                    };
                    let row = [key.into(), digest.as_slice().into(), entry.id.into()].into_iter().chain(self.columns.iter().map(value));
                    put.add(connection, row)?;
                }
                for id in before.into_keys() {
                    remove.add(connection, [key.into(), digest.as_slice().into(), id.into()])?;
                }
            }
        }
        remove.finish(connection)?;
        put.finish(connection)
    }

    /// Entries as they are stored; none of what is no row.
    fn entries(&self, change: &TableChange<'_>, value: Option<&[u8]>) -> Vec<Entry> {
        let key = StateKey::Row(self.name.clone(), change.primary.clone());
        match value.map(|bytes| decode_value(&key, bytes)) {
            Some(Ok(StateValue::Row(entries))) => Arc::unwrap_or_clone(entries),
            _ => Vec::new(),
        }
    }
}

/// What is shown of a primary key, and what tells it from others of which the same is shown.
fn shown_key(primary: &[u8]) -> (&[u8], Vec<u8>) {
    match primary.split_at_checked(KEY_BYTES) {
        Some((shown, rest)) if !rest.is_empty() => (shown, blake3::hash(primary).as_bytes().to_vec()),
        _ => (primary, Vec::new()),
    }
}

/// A table's name in SQL. Other tables of the database begin with a letter and no underscore behind the first or second.
fn table_name(name: &str) -> String {
    let is_ours = ["_", "u_", "c_", "cp_"].iter().any(|prefix| name.starts_with(prefix));
    if is_ours { sql_name(name) } else { digested(name) }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit() || "_$@".contains(character)
}

/// A field's or table's name as it is, where SQL can take it.
fn sql_name(name: &str) -> String {
    let fits = (1..=NAME_BYTES).contains(&name.len());
    if fits && name.chars().all(is_plain) { name.to_owned() } else { digested(name) }
}

/// The beginning of a name, and a digest of the whole behind a dash.
fn digested(name: &str) -> String {
    const DIGEST_BYTES: usize = 8;
    let digest = &hex_text(&blake3::hash(name.as_bytes()).as_bytes()[..DIGEST_BYTES])[2..];
    let shown = name.chars().map(|character| character.to_ascii_lowercase());
    let shown: String =
        shown.map(|character| if is_plain(character) { character } else { '_' }).take(NAME_BYTES - 1 - 2 * DIGEST_BYTES).collect();
    format!("{shown}-{digest}")
}

/// Reads the registry of tables as of the block that is being written.
struct SchemaReader<'r, 'b> {
    connection: RefCell<&'r mut Conn>,
    finals: &'r Final<'b>,
    faults: &'r Faults,
    failure: RefCell<Option<Failure>>,
}

impl StateReader for SchemaReader<'_, '_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let encoded = encode_key(key);
        let bytes = match self.finals.get(&(Space::State, &encoded[..])) {
            Some(written) => written.map(<[u8]>::to_vec),
            None => match read::get(&mut self.connection.borrow_mut(), Space::State, &encoded, self.faults) {
                Ok(bytes) => bytes,
                Err(failure) => {
                    *self.failure.borrow_mut() = Some(failure);
                    None
                }
            },
        };
        bytes.map(|bytes| decode_value(key, &bytes)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sql_would_confuse_are_told_apart() {
        assert_eq!(table_name("u_t_demo"), "u_t_demo");
        assert_eq!(table_name("_sys_config_"), "_sys_config_");
        let odd = ["u_T_demo", "u_t_Demo", "u_t demo", "u_t`demo", "blocks", "kv_state", "", &"u_x".repeat(40), &"u_x".repeat(41)];
        let names: BTreeSet<String> = odd.iter().map(|name| table_name(name)).collect();
        assert_eq!(names.len(), odd.len());
        for name in names {
            assert!(name.len() <= NAME_BYTES && name.contains('-') && name.chars().all(|c| is_plain(c) || c == '-'), "{name}");
        }
    }

    #[test]
    fn columns_that_differ_in_case_alone_are_kept_apart() {
        let table = ShownTable::new(&Schema::new("u_t", "_id_", "Name,name,NAME,_digest_"));
        let mut columns: BTreeSet<String> = table.columns.iter().map(|(_, column)| column.to_lowercase()).collect();
        columns.extend([table.key_column.to_lowercase(), "_id_".into(), "_digest_".into()]);
        assert_eq!(columns.len(), 7);
    }

    #[test]
    fn long_keys_are_cut_and_told_apart() {
        assert_eq!(shown_key(b"fruit"), (&b"fruit"[..], Vec::new()));
        let (one, other) = (vec![1; 300], vec![1; 301]);
        assert_eq!(shown_key(&one).0, shown_key(&other).0);
        assert_ne!(shown_key(&one).1, shown_key(&other).1);
    }
}
