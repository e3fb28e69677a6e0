//! Methods about the node, its peers, and the consensus and sync of a group (`spec/client-protocol.md` 2.7).

use std::collections::BTreeMap;

use millrace_base::NodeId;
use millrace_ledger::view::{ConsensusKind, NodeInfo};
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use crate::envelope::{Answer, Outcome};
use crate::error::RpcError;
use crate::params::Arguments;
use crate::views::{Digits, Quantity, Shown};

/// Low bits of `protocolId`: PBFT, Raft, block sync.
const MODULE_PBFT: u64 = 8;
const MODULE_RAFT: u64 = 11;
const MODULE_SYNC: u64 = 9;

/// `node_index` of a node that is no sealer.
const NO_INDEX: u32 = 65_535;

#[derive(Serialize)]
struct ClientVersion<'a> {
    #[serde(rename = "Build Time")]
    build_time: &'a str,
    #[serde(rename = "Build Type")]
    build_type: String,
    #[serde(rename = "Chain Id")]
    chain_id: Shown<u64>,
    #[serde(rename = "FISCO-BCOS Version")]
    version: &'a str,
    #[serde(rename = "Git Branch")]
    branch: &'a str,
    #[serde(rename = "Git Commit Hash")]
    commit: &'a str,
    #[serde(rename = "Supported Version")]
    supported: &'a str,
}

/// SDKs choose their dialect by these texts: the protocol version stands in both version members, our own name in the build members.
pub fn client_version(context: &Context, _: &Arguments<'_>) -> Outcome {
    let info = context.node.info();
    let profile = if cfg!(debug_assertions) { "Debug" } else { "Release" };
    Answer::of(&ClientVersion {
        build_time: option_env!("MILLRACE_BUILD_TIME").unwrap_or("unknown"),
        build_type: format!("{}/rustc/{profile}", std::env::consts::OS),
        chain_id: Shown(info.chain_id),
        version: &info.supported_version,
        branch: concat!("millrace-", env!("CARGO_PKG_VERSION")),
        commit: option_env!("MILLRACE_COMMIT").unwrap_or("unknown"),
        supported: &info.supported_version,
    })
}

#[derive(Serialize)]
#[allow(non_snake_case, reason = "the protocol's own names, in their order")]
struct PeerView<'a> {
    Agency: &'a str,
    IPAndPort: &'a str,
    Node: &'a str,
    NodeID: Digits<'a>,
    Topic: Vec<String>,
}

impl<'a> PeerView<'a> {
    fn of(info: &'a NodeInfo, topics: Vec<String>) -> Self {
        Self { Agency: &info.agency, IPAndPort: &info.p2p_endpoint, Node: &info.name, NodeID: Digits(&info.node_id.0), Topic: topics }
    }
}

pub fn node_info(context: &Context, _: &Arguments<'_>) -> Outcome {
    Answer::of(&PeerView::of(context.node.info(), context.topics.own()))
}

/// The group is ignored, as in the reference node.
pub fn peers(context: &Context, _: &Arguments<'_>) -> Outcome {
    let peers = context.node.peers();
    let view = |peer| PeerView::of(peer, context.topics.of_peer(&peer.node_id));
    Answer::of(&peers.iter().map(view).collect::<Vec<_>>())
}

/// The group is ignored, as in the reference node. This node comes first.
pub fn node_ids(context: &Context, _: &Arguments<'_>) -> Outcome {
    let peers = context.node.peers();
    let own = context.node.info().node_id;
    id_list(std::iter::once(own).chain(peers.iter().map(|peer| peer.node_id)))
}

fn id_list(ids: impl IntoIterator<Item = NodeId>) -> Outcome {
    Answer::of(&ids.into_iter().map(Shown).collect::<Vec<_>>())
}

pub fn configured_peers(context: &Context, _: &Arguments<'_>) -> Outcome {
    Answer::of(&context.node.configured_peers())
}

pub fn group_peers(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    id_list(ledger.sealers().into_iter().chain(ledger.observers()))
}

pub fn group_list(context: &Context, _: &Arguments<'_>) -> Outcome {
    let served = |group: &millrace_base::GroupId| context.node.ledger(*group).is_some_and(|ledger| context.serves(ledger.as_ref()));
    Answer::of(&context.node.groups().into_iter().filter(served).collect::<Vec<_>>())
}

pub fn modules(_: &Context, _: &Arguments<'_>) -> Outcome {
    Answer::of(&json!({"FISCO BCOS": "2.0"}))
}

pub fn sealers(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    id_list(context.member_ledger(arguments.integer(0))?.sealers())
}

pub fn observers(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    id_list(context.member_ledger(arguments.integer(0))?.observers())
}

