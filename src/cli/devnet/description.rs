//! What people and harnesses are told when a devnet is ready.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_base::{GroupId, NodeId};
use serde_json::{Value, json};

use crate::config::NodeConfig;

/// See the module.
pub struct Description {
    dir: PathBuf,
    chain_id: u64,
    nodes: Vec<NodeDescription>,
    /// Process ids, once the nodes run.
    pub pids: Vec<u32>,
    /// How long it took until all nodes served.
    pub ready_after: Option<Duration>,
}

struct NodeDescription {
    name: String,
    dir: PathBuf,
    id: NodeId,
    groups: Vec<GroupId>,
    rpc: SocketAddr,
    channel: SocketAddr,
    p2p: SocketAddr,
    operator: Option<SocketAddr>,
}

impl NodeDescription {
    fn of(config: &NodeConfig, dir: &Path) -> Self {
        Self {
            name: config.name.clone(),
            dir: config.file.parent().unwrap_or(dir).to_owned(),
            id: config.key.node_id(),
            groups: config.groups.iter().map(|group| group.genesis.group).collect(),
            rpc: config.rpc.listen,
            channel: config.channel_listen,
            p2p: config.p2p.listen,
            operator: config.operator_listen,
        }
    }

    fn operator(&self) -> Option<String> {
        self.operator.map(|address| format!("http://{address}"))
    }
}

impl Description {
    /// Of a network's nodes, at least one.
    pub fn of(configs: &[NodeConfig], dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            chain_id: configs.first().map_or(0, |config| config.chain_id),
            nodes: configs.iter().map(|config| NodeDescription::of(config, dir)).collect(),
            pids: Vec::new(),
            ready_after: None,
        }
    }

    /// One JSON line, or text for people.
    pub fn render(&self, json: bool) -> String {
        match &self.nodes[..] {
            _ if json => format!("{}\n", self.to_json()),
            [node] => self.one_node(node),
            nodes => self.several_nodes(nodes),
        }
    }

    /// The endpoints of the first node stand at the top, those of all in `nodes`. `serving` names the ports that answer.
    fn to_json(&self) -> Value {
        let numbers = |groups: &[GroupId]| groups.iter().map(|group| group.get()).collect::<Vec<_>>();
        let node = |(index, node): (usize, &NodeDescription)| {
            json!({
                "name": node.name,
                "nodeId": node.id.to_string(),
                "dir": node.dir,
                "groups": numbers(&node.groups),
                "pid": self.pids.get(index),
                "rpc": format!("http://{}", node.rpc),
                "channel": node.channel.to_string(),
                "p2p": node.p2p.to_string(),
                "operator": node.operator(),
            })
        };
        let first = self.nodes.first();
        json!({
            "nodes": self.nodes.iter().enumerate().map(node).collect::<Vec<_>>(),
            "rpc": first.map(|node| format!("http://{}", node.rpc)),
            "channel": first.map(|node| node.channel.to_string()),
            "p2p": first.map(|node| node.p2p.to_string()),
            "operator": first.and_then(NodeDescription::operator),
            "serving": ["rpc", "channel", "operator"],
            "dir": self.dir,
            "chainId": self.chain_id,
            "groups": numbers(&self.groups()),
            "sdk": self.dir.join("sdk"),
            "readyAfterMs": self.ready_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    fn groups(&self) -> Vec<GroupId> {
        let all: BTreeSet<GroupId> = self.nodes.iter().flat_map(|node| node.groups.iter().copied()).collect();
        all.into_iter().collect()
    }

    fn one_node(&self, node: &NodeDescription) -> String {
        format!(
            "The network is running; Ctrl-C stops it.\n\n  JSON-RPC    http://{}\n  channel     {}\n  operator    {}\n  chain id    {}\n  groups      {}\n  node id     {}\n  directory   {}\n  logs        {}\n  SDK bundle  {}\n\n{}",
            node.rpc,
            node.channel,
            node.operator().unwrap_or_else(|| "none".into()),
            self.chain_id,
            list(&node.groups),
            node.id,
            self.dir.display(),
            node.dir.join("log").display(),
            self.dir.join("sdk").display(),
            try_it(node),
        )
    }

    fn several_nodes(&self, nodes: &[NodeDescription]) -> String {
        let after = self.ready_after.map(|time| format!(" Ready after {:.1} s.", time.as_secs_f64())).unwrap_or_default();
        let mut text = format!(
            "The network is running; Ctrl-C stops it.{after}\n\n  chain id    {}\n  groups      {}\n  directory   {}\n  SDK bundle  {}\n",
            self.chain_id,
            list(&self.groups()),
            self.dir.display(),
            self.dir.join("sdk").display(),
        );
        for (index, node) in nodes.iter().enumerate() {
            text.push_str(&format!(
                "\n  {}{}\n    JSON-RPC  http://{}\n    channel   {}\n    P2P       {}\n    operator  {}\n    groups    {}\n    node id   {}\n    logs      {}\n",
                node.name,
                self.pids.get(index).map(|pid| format!("  (process {pid})")).unwrap_or_default(),
                node.rpc,
                node.channel,
                node.p2p,
                node.operator().unwrap_or_else(|| "none".into()),
                list(&node.groups),
                node.id,
                node.dir.join("log").display(),
            ));
        }
        text + "\n" + &nodes.first().map(try_it).unwrap_or_default()
    }
}

fn list(groups: &[GroupId]) -> String {
    groups.iter().map(GroupId::to_string).collect::<Vec<_>>().join(", ")
}

fn try_it(node: &NodeDescription) -> String {
    let group = node.groups.first().map_or(1, |group| group.get());
    format!("Try:  curl -s http://{} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getBlockNumber\",\"params\":[{group}]}}'\n", node.rpc)
}
