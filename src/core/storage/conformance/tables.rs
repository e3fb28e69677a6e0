//! Tables over an engine: random work on rows, committed block by block and read back from the database, gives what the same work gives
//! in memory alone.
//!
//! Keys have several entries; conditions, limits, refused writes and rollbacks inside a block are part of it. A block's writes are
//! compared as well, since all nodes must write the same whatever their engine.

use std::collections::BTreeMap;

use super::super::{Batch, Durability, Space, Storage, StorageError};
use super::Random;
use crate::overlay::{Journal, Writes};
use crate::state::codec::{decode_value, encode_key, encode_value};
use crate::state::{StateKey, StateReader, StateValue};
use crate::table::{Comparison, Condition, Fields, Limit, Schema, Table, create};

const BLOCKS: u64 = 40;
const CHANGES: u64 = 12;

/// The state that an engine holds.
struct Stored<'s>(&'s dyn Storage);

impl StateReader for Stored<'_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let value = self.0.get(Space::State, &encode_key(key))?;
        value.map(|bytes| decode_value(key, &bytes)).transpose()
    }
}

/// The state that it should hold.
#[derive(Default)]
struct Model(BTreeMap<StateKey, StateValue>);

impl StateReader for Model {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        Ok(self.0.get(key).cloned())
    }
}

/// Runs the check on a new database.
pub(super) fn rows_are_those_of_the_model(storage: &dyn Storage) {
    let mut model = Model::default();
    for block in 0..BLOCKS {
        let (expected, answers) = work(&model, block);
        let (writes, found) = work(&Stored(storage), block);
        assert_eq!(found, answers, "selections and counts of block {block} do not depend on the engine");
        assert_eq!(writes, expected, "writes of block {block} do not depend on the engine");
        let mut batch = Batch::default();
        for (key, value) in writes {
            match &value {
                Some(value) => batch.put(Space::State, encode_key(&key), encode_value(value)),
                None => batch.delete(Space::State, encode_key(&key)),
            }
            match value {
                Some(value) => model.0.insert(key, value),
                None => model.0.remove(&key),
            };
        }
        storage.commit(block, &batch, Durability::Process).expect("commit must work");
    }
    for (key, value) in &model.0 {
        assert_eq!(Stored(storage).read(key).expect("read must work").as_ref(), Some(value));
    }
}

fn fields(random: &mut Random) -> Fields {
    // Every hundredth or so names a field that the table lacks, and is refused.
    let name = ["price", "colour", "price", "colour", "weight"][usize::try_from(random.below(5)).expect("below five")];
    let value = random.below(50).to_string().into_bytes();
    Fields::from([(name.into(), value.into())])
}

fn condition(random: &mut Random) -> Condition {
    let mut condition = Condition::new();
    let comparisons = [Comparison::Equal, Comparison::NotEqual, Comparison::Greater, Comparison::LessOrEqual];
    if let Some(comparison) = comparisons.get(usize::try_from(random.below(6)).expect("below six")) {
        condition.compare("price", *comparison, random.below(50).to_string().into_bytes());
    }
    if random.below(3) == 0 {
        condition.limit = Some(Limit { offset: random.below(3), count: random.below(4) });
    }
    condition
}

/// The same work for the same block: its writes, and what each step answered.
fn work(state: &dyn StateReader, block: u64) -> (Writes, Vec<String>) {
    let mut random = Random(block + 1);
    let mut journal = Journal::new(state);
    let schema = Schema::new("u_fruit", "name", "price,colour");
    create(&mut journal, &schema).expect("creating must work");
    let table = Table::open(&journal, "u_fruit").expect("opening must work").expect("the table was created");
    let mut answers = Vec::new();
    for _ in 0..CHANGES {
        let savepoint = journal.savepoint();
        let key = format!("key{}", random.below(4)).into_bytes();
        let answer = match random.below(6) {
            0..=2 => table.insert(&mut journal, &key, fields(&mut random)),
            3 => table.update(&mut journal, &key, &fields(&mut random), &condition(&mut random)),
            4 => table.remove(&mut journal, &key, &condition(&mut random)),
            _ => Ok(0),
        };
        answers.push(answer.map_or_else(|error| error.to_string(), |count| count.to_string()));
        if random.below(4) == 0 {
            journal.rollback(savepoint);
        }
        answers.push(format!("{:?}", table.select(&journal, &key, &condition(&mut random)).expect("selecting must work")));
    }
    (journal.into_writes(), answers)
}
