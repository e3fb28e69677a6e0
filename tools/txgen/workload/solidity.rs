//! `solidity`: a deployed contract with balances under text names (`contracts/Transfer.sol`).

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Bytes, U256};
use rand::rngs::StdRng;

use super::{AMOUNT, Choice, Contract, INITIAL, Operation, Workload, portions};
use crate::accounts::Accounts;

/// Accounts in one set-up call: 50 storage writes stay far below every gas limit.
const PORTION: usize = 50;

/// Balances under names, one storage slot each.
pub struct NamedBalances;

impl Workload for NamedBalances {
    fn name(&self) -> &'static str {
        "solidity"
    }

    fn contract(&self) -> Contract {
        Contract::Deployed(include_str!("../contracts/Transfer.bin"))
    }

    fn setup(&self, accounts: &Accounts) -> Vec<Vec<Operation>> {
        let function = selector("setMany(string[],uint256)");
        let set = |portion: std::ops::Range<u32>| {
            let names: Vec<String> = portion.map(|account| accounts.name(account)).collect();
            Operation { signer: 0, data: Encoder::call(function).strings(&names).uint(U256::from(INITIAL)).finish(), transfer: None }
        };
        vec![portions(accounts, PORTION).map(set).collect()]
    }

    fn operation(&self, accounts: &Accounts, choice: Choice, _rng: &mut StdRng) -> Operation {
        let data = Encoder::call(selector("transfer(string,string,uint256)"))
            .string(&accounts.name(choice.from))
            .string(&accounts.name(choice.to))
            .uint(U256::from(AMOUNT))
            .finish();
        Operation { signer: choice.from, data, transfer: Some((choice.from, choice.to)) }
    }

    fn balance_query(&self, accounts: &Accounts, account: u32) -> Bytes {
        Encoder::call(selector("balanceOf(string)")).string(&accounts.name(account)).finish()
    }
}
