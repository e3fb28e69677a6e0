//! Tests of the commands that extend a chain; `openssl` judges the certificates where it is installed.

use std::fs;
use std::path::Path;

use super::join::{Joined, NewNode};
use super::renew::{KeyChoice, Renewal};
use super::*;
use crate::certificates::{expiry, facts, read};
use crate::chain_build::files::old_name;
use crate::chain_build::tests::{group, mode, one_node, openssl_accepts, plan};
use crate::chain_build::{self, Ports, Program};
use crate::config::{NodeConfig, StorageConfig};

const KEEP: Renewal = Renewal { days: 10, keys: KeyChoice::Keep };

fn new_node<'a>(agency: &'a str, ip: &str, groups: &'a [millrace_base::GroupId]) -> NewNode<'a> {
    NewNode { agency, ip: ip.parse().unwrap(), groups, ports: None, days: 60, program: Program::Link("/bin/true".into()) }
}

/// The chain of [`plan`]: bank with node0 and node1 in group 1, shop with node2 in groups 1 and 2.
fn chain(output: &Path) -> ChainDirectory {
    chain_build::build(&plan(output), &|_| {}).unwrap();
    ChainDirectory::open(output).unwrap()
}

fn load(joined: &Joined) -> NodeConfig {
    NodeConfig::load(&joined.directory.join("config.ini")).unwrap()
}

#[test]
fn node_that_joins_has_certificates_groups_and_peers_and_is_no_sealer() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    let joined = chain.add_node(&new_node("shop", "127.0.0.1", &[group(2), group(1)])).unwrap();
    assert_eq!(joined.directory, output.join("127.0.0.1/node3"));
    assert!(!joined.needs_whitelist);
    let config = load(&joined);
    assert_eq!((config.name.as_str(), config.agency.as_str(), config.key.node_id()), ("node3", "shop", joined.node_id));
    assert_eq!((config.rpc.listen.port(), config.channel_listen.port(), config.p2p.listen.port()), (8548, 20203, 30303));
    assert_eq!(config.operator_listen.unwrap().port(), 9548);
    let first = NodeConfig::load(&output.join("127.0.0.1/node2/config.ini")).unwrap();
    assert_eq!(
        config.groups.iter().map(|group| &group.genesis).collect::<Vec<_>>(),
        first.groups.iter().map(|group| &group.genesis).collect::<Vec<_>>()
    );
    assert!(!config.groups[0].genesis.sealers.contains(&joined.node_id));
    assert_eq!(config.p2p.peers, ["127.0.0.1:30300", "127.0.0.1:30301", "127.0.0.1:30302", "127.0.0.1:30303"]);
    assert_eq!(first.p2p.peers, config.p2p.peers);
    assert_eq!(mode(&joined.directory.join("conf/p2p.key")), 0o600);
    assert_eq!(config.notes.len(), 0, "{:?}", config.notes);
    let conf = joined.directory.join("conf");
    if let Some(accepted) = openssl_accepts(&output.join("cert/ca.crt"), &conf.join("p2p.crt"), &conf.join("p2p.crt"), "sslserver") {
        assert!(accepted);
        let channel = output.join("127.0.0.1/node2/conf/channel_cert/ca.crt");
        assert_eq!(openssl_accepts(&channel, &channel, &conf.join("channel_cert/node.crt"), "sslserver"), Some(true));
    }
    let days = expiry(&joined.directory);
    let names: Vec<&str> = days.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["conf/channel_cert/ca.crt", "conf/channel_cert/node.crt", "conf/p2p-ca.crt", "conf/p2p.crt"]);
    assert!(days.iter().all(|(name, days)| (if name.contains("ca.crt") { 364..=365 } else { 59..=60 }).contains(days)), "{days:?}");
}

