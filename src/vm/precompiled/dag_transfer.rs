//! DagTransfer, 0x5002: accounts with balances in one table, the workload of the 2.x benchmarks.
//!
//! The table `u_dag_transfer` comes into being with the first change or query. Every row is read and written under its own user, so
//! transfers between different users do not meet.

use millrace_base::abi::{Encoder, parse_uint256};
use millrace_base::{Bytes, U256, hex};
use millrace_core::table::{Condition, Fields, Schema, Table};

use super::contract::{Contract, Function, Invocation, Unknown, code, refused_without_reason};
use super::tables::{Writer, field, fields, rows};
use super::{Failure, codes};

const TABLE: &str = "u_dag_transfer";
const USER: &str = "user_name";
const BALANCE: &str = "user_balance";

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x5002,
    name: "DagTransfer",
    counts_input: false,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("3fe8e3f5"), signature: "userAdd(string,uint256)", run: |i| user_add(i).map(code) },
        Function { selector: hex!("e555f3d9"), signature: "userSave(string,uint256)", run: |i| user_save(i).map(code) },
        Function { selector: hex!("ff2b0127"), signature: "userDraw(string,uint256)", run: |i| user_draw(i).map(code) },
        Function { selector: hex!("0b37617b"), signature: "userTransfer(string,string,uint256)", run: |i| user_transfer(i).map(code) },
        Function { selector: hex!("1536aedd"), signature: "userBalance(string)", run: user_balance },
    ],
};

/// The table of balances, open for one call.
struct Balances {
    table: Table,
    writer: Writer,
}

impl Balances {
    fn open(invocation: &mut Invocation<'_, '_, '_>) -> Result<Self, Failure> {
        let journal = &mut *invocation.context.journal;
        let table = match Table::open(journal, TABLE)? {
            Some(table) => table,
            None => {
                let schema = Schema::new(TABLE, USER, BALANCE);
                Writer::Contract.create(journal, &schema)?;
                Table::with_schema(schema)
            }
        };
        Ok(Self { table, writer: Writer::origin(invocation.call.origin, invocation.context) })
    }

    fn get(&self, invocation: &Invocation<'_, '_, '_>, user: &[u8]) -> Result<Option<U256>, Failure> {
        let rows = rows(invocation.context.journal, &self.table, user)?;
        let Some(row) = rows.first() else { return Ok(None) };
        // Users may create this table themselves, with other fields or texts.
        let balance = std::str::from_utf8(field(row, BALANCE)).ok().and_then(parse_uint256);
        balance.map(Some).ok_or_else(refused_without_reason)
    }

    fn row(user: &[u8], balance: U256) -> Fields {
        fields([(USER, user), (BALANCE, balance.to_string().as_bytes())])
    }

    /// A new user: 0 or a code.
    fn insert(&self, invocation: &mut Invocation<'_, '_, '_>, user: &[u8], balance: U256) -> Result<i64, Failure> {
        let inserted = self.writer.insert(invocation.context.journal, &self.table, user, Self::row(user, balance))?;
        Ok(inserted.min(0))
    }

    /// Another balance: 0 or a code.
    fn update(&self, invocation: &mut Invocation<'_, '_, '_>, user: &[u8], balance: U256) -> Result<i64, Failure> {
        let row = Self::row(user, balance);
        let updated = self.writer.update(invocation.context.journal, &self.table, user, &row, &Condition::default())?;
        Ok(updated.min(0))
    }
}

fn user_add(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (user, amount) = (invocation.arguments.bytes(), invocation.arguments.uint());
    if user.is_empty() {
        return Ok(codes::INVALID_USER_NAME);
    }
    let balances = Balances::open(invocation)?;
    match balances.get(invocation, user)? {
        Some(_) => Ok(codes::USER_EXISTS),
        None => balances.insert(invocation, user, amount),
    }
}

fn user_save(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (user, amount) = (invocation.arguments.bytes(), invocation.arguments.uint());
    if user.is_empty() {
        return Ok(codes::INVALID_USER_NAME);
    }
    if amount.is_zero() {
        return Ok(codes::INVALID_AMOUNT);
    }
    let balances = Balances::open(invocation)?;
    let Some(balance) = balances.get(invocation, user)? else { return balances.insert(invocation, user, amount) };
    match balance.checked_add(amount) {
        Some(sum) => balances.update(invocation, user, sum),
        None => Ok(codes::BALANCE_OVERFLOW),
    }
}

fn user_draw(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (user, amount) = (invocation.arguments.bytes(), invocation.arguments.uint());
    if user.is_empty() {
        return Ok(codes::INVALID_USER_NAME);
    }
    if amount.is_zero() {
        return Ok(codes::INVALID_AMOUNT);
    }
    let balances = Balances::open(invocation)?;
    let Some(balance) = balances.get(invocation, user)? else { return Ok(codes::USER_MISSING) };
    match balance.checked_sub(amount) {
        Some(rest) => balances.update(invocation, user, rest),
        None => Ok(codes::INSUFFICIENT_BALANCE),
    }
}

fn user_transfer(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (from, to) = (invocation.arguments.bytes(), invocation.arguments.bytes());
    let amount = invocation.arguments.uint();
    if from.is_empty() || to.is_empty() {
        return Ok(codes::INVALID_USER_NAME);
    }
    if amount.is_zero() {
        return Ok(codes::INVALID_AMOUNT);
    }
    if from == to {
        return Ok(0);
    }
    let balances = Balances::open(invocation)?;
    let Some(from_balance) = balances.get(invocation, from)? else { return Ok(codes::USER_MISSING) };
    let Some(rest) = from_balance.checked_sub(amount) else { return Ok(codes::INSUFFICIENT_BALANCE) };
    let to_balance = match balances.get(invocation, to)? {
        Some(balance) => balance,
        None => {
            let inserted = balances.insert(invocation, to, U256::ZERO)?;
            if inserted < 0 {
                return Ok(inserted);
            }
            U256::ZERO
        }
    };
    let Some(sum) = to_balance.checked_add(amount) else { return Ok(codes::BALANCE_OVERFLOW) };
    let updated = balances.update(invocation, from, rest)?;
    if updated < 0 {
        return Ok(updated);
    }
    balances.update(invocation, to, sum)
}

fn user_balance(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let user = invocation.arguments.bytes();
    let (answer, balance) = if user.is_empty() {
        (codes::INVALID_USER_NAME, U256::ZERO)
    } else {
        let balances = Balances::open(invocation)?;
        match balances.get(invocation, user)? {
            Some(balance) => (0, balance),
            None => (codes::USER_MISSING, U256::ZERO),
        }
    };
    Ok(Encoder::new().int(answer).uint(balance).finish())
}
