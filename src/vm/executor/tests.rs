use std::collections::{BTreeSet, HashMap};

use millrace_base::{KeyPair, Transaction, hex, keccak256};
use millrace_core::{AccountRecord, StateKey, StateValue};

use super::*;
use crate::precompiled;
use crate::schedule::Fork;

const FISCO2: EvmRules = EvmRules::Fisco2 { free_storage: false };
const CANCUN: EvmRules = EvmRules::Fork(Fork::Cancun);
const LIMIT: u64 = 1_000_000;

/// Init code that stores `runtime` as the contract's code: PUSH2 length, DUP1, PUSH1 12, PUSH1 0, CODECOPY, PUSH1 0, RETURN.
fn deploying(runtime: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(runtime.len()).unwrap().to_be_bytes();
    [&[0x61, high, low], &hex!("80600c6000396000f3")[..], runtime].concat()
}

struct Chain {
    executor: Executor,
    environment: BlockEnvironment,
    state: HashMap<StateKey, StateValue>,
    nonce: u64,
    is_broken: bool,
}

impl StateReader for Chain {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        if self.is_broken {
            return Err(StorageError::Engine("broken".into()));
        }
        Ok(self.state.get(key).cloned())
    }
}

struct NoHashes;

impl BlockHashes for NoHashes {
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        Ok(Some(keccak256(number.to_be_bytes())))
    }
}

fn cow() -> KeyPair {
    KeyPair::from_secret(&keccak256("cow").0).unwrap()
}

impl Chain {
    fn new(rules: EvmRules) -> Self {
        let environment = BlockEnvironment { number: 7, timestamp_ms: 1_700_000_000_123, tx_gas_limit: LIMIT };
        Self { executor: Executor::new(rules), environment, state: HashMap::new(), nonce: 0, is_broken: false }
    }

