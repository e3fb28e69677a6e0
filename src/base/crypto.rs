//! The crypto suite: Keccak-256 and ECDSA over secp256k1, by libsecp256k1.
//!
//! Signatures are `r || s || recovery id` with the id 0 or 1 and s in the lower half of the order, everywhere.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::{Address, B256, hex, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};

/// The curve's order: r stays below it.
const CURVE_ORDER: [u8; 32] = hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");

/// Half of the curve's order: the largest s a signature may carry.
const HALF_ORDER: [u8; 32] = hex!("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0");

/// Why a signature, key or id cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CryptoError {
    /// r or s zero or not below the order, s in the upper half, or no point has this r.
    #[error("invalid signature")]
    Signature,
    /// Not a private key of the curve.
    #[error("invalid private key")]
    PrivateKey,
    /// Not 128 hexadecimal digits of a point on the curve.
    #[error("invalid node id: it must be 128 hexadecimal digits, the public key without its 04 prefix")]
    NodeId,
}

/// An ECDSA signature with recovery id, as blocks and JSON carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Signature(pub [u8; 65]);

impl Signature {
    /// From parts; no validity is checked here, [`recover`] does.
    pub fn from_parts(r: B256, s: B256, recovery_id: u8) -> Self {
        let mut bytes = [0; 65];
        bytes[..32].copy_from_slice(r.as_slice());
        bytes[32..64].copy_from_slice(s.as_slice());
        bytes[64] = recovery_id;
        Self(bytes)
    }

    /// The r value.
    pub fn r(&self) -> B256 {
        B256::from_slice(&self.0[..32])
    }

    /// The s value.
    pub fn s(&self) -> B256 {
        B256::from_slice(&self.0[32..64])
    }

    /// 0 or 1 in a valid signature.
    pub fn recovery_id(&self) -> u8 {
        self.0[64]
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(self.0))
    }
}

/// A node's identity: its public key without the 04 prefix; printed as 128 lowercase hexadecimal digits without 0x.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct NodeId(pub [u8; 64]);

impl NodeId {
    /// Parses 128 hexadecimal digits of either case, without checking that they are a point on the curve:
    /// the reference node accepts any 64 bytes as a sealer.
    pub fn parse(text: &str) -> Result<Self, CryptoError> {
        let mut bytes = [0; 64];
        if text.len() != 128 {
            return Err(CryptoError::NodeId);
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| CryptoError::NodeId)?;
        Ok(Self(bytes))
    }

    /// Checks that `signature` over `digest` was made with this node's key.
    pub fn verify(&self, digest: B256, signature: &Signature) -> bool {
        recover_key(digest, signature).is_ok_and(|key| key == *self)
    }
}

impl FromStr for NodeId {
    type Err = CryptoError;

    fn from_str(text: &str) -> Result<Self, CryptoError> {
        Self::parse(text)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({}…)", &hex::encode(&self.0[..4]))
    }
}

/// A private key with its public parts. Its `Debug` form never shows the secret.
#[derive(Clone)]
pub struct KeyPair {
    secret: SecretKey,
    node_id: NodeId,
}

impl KeyPair {
    /// From the 32-byte secret.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, CryptoError> {
        let secret = SecretKey::from_byte_array(*secret).map_err(|_| CryptoError::PrivateKey)?;
        let node_id = node_id_of(&PublicKey::from_secret_key(SECP256K1, &secret));
        Ok(Self { secret, node_id })
    }

    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Self {
        let secret = SecretKey::new(&mut secp256k1::rand::rng());
        let node_id = node_id_of(&PublicKey::from_secret_key(SECP256K1, &secret));
        Self { secret, node_id }
    }

    /// The 32-byte secret, for writing key files.
    pub fn secret_bytes(&self) -> [u8; 32] {
        self.secret.secret_bytes()
    }

    /// The public key as node id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The account address of the key.
    pub fn address(&self) -> Address {
        address_of(&self.node_id)
    }

    /// Signs a 32-byte digest, deterministically (RFC 6979), with s in the lower half.
    pub fn sign(&self, digest: B256) -> Signature {
        let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.secret);
        let (recovery_id, compact) = signature.serialize_compact();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&compact);
        bytes[64] = u8::try_from(i32::from(recovery_id)).expect("recovery ids are 0 to 3");
        Signature(bytes)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.node_id)
    }
}

