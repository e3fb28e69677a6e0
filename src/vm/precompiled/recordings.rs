//! The recordings of a 2.x node's system contracts (`../shared/vectors/reference-node/`), replayed through the executor:
//! one transaction a block, calls where they were made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_base::{Address, B256, Bytes, NodeId, RawTx, U256, hex};
use millrace_core::StorageError;
use millrace_core::table::system::{GenesisState, config, genesis_writes};
use serde_json::Value;

use super::harness::State;
use crate::environment::{BlockEnvironment, BlockHashes};
use crate::executor::{CallMessage, Executor};
use crate::schedule::EvmRules;

/// The recording node's id; it is the sealer of the replayed chain, so that the steps that name it fit.
const SEALER: &str =
    "08855440c9f639ce6bd00651df2d24690c984289665c0736a9368aee69e70712bfe0dfbdd8c7657cdac5ed39c7b43ec9683333ee0be40421650d715f627f125c";

struct NoHashes;

impl BlockHashes for NoHashes {
    fn block_hash(&self, _: u64) -> Result<Option<B256>, StorageError> {
        Ok(None)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn bytes(value: &Value) -> Bytes {
    hex::decode(text(value)).unwrap().into()
}

fn number(value: &Value) -> U256 {
    text(value).parse().unwrap()
}

/// What is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    status: U256,
    output: Bytes,
    gas_used: U256,
    contract: Address,
    logs: usize,
    remaining: U256,
}

struct Replay {
    executor: Executor,
    state: State,
    height: u64,
}

impl Replay {
    fn new() -> Self {
        let mut state = State::default();
        let settings = [("tx_count_limit", "1000"), ("tx_gas_limit", "300000000"), ("consensus_timeout", "3")];
        let settings = settings.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
        state.apply(genesis_writes(&GenesisState { sealers: vec![NodeId::parse(SEALER).unwrap()], config: settings }));
        Self { executor: Executor::new(EvmRules::Fisco2 { free_storage: false }), state, height: 0 }
    }

    fn block(&self, number: u64, governing: u64) -> BlockEnvironment {
        let limit = config(&self.state, "tx_gas_limit", governing).unwrap().unwrap().parse().unwrap();
        BlockEnvironment { number, timestamp_ms: 1_700_000_000_000 + number, tx_gas_limit: limit }
    }

    /// The recorded answer and ours.
    fn transact(&mut self, step: &Value) -> (Answer, Answer) {
        let receipt = &step["receipt"];
        self.height = number(&receipt["blockNumber"]).to();
        let transaction = RawTx::decode(&bytes(&step["rawTx"])).unwrap().verify().unwrap();
        let block = self.block(self.height, self.height);
        let done = self.executor.transact(&self.state, &NoHashes, &block, &transaction).unwrap();
        self.state.apply(done.writes);
        let expected = Answer {
            status: number(&receipt["status"]),
            output: bytes(&receipt["output"]),
            gas_used: number(&receipt["gasUsed"]),
            contract: text(&receipt["contractAddress"]).parse().unwrap(),
            logs: receipt["logs"].as_array().unwrap().len(),
            remaining: number(&receipt["remainGas"]),
        };
        let ours = done.receipt;
        let found = Answer {
            status: U256::from(ours.status),
            output: ours.output,
            gas_used: ours.gas_used,
            contract: ours.contract_address,
            logs: ours.logs.len(),
            remaining: ours.remain_gas,
        };
        (expected, found)
    }

    fn call(&mut self, step: &Value) -> (Answer, Answer) {
        let (params, result) = (&step["params"], &step["response"]["result"]);
        let message = CallMessage {
            from: text(&params["from"]).parse().unwrap(),
            to: text(&params["to"]).parse().unwrap(),
            data: bytes(&params["data"]),
            value: number(&params["value"]),
        };
        let block = self.block(self.height, self.height + 1);
        let done = self.executor.call(&self.state, &NoHashes, &block, &message).unwrap();
        let answer =
            |status, output| Answer { status, output, gas_used: U256::ZERO, contract: Address::ZERO, logs: 0, remaining: U256::ZERO };
        (answer(number(&result["status"]), bytes(&result["output"])), answer(U256::from(done.status), done.output))
    }
}

fn reason(list: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    list.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reason)| *reason)
}

/// Replays a file. All steps but those whose names begin as one of `deliberate`, each with its reason (`docs/compatibility.md`), must be
/// equal, and so many.
fn replay(file: &str, least: usize, deliberate_steps: &[(&'static str, &'static str)]) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../../shared/vectors/reference-node", file].iter().collect();
    let Ok(content) = std::fs::read(&path) else {
        eprintln!("{} is not there: nothing is replayed", path.display());
        return;
    };
    let recording: Value = serde_json::from_slice(&content).unwrap();
    let mut replay = Replay::new();
    let (mut equal, mut different) = (0, Vec::new());
    let mut deliberate = BTreeMap::<_, usize>::new();
    // One list of steps, or one of blocks with the transactions of each.
    let steps = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let of_blocks = steps(&recording["blocks"]).into_iter().flat_map(|block| steps(&block["txs"]));
    let mut steps = steps(&recording["steps"]);
    steps.extend(of_blocks);
    for step in &steps {
        let name = text(&step["name"]);
        let (expected, found) = match text(&step["kind"]) {
            "tx" | "" => replay.transact(step),
            "call" if step.get("doNotReplay").is_none() => replay.call(step),
            _ => continue,
        };
        if expected == found {
            equal += 1;
        } else if let Some(reason) = reason(deliberate_steps, name) {
            *deliberate.entry(reason).or_default() += 1;
        } else {
            different.push(format!("{} {name}\n  expected {expected:?}\n  found    {found:?}", text(&step["kind"])));
        }
    }
    println!("{file}: equal {equal}, deliberate {}, different {}", deliberate.values().sum::<usize>(), different.len());
    println!("deliberate: {deliberate:#?}");
    for difference in different.iter().take(30) {
        println!("{difference:.1500}");
    }
    assert!(different.is_empty(), "{} steps of {file} differ from the recording", different.len());
    assert!(equal >= least, "only {equal} steps of {file} are equal");
}

#[test]
fn recorded_steps_of_system_contracts_give_the_recorded_answers() {
    let restarted = "that node had just restarted and lost a field _id_ that it had stored and shown before";
    replay("tx_system.json", 997, &[("crud.select.odd.8", restarted)]);
}

#[test]
fn recorded_steps_of_governance_give_the_recorded_answers() {
    replay("tx_governance.json", 255, &[]);
}

#[test]
fn recorded_steps_of_gas_charging_give_the_recorded_answers() {
    replay("tx_gascharge.json", 76, &[]);
}

#[test]
fn recorded_blocks_of_several_transactions_give_the_recorded_answers() {
    let handles = "handles count through the transaction, not through the block";
    replay("tx_blocks.json", 84, &[("objs", handles), ("open again", handles)]);
}
