//! Accounts and their storage as Ethereum's tries: the state root of groups with `state.type=mpt`, and what can be read and proven by it.
//!
//! The account trie maps Keccak(address) to RLP [nonce, balance, storage root, code hash]; the storage trie of a contract maps Keccak(slot)
//! to the RLP of its value. Latest values stay in [`crate::Space::State`] for execution; the tries beside them ([`crate::Space::Trie`])
//! hold those of every block. Tables, which Ethereum does not have, are no part of them.
//!
//! Invariant: the root is Ethereum's for the same accounts. An account is in the trie if it has a nonce, balance, code or storage, and
//! also without any of them if it has a record and never destroyed itself: what destroys an account, as a contract does and as EIP-161
//! does with empty ones, raises its incarnation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use alloy_rlp::{Decodable, Encodable};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount};
use millrace_base::{Address, B256, Bytes, U256, keccak256};

use crate::overlay::Writes;
use crate::state::{AccountRecord, StateKey, StateReader, StateValue};
use crate::storage::StorageError;
use crate::table::system;
use crate::trie::{Change, EMPTY_ROOT, Proof, ReadNode, TrieNodes, Tries, path};

/// What a block does to one account.
#[derive(Default)]
struct Touched {
    /// The new record, when it changes; `Some(None)` removes it.
    record: Option<Option<AccountRecord>>,
    /// Incarnation, slot and new value.
    slots: Vec<(u32, U256, U256)>,
}

/// The account trie after a block's writes; `below` is the state before it, whose account trie has the root `accounts`. New nodes are
/// appended to `made`.
pub fn update(accounts: B256, below: &dyn StateReader, writes: &Writes, made: &mut TrieNodes) -> Result<B256, StorageError> {
    let read = |hash: &B256| below.node(hash);
    let tries = Tries::new(&read);
    let mut changes: Vec<Change> = Vec::new();
    for (address, touched) in touched(writes) {
        let key = keccak256(address);
        let leaf = account_at(&tries, accounts, &key)?;
        let old = record_at(below, address)?;
        let record = touched.record.unwrap_or(old);
        let (before, incarnation) = (old.unwrap_or_default().incarnation, record.unwrap_or_default().incarnation);
        // Slots of earlier incarnations are gone.
        let storage = if before == incarnation { leaf.map_or(EMPTY_ROOT, |leaf| leaf.storage_root) } else { EMPTY_ROOT };
        let storage = tries.update(storage, slot_changes(incarnation, &touched.slots), made)?;
        changes.push((path(&key), leaf_of(record, storage)));
    }
    changes.sort_unstable_by_key(|pair| pair.0);
    let root = tries.update(accounts, changes, made)?;
    made.sort_unstable_by_key(|pair| pair.0);
    made.dedup_by(|second, first| second.0 == first.0);
    Ok(root)
}

fn touched(writes: &Writes) -> BTreeMap<Address, Touched> {
    let mut all: BTreeMap<Address, Touched> = BTreeMap::new();
    for (key, value) in writes {
        match (key, value) {
            (StateKey::Account(address), Some(StateValue::Account(record))) => {
                all.entry(*address).or_default().record = Some(Some(*record));
            }
            (StateKey::Account(address), _) => all.entry(*address).or_default().record = Some(None),
            (StateKey::Slot(address, incarnation, index), Some(StateValue::Slot(value))) => {
                all.entry(*address).or_default().slots.push((*incarnation, *index, *value));
            }
            (StateKey::Slot(address, incarnation, index), _) => {
                all.entry(*address).or_default().slots.push((*incarnation, *index, U256::ZERO));
            }
            (StateKey::Code(_) | StateKey::Row(..), _) => {}
        }
    }
    all
}

fn slot_changes(incarnation: u32, slots: &[(u32, U256, U256)]) -> Vec<Change> {
    let of_incarnation = slots.iter().filter(|slot| slot.0 == incarnation);
    let change = |(_, index, value): &(u32, U256, U256)| {
        let value = (!value.is_zero()).then(|| alloy_rlp::encode(value));
        (path(&keccak256(index.to_be_bytes::<32>())), value)
    };
    let mut changes: Vec<Change> = of_incarnation.map(change).collect();
    changes.sort_unstable_by_key(|pair| pair.0);
    changes
}

