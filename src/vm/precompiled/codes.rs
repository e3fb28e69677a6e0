//! Answers of system contracts that are codes: zero or a count of rows on success, these on failure (`spec/node-semantics.md` 8.4).

/// No permission to write the table.
pub const NO_AUTHORITY: i64 = -50_000;
/// A table of this name exists.
pub const TABLE_EXISTS: i64 = -50_001;
/// No function has this selector.
pub const UNKNOWN_FUNCTION: i64 = -50_101;
/// Not 128 hexadecimal digits.
pub const INVALID_NODE_ID: i64 = -51_100;
/// The last sealer can neither leave nor stop sealing.
pub const LAST_SEALER: i64 = -51_101;
/// Unknown configuration key, or a value out of range.
pub const INVALID_CONFIGURATION: i64 = -51_300;
/// The user name is empty.
pub const INVALID_USER_NAME: i64 = -51_400;
/// The amount is zero.
pub const INVALID_AMOUNT: i64 = -51_401;
/// No such user.
pub const USER_MISSING: i64 = -51_402;
/// The user exists.
pub const USER_EXISTS: i64 = -51_403;
/// The balance is below the amount.
pub const INSUFFICIENT_BALANCE: i64 = -51_404;
/// The balance would exceed 256 bits.
pub const BALANCE_OVERFLOW: i64 = -51_405;
