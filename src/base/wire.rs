//! The bounded codec of stored records and peer messages: bincode behind two functions, so that it can be exchanged in one place.
//!
//! Nothing that is hashed or signed depends on it. Decoding never allocates more than [`MAX_WIRE_BYTES`] and refuses trailing bytes.

use bincode::{Decode, Encode, config};

use crate::limits::MAX_WIRE_BYTES;

/// Why bytes are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Truncated, oversized or not of the type.
    #[error("record cannot be decoded: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes were left over behind the value.
    #[error("record has {0} trailing bytes")]
    Trailing(usize),
}

/// Encodes a value; fails for no type of ours (the encoder only fails on foreign writers).
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, config::standard()).expect("encoding to memory cannot fail for derived types")
}

/// Decodes a value that must fill `bytes` exactly.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    decode_within::<MAX_WIRE_BYTES, T>(bytes)
}

/// As [`decode`], allocating no more than `LIMIT` bytes: for messages whose bound is tighter.
pub fn decode_within<const LIMIT: usize, T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, used) = bincode::decode_from_slice(bytes, config::standard().with_limit::<LIMIT>())?;
    if used != bytes.len() {
        return Err(WireError::Trailing(bytes.len() - used));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_survives_the_round_trip() {
        let value = (7u64, vec![1u8, 2, 3], String::from("entry"));
        assert_eq!(decode::<(u64, Vec<u8>, String)>(&encode(&value)).unwrap(), value);
    }

    #[test]
    fn length_beyond_the_input_is_refused_before_memory_is_taken() {
        let huge_length = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode::<Vec<u8>>(&huge_length).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&5u32);
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(WireError::Trailing(1))));
    }
}
