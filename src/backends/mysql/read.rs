//! Reads on one connection: single keys, many keys, and ranges in pages.
//!
//! Invariant: however large a range or a value is, one page and one value are in memory at a time. Called with connections that read
//! what is committed now ([`super::MysqlStorage`]) and with those of a snapshot ([`super::view`]).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ::mysql::prelude::{FromRow, Queryable};
use ::mysql::{Conn, Params};
use millrace_core::storage::{HEIGHT_KEY, Visit, decode_height};
use millrace_core::{Space, StorageError};

use super::fault::{Failure, Faults};
use super::layout::{self, HEAD_BYTES, StoredKey, end_of};

/// Keys asked for by one statement.
const KEYS: usize = 256;

/// Rows of a page, at first and at most: with the largest parts a page takes 128 MB.
const FIRST_ROWS: usize = 32;
const MOST_ROWS: usize = 512;

/// What a page should have.
const PAGE_BYTES: usize = 2 << 20;

/// Long keys of one head that are sorted at a time.
const LONG_KEYS: usize = 256;

/// All rows of a query; a column of another type than expected is an error.
pub(super) fn rows<T: FromRow>(connection: &mut Conn, statement: &str, values: impl Into<Params>) -> Result<Vec<T>, Failure> {
    connection.exec_iter(statement, values)?.map(|row| Ok(::mysql::from_row_opt(row?)?)).collect()
}

/// The value of a key.
pub(super) fn get(connection: &mut Conn, space: Space, key: &[u8], faults: &Faults) -> Result<Option<Vec<u8>>, Failure> {
    let stored = StoredKey::new(key);
    get_stored(connection, space, stored.head, &stored.digest(), faults)
}

fn get_stored(connection: &mut Conn, space: Space, head: &[u8], digest: &[u8], faults: &Faults) -> Result<Option<Vec<u8>>, Failure> {
    let statement = format!("SELECT parts, v FROM {} WHERE k = ? AND d = ? ORDER BY part", layout::table(space));
    let mut parts = connection.exec_iter(statement, (head, digest))?;
    let Some(first) = parts.next() else { return Ok(None) };
    let (count, mut value): (u32, Vec<u8>) = ::mysql::from_row_opt(first?)?;
    // What is behind the count is left of a larger value that stood here before.
    for _ in 1..count {
        let Some(next) = parts.next() else {
            return Err(faults.corrupt(layout::table(space), "a value lacks parts").into());
        };
        let (_, bytes): (u32, Vec<u8>) = ::mysql::from_row_opt(next?)?;
        value.extend_from_slice(&bytes);
    }
    Ok(Some(value))
}

/// The values of several keys, in order.
pub(super) fn multi_get(connection: &mut Conn, space: Space, keys: &[&[u8]], faults: &Faults) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let mut found: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
    let short: Vec<&[u8]> = keys.iter().copied().filter(|key| key.len() <= HEAD_BYTES).collect();
    for chunk in short.chunks(KEYS) {
        // Rounded up by repetition, so that few different statements have to be prepared.
        let padded = chunk.iter().chain(std::iter::repeat(&chunk[0])).take(chunk.len().next_power_of_two());
        let values: Vec<::mysql::Value> = padded.map(|key| key.into()).collect();
        let marks = layout::repeat("?", values.len(), ",");
        let statement = format!("SELECT k, parts, v FROM {} WHERE d = '' AND part = 0 AND k IN ({marks})", layout::table(space));
        let rows: Vec<(Vec<u8>, u32, Vec<u8>)> = rows(connection, &statement, values)?;
        for (key, parts, value) in rows {
            let Some(key) = chunk.iter().find(|asked| ***asked == *key) else { continue };
            let value = if parts == 1 { Some(value) } else { get(connection, space, key, faults)? };
            found.extend(value.map(|value| (*key, value)));
        }
    }
    for key in keys.iter().filter(|key| key.len() > HEAD_BYTES) {
        found.extend(get(connection, space, key, faults)?.map(|value| (*key, value)));
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

/// The height marker.
pub(super) fn height(connection: &mut Conn, faults: &Faults) -> Result<Option<u64>, Failure> {
    Ok(decode_height(get(connection, Space::Meta, HEIGHT_KEY, faults)?)?)
}

/// Runs work on a connection that shows one moment; the same moment each time.
pub(super) type OnConnection<'c> = dyn FnMut(&mut dyn FnMut(&mut Conn) -> Result<(), Failure>) -> Result<(), StorageError> + 'c;

/// A range that is being read.
pub(super) struct Range<'r> {
    pub space: Space,
    pub prefix: &'r [u8],
    pub from: &'r [u8],
}

