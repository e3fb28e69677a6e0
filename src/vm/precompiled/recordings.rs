//! The recordings of a 2.x node (`../shared/vectors/reference-node`) against the contracts alone: steps whose target is one of them.

use std::path::Path;

use millrace_base::{Address, Bytes, RawTx, hex};
use serde_json::Value;

use super::harness::{Answer, Chain};
use super::{CONTRACTS, number_of};

/// The recording node's id; it is the sealer of the replayed chain, so that the steps that name it fit.
const SEALER: &str =
    "08855440c9f639ce6bd00651df2d24690c984289665c0736a9368aee69e70712bfe0dfbdd8c7657cdac5ed39c7b43ec9683333ee0be40421650d715f627f125c";

/// Steps that may differ, and why.
const DELIBERATE: &[(&str, &str)] = &[];

#[derive(Default)]
struct Tally {
    equal: usize,
    deliberate: usize,
    not_covered: usize,
    different: Vec<String>,
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn bytes(value: &Value, key: &str) -> Bytes {
    hex::decode(text(value, key)).unwrap().into()
}

fn quantity(value: &Value, key: &str) -> u64 {
    u64::from_str_radix(text(value, key).trim_start_matches("0x"), 16).unwrap()
}

fn base_cost(data: &[u8]) -> u64 {
    21_000 + data.iter().map(|byte| if *byte == 0 { 4 } else { 68 }).sum::<u64>()
}

fn replay(file: &str) -> Option<Tally> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/reference-node")).join(file);
    let Ok(content) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    let recording: Value = serde_json::from_slice(&content).unwrap();
    let mut chain = Chain::new(SEALER);
    let mut tally = Tally::default();
    for step in recording["steps"].as_array().unwrap() {
        let name = text(step, "name");
        let (expected, found, what) = match text(step, "kind") {
            "tx" => {
                let receipt = &step["receipt"];
                let Some(to) = target(step) else {
                    chain.height += 1;
                    tally.not_covered += 1;
                    continue;
                };
                let raw = RawTx::decode(&bytes(step, "rawTx")).unwrap();
                let data = raw.fields().data.clone();
                let sender = text(step, "sender").parse().unwrap();
                let mut found = chain.transact(sender, to, &data);
                found.gas_used += base_cost(&data);
                assert_eq!(chain.height, quantity(receipt, "blockNumber"), "{name}");
                let expected = Answer {
                    status: quantity(receipt, "status") as u32,
                    output: bytes(receipt, "output"),
                    gas_used: quantity(receipt, "gasUsed"),
                };
                (expected, found, format!("tx {name}"))
            }
            "call" if step.get("doNotReplay").is_none() => {
                let Some(to) = target(&step["params"]) else {
                    tally.not_covered += 1;
                    continue;
                };
                let result = &step["response"]["result"];
                let from = text(&step["params"], "from").parse().unwrap();
                let found = chain.call(from, to, &bytes(&step["params"], "data"));
                let expected =
                    Answer { status: quantity(result, "status") as u32, output: bytes(result, "output"), gas_used: found.gas_used };
                (expected, found, format!("call {name}"))
            }
            _ => continue,
        };
        if expected == found {
            tally.equal += 1;
        } else if DELIBERATE.iter().any(|deliberate| deliberate.0 == name) {
            tally.deliberate += 1;
        } else {
            tally.different.push(format!("{what}: expected {expected:?}, found {found:?}"));
        }
    }
    Some(tally)
}

/// The target of a step if it is one of our contracts.
fn target(step: &Value) -> Option<Address> {
    let to: Address = step["to"].as_str()?.parse().ok()?;
    let number = number_of(to)?;
    CONTRACTS.iter().any(|contract| contract.address == number).then_some(to)
}

#[test]
fn answers_status_and_gas_are_those_recorded() {
    for file in ["tx_system.json"] {
        let Some(tally) = replay(file) else { return };
        println!(
            "{file}: equal {}, deliberate {}, not covered {} (needs the EVM, or a contract of a later issue), different {}",
            tally.equal,
            tally.deliberate,
            tally.not_covered,
            tally.different.len()
        );
        for difference in tally.different.iter().take(20) {
            println!("{difference:.1200}");
        }
        assert!(tally.different.is_empty(), "{} steps differ from the recording", tally.different.len());
    }
}
