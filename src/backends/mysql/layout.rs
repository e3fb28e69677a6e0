//! How a group's database is laid out in SQL.
//!
//! The exact data of each [`Space`] is one table `kv_<space>`: the key, and the value in parts of bounded size, because a row must fit
//! into a packet. Beside them stand `millrace_owner` (who may write, and the format) and the tables that people read ([`super::readable`]).
//!
//! Keys longer than an index can hold are kept as their head, a digest of the whole, and the rest. Invariant: rows in the order of
//! (`k`, `d`) have their keys in the order of the trait, but for long keys of one head, which [`super::read`] sorts.

use std::fmt::Write;

use ::mysql::Conn;
use ::mysql::prelude::Queryable;
use millrace_core::Space;

use super::fault::Failure;

/// The layout this version reads and writes; a change of tables, columns or encodings of the engine's own is a new number.
pub(super) const FORMAT: u32 = 1;

/// Bytes of a key that stand in the primary key; InnoDB takes 3072 for all of its columns.
pub(super) const HEAD_BYTES: usize = 1024;

/// Largest piece of a value in one row. Far below the packet size, so that many small rows or some large ones go into one statement.
pub(super) const PART_BYTES: usize = 256 << 10;

/// The table of a space.
pub(super) fn table(space: Space) -> String {
    let mut name = String::from("kv");
    for character in format!("{space:?}").chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

/// A key as the table has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StoredKey<'k> {
    /// Column `k`.
    pub head: &'k [u8],
    /// Column `rest`, only of long keys.
    pub rest: Option<&'k [u8]>,
    whole: &'k [u8],
}

impl<'k> StoredKey<'k> {
    pub fn new(key: &'k [u8]) -> Self {
        match key.split_at_checked(HEAD_BYTES) {
            Some((head, rest)) if !rest.is_empty() => Self { head, rest: Some(rest), whole: key },
            _ => Self { head: key, rest: None, whole: key },
        }
    }

    /// Column `d`: empty for a key that `k` holds whole.
    pub fn digest(&self) -> Vec<u8> {
        self.rest.map_or_else(Vec::new, |_| blake3::hash(self.whole).as_bytes().to_vec())
    }
}

/// The first key behind all that start with `prefix`; `None` when there is none.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Creates what is not there yet.
pub(super) fn create(connection: &mut Conn) -> Result<(), Failure> {
    connection.query_drop(
        "CREATE TABLE IF NOT EXISTS millrace_owner (id TINYINT UNSIGNED NOT NULL PRIMARY KEY, format INT UNSIGNED NOT NULL, \
         group_id INT UNSIGNED NOT NULL, token BIGINT UNSIGNED NOT NULL, holder VARBINARY(255) NOT NULL, taken_at DATETIME NOT NULL) \
         ENGINE=InnoDB COMMENT='Millrace: which process may write'",
    )?;
    for space in Space::ALL {
        connection.query_drop(format!(
            "CREATE TABLE IF NOT EXISTS {} (k VARBINARY({HEAD_BYTES}) NOT NULL, d VARBINARY(32) NOT NULL DEFAULT '', \
             part INT UNSIGNED NOT NULL DEFAULT 0, parts INT UNSIGNED NOT NULL DEFAULT 1, rest MEDIUMBLOB NULL, v MEDIUMBLOB NOT NULL, \
             PRIMARY KEY (k, d, part)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC COMMENT='Millrace: exact data, do not change'",
            table(space)
        ))?;
    }
    Ok(())
}

/// `repeat("(?,?)", 3)`: `(?,?),(?,?),(?,?)`.
pub(super) fn repeat(row: &str, count: usize, separator: &str) -> String {
    let mut text = String::with_capacity((row.len() + separator.len()) * count);
    for index in 0..count {
        if index > 0 {
            text.push_str(separator);
        }
        text.push_str(row);
    }
    text
}

/// `0x` and lower-case digits, as clients write hashes and addresses.
pub(super) fn hex_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_after_their_spaces() {
        assert_eq!(table(Space::TransactionIndex), "kv_transaction_index");
        let mut names: Vec<String> = Space::ALL.into_iter().map(table).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Space::ALL.len());
    }

    #[test]
    fn long_keys_are_split_and_short_ones_are_not() {
        let long = vec![7; HEAD_BYTES + 1];
        assert_eq!(StoredKey::new(&long[1..]).rest, None);
        assert!(StoredKey::new(&long[1..]).digest().is_empty());
        assert_eq!(StoredKey::new(&long).rest, Some(&[7][..]));
        assert_eq!(StoredKey::new(&long).digest().len(), 32);
        assert_eq!(StoredKey::new(b"").head, b"");
    }

    #[test]
    fn end_of_a_prefix_is_behind_all_of_its_keys() {
        assert_eq!(end_of(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff\xff"), None);
        assert_eq!(end_of(b""), None);
    }
}
