//! Strict RLP reading: every item must be canonical, bounds are checked before anything is sliced.
//!
//! Encoding uses `alloy-rlp`; reading is done here because transactions need one strictness for every door and errors that say which field failed.

use alloy_primitives::{Address, B256, U256};

/// Why bytes are not canonical RLP of the expected shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RlpError {
    /// The input ends before the item does.
    #[error("input is shorter than its RLP header says (item of {announced} bytes, {available} available)")]
    Undersize {
        /// Bytes the header announces, header included.
        announced: usize,
        /// Bytes there are.
        available: usize,
    },
    /// Bytes follow the outermost item.
    #[error("input is longer than its RLP header says (item of {announced} bytes, {available} available)")]
    Oversize {
        /// Bytes the header announces, header included.
        announced: usize,
        /// Bytes there are.
        available: usize,
    },
    /// A length or a single byte is not written in its shortest form.
    #[error("RLP item is not in canonical form")]
    NonCanonical,
    /// A list stands where a string is expected, or the other way round.
    #[error("RLP item has the wrong kind")]
    WrongKind,
    /// A number has leading zeros or too many bytes, or a fixed-size string has another size.
    #[error("RLP item has the wrong size or leading zeros")]
    WrongSize,
    /// An item is missing.
    #[error("RLP list ends too early")]
    Missing,
}

/// One item: its kind, payload, and the raw bytes with header.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Whether the item is a list.
    pub is_list: bool,
    /// Bytes without the header.
    pub payload: &'a [u8],
    /// Bytes with the header.
    pub raw: &'a [u8],
}

impl<'a> Item<'a> {
    /// Reads one item that must fill `bytes` exactly.
    pub fn whole(bytes: &'a [u8]) -> Result<Self, RlpError> {
        let (item, rest) = Self::split(bytes)?;
        if !rest.is_empty() {
            return Err(RlpError::Oversize { announced: item.raw.len(), available: bytes.len() });
        }
        Ok(item)
    }

    /// Reads the first item and returns what follows it.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RlpError> {
        let &first = bytes.first().ok_or(RlpError::Missing)?;
        let (is_list, header_len, payload_len) = match first {
            0x00..=0x7f => (false, 0, 1),
            0x80..=0xb7 => (false, 1, usize::from(first - 0x80)),
            0xb8..=0xbf => long_header(bytes, usize::from(first - 0xb7)).map(|(header, payload)| (false, header, payload))?,
            0xc0..=0xf7 => (true, 1, usize::from(first - 0xc0)),
            0xf8..=0xff => long_header(bytes, usize::from(first - 0xf7)).map(|(header, payload)| (true, header, payload))?,
        };
        let announced = header_len.checked_add(payload_len).ok_or(RlpError::NonCanonical)?;
        if bytes.len() < announced {
            return Err(RlpError::Undersize { announced, available: bytes.len() });
        }
        let payload = &bytes[header_len..announced];
        if !is_list && header_len == 1 && payload_len == 1 && payload[0] < 0x80 {
            return Err(RlpError::NonCanonical);
        }
        Ok((Self { is_list, payload, raw: &bytes[..announced] }, &bytes[announced..]))
    }

    /// The items of a list.
    pub fn items(&self) -> Result<Items<'a>, RlpError> {
        if !self.is_list {
            return Err(RlpError::WrongKind);
        }
        Ok(Items { rest: self.payload })
    }

    /// The payload of a string.
    pub fn string(&self) -> Result<&'a [u8], RlpError> {
        if self.is_list { Err(RlpError::WrongKind) } else { Ok(self.payload) }
    }

    /// A minimal big-endian number of at most 32 bytes.
    pub fn number(&self) -> Result<U256, RlpError> {
        let bytes = self.string()?;
        if bytes.len() > 32 || bytes.first() == Some(&0) {
            return Err(RlpError::WrongSize);
        }
        Ok(U256::from_be_slice(bytes))
    }

    /// A number that must fit 64 bits.
    pub fn number64(&self) -> Result<u64, RlpError> {
        u64::try_from(self.number()?).map_err(|_| RlpError::WrongSize)
    }

    /// A string of exactly 32 bytes.
    pub fn hash(&self) -> Result<B256, RlpError> {
        B256::try_from(self.string()?).map_err(|_| RlpError::WrongSize)
    }

    /// A string of exactly 20 bytes.
    pub fn address(&self) -> Result<Address, RlpError> {
        Address::try_from(self.string()?).map_err(|_| RlpError::WrongSize)
    }
}

fn long_header(bytes: &[u8], length_bytes: usize) -> Result<(usize, usize), RlpError> {
    let header_len = 1 + length_bytes;
    if bytes.len() < header_len {
        return Err(RlpError::Undersize { announced: header_len, available: bytes.len() });
    }
    let length = &bytes[1..header_len];
    if length[0] == 0 {
        return Err(RlpError::NonCanonical);
    }
    let payload_len = length.iter().try_fold(0usize, |sum, &byte| sum.checked_mul(256)?.checked_add(usize::from(byte)));
    match payload_len {
        Some(payload_len) if payload_len > 55 => Ok((header_len, payload_len)),
        Some(_) => Err(RlpError::NonCanonical),
        None => Err(RlpError::Undersize { announced: usize::MAX, available: bytes.len() }),
    }
}

/// Reads the items of a list one after the other.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// The next item, or [`RlpError::Missing`] at the end.
    pub fn take(&mut self) -> Result<Item<'a>, RlpError> {
        let (item, rest) = Item::split(self.rest)?;
        self.rest = rest;
        Ok(item)
    }

    /// Whether all items were taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading; an item left over is an error.
    pub fn finish(self) -> Result<(), RlpError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RlpError::WrongSize) }
    }
}

/// Writes a list around an already encoded payload.
pub fn wrap_list(payload: &[u8], out: &mut Vec<u8>) {
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(out);
    out.extend_from_slice(payload);
}
