//! The texts of the configuration files that `chain build` writes. Only keys that have an effect stand in them.

use std::fmt::Write;
use std::net::IpAddr;

use millrace_base::{ChainId, GroupId, NodeId};
use millrace_vm::EvmRules;

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

/// What differs from node to node in `config.ini`.
pub struct NodeText<'a> {
    /// Where JSON-RPC listens.
    pub rpc: (IpAddr, u16),
    /// Where the channel listens.
    pub channel: (IpAddr, u16),
    /// Where P2P listens.
    pub p2p: (IpAddr, u16),
    /// Operator port, on the loopback address.
    pub operator_port: u16,
    /// All nodes of the chain, `host:port`.
    pub peers: &'a [String],
    /// Chain id.
    pub chain_id: ChainId,
}

/// `config.ini` of a node.
pub fn config_ini(node: &NodeText<'_>) -> String {
    let NodeText { rpc, channel, p2p, operator_port, peers, chain_id } = node;
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
[group]
    group_data_path=data/
    group_config_path=conf/

[network_security]
    ; directory of the certificates; node.key is the node's identity
    data_path=conf/
    key=node.key
    cert=node.crt
    ca_cert=ca.crt

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
    ; also: verify_threads, execute_threads (default: all cores), cache_mb (default: 256), pin_cores
",
        channel.0, channel.1, rpc.0, rpc.1, p2p.0, p2p.1
    )
}

/// `group.N.genesis`.
pub fn group_genesis(group: GroupId, timestamp_ms: u64, sealers: &[NodeId], rules: EvmRules) -> String {
    let sealers = sealers.iter().enumerate().fold(String::new(), |mut text, (index, sealer)| {
        writeln!(text, "    node.{index}={sealer}").expect("writing to a string cannot fail");
        text
    });
    // Chains with the machine of 2.x get exactly the keys that 2.x nodes know, so that their files can be exchanged.
    let evm = match rules {
        EvmRules::Fisco2 { free_storage } => format!("    enable_free_storage={free_storage}"),
        EvmRules::Fork(_) => format!("    ; fisco2 or an Ethereum fork\n    rules={rules}"),
    };
    format!(
        "; This file must be the same on all nodes of the group, and must never change.
[consensus]
    consensus_type=pbft
    max_trans_num=1000
    ; seconds
    consensus_timeout=3
{sealers}
[state]
    type=storage
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
    enable_dynamic_block_size=true
    block_size_increase_ratio=0.5

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
"
}
