//! Calls of what is not EVM code: Ethereum's precompiles, the system contracts, and addresses without code.
//!
//! Invariant: every call that has no code to run ends here, so revm's rule that a call of nothing succeeds never applies.

use millrace_base::abi::error_string;
use millrace_base::{Address, Bytes, U256};
use millrace_core::StorageError;
use millrace_core::overlay::Journal;
use revm::context_interface::JournalTr;
use revm::handler::PrecompileProvider;
use revm::interpreter::{CallInputs, Gas, InstructionResult, InterpreterResult};
use revm::precompile::PrecompileStatus;
use revm::primitives::AddressSet;
use revm::primitives::hardfork::SpecId;

use super::machine::Context;
use crate::environment::BlockEnvironment;
use crate::precompiled::guards::{self, Guards};
use crate::precompiled::{self, Accounts, Call, Failure, Temporaries};
use crate::schedule::{MAX_MEMORY_BYTES, MAX_PRECOMPILE_GAS, Schedule};

/// Modular exponentiation, whose input announces sizes that need not be there.
const MODEXP: Address = Address::new(millrace_base::hex!("0000000000000000000000000000000000000005"));

/// Recovery of a signer; 2.x nodes recover none from a signature whose s is in the upper half.
const RECOVER: Address = Address::new(millrace_base::hex!("0000000000000000000000000000000000000001"));

/// Price of [`RECOVER`].
const RECOVER_GAS: u64 = 3_000;

/// Half the order of secp256k1, rounded down.
const HALF_ORDER: U256 = U256::from_limbs([0xdfe9_2f46_681b_20a0, 0x5d57_6e73_57a4_501d, 0xffff_ffff_ffff_ffff, 0x7fff_ffff_ffff_ffff]);

/// How a call of what is not EVM code ended, where a transaction's status depends on more than the frame's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It returned.
    Returned,
    /// There is nothing to call.
    NoCode,
    /// The price of an Ethereum precompile is above the gas given.
    PrecompileTooExpensive,
    /// An Ethereum precompile refused its input.
    PrecompileFailed,
    /// A system contract refused, or its work is above the gas given.
    Refused,
    /// The origin may not create contracts.
    CreationDenied,
    /// The origin may not write the storage of the contract.
    WriteDenied,
    /// The contract is frozen.
    ContractFrozen,
    /// The origin is frozen.
    AccountFrozen,
}

/// Runs such calls for one transaction and holds the tables' side of it.
pub(super) struct Contracts<'a> {
    /// Table writes of the transaction.
    pub journal: Journal<'a>,
    /// How the last call ended.
    pub ending: Ending,
    /// Work that may still be done without being paid, in gas: what 2.x nodes give back to callers of frames that ran out of gas, and
    /// what system contracts did before it was known to cost more than they were given. Starts at the transaction's gas, so that all
    /// work is bounded by twice the limit.
    pub forgivable: u64,
    /// A storage failure; revm carries only text.
    pub failure: Option<StorageError>,
    schedule: &'a Schedule,
    block: BlockEnvironment,
    origin: Address,
    temporaries: Temporaries,
    guards: Guards,
}

impl<'a> Contracts<'a> {
    /// For a transaction of `origin`; `block` is the one that system contracts work in.
    pub fn new(journal: Journal<'a>, schedule: &'a Schedule, block: BlockEnvironment, origin: Address, guards: Guards) -> Self {
        let temporaries = Temporaries::default();
        Self { journal, ending: Ending::Returned, forgivable: 0, failure: None, schedule, block, origin, temporaries, guards }
    }

    /// Whether the origin may create contracts: who may write the table of tables (`spec/client-protocol.md` 8.6).
    pub fn may_create(&self) -> Result<bool, StorageError> {
        precompiled::may_create_contracts(&self.journal, self.origin, self.block.number)
    }

    /// The restrictions that the group uses.
    pub fn guards(&self) -> Guards {
        self.guards
    }

    /// Whether the origin is frozen; the refusal of a creation comes first.
    #[cold]
    pub fn is_origin_frozen(&self, to: Option<Address>) -> Result<bool, StorageError> {
        Ok(guards::is_frozen(&self.journal, self.origin)? && (to.is_some() || self.may_create()?))
    }

