//! A Solidity contract as an SDK's user meets it: deployed, called, heard of by its events, refusing with a reason.

use millrace_base::abi::{Encoder, error_string, selector};
use millrace_base::{Address, B256, Bytes, U256, hex, keccak256};
use serde_json::json;

use crate::client::{key, shown, text, transact};
use crate::network::{Network, Setup};

/// Of `tools/txgen/contracts/Token.sol`.
const TOKEN: &str = include_str!("../tools/txgen/contracts/Token.bin");

/// Status of a reverted transaction (`spec/client-protocol.md` 2).
const REVERTED: &str = "0x16";

fn token_tells_what_it_does(arguments: &[&str]) {
    let network = Network::start_with(1, Setup { arguments, ..Setup::default() });
    let (owner, other) = (key("cow"), key("horse"));
    let deployed = transact(&network, &owner, None, hex::decode(TOKEN.trim()).unwrap().into());
    assert_eq!(deployed["status"], "0x0", "{deployed}");
    // The first contract of this account on any chain: `spec/client-protocol.md` 1.3.
    assert_eq!(deployed["contractAddress"], "0x77045e71a7a2c50903d88e564cd72fab11e82051");
    let token: Address = text(&deployed["contractAddress"]).parse().unwrap();
    let code = network.result("getCode", &json!([1, shown(token)]).to_string());
    assert!(text(&code).len() > 1_000, "{code}");

    let mint = Encoder::call(selector("mint(address,uint256)")).address(other.address()).uint(U256::from(70)).finish();
    let minted = transact(&network, &owner, Some(token), mint.clone());
    assert_eq!(minted["status"], "0x0", "{minted}");
    let log = &minted["logs"][0];
    assert_eq!(minted["logs"].as_array().unwrap().len(), 1);
    assert_eq!(log["address"], shown(token));
    let topics = [keccak256("Transfer(address,address,uint256)"), B256::ZERO, other.address().into_word()];
    assert_eq!(log["topics"], json!(topics.map(shown)));
    assert_eq!(log["data"], shown(B256::from(U256::from(70))));
    assert_ne!(minted["logsBloom"], deployed["logsBloom"]);

    let ask = |data: Bytes| {
        let call = json!([1, { "from": shown(owner.address()), "to": shown(token), "value": "0x0", "data": shown(data) }]);
        network.result("call", &call.to_string())
    };
    let balance = ask(Encoder::call(selector("balanceOf(address)")).address(other.address()).finish());
    assert_eq!((&balance["status"], &balance["output"]), (&json!("0x0"), &shown(B256::from(U256::from(70)))));

    let reason = shown(error_string("only the owner mints"));
    let refused = transact(&network, &other, Some(token), mint);
    assert_eq!((&refused["status"], &refused["output"]), (&json!(REVERTED), &reason), "{refused}");
    assert_eq!(refused["logs"], json!([]));
    let reason = shown(error_string("balance too low"));
    let asked = ask(Encoder::call(selector("transfer(address,uint256)")).address(other.address()).uint(U256::from(1)).finish());
    assert_eq!((&asked["status"], &asked["output"]), (&json!(REVERTED), &reason), "{asked}");
}

#[test]
fn contract_is_deployed_called_heard_of_and_refuses_with_its_reason() {
    token_tells_what_it_does(&[]);
}

#[test]
fn contract_does_the_same_under_the_rules_of_2_x() {
    token_tells_what_it_does(&["--evm", "fisco2"]);
}
