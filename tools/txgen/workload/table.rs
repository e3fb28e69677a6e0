//! `table`: rows of a 2.x table behind a contract (`contracts/TableLedger.sol`), with all four operations.
//!
//! Most calls are transfers (two selects, two updates); some select a row, insert a row of their own or remove such a row. Inserted rows
//! hold no balance and are no accounts, so they do not disturb the sums.

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Bytes, U256};
use rand::Rng;
use rand::rngs::StdRng;

use super::{AMOUNT, Choice, Contract, INITIAL, Operation, Workload, portions};
use crate::accounts::Accounts;

/// Rows in one set-up call.
const PORTION: usize = 20;

/// How far behind the newest inserted row rows are removed: those are committed long since.
const REMOVE_BEHIND: u64 = 10_000;

/// One row an account.
pub struct TableRows;

fn extra_row(accounts: &Accounts, sequence: u64) -> String {
    format!("{}x{sequence}", accounts.salt())
}

impl Workload for TableRows {
    fn name(&self) -> &'static str {
        "table"
    }

    fn contract(&self) -> Contract {
        Contract::Deployed(include_str!("../contracts/TableLedger.bin"))
    }

    fn setup(&self, accounts: &Accounts) -> Vec<Vec<Operation>> {
        let create = Encoder::call(selector("create(string)")).string(&format!("txgen_{}", accounts.salt())).finish();
        let function = selector("insertMany(string[],int256)");
        let insert = |portion: std::ops::Range<u32>| {
            let names: Vec<String> = portion.map(|account| accounts.name(account)).collect();
            Operation { signer: 0, data: Encoder::call(function).strings(&names).uint(U256::from(INITIAL)).finish(), transfer: None }
        };
        vec![vec![Operation { signer: 0, data: create, transfer: None }], portions(accounts, PORTION).map(insert).collect()]
    }

    fn operation(&self, accounts: &Accounts, choice: Choice, rng: &mut StdRng) -> Operation {
        let Choice { from, to, sequence } = choice;
        let (data, transfer) = match rng.random_range(0..100) {
            0..70 => {
                let call = Encoder::call(selector("transfer(string,string,int256)"));
                (call.string(&accounts.name(from)).string(&accounts.name(to)).uint(U256::from(AMOUNT)), Some((from, to)))
            }
            70..85 => (Encoder::call(selector("select(string)")).string(&accounts.name(from)), None),
            85..95 => (Encoder::call(selector("insert(string,int256)")).string(&extra_row(accounts, sequence)).uint(U256::ZERO), None),
            _ => {
                let row = extra_row(accounts, sequence.saturating_sub(REMOVE_BEHIND));
                (Encoder::call(selector("remove(string)")).string(&row), None)
            }
        };
        Operation { signer: from, data: data.finish(), transfer }
    }

    fn balance_query(&self, accounts: &Accounts, account: u32) -> Bytes {
        Encoder::call(selector("balanceOf(string)")).string(&accounts.name(account)).finish()
    }
}
