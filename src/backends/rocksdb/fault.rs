//! What RocksDB reports, as what an operator has to do.
//!
//! RocksDB gives text: the kind of status, then the message of the operating system, then the file. The kinds told apart here are the
//! variants of [`StorageError`]; tests produce each of them for real.

use std::io;
use std::path::Path;

use ::rocksdb::{Error, ErrorKind};
use millrace_base::hex;
use millrace_core::{Space, StorageError};

use super::options::Family;

/// What the operating system says when there is no room, or RocksDB when it keeps refusing after that.
const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "Max allowed space was reached"];

/// Maps the errors of one database.
#[derive(Clone)]
pub(super) struct Faults {
    directory: String,
}

impl Faults {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.display().to_string() }
    }

    /// The database, for messages.
    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// An error of reading one key, which is named where no file is.
    pub(super) fn of_key(&self, error: &Error, space: Space, key: &[u8]) -> StorageError {
        self.at(error, || format!("{space:?} {}", shown_key(key)))
    }

    /// An error behind a stored key of a family; the empty key is before all.
    pub(super) fn after_key(&self, error: &Error, family: Family, key: &[u8]) -> StorageError {
        self.at(error, || format!("{} after key {}", family.name(), shown_key(key)))
    }

    fn at(&self, error: &Error, place: impl FnOnce() -> String) -> StorageError {
        match self.engine(error) {
            StorageError::Corrupt { place: named, detail } if named == self.directory => {
                StorageError::Corrupt { place: format!("{named}: {}", place()), detail }
            }
            other => other,
        }
    }

    /// An error of the database as a whole.
    pub(super) fn engine(&self, error: &Error) -> StorageError {
        let text = error.to_string();
        if FULL.iter().any(|full| text.contains(full)) {
            return StorageError::Full { path: self.directory.clone() };
        }
        if error.kind() == ErrorKind::IOError && text.contains("/LOCK: ") {
            return StorageError::Locked { path: self.directory.clone() };
        }
        if error.kind() == ErrorKind::Corruption || text.contains("No such file or directory") {
            let place = file_in(&text).unwrap_or(&self.directory).to_owned();
            return StorageError::Corrupt { place, detail: text };
        }
        if text.contains("Column families not opened") {
            return super::foreign(self);
        }
        StorageError::Engine(format!("{}: {text}", self.directory))
    }

    /// An error of a file of our own beside the database's.
    pub(super) fn io(&self, error: &io::Error, path: &Path) -> StorageError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full { path: self.directory.clone() },
            _ => StorageError::Engine(format!("{}: {error}", path.display())),
        }
    }
}

/// Whether it is the log of latest writes that is damaged, the only file that a crash can leave so.
pub(super) fn is_damaged_log(error: &Error) -> bool {
    let text = error.to_string();
    let is_of_log = match file_in(&text) {
        Some(file) => file.ends_with(".log"),
        None => LOG_DAMAGES.iter().any(|damage| text.contains(damage)),
    };
    error.kind() == ErrorKind::Corruption && is_of_log
}

/// What the reader of the log says, which does not always name the file.
const LOG_DAMAGES: [&str; 6] = [
    "error in middle of record",
    "error reading trailing data",
    "missing start of fragmented record",
    "partial record without end",
    "bad record length",
    "checksum mismatch",
];

/// The start of a key, which says enough.
fn shown_key(key: &[u8]) -> String {
    hex::encode(&key[..key.len().min(64)])
}

/// The first file of a database that a message names.
fn file_in(text: &str) -> Option<&str> {
    let is_file = |word: &&str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        name.ends_with(".sst") || name.ends_with(".log") || name.ends_with(".blob") || name == "CURRENT" || name.starts_with("MANIFEST-")
    };
    text.split([' ', ',', ';', '(', ')']).map(|word| word.trim_end_matches([':', '.'])).find(is_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_file() {
        let text = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4 in /data/group1/000012.sst offset 0 size 99";
        assert_eq!(file_in(text), Some("/data/group1/000012.sst"));
        assert_eq!(
            file_in("IO error: No such file or directory: While open a file for random read: /d/000009.blob: gone"),
            Some("/d/000009.blob")
        );
        assert_eq!(file_in("Corruption: CURRENT file does not end with newline"), Some("CURRENT"));
        assert_eq!(file_in("IO error: nothing of the kind"), None);
    }
}
