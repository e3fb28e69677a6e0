//! 16-ary Merkle trees over transactions and receipts (`spec/client-protocol.md` 6).
//!
//! Leaf i is `RLP(i) || hash i`; a parent is the hash of up to 16 children's bytes; the root is the hash of the last remaining node,
//! so there is always one extra hash at the top.

use alloy_primitives::{B256, keccak256};
use alloy_rlp::Encodable;

/// Children of one node.
pub const WIDTH: usize = 16;

/// Siblings of a node inside its group, as raw node bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProofStep {
    /// Nodes before the current one.
    pub left: Vec<Vec<u8>>,
    /// Nodes behind the current one.
    pub right: Vec<Vec<u8>>,
}

fn leaf(index: usize, hash: &B256) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(36);
    index.encode(&mut bytes);
    bytes.extend_from_slice(hash.as_slice());
    bytes
}

fn leaves(hashes: &[B256]) -> Vec<Vec<u8>> {
    hashes.iter().enumerate().map(|(index, hash)| leaf(index, hash)).collect()
}

fn parents(level: &[Vec<u8>]) -> Vec<Vec<u8>> {
    level.chunks(WIDTH).map(|group| keccak256(group.concat()).to_vec()).collect()
}

/// The nodes above the leaves `first`, `first` + 1, ... with these hashes, for roots that several threads compute. `first` is a multiple
/// of [`WIDTH`].
pub fn parents_of_leaves(first: usize, hashes: &[B256]) -> Vec<B256> {
    let mut bytes = Vec::with_capacity(WIDTH * 36);
    let parent = |(group, hashes): (usize, &[B256])| {
        bytes.clear();
        for (position, hash) in hashes.iter().enumerate() {
            (first + group * WIDTH + position).encode(&mut bytes);
            bytes.extend_from_slice(hash.as_slice());
        }
        keccak256(&bytes)
    };
    hashes.chunks(WIDTH).enumerate().map(parent).collect()
}

/// The root over all nodes above the leaves, of which there are at least two.
pub fn root_of_parents(mut level: Vec<B256>) -> B256 {
    while level.len() > 1 {
        level = level.chunks(WIDTH).map(|group| keccak256(group.concat())).collect();
    }
    keccak256(level.first().map(B256::as_slice).unwrap_or_default())
}

/// The root over `hashes`; the hash of nothing when there are none.
pub fn root(hashes: &[B256]) -> B256 {
    match hashes {
        [only] => keccak256(leaf(0, only)),
        _ => root_of_parents(parents_of_leaves(0, hashes)),
    }
}

/// The proof that `hashes[index]` is part of the root, leaf level first; `None` when there is no such leaf.
pub fn proof(hashes: &[B256], index: usize) -> Option<Vec<ProofStep>> {
    if index >= hashes.len() {
        return None;
    }
    let (mut level, mut position, mut steps) = (leaves(hashes), index, Vec::new());
    while level.len() > 1 {
        let start = position - position % WIDTH;
        let end = level.len().min(start + WIDTH);
        steps.push(ProofStep { left: level[start..position].to_vec(), right: level[position + 1..end].to_vec() });
        level = parents(&level);
        position /= WIDTH;
    }
    steps.push(ProofStep::default());
    Some(steps)
}

/// Recomputes the root from a leaf and its proof.
pub fn verify(index: usize, hash: &B256, steps: &[ProofStep]) -> B256 {
    let mut current = leaf(index, hash);
    for step in steps {
        let mut bytes = step.left.concat();
        bytes.extend_from_slice(&current);
        bytes.extend(step.right.iter().flatten());
        current = keccak256(bytes).to_vec();
    }
    B256::from_slice(&current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    fn hashes(count: usize) -> Vec<B256> {
        (1..=count).map(|i| B256::repeat_byte(u8::try_from(i).unwrap())).collect()
    }

    #[test]
    fn roots_are_the_published_ones() {
        let published = [
            (0, hex!("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")),
            (1, hex!("dda5e83a8149ad98bac0a86f8240722828b2ee5ee36e606224ca5d20a02dcc9b")),
            (2, hex!("beaa44d6fb25d2ca1290be21a4d4bc2284fc0c3d3eb35719f0e1579fe5a8fe73")),
            (16, hex!("939205fee8e9d90f7302e817186c9af04ecaa34e772e84cd9957f7cbb16bf25f")),
            (17, hex!("b331461a20591db68080f249d685129af51ed31b40e5c3700ecac0ec7e5bbc34")),
        ];
        for (count, expected) in published {
            assert_eq!(root(&hashes(count)).0, expected, "{count} leaves");
        }
    }

    #[test]
    fn every_leaf_has_a_proof_that_leads_to_the_root() {
        for count in [1, 2, 15, 16, 17, 40, 255] {
            let all = hashes(count);
            for (index, hash) in all.iter().enumerate() {
                let steps = proof(&all, index).unwrap();
                assert_eq!(verify(index, hash, &steps), root(&all));
                assert_eq!(steps.last(), Some(&ProofStep::default()));
            }
            assert_eq!(proof(&all, count), None);
        }
    }
}
