//! The recorded frames of the reference node are sent over TLS and what comes back is compared with what was recorded.
//!
//! Sessions of one client are replayed here; those in which several clients meet over AMOP are played in [`super::amop`].

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use millrace_base::{Address, B256, Bytes, LogEntry, Receipt, U256, hex};
use serde_json::{Value, json};

use super::super::recordings;
use super::super::replay::stable;
use super::node::{self, ChainNode};
use super::sdk::Sdk;
use super::{PATIENCE, Port};
use crate::channel::frame::{Frame, kind};

/// Height of the recorded chain when the recording began.
const HEIGHT: u64 = 510;

/// What must not come is waited for only so long; it would be noticed with the next reply as well.
const SILENCE: Duration = Duration::from_millis(30);

/// Sessions whose answers differ on purpose, and why.
const DELIBERATE: &[(&str, &str)] =
    &[("badframe length 10", "a frame below the header's size closes the session, where the reference goes silent for ever")];

/// Sessions of several clients.
const OF_SEVERAL_CLIENTS: &[&str] = &["amop A", "amop B", "A on node0", "B on node1", "C on node2", "L on node0"];

/// Text in a recording: one character a byte.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// A recorded frame, where it was parsed.
pub fn frame(recorded: &Value) -> Option<Frame> {
    let kind = u16::from_str_radix(recorded["type"].as_str()?.strip_prefix("0x")?, 16).ok()?;
    let sequence = latin1(recorded["seq"].as_str()?).try_into().ok()?;
    let result = recorded["result"].as_i64().unwrap_or_default();
    Some(Frame::new(kind, sequence, latin1(recorded["body"].as_str()?)).with_result(i32::try_from(result).unwrap()))
}

fn receipt(recorded: &Value) -> (Receipt, Option<B256>) {
    let text = |key: &str| recorded[key].as_str().unwrap();
    let number = |key: &str| U256::from_str_radix(text(key).trim_start_matches("0x"), 16).unwrap();
    let logs = recorded["logs"].as_array().into_iter().flatten().map(|log| LogEntry {
        address: Address::from_slice(&recordings::bytes(&log["address"])),
        topics: log["topics"].as_array().unwrap().iter().map(recordings::hash).collect(),
        data: recordings::bytes(&log["data"]).into(),
    });
    let logs: Vec<_> = logs.collect();
    let receipt = Receipt {
        state_root: recordings::hash(&recorded["root"]),
        gas_used: number("gasUsed"),
        contract_address: Address::from_slice(&recordings::bytes(&recorded["contractAddress"])),
        logs_bloom: Receipt::bloom_of(&logs),
        status: number("status").to(),
        output: Bytes::from(recordings::bytes(&recorded["output"])),
        remain_gas: number("remainGas"),
        logs,
    };
    (receipt, Some(recordings::hash(&recorded["blockHash"])))
}

/// Receipts of all transactions of the recording, by hash.
fn receipts(recording: &Value) -> HashMap<B256, Value> {
    let frames = recording["parts"].as_array().unwrap().iter().flat_map(|part| part["sessions"].as_array().unwrap());
    let frames = frames.flat_map(|session| session["frames"].as_array().unwrap());
    let bodies = frames.filter(|frame| frame["type"] == "0x1000").filter_map(|frame| serde_json::from_str(frame["body"].as_str()?).ok());
    bodies.map(|body: Value| (recordings::hash(&body["transactionHash"]), body)).collect()
}

/// A port whose node answers as the recorded one.
fn port(recording: &Value) -> Port {
    let receipts = receipts(recording);
    Port::start(ChainNode::new(HEIGHT, Box::new(move |tx| receipts.get(&tx.hash()).map_or_else(|| node::plain(tx), receipt))))
}

/// Takes out what differs between nodes and builds: C++ places, the word behind which pools explain themselves differently.
fn comparable(frame: &Frame) -> (u16, String, i32, String) {
    let mut body = String::from_utf8_lossy(&frame.body).into_owned();
    if frame.kind == kind::RPC {
        body = stable(&body);
        if let Ok(mut reply) = serde_json::from_str::<Value>(&body)
            && let Some(Value::String(message)) = reply.pointer_mut("/error/message")
            && message.contains("Dynamic exception type")
        {
            let known = ["TransactionNonceCheckFail", "BlockLimitCheckFailed", "InvalidChainId", "InvalidGroupId", "UndersizeRLP"];
            *message = known.iter().filter(|word| message.contains(**word)).copied().collect::<Vec<_>>().join(" ");
            body = reply.to_string();
        }
        if let Ok(mut reply) = serde_json::from_str::<Value>(&body)
            && let Some(info) = reply.pointer_mut("/result/FISCO-BCOS Version")
        {
            *info = json!("version");
            body = reply.to_string();
        }
    }
    (frame.kind, hex::encode(frame.sequence), frame.result, body)
}

