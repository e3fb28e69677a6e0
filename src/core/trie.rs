//! Merkle Patricia tries over stored nodes, as Ethereum's: 32-byte keys, nodes named by the Keccak hash of their RLP.
//!
//! Nodes are never overwritten: an update makes new nodes along the changed paths and a new root, and every earlier root stays readable.
//! Encoding and decoding of nodes are `alloy-trie`'s; the incremental update over stored nodes is ours, because that library builds whole
//! tries only.
//!
//! Invariant: the root depends on the set of pairs alone, and equals the one that a build from scratch gives (tested against
//! `alloy-trie`). Only nodes of the resulting trie are handed out, none of steps in between. Called by [`crate::mpt`].

use std::collections::HashSet;
use std::rc::Rc;

use alloy_trie::nodes::{BranchNodeRef, ExtensionNodeRef, LeafNodeRef, RlpNode, TrieNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieMask};
use millrace_base::{B256, Bytes, hex, keccak256};

use crate::storage::StorageError;

/// Root of a trie without pairs; no node is stored for it.
pub const EMPTY_ROOT: B256 = EMPTY_ROOT_HASH;

/// Stored nodes: hash and RLP.
pub type TrieNodes = Vec<(B256, Bytes)>;

/// Where nodes are read; `None` when there is no such node.
pub type ReadNode<'a> = dyn Fn(&B256) -> Result<Option<Bytes>, StorageError> + 'a;

/// A key as nibbles, and its new value; `None` removes.
pub type Change = (Nibbles, Option<Vec<u8>>);

/// The nibbles of a key.
pub fn path(key: &B256) -> Nibbles {
    Nibbles::unpack_array(&key.0)
}

/// Tries over one source of nodes.
pub struct Tries<'a> {
    read: &'a ReadNode<'a>,
}

/// A value with what proves it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// The value; `None` when the proof is one of absence.
    pub value: Option<Vec<u8>>,
    /// RLP of the nodes from the root on; empty in an empty trie.
    pub nodes: Vec<Bytes>,
}

/// A node in memory while it is changed.
enum Node {
    Empty,
    Leaf(Nibbles, Vec<u8>),
    /// Its child is a branch.
    Extension(Nibbles, Child),
    /// At least two children, except while it is worked on.
    Branch(Box<[Child; 16]>),
}

#[derive(Default)]
enum Child {
    #[default]
    Absent,
    /// As it was read: a hash, or a node of less than 32 bytes itself.
    Stored(RlpNode),
    Changed(Box<Node>),
}

/// A node to look at, with the one that stood there before, or the hashes of those that stood near.
struct Visit {
    prefix: Nibbles,
    old: Option<RlpNode>,
    new: RlpNode,
    known: Option<Rc<HashSet<B256>>>,
}

impl<'a> Tries<'a> {
    /// Over a source of nodes.
    pub fn new(read: &'a ReadNode<'a>) -> Self {
        Self { read }
    }

    /// The value of a key in the trie with this root.
    pub fn get(&self, root: B256, key: &B256) -> Result<Option<Vec<u8>>, StorageError> {
        self.walk(root, key, &mut |_| ())
    }

    /// The value of a key with the nodes that lead to it, or to where it would be.
    pub fn prove(&self, root: B256, key: &B256) -> Result<Proof, StorageError> {
        let mut nodes = Vec::new();
        let value = self.walk(root, key, &mut |node| nodes.push(node.clone()))?;
        Ok(Proof { value, nodes })
    }

