//! Replays the recordings of a 2.x node: each transaction in a block of its own, calls where they were made.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use millrace_base::{Address, B256, Bytes, Receipt, U256, VerifiedTx, hex};
use millrace_core::{StateKey, StateReader, StateValue, StorageError};
use serde_json::Value;

use super::{CallMessage, Executor};
use crate::environment::{BlockEnvironment, BlockHashes};
use crate::precompiled;
use crate::schedule::EvmRules;

#[derive(Default)]
struct Memory(HashMap<StateKey, StateValue>);

impl StateReader for Memory {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.0.get(key).cloned())
    }
}

#[derive(Default)]
struct Hashes(Vec<B256>);

impl BlockHashes for Hashes {
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        Ok(self.0.get(usize::try_from(number).unwrap()).copied())
    }
}

/// Why a recorded result is not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deliberate {
    /// Refunds exceed the use and `gasUsed` wraps below zero: half the use is refunded instead. Correction 1.
    GasBelowZero,
    /// A creation with a value skips its init code: it runs. Correction 3.
    SkippedInitCode,
    /// A contract made again where one had destroyed itself finds the old storage, and pays less to write it: here it starts empty.
    /// Code that was proven to start from nothing must not find what a predecessor left.
    OldStorage,
}

struct Replay {
    executor: Executor,
    state: Memory,
    hashes: Hashes,
    environment: BlockEnvironment,
    equal: usize,
    deliberate: Vec<(String, Deliberate)>,
    skipped: Vec<String>,
    different: Vec<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> U256 {
    text(value).parse().unwrap()
}

fn bytes(value: &Value) -> Bytes {
    hex::decode(text(value)).unwrap().into()
}

fn address(value: &Value) -> Address {
    text(value).parse().unwrap()
}

/// The parts of a receipt that are compared, as text.
fn shown(receipt: &Receipt) -> String {
    let mut shown =
        format!("status {} gas {} contract {:x} output {}", receipt.status, receipt.gas_used, receipt.contract_address, receipt.output);
    for log in &receipt.logs {
        write!(shown, " log {:x} {:?} {}", log.address, log.topics, log.data).unwrap();
    }
    shown
}

fn recorded(receipt: &Value) -> Receipt {
    let bloom = match text(&receipt["logsBloom"]) {
        "ZERO_BLOOM" => Default::default(),
        bloom => bloom.parse().unwrap(),
    };
    let logs = receipt["logs"].as_array().unwrap().iter().map(|log| millrace_base::LogEntry {
        address: address(&log["address"]),
        topics: log["topics"].as_array().unwrap().iter().map(|topic| text(topic).parse().unwrap()).collect(),
        data: bytes(&log["data"]),
    });
    Receipt {
        gas_used: number(&receipt["gasUsed"]),
        contract_address: address(&receipt["contractAddress"]),
        logs_bloom: bloom,
        status: number(&receipt["status"]).to(),
        output: bytes(&receipt["output"]),
        logs: logs.collect(),
        ..Receipt::default()
    }
}

impl Replay {
    fn new(rules: EvmRules) -> Self {
        Self {
            executor: Executor::new(rules),
            state: Memory::default(),
            hashes: Hashes(vec![B256::ZERO]),
            environment: BlockEnvironment { number: 0, timestamp_ms: 1_700_000_000_000, tx_gas_limit: 300_000_000 },
            equal: 0,
            deliberate: Vec::new(),
            skipped: Vec::new(),
            different: Vec::new(),
        }
    }

    fn transact(&mut self, step: &Value) {
        let name = text(&step["name"]).to_owned();
        self.environment.number += 1;
        self.environment.timestamp_ms += 1_000;
        if name == "env.blk" {
            self.environment.timestamp_ms = second_word(&bytes(&step["receipt"]["output"]));
        }
        let raw = millrace_base::RawTx::decode(&bytes(&step["rawTx"])).unwrap();
        let transaction: VerifiedTx = raw.verify().unwrap();
        let done = self.executor.transact(&self.state, &self.hashes, &self.environment, &transaction).unwrap();
        self.hashes.0.push(text(&step["receipt"]["blockHash"]).parse().unwrap());
        for pair in done.writes.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{name}: writes are sorted");
        }
        for (key, value) in done.writes {
            assert_ne!(self.state.0.get(&key), value.as_ref(), "{name}: only changes are written");
            match value {
                Some(value) => self.state.0.insert(key, value),
                None => self.state.0.remove(&key),
            };
        }
        let (ours, theirs) = (done.receipt, recorded(&step["receipt"]));
        if ours == theirs {
            self.equal += 1;
            return;
        }
        let wraps = theirs.gas_used > U256::from(u64::MAX);
        let skips_init_code = transaction.fields().to.is_none() && !transaction.fields().value.is_zero();
        if wraps && (Receipt { gas_used: theirs.gas_used, ..ours.clone() }) == theirs {
            self.deliberate.push((name, Deliberate::GasBelowZero));
        } else if skips_init_code {
            self.deliberate.push((name, Deliberate::SkippedInitCode));
        } else if name == "fac.make2.resurrect" && (Receipt { gas_used: theirs.gas_used, ..ours.clone() }) == theirs {
            self.deliberate.push((name, Deliberate::OldStorage));
        } else if self.needs_system_contracts(&name) {
            self.skipped.push(name);
        } else {
            self.different.push(format!("{name}\n  ours   {}\n  theirs {}", shown(&ours), shown(&theirs)));
        }
    }

