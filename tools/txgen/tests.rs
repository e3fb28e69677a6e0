//! Whole runs against a small node in this process: it answers over HTTP, makes a block each time it is asked for the height, and keeps
//! the balances of DagTransfer. It can misbehave in the ways that txgen is there to find.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clap::Parser;
use millrace_base::abi::{Decoder, Encoder, int256};
use millrace_base::status::TransactionStatus;
use millrace_base::{Address, B256, RawTx, U256, hex};
use serde_json::{Value, json};

use crate::options::Options;
use crate::plan;
use crate::report::Report;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// Every 50th acknowledged load transaction is dropped.
    Loses,
    /// One load transaction is in two blocks.
    CommitsTwice,
    /// One transfer takes without giving.
    LosesMoney,
    /// The 40th transfer fails in its block.
    Fails,
    /// Refuses what exceeds 30 pending transactions.
    IsOftenFull,
    /// Answers batches from the last to the first.
    AnswersBackwards,
    /// Always full.
    IsAlwaysFull,
    /// Of several nodes the first ends after its 100th transfer, with what it had not committed.
    Dies,
    /// The same, and the others forget what they had not committed, as if started again between two requests.
    DiesAmongForgetful,
    /// Of several nodes the second has another state.
    Forks,
    /// Of several nodes the first does not show the last block.
    Lags,
}

/// A chain; several nodes may show it.
struct Node {
    fault: Fault,
    /// Each with the node that took it.
    pending: Vec<(usize, RawTx)>,
    blocks: Vec<Vec<Value>>,
    balances: HashMap<String, U256>,
    transfers: u64,
}

fn start(fault: Fault) -> String {
    start_nodes(fault, 1)
}

/// Addresses of nodes that share one chain, separated by commas.
fn start_nodes(fault: Fault, count: usize) -> String {
    let node = Node { fault, pending: Vec::new(), blocks: vec![Vec::new()], balances: HashMap::new(), transfers: 0 };
    let node = Arc::new(Mutex::new(node));
    let urls = (0..count).map(|index| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (url, node, is_dead) = (listener.local_addr().unwrap(), Arc::clone(&node), Arc::new(AtomicBool::new(false)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_dead.load(Ordering::Acquire) {
                    return;
                }
                let (node, is_dead) = (Arc::clone(&node), Arc::clone(&is_dead));
                std::thread::spawn(move || {
                    serve(stream.unwrap(), index, &node, &is_dead);
                    if is_dead.load(Ordering::Acquire) {
                        // The listener waits for one more to see it.
                        let _ = TcpStream::connect(url);
                    }
                });
            }
        });
        format!("http://{url}")
    });
    urls.collect::<Vec<_>>().join(",")
}

fn serve(stream: TcpStream, index: usize, node: &Mutex<Node>, is_dead: &AtomicBool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = {
            let mut node = node.lock().unwrap();
            let answer = node.answer(index, &serde_json::from_slice(&body).unwrap()).to_string();
            let dies = matches!(node.fault, Fault::Dies | Fault::DiesAmongForgetful);
            if dies && index == 0 && node.transfers + node.pending.len() as u64 > 100 {
                is_dead.store(true, Ordering::Release);
                let forgets_all = node.fault == Fault::DiesAmongForgetful;
                node.pending.retain(|(owner, _)| *owner != 0 && !forgets_all);
            }
            answer
        };
        if is_dead.load(Ordering::Acquire) {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        if stream.write_all(format!("{head}{answer}").as_bytes()).is_err() {
            return;
        }
    }
}

fn error(code: i64, message: &str) -> Result<Value, Value> {
    Err(json!({ "code": code, "data": null, "message": message }))
}

impl Node {
    fn answer(&mut self, index: usize, request: &Value) -> Value {
        if let Some(batch) = request.as_array() {
            let mut answers: Vec<Value> = batch.iter().map(|one| self.answer(index, one)).collect();
            if self.fault == Fault::AnswersBackwards {
                answers.reverse();
            }
            return Value::Array(answers);
        }
        let id = &request["id"];
        match self.method(index, request["method"].as_str().unwrap(), &request["params"]) {
            Ok(result) => json!({ "id": id, "jsonrpc": "2.0", "result": result }),
            Err(error) => json!({ "error": error, "id": id, "jsonrpc": "2.0" }),
        }
    }

