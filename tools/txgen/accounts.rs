//! The accounts of one group and how two of them are chosen for a transaction.
//!
//! Keys, names and nonces are derived from the seed and a salt that differs in each run, so runs on one chain never meet.

use millrace_base::{Address, KeyPair, U256, keccak256};
use rand::Rng;
use rayon::prelude::*;

use crate::options::{Distribution, Options};

/// Accounts under derived keys and names.
pub struct Accounts {
    salt: String,
    keys: Vec<KeyPair>,
}

impl Accounts {
    /// Derives `count` accounts, on all cores.
    pub fn derive(seed: u64, salt: &str, count: u32) -> Self {
        let keys = (0..count).into_par_iter().map(|index| derive_key(seed, salt, index)).collect();
        Self { salt: salt.to_owned(), keys }
    }

    /// How many there are, at least two.
    pub fn len(&self) -> u32 {
        u32::try_from(self.keys.len()).expect("derived from a u32")
    }

    /// The run's mark, a word of lowercase letters and digits.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The key of an account.
    pub fn key(&self, index: u32) -> &KeyPair {
        &self.keys[index as usize]
    }

    /// The address of an account.
    pub fn address(&self, index: u32) -> Address {
        self.key(index).address()
    }

    /// The name of an account where accounts are texts.
    pub fn name(&self, index: u32) -> String {
        format!("{}n{index}", self.salt)
    }
}

fn derive_key(seed: u64, salt: &str, index: u32) -> KeyPair {
    for attempt in 0..4_u8 {
        if let Ok(key) = KeyPair::from_secret(&keccak256(format!("txgen key {seed} {salt} {index} {attempt}")).0) {
            return key;
        }
    }
    unreachable!("four hashes in a row above the order of the curve: 2^-500");
}

/// A nonce of 250 bits for transaction `sequence` of a run's part; no two are equal.
pub fn nonce(salt: &str, part: &str, sequence: u64) -> U256 {
    U256::from_be_bytes(keccak256(format!("txgen nonce {salt} {part} {sequence}")).0) >> 6
}

/// A salt that no other run has: time and process.
pub fn fresh_salt() -> String {
    use millrace_base::clock::{Clock, SystemClock};
    let hash = keccak256(format!("{} {}", SystemClock.now_ms(), std::process::id()));
    format!("s{}", millrace_base::hex::encode(&hash[..5]))
}

/// Chooses pairs of different accounts.
pub struct Picker {
    accounts: u32,
    conflict: f64,
    /// Cumulative shares of the accounts, ending at 1; empty when all are alike.
    cumulative: Vec<f64>,
}

impl Picker {
    /// As the options say.
    pub fn new(options: &Options, accounts: u32) -> Self {
        let theta = match options.distribution {
            Distribution::Uniform => 0.0,
            Distribution::Zipfian => options.theta,
        };
        Self::with_theta(accounts, theta, options.conflict)
    }

    fn with_theta(accounts: u32, theta: f64, conflict: f64) -> Self {
        let mut cumulative = Vec::new();
        if theta > 0.0 {
            let mut sum = 0.0;
            cumulative.extend((1..=accounts).map(|rank| {
                sum += f64::from(rank).powf(-theta);
                sum
            }));
            cumulative.iter_mut().for_each(|share| *share /= sum);
        }
        Self { accounts, conflict, cumulative }
    }

    /// Payer and payee.
    pub fn pick(&self, rng: &mut impl Rng) -> (u32, u32) {
        if self.conflict > 0.0 && rng.random_bool(self.conflict) {
            return (0, 1);
        }
        let from = self.one(rng);
        let to = self.one(rng);
        if from == to { (from, (to + 1) % self.accounts) } else { (from, to) }
    }

    fn one(&self, rng: &mut impl Rng) -> u32 {
        if self.cumulative.is_empty() {
            return rng.random_range(0..self.accounts);
        }
        let point: f64 = rng.random();
        let index = self.cumulative.partition_point(|share| *share <= point);
        u32::try_from(index).map_or(self.accounts - 1, |index| index.min(self.accounts - 1))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn counts(picker: &Picker) -> Vec<u32> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut counts = vec![0; picker.accounts as usize];
        for _ in 0..10_000 {
            let (from, to) = picker.pick(&mut rng);
            assert_ne!(from, to);
            counts[from as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_choice_treats_accounts_alike() {
        assert!(counts(&Picker::with_theta(10, 0.0, 0.0)).iter().all(|count| (800..1_200).contains(count)));
    }

    #[test]
    fn zipfian_choice_prefers_the_first_accounts() {
        let counts = counts(&Picker::with_theta(100, 0.99, 0.0));
        assert!(counts[0] > 1_500 && counts[0] > 5 * counts[10], "{counts:?}");
    }

    #[test]
    fn conflict_rate_is_the_share_of_the_hot_pair() {
        let first = counts(&Picker::with_theta(1_000, 0.0, 0.5))[0];
        assert!((4_700..5_400).contains(&first), "{first}");
    }

    #[test]
    fn nonces_differ_and_have_250_bits() {
        assert_ne!(nonce("a", "load", 1), nonce("a", "load", 2));
        assert_ne!(nonce("a", "load", 1), nonce("b", "load", 1));
        assert!((0..100).all(|sequence| nonce("a", "load", sequence).bit_len() <= 250));
    }

    #[test]
    fn accounts_of_one_seed_and_salt_are_the_same() {
        let (first, again) = (Accounts::derive(1, "s", 3), Accounts::derive(1, "s", 3));
        assert_eq!(first.address(2), again.address(2));
        assert_ne!(first.address(2), Accounts::derive(1, "t", 3).address(2));
    }
}
