//! A database as one file: what [`super::MysqlStorage::checkpoint`] writes and [`super::MysqlStorage::restore`] reads.
//!
//! A head line, then each pair as space, lengths, key and value, then the digest of all before it. Invariant: nothing of a file is taken
//! over before its digest was found right, and the height marker is written last.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use millrace_core::storage::{HEIGHT_KEY, StorageView, decode_height};
use millrace_core::{Batch, Space, StorageError};

const FILE: &str = "mysql.checkpoint";
const HEAD: &[u8] = b"millrace mysql checkpoint 1\n";

/// Written and read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes of pairs that are loaded in one transaction.
const LOAD_BYTES: usize = 8 << 20;

/// Longest key and value that a file may name, so that a damaged length takes no memory.
const MOST_KEY_BYTES: usize = 1 << 20;
const MOST_VALUE_BYTES: usize = 1 << 30;

/// Ends the pairs: no space has it.
const END: u8 = 0;

/// Writes all that a view shows into a new directory.
pub(super) fn write(view: &dyn StorageView, directory: &Path) -> Result<(), StorageError> {
    let path = directory.join(FILE);
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => StorageError::Full { path: path.display().to_string() },
        _ => StorageError::Engine(format!("{}: {error}", path.display())),
    };
    fs::create_dir(directory).map_err(failed)?;
    let mut output =
        Output { file: BufWriter::with_capacity(BUFFER_BYTES, File::create_new(&path).map_err(failed)?), hash: blake3::Hasher::new() };
    output.put(HEAD).map_err(failed)?;
    for space in Space::ALL {
        let mut written = Ok(());
        view.scan(space, b"", b"", &mut |key, value| {
            written = output.pair(space, key, value);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written.map_err(failed)?;
    }
    output.put(&[END]).map_err(failed)?;
    let digest = output.hash.finalize();
    output.file.write_all(digest.as_bytes()).map_err(failed)?;
    output.file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

struct Output {
    file: BufWriter<File>,
    hash: blake3::Hasher,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    fn pair(&mut self, space: Space, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(std::io::Error::other).map(u32::to_le_bytes);
        self.put(&[space as u8])?;
        self.put(&length(key)?)?;
        self.put(&length(value)?)?;
        self.put(key)?;
        self.put(value)
    }
}

/// Where parts of a dump go: the height with the last one.
pub(super) type Load<'l> = dyn FnMut(Option<u64>, &Batch) -> Result<(), StorageError> + 'l;

/// Reads a file that [`write`] made.
pub(super) fn read(directory: &Path, load: &mut Load<'_>) -> Result<(), StorageError> {
    let path = directory.join(FILE);
    pairs(&path, &mut |_, _, _| Ok(()))?;
    let (mut batch, mut bytes, mut height) = (Batch::default(), 0, None);
    pairs(&path, &mut |space, key, value| {
        if (space, &key[..]) == (Space::Meta, HEIGHT_KEY) {
            height = decode_height(Some(value))?;
            return Ok(());
        }
        bytes += key.len() + value.len();
        batch.put(space, key, value);
        if bytes >= LOAD_BYTES {
            load(None, &batch)?;
            (batch, bytes) = (Batch::default(), 0);
        }
        Ok(())
    })?;
    load(height, &batch)
}

fn pairs(path: &Path, take: &mut dyn FnMut(Space, Vec<u8>, Vec<u8>) -> Result<(), StorageError>) -> Result<(), StorageError> {
    let failed = |error: std::io::Error| StorageError::Engine(format!("{}: {error}", path.display()));
    let damaged = |detail: &str| StorageError::Corrupt { place: path.display().to_string(), detail: detail.into() };
    let mut input = Input { file: BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(failed)?), hash: blake3::Hasher::new() };
    if input.bytes(HEAD.len()).map_err(failed)? != HEAD {
        return Err(damaged("it is no checkpoint of this version"));
    }
    loop {
        let kind = input.bytes(1).map_err(failed)?[0];
        if kind == END {
            break;
        }
        let Some(space) = Space::ALL.into_iter().find(|space| *space as u8 == kind) else {
            return Err(damaged("it names a space that does not exist"));
        };
        let mut length = || Ok(u32::from_le_bytes(input.bytes(4)?.try_into().expect("four bytes were asked for")) as usize);
        let (key, value) = (length().map_err(failed)?, length().map_err(failed)?);
        if key > MOST_KEY_BYTES || value > MOST_VALUE_BYTES {
            return Err(damaged("a length in it is impossible"));
        }
        take(space, input.bytes(key).map_err(failed)?, input.bytes(value).map_err(failed)?)?;
    }
    let computed = input.hash.finalize();
    match input.bytes(32).map_err(failed)? == computed.as_bytes() {
        true => Ok(()),
        false => Err(damaged("its digest does not match its content")),
    }
}

struct Input {
    file: BufReader<File>,
    hash: blake3::Hasher,
}

impl Input {
    /// Memory grows with what is there, not with what is asked for.
    fn bytes(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length.min(BUFFER_BYTES));
        self.file.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }
}
