//! A machine whose transactions are small random programs, with delays, forced orders, faults and panics.
//!
//! Two slots always have the same sum in serial execution. A program that sees another sum has read a state that never was: it panics or
//! reports a storage error, which must not leave the scheduler. Programs that fail in every state must fail the block as serially.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use millrace_base::{Address, Bytes, KeyPair, Receipt, Transaction, U256, VerifiedTx};
use millrace_core::overlay::Writes;
use millrace_core::{AccountRecord, Entry, StateKey, StateReader, StateValue, StorageError};
use millrace_vm::{BlockEnvironment, BlockHashes, Executed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{assert_same, execute};
use crate::verifier::crew::Crew;
use crate::verifier::executor::{BlockExecutor, ExecutedBlock, TransactionRunner};
use crate::verifier::policy::Mode;

/// What the two slots of the pair have together.
const SUM: u64 = 1_000;

const STEPS: usize = 6;

/// A transaction's first byte.
const ORDINARY: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;

/// How executions are disturbed.
#[derive(Default)]
struct Chaos {
    seed: AtomicU64,
    /// Whether transactions wait for a later one to have begun.
    is_backwards: bool,
    /// Transactions that began, by nonce.
    begun: Vec<AtomicU32>,
}

impl Chaos {
    fn new(seed: u64, is_backwards: bool, count: usize) -> Arc<Self> {
        Arc::new(Self { seed: AtomicU64::new(seed), is_backwards, begun: (0..count).map(|_| AtomicU32::new(0)).collect() })
    }

    fn begin(&self, index: usize) {
        self.begun[index].store(1, Ordering::Release);
        if self.is_backwards
            && let Some(later) = self.begun.get(index + 1)
        {
            // The later one may never begin before this one ends.
            for _ in 0..10 {
                if later.load(Ordering::Acquire) == 1 {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    fn disturb(&self) {
        let random = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 48;
        match random % 16 {
            0 => std::thread::yield_now(),
            1 => (0..random).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

struct Machine {
    chaos: Arc<Chaos>,
}

fn key(index: u64) -> StateKey {
    match index % 3 {
        0 => StateKey::Slot(Address::ZERO, 0, U256::from(index)),
        1 => StateKey::Row("u_t".into(), Arc::from(&index.to_be_bytes()[..])),
        _ => StateKey::Account(Address::with_last_byte(index as u8)),
    }
}

fn pair(side: u64) -> StateKey {
    StateKey::Slot(Address::repeat_byte(1), 0, U256::from(side))
}

fn number(value: Option<&StateValue>) -> u64 {
    match value {
        None => 0,
        Some(StateValue::Slot(value)) => value.to(),
        Some(StateValue::Account(record)) => record.nonce,
        Some(StateValue::Row(rows)) => rows[0].id,
        Some(StateValue::Code(code)) => code.len() as u64,
    }
}

fn value(key: &StateKey, number: u64) -> Option<StateValue> {
    if number == 0 {
        return None;
    }
    Some(match key {
        StateKey::Slot(..) => StateValue::Slot(U256::from(number)),
        StateKey::Account(_) => StateValue::Account(AccountRecord { nonce: number, ..AccountRecord::default() }),
        _ => StateValue::Row(Arc::new(vec![Entry { id: number, ..Entry::default() }])),
    })
}

/// One run of a program.
struct Run<'a> {
    state: &'a dyn StateReader,
    chaos: &'a Chaos,
    written: HashMap<StateKey, u64>,
}

impl Run<'_> {
    fn get(&mut self, key: &StateKey) -> Result<u64, StorageError> {
        if let Some(value) = self.written.get(key) {
            return Ok(*value);
        }
        self.chaos.disturb();
        Ok(number(self.state.read(key)?.as_ref()))
    }

    /// Values as they were are left out, as the real machine does.
    fn end(self) -> Result<Writes, StorageError> {
        let mut writes = Writes::new();
        for (key, written) in self.written {
            if number(self.state.read(&key)?.as_ref()) != written {
                let value = value(&key, written);
                writes.push((key, value));
            }
        }
        writes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Ok(writes)
    }
}

impl TransactionRunner for Machine {
    fn transact(
        &mut self,
        state: &dyn StateReader,
        _: &dyn BlockHashes,
        _: &BlockEnvironment,
        transaction: &VerifiedTx,
    ) -> Result<Executed, StorageError> {
        let data = &transaction.fields().data;
        self.chaos.begin(transaction.fields().nonce.to());
        let mut run = Run { state, chaos: &self.chaos, written: HashMap::new() };
        let keys = u64::from(data[1]);
        let mut sum = 1u64;
        for step in data[2..].chunks_exact(3) {
            let place = if step[0] & 64 == 0 { u64::from(step[1]) % keys } else { sum % keys };
            match step[0] % 4 {
                0 | 1 => sum = sum.wrapping_mul(31).wrapping_add(run.get(&key(place))?) & 0xffff,
                2 => {
                    run.written.insert(key(place), if step[2] < 32 { 0 } else { sum | 1 });
                }
                _ => {
                    let (left, right) = (run.get(&pair(0))?, run.get(&pair(1))?);
                    match left + right {
                        SUM => {}
                        _ if step[2] & 1 == 0 => panic!("{left} and {right} were never there"),
                        _ => return Err(StorageError::Engine("a state that never was".into())),
                    }
                    let moved = u64::from(step[2]).min(left);
                    run.written.extend([(pair(0), left - moved), (pair(1), right + moved)]);
                    if left < 10 {
                        run.written.extend([(pair(0), right), (pair(1), left)]);
                    }
                }
            }
        }
        match data[0] {
            FAILS => return Err(StorageError::Engine(format!("broken at {sum}"))),
            PANICS => panic!("a bug"),
            _ => {}
        }
        let receipt = Receipt { gas_used: U256::from(sum), output: Bytes::copy_from_slice(&sum.to_be_bytes()), ..Receipt::default() };
        Ok(Executed { receipt, writes: run.end()? })
    }
}

struct Start;

impl StateReader for Start {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok((*key == pair(0)).then(|| StateValue::Slot(U256::from(SUM))))
    }
}

/// Panics of programs are part of these tests; printing each would take longer than they do.
fn without_noise() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// A block of random programs on so many keys.
fn programs(random: &mut StdRng, count: usize, keys: u8, ends: impl Fn(usize) -> u8) -> Vec<VerifiedTx> {
    let signer = KeyPair::from_secret(&[1; 32]).unwrap();
    let program = |index: usize| {
        let mut data = vec![ends(index), keys];
        for _ in 0..random.random_range(1..=STEPS) {
            // Moves between the pair are rare in half of the blocks only.
            let kind = if keys.is_multiple_of(2) && random.random_ratio(3, 4) { random.random::<u8>() & !1 } else { random.random() };
            data.extend([kind, random.random(), random.random()]);
        }
        let fields = Transaction { nonce: U256::from(index), data: data.into(), ..Transaction::default() };
        VerifiedTx::from_trusted_store(fields.sign(&signer), Address::with_last_byte(random.random_range(0..8)))
    };
    (0..count).map(program).collect()
}

fn run(mode: Mode, crew: &Arc<Crew>, chaos: Arc<Chaos>, transactions: &[VerifiedTx]) -> Result<ExecutedBlock, StorageError> {
    let executor = BlockExecutor::with_runner(move || Machine { chaos: Arc::clone(&chaos) }, Arc::clone(crew));
    let mut executor = executor.always(mode);
    let state: Arc<dyn StateReader + Send + Sync> = Arc::new(Start);
    execute(&mut executor, 1, &state, transactions)
}

fn serial(transactions: &[VerifiedTx]) -> Result<ExecutedBlock, StorageError> {
    run(Mode::Serial, &Crew::alone(), Chaos::new(0, false, transactions.len()), transactions)
}

#[test]
fn random_programs_end_as_serially_on_any_number_of_threads() {
    without_noise();
    let crews = [1, 2, 3, 8, 16].map(|threads| (threads, Crew::new(threads).unwrap()));
    for seed in 0..40u64 {
        let random = &mut StdRng::seed_from_u64(seed);
        let (count, keys) = (random.random_range(1..120), random.random_range(1..40));
        let transactions = programs(random, count, keys, |_| ORDINARY);
        let expected = serial(&transactions).unwrap();
        let modes = [Mode::Speculative, Mode::Guided].into_iter().cycle().skip(seed as usize % 2);
        for ((threads, crew), mode) in crews.iter().zip(modes) {
            let chaos = Chaos::new(seed * 7_919, seed % 3 == 0, count);
            let parallel = run(mode, crew, chaos, &transactions).unwrap();
            assert_same(&expected, &parallel, &format!("seed {seed}, {count} programs, {keys} keys, {threads} threads, {mode:?}"));
        }
    }
}

#[test]
fn first_storage_error_in_order_is_reported_and_those_behind_it_are_not() {
    without_noise();
    for seed in 0..20u64 {
        let random = &mut StdRng::seed_from_u64(seed);
        let (first, second) = (random.random_range(0..60), random.random_range(0..60));
        let transactions = programs(random, 60, 5, |index| if index == first || index == second { FAILS } else { ORDINARY });
        let expected = serial(&transactions).map(drop).unwrap_err().to_string();
        for threads in [2, 5] {
            let parallel = run(Mode::Speculative, &Crew::new(threads).unwrap(), Chaos::new(seed, seed % 2 == 0, 60), &transactions);
            assert_eq!(parallel.map(drop).unwrap_err().to_string(), expected, "seed {seed}, {threads} threads");
        }
    }
}

#[test]
fn panic_that_serial_execution_meets_too_reaches_the_caller_and_the_crew_goes_on() {
    let random = &mut StdRng::seed_from_u64(5);
    let transactions = programs(random, 50, 7, |index| if index == 31 { PANICS } else { ORDINARY });
    for (threads, mode) in [(2, Mode::Speculative), (4, Mode::Guided)] {
        let crew = Crew::new(threads).unwrap();
        let chaos = Chaos::new(9, false, 50);
        let mut executor = BlockExecutor::with_runner(move || Machine { chaos: Arc::clone(&chaos) }, Arc::clone(&crew)).always(mode);
        let state: Arc<dyn StateReader + Send + Sync> = Arc::new(Start);
        let ran = catch_unwind(AssertUnwindSafe(|| execute(&mut executor, 1, &state, &transactions).map(drop)));
        assert_eq!(ran.unwrap_err().downcast_ref::<&str>(), Some(&"a bug"));
        assert_eq!(crew.free(), threads - 1);
        let good = programs(random, 50, 7, |_| ORDINARY);
        assert_same(&serial(&good).unwrap(), &execute(&mut executor, 1, &state, &good).unwrap(), "after a panic");
    }
}

#[test]
fn policy_changes_ways_without_changing_results() {
    without_noise();
    let random = &mut StdRng::seed_from_u64(11);
    let crew = Crew::new(2).unwrap();
    let chaos = Chaos::new(1, false, 100);
    let mut executor = BlockExecutor::with_runner(move || Machine { chaos: Arc::clone(&chaos) }, Arc::clone(&crew));
    let state: Arc<dyn StateReader + Send + Sync> = Arc::new(Start);
    for block in 0..40u64 {
        let transactions = programs(random, 100, 3 + block as u8 % 30, |_| ORDINARY);
        let parallel = execute(&mut executor, 1, &state, &transactions).unwrap();
        assert_same(&serial(&transactions).unwrap(), &parallel, &format!("block {block}"));
    }
    let totals = crew.totals();
    assert!(totals.parallel_blocks >= 3 && totals.serial_blocks >= 3, "{totals:?}");
}
