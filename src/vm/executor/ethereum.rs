//! Transactions of Ethereum itself, under all of its rules: fees, balances, nonces, access lists, blobs.
//!
//! This is how the public state tests are run through our state, block execution, tries and storage (`millrace statetest`). The frames
//! are revm's own here, those of groups are `machine`'s. No group can have these rules: [`crate::EvmRules`] has no name for them.
//!
//! Called by the root package's state tests alone.

use millrace_base::{Address, B256, Bytes, LogEntry, Receipt, U256};
use millrace_core::overlay::Writes;
use millrace_core::{AccountRecord, StateKey, StateReader, StateValue, StorageError};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context::transaction::{AccessList, AccessListItem};
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::handler::MainnetContext;
use revm::primitives::TxKind;
use revm::primitives::hardfork::SpecId;
use revm::state::{Account, Bytecode};
use revm::{ExecuteEvm, MainBuilder};

use super::database::{CodeCache, Database, DatabaseFailure};
use super::{Executed, log_entry};
use crate::environment::BlockHashes;
use crate::schedule::{Fork, spec_of};

/// Chain id of the public tests.
const CHAIN_ID: u64 = 1;
/// Most blobs of a transaction in Cancun.
const CANCUN_BLOBS: u64 = 6;

/// The block around the transactions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EthereumBlock {
    /// Height that transactions see.
    pub number: U256,
    /// Seconds.
    pub timestamp: U256,
    /// Who gets the fees.
    pub coinbase: Address,
    /// Gas of all transactions.
    pub gas_limit: u64,
    /// Wei a unit of gas; burnt.
    pub base_fee: u64,
    /// Before Paris.
    pub difficulty: U256,
    /// From Paris on.
    pub random: B256,
    /// From Cancun on.
    pub excess_blob_gas: u64,
}

/// A transaction whose sender is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EthereumTransaction {
    /// EIP-2718 type; 0 for legacy ones.
    pub kind: u8,
    /// Who signed.
    pub sender: Address,
    /// The callee; `None` creates a contract.
    pub to: Option<Address>,
    /// The sender's counter.
    pub nonce: u64,
    /// Gas it may use.
    pub gas_limit: u64,
    /// Wei a unit of gas; of type 2 and 3 the most it pays.
    pub gas_price: u128,
    /// Of type 2 and 3.
    pub priority_fee: Option<u128>,
    /// Wei to transfer.
    pub value: U256,
    /// Call data or init code.
    pub data: Bytes,
    /// Addresses and slots it announces.
    pub access_list: Vec<(Address, Vec<B256>)>,
    /// Of type 3.
    pub blob_hashes: Vec<B256>,
    /// Of type 3: the most it pays a unit of blob gas.
    pub blob_gas_price: u128,
}

/// What became of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EthereumOutcome {
    /// It ran, successfully or not.
    Executed(Box<Executed>),
    /// A block must not hold it; the reason.
    Refused(String),
}

/// Runs Ethereum transactions over a state.
pub struct EthereumExecutor {
    spec: SpecId,
    block: EthereumBlock,
    codes: CodeCache,
}

impl EthereumExecutor {
    /// With the rules of a fork, for transactions of one block.
    pub fn new(fork: Fork, block: EthereumBlock) -> Self {
        Self { spec: spec_of(fork), block, codes: CodeCache::default() }
    }

    /// Executes a transaction. A failed or refused one is a result, not an error.
    pub fn transact(
        &mut self,
        state: &dyn StateReader,
        hashes: &dyn BlockHashes,
        transaction: &EthereumTransaction,
    ) -> Result<EthereumOutcome, StorageError> {
        let (configuration, block) = (self.configuration(), self.block());
        let database = Database::new(state, hashes, &mut self.codes);
        let context: MainnetContext<Database<'_>> = revm::Context::new(database, self.spec);
        let mut machine = context.with_block(block).with_cfg(configuration).build_mainnet();
        let ran = machine.transact_one(environment(transaction));
        let accounts = machine.finalize();
        let result = match ran {
            Ok(result) => result,
            Err(EVMError::Transaction(reason)) => return Ok(EthereumOutcome::Refused(reason.to_string())),
            Err(error) => return Err(failure(error)),
        };
        let mut writes = Writes::new();
        let database = &machine.ctx.journaled_state.database;
        for (address, account) in accounts {
            if account.is_touched() {
                collect(&mut writes, address, &account, database)?;
            }
        }
        writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Ok(EthereumOutcome::Executed(Box::new(Executed { receipt: receipt(result), writes })))
    }

