//! Solidity contracts over the system contracts, end to end through the executor; sources and code are in `src/vm/tests/contracts`.
//! And what the executor refuses: frozen, restricted and unpaid transactions.

use std::cell::RefCell;

use millrace_base::abi::{Decoder, Encoder, error_string};
use millrace_base::{Address, Receipt, U256, hex};
use millrace_core::{StateKey, StateReader, StateValue, StorageError};

use super::codes;
use super::functions::{Chain, account, call};
use super::harness::{State, address, word};

const LEDGER: &str = include_str!("../tests/contracts/Ledger.bin");
const KEEPER: &str = include_str!("../tests/contracts/Keeper.bin");

fn deploy(chain: &mut Chain, code: &str) -> Address {
    let receipt = chain.send("cow", None, &hex::decode(code.trim()).unwrap());
    assert_eq!(receipt.status, 0, "the contract is deployed");
    receipt.contract_address
}

/// A transaction that must succeed; its output.
fn done(chain: &mut Chain, from: &str, to: Address, call: Encoder) -> Vec<u8> {
    let receipt = chain.send(from, Some(to), &call.finish());
    assert_eq!(receipt.status, 0, "{receipt:?}");
    receipt.output.to_vec()
}

fn coded(value: i64) -> Vec<u8> {
    super::harness::coded(value).to_vec()
}

fn system(chain: &mut Chain, from: &str, to: u64, call: Encoder) -> Vec<u8> {
    done(chain, from, address(to), call)
}

fn book(account: &str, memo: &str, amount: i64) -> Encoder {
    call("book(string,string,int256)").string(account).string(memo).int(amount)
}

#[test]
fn a_ledger_contract_keeps_several_rows_a_key_and_takes_them_back_with_its_frames() {
    let mut chain = Chain::new();
    let ledger = deploy(&mut chain, LEDGER);
    assert_eq!(done(&mut chain, "horse", ledger, book("ann", "rent", 5)), coded(1));
    assert_eq!(done(&mut chain, "horse", ledger, book("ann", "food", 9)), coded(1));
    let above = |name: &str, amount| call("above(string,int256)").string(name).int(amount);
    let found = |count, memo: &str| Encoder::new().int(count).string(memo).finish().to_vec();
    assert_eq!(done(&mut chain, "pig", ledger, above("ann", 0)), found(2, "rent"));
    assert_eq!(done(&mut chain, "pig", ledger, above("ann", 6)), found(1, "food"));
    let correct = call("correct(string,string,int256)").string("ann").string("rent").int(7);
    assert_eq!(done(&mut chain, "pig", ledger, correct), coded(1));
    assert_eq!(done(&mut chain, "pig", ledger, above("ann", 6)), found(2, "rent"));
    let strike = |most| call("strike(string,int256)").string("ann").int(most);
    assert_eq!(done(&mut chain, "pig", ledger, strike(1)), coded(1));
    assert_eq!(done(&mut chain, "pig", ledger, above("ann", 0)), found(1, "food"));

    let reverting = call("bookThenRevert(string,string,int256)").string("bob").string("lost").int(3);
    assert_eq!(chain.send("pig", Some(ledger), &reverting.finish()).status, 22);
    assert_eq!(done(&mut chain, "pig", ledger, above("bob", -1)), found(0, ""));
    let trying = call("tryBook(string,string,int256)").string("bob").string("lost").int(3);
    assert_eq!(done(&mut chain, "pig", ledger, trying), coded(0), "the inner call fails");
    assert_eq!(done(&mut chain, "pig", ledger, above("bob", -1)), found(1, "kept"));
    assert_eq!(word(&done(&mut chain, "pig", ledger, call("bookings()"))), U256::from(3));

    assert_eq!(done(&mut chain, "pig", ledger, call("own(string,string)").string("ann").string("eve")), coded(1));
    assert_eq!(done(&mut chain, "pig", ledger, call("own(string,string)").string("ann").string("ivy")), coded(1));
    let owner = Encoder::new().bool(true).string("ivy").finish().to_vec();
    assert_eq!(done(&mut chain, "pig", ledger, call("ownerOf(string)").string("ann")), owner);
    let unknown = Encoder::new().bool(false).string("").finish().to_vec();
    assert_eq!(done(&mut chain, "pig", ledger, call("ownerOf(string)").string("bob")), unknown);

    let register = call("register(string,string)").string("1").string(&format!("{ledger:#x}"));
    assert_eq!(done(&mut chain, "pig", ledger, register), coded(1));
    let there = Encoder::new().address(ledger).finish().to_vec();
    assert_eq!(done(&mut chain, "pig", ledger, call("find(string)").string("1")), there);
}

