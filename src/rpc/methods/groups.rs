//! Group life cycle and configured peers (`spec/client-protocol.md` 2.10).
//!
//! Requests are checked here as the reference node does, as far as parameters and the group's state tell; what passes is the node's
//! to do. A door on which management is forbidden answers with [`RpcError::GROUPS_FORBIDDEN`], the reference node's own answer with
//! `rpc.disable_dynamic_group` set.

use std::net::SocketAddr;

use millrace_base::{GroupId, NodeId};
use millrace_ledger::view::{GroupChange, GroupChangeError, GroupSeed, GroupStatus, NodeView};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Context, Management};
use crate::envelope::{Answer, Outcome, members, text};
use crate::error::RpcError;
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
    pub const GENESIS_EXISTS: &str = "0x9";
    pub const SETTINGS_EXIST: &str = "0xa";
    pub const NO_GENESIS: &str = "0xb";
    pub const NO_SETTINGS: &str = "0xc";
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

/// A step and the word that its success is told with.
type Step = (GroupChange, &'static str);

fn transition(context: &Context, arguments: &Arguments<'_>, step: Step, refusals: Refusals) -> Outcome {
    let group = match group(arguments) {
        Ok(group) => group,
        Err(refusal) => return refusal,
    };
    match refusals(group, context.node.group_status(group)) {
        Some((code, message)) => verdict(code, &message),
        None => take(context, group, step, refusals),
    }
}

fn take(context: &Context, group: GroupId, (change, done): Step, refusals: Refusals) -> Outcome {
    if context.management == Management::Forbidden {
        return Err(RpcError::GROUPS_FORBIDDEN);
    }
    let error = match context.node.change_group(group, change) {
        Ok(()) => return verdict(code::SUCCESS, &format!("Group {group} {done} successfully")),
        Err(error) => error,
    };
    let code = match &error {
        GroupChangeError::GenesisExists(_) => code::GENESIS_EXISTS,
        GroupChangeError::SettingsExist(_) => code::SETTINGS_EXIST,
        GroupChangeError::GenesisMissing(_) => code::NO_GENESIS,
        GroupChangeError::SettingsMissing(_) => code::NO_SETTINGS,
        GroupChangeError::Failed(_) => code::INTERNAL_ERROR,
        // Somebody else was faster.
        GroupChangeError::Status(status) => {
            let (code, message) = refusals(group, *status).unwrap_or((code::INTERNAL_ERROR, error.to_string()));
            return verdict(code, &message);
        }
    };
    verdict(code, &error.to_string())
}

pub fn start(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, (GroupChange::Start, "started"), |group, status| match status {
        GroupStatus::Inexistent => Some((code::NO_GENESIS, format!("Genesis config file for group {group} not found"))),
        GroupStatus::Running => Some((code::RUNNING, format!("Group {group} is already running"))),
        GroupStatus::Stopping => Some((code::STOPPING, format!("Group {group} is stopping"))),
        GroupStatus::Deleted => Some((code::DELETED, format!("Group {group} has been deleted"))),
        GroupStatus::Stopped => None,
    })
}

pub fn stop(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, (GroupChange::Stop, "stopped"), |group, status| match status {
        GroupStatus::Inexistent => Some((code::NOT_FOUND, format!("Group {group} not found"))),
        GroupStatus::Stopped => Some((code::STOPPED, format!("Group {group} has already been stopped"))),
        GroupStatus::Stopping => Some((code::STOPPING, format!("Group {group} is stopping"))),
        GroupStatus::Deleted => Some((code::DELETED, format!("Group {group} has been deleted"))),
        GroupStatus::Running => None,
    })
}

pub fn remove(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, (GroupChange::Remove, "deleted"), |group, status| match status {
        GroupStatus::Inexistent => Some((code::NOT_FOUND, format!("Group {group} not found"))),
        GroupStatus::Running => Some((code::RUNNING, format!("Group {group} is running"))),
        GroupStatus::Stopping => Some((code::STOPPING, format!("Group {group} is stopping"))),
        GroupStatus::Deleted => Some((code::DELETED, format!("Group {group} has already been deleted"))),
        GroupStatus::Stopped => None,
    })
}

