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
/// There is no such contract.
pub const GRANTED_CONTRACT_MISSING: i64 = -51_003;
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
/// The contract is frozen already.
pub const CONTRACT_FROZEN: i64 = -51_900;
/// The contract is not frozen.
pub const CONTRACT_AVAILABLE: i64 = -51_901;
/// The account manages the contract already.
pub const MANAGER_EXISTS: i64 = -51_902;
/// The address has no code.
pub const NOT_A_CONTRACT: i64 = -51_903;
/// There is nothing at the address.
pub const CONTRACT_MISSING: i64 = -51_904;
/// Only managers of the contract and the committee may.
pub const MANAGER_NEEDED: i64 = -51_905;
/// The account does not manage the contract.
pub const MANAGER_MISSING: i64 = -51_906;
/// The last manager stays.
pub const LAST_MANAGER: i64 = -51_907;
/// The account is in the committee already.
pub const MEMBER_EXISTS: i64 = -52_000;
/// The account is not in the committee.
pub const MEMBER_MISSING: i64 = -52_001;
/// Only the committee may.
pub const MEMBER_NEEDED: i64 = -52_002;
/// Not 0 to 99.
pub const INVALID_THRESHOLD: i64 = -52_003;
/// An operator cannot be a member of the committee.
pub const OPERATOR_CANNOT_BE_MEMBER: i64 = -52_004;
/// A member of the committee cannot be an operator.
pub const MEMBER_CANNOT_BE_OPERATOR: i64 = -52_005;
/// The account is an operator already.
pub const OPERATOR_EXISTS: i64 = -52_006;
/// The account is no operator.
pub const OPERATOR_MISSING: i64 = -52_007;
/// There is no such account.
pub const ACCOUNT_MISSING: i64 = -52_008;
/// The address is that of a contract.
pub const NOT_AN_ACCOUNT: i64 = -52_009;
/// The account is not frozen.
pub const ACCOUNT_AVAILABLE: i64 = -52_010;
/// The account is frozen already.
pub const ACCOUNT_FROZEN: i64 = -52_011;
/// It has that value already.
pub const SAME_VALUE: i64 = -52_012;
/// Only the committee and chargers may.
pub const GAS_DENIED: i64 = -53_000;
/// The amount is zero.
pub const GAS_ZERO: i64 = -53_001;
/// The account would have more than 256 bits hold.
pub const GAS_OVERFLOW: i64 = -53_002;
/// The account has less than that.
pub const GAS_TOO_LITTLE: i64 = -53_003;
/// Only the committee may name chargers.
pub const CHARGER_GRANT_DENIED: i64 = -53_004;
/// Only the committee may dismiss chargers.
pub const CHARGER_REVOKE_DENIED: i64 = -53_005;
/// The account is a charger already.
pub const CHARGER_EXISTS: i64 = -53_006;
/// The account is no charger.
pub const CHARGER_MISSING: i64 = -53_007;
/// GasChargeManage has no such function.
pub const GAS_UNKNOWN_FUNCTION: i64 = -53_008;
