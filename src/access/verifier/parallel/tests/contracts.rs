//! Random transactions of real contracts: tokens, tables, names, transfers, creations, destructions and creations anew at one address,
//! nested calls that fail, contracts that read everything, freezing, gas charging, settings.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, Bytes, KeyPair, Transaction, U256, VerifiedTx, hex};
use millrace_core::{StateKey, StateReader, StateValue, StorageError};
use millrace_vm::{EvmRules, Fork};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{assert_same, execute};
use crate::verifier::crew::Crew;
use crate::verifier::executor::{BlockExecutor, ExecutedBlock};
use crate::verifier::policy::Mode;

const USERS: u8 = 6;

fn system(address: u16) -> Address {
    Address::left_padding_from(&address.to_be_bytes())
}

/// Counts in slot 0; destroys itself when it is called with data.
const KAMIKAZE: [u8; 17] = hex!("36600e57600160005401600055005b33ff");

/// Calls the address in the first word with the rest of its input, counts successes by target, and reverts if the first byte is not zero.
const PROXY: [u8; 51] = hex!("6020360360206000376000600060203603600060006000355af160003554016000355560003560001a602d57005b60006000fd");

/// Init code that leaves `runtime` behind.
fn deploying(runtime: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(runtime.len()).unwrap().to_be_bytes();
    [&[0x61, high, low], &hex!("80600c6000396000f3")[..], runtime].concat()
}

/// Creates a kamikaze at the address that belongs to the word it is given (CREATE2), and returns the address.
fn factory() -> Vec<u8> {
    let child = deploying(&KAMIKAZE);
    let length = u8::try_from(child.len()).unwrap();
    [&[0x60, length, 0x60, 0x19, 0x60, 0, 0x39, 0x60, 0, 0x35, 0x60, length][..], &hex!("60006000f560005260206000f3"), &child].concat()
}

/// Adds up 32 slots and writes the sum and one to the slot that it is given.
fn reader() -> Vec<u8> {
    let add = (0..32).flat_map(|slot| [0x60, slot, 0x54, 0x01]);
    [0x60, 1].into_iter().chain(add).chain([0x60, 0, 0x35, 0x55, 0]).collect()
}

/// Flat state.
#[derive(Default)]
struct Flat(HashMap<StateKey, StateValue>);

impl StateReader for Flat {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.0.get(key).cloned())
    }
}

/// Where the contracts are.
#[derive(Clone, Copy, Default)]
struct Contracts {
    token: Address,
    ledger: Address,
    proxy: Address,
    factory: Address,
    reader: Address,
}

/// A chain with one copy of the state.
struct World {
    state: Arc<Flat>,
    height: u64,
    serial: BlockExecutor,
    rules: EvmRules,
    contracts: Contracts,
    signer: KeyPair,
    nonce: u64,
}

fn user(index: u8) -> Address {
    Address::repeat_byte(0x10 + index)
}

impl World {
    fn new(rules: EvmRules) -> Self {
        let signer = KeyPair::from_secret(&[1; 32]).unwrap();
        let serial = BlockExecutor::new(rules).always(Mode::Serial);
        let mut world = Self { state: Arc::default(), height: 0, serial, rules, contracts: Contracts::default(), signer, nonce: 0 };
        let code = |text: &str| hex::decode(text.trim()).unwrap();
        let created = [
            code(include_str!("../../../../../tools/txgen/contracts/Token.bin")),
            code(include_str!("../../../../vm/tests/contracts/Ledger.bin")),
            deploying(&PROXY),
            deploying(&factory()),
            deploying(&reader()),
        ];
        let transactions: Vec<_> = created.into_iter().map(|code| world.transaction(user(0), None, code.into())).collect();
        let block = world.advance(&transactions);
        assert!(block.block.receipts.iter().all(|receipt| receipt.status == 0), "{rules}: contracts are created");
        let [token, ledger, proxy, factory, reader] = [0, 1, 2, 3, 4].map(|index: usize| block.block.receipts[index].contract_address);
        world.contracts = Contracts { token, ledger, proxy, factory, reader };
        let users: Vec<Address> = (0..USERS).map(user).collect();
        let mint = Encoder::call(selector("mintMany(address[],uint256)")).addresses(&users).uint(U256::from(50)).finish();
        let mut transactions = vec![world.transaction(user(0), Some(token), mint)];
        for name in 0..USERS {
            let open = Encoder::call(selector("userAdd(string,uint256)")).string(&format!("user{name}")).uint(U256::from(40)).finish();
            transactions.push(world.transaction(user(0), Some(system(0x5002)), open));
        }
        let block = world.advance(&transactions);
        assert!(block.block.receipts.iter().all(|receipt| receipt.status == 0), "{rules}: accounts are set up");
        world
    }