/// Runs of frames: what the client sends, and what came until it sent again.
fn exchanges(session: &Value) -> Vec<(&Value, Vec<&Value>)> {
    let mut runs: Vec<(&Value, Vec<&Value>)> = Vec::new();
    for frame in session["frames"].as_array().unwrap() {
        match frame["dir"].as_str().unwrap() {
            ">" => runs.push((frame, Vec::new())),
            _ => runs.last_mut().unwrap().1.push(frame),
        }
    }
    runs
}

/// Frames that came, in a form that does not depend on their order and on how logs were divided over pushes.
#[derive(PartialEq, Eq, Debug)]
struct Heard {
    frames: Vec<(u16, String, i32, String)>,
    /// Logs, and the completion as null, of each subscription.
    logs: BTreeMap<String, Vec<Value>>,
}

impl Heard {
    fn of(frames: &[Frame]) -> Self {
        let mut heard = Self { frames: Vec::new(), logs: BTreeMap::new() };
        for frame in frames {
            if frame.kind != kind::EVENT_PUSH {
                heard.frames.push(comparable(frame));
                continue;
            }
            assert_eq!((frame.sequence, frame.result), ([b'0'; 32], 0));
            let push: Value = serde_json::from_slice(&frame.body).unwrap();
            assert_eq!(format!("{push}\n").as_bytes(), &frame.body[..], "the text of a push is compact, keys in order");
            assert_eq!(push["result"], if push["logs"].is_null() { 1 } else { 0 });
            let logs = heard.logs.entry(push["filterID"].as_str().unwrap().to_owned()).or_default();
            match &push["logs"] {
                Value::Array(list) => logs.extend(list.iter().cloned()),
                completion => logs.push(completion.clone()),
            }
        }
        heard.frames.sort();
        heard
    }

    fn covers(&self, other: &Self) -> bool {
        let has_logs = |(id, logs): (&String, &Vec<Value>)| self.logs.get(id).is_some_and(|own| own.len() >= logs.len());
        self.frames.len() >= other.frames.len() && other.logs.iter().all(has_logs)
    }

    fn begins_with(&self, other: &Self) -> bool {
        let has_logs = |(id, logs): (&String, &Vec<Value>)| self.logs.get(id).is_some_and(|own| own.starts_with(logs));
        self.frames == other.frames && other.logs.iter().all(has_logs)
    }
}

/// What a session's replay found.
#[derive(Default)]
struct Findings {
    equal: usize,
    silent: usize,
    after_the_end: usize,
    different: Vec<String>,
}

fn replay_session(port: &Port, session: &Value, findings: &mut Findings) {
    let name = session["name"].as_str().unwrap();
    let mut sdk = port.sdk();
    let mut is_over = false;
    for (sent, answers) in exchanges(session) {
        let note = sent["note"].as_str().unwrap_or_default();
        let bytes = frame(sent).map_or_else(|| hex::decode(sent["hex"].as_str().unwrap()).unwrap(), |frame| frame.encode());
        if is_over {
            // The recorded node, or its session, had ended; ours still answers or has closed for a reason of its own.
            findings.after_the_end += 1 + answers.len();
            let _ = sdk.try_write(&bytes);
            continue;
        }
        sdk.write(&bytes);
        findings.equal += 1;
        let recorded: Vec<_> = answers.iter().filter_map(|answer| frame(answer)).collect();
        let closes = answers.iter().any(|answer| answer["note"] == "connection closed by node");
        let (wanted, mut got) = (Heard::of(&recorded), Vec::new());
        while !Heard::of(&got).covers(&wanted) {
            match sdk.receive_within(PATIENCE) {
                Some(frame) => got.push(frame),
                None => break,
            }
        }
        check_order(name, note, &got);
        let got = Heard::of(&got);
        // Where the recorded node ended, ours goes on.
        if got == wanted || session["nodeCrashed"] == true && got.begins_with(&wanted) || name == "v3" && closes && got.begins_with(&wanted)
        {
            findings.equal += recorded.len();
        } else {
            findings.different.push(format!("{name}, {note}:\n  want {wanted:?}\n  got  {got:?}"));
        }
        findings.silent += answers.len() - recorded.len();
        is_over = closes || DELIBERATE.iter().any(|(of, _)| *of == name);
        if closes && session["nodeCrashed"].is_null() && name != "v3" {
            assert!(sdk.is_closed(), "{name}, {note}: the session is closed as recorded");
        } else if !closes && recorded.is_empty() && note != "first half" {
            let extra = sdk.receive_within(SILENCE);
            assert!(extra.is_none(), "{name}, {note}: nothing was recorded, this came: {extra:?}");
        }
    }
}

