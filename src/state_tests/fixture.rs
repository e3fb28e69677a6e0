//! Files of the public state tests (`GeneralStateTests`), as typed values.
//!
//! A file holds tests by name; a test has an environment, accounts, the parts of its transactions, and for each fork what combinations of
//! the parts lead to. Numbers are texts; those that fit no transaction are kept as such, because a refusal is expected of them.

use millrace_base::{Address, B256, Bytes, U256, hex};
use millrace_vm::executor::ethereum::{EthereumBlock, EthereumTransaction};
use serde_json::{Map, Value};

/// A test.
#[derive(Clone, PartialEq, Debug)]
pub struct Fixture {
    /// Its name.
    pub name: String,
    /// The block around the transaction.
    pub block: EthereumBlock,
    /// Accounts before it.
    pub accounts: Vec<Account>,
    /// Parts of the transactions.
    parts: Value,
    /// Cases by fork, in the order of the file.
    pub expectations: Vec<(String, Vec<Expectation>)>,
}

/// An account before the transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Where.
    pub address: Address,
    /// Its nonce.
    pub nonce: u64,
    /// Its balance.
    pub balance: U256,
    /// Its code.
    pub code: Bytes,
    /// Slots and values.
    pub storage: Vec<(U256, U256)>,
}

/// What a case leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// Root of the account trie.
    pub root: B256,
    /// Keccak of the RLP of all logs.
    pub logs: B256,
    /// Whether a block must not hold the transaction.
    pub is_refused: bool,
    indexes: [usize; 3],
    /// The first byte of the encoded transaction.
    first_byte: Option<u8>,
}

/// The tests of a file; `None` when it is no file of state tests.
pub fn read(bytes: &[u8]) -> Result<Option<Vec<Fixture>>, String> {
    let Ok(Value::Object(tests)) = serde_json::from_slice(bytes) else { return Ok(None) };
    let is_state_test = |test: &Value| ["env", "pre", "post", "transaction"].iter().all(|part| test[*part].is_object());
    if tests.is_empty() || !tests.values().all(is_state_test) {
        return Ok(None);
    }
    let fixtures = tests.iter().map(|(name, test)| fixture(name, test).map_err(|part| format!("{name}: {part} cannot be read")));
    fixtures.collect::<Result<_, _>>().map(Some)
}

fn fixture(name: &str, test: &Value) -> Result<Fixture, &'static str> {
    let accounts = object(&test["pre"]).iter().map(|(address, account)| read_account(address, account));
    let expectations = object(&test["post"]).iter().map(|(fork, cases)| {
        let cases = cases.as_array().into_iter().flatten().map(read_expectation).collect::<Option<_>>()?;
        Some((fork.clone(), cases))
    });
    Ok(Fixture {
        name: name.to_owned(),
        block: block(&test["env"]).ok_or("env")?,
        accounts: accounts.collect::<Option<_>>().ok_or("pre")?,
        parts: test["transaction"].clone(),
        expectations: expectations.collect::<Option<_>>().ok_or("post")?,
    })
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("the kinds of the parts were checked")
}

fn block(env: &Value) -> Option<EthereumBlock> {
    let optional = |name: &str| env.get(name).map_or(Some(U256::ZERO), number);
    Some(EthereumBlock {
        number: number(&env["currentNumber"])?,
        timestamp: number(&env["currentTimestamp"])?,
        coinbase: address(env["currentCoinbase"].as_str()?)?,
        gas_limit: number(&env["currentGasLimit"])?.saturating_to(),
        base_fee: optional("currentBaseFee")?.saturating_to(),
        difficulty: optional("currentDifficulty")?,
        random: optional("currentRandom")?.into(),
        excess_blob_gas: optional("currentExcessBlobGas")?.saturating_to(),
    })
}

fn read_account(at: &str, account: &Value) -> Option<Account> {
    let slot = |(index, value): (&String, &Value)| Some((digits(index)?, number(value)?));
    Some(Account {
        address: address(at)?,
        nonce: u64::try_from(number(&account["nonce"])?).ok()?,
        balance: number(&account["balance"])?,
        code: data(&account["code"])?,
        storage: account["storage"].as_object()?.iter().map(slot).collect::<Option<_>>()?,
    })
}

