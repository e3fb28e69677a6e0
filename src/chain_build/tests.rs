use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::certificates::{NODE_URI_PREFIX, read};
use crate::config::NodeConfig;

pub(crate) fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

pub(crate) fn plan(output: &Path) -> ChainPlan {
    let ip: IpAddr = "127.0.0.1".parse().unwrap();
    ChainPlan {
        output: output.to_owned(),
        chain_id: 9,
        machines: vec![
            Machine { ip, nodes: 2, agency: "bank".into(), groups: vec![group(1)] },
            Machine { ip, nodes: 1, agency: "shop".into(), groups: vec![group(1), group(2)] },
        ],
        placements: Vec::new(),
        ports: Ports::default(),
        rpc_ip: ip,
        days: 365,
        rules: EvmRules::default(),
        state: millrace_core::StateKind::Storage,
        consensus: ConsensusPlan::default(),
        timestamp_ms: 1_700_000_000_000,
        reach: Reach::Network,
        program: Program::Link("/bin/true".into()),
    }
}

/// A chain of one node with group 1; its node's directory.
pub(crate) fn one_node(output: &Path) -> PathBuf {
    let mut plan = plan(output);
    plan.machines.truncate(1);
    plan.machines[0].nodes = 1;
    build(&plan, &|_| {}).unwrap().remove(0).directory
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// Whether `openssl verify` accepts a certificate; `None` when there is no openssl.
pub(crate) fn openssl_accepts(root: &Path, chain: &Path, leaf: &Path, purpose: &str) -> Option<bool> {
    let mut command = Command::new("openssl");
    command.arg("verify").args(["-x509_strict", "-purpose", purpose, "-CAfile"]).arg(root).arg("-untrusted").arg(chain).arg(leaf);
    let output = command.output().ok()?;
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Some(output.status.success())
}

#[test]
fn built_chain_is_read_back_by_every_node() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let built = build(&plan(&output), &|_| {}).unwrap();
    assert_eq!(built.len(), 3);
    let configs: Vec<NodeConfig> = built.iter().map(|node| NodeConfig::load(&node.directory.join("config.ini")).unwrap()).collect();
    for (index, (config, node)) in configs.iter().zip(&built).enumerate() {
        assert_eq!(node.directory, output.join(format!("127.0.0.1/node{index}")));
        assert_eq!(config.key.node_id(), node.node_id);
        assert_eq!(config.name, format!("node{index}"));
        assert_eq!(usize::from(config.rpc.listen.port()), 8545 + index);
        assert_eq!(usize::from(config.operator_listen.unwrap().port()), 9545 + index);
        assert_eq!(usize::from(config.p2p.listen.port()), 30300 + index);
        assert!(config.channel_listen.ip().is_unspecified());
        assert_eq!(config.p2p.peers.len(), 3);
        assert_eq!(config.chain_id, 9);
        assert_eq!(config.notes, [""; 0], "our own files set no key without effect");
        assert_eq!(config.groups[0].genesis, configs[0].groups[0].genesis);
        assert_eq!(config.groups[0].genesis.sealers.len(), 3);
    }
    assert_eq!((configs[0].agency.as_str(), configs[2].agency.as_str()), ("bank", "shop"));
    assert_eq!((configs[0].groups.len(), configs[2].groups.len()), (1, 2));
    assert_eq!(configs[2].groups[1].genesis.sealers, [built[2].node_id]);
    assert!(!output.join(".building").exists());

    let node = &built[0].directory;
    for key in ["conf/node.key", "conf/p2p.key", "conf/channel_cert/node.key"] {
        assert_eq!(mode(&node.join(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&node.join("conf")), 0o700);
    assert_eq!(mode(&output.join("127.0.0.1/sdk/sdk.key")), 0o600);
    assert_eq!(mode(&node.join("start.sh")), 0o755);
    let refused = build(&plan(&output), &|_| {}).unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
}

#[test]
fn certificates_verify_against_their_authorities_and_no_others() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let built = build(&plan(&output), &|_| {}).unwrap();
    let (bank, shop) = (built[0].directory.join("conf"), built[2].directory.join("conf"));
    let names = read(&bank.join("channel_cert/node.crt")).unwrap();
    assert_eq!((names.subject.as_str(), names.issuer.as_str()), ("node0", "bank"));
    let sdk = output.join("127.0.0.1/sdk");
    assert_eq!(fs::read(sdk.join("ca.crt")).unwrap(), fs::read(bank.join("channel_cert/ca.crt")).unwrap());

    let peer = bank.join("p2p.crt");
    let Some(peer_ok) = openssl_accepts(&bank.join("p2p-ca.crt"), &peer, &peer, "sslserver") else {
        println!("skipped: there is no openssl here");
        return;
    };
    assert!(peer_ok);
    assert_eq!(openssl_accepts(&bank.join("p2p-ca.crt"), &peer, &peer, "sslclient"), Some(true));
    let other = scratch.path().join("other");
    build(&plan(&other), &|_| {}).unwrap();
    assert_eq!(openssl_accepts(&other.join("cert/ca.crt"), &peer, &peer, "sslserver"), Some(false));
    for (root, leaf, purpose, expected) in [
        (&bank, bank.join("channel_cert/node.crt"), "sslserver", true),
        (&bank, sdk.join("sdk.crt"), "sslclient", true),
        (&bank, sdk.join("sdk.crt"), "sslserver", false),
        (&shop, sdk.join("sdk.crt"), "sslclient", false),
    ] {
        let root = root.join("channel_cert/ca.crt");
        assert_eq!(openssl_accepts(&root, &root, &leaf, purpose), Some(expected), "{} as {purpose}", leaf.display());
    }
    let text = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&peer).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("Version: 3 (0x2)") && text.contains("prime256v1"), "{text}");
    assert!(text.contains(&format!("{NODE_URI_PREFIX}{}", built[0].node_id)), "{text}");
    let facts = read(&peer).unwrap();
    assert_eq!((facts.subject.as_str(), facts.organization.as_str(), facts.issuer.as_str()), ("node0", "bank", "bank"));
    assert_eq!(facts.node_id, Some(built[0].node_id));
}

