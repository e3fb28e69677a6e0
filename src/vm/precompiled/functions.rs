//! Every function of every contract and object, called as clients call it: by a signed transaction with ABI-encoded data. A function
//! that is added without a case here fails the test.

use std::collections::BTreeSet;
use std::slice::from_ref;

use millrace_base::abi::{Encoder, error_string, selector};
use millrace_base::{Address, B256, Bytes, KeyPair, NodeId, Receipt, Transaction, U256, VerifiedTx, hex, keccak256};
use millrace_core::table::system::{GenesisState, genesis_writes};
use millrace_core::{StateReader, StorageError};

use super::harness::{State, address};
use super::{codes, functions};
use crate::environment::{BlockEnvironment, BlockHashes};
use crate::executor::Executor;
use crate::schedule::EvmRules;

/// A contract that makes the calls it is given, each as address (20 bytes), length (2) and data, and returns what the last one did; it
/// reverts with the output of the first that fails. Objects live for one transaction, so their functions are called through it.
const RELAY: &[u8] = &hex!(
    "60005b80361115603e57806014013560f01c8082601601600037600060008260006000863560601c5af16036573d6000803e3d6000fd5b016016016002565b3d6000803e3d6000f3"
);

/// Init code that stores [`RELAY`].
fn deploying(runtime: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(runtime.len()).unwrap().to_be_bytes();
    [&[0x61, high, low], &hex!("80600c6000396000f3")[..], runtime].concat()
}

struct NoHashes;

impl BlockHashes for NoHashes {
    fn block_hash(&self, _: u64) -> Result<Option<B256>, StorageError> {
        Ok(None)
    }
}

/// A fresh chain: block 1 holds the relay, which the account `cow` deployed, block 2 one that `horse` deployed.
pub(super) struct Chain {
    executor: Executor,
    state: State,
    pub height: u64,
    pub relay: Address,
}

pub(super) fn key(name: &str) -> KeyPair {
    KeyPair::from_secret(&keccak256(name).0).unwrap()
}

pub(super) fn account(name: &str) -> Address {
    key(name).address()
}

impl Chain {
    pub fn new() -> Self {
        let mut state = State::default();
        let config = [("tx_count_limit", "1000"), ("tx_gas_limit", "300000000"), ("consensus_timeout", "3")];
        let config = config.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
        state.apply(genesis_writes(&GenesisState { sealers: vec![NodeId::parse(&"ab".repeat(64)).unwrap()], config }));
        let executor = Executor::new(EvmRules::Fisco2 { free_storage: false });
        let mut chain = Self { executor, state, height: 0, relay: Address::ZERO };
        chain.relay = chain.send("cow", None, &deploying(RELAY)).contract_address;
        chain.send("horse", None, &deploying(RELAY));
        chain
    }

    /// A transaction in a block of its own.
    pub fn send(&mut self, from: &str, to: Option<Address>, data: &[u8]) -> Receipt {
        let (block, transaction) = self.next(from, to, data);
        let done = self.executor.transact(&self.state, &NoHashes, &block, &transaction).unwrap();
        self.state.apply(done.writes);
        done.receipt
    }

    /// Has `body` run a transaction over the state or a view of it, once; its status is given, its writes are lost.
    pub fn watch<T>(
        &mut self,
        from: &str,
        to: Address,
        data: &[u8],
        body: impl FnOnce(&State, &mut dyn FnMut(&dyn StateReader) -> u32) -> T,
    ) -> T {
        let (block, transaction) = self.next(from, Some(to), data);
        let executor = &mut self.executor;
        body(&self.state, &mut |state| executor.transact(state, &NoHashes, &block, &transaction).unwrap().receipt.status)
    }

    fn next(&mut self, from: &str, to: Option<Address>, data: &[u8]) -> (BlockEnvironment, VerifiedTx) {
        self.height += 1;
        let fields = Transaction {
            nonce: U256::from(self.height),
            gas_price: U256::ONE,
            gas: U256::from(30_000_000),
            block_limit: U256::from(self.height + 500),
            to,
            value: U256::ZERO,
            data: Bytes::copy_from_slice(data),
            chain_id: U256::ONE,
            group_id: U256::ONE,
            extra_data: Bytes::new(),
        };
        let block = BlockEnvironment { number: self.height, timestamp_ms: 1_700_000_000_000, tx_gas_limit: 300_000_000 };
        (block, fields.sign(&key(from)).verify().unwrap())
    }

