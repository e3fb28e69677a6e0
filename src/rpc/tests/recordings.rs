//! The recordings of the reference node, and the recorded chain rebuilt from them.

use std::sync::Arc;

use millrace_base::{
    Address, B256, Block, BlockHeader, BlockSignature, Bloom, Bytes, LogEntry, NodeId, RawTx, Receipt, Signature, U256, VerifiedTx, hex,
};
use serde_json::Value;

/// A recording, or `None` with a message where the recordings are not installed.
pub fn load(name: &str) -> Option<Value> {
    // Beside the workspace, or beside the folder that holds work trees of it.
    let places = ["../../..", "../../../.."].map(|up| format!("{}/{up}/shared/vectors/reference-node/{name}", env!("CARGO_MANIFEST_DIR")));
    match places.iter().find_map(|path| std::fs::read(path).ok()) {
        Some(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        None => {
            eprintln!("skipped: no recording {name}");
            None
        }
    }
}

/// The chain of the recordings: blocks 0 to 4 of group 1.
pub fn chain(proofs: &Value, exchanges: &[Value]) -> Vec<Arc<Block>> {
    let raws = proofs["context"]["rawTxs"].as_array().unwrap();
    let mut transactions = raws.iter().map(|raw| verified(&bytes(raw)));
    let blocks = proofs["blocks"].as_array().unwrap();
    let build = |(number, recorded): (usize, &Value)| {
        // Of block 4 only the header was recorded; it holds the last transaction.
        let count = recorded["block"]["transactions"].as_array().map_or(1, Vec::len);
        let mut block = block(&recorded["header"]);
        block.transactions = transactions.by_ref().take(count).collect();
        let receipts = match number {
            0 => Vec::new(),
            3 => result_of_batch(proofs),
            1 => vec![result(exchanges, "getTransactionReceipt.deploy")],
            2 => vec![result(exchanges, "getTransactionReceipt.ok")],
            _ => vec![result(exchanges, "getTransactionReceipt.failed")],
        };
        order_transactions(&mut block, &recorded["block"]);
        block.receipts = receipts.iter().map(|recorded| receipt(recorded, block.header.state_root)).collect();
        Arc::new(block)
    };
    blocks.iter().enumerate().map(build).collect()
}

/// Transactions were recorded in the order sent, blocks have their own.
fn order_transactions(block: &mut Block, recorded: &Value) {
    let order: Vec<B256> = list(&recorded["transactions"]).map(|tx| hash(&tx["hash"])).collect();
    block.transactions.sort_by_key(|tx| order.iter().position(|hash| *hash == tx.hash()));
}

fn result_of_batch(proofs: &Value) -> Vec<Value> {
    let batch = proofs["batch"].as_array().unwrap();
    let plain = batch.iter().find(|entry| entry["name"] == "plain").unwrap();
    plain["response"]["result"]["transactionReceipts"].as_array().unwrap().clone()
}

/// The `result` of a recorded exchange.
pub fn result(exchanges: &[Value], name: &str) -> Value {
    let exchange = exchanges.iter().find(|exchange| exchange["name"] == name).unwrap();
    let reply: Value = serde_json::from_str(exchange["responseBody"].as_str().unwrap()).unwrap();
    reply["result"].clone()
}

pub fn verified(raw: &[u8]) -> VerifiedTx {
    RawTx::decode(raw).unwrap().verify().unwrap()
}

/// A block without transactions from a header object.
pub fn block(recorded: &Value) -> Block {
    let number = match &recorded["number"] {
        Value::String(text) => u64::from_str_radix(&text[2..], 16).unwrap(),
        number => number.as_u64().unwrap(),
    };
    let header = BlockHeader {
        parent_hash: hash(&recorded["parentHash"]),
        state_root: hash(&recorded["stateRoot"]),
        transactions_root: hash(&recorded["transactionsRoot"]),
        receipts_root: hash(&recorded["receiptsRoot"]),
        db_hash: hash(&recorded["dbHash"]),
        logs_bloom: Bloom::from_slice(&bytes(&recorded["logsBloom"])),
        number,
        gas_limit: quantity(&recorded["gasLimit"]).to(),
        gas_used: quantity(&recorded["gasUsed"]).to(),
        timestamp_ms: quantity(&recorded["timestamp"]).to(),
        extra_data: list(&recorded["extraData"]).map(|item| bytes(item).into()).collect(),
        sealer: quantity(&recorded["sealer"]).to(),
        sealer_list: list(&recorded["sealerList"]).map(|id| NodeId::parse(id.as_str().unwrap()).unwrap()).collect(),
    };
    let signature = |recorded: &Value| BlockSignature {
        index: quantity(&recorded["index"]).to(),
        signature: Signature(bytes(&recorded["signature"]).try_into().unwrap()),
    };
    let signatures = list(&recorded["signatureList"]).map(signature).collect();
    let hash = hash(&recorded["hash"]);
    assert_eq!(header.hash(), hash, "the header of block {number} is rebuilt exactly");
    Block { header, hash, signatures, transactions: Vec::new(), receipts: Vec::new() }
}

fn receipt(recorded: &Value, state_root: B256) -> Receipt {
    let log = |log: &Value| LogEntry {
        address: Address::from_slice(&bytes(&log["address"])),
        topics: list(&log["topics"]).map(hash).collect(),
        data: bytes(&log["data"]).into(),
    };
    let logs: Vec<_> = list(&recorded["logs"]).map(log).collect();
    Receipt {
        state_root,
        gas_used: quantity(&recorded["gasUsed"]),
        contract_address: Address::from_slice(&bytes(&recorded["contractAddress"])),
        logs_bloom: Receipt::bloom_of(&logs),
        status: quantity(&recorded["status"]).to(),
        output: Bytes::from(bytes(&recorded["output"])),
        remain_gas: U256::ZERO,
        logs,
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

pub fn hash(value: &Value) -> B256 {
    B256::from_slice(&bytes(value))
}

fn quantity(value: &Value) -> U256 {
    U256::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}
