//! Reads event subscriptions and cancellations; both have the same form (`spec/client-protocol.md` 5.1).
//!
//! Accepts what the reference node accepts (numbers in place of texts, one text in place of a list, topics that are no hashes) and
//! refuses the rest with one code. The body is bounded by its caller, lists are bounded here.

use millrace_base::{Address, B256, GroupId, hex};
use serde::Deserialize;
use serde_json::Value;

use super::{Matcher, Position, code};
use crate::limits::{MAX_FILTER_ID_BYTES, MAX_FILTER_ITEMS};

/// Topics that a log can have.
const MAX_POSITIONS: usize = 4;

/// End of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// A height.
    Height(u64),
    /// The head at the time of subscription for the start, no end for the end.
    Latest,
}

/// A subscription that can be read; whether its group runs and its range makes sense is another question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The group whose logs are wanted.
    pub group: GroupId,
    /// The client's name for the subscription.
    pub id: String,
    /// First block.
    pub from: Bound,
    /// Last block.
    pub to: Bound,
    /// Which logs.
    pub matcher: Matcher,
}

/// First and last block of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First.
    pub first: u64,
    /// Last; `None` goes on for ever.
    pub last: Option<u64>,
}

impl Request {
    /// Reads a request; the error is a [`code`].
    pub fn parse(body: &[u8]) -> Result<Self, i32> {
        Self::read(body).ok_or(code::INVALID_REQUEST)
    }

    fn read(body: &[u8]) -> Option<Self> {
        let object = Value::deserialize(&mut serde_json::Deserializer::from_slice(body)).ok()?;
        let group = integer(object.get("groupID")?)?;
        let id = object.get("filterID")?.as_str().filter(|id| !id.is_empty() && id.len() <= MAX_FILTER_ID_BYTES)?.to_owned();
        let matcher = Matcher { addresses: addresses(object.get("addresses")?)?, positions: positions(object.get("topics")?)? };
        let items = matcher.addresses.len() + matcher.positions.iter().map(|position| position.hashes.len()).sum::<usize>();
        if items > MAX_FILTER_ITEMS {
            return None;
        }
        let bound = |name: &str| object.get(name).map_or(Some(Bound::Latest), height);
        let group = GroupId::new(i64::try_from(group).ok()?)?;
        Some(Self { group, id, from: bound("fromBlock")?, to: bound("toBlock")?, matcher })
    }

    /// The range on a chain whose head is `head` and whose logs are kept from `kept_from` on; with `max_blocks` above zero a range may not
    /// reach further back than that.
    pub fn range(&self, (kept_from, head): (u64, u64), max_blocks: u64) -> Result<Range, i32> {
        let first = match self.from {
            Bound::Height(height) => height,
            Bound::Latest => head,
        };
        let last = match self.to {
            Bound::Height(height) => Some(height),
            Bound::Latest => None,
        };
        let is_empty = last.is_some_and(|last| last < first);
        let is_long = max_blocks > 0 && first <= head && head - first >= max_blocks;
        let is_gone = first.max(1) < kept_from;
        if is_empty || is_long || is_gone { Err(code::INVALID_RANGE) } else { Ok(Range { first, last }) }
    }
}

/// A number as text, decimal or hexadecimal, or as JSON integer; never negative.
fn integer(value: &Value) -> Option<u64> {
    let Some(text) = value.as_str() else { return value.as_u64() };
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
        None => text.parse().ok().filter(|_| !text.starts_with('+')),
    }
}

fn height(value: &Value) -> Option<Bound> {
    match value {
        Value::Null => Some(Bound::Latest),
        Value::String(text) if text == "latest" => Some(Bound::Latest),
        // Heights are signed in the reference node.
        value => integer(value).filter(|height| i64::try_from(*height).is_ok()).map(Bound::Height),
    }
}

fn addresses(value: &Value) -> Option<Vec<Address>> {
    let address = |value: &Value| hex::decode_to_array::<_, 20>(value.as_str()?).ok().map(Address::new);
    match value {
        Value::Array(list) if list.len() <= MAX_FILTER_ITEMS => list.iter().map(address).collect(),
        Value::String(_) => Some(vec![address(value)?]),
        _ => None,
    }
}

fn positions(value: &Value) -> Option<Vec<Position>> {
    match value {
        Value::Array(list) if list.len() <= MAX_POSITIONS => list.iter().map(position).collect(),
        Value::Array(_) | Value::Object(_) => None,
        single => Some(vec![position(single)?]),
    }
}