/// The account's value in the trie; `None` when it is not in it.
fn leaf_of(record: Option<AccountRecord>, storage_root: B256) -> Option<Vec<u8>> {
    let is_present = record.is_some_and(|record| record.incarnation == 0);
    let AccountRecord { nonce, balance, code_hash, .. } = record.unwrap_or_default();
    let has_content = nonce != 0 || !balance.is_zero() || code_hash != AccountRecord::NO_CODE || storage_root != EMPTY_ROOT;
    (is_present || has_content).then(|| alloy_rlp::encode(TrieAccount::new(nonce, balance, storage_root, code_hash)))
}

fn record_at(state: &dyn StateReader, address: Address) -> Result<Option<AccountRecord>, StorageError> {
    match state.read(&StateKey::Account(address))? {
        Some(StateValue::Account(record)) => Ok(Some(record)),
        Some(_) => Err(StorageError::Corrupt { place: format!("account {address}"), detail: "the value is no account".into() }),
        None => Ok(None),
    }
}

fn account_at(tries: &Tries<'_>, root: B256, key: &B256) -> Result<Option<TrieAccount>, StorageError> {
    tries.get(root, key)?.map(|value| decode_account(&value)).transpose()
}

fn decode_account(value: &[u8]) -> Result<TrieAccount, StorageError> {
    decode(value, "account in a trie")
}

fn decode<T: Decodable>(mut value: &[u8], place: &str) -> Result<T, StorageError> {
    let damaged = |detail: String| StorageError::Corrupt { place: place.into(), detail };
    let decoded = T::decode(&mut value).map_err(|error| damaged(error.to_string()))?;
    if value.is_empty() { Ok(decoded) } else { Err(damaged("bytes follow the value".into())) }
}

/// How many accounts and slots a trie holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Accounts.
    pub accounts: u64,
    /// Their slots.
    pub slots: u64,
}

/// Reads every node, account and slot of the account trie `after` that `before` does not have, and checks their hashes; over an empty
/// trie before, all of them. Gives how many accounts and slots it saw, which for a trie over another may include neighbours of changes.
pub fn check(before: B256, after: B256, nodes: &ReadNode<'_>) -> Result<Counts, StorageError> {
    let tries = Tries::new(nodes);
    let mut counts = Counts::default();
    tries.visit_new(before, after, &mut |key, value| {
        counts.accounts += 1;
        let storage = decode_account(&value)?.storage_root;
        let old = account_at(&tries, before, &key)?.map_or(EMPTY_ROOT, |account| account.storage_root);
        tries.visit_new(old, storage, &mut |_, value| {
            counts.slots += 1;
            decode::<U256>(&value, "slot in a trie").map(drop)
        })
    })?;
    Ok(counts)
}

/// The account root of these values by a build from scratch, which shares nothing with [`update`] but the form of an account. For states
/// that fit in memory.
pub fn build(values: &[(StateKey, StateValue)]) -> B256 {
    let writes = values.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    let leaves = touched(&writes).into_iter().filter_map(|(address, Touched { record, slots })| {
        let record = record.flatten();
        let slots = slot_changes(record.unwrap_or_default().incarnation, &slots);
        let storage_root = build_trie(slots.into_iter().filter_map(|(key, value)| Some((key, value?))).collect());
        Some((path(&keccak256(address)), leaf_of(record, storage_root)?))
    });
    build_trie(leaves.collect())
}

fn build_trie(mut pairs: Vec<(Nibbles, Vec<u8>)>) -> B256 {
    pairs.sort_unstable_by_key(|pair| pair.0);
    let mut builder = HashBuilder::default();
    for (key, value) in pairs {
        builder.add_leaf(key, &value);
    }
    builder.root()
}

/// An account with proofs against a block's state root, as `eth_getProof` gives them (EIP-1186).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountProof {
    /// The account.
    pub address: Address,
    /// Its nonce; 0 when there is no such account.
    pub nonce: u64,
    /// Its balance.
    pub balance: U256,
    /// Keccak of its code.
    pub code_hash: B256,
    /// Root of its storage trie.
    pub storage_root: B256,
    /// Nodes from the state root to the account, or to where it would be.
    pub nodes: Vec<Bytes>,
    /// Proofs of the slots asked for, in order.
    pub slots: Vec<SlotProof>,
}

