//! Group life cycle and configured peers (`spec/client-protocol.md` 2.10).
//!
//! Requests are checked here as the reference node does, as far as parameters and the group's state tell. What passes would change the
//! node's groups or its configuration, which clients may not do on this node: such a request is answered with
//! [`RpcError::GROUPS_FORBIDDEN`], the reference node's own answer with `rpc.disable_dynamic_group` set.

use std::net::SocketAddr;

use millrace_base::{GroupId, NodeId};
use millrace_ledger::view::GroupStatus;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Context;
use crate::envelope::{Answer, Outcome, members, text};
use crate::error::RpcError;
use crate::limits::MAX_PEER_ARGUMENTS;
use crate::params::{Arguments, elements};

/// Sealers looked at in one `generateGroup`.
const MAX_SEALERS: usize = 1_024;

/// Result codes.
mod code {
    pub const SUCCESS: &str = "0x0";
    pub const INTERNAL_ERROR: &str = "0x1";
    pub const EXISTS: &str = "0x2";
    pub const RUNNING: &str = "0x3";
    pub const STOPPED: &str = "0x4";
    pub const DELETED: &str = "0x5";
    pub const NOT_FOUND: &str = "0x6";
    pub const INVALID_PARAMS: &str = "0x7";
    pub const PEERS_NOT_CONNECTED: &str = "0x8";
    pub const NO_GENESIS: &str = "0xb";
    pub const STOPPING: &str = "0xd";
    pub const NOT_DELETED: &str = "0xe";
}

#[derive(Serialize)]
struct Verdict<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
}

fn verdict(code: &str, message: &str) -> Outcome {
    Answer::of(&Verdict { code, message, status: None })
}

const BAD_GROUP: &str = "GroupID should be between 1 and 32767";

/// The group named by the first parameter, or the refusal of an id out of range.
fn group(arguments: &Arguments<'_>) -> Result<GroupId, Outcome> {
    GroupId::new(arguments.integer(0).into()).ok_or_else(|| verdict(code::INVALID_PARAMS, BAD_GROUP))
}

pub fn query_status(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let Some(group) = GroupId::new(arguments.integer(0).into()) else {
        return Answer::of(&Verdict { code: code::INVALID_PARAMS, message: BAD_GROUP, status: Some("") });
    };
    let status = match context.node.group_status(group) {
        GroupStatus::Inexistent => "INEXISTENT",
        GroupStatus::Running => "RUNNING",
        GroupStatus::Stopping => "STOPPING",
        GroupStatus::Stopped => "STOPPED",
        GroupStatus::Deleted => "DELETED",
    };
    Answer::of(&Verdict { code: code::SUCCESS, message: "", status: Some(status) })
}

/// Refusals that follow from the state of the group; `None` where the transition would be allowed.
type Refusals = fn(GroupId, GroupStatus) -> Option<(&'static str, String)>;

fn transition(context: &Context, arguments: &Arguments<'_>, refusals: Refusals) -> Outcome {
    let group = match group(arguments) {
        Ok(group) => group,
        Err(refusal) => return refusal,
    };
    match refusals(group, context.node.group_status(group)) {
        Some((code, message)) => verdict(code, &message),
        None => Err(RpcError::GROUPS_FORBIDDEN),
    }
}

pub fn start(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, |group, status| match status {
        GroupStatus::Inexistent => Some((code::NO_GENESIS, format!("Genesis config file for group {group} not found"))),
        GroupStatus::Running => Some((code::RUNNING, format!("Group {group} is already running"))),
        GroupStatus::Stopping => Some((code::STOPPING, format!("Group {group} is stopping"))),
        GroupStatus::Deleted => Some((code::DELETED, format!("Group {group} has been deleted"))),
        GroupStatus::Stopped => None,
    })
}

pub fn stop(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, |group, status| match status {
        GroupStatus::Inexistent => Some((code::NOT_FOUND, format!("Group {group} not found"))),
        GroupStatus::Stopped => Some((code::STOPPED, format!("Group {group} has already been stopped"))),
        GroupStatus::Stopping => Some((code::STOPPING, format!("Group {group} is stopping"))),
        GroupStatus::Deleted => Some((code::DELETED, format!("Group {group} has been deleted"))),
        GroupStatus::Running => None,
    })
}

