//! What precompiled contracts cost (`spec/node-semantics.md` 7.4 (8), confirmed by the recordings).

use millrace_core::Entry;

use super::tables::capacity;

/// Bytes in the unit that memory is charged by.
const WORD_BYTES: u64 = 32;

/// Entries of one key that a call reads or copies without paying for them. No recorded call comes near.
const FREE_ENTRIES: usize = 256;
/// Gas for each entry above [`FREE_ENTRIES`]: comparing or copying one takes about as long as this much EVM work.
const ENTRY_GAS: u64 = 50;
/// Bytes of values of one key that a call reads or rewrites without paying for them.
const FREE_BYTES: u64 = 64 << 10;
/// Bytes above [`FREE_BYTES`] that are read for one gas.
const READ_BYTES: u64 = 16;
/// Bytes above [`FREE_BYTES`] that are hashed and stored again for one gas: every change of an entry rewrites all of its key.
const REWRITTEN_BYTES: u64 = 1;

/// What a call does with all entries of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// Reads them.
    Read,
    /// Reads and writes them.
    Rewritten,
}

/// Work with a price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// A comparison or limit added to a condition, a field set, a number, address or text read.
    Field,
    /// `getBytes32`.
    Bytes32,
    /// `getBytes64`.
    Bytes64,
    CreateTable,
    OpenTable,
    /// By row selected.
    Select,
    /// By row inserted or updated.
    Store,
    /// By row removed.
    Remove,
}

/// The prices of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prices {
    create: u64,
    load: u64,
    store: u64,
    remove: u64,
}

impl Prices {
    /// With or without the genesis flag `evm.enable_free_storage`.
    pub const fn new(is_free_storage: bool) -> Self {
        if is_free_storage {
            Self { create: 500, load: 200, store: 200, remove: 200 }
        } else {
            Self { create: 16_000, load: 200, store: 10_000, remove: 2_500 }
        }
    }

    fn of(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Field => 3,
            Operation::Bytes32 => 32 * 3,
            Operation::Bytes64 => 64 * 3,
            Operation::CreateTable => self.create,
            Operation::OpenTable | Operation::Select => self.load,
            Operation::Store => self.store,
            Operation::Remove => self.remove,
        }
    }
}

/// Adds up the cost of one call.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    prices: Prices,
    operations: u64,
    memory_bytes: u64,
    extent: u64,
}

impl Meter {
    pub fn new(prices: Prices) -> Self {
        Self { prices, operations: 0, memory_bytes: 0, extent: 0 }
    }

    /// Charges `count` operations.
    pub fn charge(&mut self, operation: Operation, count: usize) {
        self.operations = self.operations.saturating_add(self.prices.of(operation).saturating_mul(count as u64));
    }

    /// Charges for the entries that a call goes through, whatever it gives back. 2.x charges for results only, so a key with many
    /// entries would be work that nobody pays for; up to the free extent the prices are those of 2.x.
    pub fn charge_extent(&mut self, entries: &[Entry], extent: Extent) {
        let bytes: u64 = entries.iter().map(|entry| capacity(&entry.fields)).fold(0, u64::saturating_add);
        let gas_bytes = match extent {
            Extent::Read => READ_BYTES,
            Extent::Rewritten => REWRITTEN_BYTES,
        };
        let of_entries = (entries.len().saturating_sub(FREE_ENTRIES) as u64).saturating_mul(ENTRY_GAS);
        let of_bytes = bytes.saturating_sub(FREE_BYTES) / gas_bytes;
        self.extent = self.extent.saturating_add(of_entries).saturating_add(of_bytes);
    }

    /// What [`Meter::charge_extent`] charged.
    pub fn extent(&self) -> u64 {
        self.extent
    }

    /// The call uses this much memory, whatever it used before: where 2.x sets the figure rather than raising it.
    pub fn set_memory(&mut self, bytes: u64) {
        self.memory_bytes = bytes;
    }

    /// The call uses at least this much memory.
    pub fn raise_memory(&mut self, bytes: u64) {
        self.memory_bytes = self.memory_bytes.max(bytes);
    }

    /// The cost of a call that returns `output_bytes`.
    pub fn total(&self, output_bytes: u64) -> u64 {
        let words = self.memory_bytes.max(output_bytes).div_ceil(WORD_BYTES);
        let memory = words.saturating_mul(3).saturating_add(words.saturating_mul(words) / 512);
        self.operations.saturating_add(memory).saturating_add(self.extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_costs_three_a_word_and_the_square_of_words_by_512() {
        let mut meter = Meter::new(Prices::new(false));
        assert_eq!(meter.total(0), 0);
        meter.set_memory(292);
        assert_eq!(meter.total(32), 30);
        meter.charge(Operation::CreateTable, 1);
        assert_eq!(meter.total(32), 16_030);
        assert_eq!(meter.total(32 * 100), 16_000 + 300 + 19);
    }

    #[test]
    fn free_storage_makes_writes_cheap() {
        let mut meter = Meter::new(Prices::new(true));
        meter.charge(Operation::Store, 2);
        meter.charge(Operation::Remove, 1);
        meter.charge(Operation::CreateTable, 1);
        meter.charge(Operation::OpenTable, 1);
        assert_eq!(meter.total(0), 400 + 200 + 500 + 200);
    }
}
