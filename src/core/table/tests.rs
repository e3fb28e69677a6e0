use std::collections::HashMap;

use millrace_base::Address;

use super::*;

#[derive(Default)]
struct State(HashMap<StateKey, StateValue>);

impl StateReader for State {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.0.get(key).cloned())
    }
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| (Arc::from(*name), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

/// The table of the recordings: key field `name`, fields `item_id` and `item_name`, seven rows of fruit.
fn fruit(journal: &mut Journal<'_>) -> Table {
    assert!(create(journal, &Schema::new("u_t_user", "name", "item_id,item_name")).unwrap());
    let table = Table::open(journal, "u_t_user").unwrap().unwrap();
    let rows = [("1", "apple"), ("2", "orange"), ("3", "pear"), ("4", "kiwi"), ("-5", "neg"), ("2", "orange2"), ("1000", "long")];
    for (id, name) in rows {
        assert_eq!(table.insert(journal, b"fruit", fields(&[("item_id", id), ("item_name", name)])).unwrap(), 1);
    }
    table
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.fields["item_name"]).unwrap()).collect()
}

fn where_id(comparison: Comparison, value: &str) -> Condition {
    let mut condition = Condition::new();
    condition.compare("item_id", comparison, value.as_bytes().to_vec());
    condition
}

fn limited(offset: u64, count: u64) -> Condition {
    let mut condition = Condition::new();
    condition.limit = Some(Limit { offset, count });
    condition
}

#[test]
fn created_table_opens_with_its_fields_and_is_created_once() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let schema = Schema::new("u_t", "name", "item_id,item_name");
    assert_eq!(Table::open(&journal, "u_t").unwrap(), None);
    assert!(create(&mut journal, &schema).unwrap());
    assert!(!create(&mut journal, &schema).unwrap());
    assert!(!create(&mut journal, &Schema::new("_sys_config_", "k", "v")).unwrap(), "system tables exist");
    assert_eq!(Table::open(&journal, "u_t").unwrap().unwrap().schema(), &schema);
    assert_eq!(schema.value_fields_text(), "item_id,item_name");
}

#[test]
fn selections_are_those_of_the_recordings() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let table = fruit(&mut journal);
    let select = |condition: &Condition| table.select(&journal, b"fruit", condition).unwrap();
    assert_eq!(names(&select(&Condition::new())), ["apple", "orange", "pear", "kiwi", "neg", "orange2", "long"]);
    assert_eq!(names(&select(&where_id(Comparison::Equal, "2"))), ["orange", "orange2"]);
    assert_eq!(select(&where_id(Comparison::NotEqual, "2")).len(), 5);
    assert_eq!(names(&select(&where_id(Comparison::Greater, "2"))), ["pear", "kiwi", "long"]);
    assert_eq!(names(&select(&where_id(Comparison::Less, "0"))), ["neg"]);
    assert_eq!(select(&where_id(Comparison::Greater, "-6")).len(), 7);
    assert_eq!(names(&select(&limited(1, 2))), ["orange", "pear"]);
    assert_eq!(names(&select(&limited(5, 100))), ["orange2", "long"]);
    assert_eq!(select(&limited(100, 5)).len(), 0);
    assert_eq!(select(&limited(0, 0)).len(), 0);
    let mut both = where_id(Comparison::Greater, "1");
    both.limit = Some(Limit { offset: 1, count: 2 });
    assert_eq!(names(&select(&both)), ["pear", "kiwi"]);
    assert_eq!(select(&Condition::equal("nosuch", "3")).len(), 0);
    assert_eq!(select(&Condition::equal("name", "3")).len(), 7, "the key field is not compared");
    assert_eq!(select(&Condition::equal("_id_", "3")).len(), 7, "hidden fields are not compared");
    assert_eq!(table.select(&journal, b"nokey", &Condition::new()).unwrap(), []);
}

#[test]
fn entries_carry_their_key_whatever_was_given_for_it() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let table = fruit(&mut journal);
    table.insert(&mut journal, b"veg", fields(&[("name", "other"), ("item_id", "7")])).unwrap();
    let entries = table.select(&journal, b"veg", &Condition::new()).unwrap();
    assert_eq!(entries[0].fields, fields(&[("name", "veg"), ("item_id", "7")]));
}

