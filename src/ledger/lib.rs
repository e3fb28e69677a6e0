//! Ledger layer: one group's objects, the registry of groups, and recovery at start.
//!
//! - [`archive`]: blocks in files, out of a database and verified into another.
//! - [`check`]: what can be said of a block from elsewhere by itself.
//! - [`snapshot`]: the state of one height in files, and a database made of it.
//! - [`view`]: the face that clients' gateways see.
//! - [`conduct`]: what other nodes of a group did wrong.
//! - [`genesis`]: what block 0 of a group is made of.
//! - [`ledger`]: a group that runs here: chain, state, pool, epoch, and the answers to queries.
//! - [`registry`]: which groups run here.
//! - [`vote_log`]: the durable votes of all groups.
//! - [`watch`]: how fast a group moves and what it waits for.
//! - [`verify`]: checks a group's whole database.
//!
//! Invariant: what belongs to a group is reachable through its [`Ledger`] alone; nothing here is shared between groups but the vote log.

pub mod archive;
pub mod check;
pub mod conduct;
pub mod genesis;
pub mod ledger;
pub mod registry;
pub mod snapshot;
mod state_sum;
#[cfg(test)]
mod test_chain;
pub mod verify;
pub mod view;
pub mod vote_log;
pub mod watch;

pub use genesis::Genesis;
pub use ledger::{Ledger, LedgerConfig, OpenError};
pub use millrace_access::blockchain::facts;
pub use registry::Registry;
pub use vote_log::VoteLog;