    fn transaction(&mut self, sender: Address, to: Option<Address>, data: Bytes) -> VerifiedTx {
        self.nonce += 1;
        let fields = Transaction { nonce: U256::from(self.nonce), gas: U256::from(1_000_000), to, data, ..Transaction::default() };
        VerifiedTx::from_trusted_store(fields.sign(&self.signer), sender)
    }

    fn below(&self) -> Arc<dyn StateReader + Send + Sync> {
        self.state.clone()
    }

    /// Executes a block serially and goes on from it.
    fn advance(&mut self, transactions: &[VerifiedTx]) -> ExecutedBlock {
        self.height += 1;
        let below = self.below();
        let block = execute(&mut self.serial, self.height, &below, transactions).unwrap();
        drop(below);
        let state = Arc::get_mut(&mut self.state).expect("no block is being executed");
        for (key, value) in block.writes.clone() {
            match value {
                Some(value) => state.0.insert(key, value),
                None => state.0.remove(&key),
            };
        }
        block
    }

    fn random(&mut self, random: &mut StdRng) -> VerifiedTx {
        let sender = user(random.random_range(0..USERS));
        let (to, data) = self.random_call(random);
        // Now and then through the proxy, whose own frame may fail.
        if let Some(target) = to
            && random.random_ratio(1, 6)
        {
            let mut word = [0; 32];
            word[0] = u8::from(random.random_ratio(1, 3));
            word[12..].copy_from_slice(target.as_slice());
            let nested = [&word[..], &data].concat();
            return self.transaction(sender, Some(self.contracts.proxy), nested.into());
        }
        self.transaction(sender, to, data)
    }

    fn random_call(&self, random: &mut StdRng) -> (Option<Address>, Bytes) {
        let Contracts { token, ledger, factory, reader, .. } = self.contracts;
        let call = |signature: &str| Encoder::call(selector(signature));
        let (someone, other) = (user(random.random_range(0..USERS)), user(random.random_range(0..USERS)));
        let amount = U256::from(random.random_range(0..60u32));
        let [name, memo] = [0; 2].map(|_| format!("user{}", random.random_range(0..USERS)));
        let salt = U256::from(random.random_range(0..3u32));
        let kamikaze = || {
            let hash = millrace_base::keccak256(deploying(&KAMIKAZE));
            factory.create2(salt.to_be_bytes::<32>(), hash)
        };
        match random.random_range(0..32) {
            0..6 => (Some(token), call("transfer(address,uint256)").address(someone).uint(amount).finish()),
            6 => (Some(token), call("approve(address,uint256)").address(someone).uint(amount).finish()),
            7 => (Some(token), call("transferFrom(address,address,uint256)").address(someone).address(other).uint(amount).finish()),
            8 => (Some(token), call("mint(address,uint256)").address(someone).uint(amount).finish()),
            9..12 => (Some(system(0x5002)), call("userTransfer(string,string,uint256)").string(&name).string(&memo).uint(amount).finish()),
            12 => (Some(system(0x5002)), call("userSave(string,uint256)").string(&name).uint(amount).finish()),
            13 => (Some(system(0x5002)), call("userDraw(string,uint256)").string(&name).uint(amount).finish()),
            14 => (Some(system(0x5002)), call("userBalance(string)").string(&name).finish()),
            15..18 => (Some(ledger), call("book(string,string,int256)").string(&name).string(&memo).uint(amount).finish()),
            18 => (Some(ledger), call("tryBook(string,string,int256)").string(&name).string(&memo).uint(amount).finish()),
            19 => (Some(ledger), call("bookThenRevert(string,string,int256)").string(&name).string(&memo).uint(amount).finish()),
            20 => (Some(ledger), call("correct(string,string,int256)").string(&name).string(&memo).uint(amount).finish()),
            21 => (Some(ledger), call("strike(string,int256)").string(&name).int(random.random_range(1..4)).finish()),
            22 => (Some(ledger), call("own(string,string)").string(&name).string(&memo).finish()),
            23 => (Some(ledger), call("register(string,string)").string(&name).string(&memo).finish()),
            24 => (Some(factory), salt.to_be_bytes::<32>().into()),
            25 => (Some(kamikaze()), Bytes::new()),
            26 => (Some(kamikaze()), vec![1].into()),
            27 => (Some(reader), U256::from(random.random_range(0..32u32)).to_be_bytes::<32>().into()),
            28 => (None, deploying(&KAMIKAZE).into()),
            29 => (None, vec![0xfe, random.random()].into()),
            30 => (
                Some(system(0x1001)),
                call("createTable(string,string,string)").string(&format!("t_{name}")).string("k").string("v").finish(),
            ),
            _ => self.restricting(random, someone),
        }
    }