fn read_expectation(case: &Value) -> Option<Expectation> {
    let index = |name: &str| case["indexes"][name].as_u64().and_then(|index| usize::try_from(index).ok());
    Some(Expectation {
        root: number(&case["hash"])?.into(),
        logs: number(&case["logs"])?.into(),
        is_refused: case["expectException"].is_string(),
        indexes: [index("data")?, index("gas")?, index("value")?],
        first_byte: case["txbytes"].as_str().and_then(|text| u8::from_str_radix(text.get(2..4)?, 16).ok()),
    })
}

impl Fixture {
    /// The transaction of a case; the name of the part that no transaction can carry otherwise.
    pub fn transaction(&self, case: &Expectation) -> Result<EthereumTransaction, &'static str> {
        let (parts, [data_index, gas, value]) = (&self.parts, case.indexes);
        let wide = |name: &'static str| parts.get(name).map(|value| number(value).ok_or(name)).transpose();
        let price = |name: &'static str| match wide(name)? {
            Some(price) => u128::try_from(price).map(Some).map_err(|_| name),
            None => Ok(None),
        };
        let access_list = match &parts["accessLists"][data_index] {
            Value::Array(list) => Some(list.iter().map(access).collect::<Option<Vec<_>>>().ok_or("accessLists")?),
            _ => None,
        };
        let (fee_cap, blob_gas_price) = (price("maxFeePerGas")?, price("maxFeePerBlobGas")?);
        let kind = match case.first_byte {
            Some(first) if first < 0xc0 => first,
            Some(_) => 0,
            None if blob_gas_price.is_some() => 3,
            None if fee_cap.is_some() => 2,
            None => u8::from(access_list.is_some()),
        };
        let hashes = parts["blobVersionedHashes"].as_array().into_iter().flatten();
        Ok(EthereumTransaction {
            kind,
            sender: parts["sender"].as_str().and_then(address).ok_or("sender")?,
            to: match parts["to"].as_str() {
                // Transactions with blobs have no form without it (EIP-4844).
                Some("") | None if kind == 3 => return Err("to"),
                Some("") | None => None,
                Some(to) => Some(address(to).ok_or("to")?),
            },
            nonce: wide("nonce")?.and_then(|nonce| u64::try_from(nonce).ok()).ok_or("nonce")?,
            gas_limit: number(&parts["gasLimit"][gas]).ok_or("gasLimit")?.saturating_to(),
            gas_price: fee_cap.or(price("gasPrice")?).ok_or("gasPrice")?,
            priority_fee: price("maxPriorityFeePerGas")?,
            value: number(&parts["value"][value]).ok_or("value")?,
            data: data(&parts["data"][data_index]).ok_or("data")?,
            access_list: access_list.unwrap_or_default(),
            blob_hashes: hashes.map(|hash| number(hash).map(B256::from)).collect::<Option<_>>().ok_or("blobVersionedHashes")?,
            blob_gas_price: blob_gas_price.unwrap_or_default(),
        })
    }
}

fn access(item: &Value) -> Option<(Address, Vec<B256>)> {
    let slots = item["storageKeys"].as_array()?.iter().map(|slot| number(slot).map(B256::from));
    Some((address(item["address"].as_str()?)?, slots.collect::<Option<_>>()?))
}

/// A number of at most 256 bits.
fn number(value: &Value) -> Option<U256> {
    value.as_str().and_then(digits)
}

fn digits(text: &str) -> Option<U256> {
    match text.strip_prefix("0x") {
        Some("") => Some(U256::ZERO),
        Some(digits) => U256::from_str_radix(digits, 16).ok(),
        None => U256::from_str_radix(text, 10).ok(),
    }
}

fn address(text: &str) -> Option<Address> {
    let bytes = hex::decode(text).ok()?;
    Address::try_from(&bytes[..]).ok()
}

fn data(value: &Value) -> Option<Bytes> {
    hex::decode(value.as_str()?).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_fit_nothing_are_none_and_other_files_are_no_tests() {
        assert_eq!(digits("0x:bigint 0x10"), None);
        assert_eq!(digits(&format!("0x1{}", "0".repeat(64))), None);
        assert_eq!((digits("0x"), digits("10")), (Some(U256::ZERO), Some(U256::from(10))));
        assert_eq!(read(b"[1]"), Ok(None));
        assert_eq!(read(b"{\"a\": {\"in\": 1}}"), Ok(None));
        assert_eq!(read(b"nonsense"), Ok(None));
        assert!(read(br#"{"t": {"env": {}, "pre": {}, "post": {}, "transaction": {}}}"#).unwrap_err().contains("env"));
    }
}
