//! Parameters: the declared types, and the conversions of texts into numbers, hashes and addresses (`spec/client-protocol.md` 2.4, 2.5).
//!
//! Count and types are checked against the declaration before a method runs, so a method can take its arguments without looking again.

use std::borrow::Cow;

use millrace_base::{Address, B256, Bytes, U256, hex};
use serde::Deserializer;
use serde_json::value::RawValue;

use crate::envelope::{CappedList, Integer, integer, text};
use crate::error::RpcError;
use crate::limits::MAX_ARGUMENTS;

/// JSON type of a declared parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A JSON integer of 32 bits; group ids.
    Integer,
    /// A JSON string; heights, indexes, hashes, data.
    Text,
    /// A JSON boolean.
    Flag,
    /// A JSON object.
    Object,
    /// A JSON array; taken apart by the method.
    List,
}

/// A declared parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Name for documentation; parameters are positional.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

/// What a method takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Nothing is checked: the reference node's methods without declared parameters accept anything.
    Unchecked,
    /// An array of exactly these.
    Exactly(&'static [Parameter]),
    /// An array of these, of which the given number must be there. Where 2.x has fewer parameters, those after them are ours.
    AtLeast(usize, &'static [Parameter]),
}

enum Argument<'a> {
    Integer(i32),
    Text(Cow<'a, str>),
    Flag(bool),
    Object(&'a RawValue),
}

/// Arguments that fit a declaration.
pub struct Arguments<'a> {
    list: Vec<Argument<'a>>,
    raw: Option<&'a RawValue>,
}

impl<'a> Arguments<'a> {
    /// Checks `raw` against `shape`.
    pub fn check(shape: Shape, raw: Option<&'a RawValue>) -> Result<Self, RpcError> {
        let (required, parameters) = match shape {
            Shape::Unchecked => return Ok(Self { list: Vec::new(), raw }),
            Shape::Exactly(parameters) => (parameters.len(), parameters),
            Shape::AtLeast(required, parameters) => (required, parameters),
        };
        let values = raw.and_then(|raw| elements(raw, MAX_ARGUMENTS)).ok_or(RpcError::INVALID_PARAMS)?;
        if values.len() < required || values.len() > parameters.len() {
            return Err(RpcError::INVALID_PARAMS);
        }
        if !values.iter().zip(parameters).all(|(value, parameter)| has_kind(value, parameter.kind)) {
            return Err(RpcError::INVALID_PARAMS);
        }
        let converted = values.into_iter().zip(parameters).map(|(value, parameter)| convert(value, parameter.kind));
        Ok(Self { list: converted.collect::<Result<_, _>>()?, raw })
    }

    /// The integer at `position`.
    pub fn integer(&self, position: usize) -> i32 {
        match self.list.get(position) {
            Some(Argument::Integer(value)) => *value,
            _ => unreachable!("the method declares an integer at {position}"),
        }
    }

    /// The text at `position`.
    pub fn text(&self, position: usize) -> &str {
        match self.list.get(position) {
            Some(Argument::Text(value)) => value,
            _ => unreachable!("the method declares a text at {position}"),
        }
    }

    /// The text at `position`, if the client gave one there.
    pub fn optional_text(&self, position: usize) -> Option<&str> {
        (position < self.list.len()).then(|| self.text(position))
    }

    /// The flag at `position`.
    pub fn flag(&self, position: usize) -> bool {
        match self.list.get(position) {
            Some(Argument::Flag(value)) => *value,
            _ => unreachable!("the method declares a flag at {position}"),
        }
    }

    /// The object or list at `position`, unparsed.
    pub fn object(&self, position: usize) -> &'a RawValue {
        match self.list.get(position) {
            Some(Argument::Object(value)) => value,
            _ => unreachable!("the method declares an object or a list at {position}"),
        }
    }

    /// The first element of `params` as the client sent it, of methods whose parameters are unchecked.
    pub fn first_unchecked(&self) -> Option<&'a RawValue> {
        self.raw.and_then(|raw| elements(raw, MAX_ARGUMENTS))?.into_iter().next()
    }
}

/// Up to `cap` elements of an array; `None` when it is something else or longer.
pub fn elements(raw: &RawValue, cap: usize) -> Option<Vec<&RawValue>> {
    let mut list = Vec::with_capacity(2);
    let complete = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(CappedList { into: &mut list, cap }).ok()?;
    complete.then_some(list)
}

/// The first element of an array when it is an integer.
pub fn first_integer(raw: &RawValue) -> Option<i64> {
    let first = elements(raw, MAX_ARGUMENTS)?.into_iter().next()?;
    match integer(first.get()) {
        Some(Integer::Exact(exact)) => Some(exact),
        _ => None,
    }
}

fn has_kind(value: &RawValue, kind: Kind) -> bool {
    let first = value.get().as_bytes()[0];
    match kind {
        Kind::Text => first == b'"',
        Kind::Flag => matches!(first, b't' | b'f'),
        Kind::Object => first == b'{',
        Kind::List => first == b'[',
        Kind::Integer => matches!(first, b'-' | b'0'..=b'9') && integer(value.get()).is_some(),
    }
}

