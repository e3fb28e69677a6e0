//! What a client of the network does: signs transactions for the running chain, sends them over HTTP, waits for their receipts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::{Address, Bytes, KeyPair, Transaction, U256, hex, keccak256};
use serde_json::{Value, json};

use crate::network::{Network, request};

/// How long a receipt may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nonces need only differ.
static NONCE: AtomicU64 = AtomicU64::new(1);

/// The key that is the hash of a word, as in the recordings.
pub fn key(word: &str) -> KeyPair {
    KeyPair::from_secret(&keccak256(word).0).unwrap()
}

/// A transaction for group 1 of a devnet; without `to` a creation.
pub fn transaction(network: &Network, to: Option<Address>, data: Bytes) -> Transaction {
    Transaction {
        nonce: U256::from(NONCE.fetch_add(1, Ordering::Relaxed)),
        gas_price: U256::from(30_000_000),
        gas: U256::from(30_000_000),
        block_limit: U256::from(network.height(1) + 500),
        to,
        data,
        chain_id: U256::from(1),
        group_id: U256::from(1),
        ..Transaction::default()
    }
}

/// Sends a transaction and gives the whole reply.
pub fn send(network: &Network, raw: &[u8]) -> Value {
    network.ask("sendRawTransaction", &json!([1, shown(raw)]).to_string())
}

/// Sends transactions in one HTTP batch and gives the replies.
pub fn send_batch(network: &Network, raws: &[Bytes]) -> Vec<Value> {
    let requests: Vec<String> = raws.iter().map(|raw| request("sendRawTransaction", &json!([1, shown(raw)]).to_string())).collect();
    serde_json::from_str(&network.post(&format!("[{}]", requests.join(",")))).unwrap()
}

/// Waits for the receipt of a transaction.
pub fn receipt(network: &Network, hash: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let receipt = network.result("getTransactionReceipt", &json!([1, hash]).to_string());
        if receipt.is_object() {
            return receipt;
        }
        assert!(Instant::now() < deadline, "no receipt of {hash}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A JSON string's text; empty for what is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Bytes as JSON shows them.
pub fn shown(bytes: impl AsRef<[u8]>) -> Value {
    json!(hex::encode_prefixed(bytes))
}

/// Bytes written in hex, with or without 0x.
pub fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

/// A recorded file of `vectors/`; `None` with a message when this checkout has none.
pub fn vectors(file: &str) -> Option<Value> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../shared/vectors", file].iter().collect();
    let Ok(content) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    Some(serde_json::from_slice(&content).unwrap())
}
