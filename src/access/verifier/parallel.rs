//! Executes the transactions of a block on several threads with the result that serial execution has (optimistic concurrency, after
//! Block-STM: Gelashvili and others, PPoPP 2023).
//!
//! - [`memory`]: every version of what the block's transactions read and wrote.
//! - [`view`]: the state as one execution sees it, and what it read.
//! - [`front`]: which transaction is executed when, and when its result stands.
//! - [`hints`]: guesses which transactions are in conflict.
//! - [`shared`]: the smallest parts that threads share.
//!
//! Invariant: receipts and writes are those of the serial executor, for any number of workers and any order of their steps. Called by
//! the block executor when [`super::policy`] expects a gain.

mod front;
mod hints;
mod memory;
mod shared;
mod sync;
mod view;

use std::panic::resume_unwind;

use millrace_base::Receipt;
use millrace_core::StorageError;
use millrace_core::overlay::Writes;
use millrace_vm::BlockEnvironment;

use self::front::{Failure, Front, Job};
use self::hints::Predecessors;
pub(super) use self::memory::Memory;
use self::memory::Part;
use super::crew::{Crew, Spares};
use super::executor::{BlockOrder, TransactionRunner};

/// Whether conflicts are guessed beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guessing {
    /// Every transaction is tried as soon as a worker is free.
    Off,
    /// Transactions that probably work on the same values are executed one after the other.
    On,
}

/// A block's transactions, executed.
pub(super) struct Ran {
    /// Without state root.
    pub receipts: Vec<Receipt>,
    /// Sorted, each key once.
    pub writes: Writes,
    /// Executions whose result was not used.
    pub lost: u32,
}

/// Executes the transactions of `order` with at most `helpers` of the crew.
///
/// # Errors
/// Those of the storage, as serial execution would have met them.
///
/// # Panics
/// When a transaction panics in a state that serial execution would have had.
pub(super) fn run<R: TransactionRunner + Send>(
    crew: &Crew,
    helpers: usize,
    spares: &Spares<R>,
    order: &BlockOrder<'_>,
    guessing: Guessing,
) -> Result<Ran, StorageError> {
    let environment = BlockEnvironment { number: order.number, timestamp_ms: order.timestamp_ms, tx_gas_limit: order.tx_gas_limit };
    crew.memories().with(|memory| {
        let predecessors = (guessing == Guessing::On).then(|| Predecessors::guess(&order.transactions));
        let front = Front::new(Job { order, environment, memory }, predecessors);
        crew.together(helpers, || spares.with(|runner| front.work(runner)));
        let (ended, effort) = front.end_with_receipts();
        let writes = taken(crew, helpers, memory);
        match ended {
            Ok(receipts) => Ok(Ran { receipts, writes, lost: effort.stale + effort.awaited }),
            Err(Failure::Storage(error)) => Err(error),
            Err(Failure::Panic(panic)) => resume_unwind(panic),
        }
    })
}

/// Takes all writes of the block, sorted. Parts are sorted apart; the sort of the whole then only merges them.
fn taken(crew: &Crew, helpers: usize, memory: &mut Memory) -> Writes {
    let mut parts = memory.parts();
    let share = parts.len().div_ceil(helpers + 1);
    let mut shares = Vec::new();
    while !parts.is_empty() {
        shares.push(parts.split_off(parts.len() - share.min(parts.len())));
    }
    let runs = crew.map(shares, |share: Vec<Part<'_>>| {
        let mut writes = Writes::new();
        share.into_iter().for_each(|part| part.take_into(&mut writes));
        writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        writes
    });
    let mut writes: Writes = runs.into_iter().flatten().collect();
    writes.sort_by(|left, right| left.0.cmp(&right.0));
    writes
}

#[cfg(test)]
mod tests;