#[test]
fn tables_are_written_with_the_authority_of_the_origin_through_contracts_too() {
    let mut chain = Chain::new();
    let ledger = deploy(&mut chain, LEDGER);
    let grant = call("insert(string,string)").string("ledger").string(&format!("{:#x}", account("horse")));
    assert_eq!(system(&mut chain, "cow", 0x1005, grant), coded(1));
    assert_eq!(done(&mut chain, "cow", ledger, book("ann", "rent", 5)), coded(codes::NO_AUTHORITY));
    assert_eq!(done(&mut chain, "horse", ledger, book("ann", "rent", 5)), coded(1));
}

#[test]
fn a_contract_is_frozen_by_the_origin_that_created_it_through_another() {
    let mut chain = Chain::new();
    let keeper = deploy(&mut chain, KEEPER);
    let vault = Address::from_word(done(&mut chain, "pig", keeper, call("vault()"))[..32].try_into().unwrap());
    let managers = Encoder::new().int(0).addresses(&[account("cow")]).finish().to_vec();
    assert_eq!(done(&mut chain, "pig", keeper, call("managers()")), managers);
    assert_eq!(done(&mut chain, "horse", keeper, call("freeze()")), coded(codes::MANAGER_NEEDED));
    // Frozen in the transaction that calls it: nothing was frozen in this group before.
    let both = Encoder::new().int(1).bool(false).finish().to_vec();
    assert_eq!(done(&mut chain, "cow", keeper, call("freezeAndSet()")), both);
    let set = || call("set(uint256)").uint(U256::from(4));
    let refused = chain.send("cow", Some(vault), &set().finish());
    assert_eq!((refused.status, refused.output), (30, error_string(format!("Frozen contract:{vault:x}"))));
    let text = done(&mut chain, "pig", keeper, call("status()"));
    let mut text = Decoder::new(&text);
    assert_eq!(text.uint().unwrap(), U256::ZERO);
    assert!(text.string().unwrap().starts_with("The contract has been frozen."));
    assert_eq!(done(&mut chain, "pig", keeper, call("trySet(uint256)").uint(U256::from(4))), coded(0));
    assert_eq!(done(&mut chain, "cow", keeper, call("unfreeze()")), coded(1));
    assert_eq!(done(&mut chain, "pig", keeper, call("trySet(uint256)").uint(U256::from(4))), coded(1));
    assert_eq!(word(&done(&mut chain, "pig", vault, call("value()"))), U256::from(4));
}

