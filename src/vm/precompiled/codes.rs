//! Answers of system contracts that are codes: zero or a count of rows on success, these on failure (`spec/node-semantics.md` 8.4).

/// No permission to write the table.
pub const NO_AUTHORITY: i64 = -50_000;
/// A table of this name exists.
pub const TABLE_EXISTS: i64 = -50_001;
/// There is no such table.
pub const TABLE_MISSING: i64 = -50_100;
/// No function has this selector.
pub const UNKNOWN_FUNCTION: i64 = -50_101;
/// Not an address.
pub const INVALID_ADDRESS: i64 = -50_102;
/// The address has this grant already.
pub const GRANT_EXISTS: i64 = -51_000;
/// The address has no such grant.
pub const GRANT_MISSING: i64 = -51_001;
/// The name of the table is too long.
pub const TABLE_NAME_TOO_LONG: i64 = -51_002;
/// The committee rules this table, through ChainGovernance.
pub const COMMITTEE_RULES: i64 = -51_004;
/// Not 128 hexadecimal digits.
pub const INVALID_NODE_ID: i64 = -51_100;
/// The last sealer can neither leave nor stop sealing.
pub const LAST_SEALER: i64 = -51_101;
/// The name has this version already.
pub const VERSION_EXISTS: i64 = -51_200;
/// The version is too long.
pub const VERSION_TOO_LONG: i64 = -51_201;
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
/// The text is no JSON object of an entry.
pub const ENTRY_SYNTAX: i64 = -51_500;
/// The text is no JSON object of a condition.
pub const CONDITION_SYNTAX: i64 = -51_501;
/// The condition has an operator that does not exist.
pub const CONDITION_OPERATOR: i64 = -51_502;
/// The field of the key cannot be updated.
pub const KEY_UPDATE: i64 = -51_503;
/// A member of the committee cannot be an operator.
pub const MEMBER_CANNOT_BE_OPERATOR: i64 = -52_005;