    fn method(&mut self, index: usize, method: &str, params: &Value) -> Result<Value, Value> {
        if params[0].as_u64().is_some_and(|group| group != 1) {
            return error(-40001, "GroupID does not exist");
        }
        match method {
            "getClientVersion" => Ok(json!({ "Chain Id": "1" })),
            "getBlockNumber" => {
                self.seal();
                let is_late = self.fault == Fault::Lags && index == 0 && self.blocks.len() > 2;
                Ok(json!(format!("{:#x}", self.blocks.len() - 1 - usize::from(is_late))))
            }
            "getBlockHeaderByNumber" => {
                let number = params[1].as_str().unwrap().parse::<usize>().unwrap();
                let hash = format!("{:#x}", self.blocks[number].len() + 1_000 * number);
                let state = if self.fault == Fault::Forks && index == 1 && number >= 2 { "0x2" } else { "0x1" };
                Ok(json!({ "hash": hash, "stateRoot": state, "receiptsRoot": hash, "transactionsRoot": hash }))
            }
            "sendRawTransaction" => self.submit(index, params[1].as_str().unwrap()),
            "getBatchReceiptsByBlockNumberAndRange" => self.receipts(params),
            "getTransactionReceipt" => {
                let found = self.blocks.iter().flatten().find(|receipt| receipt["transactionHash"] == params[1]);
                Ok(found.cloned().unwrap_or_default())
            }
            "getPendingTxSize" => Ok(json!(format!("{:#x}", self.pending.len()))),
            "call" => {
                let data = hex::decode(params[1]["data"].as_str().unwrap()).unwrap();
                let name = Decoder::new(&data[4..]).string().unwrap();
                let (code, balance) = self.balances.get(name).map_or((-51402, U256::ZERO), |balance| (0, *balance));
                let output = Encoder::new().int(code).uint(balance).finish();
                Ok(json!({ "currentBlockNumber": "0x1", "output": output.to_string(), "status": "0x0" }))
            }
            _ => error(-32601, "METHOD_NOT_FOUND"),
        }
    }

    fn submit(&mut self, index: usize, raw: &str) -> Result<Value, Value> {
        let is_full = self.fault == Fault::IsAlwaysFull || (self.fault == Fault::IsOftenFull && self.pending.len() >= 30);
        if is_full {
            return error(-32603, "wrapexcept<TransactionRefused> = TransactionPoolIsFull, txHash=1");
        }
        let raw = RawTx::decode(&hex::decode(raw).unwrap()).unwrap();
        let (limit, head) = (raw.fields().block_limit, U256::from(self.blocks.len() - 1));
        assert!(limit > head && limit <= head + U256::from(1_000));
        let hash = raw.hash();
        if self.pending.iter().any(|(_, pending)| pending.hash() == hash) {
            return error(-32603, TransactionStatus::AlreadyKnown.refusal_word());
        }
        if self.blocks.iter().flatten().any(|receipt| receipt["transactionHash"] == hash.to_string()) {
            return error(-32603, TransactionStatus::AlreadyInChain.refusal_word());
        }
        self.pending.push((index, raw));
        Ok(json!(hash.to_string()))
    }

    fn receipts(&self, params: &Value) -> Result<Value, Value> {
        let number = |index: usize| params[index].as_str().unwrap().parse::<usize>().unwrap();
        let (block, from, count) = (&self.blocks[number(1)], number(2), number(3));
        if from >= block.len() {
            return error(-40099, "Invalid receipt range");
        }
        let info = json!({ "blockNumber": format!("{:#x}", number(1)), "receiptsCount": format!("{:#x}", block.len()) });
        Ok(json!({ "blockInfo": info, "transactionReceipts": &block[from..block.len().min(from + count)] }))
    }

    fn seal(&mut self) {
        let number = self.blocks.len();
        let mut block = Vec::new();
        for (_, raw) in std::mem::take(&mut self.pending) {
            let is_transfer = raw.fields().data[0] == 0x0b;
            self.transfers += u64::from(is_transfer);
            if is_transfer && self.fault == Fault::Loses && self.transfers.is_multiple_of(50) {
                continue;
            }
            let has_failed = is_transfer && self.fault == Fault::Fails && self.transfers == 40;
            let (status, code) = if has_failed { ("0x16", 0) } else { ("0x0", self.execute(&raw.fields().data)) };
            let receipt = json!({ "transactionHash": raw.hash().to_string(), "status": status, "blockNumber": format!("{number:#x}"),
                "output": B256::from(int256(code)).to_string(), "contractAddress": Address::ZERO.to_string(), "logs": [] });
            if is_transfer && self.fault == Fault::CommitsTwice && self.transfers == 20 {
                block.push(receipt.clone());
            }
            block.push(receipt);
        }
        if !block.is_empty() {
            self.blocks.push(block);
        }
    }

