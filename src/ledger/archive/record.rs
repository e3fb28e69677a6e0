//! Records of a file: compressed, bounded, each with a checksum that covers all before it, so that neither a changed byte nor a missing,
//! repeated or foreign record goes unnoticed.
//!
//! A file is [`MAGIC`] and records `kind (1) | length (4) | stored length (4) | checksum (16) | stored bytes`; integers are
//! little-endian, and stored bytes as long as the content are the content. Memory is taken as bytes arrive, within [`MAX_CONTENT_BYTES`].

use std::io::{self, Read, Write};

use millrace_base::limits::MAX_WIRE_BYTES;

/// What a file starts with.
pub const MAGIC: &[u8; 8] = b"MRBLKS1\n";

/// Content of one record: a block and its receipts, each a stored record at most.
const MAX_CONTENT_BYTES: usize = 2 * MAX_WIRE_BYTES;

/// Bytes before the stored ones.
const FRAME_BYTES: usize = 25;

/// LZ4 expands by no more than this.
const MAX_EXPANSION: usize = 255;

type Tag = [u8; 16];

fn tag(before: &Tag, frame: &[u8], stored: &[u8]) -> Tag {
    let mut hasher = blake3::Hasher::new_derive_key("millrace block file record v1");
    hasher.update(before).update(frame).update(stored);
    let mut tag = Tag::default();
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// Where a file stands: the end of its last whole record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Bytes from the start of the file.
    pub offset: u64,
    tag: Tag,
}

impl Place {
    /// Behind the magic.
    pub const START: Self = Self { offset: MAGIC.len() as u64, tag: [0; 16] };
}

/// Appends records.
pub struct RecordWriter<W> {
    out: W,
    place: Place,
}

impl<W: Write> RecordWriter<W> {
    /// Begins a file.
    pub fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self { out, place: Place::START })
    }

    /// Goes on behind a place of the file.
    pub fn resume(out: W, place: Place) -> Self {
        Self { out, place }
    }

    /// Appends one.
    pub fn put(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        assert!(content.len() <= MAX_CONTENT_BYTES, "what was stored is below the bound");
        let compressed = lz4_flex::block::compress(content);
        let stored = if compressed.len() < content.len() { &compressed[..] } else { content };
        let mut frame = vec![kind];
        for length in [content.len(), stored.len()] {
            frame.extend_from_slice(&u32::try_from(length).expect("bounded above").to_le_bytes());
        }
        self.place.tag = tag(&self.place.tag, &frame, stored);
        frame.extend_from_slice(&self.place.tag);
        self.out.write_all(&frame)?;
        self.out.write_all(stored)?;
        self.place.offset += (frame.len() + stored.len()) as u64;
        Ok(())
    }

    /// Bytes of the file so far.
    pub fn offset(&self) -> u64 {
        self.place.offset
    }

    /// The file under it.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// A record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it starts.
    pub offset: u64,
    /// What it is.
    pub kind: u8,
    /// Its content.
    pub content: Vec<u8>,
}

/// Why there is no next record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes there are no record.
    #[error("{0}")]
    Damaged(String),
}

/// Reads records.
pub struct RecordReader<R> {
    input: R,
    place: Place,
}

