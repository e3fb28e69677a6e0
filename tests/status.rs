//! What an operator reads of a running node: status, what is wrong, topology, dashboard, metrics.

use std::process::{Command, Output};

use serde_json::Value;

use crate::network::{Network, txgen};

fn millrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output().unwrap()
}

/// Standard output of a command that ends with this code.
fn said(code: i32, arguments: &[&str]) -> String {
    let output = millrace(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn operator_reads_a_running_node_by_address_and_by_directory() {
    let mut network = Network::start(2);
    let operator = network.operator();
    let load = txgen(&network, &["--group", "1", "--workload", "transfer", "--count", "500"]);
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let directory = network.directory().join("127.0.0.1/node0");
    let status: Value = serde_json::from_str(&said(0, &["node", "status", "--json", "--dir", directory.to_str().unwrap()])).unwrap();
    let group = &status["groups"][0]["running"];
    assert_eq!(group["height"].as_u64(), Some(network.height(1)), "{status}");
    assert_eq!(group["role"], serde_json::json!({"kind": "sealer", "index": 0, "of": 1}), "{status}");
    assert_eq!((&group["consensus"]["quorum"], &group["consensus"]["sealers"][0]["link"]), (&1.into(), &"own".into()), "{status}");
    assert_eq!(status["groups"].as_array().unwrap().len(), 2);
    assert!(status["certificates"].as_array().is_some_and(|found| found.iter().any(|one| one["file"] == "conf/p2p.crt")), "{status}");

    let text = said(0, &["node", "status", "--url", &operator]);
    assert!(text.contains("node0") && text.contains("group 2: healthy, sealer 0 of 1"), "{text}");
    let why = said(0, &["node", "status", "--why", "--url", &operator]);
    assert!(why.contains("group 1: healthy"), "{why}");
    let picture = said(0, &["topology", "--live", "--once", "--url", &operator]);
    assert!(picture.contains("| order  (1 thread)") && picture.contains("to-order 0 of"), "{picture}");
    let frame = said(0, &["top", "--once", "--url", &operator, "--url", "127.0.0.1:1"]);
    assert!(frame.contains("1 of 2 nodes answer") && frame.contains("SILENT") && frame.contains("stages of node0"), "{frame}");

    let metrics = ureq::get(format!("{operator}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    for line in [
        "millrace_view_changes_total{group=\"1\"} 0",
        "millrace_sealers{group=\"2\"} 1",
        "millrace_p2p_messages_total{kind=\"consensus\",direction=\"out\"} 0",
        "millrace_peers_connected 0",
        "millrace_inlet_dropped_total{inlet=\"sync\"} 0",
        "millrace_certificate_days_left{file=\"conf/p2p.crt\"} ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    network.halt();
    let gone = millrace(&["node", "status", "--url", &operator]);
    assert_eq!(gone.status.code(), Some(66), "{gone:?}");
}
