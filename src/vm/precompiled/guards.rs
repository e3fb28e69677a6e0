//! What stands between an origin and an account or a contract: frozen ones, managers, and which of these checks a group uses at all.
//!
//! Invariant: whoever restricts something first arms the guard for it ([`arm`]), so a group that never froze, restricted or charged
//! anything answers every such question with the one row of [`system::GUARDS`], which the executor reads once a transaction. A guard
//! stays armed for ever: the row is written a few times in a group's life, so parallel transactions do not conflict on it.
//!
//! All of it is rows read through the transaction's state. 2.x keeps them in the contract's own table `c_<address>`, and so do we.
//! Called by the executor and by the contracts that restrict.

use std::sync::{Arc, LazyLock};

use millrace_base::{Address, Bytes, hex};
use millrace_core::overlay::Journal;
use millrace_core::table::{Condition, Schema, Table, TableError, access, system};
use millrace_core::{Entry, StateKey, StateReader, StateValue, StorageError};

use super::Failure;
use super::contract::{Invocation, refused};
use super::tables::{MAX_LISTED, Writer, contract_table, field, fields, system_table};

/// The one key of [`system::GUARDS`].
const ARMED: &[u8] = b"armed";
static ARMED_KEY: LazyLock<StateKey> = LazyLock::new(|| StateKey::Row(system::GUARDS.into(), ARMED.into()));

/// Key of an account's row that says whether it is frozen.
const FROZEN: &[u8] = b"frozen";
/// Key of a contract's rows that name its managers.
const AUTHORITY: &[u8] = b"authority";

/// A kind of check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guard {
    /// Accounts or contracts were frozen.
    Frozen,
    /// Writers of contracts were named.
    Writers,
    /// Gas was charged to accounts.
    Charge,
}

impl Guard {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Frozen => b"frozen",
            Self::Writers => b"writers",
            Self::Charge => b"charge",
        }
    }
}

/// The checks that a group uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Guards {
    /// Whether anything was ever frozen.
    pub frozen: bool,
    /// Whether writers of a contract were ever named.
    pub writers: bool,
    /// Whether gas was ever charged.
    pub charge: bool,
}

impl Guards {
    /// Those armed in a state. One read, of a row that most groups do not have.
    pub fn load(state: &dyn StateReader) -> Result<Self, StorageError> {
        let mut guards = Self::default();
        if let Some(StateValue::Row(rows)) = state.read(&ARMED_KEY)? {
            let is_armed = |guard: Guard| rows.iter().any(|row| field(row, "value") == guard.name());
            guards = Self { frozen: is_armed(Guard::Frozen), writers: is_armed(Guard::Writers), charge: is_armed(Guard::Charge) };
        }
        Ok(guards)
    }

    fn has(self, guard: Guard) -> bool {
        match guard {
            Guard::Frozen => self.frozen,
            Guard::Writers => self.writers,
            Guard::Charge => self.charge,
        }
    }
}

/// Switches a check on for ever.
pub(super) fn arm(journal: &mut Journal<'_>, guard: Guard) -> Result<(), TableError> {
    if !Guards::load(journal)?.has(guard) {
        system_table(system::GUARDS).insert(journal, ARMED, fields([("value", guard.name())]))?;
    }
    Ok(())
}

/// The rows of an account or contract that are not its storage.
fn account_table(address: Address) -> Table {
    Table::with_schema(Schema::new(&contract_table(address), "key", "value"))
}

/// The value of the only row under `key`.
pub(super) fn account_value(state: &dyn StateReader, address: Address, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
    let rows = account_table(address).entries(state, key)?;
    Ok(rows.first().map(|row| Bytes::copy_from_slice(field(row, "value"))))
}

/// Writes the only row under `key`.
pub(super) fn set_account_value(journal: &mut Journal<'_>, address: Address, key: &[u8], value: &[u8]) -> Result<(), TableError> {
    let table = account_table(address);
    let row = fields([("value", value)]);
    if table.update(journal, key, &row, &Condition::new())? == 0 {
        table.insert(journal, key, row)?;
    }
    Ok(())
}

