//! The temporary object Condition, that contracts build conditions with.

use millrace_base::abi::int256_text;
use millrace_base::{Bytes, U256, hex};
use millrace_core::table::{Comparison, Limit};

use super::Failure;
use super::contract::{Contract, Function, Invocation, Unknown, refused_without_reason};
use super::gas::Operation;

/// The temporary object.
pub(super) const CONDITION: Contract = Contract {
    address: 0,
    name: "Condition",
    counts_input: true,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("e44594b9"), signature: "EQ(string,int256)", run: |i| compare_number(i, Comparison::Equal) },
        Function { selector: hex!("cd30a1d1"), signature: "EQ(string,string)", run: |i| compare_text(i, Comparison::Equal) },
        Function { selector: hex!("c559a73a"), signature: "EQ(string,address)", run: compare_address },
        Function { selector: hex!("39aef024"), signature: "NE(string,int256)", run: |i| compare_number(i, Comparison::NotEqual) },
        Function { selector: hex!("2783acf5"), signature: "NE(string,string)", run: |i| compare_text(i, Comparison::NotEqual) },
        Function { selector: hex!("08ad6333"), signature: "GT(string,int256)", run: |i| compare_number(i, Comparison::Greater) },
        Function { selector: hex!("42f8dd31"), signature: "GE(string,int256)", run: |i| compare_number(i, Comparison::GreaterOrEqual) },
        Function { selector: hex!("c31c9b65"), signature: "LT(string,int256)", run: |i| compare_number(i, Comparison::Less) },
        Function { selector: hex!("b6f23857"), signature: "LE(string,int256)", run: |i| compare_number(i, Comparison::LessOrEqual) },
        Function { selector: hex!("2e0d738a"), signature: "limit(int256)", run: limit_count },
        Function { selector: hex!("7ec1cc65"), signature: "limit(int256,int256)", run: limit_range },
    ],
};

fn compare(invocation: &mut Invocation<'_, '_, '_>, field: &[u8], comparison: Comparison, value: &[u8]) -> Result<Bytes, Failure> {
    let condition = invocation.context.temporaries.condition_mut(invocation.call.address).ok_or_else(refused_without_reason)?;
    condition.compare(&String::from_utf8_lossy(field), comparison, value.to_vec());
    invocation.gas.charge(Operation::Field, 1);
    Ok(Bytes::new())
}

fn compare_number(invocation: &mut Invocation<'_, '_, '_>, comparison: Comparison) -> Result<Bytes, Failure> {
    let field = invocation.arguments.bytes();
    let value = int256_text(invocation.arguments.uint());
    compare(invocation, field, comparison, value.as_bytes())
}

fn compare_text(invocation: &mut Invocation<'_, '_, '_>, comparison: Comparison) -> Result<Bytes, Failure> {
    let (field, value) = (invocation.arguments.bytes(), invocation.arguments.bytes());
    compare(invocation, field, comparison, value)
}

fn compare_address(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let field = invocation.arguments.bytes();
    let value = hex::encode(invocation.arguments.address());
    compare(invocation, field, Comparison::Equal, value.as_bytes())
}

fn limit_count(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let count = invocation.arguments.uint();
    limit(invocation, U256::ZERO, count)
}

fn limit_range(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (offset, count) = (invocation.arguments.uint(), invocation.arguments.uint());
    limit(invocation, offset, count)
}

fn limit(invocation: &mut Invocation<'_, '_, '_>, offset: U256, count: U256) -> Result<Bytes, Failure> {
    // Numbers that 2.x takes for negative (as in int256_text) cannot become a size there.
    if [offset, count].iter().any(|value| *value >> 252 > U256::from(8)) {
        return Err(refused_without_reason());
    }
    let condition = invocation.context.temporaries.condition_mut(invocation.call.address).ok_or_else(refused_without_reason)?;
    // 2.x keeps the low 32 bits, and no limit when they are negative.
    let low = |value: U256| i64::from(value.as_limbs()[0] as u32 as i32);
    condition.limit = limit_of(low(offset), low(count));
    invocation.gas.charge(Operation::Field, 1);
    Ok(Bytes::new())
}

/// A limit as 2.x takes it: none when a number is negative.
pub(super) fn limit_of(offset: i64, count: i64) -> Option<Limit> {
    let (offset, count) = u64::try_from(offset).ok().zip(u64::try_from(count).ok())?;
    Some(Limit { offset, count })
}
