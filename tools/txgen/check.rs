//! Checks at the end of a run: each acknowledged transaction has exactly one receipt, of success, in the block that lists it; every account
//! holds what its committed transfers left it; and nothing was made or lost in sum.

mod nodes;

use std::time::{Duration, Instant};

use millrace_base::{Bytes, U256, hex};
use serde_json::{Value, json};

pub use self::nodes::Comparison;
use crate::client::{Client, ClientError, parse_number};
use crate::setup::Group;
use crate::supply::Target;
use crate::workload::INITIAL;

/// Calls in one request: each runs on the node's interpreter, so the answer must come before the node's time limit.
const CALLS: usize = 200;

/// Transactions looked up by hash, of those that were seen and of those that were not.
const SAMPLE: usize = 200;

/// Wrong accounts named in messages.
const NAMED: usize = 5;

/// Time between two looks at the pool.
const POLL: Duration = Duration::from_millis(200);

/// Findings about one group; empty is good.
pub struct Verdict {
    /// About receipts.
    pub receipts: Vec<String>,
    /// About balances.
    pub balances: Vec<String>,
    /// Accounts whose balances were compared.
    pub accounts_checked: u64,
    /// About differences between nodes.
    pub nodes: Comparison,
}

/// Waits until nothing of this run can still reach a block: transactions whose connection failed may lie in the pool.
pub fn drain(group: &Group, client: &Client, patience: Duration) {
    group.tracker.settle(patience);
    let start = Instant::now();
    while group.tracker.has_unsure() && start.elapsed() < patience {
        let pending = client.call::<String>("getPendingTxSize", &json!([group.id.get()]));
        if pending.is_ok_and(|size| parse_number(&size) == Some(0)) {
            // The pool hands a block's transactions over before the block is there.
            std::thread::sleep(POLL * 5);
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// Checks one group. Its follower must have read the head. Nodes are waited for as long as `patience` lasts.
pub fn check(group: &Group, patience: Duration) -> Verdict {
    let nodes = nodes::compare(group, patience);
    let client = &group.client(patience);
    let mut verdict = Verdict { receipts: Vec::new(), balances: Vec::new(), accounts_checked: 0, nodes };
    if let Err(error) = check_receipts(group, client, &mut verdict.receipts) {
        verdict.receipts.push(format!("receipts could not be read: {error}"));
    }
    let unpushed = group.tracker.missing_pushes();
    if unpushed > 0 {
        verdict.receipts.push(format!("group {}: {unpushed} receipts were not pushed", group.id));
    }
    for (index, target) in group.targets().iter().enumerate() {
        if let Err(error) = check_balances(group, client, (index, target), &mut verdict) {
            verdict.balances.push(format!("balances of {} could not be read: {error}", target.workload.name()));
        }
    }
    verdict
}

fn check_receipts(group: &Group, client: &Client, findings: &mut Vec<String>) -> Result<(), ClientError> {
    let id = group.id.get();
    let (problems, more) = group.tracker.with_record(|record| (record.problems.clone(), record.more_problems));
    findings.extend(problems);
    if more > 0 {
        findings.push(format!("and {more} more of this kind"));
    }
    // Whatever their order, operations of the workloads cannot fail: a failure is the node's.
    let (failed, faults) = group.tracker.with_record(|record| (record.counts.failed, record.faults.clone()));
    if failed > 0 {
        findings.push(format!("group {id}: {failed} transactions failed in a block"));
        findings.extend(faults.iter().map(|(fault, count)| format!("{count} times {fault}")));
    }
    let missing = group.tracker.missing();
    if !missing.is_empty() {
        findings.push(format!("group {id}: {} acknowledged transactions are in no block", missing.len()));
        let asked = &missing[..missing.len().min(SAMPLE)];
        let params: Vec<Value> = asked.iter().map(|hash| json!([id, hash.to_string()])).collect();
        for (hash, receipt) in asked.iter().zip(client.call_many::<Value>("getTransactionReceipt", &params)?) {
            match receipt.unwrap_or_default() {
                Value::Null => findings.push(format!("{hash} has no receipt")),
                receipt => findings.push(format!("{hash} has a receipt of block {}, which does not list it", receipt["blockNumber"])),
            }
        }
        findings.truncate(crate::tracker::MAX_PROBLEMS * 2);
    }
    let sample = group.tracker.sample_of_committed(SAMPLE);
    let params: Vec<Value> = sample.iter().map(|(hash, _)| json!([id, hash.to_string()])).collect();
    if params.is_empty() {
        return Ok(());
    }
    for ((hash, block), receipt) in sample.iter().zip(client.call_many::<Value>("getTransactionReceipt", &params)?) {
        let named = receipt.and_then(|receipt| parse_number(receipt["blockNumber"].as_str()?));
        if named != Some(*block) {
            findings.push(format!("{hash} is in block {block}, its receipt by hash says {named:?}"));
        }
    }
    Ok(())
}

fn check_balances(group: &Group, client: &Client, target: (usize, &Target), verdict: &mut Verdict) -> Result<(), ClientError> {
    let (index, target) = target;
    let name = target.workload.name();
    let changes = group.tracker.with_record(|record| record.changes[index].clone());
    let accounts = &group.signer.accounts;
    let (mut sum, mut wrong) = (U256::ZERO, Vec::new());
    let all: Vec<u32> = (0..accounts.len()).collect();
    for portion in all.chunks(CALLS) {
        let queries: Vec<Bytes> = portion.iter().map(|account| target.workload.balance_query(accounts, *account)).collect();
        for (account, output) in portion.iter().zip(outputs(group, client, target, &queries)?) {
            let balance = output.and_then(|output| target.workload.read_balance(&output));
            let expected = U256::from(INITIAL).wrapping_add(signed(changes[*account as usize]));
            sum = sum.wrapping_add(balance.unwrap_or_default());
            if balance != Some(expected) {
                let found = balance.map_or("no balance".into(), |balance| balance.to_string());
                wrong.push(format!("{name} account {account}: {found}, its committed transfers leave {expected}"));
            }
        }
        verdict.accounts_checked += portion.len() as u64;
    }
    let total = U256::from(INITIAL) * U256::from(accounts.len());
    let findings = &mut verdict.balances;
    if sum != total {
        findings.push(format!("{name}: balances sum up to {sum}, not to {total}"));
    }
    if !wrong.is_empty() {
        findings.push(format!("{name}: {} accounts hold another balance than their transfers leave", wrong.len()));
        findings.extend(wrong.into_iter().take(NAMED));
    }
    if let Some(query) = target.workload.supply_query() {
        let supply = outputs(group, client, target, &[query])?.pop().flatten();
        let supply = supply.and_then(|output| target.workload.read_balance(&output));
        if supply != Some(total) {
            findings.push(format!("{name}: the supply is {supply:?}, not {total}"));
        }
    }
    Ok(())
}

fn signed(change: i64) -> U256 {
    millrace_base::abi::int256(change)
}

/// Outputs of calls, `None` where the call failed.
fn outputs(group: &Group, client: &Client, target: &Target, queries: &[Bytes]) -> Result<Vec<Option<Vec<u8>>>, ClientError> {
    let from = group.signer.accounts.address(0).to_string();
    let params: Vec<Value> = queries
        .iter()
        .map(|data| json!([group.id.get(), { "from": from, "to": target.contract.to_string(), "data": data.to_string() }]))
        .collect();
    let answers = client.call_many::<Value>("call", &params)?;
    let output = |answer: Value| {
        (answer["status"].as_str()? == "0x0").then_some(())?;
        hex::decode(answer["output"].as_str()?).ok()
    };
    Ok(answers.into_iter().map(|answer| answer.and_then(output)).collect())
}
