//! A 2.x client over HTTP: transactions in the form that real SDKs sign, receipts and proofs as `spec/client-protocol.md` has them.

#[path = "sdk/evidence.rs"]
mod evidence;

use std::time::{Duration, Instant};

use evidence::{block_hash, bytes, list, number, proven_root, receipt_hash, string, transaction_hash};
use millrace_base::{Address, Bytes, KeyPair, RawTx, Transaction, U256, VerifiedTx, hex, keccak256};
use serde_json::{Value, json};

use crate::network::Network;

/// How long a receipt may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Leaves of a Merkle node: a proof in a larger block has two levels of siblings.
const WIDTH: usize = 16;

/// Re-signings of each vector in one request.
const COPIES: u64 = 12;

/// Fits a transaction to the running chain: its chain id, group 1, a block limit ahead of the head, a nonce of its own.
fn sign(network: &Network, key: &KeyPair, nonce: u64, fields: Transaction) -> VerifiedTx {
    let version = network.result("getClientVersion", "[]");
    let chain_id = version["Chain Id"].as_str().unwrap().parse().unwrap();
    let block_limit = U256::from(network.height(1) + 500);
    let fitted = Transaction { nonce: U256::from(nonce), block_limit, chain_id, group_id: U256::ONE, ..fields };
    fitted.sign(key).verify().unwrap()
}

/// Sends transactions in one batch request; each answer must be the hash that the client computed.
fn send(network: &Network, transactions: &[VerifiedTx]) {
    let request = |(id, transaction): (usize, &VerifiedTx)| {
        let raw = format!("0x{}", hex::encode(transaction.encoded()));
        json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [1, raw], "id": id})
    };
    let requests: Vec<Value> = transactions.iter().enumerate().map(request).collect();
    let answers: Value = serde_json::from_str(&network.post(&json!(requests).to_string())).unwrap();
    let answers = answers.as_array().unwrap_or_else(|| panic!("{answers}"));
    assert_eq!(answers.len(), transactions.len());
    for answer in answers {
        let sent = &transactions[usize::try_from(answer["id"].as_u64().unwrap()).unwrap()];
        assert_eq!(answer["result"], sent.hash().to_string(), "{answer}");
    }
}

/// Waits for the receipt of a transaction.
fn receipt(network: &Network, transaction: &VerifiedTx) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let receipt = network.result("getTransactionReceipt", &json!([1, transaction.hash().to_string()]).to_string());
        if !receipt.is_null() {
            return receipt;
        }
        assert!(Instant::now() < deadline, "no receipt of {}", transaction.hash());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Checks what the node says of a committed transaction and proves it against its block. Gives the block's transaction count.
fn prove(network: &Network, sent: &VerifiedTx) -> usize {
    let plain = receipt(network, sent);
    let hash = json!([1, sent.hash().to_string()]).to_string();
    let in_block = network.result("getTransactionByHashWithProof", &hash);
    let with_receipt = network.result("getTransactionReceiptByHashWithProof", &hash);
    let (transaction, proven) = (&in_block["transaction"], &with_receipt["transactionReceipt"]);
    let block = network.result("getBlockByNumber", &json!([1, plain["blockNumber"], false]).to_string());
    let index = &plain["transactionIndex"];

    for (name, value) in plain.as_object().unwrap() {
        assert_eq!(&proven[name], value, "{name} with and without proof");
    }
    for from in [&plain["from"], &transaction["from"]] {
        assert_eq!(bytes(from), sent.sender().as_slice(), "the sender of {}", sent.hash());
    }
    assert_eq!(bytes(&plain["to"]), sent.fields().to.unwrap_or_default().as_slice());
    assert_eq!(bytes(&plain["input"]), sent.fields().data);
    assert_eq!(plain["transactionHash"], sent.hash().to_string());
    assert_eq!((&transaction["transactionIndex"], &transaction["blockHash"]), (index, &plain["blockHash"]));

    assert_eq!(block_hash(&block).to_string(), plain["blockHash"].as_str().unwrap(), "the block's hash");
    assert_eq!(block["hash"], plain["blockHash"]);
    assert_eq!(plain["root"], block["stateRoot"]);
    let hashes = block["transactions"].as_array().unwrap();
    let position = usize::try_from(U256::from_be_slice(&bytes(index))).unwrap();
    assert_eq!(hashes[position], sent.hash().to_string(), "the transaction's place in its block");

    assert_eq!(transaction_hash(transaction), sent.hash());
    let proofs = [
        (sent.hash(), &in_block["txProof"], &block["transactionsRoot"]),
        (receipt_hash(proven), &with_receipt["receiptProof"], &block["receiptsRoot"]),
    ];
    for (leaf, proof, root) in proofs {
        let (reached, siblings) = proven_root(index, leaf, proof);
        assert_eq!(reached.as_slice(), bytes(root), "{proof}");
        assert!(hashes.len() == 1 || siblings > 0, "a proof without siblings in a block of {}", hashes.len());
        assert_ne!(proven_root(index, keccak256(leaf), proof).0.as_slice(), bytes(root), "another leaf");
    }
    hashes.len()
}

