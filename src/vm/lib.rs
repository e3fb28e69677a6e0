//! Execution of one transaction: EVM, gas schedules, precompiled contracts.
//!
//! - [`schedule`]: which opcodes exist and what they cost.
//! - [`environment`]: what a transaction sees of its block.
//! - [`executor`]: runs a transaction or a call over a state and returns receipt and writes. Built on revm. Beside it, for the public state
//!   tests alone, Ethereum's transactions under Ethereum's rules.
//! - [`precompiled`]: the system contracts of 2.x (0x1000 ... 0x5006), one file each, found through one registry.
//!
//! Invariant: the result depends on the state read, the environment and the transaction alone: no clock, no randomness, no map order.

pub mod environment;
pub mod executor;
pub mod precompiled;
pub mod schedule;

pub use environment::{BlockEnvironment, BlockHashes};
pub use executor::{CallMessage, CallResult, Executed, Executor};
pub use schedule::{EvmRules, Fork};
