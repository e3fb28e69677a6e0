//! Replays the recordings of a 2.x node through the whole node: the recorded bytes over HTTP, in order, one transaction a block;
//! receipts and replies of `call` are compared. What may differ is told from what may not by `Deliberate`.

use std::fmt;

use millrace_base::{RawTx, Transaction, U256, hex};
use serde_json::{Value, json};

use crate::client::{bytes, key, receipt, send, shown, text, vectors};
use crate::network::{Network, Setup};

/// Why an answer is not the recorded one (`docs/compatibility.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deliberate {
    /// `gasUsed` wraps below zero in 2.x.
    GasBelowZero,
    /// A creation with a value skips its init code in 2.x.
    SkippedInitCode,
    /// A contract made again where one had destroyed itself finds the old storage in 2.x.
    OldStorage,
    /// Handles of Table, Entry and Condition count through the transaction, not through the block.
    Handles,
    /// Time, block hashes and node ids are this chain's.
    Volatile,
    /// The recorded node had just restarted and lost a field that it had stored and shown before.
    LostField,
}

/// The only sealer of the recorded chain.
const RECORDED_SEALER: &str =
    "08855440c9f639ce6bd00651df2d24690c984289665c0736a9368aee69e70712bfe0dfbdd8c7657cdac5ed39c7b43ec9683333ee0be40421650d715f627f125c";

/// Members of a receipt that a replay reproduces; `root` and `blockHash` belong to the chain.
const MEMBERS: [&str; 11] =
    ["blockNumber", "contractAddress", "from", "gasUsed", "logs", "output", "remainGas", "status", "statusMsg", "to", "transactionHash"];

#[derive(Default)]
struct Tally {
    equal: usize,
    equal_roots: usize,
    roots: usize,
    deliberate: Vec<(String, Deliberate)>,
    different: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "equal {}, deliberate {}, different {}", self.equal, self.deliberate.len(), self.different.len())?;
        write!(f, "; state roots equal to the recorded ones: {} of {}", self.equal_roots, self.roots)
    }
}

fn bloom(receipt: &Value) -> String {
    match text(&receipt["logsBloom"]) {
        "ZERO_BLOOM" => format!("0x{}", "0".repeat(512)),
        bloom => bloom.to_owned(),
    }
}

/// The members in which two receipts differ, with both values.
fn differences(ours: &Value, theirs: &Value, members: &[&str]) -> Vec<String> {
    let differing = members.iter().filter(|name| ours[**name] != theirs[**name]);
    let mut found: Vec<String> = differing.map(|name| format!("{name}: ours {} theirs {}", ours[*name], theirs[*name])).collect();
    if bloom(ours) != bloom(theirs) {
        found.push("logsBloom".into());
    }
    found
}

impl Tally {
    fn receipt(&mut self, step: &Value, ours: &Value, members: &[&str]) {
        let (name, theirs) = (text(&step["name"]).to_owned(), &step["receipt"]);
        self.roots += 1;
        self.equal_roots += usize::from(ours["root"] == theirs["root"]);
        let found = differences(ours, theirs, members);
        if found.is_empty() {
            self.equal += 1;
            return;
        }
        let raw = RawTx::decode(&bytes(&step["rawTx"])).unwrap();
        let gas_alone = found.len() == 1 && found[0].starts_with("gasUsed");
        let wraps = text(&theirs["gasUsed"]).parse::<U256>().unwrap() > U256::from(u64::MAX);
        let reason = match name.as_str() {
            _ if wraps && gas_alone => Some(Deliberate::GasBelowZero),
            _ if raw.fields().to.is_none() && !raw.fields().value.is_zero() => Some(Deliberate::SkippedInitCode),
            "fac.make2.resurrect" if gas_alone => Some(Deliberate::OldStorage),
            "objs" | "open again" | "objs2" if found.iter().all(|part| part.starts_with("logs:") || part.starts_with("output:")) => {
                Some(Deliberate::Handles)
            }
            _ if step["volatileExtra"].is_array() || name == "env.blk" => Some(Deliberate::Volatile),
            _ => None,
        };
        match reason {
            Some(reason) => self.deliberate.push((name, reason)),
            None => self.different.push(format!("{name}: {}", found.join("; "))),
        }
    }

    fn call(&mut self, step: &Value, ours: &Value) {
        let name = text(&step["name"]).to_owned();
        let theirs = &step["response"];
        let is_equal = ours["result"] == theirs["result"] && ours["error"] == theirs["error"];
        if is_equal {
            self.equal += 1;
        } else if name == "crud.select.odd.8" {
            self.deliberate.push((name, Deliberate::LostField));
        } else if step["volatileExtra"].is_array() || is_block_hash(&name, ours, theirs) {
            self.deliberate.push((name, Deliberate::Volatile));
        } else {
            self.different.push(format!("call {name}: ours {ours} theirs {theirs}"));
        }
    }

    fn report(&self, file: &str) {
        println!("{file}: {self}");
        println!("deliberate: {:?}", self.deliberate);
        self.different.iter().for_each(|different| println!("different: {different}"));
    }
}

/// Whether both are the hash of a block, which is another on every chain.
fn is_block_hash(name: &str, ours: &Value, theirs: &Value) -> bool {
    let is_hash = |reply: &Value| {
        let output = text(&reply["result"]["output"]);
        output.len() == 66 && output[2..].chars().any(|digit| digit != '0')
    };
    name.starts_with("env.bhAt.") && is_hash(ours) && is_hash(theirs)
}

