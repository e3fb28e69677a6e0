use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn table_name() -> impl Strategy<Value = TableName> {
    vec(prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('b'), Just('\u{ff}'), any::<char>()], 0..5)
        .prop_map(|name| name.into_iter().collect::<String>().into())
}

type TableName = Arc<str>;

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![any::<[u8; 20]>(), (0u8..3).prop_map(|byte| [byte; 20])].prop_map(Address::from)
}

fn number() -> impl Strategy<Value = U256> {
    prop_oneof![any::<[u8; 32]>().prop_map(U256::from_be_bytes), any::<u64>().prop_map(U256::from)]
}

pub(crate) fn state_key() -> impl Strategy<Value = StateKey> {
    prop_oneof![
        address().prop_map(StateKey::Account),
        any::<[u8; 32]>().prop_map(|hash| StateKey::Code(hash.into())),
        (address(), any::<u32>(), number()).prop_map(|(address, incarnation, index)| StateKey::Slot(address, incarnation, index)),
        (table_name(), vec(any::<u8>(), 0..6)).prop_map(|(table, primary)| StateKey::Row(table, primary.into())),
    ]
}

fn account() -> impl Strategy<Value = AccountRecord> {
    (any::<u64>(), number(), any::<u32>(), proptest::option::of(any::<[u8; 32]>())).prop_map(|(nonce, balance, incarnation, hash)| {
        AccountRecord { nonce, balance, incarnation, code_hash: hash.map_or(AccountRecord::NO_CODE, B256::from) }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), btree_map(table_name(), vec(any::<u8>(), 0..200), 0..5))
        .prop_map(|(id, fields)| Entry { id, fields: fields.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect() })
}

fn key_of(value: &StateValue) -> StateKey {
    match value {
        StateValue::Account(_) => StateKey::Account(Address::ZERO),
        StateValue::Code(_) => StateKey::Code(B256::ZERO),
        StateValue::Slot(_) => StateKey::Slot(Address::ZERO, 0, U256::ZERO),
        StateValue::Row(_) => StateKey::Row("u_t".into(), Arc::from(&b"key"[..])),
    }
}

fn state_value() -> impl Strategy<Value = StateValue> {
    prop_oneof![
        account().prop_map(StateValue::Account),
        vec(any::<u8>(), 0..300).prop_map(|code| StateValue::Code(code.into())),
        number().prop_map(StateValue::Slot),
        vec(entry(), 0..5).prop_map(|entries| StateValue::Row(Arc::new(entries))),
    ]
}

proptest! {
    #[test]
    fn keys_survive_the_round_trip_and_keep_their_order(left in state_key(), right in state_key()) {
        let (left_bytes, right_bytes) = (encode_key(&left), encode_key(&right));
        prop_assert_eq!(decode_key(&left_bytes).unwrap(), left.clone());
        prop_assert_eq!(left.cmp(&right), left_bytes.cmp(&right_bytes));
    }

    #[test]
    fn values_survive_the_round_trip(value in state_value()) {
        let key = key_of(&value);
        prop_assert_eq!(decode_value(&key, &encode_value(&value)).unwrap(), value);
    }

    #[test]
    fn whatever_decodes_is_the_only_encoding_of_its_value(bytes in vec(prop_oneof![0u8..4, any::<u8>()], 0..60), kind in 0..3) {
        if let Ok(key) = decode_key(&bytes) {
            prop_assert_eq!(encode_key(&key), bytes.clone());
        }
        let key = match kind {
            0 => StateKey::Account(Address::ZERO),
            1 => StateKey::Slot(Address::ZERO, 0, U256::ZERO),
            _ => StateKey::Row("u_t".into(), Arc::from(&b""[..])),
        };
        if let Ok(value) = decode_value(&key, &bytes) {
            prop_assert_eq!(encode_value(&value), bytes);
        }
    }

    #[test]
    fn rows_of_a_table_and_only_they_have_its_prefix(table in table_name(), key in state_key()) {
        let is_row = matches!(&key, StateKey::Row(name, _) if *name == table);
        prop_assert_eq!(encode_key(&key).starts_with(&table_prefix(&table)), is_row);
    }
}

#[test]
fn counts_beyond_the_input_are_refused_before_memory_is_taken() {
    let key = StateKey::Row("u_t".into(), Arc::from(&b""[..]));
    assert!(decode_value(&key, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
    assert!(decode_value(&key, &[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
}

#[test]
fn an_account_without_code_and_balance_takes_three_bytes() {
    assert_eq!(encode_value(&StateValue::Account(AccountRecord { nonce: 5, ..AccountRecord::default() })), [5, 0, 0]);
}
