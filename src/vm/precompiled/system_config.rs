//! SystemConfig, 0x1000: on-chain settings. A value set in a block governs from the next one on.

use millrace_base::{Bytes, hex};
use millrace_core::table::system;

use super::contract::{Contract, Function, Invocation, Unknown, code};
use super::guards::{self, Guard};
use super::tables::{Writer, parse_i64};
use super::{Failure, codes};

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1000,
    name: "SystemConfig",
    counts_input: false,
    unknown: Unknown::Code(0),
    functions: &[Function { selector: hex!("bd291aef"), signature: "setValueByKey(string,string)", run: set_value_by_key }],
};

fn set_value_by_key(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (key, value) = (invocation.arguments.bytes().to_ascii_lowercase(), invocation.arguments.bytes());
    if !is_valid(&key, value) {
        return Ok(code(codes::INVALID_CONFIGURATION));
    }
    let context = &mut *invocation.context;
    if !Writer::origin(invocation.call.origin, context).may_write(context.journal, system::CONFIG)? {
        return Ok(code(codes::NO_AUTHORITY));
    }
    let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(value));
    if key == "enable_charge_mgr" {
        guards::arm(context.journal, Guard::Charge)?;
    }
    system::set_config(context.journal, &key, &value, context.block.number + 1)?;
    Ok(code(1))
}

/// Whether 2.x takes the value (`spec/node-semantics.md` 8.3). Numbers may have a sign and leading zeros; they are stored as given.
fn is_valid(key: &[u8], value: &[u8]) -> bool {
    let least = |minimum: i64| parse_i64(value).is_some_and(|number| number >= minimum);
    match key {
        b"tx_count_limit" | b"rpbft_epoch_sealer_num" => least(1),
        b"tx_gas_limit" => least(100_000),
        b"rpbft_epoch_block_num" => least(2),
        // Seconds; milliseconds must fit 32 bits.
        b"consensus_timeout" => least(3) && !least(i64::from(u32::MAX / 1000)),
        b"enable_charge_mgr" => matches!(value, b"on" | b"off"),
        _ => false,
    }
}
