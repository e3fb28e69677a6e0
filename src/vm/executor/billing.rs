//! Gas of accounts, while `enable_charge_mgr` is on: who pays for a transaction, and what is left afterwards.
//!
//! Rules are those of the recordings (README, correction 30): members of the committee, chargers, and calls of ChainGovernance are free
//! and show no gas at all; everybody else must have what the transaction used, or it leaves nothing but a receipt of status 32.

use millrace_base::{Address, Receipt, TransactionStatus, U256, VerifiedTx};
use millrace_core::overlay::Writes;
use millrace_core::table::system;
use millrace_core::{StateReader, StorageError};

use super::Executed;
use crate::precompiled::guards::Guards;
use crate::precompiled::{is_exempt, remaining, remaining_write};

/// Calls of it are free, so that a chain without any gas can be helped.
const GOVERNANCE: Address = Address::new(millrace_base::hex!("0000000000000000000000000000000000001008"));

/// Who pays for a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Billing {
    /// The group does not charge.
    Off,
    /// Nobody.
    Exempt,
    /// The sender, who has this much.
    Sender { address: Address, remaining: U256 },
}

impl Billing {
    /// For a transaction of block `number`.
    pub fn of(state: &dyn StateReader, guards: Guards, number: u64, transaction: &VerifiedTx) -> Result<Self, StorageError> {
        if !guards.charge || system::config(state, "enable_charge_mgr", number)?.as_deref() != Some("on") {
            return Ok(Self::Off);
        }
        let address = transaction.sender();
        if transaction.fields().to == Some(GOVERNANCE) || is_exempt(state, address)? {
            return Ok(Self::Exempt);
        }
        Ok(Self::Sender { address, remaining: remaining(state, address)? })
    }

    /// What the sender has, if that is below the base cost: the transaction does not run, its result is [`not_enough`].
    pub fn less_than(self, base: u64) -> Option<U256> {
        match self {
            Self::Sender { remaining, .. } if remaining < U256::from(base) => Some(remaining),
            _ => None,
        }
    }

    /// Has the result paid for. In place: a receipt is too large to be moved about for groups that do not charge.
    pub fn settle(self, executed: &mut Executed) {
        match self {
            Self::Off => {}
            Self::Exempt => executed.receipt.gas_used = U256::ZERO,
            Self::Sender { address, remaining } => match remaining.checked_sub(executed.receipt.gas_used) {
                Some(left) => {
                    executed.receipt.remain_gas = left;
                    put(&mut executed.writes, address, left);
                }
                None => *executed = not_enough(remaining),
            },
        }
    }
}

/// The result of a transaction that is not paid for.
#[cold]
pub(super) fn not_enough(remaining: U256) -> Executed {
    let status = TransactionStatus::NotEnoughRemainGas.code();
    Executed { receipt: Receipt { status, remain_gas: remaining, ..Receipt::default() }, writes: Writes::new() }
}

/// Adds the write to sorted writes. A sender that pays cannot have changed its own gas: who may is exempt.
fn put(writes: &mut Writes, address: Address, left: U256) {
    let (key, value) = remaining_write(address, left);
    match writes.binary_search_by(|write| write.0.cmp(&key)) {
        Ok(index) => writes[index].1 = Some(value),
        Err(index) => writes.insert(index, (key, Some(value))),
    }
}
