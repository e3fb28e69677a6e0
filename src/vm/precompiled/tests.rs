use millrace_base::abi::{Encoder, int256, selector};
use millrace_base::{Address, Bytes, U256};

use millrace_core::table::system;

use super::harness::{Answer, Chain, address, coded, word};
use super::tables::{Writer, fields, system_table};
use super::*;

const SEALER: &str =
    "08855440c9f639ce6bd00651df2d24690c984289665c0736a9368aee69e70712bfe0dfbdd8c7657cdac5ed39c7b43ec9683333ee0be40421650d715f627f125c";
const COW: Address = Address::repeat_byte(0xc0);
const HORSE: Address = Address::repeat_byte(0x40);

fn call(signature: &str) -> Encoder {
    Encoder::call(selector(signature))
}

fn transact(chain: &mut Chain, from: Address, to: u64, call: Encoder) -> Answer {
    chain.transact(from, address(to), &call.finish())
}

/// A transaction in which several calls follow each other; each may use the output of the ones before.
struct Script<'c, 's> {
    context: Context<'c, 's>,
}

impl Script<'_, '_> {
    fn run(&mut self, to: Address, call: Encoder) -> Bytes {
        let input = call.finish();
        run(&mut self.context, Call { origin: COW, sender: HORSE, address: to, input: &input }).unwrap().output
    }

    fn refusal(&mut self, to: Address, call: Encoder) -> String {
        let input = call.finish();
        run(&mut self.context, Call { origin: COW, sender: HORSE, address: to, input: &input }).unwrap_err().to_string()
    }

    fn run_for_address(&mut self, to: Address, call: Encoder) -> Address {
        Address::from_word(self.run(to, call)[..32].try_into().unwrap())
    }
}

fn script<T>(chain: &mut Chain, body: impl FnOnce(&mut Script<'_, '_>) -> T) -> T {
    chain.height += 1;
    let block = BlockEnvironment { number: chain.height, timestamp_ms: 0, tx_gas_limit: 300_000_000 };
    let mut result = None;
    let accounts = super::harness::StubAccounts::default();
    chain.edit(|journal| {
        let context =
            Context { journal, temporaries: &mut Temporaries::default(), accounts: &mut &accounts, block: &block, is_free_storage: false };
        result = Some(body(&mut Script { context }));
        Ok(())
    });
    result.unwrap()
}

fn create_fruit_table(chain: &mut Chain) {
    let create = call("createTable(string,string,string)").string("fruit").string("name").string("price,colour");
    assert_eq!(transact(chain, COW, 0x1001, create).output, coded(0));
}

#[test]
fn every_selector_is_that_of_its_signature() {
    let objects = [&table::TABLE, &condition::CONDITION, &entry::ENTRY, &entry::ENTRIES];
    for contract in CONTRACTS.iter().chain(objects) {
        for function in contract.functions {
            assert_eq!(function.selector, selector(function.signature), "{}.{}", contract.name, function.signature);
        }
    }
}

#[test]
fn contracts_are_ascending_so_that_they_are_found() {
    assert!(CONTRACTS.is_sorted_by(|left, right| left.address < right.address));
    for contract in CONTRACTS {
        assert!(is_contract(address(contract.address), &Temporaries::default()), "{}", contract.name);
        assert!(has_pseudo_code(address(contract.address), 0));
    }
    for number in [0, 1, 9, 0xfff, 0x100a, 0x100f, 0x1012, 0x5001, 0x5007, 0x10001] {
        assert!(!is_contract(address(number), &Temporaries::default()), "{number:x}");
        assert!(!has_pseudo_code(address(number), 0));
    }
    assert!(!is_contract(Address::repeat_byte(0x10), &Temporaries::default()));
}

