//! State keys and values as bytes: in [`crate::Space::State`] and as the input of the state root.
//!
//! Invariants: the order of encoded keys is the order of [`StateKey`], so sorted writes are sorted in storage; every key and value has
//! exactly one encoding, because the state root hashes it. Decoding refuses everything that encoding does not produce and takes
//! no more memory than a small multiple of its input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_base::{Address, B256, Bytes, U256, hex};

use crate::state::{AccountRecord, Entry, StateKey, StateValue};
use crate::storage::StorageError;

const TAG_ACCOUNT: u8 = 0;
const TAG_CODE: u8 = 1;
const TAG_SLOT: u8 = 2;
const TAG_ROW: u8 = 3;

/// Ends a table name. A zero byte of the name itself is followed by [`ESCAPE`], which is greater, so a name sorts before its extensions.
const TERMINATOR: u8 = 1;
const ESCAPE: u8 = 0xff;

/// The key's bytes in [`crate::Space::State`]; their order is the order of [`StateKey`].
pub fn encode_key(key: &StateKey) -> Vec<u8> {
    match key {
        StateKey::Account(address) => [&[TAG_ACCOUNT], address.as_slice()].concat(),
        StateKey::Code(hash) => [&[TAG_CODE], hash.as_slice()].concat(),
        StateKey::Slot(address, incarnation, index) => {
            let mut bytes = Vec::with_capacity(57);
            bytes.push(TAG_SLOT);
            bytes.extend_from_slice(address.as_slice());
            bytes.extend_from_slice(&incarnation.to_be_bytes());
            bytes.extend_from_slice(&index.to_be_bytes::<32>());
            bytes
        }
        StateKey::Row(table, primary) => {
            let mut bytes = table_prefix(table);
            bytes.extend_from_slice(primary);
            bytes
        }
    }
}

/// What the encoded keys of all rows of a table start with, and no other key.
pub fn table_prefix(table: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(table.len() + 3 + 64);
    bytes.push(TAG_ROW);
    for byte in table.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(ESCAPE);
        }
    }
    bytes.extend_from_slice(&[0, TERMINATOR]);
    bytes
}

/// The inverse of [`encode_key`].
pub fn decode_key(bytes: &[u8]) -> Result<StateKey, StorageError> {
    key_from(bytes).ok_or_else(|| damaged("state key", bytes, "not an encoded state key"))
}

fn key_from(bytes: &[u8]) -> Option<StateKey> {
    let mut input = Input(bytes);
    let key = match input.byte()? {
        TAG_ACCOUNT => StateKey::Account(Address::from_slice(input.take(20)?)),
        TAG_CODE => StateKey::Code(B256::from_slice(input.take(32)?)),
        TAG_SLOT => {
            let address = Address::from_slice(input.take(20)?);
            let incarnation = u32::from_be_bytes(input.take(4)?.try_into().ok()?);
            StateKey::Slot(address, incarnation, U256::from_be_slice(input.take(32)?))
        }
        TAG_ROW => {
            let table = input.table_name()?;
            StateKey::Row(table, std::mem::take(&mut input.0).into())
        }
        _ => return None,
    };
    input.0.is_empty().then_some(key)
}

/// The value's bytes.
pub fn encode_value(value: &StateValue) -> Vec<u8> {
    match value {
        StateValue::Account(account) => encode_account(account),
        StateValue::Code(code) => code.to_vec(),
        StateValue::Slot(value) => value.to_be_bytes_trimmed_vec(),
        StateValue::Row(entries) => encode_entries(entries),
    }
}

/// The inverse of [`encode_value`]; the kind follows from the key.
pub fn decode_value(key: &StateKey, bytes: &[u8]) -> Result<StateValue, StorageError> {
    let value = match key {
        StateKey::Account(_) => account_from(bytes).map(StateValue::Account),
        StateKey::Code(_) => Some(StateValue::Code(Bytes::copy_from_slice(bytes))),
        StateKey::Slot(..) => number_from(bytes).map(StateValue::Slot),
        StateKey::Row(..) => entries_from(bytes).map(|entries| StateValue::Row(Arc::new(entries))),
    };
    value.ok_or_else(|| damaged("value of state key", &encode_key(key), "not an encoded value of that kind"))
}