pub fn recover(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    transition(context, arguments, (GroupChange::Recover, "recovered"), |group, status| match status {
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
    let seed = match seed(arguments.object(1)) {
        Ok(seed) => seed,
        Err(message) => return verdict(code::INVALID_PARAMS, &message),
    };
    let exists: Refusals =
        |group, status| (status != GroupStatus::Inexistent).then(|| (code::EXISTS, format!("Group {group} already exists")));
    if let Some((code, message)) = exists(group, context.node.group_status(group)) {
        return verdict(code, &message);
    }
    let mut reachable: Vec<_> = context.node.peers().iter().map(|peer| peer.node_id).collect();
    reachable.push(context.node.info().node_id);
    let missing: Vec<_> = seed.sealers.iter().filter(|sealer| !reachable.contains(sealer)).map(NodeId::to_string).collect();
    if !missing.is_empty() {
        return verdict(code::PEERS_NOT_CONNECTED, &format!("Peer(s) not connected: {}", missing.join(",")));
    }
    take(context, group, (GroupChange::Generate(seed), "generated"), exists)
}

/// What a well-formed genesis object says, or what is wrong with it.
fn seed(genesis: &RawValue) -> Result<GroupSeed, String> {
    let [timestamp, sealers, free] = members(genesis, ["timestamp", "sealers", "enable_free_storage"]).unwrap_or_default();
    let timestamp = timestamp.and_then(text).ok_or("invalid `timestamp` field")?;
    let parsed_timestamp = timestamp.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
    let timestamp_ms = parsed_timestamp.ok_or_else(|| format!("invalid timestamp: {}", timestamp.chars().take(64).collect::<String>()))?;
    let free_storage = match free.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err("invalid `enable_free_storage` field".into()),
    };
    let listed = sealers.and_then(|list| elements(list, MAX_SEALERS)).ok_or("invalid `sealers` field")?;
    if listed.is_empty() {
        return Err("GenerateGroup failed for empty sealer list, expect at least one sealer".into());
    }
    let parsed = listed.iter().zip(1..).map(|(sealer, position)| {
        let id = text(sealer).and_then(|id| NodeId::parse(&id).ok());
        id.ok_or_else(|| format!("invalid sealer ID at position {position}"))
    });
    let sealers = parsed.collect::<Result<_, _>>()?;
    Ok(GroupSeed { timestamp_ms, sealers, free_storage })
}

/// Of `addPeers`.
pub fn add_peers(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    change_peers(context, arguments, (|node, peers| node.add_peers(peers), "add peers :", "all the inserted peers already exist"))
}

/// Of `erasePeers`.
pub fn erase_peers(context: &Context, arguments: &Arguments<'_>) -> Outcome {
    change_peers(context, arguments, (|node, peers| node.erase_peers(peers), "erase peers :", "none of the erased peers exist"))
}

/// What to do, its name in replies, and what is said when nothing had to be done.
type PeerChange = (fn(&dyn NodeView, &[SocketAddr]) -> Result<usize, String>, &'static str, &'static str);

/// Checks the list of `ip:port` texts. The reference node ends on an entry that is none; here it is a bad parameter.
fn change_peers(context: &Context, arguments: &Arguments<'_>, (change, name, nothing): PeerChange) -> Outcome {
    const NOT_A_LIST: &str = "invalid params field, not array format json";
    let Some(list) = arguments.first_unchecked().filter(|list| list.get().starts_with('[')) else {
        return verdict(code::INVALID_PARAMS, NOT_A_LIST);
    };
    let most = context.peers_a_request;
    let Some(peers) = elements(list, most) else {
        return verdict(code::INTERNAL_ERROR, &format!("refused for too many param peers. peers_param_limit: {most}"));
    };
    if peers.is_empty() {
        return verdict(code::INVALID_PARAMS, "failed for empty host list, expect at least one peer");
    }
    let mut addresses = Vec::with_capacity(peers.len());
    for peer in peers {
        let peer = text(peer).unwrap_or_default();
        let port = peer.rsplit_once(':').map(|(_, port)| port);
        if port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err()) {
            return Err(RpcError::out_of_range());
        }
        match peer.parse::<SocketAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => return verdict(code::INVALID_PARAMS, &format!("invalid peer: {}", peer.chars().take(64).collect::<String>())),
        }
    }
    if context.management == Management::Forbidden {
        return Err(RpcError::GROUPS_FORBIDDEN);
    }
    match change(context.node.as_ref(), &addresses) {
        Ok(0) => verdict(code::SUCCESS, &format!("{name}{nothing}")),
        Ok(_) => verdict(code::SUCCESS, &format!("{name}update config file successfully")),
        Err(message) => verdict(code::INTERNAL_ERROR, &message),
    }
}