pub fn epoch_sealers(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let status = context.member_ledger(arguments.integer(0))?.consensus_status();
    if status.kind == ConsensusKind::Rpbft {
        return id_list(status.sealers);
    }
    let kind = kind_name(status.kind);
    let text = format!("method getEpochSealersList only supported when rpbft is used, current consensus type is {kind}");
    Err(RpcError::method(RpcError::NOT_A_MEMBER.code, text))
}

fn kind_name(kind: ConsensusKind) -> &'static str {
    match kind {
        ConsensusKind::Pbft => "pbft",
        ConsensusKind::Raft => "raft",
        ConsensusKind::Rpbft => "rpbft",
    }
}

pub fn pbft_view(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let status = context.member_ledger(arguments.integer(0))?.consensus_status();
    if status.kind == ConsensusKind::Raft {
        return Err(RpcError::NO_VIEW);
    }
    Answer::of(&Quantity::of(status.view))
}

/// The first element is an object whose keys include one for each sealer, so it is built as a sorted map.
pub fn consensus_status(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let (status, head, group) = (ledger.consensus_status(), ledger.head(), u64::from(ledger.group().get()));
    let is_sealer = status.index.is_some();
    let module = if status.kind == ConsensusKind::Raft { MODULE_RAFT } else { MODULE_PBFT };
    let mut facts = BTreeMap::<String, Value>::new();
    let mut put = |key: &str, value: Value| facts.insert(key.to_owned(), value);
    put("accountType", u64::from(is_sealer).into());
    put("allowFutureBlocks", true.into());
    put("cfgErr", (!is_sealer).into());
    put("connectedNodes", context.node.peers().len().into());
    put("consensusedBlockNumber", (head.number + 1).into());
    put("currentView", status.view.into());
    put("groupId", group.into());
    put("highestblockHash", format!("{:#x}", head.hash).into());
    put("highestblockNumber", head.number.into());
    put("leaderFailed", status.leader_failed.into());
    put("max_faulty_leader", status.max_faulty.into());
    put("nodeId", context.node.info().node_id.to_string().into());
    put("nodeNum", status.sealers.len().into());
    put("node_index", status.index.unwrap_or(NO_INDEX).into());
    put("omitEmptyBlock", true.into());
    put("protocolId", (group << 16 | module).into());
    for (position, sealer) in status.sealers.iter().enumerate() {
        put(&format!("sealer.{position}"), sealer.to_string().into());
    }
    put("toView", status.to_view.into());
    if status.kind == ConsensusKind::Raft {
        let leader = status.leader.and_then(|leader| status.sealers.get(leader as usize));
        facts.insert("leaderId".into(), leader.map(ToString::to_string).unwrap_or_default().into());
        facts.insert("leaderIdx".into(), status.leader.unwrap_or(NO_INDEX).into());
        return Answer::of(&json!([facts]));
    }
    let views: Vec<_> = status.views.iter().map(|(id, view)| json!({"nodeId": id.to_string(), "view": view})).collect();
    Answer::of(&json!([facts, views]))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncView<'a> {
    block_number: u64,
    genesis_hash: Digits<'a>,
    is_syncing: bool,
    known_highest_number: u64,
    known_latest_hash: Digits<'a>,
    latest_hash: Digits<'a>,
    node_id: Digits<'a>,
    peers: Vec<SyncPeerView<'a>>,
    protocol_id: u64,
    tx_pool_size: Shown<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncPeerView<'a> {
    block_number: u64,
    genesis_hash: Digits<'a>,
    latest_hash: Digits<'a>,
    node_id: Digits<'a>,
}

pub fn sync_status(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let ledger = context.member_ledger(arguments.integer(0))?;
    let (status, head, genesis) = (ledger.sync_status(), ledger.head(), ledger.genesis_hash());
    Answer::of(&SyncView {
        block_number: head.number,
        genesis_hash: Digits(genesis.as_slice()),
        is_syncing: status.is_syncing,
        known_highest_number: status.known_highest_number,
        known_latest_hash: Digits(status.known_latest_hash.as_slice()),
        latest_hash: Digits(head.hash.as_slice()),
        node_id: Digits(&context.node.info().node_id.0),
        peers: status
            .peers
            .iter()
            .map(|peer| SyncPeerView {
                block_number: peer.number,
                genesis_hash: Digits(peer.genesis_hash.as_slice()),
                latest_hash: Digits(peer.latest_hash.as_slice()),
                node_id: Digits(&peer.node_id.0),
            })
            .collect(),
        protocol_id: u64::from(ledger.group().get()) << 16 | MODULE_SYNC,
        tx_pool_size: Shown(ledger.pending_count()),
    })
}