/// The reply of a request comes before the receipts of its transactions, whatever the reference did.
fn check_order(name: &str, note: &str, got: &[Frame]) {
    for (position, receipt) in got.iter().enumerate().filter(|(_, frame)| frame.kind == kind::RECEIPT) {
        let has_reply = got[..position].iter().any(|frame| frame.kind == kind::RPC && frame.sequence == receipt.sequence);
        assert!(has_reply, "{name}, {note}: a receipt came before its reply");
    }
}

#[test]
fn recorded_sessions_of_one_client_are_answered_as_recorded() {
    let Some(recording) = recordings::load("channel.json") else { return };
    let port = port(&recording);
    let mut findings = Findings::default();
    let (mut frames, mut of_several) = (0, 0);
    for part in recording["parts"].as_array().unwrap() {
        for session in part["sessions"].as_array().unwrap() {
            let count = session["frames"].as_array().unwrap().len();
            frames += count;
            match OF_SEVERAL_CLIENTS.contains(&session["name"].as_str().unwrap()) {
                true => of_several += count,
                false => replay_session(&port, session, &mut findings),
            }
        }
    }
    let Findings { equal, silent, after_the_end, different } = findings;
    println!(
        "{frames} frames: {equal} sent or received as recorded, {silent} silences, {after_the_end} after an end, {of_several} of AMOP"
    );
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    assert_eq!(equal + silent + after_the_end + of_several, frames);
    assert_eq!(port.sdk().call("getBlockNumber", json!([1]))["result"], json!(format!("{:#x}", port.node.head())), "the node still serves");
}

#[test]
fn frames_that_end_the_reference_node_are_answered_and_leave_this_one_serving() {
    let Some(recording) = recordings::load("channel.json") else { return };
    let port = port(&recording);
    // A log without topics, at which the reference node ends.
    let sessions: Vec<_> = recording["parts"].as_array().unwrap().iter().flat_map(|part| part["sessions"].as_array().unwrap()).collect();
    let first = sessions.iter().find(|session| session["name"] == "v1").unwrap();
    replay_session(&port, first, &mut Findings::default());
    let deadly: Vec<_> = sessions.iter().filter(|session| session["nodeCrashed"] == true).collect();
    assert!(deadly.len() >= 6);
    for session in deadly {
        let mut sdk: Sdk = port.sdk();
        for (sent, _) in exchanges(session) {
            sdk.send(&frame(sent).unwrap());
        }
        let number = sdk.call("getBlockNumber", json!([1]));
        assert!(number["result"].is_string(), "{}", session["name"]);
    }
}

#[test]
fn frames_that_real_sdks_sent_are_understood() {
    let Some(recording) = recordings::load("../channel-frames.json") else { return };
    let port = Port::start(ChainNode::new(5, Box::new(node::plain)));
    let mut clients: BTreeMap<String, Sdk> = BTreeMap::new();
    let sent = recording["frames"].as_array().unwrap().iter().filter(|frame| frame["dir"] == "sdk->node" && frame["hex"].is_string());
    let mut count = 0;
    for recorded in sent {
        let bytes = hex::decode(recorded["hex"].as_str().unwrap()).unwrap();
        let Ok(frame) = Frame::decode(&bytes) else { continue };
        let sdk = clients.entry(recorded["client"].as_str().unwrap().to_owned()).or_insert_with(|| port.sdk());
        sdk.write(&bytes);
        // Types that are always answered.
        if matches!(frame.kind, kind::RPC | kind::HANDSHAKE | kind::EVENT_SUBSCRIBE) {
            let reply = loop {
                let reply = sdk.receive_kind(frame.kind);
                if reply.sequence == frame.sequence {
                    break reply;
                }
            };
            assert!(reply.body.ends_with(b"\n"), "{recorded}");
        }
        count += 1;
    }
    assert!(count > 30, "{count}");
    for sdk in clients.values_mut() {
        assert_eq!(sdk.call("getBlockNumber", json!([2]))["result"], "0x5");
    }
}
