//! `transfer`: the DagTransfer precompiled contract, the workload of 2.x's own benchmarks (`spec/node-semantics.md` 8.3).

use millrace_base::abi::{Decoder, Encoder, selector};
use millrace_base::{Address, Bytes, U256};
use rand::rngs::StdRng;

use super::{AMOUNT, Choice, Contract, INITIAL, Operation, Workload};
use crate::accounts::Accounts;

/// Balances under user names in the table of the precompiled contract 0x5002.
pub struct DagTransfer;

impl Workload for DagTransfer {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn contract(&self) -> Contract {
        let mut address = Address::ZERO;
        address[18..].copy_from_slice(&[0x50, 0x02]);
        Contract::BuiltIn(address)
    }

    fn setup(&self, accounts: &Accounts) -> Vec<Vec<Operation>> {
        let function = selector("userAdd(string,uint256)");
        let add = |account| {
            let data = Encoder::call(function).string(&accounts.name(account)).uint(U256::from(INITIAL)).finish();
            Operation { signer: account, data, transfer: None }
        };
        vec![(0..accounts.len()).map(add).collect()]
    }

    fn operation(&self, accounts: &Accounts, choice: Choice, _rng: &mut StdRng) -> Operation {
        let data = Encoder::call(selector("userTransfer(string,string,uint256)"))
            .string(&accounts.name(choice.from))
            .string(&accounts.name(choice.to))
            .uint(U256::from(AMOUNT))
            .finish();
        Operation { signer: choice.from, data, transfer: Some((choice.from, choice.to)) }
    }

    fn balance_query(&self, accounts: &Accounts, account: u32) -> Bytes {
        Encoder::call(selector("userBalance(string)")).string(&accounts.name(account)).finish()
    }

    fn read_balance(&self, output: &[u8]) -> Option<U256> {
        let mut values = Decoder::new(output);
        let (code, balance) = (values.uint().ok()?, values.uint().ok()?);
        code.is_zero().then_some(balance)
    }

    fn hidden_error(&self, output: &[u8]) -> Option<String> {
        match Decoder::new(output).uint() {
            Ok(code) if code.is_zero() => None,
            Ok(code) => Some(format!("DagTransfer code -{}", U256::ZERO.wrapping_sub(code))),
            Err(_) => Some("DagTransfer without output".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_base::abi::int256;

    use super::*;

    #[test]
    fn an_error_code_in_the_output_is_seen() {
        let output = |code: i64| int256(code).to_be_bytes::<32>();
        assert_eq!(DagTransfer.hidden_error(&output(0)), None);
        assert_eq!(DagTransfer.hidden_error(&output(-51404)).as_deref(), Some("DagTransfer code -51404"));
        assert!(DagTransfer.hidden_error(&[]).is_some());
    }

    #[test]
    fn a_missing_user_has_no_balance() {
        let output = [int256(-51402).to_be_bytes::<32>(), [0; 32]].concat();
        assert_eq!(DagTransfer.read_balance(&output), None);
    }

    #[test]
    fn selectors_are_those_of_the_specification() {
        assert_eq!(selector("userAdd(string,uint256)"), [0x3f, 0xe8, 0xe3, 0xf5]);
        assert_eq!(selector("userTransfer(string,string,uint256)"), [0x0b, 0x37, 0x61, 0x7b]);
    }
}
