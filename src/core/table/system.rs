//! The system tables: their names and schemas, what they hold at genesis, and the two that govern a group, `_sys_config_` and
//! `_sys_consensus_`.
//!
//! **When a change governs.** A transaction of block N that changes a setting or a role takes effect with block N + 1
//! (`spec/node-semantics.md` 1.4). Rows are written at once, so they say from which block they hold (`enable_num`, here N + 1) and keep
//! the value they replaced in `previous`. Readers name the block they ask for: for N they get the old value although the new one is
//! written, for N + 1 the new one. One previous value is enough, since nobody asks for blocks before the one being executed.
//!
//! (2.x writes N into `enable_num` and gets the same effect by reading before the block's writes are there. Clients cannot see the
//! field of these two tables.)

use std::sync::Arc;

use millrace_base::{Bytes, NodeId};

use super::{Fields, Schema, TableError, wrong_kind};
use crate::overlay::{Journal, Writes};
use crate::state::{Entry, StateKey, StateReader, StateValue};
use crate::storage::StorageError;

/// Schemas of user tables.
pub const TABLES: &str = "_sys_tables_";
/// Members and their roles, all under the key [`MEMBERS_KEY`].
pub const CONSENSUS: &str = "_sys_consensus_";
/// On-chain settings.
pub const CONFIG: &str = "_sys_config_";
/// Who may write a table.
pub const TABLE_ACCESS: &str = "_sys_table_access_";
/// Contract names.
pub const CNS: &str = "_sys_cns_";
/// Votes of the committee.
pub const COMMITTEE_VOTES: &str = "_sys_committee_votes_";
/// Which restrictions the group uses at all.
pub const GUARDS: &str = "_sys_guards_";
/// Accounts that may give others gas.
pub const CHARGERS: &str = "_sys_chargers_";

/// Primary key of all rows of [`CONSENSUS`].
pub const MEMBERS_KEY: &str = "node";
/// The field that says from which block a row holds.
pub const ENABLE_NUMBER: &str = "enable_num";

const PREVIOUS: &str = "previous";
const VALUE: &str = "value";
const KIND: &str = "type";
const NODE_ID: &str = "node_id";

/// Name, key field and value fields. The tables of blocks and indices of 2.x are spaces of our database instead.
const SCHEMAS: [(&str, &str, &str); 8] = [
    (TABLES, "table_name", "key_field,value_field"),
    (CONSENSUS, "name", "type,node_id,enable_num,previous"),
    (TABLE_ACCESS, "table_name", "address,enable_num"),
    (CONFIG, "key", "value,enable_num,previous"),
    (CNS, "name", "version,address,abi"),
    (COMMITTEE_VOTES, "key", "value,origin,block_limit"),
    (GUARDS, "key", "value"),
    (CHARGERS, "key", "address"),
];

/// The schema of a system table.
pub fn schema(name: &str) -> Option<Schema> {
    let (name, key_field, value_fields) = SCHEMAS.iter().find(|(known, ..)| *known == name)?;
    Some(Schema::new(name, key_field, value_fields))
}

/// Who takes part in a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Voting members, sorted.
    pub sealers: Vec<NodeId>,
    /// Observers, sorted.
    pub observers: Vec<NodeId>,
}

/// A member's part in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Votes.
    Sealer,
    /// Follows without a vote.
    Observer,
}

impl Role {
    /// As `_sys_consensus_` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Sealer => "sealer",
            Role::Observer => "observer",
        }
    }

    /// `None` for a node that is not (or no longer) a member.
    fn parse(name: &[u8]) -> Option<Self> {
        [Role::Sealer, Role::Observer].into_iter().find(|role| role.name().as_bytes() == name)
    }
}

/// What `_sys_config_` and `_sys_consensus_` hold at genesis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GenesisState {
    /// Initial sealers.
    pub sealers: Vec<NodeId>,
    /// `_sys_config_` rows: key and value.
    pub config: Vec<(String, String)>,
}

