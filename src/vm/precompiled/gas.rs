//! What precompiled contracts cost (`spec/node-semantics.md` 7.4 (8), confirmed by the recordings).

/// Bytes in the unit that memory is charged by.
const WORD_BYTES: u64 = 32;

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
}

impl Meter {
    pub fn new(prices: Prices) -> Self {
        Self { prices, operations: 0, memory_bytes: 0 }
    }

    /// Charges `count` operations.
    pub fn charge(&mut self, operation: Operation, count: usize) {
        self.operations = self.operations.saturating_add(self.prices.of(operation).saturating_mul(count as u64));
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
        self.operations.saturating_add(memory)
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
