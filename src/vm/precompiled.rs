//! The registry of precompiled contracts and what they see of the transaction around them.
//!
//! The EVM binding calls [`run`] for every call whose code address [`is_contract`] says is ours, with a [`Call`] and the [`Context`] of
//! the transaction. Table writes go to the context's journal; when a frame of the EVM reverts, the binding rolls the journal back to
//! the savepoint it took when the frame began. Gas: the binding charges `Outcome::gas_used`, and runs out of gas when that is more
//! than was given.
//!
//! # Adding a contract
//! One file that declares a [`Contract`], and one line in [`CONTRACTS`]. Addresses 0x5001 to 0xffff that 2.x left free are for users.
//! `hello_world.rs` is an example; `docs/precompiled.md` shows it and lists all functions.
//!
//! Results must depend on the journal, the accounts, the block and the call alone, and all work must be bounded by what gas pays for.

mod cns;
mod codes;
mod condition;
mod consensus;
mod contract;
mod crud;
mod crypto;
mod dag_transfer;
mod entry;
mod gas;
mod gas_charge;
mod governance;
pub(crate) mod guards;
#[cfg(test)]
mod hello_world;
mod json;
mod kv_table;
mod life_cycle;
mod objects;
mod parallel_config;
mod permission;
mod system_config;
mod table;
mod table_factory;
mod tables;
mod unavailable;

use millrace_base::abi::Selector;
use millrace_base::{Address, Bytes};
use millrace_core::StorageError;
use millrace_core::overlay::Journal;
use millrace_core::table::system;

use crate::environment::BlockEnvironment;
use contract::{Contract, Invocation};
pub(crate) use gas_charge::{is_exempt, remaining, remaining_write};
pub use objects::Temporaries;
use tables::Writer;

/// The accounts of the transaction in progress, as the EVM sees them.
pub trait Accounts {
    /// Length of the code at an address.
    fn code_len(&mut self, address: Address) -> Result<usize, StorageError>;
    /// Whether there is an account, be it without code.
    fn exists(&mut self, address: Address) -> Result<bool, StorageError>;
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
    /// The block that the work belongs to. For a `call` its number is the one after the head, unlike what the EVM's NUMBER gives:
    /// grants made in block N are in force in the blocks after N.
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

/// All contracts, ascending by address.
const CONTRACTS: &[Contract] = &[
    system_config::CONTRACT,
    table_factory::CONTRACT,
    crud::CONTRACT,
    consensus::CONTRACT,
    cns::CONTRACT,
    permission::CONTRACT,
    parallel_config::CONTRACT,
    life_cycle::CONTRACT,
    governance::CONTRACT,
    gas_charge::CONTRACT,
    kv_table::CONTRACT,
    unavailable::WORKING_SEALER_MANAGER,
    dag_transfer::CONTRACT,
    unavailable::PAILLIER,
    unavailable::GROUP_SIGNATURE,
    unavailable::RING_SIGNATURE,
    crypto::CONTRACT,
    // The example of the documentation; nodes do not have it.
    #[cfg(test)]
    hello_world::CONTRACT,
];

/// A function of a contract at a fixed address, for documentation and tools.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The contract's address as a number; 0 for objects that a transaction opens.
    pub address: u64,
    /// The contract's name in 2.x.
    pub contract: &'static str,
    /// What the selector is computed from.
    pub signature: &'static str,
    /// The first four bytes of a call.
    pub selector: Selector,
}

/// All functions that can be called, objects last.
pub fn functions() -> impl Iterator<Item = Listed> {
    CONTRACTS.iter().chain(objects::KINDS).flat_map(|contract| {
        contract.functions.iter().map(|function| Listed {
            address: contract.address,
            contract: contract.name,
            signature: function.signature,
            selector: function.selector,
        })
    })
}

/// Addresses of the contracts that administer the chain; [`guards::arm`] is for them alone.
const ADMINISTRATION: std::ops::Range<u64> = 0x1000..0x2000;

/// The low 64 bits of an address whose other bits are zero: all our contracts have one.
fn number_of(address: Address) -> Option<u64> {
    let (high, low) = address.split_last_chunk::<8>().expect("an address has 20 bytes");
    high.iter().all(|byte| *byte == 0).then(|| u64::from_be_bytes(*low))
}

fn fixed_contract(number: u64) -> Option<&'static Contract> {
    CONTRACTS.binary_search_by_key(&number, |contract| contract.address).ok().map(|index| &CONTRACTS[index])
}

/// Whether calls to this address run a contract of ours: a fixed one, or an object that this transaction opened.
pub fn is_contract(address: Address, temporaries: &Temporaries) -> bool {
    number_of(address).is_some_and(|number| fixed_contract(number).is_some() || temporaries.contains(number))
}

/// Whether EXTCODESIZE of this address is 1, which compilers check before a call: fixed contracts (README of the recordings,
/// correction 8) and, of the temporary ones, those that a transaction with so many `objects` has opened.
pub fn has_pseudo_code(address: Address, objects: u64) -> bool {
    number_of(address).is_some_and(|number| fixed_contract(number).is_some() || objects::is_opened(number, objects))
}

/// Whether a call of this contract can arm a guard: those of the chain's administration can, those of users and data cannot.
pub fn may_restrict(address: Address) -> bool {
    number_of(address).is_some_and(|number| ADMINISTRATION.contains(&number))
}

/// Whether `origin` may create contracts in block `number`: by the grants on the table of tables.
pub fn may_create_contracts(journal: &Journal<'_>, origin: Address, number: u64) -> Result<bool, StorageError> {
    Writer::in_block(origin, number).may_write(journal, system::TABLES)
}

/// Runs a call of a contract for which [`is_contract`] holds; a call of another address returns nothing.
pub fn run(context: &mut Context<'_, '_>, call: Call<'_>) -> Result<Outcome, Failure> {
    let contract = number_of(call.address)
        .and_then(|number| fixed_contract(number).or_else(|| context.temporaries.contract(number)))
        .unwrap_or(&contract::NOTHING);
    Invocation::new(context, call, contract).run(contract)
}

#[cfg(test)]
mod functions;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod solidity;
#[cfg(test)]
mod tests;
