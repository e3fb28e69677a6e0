//! A group's genesis: what `group.N.genesis` says, and the *mark*, the text in block 0 that names it.
//!
//! All nodes of a group must make the same mark: it is hashed into block 0, whose hash is the group's identity.

use std::fmt::Write;

use millrace_administration::raft::ElectionTimes;
use millrace_base::fault::Fault;
use millrace_base::limits::{DEFAULT_TX_COUNT_LIMIT, DEFAULT_TX_GAS_LIMIT};
use millrace_base::{ChainId, GroupId, NodeId};
use millrace_core::StateKind;
use millrace_ledger::Genesis;
use millrace_ledger::genesis::Consensus;
use millrace_vm::EvmRules;

use super::schema::Checked;

/// The 2.x genesis flag of `evm.enable_free_storage` in the mark (`spec/client-protocol.md` 8.4).
const FREE_STORAGE_FLAG: u64 = 1 << 63;

/// Default of `consensus.consensus_timeout`, seconds.
const DEFAULT_CONSENSUS_TIMEOUT_S: u64 = 3;

/// The immutable part of a group's configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupGenesis {
    /// The group.
    pub group: GroupId,
    /// The chain it belongs to; not part of the mark, as in 2.x.
    pub chain_id: ChainId,
    /// Timestamp of block 0, milliseconds.
    pub timestamp_ms: u64,
    /// Initial sealers, sorted, without repetition; at least one.
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
}

impl GroupGenesis {
    /// Takes a genesis out of its checked file.
    pub(super) fn from_file(ini: &Checked, chain_id: ChainId) -> Result<Self, Fault> {
        let missing = |section: &str, key: &str| {
            ini.fault(
                section,
                key,
                format!("{section}.{key} is missing"),
                "restore the file from another node of the group; all nodes need the same",
            )
        };
        let id = ini.number("group", "id").ok_or_else(|| missing("group", "id"))?;
        let group = i64::try_from(id).ok().and_then(GroupId::new).expect("bounded by the schema");
        let timestamp_ms = ini.number("group", "timestamp").ok_or_else(|| missing("group", "timestamp"))?;
        Ok(Self {
            group,
            chain_id,
            timestamp_ms,
            sealers: sealers(ini)?,
            consensus: consensus(ini)?,
            tx_count_limit: ini.number("consensus", "max_trans_num").unwrap_or(DEFAULT_TX_COUNT_LIMIT),
            tx_gas_limit: ini.number("tx", "gas_limit").unwrap_or(DEFAULT_TX_GAS_LIMIT),
            consensus_timeout_s: ini.number("consensus", "consensus_timeout").unwrap_or(DEFAULT_CONSENSUS_TIMEOUT_S),
            rules: rules(ini)?,
            state: ini.text("state", "type").map_or(StateKind::Storage, |text| text.parse().expect("checked by the schema")),
        })
    }

    /// What block 0 of the group is made of.
    pub fn of_ledger(&self) -> Genesis {
        Genesis {
            group: self.group,
            timestamp_ms: self.timestamp_ms,
            sealers: self.sealers.clone(),
            consensus: self.consensus,
            tx_count_limit: self.tx_count_limit,
            tx_gas_limit: self.tx_gas_limit,
            consensus_timeout_s: self.consensus_timeout_s,
            rules: self.rules,
            state: self.state,
            mark: self.mark(),
        }
    }

    /// The text in the extra data of block 0, byte for byte as 2.x from 2.9.0 on writes it (`spec/client-protocol.md` 2.2). Rules of the
    /// machine that 2.x does not know follow at the end, so that such a group has another genesis hash.
    pub fn mark(&self) -> String {
        let mut mark = format!("{}-", self.group);
        for sealer in &self.sealers {
            write!(mark, "{sealer},").expect("writing to a string cannot fail");
        }
        let consensus = self.consensus.name();
        let state = self.state;
        let flags = match self.rules {
            EvmRules::Fisco2 { free_storage: true } => FREE_STORAGE_FLAG,
            EvmRules::Fisco2 { free_storage: false } | EvmRules::Fork(_) => 0,
        };
        let (count, gas, timeout) = (self.tx_count_limit, self.tx_gas_limit, self.consensus_timeout_s);
        write!(mark, "-{consensus}-{state}-{flags}-{count}-{gas}-{timeout}").expect("writing to a string cannot fail");
        if let EvmRules::Fork(_) = self.rules {
            write!(mark, "-evm:{}", self.rules).expect("writing to a string cannot fail");
        }
        mark
    }
}

/// The times of an election are no part of the mark: nodes that differ in them still agree, only less quickly.
fn consensus(ini: &Checked) -> Result<Consensus, Fault> {
    if ini.text("consensus", "consensus_type") != Some("raft") {
        return Ok(Consensus::Pbft);
    }
    let default = ElectionTimes::default();
    let min_ms = ini.number("consensus", "min_elect_time").unwrap_or(default.min_ms);
    let max_ms = ini.number("consensus", "max_elect_time").unwrap_or(default.max_ms.max(2 * min_ms));
    if max_ms <= min_ms {
        let what = format!("consensus.max_elect_time={max_ms} is not above consensus.min_elect_time={min_ms}");
        return Err(ini.fault(
            "consensus",
            "max_elect_time",
            what,
            "twice min_elect_time is a good value: sealers must not all ask for votes at once",
        ));
    }
    Ok(Consensus::Raft(ElectionTimes { min_ms, max_ms }))
}

fn sealers(ini: &Checked) -> Result<Vec<NodeId>, Fault> {
    let remedy = "each line is node.N=<128 hexadecimal digits>, as in conf/node.nodeid of the sealer";
    let mut sealers = Vec::new();
    for text in ini.list("consensus", "node.") {
        sealers.push(NodeId::parse(text).map_err(|_| ini.fault("consensus", "node.N", "a consensus.node.N is empty", remedy))?);
    }
    sealers.sort_unstable();
    let count = sealers.len();
    sealers.dedup();
    match sealers.len() {
        0 => Err(ini.fault("consensus", "node.N", "the group has no sealer: section [consensus] has no node.N", remedy)),
        distinct if distinct < count => {
            Err(ini.fault("consensus", "node.N", "a sealer is listed twice", "remove the repeated consensus.node.N"))
        }
        _ => Ok(sealers),
    }
}

/// Absent rules mean the machine of 2.x: real 2.x files have none.
fn rules(ini: &Checked) -> Result<EvmRules, Fault> {
    let free_storage = ini.flag("evm", "enable_free_storage").unwrap_or(false);
    let Some(text) = ini.text("evm", "rules") else {
        return Ok(EvmRules::Fisco2 { free_storage });
    };
    let rules: EvmRules = text.parse().map_err(|error: millrace_vm::schedule::UnknownRules| {
        ini.fault("evm", "rules", format!("evm.rules: unknown rules \"{}\"", super::ini::clip(text)), error.to_string())
    })?;
    match rules {
        EvmRules::Fisco2 { free_storage: named } => Ok(EvmRules::Fisco2 { free_storage: named || free_storage }),
        EvmRules::Fork(_) if free_storage => {
            let what = format!("evm.enable_free_storage=true does not go with evm.rules={rules}");
            Err(ini.fault("evm", "enable_free_storage", what, "use rules=fisco2-free-storage, or remove one of the two lines"))
        }
        EvmRules::Fork(_) => Ok(rules),
    }
}
