//! What headers say of a group's whole state: the two roots, and how a block moves them.
//!
//! A group's genesis chooses the kind once (`state.type`). With `storage` both roots are the multiset hash of all values ([`crate::root`]).
//! With `mpt` the state root is that of Ethereum's account trie ([`crate::mpt`]), and the multiset hash of all table rows is the other
//! root, so that the two together cover the state here too.
//!
//! Invariant: a commitment depends on the state alone, never on the way it came about. [`StateCommitment::after`] is called once a block by
//! its executor; the database check compares both roots with what is stored.

use std::fmt;
use std::str::FromStr;

use millrace_base::B256;

use crate::mpt;
use crate::overlay::Writes;
use crate::root::StateAccumulator;
use crate::state::{StateKey, StateReader};
use crate::storage::StorageError;
use crate::trie::{EMPTY_ROOT, TrieNodes};

/// How a group keeps its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StateKind {
    /// Latest values, covered by a multiset hash.
    #[default]
    Storage,
    /// Latest values, and every block's accounts in Ethereum's tries.
    Mpt,
}

impl StateKind {
    /// The name in genesis files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Mpt => "mpt",
        }
    }
}

/// A configured name is not one of the kinds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown state \"{0}\": expected storage or mpt")]
pub struct UnknownState(pub String);

impl FromStr for StateKind {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        match text {
            "storage" => Ok(Self::Storage),
            "mpt" => Ok(Self::Mpt),
            _ => Err(UnknownState(text.into())),
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateCommitment {
    /// Of [`StateKind::Storage`].
    Storage(StateAccumulator),
    /// Of [`StateKind::Mpt`].
    Mpt {
        /// Root of the account trie.
        accounts: B256,
        /// Over all rows.
        tables: StateAccumulator,
    },
}

impl StateCommitment {
    /// Of a state without values.
    pub fn empty(kind: StateKind) -> Self {
        match kind {
            StateKind::Storage => Self::Storage(StateAccumulator::new()),
            StateKind::Mpt => Self::Mpt { accounts: EMPTY_ROOT, tables: StateAccumulator::new() },
        }
    }

    /// The kind of state.
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Storage(_) => StateKind::Storage,
            Self::Mpt { .. } => StateKind::Mpt,
        }
    }

    /// After a block's `writes`, each key once; `below` is the state before it, trie nodes included. With the trie nodes that the block
    /// adds, sorted by hash; none with storage state.
    pub fn after(&self, below: &dyn StateReader, writes: &Writes) -> Result<(Self, TrieNodes), StorageError> {
        let mut nodes = TrieNodes::new();
        let commitment = match self {
            Self::Storage(accumulator) => {
                let mut accumulator = accumulator.clone();
                accumulator.update(below, writes)?;
                Self::Storage(accumulator)
            }
            Self::Mpt { accounts, tables } => {
                let mut tables = tables.clone();
                for (key, new) in writes.iter().filter(|(key, _)| matches!(key, StateKey::Row(..))) {
                    tables.replace(key, below.read(key)?.as_ref(), new.as_ref());
                }
                Self::Mpt { accounts: mpt::update(*accounts, below, writes, &mut nodes)?, tables }
            }
        };
        Ok((commitment, nodes))
    }

    /// The `stateRoot` of headers.
    pub fn state_root(&self) -> B256 {
        match self {
            Self::Storage(accumulator) => accumulator.root(),
            Self::Mpt { accounts, .. } => *accounts,
        }
    }

    /// The `dbHash` of headers.
    pub fn db_hash(&self) -> B256 {
        match self {
            Self::Storage(accumulator) | Self::Mpt { tables: accumulator, .. } => accumulator.root(),
        }
    }

    /// For storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Storage(accumulator) => accumulator.to_bytes(),
            Self::Mpt { accounts, tables } => [accounts.as_slice(), &tables.to_bytes()].concat(),
        }
    }

    /// The inverse of [`Self::to_bytes`]; the kinds have different sizes. `None` for another size.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if let Some(accumulator) = StateAccumulator::from_bytes(bytes) {
            return Some(Self::Storage(accumulator));
        }
        let (accounts, tables) = bytes.split_at_checked(32)?;
        Some(Self::Mpt { accounts: B256::from_slice(accounts), tables: StateAccumulator::from_bytes(tables)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip_and_name_the_kind() {
        for kind in [StateKind::Storage, StateKind::Mpt] {
            let commitment = StateCommitment::empty(kind);
            assert_eq!(StateCommitment::from_bytes(&commitment.to_bytes()), Some(commitment.clone()));
            assert_eq!(commitment.kind(), kind);
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(StateCommitment::from_bytes(&[0; 100]), None);
        assert_eq!(StateCommitment::from_bytes(&[]), None);
    }
}
