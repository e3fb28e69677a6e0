//! What an entry must be like to be selected, updated or removed.
//!
//! Comparisons are those of 2.x, as recorded: equality compares text; order compares 64-bit integers, an empty text counting as 0 and
//! any other text that is no integer meeting nothing. An entry without the field meets no comparison of it.

use std::sync::Arc;

use millrace_base::Bytes;

use super::Fields;

/// How a field is compared with a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// The same text.
    Equal,
    /// Another text.
    NotEqual,
    /// The field's number is greater.
    Greater,
    /// The field's number is greater or the same.
    GreaterOrEqual,
    /// The field's number is smaller.
    Less,
    /// The field's number is smaller or the same.
    LessOrEqual,
}

/// Which of the entries that meet the comparisons are taken, counted in insertion order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Skipped first.
    pub offset: u64,
    /// Taken then, at most.
    pub count: u64,
}

/// Comparisons that must all hold, and a limit on how many entries are taken. The default takes everything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Condition {
    comparisons: Vec<(Arc<str>, Comparison, Bytes)>,
    /// All entries when `None`.
    pub limit: Option<Limit>,
}

impl Condition {
    /// A condition that everything meets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a comparison of a field with a value.
    pub fn compare(&mut self, field: &str, comparison: Comparison, value: impl Into<Bytes>) {
        self.comparisons.push((field.into(), comparison, value.into()));
    }

    /// One comparison for equality.
    pub fn equal(field: &str, value: impl Into<Bytes>) -> Self {
        let mut condition = Self::new();
        condition.compare(field, Comparison::Equal, value);
        condition
    }

    /// The comparisons, in the order they were added.
    pub fn comparisons(&self) -> impl Iterator<Item = (&str, Comparison, &Bytes)> {
        self.comparisons.iter().map(|(field, comparison, value)| (&**field, *comparison, value))
    }

    /// Whether an entry meets all comparisons but those of fields that `is_ignored`.
    pub fn holds(&self, fields: &Fields, is_ignored: impl Fn(&str) -> bool) -> bool {
        self.comparisons.iter().filter(|(field, ..)| !is_ignored(field)).all(|(field, comparison, value)| {
            let Some(actual) = fields.get(field) else { return false };
            meets(actual, *comparison, value)
        })
    }
}

fn meets(actual: &[u8], comparison: Comparison, value: &[u8]) -> bool {
    let ordered = |holds: fn(&i64, &i64) -> bool| match (number(actual), number(value)) {
        (Some(actual), Some(value)) => holds(&actual, &value),
        _ => false,
    };
    match comparison {
        Comparison::Equal => actual == value,
        Comparison::NotEqual => actual != value,
        Comparison::Greater => ordered(i64::gt),
        Comparison::GreaterOrEqual => ordered(i64::ge),
        Comparison::Less => ordered(i64::lt),
        Comparison::LessOrEqual => ordered(i64::le),
    }
}

fn number(text: &[u8]) -> Option<i64> {
    if text.is_empty() { Some(0) } else { std::str::from_utf8(text).ok()?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(field: &str, comparison: Comparison, value: &str) -> bool {
        let fields = Fields::from([("id".into(), Bytes::copy_from_slice(field.as_bytes()))]);
        let mut condition = Condition::new();
        condition.compare("id", comparison, value.as_bytes().to_vec());
        condition.holds(&fields, |_| false)
    }

    #[test]
    fn equality_compares_text() {
        assert!(selects("1", Comparison::Equal, "1"));
        assert!(!selects("01", Comparison::Equal, "1"));
        assert!(selects("01", Comparison::NotEqual, "1"));
        assert!(selects("", Comparison::Equal, ""));
    }

    #[test]
    fn order_compares_numbers_and_text_meets_nothing() {
        assert!(selects("10", Comparison::Greater, "9"));
        assert!(selects("-5", Comparison::Less, "0"));
        assert!(selects("3", Comparison::GreaterOrEqual, "3"));
        assert!(selects("3", Comparison::LessOrEqual, "3"));
        for text in ["apple", "1.5", "true", "9223372036854775808"] {
            for comparison in [Comparison::Greater, Comparison::GreaterOrEqual, Comparison::Less, Comparison::LessOrEqual] {
                assert!(!selects(text, comparison, "1"), "{text}");
                assert!(!selects("1", comparison, text), "{text}");
            }
        }
    }

    #[test]
    fn empty_text_is_the_number_zero() {
        assert!(selects("", Comparison::Less, "3"));
        assert!(!selects("", Comparison::Greater, "1"));
    }

    #[test]
    fn missing_field_meets_no_comparison_and_ignored_fields_do_not_matter() {
        let mut condition = Condition::new();
        condition.compare("id", Comparison::NotEqual, "1");
        assert!(!condition.holds(&Fields::new(), |_| false));
        assert!(condition.holds(&Fields::new(), |field| field == "id"));
    }

    #[test]
    fn all_comparisons_must_hold() {
        let fields = Fields::from([("id".into(), Bytes::from("5"))]);
        let mut condition = Condition::new();
        condition.compare("id", Comparison::Greater, "1");
        condition.compare("id", Comparison::Less, "6");
        assert!(condition.holds(&fields, |_| false));
        condition.compare("id", Comparison::NotEqual, "5");
        assert!(!condition.holds(&fields, |_| false));
    }
}
