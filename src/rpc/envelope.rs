//! The JSON-RPC 2.0 envelope as the reference node reads and writes it (`spec/client-protocol.md` 2.4).
//!
//! Parsing borrows from the body and builds no value trees, so a batch of 1,000 raw transactions costs one pass. Memory stays bounded
//! by the body: at most [`MAX_RPC_BATCH`] requests are kept, and the members of a request are kept as slices of its text.

use std::borrow::Cow;
use std::fmt;

use millrace_base::limits::MAX_RPC_BATCH;
use millrace_base::{B256, hex};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Origin, RpcError};

/// What a body asks for.
pub enum Incoming<'a> {
    /// One request, answered by one object.
    Single(Call<'a>),
    /// Several, answered by an array in the same order.
    Batch(Vec<Call<'a>>),
    /// More than [`MAX_RPC_BATCH`] requests; none is answered.
    TooLong,
}

/// One element of a body.
pub enum Call<'a> {
    /// Well formed; the method may still be unknown and the parameters wrong.
    Valid(Request<'a>),
    /// Not a request. The id is echoed when it is usable.
    Invalid(Option<&'a RawValue>),
}

/// A well-formed request.
pub struct Request<'a> {
    /// Name of the method.
    pub method: Cow<'a, str>,
    /// Array, object, null or absent.
    pub params: Option<&'a RawValue>,
    /// Integer, string or null; absent in notifications.
    pub id: Option<&'a RawValue>,
}

/// A result or an error, ready to be written.
pub type Outcome = Result<Answer, RpcError>;

/// A result.
#[derive(Debug)]
pub enum Answer {
    /// A hash: the answer to most requests, kept without memory of its own.
    Hash(B256),
    /// Compact JSON with keys in alphabetical order.
    Json(Vec<u8>),
}

impl Answer {
    /// Serialises a result.
    pub fn of(value: &impl Serialize) -> Outcome {
        Ok(Self::Json(serde_json::to_vec(value).expect("results have text keys and do not fail")))
    }

    /// Bytes it takes in a reply.
    pub fn length(&self) -> usize {
        match self {
            Self::Hash(_) => 68,
            Self::Json(json) => json.len(),
        }
    }
}

/// Parses strict JSON; text behind the first value is ignored, as in the reference node. What is skipped is not bounded in depth: callers
/// ask [`crate::lenient::shape`] first.
pub fn parse(body: &[u8]) -> Result<Incoming<'_>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        return Ok(Incoming::Single(Call::deserialize(&mut json)?));
    }
    let mut calls = Vec::new();
    let complete = json.deserialize_seq(CappedList { into: &mut calls, cap: MAX_RPC_BATCH })?;
    Ok(if complete { Incoming::Batch(calls) } else { Incoming::TooLong })
}

/// Reads a list into `into`, keeping at most `cap` elements; tells whether that was all.
pub struct CappedList<'v, T> {
    /// Where the elements go.
    pub into: &'v mut Vec<T>,
    /// Elements kept; the rest is skipped.
    pub cap: usize,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for CappedList<'_, T> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        while self.into.len() < self.cap {
            match list.next_element()? {
                Some(element) => self.into.push(element),
                None => return Ok(true),
            }
        }
        let mut complete = true;
        while list.next_element::<IgnoredAny>()?.is_some() {
            complete = false;
        }
        Ok(complete)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Call<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CallVisitor)
    }
}

struct CallVisitor;

/// Visits of anything but an object: not a request, no id.
macro_rules! not_a_request {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E>(self, _: $kind) -> Result<Self::Value, E> {
            Ok(Call::Invalid(None))
        })*
    };
}

impl<'de> Visitor<'de> for CallVisitor {
    type Value = Call<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    not_a_request!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Call::Invalid(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Call::Invalid(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let [version, method, params, id] = MemberVisitor(["jsonrpc", "method", "params", "id"]).visit_map(map)?;
        Ok(checked(version, method, params, id))
    }
}

/// The order of checks is the reference node's: first the envelope, and the id is echoed only when it has an allowed type.
fn checked<'a>(
    version: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
) -> Call<'a> {
    let id_allowed = id.is_none_or(is_id);
    let usable_id = id.filter(|_| id_allowed);
    let version_known = version.and_then(text).is_some_and(|version| version == "2.0");
    let params_allowed = params.is_none_or(|params| matches!(params.get().as_bytes()[0], b'[' | b'{' | b'n'));
    match method.and_then(text) {
        Some(method) if version_known && id_allowed && params_allowed => Call::Valid(Request { method, params, id }),
        _ => Call::Invalid(usable_id),
    }
}

/// Integers of 64 bits, strings and null.
fn is_id(id: &RawValue) -> bool {
    match id.get().as_bytes()[0] {
        b'"' | b'n' => true,
        b'-' | b'0'..=b'9' => integer(id.get()).is_some(),
        _ => false,
    }
}

/// An integer in the reference node's sense: also 1.0 is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Integer {
    /// Written as one.
    Exact(i64),
    /// Above the signed range, or written with a fraction or exponent: accepted as id, not convertible as parameter.
    Wide,
}

/// Reads a JSON number as integer.
pub fn integer(number: &str) -> Option<Integer> {
    if let Ok(exact) = serde_json::from_str(number) {
        return Some(Integer::Exact(exact));
    }
    if serde_json::from_str::<u64>(number).is_ok() {
        return Some(Integer::Wide);
    }
    let wide: f64 = serde_json::from_str(number).ok()?;
    (wide.fract() == 0.0 && wide >= -(2f64.powi(63)) && wide < 2f64.powi(64)).then_some(Integer::Wide)
}

/// A JSON string, borrowed when it has no escapes; `None` when it is something else.
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct TextVisitor;
    impl<'de> Visitor<'de> for TextVisitor {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_str(TextVisitor).ok()
}

/// The named members of an object, as slices of its text; of a repeated member the last counts. `None` when it is not an object.
pub fn members<'a, const N: usize>(raw: &'a RawValue, names: [&'static str; N]) -> Option<[Option<&'a RawValue>; N]> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_map(MemberVisitor(names)).ok()
}

struct MemberVisitor<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for MemberVisitor<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(position) = map.next_key_seed(NameSeed(&self.0))? {
            match position {
                Some(position) => found[position] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Turns a member's name into its position among the names looked for.
struct NameSeed<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|&known| known == name))
    }
}

/// Writes one reply object, without the newline that ends a reply.
pub fn write(out: &mut Vec<u8>, id: Option<&RawValue>, outcome: &Outcome) {
    let id = id.map_or("null", RawValue::get);
    match outcome {
        Ok(answer) => {
            out.extend_from_slice(b"{\"id\":");
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(b",\"jsonrpc\":\"2.0\",\"result\":");
            match answer {
                Answer::Json(json) => out.extend_from_slice(json),
                Answer::Hash(hash) => {
                    let start = out.len();
                    out.extend_from_slice(b"\"0x");
                    out.resize(start + 67, b'"');
                    hex::encode_to_slice(hash, &mut out[start + 3..]).expect("64 digits were reserved");
                    out.push(b'"');
                }
            }
        }
        Err(error) => {
            out.extend_from_slice(format!("{{\"error\":{{\"code\":{}", error.code).as_bytes());
            out.extend_from_slice(if error.origin == Origin::Method { b",\"data\":null,\"message\":" } else { b",\"message\":" });
            serde_json::to_writer(&mut *out, &error.message).expect("writing to memory cannot fail");
            out.extend_from_slice(b"},\"id\":");
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(b",\"jsonrpc\":\"2.0\"");
        }
    }
    out.push(b'}');
}