    /// One call directly, several through the relay.
    fn run(&mut self, from: &str, calls: &[(u64, Bytes)]) -> Receipt {
        if let [(to, data)] = calls {
            return self.send(from, Some(address(*to)), data);
        }
        let mut packed = Vec::new();
        for (to, data) in calls {
            packed.extend_from_slice(address(*to).as_slice());
            packed.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            packed.extend_from_slice(data);
        }
        self.send(from, Some(self.relay), &packed)
    }
}

pub(super) fn call(signature: &str) -> Encoder {
    Encoder::call(selector(signature))
}

fn code(value: i64) -> Bytes {
    Encoder::new().int(value).finish()
}

fn text(value: &str) -> Bytes {
    Encoder::new().string(value).finish()
}

/// What the last transaction of a case gives.
enum Gives {
    Output(Bytes),
    Refusal(&'static str),
}

struct Case {
    contract: &'static str,
    signature: &'static str,
    /// Sender, and the calls of a transaction; the last call of the last one is of the function.
    transactions: Vec<(&'static str, Vec<(u64, Bytes)>)>,
    gives: Gives,
}

struct Cases(Vec<Case>);

impl Cases {
    /// A case of a fixed contract: what `cow` did before, and its call.
    fn fixed(&mut self, to: u64, function: (&'static str, &'static str), before: &[(u64, Encoder)], arguments: Encoder, output: Bytes) {
        let mut transactions: Vec<_> = before.iter().map(|(to, call)| ("cow", vec![(*to, call.clone().finish())])).collect();
        transactions.push(("cow", vec![(to, arguments.finish())]));
        self.0.push(Case { contract: function.0, signature: function.1, transactions, gives: Gives::Output(output) });
    }

    fn refused(&mut self, to: u64, function: (&'static str, &'static str), text: &'static str) {
        let transactions = vec![("cow", vec![(to, call(function.1).finish())])];
        self.0.push(Case { contract: function.0, signature: function.1, transactions, gives: Gives::Refusal(text) });
    }

