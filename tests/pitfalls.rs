//! What clients of 2.x depend on without saying so (`spec/client-protocol.md` 9), as far as it takes a whole node; `docs/pitfalls.md` has
//! the tests of every pitfall.

use millrace_base::{Address, Bytes, KeyPair, Transaction, U256};
use serde_json::{Value, json};

use crate::client::{key, receipt, send, text, transaction};
use crate::network::Network;

fn signed(fields: Transaction, signer: &KeyPair) -> Bytes {
    fields.sign(signer).encoded().clone()
}

/// Where nothing is.
const NOWHERE: Address = Address::repeat_byte(0x77);

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(text(value).strip_prefix("0x").unwrap(), 16).unwrap()
}

/// Sends a call of nothing and gives its receipt.
fn committed(network: &Network, signer: &KeyPair) -> Value {
    let sent = send(network, &signed(transaction(network, Some(NOWHERE), Bytes::new()), signer));
    receipt(network, text(&sent["result"]))
}

#[test]
fn versions_are_parsable_and_do_not_switch_sdks_to_other_cryptography() {
    let version = Network::start(1).result("getClientVersion", "[]");
    let supported: Vec<_> = text(&version["Supported Version"]).split('.').map(|part| part.parse::<u32>().unwrap()).collect();
    assert!(supported.len() == 3 && supported[0] == 2 && supported[1] >= 1, "{version}");
    assert_eq!(version["Chain Id"], "1");
    assert!(version.as_object().unwrap().values().all(|value| !text(value).contains("gm")), "{version}");
}