    fn call(&mut self, step: &Value) {
        let name = text(&step["name"]).to_owned();
        let params = &step["params"];
        let call = CallMessage {
            from: address(&params["from"]),
            // Without a callee, 2.x nodes call the zero address.
            to: text(&params["to"]).parse().unwrap_or_default(),
            data: bytes(&params["data"]),
            value: number(&params["value"]),
        };
        if name == "env.blk" {
            self.environment.timestamp_ms = second_word(&bytes(&step["response"]["result"]["output"]));
        }
        let result = self.executor.call(&self.state, &self.hashes, &self.environment, &call).unwrap();
        let recorded = &step["response"]["result"];
        let (status, output) = (number(&recorded["status"]), bytes(&recorded["output"]));
        if U256::from(result.status) == status && result.output == output {
            self.equal += 1;
        } else if self.needs_system_contracts(&name) {
            self.skipped.push(name);
        } else {
            let ours = format!("status {} output {}", result.status, result.output);
            self.different.push(format!("call {name}\n  ours   {ours}\n  theirs status {status} output {output}"));
        }
    }

    /// Steps that call or look at a system contract that is not registered.
    fn needs_system_contracts(&self, name: &str) -> bool {
        let system = |low: u64| Address::from_word(B256::from(U256::from(low)));
        if let Some(looked_at) = name.strip_prefix("ext.0x") {
            let looked_at: Address = looked_at.parse().unwrap();
            return looked_at < system(0x1_0000) && looked_at > system(0xfff) && !precompiled::has_pseudo_code(looked_at, 0);
        }
        let is_there = precompiled::has_pseudo_code(system(0x1000), 0) && precompiled::has_pseudo_code(system(0x1001), 0);
        !is_there && (name.contains("precompiled") || name == "ext.tx.1000")
    }

    fn run(&mut self, file: &str) {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../../shared/vectors/reference-node", file].iter().collect();
        let Ok(content) = std::fs::read(&path) else {
            eprintln!("{} is not there: nothing is replayed", path.display());
            return;
        };
        let content: Value = serde_json::from_slice(&content).unwrap();
        let steps = content["steps"].as_array().unwrap();
        if let Some(genesis) = steps.iter().find(|step| step["name"] == "env.bhAt.0") {
            self.hashes.0[0] = text(&genesis["response"]["result"]["output"]).parse().unwrap();
        }
        for step in steps {
            match text(&step["kind"]) {
                "tx" => self.transact(step),
                "call" => self.call(step),
                _ => {}
            }
        }
        println!(
            "{file}: equal {}, deliberate {}, without system contracts {}, different {}",
            self.equal,
            self.deliberate.len(),
            self.skipped.len(),
            self.different.len()
        );
        println!("deliberate: {:?}", self.deliberate);
        println!("skipped: {:?}", self.skipped);
        for different in &self.different {
            println!("{different}");
        }
        assert!(self.different.is_empty(), "{} steps of {file} differ", self.different.len());
        assert!(self.equal > 500, "the recording was replayed");
    }
}

fn second_word(output: &[u8]) -> u64 {
    U256::from_be_slice(&output[32..64]).to()
}

#[test]
fn recorded_transactions_give_the_recorded_receipts() {
    Replay::new(EvmRules::Fisco2 { free_storage: false }).run("tx_evm.json");
}

#[test]
fn recorded_transactions_with_free_storage_give_the_recorded_receipts() {
    Replay::new(EvmRules::Fisco2 { free_storage: true }).run("tx_evm_freestorage.json");
}
