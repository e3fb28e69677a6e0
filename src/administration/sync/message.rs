//! What the sync machines of two nodes say to each other, and how a block looks on the wire.
//!
//! Invariant: decoding takes memory in proportion to the bytes received, whatever they announce; blocks stay undecoded slices of the
//! message until one is checked.

use millrace_base::frame::{FrameError, FrameReader, put_count, put_string};
use millrace_base::limits::MAX_BLOCK_TRANSACTIONS;
use millrace_base::rlp::RlpError;
use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, Signature};

use super::limits::{MAX_REQUEST_BLOCKS, MAX_SIGNATURES};

/// Version of these messages; another one is not understood, and its sender not asked.
pub const VERSION: u32 = 2;

const STATUS: u8 = 1;
const REQUEST: u8 = 2;
const BLOCKS: u8 = 3;
const PRUNED: u8 = 4;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncMessage {
    /// The sender's durable head: a hint, never trusted.
    Status {
        /// [`VERSION`] of the sender.
        version: u32,
        /// Block 0 of its chain.
        genesis: B256,
        /// Its durable height.
        height: u64,
        /// The hash there.
        hash: B256,
        /// The lowest block above 0 that it can serve: it keeps no older ones.
        kept_from: u64,
    },
    /// Asks for blocks from a height on.
    Request {
        /// Comes back in the answer.
        id: u64,
        /// First height.
        from: u64,
        /// Blocks at most.
        count: u32,
        /// Bytes at most, unless the first block alone is larger.
        max_bytes: u32,
    },
    /// The answer: as many as fit, without gaps.
    Blocks {
        /// Of the request.
        id: u64,
        /// Height of the first.
        from: u64,
        /// See [`WireBlock`].
        blocks: Vec<Bytes>,
    },
    /// The answer of a node that does not keep the blocks asked for any more: somebody else has to be asked.
    Pruned {
        /// Of the request.
        id: u64,
        /// The lowest block above 0 that it can serve.
        kept_from: u64,
    },
}

impl SyncMessage {
    /// For the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Status { version, genesis, height, hash, kept_from } => {
                out.push(STATUS);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(genesis.as_slice());
                out.extend_from_slice(&height.to_le_bytes());
                out.extend_from_slice(hash.as_slice());
                out.extend_from_slice(&kept_from.to_le_bytes());
            }
            Self::Request { id, from, count, max_bytes } => {
                out.push(REQUEST);
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&from.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&max_bytes.to_le_bytes());
            }
            Self::Blocks { id, from, blocks } => {
                out.reserve(32 + blocks.iter().map(|block| block.len() + 4).sum::<usize>());
                out.push(BLOCKS);
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&from.to_le_bytes());
                put_count(&mut out, blocks.len());
                blocks.iter().for_each(|block| put_string(&mut out, block));
            }
            Self::Pruned { id, kept_from } => {
                out.push(PRUNED);
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&kept_from.to_le_bytes());
            }
        }
        out.into()
    }

    /// From the wire.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let mut reader = FrameReader::new(bytes.clone());
        let message = match reader.byte()? {
            STATUS => {
                let (version, genesis) = (reader.u32()?, reader.hash()?);
                Self::Status { version, genesis, height: reader.u64()?, hash: reader.hash()?, kept_from: reader.u64()? }
            }
            REQUEST => Self::Request { id: reader.u64()?, from: reader.u64()?, count: reader.u32()?, max_bytes: reader.u32()? },
            BLOCKS => {
                let (id, from) = (reader.u64()?, reader.u64()?);
                Self::Blocks { id, from, blocks: reader.strings(MAX_REQUEST_BLOCKS as usize)? }
            }
            PRUNED => Self::Pruned { id: reader.u64()?, kept_from: reader.u64()? },
            kind => return Err(FrameError::Kind(kind)),
        };
        reader.finish()?;
        Ok(message)
    }
}

/// A block as it travels: what a receiver needs to compute the rest of it. Neither its hash nor a sender is among it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireBlock {
    /// Its header.
    pub header: BlockHeader,
    /// Signatures over its hash.
    pub signatures: Vec<BlockSignature>,
    /// Signed RLP of its transactions, in order.
    pub transactions: Vec<Bytes>,
}

/// Why bytes are not a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireBlockError {
    /// Its frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its header.
    #[error("the header of the block cannot be decoded: {0}")]
    Header(#[from] RlpError),
}

impl WireBlock {
    /// For the wire: of a block in whatever form it is at hand.
    pub fn encode<'a>(
        header: &BlockHeader,
        signatures: &[BlockSignature],
        transactions: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &header.encode_rlp());
        put_count(&mut out, signatures.len());
        for signature in signatures {
            out.extend_from_slice(&signature.index.to_le_bytes());
            out.extend_from_slice(&signature.signature.0);
        }
        put_count(&mut out, transactions.len());
        transactions.for_each(|transaction| put_string(&mut out, transaction));
        out
    }

    /// From the wire.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireBlockError> {
        let mut reader = FrameReader::new(bytes.clone());
        let header = BlockHeader::decode_rlp(&reader.string()?)?;
        let count = reader.count(MAX_SIGNATURES, 69)?;
        let mut signatures = Vec::with_capacity(count);
        for _ in 0..count {
            signatures.push(BlockSignature { index: reader.u32()?, signature: Signature(reader.signature()?) });
        }
        let transactions = reader.strings(MAX_BLOCK_TRANSACTIONS)?;
        reader.finish()?;
        Ok(Self { header, signatures, transactions })
    }
}
