//! The cases of one test as one block: executed by one thread and by several, with equal results.
//!
//! The public tests say nothing of such blocks, so serial execution is the oracle. All transactions of a test come from one sender and pay
//! one coinbase, and most call one contract: hardly any two can be executed side by side, which is what makes them good at finding what
//! a parallel executor overlooks.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_access::verifier::{Crew, Mode};
use millrace_base::Address;
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::{StateKind, StorageError};
use millrace_vm::Fork;
use millrace_vm::executor::ethereum::EthereumTransaction;

use super::case::{MAX_TRANSACTIONS, Way, begin, execute};
use super::fixture::{Expectation, Fixture};

/// Fewer transactions are no batch.
const MIN_TRANSACTIONS: usize = 2;

/// Runs the cases of a fork as one block in both ways; `None` when they are too few, the number of transactions otherwise.
pub fn run(fixture: &Fixture, fork: Fork, cases: &[Expectation], crew: &Arc<Crew>) -> Result<Option<usize>, String> {
    let mut transactions: Vec<EthereumTransaction> = cases.iter().filter_map(|case| fixture.transaction(case).ok()).collect();
    transactions.truncate(MAX_TRANSACTIONS);
    if transactions.len() < MIN_TRANSACTIONS {
        return Ok(None);
    }
    follow(&mut transactions);
    let transactions: Arc<[EthereumTransaction]> = transactions.into();
    match compare(fixture, fork, &transactions, crew) {
        Ok(true) => Ok(Some(transactions.len())),
        Ok(false) => Err("several threads gave another block than one".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Gives the transactions of each sender nonces in a row.
fn follow(transactions: &mut [EthereumTransaction]) {
    let mut next: BTreeMap<Address, u64> = BTreeMap::new();
    for transaction in transactions {
        let nonce = next.entry(transaction.sender).or_insert(transaction.nonce);
        transaction.nonce = *nonce;
        *nonce = nonce.saturating_add(1);
    }
}

fn compare(fixture: &Fixture, fork: Fork, transactions: &Arc<[EthereumTransaction]>, crew: &Arc<Crew>) -> Result<bool, StorageError> {
    let chain = begin(Arc::new(MemoryStorage::new()), &fixture.accounts, StateKind::Mpt)?;
    let ran = |crew: Arc<Crew>, mode| execute(&chain, &fixture.block, Arc::clone(transactions), Way { fork, crew, mode });
    let serial = ran(Crew::alone(), Mode::Serial)?;
    for mode in [Mode::Speculative, Mode::Guided] {
        let parallel = ran(Arc::clone(crew), mode)?;
        // The header covers receipts and state; a root stands for its nodes, but they must be written, too.
        if (parallel.block.hash, &parallel.writes, &parallel.nodes) != (serial.block.hash, &serial.writes, &serial.nodes) {
            return Ok(false);
        }
    }
    Ok(true)
}