    fn configuration(&self) -> CfgEnv {
        let mut configuration = CfgEnv::new_with_spec(self.spec);
        configuration.chain_id = CHAIN_ID;
        if self.spec == SpecId::CANCUN {
            configuration.max_blobs_per_tx = Some(CANCUN_BLOBS);
        }
        configuration
    }

    fn block(&self) -> BlockEnv {
        let block = &self.block;
        let has = |spec: SpecId| self.spec.is_enabled_in(spec);
        BlockEnv {
            number: block.number,
            timestamp: block.timestamp,
            beneficiary: block.coinbase,
            gas_limit: block.gas_limit,
            basefee: if has(SpecId::LONDON) { block.base_fee } else { 0 },
            difficulty: block.difficulty,
            prevrandao: has(SpecId::MERGE).then_some(block.random),
            blob_excess_gas_and_price: has(SpecId::CANCUN).then(|| BlobExcessGasAndPrice::new_with_spec(block.excess_blob_gas, self.spec)),
            slot_num: 0,
        }
    }
}

fn environment(transaction: &EthereumTransaction) -> TxEnv {
    let item = |(address, slots): &(Address, Vec<B256>)| AccessListItem { address: *address, storage_keys: slots.clone() };
    TxEnv {
        tx_type: transaction.kind,
        caller: transaction.sender,
        gas_limit: transaction.gas_limit,
        gas_price: transaction.gas_price,
        kind: transaction.to.map_or(TxKind::Create, TxKind::Call),
        value: transaction.value,
        data: transaction.data.clone(),
        nonce: transaction.nonce,
        chain_id: Some(CHAIN_ID),
        access_list: AccessList(transaction.access_list.iter().map(item).collect()),
        gas_priority_fee: transaction.priority_fee,
        blob_hashes: transaction.blob_hashes.clone(),
        max_fee_per_blob_gas: transaction.blob_gas_price,
        authorization_list: Vec::new(),
    }
}

fn failure(error: EVMError<DatabaseFailure, InvalidTransaction>) -> StorageError {
    match error {
        EVMError::Database(failure) => failure.0,
        other => StorageError::Engine(other.to_string()),
    }
}

/// What a touched account writes. EIP-161: an account that ends empty is gone.
fn collect(writes: &mut Writes, address: Address, account: &Account, database: &Database<'_>) -> Result<(), StorageError> {
    let key = StateKey::Account(address);
    let before = match database.state().read(&key)? {
        Some(StateValue::Account(record)) => Some(record),
        _ => None,
    };
    let incarnation = before.unwrap_or_default().incarnation;
    if account.is_selfdestructed() || account.is_empty() {
        let is_gone = |record: AccountRecord| record == AccountRecord { incarnation: incarnation.max(1), ..AccountRecord::default() };
        if before.is_some_and(|record| !is_gone(record)) {
            let record = AccountRecord { incarnation: incarnation + 1, ..AccountRecord::default() };
            writes.push((key, Some(StateValue::Account(record))));
        }
        return Ok(());
    }
    // A contract that comes to be where an account was begins with empty storage.
    let incarnation = incarnation + u32::from(account.is_created() && before.is_some());
    let info = &account.info;
    let record = AccountRecord { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash, incarnation };
    if Some(record) != before {
        writes.push((key, Some(StateValue::Account(record))));
    }
    if account.is_created() && record.has_code() {
        let key = StateKey::Code(info.code_hash);
        let is_new = database.state().read(&key)?.is_none() && !writes.iter().any(|write| write.0 == key);
        if is_new {
            let code = info.code.as_ref().map(Bytecode::original_bytes).unwrap_or_default();
            writes.push((key, Some(StateValue::Code(code))));
        }
    }
    for (index, slot) in account.changed_storage_slots() {
        let value = slot.present_value;
        let value = if value.is_zero() { None } else { Some(StateValue::Slot(value)) };
        writes.push((StateKey::Slot(address, incarnation, *index), value));
    }
    Ok(())
}

fn receipt(result: ExecutionResult) -> Receipt {
    let gas_used = U256::from(result.tx_gas_used());
    let status = u32::from(!result.is_success());
    let logs: Vec<LogEntry> = if result.is_success() { result.into_logs().into_iter().map(log_entry).collect() } else { Vec::new() };
    Receipt { gas_used, status, logs_bloom: Receipt::bloom_of(&logs), logs, ..Receipt::default() }
}
