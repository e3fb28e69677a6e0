//! What a group's block 0 is made of (`spec/client-protocol.md` 2.2, `spec/node-semantics.md` 1.5).
//!
//! All nodes of a group must build the same block 0 from their configuration; its hash is the group's identity in every digest.

use std::sync::Arc;

use millrace_access::blockchain::Commit;
use millrace_administration::Faults;
use millrace_administration::raft::ElectionTimes;
use millrace_base::{B256, Block, BlockHeader, Bytes, GroupId, NodeId};
use millrace_core::state::StateReader;
use millrace_core::table::system::{self, GenesisState};
use millrace_core::{StateCommitment, StateKey, StateKind, StateValue, StorageError};
use millrace_vm::EvmRules;

use crate::view::ConsensusKind;

/// How a group orders its transactions, with what only that way needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consensus {
    /// Sealers may lie.
    #[default]
    Pbft,
    /// Sealers may stop.
    Raft(ElectionTimes),
}

impl Consensus {
    /// Its name for queries.
    pub fn kind(self) -> ConsensusKind {
        match self {
            Self::Pbft => ConsensusKind::Pbft,
            Self::Raft(_) => ConsensusKind::Raft,
        }
    }

    /// As `consensus.consensus_type` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pbft => "pbft",
            Self::Raft(_) => "raft",
        }
    }

    /// What quorums are made for.
    pub fn faults(self) -> Faults {
        match self {
            Self::Pbft => Faults::Byzantine,
            Self::Raft(_) => Faults::Crash,
        }
    }
}

/// What the quorums of a chain are made for, by the mark in its block 0: `group-sealers-consensus-…`. A mark of another form is taken
/// for the stricter of the two.
pub fn faults_of_mark(mark: &[u8]) -> Faults {
    match mark.split(|byte| *byte == b'-').nth(2) {
        Some(b"raft") => Faults::Crash,
        _ => Faults::Byzantine,
    }
}

/// The immutable part of a group's configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Genesis {
    /// The group.
    pub group: GroupId,
    /// Timestamp of block 0, milliseconds.
    pub timestamp_ms: u64,
    /// Initial sealers, sorted.
    pub sealers: Vec<NodeId>,
    /// How transactions are ordered.
    pub consensus: Consensus,
    /// Initial `tx_count_limit`.
    pub tx_count_limit: u64,
    /// Initial `tx_gas_limit`.
    pub tx_gas_limit: u64,
    /// Initial `consensus_timeout`, seconds.
    pub consensus_timeout_s: u64,
    /// Rules of the group's machine.
    pub rules: EvmRules,
    /// How state is kept.
    pub state: StateKind,
    /// The group mark: text in the extra data of block 0 that names all of the above as 2.x does.
    pub mark: String,
}

/// The state before block 0.
struct Nothing;

impl StateReader for Nothing {
    fn read(&self, _: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(None)
    }
}

impl Genesis {
    /// The header of block 0: all roots zero, as in 2.x.
    fn header(&self) -> BlockHeader {
        BlockHeader {
            timestamp_ms: self.timestamp_ms,
            extra_data: vec![Bytes::copy_from_slice(self.mark.as_bytes())],
            ..BlockHeader::default()
        }
    }

    /// Hash of block 0.
    pub fn hash(&self) -> B256 {
        self.header().hash()
    }

    /// Block 0 with the system tables it creates.
    pub(crate) fn commit(&self) -> Result<Commit, StorageError> {
        let config =
            [("tx_count_limit", self.tx_count_limit), ("tx_gas_limit", self.tx_gas_limit), ("consensus_timeout", self.consensus_timeout_s)];
        let config = config.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect();
        let writes = system::genesis_writes(&GenesisState { sealers: self.sealers.clone(), config });
        let (commitment, nodes) = StateCommitment::empty(self.state).after(&Nothing, &writes)?;
        let header = self.header();
        let hash = header.hash();
        let block = Arc::new(Block { header, hash, signatures: Vec::new(), transactions: Vec::new(), receipts: Vec::new() });
        Ok(Commit { block, writes, nodes, commitment, epoch_start: None })
    }
}
