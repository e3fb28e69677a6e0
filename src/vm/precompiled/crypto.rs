//! Crypto, 0x5006: hashes and SM2 signatures for contracts.

mod sm3;

use millrace_base::abi::Encoder;
use millrace_base::{Address, Bytes, hex, keccak256};
use sm2::dsa::signature::Verifier;
use sm2::dsa::{Signature, VerifyingKey};

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
        Function { selector: hex!("cbdb3a67"), signature: "sm2Verify(bytes32,bytes,bytes32,bytes32)", run: verify_sm2 },
        Function {
            selector: hex!("52ce50e8"),
            signature: "curve25519VRFVerify(string,string,string)",
            run: super::unavailable::verify_vrf,
        },
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

#[cfg(test)]
pub(super) fn sm3_of(data: &[u8]) -> [u8; 32] {
    sm3::hash(data)
}

/// The identity that 2.x signs with, the default of GM/T 0009.
const SM2_IDENTITY: &str = "1234567812345678";

/// Whether a key signed the hash, and the SM account of that key. Verification has no price of its own in 2.x.
fn verify_sm2(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let arguments = &mut invocation.arguments;
    let (message, key, r, s) = (arguments.bytes32(), arguments.bytes(), arguments.bytes32(), arguments.bytes32());
    let is_valid = is_sm2_signature(message.as_slice(), key, [r.0, s.0]);
    let account = if is_valid { Address::from_slice(&sm3::hash(key)[12..]) } else { Address::ZERO };
    Ok(Encoder::new().bool(is_valid).address(account).finish())
}

fn is_sm2_signature(message: &[u8], key: &[u8], scalars: [[u8; 32]; 2]) -> bool {
    if key.len() != 64 {
        return false;
    }
    let key = VerifyingKey::from_sec1_bytes(SM2_IDENTITY, &[&[4], key].concat());
    let signature = Signature::from_bytes(scalars.as_flattened().try_into().expect("two words are 64 bytes"));
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
}
