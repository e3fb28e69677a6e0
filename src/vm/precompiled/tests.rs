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
    for function in functions() {
        assert_eq!(function.selector, selector(function.signature), "{}.{}", function.contract, function.signature);
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

#[test]
fn names_of_tables_and_fields_are_checked_and_a_table_is_created_once() {
    let mut chain = Chain::new(SEALER);
    let mut create = |to: u64, name: &str, key: &str, fields: &str| {
        let answer = transact(&mut chain, COW, to, call("createTable(string,string,string)").string(name).string(key).string(fields));
        if answer.status == 0 { word(&answer.output).to_string() } else { error_text(&answer.output) }
    };
    assert_eq!(create(0x1001, "t", " k ", "a, b"), "0");
    assert_eq!(create(0x1001, "t", "k", "a"), int256(codes::TABLE_EXISTS).to_string());
    assert_eq!(create(0x1010, "t", "k", "a"), int256(codes::TABLE_EXISTS).to_string());
    assert_eq!(create(0x1001, &"n".repeat(49), "k", "a"), "tableName length overflow 50");
    assert_eq!(create(0x1001, "u", &"k".repeat(65), "a"), "table field name length overflow 64");
    assert_eq!(create(0x1001, "u", "k", "a,a"), "duplicate field:a");
    assert_eq!(create(0x1010, "u", "k", "a,a"), "dumplicate field:a");
    assert_eq!(create(0x1010, "u-v", "k", "a"), "invalid tablename:u-v");
    assert_eq!(create(0x1010, "u", "k", "_a"), "invalid field:_a");
    assert!(create(0x1001, "u", "k", "").starts_with("Invalid field \"\", the size"));
    assert!(create(0x1001, "u", "k", "a-b").starts_with("Invalid field \"a-b\", the field name must"));
    assert!(create(0x1001, "u v", "k", "a").starts_with("Invalid table name \"u v\", the table name must"));
    let many: Vec<_> = (0..17).map(|index| format!("{index:060}")).collect();
    assert_eq!(create(0x1001, "u", "k", &many.join(",")), "total table field name length overflow 1024");
}

fn error_text(output: &[u8]) -> String {
    millrace_base::abi::Decoder::new(&output[4..]).string().unwrap().into()
}

fn string_of(output: &[u8]) -> String {
    millrace_base::abi::Decoder::new(output).string().unwrap().into()
}

#[test]
fn key_value_tables_keep_one_row_a_key() {
    let mut chain = Chain::new(SEALER);
    let create = call("createTable(string,string,string)").string("kv").string("id").string("price");
    assert_eq!(transact(&mut chain, COW, 0x1010, create).output, coded(0));
    script(&mut chain, |script| {
        assert_eq!(script.refusal(address(0x1010), call("openTable(string)").string("no")), "u_no does not exist");
        let table = script.run_for_address(address(0x1010), call("openTable(string)").string("kv"));
        assert_eq!(script.run(table, call("get(string)").string("a")), Encoder::new().bool(false).address(Address::ZERO).finish());
        for price in [5, 6] {
            let entry = script.run_for_address(table, call("newEntry()"));
            script.run(entry, call("set(string,int256)").string("price").int(price));
            assert_eq!(script.run(table, call("set(string,address)").string("a").address(entry)), coded(1));
        }
        let found = script.run(table, call("get(string)").string("a"));
        assert_eq!(word(&found), U256::from(1));
        let entry = Address::from_word(found[32..64].try_into().unwrap());
        assert_eq!(script.run(entry, call("getInt(string)").string("price")), coded(6));
        let long = "k".repeat(256);
        assert_eq!(script.refusal(table, call("set(string,address)").string(&long).address(entry)), "size of value/key greater than255");
    });
}

#[test]
fn crud_reads_and_writes_rows_as_json() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    let four = |signature: &str, json: &str| call(signature).string("fruit").string("apple").string(json).string("");
    let mut run = |call: Encoder| transact(&mut chain, COW, 0x1002, call).output;
    let insert = "insert(string,string,string,string)";
    assert_eq!(run(four(insert, r#"{"price":1,"colour":"red"}"#)), coded(1));
    assert_eq!(run(four(insert, r#"{"price":2} trailing"#)), coded(1));
    assert_eq!(run(four(insert, "no json")), coded(codes::ENTRY_SYNTAX));
    let update = |entry: &str, condition: &str| {
        let update = call("update(string,string,string,string,string)").string("fruit").string("apple");
        update.string(entry).string(condition).string("")
    };
    assert_eq!(run(update(r#"{"colour":"\u7ea2"}"#, r#"{"price":{"ge":"2"}}"#)), coded(1));
    assert_eq!(run(update(r#"{"name":"pear"}"#, "{}")), coded(codes::KEY_UPDATE));
    let select = "select(string,string,string,string)";
    assert_eq!(
        string_of(&run(four(select, r#"{"price":{"gt":"1"}}"#))),
        "[\n\t{\n\t\t\"colour\" : \"\\u7ea2\",\n\t\t\"name\" : \"apple\",\n\t\t\"price\" : \"2\"\n\t}\n]\n"
    );
    assert_eq!(run(four(select, r#"{"price":{"like":"1"}}"#)), coded(codes::CONDITION_OPERATOR));
    assert_eq!(run(four(select, "")), coded(codes::CONDITION_SYNTAX));
    let remove = "remove(string,string,string,string)";
    assert_eq!(run(four(remove, r#"{"limit":{"limit":"0,1"}}"#)), coded(1));
    assert_eq!(run(four(remove, "{}")), coded(1));
    assert_eq!(string_of(&run(four(select, "{}"))), "[]\n");
    let missing = call(remove).string("nosuch").string("apple").string("{}").string("");
    assert_eq!(run(missing), coded(codes::TABLE_MISSING));
    let described = Encoder::new().string("name").string("price,colour").finish();
    assert_eq!(run(call("desc(string)").string("fruit")), described);
    assert_eq!(error_text(&run(four(select, r#"{"limit":{"limit":"2"}}"#))), "PrecompiledError");
}

#[test]
fn contract_names_have_versions() {
    let mut chain = Chain::new(SEALER);
    let insert = |version: &str, address: &str| {
        call("insert(string,string,string,string)").string("Hello").string(version).string(address).string("[]")
    };
    let two = |signature: &str, version: &str| call(signature).string("Hello").string(version);
    let mut run = |call: Encoder| transact(&mut chain, COW, 0x1004, call).output;
    let account = format!("{COW:#x}");
    assert_eq!(run(insert("1", &account)), coded(1));
    assert_eq!(run(insert("1", &account)), coded(codes::VERSION_EXISTS));
    assert_eq!(run(insert("2", "xyz")), coded(codes::INVALID_ADDRESS));
    assert_eq!(run(insert(&"2".repeat(129), &account)), coded(codes::VERSION_TOO_LONG));
    let listed = format!("[{{\"abi\":\"[]\",\"address\":\"{account}\",\"name\":\"Hello\",\"version\":\"1\"}}]\n");
    assert_eq!(string_of(&run(call("selectByName(string)").string("Hello"))), listed);
    assert_eq!(string_of(&run(two("selectByNameAndVersion(string,string)", "1"))), listed);
    assert_eq!(string_of(&run(two("selectByNameAndVersion(string,string)", "2"))), "[]\n");
    assert_eq!(run(two("getContractAddress(string,string)", "1")), Encoder::new().address(COW).finish());
    assert_eq!(error_text(&run(two("getContractAddress(string,string)", "2"))), "Entries no exists: 0");
}

#[test]
fn grants_close_a_table_to_others_from_the_next_block_on() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    let cow = format!("{COW:#x}");
    let permission = |signature: &str, table: &str, address: &str| call(signature).string(table).string(address);
    let write = || call("insert(string,string,string,string)").string("fruit").string("apple").string("{}").string("").finish();
    let mut run = |call: Encoder| transact(&mut chain, COW, 0x1005, call).output;
    assert_eq!(run(permission("insert(string,string)", "fruit", &cow.to_uppercase().replace("0X", "0x"))), coded(1));
    assert_eq!(run(permission("insert(string,string)", "fruit", &cow)), coded(codes::GRANT_EXISTS));
    assert_eq!(run(permission("insert(string,string)", "fruit", "xyz")), coded(codes::INVALID_ADDRESS));
    assert_eq!(run(permission("insert(string,string)", &"n".repeat(63), &cow)), coded(codes::TABLE_NAME_TOO_LONG));
    assert_eq!(run(permission("insert(string,string)", "_sys_table_access_", &cow)), coded(codes::COMMITTEE_RULES));
    assert_eq!(run(permission("insert(string,string)", "_sys_tables_", &cow)), coded(1));
    let listed = format!("[{{\"address\":\"{cow}\",\"enable_num\":\"2\",\"table_name\":\"u_fruit\"}}]\n");
    assert_eq!(string_of(&run(call("queryByName(string)").string("fruit"))), listed);
    assert_eq!(string_of(&run(call("queryPermission(address)").address(COW))), "[]\n");
    for signature in ["grantWrite(address,address)", "revokeWrite(address,address)"] {
        assert_eq!(run(call(signature).address(COW).address(HORSE)), coded(codes::GRANTED_CONTRACT_MISSING));
    }
    assert_eq!(chain.call(HORSE, address(0x1002), &write()).output, coded(codes::NO_AUTHORITY));
    assert_eq!(chain.transact(HORSE, address(0x1002), &write()).output, coded(codes::NO_AUTHORITY));
    assert_eq!(chain.transact(COW, address(0x1002), &write()).output, coded(1));
    let create = call("createTable(string,string,string)").string("other").string("k").string("v").finish();
    assert_eq!(chain.transact(HORSE, address(0x1001), &create).output, coded(codes::NO_AUTHORITY));
    assert!(error_text(&chain.transact(HORSE, address(0x1010), &create).output).ends_with("can't create table u_other"));
    let mut run = |call: Encoder| transact(&mut chain, COW, 0x1005, call).output;
    assert_eq!(run(permission("remove(string,string)", "fruit", &cow)), coded(1));
    assert_eq!(run(permission("remove(string,string)", "fruit", &cow)), coded(codes::GRANT_MISSING));
    assert_eq!(chain.transact(HORSE, address(0x1002), &write()).output, coded(1));
}

#[test]
fn a_grant_made_in_the_heads_block_is_in_force_for_a_call() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    let grant = call("insert(string,string)").string("fruit").string(&format!("{COW:#x}"));
    assert_eq!(transact(&mut chain, COW, 0x1005, grant).output, coded(1));
    let write = call("insert(string,string,string,string)").string("fruit").string("apple").string("{}").string("").finish();
    assert_eq!(chain.call(HORSE, address(0x1002), &write).output, coded(codes::NO_AUTHORITY));
    assert_eq!(chain.call(COW, address(0x1002), &write).output, coded(1));
}

#[test]
fn parallel_functions_are_registered_and_forgotten() {
    let mut chain = Chain::new(SEALER);
    let register = |size: u64| {
        let register = call("registerParallelFunctionInternal(address,string,uint256)").address(COW);
        register.string("set(string,uint256)").uint(U256::from(size))
    };
    assert_eq!(transact(&mut chain, COW, 0x1006, register(1)).output, coded(0));
    assert_eq!(transact(&mut chain, COW, 0x1006, register(2)).output, coded(0));
    let rows = |chain: &mut Chain| {
        let mut rows = None;
        chain.edit(|journal| {
            let table = millrace_core::table::Table::open(journal, &format!("cp_{COW:x}"))?.unwrap();
            rows = Some(table.entries(journal, b"parallel")?);
            Ok(())
        });
        rows.unwrap()
    };
    let registered = rows(&mut chain);
    assert_eq!((registered.len(), tables::field(&registered[0], "criticalSize")), (1, &b"2"[..]));
    let unregister = call("unregisterParallelFunctionInternal(address,string)").address(COW).string("set(string,uint256)");
    assert_eq!(transact(&mut chain, COW, 0x1006, unregister).output, coded(0));
    assert!(rows(&mut chain).is_empty());
}

#[test]
fn hashes_are_those_of_the_standards() {
    let mut chain = Chain::new(SEALER);
    let mut hash = |signature: &str| transact(&mut chain, COW, 0x5006, call(signature).bytes(b"abc")).output;
    assert_eq!(hash("keccak256Hash(bytes)").as_ref(), millrace_base::keccak256(b"abc").as_slice());
    assert_eq!(hash("sm3(bytes)")[..4], [0x66, 0xc7, 0xf0, 0xf4]);
}

#[test]
fn free_storage_has_its_own_prices() {
    let mut chain = Chain::new(SEALER);
    chain.is_free_storage = true;
    let create = call("createTable(string,string,string)").string("t").string("k").string("v");
    assert_eq!(transact(&mut chain, COW, 0x1001, create).gas_used, 500 + 30);
}

#[test]
fn entries_of_a_key_above_the_free_extent_are_paid_by_whoever_goes_through_them() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    let insert = |entry: &str| call("insert(string,string,string,string)").string("fruit").string("fig").string(entry).string("");
    let mut costs = Vec::new();
    for _ in 0..300 {
        costs.push(transact(&mut chain, COW, 0x1002, insert("{\"price\":\"1\"}")).gas_used);
    }
    assert!(costs[..=256].iter().all(|cost| *cost == costs[0]), "up to the free extent the price is that of 2.x");
    assert_eq!(costs[299], costs[0] + (299 - 256) * 50);
    let select = |key: &str| {
        let condition = "{\"price\":{\"gt\":\"5\"}}";
        call("select(string,string,string,string)").string("fruit").string(key).string(condition).string("")
    };
    let (nothing, many) = (transact(&mut chain, COW, 0x1002, select("figs")), transact(&mut chain, COW, 0x1002, select("fig")));
    assert_eq!(nothing.output, many.output, "no entry meets the condition");
    assert_eq!(many.gas_used, nothing.gas_used + (300 - 256) * 50);
    // A refusal is paid too: a contract may catch it and try again.
    let refused = transact(&mut chain, COW, 0x1002, insert("{\"weight\":\"1\"}"));
    assert_eq!((refused.status, refused.gas_used), (21, (300 - 256) * 50));
}

#[test]
fn bytes_of_a_key_above_the_free_extent_are_paid_by_whoever_rewrites_them() {
    let mut chain = Chain::new(SEALER);
    create_fruit_table(&mut chain);
    let entry = format!("{{\"colour\":\"{}\"}}", "r".repeat(100_000));
    let insert = |entry: &str| call("insert(string,string,string,string)").string("fruit").string("fig").string(entry).string("");
    assert_eq!(transact(&mut chain, COW, 0x1002, insert(&entry)).output, coded(1));
    let small = transact(&mut chain, COW, 0x1002, insert("{}")).gas_used;
    let bytes: u64 = 100_000 + ["colour", "name", "fig"].iter().map(|text| text.len() as u64).sum::<u64>();
    let alone = call("insert(string,string,string,string)").string("fruit").string("figs").string("{}").string("");
    let alone = transact(&mut chain, COW, 0x1002, alone).gas_used;
    assert!(small >= alone - 10 + bytes - (64 << 10), "{small} for rewriting {bytes} bytes, {alone} without them");
}

#[test]
fn lists_that_are_read_as_a_whole_have_a_limit() {
    let mut chain = Chain::new(SEALER);
    for number in 0..tables::MAX_LISTED {
        let grant = call("insert(string,string)").string("fruit").string(&format!("0x{number:040x}"));
        assert_eq!(transact(&mut chain, COW, 0x1005, grant).output, coded(1));
    }
    let grant = call("insert(string,string)").string("fruit").string(&format!("{COW:#x}"));
    assert!(error_text(&transact(&mut chain, COW, 0x1005, grant).output).contains("at most 1000 grants"));
}