#[test]
fn node_that_joins_a_group_in_a_database_gets_a_database_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    let settings = output.join("127.0.0.1/node0/conf/group.1.ini");
    let text = fs::read_to_string(&settings).unwrap();
    let database = "type = mysql\n    db_username=u\n    db_passwd=p\n    db_name = bank_1";
    fs::write(&settings, text.replace("type=rocksdb", database)).unwrap();
    let config = load(&chain.add_node(&new_node("bank", "127.0.0.1", &[group(1)])).unwrap());
    let StorageConfig::Mysql(config) = &config.groups[0].storage else { panic!("the storage is its sponsor's kind") };
    assert_eq!(config.database, "bank_1_127_0_0_1_node3");
    assert_eq!(config.password.reveal(), "p");
}

#[test]
fn node_on_another_machine_gets_what_a_machine_needs() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    fs::remove_file(output.join("cert/ca.key")).unwrap();
    let joined = chain
        .add_node(&NewNode { ports: Some(Ports { p2p: 1001, channel: 2001, rpc: 3001 }), ..new_node("bank", "127.0.0.2", &[group(1)]) })
        .unwrap();
    assert_eq!(load(&joined).p2p.listen.port(), 1001);
    for name in ["start_all.sh", "stop_all.sh", "sdk/sdk.key"] {
        assert!(output.join("127.0.0.2").join(name).is_file(), "{name}");
    }
    let second = chain.add_node(&new_node("bank", "127.0.0.2", &[group(1)])).unwrap();
    assert_eq!(second.directory, output.join("127.0.0.2/node1"));
    assert_eq!(load(&second).p2p.peers.len(), 5);
}

#[test]
fn agency_makes_its_nodes_with_its_own_keys_and_the_public_files_of_a_member() {
    let scratch = tempfile::tempdir().unwrap();
    let (output, own) = (scratch.path().join("nodes"), scratch.path().join("own"));
    chain(&output);
    let member = "127.0.0.1/node2";
    for directory in ["cert/shop/channel", &format!("{member}/conf")] {
        fs::create_dir_all(own.join(directory)).unwrap();
    }
    for name in ["agency.crt", "agency.key", "channel/ca.crt", "channel/ca.key"] {
        fs::copy(output.join("cert/shop").join(name), own.join("cert/shop").join(name)).unwrap();
    }
    for name in
        ["cert/ca.crt", &format!("{member}/config.ini"), &format!("{member}/conf/group.2.genesis"), &format!("{member}/conf/group.2.ini")]
    {
        fs::copy(output.join(name), own.join(name)).unwrap();
    }
    let joined = ChainDirectory::open(&own).unwrap().add_node(&new_node("shop", "10.0.0.7", &[group(2)])).unwrap();
    assert_eq!((joined.directory.clone(), joined.endpoint.as_str()), (own.join("10.0.0.7/node0"), "10.0.0.7:30302"));
    assert_eq!(load(&joined).p2p.peers, ["127.0.0.1:30302", "10.0.0.7:30302"]);
}

#[test]
fn nodes_that_cannot_join_are_refused_and_leave_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    let refused = |new: &NewNode<'_>| {
        let message = chain.add_node(new).err().unwrap().to_string();
        assert!(!output.join("127.0.0.1/node3").exists(), "{message}");
        message
    };
    assert!(refused(&new_node("hotel", "127.0.0.1", &[group(1)])).contains("agencies that are there: bank, shop"));
    assert!(refused(&new_node("bank", "127.0.0.1", &[group(7)])).contains("is in group 7"));
    assert!(refused(&new_node("bank", "127.0.0.1", &[])).contains("no group was named"));
    let one = [group(1)];
    let taken = NewNode { ports: Some(Ports { p2p: 30300, channel: 2, rpc: 3 }), ..new_node("bank", "127.0.0.1", &one) };
    assert!(refused(&taken).contains("not free"));
    let genesis = output.join("127.0.0.1/node1/conf/group.1.genesis");
    fs::write(&genesis, fs::read_to_string(&genesis).unwrap().replace("max_trans_num=1000", "max_trans_num=999")).unwrap();
    assert!(refused(&new_node("bank", "127.0.0.1", &[group(1)])).contains("differ"));
    assert!(ChainDirectory::open(&output.join("127.0.0.1")).err().unwrap().to_string().contains("no chain's directory"));
}

