//! Blocks and their headers (`spec/client-protocol.md` 2.2). The block hash covers the header only; signatures stand outside it.

use alloy_primitives::{B256, Bloom, Bytes, keccak256};
use alloy_rlp::Encodable;

use crate::crypto::{NodeId, Signature};
use crate::receipt::Receipt;
use crate::rlp::{Item, RlpError, wrap_list};
use crate::transaction::VerifiedTx;

/// A block header. With storage state `state_root` equals `db_hash`; gas limit, gas used and bloom are zero on the wire of 2.x.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockHeader {
    /// Hash of the block before; zero in genesis.
    pub parent_hash: B256,
    /// Root of the state after this block.
    pub state_root: B256,
    /// 16-ary Merkle root over transaction hashes.
    pub transactions_root: B256,
    /// 16-ary Merkle root over receipt hashes.
    pub receipts_root: B256,
    /// Equal to `state_root` with storage state.
    pub db_hash: B256,
    /// Always zero in 2.x.
    pub logs_bloom: Bloom,
    /// Height.
    pub number: u64,
    /// Always zero in 2.x.
    pub gas_limit: u64,
    /// Always zero in 2.x.
    pub gas_used: u64,
    /// Milliseconds since the Unix epoch, above the parent's.
    pub timestamp_ms: u64,
    /// Byte strings; genesis carries the group mark.
    pub extra_data: Vec<Bytes>,
    /// Index of the proposer in `sealer_list`.
    pub sealer: u64,
    /// Sealers that govern this block, sorted.
    pub sealer_list: Vec<NodeId>,
}

impl BlockHeader {
    /// RLP of the 13 fields.
    pub fn encode_rlp(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(512 + 67 * self.sealer_list.len());
        for root in [self.parent_hash, self.state_root, self.transactions_root, self.receipts_root, self.db_hash] {
            root.encode(&mut payload);
        }
        self.logs_bloom.0.encode(&mut payload);
        for number in [self.number, self.gas_limit, self.gas_used, self.timestamp_ms] {
            number.encode(&mut payload);
        }
        let mut extra = Vec::new();
        for item in &self.extra_data {
            item.0.encode(&mut extra);
        }
        wrap_list(&extra, &mut payload);
        self.sealer.encode(&mut payload);
        let mut sealers = Vec::with_capacity(66 * self.sealer_list.len());
        for id in &self.sealer_list {
            id.0.as_slice().encode(&mut sealers);
        }
        wrap_list(&sealers, &mut payload);
        let mut out = Vec::with_capacity(payload.len() + 4);
        wrap_list(&payload, &mut out);
        out
    }

    /// The inverse of [`Self::encode_rlp`].
    pub fn decode_rlp(bytes: &[u8]) -> Result<Self, RlpError> {
        let mut items = Item::whole(bytes)?.items()?;
        let mut hash = || items.take().and_then(|item| item.hash());
        let (parent_hash, state_root, transactions_root, receipts_root, db_hash) = (hash()?, hash()?, hash()?, hash()?, hash()?);
        let bloom = items.take()?.string()?;
        let logs_bloom = Bloom::try_from(bloom).map_err(|_| RlpError::WrongSize)?;
        let mut number = || items.take().and_then(|item| item.number64());
        let (height, gas_limit, gas_used, timestamp_ms) = (number()?, number()?, number()?, number()?);
        let mut extra_items = items.take()?.items()?;
        let mut extra_data = Vec::new();
        while !extra_items.is_empty() {
            extra_data.push(Bytes::copy_from_slice(extra_items.take()?.string()?));
        }
        let sealer = items.take()?.number64()?;
        let mut sealer_items = items.take()?.items()?;
        let mut sealer_list = Vec::new();
        while !sealer_items.is_empty() {
            let id = sealer_items.take()?.string()?;
            sealer_list.push(NodeId(id.try_into().map_err(|_| RlpError::WrongSize)?));
        }
        items.finish()?;
        Ok(Self {
            parent_hash,
            state_root,
            transactions_root,
            receipts_root,
            db_hash,
            logs_bloom,
            number: height,
            gas_limit,
            gas_used,
            timestamp_ms,
            extra_data,
            sealer,
            sealer_list,
        })
    }

    /// The block hash.
    pub fn hash(&self) -> B256 {
        keccak256(self.encode_rlp())
    }
}

/// A sealer's signature over the block hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
pub struct BlockSignature {
    /// Position of the signer in the header's sealer list.
    pub index: u32,
    /// Signature by the node key over the block hash.
    pub signature: Signature,
}

/// A final block with everything a client can ask about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The header.
    pub header: BlockHeader,
    /// [`BlockHeader::hash`], kept because it is asked for often.
    pub hash: B256,
    /// Signatures of a quorum of distinct sealers; empty in genesis.
    pub signatures: Vec<BlockSignature>,
    /// Transactions in execution order.
    pub transactions: Vec<VerifiedTx>,
    /// One receipt a transaction, same order.
    pub receipts: Vec<Receipt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_the_round_trip() {
        let header = BlockHeader {
            number: 7,
            timestamp_ms: 1_700_000_000_000,
            extra_data: vec![Bytes::from_static(b"mark"), Bytes::new()],
            sealer: 2,
            sealer_list: vec![NodeId([3; 64]), NodeId([4; 64])],
            ..BlockHeader::default()
        };
        let bytes = header.encode_rlp();
        assert_eq!(BlockHeader::decode_rlp(&bytes).unwrap(), header);
        assert!(BlockHeader::decode_rlp(&bytes[..bytes.len() - 1]).is_err());
    }
}
