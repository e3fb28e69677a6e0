//! Identities of chains and groups. Every message and queue item names its group by [`GroupId`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// The chain a node belongs to (`chain.id` of config.ini); signed into every transaction.
pub type ChainId = u64;

/// A group (ledger) id, 1..=32767 (`spec/node-semantics.md` 1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct GroupId(u16);

impl GroupId {
    /// Largest id the 2.x protocol can carry (16-bit signed).
    pub const MAX: u16 = 32_767;

    /// `None` when `id` is outside 1..=32767.
    pub fn new(id: i64) -> Option<Self> {
        match u16::try_from(id) {
            Ok(id) if (1..=Self::MAX).contains(&id) => Some(Self(id)),
            _ => None,
        }
    }

    /// The id as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