#[test]
fn agency_that_is_added_runs_nodes_and_clients_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    let directory = chain.add_agency("hotel", 1_000).unwrap();
    assert_eq!((mode(&directory), mode(&directory.join("agency.key"))), (0o700, 0o600));
    let facts = read(&directory.join("agency.crt")).unwrap();
    assert_eq!((facts.subject.as_str(), facts.issuer.as_str(), facts.is_authority), ("hotel", "chain", true));
    assert!(facts.days_left() <= 365, "it does not outlive the chain's authority, made for 365 days");
    assert!(chain.add_agency("hotel", 1).unwrap_err().to_string().contains("already"));
    assert!(chain.add_agency("../x", 1).unwrap_err().to_string().contains("cannot be an agency's name"));
    let joined = chain.add_node(&new_node("hotel", "127.0.0.1", &[group(1)])).unwrap();
    assert_eq!(load(&joined).agency, "hotel");
    let sdk = scratch.path().join("client");
    chain.add_sdk("hotel", ("teller", &sdk), 30).unwrap();
    assert_eq!(read(&sdk.join("sdk.crt")).unwrap().subject, "teller");
    assert!(chain.add_sdk("hotel", ("teller", &sdk), 30).unwrap_err().to_string().contains("already"));
    if let Some(accepted) = openssl_accepts(&sdk.join("ca.crt"), &sdk.join("ca.crt"), &sdk.join("sdk.crt"), "sslclient") {
        assert!(accepted);
    }
    assert!(!output.join("cert/.adding").exists());
}

#[test]
fn renewed_node_keeps_keys_or_gets_new_ones_and_old_files_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    let node = output.join("127.0.0.1/node2");
    let certificate = node.join("conf/p2p.crt");
    let (before, key) = (read(&certificate).unwrap(), fs::read(node.join("conf/p2p.key")).unwrap());
    let renewed = chain.renew_node(&node, None, KEEP).unwrap();
    assert_eq!(renewed.files, [certificate.clone(), node.join("conf/channel_cert/node.crt")]);
    let after = read(&certificate).unwrap();
    assert_eq!(
        (&after.public_key, &after.node_id, &after.subject, &after.organization),
        (&before.public_key, &before.node_id, &before.subject, &before.organization)
    );
    assert!(after.until_s < before.until_s && fs::read(node.join("conf/p2p.key")).unwrap() == key);
    assert_eq!(read(&old_name(&certificate)).unwrap(), before);
    assert!(!old_name(&node.join("conf/p2p.key")).exists());
    assert_eq!(read(&node.join("conf/channel_cert/node.crt")).unwrap().addresses, ["127.0.0.1".parse::<IpAddr>().unwrap()]);

    chain.renew_node(&node, None, Renewal { keys: KeyChoice::New, ..KEEP }).unwrap();
    assert_ne!(read(&certificate).unwrap().public_key, before.public_key);
    assert_eq!(fs::read(old_name(&node.join("conf/p2p.key"))).unwrap(), key);
    assert_eq!((mode(&node.join("conf/p2p.key")), mode(&old_name(&node.join("conf/p2p.key")))), (0o600, 0o600));
    NodeConfig::load(&node.join("config.ini")).unwrap();
    if let Some(accepted) = openssl_accepts(&output.join("cert/ca.crt"), &certificate, &certificate, "sslserver") {
        assert!(accepted);
        let channel = node.join("conf/channel_cert");
        assert_eq!(openssl_accepts(&channel.join("ca.crt"), &channel.join("ca.crt"), &channel.join("node.crt"), "sslserver"), Some(true));
    }
}

