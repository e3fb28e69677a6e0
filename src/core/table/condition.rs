//! What an entry must be like to be selected, updated or removed.
//!
//! Comparisons are those of 2.x, as recorded: equality compares text; order compares 64-bit integers, an empty text counting as 0 and
//! any other text that is no integer meeting nothing. An entry without the field meets no comparison of it. A field has one lower and
//! one upper bound: a later comparison replaces the bounds it is about, and bounds with the same value mean "equal" when both include
//! it and "not equal" when both exclude it.

use std::collections::BTreeMap;
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

#[derive(Clone, PartialEq, Eq, Debug)]
struct Bound {
    is_inclusive: bool,
    value: Bytes,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Range {
    lower: Option<Bound>,
    upper: Option<Bound>,
}

/// Ranges that the fields must be in, and a limit on how many entries are taken. The default takes everything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Condition {
    ranges: BTreeMap<Arc<str>, Range>,
    /// All entries when `None`.
    pub limit: Option<Limit>,
}

impl Condition {
    /// A condition that everything meets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a comparison of a field with a value, or changes the field's.
    pub fn compare(&mut self, field: &str, comparison: Comparison, value: impl Into<Bytes>) {
        let range = self.ranges.entry(field.into()).or_default();
        let value = value.into();
        let bound = |is_inclusive| Some(Bound { is_inclusive, value: value.clone() });
        match comparison {
            Comparison::Equal => *range = Range { lower: bound(true), upper: bound(true) },
            Comparison::NotEqual => *range = Range { lower: bound(false), upper: bound(false) },
            Comparison::Greater => range.lower = bound(false),
            Comparison::GreaterOrEqual => range.lower = bound(true),
            Comparison::Less => range.upper = bound(false),
            Comparison::LessOrEqual => range.upper = bound(true),
        }
    }

    /// One comparison for equality.
    pub fn equal(field: &str, value: impl Into<Bytes>) -> Self {
        let mut condition = Self::new();
        condition.compare(field, Comparison::Equal, value);
        condition
    }

    /// Whether an entry meets all comparisons but those of fields that `is_ignored`.
    pub fn holds(&self, fields: &Fields, is_ignored: impl Fn(&str) -> bool) -> bool {
        self.ranges.iter().filter(|(field, _)| !is_ignored(field)).all(|(field, range)| {
            let Some(actual) = fields.get(field) else { return false };
            range.contains(actual)
        })
    }
}

impl Range {
    fn contains(&self, actual: &[u8]) -> bool {
        if let (Some(lower), Some(upper)) = (&self.lower, &self.upper)
            && lower.value == upper.value
            && lower.is_inclusive == upper.is_inclusive
        {
            return (lower.value[..] == *actual) == lower.is_inclusive;
        }
        let meets = |bound: &Option<Bound>, strictly: fn(&i64, &i64) -> bool| match bound {
            None => true,
            Some(bound) => match (number(actual), bound_number(&bound.value)) {
                (Some(actual), Some(limit)) => strictly(&actual, &limit) || (bound.is_inclusive && actual == limit),
                _ => false,
            },
        };
        meets(&self.lower, i64::gt) && meets(&self.upper, i64::lt)
    }
}

/// An empty bound is no number, unlike an empty field.
fn bound_number(text: &[u8]) -> Option<i64> {
    if text.is_empty() { None } else { number(text) }
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
        condition.compare("id", Comparison::Less, "5");
        assert!(!condition.holds(&fields, |_| false));
    }

    #[test]
    fn later_comparisons_replace_bounds_and_equal_bounds_compare_text() {
        let fields = Fields::from([("id".into(), Bytes::from("5"))]);
        let mut condition = Condition::equal("id", "4");
        condition.compare("id", Comparison::Equal, "5");
        assert!(condition.holds(&fields, |_| false));
        condition.compare("id", Comparison::Greater, "7");
        assert!(!condition.holds(&fields, |_| false));
        condition.compare("id", Comparison::Less, "7");
        assert!(condition.holds(&fields, |_| false), "greater and less than the same: not equal");
    }
}
