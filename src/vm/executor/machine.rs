//! One transaction's run through revm: frames, savepoints, and where 2.x frames end differently.
//!
//! Invariant: the accounts' journal (revm's) and the tables' journal go back together. A savepoint of the tables is taken when a frame
//! begins and restored when that frame, or a call that needed none, does not succeed.

use std::mem;

use millrace_base::abi::error_string;
use millrace_base::{Address, Bytes, TransactionStatus, U256};
use millrace_core::StorageError;
use millrace_core::overlay::{Journal, Savepoint};
use revm::context::{BlockEnv, CfgEnv, ContextError, Evm, FrameStack, JournalEntry, JournalInner, LocalContext, TxEnv};
use revm::context_interface::{CreateScheme, JournalTr};
use revm::handler::instructions::InstructionProvider;
use revm::handler::{EthFrame, EvmTr, FrameResult, ItemOrResult};
use revm::interpreter::interpreter_action::FrameInit;
use revm::interpreter::interpreter_types::{Jumps, LegacyBytecode};
use revm::interpreter::{
    CallInput, CallInputs, CallScheme, CallValue, CreateInputs, CreateOutcome, FrameInput, Gas, InstructionResult, Interpreter,
    InterpreterAction, InterpreterResult, SharedMemory,
};
use revm::primitives::hardfork::SpecId;
use revm::state::TransactionId;

use super::blocks;
use super::contracts::{Contracts, Ending};
use super::database::{Database, DatabaseFailure};
use super::instructions::Instructions;
use crate::environment::BlockEnvironment;
use crate::schedule::{EvmRules, MAX_CODE_BYTES, MAX_MEMORY_BYTES, Schedule, StorageCosts};

/// Frame memory kept from one transaction to the next, in bytes; what a bigger transaction needed is given back.
const KEPT_MEMORY_BYTES: usize = 1 << 20;

/// Call depth up to which frames are kept from one transaction to the next; each holds a stack of 32 KiB.
const KEPT_DEPTH: usize = 32;

/// Accounts up to which the map of touched accounts is kept from one transaction to the next.
const KEPT_ACCOUNTS: usize = 1_024;

/// What revm's instructions find besides its own environment.
pub(super) struct Extras {
    /// The transaction's field; never charged.
    pub gas_price: U256,
    /// SSTORE under 2.x rules.
    pub storage: StorageCosts,
    /// Temporary objects of system contracts so far; their addresses look as if they had code.
    pub objects: u64,
    /// Contracts of open frames whose storage the origin may not write; empty in groups that never named writers.
    pub denied: Vec<Address>,
    /// Whether the frame that just ended tried to.
    pub is_write_denied: bool,
}

/// revm's context over our state.
pub(super) type Context<'a> = revm::Context<BlockEnv, TxEnv, CfgEnv, Database<'a>, revm::Journal<Database<'a>>, Extras, LocalContext>;

type Engine<'a> = Evm<Context<'a>, (), Instructions<'a>, Contracts<'a>, EthFrame>;

/// Memory reused by the transactions of one thread. It holds nothing that a transaction could see.
pub(super) struct Scratch {
    state: JournalInner<JournalEntry>,
    frames: FrameStack<EthFrame>,
    local: LocalContext,
    transaction: TxEnv,
    savepoints: Vec<Savepoint>,
    warm_for: Option<EvmRules>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            state: JournalInner::new(),
            frames: FrameStack::new_prealloc(1),
            local: LocalContext::default(),
            transaction: TxEnv::default(),
            savepoints: Vec::new(),
            warm_for: None,
        }
    }
}

/// What a transaction or call asks of the machine.
#[derive(Clone, Copy)]
pub(super) struct Message<'m> {
    /// Sender and origin.
    pub sender: Address,
    /// The callee; `None` creates a contract.
    pub to: Option<Address>,
    /// Visible to the code; nothing is transferred.
    pub value: U256,
    /// Call data or init code.
    pub data: &'m Bytes,
    /// Visible to the code.
    pub gas_price: U256,
    /// Gas for the first frame: the limit less the base cost.
    pub gas: u64,
}

