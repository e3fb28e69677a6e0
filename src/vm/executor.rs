//! Runs a transaction or a call over a state and gives receipt and writes.
//!
//! Restrictions of a group (`precompiled::guards`) are asked at four points: [`Billing`] before and after a transaction, the origin when
//! it begins, each call before its code runs (`contracts`), and SSTORE and creations. A group that uses none pays one look-up a
//! transaction for it.
//!
//! Built on revm. What 2.x nodes do differently from Ethereum is in four places: here (base cost, gas limit, statuses, refunds),
//! [`machine`] (frames), `instructions` and `contracts` (calls of what is not EVM code). Rules: `spec/client-protocol.md` 1.3, 1.6, 2.8
//! and 8, `spec/node-semantics.md` 7.4, and the recordings, which win.
//!
//! Invariant: a result depends on state, environment and message alone; what is kept between transactions cannot be seen by them.

mod billing;
mod blocks;
mod changes;
mod contracts;
mod database;
pub mod ethereum;
mod instructions;
mod machine;

use std::cell::Cell;
use std::mem;

use millrace_base::{Address, B256, Bytes, LogEntry, Receipt, TransactionStatus, U256, VerifiedTx};
use millrace_core::overlay::{Journal, Writes};
use millrace_core::{StateReader, StorageError};
use revm::context::{CfgEnv, JournalEntry, JournalInner};
use revm::interpreter::InstructionResult;
use revm::primitives::Log;

use self::billing::Billing;
use self::contracts::{Contracts, Ending};
use self::database::{CodeCache, Database};
use self::machine::{Ended, Machine, Message, Scratch};
use crate::environment::{BlockEnvironment, BlockHashes};
use crate::precompiled::guards::Guards;
use crate::schedule::{EvmRules, Schedule};

thread_local! {
    /// revm's working memory. It cannot be in the executor, which must be able to change threads.
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// Gas price that a call sees.
const CALL_GAS_PRICE: U256 = U256::ONE;

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// Its receipt; the state root is filled in when the block is complete.
    pub receipt: Receipt,
    /// What it changed, sorted by key.
    pub writes: Writes,
}

/// A read-only call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallMessage {
    /// Seen as sender and origin.
    pub from: Address,
    /// The callee.
    pub to: Address,
    /// Call data.
    pub data: Bytes,
    /// Visible to the callee.
    pub value: U256,
}

/// What a call gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallResult {
    /// A [`millrace_base::TransactionStatus`] code.
    pub status: u32,
    /// Return or revert data.
    pub output: Bytes,
}

/// Runs transactions of one group, one after the other. It keeps analysed code, so it is worth keeping; one a thread.
pub struct Executor {
    schedule: Schedule,
    configuration: CfgEnv,
    codes: CodeCache,
}

/// What a message runs in.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    state: &'a dyn StateReader,
    hashes: &'a dyn BlockHashes,
    environment: &'a BlockEnvironment,
    /// The block that system contracts work in. A call's is the one after the head, so that what the head granted is in force.
    contracts_block: u64,
    /// Which restrictions the group uses.
    guards: Guards,
}

/// What gas is counted against.
#[derive(Clone, Copy)]
struct Bill {
    /// `tx_gas_limit` of the group.
    limit: u64,
    /// Cost before the message runs.
    base: u64,
    /// The transaction's own gas field; only refunds depend on it.
    declared: U256,
}

/// How a message ended, for receipt and call result.
struct Verdict {
    status: TransactionStatus,
    gas_used: u64,
    output: Bytes,
    created: Address,
}

impl Executor {
    /// With the rules of the group.
    pub fn new(rules: EvmRules) -> Self {
        let schedule = Schedule::new(rules);
        let configuration = machine::configuration(&schedule);
        Self { schedule, configuration, codes: CodeCache::default() }
    }

    /// Executes a transaction. A failed transaction is a result, not an error.
    pub fn transact(
        &mut self,
        state: &dyn StateReader,
        hashes: &dyn BlockHashes,
        environment: &BlockEnvironment,
        transaction: &VerifiedTx,
    ) -> Result<Executed, StorageError> {
        let fields = transaction.fields();
        let limit = environment.tx_gas_limit;
        let guards = Guards::load(state)?;
        let billing = Billing::of(state, guards, environment.number, transaction)?;
        let base = self.schedule.base_cost(&fields.data, fields.to.is_none());
        let Some(gas) = limit.checked_sub(base) else {
            let status = TransactionStatus::OutOfGasIntrinsic.code();
            let receipt = Receipt { gas_used: U256::from(limit), status, ..Receipt::default() };
            let mut executed = Executed { receipt, writes: Writes::new() };
            billing.settle(&mut executed);
            return Ok(executed);
        };
        if let Some(remaining) = billing.less_than(base) {
            return Ok(billing::not_enough(remaining));
        }
        let message = Message {
            sender: transaction.sender(),
            to: fields.to,
            value: fields.value,
            data: &fields.data,
            gas_price: fields.gas_price,
            gas,
        };
        let around = Surroundings { state, hashes, environment, contracts_block: environment.number, guards };
        let (ended, changed) = self.run(around, &message, |accounts, database, tables| {
            Ok::<_, StorageError>((mem::take(&mut accounts.logs), changes::collect(accounts, database, tables)?))
        })?;
        let (logs, writes) = changed?;
        let verdict = judge(&self.schedule, ended, Bill { limit, base, declared: fields.gas });
        let logs: Vec<LogEntry> = logs.into_iter().map(log_entry).collect();
        let receipt = Receipt {
            state_root: B256::ZERO,
            gas_used: U256::from(verdict.gas_used),
            contract_address: verdict.created,
            logs_bloom: Receipt::bloom_of(&logs),
            status: verdict.status.code(),
            output: verdict.output,
            remain_gas: U256::ZERO,
            logs,
        };
        let mut executed = Executed { receipt, writes };
        if billing != Billing::Off {
            billing.settle(&mut executed);
        }
        Ok(executed)
    }