fn position(value: &Value) -> Option<Position> {
    let hash = |value: &Value| hex::decode_to_array::<_, 32>(value.as_str()?).ok().map(B256::new);
    match value {
        Value::Null => Some(Position::default()),
        Value::Array(list) if list.len() <= MAX_FILTER_ITEMS => {
            Some(Position { hashes: list.iter().filter_map(hash).collect(), is_bound: !list.is_empty() })
        }
        Value::Array(_) | Value::Object(_) => None,
        Value::String(text) if text.is_empty() => Some(Position::default()),
        single => Some(Position { hashes: hash(single).into_iter().collect(), is_bound: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(change: impl FnOnce(&mut Value)) -> Result<Request, i32> {
        let mut object = json!({"groupID": "1", "filterID": "f", "fromBlock": "1", "toBlock": "5", "addresses": [], "topics": []});
        change(&mut object);
        Request::parse(object.to_string().as_bytes())
    }

    #[test]
    fn missing_or_wrong_members_are_invalid_requests() {
        for body in ["", "xx", "[]", "\"x\"", r#"{"groupID":"1"}"#, r#"{"groupID":"1","filterID":"f"}"#] {
            assert_eq!(Request::parse(body.as_bytes()), Err(code::INVALID_REQUEST), "{body}");
        }
        let wrong: [(&str, Value); 14] = [
            ("groupID", json!("abc")),
            ("groupID", json!("0")),
            ("groupID", json!("32768")),
            ("groupID", json!(-1)),
            ("filterID", json!("")),
            ("filterID", json!("f".repeat(MAX_FILTER_ID_BYTES + 1))),
            ("fromBlock", json!("abc")),
            ("fromBlock", json!("-5")),
            ("toBlock", json!("18446744073709551615")),
            ("addresses", json!(5)),
            ("addresses", json!(["xyz"])),
            ("topics", json!([[], [], [], [], []])),
            ("topics", json!({})),
            ("addresses", json!(vec!["11".repeat(20); MAX_FILTER_ITEMS + 1])),
        ];
        for (key, value) in wrong {
            assert_eq!(with(|object| object[key] = value.clone()), Err(code::INVALID_REQUEST), "{key} {value}");
        }
    }

    #[test]
    fn numbers_may_be_texts_or_integers_and_absent_blocks_are_the_latest() {
        let plain = with(|_| {}).unwrap();
        let same = |change: fn(&mut Value)| with(change).unwrap() == plain;
        assert!(same(|object| object["groupID"] = json!(1)));
        assert!(same(|object| object["groupID"] = json!("0x1")));
        assert!(same(|object| object["fromBlock"] = json!(1)));
        assert!(same(|object| object["toBlock"] = json!("0x5")));
        let open = with(|object| drop(object.as_object_mut().unwrap().remove("toBlock"))).unwrap();
        assert_eq!((open.from, open.to), (Bound::Height(1), Bound::Latest));
    }

    #[test]
    fn single_texts_stand_for_lists_and_topics_need_not_be_hashes() {
        let (address, topic) = ("0x".to_owned() + &"1a".repeat(20), "0x".to_owned() + &"2b".repeat(32));
        let listed = with(|object| (object["addresses"], object["topics"]) = (json!([address]), json!([topic]))).unwrap();
        let single = with(|object| (object["addresses"], object["topics"]) = (json!(address), json!(topic))).unwrap();
        assert_eq!(listed, single);
        for odd in [json!(5), json!(["zz"]), json!([7]), json!("zz")] {
            let positions = with(|object| object["topics"] = odd.clone()).unwrap().matcher.positions;
            assert_eq!(positions, [Position { hashes: Vec::new(), is_bound: true }], "{odd}");
        }
    }

    #[test]
    fn range_is_checked_against_the_head() {
        let range = |from: Value, to: Value, head, max| {
            with(|object| (object["fromBlock"], object["toBlock"]) = (from, to)).unwrap().range((4, head), max)
        };
        assert_eq!(range(json!("10"), json!("5"), 20, 0), Err(code::INVALID_RANGE));
        assert_eq!(range(json!("latest"), json!("5"), 20, 0), Err(code::INVALID_RANGE));
        assert_eq!(range(json!("latest"), json!("latest"), 20, 0), Ok(Range { first: 20, last: None }));
        assert_eq!(range(json!("1000"), json!("latest"), 20, 5), Ok(Range { first: 1_000, last: None }));
        assert_eq!(range(json!("1"), json!("5"), 20, 10), Err(code::INVALID_RANGE));
        assert_eq!(range(json!("3"), json!("15"), 20, 0), Err(code::INVALID_RANGE), "block 3 is not kept");
        assert_eq!(range(json!("4"), json!("15"), 20, 0), Ok(Range { first: 4, last: Some(15) }));
        assert_eq!(range(json!("11"), json!("15"), 20, 10), Ok(Range { first: 11, last: Some(15) }));
    }
}