    /// Follows a key from the root; shows `visit` each stored node.
    fn walk(&self, root: B256, key: &B256, visit: &mut dyn FnMut(&Bytes)) -> Result<Option<Vec<u8>>, StorageError> {
        if root == EMPTY_ROOT {
            return Ok(None);
        }
        let (key, mut depth) = (path(key), 0);
        let mut link = RlpNode::word_rlp(&root);
        loop {
            let node = match link.as_hash() {
                Some(hash) => {
                    let bytes = self.stored(&hash)?;
                    visit(&bytes);
                    decode(&bytes, &hash)?
                }
                None => decode(&link, &root)?,
            };
            match node {
                TrieNode::EmptyRoot => return Ok(None),
                TrieNode::Leaf(leaf) => return Ok((leaf.key == key.slice(depth..)).then_some(leaf.value)),
                TrieNode::Extension(extension) => {
                    if !key.slice(depth..).starts_with(&extension.key) {
                        return Ok(None);
                    }
                    depth += extension.key.len();
                    link = extension.child;
                }
                TrieNode::Branch(branch) => {
                    let Some(nibble) = key.get(depth) else { return Err(too_deep(&root)) };
                    let child = branch.as_ref().children().nth(nibble.into()).and_then(|(_, child)| child.cloned());
                    let Some(child) = child else { return Ok(None) };
                    depth += 1;
                    link = child;
                }
            }
        }
    }

    /// The root after `changes`, which are sorted by key, each key once. New nodes are appended to `made`.
    pub fn update(&self, root: B256, mut changes: Vec<Change>, made: &mut TrieNodes) -> Result<B256, StorageError> {
        debug_assert!(changes.is_sorted_by(|left, right| left.0 < right.0));
        if changes.is_empty() {
            return Ok(root);
        }
        let node = if root == EMPTY_ROOT { Node::Empty } else { self.open(&RlpNode::word_rlp(&root))? };
        match self.apply(node, 0, &mut changes)? {
            Node::Empty => Ok(EMPTY_ROOT),
            node => Ok(close_root(node, made)),
        }
    }