    /// A case of an object: one transaction, on a chain with the tables `fruit` and `pairs`.
    fn object(&mut self, contract: &'static str, signature: &'static str, calls: Vec<(u64, Encoder)>, output: Bytes) {
        let create = |name: &str| call("createTable(string,string,string)").string(name).string("name").string("price,colour").finish();
        let transactions = vec![
            ("cow", vec![(0x1001, create("fruit"))]),
            ("cow", vec![(0x1010, create("pairs"))]),
            ("cow", calls.into_iter().map(|(to, call)| (to, call.finish())).collect()),
        ];
        self.0.push(Case { contract, signature, transactions, gives: Gives::Output(output) });
    }
}

/// The first object that a transaction opens has this address, the next one the next.
const FIRST: u64 = 0x10001;
const SM2_KEY: [u8; 64] = hex!(
    "eb7154f19f345268580a9fe6f876c6d0a22ddec827e024d288bd731cfa620b8cbaaab72c4482c5ad1bf0a66e2060846445f8b587a509f8f95414716f8c593e61"
);
const SM2_R: [u8; 32] = hex!("8404e49bb694a3145f9c9386d4f2301b5113121905c130ba658655e2e5965a8b");
const SM2_S: [u8; 32] = hex!("6c6a804770002c5243bfce9c718faefb965a9ecd89ee7fed6a63999a24c1f5cf");

fn governing_cases(cases: &mut Cases, relay: Address) {
    let (cow, horse, pig) = (account("cow"), account("horse"), account("pig"));
    let member = |address| (0x1008, call("grantCommitteeMember(address)").address(address));
    let id = "cd".repeat(64);
    let name = "SystemConfig";
    let set = call("setValueByKey(string,string)").string("tx_count_limit").string("5");
    cases.fixed(0x1000, (name, "setValueByKey(string,string)"), &[], set, code(1));
    for signature in ["addSealer(string)", "addObserver(string)", "remove(string)"] {
        let before = (0x1003, call("addSealer(string)").string(&id));
        let is_removal = signature == "remove(string)";
        let before = if is_removal { vec![before] } else { Vec::new() };
        cases.fixed(0x1003, ("Consensus", signature), &before, call(signature).string(&id), code(1));
    }
    let grant = call("insert(string,string)").string("fruit").string(&format!("{cow:#x}"));
    let granted = (0x1005, grant.clone());
    cases.fixed(0x1005, ("Permission", "insert(string,string)"), &[], grant, code(1));
    let remove = call("remove(string,string)").string("fruit").string(&format!("{cow:#x}"));
    cases.fixed(0x1005, ("Permission", "remove(string,string)"), from_ref(&granted), remove, code(1));
    let listed = text(&format!("[{{\"address\":\"{cow:#x}\",\"enable_num\":\"3\",\"table_name\":\"u_fruit\"}}]\n"));
    cases.fixed(0x1005, ("Permission", "queryByName(string)"), &[granted], call("queryByName(string)").string("fruit"), listed);
    let write = |signature: &str| call(signature).address(relay).address(pig);
    let granted = (0x1005, write("grantWrite(address,address)"));
    cases.fixed(0x1005, ("Permission", "grantWrite(address,address)"), &[], write("grantWrite(address,address)"), code(1));
    let revoke = write("revokeWrite(address,address)");
    cases.fixed(0x1005, ("Permission", "revokeWrite(address,address)"), from_ref(&granted), revoke, code(1));
    let listed = text(&format!("[{{\"address\":\"{pig:#x}\",\"enable_num\":\"3\",\"table_name\":\"c_{relay:x}\"}}]\n"));
    cases.fixed(0x1005, ("Permission", "queryPermission(address)"), &[granted], call("queryPermission(address)").address(relay), listed);

    let frozen = |to, signature| (to, call(signature).address(relay));
    let name = "ContractLifeCycle";
    cases.fixed(0x1007, (name, "freeze(address)"), &[], call("freeze(address)").address(relay), code(1));
    let thaw = call("unfreeze(address)").address(relay);
    cases.fixed(0x1007, (name, "unfreeze(address)"), &[frozen(0x1007, "freeze(address)")], thaw, code(1));
    let grant = call("grantManager(address,address)").address(relay).address(pig);
    let revoke = call("revokeManager(address,address)").address(relay).address(pig);
    cases.fixed(0x1007, (name, "grantManager(address,address)"), &[], grant.clone(), code(1));
    cases.fixed(0x1007, (name, "revokeManager(address,address)"), &[(0x1007, grant.clone())], revoke, code(1));
    let status = Encoder::new().int(0).string("The contract is available.").finish();
    cases.fixed(0x1007, (name, "getStatus(address)"), &[], call("getStatus(address)").address(relay), status);
    let managers = Encoder::new().int(0).addresses(&[cow, pig]).finish();
    cases.fixed(0x1007, (name, "listManager(address)"), &[(0x1007, grant)], call("listManager(address)").address(relay), managers);

    let name = "ChainGovernance";
    let with_cow = &[member(cow)][..];
    cases.fixed(0x1008, (name, "grantCommitteeMember(address)"), &[], call("grantCommitteeMember(address)").address(cow), code(1));
    cases.fixed(0x1008, (name, "revokeCommitteeMember(address)"), with_cow, call("revokeCommitteeMember(address)").address(cow), code(1));
    let weight = call("updateCommitteeMemberWeight(address,int256)").address(cow).int(7);
    cases.fixed(0x1008, (name, "updateCommitteeMemberWeight(address,int256)"), with_cow, weight.clone(), code(1));
    let weighed = [member(cow), (0x1008, weight)];
    let query = call("queryCommitteeMemberWeight(address)").address(cow);
    let seven = Encoder::new().bool(true).int(7).finish();
    cases.fixed(0x1008, (name, "queryCommitteeMemberWeight(address)"), &weighed, query, seven);
    let threshold = (0x1008, call("updateThreshold(int256)").int(60));
    cases.fixed(0x1008, (name, "updateThreshold(int256)"), with_cow, threshold.1.clone(), code(1));
    cases.fixed(0x1008, (name, "queryThreshold()"), &[member(cow), threshold.clone()], call("queryThreshold()"), code(60));
    let listed = text(&format!("[{{\"address\":\"{cow:#x}\",\"enable_num\":\"3\"}}]\n"));
    cases.fixed(0x1008, (name, "listCommitteeMembers()"), with_cow, call("listCommitteeMembers()"), listed);
    let two = [member(cow), member(horse), threshold, member(pig)];
    let vote = |value: &str, limit: u64| text(&format!("{{\"{value}\":[{{\"block_limit\":\"{limit}\",\"voter\":\"{cow:#x}\"}}]}}\n"));
    cases.fixed(0x1008, (name, "queryVotesOfThreshold()"), &two, call("queryVotesOfThreshold()"), vote("0.600000", 10_004));
    let query = call("queryVotesOfMember(address)").address(pig);
    cases.fixed(0x1008, (name, "queryVotesOfMember(address)"), &two, query, vote("grant", 10_005));
    let operator = (0x1008, call("grantOperator(address)").address(pig));
    let with_operator = [member(cow), operator.clone()];
    cases.fixed(0x1008, (name, "grantOperator(address)"), with_cow, operator.1, code(1));
    cases.fixed(0x1008, (name, "revokeOperator(address)"), &with_operator, call("revokeOperator(address)").address(pig), code(1));
    let listed = text(&format!("[{{\"address\":\"{pig:#x}\",\"enable_num\":\"4\"}}]\n"));
    cases.fixed(0x1008, (name, "listOperators()"), &with_operator, call("listOperators()"), listed);
    let freeze = (0x1008, call("freezeAccount(address)").address(horse));
    let with_frozen = [member(cow), freeze.clone()];
    cases.fixed(0x1008, (name, "freezeAccount(address)"), with_cow, freeze.1, code(1));
    cases.fixed(0x1008, (name, "unfreezeAccount(address)"), &with_frozen, call("unfreezeAccount(address)").address(horse), code(1));
    let frozen = text("The account has been frozen. You can use this account after unfreezing it.");
    cases.fixed(0x1008, (name, "getAccountStatus(address)"), &with_frozen, call("getAccountStatus(address)").address(horse), frozen);

    let name = "GasCharge";
    let amount = |code: i64, amount: u64| Encoder::new().int(code).uint(U256::from(amount)).finish();
    let charge = (0x1009, call("charge(address,uint256)").address(pig).uint(U256::from(10)));
    let charged = [member(cow), charge.clone()];
    cases.fixed(0x1009, (name, "charge(address,uint256)"), with_cow, charge.1, amount(0, 10));
    let deduct = call("deduct(address,uint256)").address(pig).uint(U256::from(4));
    cases.fixed(0x1009, (name, "deduct(address,uint256)"), &charged, deduct, amount(0, 6));
    cases.fixed(0x1009, (name, "queryRemainGas(address)"), &charged, call("queryRemainGas(address)").address(pig), amount(0, 10));
    let grant = (0x1009, call("grantCharger(address)").address(pig));
    let with_charger = [member(cow), grant.clone()];
    cases.fixed(0x1009, (name, "grantCharger(address)"), with_cow, grant.1, code(0));
    cases.fixed(0x1009, (name, "revokeCharger(address)"), &with_charger, call("revokeCharger(address)").address(pig), code(0));
    let listed = Encoder::new().addresses(&[pig]).finish();
    cases.fixed(0x1009, (name, "listChargers()"), &with_charger, call("listChargers()"), listed);
}

fn data_cases(cases: &mut Cases, relay: Address) {
    let create = call("createTable(string,string,string)").string("fruit").string("name").string("price,colour");
    let created = (0x1001, create.clone());
    cases.fixed(0x1001, ("TableFactory", "createTable(string,string,string)"), &[], create.clone(), code(0));
    let object = Encoder::new().address(address(FIRST)).finish();
    cases.fixed(
        0x1001,
        ("TableFactory", "openTable(string)"),
        from_ref(&created),
        call("openTable(string)").string("fruit"),
        object.clone(),
    );
    cases.fixed(0x1010, ("KVTableFactory", "createTable(string,string,string)"), &[], create, code(0));
    cases.fixed(0x1010, ("KVTableFactory", "openTable(string)"), from_ref(&created), call("openTable(string)").string("fruit"), object);

    let strings = |signature: &str, texts: &[&str]| texts.iter().fold(call(signature), |call, text| call.string(text));
    let insert = (0x1002, strings("insert(string,string,string,string)", &["fruit", "fig", "{\"price\":\"3\"}", ""]));
    let inserted = [created.clone(), insert.clone()];
    cases.fixed(0x1002, ("CRUD", "insert(string,string,string,string)"), from_ref(&created), insert.1, code(1));
    let update = strings("update(string,string,string,string,string)", &["fruit", "fig", "{\"price\":\"4\"}", "{}", ""]);
    cases.fixed(0x1002, ("CRUD", "update(string,string,string,string,string)"), &inserted, update, code(1));
    let remove = strings("remove(string,string,string,string)", &["fruit", "fig", "{}", ""]);
    cases.fixed(0x1002, ("CRUD", "remove(string,string,string,string)"), &inserted, remove, code(1));
    let select = strings("select(string,string,string,string)", &["fruit", "fig", "{\"price\":{\"gt\":\"5\"}}", ""]);
    cases.fixed(0x1002, ("CRUD", "select(string,string,string,string)"), &inserted, select, text("[]\n"));
    let described = Encoder::new().string("name").string("price,colour").finish();
    cases.fixed(0x1002, ("CRUD", "desc(string)"), &[created], call("desc(string)").string("fruit"), described);

    let there = format!("{relay:#x}");
    let insert = (0x1004, strings("insert(string,string,string,string)", &["relay", "1", &there, "[]"]));
    let named = [insert.clone()];
    cases.fixed(0x1004, ("CNS", "insert(string,string,string,string)"), &[], insert.1, code(1));
    let listed = text(&format!("[{{\"abi\":\"[]\",\"address\":\"{there}\",\"name\":\"relay\",\"version\":\"1\"}}]\n"));
    cases.fixed(0x1004, ("CNS", "selectByName(string)"), &named, strings("selectByName(string)", &["relay"]), listed.clone());
    let by_version = strings("selectByNameAndVersion(string,string)", &["relay", "1"]);
    cases.fixed(0x1004, ("CNS", "selectByNameAndVersion(string,string)"), &named, by_version, listed);
    let get = strings("getContractAddress(string,string)", &["relay", "1"]);
    cases.fixed(0x1004, ("CNS", "getContractAddress(string,string)"), &named, get, Encoder::new().address(relay).finish());

    let signature = "registerParallelFunctionInternal(address,string,uint256)";
    cases.fixed(0x1006, ("ParallelConfig", signature), &[], call(signature).address(relay).string("f(string)").uint(U256::ONE), code(0));
    let signature = "unregisterParallelFunctionInternal(address,string)";
    cases.fixed(0x1006, ("ParallelConfig", signature), &[], call(signature).address(relay).string("f(string)"), code(0));

    let add = |user: &str| (0x5002, call("userAdd(string,uint256)").string(user).uint(U256::from(9)));
    let added = [add("ann"), add("bob")];
    for signature in ["userAdd(string,uint256)", "userSave(string,uint256)", "userDraw(string,uint256)"] {
        let before = if signature.starts_with("userAdd") { &[][..] } else { &added[..] };
        cases.fixed(0x5002, ("DagTransfer", signature), before, call(signature).string("ann").uint(U256::from(2)), code(0));
    }
    let transfer = call("userTransfer(string,string,uint256)").string("ann").string("bob").uint(U256::from(2));
    cases.fixed(0x5002, ("DagTransfer", "userTransfer(string,string,uint256)"), &added, transfer, code(0));
    let balance = Encoder::new().int(0).int(9).finish();
    cases.fixed(0x5002, ("DagTransfer", "userBalance(string)"), &added, call("userBalance(string)").string("ann"), balance);

    let set = (0x5100, call("set(string)").string("hi"));
    cases.fixed(0x5100, ("HelloWorld", "set(string)"), &[], set.1.clone(), code(1));
    cases.fixed(0x5100, ("HelloWorld", "get()"), from_ref(&set), call("get()"), text("hi"));

    let hash = |hex: &str| Bytes::from(hex::decode(hex).unwrap());
    let sm3 = hash("66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
    cases.fixed(0x5006, ("Crypto", "sm3(bytes)"), &[], call("sm3(bytes)").bytes(b"abc"), sm3);
    let keccak = hash("4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45");
    cases.fixed(0x5006, ("Crypto", "keccak256Hash(bytes)"), &[], call("keccak256Hash(bytes)").bytes(b"abc"), keccak);
    let signature = "sm2Verify(bytes32,bytes,bytes32,bytes32)";
    // Signed by OpenSSL 3.0.
    let verify = call(signature)
        .bytes32(B256::new(*b"millrace signs thirty-two bytes!"))
        .bytes(&SM2_KEY)
        .bytes32(SM2_R.into())
        .bytes32(SM2_S.into());
    let signer = Address::from_slice(&super::crypto::sm3_of(&SM2_KEY)[12..]);
    cases.fixed(0x5006, ("Crypto", signature), &[], verify, Encoder::new().bool(true).address(signer).finish());
    cases.refused(
        0x5006,
        ("Crypto", "curve25519VRFVerify(string,string,string)"),
        "verification of curve25519 VRF proofs is not available on this chain",
    );
    cases.refused(
        0x1011,
        ("WorkingSealerManager", "rotateWorkingSealer(std::string, std::string, std::string)"),
        "rotation of working sealers is not available on this chain",
    );
    cases.refused(0x5003, ("Paillier", "paillierAdd(string,string)"), "Paillier addition is not available on this chain");
    cases.refused(
        0x5004,
        ("GroupSig", "groupSigVerify(string,string,string,string)"),
        "verification of group signatures is not available on this chain",
    );
    cases.refused(
        0x5005,
        ("RingSig", "ringSigVerify(string,string,string)"),
        "verification of ring signatures is not available on this chain",
    );
}

/// Opens `fruit` as the first object, with a row whose price is 3 and whose colour is red.
fn with_row() -> Vec<(u64, Encoder)> {
    vec![
        (0x1001, call("openTable(string)").string("fruit")),
        (FIRST, call("newEntry()")),
        (FIRST + 1, call("set(string,int256)").string("price").int(3)),
        (FIRST + 1, call("set(string,string)").string("colour").string("red")),
        (FIRST, call("insert(string,address)").string("fig").address(address(FIRST + 1))),
    ]
}

fn object_cases(cases: &mut Cases) {
    let handle = |offset: u64| Encoder::new().address(address(FIRST + offset)).finish();
    let with = |last: &[(u64, Encoder)]| [&with_row()[..], last].concat();
    let condition = (FIRST, call("newCondition()"));
    let select = (FIRST, call("select(string,address)").string("fig").address(address(FIRST + 2)));
    cases.object("Table", "newEntry()", with_row()[..2].to_vec(), handle(1));
    cases.object("Table", "insert(string,address)", with_row(), code(1));
    cases.object("Table", "newCondition()", with(from_ref(&condition)), handle(2));
    cases.object("Table", "select(string,address)", with(&[condition.clone(), select.clone()]), handle(3));
    let update = call("update(string,address,address)").string("fig").address(address(FIRST + 1)).address(address(FIRST + 2));
    cases.object("Table", "update(string,address,address)", with(&[condition.clone(), (FIRST, update)]), code(1));
    let remove = call("remove(string,address)").string("fig").address(address(FIRST + 2));
    cases.object("Table", "remove(string,address)", with(&[condition.clone(), (FIRST, remove)]), code(1));

    let selected = with(&[condition.clone(), select.clone()]);
    let and = |last: &[(u64, Encoder)]| [&selected[..], last].concat();
    let size = (FIRST + 3, call("size()"));
    let get = (FIRST + 3, call("get(int256)").int(0));
    cases.object("Entries", "size()", and(from_ref(&size)), code(1));
    cases.object("Entries", "get(int256)", and(&[get]), handle(4));

    // How many of the one row each comparison leaves: the price is 3.
    let colour = |value: &str| call("EQ(string,string)").string("colour").string(value);
    let price = |signature: &str, value: i64| call(signature).string("price").int(value);
    let comparisons: [(&'static str, Encoder, i64); 11] = [
        ("EQ(string,int256)", price("EQ(string,int256)", 4), 0),
        ("EQ(string,string)", colour("red"), 1),
        ("EQ(string,address)", call("EQ(string,address)").string("colour").address(account("cow")), 0),
        ("NE(string,int256)", price("NE(string,int256)", 4), 1),
        ("NE(string,string)", call("NE(string,string)").string("colour").string("red"), 0),
        ("GT(string,int256)", price("GT(string,int256)", 3), 0),
        ("GE(string,int256)", price("GE(string,int256)", 3), 1),
        ("LT(string,int256)", price("LT(string,int256)", 3), 0),
        ("LE(string,int256)", price("LE(string,int256)", 3), 1),
        ("limit(int256)", call("limit(int256)").int(0), 0),
        ("limit(int256,int256)", call("limit(int256,int256)").int(1).int(5), 0),
    ];
    for (signature, compare, rows) in comparisons {
        // The last call is of the comparison in the list of cases; its effect is seen by the selection after it.
        let calls = with(&[condition.clone(), (FIRST + 2, compare), select.clone(), size.clone()]);
        cases.object("Condition", signature, calls, code(rows));
    }

    let entry = |set: Encoder, get: Encoder| vec![with_row()[0].clone(), with_row()[1].clone(), (FIRST + 1, set), (FIRST + 1, get)];
    let set_text = |value: &str| call("set(string,string)").string("colour").string(value);
    let get = |signature: &str| call(signature).string("colour");
    let padded = |text: &[u8], bytes: usize| Bytes::from([text, &vec![0; bytes - text.len()]].concat());
    let cow = account("cow");
    cases.object("Entry", "getInt(string)", entry(set_text("-5"), get("getInt(string)")), code(-5));
    cases.object("Entry", "getUInt(string)", entry(set_text("5"), get("getUInt(string)")), code(5));
    let of_cow = Encoder::new().address(cow).finish();
    cases.object("Entry", "getAddress(string)", entry(set_text(&format!("{cow:#x}")), get("getAddress(string)")), of_cow.clone());
    cases.object("Entry", "getBytes32(string)", entry(set_text("red"), get("getBytes32(string)")), padded(b"red", 32));
    cases.object("Entry", "getBytes64(string)", entry(set_text("red"), get("getBytes64(string)")), padded(b"red", 64));
    cases.object("Entry", "getString(string)", entry(set_text("red"), get("getString(string)")), text("red"));
    cases.object("Entry", "set(string,string)", entry(set_text("blue"), get("getString(string)")), text("blue"));
    let set = call("set(string,int256)").string("colour").int(-8);
    cases.object("Entry", "set(string,int256)", entry(set, get("getInt(string)")), code(-8));
    let set = call("set(string,uint256)").string("colour").uint(U256::from(8));
    cases.object("Entry", "set(string,uint256)", entry(set, get("getUInt(string)")), code(8));
    let set = call("set(string,address)").string("colour").address(cow);
    cases.object("Entry", "set(string,address)", entry(set, get("getAddress(string)")), of_cow);

    let pairs = vec![(0x1010, call("openTable(string)").string("pairs")), (FIRST, call("newEntry()"))];
    cases.object("KVTable", "newEntry()", pairs.clone(), handle(1));
    let set = vec![
        (FIRST + 1, call("set(string,int256)").string("price").int(3)),
        (FIRST, call("set(string,address)").string("fig").address(address(FIRST + 1))),
    ];
    let set = [pairs, set].concat();
    cases.object("KVTable", "set(string,address)", set.clone(), code(1));
    let get = [set, vec![(FIRST, call("get(string)").string("fig"))]].concat();
    cases.object("KVTable", "get(string)", get, Encoder::new().bool(true).address(address(FIRST + 2)).finish());
}

#[test]
fn every_function_answers_a_signed_transaction() {
    let relay = Chain::new().relay;
    let mut cases = Cases(Vec::new());
    governing_cases(&mut cases, relay);
    data_cases(&mut cases, relay);
    object_cases(&mut cases);
    let mut failures = Vec::new();
    for case in &cases.0 {
        let mut chain = Chain::new();
        let receipts: Vec<_> = case.transactions.iter().map(|(from, calls)| chain.run(from, calls)).collect();
        let (last, before) = receipts.split_last().unwrap();
        let expected = match &case.gives {
            Gives::Output(output) => (0, output.clone()),
            Gives::Refusal(text) => (21, error_string(text)),
        };
        if before.iter().any(|receipt| receipt.status != 0) || (last.status, last.output.clone()) != expected {
            failures.push(format!("{}.{}: {expected:?}, found {receipts:#?}", case.contract, case.signature));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases fail: {}", failures.len(), cases.0.len(), failures.join("\n"));
    let tested: BTreeSet<_> = cases.0.iter().map(|case| (case.contract, case.signature)).collect();
    let missing: Vec<_> = functions().filter(|function| !tested.contains(&(function.contract, function.signature))).collect();
    assert!(missing.is_empty(), "functions without a case: {missing:#?}");
    assert_eq!(tested.len(), functions().count(), "each case is of a function that is there");
    println!("{} functions of {} contracts and objects", tested.len(), tested.iter().map(|case| case.0).collect::<BTreeSet<_>>().len());
}

#[test]
fn frozen_contracts_and_accounts_are_refused_from_the_next_transaction_on() {
    let mut chain = Chain::new();
    let relay = chain.relay;
    let freeze = call("freeze(address)").address(relay).finish();
    // Not through the relay itself: it is the origin that counts, and horse deployed another one.
    assert_eq!(chain.send("horse", Some(address(0x1007)), &freeze).output, code(codes::MANAGER_NEEDED));
    assert_eq!(chain.send("horse", Some(relay), &[]).status, 0);
    assert_eq!(chain.send("cow", Some(address(0x1007)), &freeze).output, code(1));
    let refused = chain.send("horse", Some(relay), &[]);
    assert_eq!((refused.status, refused.output), (30, error_string(format!("Frozen contract:{relay:x}"))));
    assert_eq!(refused.gas_used, U256::from(21_000));
    assert_eq!(
        chain.send("cow", Some(address(0x1008)), &call("grantCommitteeMember(address)").address(account("cow")).finish()).output,
        code(1)
    );
    assert_eq!(
        chain.send("cow", Some(address(0x1008)), &call("freezeAccount(address)").address(account("horse")).finish()).output,
        code(1)
    );
    assert_eq!(chain.send("horse", Some(address(0x1008)), &call("queryThreshold()").finish()).status, 31);
    assert_eq!(chain.send("horse", None, &deploying(RELAY)).status, 31);
    assert_eq!(chain.send("pig", Some(address(0x1008)), &call("queryThreshold()").finish()).status, 0);
}

#[test]
fn the_documentation_lists_every_function() {
    let documented = include_str!("../../../docs/precompiled.md");
    for function in functions() {
        let row = format!("| `{}` | `{}` |", function.signature, hex::encode(function.selector));
        assert!(documented.contains(&row), "docs/precompiled.md lacks {row} of {}", function.contract);
    }
    let example = include_str!("hello_world.rs");
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(documented.contains(code.trim()), "docs/precompiled.md shows hello_world.rs as it is");
}

#[test]
fn a_greeting_is_kept_by_the_example_of_the_documentation() {
    let mut chain = Chain::new();
    let get = call("get()").finish();
    assert_eq!(chain.send("cow", Some(address(0x5100)), &get).output, text("Hello World!"));
    chain.send("horse", Some(address(0x5100)), &call("set(string)").string("hello, horse").finish());
    assert_eq!(chain.send("cow", Some(address(0x5100)), &get).output, text("hello, horse"));
}