fn convert(value: &RawValue, kind: Kind) -> Result<Argument<'_>, RpcError> {
    Ok(match kind {
        Kind::Text => Argument::Text(text(value).ok_or(RpcError::CONVERSION)?),
        Kind::Flag => Argument::Flag(value.get() == "true"),
        Kind::Object | Kind::List => Argument::Object(value),
        Kind::Integer => match integer(value.get()) {
            Some(Integer::Exact(exact)) => Argument::Integer(i32::try_from(exact).map_err(|_| RpcError::CONVERSION)?),
            _ => return Err(RpcError::CONVERSION),
        },
    })
}

/// A number: `0x` and hexadecimal digits, or decimal digits; nothing at all is 0. Wider values wrap.
pub fn number(text: &str) -> Result<U256, RpcError> {
    if let Some(digits) = text.strip_prefix("0x") {
        return wrapping_digits(digits, 16).ok_or_else(RpcError::bad_hex);
    }
    wrapping_digits(text, 10).ok_or_else(|| RpcError::not_a_number(text))
}

/// A block height: a [`number`] that fits 63 bits.
pub fn height(text: &str) -> Result<u64, RpcError> {
    let number = number(text)?;
    u64::try_from(number).ok().filter(|&height| i64::try_from(height).is_ok()).ok_or_else(RpcError::out_of_range)
}

/// A position or count: a [`number`] of which the low 64 bits count.
pub fn position(text: &str) -> Result<u64, RpcError> {
    Ok(number(text)?.as_limbs()[0])
}

fn wrapping_digits(digits: &str, radix: u32) -> Option<U256> {
    // Beyond 256 bits only the tail of hexadecimal digits counts; a decimal number that long is no sensible input and is not worth wrapping.
    let checked = if radix == 16 { digits.get(digits.len().saturating_sub(64)..)? } else { digits.get(..digits.len().min(100))? };
    if !digits.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    let (base, mut value) = (U256::from(radix), U256::ZERO);
    for digit in checked.chars() {
        value = value.wrapping_mul(base).wrapping_add(U256::from(digit.to_digit(radix)?));
    }
    Some(value)
}

/// A hash: `0x` and hexadecimal digits, zero-filled or cut on the left; decimal digits as a number; other text is the zero hash.
pub fn hash(text: &str) -> B256 {
    let number = match text.strip_prefix("0x") {
        Some(digits) => wrapping_digits(digits, 16),
        None => wrapping_digits(text, 10),
    };
    B256::from(number.unwrap_or_default())
}

/// An address: 40 hexadecimal digits with or without `0x`.
pub fn address(text: &str) -> Result<Address, RpcError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = [0; 20];
    if digits.len() != 40 || digits.starts_with("0x") {
        return Err(RpcError::bad_address());
    }
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| RpcError::bad_address())?;
    Ok(Address::from(bytes))
}

/// Data: hexadecimal digits with or without `0x`; of an odd number the first stands alone.
pub fn data(text: &str) -> Result<Bytes, RpcError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bad = || RpcError::bad_data(text);
    if digits.starts_with("0x") {
        return Err(bad());
    }
    if digits.len().is_multiple_of(2) {
        return hex::decode(digits).map(Bytes::from).map_err(|_| bad());
    }
    hex::decode(format!("0{digits}")).map(Bytes::from).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_reference_node_reads_them() {
        for (text, expected) in [("", 0), ("0x", 0), ("01", 1), ("0x01", 1), ("0x1", 1), ("0xFf", 255), ("10", 10)] {
            assert_eq!(height(text).unwrap(), expected, "{text:?}");
        }
        for text in ["latest", "-1", "1.5", " 1", "0X1", "1e3", "0xzz", "0xffffffffffffffff", "9223372036854775808", "链"] {
            assert_eq!(height(text).unwrap_err().code, -32603, "{text:?}");
        }
        assert_eq!(position("18446744073709551617").unwrap(), 1);
    }

    #[test]
    fn hashes_are_filled_and_cut_on_the_left() {
        assert_eq!(hash("0x12"), B256::with_last_byte(0x12));
        assert_eq!(hash("0x123")[30..], [0x01, 0x23]);
        assert_eq!(hash("255"), B256::with_last_byte(255));
        assert_eq!(hash(&format!("0x{}07", "11".repeat(32)))[30..], [0x11, 0x07]);
        for text in ["hello", "", "0x", "0xzz", &"ab".repeat(32)] {
            assert_eq!(hash(text), B256::ZERO, "{text:?}");
        }
    }

    #[test]
    fn addresses_have_forty_digits() {
        assert!(address(&"aB".repeat(20)).is_ok());
        assert!(address(&format!("0x{}", "ab".repeat(20))).is_ok());
        for text in ["", "0x", "0x12", "hello", &format!("0x0x{}", "ab".repeat(19)), &"zz".repeat(20)] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn data_of_odd_length_is_filled() {
        assert_eq!(data("0x123").unwrap()[..], [0x01, 0x23]);
        assert_eq!(data("0102").unwrap()[..], [1, 2]);
        assert!(data("").unwrap().is_empty());
        assert!(data("0x0x12").is_err() && data("hello").is_err() && data("0x链").is_err());
    }
}