    fn execute(&mut self, data: &[u8]) -> i64 {
        let mut arguments = Decoder::new(&data[4..]);
        let first = arguments.string().unwrap().to_string();
        if data[0] == 0x3f {
            self.balances.insert(first, arguments.uint().unwrap());
            return 0;
        }
        let (second, amount) = (arguments.string().unwrap().to_string(), arguments.uint().unwrap());
        let Some(balance) = self.balances.get_mut(&first) else { return -51402 };
        *balance -= amount;
        if self.fault != Fault::LosesMoney || self.transfers != 30 {
            *self.balances.entry(second).or_default() += amount;
        }
        0
    }
}

fn options(url: &str, more: &str) -> Options {
    let line = format!("txgen --rpc {url} --workload transfer --count 300 --accounts 10 --batch 20 --connections 3 --timeout 1 {more}");
    Options::parse_from(line.split_whitespace())
}

fn run(fault: Fault, more: &str) -> (Report, Value) {
    let options = options(&start(fault), more);
    let report = plan::run(&options).unwrap().unwrap();
    let json = report.to_json(&options);
    (report, json)
}

fn run_nodes(fault: Fault, count: usize, more: &str) -> (Report, Value) {
    let options = options(&start_nodes(fault, count), more);
    let report = plan::run(&options).unwrap().unwrap();
    let json = report.to_json(&options);
    (report, json)
}

fn findings(json: &Value) -> String {
    json["checks"]["findings"].to_string()
}

#[test]
fn a_good_node_passes_in_a_closed_loop() {
    let (report, json) = run(Fault::None, "--warmup 40 --in-flight 60 --conflict 0.2 --distribution zipfian");
    assert!(report.is_good(), "{}", report.to_text());
    assert_eq!((json["committed"].as_u64(), json["acknowledged"].as_u64()), (Some(300), Some(300)));
    assert_eq!(json["per_group"]["1"]["committed"], 300);
    assert_eq!(json["checks"]["accounts"], 10);
    assert!(json["tps"].as_f64().unwrap() > 0.0 && json["p99_9_ms"].as_f64() >= json["p50_ms"].as_f64());
}

#[test]
fn a_good_node_passes_in_an_open_loop_without_batches() {
    let (report, json) = run(Fault::None, "--rate 1000 --batch 1");
    assert!(report.is_good(), "{}", report.to_text());
    let seconds = json["seconds"].as_f64().unwrap();
    assert!(seconds >= 0.29, "300 transactions at 1000 a second took {seconds} s");
}

#[test]
fn load_is_spread_over_nodes_which_are_compared() {
    for spread in ["sticky", "round-robin"] {
        let (report, json) = run_nodes(Fault::None, 3, &format!("--spread {spread}"));
        assert!(report.is_good(), "{}", report.to_text());
        let nodes = json["nodes"].as_array().unwrap();
        let submitted: Vec<u64> = nodes.iter().map(|node| node["submitted"].as_u64().unwrap()).collect();
        assert!(submitted.iter().sum::<u64>() == 300 && submitted.iter().all(|count| *count > 0), "{spread}: {submitted:?}");
        assert!(json["checks"]["heights_compared"].as_u64().unwrap() > 0);
        assert!(nodes.iter().all(|node| node["heights"]["1"] == nodes[0]["heights"]["1"] && node["heights"]["1"].is_u64()));
    }
}

#[test]
fn what_a_dying_node_had_is_taken_over_by_another_and_the_node_is_named() {
    for more in ["--in-flight 60", "--rate 2000", "--spread round-robin --batch 1"] {
        let (report, json) = run_nodes(Fault::Dies, 2, more);
        assert_eq!((json["committed"].as_u64(), json["checks"]["receipts"].as_str()), (Some(300), Some("ok")), "{more}: {json:#}");
        assert!(json["nodes"][0]["outages"][0]["why"].is_string(), "{more}: {json:#}");
        assert!(json["nodes"][1]["outages"].as_array().unwrap().is_empty());
        assert!(json["resent"].as_u64().unwrap() > 0 && json["submitted"] == 300, "{more}: {json:#}");
        // It is not there at the end, so it cannot be compared.
        assert!(!report.is_good() && findings(&json).contains("does not answer"), "{more}: {json:#}");
    }
}