    /// Reads every node of the trie `after` that `before` does not have, and calls `pair` with each pair behind them (key, value): all that
    /// changed, and a few of their neighbours. Each node's content is compared with its hash.
    pub fn visit_new(
        &self,
        before: B256,
        after: B256,
        pair: &mut dyn FnMut(B256, Vec<u8>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if after == EMPTY_ROOT {
            return Ok(());
        }
        let old = (before != EMPTY_ROOT).then(|| RlpNode::word_rlp(&before));
        // At most 16 entries a level of at most 64 levels.
        let mut waiting = vec![Visit { prefix: Nibbles::new(), old, new: RlpNode::word_rlp(&after), known: None }];
        while let Some(Visit { prefix, old, new, known }) = waiting.pop() {
            let is_known = new.as_hash().is_some_and(|hash| known.as_ref().is_some_and(|known| known.contains(&hash)));
            if is_known || old.as_ref() == Some(&new) {
                continue;
            }
            let old = old.map(|old| self.decoded(&old)).transpose()?;
            match (self.checked(&new)?, old) {
                (TrieNode::EmptyRoot, _) => return Err(damaged(&after, "an empty node inside a trie")),
                (TrieNode::Leaf(leaf), _) if prefix.len() + leaf.key.len() == 64 => {
                    pair(B256::from_slice(&prefix.join(&leaf.key).pack()), leaf.value)?;
                }
                (TrieNode::Extension(new), Some(TrieNode::Extension(old))) if new.key == old.key && prefix.len() + new.key.len() < 64 => {
                    waiting.push(Visit { prefix: prefix.join(&new.key), old: Some(old.child), new: new.child, known });
                }
                (TrieNode::Branch(new), Some(TrieNode::Branch(old))) if prefix.len() < 64 => {
                    let (new, old) = (new.as_ref(), old.as_ref());
                    waiting.extend(new.children().zip(old.children()).filter_map(|((nibble, new), (_, old))| {
                        Some(Visit { prefix: with(prefix, nibble), old: old.cloned(), new: new?.clone(), known: known.clone() })
                    }));
                }
                // The shape of the trie changed here: what hung below the old node is found again by its hash.
                (node, old) => {
                    let known = old.map_or(Ok(known), |old| self.links_below(&old).map(|links| Some(Rc::new(links))))?;
                    let links = links(&node).into_iter().map(|(path, link)| (prefix.len() + path.len(), path, link));
                    for (depth, path, new) in links {
                        if depth > 64 {
                            return Err(too_deep(&after));
                        }
                        waiting.push(Visit { prefix: prefix.join(&path), old: None, new, known: known.clone() });
                    }
                    if let TrieNode::Leaf(_) = node {
                        return Err(too_deep(&after));
                    }
                }
            }
        }
        Ok(())
    }

    /// Hashes of the nodes that a changed shape may attach elsewhere: those a node leads to, and those behind extensions among them.
    fn links_below(&self, node: &TrieNode) -> Result<HashSet<B256>, StorageError> {
        let mut hashes = HashSet::new();
        for (_, link) in links(node) {
            hashes.extend(link.as_hash());
            if let TrieNode::Extension(extension) = self.decoded(&link)? {
                hashes.extend(extension.child.as_hash());
            }
        }
        Ok(hashes)
    }

    /// A node, its content compared with its hash.
    fn checked(&self, link: &RlpNode) -> Result<TrieNode, StorageError> {
        let Some(hash) = link.as_hash() else { return decode(link, &B256::ZERO) };
        let bytes = self.stored(&hash)?;
        if keccak256(&bytes) == hash { decode(&bytes, &hash) } else { Err(damaged(&hash, "its content has another hash")) }
    }

    fn decoded(&self, link: &RlpNode) -> Result<TrieNode, StorageError> {
        match link.as_hash() {
            Some(hash) => decode(&self.stored(&hash)?, &hash),
            None => decode(link, &B256::ZERO),
        }
    }

    fn stored(&self, hash: &B256) -> Result<Bytes, StorageError> {
        (self.read)(hash)?.ok_or_else(|| damaged(hash, "the node is missing"))
    }

    fn open(&self, link: &RlpNode) -> Result<Node, StorageError> {
        Ok(match self.decoded(link)? {
            TrieNode::EmptyRoot => Node::Empty,
            TrieNode::Leaf(leaf) => Node::Leaf(leaf.key, leaf.value),
            TrieNode::Extension(extension) => Node::Extension(extension.key, Child::Stored(extension.child)),
            TrieNode::Branch(branch) => {
                let mut children: [Child; 16] = Default::default();
                for (nibble, child) in branch.as_ref().children() {
                    if let Some(child) = child {
                        children[usize::from(nibble)] = Child::Stored(child.clone());
                    }
                }
                Node::Branch(Box::new(children))
            }
        })
    }

    fn open_child(&self, child: Child) -> Result<Node, StorageError> {
        match child {
            Child::Absent => Ok(Node::Empty),
            Child::Stored(link) => self.open(&link),
            Child::Changed(node) => Ok(*node),
        }
    }

    /// The node at `depth` after `changes`, all of which lie below it. At most 64 calls deep, one a nibble.
    fn apply(&self, node: Node, depth: usize, changes: &mut [Change]) -> Result<Node, StorageError> {
        if changes.is_empty() {
            return Ok(node);
        }
        match node {
            Node::Empty => Ok(build(depth, take_live(changes))),
            Node::Leaf(key, value) => Ok(change_leaf(key, value, depth, changes)),
            Node::Extension(key, child) => self.change_extension(key, child, depth, changes),
            Node::Branch(children) => self.change_branch(children, depth, changes),
        }
    }

    fn change_extension(&self, key: Nibbles, child: Child, depth: usize, changes: &mut [Change]) -> Result<Node, StorageError> {
        let below = depth + key.len();
        let shared = |change: &Change| change.0.slice(depth..).common_prefix_length(&key);
        // Removing what is not there changes nothing.
        let split = changes.iter().filter(|change| change.1.is_some()).map(shared).min().unwrap_or(key.len());
        if split == key.len() {
            let first = changes.partition_point(|change| change.0.slice(depth..below) < key);
            let last = changes.partition_point(|change| change.0.slice(depth..below) <= key);
            if first == last {
                return Ok(Node::Extension(key, child));
            }
            let child = self.open_child(child)?;
            return Ok(prepend(key, self.apply(child, below, &mut changes[first..last])?));
        }
        let mut children: [Child; 16] = Default::default();
        let rest = key.slice(split + 1..);
        children[usize::from(key.get_unchecked(split))] =
            if rest.is_empty() { child } else { Child::Changed(Box::new(Node::Extension(rest, child))) };
        let mut kept: Vec<Change> =
            changes.iter_mut().filter(|change| shared(change) >= split).map(|change| (change.0, change.1.take())).collect();
        let branch = self.change_branch(Box::new(children), depth + split, &mut kept)?;
        Ok(prepend(key.slice(..split), branch))
    }

    fn change_branch(&self, mut children: Box<[Child; 16]>, depth: usize, changes: &mut [Change]) -> Result<Node, StorageError> {
        for group in changes.chunk_by_mut(|left, right| left.0.get_unchecked(depth) == right.0.get_unchecked(depth)) {
            let place = &mut children[usize::from(group[0].0.get_unchecked(depth))];
            let child = self.open_child(std::mem::take(place))?;
            *place = match self.apply(child, depth + 1, group)? {
                Node::Empty => Child::Absent,
                node => Child::Changed(Box::new(node)),
            };
        }
        let mut present = (0..16u8).filter(|nibble| !matches!(children[usize::from(*nibble)], Child::Absent));
        match (present.next(), present.next()) {
            (None, _) => Ok(Node::Empty),
            (Some(only), None) => {
                let child = self.open_child(std::mem::take(&mut children[usize::from(only)]))?;
                Ok(prepend(Nibbles::from_nibbles([only]), child))
            }
            _ => Ok(Node::Branch(children)),
        }
    }
}

/// What a node leads to, with the path behind the node.
fn links(node: &TrieNode) -> Vec<(Nibbles, RlpNode)> {
    match node {
        TrieNode::EmptyRoot | TrieNode::Leaf(_) => Vec::new(),
        TrieNode::Extension(extension) => vec![(extension.key, extension.child.clone())],
        TrieNode::Branch(branch) => {
            let branch = branch.as_ref();
            branch.children().filter_map(|(nibble, child)| Some((Nibbles::from_nibbles([nibble]), child?.clone()))).collect()
        }
    }
}

fn with(mut prefix: Nibbles, nibble: u8) -> Nibbles {
    prefix.push(nibble);
    prefix
}

/// The changes that set a value.
fn take_live(changes: &mut [Change]) -> Vec<(Nibbles, Vec<u8>)> {
    changes.iter_mut().filter_map(|(key, value)| Some((*key, value.take()?))).collect()
}

fn change_leaf(key: Nibbles, value: Vec<u8>, depth: usize, changes: &mut [Change]) -> Node {
    if let [(only, new)] = changes
        && only.slice(depth..) == key
    {
        return new.take().map_or(Node::Empty, |new| Node::Leaf(key, new));
    }
    let whole = changes[0].0.slice(..depth).join(&key);
    let is_replaced = changes.binary_search_by(|change| change.0.cmp(&whole)).is_ok();
    let mut live = take_live(changes);
    if !is_replaced {
        let place = live.partition_point(|pair| pair.0 < whole);
        live.insert(place, (whole, value));
    }
    build(depth, live)
}

/// The node at `depth` of a trie of these pairs, which are sorted.
fn build(depth: usize, mut pairs: Vec<(Nibbles, Vec<u8>)>) -> Node {
    build_from(depth, &mut pairs)
}

fn build_from(depth: usize, pairs: &mut [(Nibbles, Vec<u8>)]) -> Node {
    let (first, last) = match pairs {
        [] => return Node::Empty,
        [(key, value)] => return Node::Leaf(key.slice(depth..), std::mem::take(value)),
        [first, .., last] => (first.0, last.0),
    };
    let fork = first.common_prefix_length(&last);
    let mut children: [Child; 16] = Default::default();
    for group in pairs.chunk_by_mut(|left, right| left.0.get_unchecked(fork) == right.0.get_unchecked(fork)) {
        let nibble = usize::from(group[0].0.get_unchecked(fork));
        children[nibble] = Child::Changed(Box::new(build_from(fork + 1, group)));
    }
    prepend(first.slice(depth..fork), Node::Branch(Box::new(children)))
}

/// Puts `prefix` before a node.
fn prepend(prefix: Nibbles, node: Node) -> Node {
    if prefix.is_empty() {
        return node;
    }
    match node {
        Node::Empty => Node::Empty,
        Node::Leaf(key, value) => Node::Leaf(prefix.join(&key), value),
        Node::Extension(key, child) => Node::Extension(prefix.join(&key), child),
        branch @ Node::Branch(_) => Node::Extension(prefix, Child::Changed(Box::new(branch))),
    }
}

/// Encodes a finished root, which is stored whatever its size.
fn close_root(node: Node, made: &mut TrieNodes) -> B256 {
    let encoded = encode(node, made);
    let hash = keccak256(&encoded);
    made.push((hash, encoded.into()));
    hash
}

fn close(node: Node, made: &mut TrieNodes) -> RlpNode {
    let encoded = encode(node, made);
    let link = RlpNode::from_rlp(&encoded);
    if let Some(hash) = link.as_hash() {
        made.push((hash, encoded.into()));
    }
    link
}

fn close_child(child: Child, made: &mut TrieNodes) -> Option<RlpNode> {
    match child {
        Child::Absent => None,
        Child::Stored(link) => Some(link),
        Child::Changed(node) => Some(close(*node, made)),
    }
}

fn encode(node: Node, made: &mut TrieNodes) -> Vec<u8> {
    use alloy_rlp::Encodable;
    let mut out = Vec::new();
    match node {
        Node::Empty => out.push(alloy_rlp::EMPTY_STRING_CODE),
        Node::Leaf(key, value) => {
            out.reserve_exact(value.len() + 44);
            LeafNodeRef::new(&key, &value).encode(&mut out);
        }
        Node::Extension(key, child) => {
            let child = close_child(child, made).expect("an extension leads to a branch");
            out.reserve_exact(72);
            ExtensionNodeRef::new(&key, &child).encode(&mut out);
        }
        Node::Branch(children) => {
            let mut mask = TrieMask::default();
            let mut links = Vec::with_capacity(16);
            for (nibble, child) in (0u8..).zip(*children) {
                if let Some(link) = close_child(child, made) {
                    mask.set_bit(nibble);
                    links.push(link);
                }
            }
            out.reserve_exact(33 * links.len() + 20);
            BranchNodeRef::new(&links, mask).encode(&mut out);
        }
    }
    out
}

fn decode(bytes: &[u8], hash: &B256) -> Result<TrieNode, StorageError> {
    use alloy_rlp::Decodable;
    let mut rest = bytes;
    match TrieNode::decode(&mut rest) {
        Ok(node) if rest.is_empty() => Ok(node),
        Ok(_) => Err(damaged(hash, "bytes follow the node")),
        Err(error) => Err(damaged(hash, &error.to_string())),
    }
}

fn damaged(hash: &B256, detail: &str) -> StorageError {
    StorageError::Corrupt { place: format!("trie node {}", hex::encode(hash)), detail: detail.into() }
}

fn too_deep(hash: &B256) -> StorageError {
    damaged(hash, "a path has another length than 64 nibbles")
}

#[cfg(test)]
#[path = "trie/tests.rs"]
mod tests;
