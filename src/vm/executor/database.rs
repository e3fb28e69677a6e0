//! Group state as revm wants to read it.
//!
//! Accounts carry an incarnation that revm does not know; it is remembered here from the moment the account is read, so that the
//! account's slots are looked up under the right name. Analysed code is kept from transaction to transaction: it is named by its hash,
//! so what is kept can never be stale.

use std::collections::HashMap;

use millrace_base::{Address, B256, U256};
use millrace_core::{AccountRecord, StateKey, StateReader, StateValue, StorageError};
use revm::database_interface::DBErrorMarker;
use revm::state::{AccountInfo, Bytecode};

use crate::environment::BlockHashes;

/// Code that a [`CodeCache`] may hold, in bytes: room for over a thousand contracts of ordinary size.
const CODE_CACHE_BYTES: usize = 16 << 20;

/// Jump-analysed contract code by hash.
#[derive(Default)]
pub(super) struct CodeCache {
    codes: HashMap<B256, Bytecode>,
    bytes: usize,
}

impl CodeCache {
    /// Keeps `code`; starts over when the limit is reached.
    fn insert(&mut self, hash: B256, code: Bytecode) {
        if self.bytes + code.len() > CODE_CACHE_BYTES {
            self.codes.clear();
            self.bytes = 0;
        }
        self.bytes += code.len();
        self.codes.insert(hash, code);
    }
}

/// A storage error on its way through revm.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct DatabaseFailure(pub StorageError);

impl DBErrorMarker for DatabaseFailure {}

/// What the transaction in progress reads from.
pub(super) struct Database<'a> {
    state: &'a dyn StateReader,
    hashes: &'a dyn BlockHashes,
    codes: &'a mut CodeCache,
    /// Accounts read so far whose incarnation is not zero; nearly always empty.
    incarnations: Vec<(Address, u32)>,
}

impl<'a> Database<'a> {
    pub fn new(state: &'a dyn StateReader, hashes: &'a dyn BlockHashes, codes: &'a mut CodeCache) -> Self {
        Self { state, hashes, codes, incarnations: Vec::new() }
    }

    /// The incarnation of an account that was read.
    pub fn incarnation(&self, address: Address) -> u32 {
        self.incarnations.iter().find(|entry| entry.0 == address).map_or(0, |entry| entry.1)
    }

    /// The state below the transaction.
    pub fn state(&self) -> &'a dyn StateReader {
        self.state
    }
}

/// A value of another kind than its key asks for.
fn mixed_up(key: &StateKey) -> DatabaseFailure {
    DatabaseFailure(StorageError::Corrupt { place: format!("{key:?}"), detail: "the value is of another kind than the key".into() })
}

impl revm::Database for Database<'_> {
    type Error = DatabaseFailure;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, DatabaseFailure> {
        let key = StateKey::Account(address);
        let record = match self.state.read(&key).map_err(DatabaseFailure)? {
            None => return Ok(None),
            Some(StateValue::Account(record)) => record,
            Some(_) => return Err(mixed_up(&key)),
        };
        if record.incarnation != 0 {
            self.incarnations.push((address, record.incarnation));
        }
        let AccountRecord { nonce, balance, code_hash, .. } = record;
        Ok(Some(AccountInfo { balance, nonce, code_hash, code: None, account_id: None }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, DatabaseFailure> {
        if code_hash == AccountRecord::NO_CODE {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.codes.get(&code_hash) {
            return Ok(code.clone());
        }
        let key = StateKey::Code(code_hash);
        match self.state.read(&key).map_err(DatabaseFailure)? {
            Some(StateValue::Code(bytes)) => {
                let code = Bytecode::new_legacy(bytes);
                self.codes.insert(code_hash, code.clone());
                Ok(code)
            }
            Some(_) => Err(mixed_up(&key)),
            None => Err(DatabaseFailure(StorageError::Corrupt {
                place: format!("code {code_hash}"),
                detail: "an account names it, but it is not stored".into(),
            })),
        }
    }

    fn storage(&mut self, address: Address, index: U256) -> Result<U256, DatabaseFailure> {
        let key = StateKey::Slot(address, self.incarnation(address), index);
        match self.state.read(&key).map_err(DatabaseFailure)? {
            None => Ok(U256::ZERO),
            Some(StateValue::Slot(value)) => Ok(value),
            Some(_) => Err(mixed_up(&key)),
        }
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, DatabaseFailure> {
        Ok(self.hashes.block_hash(number).map_err(DatabaseFailure)?.unwrap_or_default())
    }
}
