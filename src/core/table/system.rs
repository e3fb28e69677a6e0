//! (under construction by its owner)
use millrace_base::NodeId;

use crate::overlay::Writes;
use crate::state::StateReader;
use crate::storage::StorageError;

/// Who takes part in a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Voting members, sorted.
    pub sealers: Vec<NodeId>,
    /// Observers, sorted.
    pub observers: Vec<NodeId>,
}

/// What `_sys_config_` and `_sys_consensus_` hold at genesis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GenesisState {
    /// Initial sealers.
    pub sealers: Vec<NodeId>,
    /// `_sys_config_` rows: key and value.
    pub config: Vec<(String, String)>,
}

/// The writes of block 0: system tables and their rows.
pub fn genesis_writes(_genesis: &GenesisState) -> Writes {
    unimplemented!()
}

/// An on-chain setting as it governs block `number` (rows whose `enable_num` is at most that).
pub fn config(_state: &dyn StateReader, _key: &str, _number: u64) -> Result<Option<String>, StorageError> {
    unimplemented!()
}

/// Members as they govern block `number`.
pub fn members(_state: &dyn StateReader, _number: u64) -> Result<Members, StorageError> {
    unimplemented!()
}
