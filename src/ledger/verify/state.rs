//! The state part of the database check: every stored value against the commitment of the head.
//!
//! With storage state the multiset hash of all values is recomputed. With tries only rows are hashed; accounts and slots are looked up
//! in the head's tries one by one, and the tries are walked to see that they hold nothing else.

use std::ops::ControlFlow;

use millrace_base::{Address, B256, Bytes, keccak256};
use millrace_core::mpt::{self, Counts, TrieState};
use millrace_core::state::codec;
use millrace_core::storage::StorageView;
use millrace_core::trie::EMPTY_ROOT;
use millrace_core::{AccountRecord, Space, StateCommitment, StateKey, StateKind, StateReader, StateValue, StorageError};

use super::{Progress, Tip, VerifyError};
use crate::state_sum::StateSum;

/// Stored values as a state.
struct Stored<'a>(&'a dyn StorageView);

impl StateReader for Stored<'_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let bytes = self.0.get(Space::State, &codec::encode_key(key))?;
        bytes.map(|bytes| codec::decode_value(key, &bytes)).transpose()
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.get(Space::Trie, hash.as_slice())?.map(Bytes::from))
    }
}

/// Compares accounts and slots with the head's tries as they come, accounts before slots, each in order of its address.
struct TrieCheck<'a> {
    stored: &'a Stored<'a>,
    tries: TrieState<'a>,
    found: Counts,
    /// The account whose slots come now.
    owner: Option<(Address, Option<AccountRecord>)>,
}

impl TrieCheck<'_> {
    fn value(&mut self, key: &StateKey, value: &StateValue) -> Result<(), StorageError> {
        match (key, value) {
            (StateKey::Account(address), StateValue::Account(record)) => self.account(*address, record),
            (StateKey::Slot(address, incarnation, _), value) => self.slot(*address, *incarnation, key, value),
            (StateKey::Code(hash), StateValue::Code(code)) if keccak256(code) != *hash => Err(differs(key, "its hash is another")),
            _ => Ok(()),
        }
    }

    fn account(&mut self, address: Address, record: &AccountRecord) -> Result<(), StorageError> {
        let key = StateKey::Account(address);
        match self.tries.read(&key)? {
            Some(StateValue::Account(proven)) if AccountRecord { incarnation: record.incarnation, ..proven } == *record => {
                self.found.accounts += 1;
                Ok(())
            }
            None if *record == (AccountRecord { incarnation: record.incarnation.max(1), ..AccountRecord::default() }) => Ok(()),
            _ => Err(differs(&key, "the state trie says otherwise")),
        }
    }

    /// Storage alone makes an account, too: one of which the trie says nothing else.
    fn storage_alone(&mut self, address: Address) -> Result<(), StorageError> {
        let key = StateKey::Account(address);
        if self.tries.read(&key)? != Some(StateValue::Account(AccountRecord::default())) {
            return Err(differs(&key, "the state trie says otherwise"));
        }
        self.found.accounts += 1;
        Ok(())
    }

    fn slot(&mut self, address: Address, incarnation: u32, key: &StateKey, value: &StateValue) -> Result<(), StorageError> {
        let record = match self.owner {
            Some((owner, record)) if owner == address => record,
            _ => {
                let record = match self.stored.read(&StateKey::Account(address))? {
                    Some(StateValue::Account(record)) => Some(record),
                    _ => None,
                };
                if record.is_none() {
                    self.storage_alone(address)?;
                }
                self.owner = Some((address, record));
                record
            }
        };
        if record.unwrap_or_default().incarnation != incarnation {
            return Ok(());
        }
        if self.tries.read(key)?.as_ref() != Some(value) {
            return Err(differs(key, "the storage trie says otherwise"));
        }
        self.found.slots += 1;
        Ok(())
    }
}

fn differs(key: &StateKey, detail: &str) -> StorageError {
    StorageError::Corrupt { place: format!("{key:?}"), detail: detail.into() }
}

/// The number of values, and the commitment that they give.
pub(super) fn recompute(
    view: &dyn StorageView,
    kind: StateKind,
    head: &Tip,
    progress: &mut dyn FnMut(Progress),
) -> Result<(u64, StateCommitment), VerifyError> {
    let (stored, accounts) = (Stored(view), head.account_root());
    let mut sum = StateSum::default();
    let mut check = TrieCheck { stored: &stored, tries: TrieState::new(accounts, &stored), found: Counts::default(), owner: None };
    let (mut count, mut fault) = (0_u64, None);
    view.scan(Space::State, &[], &[], &mut |key, value| {
        let checked = codec::decode_key(key).and_then(|decoded| {
            if kind == StateKind::Storage || matches!(decoded, StateKey::Row(..)) {
                return sum.add(key, value);
            }
            check.value(&decoded, &codec::decode_value(&decoded, value)?)
        });
        if let Err(error) = checked {
            fault = Some(error);
            return ControlFlow::Break(());
        }
        count += 1;
        if count.is_multiple_of(4096) {
            progress(Progress::State(count));
        }
        ControlFlow::Continue(())
    })?;
    progress(Progress::State(count));
    if let Some(error) = fault {
        return Err(error.into());
    }
    if kind == StateKind::Storage {
        return Ok((count, StateCommitment::Storage(sum.into_accumulator())));
    }
    let held = mpt::check(EMPTY_ROOT, accounts, &|hash| stored.node(hash))?;
    if held != check.found {
        let detail = format!("the tries hold {held:?}, the stored values {:?}", check.found);
        return Err(StorageError::Corrupt { place: "state".into(), detail }.into());
    }
    Ok((count, StateCommitment::Mpt { accounts, tables: sum.into_accumulator() }))
}