impl<R: Read> RecordReader<R> {
    /// At the start of a file.
    pub fn begin(mut input: R) -> Result<Self, RecordError> {
        let mut magic = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Err(RecordError::Damaged("it is no file of blocks of this version".into()));
        }
        Ok(Self { input, place: Place::START })
    }

    /// Behind the last record that was read.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The next record; `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Record>, RecordError> {
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        self.input.by_ref().take(FRAME_BYTES as u64).read_to_end(&mut frame)?;
        if frame.is_empty() {
            return Ok(None);
        }
        let damaged = |detail: &str| RecordError::Damaged(detail.to_owned());
        let cut_off = || damaged("the file ends inside a record");
        let number = |at: usize| frame.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize);
        let (length, stored_length) = (number(1).ok_or_else(cut_off)?, number(5).ok_or_else(cut_off)?);
        let expected: Tag = frame.get(9..FRAME_BYTES).and_then(|tag| tag.try_into().ok()).ok_or_else(cut_off)?;
        if length > MAX_CONTENT_BYTES || stored_length > length || length > stored_length.saturating_mul(MAX_EXPANSION) {
            return Err(damaged("the record has impossible lengths"));
        }
        let mut stored = Vec::new();
        self.input.by_ref().take(stored_length as u64).read_to_end(&mut stored)?;
        if stored.len() < stored_length {
            return Err(cut_off());
        }
        if tag(&self.place.tag, &frame[..9], &stored) != expected {
            return Err(damaged("the checksum of the record does not match: a byte was changed, or records are missing before it"));
        }
        let content = if stored_length == length {
            stored
        } else {
            let content = lz4_flex::block::decompress(&stored, length).ok().filter(|content| content.len() == length);
            content.ok_or_else(|| damaged("the record cannot be decompressed"))?
        };
        let offset = self.place.offset;
        self.place = Place { offset: offset + (FRAME_BYTES + stored_length) as u64, tag: expected };
        Ok(Some(Record { offset, kind: frame[0], content }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut writer = RecordWriter::begin(Vec::new()).unwrap();
        for (kind, content) in [(1, vec![7; 10_000]), (2, vec![1, 2, 3]), (2, Vec::new()), (3, vec![9])] {
            writer.put(kind, &content).unwrap();
        }
        assert_eq!(writer.offset(), writer.into_inner().len() as u64);
        let mut writer = RecordWriter::begin(Vec::new()).unwrap();
        for (kind, content) in [(1, vec![7; 10_000]), (2, vec![1, 2, 3]), (2, Vec::new()), (3, vec![9])] {
            writer.put(kind, &content).unwrap();
        }
        writer.into_inner()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, RecordError> {
        let mut reader = RecordReader::begin(bytes)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn records_come_back_in_order_with_their_places() {
        let bytes = file();
        let records = read(&bytes).unwrap();
        assert_eq!(
            records.iter().map(|record| (record.kind, record.content.len())).collect::<Vec<_>>(),
            [(1, 10_000), (2, 3), (2, 0), (3, 1)]
        );
        assert_eq!(records[0].offset, 8);
        assert!(records[0].content.iter().all(|byte| *byte == 7));
        assert!(bytes.len() < 300, "equal bytes are compressed: {}", bytes.len());
    }

    #[test]
    fn changed_byte_anywhere_is_found() {
        let bytes = file();
        for at in 0..bytes.len() {
            for bit in [0, 7] {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn cut_inside_a_record_is_found_and_records_cannot_be_left_out_or_swapped() {
        let bytes = file();
        let starts: Vec<usize> = read(&bytes).unwrap().iter().map(|record| record.offset as usize).collect();
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]).is_ok(), starts.contains(&end), "cut at {end}");
        }
        let without_second = [&bytes[..starts[1]], &bytes[starts[2]..]].concat();
        assert!(read(&without_second).is_err());
        let swapped = [&bytes[..starts[1]], &bytes[starts[2]..starts[3]], &bytes[starts[1]..starts[2]], &bytes[starts[3]..]].concat();
        assert!(read(&swapped).is_err());
    }

    #[test]
    fn writing_goes_on_behind_the_last_whole_record() {
        let bytes = file();
        let mut reader = RecordReader::begin(&bytes[..]).unwrap();
        reader.next().unwrap();
        let place = reader.place();
        let mut writer = RecordWriter::resume(bytes[..place.offset as usize].to_vec(), place);
        writer.put(5, b"on").unwrap();
        let records = read(&writer.into_inner()).unwrap();
        assert_eq!(records.iter().map(|record| record.kind).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn announced_length_takes_no_memory_before_the_bytes_are_there() {
        let mut bytes = MAGIC.to_vec();
        bytes.push(1);
        bytes.extend_from_slice(&(MAX_CONTENT_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&(MAX_CONTENT_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 16]);
        assert!(matches!(read(&bytes), Err(RecordError::Damaged(_))));
        bytes[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(RecordError::Damaged(_))));
    }
}
