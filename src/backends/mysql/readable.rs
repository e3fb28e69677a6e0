//! What people read: tables of blocks, transactions and the rows of AMDB tables, written in the SQL transaction of the block.
//!
//! Invariant: the node never reads them, and what they cannot take never stops a block: a table whose definition or content the server
//! refuses is given up with a warning until the node starts again. So long values may be cut here, and the exact data is elsewhere.
//! `receipts` and `contract_storage` are views, which cost nothing when a block is written. Operators may add indexes of their own.

mod blocks;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::mysql::Conn;
use ::mysql::prelude::Queryable;
use millrace_core::state::codec::decode_key;
use millrace_core::{Space, StateKey, TableName};

use super::fault::{Failure, Faults, Kind};
use super::read;
use super::write::Final;
use blocks::ShownBlock;
use tables::{ShownTable, TableChange};

/// AMDB tables that are shown at most; each is a file of the server's.
const MOST_TABLES: usize = 10_000;

/// Names and definitions of the tables and views of blocks.
const DEFINITIONS: [(&str, &str); 4] = [
    (
        "blocks",
        "CREATE TABLE IF NOT EXISTS blocks (height BIGINT UNSIGNED NOT NULL PRIMARY KEY, hash CHAR(66) NOT NULL, parent_hash CHAR(66) NOT \
         NULL, timestamp_ms BIGINT UNSIGNED NOT NULL, sealer INT UNSIGNED NOT NULL, sealer_id CHAR(128) NULL, sealers INT UNSIGNED NOT \
         NULL, signatures INT UNSIGNED NOT NULL, transactions INT UNSIGNED NOT NULL, failed INT UNSIGNED NOT NULL, state_root CHAR(66) NOT \
         NULL, transactions_root CHAR(66) NOT NULL, receipts_root CHAR(66) NOT NULL, KEY (hash)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT \
         CHARACTER SET ascii COLLATE ascii_bin COMMENT='Millrace: for people, the node does not read it'",
    ),
    (
        "transactions",
        "CREATE TABLE IF NOT EXISTS transactions (height BIGINT UNSIGNED NOT NULL, position INT UNSIGNED NOT NULL, hash CHAR(66) NOT NULL, \
         sender CHAR(42) NOT NULL, recipient CHAR(42) NULL, selector CHAR(10) NULL, input_bytes INT UNSIGNED NOT NULL, status INT UNSIGNED \
         NOT NULL, gas_used BIGINT UNSIGNED NOT NULL, contract_address CHAR(42) NULL, logs INT UNSIGNED NOT NULL, output_bytes INT UNSIGNED \
         NOT NULL, PRIMARY KEY (height, position), KEY (hash)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET ascii COLLATE \
         ascii_bin COMMENT='Millrace: for people, the node does not read it'",
    ),
    (
        "receipts",
        "CREATE VIEW receipts AS SELECT hash, height, position, status, gas_used, contract_address, logs, output_bytes FROM transactions",
    ),
    // The bytes of a slot's key: its kind, the contract, how often that destroyed itself, the slot.
    (
        "contract_storage",
        "CREATE VIEW contract_storage AS SELECT CONCAT('0x', LOWER(HEX(SUBSTR(k, 2, 20)))) AS contract, CONV(HEX(SUBSTR(k, 22, 4)), 16, 10) \
         AS incarnation, CONCAT('0x', LOWER(HEX(SUBSTR(k, 26, 32)))) AS slot, CONCAT('0x', LOWER(HEX(v))) AS value FROM kv_state WHERE k >= \
         x'02' AND k < x'03'",
    ),
];

/// What is shown, and how far that has been given up.
pub(super) struct Readable {
    faults: Faults,
    blocks: Blocks,
    /// `None` for what is not shown.
    tables: BTreeMap<TableName, Option<Arc<ShownTable>>>,
}

/// Whether blocks and transactions are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    Undefined,
    Shown,
    GivenUp,
}

/// What a block shows.
pub(super) struct Shown<'b> {
    block: Option<ShownBlock>,
    changes: Vec<(Arc<ShownTable>, Vec<TableChange<'b>>)>,
}

impl Readable {
    pub fn new(faults: Faults) -> Self {
        Self { faults, blocks: Blocks::Undefined, tables: BTreeMap::new() }
    }

    /// Works out what a block shows and defines the tables that are not there yet. Outside a transaction.
    pub fn prepare<'b>(&mut self, connection: &mut Conn, height: u64, finals: &Final<'b>) -> Result<Shown<'b>, Failure> {
        if self.blocks == Blocks::Undefined {
            self.blocks = match self.tolerate(define_blocks(connection), "blocks and transactions")? {
                Some(()) => Blocks::Shown,
                None => Blocks::GivenUp,
            };
        }
        let block = if self.blocks == Blocks::Shown { ShownBlock::of(height, finals) } else { None };
        let mut by_table: BTreeMap<TableName, Vec<TableChange<'b>>> = BTreeMap::new();
        for ((space, key), value) in finals.range((Space::State, &[][..])..) {
            if *space != Space::State {
                break;
            }
            // What is no state key is no table's either.
            if let Ok(StateKey::Row(table, primary)) = decode_key(key) {
                by_table.entry(table).or_default().push(TableChange { key, primary, value: *value });
            }
        }
        let mut changes = Vec::with_capacity(by_table.len());
        for (name, changed) in by_table {
            if let Some(table) = self.table(connection, &name, finals)? {
                changes.push((table, changed));
            }
        }
        Ok(Shown { block, changes })
    }

    /// Writes what a block shows. Inside its transaction, before the exact data, which still tells what was shown before.
    pub fn write(&mut self, connection: &mut Conn, shown: &Shown<'_>) -> Result<(), Failure> {
        if let Some(block) = &shown.block
            && self.tolerate(block.write(connection), "blocks and transactions")?.is_none()
        {
            self.blocks = Blocks::GivenUp;
        }
        for (table, changes) in &shown.changes {
            let written = table.write(connection, changes, &self.faults);
            if self.tolerate(written, &table.sql_name)?.is_none() {
                self.tables.insert(table.name.clone(), None);
            }
        }
        Ok(())
    }

    fn table(&mut self, connection: &mut Conn, name: &TableName, finals: &Final<'_>) -> Result<Option<Arc<ShownTable>>, Failure> {
        if let Some(known) = self.tables.get(name) {
            return Ok(known.clone());
        }
        if self.tables.len() >= MOST_TABLES {
            return Ok(None);
        }
        let Some(table) = ShownTable::find(connection, name, finals, &self.faults)? else { return Ok(None) };
        let defined = self.tolerate(table.define(connection), &table.sql_name)?;
        let shown = defined.map(|()| Arc::new(table));
        self.tables.insert(name.clone(), shown.clone());
        Ok(shown)
    }

    /// `None` for a failure that would come again with every try.
    fn tolerate<T>(&self, done: Result<T, Failure>, what: &str) -> Result<Option<T>, Failure> {
        match done {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Sql(error)) if super::fault::kind(&error) == Kind::Final => {
                let place = &self.faults.place;
                tracing::warn!(place, table = what, %error, "this readable table is given up until the node starts again; exact data is not touched");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

fn define_blocks(connection: &mut Conn) -> Result<(), Failure> {
    let present: Vec<(String,)> =
        read::rows(connection, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()", ())?;
    for (name, definition) in DEFINITIONS {
        if !present.iter().any(|(known,)| known == name) {
            connection.query_drop(definition)?;
        }
    }
    Ok(())
}