#[test]
fn agency_and_client_are_renewed_and_old_clients_stay_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("nodes");
    let chain = chain(&output);
    let (node, sdk) = (output.join("127.0.0.1/node0"), output.join("127.0.0.1/sdk"));
    let old_authority = fs::read(sdk.join("ca.crt")).unwrap();
    chain.renew_agency("bank", Renewal { keys: KeyChoice::New, ..KEEP }).unwrap();
    chain.renew_node(&node, None, KEEP).unwrap();
    assert_ne!(fs::read(node.join("conf/channel_cert/ca.crt")).unwrap(), old_authority);
    let chain_of = facts::read_chain(&node.join("conf/p2p.crt")).unwrap();
    assert_eq!(chain_of.len(), 2);
    assert_eq!(chain_of[1].public_key, read(&output.join("cert/bank/agency.crt")).unwrap().public_key);
    if let Some(accepted) =
        openssl_accepts(&output.join("cert/ca.crt"), &node.join("conf/p2p.crt"), &node.join("conf/p2p.crt"), "sslclient")
    {
        assert!(accepted);
        let (renewed, leaf) = (node.join("conf/channel_cert/ca.crt"), node.join("conf/channel_cert/node.crt"));
        assert_eq!(openssl_accepts(&renewed, &renewed, &sdk.join("sdk.crt"), "sslclient"), Some(true), "an old client at a renewed node");
        assert_eq!(
            openssl_accepts(&sdk.join("ca.crt"), &sdk.join("ca.crt"), &leaf, "sslserver"),
            Some(true),
            "a renewed node at an old client"
        );
    }
    let before = read(&sdk.join("sdk.crt")).unwrap();
    chain.renew_sdk(&sdk, KEEP).unwrap();
    let after = read(&sdk.join("sdk.crt")).unwrap();
    assert!(after.public_key == before.public_key && after.until_s < before.until_s);
    assert_eq!(fs::read(sdk.join("ca.crt")).unwrap(), fs::read(node.join("conf/channel_cert/ca.crt")).unwrap());
    assert!(chain.renew_agency("hotel", KEEP).unwrap_err().to_string().contains("has no agency hotel"));
}

#[test]
fn directory_of_2x_gets_its_first_p2p_certificate_and_keeps_its_channel() {
    let scratch = tempfile::tempdir().unwrap();
    let chain = chain(&scratch.path().join("nodes"));
    // A node of another chain, named as 2.x names its files.
    let node = one_node(&scratch.path().join("other"));
    for (from, to) in [("conf/p2p.crt", "conf/node.crt"), ("conf/p2p-ca.crt", "conf/ca.crt")] {
        fs::rename(node.join(from), node.join(to)).unwrap();
    }
    fs::remove_file(node.join("conf/p2p.key")).unwrap();
    let sdk_side = fs::read(node.join("conf/channel_cert/node.crt")).unwrap();
    let config = node.join("config.ini");
    let text =
        fs::read_to_string(&config).unwrap().replace("cert=p2p.crt", "cert=node.crt").replace("ca_cert=p2p-ca.crt", "ca_cert=ca.crt");
    fs::write(&config, text.replace("conf/node.crt", "")).unwrap();
    fs::write(node.join("conf/node.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(chain.renew_node(&node, None, KEEP).unwrap_err().to_string().contains("--agency NAME"));
    let renewed = chain.renew_node(&node, Some("bank"), KEEP).unwrap();
    assert_eq!(renewed.files, [node.join("conf/p2p.crt")]);
    assert_eq!(renewed.remarks.len(), 2, "{:?}", renewed.remarks);
    let config = NodeConfig::load(&config).unwrap();
    assert_eq!((config.agency.as_str(), config.name.as_str()), ("bank", "node0"));
    assert_eq!(config.p2p.certificate, node.join("conf/p2p.crt"));
    assert_eq!(fs::read(node.join("conf/channel_cert/node.crt")).unwrap(), sdk_side);
}