/// Name and value of the row that keeps `value` under `key`, for writes made beside a journal.
pub(crate) fn account_row(address: Address, key: &[u8], value: Bytes) -> (StateKey, StateValue) {
    let table = contract_table(address);
    let mut fields = fields([("key", key)]);
    fields.insert("value".into(), value);
    (StateKey::Row(table.into(), key.into()), StateValue::Row(Arc::new(vec![Entry { id: 0, fields }])))
}

/// Whether an account or contract is frozen; ask only when [`Guards::frozen`] is armed.
pub(crate) fn is_frozen(state: &dyn StateReader, address: Address) -> Result<bool, StorageError> {
    Ok(account_value(state, address, FROZEN)?.is_some_and(|value| &value[..] == b"true"))
}

/// Freezes or, with `false` as text, thaws.
pub(super) fn set_frozen(journal: &mut Journal<'_>, address: Address, frozen: Frozen) -> Result<(), TableError> {
    arm(journal, Guard::Frozen)?;
    let value: &[u8] = if frozen == Frozen::Yes { b"true" } else { b"false" };
    set_account_value(journal, address, FROZEN, value)
}

/// What [`set_frozen`] makes of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frozen {
    Yes,
    No,
}

/// Whether `origin` may write the storage of `contract` in block `number`; ask only when [`Guards::writers`] is armed.
pub(crate) fn may_write_storage(state: &dyn StateReader, contract: Address, origin: Address, number: u64) -> Result<bool, StorageError> {
    access::may_write(state, &contract_table(contract), origin, number.saturating_sub(1))
}

/// Names the origin as the manager of a contract that it creates: the only one, also where an earlier contract destroyed itself.
pub(crate) fn record_creator(journal: &mut Journal<'_>, contract: Address, origin: Address) {
    let (key, value) = account_row(contract, AUTHORITY, Bytes::from(hex::encode(origin).into_bytes()));
    journal.set(key, Some(value));
}

/// The key that [`record_creator`] writes.
pub(crate) fn managers_key(contract: Address) -> StateKey {
    StateKey::Row(contract_table(contract).into(), AUTHORITY.into())
}

/// The managers of a contract in the order they were named.
pub(super) fn managers(state: &dyn StateReader, contract: Address) -> Result<Vec<Address>, StorageError> {
    let rows = account_table(contract).entries(state, AUTHORITY)?;
    let address = |row: &Entry| {
        let mut bytes = [0; 20];
        hex::decode_to_slice(field(row, "value"), &mut bytes).ok().map(|()| Address::new(bytes))
    };
    Ok(rows.iter().filter_map(address).collect())
}

/// Adds a manager.
pub(super) fn add_manager(journal: &mut Journal<'_>, contract: Address, manager: Address) -> Result<(), Failure> {
    if managers(journal, contract)?.len() >= MAX_LISTED {
        return Err(refused(format!("a contract has at most {MAX_LISTED} managers")));
    }
    let value = hex::encode(manager);
    account_table(contract).insert(journal, AUTHORITY, fields([("value", value.as_bytes())]))?;
    Ok(())
}

/// Removes a manager.
pub(super) fn remove_manager(journal: &mut Journal<'_>, contract: Address, manager: Address) -> Result<(), Failure> {
    let of_manager = Condition::equal("value", hex::encode(manager).into_bytes());
    Writer::Contract.remove(journal, &account_table(contract), AUTHORITY, &of_manager)?;
    Ok(())
}

/// What is at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing.
    Missing,
    /// Something without code.
    Account,
    /// Code.
    Contract,
}

impl Kind {
    /// As the transaction sees it. An account exists once it created a contract or was given gas.
    pub fn of(invocation: &mut Invocation<'_, '_, '_>, address: Address) -> Result<Self, Failure> {
        let context = &mut *invocation.context;
        Ok(if context.accounts.code_len(address)? > 0 {
            Self::Contract
        } else if context.accounts.exists(address)? || account_value(context.journal, address, super::gas_charge::REMAINING)?.is_some() {
            Self::Account
        } else {
            Self::Missing
        })
    }
}
