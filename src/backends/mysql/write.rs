//! Writes a block in one SQL transaction: who may write, the height marker, the exact data, and what people read.
//!
//! Invariants: the transaction begins by locking the row that says who may write, so a process that was fenced off writes nothing, and
//! a commit whose outcome was lost is waited for before its marker is read again; it is done whole or not at all, so it may be repeated
//! as often as it takes. Called by [`super::MysqlStorage::commit`], one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use ::mysql::prelude::Queryable;
use ::mysql::{Conn, Opts, Value};
use millrace_core::storage::{HEIGHT_KEY, height_key, next_height};
use millrace_core::{Batch, Space, StorageError};

use super::fault::{Failure, Faults, Kind};
use super::fence::Token;
use super::layout::{self, PART_BYTES, StoredKey, repeat};
use super::read;
use super::readable::Readable;

/// Rows of one statement.
const ROWS: usize = 512;

/// Bytes of one statement's values, below [`super::check::LEAST_PACKET_BYTES`].
pub(super) const STATEMENT_BYTES: usize = 2 << 20;

/// Tries of one block before the caller is told to come again.
const TRIES: u32 = 6;

/// Pause before a try after the first, times the number of tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Values of a batch by space and key: the last one of each, in order.
pub(super) type Final<'b> = BTreeMap<(Space, &'b [u8]), Option<&'b [u8]>>;

/// The connection that writes, and what it knows.
pub(super) struct Writer {
    options: Opts,
    faults: Faults,
    token: Token,
    connection: Option<Conn>,
    readable: Readable,
}

impl Writer {
    pub fn new(options: Opts, connection: Conn, token: Token, faults: Faults) -> Self {
        Self { options, readable: Readable::new(faults.clone()), faults, token, connection: Some(connection) }
    }

    /// Writes a block, trying again after conflicts and lost connections.
    pub fn commit(&mut self, height: u64, batch: &Batch) -> Result<(), StorageError> {
        let mut finals: Final<'_> = BTreeMap::new();
        for (space, key, value) in &batch.writes {
            finals.insert((*space, key), value.as_deref());
        }
        let marker = height_key(height);
        finals.insert((Space::Meta, HEIGHT_KEY), Some(&marker));
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.try_commit(height, &finals) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let kind = failure.kind();
            // Whatever state it is in, a new one is in a known one.
            if kind != Kind::Conflict {
                self.connection = None;
            }
            let error = self.faults.storage(failure);
            if tries == TRIES || !matches!(kind, Kind::Lost | Kind::Conflict) {
                return Err(error);
            }
            tracing::debug!(height, tries, %error, "the block is written again");
            std::thread::sleep(PAUSE * tries);
        }
    }

    /// Writes a part of a dump, with its height as the last.
    pub fn load(&mut self, height: Option<u64>, batch: &Batch) -> Result<(), StorageError> {
        let mut finals: Final<'_> = BTreeMap::new();
        for (space, key, value) in &batch.writes {
            finals.insert((*space, key), value.as_deref());
        }
        let marker = height.map(height_key);
        if let Some(marker) = &marker {
            finals.insert((Space::Meta, HEIGHT_KEY), Some(marker));
        }
        let (token, faults) = (self.token, self.faults.clone());
        let loaded = self.connection().and_then(|connection| {
            connection.query_drop("START TRANSACTION")?;
            token.check(connection, &faults)?;
            write(connection, &finals)?;
            Ok(connection.query_drop("COMMIT")?)
        });
        if loaded.is_err() {
            self.connection = None;
        }
        loaded.map_err(|failure| self.faults.storage(failure))
    }

    fn connection(&mut self) -> Result<&mut Conn, Failure> {
        Ok(match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(Conn::new(self.options.clone())?),
        })
    }

    fn try_commit(&mut self, height: u64, finals: &Final<'_>) -> Result<(), Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(Conn::new(self.options.clone())?),
        };
        // Definitions end a transaction, so they come before it; a table that stays empty because the block fails is of no harm.
        let shown = self.readable.prepare(connection, height, finals)?;
        connection.query_drop("START TRANSACTION")?;
        let written = (|| -> Result<(), Failure> {
            self.token.check(connection, &self.faults)?;
            let marker = read::height(connection, &self.faults)?;
            if next_height(marker, height)? {
                self.readable.write(connection, &shown)?;
                write(connection, finals)?;
            }
            Ok(())
        })();
        match written {
            Ok(()) => Ok(connection.query_drop("COMMIT")?),
            Err(failure) => {
                // What cannot be told to a server that is gone, it does by itself.
                let _ = connection.query_drop("ROLLBACK");
                Err(failure)
            }
        }
    }
}