/// How the first frame ended.
pub(super) struct Ended {
    /// revm's word for it.
    pub result: InstructionResult,
    /// Return or revert data.
    pub output: Bytes,
    /// Gas left.
    pub remaining: u64,
    /// Refunds collected, uncapped.
    pub refunded: i64,
    /// The address of a created contract.
    pub created: Option<Address>,
    /// How the message ended if it called what is not EVM code.
    pub ending: Option<Ending>,
    /// Under 2.x rules: the stack error that comes before the undefined instruction that was met.
    pub stack_error: Option<TransactionStatus>,
    /// Under 2.x rules: the new code was too long or its deposit too expensive; the gas left is still there.
    pub is_deposit_failure: bool,
}

impl Ended {
    fn with_frozen_origin(message: &Message<'_>) -> Self {
        Self {
            result: InstructionResult::Revert,
            output: error_string(format!("Frozen account:0x{:x}", message.sender)),
            remaining: message.gas,
            refunded: 0,
            created: None,
            ending: Some(Ending::AccountFrozen),
            stack_error: None,
            is_deposit_failure: false,
        }
    }
}

/// revm set up for one transaction.
pub(super) struct Machine<'a> {
    engine: Engine<'a>,
    savepoints: Vec<Savepoint>,
    warm_for: Option<EvmRules>,
    schedule: &'a Schedule,
    deepest: usize,
    ending: Option<Ending>,
    stack_error: Option<TransactionStatus>,
    is_deposit_failure: bool,
}

/// revm's configuration for a group's rules.
pub(super) fn configuration(schedule: &Schedule) -> CfgEnv {
    let mut configuration = CfgEnv::new_with_spec(schedule.spec);
    configuration.gas_params = schedule.gas_params.clone();
    configuration.chain_id = 0;
    configuration.limit_contract_code_size = Some(MAX_CODE_BYTES);
    configuration.limit_contract_initcode_size = Some(2 * MAX_CODE_BYTES);
    configuration.memory_limit = MAX_MEMORY_BYTES;
    configuration
}

fn block(environment: &BlockEnvironment) -> BlockEnv {
    BlockEnv {
        number: U256::from(environment.number),
        timestamp: U256::from(environment.timestamp_ms),
        beneficiary: Address::ZERO,
        gas_limit: 0,
        basefee: 0,
        difficulty: U256::ZERO,
        prevrandao: Some(Default::default()),
        blob_excess_gas_and_price: None,
        slot_num: 0,
    }
}

impl<'a> Machine<'a> {
    /// Takes over `scratch`, which [`Machine::end`] gives back.
    pub fn new(
        scratch: Scratch,
        database: Database<'a>,
        contracts: Contracts<'a>,
        environment: &BlockEnvironment,
        schedule: &'a Schedule,
        configuration: &CfgEnv,
    ) -> Self {
        let Scratch { mut state, frames, local, transaction, savepoints, warm_for } = scratch;
        state.set_spec_id(schedule.spec);
        let context = revm::Context {
            block: block(environment),
            tx: transaction,
            cfg: configuration.clone(),
            journaled_state: revm::Journal::new_with_inner(database, state),
            chain: Extras {
                gas_price: U256::ZERO,
                storage: schedule.storage.unwrap_or_default(),
                objects: 0,
                denied: Vec::new(),
                is_write_denied: false,
            },
            local,
            error: Ok(()),
        };
        let engine =
            Evm { ctx: context, inspector: (), instruction: Instructions::new(schedule), precompiles: contracts, frame_stack: frames };
        Self { engine, savepoints, warm_for, schedule, deepest: 0, ending: None, stack_error: None, is_deposit_failure: false }
    }

