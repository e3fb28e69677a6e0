//! `token`: an ERC-20 token (`contracts/Token.sol`); the payer signs.

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, Bytes, U256};
use rand::rngs::StdRng;

use super::{AMOUNT, Choice, Contract, INITIAL, Operation, Workload, portions};
use crate::accounts::Accounts;

/// Accounts in one set-up call: 50 credits with their events stay far below every gas limit.
const PORTION: usize = 50;

/// The token, minted by account 0, which deploys it.
pub struct Token;

impl Workload for Token {
    fn name(&self) -> &'static str {
        "token"
    }

    fn contract(&self) -> Contract {
        Contract::Deployed(include_str!("../contracts/Token.bin"))
    }

    fn setup(&self, accounts: &Accounts) -> Vec<Vec<Operation>> {
        let function = selector("mintMany(address[],uint256)");
        let mint = |portion: std::ops::Range<u32>| {
            let holders: Vec<Address> = portion.map(|account| accounts.address(account)).collect();
            Operation { signer: 0, data: Encoder::call(function).addresses(&holders).uint(U256::from(INITIAL)).finish(), transfer: None }
        };
        vec![portions(accounts, PORTION).map(mint).collect()]
    }

    fn operation(&self, accounts: &Accounts, choice: Choice, _rng: &mut StdRng) -> Operation {
        let data = Encoder::call(selector("transfer(address,uint256)")).address(accounts.address(choice.to)).uint(U256::from(AMOUNT));
        Operation { signer: choice.from, data: data.finish(), transfer: Some((choice.from, choice.to)) }
    }

    fn balance_query(&self, accounts: &Accounts, account: u32) -> Bytes {
        Encoder::call(selector("balanceOf(address)")).address(accounts.address(account)).finish()
    }

    fn supply_query(&self) -> Option<Bytes> {
        Some(Encoder::call(selector("totalSupply()")).finish())
    }
}
