//! Crypto, 0x5006: hashes for contracts. SM2 and VRF verification answer as unknown functions.

mod sm3;

use millrace_base::abi::Encoder;
use millrace_base::{Bytes, hex, keccak256};

use super::contract::{Contract, Function, Invocation, Unknown};
use super::{Failure, codes};

/// The contract. Unlike others it gives codes as unsigned 32-bit numbers.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x5006,
    name: "Crypto",
    counts_input: true,
    unknown: Unknown::Code(codes::UNKNOWN_FUNCTION as u32 as i64),
    functions: &[
        Function { selector: hex!("fb34363c"), signature: "sm3(bytes)", run: hash_sm3 },
        Function { selector: hex!("eb90f459"), signature: "keccak256Hash(bytes)", run: hash_keccak },
    ],
};

fn hash_sm3(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let hash = sm3::hash(invocation.arguments.bytes());
    Ok(Encoder::new().bytes32(hash.into()).finish())
}

fn hash_keccak(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let hash = keccak256(invocation.arguments.bytes());
    Ok(Encoder::new().bytes32(hash).finish())
}
