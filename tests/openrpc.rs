//! The OpenRPC document that the node serves: its examples are executed, and what comes back has the shape that the document promises.

use serde_json::{Value, json};

use crate::client::{receipt, text};
use crate::network::Network;

/// What a value breaks of a schema; the part of JSON Schema that the document uses.
fn violation(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return violation(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().any(|choice| violation(document, choice, value).is_none());
        return (!fits).then(|| format!("{value} is none of {schema}"));
    }
    if let Some(values) = schema["enum"].as_array() {
        return (!values.contains(value)).then(|| format!("{value} is none of {schema}"));
    }
    let has_type = match schema["type"].as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    if !has_type || schema["pattern"].as_str().is_some_and(|pattern| !matches(pattern, text(value))) {
        return Some(format!("{value} is not {schema}"));
    }
    let in_list = value.as_array().into_iter().flatten().find_map(|item| violation(document, &schema["items"], item));
    in_list.or_else(|| value.as_object().and_then(|_| object_violation(document, schema, value)))
}

fn object_violation(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let properties = schema["properties"].as_object()?;
    let mut required = schema["required"].as_array().into_iter().flatten().map(text);
    if let Some(missing) = required.find(|name| value.get(name).is_none()) {
        return Some(format!("{missing} is missing in {value}"));
    }
    value.as_object()?.iter().find_map(|(name, member)| match (properties.get(name), &schema["additionalProperties"]) {
        (Some(schema), _) => violation(document, schema, member),
        (None, Value::Bool(false)) => Some(format!("{name} is not promised")),
        (None, schema) => violation(document, schema, member),
    })
}

/// The patterns that the document uses: hexadecimal digits, with or without 0x, of one length, in pairs, or without leading zeros.
fn matches(pattern: &str, text: &str) -> bool {
    let digits = match (pattern.starts_with("^0x"), text.strip_prefix("0x")) {
        (true, Some(digits)) => digits,
        (true, None) => return false,
        (false, _) => text,
    };
    let lower = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let rest = pattern.trim_start_matches("^0x").trim_start_matches('^').trim_end_matches('$');
    let length = rest.strip_prefix("[0-9a-f]{").and_then(|rest| rest.strip_suffix('}')).map(|count| count.parse::<usize>().unwrap());
    lower
        && match (length, rest) {
            (Some(length), _) => digits.len() == length,
            (None, "([0-9a-f]{2})*") => digits.len().is_multiple_of(2),
            (None, "(0|[1-9a-f][0-9a-f]*)") => digits == "0" || !digits.is_empty() && !digits.starts_with('0'),
            (None, other) => panic!("{other}"),
        }
}

fn method<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["methods"].as_array().unwrap().iter().find(|method| method["name"] == name).unwrap()
}

/// The example's parameters, with the hash of a block of this chain where a block is named by its hash.
fn parameters(example: &Value, block_hash: &str) -> Value {
    let shown = example["params"].as_array().unwrap();
    shown.iter().map(|param| if param["name"] == "blockHash" { json!(block_hash) } else { param["value"].clone() }).collect()
}

#[test]
fn examples_of_the_served_document_are_answered_as_it_promises() {
    let network = Network::start(2);
    let document = network.result("rpc.discover", "[]");
    assert_eq!(document["openrpc"], "1.3.2");
    // The chain of the examples: one block with the transaction that is shown.
    let submission = &method(&document, "sendRawTransaction")["examples"][0];
    let sent = network.ask("sendRawTransaction", &parameters(submission, "").to_string());
    assert_eq!(sent["result"], submission["result"]["value"], "{sent}");
    assert_eq!(receipt(&network, text(&sent["result"]))["status"], "0x0");
    let block_hash = network.block(1, 1).1;
    let mut executed = 0;
    for method in document["methods"].as_array().unwrap().iter().filter(|method| method["name"] != "sendRawTransaction") {
        for example in method["examples"].as_array().into_iter().flatten() {
            let reply = network.ask(text(&method["name"]), &parameters(example, &block_hash).to_string());
            assert!(reply["error"].is_null(), "{}: {reply}", method["name"]);
            for value in [&reply["result"], &example["result"]["value"]] {
                assert_eq!(violation(&document, &method["result"]["schema"], value), None, "{}", method["name"]);
            }
            let same_kind = reply["result"].is_null() == example["result"]["value"].is_null();
            assert!(same_kind, "{}: {}", method["name"], reply["result"]);
            executed += 1;
        }
    }
    assert!(executed >= 42, "{executed}");
}