/// A row of a page: key head, digest, number of parts, first part.
type Row = (Vec<u8>, Vec<u8>, u32, Vec<u8>);

impl Range<'_> {
    /// Visits the range's pairs in order. No connection is in use while the visitor runs, so that it may read as well.
    pub fn scan(&self, on_connection: &mut OnConnection<'_>, visit: &mut Visit<'_>, faults: &Faults) -> Result<(), StorageError> {
        let start = self.prefix.max(self.from);
        let mut cursor = Cursor::At(start[..start.len().min(HEAD_BYTES)].to_vec());
        let mut limit = FIRST_ROWS;
        loop {
            let mut page: Vec<Row> = Vec::new();
            on_connection(&mut |connection| {
                page = self.page(connection, &cursor, limit)?;
                Ok(())
            })?;
            let is_last = page.len() < limit;
            let bytes: usize = page.iter().map(|(head, _, _, part)| head.len() + part.len()).sum();
            let fitting = PAGE_BYTES * page.len() / bytes.max(1);
            limit = fitting.clamp(1, MOST_ROWS.min(limit * 2));
            let Some((last, ..)) = page.last() else { return Ok(()) };
            cursor = Cursor::Behind(last.clone());
            let mut long_head = None;
            for (head, digest, parts, first) in page {
                if !digest.is_empty() {
                    long_head = Some(head);
                    break;
                }
                let value = match parts {
                    1 => first,
                    _ => self.whole(on_connection, &head, &digest, faults)?,
                };
                if self.has(&head) && visit(&head, &value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
            match long_head {
                Some(head) => {
                    if self.scan_long(&head, on_connection, visit, faults)? == ControlFlow::Break(()) {
                        return Ok(());
                    }
                    cursor = Cursor::Behind(head);
                }
                None if is_last => return Ok(()),
                None => {}
            }
        }
    }

    fn has(&self, key: &[u8]) -> bool {
        key.starts_with(self.prefix) && key >= self.from
    }

    fn page(&self, connection: &mut Conn, cursor: &Cursor, limit: usize) -> Result<Vec<Row>, Failure> {
        let (comparison, at) = match cursor {
            Cursor::At(key) => (">=", key),
            Cursor::Behind(key) => (">", key),
        };
        let table = layout::table(self.space);
        let select = format!("SELECT k, d, parts, v FROM {table} WHERE k {comparison} ? AND part = 0");
        let order = "ORDER BY k, d LIMIT ?";
        let end = end_of(&self.prefix[..self.prefix.len().min(HEAD_BYTES)]);
        Ok(match end {
            Some(end) => rows(connection, &format!("{select} AND k < ? {order}"), (at, end, limit))?,
            None => rows(connection, &format!("{select} {order}"), (at, limit))?,
        })
    }

    fn whole(&self, on_connection: &mut OnConnection<'_>, head: &[u8], digest: &[u8], faults: &Faults) -> Result<Vec<u8>, StorageError> {
        let mut value = None;
        on_connection(&mut |connection| {
            value = get_stored(connection, self.space, head, digest, faults)?;
            Ok(())
        })?;
        value.ok_or_else(|| faults.corrupt(layout::table(self.space), "a value went away inside a snapshot"))
    }

    /// Visits the long keys of one head in order: the smallest ones that were not visited yet, again and again.
    fn scan_long(
        &self,
        head: &[u8],
        on_connection: &mut OnConnection<'_>,
        visit: &mut Visit<'_>,
        faults: &Faults,
    ) -> Result<ControlFlow<()>, StorageError> {
        let mut visited: Option<Vec<u8>> = None;
        loop {
            let mut next: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            on_connection(&mut |connection| {
                next.clear();
                let statement = format!("SELECT rest, d FROM {} WHERE k = ? AND d <> '' AND part = 0", layout::table(self.space));
                for row in connection.exec_iter(statement, (head,))? {
                    let (rest, digest): (Vec<u8>, Vec<u8>) = ::mysql::from_row_opt(row?)?;
                    if visited.as_ref().is_none_or(|visited| rest > *visited) {
                        next.insert(rest, digest);
                    }
                    if next.len() > LONG_KEYS {
                        next.pop_last();
                    }
                }
                Ok(())
            })?;
            if next.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            for (rest, digest) in next {
                let key = [head, &rest].concat();
                visited = Some(rest);
                if !self.has(&key) {
                    continue;
                }
                let value = self.whole(on_connection, head, &digest, faults)?;
                if visit(&key, &value) == ControlFlow::Break(()) {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
}

/// Where the next page starts.
enum Cursor {
    At(Vec<u8>),
    Behind(Vec<u8>),
}
