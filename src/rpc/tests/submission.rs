//! Raw transactions: recorded refusals, batches, replies that never come.

use std::time::{Duration, Instant};

use millrace_base::Bytes;
use serde_json::{Value, json};

use super::client::post;
use super::recordings;
use super::replay::{World, stable, world, world_with};

fn send_raw(world: &World, group: &Value, raw: &str) -> Value {
    let body = json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [group, raw], "id": 1});
    post(world.address(), body.to_string().as_bytes()).json()
}

/// The comment with which the recorded pool refused a transaction.
fn pool_comment(response: &Value) -> Option<String> {
    let message = response["error"]["message"].as_str()?;
    let comment = message.split_once("[dev::tag_comment*] = ")?.1.trim_end().to_owned();
    message.contains("dev::eth::TransactionRefused").then_some(comment)
}

#[test]
fn recorded_submissions_are_answered_as_recorded() {
    let Some((world, reject)) = world().zip(recordings::load("reject.json")) else { return };
    world.state.lock().unwrap().statuses.insert(2, millrace_ledger::view::GroupStatus::Running);
    let mut compared = 0;
    for case in reject["cases"].as_array().unwrap() {
        // Without a recorded request, or with an abridged one, there is nothing to send.
        let (name, Some(raw)) = (&case["name"], case["raw"].as_str()) else { continue };
        // A length beyond all memory is called non-canonical here and undersized there; neither has a text that clients match on.
        if name == "big.200k" || name == "hugelen" || case["response"].is_null() {
            continue;
        }
        let refusal = pool_comment(&case["response"]).zip(millrace_base::hex::decode(raw).ok());
        world.state.lock().unwrap().refusals = refusal.map(|(comment, bytes)| (Bytes::from(bytes), comment)).into_iter().collect();
        let group = case.get("group").cloned().unwrap_or(json!(1));
        let reply = send_raw(&world, &group, raw);
        assert_eq!(stable(&reply.to_string()), stable(&case["response"].to_string()), "{name}");
        compared += 1;
    }
    println!("{compared} submissions equal");
    assert!(compared >= 100, "only {compared} were compared");
}

fn batch_of(raws: &[&str], count: usize) -> Vec<u8> {
    let request = |id: usize| {
        let raw = raws[id % raws.len()];
        json!({"jsonrpc": "2.0", "method": "sendRawTransaction", "params": [1, raw], "id": id})
    };
    Value::Array((0..count).map(request).collect()).to_string().into_bytes()
}

#[test]
fn batch_of_raw_transactions_is_one_submission_answered_in_order() {
    let Some(world) = world() else { return };
    let raws: Vec<_> = world.rpc["context"]["rawTxs"].as_array().unwrap().iter().map(|raw| raw.as_str().unwrap()).collect();
    let reply = post(world.address(), &batch_of(&raws, 1_000));
    let replies: Vec<Value> = serde_json::from_slice(&reply.body).unwrap();
    for (position, reply) in replies.iter().enumerate() {
        let hash = recordings::verified(&millrace_base::hex::decode(raws[position % raws.len()]).unwrap()).hash();
        assert_eq!(*reply, json!({"id": position, "jsonrpc": "2.0", "result": format!("{hash:#x}")}));
    }
    let state = world.state.lock().unwrap();
    assert_eq!((replies.len(), state.submitted.as_slice()), (1_000, [1_000].as_slice()));
    assert!(state.submitters.iter().all(|submitter| *submitter == state.submitters[0]));
}

#[test]
fn mixed_batch_keeps_its_order_and_submits_only_what_can_be_submitted() {
    let Some(world) = world() else { return };
    let raw = world.rpc["context"]["rawTxs"][0].as_str().unwrap();
    let call = |method: &str, params: Value, id: u32| json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
    let batch = json!([
        call("getBlockNumber", json!([1]), 0),
        call("sendRawTransaction", json!([1, raw]), 1),
        call("sendRawTransaction", json!([99, raw]), 2),
        call("sendRawTransaction", json!([1, "hello"]), 3),
        call("sendRawTransactionAndGetProof", json!([1, raw]), 4),
        call("getBlockHashByNumber", json!([1, "0"]), 5),
        call("sendRawTransaction", json!([1]), 6),
    ]);
    let replies = post(world.address(), batch.to_string().as_bytes()).json();
    let codes: Vec<_> = replies.as_array().unwrap().iter().map(|reply| reply["error"]["code"].as_i64().unwrap_or(0)).collect();
    assert_eq!(codes, [0, 0, -40001, -32603, 0, 0, -32602]);
    assert!(replies.as_array().unwrap().iter().enumerate().all(|(position, reply)| reply["id"] == position));
    assert_eq!(world.state.lock().unwrap().submitted, [2]);
}

#[test]
fn reply_that_the_node_drops_is_an_error_at_once() {
    let Some(world) = world() else { return };
    world.state.lock().unwrap().drops_replies = true;
    let started = Instant::now();
    let reply = send_raw(&world, &json!(1), world.rpc["context"]["rawTxs"][0].as_str().unwrap());
    assert_eq!(reply["error"]["code"], -32603);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn slow_query_is_answered_with_an_error_when_its_time_is_over() {
    let Some(world) = world_with(|config| config.gateway.time_limit = Duration::from_millis(50)) else { return };
    let gate = std::sync::Arc::new(std::sync::Mutex::new(()));
    let held = gate.lock().unwrap();
    world.state.lock().unwrap().code_gate = Some(std::sync::Arc::clone(&gate));
    let body = json!({"jsonrpc": "2.0", "method": "getCode", "params": [1, "11".repeat(20)], "id": 7});
    let reply = post(world.address(), body.to_string().as_bytes()).json();
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(7), &json!(-32603)));
    drop(held);
}