#[test]
fn storage_of_a_contract_is_written_by_the_granted_origins_alone() {
    let mut chain = Chain::new();
    let keeper = deploy(&mut chain, KEEPER);
    let vault = Address::from_word(done(&mut chain, "pig", keeper, call("vault()"))[..32].try_into().unwrap());
    let pig = account("pig");
    assert_eq!(done(&mut chain, "horse", keeper, call("grant(address)").address(pig)), coded(codes::NO_AUTHORITY));
    assert_eq!(done(&mut chain, "cow", keeper, call("grant(address)").address(pig)), coded(1));
    let set = || call("set(uint256)").uint(U256::from(4)).finish();
    let denied = chain.send("cow", Some(vault), &set());
    assert_eq!((denied.status, denied.output.len()), (25, 0));
    let base = 21_000 + set().iter().map(|byte| if *byte == 0 { 4 } else { 68 }).sum::<u64>();
    assert_eq!(denied.gas_used, U256::from(base));
    // Inside another contract the call fails, and the transaction goes on with its gas.
    let receipt = chain.send("horse", Some(keeper), &call("trySet(uint256)").uint(U256::from(4)).finish());
    assert_eq!((receipt.status, receipt.output.to_vec()), (0, coded(0)));
    assert!(receipt.gas_used < U256::from(60_000), "{}", receipt.gas_used);
    assert_eq!(done(&mut chain, "pig", keeper, call("trySet(uint256)").uint(U256::from(6))), coded(1));
    assert_eq!(word(&done(&mut chain, "horse", vault, call("value()"))), U256::from(6), "everybody may read");
    assert_eq!(done(&mut chain, "cow", keeper, call("revoke(address)").address(pig)), coded(1));
    assert_eq!(chain.send("horse", Some(vault), &set()).status, 0);
}

fn paid(receipt: &Receipt) -> (u32, u64, u64) {
    (receipt.status, receipt.gas_used.to(), receipt.remain_gas.to())
}

#[test]
fn transactions_are_paid_by_their_senders_while_charging_is_on() {
    let mut chain = Chain::new();
    let ledger = deploy(&mut chain, LEDGER);
    system(&mut chain, "cow", 0x1008, call("grantCommitteeMember(address)").address(account("cow")));
    let switch = |value| call("setValueByKey(string,string)").string("enable_charge_mgr").string(value);
    system(&mut chain, "cow", 0x1000, switch("on"));
    let booking = book("ann", "rent", 5).finish();
    assert_eq!(paid(&chain.send("horse", Some(ledger), &booking)), (32, 0, 0));
    let charge = |amount: u64| call("charge(address,uint256)").address(account("horse")).uint(U256::from(amount));
    system(&mut chain, "cow", 0x1009, charge(30_000));
    assert_eq!(paid(&chain.send("horse", Some(ledger), &booking)), (32, 0, 30_000), "it ran, cost more, and left nothing");
    system(&mut chain, "cow", 0x1009, charge(100_000));
    let receipt = chain.send("horse", Some(ledger), &booking);
    let (status, used, left) = paid(&receipt);
    assert_eq!((status, used + left), (0, 130_000));
    let above = call("above(string,int256)").string("ann").int(0);
    assert_eq!(done(&mut chain, "cow", ledger, above), Encoder::new().int(1).string("rent").finish().to_vec());
    let free = chain.send("pig", Some(address(0x1008)), &call("queryThreshold()").finish());
    assert_eq!(paid(&free), (0, 0, 0));
    assert_eq!(paid(&chain.send("cow", Some(ledger), &booking)), (0, 0, 0));
    system(&mut chain, "cow", 0x1000, switch("off"));
    let (status, used, left) = paid(&chain.send("pig", Some(ledger), &booking));
    assert_eq!((status, left), (0, 0));
    assert!(used > 21_000);
}

/// A state that notes the table rows that are read.
struct Watched<'s>(&'s State, RefCell<Vec<String>>);

impl StateReader for Watched<'_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        if let StateKey::Row(table, _) = key {
            self.1.borrow_mut().push(table.to_string());
        }
        self.0.read(key)
    }
}

#[test]
fn a_group_without_restrictions_reads_one_row_a_transaction_for_them() {
    let mut chain = Chain::new();
    let keeper = deploy(&mut chain, KEEPER);
    let data = call("trySet(uint256)").uint(U256::from(6)).finish();
    let (status, rows) = chain.watch("pig", keeper, &data, |state, run| {
        let watched = Watched(state, RefCell::default());
        let status = run(&watched);
        (status, watched.1.into_inner())
    });
    assert_eq!(status, 0);
    assert_eq!(rows, ["_sys_guards_"]);
}