#[test]
fn what_nodes_forgot_without_a_sign_is_sent_again_when_another_was_seen_to_fail() {
    let (_, json) = run_nodes(Fault::DiesAmongForgetful, 2, "--in-flight 60 --timeout 6");
    assert_eq!((json["committed"].as_u64(), json["checks"]["receipts"].as_str()), (Some(300), Some("ok")), "{json:#}");
}

#[test]
fn a_fork_is_found() {
    let (report, json) = run_nodes(Fault::Forks, 3, "");
    assert!(!report.is_good() && findings(&json).contains("FORK"), "{json:#}");
}

#[test]
fn a_node_that_stays_behind_is_found() {
    let (report, json) = run_nodes(Fault::Lags, 2, "");
    assert!(!report.is_good() && findings(&json).contains("others are at"), "{json:#}");
}

#[test]
fn a_run_can_end_after_a_time() {
    let (report, json) = run(Fault::None, "--count 100000 --rate 500 --duration 1 --batch 10");
    assert!(report.is_good(), "{}", report.to_text());
    assert!((300..700).contains(&json["committed"].as_u64().unwrap()), "{json:#}");
    assert!(json["longest_gap_ms"].as_f64().unwrap() > 0.0 && json["started_unix_ms"].is_u64());
}

#[test]
fn lost_transactions_are_found() {
    let (report, json) = run(Fault::Loses, "");
    assert!(!report.is_good());
    assert!(findings(&json).contains("6 acknowledged transactions are in no block"), "{json:#}");
    assert_eq!(json["checks"]["balances"], "ok");
}

#[test]
fn a_transaction_in_a_block_twice_is_found() {
    let (report, json) = run(Fault::CommitsTwice, "");
    assert!(!report.is_good() && findings(&json).contains("has 2 receipts"), "{json:#}");
}

#[test]
fn a_transaction_that_fails_in_its_block_is_found() {
    let (report, json) = run(Fault::Fails, "");
    assert!(!report.is_good() && findings(&json).contains("1 times receipt status 22"), "{json:#}");
    assert_eq!((json["failed"].as_u64(), json["statuses"]["22"].as_u64()), (Some(1), Some(1)));
    assert_eq!(json["checks"]["balances"], "ok");
}

#[test]
fn balances_that_do_not_conserve_are_found() {
    let (report, json) = run(Fault::LosesMoney, "");
    assert!(!report.is_good() && findings(&json).contains("balances sum up to 9999999999"), "{json:#}");
    assert_eq!(json["checks"]["receipts"], "ok");
}

#[test]
fn a_full_pool_is_waited_for_and_counted() {
    let (report, json) = run(Fault::IsOftenFull, "");
    assert!(report.is_good(), "{}", report.to_text());
    assert!(json["errors"]["28 TransactionPoolIsFull"].as_u64().unwrap() > 0);
    assert_eq!((json["committed"].as_u64(), json["refused"].as_u64()), (Some(300), Some(0)));
}

#[test]
fn a_node_that_stays_full_ends_the_run() {
    let fault = plan::run(&options(&start(Fault::IsAlwaysFull), "")).map(|_| ()).unwrap_err();
    assert!(fault.to_string().contains("accepted nothing"), "{fault}");
}

#[test]
fn answers_are_matched_by_id_whatever_their_order() {
    let (report, json) = run(Fault::AnswersBackwards, "");
    assert!(report.is_good() && json["committed"] == 300, "{}", report.to_text());
}

#[test]
fn presigned_transactions_are_sent_from_their_file() {
    let url = start(Fault::None);
    let path = std::env::temp_dir().join(format!("txgen-presign-{}", std::process::id()));
    let path = path.to_str().unwrap();
    assert!(plan::run(&options(&url, &format!("--presign {path}"))).unwrap().is_none());
    let report = plan::run(&options(&url, &format!("--from-file {path}"))).unwrap().unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(report.is_good(), "{}", report.to_text());
}

#[test]
fn a_group_that_the_node_does_not_run_is_said_so() {
    let fault = plan::run(&options(&start(Fault::None), "--group 7")).map(|_| ()).unwrap_err();
    assert!(fault.to_string().contains("GroupID does not exist"), "{fault}");
}

#[test]
fn a_node_that_is_not_there_is_said_so() {
    let fault = plan::run(&options("http://127.0.0.1:1", "")).map(|_| ()).unwrap_err();
    assert!(fault.to_string().contains("cannot connect"), "{fault}");
}
