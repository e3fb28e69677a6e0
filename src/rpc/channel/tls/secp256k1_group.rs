//! Key exchange over secp256k1 (code point 0x0016), which python-sdk and nodejs-sdk offer alone (`spec/client-protocol.md` 4.3).
//!
//! Public values are uncompressed points of 65 bytes; the shared secret is the x coordinate (RFC 8422 5.10). The library refuses points
//! that are not on the curve, and the group has prime order, so there are no small subgroups.

use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use secp256k1::ecdh::shared_secret_point;
use secp256k1::{PublicKey, SecretKey};

/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;

/// The group.
pub static SECP256K1: &dyn SupportedKxGroup = &Secp256k1;

#[derive(Debug)]
struct Secp256k1;

const NAME: NamedGroup = NamedGroup::Unknown(0x0016);

impl SupportedKxGroup for Secp256k1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let (secret, public) = secp256k1::generate_keypair(&mut secp256k1::rand::rng());
        Ok(Box::new(Exchange { secret, public: public.serialize_uncompressed() }))
    }

    fn name(&self) -> NamedGroup {
        NAME
    }

    /// In version 1.3 the code point is reserved for no use.
    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2
    }
}

struct Exchange {
    secret: SecretKey,
    public: [u8; POINT_BYTES],
}

impl ActiveKeyExchange for Exchange {
    fn complete(mut self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let is_uncompressed = peer.len() == POINT_BYTES && peer[0] == 4;
        let peer = PublicKey::from_slice(peer).ok().filter(|_| is_uncompressed).ok_or_else(invalid)?;
        let point = shared_secret_point(&peer, &self.secret);
        self.secret.non_secure_erase();
        Ok(SharedSecret::from(&point[..32]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_reach_the_same_secret() {
        let (left, right) = (SECP256K1.start().unwrap(), SECP256K1.start().unwrap());
        let (left_public, right_public) = (left.pub_key().to_vec(), right.pub_key().to_vec());
        let left = left.complete(&right_public).unwrap();
        assert_eq!(left.secret_bytes(), right.complete(&left_public).unwrap().secret_bytes());
        assert_eq!(left.secret_bytes().len(), 32);
    }

    #[test]
    fn points_off_the_curve_and_other_encodings_are_refused() {
        let public = SECP256K1.start().unwrap().pub_key().to_vec();
        let mut off_the_curve = public.clone();
        off_the_curve[64] ^= 1;
        let compressed = PublicKey::from_slice(&public).unwrap().serialize();
        let mut hybrid = public.clone();
        hybrid[0] = 6 | (public[64] & 1);
        for point in [&off_the_curve[..], &compressed, &hybrid, &public[..64], &[], &[0], &[4; 65]] {
            assert!(SECP256K1.start().unwrap().complete(point).is_err(), "{point:?}");
        }
    }
}
