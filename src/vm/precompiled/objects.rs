//! The temporary objects of a transaction: Table, KVTable, Entries, Entry and Condition, at addresses from 0x10001 on.
//!
//! Invariant: an object lives until its transaction ends, whatever reverts. 2.x counts through the block; here every transaction
//! starts anew, so that a transaction's result does not depend on what runs beside it.

use std::collections::BTreeMap;

use millrace_base::Address;
use millrace_core::Entry;
use millrace_core::table::{Condition, Fields, Table};

use super::condition::CONDITION;
use super::contract::Contract;
use super::entry::{ENTRIES, ENTRY};
use super::kv_table::KV_TABLE;
use super::number_of;
use super::table::TABLE;

/// Address of the first object of a transaction, less one.
const BASE: u64 = 0x10000;

#[derive(Debug)]
enum Object {
    Table(Table),
    KvTable(Table),
    Condition(Condition),
    Entry(usize),
    Entries {
        rows: Vec<Entry>,
        /// Rows that were taken out as objects, by index: taking one twice gives the same fields.
        taken: BTreeMap<usize, usize>,
    },
}

/// The temporary objects of one transaction: Table, KVTable, Entries, Entry and Condition live at addresses from 0x10001 on and die with it.
/// Their number is bounded by gas: each takes a call.
#[derive(Default, Debug)]
pub struct Temporaries {
    objects: Vec<Object>,
    entries: Vec<Fields>,
}

/// What an object can be.
pub(super) const KINDS: &[Contract] = &[TABLE, KV_TABLE, CONDITION, ENTRIES, ENTRY];

/// Whether an address is that of an object when `count` were opened.
pub(super) fn is_opened(number: u64, count: u64) -> bool {
    number > BASE && number - BASE <= count
}

impl Temporaries {
    /// How many objects there are.
    pub fn count(&self) -> u64 {
        self.objects.len() as u64
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.object(number).is_some()
    }

    /// The functions of the object at an address.
    pub(super) fn contract(&self, number: u64) -> Option<&'static Contract> {
        self.object(number).map(|object| match object {
            Object::Table(_) => &TABLE,
            Object::KvTable(_) => &KV_TABLE,
            Object::Condition(_) => &CONDITION,
            Object::Entry(_) => &ENTRY,
            Object::Entries { .. } => &ENTRIES,
        })
    }

    fn index(&self, number: u64) -> Option<usize> {
        number.checked_sub(BASE + 1).and_then(|index| usize::try_from(index).ok()).filter(|index| *index < self.objects.len())
    }

    fn object(&self, number: u64) -> Option<&Object> {
        self.index(number).map(|index| &self.objects[index])
    }

    fn object_mut(&mut self, address: Address) -> Option<&mut Object> {
        let index = self.index(number_of(address)?)?;
        Some(&mut self.objects[index])
    }

    fn add(&mut self, object: Object) -> Address {
        self.objects.push(object);
        let number = BASE + self.objects.len() as u64;
        Address::left_padding_from(&number.to_be_bytes())
    }

    pub(super) fn add_table(&mut self, table: Table) -> Address {
        self.add(Object::Table(table))
    }

    pub(super) fn table(&self, address: Address) -> Option<Table> {
        match self.object(number_of(address)?)? {
            Object::Table(table) => Some(table.clone()),
            _ => None,
        }
    }

    pub(super) fn add_kv_table(&mut self, table: Table) -> Address {
        self.add(Object::KvTable(table))
    }

    pub(super) fn kv_table(&self, address: Address) -> Option<Table> {
        match self.object(number_of(address)?)? {
            Object::KvTable(table) => Some(table.clone()),
            _ => None,
        }
    }

    pub(super) fn add_condition(&mut self) -> Address {
        self.add(Object::Condition(Condition::default()))
    }

    pub(super) fn condition(&self, address: Address) -> Option<&Condition> {
        match self.object(number_of(address)?)? {
            Object::Condition(condition) => Some(condition),
            _ => None,
        }
    }

    pub(super) fn condition_mut(&mut self, address: Address) -> Option<&mut Condition> {
        match self.object_mut(address)? {
            Object::Condition(condition) => Some(condition),
            _ => None,
        }
    }

    pub(super) fn add_entry(&mut self, fields: Fields) -> Address {
        self.entries.push(fields);
        self.add(Object::Entry(self.entries.len() - 1))
    }

    pub(super) fn entry(&self, address: Address) -> Option<&Fields> {
        match self.object(number_of(address)?)? {
            Object::Entry(index) => Some(&self.entries[*index]),
            _ => None,
        }
    }

    pub(super) fn entry_mut(&mut self, address: Address) -> Option<&mut Fields> {
        match self.object_mut(address)? {
            Object::Entry(index) => {
                let index = *index;
                Some(&mut self.entries[index])
            }
            _ => None,
        }
    }

    pub(super) fn add_entries(&mut self, rows: Vec<Entry>) -> Address {
        self.add(Object::Entries { rows, taken: BTreeMap::new() })
    }

    /// How many rows an Entries object holds.
    pub(super) fn entries_len(&self, address: Address) -> Option<usize> {
        match self.object(number_of(address)?)? {
            Object::Entries { rows, .. } => Some(rows.len()),
            _ => None,
        }
    }

    /// A new Entry object for a row of an Entries object; `None` when there is no such row.
    pub(super) fn take_entry(&mut self, address: Address, row: usize) -> Option<Address> {
        let next = self.entries.len();
        let Object::Entries { rows, taken } = self.object_mut(address)? else { return None };
        let fields = rows.get(row)?;
        let index = *taken.entry(row).or_insert(next);
        if index == next {
            let fields = fields.fields.clone();
            self.entries.push(fields);
        }
        Some(self.add(Object::Entry(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precompiled::tables::fields;
    use millrace_base::Bytes;

    #[test]
    fn objects_are_numbered_from_0x10001_on_and_known_by_their_kind() {
        let mut temporaries = Temporaries::default();
        let condition = temporaries.add_condition();
        let entry = temporaries.add_entry(Fields::new());
        assert_eq!(condition, Address::left_padding_from(&[1, 0, 1]));
        assert_eq!(entry, Address::left_padding_from(&[1, 0, 2]));
        assert!(temporaries.contains(0x10002) && !temporaries.contains(0x10003) && !temporaries.contains(0x10000));
        assert!(temporaries.entry(condition).is_none() && temporaries.condition(entry).is_none() && temporaries.table(entry).is_none());
    }

    #[test]
    fn a_row_taken_twice_is_the_same_entry() {
        let mut temporaries = Temporaries::default();
        let entries = temporaries.add_entries(vec![Entry { id: 1, fields: fields([("a", b"1")]) }]);
        let first = temporaries.take_entry(entries, 0).unwrap();
        let second = temporaries.take_entry(entries, 0).unwrap();
        assert_ne!(first, second);
        temporaries.entry_mut(first).unwrap().insert("a".into(), Bytes::from_static(b"2"));
        assert_eq!(temporaries.entry(second).unwrap()["a"].as_ref(), b"2");
        assert!(temporaries.take_entry(entries, 1).is_none());
    }
}
