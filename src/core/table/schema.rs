//! Schemas: which fields a table has. Those of user tables are rows of `_sys_tables_`, those of system tables are built in.

use std::sync::Arc;

use millrace_base::Bytes;

use super::{Condition, Fields, Table, TableError, system};
use crate::overlay::Journal;
use crate::state::{StateReader, TableName};
use crate::storage::StorageError;

/// The fields of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schema {
    /// Full name, prefix included.
    pub name: TableName,
    /// The field that holds the primary key.
    pub key_field: Arc<str>,
    /// The other fields, in the order they were declared.
    pub value_fields: Vec<Arc<str>>,
}

impl Schema {
    /// From the texts that `_sys_tables_` and clients use: value fields separated by commas, taken as they stand.
    pub fn new(name: &str, key_field: &str, value_fields: &str) -> Self {
        let value_fields = if value_fields.is_empty() { Vec::new() } else { value_fields.split(',').map(Arc::from).collect() };
        Self { name: name.into(), key_field: key_field.into(), value_fields }
    }

    /// Whether entries may have this field; the key field counts.
    pub fn has_field(&self, field: &str) -> bool {
        *self.key_field == *field || self.value_fields.iter().any(|name| **name == *field)
    }

    /// The value fields separated by commas, as `_sys_tables_` holds them.
    pub fn value_fields_text(&self) -> String {
        self.value_fields.join(",")
    }
}

/// The schema of a table by its full name; `None` when there is no such table.
pub fn schema(state: &dyn StateReader, name: &str) -> Result<Option<Schema>, StorageError> {
    if let Some(schema) = system::schema(name) {
        return Ok(Some(schema));
    }
    let registered = registry().select(state, name.as_bytes(), &Condition::new())?;
    let Some(row) = registered.first() else { return Ok(None) };
    let text = |field: &str| row.fields.get(field).and_then(|value| std::str::from_utf8(value).ok());
    match (text("key_field"), text("value_field")) {
        (Some(key_field), Some(value_fields)) => Ok(Some(Schema::new(name, key_field, value_fields))),
        _ => {
            Err(StorageError::Corrupt { place: format!("_sys_tables_ row {name:?}"), detail: "key_field or value_field is missing".into() })
        }
    }
}

/// Registers a table; `false` when one of that name exists. Names and fields are taken as they are: their rules and the texts about
/// them belong to the contracts that create tables.
pub fn create(journal: &mut Journal<'_>, created: &Schema) -> Result<bool, TableError> {
    if schema(journal, &created.name)?.is_some() {
        return Ok(false);
    }
    let fields = Fields::from([
        ("key_field".into(), Bytes::copy_from_slice(created.key_field.as_bytes())),
        ("value_field".into(), Bytes::from(created.value_fields_text().into_bytes())),
    ]);
    registry().insert(journal, created.name.as_bytes(), fields)?;
    Ok(true)
}

fn registry() -> Table {
    Table::with_schema(system::schema(system::TABLES).expect("the registry is a system table"))
}
