//! Domain-separated digests of what sealers sign: chain, group, genesis, message kind, epoch, height and view are always covered,
//! so a signature can never be used for another message, group or chain.

use millrace_base::{B256, ChainId, GroupId, keccak256};

/// The part of every digest that does not change while a group lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Domain {
    /// `chain.id`.
    pub chain_id: ChainId,
    /// The group.
    pub group: GroupId,
    /// Hash of block 0.
    pub genesis: B256,
}

/// Starts a digest of one message kind.
pub struct DigestWriter(Vec<u8>);

impl DigestWriter {
    /// `kind` is unique among all message kinds.
    pub fn new(domain: &Domain, kind: &str) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(b"millrace/consensus/1/");
        bytes.extend_from_slice(&(kind.len() as u64).to_be_bytes());
        bytes.extend_from_slice(kind.as_bytes());
        bytes.extend_from_slice(&domain.chain_id.to_be_bytes());
        bytes.extend_from_slice(&domain.group.get().to_be_bytes());
        bytes.extend_from_slice(domain.genesis.as_slice());
        Self(bytes)
    }

    /// Adds a number of fixed width.
    pub fn number(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds a hash.
    pub fn hash(mut self, value: B256) -> Self {
        self.0.extend_from_slice(value.as_slice());
        self
    }

    /// Adds hashes, preceded by their number.
    pub fn hashes(mut self, values: &[B256]) -> Self {
        self.0.extend_from_slice(&(values.len() as u64).to_be_bytes());
        for value in values {
            self.0.extend_from_slice(value.as_slice());
        }
        self
    }

    /// The digest.
    pub fn finish(self) -> B256 {
        keccak256(self.0)
    }
}
