//! The program: command line, configuration and assembly of the node.
//!
//! - [`cli`]: the commands, their help, exit codes.
//! - [`config`]: typed configuration from the files of 2.x, checked in one place.
//! - [`keys`], [`certificates`], [`chain_build`], [`chain_change`]: identities and the directories of a chain.
//! - [`node`]: puts ledgers, pipeline and gateways together and takes them down in order.
//! - [`reload`]: lists and groups read again while the node runs.
//! - [`state_tests`]: the public Ethereum state tests through our own path.
//! - [`status`]: what a node says about itself, what follows from it, and how it looks.
//! - [`logging`], [`version`]: what operators see.
//!
//! Invariant: every fault an operator can cause or mend ends here as a [`millrace_base::fault::Fault`]: a message, what to do, and an
//! exit code of its own.

pub mod certificates;
pub mod chain_build;
pub mod chain_change;
pub mod channel_port;
pub mod cli;
pub mod config;
pub mod keys;
pub mod logging;
pub mod node;
pub mod reload;
pub mod state_tests;
pub mod status;
pub mod version;
