//! Names and values of state: everything that execution can read or write, and that the state root covers.
//!
//! A contract's storage is named by address and *incarnation*: a contract that destroys itself leaves its slots behind under the old
//! incarnation, so destroying costs nothing and a new contract at the same address starts empty.

pub mod codec;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_base::{Address, B256, Bytes, U256};

use crate::storage::StorageError;

/// A table's full name, prefix (`u_`, `c_`, `_sys_…`) included.
pub type TableName = Arc<str>;

/// Names one value of the state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StateKey {
    /// An account's record.
    Account(Address),
    /// Contract code by its Keccak hash.
    Code(B256),
    /// A storage slot of one incarnation of a contract.
    Slot(Address, u32, U256),
    /// All entries of a table under one primary key.
    Row(TableName, Arc<[u8]>),
}

/// An account. Absent accounts read as the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccountRecord {
    /// Creations so far; see `spec/client-protocol.md` 1.3.
    pub nonce: u64,
    /// Always zero in 2.x groups; used by Ethereum rules.
    pub balance: U256,
    /// Keccak of the code; [`AccountRecord::NO_CODE`] without.
    pub code_hash: B256,
    /// How often a contract at this address destroyed itself; names its slots.
    pub incarnation: u32,
}

impl AccountRecord {
    /// Keccak of nothing.
    pub const NO_CODE: B256 = B256::new(millrace_base::hex!("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"));

    /// Whether there is code.
    pub fn has_code(&self) -> bool {
        self.code_hash != Self::NO_CODE
    }
}

impl Default for AccountRecord {
    fn default() -> Self {
        Self { nonce: 0, balance: U256::ZERO, code_hash: Self::NO_CODE, incarnation: 0 }
    }
}

/// One entry of a table: field name to value. The primary key's field is included.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Identifies the entry within its primary key; assigned in insertion order, never reused.
    pub id: u64,
    /// Values by field name.
    pub fields: BTreeMap<Arc<str>, Bytes>,
}

/// A value of the state; its kind follows from the kind of its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateValue {
    /// Of [`StateKey::Account`].
    Account(AccountRecord),
    /// Of [`StateKey::Code`].
    Code(Bytes),
    /// Of [`StateKey::Slot`]; zero is stored as absence.
    Slot(U256),
    /// Of [`StateKey::Row`]; never empty: a key without entries is absent.
    Row(Arc<Vec<Entry>>),
}

/// Reads state as of some point; what a transaction sees below its own writes.
pub trait StateReader {
    /// The value, `None` when absent.
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError>;

    /// A trie node by its hash. Readers of a group's state give it; those that stand for values alone have none.
    fn node(&self, _hash: &B256) -> Result<Option<Bytes>, StorageError> {
        Ok(None)
    }
}