/// Nonce, incarnation, balance as length and bytes, and the code hash only where there is code.
fn encode_account(account: &AccountRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    put_number(&mut bytes, account.nonce);
    put_number(&mut bytes, u64::from(account.incarnation));
    put_bytes(&mut bytes, &account.balance.to_be_bytes_trimmed_vec());
    if account.has_code() {
        bytes.extend_from_slice(account.code_hash.as_slice());
    }
    bytes
}

fn account_from(bytes: &[u8]) -> Option<AccountRecord> {
    let mut input = Input(bytes);
    let nonce = input.number()?;
    let incarnation = u32::try_from(input.number()?).ok()?;
    let balance = number_from(input.bytes()?)?;
    let code_hash = match input.0.len() {
        0 => AccountRecord::NO_CODE,
        32 => B256::from_slice(input.0),
        _ => return None,
    };
    let account = AccountRecord { nonce, balance, code_hash, incarnation };
    (account.has_code() != input.0.is_empty()).then_some(account)
}

fn number_from(bytes: &[u8]) -> Option<U256> {
    (bytes.len() <= 32 && bytes.first() != Some(&0)).then(|| U256::from_be_slice(bytes))
}

/// The field names that occur, sorted, then each entry as its id and pairs of (index of the name, value): names are stored once however
/// many entries a key has.
fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let names: BTreeSet<&str> = entries.iter().flat_map(|entry| entry.fields.keys().map(|name| &**name)).collect();
    let index_of: BTreeMap<&str, u64> = names.iter().copied().zip(0..).collect();
    let mut bytes = Vec::with_capacity(64 * (entries.len() + 1));
    put_number(&mut bytes, names.len() as u64);
    for name in &names {
        put_bytes(&mut bytes, name.as_bytes());
    }
    put_number(&mut bytes, entries.len() as u64);
    for entry in entries {
        put_number(&mut bytes, entry.id);
        put_number(&mut bytes, entry.fields.len() as u64);
        for (name, value) in &entry.fields {
            put_number(&mut bytes, index_of[&**name]);
            put_bytes(&mut bytes, value);
        }
    }
    bytes
}

fn entries_from(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut input = Input(bytes);
    let count = input.count()?;
    let mut names: Vec<Arc<str>> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = std::str::from_utf8(input.bytes()?).ok()?;
        if names.last().is_some_and(|last| **last >= *name) {
            return None;
        }
        names.push(name.into());
    }
    let mut is_used = vec![false; names.len()];
    let count = input.count()?;
    let mut entries = Vec::with_capacity(count.min(input.0.len() / 2 + 1));
    for _ in 0..count {
        let id = input.number()?;
        let mut fields = BTreeMap::new();
        let mut next = 0;
        for _ in 0..input.count()? {
            let index = usize::try_from(input.number()?).ok()?;
            if index < next || index >= names.len() {
                return None;
            }
            next = index + 1;
            is_used[index] = true;
            fields.insert(names[index].clone(), Bytes::copy_from_slice(input.bytes()?));
        }
        entries.push(Entry { id, fields });
    }
    (input.0.is_empty() && is_used.iter().all(|used| *used)).then_some(entries)
}

fn damaged(what: &str, key: &[u8], detail: &str) -> StorageError {
    let shown = &key[..key.len().min(64)];
    StorageError::Corrupt { place: format!("{what} {}", hex::encode(shown)), detail: detail.into() }
}

/// A number in groups of seven bits, lowest first; the high bit says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put_number(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// Refuses forms longer than necessary.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return None;
            }
            number |= group << shift;
            if byte < 0x80 {
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    /// A count of things of at least one byte each, so it never exceeds what is left.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn table_name(&mut self) -> Option<Arc<str>> {
        let mut name = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    TERMINATOR => break,
                    ESCAPE => name.push(0),
                    _ => return None,
                },
                byte => name.push(byte),
            }
        }
        Some(String::from_utf8(name).ok()?.into())
    }
}

#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
