//! Hash, sender, receipt and Merkle proofs, recomputed from what the node answers by code of the test's own
//! (`spec/client-protocol.md` 1, 2 and 6).

use millrace_base::{Address, B256, KeyPair, Transaction, U256, hex, keccak256};
use serde_json::{Value, json};

use crate::client::{bytes, key, receipt, send, send_batch, shown, text, transaction, vectors};
use crate::network::{Network, Setup};

/// An RLP string.
fn string(content: &[u8]) -> Vec<u8> {
    match content {
        [byte] if *byte < 0x80 => vec![*byte],
        _ => [header(content.len(), 0x80), content.to_vec()].concat(),
    }
}

/// An RLP list of encoded items.
fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let content = items.concat();
    [header(content.len(), 0xc0), content].concat()
}

fn header(length: usize, base: u8) -> Vec<u8> {
    if length <= 55 {
        return vec![base + u8::try_from(length).unwrap()];
    }
    let size: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    [vec![base + 55 + u8::try_from(size.len()).unwrap()], size].concat()
}

/// An RLP number out of a JSON quantity.
fn quantity(value: &Value) -> Vec<u8> {
    let number: U256 = text(value).parse().unwrap();
    string(&number.to_be_bytes_trimmed_vec())
}

fn field(value: &Value) -> Vec<u8> {
    string(&bytes(value))
}

/// The hash of a receipt out of its JSON.
fn receipt_hash(receipt: &Value) -> B256 {
    let topics = |log: &Value| list(&log["topics"].as_array().unwrap().iter().map(field).collect::<Vec<_>>());
    let log = |log: &Value| list(&[field(&log["address"]), topics(log), field(&log["data"])]);
    let logs = list(&receipt["logs"].as_array().unwrap().iter().map(log).collect::<Vec<_>>());
    keccak256(list(&[
        field(&receipt["root"]),
        quantity(&receipt["gasUsed"]),
        field(&receipt["contractAddress"]),
        field(&receipt["logsBloom"]),
        quantity(&receipt["status"]),
        field(&receipt["output"]),
        quantity(&receipt["remainGas"]),
        logs,
    ]))
}

/// The root that a proof leads to.
fn proven_root(index: &Value, hash: B256, proof: &Value) -> B256 {
    let join = |side: &Value| side.as_array().unwrap().iter().flat_map(bytes).collect::<Vec<u8>>();
    let mut current = [quantity(index), hash.to_vec()].concat();
    for step in proof.as_array().unwrap() {
        current = keccak256([join(&step["left"]), current, join(&step["right"])].concat()).to_vec();
    }
    B256::from_slice(&current)
}

/// Checks both proofs of a committed transaction; gives the receipt.
fn check_proofs(network: &Network, hash: &str) -> Value {
    let with_transaction = network.result("getTransactionByHashWithProof", &json!([1, hash]).to_string());
    let with_receipt = network.result("getTransactionReceiptByHashWithProof", &json!([1, hash]).to_string());
    let (transaction, receipt) = (&with_transaction["transaction"], &with_receipt["transactionReceipt"]);
    let block = network.result("getBlockByHash", &json!([1, transaction["blockHash"], false]).to_string());
    let root = proven_root(&transaction["transactionIndex"], text(&transaction["hash"]).parse().unwrap(), &with_transaction["txProof"]);
    assert_eq!(shown(root), block["transactionsRoot"], "transaction proof of {hash}");
    let root = proven_root(&receipt["transactionIndex"], receipt_hash(receipt), &with_receipt["receiptProof"]);
    assert_eq!(shown(root), block["receiptsRoot"], "receipt proof of {hash}");
    assert_eq!(*receipt, network.result("getTransactionReceipt", &json!([1, hash]).to_string()));
    for name in ["blockHash", "blockNumber", "transactionIndex", "from", "to", "input"] {
        assert_eq!(transaction[name], receipt[name], "{name} of {hash}");
    }
    assert_eq!((&receipt["blockHash"], &receipt["root"]), (&block["hash"], &block["stateRoot"]));
    receipt.clone()
}

/// A vector's transaction for the running chain, and its key.
fn resigned(vector: &Value, network: &Network) -> (Transaction, KeyPair) {
    let fields = &vector["fields"];
    let number = |name: &str| U256::from_str_radix(&fields[name].to_string().replace('"', ""), 10).unwrap();
    let transaction = Transaction {
        nonce: number("randomid"),
        gas_price: number("gasPrice"),
        gas: number("gasLimit"),
        value: number("value"),
        extra_data: bytes(&fields["extraData"]).into(),
        ..transaction(network, text(&fields["to"]).parse().ok(), bytes(&fields["data"]).into())
    };
    let secret: B256 = text(&vector["private_key"]).parse().unwrap();
    (transaction, KeyPair::from_secret(&secret.0).unwrap())
}

#[test]
fn transactions_of_real_sdks_are_accepted_and_hash_sender_receipt_and_proofs_hold() {
    let Some(content) = vectors("transactions.json") else { return };
    let network = Network::start(1);
    let mut checked = 0;
    let mut nonces = Vec::new();
    for vector in content["vectors"].as_array().unwrap().iter().filter(|vector| vector["fields"]["randomid"] != Value::Null) {
        let (mut transaction, signer) = resigned(vector, &network);
        // Two vectors may share a nonce; on one chain that is a duplicate.
        while nonces.contains(&transaction.nonce) {
            transaction.nonce += U256::from(1_000);
        }
        nonces.push(transaction.nonce);
        let (to, input) = (transaction.to, transaction.data.clone());
        let raw = transaction.sign(&signer);
        let hash = shown(keccak256(raw.encoded()));
        let reply = send(&network, raw.encoded());
        assert_eq!(reply["result"], hash, "{}: {reply}", vector["name"]);
        receipt(&network, text(&hash));
        let receipt = check_proofs(&network, text(&hash));
        assert_eq!(text(&receipt["from"]), text(&vector["sender"]).to_lowercase(), "{}", vector["name"]);
        assert_eq!(receipt["transactionHash"], hash);
        assert_eq!((&receipt["to"], &receipt["input"]), (&shown(to.unwrap()), &shown(input)));
        assert_eq!(receipt["contractAddress"], shown(Address::ZERO));
        assert_eq!(receipt["remainGas"], "0x0");
        println!("{}: status {} gas {} output {}", vector["name"], receipt["status"], receipt["gasUsed"], receipt["output"]);
        checked += 1;
    }
    assert!(checked >= 6, "the vectors were read");
    println!("{checked} transactions");
}

#[test]
fn proofs_of_a_block_with_two_levels_of_siblings_hold() {
    let network = Network::start_with(1, Setup { settings: &[(1, "min_block_generation_time", "1000")], ..Setup::default() });
    let save = hex::decode("00000000").unwrap();
    let sign = |_| transaction(&network, Some(Address::with_last_byte(4)), save.clone().into()).sign(&key("cow")).encoded().clone();
    let replies = send_batch(&network, &(0..40).map(sign).collect::<Vec<_>>());
    let mut levels = 0;
    for reply in &replies {
        let hash = text(&reply["result"]);
        receipt(&network, hash);
        check_proofs(&network, hash);
        let proof = network.result("getTransactionByHashWithProof", &json!([1, hash]).to_string())["txProof"].clone();
        levels = levels.max(proof.as_array().unwrap().len());
    }
    assert_eq!(replies.len(), 40);
    assert!(levels >= 3, "a block of more than 16 transactions was among them");
}