    /// Runs a message to its end.
    pub fn run(&mut self, message: &Message<'_>) -> Result<Ended, StorageError> {
        self.engine.ctx.tx.caller = message.sender;
        self.engine.ctx.chain.gas_price = message.gas_price;
        self.engine.precompiles.forgivable = message.gas;
        if self.engine.precompiles.guards().frozen && self.engine.precompiles.is_origin_frozen(message.to)? {
            return Ok(Ended::with_frozen_origin(message));
        }
        let result = self.first_input(message).and_then(|input| self.run_frames(input, message.value));
        let result = result.map_err(|error| self.storage_error(error))?;
        let created = match &result {
            FrameResult::Create(outcome) => outcome.address,
            FrameResult::Call(_) => None,
        };
        let result = result.into_interpreter_result();
        Ok(Ended {
            result: result.result,
            output: result.output,
            remaining: result.gas.remaining(),
            refunded: result.gas.refunded(),
            created,
            ending: self.ending,
            stack_error: self.stack_error,
            is_deposit_failure: self.is_deposit_failure,
        })
    }

    /// Takes the accounts touched and the table writes out with `collect`, and gives the scratch memory back.
    pub fn end<T>(self, collect: impl FnOnce(&mut JournalInner<JournalEntry>, &Database<'a>, Journal<'a>) -> T) -> (T, Scratch) {
        let Evm { ctx, precompiles, mut frame_stack, .. } = self.engine;
        let revm::Context { tx: transaction, journaled_state, mut local, .. } = ctx;
        let revm::Journal { database, inner: mut state } = journaled_state;
        let collected = collect(&mut state, &database, precompiles.journal);
        forget(&mut state);
        if self.deepest > KEPT_DEPTH {
            frame_stack = FrameStack::new_prealloc(1);
        }
        frame_stack.clear();
        if local.shared_memory_buffer.borrow().capacity() > KEPT_MEMORY_BYTES {
            local = LocalContext::default();
        }
        revm::context_interface::LocalContextTr::clear(&mut local);
        let mut savepoints = self.savepoints;
        savepoints.clear();
        (collected, Scratch { state, frames: frame_stack, local, transaction, savepoints, warm_for: self.warm_for })
    }

    fn first_input(&mut self, message: &Message<'_>) -> Result<FrameInput, ContextError<DatabaseFailure>> {
        self.warm_up(message.sender)?;
        let Some(to) = message.to else {
            // The balance check of a creation would refuse a value; it is put in when the frame is there.
            let inputs = CreateInputs::new(message.sender, CreateScheme::Create, U256::ZERO, message.data.clone(), message.gas, 0);
            return Ok(FrameInput::Create(Box::new(inputs)));
        };
        let account = &self.engine.ctx.journaled_state.load_account_with_code(to)?.info;
        let known_bytecode = (account.code_hash, account.code.clone().unwrap_or_default());
        Ok(FrameInput::Call(Box::new(CallInputs {
            input: CallInput::Bytes(message.data.clone()),
            return_memory_offset: 0..0,
            gas_limit: message.gas,
            reservoir: 0,
            bytecode_address: to,
            known_bytecode,
            target_address: to,
            caller: message.sender,
            value: CallValue::Apparent(message.value),
            scheme: CallScheme::Call,
            is_static: false,
            charged_new_account_state_gas: false,
        })))
    }

    /// Marks what a transaction may touch at the warm price: sender, precompiles and, from Shanghai on, the coinbase.
    fn warm_up(&mut self, sender: Address) -> Result<(), ContextError<DatabaseFailure>> {
        let spec = self.schedule.spec;
        if !spec.is_enabled_in(SpecId::BERLIN) {
            return Ok(());
        }
        let state = &mut self.engine.ctx.journaled_state;
        if self.warm_for != Some(self.schedule.rules) {
            state.inner.warm_addresses.set_precompile_addresses(self.schedule.precompiles.addresses_set());
            self.warm_for = Some(self.schedule.rules);
        }
        if spec.is_enabled_in(SpecId::SHANGHAI) {
            state.inner.warm_addresses.set_coinbase(Address::ZERO);
        }
        state.load_account(sender)?;
        Ok(())
    }

