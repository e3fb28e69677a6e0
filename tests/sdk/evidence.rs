//! The checks of a client that trusts nothing but a block's hash: header, transaction and receipt proofs recomputed from the node's JSON.
//!
//! Written from `spec/client-protocol.md` 1, 2 and 6 alone: RLP, bloom and Merkle steps share nothing with the node's own code but Keccak.

use millrace_base::{B256, hex, keccak256};
use serde_json::Value;

/// RLP of a string.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [byte] if *byte < 0x80 => vec![*byte],
        _ => [prefix(0x80, bytes.len()), bytes.to_vec()].concat(),
    }
}

/// RLP of a list of encoded items.
pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    [prefix(0xc0, payload.len()), payload].concat()
}

/// RLP of a number given big-endian.
pub fn number(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    string(&bytes[zeros..])
}

fn prefix(kind: u8, length: usize) -> Vec<u8> {
    if length < 56 {
        return vec![kind + u8::try_from(length).unwrap()];
    }
    let bytes = length.to_be_bytes();
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    [&[kind + 55 + u8::try_from(digits.len()).unwrap()], digits].concat()
}

/// Bytes of a member that is text of hexadecimal digits.
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text"));
    let digits = text.trim_start_matches("0x");
    hex::decode(if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() }).unwrap()
}

fn each(value: &Value, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    list(&value.as_array().unwrap().iter().map(encode).collect::<Vec<_>>())
}

/// Hash of a block, from its JSON.
pub fn block_hash(block: &Value) -> B256 {
    let text = |name: &str| string(&bytes(&block[name]));
    let digits = |name: &str| number(&bytes(&block[name]));
    let roots = ["parentHash", "stateRoot", "transactionsRoot", "receiptsRoot", "dbHash", "logsBloom"].map(text);
    let numbers = ["number", "gasLimit", "gasUsed", "timestamp"].map(digits);
    let texts = |name: &str| each(&block[name], |item| string(&bytes(item)));
    let rest = [texts("extraData"), digits("sealer"), texts("sealerList")];
    keccak256(list(&[&roots[..], &numbers, &rest].concat()))
}

/// Hash of a transaction, from its JSON.
pub fn transaction_hash(transaction: &Value) -> B256 {
    let digits = |name: &str| number(&bytes(&transaction[name]));
    let text = |name: &str| string(&bytes(&transaction[name]));
    let signature = bytes(&transaction["signature"]["signature"]);
    let items = [
        digits("nonce"),
        digits("gasPrice"),
        digits("gas"),
        digits("blockLimit"),
        // Creations show forty zeros.
        if bytes(&transaction["to"]) == [0; 20] { string(&[]) } else { text("to") },
        digits("value"),
        text("input"),
        digits("chainId"),
        digits("groupId"),
        text("extraData"),
        number(&[signature[64] + 27]),
        number(&signature[..32]),
        number(&signature[32..64]),
    ];
    keccak256(list(&items))
}

/// Hash of a receipt, from its JSON; its bloom is checked against its logs.
pub fn receipt_hash(receipt: &Value) -> B256 {
    let logs = receipt["logs"].as_array().unwrap();
    let mut bloom = [0_u8; 256];
    for log in logs {
        accrue(&mut bloom, &log["address"]);
        log["topics"].as_array().unwrap().iter().for_each(|topic| accrue(&mut bloom, topic));
    }
    assert_eq!(bytes(&receipt["logsBloom"]), bloom, "the bloom of {receipt}");
    let text = |value: &Value| string(&bytes(value));
    let items = [
        text(&receipt["root"]),
        number(&bytes(&receipt["gasUsed"])),
        text(&receipt["contractAddress"]),
        string(&bloom),
        number(&bytes(&receipt["status"])),
        text(&receipt["output"]),
        number(&bytes(&receipt["remainGas"])),
        each(&receipt["logs"], |log| list(&[text(&log["address"]), each(&log["topics"], text), text(&log["data"])])),
    ];
    keccak256(list(&items))
}

fn accrue(bloom: &mut [u8; 256], value: &Value) {
    let hash = keccak256(bytes(value));
    for pair in hash.chunks(2).take(3) {
        let bit = usize::from(u16::from_be_bytes([pair[0], pair[1]])) % 2048;
        bloom[255 - bit / 8] |= 1 << (bit % 8);
    }
}

/// The root to which a proof leads from the leaf of `hash` at `index`, with the number of siblings that were on the way.
pub fn proven_root(index: &Value, hash: B256, proof: &Value) -> (B256, usize) {
    let mut current = [number(&bytes(index)), hash.to_vec()].concat();
    let mut siblings = 0;
    for step in proof.as_array().unwrap() {
        let side = |name: &str| step[name].as_array().unwrap().iter().map(bytes).collect::<Vec<_>>();
        let (left, right) = (side("left"), side("right"));
        siblings += left.len() + right.len();
        current = keccak256([left.concat(), current, right.concat()].concat()).to_vec();
    }
    (B256::try_from(&current[..]).expect("a proof has at least one step"), siblings)
}
