//! Which opcodes exist and what they cost: the rules a group's genesis chooses once.
//!
//! [`EvmRules::Fisco2`] is the machine of 2.x nodes (`spec/client-protocol.md` 8): Istanbul opcodes with their gas metrics.
//! [`EvmRules::Fork`] has the opcodes and gas of an Ethereum fork, so that today's compilers' output runs. Everything else is the
//! same under both: environment values (timestamp in milliseconds, no balances, zero coinbase, chain id and gas limit), statuses, no
//! fee, nonces that only creations advance, base cost, code size limit. Forks differ from 2.x where 2.x is only an accident of its
//! machine: running out of gas uses all of it, and refunds have the fork's cap.

use std::fmt;
use std::str::FromStr;

use revm::context_interface::cfg::gas_params::{GasId, GasParams};
use revm::interpreter::instructions::gas_table_spec;
use revm::precompile::{PrecompileSpecId, Precompiles};
use revm::primitives::hardfork::SpecId;

/// Longest contract code, in bytes (`spec/client-protocol.md` 8.1).
pub const MAX_CODE_BYTES: usize = 0x40000;

/// Memory that one transaction's frames may use together, in bytes. Far above what the default gas limit can pay for (12 MB); it
/// binds only when a chain raises `tx_gas_limit`, and then counts as running out of gas. Part of the rules: all nodes must agree.
pub const MAX_MEMORY_BYTES: u64 = 512 << 20;

/// Gas an Ethereum precompile may use at most: what it may allocate stays bounded whatever a chain's `tx_gas_limit` is.
pub(crate) const MAX_PRECOMPILE_GAS: u64 = 1 << 40;

/// An Ethereum fork whose opcodes and gas costs a group may use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[allow(missing_docs, reason = "each name is Ethereum's own word")]
pub enum Fork {
    Istanbul,
    Berlin,
    London,
    Paris,
    Shanghai,
    Cancun,
    Prague,
}

impl Fork {
    const ALL: [(Fork, &'static str, SpecId); 7] = [
        (Fork::Istanbul, "istanbul", SpecId::ISTANBUL),
        (Fork::Berlin, "berlin", SpecId::BERLIN),
        (Fork::London, "london", SpecId::LONDON),
        (Fork::Paris, "paris", SpecId::MERGE),
        (Fork::Shanghai, "shanghai", SpecId::SHANGHAI),
        (Fork::Cancun, "cancun", SpecId::CANCUN),
        (Fork::Prague, "prague", SpecId::PRAGUE),
    ];

    fn entry(self) -> &'static (Fork, &'static str, SpecId) {
        Self::ALL.iter().find(|entry| entry.0 == self).expect("every fork is in the list")
    }
}

/// revm's name for a fork.
pub(crate) fn spec_of(fork: Fork) -> SpecId {
    fork.entry().2
}

/// The rules of a group's machine, fixed by its genesis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EvmRules {
    /// As 2.x nodes: what imported chains use.
    Fisco2 {
        /// The 2.x genesis flag `evm.enable_free_storage`: storage costs little, the base cost is flat.
        free_storage: bool,
    },
    /// An Ethereum fork in a 2.x environment.
    Fork(Fork),
}

impl Default for EvmRules {
    /// What new groups get: recent enough for the default output of current compilers.
    fn default() -> Self {
        Self::Fork(Fork::Cancun)
    }
}

/// A configured name is not one of the known rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown EVM rules \"{0}\": expected fisco2, fisco2-free-storage, istanbul, berlin, london, paris, shanghai, cancun or prague")]
pub struct UnknownRules(pub String);

impl FromStr for EvmRules {
    type Err = UnknownRules;

    fn from_str(text: &str) -> Result<Self, UnknownRules> {
        match text {
            "fisco2" => Ok(Self::Fisco2 { free_storage: false }),
            "fisco2-free-storage" => Ok(Self::Fisco2 { free_storage: true }),
            _ => match Fork::ALL.iter().find(|entry| entry.1 == text) {
                Some(entry) => Ok(Self::Fork(entry.0)),
                None => Err(UnknownRules(text.into())),
            },
        }
    }
}

impl fmt::Display for EvmRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fisco2 { free_storage: false } => "fisco2",
            Self::Fisco2 { free_storage: true } => "fisco2-free-storage",
            Self::Fork(fork) => fork.entry().1,
        })
    }
}

/// What SSTORE costs where no original values are tracked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StorageCosts {
    /// Zero to non-zero.
    pub set: u64,
    /// Non-zero to another value, zero included.
    pub reset: u64,
    /// The value stays.
    pub unchanged: u64,
    /// Given back for clearing.
    pub clear_refund: i64,
}

/// [`EvmRules`] worked out into tables.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub rules: EvmRules,
    pub spec: SpecId,
    /// Costs that depend on operands.
    pub gas_params: GasParams,
    /// Fixed cost of each opcode.
    pub gas_table: [u16; 256],
    /// `None`: as the fork says (EIP-2200 and later).
    pub storage: Option<StorageCosts>,
    /// The contracts 0x1 and up.
    pub precompiles: &'static Precompiles,
}

