//! A chain without EVM for tests: one call a block over state in memory.

use std::cell::RefCell;
use std::collections::HashMap;

use millrace_base::{Address, Bytes, NodeId, U256};
use millrace_core::overlay::{Journal, Writes};
use millrace_core::table::system::{GenesisState, genesis_writes};
use millrace_core::{StateKey, StateReader, StateValue, StorageError};

use super::contract::code;
use super::{Accounts, Call, Context, Failure, Outcome, Temporaries, run};
use crate::environment::BlockEnvironment;

/// Committed state.
#[derive(Default)]
pub struct State(pub HashMap<StateKey, StateValue>);

impl StateReader for State {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.0.get(key).cloned())
    }
}

impl State {
    /// Makes a block's writes part of the state.
    pub fn apply(&mut self, writes: Writes) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

/// Code lengths and nonces by address.
#[derive(Default)]
pub struct StubAccounts(pub RefCell<HashMap<Address, (usize, u64)>>);

impl Accounts for &StubAccounts {
    fn code_len(&mut self, address: Address) -> Result<usize, StorageError> {
        Ok(self.0.borrow().get(&address).map_or(0, |account| account.0))
    }

    fn exists(&mut self, address: Address) -> Result<bool, StorageError> {
        Ok(self.0.borrow().contains_key(&address))
    }

    fn nonce(&mut self, address: Address) -> Result<u64, StorageError> {
        Ok(self.0.borrow().get(&address).map_or(0, |account| account.1))
    }
}

/// A chain whose blocks hold one call each.
#[derive(Default)]
pub struct Chain {
    pub state: State,
    pub accounts: StubAccounts,
    pub height: u64,
    pub is_free_storage: bool,
}

/// What a call gave, as a receipt shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u32,
    pub output: Bytes,
    pub gas_used: u64,
}

impl Chain {
    /// A chain with one sealer.
    pub fn new(sealer: &str) -> Self {
        let mut chain = Self::default();
        let config = [("tx_count_limit", "1000"), ("tx_gas_limit", "300000000"), ("consensus_timeout", "3")];
        let config = config.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
        chain.state.apply(genesis_writes(&GenesisState { sealers: vec![NodeId::parse(sealer).unwrap()], config }));
        chain
    }

    /// Changes the state outside of any block.
    pub fn edit(&mut self, change: impl FnOnce(&mut Journal<'_>) -> Result<(), Failure>) {
        let mut journal = Journal::new(&self.state);
        change(&mut journal).unwrap();
        let writes = journal.into_writes();
        self.state.apply(writes);
    }

    /// A call in a block of its own; its writes stay unless it fails. Gas without the base cost.
    pub fn transact(&mut self, from: Address, to: Address, input: &[u8]) -> Answer {
        self.height += 1;
        self.execute(from, to, input, self.height, true)
    }

    /// A call on the head's state that leaves nothing behind.
    pub fn call(&mut self, from: Address, to: Address, input: &[u8]) -> Answer {
        self.execute(from, to, input, self.height + 1, false)
    }

    fn execute(&mut self, from: Address, to: Address, input: &[u8], number: u64, is_kept: bool) -> Answer {
        let block = BlockEnvironment { number, timestamp_ms: 1_700_000_000_000, tx_gas_limit: 300_000_000 };
        let mut journal = Journal::new(&self.state);
        let mut temporaries = Temporaries::default();
        let result = run(
            &mut Context {
                journal: &mut journal,
                temporaries: &mut temporaries,
                accounts: &mut &self.accounts,
                block: &block,
                is_free_storage: self.is_free_storage,
            },
            Call { origin: from, sender: from, address: to, input },
        );
        let writes = journal.into_writes();
        match result {
            Ok(Outcome { output, gas_used }) => {
                if is_kept {
                    self.state.apply(writes);
                }
                Answer { status: 0, output, gas_used }
            }
            Err(Failure::Refused { message, gas_used }) => {
                Answer { status: 21, output: millrace_base::abi::error_string(message), gas_used }
            }
            Err(Failure::Storage(error)) => panic!("{error}"),
        }
    }
}

/// The address of a system contract.
pub fn address(number: u64) -> Address {
    Address::left_padding_from(&number.to_be_bytes())
}

/// The answer of a function that returns a count or a code.
pub fn coded(value: i64) -> Bytes {
    code(value)
}

/// The first word of an output.
pub fn word(output: &[u8]) -> U256 {
    U256::from_be_slice(&output[..32])
}
