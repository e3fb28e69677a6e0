//! Solidity ABI as clients and the system contracts of 2.x write and read it.
//!
//! [`Encoder`] builds arguments, return data and whole calls. [`Decoder`] reads them strictly: what is malformed is an error, and no
//! offset or length reaches beyond the data, so nothing is allocated that the data does not hold. [`LenientDecoder`] is the reading of
//! the 2.x system contracts: from the first malformed argument on, every argument is empty or zero (README of the recordings,
//! correction 14). Integers are [`U256`] in two's complement.
//!
//! Used by the precompiled contracts, the EVM binding (revert data), the load generator and tests.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};

/// Size of every static value and of the unit that dynamic values are padded to.
pub const WORD_BYTES: usize = 32;

/// Elements of one decoded array; the reference node has no bound. Far above what any system contract takes.
pub const MAX_ARRAY_ITEMS: usize = 10_000;

/// The four bytes a call begins with.
pub type Selector = [u8; 4];

/// The selector of a function, by its canonical signature such as `set(string,uint256)`.
pub fn selector(signature: &str) -> Selector {
    let hash = keccak256(signature.as_bytes());
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Revert data that carries a text: `Error(string)`.
pub fn error_string(text: impl AsRef<[u8]>) -> Bytes {
    Encoder::call(selector("Error(string)")).bytes(text.as_ref()).finish()
}

/// A small signed number in two's complement.
pub fn int256(value: i64) -> U256 {
    let magnitude = U256::from(value.unsigned_abs());
    if value < 0 { U256::ZERO.wrapping_sub(magnitude) } else { magnitude }
}

/// Whether the number is negative when read as int256.
pub fn is_negative(value: U256) -> bool {
    value.bit(255)
}

/// The decimal text of a number read as int256, as the 2.x node stores it. That node takes numbers up to 0x8fff… for positive: kept,
/// the text is what clients read back.
pub fn int256_text(value: U256) -> String {
    if value >> 252 > U256::from(8) { format!("-{}", U256::ZERO.wrapping_sub(value)) } else { value.to_string() }
}

/// The inverse of [`int256_text`], also reading a leading `+`; `None` when it is not a number or does not fit 256 bits.
pub fn parse_int256(text: &str) -> Option<U256> {
    let (is_minus, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_uint256(digits)?;
    Some(if is_minus { U256::ZERO.wrapping_sub(magnitude) } else { magnitude })
}

/// A decimal number of digits only that fits 256 bits.
pub fn parse_uint256(digits: &str) -> Option<U256> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    U256::from_str_radix(digits, 10).ok()
}

/// Builds ABI data value by value, in the order of the signature.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    selector: Option<Selector>,
    head: Vec<Slot>,
    tail: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Value([u8; WORD_BYTES]),
    /// A dynamic value that begins here in the tail.
    Tail(usize),
}

impl Encoder {
    /// Arguments or return data without selector.
    pub fn new() -> Self {
        Self::default()
    }

    /// A call of a function.
    pub fn call(selector: Selector) -> Self {
        Self { selector: Some(selector), ..Self::default() }
    }

    /// `uintN`, or `intN` in two's complement.
    pub fn uint(mut self, value: U256) -> Self {
        self.head.push(Slot::Value(value.to_be_bytes()));
        self
    }

    /// `intN` of a small number.
    pub fn int(self, value: i64) -> Self {
        self.uint(int256(value))
    }

    /// `bool`.
    pub fn bool(self, is_true: bool) -> Self {
        self.uint(U256::from(u8::from(is_true)))
    }

    /// `address`.
    pub fn address(mut self, address: Address) -> Self {
        self.head.push(Slot::Value(address.into_word().0));
        self
    }

    /// `bytes32`.
    pub fn bytes32(mut self, value: B256) -> Self {
        self.head.push(Slot::Value(value.0));
        self
    }

    /// `string`.
    pub fn string(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// `bytes`, or a `string` that need not be UTF-8.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.head.push(Slot::Tail(self.tail.len()));
        push_bytes(&mut self.tail, bytes);
        self
    }

    /// `address[]`.
    pub fn addresses(mut self, addresses: &[Address]) -> Self {
        self.head.push(Slot::Tail(self.tail.len()));
        push_length(&mut self.tail, addresses.len());
        for address in addresses {
            self.tail.extend_from_slice(address.into_word().as_slice());
        }
        self
    }

    /// `string[]`.
    pub fn strings<T: AsRef<str>>(mut self, texts: &[T]) -> Self {
        self.head.push(Slot::Tail(self.tail.len()));
        push_length(&mut self.tail, texts.len());
        let mut offset = texts.len() * WORD_BYTES;
        for text in texts {
            push_length(&mut self.tail, offset);
            offset += WORD_BYTES + padded(text.as_ref().len());
        }
        for text in texts {
            push_bytes(&mut self.tail, text.as_ref().as_bytes());
        }
        self
    }

    /// The data.
    pub fn finish(self) -> Bytes {
        let head_len = self.head.len() * WORD_BYTES;
        let mut out = Vec::with_capacity(4 + head_len + self.tail.len());
        out.extend_from_slice(self.selector.as_ref().map_or(&[], |selector| &selector[..]));
        for slot in self.head {
            match slot {
                Slot::Value(word) => out.extend_from_slice(&word),
                Slot::Tail(start) => push_length(&mut out, head_len + start),
            }
        }
        out.extend_from_slice(&self.tail);
        out.into()
    }
}