    /// Whether the origin may write the storage of a contract.
    pub fn may_write(&self, contract: Address) -> Result<bool, StorageError> {
        guards::may_write_storage(&self.journal, contract, self.origin, self.block.number)
    }

    /// Makes the origin the manager of a contract that it creates.
    pub fn record_creator(&mut self, contract: Address) {
        guards::record_creator(&mut self.journal, contract, self.origin);
    }

    /// Refuses a call of a frozen contract; its gas comes back.
    #[cold]
    fn refuse_frozen(&mut self, inputs: &CallInputs) -> Result<Option<InterpreterResult>, StorageError> {
        if !guards::is_frozen(&self.journal, inputs.bytecode_address)? {
            return Ok(None);
        }
        let output = error_string(format!("Frozen contract:{:x}", inputs.bytecode_address));
        Ok(Some(self.end(Ending::ContractFrozen, InstructionResult::Revert, Gas::new(inputs.gas_limit), output)))
    }

    fn fail(&mut self, error: StorageError) -> String {
        let text = error.to_string();
        self.failure = Some(error);
        text
    }

    fn end(&mut self, ending: Ending, result: InstructionResult, gas: Gas, output: Bytes) -> InterpreterResult {
        self.ending = ending;
        InterpreterResult { result, output, gas }
    }

    /// Ends a call that costs more than it was given. 2.x nodes give the gas back, forks keep it.
    fn end_too_expensive(&mut self, ending: Ending, mut gas: Gas) -> InterpreterResult {
        if self.schedule.is_2x() {
            return self.end(ending, InstructionResult::OutOfFunds, gas, Bytes::new());
        }
        gas.spend_all();
        self.end(ending, InstructionResult::PrecompileOOG, gas, Bytes::new())
    }

    fn run_ethereum(&mut self, context: &mut Context<'a>, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        let Some(precompile) = self.schedule.precompiles.get(&inputs.bytecode_address) else {
            return Ok(None);
        };
        let mut gas = Gas::new(inputs.gas_limit);
        let data = inputs.input.as_bytes(context);
        if inputs.bytecode_address == MODEXP && modexp_bytes(&data) > U256::from(MAX_MEMORY_BYTES) {
            return Ok(Some(self.end_too_expensive(Ending::PrecompileTooExpensive, gas)));
        }
        if inputs.bytecode_address == RECOVER && self.schedule.is_2x() && has_high_s(&data) {
            let is_paid = gas.record_regular_cost(RECOVER_GAS);
            return Ok(Some(match is_paid {
                true => self.end(Ending::Returned, InstructionResult::Return, gas, Bytes::new()),
                false => self.end_too_expensive(Ending::PrecompileTooExpensive, gas),
            }));
        }
        let ran = precompile.execute(&data, inputs.gas_limit.min(MAX_PRECOMPILE_GAS), 0).map_err(|error| error.to_string())?;
        Ok(Some(match ran.status {
            PrecompileStatus::Success if gas.record_regular_cost(ran.gas_used) => {
                self.end(Ending::Returned, InstructionResult::Return, gas, ran.bytes)
            }
            PrecompileStatus::Success => self.end_too_expensive(Ending::PrecompileTooExpensive, gas),
            PrecompileStatus::Halt(reason) if reason.is_oog() => self.end_too_expensive(Ending::PrecompileTooExpensive, gas),
            PrecompileStatus::Halt(_) | PrecompileStatus::Revert => {
                gas.spend_all();
                self.end(Ending::PrecompileFailed, InstructionResult::PrecompileError, gas, Bytes::new())
            }
        }))
    }

    fn run_system(&mut self, context: &mut Context<'a>, inputs: &CallInputs) -> Result<InterpreterResult, String> {
        if self.forgivable == 0 {
            return Ok(self.end_too_expensive(Ending::Refused, Gas::new(inputs.gas_limit)));
        }
        let input = inputs.input.bytes(context);
        let call = Call { origin: self.origin, sender: inputs.caller, address: inputs.bytecode_address, input: &input };
        let mut around = precompiled::Context {
            journal: &mut self.journal,
            temporaries: &mut self.temporaries,
            accounts: &mut StateAccounts(context),
            block: &self.block,
            is_free_storage: self.schedule.is_free_storage(),
        };
        let mut gas = Gas::new(inputs.gas_limit);
        let ran = precompiled::run(&mut around, call);
        context.chain.objects = self.temporaries.count();
        let (ending, result, output, used) = match ran {
            Ok(outcome) => (Ending::Returned, InstructionResult::Return, outcome.output, outcome.gas_used),
            Err(Failure::Refused { message, gas_used }) => (Ending::Refused, InstructionResult::Revert, error_string(message), gas_used),
            Err(Failure::Storage(error)) => return Err(self.fail(error)),
        };
        // The call may have been the group's first to restrict something.
        if precompiled::may_restrict(inputs.bytecode_address) {
            self.guards = Guards::load(&self.journal).map_err(|error| self.fail(error))?;
        }
        if !gas.record_regular_cost(used) {
            let left = inputs.gas_limit;
            self.forgivable = self.forgivable.saturating_sub(used);
            let text = format!("OutOfGas when executing precompiled Contract, gasUsed: {used}, leftGas:{left}");
            return Ok(self.end(Ending::Refused, InstructionResult::Revert, gas, error_string(text)));
        }
        Ok(self.end(ending, result, gas, output))
    }
}

