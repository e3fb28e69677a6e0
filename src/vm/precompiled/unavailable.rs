//! Contracts whose cryptography is not there: they are, they know their functions, and they refuse.
//!
//! Group and ring signatures have no maintained library. For Paillier and the VRF there is no recorded answer to check a format against:
//! the recorded node had stubs.
//!
//! Answering `false` would let a contract take "not checked" for "checked and wrong". 2.x chains whose binaries were built without
//! this cryptography behave the same way. See `docs/compatibility.md`.

use millrace_base::{Bytes, hex};

use super::contract::{Contract, Function, Invocation, Unknown, refused};
use super::{Failure, codes};

/// Rotation of rPBFT's working sealers. It needs the curve25519 VRF. The signature is not in ABI form: 2.x computes the selector from this
/// text.
pub(super) const WORKING_SEALER_MANAGER: Contract = Contract {
    address: 0x1011,
    name: "WorkingSealerManager",
    counts_input: false,
    unknown: Unknown::Empty,
    functions: &[Function {
        selector: hex!("df04e6b2"),
        signature: "rotateWorkingSealer(std::string, std::string, std::string)",
        run: |_| Err(not_available("rotation of working sealers")),
    }],
};

/// Addition under Paillier encryption.
pub(super) const PAILLIER: Contract = Contract {
    address: 0x5003,
    name: "Paillier",
    counts_input: true,
    unknown: Unknown::Code(codes::UNKNOWN_FUNCTION),
    functions: &[Function {
        selector: hex!("938e7668"),
        signature: "paillierAdd(string,string)",
        run: |_| Err(not_available("Paillier addition")),
    }],
};

/// Group signatures.
pub(super) const GROUP_SIGNATURE: Contract = Contract {
    address: 0x5004,
    name: "GroupSig",
    counts_input: true,
    unknown: Unknown::Code(codes::UNKNOWN_FUNCTION),
    functions: &[Function {
        selector: hex!("b2c8ac1e"),
        signature: "groupSigVerify(string,string,string,string)",
        run: |_| Err(not_available("verification of group signatures")),
    }],
};

/// Ring signatures.
pub(super) const RING_SIGNATURE: Contract = Contract {
    address: 0x5005,
    name: "RingSig",
    counts_input: true,
    unknown: Unknown::Code(codes::UNKNOWN_FUNCTION),
    functions: &[Function {
        selector: hex!("4090ff6d"),
        signature: "ringSigVerify(string,string,string)",
        run: |_| Err(not_available("verification of ring signatures")),
    }],
};

/// `curve25519VRFVerify` of Crypto.
pub(super) fn verify_vrf(_invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    Err(not_available("verification of curve25519 VRF proofs"))
}

fn not_available(what: &str) -> Failure {
    refused(format!("{what} is not available on this chain"))
}