fn padded(len: usize) -> usize {
    len.div_ceil(WORD_BYTES) * WORD_BYTES
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&U256::from(length).to_be_bytes::<WORD_BYTES>());
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
    out.resize(out.len() + padded(bytes.len()) - bytes.len(), 0);
}

/// ABI data ends within a value, or an offset or length points beyond it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed ABI data")]
pub struct AbiError;

/// Reads ABI data value by value, in the order of the signature. Data may be longer than what is read; padding behind the last
/// dynamic value may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    /// Of arguments or return data, without selector.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    fn word(&mut self) -> Result<&'a [u8; WORD_BYTES], AbiError> {
        let word = word_at(self.data, self.position)?;
        self.position += WORD_BYTES;
        Ok(word)
    }

    /// `uintN`, or `intN` in two's complement.
    pub fn uint(&mut self) -> Result<U256, AbiError> {
        self.word().map(|word| U256::from_be_bytes(*word))
    }

    /// `bool`: anything but zero is true.
    pub fn bool(&mut self) -> Result<bool, AbiError> {
        self.uint().map(|value| !value.is_zero())
    }

    /// `address`: the low 20 bytes, whatever is above them.
    pub fn address(&mut self) -> Result<Address, AbiError> {
        self.word().map(|word| Address::from_slice(&word[12..]))
    }

    /// `bytes32`.
    pub fn bytes32(&mut self) -> Result<B256, AbiError> {
        self.word().map(|word| B256::new(*word))
    }

    /// `bytes`, or a `string` whose encoding is not checked.
    pub fn bytes(&mut self) -> Result<&'a [u8], AbiError> {
        let start = self.offset()?;
        bytes_at(self.data, start)
    }

    /// `string`.
    pub fn string(&mut self) -> Result<&'a str, AbiError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| AbiError)
    }

    /// `address[]`, at most [`MAX_ARRAY_ITEMS`].
    pub fn addresses(&mut self) -> Result<Vec<Address>, AbiError> {
        let (items, count) = self.array()?;
        (0..count).map(|index| word_at(items, index * WORD_BYTES).map(|word| Address::from_slice(&word[12..]))).collect()
    }

    /// `string[]`, at most [`MAX_ARRAY_ITEMS`].
    pub fn strings(&mut self) -> Result<Vec<&'a str>, AbiError> {
        let (items, count) = self.array()?;
        let text = |index| bytes_at(items, length_at(items, index * WORD_BYTES)?);
        (0..count).map(|index| std::str::from_utf8(text(index)?).map_err(|_| AbiError)).collect()
    }

    fn offset(&mut self) -> Result<usize, AbiError> {
        let start = length_at(self.data, self.position)?;
        self.position += WORD_BYTES;
        Ok(start)
    }

    /// The data behind an array's length, and the length.
    fn array(&mut self) -> Result<(&'a [u8], usize), AbiError> {
        let start = self.offset()?;
        let count = length_at(self.data, start)?;
        let items = &self.data[start + WORD_BYTES..];
        if count > MAX_ARRAY_ITEMS || count > items.len() / WORD_BYTES {
            return Err(AbiError);
        }
        Ok((items, count))
    }
}

fn word_at(data: &[u8], start: usize) -> Result<&[u8; WORD_BYTES], AbiError> {
    data.get(start..).and_then(|rest| rest.first_chunk()).ok_or(AbiError)
}

/// A number at `start` that is not larger than the data.
fn length_at(data: &[u8], start: usize) -> Result<usize, AbiError> {
    let value = U256::from_be_bytes(*word_at(data, start)?);
    usize::try_from(value).ok().filter(|length| *length <= data.len()).ok_or(AbiError)
}

fn bytes_at(data: &[u8], start: usize) -> Result<&[u8], AbiError> {
    let length = length_at(data, start)?;
    data[start + WORD_BYTES..].get(..length).ok_or(AbiError)
}

/// Reads arguments as the 2.x system contracts do: from the first malformed one on, all are empty or zero.
#[derive(Clone, Copy, Debug)]
pub struct LenientDecoder<'a> {
    strict: Decoder<'a>,
    is_malformed: bool,
}

impl<'a> LenientDecoder<'a> {
    /// Of arguments, without selector.
    pub fn new(data: &'a [u8]) -> Self {
        Self { strict: Decoder::new(data), is_malformed: false }
    }

    fn take<T: Default>(&mut self, read: impl FnOnce(&mut Decoder<'a>) -> Result<T, AbiError>) -> T {
        if self.is_malformed {
            return T::default();
        }
        read(&mut self.strict).unwrap_or_else(|_| {
            self.is_malformed = true;
            T::default()
        })
    }

    /// `uintN`, or `intN` in two's complement.
    pub fn uint(&mut self) -> U256 {
        self.take(Decoder::uint)
    }

    /// `address`.
    pub fn address(&mut self) -> Address {
        self.take(Decoder::address)
    }

    /// `bytes32`.
    pub fn bytes32(&mut self) -> B256 {
        self.take(Decoder::bytes32)
    }

    /// `bytes`, or a `string`: the 2.x node does not look at its encoding.
    pub fn bytes(&mut self) -> &'a [u8] {
        self.take(Decoder::bytes)
    }
}

#[cfg(test)]
#[path = "abi/tests.rs"]
mod tests;