impl Schedule {
    pub fn new(rules: EvmRules) -> Self {
        let spec = match rules {
            EvmRules::Fisco2 { .. } => SpecId::ISTANBUL,
            EvmRules::Fork(fork) => fork.entry().2,
        };
        let mut schedule = Self {
            rules,
            spec,
            gas_params: GasParams::new_spec(spec),
            gas_table: gas_table_spec(spec),
            storage: None,
            precompiles: Precompiles::new(PrecompileSpecId::from_spec_id(spec)),
        };
        match rules {
            EvmRules::Fisco2 { free_storage: false } => schedule.apply_2x_costs(),
            EvmRules::Fisco2 { free_storage: true } => schedule.apply_free_storage_costs(),
            EvmRules::Fork(_) => {}
        }
        schedule
    }

    fn apply_2x_costs(&mut self) {
        self.gas_table[usize::from(revm::bytecode::opcode::SLOAD)] = 200;
        self.storage = Some(StorageCosts { set: 20_000, reset: 5_000, unchanged: 800, clear_refund: 15_000 });
        self.gas_params.override_gas([(GasId::new_account_cost(), 0)]);
    }

    fn apply_free_storage_costs(&mut self) {
        self.gas_table[usize::from(revm::bytecode::opcode::SLOAD)] = 1_200;
        self.storage = Some(StorageCosts { set: 1_200, reset: 1_200, unchanged: 800, clear_refund: 15_000 });
        self.gas_params.override_gas([
            (GasId::create(), 16_000),
            (GasId::transfer_value_cost(), 0),
            (GasId::call_stipend(), 5),
            (GasId::new_account_cost(), 0),
            (GasId::code_deposit_cost(), 0),
        ]);
    }

    /// Whether the group runs the machine of 2.x rather than a fork.
    pub fn is_2x(&self) -> bool {
        matches!(self.rules, EvmRules::Fisco2 { .. })
    }

    /// Whether tables and system contracts charge their free-storage prices.
    pub fn is_free_storage(&self) -> bool {
        matches!(self.rules, EvmRules::Fisco2 { free_storage: true })
    }

    /// Cost of a transaction before it runs: 21000 for a call, 53000 for a creation, 4 for each zero byte of data and 68 for each
    /// other one; with free storage a flat 20000. Forks keep the 2.x price so that a group's transactions cost the same under any
    /// rules.
    pub fn base_cost(&self, data: &[u8], is_creation: bool) -> u64 {
        if self.is_free_storage() {
            return 20_000;
        }
        let zeros = data.iter().filter(|byte| **byte == 0).count() as u64;
        let others = data.len() as u64 - zeros;
        let fixed = if is_creation { 53_000 } else { 21_000 };
        fixed + 4 * zeros + 68 * others
    }

    /// The refund to pay out of `wanted` when `used` gas was used, `limit` being the group's gas limit and `declared` the
    /// transaction's own gas field.
    ///
    /// 2.x means to cap refunds at half the gas used but computes the cap from the transaction's own gas field, in unsigned
    /// arithmetic: any field below the gas left makes the cap astronomically high. That is kept, clients see it in every receipt
    /// of a clearing transaction; but where the refund would exceed the use and `gasUsed` would wrap below zero, the cap holds as
    /// it was meant: half the use.
    pub fn refund(&self, wanted: i64, used: u64, limit: u64, declared: revm::primitives::U256) -> u64 {
        use revm::primitives::U256;
        let wanted = u64::try_from(wanted).unwrap_or(0);
        if !self.is_2x() {
            return wanted.min(used / self.gas_params.max_refund_quotient());
        }
        let cap = declared.wrapping_sub(U256::from(limit - used)) / U256::from(2);
        let refund = U256::from(wanted).min(cap).saturating_to::<u64>();
        if refund > used { used / 2 } else { refund }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use revm::primitives::U256;

    #[test]
    fn every_rule_is_parsed_from_its_own_name() {
        let names = ["fisco2", "fisco2-free-storage", "istanbul", "berlin", "london", "paris", "shanghai", "cancun", "prague"];
        for name in names {
            assert_eq!(name.parse::<EvmRules>().unwrap().to_string(), name);
        }
        assert!("constantinople".parse::<EvmRules>().unwrap_err().to_string().contains("expected fisco2"));
        assert_eq!(EvmRules::default().to_string(), "cancun");
    }

    #[test]
    fn base_cost_counts_zero_and_other_bytes() {
        let schedule = Schedule::new(EvmRules::Fisco2 { free_storage: false });
        assert_eq!(schedule.base_cost(&[0, 1, 2], false), 21_000 + 4 + 136);
        assert_eq!(schedule.base_cost(&[], true), 53_000);
        assert_eq!(Schedule::new(EvmRules::Fisco2 { free_storage: true }).base_cost(&[1; 100], true), 20_000);
    }

    #[test]
    fn refund_is_capped_as_recorded_and_never_exceeds_the_use() {
        let schedule = Schedule::new(EvmRules::Fisco2 { free_storage: false });
        let limit = 300_000_000;
        let declared = U256::from(30_000_000);
        assert_eq!(schedule.refund(15_000, 26_456, limit, declared), 15_000);
        assert_eq!(schedule.refund(15_000, 26_456, limit, U256::from(limit)), 13_228);
        assert_eq!(schedule.refund(45_000, 37_000, limit, declared), 18_500);
        assert_eq!(schedule.refund(-5, 37_000, limit, declared), 0);
        assert_eq!(Schedule::new(EvmRules::default()).refund(45_000, 37_000, limit, declared), 7_400);
    }
}
