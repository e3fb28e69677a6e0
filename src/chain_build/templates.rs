//! The texts of the configuration files that `chain build` writes. Only keys that have an effect stand in them.

use std::fmt::Write;

use millrace_administration::raft::ElectionTimes;
use millrace_base::{ChainId, GroupId, NodeId};
use millrace_core::StateKind;
use millrace_ledger::genesis::Consensus;
use millrace_vm::EvmRules;

use super::node_files::NetworkPlace;

/// Start and stop scripts, the same for every node.
pub const START: &str = include_str!("start.sh");
/// See [`START`].
pub const STOP: &str = include_str!("stop.sh");
/// Starts all nodes of a host.
pub const START_ALL: &str = include_str!("start_all.sh");
/// Stops all nodes of a host.
pub const STOP_ALL: &str = include_str!("stop_all.sh");

/// The `supported_version` of new chains: the end of the 2.x line.
pub const SUPPORTED_VERSION: &str = "2.11.1";

/// A script that puts changed lists in force, by the signal file of 2.x.
pub fn reload_script(signal: &str) -> String {
    include_str!("reload.sh").replace("SIGNAL", signal)
}

/// What differs from node to node in `config.ini`.
pub struct NodeText<'a> {
    /// Where it listens.
    pub place: NetworkPlace,
    /// All nodes of the chain, `host:port`.
    pub peers: &'a [String],
    /// Chain id.
    pub chain_id: ChainId,
}

/// `config.ini` of a node.
pub fn config_ini(node: &NodeText<'_>) -> String {
    let NodeText { place, peers, chain_id } = node;
    let NetworkPlace { rpc, channel, p2p } = place;
    let peers = peers.iter().enumerate().fold(String::new(), |mut text, (index, peer)| {
        writeln!(text, "    node.{index}={peer}").expect("writing to a string cannot fail");
        text
    });
    format!(
        "[rpc]
    channel_listen_ip={}
    channel_listen_port={}
    jsonrpc_listen_ip={}
    jsonrpc_listen_port={}
    ; true: groups and peers are changed on the operator port alone; false: clients may too, as in 2.x
    disable_dynamic_group=true
[p2p]
    listen_ip={}
    listen_port={}
    ; nodes to connect
{peers}
; nodes that are refused, by the 128 digits of conf/node.nodeid
[certificate_blacklist]
    ;crl.0=

; if any stand here, the only nodes that are admitted; scripts/reload_whitelist.sh puts changes of both lists in force
[certificate_whitelist]
    ;cal.0=

[group]
    group_data_path=data/
    group_config_path=conf/

[network_security]
    ; directory of the keys and certificates; node.key is the node's identity, p2p.key belongs to the certificate
    data_path=conf/
    key=node.key
    cert=p2p.crt
    ca_cert=p2p-ca.crt

[storage_security]
    enable=false

[chain]
    ; never change it once blocks exist
    id={chain_id}
    sm_crypto=false

[compatibility]
    ; selects data formats, not the program's version: never change it once blocks exist
    supported_version={SUPPORTED_VERSION}

[log]
    enable=true
    log_path=./log
    ; trace, debug, info, warning, error
    level=info
    ; MB
    max_log_file_size=200

[millrace]
    ; metrics and health, for operators only
    operator_listen_ip=127.0.0.1
    operator_listen_port={operator_port}
    ; power: a block is on the disk before a client hears of it; process: it survives a crash of the program only
    durability=power
    ; text or json
    log_format=text
    ; also: verify_threads, execute_threads, parallel_threads (default: all cores), cache_mb (default: 256), pin_cores, window (default: 8 heights in flight)
",
        channel.ip(),
        channel.port(),
        rpc.ip(),
        rpc.port(),
        p2p.ip(),
        p2p.port(),
        operator_port = place.operator_port(),
    )
}

/// `group.N.genesis`.
pub fn group_genesis(
    group: GroupId,
    timestamp_ms: u64,
    sealers: &[NodeId],
    rules: EvmRules,
    consensus: Consensus,
    state: StateKind,
) -> String {
    let sealers = sealers.iter().enumerate().fold(String::new(), |mut text, (index, sealer)| {
        writeln!(text, "    node.{index}={sealer}").expect("writing to a string cannot fail");
        text
    });
    // Chains with the machine of 2.x get exactly the keys that 2.x nodes know, so that their files can be exchanged.
    let evm = match rules {
        EvmRules::Fisco2 { free_storage } => format!("    enable_free_storage={free_storage}"),
        EvmRules::Fork(_) => format!("    ; fisco2 or an Ethereum fork\n    rules={rules}"),
    };
    let consensus = match consensus {
        Consensus::Pbft => "consensus_type=pbft".to_owned(),
        Consensus::Raft(ElectionTimes { min_ms, max_ms }) => format!(
            "; for sealers that may stop but never lie: a majority decides
    consensus_type=raft
    ; ms without a leader after which a sealer asks for votes
    min_elect_time={min_ms}
    max_elect_time={max_ms}"
        ),
    };
    format!(
        "; This file must be the same on all nodes of the group, and must never change.
[consensus]
    {consensus}
    max_trans_num=1000
    ; seconds
    consensus_timeout=3
{sealers}
[state]
    ; storage: latest values; mpt: Ethereum's tries, every block's accounts stay readable and provable
    type={state}
[tx]
    gas_limit=300000000
[group]
    id={group}
    timestamp={timestamp_ms}
[evm]
{evm}
"
    )
}

/// `group.N.ini`.
pub fn group_ini() -> &'static str {
    "; Settings of this node for the group; a restart applies them.
[consensus]
    ; ms between blocks that are not full: 500 without this line; 50 answers in a tenth of the time for a seventh more work at low load
    min_block_generation_time=50

[storage]
    type=rocksdb

[tx_pool]
    limit=150000
    ; MB
    memory_limit=512
    ; seconds
    txs_expiration_time=600

[flow_control]
    ; requests a second for this group
    ;limit_req=1000

[millrace]
    ; transactions and receipts of the last blocks that are kept, at least 2000; all without this line. Headers and state always stay
    ;keep_blocks=100000

; if any stand here, the only clients of the channel port that see the group; scripts/reload_sdk_allowlist.sh puts changes in force
[sdk_allowlist]
    ;public_key.0=
"
}