    fn run_frames(&mut self, input: FrameInput, value: U256) -> Result<FrameResult, ContextError<DatabaseFailure>> {
        let mut memory = SharedMemory::new_with_buffer(self.engine.ctx.local.shared_memory_buffer.clone());
        memory.set_memory_limit(MAX_MEMORY_BYTES);
        let mut outcome = self.begin(FrameInit { depth: 0, memory, frame_input: input })?;
        if let Some(result) = outcome {
            let ending = self.engine.precompiles.ending;
            self.ending = Some(ending).filter(|_| matches!(result, FrameResult::Call(_)) || ending == Ending::CreationDenied);
            return Ok(result);
        }
        self.engine.frame_stack.get().interpreter.input.call_value = value;
        loop {
            let result = match outcome {
                Some(result) => result,
                None => match self.step()? {
                    ItemOrResult::Item(init) => {
                        outcome = self.begin(init)?;
                        continue;
                    }
                    ItemOrResult::Result(result) => result,
                },
            };
            if let Some(result) = self.engine.frame_return_result(result)? {
                return Ok(result);
            }
            outcome = None;
        }
    }

    /// Begins a frame; a call that needs none gives its result at once.
    fn begin(&mut self, init: FrameInit) -> Result<Option<FrameResult>, ContextError<DatabaseFailure>> {
        self.deepest = self.deepest.max(init.depth);
        if let FrameInput::Create(inputs) = &init.frame_input
            && !self.engine.precompiles.may_create().map_err(|error| ContextError::Db(DatabaseFailure(error)))?
        {
            return Ok(Some(self.deny_creation(inputs.gas_limit())));
        }
        let savepoint = self.engine.precompiles.journal.savepoint();
        match self.engine.frame_init(init)? {
            ItemOrResult::Result(result) => {
                if !result.instruction_result().is_ok() {
                    self.engine.precompiles.journal.rollback(savepoint);
                }
                Ok(Some(result))
            }
            ItemOrResult::Item(frame) => {
                let created = frame.data.created_address();
                let target = frame.interpreter.input.target_address;
                self.savepoints.push(savepoint);
                if self.engine.precompiles.guards().writers {
                    self.note_denied(target).map_err(|error| ContextError::Db(DatabaseFailure(error)))?;
                }
                if let Some(address) = created {
                    self.count_creations_from_zero(address);
                    self.engine.precompiles.record_creator(address);
                }
                Ok(None)
            }
        }
    }

    /// Notes whether the new frame may write its storage, which SSTORE asks.
    #[cold]
    fn note_denied(&mut self, target: Address) -> Result<(), StorageError> {
        let may_write = self.engine.precompiles.may_write(target)?;
        let denied = &mut self.engine.ctx.chain.denied;
        denied.retain(|address| *address != target);
        if !may_write {
            denied.push(target);
        }
        Ok(())
    }

    /// A creation that the origin may not make takes all gas it was given and leaves the creator's nonce.
    fn deny_creation(&mut self, gas_limit: u64) -> FrameResult {
        self.engine.precompiles.ending = Ending::CreationDenied;
        let mut gas = Gas::new(gas_limit);
        gas.spend_all();
        let result = InterpreterResult { result: InstructionResult::PrecompileError, output: Bytes::new(), gas };
        FrameResult::Create(CreateOutcome::new(result, None))
    }

    /// A new contract has created nothing yet. revm starts it at one as Ethereum does, and goes back to zero on revert.
    fn count_creations_from_zero(&mut self, address: Address) {
        if let Some(account) = self.engine.ctx.journaled_state.inner.state.get_mut(&address) {
            account.info.nonce = 0;
        }
    }

    /// Runs the topmost frame until it ends or begins another.
    fn step(&mut self) -> Result<ItemOrResult<FrameInit, FrameResult>, ContextError<DatabaseFailure>> {
        let Evm { ctx, instruction, frame_stack, .. } = &mut self.engine;
        let frame = frame_stack.get();
        let mut action = frame.interpreter.run_plain(instruction.instruction_table(), instruction.gas_table(), ctx);
        mem::replace(&mut ctx.error, Ok(()))?;
        let mut has_returned = false;
        if let InterpreterAction::Return(result) = &mut action {
            has_returned = result.result.is_ok();
            if self.schedule.is_2x() {
                let code_deposit = |bytes| ctx.cfg.gas_params.code_deposit_cost(bytes);
                if frame.data.is_create() && result.result == InstructionResult::Revert {
                    has_returned |= !pay_deposit_of_revert(result, code_deposit);
                }
                if frame.depth == 0 && is_undefined(result.result) {
                    self.stack_error = stack_error(&frame.interpreter);
                }
            }
        }
        let mut next = frame.process_next_action::<_, ContextError<DatabaseFailure>>(ctx, action)?;
        if let ItemOrResult::Result(result) = &mut next {
            frame.set_finished(true);
            self.settle(result, has_returned);
        }
        Ok(next)
    }

