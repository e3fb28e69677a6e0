//! The OpenRPC document of the node, served by `rpc.discover`.
//!
//! Names and parameters come from the table of [`crate::methods`], so that the document cannot differ from what is checked; summaries,
//! shapes of results and examples stand beside it in `openrpc/`. Invariant: every method of the table is described, and every example is
//! executed by a test of the whole node.

use std::sync::OnceLock;

use millrace_base::limits::MAX_RPC_BATCH;
use serde_json::{Map, Value, json};

use crate::envelope::{Answer, Outcome};
use crate::methods::{METHODS, Method};
use crate::params::{Kind, Parameter, Shape};

/// Summary, shape of the result and example of each method.
const DESCRIPTIONS: &str = include_str!("openrpc/methods.json");

/// Shapes that results refer to.
const SCHEMAS: &str = include_str!("openrpc/schemas.json");

/// Errors that clients tell apart by their codes; each method may answer with any of them.
const ERRORS: &[(i32, &str)] = &[
    (-32700, "the body is not JSON"),
    (-32600, "the body is not a request"),
    (-32601, "there is no such method"),
    (-32602, "the parameters are not those declared"),
    (-32603, "a parameter cannot be read, a transaction is refused, or the node is busy; the message says which"),
    (-32604, "the request has no id"),
    (-40001, "the group does not exist on this node"),
    (-40003, "no block has this hash"),
    (-40004, "no block has this height"),
    (-40005, "no transaction has this index"),
    (-40006, "a call needs a sender"),
    (-40007, "the consensus of the group has no views"),
    (-40008, "there is no such setting"),
    (-40009, "the node is not a member of the group, or its consensus does not have what is asked for"),
    (-40011, "more requests a second than flow_control.limit_req lets in"),
    (-40012, "the client is not on the list of the group"),
    (-40020, "the state of that block is not kept, or has no proofs"),
    (-40099, "the block has fewer receipts"),
    (-100001, "groups and peers may not be changed by clients of this node"),
];

/// `rpc.discover`.
pub fn discover() -> Outcome {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| serde_json::to_vec(&document()).expect("values can be written"));
    Ok(Answer::Json(document.clone()))
}

/// The document.
pub fn document() -> Value {
    let described: Map<String, Value> = serde_json::from_str(DESCRIPTIONS).expect("the file is part of the program and tested");
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("the file is part of the program and tested");
    let errors: Map<_, _> = ERRORS.iter().map(|(code, message)| (error_name(*code), json!({"code": code, "message": message}))).collect();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "Millrace JSON-RPC",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "JSON-RPC 2.0 of FISCO BCOS 2.x over HTTP POST and over the TLS channel port. Parameters are positional. \
                 A body may be a batch of at most {MAX_RPC_BATCH} requests."
            ),
        },
        "methods": METHODS.iter().map(|method| describe(method, &described[method.name])).collect::<Vec<_>>(),
        "components": {"schemas": schemas, "errors": errors},
    })
}

fn error_name(code: i32) -> String {
    format!("E{}", code.unsigned_abs())
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn describe(method: &Method, description: &Value) -> Value {
    let params = match method.shape {
        Shape::Exactly(parameters) => parameters.iter().map(|parameter| declared(parameter, Need::Required)).collect(),
        Shape::AtLeast(required, parameters) => {
            let need = |position| if position < required { Need::Required } else { Need::Optional };
            parameters.iter().enumerate().map(|(position, parameter)| declared(parameter, need(position))).collect()
        }
        Shape::Unchecked => description["params"].as_array().cloned().unwrap_or_default(),
    };
    let result = description["result"].as_str().expect("each description names the shape of the result");
    let mut described = json!({
        "name": method.name,
        "summary": description["summary"],
        "paramStructure": "by-position",
        "params": params,
        "result": {"name": result, "schema": reference("schemas", result)},
        "errors": ERRORS.iter().map(|(code, _)| reference("errors", &error_name(*code))).collect::<Vec<_>>(),
    });
    // OpenRPC has no examples of errors: what is refused on the chain of the examples has none.
    if let Some(example) = description["example"].get("result") {
        let names = params.iter().map(|param| param["name"].clone());
        let values = description["example"]["params"].as_array().into_iter().flatten();
        let shown: Vec<_> = names.zip(values).map(|(name, value)| json!({"name": name, "value": value})).collect();
        described["examples"] = json!([{"name": "example", "params": shown, "result": {"name": result, "value": example}}]);
    }
    described
}

/// Whether a parameter may be left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

fn declared(parameter: &Parameter, need: Need) -> Value {
    let kind = match parameter.kind {
        Kind::Integer => "integer",
        Kind::Text => "string",
        Kind::Flag => "boolean",
        Kind::Object => "object",
        Kind::List => "array",
    };
    json!({"name": parameter.name, "required": need == Need::Required, "schema": {"type": kind}})
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::params::Arguments;

    fn descriptions() -> Map<String, Value> {
        serde_json::from_str(DESCRIPTIONS).unwrap()
    }

    #[test]
    fn every_method_is_described_and_nothing_else() {
        let described: Vec<_> = descriptions().keys().cloned().collect();
        assert_eq!(described, METHODS.iter().map(|method| method.name).collect::<Vec<_>>());
    }

    #[test]
    fn examples_have_the_declared_parameters() {
        for (method, description) in METHODS.iter().zip(descriptions().values()) {
            let Some(example) = description.get("example") else { continue };
            let params = RawValue::from_string(example["params"].to_string()).unwrap();
            assert!(Arguments::check(method.shape, Some(&params)).is_ok(), "{}", method.name);
            assert!(example["result"].is_null() != example["error"].is_null(), "{}", method.name);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references: Vec<_> = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(references.len() > METHODS.len());
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