/// The exact data.
fn write(connection: &mut Conn, finals: &Final<'_>) -> Result<(), Failure> {
    for space in Space::ALL {
        let table = layout::table(space);
        let of_space =
            || finals.range((space, &[][..])..).take_while(move |((found, _), _)| *found == space).map(|((_, key), v)| (*key, *v));
        delete(connection, &table, of_space().filter(|(_, value)| value.is_none()).map(|(key, _)| key))?;
        let is_small = |key: &[u8], value: &[u8]| StoredKey::new(key).rest.is_none() && value.len() <= PART_BYTES;
        let mut small =
            Rows::new(format!("INSERT INTO {table} (k, v) VALUES "), "(?,?)", " ON DUPLICATE KEY UPDATE parts = 1, v = VALUES(v)");
        let mut large = Rows::new(format!("INSERT INTO {table} (k, d, part, parts, rest, v) VALUES "), "(?,?,?,?,?,?)", "");
        for (key, value) in of_space().filter_map(|(key, value)| Some((key, value?))) {
            if is_small(key, value) {
                small.add(connection, [key.into(), value.into()])?;
                continue;
            }
            let stored = StoredKey::new(key);
            delete(connection, &table, std::iter::once(key))?;
            let parts = value.len().div_ceil(PART_BYTES).max(1);
            for (part, bytes) in value.chunks(PART_BYTES).chain(value.is_empty().then_some(&[][..])).enumerate() {
                let rest = stored.rest.filter(|_| part == 0);
                let row = [stored.head.into(), stored.digest().into(), part.into(), parts.into(), rest.into(), bytes.into()];
                large.add(connection, row)?;
            }
        }
        small.finish(connection)?;
        large.finish(connection)?;
    }
    Ok(())
}

fn delete<'k>(connection: &mut Conn, table: &str, keys: impl Iterator<Item = &'k [u8]>) -> Result<(), Failure> {
    let mut short = Rows::new(format!("DELETE FROM {table} WHERE d = '' AND k IN ("), "?", ")");
    for key in keys {
        let stored = StoredKey::new(key);
        match stored.rest {
            None => short.add(connection, [key.into()])?,
            Some(_) => connection.exec_drop(format!("DELETE FROM {table} WHERE k = ? AND d = ?"), (stored.head, stored.digest()))?,
        }
    }
    short.finish(connection)
}

/// Rows that are sent by many in a statement. Each statement has a power of two of them, so that few have to be prepared.
pub(super) struct Rows {
    before: String,
    row: String,
    separator: &'static str,
    behind: &'static str,
    /// All rows' values one behind the other, and where each row ends.
    values: Vec<Value>,
    ends: Vec<usize>,
    bytes: usize,
}

impl Rows {
    pub fn new(before: String, row: impl Into<String>, behind: &'static str) -> Self {
        Self { before, row: row.into(), separator: ",", behind, values: Vec::new(), ends: Vec::new(), bytes: 0 }
    }

    /// With another word than a comma between rows.
    pub fn separated_by(self, separator: &'static str) -> Self {
        Self { separator, ..self }
    }

    pub fn add(&mut self, connection: &mut Conn, row: impl IntoIterator<Item = Value>) -> Result<(), Failure> {
        let first = self.values.len();
        self.values.extend(row);
        let bytes: usize = self.values[first..].iter().map(|value| 9 + if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }).sum();
        if self.bytes + bytes > STATEMENT_BYTES && first > 0 {
            let row = self.values.split_off(first);
            self.finish(connection)?;
            self.values = row;
        }
        self.ends.push(self.values.len());
        self.bytes += bytes;
        if self.ends.len() == ROWS { self.finish(connection) } else { Ok(()) }
    }

    /// Sends what is there.
    pub fn finish(&mut self, connection: &mut Conn) -> Result<(), Failure> {
        self.bytes = 0;
        let width = self.ends.first().copied().unwrap_or(0);
        let (mut values, mut rows) = (std::mem::take(&mut self.values), std::mem::take(&mut self.ends).len());
        while rows > 0 {
            let count = 1 << rows.ilog2();
            let rest = values.split_off(width * count);
            connection.exec_drop(format!("{}{}{}", self.before, repeat(&self.row, count, self.separator), self.behind), values)?;
            (values, rows) = (rest, rows - count);
        }
        Ok(())
    }
}
