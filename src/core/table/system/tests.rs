use std::collections::BTreeMap;

use super::*;

#[derive(Default)]
struct State(BTreeMap<StateKey, StateValue>);

impl State {
    fn apply(&mut self, writes: Writes) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Journal<'_>)) {
        let writes = {
            let mut journal = Journal::new(self);
            change(&mut journal);
            journal.into_writes()
        };
        self.apply(writes);
    }
}

impl StateReader for State {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.0.get(key).cloned())
    }
}

fn node(byte: u8) -> NodeId {
    NodeId([byte; 64])
}

fn genesis() -> State {
    let mut state = State::default();
    state.apply(genesis_writes(&GenesisState {
        sealers: vec![node(2), node(1), node(2)],
        config: vec![("tx_count_limit".into(), "1000".into()), ("tx_gas_limit".into(), "300000000".into())],
    }));
    state
}

fn limit(state: &State, number: u64) -> Option<String> {
    config(state, "tx_count_limit", number).unwrap()
}

#[test]
fn genesis_governs_from_the_first_block_and_does_not_depend_on_order() {
    let state = genesis();
    assert_eq!(limit(&state, 0).as_deref(), Some("1000"));
    assert_eq!(limit(&state, 1).as_deref(), Some("1000"));
    assert_eq!(config(&state, "missing", 1).unwrap(), None);
    assert_eq!(members(&state, 1).unwrap(), Members { sealers: vec![node(1), node(2)], observers: vec![] });
    let writes = genesis_writes(&GenesisState { sealers: vec![node(1), node(2)], config: vec![] });
    assert!(writes.is_sorted_by(|left, right| left.0 < right.0));
    assert_eq!(writes[0].1.as_ref(), state.0.get(&writes[0].0));
}

#[test]
fn setting_of_block_n_governs_from_n_plus_1_and_not_within_n() {
    let mut state = genesis();
    state.change(|journal| set_config(journal, "tx_count_limit", "5", 8).unwrap());
    assert_eq!(limit(&state, 7).as_deref(), Some("1000"));
    assert_eq!(limit(&state, 8).as_deref(), Some("5"));
    // Twice in one block: the block itself still has what was there before it.
    state.change(|journal| set_config(journal, "tx_count_limit", "6", 9).unwrap());
    state.change(|journal| set_config(journal, "tx_count_limit", "7", 9).unwrap());
    assert_eq!(limit(&state, 8).as_deref(), Some("5"));
    assert_eq!(limit(&state, 9).as_deref(), Some("7"));
}

#[test]
fn new_setting_is_absent_in_the_block_that_sets_it() {
    let mut state = genesis();
    state.change(|journal| set_config(journal, "consensus_timeout", "5", 8).unwrap());
    assert_eq!(config(&state, "consensus_timeout", 7).unwrap(), None);
    assert_eq!(config(&state, "consensus_timeout", 8).unwrap().as_deref(), Some("5"));
}

#[test]
fn roles_of_block_n_govern_from_n_plus_1() {
    let mut state = genesis();
    state.change(|journal| assert!(set_member(journal, &node(3), Some(Role::Observer), 8).unwrap()));
    state.change(|journal| assert!(set_member(journal, &node(1), Some(Role::Observer), 8).unwrap()));
    assert_eq!(members(&state, 7).unwrap(), Members { sealers: vec![node(1), node(2)], observers: vec![] });
    assert_eq!(members(&state, 8).unwrap(), Members { sealers: vec![node(2)], observers: vec![node(1), node(3)] });
    assert_eq!(role(&state, &node(1), 7).unwrap(), Some(Role::Sealer));
    assert_eq!(role(&state, &node(1), 8).unwrap(), Some(Role::Observer));
    assert_eq!(role(&state, &node(9), 8).unwrap(), None);
}

#[test]
fn removed_member_stays_for_the_block_and_its_row_goes_with_a_later_change() {
    let mut state = genesis();
    state.change(|journal| assert!(set_member(journal, &node(1), None, 8).unwrap()));
    assert_eq!(members(&state, 7).unwrap().sealers, [node(1), node(2)]);
    assert_eq!(members(&state, 8).unwrap().sealers, [node(2)]);
    state.change(|journal| assert!(!set_member(journal, &node(1), None, 8).unwrap(), "it is no member any more"));
    assert_eq!(members(&state, 7).unwrap().sealers, [node(1), node(2)]);
    state.change(|journal| assert!(!set_member(journal, &node(9), None, 9).unwrap(), "it never was one"));
    assert_eq!(entries(&state, CONSENSUS, MEMBERS_KEY).unwrap().len(), 1);
}

#[test]
fn member_removed_and_taken_back_in_one_block_has_not_changed() {
    let mut state = genesis();
    state.change(|journal| assert!(set_member(journal, &node(1), None, 8).unwrap()));
    state.change(|journal| assert!(set_member(journal, &node(1), Some(Role::Sealer), 8).unwrap()));
    assert_eq!(members(&state, 7).unwrap(), members(&state, 8).unwrap());
    // And one that came and went within a block was never there.
    state.change(|journal| assert!(set_member(journal, &node(5), Some(Role::Sealer), 9).unwrap()));
    state.change(|journal| assert!(set_member(journal, &node(5), None, 9).unwrap()));
    assert_eq!(role(&state, &node(5), 8).unwrap(), None);
    assert_eq!(role(&state, &node(5), 9).unwrap(), None);
}

#[test]
fn every_system_table_has_a_schema() {
    for name in [TABLES, CONSENSUS, CONFIG, TABLE_ACCESS, CNS, COMMITTEE_VOTES, GUARDS, CHARGERS] {
        assert_eq!(&*schema(name).unwrap().name, name);
    }
    assert_eq!(schema("u_t"), None);
}
