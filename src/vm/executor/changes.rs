//! What a transaction changed, as writes of the group's state.
//!
//! Invariant: only values that differ from the state below appear, each key once, sorted. An account destroyed by its contract keeps a
//! record that says how often that happened: its old slots stay where they are, under a name nobody asks for again.

use millrace_core::overlay::{Journal, Writes};
use millrace_core::{AccountRecord, StateKey, StateReader, StateValue, StorageError};
use revm::context::{JournalEntry, JournalInner};
use revm::state::{Account, Bytecode};

use super::database::Database;
use crate::precompiled::guards;
use millrace_base::Address;

/// The writes of accounts and tables together.
pub(super) fn collect(
    accounts: &mut JournalInner<JournalEntry>,
    database: &Database<'_>,
    tables: Journal<'_>,
) -> Result<Writes, StorageError> {
    let mut writes = Writes::new();
    let mut vanished = Vec::new();
    for (address, account) in accounts.state.drain() {
        let incarnation = database.incarnation(address);
        if account.is_selfdestructed() {
            // A contract that this very transaction created leaves nothing behind, not even its manager.
            if account.is_created() {
                vanished.push(guards::managers_key(address));
            } else {
                let record = AccountRecord { incarnation: incarnation + 1, ..AccountRecord::default() };
                writes.push((StateKey::Account(address), Some(StateValue::Account(record))));
            }
            continue;
        }
        collect_account(&mut writes, address, incarnation, &account, database.state())?;
    }
    if !tables.is_unchanged() {
        for (key, value) in tables.into_writes() {
            if database.state().read(&key)? != value && !vanished.contains(&key) {
                writes.push((key, value));
            }
        }
    }
    writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    writes.dedup_by(|second, first| second.0 == first.0);
    Ok(writes)
}

fn collect_account(
    writes: &mut Writes,
    address: Address,
    incarnation: u32,
    account: &Account,
    state: &dyn StateReader,
) -> Result<(), StorageError> {
    if account.is_changed() {
        let (nonce, balance, code_hash) = (account.info.nonce, account.info.balance, account.info.code_hash);
        let record = AccountRecord { nonce, balance, code_hash, incarnation };
        writes.push((StateKey::Account(address), Some(StateValue::Account(record))));
    }
    if account.is_created() && account.info.code_hash != AccountRecord::NO_CODE {
        let key = StateKey::Code(account.info.code_hash);
        if state.read(&key)?.is_none() {
            let code = account.info.code.as_ref().map(Bytecode::original_bytes).unwrap_or_default();
            writes.push((key, Some(StateValue::Code(code))));
        }
    }
    for (index, slot) in account.changed_storage_slots() {
        let value = slot.present_value;
        let value = if value.is_zero() { None } else { Some(StateValue::Slot(value)) };
        writes.push((StateKey::Slot(address, incarnation, *index), value));
    }
    Ok(())
}