fn node_id_of(key: &PublicKey) -> NodeId {
    let mut bytes = [0; 64];
    bytes.copy_from_slice(&key.serialize_uncompressed()[1..]);
    NodeId(bytes)
}

/// The account address of a public key: the last 20 bytes of its Keccak hash.
pub fn address_of(key: &NodeId) -> Address {
    Address::from_slice(&keccak256(key.0)[12..])
}

/// Whether r and s are numbers a signature may carry: non-zero, r below the order, s in its lower half. No point arithmetic.
pub fn is_in_range(signature: &Signature) -> bool {
    let (r, s) = (&signature.0[..32], &signature.0[32..64]);
    let zero = [0; 32];
    r > &zero[..] && s > &zero[..] && r < &CURVE_ORDER[..] && s <= &HALF_ORDER[..]
}

/// Recovers the signer's public key. Refuses a high s, a recovery id above 1 and anything libsecp256k1 refuses.
pub fn recover_key(digest: B256, signature: &Signature) -> Result<NodeId, CryptoError> {
    if signature.recovery_id() > 1 || !is_in_range(signature) {
        return Err(CryptoError::Signature);
    }
    let id = RecoveryId::try_from(i32::from(signature.recovery_id())).map_err(|_| CryptoError::Signature)?;
    let parsed = RecoverableSignature::from_compact(&signature.0[..64], id).map_err(|_| CryptoError::Signature)?;
    let key = SECP256K1.recover_ecdsa(Message::from_digest(digest.0), &parsed).map_err(|_| CryptoError::Signature)?;
    Ok(node_id_of(&key))
}

/// Whether a key can be recovered from the signature, at a tenth of the cost of recovering it: whether r is the x coordinate of a point.
/// Wrong only for signatures that were made, on purpose, to recover the point at infinity.
pub fn is_recoverable(signature: &Signature) -> bool {
    let mut point = [2; 33];
    point[1..].copy_from_slice(&signature.0[..32]);
    signature.recovery_id() <= 1 && is_in_range(signature) && PublicKey::from_byte_array_compressed(point).is_ok()
}

/// Recovers the signer's account address.
pub fn recover(digest: B256, signature: &Signature) -> Result<Address, CryptoError> {
    recover_key(digest, signature).map(|key| address_of(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cow() -> KeyPair {
        KeyPair::from_secret(&keccak256("cow").0).unwrap()
    }

    #[test]
    fn address_is_the_last_twenty_bytes_of_the_hashed_key() {
        assert_eq!(cow().address(), Address::from(hex!("cd2a3d9f938e13cd947ec05abc7fe734df8dd826")));
    }

    #[test]
    fn signature_verifies_for_its_signer_only() {
        let digest = keccak256("block");
        let signature = cow().sign(digest);
        assert!(cow().node_id().verify(digest, &signature));
        assert!(!cow().node_id().verify(keccak256("other"), &signature));
        assert!(!KeyPair::generate().node_id().verify(digest, &signature));
    }

    #[test]
    fn high_s_and_zero_parts_are_refused() {
        let digest = keccak256("block");
        let mut high = cow().sign(digest);
        high.0[32] = 0xff;
        assert_eq!(recover(digest, &high), Err(CryptoError::Signature));
        assert_eq!(recover(digest, &Signature([0; 65])), Err(CryptoError::Signature));
    }

    #[test]
    fn secret_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", cow()).contains(&hex::encode(cow().secret_bytes())));
    }
}