#[test]
fn plans_that_cannot_work_are_refused_before_anything_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let refused = |change: &dyn Fn(&mut ChainPlan)| {
        let mut plan = plan(&output);
        change(&mut plan);
        let message = build(&plan, &|_| {}).unwrap_err().to_string();
        assert!(!output.exists(), "{message}");
        message
    };
    assert!(refused(&|plan| plan.machines.clear()).contains("1 to 1000 nodes"));
    assert!(refused(&|plan| plan.machines[0].nodes = 1_001).contains("1 to 1000 nodes"));
    assert!(refused(&|plan| plan.machines[0].agency = "../x".into()).contains("cannot be an agency's name"));
    assert!(refused(&|plan| plan.ports.rpc = 65_534).contains("below 65536"));
    assert!(refused(&|plan| plan.ports.channel = 30_301).contains("overlap"));
    let place = |group_id, nodes: &[&str]| {
        let nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
        move |plan: &mut ChainPlan| plan.placements.push(Placement { group: group(group_id), nodes: Clone::clone(&nodes) })
    };
    assert!(refused(&place(3, &["node7"])).contains("which is no node"));
    assert!(refused(&place(3, &["node1", "node1"])).contains("twice"));
    assert!(refused(&place(3, &[])).contains("no node"));
    assert!(refused(&place(1, &["node0"])).contains("node1 would be in no group"));
    let two_machines = |plan: &mut ChainPlan| {
        plan.machines[1].ip = "127.0.0.2".parse().unwrap();
        place(3, &["node0"])(plan);
    };
    assert!(refused(&two_machines).contains("as in 10.0.0.1/node0"));
}

#[test]
fn groups_lie_on_the_nodes_that_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let mut plan = plan(&scratch.path().join("nodes"));
    let placement = |id, nodes: &[&str]| Placement { group: group(id), nodes: nodes.iter().map(|name| (*name).to_owned()).collect() };
    plan.placements = vec![placement(2, &["node2", "127.0.0.1/node1"]), placement(3, &["node1", "node0"])];
    let built = build(&plan, &|_| {}).unwrap();
    let configs: Vec<NodeConfig> = built.iter().map(|node| NodeConfig::load(&node.directory.join("config.ini")).unwrap()).collect();
    let groups = |config: &NodeConfig| config.groups.iter().map(|group| group.genesis.group.get()).collect::<Vec<_>>();
    assert_eq!(configs.iter().map(groups).collect::<Vec<_>>(), [vec![1, 3], vec![1, 2, 3], vec![1, 2]]);
    let mut sealers = [built[1].node_id, built[2].node_id];
    sealers.sort_unstable();
    assert_eq!(configs[1].groups[1].genesis.sealers, sealers);
    assert_eq!(configs[1].groups[1].genesis, configs[2].groups[1].genesis);
}

#[test]
fn interrupted_build_is_swept_away_by_the_next() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir_all(scratch.path().join(".building/cert")).unwrap();
    let mut plan = plan(scratch.path());
    plan.machines.truncate(1);
    plan.machines[0].nodes = 1;
    let built = build(&plan, &|_| {}).unwrap();
    assert!(NodeConfig::load(&built[0].directory.join("config.ini")).is_ok());
    assert!(!scratch.path().join(".building").exists());
}
