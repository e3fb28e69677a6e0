//! The node as its user runs it: real processes, real sockets, the load generator as oracle.

mod client;
mod devnet;
mod disk;
mod full_pool;
mod groups;
mod mysql;
mod network;
mod nodes;
mod openrpc;
mod pitfalls;
mod protection;
mod replay;
mod sdk;
mod state_tests;
mod status;
mod tries;

use std::io::Write;
use std::process::Command;

use network::{Network, txgen, verify};

#[test]
fn loaded_groups_give_every_receipt_and_their_databases_verify() {
    let network = Network::start(2);
    for workload in ["transfer", "solidity", "token", "table"] {
        let output = txgen(&network, &["--group", "1,2", "--workload", workload, "--count", "2000"]);
        assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let directory = network.stop();
    for group in ["1", "2"] {
        verify(&directory, group);
    }
}

#[test]
fn killed_node_has_every_block_it_told_of_and_goes_on() {
    let mut network = Network::start(1);
    for round in 0..3 {
        let load = network.txgen_in_background(&["--group", "1", "--workload", "transfer", "--count", "200000", "--timeout", "5"]);
        network.wait_for_height_above(1, round * 3 + 2);
        let told = network.block(1, network.height(1));
        network.kill();
        load.end();
        verify(network.directory(), "1");
        network.restart();
        assert_eq!(network.block(1, told.0).1, told.1, "the block that a client had seen before the kill");
    }
    let output = txgen(&network, &["--group", "1", "--workload", "token", "--count", "500"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn second_process_on_the_same_directory_is_refused_with_a_remedy() {
    let network = Network::start(1);
    let config = network.directory().join("127.0.0.1/node0/config.ini");
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).arg("run").arg("-c").arg(config).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("in use by another process") && message.contains("what to do"), "{message}");
    network.height(1);
}

#[test]
fn damaged_key_and_unknown_setting_are_named() {
    let network = Network::start(1);
    let directory = network.stop();
    let node = directory.join("127.0.0.1/node0");
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_millrace")).arg("run").arg("-c").arg(node.join("config.ini")).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let config = std::fs::read_to_string(node.join("config.ini")).unwrap();
    std::fs::write(node.join("config.ini"), config.replace("jsonrpc_listen_port", "jsonrpc_listen_prt")).unwrap();
    assert!(run().contains("jsonrpc_listen_port"));
    std::fs::write(node.join("config.ini"), config).unwrap();
    let key = node.join("conf/node.key");
    std::fs::OpenOptions::new().write(true).truncate(true).open(&key).unwrap().write_all(b"not a key").unwrap();
    assert!(run().contains("node.key"));
}

#[test]
fn malformed_requests_are_answered_and_the_node_serves_on() {
    let network = Network::start(1);
    let bodies = [
        "",
        "{",
        "[]",
        "{\"jsonrpc\":\"2.0\",\"method\":\"nonsense\",\"params\":[],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"sendRawTransaction\",\"params\":[1,\"0xzz\"],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"sendRawTransaction\",\"params\":[1,\"0xc0\"],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"getBlockNumber\",\"params\":[77],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"addPeers\",\"params\":[[\"notanip\"]],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"call\",\"params\":[1,{\"from\":\"0x0000000000000000000000000000000000000001\",\"to\":\"0x0000000000000000000000000000000000001000\",\"data\":\"0x01\"}],\"id\":1}",
    ];
    for body in bodies {
        let answer = network.post(body);
        assert!(answer.contains("jsonrpc"), "{body}: {answer}");
    }
    let deep = "[".repeat(100_000);
    network.post(&deep);
    assert_eq!(network.height(1), 0);
}
