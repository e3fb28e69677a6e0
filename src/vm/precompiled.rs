//! The registry of precompiled contracts and what they see of the transaction around them.
//!
//! The EVM binding calls [`run`] for every call whose code address [`is_contract`] says is ours, with a [`Call`] and the [`Context`] of
//! the transaction. Table writes go to the context's journal; when a frame of the EVM reverts, the binding rolls the journal back to
//! the savepoint it took when the frame began. Gas: the binding charges `Outcome::gas_used`, and runs out of gas when that is more
//! than was given.

use millrace_base::{Address, Bytes};
use millrace_core::StorageError;
use millrace_core::overlay::Journal;

use crate::environment::BlockEnvironment;

/// The accounts of the transaction in progress, as the EVM sees them.
pub trait Accounts {
    /// Length of the code at an address.
    fn code_len(&mut self, address: Address) -> Result<usize, StorageError>;
    /// Creations by an account so far.
    fn nonce(&mut self, address: Address) -> Result<u64, StorageError>;
}

/// What a contract sees besides the call: the transaction's table writes, its temporary objects, the block.
pub struct Context<'j, 's> {
    /// Table reads and writes of the transaction.
    pub journal: &'j mut Journal<'s>,
    /// Tables, entries and conditions that the transaction opened.
    pub temporaries: &'j mut Temporaries,
    /// The EVM's accounts.
    pub accounts: &'j mut dyn Accounts,
    /// The block.
    pub block: &'j BlockEnvironment,
    /// Whether the group's genesis chose free storage, which has prices of its own.
    pub is_free_storage: bool,
}

/// One call of a precompiled contract.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The account that signed the transaction; authority is judged by it.
    pub origin: Address,
    /// The direct caller.
    pub sender: Address,
    /// The contract called.
    pub address: Address,
    /// Selector and arguments.
    pub input: &'a [u8],
}

/// A call that returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// ABI-encoded return data.
    pub output: Bytes,
    /// Gas of the work done, without the transaction's base cost.
    pub gas_used: u64,
}

/// A call that did not return.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The contract refuses: as a transaction status 21 with `Error(string)` output; inside a contract the call reverts with that data.
    #[error("{message}")]
    Refused {
        /// The text of `Error(string)`.
        message: String,
        /// Gas of the work done.
        gas_used: u64,
    },
    /// Storage failed; the transaction has no result.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The temporary objects of one transaction: Table, Entries, Entry and Condition live at addresses from 0x10001 on and die with it.
#[derive(Default)]
pub struct Temporaries;

/// Whether calls to this address run a contract of ours.
pub fn is_contract(_address: Address, _temporaries: &Temporaries) -> bool {
    false
}

/// Whether EXTCODESIZE of this address is 1 (README of the recordings, correction 8).
pub fn has_pseudo_code(_address: Address) -> bool {
    false
}

/// Runs a call of a contract for which [`is_contract`] holds.
pub fn run(_context: &mut Context<'_, '_>, _call: Call<'_>) -> Result<Outcome, Failure> {
    unimplemented!()
}