    fn try_send(&mut self, to: Option<Address>, data: &[u8], value: u64) -> Result<Executed, StorageError> {
        self.nonce += 1;
        let fields = Transaction {
            nonce: U256::from(self.nonce),
            gas_price: U256::MAX,
            gas: U256::from(30_000_000),
            block_limit: U256::from(100),
            to,
            value: U256::from(value),
            data: Bytes::copy_from_slice(data),
            chain_id: U256::ONE,
            group_id: U256::ONE,
            extra_data: Bytes::new(),
        };
        let transaction = fields.sign(&cow()).verify().unwrap();
        let mut executor = mem::replace(&mut self.executor, Executor::new(FISCO2));
        let done = executor.transact(self, &NoHashes, &self.environment.clone(), &transaction);
        self.executor = executor;
        let done = done?;
        for (key, value) in done.writes.clone() {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Ok(done)
    }

    fn send(&mut self, to: Address, data: &[u8]) -> Executed {
        self.try_send(Some(to), data, 0).unwrap()
    }

    fn create(&mut self, init_code: &[u8]) -> Executed {
        self.try_send(None, init_code, 0).unwrap()
    }

    /// Deploys `runtime` and gives its address.
    fn deploy(&mut self, runtime: &[u8]) -> Address {
        let done = self.create(&deploying(runtime));
        assert_eq!(done.receipt.status, 0);
        done.receipt.contract_address
    }

    fn call(&mut self, to: Address, data: &[u8]) -> CallResult {
        let message = CallMessage { from: cow().address(), to, data: Bytes::copy_from_slice(data), value: U256::ZERO };
        let mut executor = mem::replace(&mut self.executor, Executor::new(FISCO2));
        let result = executor.call(self, &NoHashes, &self.environment.clone(), &message).unwrap();
        self.executor = executor;
        result
    }

    fn account(&self, address: Address) -> AccountRecord {
        match self.state.get(&StateKey::Account(address)) {
            Some(StateValue::Account(record)) => *record,
            Some(_) => panic!("an account's value is an account"),
            None => AccountRecord::default(),
        }
    }
}

/// PUSH20 `address`.
fn push_address(address: Address) -> Vec<u8> {
    [&[0x73], address.as_slice()].concat()
}

/// Code that calls `target` with `gas` and stores success at slot 0.
fn calling(target: Address, gas: u16) -> Vec<u8> {
    let [high, low] = gas.to_be_bytes();
    [&hex!("60006000600060006000")[..], &push_address(target), &[0x61, high, low, 0xf1, 0x60, 0x00, 0x55, 0x00]].concat()
}

fn reverted_with(message: &str) -> Bytes {
    millrace_base::abi::error_string(message)
}

#[test]
fn an_executor_may_change_threads() {
    fn is_send<T: Send>() {}
    is_send::<Executor>();
}

#[test]
fn addresses_come_from_creations_alone() {
    for rules in [FISCO2, CANCUN] {
        let mut chain = Chain::new(rules);
        let sender = cow().address();
        let first = chain.deploy(&[0x00]);
        assert_eq!(first, sender.create(0));
        assert!(chain.send(first, &[]).writes.is_empty());
        assert_eq!(chain.create(&hex!("60006000fd")).receipt.status, 22);
        assert_eq!(chain.account(sender).nonce, 2, "a creation that reverts counts");
        assert_eq!(chain.deploy(&[0x00]), sender.create(2));
        assert_eq!(chain.account(first).nonce, 0, "a contract starts at zero too");
    }
}

#[test]
fn who_creates_a_contract_manages_it_under_all_rules() {
    for rules in [FISCO2, CANCUN] {
        let mut chain = Chain::new(rules);
        let contract = chain.deploy(&hex!("00"));
        let life_cycle = Address::with_last_byte(0x07) | Address::from_slice(&[&[0; 18][..], &[0x10, 0]].concat());
        let about = |selector: [u8; 4]| [&selector[..], &[0; 12], contract.as_slice()].concat();
        let listed = chain.call(life_cycle, &about(hex!("c5252d0e"))).output;
        assert_eq!(listed[listed.len() - 20..], cow().address()[..]);
        // freeze(address): then calls are refused.
        assert_eq!(chain.send(life_cycle, &about(hex!("8d1fdf2f"))).receipt.output[31], 1);
        assert_eq!(chain.send(contract, &[0; 4]).receipt.status, 30);
    }
}

#[test]
fn the_same_code_is_stored_once() {
    let mut chain = Chain::new(FISCO2);
    let is_code = |write: &(StateKey, Option<StateValue>)| matches!(write.0, StateKey::Code(_));
    assert_eq!(chain.create(&deploying(&[0x00])).writes.iter().filter(|write| is_code(write)).count(), 1);
    assert_eq!(chain.create(&deploying(&[0x00])).writes.iter().filter(|write| is_code(write)).count(), 0);
}

#[test]
fn a_value_written_back_is_no_write() {
    let mut chain = Chain::new(FISCO2);
    // SSTORE(0, 5), SSTORE(0, 0)
    let contract = chain.deploy(&hex!("600560005560006000 5500"));
    assert!(chain.send(contract, &[]).writes.is_empty());
}

#[test]
fn clearing_a_slot_deletes_it() {
    let mut chain = Chain::new(FISCO2);
    // SSTORE(0, CALLDATASIZE)
    let contract = chain.deploy(&hex!("3660005500"));
    let key = StateKey::Slot(contract, 0, U256::ZERO);
    assert_eq!(chain.send(contract, &[1; 9]).writes, vec![(key.clone(), Some(StateValue::Slot(U256::from(9))))]);
    assert_eq!(chain.send(contract, &[]).writes, vec![(key, None)]);
}

#[test]
fn a_destroyed_contract_leaves_a_new_incarnation() {
    let mut chain = Chain::new(FISCO2);
    // With data: SSTORE(0, CALLDATASIZE). Without: SELFDESTRUCT(0).
    let runtime = deploying(&hex!("3660075760 00ff5b3660005500"));
    // Copies the call data (init code) and runs CREATE2 with salt 0 on it.
    let factory = chain.deploy(&hex!("3660006000376000366000 6000f560005260206000f3"));
    let made = Address::from_word(B256::from_slice(&chain.send(factory, &runtime).receipt.output));
    chain.send(made, &[1; 3]);
    assert!(chain.state.contains_key(&StateKey::Slot(made, 0, U256::ZERO)));
    let died = chain.send(made, &[]);
    assert_eq!(died.receipt.status, 0);
    assert_eq!(chain.account(made), AccountRecord { incarnation: 1, ..AccountRecord::default() });
    assert_eq!(chain.send(made, &[]).receipt.status, 26, "there is no code");
    let again = Address::from_word(B256::from_slice(&chain.send(factory, &runtime).receipt.output));
    assert_eq!(again, made);
    assert!(chain.account(made).has_code());
    let key = StateKey::Slot(made, 1, U256::ZERO);
    assert_eq!(chain.send(made, &[1; 4]).writes, vec![(key, Some(StateValue::Slot(U256::from(4))))]);
}

#[test]
fn a_contract_that_dies_in_its_own_creation_leaves_only_the_nonce() {
    for rules in [FISCO2, CANCUN] {
        let mut chain = Chain::new(rules);
        let done = chain.create(&hex!("600160005560 00ff"));
        assert_eq!(done.receipt.status, 0);
        let keys: Vec<_> = done.writes.into_iter().map(|write| write.0).collect();
        assert_eq!(keys, vec![StateKey::Account(cow().address())]);
    }
}

#[test]
fn running_out_of_gas_costs_the_base_under_2x_rules_and_everything_under_forks() {
    // JUMPDEST, JUMP to it.
    let forever = hex!("5b600056");
    let mut chain = Chain::new(FISCO2);
    let contract = chain.deploy(&forever);
    let receipt = chain.send(contract, &[]).receipt;
    assert_eq!((receipt.status, receipt.gas_used), (12, U256::from(21_000)));
    let mut chain = Chain::new(CANCUN);
    let contract = chain.deploy(&forever);
    let receipt = chain.send(contract, &[]).receipt;
    assert_eq!((receipt.status, receipt.gas_used), (12, U256::from(LIMIT)));
}

#[test]
fn a_call_that_ran_out_of_gas_costs_its_caller_nothing() {
    let mut chain = Chain::new(FISCO2);
    let forever = chain.deploy(&hex!("5b600056"));
    let cheap = chain.deploy(&calling(forever, 1_000));
    let dear = chain.deploy(&calling(forever, 50_000));
    assert_eq!(chain.send(cheap, &[]).receipt.gas_used, chain.send(dear, &[]).receipt.gas_used);
}

#[test]
fn a_loop_of_calls_that_run_out_of_gas_ends() {
    let mut chain = Chain::new(FISCO2);
    let forever = chain.deploy(&hex!("5b600056"));
    // JUMPDEST, CALL(50000, forever), POP, JUMP back.
    let body = [&hex!("5b60006000600060006000")[..], &push_address(forever), &hex!("61c350f150600056")].concat();
    let contract = chain.deploy(&body);
    // Were all the gas given back, the loop would run LIMIT / 762 times with 50000 gas of work each.
    let started = chain.send(contract, &[]).receipt;
    assert_eq!((started.status, started.gas_used), (12, U256::from(21_000)));
}

#[test]
fn failures_have_the_statuses_of_2x() {
    let cases: [(&[u8], u32); 8] = [
        (&hex!("fe"), 10),
        (&hex!("0c"), 10),
        (&hex!("5f5ff3"), 14),
        (&hex!("01"), 14),
        (&hex!("600356"), 11),
        (&hex!("5b60016000 56"), 13),
        (&hex!("60006000fd"), 22),
        (&hex!("60005e"), 10),
    ];
    for (code, status) in cases {
        let mut chain = Chain::new(FISCO2);
        let contract = chain.deploy(code);
        let receipt = chain.send(contract, &[]).receipt;
        assert_eq!(receipt.status, status, "{}", hex::encode(code));
        let all = U256::from(LIMIT);
        assert_eq!(receipt.gas_used == all, status != 22, "only a revert keeps the gas left");
        assert_eq!(chain.call(contract, &[]).status, status);
    }
}

#[test]
fn calling_nothing_fails() {
    for rules in [FISCO2, CANCUN] {
        let mut chain = Chain::new(rules);
        let nobody = Address::repeat_byte(0xab);
        let message = reverted_with("Error address:abababababababababababababababababababab");
        let receipt = chain.send(nobody, &[]).receipt;
        assert_eq!((receipt.status, &receipt.output, receipt.gas_used), (26, &message, U256::from(21_000)));
        assert_eq!(chain.call(nobody, &[1]), CallResult { status: 26, output: message.clone() });
        // CALL, then return success and the length of the data.
        let body = [&hex!("60006000600060006000")[..], &push_address(nobody), &hex!("5af13d600101600052 60206000f3")].concat();
        let contract = chain.deploy(&body);
        let output = chain.send(contract, &[]).receipt.output;
        assert_eq!(U256::from_be_slice(&output), U256::from(1 + message.len()));
        assert_eq!(chain.send(contract, &[]).receipt.status, 0);
    }
}

#[test]
fn value_is_seen_and_never_moves() {
    for rules in [FISCO2, CANCUN] {
        let mut chain = Chain::new(rules);
        // Returns CALLVALUE + SELFBALANCE.
        let contract = chain.deploy(&hex!("344701600052 60206000f3"));
        let done = chain.try_send(Some(contract), &[], 5).unwrap();
        assert_eq!(U256::from_be_slice(&done.receipt.output), U256::from(5));
        // Init code stores CALLVALUE.
        let made = chain.try_send(None, &hex!("3460005500"), 6).unwrap();
        let key = StateKey::Slot(made.receipt.contract_address, 0, U256::ZERO);
        assert!(made.writes.contains(&(key, Some(StateValue::Slot(U256::from(6))))));
        // CALL with value 1 from a contract fails.
        let body = [&hex!("60006000600060006001")[..], &push_address(contract), &hex!("5af1600052 60206000f3")].concat();
        let caller = chain.deploy(&body);
        assert!(U256::from_be_slice(&chain.try_send(Some(caller), &[], 9).unwrap().receipt.output).is_zero());
    }
}

#[test]
fn the_environment_is_that_of_2x_under_all_rules() {
    for rules in [FISCO2, CANCUN, EvmRules::Fork(Fork::Prague), EvmRules::Fork(Fork::London)] {
        let mut chain = Chain::new(rules);
        // NUMBER, TIMESTAMP, COINBASE, DIFFICULTY, CHAINID, GASLIMIT, GASPRICE, BLOCKHASH(6), ORIGIN, each stored in memory.
        let body = hex!("43600052 42602052 41604052 44606052 46608052 4560a052 3a60c052 60064060e052 3261010052 6101206000f3");
        let contract = chain.deploy(&body);
        let output = chain.send(contract, &[]).receipt.output;
        let words: Vec<U256> = output.chunks(32).map(U256::from_be_slice).collect();
        let hash = U256::from_be_bytes(keccak256(6_u64.to_be_bytes()).0);
        let origin = U256::from_be_bytes(cow().address().into_word().0);
        let zero = U256::ZERO;
        assert_eq!(words, [U256::from(7), U256::from(1_700_000_000_123_u64), zero, zero, zero, zero, U256::MAX, hash, origin]);
        assert_eq!(U256::from_be_slice(&chain.call(contract, &[]).output[192..224]), U256::ONE, "a call's gas price is one");
    }
}

#[test]
fn forks_run_what_2x_does_not_know() {
    // PUSH0, TLOAD, MCOPY of nothing, then return nothing.
    let code = hex!("5f5c505f5f5f5e5f5ff3");
    let mut chain = Chain::new(CANCUN);
    let contract = chain.deploy(&code);
    assert_eq!(chain.send(contract, &[]).receipt.status, 0);
    let mut chain = Chain::new(FISCO2);
    let contract = chain.deploy(&code);
    assert_eq!(chain.send(contract, &[]).receipt.status, 14);
}

#[test]
fn a_base_cost_above_the_limit_is_refused_without_a_trace() {
    let mut chain = Chain::new(FISCO2);
    let done = chain.create(&vec![1; 20_000]);
    assert_eq!((done.receipt.status, done.receipt.gas_used), (4, U256::from(LIMIT)));
    assert!(done.writes.is_empty());
    assert_eq!(chain.call(Address::ZERO, &vec![1; 20_000]).status, 4);
}

#[test]
fn absurd_sizes_of_modular_exponentiation_cost_the_base() {
    let five = Address::from_word(B256::from(U256::from(5)));
    let mut chain = Chain::new(FISCO2);
    let receipt = chain.send(five, &[0xff; 96]).receipt;
    assert_eq!((receipt.status, receipt.gas_used), (8, U256::from(21_000 + 96 * 68)));
    chain.environment.tx_gas_limit = u64::MAX;
    let mut sizes = [0; 96];
    // Exponent of 2^40 bytes, modulus of one.
    sizes[58] = 1;
    sizes[95] = 1;
    assert_eq!(chain.send(five, &sizes).receipt.status, 8);
}

#[test]
fn code_up_to_the_limit_is_accepted() {
    let mut chain = Chain::new(FISCO2);
    chain.environment.tx_gas_limit = 300_000_000;
    // Returns n bytes of memory.
    assert_eq!(chain.create(&hex!("6204000060 00f3")).receipt.status, 0);
    let refused = chain.create(&hex!("6204000160 00f3")).receipt;
    assert_eq!(refused.status, 12);
    assert!(refused.gas_used < U256::from(300_000), "no deposit is charged");
    assert!(refused.output.is_empty());
}

#[test]
fn calls_leave_nothing_behind() {
    let mut chain = Chain::new(FISCO2);
    // SSTORE(0, SLOAD(0) + 1), returns it.
    let contract = chain.deploy(&hex!("600054600101806000 5560005260206000f3"));
    for _ in 0..2 {
        assert_eq!(U256::from_be_slice(&chain.call(contract, &[]).output), U256::ONE);
    }
}

#[test]
fn failed_transactions_have_no_logs() {
    let mut chain = Chain::new(FISCO2);
    let contract = chain.deploy(&hex!("60006000a0 36600e57 60006000fd 5b00"));
    let logged = chain.send(contract, &[1]).receipt;
    assert_eq!((logged.status, logged.logs.len()), (0, 1));
    assert_eq!(logged.logs_bloom, Receipt::bloom_of(&logged.logs));
    let failed = chain.send(contract, &[]).receipt;
    assert_eq!((failed.status, failed.logs.len(), failed.logs_bloom.is_zero()), (22, 0, true));
}

#[test]
fn broken_storage_is_an_error_and_no_result() {
    let mut chain = Chain::new(FISCO2);
    let contract = chain.deploy(&hex!("60005400"));
    chain.is_broken = true;
    assert!(chain.try_send(Some(contract), &[], 0).is_err());
    chain.is_broken = false;
    assert_eq!(chain.send(contract, &[]).receipt.status, 0);
}

#[test]
fn what_ran_before_on_the_thread_changes_nothing() {
    let body = hex!("600054600101806000 55 60005260206000a0 5900");
    let fresh = std::thread::spawn(move || {
        let mut chain = Chain::new(CANCUN);
        let contract = chain.deploy(&body);
        chain.send(contract, &[])
    });
    let mut other = Chain::new(FISCO2);
    other.environment.tx_gas_limit = 300_000_000;
    // Calls itself until the depth limit, with 1 MB of memory at the first level.
    let deep = other.deploy(&hex!("600060006000600060003 05af1 6210000051 00"));
    other.send(deep, &[]);
    let mut chain = Chain::new(CANCUN);
    let contract = chain.deploy(&body);
    assert_eq!(chain.send(contract, &[]), fresh.join().unwrap());
}

#[test]
fn table_writes_go_back_with_the_frame_that_made_them() {
    let factory = Address::from_word(B256::from(U256::from(0x1001)));
    if !precompiled::has_pseudo_code(factory, 0) {
        eprintln!("the system contracts are not registered: nothing is tested");
        return;
    }
    // createTable("t", "k", "v")
    let words: [&[u8]; 3] = [b"t", b"k", b"v"];
    let mut data = hex!("56004b6a").to_vec();
    for offset in [0x60_u64, 0xa0, 0xe0] {
        data.extend(U256::from(offset).to_be_bytes::<32>());
    }
    for word in words {
        data.extend(U256::ONE.to_be_bytes::<32>());
        data.extend([word, &[0; 31]].concat());
    }
    // Hands its call data to 0x1001, then reverts or stops.
    let handing = |end: &[u8]| [&hex!("366000600037600060003660006000 6110015af150")[..], end].concat();
    let mut chain = Chain::new(FISCO2);
    let keeping = chain.deploy(&handing(&[0x00]));
    let reverting = chain.deploy(&handing(&hex!("60006000fd")));
    let rows = |done: &Executed| done.writes.iter().filter(|write| matches!(write.0, StateKey::Row(..))).count();
    let reverted = chain.send(reverting, &data);
    assert_eq!((reverted.receipt.status, rows(&reverted)), (22, 0));
    // A frame that succeeds inside one that reverts.
    let outer = [&hex!("366000600037600060003660006000")[..], &push_address(keeping), &hex!("5af15060006000fd")].concat();
    let outer = chain.deploy(&outer);
    let reverted = chain.send(outer, &data);
    assert_eq!((reverted.receipt.status, rows(&reverted)), (22, 0));
    let kept = chain.send(keeping, &data);
    assert_eq!(kept.receipt.status, 0);
    assert!(rows(&kept) > 0);
    let keys: BTreeSet<_> = kept.writes.iter().map(|write| write.0.clone()).collect();
    assert_eq!(keys.len(), kept.writes.len());
}

#[test]
fn who_has_no_grant_on_the_table_of_tables_creates_no_contract() {
    let mut chain = Chain::new(FISCO2);
    // CREATE of nothing; the address goes to slot 0.
    let factory = chain.deploy(&hex!("600060006000f060005500"));
    let grants = ["0x0000000000000000000000000000000000000001"].map(|address| {
        let fields = [("table_name", "_sys_tables_"), ("address", address), ("enable_num", "7")];
        let fields = fields.map(|(name, value)| (name.into(), Bytes::from_static(value.as_bytes())));
        millrace_core::Entry { id: 0, fields: fields.into() }
    });
    let row = StateKey::Row("_sys_table_access_".into(), b"_sys_tables_"[..].into());
    chain.state.insert(row, StateValue::Row(grants.to_vec().into()));
    let deploying = deploying(&[0x00]);
    assert_eq!(chain.create(&deploying).receipt.status, 0, "the block of the grant itself");
    chain.environment.number += 1;
    let nonce = chain.account(cow().address()).nonce;
    let denied = chain.create(&deploying);
    assert_eq!((denied.receipt.status, denied.receipt.gas_used), (25, U256::from(LIMIT)));
    assert_eq!((denied.receipt.contract_address, denied.writes.len()), (Address::ZERO, 0));
    assert_eq!(chain.account(cow().address()).nonce, nonce);
    let within = chain.send(factory, &[]);
    assert_eq!((within.receipt.status, within.writes.len()), (0, 0), "zero was stored over zero");
    assert!(within.receipt.gas_used > U256::from(LIMIT / 10 * 9), "the creation took all it was given");
}