#[test]
fn rows_are_inserted_selected_updated_and_removed_through_objects() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    script(&mut chain, |script| {
        let table = script.run_for_address(address(0x1001), call("openTable(string)").string("fruit"));
        assert_eq!(table, address(0x10001));
        for price in [3, 1, 2] {
            let entry = script.run_for_address(table, call("newEntry()"));
            script.run(entry, call("set(string,int256)").string("price").int(price));
            script.run(entry, call("set(string,string)").string("colour").string("red"));
            let inserted = script.run(table, call("insert(string,address)").string("apple").address(entry));
            assert_eq!(inserted, coded(1));
        }
        let condition = script.run_for_address(table, call("newCondition()"));
        script.run(condition, call("GE(string,int256)").string("price").int(2));
        let entries = script.run_for_address(table, call("select(string,address)").string("apple").address(condition));
        assert_eq!(word(&script.run(entries, call("size()"))), U256::from(2));
        let first = script.run_for_address(entries, call("get(int256)").int(0));
        assert_eq!(word(&script.run(first, call("getInt(string)").string("price"))), U256::from(3));
        assert_eq!(script.run(first, call("getString(string)").string("name")), Encoder::new().string("apple").finish());
        assert_eq!(script.refusal(entries, call("get(int256)").int(2)), "Entries no exists: 2");
        let change = script.run_for_address(table, call("newEntry()"));
        script.run(change, call("set(string,address)").string("colour").address(HORSE));
        let update = call("update(string,address,address)").string("apple").address(change).address(condition);
        assert_eq!(script.run(table, update), coded(2));
        let removed = script.run(table, call("remove(string,address)").string("apple").address(condition));
        assert_eq!(removed, coded(2));
        let rest = script.run_for_address(table, call("newCondition()"));
        let rest = script.run_for_address(table, call("select(string,address)").string("apple").address(rest));
        assert_eq!(word(&script.run(rest, call("size()"))), U256::from(1));
        let left = script.run_for_address(rest, call("get(int256)").int(0));
        assert_eq!(word(&script.run(left, call("getUInt(string)").string("price"))), U256::from(1));
        assert_eq!(script.run(left, call("getBytes32(string)").string("colour")).as_ref()[..4], *b"red\0");
        assert_eq!(script.run(left, call("getBytes64(string)").string("colour")).len(), 64);
        assert_eq!(script.refusal(left, call("getAddress(string)").string("colour")), "PrecompiledError");
    });
}

#[test]
fn objects_of_the_wrong_kind_and_unknown_fields_are_refused() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    script(&mut chain, |script| {
        let table = script.run_for_address(address(0x1001), call("openTable(string)").string("fruit"));
        let insert = |entry| call("insert(string,address)").string("apple").address(entry);
        assert_eq!(script.refusal(table, insert(table)), "PrecompiledError");
        assert_eq!(script.refusal(table, insert(HORSE)), "PrecompiledError");
        let entry = script.run_for_address(table, call("newEntry()"));
        script.run(entry, call("set(string,uint256)").string("taste").uint(U256::MAX));
        assert_eq!(script.refusal(table, insert(entry)), "PrecompiledError");
        assert_eq!(script.refusal(table, call("select(string,address)").string("apple").address(entry)), "PrecompiledError");
        let condition = script.run_for_address(table, call("newCondition()"));
        assert_eq!(script.refusal(condition, call("limit(int256)").int(-1)), "PrecompiledError");
        assert_eq!(script.run(condition, call("limit(int256,int256)").int(0).int(1)).len(), 0);
        assert_eq!(script.run(table, call("nosuch()")).len(), 0);
    });
}

#[test]
fn writes_need_a_grant_once_there_is_one_and_from_the_next_block_on() {
    let mut chain = Chain::new(SEALER);
    let set = || call("setValueByKey(string,string)").string("tx_count_limit").string("77");
    assert_eq!(transact(&mut chain, HORSE, 0x1000, set()).output, coded(1));
    chain.height += 1;
    let since = chain.height.to_string();
    chain.edit(|journal| {
        let grant = fields([("address", format!("{COW:#x}").as_bytes()), ("enable_num", since.as_bytes())]);
        Writer::Contract.insert(journal, &system_table(system::TABLE_ACCESS), b"_sys_config_", grant).map(drop)
    });
    chain.height -= 1;
    assert_eq!(transact(&mut chain, HORSE, 0x1000, set()).output, coded(1), "the block of the grant itself");
    assert_eq!(transact(&mut chain, HORSE, 0x1000, set()).output, coded(codes::NO_AUTHORITY));
    assert_eq!(transact(&mut chain, COW, 0x1000, set()).output, coded(1));
}

