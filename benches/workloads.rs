//! Blocks that are easy or hard to execute on several threads.

use std::sync::Arc;

use millrace_base::abi::{Encoder, selector};
use millrace_base::{Address, Bytes, U256, VerifiedTx, hex, keccak256};
use millrace_core::Durability;
use millrace_core::storage::memory::MemoryStorage;

use crate::chain::Chain;

/// Accounts of most workloads; half of them pay, half of them are paid.
const ACCOUNTS: u64 = 2_000;

/// Groups of accounts that pay one of them.
const FAMILIES: u64 = 16;

/// Slots that the contract which reads everything reads: a cold read of each costs 2,100 gas.
const READ_SLOTS: u16 = 1_000;

/// Kinds of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Token payments between accounts of which none appears twice.
    ConflictFree,
    /// Token payments to 16 accounts.
    HotFamilies,
    /// Token payments to one account.
    HotSlot,
    /// Token payments between accounts of which few appear often.
    Zipfian,
    /// Token payments, payments through the transfer contract, and rows of a table.
    Tables,
    /// Token payments, one transaction in a hundred reads a thousand slots of which one in a hundred writes one.
    ReadsEverything,
    /// Creations of contracts by different accounts.
    Creations,
    /// Token payments behind a transaction that runs to the gas limit.
    GasLimit,
}

impl Workload {
    /// All of them, with a name each.
    pub const ALL: [(&'static str, Self); 8] = [
        ("conflict-free", Self::ConflictFree),
        ("16 hot families", Self::HotFamilies),
        ("one hot slot", Self::HotSlot),
        ("zipfian", Self::Zipfian),
        ("mixed with tables", Self::Tables),
        ("reads everything", Self::ReadsEverything),
        ("creations", Self::Creations),
        ("gas limit", Self::GasLimit),
    ];
}

/// A chain with contracts and accounts, and what makes blocks on it.
pub struct Bench {
    /// The chain.
    pub chain: Chain,
    token: Address,
    table: Address,
    reader: Address,
    burner: Address,
    random: u64,
}

fn account(index: u64) -> Address {
    Address::from_word(keccak256(index.to_be_bytes()))
}

fn name(index: u64) -> String {
    format!("user{index}")
}

fn call(signature: &str) -> Encoder {
    Encoder::call(selector(signature))
}

/// Init code that leaves `runtime` behind.
fn deploying(runtime: &[u8]) -> Bytes {
    let length = u16::try_from(runtime.len()).expect("short code");
    [&[0x61][..], &length.to_be_bytes(), &hex!("80600c6000396000f3"), runtime].concat().into()
}

/// Without data: adds up all slots. With a word: counts up the slot of that number.
fn reader() -> Vec<u8> {
    let [high, low] = READ_SLOTS.to_be_bytes();
    // CALLDATASIZE, PUSH1 write, JUMPI, PUSH1 0 (sum), PUSH2 slots; loop: PUSH1 1, SWAP1, SUB, DUP1, SLOAD, SWAP2, ADD, SWAP1, DUP1,
    // PUSH1 loop, JUMPI, STOP; write: PUSH1 0, CALLDATALOAD, DUP1, SLOAD, PUSH1 1, ADD, SWAP1, SSTORE, STOP.
    let mut code = vec![0x36, 0x60, 0x18, 0x57, 0x60, 0x00, 0x61, high, low];
    code.extend([0x5b, 0x60, 0x01, 0x90, 0x03, 0x80, 0x54, 0x91, 0x01, 0x90, 0x80, 0x60, 0x09, 0x57, 0x00]);
    code.extend([0x5b, 0x60, 0x00, 0x35, 0x80, 0x54, 0x60, 0x01, 0x01, 0x90, 0x55, 0x00]);
    code
}

impl Bench {
    /// Contracts and accounts are there.
    pub fn new() -> Self {
        let mut chain = Chain::new(Arc::new(MemoryStorage::new()), Durability::Process);
        let code = |text: &str| Bytes::from(hex::decode(text.trim()).expect("compiler output"));
        let codes = [
            code(include_str!("../tools/txgen/contracts/Token.bin")),
            code(include_str!("../tools/txgen/contracts/TableLedger.bin")),
            deploying(&reader()),
            // JUMPDEST, PUSH1 0, JUMP.
            deploying(&[0x5b, 0x60, 0x00, 0x56]),
        ];
        let created = codes.map(|code| chain.transaction(None, code)).to_vec();
        let block = chain.apply(created);
        let [token, table, reader, burner] = [0, 1, 2, 3].map(|index: usize| block.receipts[index].contract_address);
        let mut bench = Self { chain, token, table, reader, burner, random: 1 };
        bench.fill();
        bench
    }

