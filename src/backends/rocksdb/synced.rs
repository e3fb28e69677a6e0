//! The height up to which blocks were synced, in a small file beside the database.
//!
//! When a database is opened, its log of latest writes is replayed. A damaged log looks the same whether a power failure tore the last,
//! unfinished write, which nobody was promised, or the device lost blocks that clients were told of. The file tells them apart: it is
//! written after each synced commit, without a sync of its own, so it may be behind the truth after a power failure but never ahead.
//! A database that ends below it has lost promised blocks and is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use millrace_core::StorageError;

/// The height and its complement, which shows a torn file; both big-endian.
const BYTES: usize = 16;

fn path(directory: &Path) -> PathBuf {
    directory.join("synced-height")
}

/// Opens the file, and makes it in full size where there is none, so that notes need no room on the device.
pub(super) fn open(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path(directory))?;
    if file.metadata()?.len() != BYTES as u64 {
        file.write_all_at(&[0; BYTES], 0)?;
        file.set_len(BYTES as u64)?;
    }
    Ok(file)
}

/// Notes that `height` was synced. A note that fails only weakens the next check: the block itself is durable.
pub(super) fn note(file: &File, height: u64) {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&height.to_be_bytes());
    bytes[8..].copy_from_slice(&(!height).to_be_bytes());
    let _ = file.write_all_at(&bytes, 0);
}

/// Refuses a database whose last block is below the noted height. Without a (whole) note there is nothing to check.
pub(super) fn check(directory: &Path, height: Option<u64>) -> Result<(), StorageError> {
    let Some(synced) = read(&path(directory)) else { return Ok(()) };
    if height >= Some(synced) {
        return Ok(());
    }
    let ends = height.map_or("it is empty".to_owned(), |height| format!("it ends at block {height}"));
    Err(StorageError::Corrupt {
        place: directory.display().to_string(),
        detail: format!(
            "block {synced} was durable but {ends}: its log was damaged or removed. Restore a backup; or, if peers have the missing \
             blocks, remove {} to go on without them",
            path(directory).display(),
        ),
    })
}

fn read(path: &Path) -> Option<u64> {
    let bytes: [u8; BYTES] = std::fs::read(path).ok()?.try_into().ok()?;
    let half = |at: usize| bytes[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (half(0) == !half(8)).then(|| half(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_below_the_noted_height_is_refused_and_others_pass() {
        let directory = tempfile::tempdir().unwrap();
        check(directory.path(), None).unwrap();
        let file = open(directory.path()).unwrap();
        check(directory.path(), None).unwrap();
        note(&file, 7);
        check(directory.path(), Some(7)).unwrap();
        check(directory.path(), Some(9)).unwrap();
        for height in [None, Some(6)] {
            let error = check(directory.path(), height).unwrap_err().to_string();
            assert!(error.contains("block 7 was durable") && error.contains("synced-height"), "{error}");
        }
        // Opening again keeps the note; a torn note checks nothing.
        let file = open(directory.path()).unwrap();
        assert!(check(directory.path(), Some(6)).is_err());
        file.write_all_at(&[1], 3).unwrap();
        check(directory.path(), Some(6)).unwrap();
    }
}