#[test]
fn update_and_remove_give_the_number_of_entries_and_keep_the_others() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let table = fruit(&mut journal);
    let new_name = fields(&[("item_name", "X"), ("name", "moved")]);
    assert_eq!(table.update(&mut journal, b"fruit", &new_name, &where_id(Comparison::Equal, "2")).unwrap(), 2);
    assert_eq!(table.update(&mut journal, b"fruit", &new_name, &limited(0, 1)).unwrap(), 1);
    assert_eq!(table.update(&mut journal, b"fruit", &new_name, &where_id(Comparison::Equal, "99")).unwrap(), 0);
    assert_eq!(table.update(&mut journal, b"nokey", &new_name, &Condition::new()).unwrap(), 0);
    let entries = table.select(&journal, b"fruit", &Condition::new()).unwrap();
    assert_eq!(names(&entries), ["X", "X", "pear", "kiwi", "neg", "X", "long"]);
    assert!(entries.iter().all(|entry| &entry.fields["name"][..] == b"fruit"));
    assert_eq!(table.remove(&mut journal, b"fruit", &where_id(Comparison::Equal, "2")).unwrap(), 2);
    assert_eq!(table.remove(&mut journal, b"fruit", &limited(0, 1)).unwrap(), 1);
    assert_eq!(table.remove(&mut journal, b"fruit", &where_id(Comparison::Equal, "2")).unwrap(), 0);
    table.insert(&mut journal, b"fruit", fields(&[("item_name", "new")])).unwrap();
    let entries = table.select(&journal, b"fruit", &Condition::new()).unwrap();
    assert_eq!(names(&entries), ["pear", "kiwi", "neg", "long", "new"]);
    assert!(entries.is_sorted_by(|left, right| left.id < right.id));
    assert_eq!(table.remove(&mut journal, b"fruit", &Condition::new()).unwrap(), 5);
    let row = StateKey::Row("u_t_user".into(), Arc::from(&b"fruit"[..]));
    assert_eq!(journal.get(&row).unwrap(), None, "a key without entries is absent");
}

#[test]
fn rollback_takes_table_writes_back() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let table = fruit(&mut journal);
    let savepoint = journal.savepoint();
    table.insert(&mut journal, b"fruit", fields(&[("item_name", "gone")])).unwrap();
    table.remove(&mut journal, b"fruit", &where_id(Comparison::Equal, "1")).unwrap();
    journal.rollback(savepoint);
    assert_eq!(table.select(&journal, b"fruit", &Condition::new()).unwrap().len(), 7);
}

#[test]
fn unknown_fields_and_sizes_over_the_limits_are_refused() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let table = fruit(&mut journal);
    let mut insert = |key: &[u8], fields: Fields| table.insert(&mut journal, key, fields);
    assert!(matches!(insert(b"k", fields(&[("nosuch", "v")])), Err(TableError::UnknownField(name)) if &*name == "nosuch"));
    assert!(insert(b"k", fields(&[("_id_", "5")])).is_ok(), "recorded: hidden fields may be given");
    assert!(insert(&[b'k'; MAX_STORED_KEY_BYTES], fields(&[])).is_ok());
    assert!(matches!(insert(&[b'k'; MAX_STORED_KEY_BYTES + 1], fields(&[])), Err(TableError::KeyTooLong(_))));
    let large = |length: usize| Fields::from([("item_name".into(), Bytes::from(vec![0; length]))]);
    assert!(matches!(insert(b"l", large(MAX_VALUE_BYTES + 1)), Err(TableError::ValueTooLong(_))));
    insert(b"l", large(MAX_VALUE_BYTES)).unwrap();
    insert(b"l", large(MAX_VALUE_BYTES - 100)).unwrap();
    assert!(matches!(insert(b"l", large(100)), Err(TableError::RowTooLarge(_))));
}

#[test]
fn tables_without_grants_are_open_and_others_closed_to_all_but_the_granted() {
    let state = State::default();
    let mut journal = Journal::new(&state);
    let (alice, bob) = (Address::repeat_byte(0xaa), Address::repeat_byte(0xbb));
    assert!(access::may_write(&journal, "u_t", alice, 1).unwrap());
    let table = Table::open(&journal, system::TABLE_ACCESS).unwrap().unwrap();
    let grant = |address: String, number: &str| fields(&[("address", &address), ("enable_num", number)]);
    table.insert(&mut journal, b"u_t", grant(format!("{alice:#x}"), "8")).unwrap();
    assert!(access::may_write(&journal, "u_t", bob, 7).unwrap(), "the grant does not hold yet");
    assert!(!access::may_write(&journal, "u_t", bob, 8).unwrap());
    assert!(access::may_write(&journal, "u_t", alice, 8).unwrap());
    table.insert(&mut journal, b"u_x", grant(format!("{alice:x}"), "8")).unwrap();
    assert!(!access::may_write(&journal, "u_x", alice, 8).unwrap(), "an address without 0x matches nobody");
}
