//! Chunks: files of a snapshot, compressed, of bounded size, and read only when they are what the manifest says.
//!
//! A chunk is `length (4, little-endian) | LZ4 block`, or the content itself when that is no longer. The content of each kind is a row of byte
//! strings behind their lengths: a header record; a body and its receipts; a key and its value.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use millrace_base::limits::MAX_WIRE_BYTES;
use millrace_base::{B256, Bytes};

use super::SnapshotError;
use super::manifest::{Chunk, Kind, Manifest};

/// Name of the manifest in the directory.
const MANIFEST: &str = "manifest";

/// Size of a manifest at most: of half a million chunks, two terabytes of state.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Content at which a chunk ends: what is held in memory and checked at once.
const CHUNK_BYTES: usize = 4 << 20;

/// Content of a chunk at most: the last item may be as large as stored records may be, a block with its receipts.
const MAX_CONTENT_BYTES: usize = CHUNK_BYTES + 2 * MAX_WIRE_BYTES + 64;

/// LZ4 expands by no more than this.
const MAX_EXPANSION: usize = 255;

fn io_error(file: &Path) -> impl Fn(std::io::Error) -> SnapshotError {
    move |error| SnapshotError::Io { file: file.to_owned(), error }
}

/// Writes the chunks of one kind.
pub(super) struct ChunkWriter<'a> {
    directory: &'a Path,
    kind: Kind,
    content: Vec<u8>,
    items: u64,
    written: Vec<Chunk>,
}

impl<'a> ChunkWriter<'a> {
    pub fn new(directory: &'a Path, kind: Kind) -> Self {
        Self { directory, kind, content: Vec::with_capacity(CHUNK_BYTES + (1 << 16)), items: 0, written: Vec::new() }
    }

    /// Appends one item.
    pub fn put(&mut self, strings: &[&[u8]]) {
        for string in strings {
            let length = u32::try_from(string.len()).expect("stored values stay below 4 GiB");
            self.content.extend_from_slice(&length.to_le_bytes());
            self.content.extend_from_slice(string);
        }
        self.items += 1;
    }

    /// Whether it is time to [`Self::flush`].
    pub fn is_full(&self) -> bool {
        self.content.len() >= CHUNK_BYTES
    }

    /// The content in hand.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Ends the chunk in hand, if there is anything in it.
    pub fn flush(&mut self) -> Result<(), SnapshotError> {
        if self.items == 0 {
            return Ok(());
        }
        let index = u32::try_from(self.written.len()).expect("far fewer than 2^32 chunks");
        let mut chunk = Chunk { kind: self.kind, index, items: self.items, bytes: 0, digest: B256::ZERO };
        let compressed = lz4_flex::block::compress(&self.content);
        let stored = if compressed.len() < self.content.len() { &compressed } else { &self.content };
        let length = u32::try_from(self.content.len()).expect("bounded by the size of a chunk and one item");
        let bytes = [&length.to_le_bytes()[..], stored].concat();
        chunk.bytes = bytes.len() as u64;
        chunk.digest = B256::new(*blake3::hash(&bytes).as_bytes());
        let path = self.directory.join(chunk.file_name());
        write_synced(&path, &bytes)?;
        self.written.push(chunk);
        self.content.clear();
        self.items = 0;
        Ok(())
    }

    /// Ends the last chunk; all that were written.
    pub fn finish(mut self) -> Result<Vec<Chunk>, SnapshotError> {
        self.flush()?;
        Ok(self.written)
    }
}

/// Writes the manifest of a directory; the snapshot is complete with it.
pub(super) fn write_manifest(directory: &Path, manifest: &Manifest) -> Result<(), SnapshotError> {
    write_synced(&directory.join(MANIFEST), manifest.encode().as_bytes())
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

/// A snapshot in a directory.
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    manifest: Manifest,
}

impl Snapshot {
    /// Reads the manifest.
    ///
    /// # Errors
    /// It is not there, or not as it was written.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        let path = directory.join(MANIFEST);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(io_error(&path))?;
        file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).map_err(io_error(&path))?;
        let text = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned());
        let manifest = text.and_then(|text| Manifest::decode(&text));
        let manifest = manifest.map_err(|detail| SnapshotError::Refused { file: path, detail })?;
        Ok(Self { directory: directory.to_owned(), manifest })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A refusal of the manifest.
    pub(super) fn refuse(&self, detail: String) -> SnapshotError {
        SnapshotError::Refused { file: self.directory.join(MANIFEST), detail }
    }

    /// A refusal of a chunk.
    pub(super) fn refuse_chunk(&self, chunk: &Chunk, detail: String) -> SnapshotError {
        SnapshotError::Refused { file: self.directory.join(chunk.file_name()), detail }
    }

    /// The byte strings of a chunk, whose digest is that of the manifest: `each` an item.
    pub(super) fn strings(&self, chunk: &Chunk, each: usize) -> Result<Vec<Bytes>, SnapshotError> {
        let path = self.directory.join(chunk.file_name());
        let refuse = |detail: &str| SnapshotError::Refused { file: path.clone(), detail: detail.to_owned() };
        let size = fs::metadata(&path).map_err(io_error(&path))?.len();
        if size != chunk.bytes || size < 4 {
            return Err(refuse(&format!("it has {size} bytes, the manifest says {}", chunk.bytes)));
        }
        if size > MAX_CONTENT_BYTES as u64 + 4 {
            return Err(refuse(&format!("it has {size} bytes, more than a chunk may have")));
        }
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        if blake3::hash(&bytes).as_bytes() != chunk.digest.as_slice() {
            return Err(refuse("its digest is not that of the manifest: the file was changed or damaged"));
        }
        let (length, stored) = bytes.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if length > MAX_CONTENT_BYTES || stored.len() > length || length > stored.len().saturating_mul(MAX_EXPANSION) {
            return Err(refuse("it announces an impossible length"));
        }
        let content = if stored.len() == length {
            stored.to_vec()
        } else {
            let content = lz4_flex::block::decompress(stored, length).ok().filter(|content| content.len() == length);
            content.ok_or_else(|| refuse("it cannot be decompressed"))?
        };
        let strings = split(&Bytes::from(content)).ok_or_else(|| refuse("its content ends inside an item"))?;
        if (strings.len() / each) as u64 != chunk.items || strings.len() % each != 0 {
            return Err(refuse(&format!("it holds {} items, the manifest says {}", strings.len() / each, chunk.items)));
        }
        Ok(strings)
    }
}

/// Byte strings behind their lengths.
pub(super) fn split(content: &Bytes) -> Option<Vec<Bytes>> {
    let (mut strings, mut at) = (Vec::new(), 0_usize);
    while at < content.len() {
        let length = content.get(at..at + 4)?;
        let start = at + 4;
        let end = start.checked_add(u32::from_le_bytes(length.try_into().expect("four bytes")) as usize)?;
        if end > content.len() {
            return None;
        }
        strings.push(content.slice(start..end));
        at = end;
    }
    Some(strings)
}