/// A slot with its proof against the storage root of its account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotProof {
    /// The slot.
    pub index: U256,
    /// Its value; 0 when it was never written.
    pub value: U256,
    /// Nodes from the storage root to the slot, or to where it would be.
    pub nodes: Vec<Bytes>,
}

/// The accounts and storage of one block, read from its tries: a state without tables.
pub struct TrieState<'a> {
    root: B256,
    below: &'a dyn StateReader,
    /// The account whose slots were read last.
    last: RefCell<Option<(Address, B256)>>,
    asked_for_tables: Cell<bool>,
}

impl<'a> TrieState<'a> {
    /// The state with this account root. `below` has the nodes and the codes, which are named by their hashes and never change.
    pub fn new(root: B256, below: &'a dyn StateReader) -> Self {
        Self { root, below, last: RefCell::default(), asked_for_tables: Cell::new(false) }
    }

    /// Whether a row was asked for: what was computed over this state then means nothing.
    pub fn asked_for_tables(&self) -> bool {
        self.asked_for_tables.get()
    }

    /// Proves an account and some of its slots.
    pub fn prove(&self, address: Address, slots: &[U256]) -> Result<AccountProof, StorageError> {
        let read = |hash: &B256| self.below.node(hash);
        let tries = Tries::new(&read);
        let Proof { value, nodes } = tries.prove(self.root, &keccak256(address))?;
        let account = value.map(|value| decode_account(&value)).transpose()?.unwrap_or_default();
        let TrieAccount { nonce, balance, storage_root, code_hash } = account;
        let slots = slots.iter().map(|index| {
            let Proof { value, nodes } = tries.prove(storage_root, &keccak256(index.to_be_bytes::<32>()))?;
            let value = value.map(|value| decode(&value, "slot in a trie")).transpose()?.unwrap_or_default();
            Ok(SlotProof { index: *index, value, nodes })
        });
        let slots = slots.collect::<Result<_, StorageError>>()?;
        Ok(AccountProof { address, nonce, balance, code_hash, storage_root, nodes, slots })
    }

    fn account(&self, address: Address) -> Result<Option<TrieAccount>, StorageError> {
        account_at(&Tries::new(&|hash| self.below.node(hash)), self.root, &keccak256(address))
    }

    fn storage_root(&self, address: Address) -> Result<B256, StorageError> {
        if let Some((_, root)) = self.last.borrow().filter(|last| last.0 == address) {
            return Ok(root);
        }
        let root = self.account(address)?.map_or(EMPTY_ROOT, |account| account.storage_root);
        self.last.replace(Some((address, root)));
        Ok(root)
    }

    fn slot(&self, address: Address, index: U256) -> Result<Option<StateValue>, StorageError> {
        let root = self.storage_root(address)?;
        let value = Tries::new(&|hash| self.below.node(hash)).get(root, &keccak256(index.to_be_bytes::<32>()))?;
        Ok(value.map(|value| decode(&value, "slot in a trie")).transpose()?.map(StateValue::Slot))
    }
}

impl StateReader for TrieState<'_> {
    /// A row reads as absent and is noted, but for the one that every execution reads. Incarnations are those of the present only: tries have none.
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        match key {
            StateKey::Account(address) => Ok(self.account(*address)?.map(|account| {
                let TrieAccount { nonce, balance, code_hash, .. } = account;
                StateValue::Account(AccountRecord { nonce, balance, code_hash, incarnation: 0 })
            })),
            StateKey::Slot(address, _, index) => self.slot(*address, *index),
            StateKey::Code(_) => self.below.read(key),
            // Restrictions of today do not hold for the past.
            StateKey::Row(table, _) if **table == *system::GUARDS => Ok(None),
            StateKey::Row(..) => {
                self.asked_for_tables.set(true);
                Ok(None)
            }
        }
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        self.below.node(hash)
    }
}

/// The RLP of an account's value in the trie, for those who verify proofs.
pub fn account_value(proof: &AccountProof) -> Vec<u8> {
    let mut bytes = Vec::new();
    TrieAccount::new(proof.nonce, proof.balance, proof.storage_root, proof.code_hash).encode(&mut bytes);
    bytes
}

#[cfg(test)]
#[path = "mpt/tests.rs"]
mod tests;