impl<'a> PrecompileProvider<Context<'a>> for Contracts<'a> {
    type Output = InterpreterResult;

    fn set_spec(&mut self, _spec: SpecId) -> bool {
        false
    }

    fn run(&mut self, context: &mut Context<'a>, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        if !inputs.known_bytecode.1.is_empty() {
            if self.guards.frozen {
                return self.refuse_frozen(inputs).map_err(|error| self.fail(error));
            }
            return Ok(None);
        }
        if let Some(result) = self.run_ethereum(context, inputs)? {
            return Ok(Some(result));
        }
        if precompiled::is_contract(inputs.bytecode_address, &self.temporaries) {
            return self.run_system(context, inputs).map(Some);
        }
        let output = error_string(format!("Error address:{:x}", inputs.bytecode_address));
        Ok(Some(self.end(Ending::NoCode, InstructionResult::Revert, Gas::new(inputs.gas_limit), output)))
    }

    fn warm_addresses(&self) -> &AddressSet {
        self.schedule.precompiles.addresses_set()
    }
}

/// Accounts as the system contracts see them, the transaction's own changes included.
struct StateAccounts<'c, 'a>(&'c mut Context<'a>);

impl Accounts for StateAccounts<'_, '_> {
    fn code_len(&mut self, address: Address) -> Result<usize, StorageError> {
        let account = self.0.journaled_state.load_account_with_code(address).map_err(|failure| failure.0)?;
        Ok(account.info.code.as_ref().map_or(0, |code| code.len()))
    }

    fn exists(&mut self, address: Address) -> Result<bool, StorageError> {
        let account = self.0.journaled_state.load_account(address).map_err(|failure| failure.0)?;
        Ok(!account.is_loaded_as_not_existing() || !account.info.is_empty())
    }

    fn nonce(&mut self, address: Address) -> Result<u64, StorageError> {
        let account = self.0.journaled_state.load_account(address).map_err(|failure| failure.0)?;
        Ok(account.info.nonce)
    }
}

/// Sum of the three sizes that input of modular exponentiation announces.
fn modexp_bytes(input: &[u8]) -> U256 {
    word(input, 0).saturating_add(word(input, 32)).saturating_add(word(input, 64))
}

fn has_high_s(input: &[u8]) -> bool {
    word(input, 96) > HALF_ORDER
}

/// The number at a position of the input, which goes on with zeros for ever.
fn word(input: &[u8], position: usize) -> U256 {
    let given = input.get(position..).unwrap_or_default();
    let given = &given[..given.len().min(32)];
    let mut word = [0; 32];
    word[..given.len()].copy_from_slice(given);
    U256::from_be_bytes(word)
}