pub fn remove(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, |group, status| match status {
        GroupStatus::Inexistent => Some((code::NOT_FOUND, format!("Group {group} not found"))),
        GroupStatus::Running => Some((code::RUNNING, format!("Group {group} is running"))),
        GroupStatus::Stopping => Some((code::STOPPING, format!("Group {group} is stopping"))),
        GroupStatus::Deleted => Some((code::DELETED, format!("Group {group} has already been deleted"))),
        GroupStatus::Stopped => None,
    })
}

pub fn recover(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, |group, status| match status {
        GroupStatus::Inexistent => Some((code::NOT_FOUND, format!("Group {group} not found"))),
        GroupStatus::Running | GroupStatus::Stopping | GroupStatus::Stopped => {
            Some((code::NOT_DELETED, format!("Group {group} has not been deleted")))
        }
        GroupStatus::Deleted => None,
    })
}

pub fn generate(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    let group = match group(arguments) {
        Ok(group) => group,
        Err(refusal) => return refusal,
    };
    let sealers = match genesis_sealers(arguments.object(1)) {
        Ok(sealers) => sealers,
        Err(message) => return verdict(code::INVALID_PARAMS, &message),
    };
    if context.node.group_status(group) != GroupStatus::Inexistent {
        return verdict(code::EXISTS, &format!("Group {group} already exists"));
    }
    let mut reachable: Vec<_> = context.node.peers().iter().map(|peer| peer.node_id).collect();
    reachable.push(context.node.info().node_id);
    let missing: Vec<_> = sealers.iter().filter(|sealer| !reachable.contains(sealer)).map(NodeId::to_string).collect();
    if !missing.is_empty() {
        return verdict(code::PEERS_NOT_CONNECTED, &format!("Peer(s) not connected: {}", missing.join(",")));
    }
    Err(RpcError::GROUPS_FORBIDDEN)
}

/// The sealers of a well-formed genesis object, or what is wrong with it.
fn genesis_sealers(genesis: &RawValue) -> Result<Vec<NodeId>, String> {
    let [timestamp, sealers] = members(genesis, ["timestamp", "sealers"]).unwrap_or_default();
    let timestamp = timestamp.and_then(text).ok_or("invalid `timestamp` field")?;
    if timestamp.parse::<i64>().is_err() {
        return Err(format!("invalid timestamp: {}", timestamp.chars().take(64).collect::<String>()));
    }
    let listed = sealers.and_then(|list| elements(list, MAX_SEALERS)).ok_or("invalid `sealers` field")?;
    if listed.is_empty() {
        return Err("GenerateGroup failed for empty sealer list, expect at least one sealer".into());
    }
    let parsed = listed.iter().zip(1..).map(|(sealer, position)| {
        let id = text(sealer).and_then(|id| NodeId::parse(&id).ok());
        id.ok_or_else(|| format!("invalid sealer ID at position {position}"))
    });
    parsed.collect()
}

/// `addPeers` and `erasePeers`: checks the list of `ip:port` texts. The reference node ends on an entry that is none; here it is a bad parameter.
pub fn change_peers(_: &Context, arguments: &Arguments<'_>) -> Outcome {
    const NOT_A_LIST: &str = "invalid params field, not array format json";
    let Some(list) = arguments.first_unchecked().filter(|list| list.get().starts_with('[')) else {
        return verdict(code::INVALID_PARAMS, NOT_A_LIST);
    };
    let Some(peers) = elements(list, MAX_PEER_ARGUMENTS) else {
        return verdict(code::INTERNAL_ERROR, &format!("refused for too many param peers. peers_param_limit: {MAX_PEER_ARGUMENTS}"));
    };
    if peers.is_empty() {
        return verdict(code::INVALID_PARAMS, "failed for empty host list, expect at least one peer");
    }
    for peer in peers {
        let peer = text(peer).unwrap_or_default();
        let port = peer.rsplit_once(':').map(|(_, port)| port);
        if port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err()) {
            return Err(RpcError::out_of_range());
        }
        if peer.parse::<SocketAddr>().is_err() {
            return verdict(code::INVALID_PARAMS, &format!("invalid peer: {}", peer.chars().take(64).collect::<String>()));
        }
    }
    Err(RpcError::GROUPS_FORBIDDEN)
}
