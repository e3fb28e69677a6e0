//! The temporary objects Entry and Entries: fields of one row, and the rows that a selection gave.

use millrace_base::abi::{Encoder, int256_text, parse_int256};
use millrace_base::{Address, B256, Bytes, U256, hex};

use super::Failure;
use super::contract::{Contract, Function, Invocation, Unknown, number, refused, refused_without_reason};
use super::gas::Operation;

/// Rows of a selection.
pub(super) const ENTRIES: Contract = Contract {
    address: 0,
    name: "Entries",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("846719e0"), signature: "get(int256)", run: get },
        Function { selector: hex!("949d225d"), signature: "size()", run: size },
    ],
};

/// One row.
pub(super) const ENTRY: Contract = Contract {
    address: 0,
    name: "Entry",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("fda69fae"), signature: "getInt(string)", run: get_number },
        Function { selector: hex!("3536046a"), signature: "getUInt(string)", run: get_number },
        Function { selector: hex!("bf40fac1"), signature: "getAddress(string)", run: get_address },
        Function { selector: hex!("d52decd4"), signature: "getBytes64(string)", run: get_bytes64 },
        Function { selector: hex!("27314f79"), signature: "getBytes32(string)", run: get_bytes32 },
        Function { selector: hex!("9c981fcb"), signature: "getString(string)", run: get_string },
        Function { selector: hex!("2ef8ba74"), signature: "set(string,int256)", run: set_int },
        Function { selector: hex!("8a42ebe9"), signature: "set(string,uint256)", run: set_uint },
        Function { selector: hex!("e942b516"), signature: "set(string,string)", run: set_text },
        Function { selector: hex!("a815ff15"), signature: "set(string,address)", run: set_address },
    ],
};

fn get(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let index = invocation.arguments.uint().as_limbs()[0];
    let entries = invocation.call.address;
    let row = usize::try_from(index).ok().and_then(|row| invocation.context.temporaries.take_entry(entries, row));
    let entry = row.ok_or_else(|| refused(format!("Entries no exists: {index}")))?;
    Ok(Encoder::new().address(entry).finish())
}

fn size(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let size = invocation.context.temporaries.entries_len(invocation.call.address).ok_or_else(refused_without_reason)?;
    Ok(number(U256::from(size)))
}

/// The value of the field that the next argument names; missing fields are empty.
fn value(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let name = invocation.arguments.bytes();
    let entry = invocation.context.temporaries.entry(invocation.call.address).ok_or_else(refused_without_reason)?;
    Ok(entry.get(&*String::from_utf8_lossy(name)).cloned().unwrap_or_default())
}

fn get_number(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let value = value(invocation)?;
    let parsed = std::str::from_utf8(&value).ok().and_then(parse_int256).ok_or_else(refused_without_reason)?;
    invocation.gas.charge(Operation::Field, 1);
    Ok(number(parsed))
}

fn get_address(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let address = parse_address(&value(invocation)?).ok_or_else(refused_without_reason)?;
    invocation.gas.charge(Operation::Field, 1);
    Ok(Encoder::new().address(address).finish())
}

/// An address as 2.x reads it from text: any number of hexadecimal digits, with or without `0x`; zero unless they are 20 bytes.
pub(super) fn parse_address(text: &[u8]) -> Option<Address> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 20];
    // 39 digits are 20 bytes too: the first digit is one of its own.
    let padded = if digits.len() == 39 { [b"0", digits].concat() } else { digits.to_vec() };
    Some(hex::decode_to_slice(&padded, &mut bytes).map_or(Address::ZERO, |()| Address::new(bytes)))
}

/// The 32 bytes of a value from `start` on, zeros behind its end.
fn chunk(value: &[u8], start: usize) -> B256 {
    let rest = value.get(start..).unwrap_or_default();
    let mut chunk = B256::ZERO;
    let len = rest.len().min(32);
    chunk[..len].copy_from_slice(&rest[..len]);
    chunk
}

fn get_bytes32(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let value = value(invocation)?;
    invocation.gas.charge(Operation::Bytes32, 1);
    Ok(Encoder::new().bytes32(chunk(&value, 0)).finish())
}

fn get_bytes64(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let value = value(invocation)?;
    invocation.gas.charge(Operation::Bytes64, 1);
    Ok(Encoder::new().bytes32(chunk(&value, 0)).bytes32(chunk(&value, 32)).finish())
}

fn get_string(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let value = value(invocation)?;
    invocation.gas.charge(Operation::Field, 1);
    Ok(Encoder::new().bytes(&value).finish())
}

fn set(invocation: &mut Invocation<'_, '_, '_>, name: &[u8], value: Bytes) -> Result<Bytes, Failure> {
    let entry = invocation.context.temporaries.entry_mut(invocation.call.address).ok_or_else(refused_without_reason)?;
    entry.insert(String::from_utf8_lossy(name).into(), value);
    invocation.gas.charge(Operation::Field, 1);
    Ok(Bytes::new())
}

fn set_int(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (name, value) = (invocation.arguments.bytes(), invocation.arguments.uint());
    set(invocation, name, int256_text(value).into_bytes().into())
}

fn set_uint(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (name, value) = (invocation.arguments.bytes(), invocation.arguments.uint());
    set(invocation, name, value.to_string().into_bytes().into())
}

fn set_text(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (name, value) = (invocation.arguments.bytes(), invocation.arguments.bytes());
    set(invocation, name, Bytes::copy_from_slice(value))
}

fn set_address(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (name, value) = (invocation.arguments.bytes(), invocation.arguments.address());
    set(invocation, name, hex::encode(value).into_bytes().into())
}
