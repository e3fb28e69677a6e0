//! How blocks look in a group's database.
//!
//! A block's transactions are one blob and its receipts another (`offsets | items`), so that one item can be read without decoding the
//! rest and a commit writes few, large, ordered values: one key a transaction (the index) instead of three.
//! Written and read by the chain in `access`; engines that show blocks in a form of their own read them too.

use millrace_base::rlp::RlpError;
use millrace_base::{Address, B256, BlockHeader, BlockSignature, RawTx, Receipt, VerifiedTx, wire};

use crate::storage::StorageError;

/// Packs items behind a table of their end offsets.
pub fn pack<'a>(items: impl ExactSizeIterator<Item = Vec<u8>> + 'a) -> Vec<u8> {
    let count = items.len();
    let mut blob = vec![0; 4 + 4 * count];
    blob[..4].copy_from_slice(&u32::try_from(count).expect("blocks hold fewer than 2^32 transactions").to_le_bytes());
    for (index, item) in items.enumerate() {
        blob.extend_from_slice(&item);
        let end = u32::try_from(blob.len()).expect("a block's blob stays below the 4 GiB its limits allow");
        blob[4 + 4 * index..8 + 4 * index].copy_from_slice(&end.to_le_bytes());
    }
    blob
}

/// A packed blob, opened for reading.
pub struct Packed<'a> {
    blob: &'a [u8],
    count: usize,
    place: &'static str,
}

impl<'a> Packed<'a> {
    /// Checks the table's frame.
    pub fn open(blob: &'a [u8], place: &'static str) -> Result<Self, StorageError> {
        let count = blob.get(..4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize);
        match count {
            Some(count) if blob.len() >= 4 + 4 * count => Ok(Self { blob, count, place }),
            _ => Err(corrupt(place, "offset table is cut off")),
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One item.
    pub fn item(&self, index: usize) -> Result<&'a [u8], StorageError> {
        let end = |index: usize| {
            let bytes = self.blob[4 + 4 * index..8 + 4 * index].try_into().expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        if index >= self.count {
            return Err(corrupt(self.place, "item is out of range"));
        }
        let start = if index == 0 { 4 + 4 * self.count } else { end(index - 1) };
        self.blob.get(start..end(index)).ok_or_else(|| corrupt(self.place, "offset points outside the blob"))
    }
}

/// Decodes all items of a packed blob.
pub fn unpack<T>(blob: &[u8], place: &'static str, decode: impl Fn(&[u8]) -> Result<T, StorageError>) -> Result<Vec<T>, StorageError> {
    let packed = Packed::open(blob, place)?;
    (0..packed.len()).map(|index| packed.item(index).and_then(&decode)).collect()
}

/// Adds the height to the place of damage.
pub fn at_height(number: u64) -> impl Fn(StorageError) -> StorageError {
    move |error| match error {
        StorageError::Corrupt { place, detail } => StorageError::Corrupt { place: format!("{place} of block {number}"), detail },
        other => other,
    }
}

/// Damage found while decoding.
pub fn corrupt(place: &str, detail: impl ToString) -> StorageError {
    StorageError::Corrupt { place: place.into(), detail: detail.to_string() }
}

#[derive(bincode::Encode, bincode::Decode)]
struct HeaderRecord {
    header: Vec<u8>,
    signatures: Vec<BlockSignature>,
}

/// A header with its signatures.
pub fn encode_header(header: &BlockHeader, signatures: &[BlockSignature]) -> Vec<u8> {
    wire::encode(&HeaderRecord { header: header.encode_rlp(), signatures: signatures.to_vec() })
}

/// The inverse of [`encode_header`].
pub fn decode_header(bytes: &[u8]) -> Result<(BlockHeader, Vec<BlockSignature>), StorageError> {
    let record: HeaderRecord = wire::decode(bytes).map_err(|error| corrupt("block header", error))?;
    let header = BlockHeader::decode_rlp(&record.header).map_err(|error| corrupt("block header", error))?;
    Ok((header, record.signatures))
}

/// A transaction with the sender recovered when it was accepted.
pub fn encode_transaction(transaction: &VerifiedTx) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + transaction.encoded().len());
    bytes.extend_from_slice(transaction.sender().as_slice());
    bytes.extend_from_slice(transaction.encoded());
    bytes
}

/// The signed part of an encoded transaction: what travels. The sender before it is this node's own finding; others find their own.
pub fn signed_part(bytes: &[u8]) -> Result<&[u8], StorageError> {
    bytes.get(Address::len_bytes()..).ok_or_else(|| corrupt("transaction", "too short"))
}

/// The inverse of [`encode_transaction`].
pub fn decode_transaction(bytes: &[u8]) -> Result<VerifiedTx, StorageError> {
    let (sender, encoded) = bytes.split_at_checked(20).ok_or_else(|| corrupt("transaction", "too short"))?;
    let raw = RawTx::decode(encoded).map_err(|error| corrupt("transaction", error))?;
    Ok(VerifiedTx::from_trusted_store(raw, Address::from_slice(sender)))
}

/// A receipt.
pub fn decode_receipt(bytes: &[u8]) -> Result<Receipt, StorageError> {
    Receipt::decode_rlp(bytes).map_err(|error: RlpError| corrupt("receipt", error))
}

/// Where a transaction stands.
pub fn encode_location(number: u64, index: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&index.to_be_bytes());
    bytes
}

/// The inverse of [`encode_location`].
pub fn decode_location(bytes: &[u8]) -> Result<(u64, u32), StorageError> {
    let bytes: [u8; 12] = bytes.try_into().map_err(|_| corrupt("transaction index", "wrong size"))?;
    let (number, index) = bytes.split_at(8);
    Ok((u64::from_be_bytes(number.try_into().expect("eight bytes")), u32::from_be_bytes(index.try_into().expect("four bytes"))))
}

/// A height stored as value.
pub fn decode_height(bytes: &[u8]) -> Result<u64, StorageError> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| corrupt("height", "wrong size"))?))
}

/// The nonces of a block: 32 bytes each.
pub fn encode_nonces(transactions: &[VerifiedTx]) -> Vec<u8> {
    transactions.iter().flat_map(|transaction| transaction.fields().nonce.to_be_bytes::<32>()).collect()
}

/// The inverse of [`encode_nonces`].
pub fn decode_nonces(bytes: &[u8]) -> Result<Vec<B256>, StorageError> {
    if !bytes.len().is_multiple_of(32) {
        return Err(corrupt("nonces", "wrong size"));
    }
    Ok(bytes.chunks_exact(32).map(B256::from_slice).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_items_come_back_one_by_one() {
        let items = [vec![1, 2, 3], vec![], vec![4]];
        let blob = pack(items.iter().cloned());
        let packed = Packed::open(&blob, "test").unwrap();
        assert_eq!(packed.len(), 3);
        for (index, item) in items.iter().enumerate() {
            assert_eq!(packed.item(index).unwrap(), &item[..]);
        }
        assert!(packed.item(3).is_err());
        assert!(Packed::open(&blob[..10], "test").is_err());
        assert!(Packed::open(&[], "test").is_err());
    }
}