#[test]
fn group_id_is_an_integer_and_members_that_nobody_knows_are_ignored() {
    let network = Network::start(1);
    assert_eq!(network.ask("getBlockNumber", "[\"1\"]")["error"]["code"], -32602);
    let reply = network.post(r#"{"jsonrpc":"2.0","method":"getBlockNumber","params":[1],"id":7,"extra":{"a":[1]}}"#);
    assert_eq!(reply, "{\"id\":7,\"jsonrpc\":\"2.0\",\"result\":\"0x0\"}\n");
}

#[test]
fn unknown_transactions_are_null_unknown_blocks_are_errors_and_latest_is_refused() {
    let network = Network::start(1);
    let absent = format!("0x{}", "ab".repeat(32));
    for method in ["getTransactionByHash", "getTransactionReceipt", "getTransactionByHashWithProof", "getTransactionReceiptByHashWithProof"]
    {
        let reply = network.ask(method, &json!([1, absent]).to_string());
        assert!(reply.get("result").is_some_and(Value::is_null) && reply.get("error").is_none(), "{reply}");
    }
    assert_eq!(network.ask("getBlockByHash", &json!([1, absent, false]).to_string())["error"]["code"], -40003);
    assert_eq!(network.ask("getBlockByNumber", "[1,\"0x99\",false]")["error"]["code"], -40004);
    for text in ["latest", "pending", "earliest"] {
        assert_eq!(network.ask("getBlockByNumber", &json!([1, text, false]).to_string())["error"]["code"], -32603);
    }
    assert_eq!(network.result("getBlockByNumber", "[1,\"0x000\",false]")["number"], "0x0", "an odd number of digits is a number");
    assert_eq!(network.ask("getBatchReceiptsByBlockNumberAndRange", "[1,\"0\",\"0\",\"-1\",false]")["error"]["code"], -40099);
}

#[test]
fn transactions_of_every_sdk_are_accepted() {
    let network = Network::start(1);
    let signer = key("cow");
    let gas = |gas_price: u64, gas: u64, ahead: u64, extra: &[u8]| {
        let fields = transaction(&network, Some(NOWHERE), Bytes::new());
        let block_limit = U256::from(network.height(1) + ahead);
        Transaction {
            gas_price: U256::from(gas_price),
            gas: U256::from(gas),
            block_limit,
            extra_data: Bytes::copy_from_slice(extra),
            ..fields
        }
    };
    // python-sdk, nodejs-sdk with its one byte of extraData, java-sdk, go-sdk, and the longest limit there is.
    let forms = [
        gas(30_000_000, 30_000_000, 500, &[]),
        gas(0, 1_000_000, 500, &[0]),
        gas(22_000_000_000, 4_300_000, 500, &[]),
        gas(30_000_000, 30_000_000, 600, &[]),
    ];
    for fields in forms.into_iter().chain([gas(0, 0, 1_000, &[7; 1_000])]) {
        let (price, extra) = (fields.gas_price, fields.extra_data.clone());
        let sent = send(&network, &signed(fields, &signer));
        let receipt = receipt(&network, text(&sent["result"]));
        assert_eq!((text(&receipt["status"]), text(&receipt["statusMsg"])), ("0x1a", "CallAddressError"), "no contract is there: {sent}");
        let shown = network.result("getTransactionByHash", &json!([1, sent["result"]]).to_string());
        assert_eq!(shown["gasPrice"], format!("{price:#x}"));
        assert_eq!(shown["extraData"], millrace_base::hex::encode_prefixed(&extra));
        assert!(["0x0", "0x1"].contains(&text(&shown["signature"]["v"])), "{shown}");
        assert_eq!(text(&shown["signature"]["signature"]).len(), 2 + 130);
    }
}

#[test]
fn block_limit_reaches_a_thousand_ahead_and_nonces_are_the_groups() {
    let network = Network::start(1);
    let ahead = |ahead: u64| Transaction {
        block_limit: U256::from(network.height(1) + ahead),
        ..transaction(&network, Some(NOWHERE), Bytes::new())
    };
    for refused in [ahead(0), ahead(1_001)] {
        let reply = send(&network, &signed(refused, &key("cow")));
        assert!(text(&reply["error"]["message"]).contains("BlockLimitCheckFailed") && reply["error"]["code"] == -32603, "{reply}");
    }
    let first = ahead(1_000);
    let same_nonce = Transaction { data: Bytes::from_static(b"1234"), ..first.clone() };
    let sent = send(&network, &signed(first, &key("cow")));
    receipt(&network, text(&sent["result"]));
    let reply = send(&network, &signed(same_nonce, &key("another account")));
    assert!(text(&reply["error"]["message"]).contains("NonceCheckFail"), "{reply}");
    assert!(text(&reply["error"]["message"]).starts_with("INTERNAL_ERROR: : "), "{reply}");
}

#[test]
fn block_and_header_have_the_forms_that_sdks_hash() {
    let network = Network::start(1);
    let receipt = committed(&network, &key("cow"));
    let header = network.result("getBlockHeaderByNumber", "[1,\"1\",true]");
    let block = network.result("getBlockByNumber", "[1,\"1\",true]");
    assert_eq!((&header["number"], &block["number"]), (&json!(1), &json!("0x1")));
    for shown in [&header, &block] {
        assert_eq!((&shown["gasLimit"], &shown["gasUsed"]), (&json!("0x0"), &json!("0x0")));
        assert_eq!(text(&shown["logsBloom"]), format!("0x{}", "0".repeat(512)));
        assert!(quantity(&shown["timestamp"]) > 1_500_000_000_000, "milliseconds");
        assert_eq!(shown["signatureList"].as_array().unwrap().len(), 1);
    }
    assert!(header.get("transactions").is_none());
    assert_eq!(text(&receipt["contractAddress"]), format!("{:#x}", Address::ZERO));
    assert!(receipt["logs"].is_array() && text(&receipt["output"]).starts_with("0x"));
    let sync = network.result("getSyncStatus", "[1]");
    assert_eq!((&sync["txPoolSize"], &sync["blockNumber"]), (&json!("0"), &json!(1)));
    assert_eq!(format!("0x{}", text(&sync["latestHash"])), text(&header["hash"]), "without 0x there");
}

#[test]
fn call_sees_the_current_height_and_a_missing_callee_is_a_status() {
    let network = Network::start(1);
    committed(&network, &key("cow"));
    let from = format!("{:#x}", key("cow").address());
    // Without a contract in between, the height of a call shows in its result.
    let result = network.result("call", &json!([1, {"from": from, "to": format!("{NOWHERE:#x}"), "data": "0x"}]).to_string());
    assert_eq!((&result["currentBlockNumber"], &result["status"]), (&json!("0x1"), &json!("0x1a")), "{result}");
    assert_eq!(network.ask("call", &json!([1, {"to": format!("{NOWHERE:#x}"), "data": "0x"}]).to_string())["error"]["code"], -40006);
}

#[test]
fn node_lists_have_this_node_first_and_only_members_of_the_group() {
    let network = Network::start(1);
    let own = network.result("getNodeInfo", "[]")["NodeID"].clone();
    assert_eq!(text(&own).len(), 128, "without 0x");
    assert_eq!(network.result("getNodeIDList", "[1]")[0], own);
    let members = network.result("getGroupPeers", "[1]");
    let listed: Vec<_> = ["getSealerList", "getObserverList"]
        .map(|method| network.result(method, "[1]"))
        .iter()
        .flat_map(|list| list.as_array().unwrap().clone())
        .collect();
    assert_eq!(members, Value::Array(listed));
    assert!(members.as_array().unwrap().contains(&own));
    assert!(network.result("getPeers", "[1]").is_array());
}