#[test]
fn transactions_as_sdks_sign_them_are_accepted_and_proven_against_their_block() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/vectors/transactions.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: {path} is absent");
        return;
    };
    let file: Value = serde_json::from_str(&text).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let network = Network::start(1);
    let deadline = Instant::now() + PATIENCE;
    for round in 0_u64.. {
        let mut sent = Vec::new();
        for (index, vector) in (0_u64..).zip(vectors) {
            let recorded = RawTx::decode(&bytes(&vector["raw"])).unwrap();
            let key = KeyPair::from_secret(&bytes(&vector["private_key"]).try_into().unwrap()).unwrap();
            assert_eq!(recorded.hash().to_string(), vector["tx_hash"].as_str().unwrap());
            for copy in 0..COPIES {
                let nonce = 1 + (round * 100 + index) * COPIES + copy;
                sent.push(sign(&network, &key, nonce, recorded.fields().clone()));
            }
            assert_eq!(sent.last().unwrap().sender().as_slice(), bytes(&vector["sender"]));
        }
        send(&network, &sent);
        let mut largest = 0;
        for transaction in &sent {
            largest = largest.max(prove(&network, transaction));
            // The vectors call system contracts, which exist, and one contract, which does not.
            let is_system = transaction.fields().to.unwrap()[..18] == [0; 18];
            let expected = if is_system { ("0x0", "None") } else { ("0x1a", "CallAddressError") };
            let receipt = receipt(&network, transaction);
            assert_eq!((receipt["status"].as_str().unwrap(), receipt["statusMsg"].as_str().unwrap()), expected, "{receipt}");
        }
        // A proof of two levels has been checked; how transactions fall into blocks is the node's choice.
        if largest > WIDTH {
            return;
        }
        assert!(Instant::now() < deadline, "no block of more than {WIDTH} transactions, the largest has {largest}");
    }
}

/// A call's data: the selector of `signature` and its static arguments.
fn call_data(signature: &str, arguments: &[U256]) -> Bytes {
    let mut data = keccak256(signature)[..4].to_vec();
    data.extend(arguments.iter().flat_map(|argument| argument.to_be_bytes::<32>()));
    data.into()
}

fn word(address: Address) -> U256 {
    U256::from_be_slice(address.as_slice())
}

/// What Solidity returns for `revert(reason)`: `Error(string)` in the contract ABI.
fn revert_data(reason: &str) -> Vec<u8> {
    let mut data = call_data("Error(string)", &[U256::from(32), U256::from(reason.len())]).to_vec();
    data.extend_from_slice(reason.as_bytes());
    data.resize(4 + (data.len() - 4).next_multiple_of(32), 0);
    data
}

fn call(network: &Network, from: Address, to: Address, data: &Bytes) -> Value {
    let request =
        json!({"from": from.to_string().to_lowercase(), "to": to.to_string().to_lowercase(), "data": format!("0x{}", hex::encode(data))});
    network.result("call", &json!([1, request]).to_string())
}

#[test]
fn solidity_contract_is_deployed_and_called_with_its_events_and_revert_reasons() {
    let network = Network::start(1);
    let [owner, other] = [1, 2].map(|byte| KeyPair::from_secret(&[byte; 32]).unwrap());
    let run = |key: &KeyPair, nonce: u64, to: Option<Address>, data: Bytes| {
        let sent = sign(&network, key, nonce, Transaction { to, data, ..Transaction::default() });
        send(&network, std::slice::from_ref(&sent));
        prove(&network, &sent);
        receipt(&network, &sent)
    };

    let code = hex::decode(include_str!("../tools/txgen/contracts/Token.bin").trim()).unwrap();
    let deployed = run(&owner, 1, None, code.clone().into());
    let token = Address::from_slice(&keccak256(list(&[string(owner.address().as_slice()), number(&[0])]))[12..]);
    assert_eq!((deployed["status"].as_str(), bytes(&deployed["contractAddress"])), (Some("0x0"), token.to_vec()), "{deployed}");
    assert_eq!(deployed["output"], "0x", "the code is asked for with getCode");
    let runtime = bytes(&network.result("getCode", &json!([1, deployed["contractAddress"]]).to_string()));
    assert!(!runtime.is_empty() && code.ends_with(&runtime), "the code behind the constructor is the contract's");

    let mint = call_data("mint(address,uint256)", &[word(other.address()), U256::from(100)]);
    let minted = run(&owner, 2, Some(token), mint.clone());
    assert_eq!((minted["status"].as_str(), minted["logs"].as_array().unwrap().len()), (Some("0x0"), 1), "{minted}");
    let event = &minted["logs"][0];
    let topics: Vec<Vec<u8>> = event["topics"].as_array().unwrap().iter().map(bytes).collect();
    let expected = [keccak256("Transfer(address,address,uint256)").to_vec(), vec![0; 32], word(other.address()).to_be_bytes_vec()];
    assert_eq!(topics, expected);
    assert_eq!((bytes(&event["address"]), bytes(&event["data"])), (token.to_vec(), U256::from(100).to_be_bytes_vec()));

    let balance = call(&network, owner.address(), token, &call_data("balanceOf(address)", &[word(other.address())]));
    assert_eq!((balance["status"].as_str(), bytes(&balance["output"])), (Some("0x0"), U256::from(100).to_be_bytes_vec()), "{balance}");
    assert_eq!(balance["currentBlockNumber"], minted["blockNumber"]);

    let transfer = call_data("transfer(address,uint256)", &[word(owner.address()), U256::from(101)]);
    for (nonce, data, reason) in [(3, transfer, "balance too low"), (4, mint, "only the owner mints")] {
        let receipt = run(&other, nonce, Some(token), data.clone());
        assert_eq!((receipt["status"].as_str(), receipt["statusMsg"].as_str()), (Some("0x16"), Some("RevertInstruction")), "{receipt}");
        assert_eq!((bytes(&receipt["output"]), receipt["logs"].as_array().unwrap().len()), (revert_data(reason), 0));
        let tried = call(&network, other.address(), token, &data);
        assert_eq!((tried["status"].as_str(), bytes(&tried["output"])), (Some("0x16"), revert_data(reason)), "{tried}");
    }
    let after = call(&network, owner.address(), token, &call_data("balanceOf(address)", &[word(other.address())]));
    assert_eq!(after["output"], balance["output"], "a reverted call changes nothing");
}
