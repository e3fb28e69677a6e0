//! Messages that carry many byte strings (blocks, transactions) as lengths and contents, read without copying them.
//!
//! Invariant: a count or length is checked against the bytes that are there before memory is taken for it. Integers are little-endian.
//! [`crate::wire`] serves everything that is small; nothing that is hashed or signed depends on either.

use alloy_primitives::{B256, Bytes};

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A field or an announced item goes beyond the end.
    #[error("message is cut off")]
    CutOff,
    /// More items than the message may have.
    #[error("message announces {0} items, more than it may have")]
    TooMany(usize),
    /// Bytes behind the last field.
    #[error("message has {0} trailing bytes")]
    Trailing(usize),
    /// The first byte names no message.
    #[error("there is no message of kind {0}")]
    Kind(u8),
}

/// Reads fields from the front.
pub struct FrameReader {
    bytes: Bytes,
    at: usize,
}

impl FrameReader {
    /// At the start of a message.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next so many bytes, sharing the message's memory.
    pub fn bytes(&mut self, length: usize) -> Result<Bytes, FrameError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(FrameError::CutOff)?;
        let slice = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let array = *rest.first_chunk::<N>().ok_or(FrameError::CutOff)?;
        self.at += N;
        Ok(array)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A hash.
    pub fn hash(&mut self) -> Result<B256, FrameError> {
        self.array::<32>().map(B256::from)
    }

    /// A 65-byte signature.
    pub fn signature(&mut self) -> Result<[u8; 65], FrameError> {
        self.array()
    }

    /// A count of items of which each takes at least `item_bytes`.
    pub fn count(&mut self, most: usize, item_bytes: usize) -> Result<usize, FrameError> {
        let count = self.u32()? as usize;
        if count > most {
            return Err(FrameError::TooMany(count));
        }
        if count.saturating_mul(item_bytes) > self.bytes.len() - self.at {
            return Err(FrameError::CutOff);
        }
        Ok(count)
    }

    /// A byte string behind its length.
    pub fn string(&mut self) -> Result<Bytes, FrameError> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }

    /// At most so many byte strings behind their count.
    pub fn strings(&mut self, most: usize) -> Result<Vec<Bytes>, FrameError> {
        let count = self.count(most, 4)?;
        (0..count).map(|_| self.string()).collect()
    }

    /// At most so many hashes behind their count.
    pub fn hashes(&mut self, most: usize) -> Result<Vec<B256>, FrameError> {
        let count = self.count(most, 32)?;
        (0..count).map(|_| self.hash()).collect()
    }

    /// Ends the message.
    pub fn finish(self) -> Result<(), FrameError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(FrameError::Trailing(left)),
        }
    }
}

/// Appends a byte string behind its length.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a count or length.
pub fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("messages stay far below 4 GiB");
    out.extend_from_slice(&count.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_else_is_accepted() {
        let mut message = vec![7];
        message.extend_from_slice(&9u64.to_le_bytes());
        put_count(&mut message, 2);
        put_string(&mut message, b"one");
        put_string(&mut message, b"");
        let read = |bytes: &[u8]| {
            let mut reader = FrameReader::new(Bytes::copy_from_slice(bytes));
            let fields = (reader.byte()?, reader.u64()?, reader.strings(2)?);
            reader.finish().map(|()| fields)
        };
        assert_eq!(read(&message).unwrap(), (7, 9, vec![Bytes::from_static(b"one"), Bytes::new()]));
        for end in 0..message.len() {
            assert_eq!(read(&message[..end]), Err(FrameError::CutOff), "cut at {end}");
        }
        message.push(0);
        assert_eq!(read(&message), Err(FrameError::Trailing(1)));
    }

    #[test]
    fn count_beyond_the_limit_or_the_bytes_takes_no_memory() {
        let mut reader = FrameReader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]));
        assert_eq!(reader.strings(usize::MAX), Err(FrameError::CutOff));
        let mut reader = FrameReader::new(Bytes::from_static(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(reader.strings(2), Err(FrameError::TooMany(3)));
    }
}