    fn fill(&mut self) {
        let accounts: Vec<u64> = (0..2 * ACCOUNTS + 20_000).collect();
        for accounts in accounts.chunks(500) {
            let accounts: Vec<Address> = accounts.iter().copied().map(account).collect();
            let mint = call("mintMany(address[],uint256)").addresses(&accounts).uint(U256::from(1_000_000_000)).finish();
            let minted = self.chain.transaction(Some(self.token), mint);
            self.chain.apply(vec![minted]);
        }
        let create = call("create(string)").string("bench").finish();
        let mut transactions = vec![self.chain.transaction(Some(self.table), create)];
        for index in 0..ACCOUNTS {
            let row = call("insert(string,int256)").string(&name(index)).int(1_000_000_000).finish();
            transactions.push(self.chain.transaction(Some(self.table), row));
            let open = call("userAdd(string,uint256)").string(&name(index)).uint(U256::from(1_000_000_000)).finish();
            transactions.push(self.chain.transaction(Some(DAG_TRANSFER), open));
        }
        self.chain.apply(transactions);
    }

    /// Pseudo-random numbers, the same in every run.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    /// An account number; the k-th is drawn about 1/k as often as the first.
    fn zipf(&mut self) -> u64 {
        let exponent = self.below(1 << 20) as f64 / f64::from(1 << 20);
        ((ACCOUNTS as f64).powf(exponent) - 1.0) as u64
    }

    fn pay(&mut self, from: u64, to: u64) -> VerifiedTx {
        let data = call("transfer(address,uint256)").address(account(to)).uint(U256::from(1)).finish();
        self.chain.transaction_of(account(from), Some(self.token), data)
    }

    /// A block of so many transactions.
    pub fn block(&mut self, workload: Workload, size: u64) -> Vec<VerifiedTx> {
        (0..size).map(|index| self.transaction(workload, index)).collect()
    }

    fn transaction(&mut self, workload: Workload, index: u64) -> VerifiedTx {
        match workload {
            Workload::ConflictFree => self.pay(2 * index, 2 * index + 1),
            Workload::HotFamilies => {
                let family = self.below(FAMILIES);
                self.pay(FAMILIES + index, family)
            }
            Workload::HotSlot => self.pay(1 + index, 0),
            Workload::Zipfian => {
                let (from, to) = (self.zipf(), self.zipf());
                self.pay(from, to)
            }
            Workload::Tables => self.mixed(index),
            Workload::ReadsEverything if index % 100 == 50 => self.chain.transaction_of(account(index), Some(self.reader), Bytes::new()),
            Workload::ReadsEverything if index % 100 == 25 => {
                let slot = U256::from(self.below(u64::from(READ_SLOTS)));
                self.chain.transaction_of(account(index), Some(self.reader), slot.to_be_bytes::<32>().into())
            }
            Workload::Creations => self.chain.transaction_of(account(index), None, deploying(&[0x60; 64])),
            Workload::GasLimit if index == 0 => self.chain.transaction_of(account(0), Some(self.burner), Bytes::new()),
            Workload::ReadsEverything | Workload::GasLimit => self.pay(2 * index, 2 * index + 1),
        }
    }

    fn mixed(&mut self, index: u64) -> VerifiedTx {
        let (from, to) = (self.below(ACCOUNTS), self.below(ACCOUNTS));
        match index % 3 {
            0 => self.pay(from, to),
            1 => {
                let data = call("userTransfer(string,string,uint256)").string(&name(from)).string(&name(to)).uint(U256::from(1)).finish();
                self.chain.transaction_of(account(from), Some(DAG_TRANSFER), data)
            }
            _ => {
                let data = call("transfer(string,string,int256)").string(&name(from)).string(&name(to)).int(1).finish();
                self.chain.transaction_of(account(from), Some(self.table), data)
            }
        }
    }
}

/// The DagTransfer contract, 0x5002.
const DAG_TRANSFER: Address = Address::new(hex!("0000000000000000000000000000000000005002"));
