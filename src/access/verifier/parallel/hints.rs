//! Guesses, from the transactions alone, which of them work on the same values.
//!
//! A transaction's sender and what its first two arguments name (an account, a text, a small number) usually are what it works on; two
//! calls of one contract that share a name are probably in conflict, and are executed one after the other. A wrong guess costs time
//! and never changes a result. Called when speculation without guesses lost too much.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};
use millrace_base::{Address, VerifiedTx};

/// Names that are taken from one transaction at most: sender and two arguments.
const NAMES: usize = 3;

const NONE: u32 = u32::MAX;

/// For each transaction of a block the last ones before it that share a name with it.
pub(super) struct Predecessors(Vec<[u32; NAMES]>);

impl Predecessors {
    /// Of the transactions of a block.
    pub fn guess(transactions: &[VerifiedTx]) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut last: HashMap<u64, u32> = HashMap::with_capacity(2 * transactions.len());
        let of = |(index, transaction): (usize, &VerifiedTx)| {
            let mut found = [NONE; NAMES];
            let to = transaction.fields().to.unwrap_or(Address::ZERO);
            let data = &transaction.fields().data;
            let arguments = if transaction.fields().to.is_some() { [argument(data, 0), argument(data, 1)] } else { [None, None] };
            let sender = transaction.sender();
            let names = [Some(sender.as_slice()), arguments[0], arguments[1]];
            for (slot, name) in found.iter_mut().zip(names) {
                let Some(name) = name else { continue };
                let before = last.insert(hasher.hash_one((to, name)), index as u32);
                *slot = before.filter(|before| *before != index as u32).unwrap_or(NONE);
            }
            found
        };
        Self(transactions.iter().enumerate().map(of).collect())
    }

    /// Those of one transaction.
    pub fn of(&self, index: u32) -> impl Iterator<Item = u32> + '_ {
        self.0[index as usize].iter().copied().filter(|predecessor| *predecessor != NONE)
    }
}

/// What an ABI argument names, without leading zeros; `None` for what is probably an amount.
fn argument(data: &[u8], position: usize) -> Option<&[u8]> {
    let arguments = data.get(4..)?;
    let word = arguments.get(32 * position..32 * (position + 1))?;
    if let Some(text) = text_at(arguments, word) {
        return Some(text);
    }
    let significant = &word[word.iter().position(|byte| *byte != 0).unwrap_or(32)..];
    // More than 96 bits: an address or a hash. A second argument below that is an amount more often than a name.
    (significant.len() > 12 || position == 0).then_some(significant)
}

/// The text that a word points at, if it is the place of one.
fn text_at<'a>(arguments: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let start = small(word)?;
    if start == 0 || start % 32 != 0 {
        return None;
    }
    let length = small(arguments.get(start..start.checked_add(32)?)?)?;
    arguments.get(start + 32..(start + 32).checked_add(length)?)
}

/// A word as a number, if it is below 2^24: longer texts name nothing.
fn small(word: &[u8]) -> Option<usize> {
    let (zeros, number) = word.split_at(29);
    zeros.iter().all(|byte| *byte == 0).then(|| number.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_base::abi::{Encoder, selector};
    use millrace_base::{KeyPair, Transaction, U256};

    fn call(sender: u8, to: u8, data: Vec<u8>) -> VerifiedTx {
        let key = KeyPair::from_secret(&[sender; 32]).unwrap();
        Transaction { to: Some(Address::repeat_byte(to)), data: data.into(), ..Transaction::default() }.sign(&key).verify().unwrap()
    }

    fn pay(sender: u8, to: u8, payee: Address) -> VerifiedTx {
        let encoder = Encoder::call(selector("transfer(address,uint256)")).address(payee).uint(U256::from(7));
        call(sender, to, encoder.finish().to_vec())
    }

    fn guess(transactions: &[VerifiedTx]) -> Vec<Vec<u32>> {
        let predecessors = Predecessors::guess(transactions);
        (0..transactions.len() as u32).map(|index| predecessors.of(index).collect()).collect()
    }

    #[test]
    fn payments_follow_those_of_the_same_payer_or_payee_and_amounts_join_nothing() {
        let payer = KeyPair::from_secret(&[1; 32]).unwrap().address();
        let other = Address::repeat_byte(9);
        let guessed = guess(&[pay(1, 5, other), pay(2, 5, Address::repeat_byte(8)), pay(3, 5, payer), pay(1, 6, other), pay(1, 5, other)]);
        assert_eq!(guessed, [vec![], vec![], vec![0], vec![], vec![2, 0]]);
    }

    #[test]
    fn texts_are_compared_by_what_they_say() {
        let transfer = |from: &str, to: &str| {
            let call = Encoder::call(selector("userTransfer(string,string,uint256)"));
            call.string(from).string(to).uint(U256::from(1)).finish().to_vec()
        };
        let calls = [call(1, 5, transfer("anna", "ben")), call(2, 5, transfer("carl", "dora")), call(3, 5, transfer("ben", "carl"))];
        assert_eq!(guess(&calls), [vec![], vec![], vec![0, 1]]);
    }

    #[test]
    fn any_data_is_taken() {
        for length in 0..140 {
            guess(&[call(1, 5, vec![0xff; length]), call(1, 5, vec![0; length]), call(1, 5, vec![1; length])]);
        }
    }
}