#[test]
fn settings_are_checked_and_stored_with_the_block_they_were_set_in() {
    let mut chain = Chain::new(SEALER);
    let mut set = |key: &str, value: &str| {
        let set = call("setValueByKey(string,string)").string(key).string(value);
        word(&transact(&mut chain, COW, 0x1000, set).output)
    };
    let refused = int256(codes::INVALID_CONFIGURATION);
    assert_eq!(set("TX_COUNT_LIMIT", "+5"), U256::from(1));
    assert_eq!(set("tx_count_limit", " 5"), refused);
    assert_eq!(set("tx_gas_limit", "99999"), refused);
    assert_eq!(set("consensus_timeout", "4294966"), U256::from(1));
    assert_eq!(set("consensus_timeout", "4294967"), refused);
    assert_eq!(set("rpbft_epoch_block_num", "1"), refused);
    assert_eq!(set("enable_charge_mgr", "on"), U256::from(1));
    assert_eq!(set("nosuch", "1"), refused);
    chain.edit(|journal| {
        assert_eq!(system::config(journal, "tx_count_limit", 1)?.as_deref(), Some("1000"), "the block that sets it");
        assert_eq!(system::config(journal, "tx_count_limit", 2)?.as_deref(), Some("+5"), "the next one");
        Ok(())
    });
}

#[test]
fn members_change_roles_but_the_last_sealer_stays() {
    let mut chain = Chain::new(SEALER);
    let other = "AB".repeat(64);
    let mut run = |signature: &str, node: &str| word(&transact(&mut chain, COW, 0x1003, call(signature).string(node)).output);
    assert_eq!(run("addObserver(string)", SEALER), int256(codes::LAST_SEALER));
    assert_eq!(run("remove(string)", SEALER), int256(codes::LAST_SEALER));
    assert_eq!(run("addSealer(string)", &other), U256::from(1));
    assert_eq!(run("addObserver(string)", SEALER), U256::from(1));
    assert_eq!(run("remove(string)", &other.to_lowercase()), int256(codes::LAST_SEALER));
    assert_eq!(run("addSealer(string)", SEALER), U256::from(1));
    assert_eq!(run("remove(string)", &other), U256::from(1));
    assert_eq!(run("remove(string)", &other), U256::ZERO);
    assert_eq!(run("addSealer(string)", "xyz"), int256(codes::INVALID_NODE_ID));
}

#[test]
fn balances_move_between_users_and_never_overflow() {
    let mut chain = Chain::new(SEALER);
    let mut run = |call: Encoder| word(&transact(&mut chain, COW, 0x5002, call).output);
    let amount = |signature: &str, user: &str, amount: u64| call(signature).string(user).uint(U256::from(amount));
    let transfer =
        |from: &str, to: &str, amount: u64| call("userTransfer(string,string,uint256)").string(from).string(to).uint(U256::from(amount));
    assert_eq!(run(amount("userAdd(string,uint256)", "ann", 10)), U256::ZERO);
    assert_eq!(run(amount("userAdd(string,uint256)", "ann", 10)), int256(codes::USER_EXISTS));
    assert_eq!(run(call("userAdd(string,uint256)").string("max").uint(U256::MAX)), U256::ZERO);
    assert_eq!(run(amount("userSave(string,uint256)", "ann", 5)), U256::ZERO);
    assert_eq!(run(amount("userDraw(string,uint256)", "ann", 1)), U256::ZERO);
    assert_eq!(run(amount("userDraw(string,uint256)", "ann", 15)), int256(codes::INSUFFICIENT_BALANCE));
    assert_eq!(run(transfer("ann", "bob", 4)), U256::ZERO);
    assert_eq!(run(transfer("ann", "max", 1)), int256(codes::BALANCE_OVERFLOW));
    assert_eq!(run(transfer("ann", "ann", 1_000)), U256::ZERO);
    assert_eq!(run(transfer("eve", "ann", 1)), int256(codes::USER_MISSING));
    assert_eq!(run(transfer("ann", "", 1)), int256(codes::INVALID_USER_NAME));
    assert_eq!(run(transfer("ann", "bob", 0)), int256(codes::INVALID_AMOUNT));
    for (user, balance) in [("ann", 10), ("bob", 4)] {
        let output = transact(&mut chain, COW, 0x5002, call("userBalance(string)").string(user)).output;
        assert_eq!(output, Encoder::new().int(0).uint(U256::from(balance)).finish());
    }
}

#[test]
fn input_without_a_selector_is_answered_like_an_unknown_function() {
    let mut chain = Chain::new(SEALER);
    for (contract, answer) in [(0x1000, coded(0)), (0x1001, Bytes::new()), (0x5003, coded(codes::UNKNOWN_FUNCTION))] {
        for input in [&[][..], &[1, 2, 3], &[1, 2, 3, 4]] {
            assert_eq!(chain.transact(COW, address(contract), input).output, answer);
        }
    }
}
