//! The instructions that are not revm's own, and the tables they stand in.
//!
//! Under all rules: GASPRICE gives the transaction's field in full width (revm keeps 128 bits), EXTCODESIZE gives 1 for system
//! contracts and the objects they opened. Under 2.x rules SSTORE prices a write by the present value alone, as 2.x nodes do, instead of tracking the value at the
//! transaction's start (EIP-2200). Under all rules SSTORE ends the frame when the origin may not write the contract's storage.

use millrace_base::{Address, U256};
use revm::bytecode::opcode::{EXTCODESIZE, GASPRICE, SSTORE};
use revm::handler::instructions::InstructionProvider;
use revm::interpreter::instructions::{self, GasTable, InstructionTable, host};
use revm::interpreter::interpreter::EthInterpreter;
use revm::interpreter::interpreter_types::{InputsTr, RuntimeFlag};
use revm::interpreter::{Host, Instruction, InstructionContext, InstructionExecResult, InstructionResult};

use super::machine::Context;
use crate::precompiled;
use crate::schedule::Schedule;

/// SSTORE fails when no more gas than this is left (EIP-2200), whatever the stipend of calls is.
const SSTORE_SENTRY: u64 = 2_300;

type Table<'a> = InstructionTable<EthInterpreter, Context<'a>>;
type Operands<'c, 'a> = InstructionContext<'c, Context<'a>, EthInterpreter>;

/// Instructions of one set of rules, borrowed from static tables and the schedule: making one costs nothing.
pub(super) struct Instructions<'a> {
    table: &'a Table<'a>,
    gas: &'a GasTable,
}

impl<'a> Instructions<'a> {
    const FORK: &'a Table<'a> = &fork_table();
    const FISCO2: &'a Table<'a> = &fisco2_table();

    pub fn new(schedule: &'a Schedule) -> Self {
        let table = if schedule.is_2x() { Self::FISCO2 } else { Self::FORK };
        Self { table, gas: &schedule.gas_table }
    }
}

impl<'a> InstructionProvider for Instructions<'a> {
    type Context = Context<'a>;
    type InterpreterTypes = EthInterpreter;

    fn instruction_table(&self) -> &Table<'a> {
        self.table
    }

    fn gas_table(&self) -> &GasTable {
        self.gas
    }
}

const fn fork_table<'a>() -> Table<'a> {
    let mut table = instructions::instruction_table::<EthInterpreter, Context<'a>>();
    table[GASPRICE as usize] = Instruction::new(gas_price);
    table[EXTCODESIZE as usize] = Instruction::new(code_size);
    table[SSTORE as usize] = Instruction::new(guarded_store);
    table
}

const fn fisco2_table<'a>() -> Table<'a> {
    let mut table = fork_table();
    table[SSTORE as usize] = Instruction::new(store);
    table
}

fn gas_price(operands: Operands<'_, '_>) -> InstructionExecResult {
    if !operands.interpreter.stack.push(operands.host.chain.gas_price) {
        return Err(InstructionResult::StackOverflow);
    }
    Ok(())
}

fn code_size(operands: Operands<'_, '_>) -> InstructionExecResult {
    let InstructionContext { interpreter, host } = operands;
    let address = interpreter.stack.peek(0).map(|word| Address::from_word(word.into()));
    host::extcodesize(InstructionContext { interpreter: &mut *interpreter, host })?;
    let objects = host.chain.objects;
    if address.is_ok_and(|address| precompiled::has_pseudo_code(address, objects)) {
        interpreter.stack.set(0, U256::ONE)?;
    }
    Ok(())
}

/// Whether the origin may not write the storage of the running contract; notes that it tried.
fn is_denied(operands: &mut Operands<'_, '_>) -> bool {
    let chain = &mut operands.host.chain;
    chain.is_write_denied = !chain.denied.is_empty() && chain.denied.contains(&operands.interpreter.input.target_address());
    chain.is_write_denied
}

/// revm's own SSTORE behind the check of writers.
fn guarded_store(mut operands: Operands<'_, '_>) -> InstructionExecResult {
    if is_denied(&mut operands) {
        return Err(InstructionResult::PrecompileError);
    }
    host::sstore(operands)
}

fn store(mut operands: Operands<'_, '_>) -> InstructionExecResult {
    if is_denied(&mut operands) {
        return Err(InstructionResult::PrecompileError);
    }
    let InstructionContext { interpreter, host } = operands;
    if interpreter.runtime_flag.is_static() {
        return Err(InstructionResult::StateChangeDuringStaticCall);
    }
    let Some([index, value]) = interpreter.stack.popn() else {
        return Err(InstructionResult::StackUnderflow);
    };
    if interpreter.gas.remaining() <= SSTORE_SENTRY {
        return Err(InstructionResult::ReentrancySentryOOG);
    }
    let target = interpreter.input.target_address();
    let Some(stored) = host.sstore(target, index, value) else {
        return Err(InstructionResult::FatalExternalError);
    };
    let costs = host.chain.storage;
    let (present, new) = (stored.present_value, stored.new_value);
    let cost = if present == new {
        costs.unchanged
    } else if present.is_zero() {
        costs.set
    } else {
        costs.reset
    };
    if !interpreter.gas.record_regular_cost(cost) {
        return Err(InstructionResult::OutOfGas);
    }
    if new.is_zero() && !present.is_zero() {
        interpreter.gas.record_refund(costs.clear_refund);
    }
    Ok(())
}