    /// Ends the topmost frame: takes its table writes back unless it succeeded, and gives its caller the gas that 2.x nodes give.
    fn settle(&mut self, result: &mut FrameResult, has_returned: bool) {
        let savepoint = self.savepoints.pop().expect("each frame pushed its savepoint");
        let word = result.instruction_result();
        if word.is_ok() {
            return;
        }
        self.engine.precompiles.journal.rollback(savepoint);
        let is_first = self.savepoints.is_empty();
        let is_write_denied = mem::take(&mut self.engine.ctx.chain.is_write_denied);
        if is_write_denied && is_first {
            self.ending = Some(Ending::WriteDenied);
        }
        if !self.schedule.is_2x() {
            return;
        }
        if has_returned {
            // New code that is too long, or whose deposit is too expensive: what the init code left is still there.
            result.interpreter_result_mut().result = InstructionResult::OutOfFunds;
            self.is_deposit_failure = is_first;
        } else if (is_out_of_gas(word) || is_write_denied) && !is_first {
            self.forgive(result);
        }
    }

    /// Gives the caller of a frame that ran out of gas all the gas back that it gave, as 2.x nodes do. There, a loop of such calls
    /// works on without ever paying; here a transaction is given back its own limit at most, so its work is bounded by twice that.
    fn forgive(&mut self, result: &mut FrameResult) {
        let given = result.gas().limit();
        let forgivable = &mut self.engine.precompiles.forgivable;
        let Some(rest) = forgivable.checked_sub(given) else {
            return;
        };
        *forgivable = rest;
        let result = result.interpreter_result_mut();
        result.result = InstructionResult::OutOfFunds;
        result.gas = Gas::new(given);
    }

    fn storage_error(&mut self, error: ContextError<DatabaseFailure>) -> StorageError {
        match (error, self.engine.precompiles.failure.take()) {
            (_, Some(failure)) => failure,
            (ContextError::Db(failure), None) => failure.0,
            (ContextError::Custom(text), None) => StorageError::Engine(text),
        }
    }
}

/// 2.x nodes charge the deposit of new code for revert data too. Whether the gas was there.
fn pay_deposit_of_revert(result: &mut InterpreterResult, code_deposit: impl Fn(usize) -> u64) -> bool {
    let is_paid = result.output.len() <= MAX_CODE_BYTES && result.gas.record_regular_cost(code_deposit(result.output.len()));
    if !is_paid {
        result.output = Bytes::new();
    }
    is_paid
}

fn stack_error(interpreter: &Interpreter) -> Option<TransactionStatus> {
    let code = &interpreter.bytecode;
    blocks::stack_error_after(code.bytecode_slice(), code.pc().saturating_sub(1), interpreter.stack.len())
}

/// Whether a frame ended for want of gas.
pub(super) fn is_out_of_gas(result: InstructionResult) -> bool {
    use InstructionResult::*;
    matches!(result, OutOfGas | MemoryOOG | MemoryLimitOOG | PrecompileOOG | InvalidOperandOOG | ReentrancySentryOOG)
}

fn is_undefined(result: InstructionResult) -> bool {
    matches!(result, InstructionResult::OpcodeNotFound | InstructionResult::NotActivated | InstructionResult::InvalidFEOpcode)
}

/// Makes the journal as new, keeping its memory within bounds.
fn forget(state: &mut JournalInner<JournalEntry>) {
    if state.state.capacity() > KEPT_ACCOUNTS {
        state.state = Default::default();
    }
    state.state.clear();
    state.transient_storage.clear();
    state.logs.clear();
    state.journal.clear();
    state.depth = 0;
    state.transaction_id = TransactionId::ZERO;
    state.warm_addresses.clear_coinbase_and_access_list();
    state.selfdestructed_addresses.clear();
}