/// The writes of block 0: system tables and their rows.
pub fn genesis_writes(genesis: &GenesisState) -> Writes {
    let nothing = Nothing;
    let mut journal = Journal::new(&nothing);
    let mut sealers = genesis.sealers.clone();
    sealers.sort_unstable();
    sealers.dedup();
    let entries = sealers.iter().zip(0..).map(|(sealer, id)| Entry { id, fields: member_fields(sealer, Role::Sealer.name(), 0, None) });
    put(&mut journal, CONSENSUS, MEMBERS_KEY, entries.collect());
    for (key, value) in &genesis.config {
        let entry = Entry { id: 0, fields: config_fields(key, Bytes::from(value.clone().into_bytes()), 0, None) };
        put(&mut journal, CONFIG, key, vec![entry]);
    }
    journal.into_writes()
}

/// Whether rows of this table decide who votes and under which settings: a block that writes one may end its epoch.
pub fn governs(table: &str) -> bool {
    table == CONFIG || table == CONSENSUS
}

/// An on-chain setting as it governs block `number` (rows whose `enable_num` is at most that).
pub fn config(state: &dyn StateReader, key: &str, number: u64) -> Result<Option<String>, StorageError> {
    let entries = entries(state, CONFIG, key)?;
    let Some(entry) = entries.first() else { return Ok(None) };
    governing(entry, VALUE, number).map(|value| text(value, key)).transpose()
}

/// Sets an on-chain setting from block `enable_number` on, which is the one after the block in execution.
pub fn set_config(journal: &mut Journal<'_>, key: &str, value: &str, enable_number: u64) -> Result<(), TableError> {
    let entries = entries(journal, CONFIG, key)?;
    let previous = entries.first().and_then(|entry| governing(entry, VALUE, enable_number.saturating_sub(1))).cloned();
    let fields = config_fields(key, Bytes::copy_from_slice(value.as_bytes()), enable_number, previous);
    put(journal, CONFIG, key, vec![Entry { id: 0, fields }]);
    Ok(())
}

/// Members as they govern block `number`.
pub fn members(state: &dyn StateReader, number: u64) -> Result<Members, StorageError> {
    let mut members = Members::default();
    for entry in entries(state, CONSENSUS, MEMBERS_KEY)?.iter() {
        let node = node_of(entry)?;
        match governing(entry, KIND, number).and_then(|kind| Role::parse(kind)) {
            Some(Role::Sealer) => members.sealers.push(node),
            Some(Role::Observer) => members.observers.push(node),
            None => {}
        }
    }
    members.sealers.sort_unstable();
    members.observers.sort_unstable();
    Ok(members)
}

/// A node's role as it governs block `number`.
pub fn role(state: &dyn StateReader, node: &NodeId, number: u64) -> Result<Option<Role>, StorageError> {
    let members = members(state, number)?;
    let is_in = |list: &[NodeId]| list.binary_search(node).is_ok();
    Ok(if is_in(&members.sealers) {
        Some(Role::Sealer)
    } else if is_in(&members.observers) {
        Some(Role::Observer)
    } else {
        None
    })
}

/// Gives a node a role, or takes it out of the group, from block `enable_number` on, which is the one after the block in execution.
/// Gives back whether the node was a member or is one now, after the changes already made for that block.
///
/// That a group keeps at least one sealer is for the caller to see to.
pub fn set_member(journal: &mut Journal<'_>, node: &NodeId, role: Option<Role>, enable_number: u64) -> Result<bool, TableError> {
    let current = enable_number.saturating_sub(1);
    let mut rows = Vec::clone(&*entries(journal, CONSENSUS, MEMBERS_KEY)?);
    // What was removed in earlier blocks is of no use to anybody any more.
    rows.retain(|entry| [current, enable_number].iter().any(|number| governing(entry, KIND, *number).is_some_and(|kind| !kind.is_empty())));
    let next_id = rows.last().map_or(0, |last| last.id + 1);
    let mut position = None;
    for (index, entry) in rows.iter().enumerate() {
        if node_of(entry)? == *node {
            position = Some(index);
        }
    }
    let before = position.and_then(|index| governing(&rows[index], KIND, current)).cloned();
    let was_member = position.and_then(|index| governing(&rows[index], KIND, enable_number)).is_some_and(|kind| !kind.is_empty());
    let fields = member_fields(node, role.map_or("", Role::name), enable_number, before);
    match position {
        Some(index) => rows[index].fields = fields,
        None if role.is_some() => rows.push(Entry { id: next_id, fields }),
        None => {}
    }
    put(journal, CONSENSUS, MEMBERS_KEY, rows);
    Ok(was_member || role.is_some())
}

