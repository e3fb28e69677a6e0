//! What a precompiled contract is made of, and how a call reaches its function.
//!
//! Invariant: gas is the sum of the operations and extents charged and of the memory used, which is never below the size of the output.

use millrace_base::abi::{Encoder, LenientDecoder, Selector};
use millrace_base::{Bytes, U256};

use super::gas::{Meter, Prices};
use super::{Call, Context, Failure, Outcome};

/// A contract at a fixed address, or a kind of temporary object.
pub(super) struct Contract {
    /// Its address as a number; 0 for kinds of objects.
    pub address: u64,
    /// The name 2.x gives it.
    pub name: &'static str,
    /// Whether the size of the input counts as memory used.
    pub counts_input: bool,
    /// What it answers to a selector it does not know.
    pub unknown: Unknown,
    /// Its functions.
    pub functions: &'static [Function],
}

/// A function of a contract.
pub(super) struct Function {
    /// Of `signature`; a test compares them.
    pub selector: Selector,
    /// Canonical.
    pub signature: &'static str,
    /// Reads the arguments, does the work, returns the output.
    pub run: fn(&mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure>,
}

/// Answers to unknown selectors differ by contract (README of the recordings, correction 25).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unknown {
    /// No output.
    Empty,
    /// An int256.
    Code(i64),
}

/// Answers a call to an address that is no contract.
pub(super) const NOTHING: Contract = Contract { address: 0, name: "Nothing", counts_input: false, unknown: Unknown::Empty, functions: &[] };

/// One call on its way through a function.
pub(super) struct Invocation<'i, 'j, 's> {
    /// The transaction around it.
    pub context: &'i mut Context<'j, 's>,
    /// The call.
    pub call: Call<'i>,
    /// Its arguments, read in the order of the signature.
    pub arguments: LenientDecoder<'i>,
    /// What it costs so far.
    pub gas: Meter,
}

impl<'i, 'j, 's> Invocation<'i, 'j, 's> {
    /// A call of `contract`.
    pub fn new(context: &'i mut Context<'j, 's>, call: Call<'i>, contract: &Contract) -> Self {
        let mut gas = Meter::new(Prices::new(context.is_free_storage));
        if contract.counts_input {
            gas.set_memory(call.input.len() as u64);
        }
        let arguments = LenientDecoder::new(call.input.get(4..).unwrap_or_default());
        Self { context, call, arguments, gas }
    }

    /// Runs the function that the input selects.
    pub fn run(mut self, contract: &Contract) -> Result<Outcome, Failure> {
        let selector: Option<&Selector> = self.call.input.first_chunk();
        let function = contract.functions.iter().find(|function| Some(&function.selector) == selector);
        let output = match (function, contract.unknown) {
            (Some(function), _) => (function.run)(&mut self).map_err(|failure| self.with_extent(failure))?,
            (None, Unknown::Empty) => Bytes::new(),
            (None, Unknown::Code(answer)) => code(answer),
        };
        let gas_used = self.gas.total(output.len() as u64);
        Ok(Outcome { output, gas_used })
    }

    /// A refusal costs nothing but the base cost, as in 2.x, and what was read or copied above the free extent.
    fn with_extent(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Refused { message, gas_used } => Failure::Refused { message, gas_used: gas_used.saturating_add(self.gas.extent()) },
            failure => failure,
        }
    }
}

/// Return data: a count of rows or an error code.
pub(super) fn code(value: i64) -> Bytes {
    Encoder::new().int(value).finish()
}

/// Return data: a number.
pub(super) fn number(value: U256) -> Bytes {
    Encoder::new().uint(value).finish()
}

/// The contract refuses with a text. As 2.x: no gas but the base cost.
pub(super) fn refused(message: impl Into<String>) -> Failure {
    Failure::Refused { message: message.into(), gas_used: 0 }
}

/// The text of refusals that 2.x has no text for.
pub(super) fn refused_without_reason() -> Failure {
    refused("PrecompiledError")
}
