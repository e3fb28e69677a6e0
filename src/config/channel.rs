//! What the channel port is configured by: `[rpc]`, `[network_security]`, `[chain]` and `[flow_control]` of `config.ini`,
//! `[sdk_allowlist]` and `[flow_control]` of `group.N.ini`, `[event_filter]` of `group.N.genesis` (`spec/client-protocol.md` 3.9, 7).

use std::path::{Path, PathBuf};

use super::as_usize;
use super::schema::Checked;

/// Bytes a second of one Mbit/s, in thousandths as fractions are read.
const BYTES_PER_MILLI_MBIT: u64 = 125;

/// The channel port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelSettings {
    /// Directory of `ca.crt`, `node.crt`, `node.key`: `channel_cert` below `network_security.data_path`.
    pub certificates: PathBuf,
    /// `network_security.check_cert_issuer`: clients must come from the node's own agency.
    pub check_issuer: bool,
    /// Threads that serve connections.
    pub threads: usize,
    /// Requests a second over all groups; `None` is unlimited.
    pub requests_per_second: Option<u64>,
    /// Bytes a second of AMOP (`flow_control.outgoing_bandwidth_limit`, there in Mbit/s); `None` is unlimited.
    pub amop_bytes_per_second: Option<u64>,
}

/// What one group asks of its clients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupClients {
    /// `[sdk_allowlist]`: keys of clients that may see the group; empty admits everybody.
    pub allowed: Vec<String>,
    /// `event_filter.max_block_range`: how far back event subscriptions may reach; zero is unlimited.
    pub max_block_range: u64,
}

/// Reads what `config.ini`, in `root`, says.
pub fn read(ini: &Checked, root: &Path, cores: usize) -> ChannelSettings {
    ChannelSettings {
        certificates: root.join(ini.text("network_security", "data_path").unwrap_or("conf")).join("channel_cert"),
        check_issuer: ini.flag("network_security", "check_cert_issuer").unwrap_or(true),
        threads: ini.number("rpc", "channel_thread_count").map_or(cores.min(4), as_usize),
        requests_per_second: ini.number("flow_control", "limit_req"),
        amop_bytes_per_second: ini
            .thousandths("flow_control", "outgoing_bandwidth_limit")
            .map(|limit| limit.saturating_mul(BYTES_PER_MILLI_MBIT)),
    }
}

/// Reads what a group's two files say.
pub fn read_group(genesis: &Checked, ini: &Checked) -> GroupClients {
    GroupClients {
        allowed: ini.list("sdk_allowlist", "public_key.").into_iter().filter(|key| !key.is_empty()).map(str::to_owned).collect(),
        max_block_range: genesis.number("event_filter", "max_block_range").unwrap_or(0),
    }
}
