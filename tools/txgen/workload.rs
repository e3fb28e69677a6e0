//! Workloads: what set-up, load and check transactions say. Each is a face of one contract; none keeps state.
//!
//! Every transfer moves [`AMOUNT`] between two accounts that begin with [`INITIAL`], so transfers commute: whatever their order in
//! blocks, each account's balance at the end is known.

mod solidity;
mod table;
mod token;
mod transfer;

use millrace_base::abi::Decoder;
use millrace_base::{Address, Bytes, U256};
use rand::rngs::StdRng;

use crate::accounts::Accounts;
use crate::options::WorkloadName;

/// Balance of each account after set-up: more than a run can take out of one account.
pub const INITIAL: u64 = 1_000_000_000;

/// What one transfer moves.
pub const AMOUNT: u64 = 1;

/// A call that becomes one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Account that signs.
    pub signer: u32,
    /// Call data.
    pub data: Bytes,
    /// Payer and payee if the operation is a transfer.
    pub transfer: Option<(u32, u32)>,
}

/// A choice made for one operation.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Payer.
    pub from: u32,
    /// Payee.
    pub to: u32,
    /// Number of the transaction in the run.
    pub sequence: u64,
}

/// The face of one contract.
pub trait Workload: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;

    /// Creation code in hex, deployed by account 0, or the address of a contract that every chain has.
    fn contract(&self) -> Contract;

    /// Calls that give each account its [`INITIAL`] balance, in waves: one is committed before the next is sent.
    fn setup(&self, accounts: &Accounts) -> Vec<Vec<Operation>>;

    /// One operation under load.
    fn operation(&self, accounts: &Accounts, choice: Choice, rng: &mut StdRng) -> Operation;

    /// Call data that asks for an account's balance.
    fn balance_query(&self, accounts: &Accounts, account: u32) -> Bytes;

    /// Reads the answer to [`Self::balance_query`].
    fn read_balance(&self, output: &[u8]) -> Option<U256> {
        Decoder::new(output).uint().ok()
    }

    /// Call data that asks for the sum of all balances, if the contract keeps it.
    fn supply_query(&self) -> Option<Bytes> {
        None
    }

    /// The error that a receipt of status 0 hides in its output, if any.
    fn hidden_error(&self, output: &[u8]) -> Option<String> {
        let _ = output;
        None
    }
}

/// Where a workload's contract comes from.
#[derive(Clone, Copy, Debug)]
pub enum Contract {
    /// Creation code in hex.
    Deployed(&'static str),
    /// A precompiled contract.
    BuiltIn(Address),
}

/// The workloads that a name stands for.
pub fn workloads(name: WorkloadName) -> Vec<&'static dyn Workload> {
    match name {
        WorkloadName::Transfer => vec![&transfer::DagTransfer],
        WorkloadName::Solidity => vec![&solidity::NamedBalances],
        WorkloadName::Token => vec![&token::Token],
        WorkloadName::Table => vec![&table::TableRows],
        WorkloadName::Mix => vec![&transfer::DagTransfer, &solidity::NamedBalances, &token::Token, &table::TableRows],
    }
}

/// Accounts in portions, for set-up calls that take many at once.
fn portions(accounts: &Accounts, size: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..accounts.len()).step_by(size).map(move |start| start..accounts.len().min(start.saturating_add(size as u32)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_account_is_set_up_once_whatever_the_portion() {
        let accounts = Accounts::derive(1, "s", 7);
        for size in [1, 3, 7, 100] {
            let covered: Vec<u32> = portions(&accounts, size).flatten().collect();
            assert_eq!(covered, (0..7).collect::<Vec<_>>());
        }
    }

    #[test]
    fn operations_are_reproducible_and_name_their_transfer() {
        let accounts = Accounts::derive(1, "s", 4);
        let choice = Choice { from: 2, to: 3, sequence: 9 };
        for workload in workloads(WorkloadName::Mix) {
            let operation = || workload.operation(&accounts, choice, &mut StdRng::seed_from_u64(4));
            assert_eq!(operation(), operation());
            assert!(operation().data.len() >= 36, "{}", workload.name());
            assert!(!workload.setup(&accounts).is_empty());
        }
        let token = workloads(WorkloadName::Token)[0].operation(&accounts, choice, &mut StdRng::seed_from_u64(4));
        assert_eq!((token.signer, token.transfer), (2, Some((2, 3))));
    }

    #[test]
    fn contract_code_in_the_tree_is_hex() {
        for workload in workloads(WorkloadName::Mix) {
            if let Contract::Deployed(code) = workload.contract() {
                assert!(millrace_base::hex::decode(code.trim()).unwrap().len() > 500);
            }
        }
    }
}
