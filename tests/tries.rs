//! Groups with `state.type=mpt`: earlier blocks stay readable, and what is proven is checked by other code than made the proof.

use alloy_trie::proof::verify_proof;
use alloy_trie::{Nibbles, TrieAccount};
use millrace_base::{Address, B256, Bytes, KeyPair, U256, hex, keccak256};
use serde_json::{Value, json};

use crate::client::{bytes, key, receipt, send, text, transaction};
use crate::network::{Network, Setup, txgen, verify};

/// Init code of a contract that adds one to its slot 0, and logs and returns the sum.
const COUNTER: [u8; 35] = hex!("6017600c60003960176000f36000546001018060005560005260206000a060206000f3");

fn quantity(value: &Value) -> U256 {
    U256::from_str_radix(text(value).trim_start_matches("0x"), 16).unwrap()
}

fn hash(value: &Value) -> B256 {
    B256::from_slice(&bytes(value))
}

fn committed(network: &Network, signer: &KeyPair, to: Option<Address>, data: &[u8]) -> Value {
    let sent = send(network, transaction(network, to, Bytes::copy_from_slice(data)).sign(signer).encoded());
    let receipt = receipt(network, text(&sent["result"]));
    assert_eq!(receipt["status"], "0x0", "{receipt}");
    receipt
}

fn nodes(list: &Value) -> Vec<Bytes> {
    list.as_array().unwrap().iter().map(|node| bytes(node).into()).collect()
}

/// Checks a reply of `getStateProof` against the header of its block; gives the proven values.
fn proven(network: &Network, proof: &Value) -> Vec<U256> {
    let header = network.result("getBlockHeaderByNumber", &json!([1, proof["blockNumber"], false]).to_string());
    let storage_root = hash(&proof["storageHash"]);
    let account = TrieAccount::new(quantity(&proof["nonce"]).to(), quantity(&proof["balance"]), storage_root, hash(&proof["codeHash"]));
    let path = |key: &[u8]| Nibbles::unpack(keccak256(key));
    let (address, value) = (bytes(&proof["address"]), alloy_rlp::encode(account));
    verify_proof(hash(&header["stateRoot"]), path(&address), Some(value), &nodes(&proof["accountProof"])).unwrap();
    let slot = |slot: &Value| {
        let (key, value) = (quantity(&slot["key"]), quantity(&slot["value"]));
        let encoded = (!value.is_zero()).then(|| alloy_rlp::encode(value));
        verify_proof(storage_root, path(&key.to_be_bytes::<32>()), encoded, &nodes(&slot["proof"])).unwrap();
        value
    };
    proof["storageProof"].as_array().unwrap().iter().map(slot).collect()
}

#[test]
fn every_block_of_a_group_with_tries_is_readable_and_provable() {
    let mut network = Network::start_with(1, Setup { arguments: &["--state", "mpt"], ..Setup::default() });
    let signer = key("cow");
    let created = committed(&network, &signer, None, &COUNTER);
    let counter = Address::from_slice(&bytes(&created["contractAddress"]));
    let counts: Vec<Value> = (0..3).map(|_| committed(&network, &signer, Some(counter), &[])["blockNumber"].clone()).collect();
    for workload in ["token", "transfer", "table"] {
        let output = txgen(&network, &["--group", "1", "--workload", workload, "--count", "1000"]);
        assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    }
    network.kill();
    network.restart();

    let shown = json!(hex::encode_prefixed(counter));
    let call = json!({"from": hex::encode_prefixed(signer.address()), "to": shown});
    for (before, number) in counts.iter().enumerate() {
        let count = before + 1;
        let stored = network.result("getStorageAt", &json!([1, shown, "0", number]).to_string());
        assert_eq!(U256::from_be_bytes(hash(&stored).0), U256::from(count));
        let next = network.result("call", &json!([1, call, number]).to_string());
        assert_eq!((quantity(&next["output"]), &next["currentBlockNumber"]), (U256::from(count + 1), number), "{next}");
        let proof = network.result("getStateProof", &json!([1, shown, ["0x0", "0x7"], number]).to_string());
        assert_eq!(proven(&network, &proof), [U256::from(count), U256::ZERO]);
    }
    let latest = network.result("getStateProof", &json!([1, shown, ["0"]]).to_string());
    assert_eq!(proven(&network, &latest), [U256::from(3)]);
    let deployment = quantity(&created["blockNumber"]);
    let code = |number: U256| network.result("getCode", &json!([1, shown, number.to_string()]).to_string());
    assert_eq!((text(&code(deployment - U256::from(1))), text(&code(deployment)).len()), ("0x", 2 + 2 * 23));

    // Tables have no history, and heights above the head no state.
    let balance = json!({"from": hex::encode_prefixed(signer.address()), "to": "0x0000000000000000000000000000000000005002",
        "data": "0x1536aedd00000000000000000000000000000000000000000000000000000000000000200000000000000000000000000000000000000000000000000000000000000005616c696365000000000000000000000000000000000000000000000000000000"});
    let refused = network.ask("call", &json!([1, balance, counts[0]]).to_string());
    assert_eq!(refused["error"]["code"], -40020, "{refused}");
    assert_eq!(network.ask("getCode", &json!([1, shown, "99999"]).to_string())["error"]["code"], -40004);
    verify(&network.stop(), "1");
}

#[test]
fn group_without_tries_says_that_it_keeps_the_last_block_only() {
    let network = Network::start(1);
    let created = committed(&network, &key("cow"), None, &COUNTER);
    let (address, number) = (&created["contractAddress"], &created["blockNumber"]);
    assert!(network.result("getCode", &json!([1, address, number]).to_string()).is_string(), "the last block may be named");
    assert_eq!(text(&network.result("getStorageAt", &json!([1, address, "0"]).to_string())).len(), 66);
    for (method, params) in [
        ("getCode", json!([1, address, "0"])),
        ("getStorageAt", json!([1, address, "0", "0"])),
        ("call", json!([1, {"from": address, "to": address}, "0"])),
        ("getStateProof", json!([1, address, []])),
    ] {
        let reply = network.ask(method, &params.to_string());
        assert!(reply["error"]["code"] == -40020 && text(&reply["error"]["message"]).contains("state.type"), "{method}: {reply}");
    }
}
