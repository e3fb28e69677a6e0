//! Recovery of senders in batches: the largest cost of a transaction, behind an interface that a vectorised engine can implement.
//!
//! Invariant: results stand in the order of the input, and every implementation gives the same ones. Called by the verify stage with
//! what the pool's `precheck` has let through, and by sync and `db verify` in bulk.

use millrace_base::crypto::CryptoError;
use millrace_base::{B256, RawTx, VerifiedTx};
use rayon::prelude::*;

/// Fewest transactions worth handing to another thread: about a millisecond of work.
const PARALLEL_CHUNK: usize = 16;

/// An engine that recovers senders.
pub trait SignatureVerifier: Send + Sync {
    /// Recovers the sender of each transaction, given with its [`RawTx::hash`].
    fn recover_batch(&self, raws: Vec<(RawTx, B256)>) -> Vec<Result<VerifiedTx, CryptoError>>;
}

fn recover((raw, hash): (RawTx, B256)) -> Result<VerifiedTx, CryptoError> {
    raw.verify_with_hash(hash)
}

/// One by one on the calling thread, by libsecp256k1: for stages that have workers of their own.
#[derive(Clone, Copy, Default, Debug)]
pub struct SerialVerifier;

impl SignatureVerifier for SerialVerifier {
    fn recover_batch(&self, raws: Vec<(RawTx, B256)>) -> Vec<Result<VerifiedTx, CryptoError>> {
        raws.into_iter().map(recover).collect()
    }
}

/// Spread over the rayon pool that the caller runs in (`ThreadPool::install`), by libsecp256k1: for whole blocks at a time.
#[derive(Clone, Copy, Default, Debug)]
pub struct ParallelVerifier;

impl SignatureVerifier for ParallelVerifier {
    fn recover_batch(&self, raws: Vec<(RawTx, B256)>) -> Vec<Result<VerifiedTx, CryptoError>> {
        raws.into_par_iter().with_min_len(PARALLEL_CHUNK).map(recover).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::crypto::{is_recoverable, recover as recover_address};
    use millrace_base::{KeyPair, Signature, Transaction, U256};

    #[test]
    fn batches_give_senders_in_order_and_name_the_bad_ones() {
        let key = KeyPair::from_secret(&[7; 32]).unwrap();
        let mut raws: Vec<_> =
            (0..100u64).map(|nonce| Transaction { nonce: U256::from(nonce), ..Transaction::default() }.sign(&key)).collect();
        let unrecoverable = |seed: &u8| {
            let mut parts = raws[40].signature().0;
            parts[..32].copy_from_slice(&[*seed; 32]);
            !is_recoverable(&Signature(parts))
        };
        let seed = (1..100).find(unrecoverable).expect("half of all numbers are no x coordinate");
        let mut bytes = raws[40].encoded().to_vec();
        let r = raws[40].signature().r();
        let at = bytes.windows(32).position(|window| window == r.as_slice()).expect("this r is 32 bytes long");
        bytes[at..at + 32].copy_from_slice(&[seed; 32]);
        raws[40] = RawTx::decode(&bytes).unwrap();
        let input = || raws.iter().map(|raw| (raw.clone(), raw.hash())).collect::<Vec<_>>();
        let serial = SerialVerifier.recover_batch(input());
        assert_eq!(serial, ParallelVerifier.recover_batch(input()));
        for (index, result) in serial.iter().enumerate() {
            match result {
                Ok(transaction) => {
                    assert_eq!(transaction.sender(), key.address());
                    assert_eq!(transaction.fields().nonce, U256::from(index));
                }
                Err(error) => assert_eq!((index, error), (40, &CryptoError::Signature)),
            }
        }
        assert!(serial[40].is_err());
    }

    #[test]
    fn recoverable_is_exactly_what_recovers() {
        for seed in 0..40u8 {
            let mut parts = [0; 65];
            parts[..32].copy_from_slice(&[seed.wrapping_mul(5) | 1; 32]);
            parts[32..64].copy_from_slice(&[3; 32]);
            let signature = Signature(parts);
            let recovers = recover_address(B256::repeat_byte(9), &signature).is_ok();
            assert_eq!(is_recoverable(&signature), recovers, "seed {seed}");
        }
    }
}