fn start(arguments: &[&str], interval_ms: &str) -> Network {
    Network::start_with(1, Setup { arguments, settings: &[(1, "min_block_generation_time", interval_ms)], ..Setup::default() })
}

/// The recording with the recorded sealer's id, as text and as hex of that text, replaced by that of the running node. Transactions that
/// hold it are signed again by `cow`, who signed all of them.
fn with_own_sealer(content: &Value, sealer: &str) -> Value {
    let own = content.to_string().replace(RECORDED_SEALER, sealer);
    let mut own: Value = serde_json::from_str(&own.replace(&hex::encode(RECORDED_SEALER), &hex::encode(sealer))).unwrap();
    for (step, recorded) in own["steps"].as_array_mut().unwrap().iter_mut().zip(content["steps"].as_array().unwrap()) {
        if step["rawTx"] == recorded["rawTx"] {
            continue;
        }
        let fields: Transaction = RawTx::decode(&bytes(&step["rawTx"])).unwrap().fields().clone();
        let raw = fields.sign(&key("cow"));
        step["rawTx"] = shown(raw.encoded());
        step["txHash"] = shown(raw.hash());
        step["receipt"]["transactionHash"] = shown(raw.hash());
    }
    own
}

/// Replays a file of one transaction a block; `None` when it is not there.
fn replay(file: &str, arguments: &[&str]) -> Option<Tally> {
    let content = vectors(&format!("reference-node/{file}"))?;
    let network = start(arguments, "0");
    let content = with_own_sealer(&content, text(&network.result("getSealerList", "[1]")[0]));
    let mut tally = Tally::default();
    for step in content["steps"].as_array().unwrap() {
        if step["doNotReplay"] == true || step["nodeCrashed"] == true {
            continue;
        }
        match text(&step["kind"]) {
            "tx" => {
                let reply = send(&network, &bytes(&step["rawTx"]));
                assert_eq!(reply["result"], step["txHash"], "{}: {reply}", step["name"]);
                tally.receipt(step, &receipt(&network, text(&step["txHash"])), &MEMBERS);
            }
            "call" => tally.call(step, &network.ask("call", &json!([1, step["params"]]).to_string())),
            "rpc" => tally.call(step, &network.ask(text(&step["method"]), &step["params"].to_string())),
            _ => {}
        }
    }
    tally.report(file);
    Some(tally)
}

#[test]
fn recorded_transactions_over_http_give_the_recorded_receipts() {
    let Some(tally) = replay("tx_evm.json", &["--evm", "fisco2"]) else { return };
    assert!(tally.different.is_empty(), "{tally}");
    assert!(tally.equal > 900, "{tally}");
}

#[test]
fn recorded_transactions_with_free_storage_over_http_give_the_recorded_receipts() {
    let Some(tally) = replay("tx_evm_freestorage.json", &["--free-storage"]) else { return };
    assert!(tally.different.is_empty(), "{tally}");
    assert!(tally.equal > 800, "{tally}");
}

#[test]
fn recorded_transactions_of_system_contracts_over_http_give_the_recorded_receipts() {
    let Some(tally) = replay("tx_system.json", &["--evm", "fisco2"]) else { return };
    assert!(tally.different.is_empty(), "{tally}");
    assert!(tally.equal > 1030, "{tally}");
}

#[test]
fn recorded_transactions_of_governance_over_http_give_the_recorded_receipts() {
    let Some(tally) = replay("tx_governance.json", &["--evm", "fisco2"]) else { return };
    assert!(tally.different.is_empty(), "{tally}");
    assert!(tally.equal > 250, "{tally}");
}

#[test]
fn recorded_transactions_under_gas_charging_over_http_give_the_recorded_receipts() {
    let Some(tally) = replay("tx_gascharge.json", &["--evm", "fisco2"]) else { return };
    assert!(tally.different.is_empty(), "{tally}");
    assert!(tally.equal > 70, "{tally}");
}

#[test]
fn recorded_blocks_over_http_give_the_recorded_receipts() {
    let Some(content) = vectors("reference-node/tx_blocks.json") else { return };
    let network = start(&["--evm", "fisco2"], "1000");
    let (mut tally, mut in_place) = (Tally::default(), 0);
    for block in content["blocks"].as_array().unwrap() {
        let steps = block["txs"].as_array().unwrap();
        // One after the other: the signatures of a batch are checked in parallel, so its order in the pool is any.
        for step in steps {
            let reply = send(&network, &bytes(&step["rawTx"]));
            assert_eq!(reply["result"], step["txHash"], "{}: {reply}", step["name"]);
        }
        for step in steps {
            let ours = receipt(&network, text(&step["txHash"]));
            let place = |receipt: &Value| (receipt["blockNumber"].clone(), receipt["transactionIndex"].clone());
            in_place += usize::from(place(&ours) == place(&step["receipt"]));
            // Where a batch is cut into blocks depends on time; `blockNumber`, the first member, moves with it.
            tally.receipt(step, &ours, &MEMBERS[1..]);
        }
    }
    tally.report("tx_blocks.json");
    println!("{in_place} transactions at their recorded place of {}", tally.roots);
    assert!(tally.different.is_empty(), "{tally}");
}
