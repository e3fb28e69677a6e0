//! A group's life on a node that runs: generated, started, loaded, stopped, removed, recovered and started again, beside another.

use serde_json::{Value, json};

use crate::network::{Network, Setup, request, txgen};

/// Asks on the operator port, where management is allowed.
fn manage(network: &Network, method: &str, params: &Value) -> Value {
    let mut answer = ureq::post(network.operator()).send(request(method, &params.to_string())).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["result"].clone()
}

fn status(network: &Network, group: u16) -> Value {
    manage(network, "queryGroupStatus", &json!([group]))["status"].clone()
}

fn step(network: &Network, method: &str, group: u16) -> String {
    let verdict = manage(network, method, &json!([group]));
    format!("{} {}", verdict["code"].as_str().unwrap(), verdict["message"].as_str().unwrap())
}

fn generate(network: &Network, group: u16) -> Value {
    let sealer = network.result("getNodeIDList", "[1]")[0].clone();
    manage(network, "generateGroup", &json!([group, {"timestamp": "1600000000000", "sealers": [sealer]}]))
}

fn load(network: &Network, group: &str) {
    let output = txgen(network, &["--group", group, "--workload", "token", "--count", "500"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn group_lives_through_every_step_while_another_runs() {
    let mut network = Network::start(1);
    assert_eq!(status(&network, 7), "INEXISTENT");
    assert_eq!(step(&network, "startGroup", 7), "0xb Genesis config file for group 7 not found");
    assert_eq!(generate(&network, 7)["message"], "Group 7 generated successfully");
    assert_eq!(generate(&network, 7)["code"], "0x2");
    assert_eq!(status(&network, 7), "STOPPED");
    assert_eq!(step(&network, "startGroup", 7), "0x0 Group 7 started successfully");
    assert_eq!(step(&network, "startGroup", 7), "0x3 Group 7 is already running");
    load(&network, "7");
    let (height, other) = (network.height(7), network.txgen_in_background(&["--group", "1", "--count", "100000"]));
    assert_eq!(step(&network, "stopGroup", 7), "0x0 Group 7 stopped successfully");
    assert_eq!(network.ask("getBlockNumber", "[7]")["error"]["code"], -40001);
    assert_eq!(step(&network, "removeGroup", 7), "0x0 Group 7 deleted successfully");
    assert_eq!(step(&network, "startGroup", 7), "0x5 Group 7 has been deleted");
    assert_eq!(step(&network, "recoverGroup", 7), "0x0 Group 7 recovered successfully");

    // The status outlives the process; the group that runs is not disturbed by any of it.
    network.wait_for_height_above(1, 1);
    other.end();
    network.halt();
    network.restart();
    assert_eq!(status(&network, 7), "STOPPED");
    assert_eq!(step(&network, "startGroup", 7), "0x0 Group 7 started successfully");
    assert_eq!(network.height(7), height);
    load(&network, "1,7");
}

#[test]
fn group_is_stopped_and_started_under_load_and_loses_nothing_that_was_committed() {
    let network = Network::start(2);
    let other = network.txgen_in_background(&["--group", "1", "--count", "500000"]);
    for _ in 0..3 {
        let stopped = network.txgen_in_background(&["--group", "2", "--count", "500000", "--timeout", "5"]);
        network.wait_for_height_above(2, network.height(2) + 1);
        let seen = network.block(2, network.height(2));
        let before = network.height(1);
        assert_eq!(step(&network, "stopGroup", 2), "0x0 Group 2 stopped successfully");
        network.wait_for_height_above(1, before);
        assert_eq!(step(&network, "startGroup", 2), "0x0 Group 2 started successfully");
        assert_eq!(network.block(2, seen.0), seen);
        stopped.end();
        load(&network, "2");
    }
    other.end();
}

#[test]
fn clients_may_manage_groups_only_when_the_switch_says_so_and_a_damaged_status_stops_the_start() {
    let network = Network::start_with(1, Setup::default());
    let answer = network.ask("stopGroup", "[1]");
    assert_eq!(answer["error"]["code"], -100_001, "{answer}");
    let directory = network.stop();
    let node = directory.join("127.0.0.1/node0");
    std::fs::write(node.join("data/group1/.group_status"), "gone").unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_millrace")).arg("run").arg("-c").arg(node.join("config.ini")).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains(".group_status") && message.contains("what to do"), "{message}");
}