/// A number that an entry holds as text.
pub fn number_field(entry: &Entry, field: &str) -> Option<u64> {
    std::str::from_utf8(entry.fields.get(field)?).ok()?.parse().ok()
}

/// The field's value at block `number`: its own if the row holds by then, else the one it replaced.
fn governing<'a>(entry: &'a Entry, field: &str, number: u64) -> Option<&'a Bytes> {
    let holds = number_field(entry, ENABLE_NUMBER).is_none_or(|enabled| enabled <= number);
    entry.fields.get(if holds { field } else { PREVIOUS })
}

fn config_fields(key: &str, value: Bytes, enable_number: u64, previous: Option<Bytes>) -> Fields {
    let fields = [("key", Bytes::copy_from_slice(key.as_bytes())), (VALUE, value)];
    with_previous(fields.into_iter(), enable_number, previous)
}

fn member_fields(node: &NodeId, kind: &str, enable_number: u64, previous: Option<Bytes>) -> Fields {
    let fields = [
        ("name", Bytes::from_static(MEMBERS_KEY.as_bytes())),
        (KIND, Bytes::copy_from_slice(kind.as_bytes())),
        (NODE_ID, Bytes::from(node.to_string().into_bytes())),
    ];
    with_previous(fields.into_iter(), enable_number, previous)
}

fn with_previous(fields: impl Iterator<Item = (&'static str, Bytes)>, enable_number: u64, previous: Option<Bytes>) -> Fields {
    let enabled = (ENABLE_NUMBER, Bytes::from(enable_number.to_string().into_bytes()));
    fields.chain([enabled]).chain(previous.map(|previous| (PREVIOUS, previous))).map(|(name, value)| (Arc::from(name), value)).collect()
}

fn node_of(entry: &Entry) -> Result<NodeId, StorageError> {
    let node = entry.fields.get(NODE_ID).and_then(|id| NodeId::parse(std::str::from_utf8(id).ok()?).ok());
    node.ok_or_else(|| StorageError::Corrupt { place: CONSENSUS.into(), detail: format!("entry {} names no node", entry.id) })
}

fn text(value: &Bytes, key: &str) -> Result<String, StorageError> {
    String::from_utf8(value.to_vec())
        .map_err(|_| StorageError::Corrupt { place: format!("{CONFIG} row {key:?}"), detail: "the value is no text".into() })
}

fn entries(state: &dyn StateReader, table: &str, key: &str) -> Result<Arc<Vec<Entry>>, StorageError> {
    let key = StateKey::Row(table.into(), key.as_bytes().into());
    match state.read(&key)? {
        Some(StateValue::Row(entries)) => Ok(entries),
        Some(_) => Err(wrong_kind(&key)),
        None => Ok(Arc::default()),
    }
}

fn put(journal: &mut Journal<'_>, table: &str, key: &str, entries: Vec<Entry>) {
    let value = (!entries.is_empty()).then(|| StateValue::Row(Arc::new(entries)));
    journal.set(StateKey::Row(table.into(), key.as_bytes().into()), value);
}

/// The state before genesis.
struct Nothing;

impl StateReader for Nothing {
    fn read(&self, _: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(None)
    }
}

#[cfg(test)]
#[path = "system/tests.rs"]
mod tests;