    /// What changes the rules for those after it.
    fn restricting(&self, random: &mut StdRng, someone: Address) -> (Option<Address>, Bytes) {
        let call = |signature: &str| Encoder::call(selector(signature));
        let set = |key: &str, value: &str| call("setValueByKey(string,string)").string(key).string(value).finish();
        match random.random_range(0..8) {
            0 => (Some(system(0x1007)), call("freeze(address)").address(self.contracts.token).finish()),
            1..3 => (Some(system(0x1007)), call("unfreeze(address)").address(self.contracts.token).finish()),
            3 => (Some(system(0x1000)), set("enable_charge_mgr", if random.random_ratio(1, 4) { "on" } else { "off" })),
            4 => (Some(system(0x1000)), set("tx_count_limit", "500")),
            5 => (Some(system(0x1008)), call("grantCommitteeMember(address)").address(someone).finish()),
            _ => (Some(system(0x1009)), call("charge(address,uint256)").address(someone).uint(U256::from(100_000_000)).finish()),
        }
    }
}

/// Executes random blocks on a growing chain, each serially and on every number of threads. How many transactions succeeded.
fn compare(rules: EvmRules, seed: u64, blocks: usize, size: usize, ways: &[(usize, Mode)]) -> usize {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut world = World::new(rules);
    let mut crews: Vec<_> = ways
        .iter()
        .map(|(threads, mode)| (threads, mode, BlockExecutor::with_crew(world.rules, Crew::new(*threads).unwrap()).always(*mode)))
        .collect();
    let mut succeeded = 0;
    // Signing takes longer than executing; a transaction that comes again finds another state.
    let known: Vec<_> = (0..(blocks * size).min(1_000)).map(|_| world.random(random)).collect();
    for block in 0..blocks {
        let transactions: Vec<_> = (0..size).map(|_| known[random.random_range(0..known.len())].clone()).collect();
        let results: Vec<_> = crews
            .iter_mut()
            .map(|(threads, mode, executor)| {
                let executed = execute(executor, world.height + 1, &world.below(), &transactions).unwrap();
                (executed, format!("{rules}, seed {seed}, block {block}, {threads} threads, {mode:?}"))
            })
            .collect();
        let serial = world.advance(&transactions);
        succeeded += serial.block.receipts.iter().filter(|receipt| receipt.status == 0).count();
        results.iter().for_each(|(executed, what)| assert_same(&serial, executed, what));
    }
    succeeded
}

const WAYS: [(usize, Mode); 5] =
    [(1, Mode::Speculative), (2, Mode::Speculative), (2, Mode::Guided), (4, Mode::Speculative), (16, Mode::Guided)];

#[test]
fn contracts_end_as_serially_under_the_rules_of_2x() {
    let succeeded: usize = (0..4).map(|seed| compare(EvmRules::Fisco2 { free_storage: seed % 2 == 1 }, seed, 4, 150, &WAYS)).sum();
    assert!(succeeded > 600, "{succeeded} of 2400 transactions succeeded");
}

#[test]
fn contracts_end_as_serially_under_the_rules_of_forks() {
    let forks = [(10, Fork::Istanbul), (11, Fork::Cancun), (12, Fork::Prague)];
    let succeeded: usize = forks.into_iter().map(|(seed, fork)| compare(EvmRules::Fork(fork), seed, 4, 150, &WAYS)).sum();
    assert!(succeeded > 450, "{succeeded} of 1800 transactions succeeded");
}

/// `MILLRACE_SEED=7 MILLRACE_TRANSACTIONS=1000000 cargo test --release -p millrace-access -- --ignored long_run --nocapture`
#[test]
#[ignore = "minutes"]
fn long_run_of_contracts_ends_as_serially() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, total) = (number("MILLRACE_SEED", 1), number("MILLRACE_TRANSACTIONS", 1_000_000));
    const BLOCKS: u64 = 20;
    let (mut seed, mut done, mut succeeded) = (first, 0, 0);
    while done < total {
        let random = &mut StdRng::seed_from_u64(seed);
        let size = [10, 50, 200, 1_000][random.random_range(0..4usize)];
        let threads = random.random_range(2..=16);
        let mode = if random.random() { Mode::Speculative } else { Mode::Guided };
        let rules =
            [EvmRules::Fisco2 { free_storage: false }, EvmRules::Fork(Fork::Istanbul), EvmRules::Fork(Fork::Cancun)][seed as usize % 3];
        succeeded += compare(rules, seed, BLOCKS as usize, size as usize, &[(threads, mode)]);
        done += BLOCKS * size;
        println!(
            "seed {seed}: {rules}, {BLOCKS} blocks of {size} on {threads} threads, {mode:?}: equal; {done} transactions so far, {succeeded} succeeded"
        );
        seed += 1;
    }
}