    /// Executes a call and throws its writes away. `tx_gas_limit` bounds it as it bounds a transaction.
    pub fn call(
        &mut self,
        state: &dyn StateReader,
        hashes: &dyn BlockHashes,
        environment: &BlockEnvironment,
        call: &CallMessage,
    ) -> Result<CallResult, StorageError> {
        let limit = environment.tx_gas_limit;
        let guards = Guards::load(state)?;
        let base = self.schedule.base_cost(&call.data, false);
        let Some(gas) = limit.checked_sub(base) else {
            return Ok(CallResult { status: TransactionStatus::OutOfGasIntrinsic.code(), output: Bytes::new() });
        };
        let message = Message { sender: call.from, to: Some(call.to), value: call.value, data: &call.data, gas_price: CALL_GAS_PRICE, gas };
        let around = Surroundings { state, hashes, environment, contracts_block: environment.number.saturating_add(1), guards };
        let (ended, ()) = self.run(around, &message, |_, _, _| ())?;
        let verdict = judge(&self.schedule, ended, Bill { limit, base, declared: U256::ZERO });
        Ok(CallResult { status: verdict.status.code(), output: verdict.output })
    }

    /// Runs a message and hands what it changed to `collect`.
    fn run<T>(
        &mut self,
        around: Surroundings<'_>,
        message: &Message<'_>,
        collect: impl FnOnce(&mut JournalInner<JournalEntry>, &Database<'_>, Journal<'_>) -> T,
    ) -> Result<(Ended, T), StorageError> {
        let Surroundings { state, hashes, environment, contracts_block, guards } = around;
        let block = BlockEnvironment { number: contracts_block, ..*environment };
        let contracts = Contracts::new(Journal::new(state), &self.schedule, block, message.sender, guards);
        let database = Database::new(state, hashes, &mut self.codes);
        let scratch = SCRATCH.take().unwrap_or_default();
        let mut machine = Machine::new(scratch, database, contracts, environment, &self.schedule, &self.configuration);
        let ended = machine.run(message);
        let (collected, scratch) = machine.end(collect);
        SCRATCH.set(Some(scratch));
        Ok((ended?, collected))
    }
}

/// Status, gas and output of a message whose first frame ended.
fn judge(schedule: &Schedule, ended: Ended, bill: Bill) -> Verdict {
    let used = bill.limit - ended.remaining;
    if ended.result.is_ok() {
        let refund = schedule.refund(ended.refunded, used, bill.limit, bill.declared);
        let (created, output) = match ended.created {
            Some(address) => (address, Bytes::new()),
            None => (Address::ZERO, ended.output),
        };
        return Verdict { status: TransactionStatus::None, gas_used: used - refund, output, created };
    }
    let status = failure_status(&ended);
    let gas_used = match status {
        _ if ended.is_deposit_failure => used,
        _ if ended.ending == Some(Ending::WriteDenied) => bill.base,
        TransactionStatus::OutOfGas | TransactionStatus::OutOfGasBase if schedule.is_2x() => bill.base,
        _ if ended.result.is_revert() => used,
        _ => bill.limit,
    };
    let output = if ended.result.is_revert() && !ended.is_deposit_failure { ended.output } else { Bytes::new() };
    Verdict { status, gas_used, output, created: Address::ZERO }
}

/// The status of a message that did not succeed.
fn failure_status(ended: &Ended) -> TransactionStatus {
    match ended.ending {
        Some(Ending::NoCode) => return TransactionStatus::CallAddressError,
        Some(Ending::PrecompileTooExpensive) => return TransactionStatus::OutOfGasBase,
        Some(Ending::PrecompileFailed) => return TransactionStatus::RevertInstruction,
        Some(Ending::Refused) => return TransactionStatus::PrecompiledError,
        Some(Ending::CreationDenied | Ending::WriteDenied) => return TransactionStatus::PermissionDenied,
        Some(Ending::ContractFrozen) => return TransactionStatus::ContractFrozen,
        Some(Ending::AccountFrozen) => return TransactionStatus::AccountFrozen,
        Some(Ending::Returned) | None => {}
    }
    if let Some(status) = ended.stack_error {
        return status;
    }
    if ended.is_deposit_failure {
        return TransactionStatus::OutOfGas;
    }
    use InstructionResult::*;
    match ended.result {
        result if machine::is_out_of_gas(result) => TransactionStatus::OutOfGas,
        CreateContractSizeLimit | CreateInitCodeSizeLimit | CreateContractStartingWithEF => TransactionStatus::OutOfGas,
        OpcodeNotFound | InvalidFEOpcode | NotActivated | InvalidImmediateEncoding => TransactionStatus::BadInstruction,
        InvalidJump => TransactionStatus::BadJumpDestination,
        StackUnderflow => TransactionStatus::StackUnderflow,
        StackOverflow => TransactionStatus::OutOfStack,
        CreateCollision => TransactionStatus::AddressAlreadyUsed,
        result if result.is_revert() => TransactionStatus::RevertInstruction,
        _ => TransactionStatus::Unknown,
    }
}

fn log_entry(log: Log) -> LogEntry {
    let (topics, data) = log.data.split();
    LogEntry { address: log.address, topics, data }
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
