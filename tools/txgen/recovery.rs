//! The yardstick of a run: what one secp256k1 recovery costs on this machine, now. Every transaction costs the network at least one.
//!
//! Measured on one thread when the load is over, as CPU time where the system tells it: other programs do not lengthen that. Called for
//! `--measure-recovery`.

use std::time::Instant;

use millrace_base::{B256, KeyPair, Signature, keccak256};

/// Recoveries that are timed together.
const BATCH: u32 = 100;

/// Batches; the median of them counts.
const BATCHES: u32 = 21;

/// Microseconds of one recovery.
pub fn measure_us() -> f64 {
    let key = KeyPair::from_secret(&keccak256("yardstick").0).expect("a hash is a key");
    let signed: Vec<(B256, Signature)> =
        (0..BATCH).map(|number| keccak256(number.to_be_bytes())).map(|digest| (digest, key.sign(digest))).collect();
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let (start, spent) = (Instant::now(), cpu_ns());
            let right = signed.iter().filter(|(digest, signature)| key.node_id().verify(*digest, signature)).count();
            assert_eq!(right, signed.len(), "what was signed is recovered");
            let cpu_us = cpu_ns().zip(spent).map(|(now, spent)| now.saturating_sub(spent) as f64 / 1e3).filter(|us| *us > 0.0);
            cpu_us.unwrap_or_else(|| start.elapsed().as_secs_f64() * 1e6) / f64::from(BATCH)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

/// CPU time of this thread so far, in ns; `None` where there is no such file. It is up to date after a system call.
fn cpu_ns() -> Option<u64> {
    std::thread::yield_now();
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_recovery_takes_microseconds() {
        let us = super::measure_us();
        assert!(us > 1.0 && us < 100_000.0, "{us}");
    }
}
