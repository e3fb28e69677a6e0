//! What clients send: transfers between accounts of the DagTransfer contract, changes of members and settings, and transactions that
//! come twice or share a nonce.

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, B256, Bytes, GroupId, KeyPair, NodeId, Transaction, U256};

use crate::dice::Dice;

/// `chain.id` of every simulated chain.
pub const CHAIN_ID: u64 = 7;

/// Accounts that money is moved between.
pub const ACCOUNTS: u64 = 6;

/// What an account gets when it is opened.
pub const OPENING: u64 = 1_000;

/// What a transaction does, as the oracle understands it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Opens an account.
    Open(u64),
    /// Moves money.
    Transfer {
        /// From this account.
        from: u64,
        /// To that one.
        to: u64,
        /// So much.
        amount: u64,
    },
    /// Makes a node a sealer, an observer, or neither.
    Role(NodeId, Role),
    /// Sets `tx_count_limit`.
    BlockLimit(u64),
    /// Sets `consensus_timeout`.
    Timeout(u64),
}

/// A node's part in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Votes.
    Sealer,
    /// Follows.
    Observer,
    /// Neither.
    Free,
}

/// A signed transaction.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What it does.
    pub operation: Operation,
    /// Its hash.
    pub hash: B256,
    /// Its nonce.
    pub nonce: U256,
    /// Its last height.
    pub limit: u64,
    /// Signed RLP.
    pub raw: Bytes,
}

/// The name of an account in the contract.
pub fn name(account: u64) -> String {
    format!("account-{account}")
}

/// Call data that asks for a balance.
pub fn balance_query(account: u64) -> Bytes {
    Encoder::call(selector("userBalance(string)")).string(&name(account)).finish()
}

/// The contract that keeps balances.
pub fn bank() -> Address {
    precompiled(0x5002)
}

fn precompiled(number: u16) -> Address {
    let mut address = Address::ZERO;
    address[18..].copy_from_slice(&number.to_be_bytes());
    address
}

fn call(operation: &Operation) -> (Address, Bytes) {
    let encode = |signature| Encoder::call(selector(signature));
    match operation {
        Operation::Open(account) => (bank(), encode("userAdd(string,uint256)").string(&name(*account)).uint(U256::from(OPENING)).finish()),
        Operation::Transfer { from, to, amount } => {
            let data = encode("userTransfer(string,string,uint256)").string(&name(*from)).string(&name(*to)).uint(U256::from(*amount));
            (bank(), data.finish())
        }
        Operation::Role(node, role) => {
            let function = match role {
                Role::Sealer => "addSealer(string)",
                Role::Observer => "addObserver(string)",
                Role::Free => "remove(string)",
            };
            (precompiled(0x1003), encode(function).string(&node.to_string()).finish())
        }
        Operation::BlockLimit(limit) => set("tx_count_limit", *limit),
        Operation::Timeout(seconds) => set("consensus_timeout", *seconds),
    }
}

fn set(key: &str, value: u64) -> (Address, Bytes) {
    let data = Encoder::call(selector("setValueByKey(string,string)")).string(key).string(&value.to_string()).finish();
    (precompiled(0x1000), data)
}

/// Signs an operation.
pub fn issue(key: &KeyPair, group: GroupId, operation: Operation, nonce: U256, limit: u64) -> Issued {
    let (to, data) = call(&operation);
    let transaction = Transaction {
        nonce,
        gas: U256::from(10_000_000),
        block_limit: U256::from(limit),
        to: Some(to),
        data,
        chain_id: U256::from(CHAIN_ID),
        group_id: U256::from(group.get()),
        ..Transaction::default()
    };
    let signed = transaction.sign(key);
    Issued { operation, hash: signed.hash(), nonce, limit, raw: signed.encoded().clone() }
}

/// What an ordinary client wants next.
pub fn ordinary(dice: &mut Dice, sent: usize) -> Operation {
    if (sent as u64) < ACCOUNTS {
        return Operation::Open(sent as u64);
    }
    match dice.below(20) {
        0 => Operation::Open(dice.below(ACCOUNTS + 1)),
        _ => Operation::Transfer { from: dice.below(ACCOUNTS), to: dice.below(ACCOUNTS), amount: 1 + dice.below(400) },
    }
}
