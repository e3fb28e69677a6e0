//! Signatures of sealers. Everything the engine signs or checks goes through here.

use millrace_base::{B256, KeyPair, NodeId, Signature};

/// Signs a digest with this node's key.
#[cfg(not(test))]
pub fn sign(key: &KeyPair, digest: B256) -> Signature {
    key.sign(digest)
}

/// Whether a node signed a digest.
#[cfg(not(test))]
pub fn verify(node: &NodeId, digest: B256, signature: &Signature) -> bool {
    node.verify(digest, signature)
}

#[cfg(test)]
pub use cheap::{sign, use_cheap_signatures, verify};

/// Whole clusters in one thread would spend their time on curve arithmetic: their signatures are hashes of signer and digest. Nobody in
/// such a test makes up a signature other than with a key it has.
#[cfg(test)]
mod cheap {
    use std::cell::Cell;

    use millrace_base::keccak256;

    use super::{B256, KeyPair, NodeId, Signature};

    thread_local!(static IS_CHEAP: Cell<bool> = const { Cell::new(false) });

    /// From now on in this thread.
    pub fn use_cheap_signatures() {
        IS_CHEAP.set(true);
    }

    pub fn sign(key: &KeyPair, digest: B256) -> Signature {
        if IS_CHEAP.get() { cheap(&key.node_id(), digest) } else { key.sign(digest) }
    }

    pub fn verify(node: &NodeId, digest: B256, signature: &Signature) -> bool {
        if IS_CHEAP.get() { cheap(node, digest) == *signature } else { node.verify(digest, signature) }
    }

    fn cheap(node: &NodeId, digest: B256) -> Signature {
        let mut bytes = node.0.to_vec();
        bytes.extend_from_slice(digest.as_slice());
        let hash = keccak256(bytes);
        Signature::from_parts(hash, hash, 0)
    }
}
