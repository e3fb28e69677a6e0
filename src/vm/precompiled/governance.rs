//! ChainGovernance, 0x1008: a committee that votes, the operators it names, and accounts it freezes.
//!
//! Members hold grants on `_sys_table_access_`, `_sys_config_` and `_sys_consensus_`, operators on `_sys_tables_` and `_sys_cns_`
//! (`spec/node-semantics.md` 7.5). A motion is a key of `_sys_committee_votes_` with one vote a member; it is carried when the votes for
//! one value weigh more than the threshold, a percentage of the weight of all members. 2.x compares floating point numbers; here it
//! is `votes * 100 > total * threshold` in integers, which no node can round otherwise.

use std::fmt::Write as _;

use millrace_base::abi::{Encoder, int256_text, is_negative};
use millrace_base::{Address, Bytes, U256, hex};
use millrace_core::table::{Condition, system};
use millrace_core::{Entry, StateReader, StorageError};

use super::contract::{Contract, Function, Invocation, Unknown, code, refused};
use super::guards::{self, Frozen, Kind};
use super::json::compact;
use super::tables::{MAX_LISTED, Writer, field, fields, system_table};
use super::{Failure, codes};

const MEMBER_TABLES: [&str; 3] = [system::TABLE_ACCESS, system::CONFIG, system::CONSENSUS];
const OPERATOR_TABLES: [&str; 2] = [system::TABLES, system::CNS];

/// Blocks that a vote counts for.
const VOTE_BLOCKS: u64 = 10_000;
/// Percentage of a chain that never changed it.
const DEFAULT_THRESHOLD: u64 = 50;
const THRESHOLD: &str = "threshold";
/// Key of the threshold in force.
const THRESHOLD_VALUE: &str = "threshold_value";

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1008,
    name: "ChainGovernance",
    counts_input: false,
    unknown: Unknown::Empty,
    functions: &[
        Function { selector: hex!("6f8f521f"), signature: "grantCommitteeMember(address)", run: |i| grant_member(i).map(code) },
        Function { selector: hex!("cafb4d1b"), signature: "revokeCommitteeMember(address)", run: |i| revoke_member(i).map(code) },
        Function { selector: hex!("246c3376"), signature: "updateCommitteeMemberWeight(address,int256)", run: |i| set_weight(i).map(code) },
        Function { selector: hex!("97b00861"), signature: "updateThreshold(int256)", run: |i| set_threshold(i).map(code) },
        Function { selector: hex!("885a3a72"), signature: "listCommitteeMembers()", run: list_members },
        Function { selector: hex!("284f6e88"), signature: "queryVotesOfMember(address)", run: query_votes_of_member },
        Function { selector: hex!("791a2742"), signature: "queryVotesOfThreshold()", run: query_votes_of_threshold },
        Function { selector: hex!("6c147119"), signature: "queryCommitteeMemberWeight(address)", run: query_weight },
        Function { selector: hex!("281af27d"), signature: "queryThreshold()", run: query_threshold },
        Function { selector: hex!("e348da13"), signature: "grantOperator(address)", run: |i| grant_operator(i).map(code) },
        Function { selector: hex!("fad8b32a"), signature: "revokeOperator(address)", run: |i| revoke_operator(i).map(code) },
        Function { selector: hex!("039a93ca"), signature: "listOperators()", run: list_operators },
        Function { selector: hex!("f26c159f"), signature: "freezeAccount(address)", run: |i| set_frozen(i, Frozen::Yes).map(code) },
        Function { selector: hex!("788649ea"), signature: "unfreezeAccount(address)", run: |i| set_frozen(i, Frozen::No).map(code) },
        Function { selector: hex!("fd4fa05a"), signature: "getAccountStatus(address)", run: get_status },
    ],
};

/// An address as grants and votes spell it.
pub(super) fn address_text(address: Address) -> String {
    format!("0x{}", hex::encode(address))
}

fn has_grant(state: &dyn StateReader, table: &str, address: Address) -> Result<bool, StorageError> {
    let text = address_text(address);
    let grants = system_table(system::TABLE_ACCESS).entries(state, table.as_bytes())?;
    Ok(grants.iter().any(|grant| field(grant, "address") == text.as_bytes()))
}

/// Whether an account is in the committee.
pub(super) fn is_member(state: &dyn StateReader, address: Address) -> Result<bool, StorageError> {
    has_grant(state, system::TABLE_ACCESS, address)
}

fn is_operator(state: &dyn StateReader, address: Address) -> Result<bool, StorageError> {
    Ok(has_grant(state, system::TABLES, address)? && has_grant(state, system::CNS, address)?)
}

fn give(invocation: &mut Invocation<'_, '_, '_>, tables: &[&str], address: Address) -> Result<(), Failure> {
    let (access, text) = (system_table(system::TABLE_ACCESS), address_text(address));
    let number = invocation.context.block.number.to_string();
    let journal = &mut *invocation.context.journal;
    for table in tables {
        if has_grant(journal, table, address)? {
            continue;
        }
        if access.entries(journal, table.as_bytes())?.len() >= MAX_LISTED {
            return Err(refused(format!("a table has at most {MAX_LISTED} grants")));
        }
        let grant = fields([("address", text.as_bytes()), (system::ENABLE_NUMBER, number.as_bytes())]);
        Writer::Contract.insert(journal, &access, table.as_bytes(), grant)?;
    }
    Ok(())
}

fn take(invocation: &mut Invocation<'_, '_, '_>, tables: &[&str], address: Address) -> Result<(), Failure> {
    let of_address = Condition::equal("address", address_text(address).into_bytes());
    for table in tables {
        let journal = &mut *invocation.context.journal;
        Writer::Contract.remove(journal, &system_table(system::TABLE_ACCESS), table.as_bytes(), &of_address)?;
    }
    Ok(())
}

fn members(state: &dyn StateReader) -> Result<Vec<Address>, StorageError> {
    let grants = system_table(system::TABLE_ACCESS).entries(state, system::TABLE_ACCESS.as_bytes())?;
    Ok(grants.iter().filter_map(|grant| super::entry::parse_address(field(grant, "address"))).collect())
}

fn weight_key(member: Address) -> String {
    format!("weight_of:{}", address_text(member))
}

/// A number that the committee set.
fn number_at(state: &dyn StateReader, key: &str, default: u64) -> Result<u64, StorageError> {
    let rows = system_table(system::COMMITTEE_VOTES).entries(state, key.as_bytes())?;
    Ok(rows.first().and_then(|row| system::number_field(row, "value")).unwrap_or(default))
}

fn set_number(invocation: &mut Invocation<'_, '_, '_>, key: &str, value: u64) -> Result<(), Failure> {
    clear(invocation, key)?;
    let row = fields([("value", value.to_string().as_bytes())]);
    Writer::Contract.insert(invocation.context.journal, &system_table(system::COMMITTEE_VOTES), key.as_bytes(), row)?;
    Ok(())
}

fn clear(invocation: &mut Invocation<'_, '_, '_>, key: &str) -> Result<(), Failure> {
    let votes = system_table(system::COMMITTEE_VOTES);
    Writer::Contract.remove(invocation.context.journal, &votes, key.as_bytes(), &Condition::new())?;
    Ok(())
}

fn is_running(vote: &Entry, number: u64) -> bool {
    system::number_field(vote, "block_limit").is_some_and(|limit| limit >= number)
}

/// The origin, a member, votes for `value` of a motion. Whether that carried it; its votes are gone then.
fn vote(invocation: &mut Invocation<'_, '_, '_>, motion: &str, value: &str) -> Result<bool, Failure> {
    let votes = system_table(system::COMMITTEE_VOTES);
    let (origin, number) = (address_text(invocation.call.origin), invocation.context.block.number);
    let journal = &mut *invocation.context.journal;
    let rows = votes.entries(journal, motion.as_bytes())?;
    let is_same = |row: &Entry| field(row, "origin") == origin.as_bytes() && field(row, "value") == value.as_bytes();
    // The same vote again does not prolong the one that is running.
    if !rows.iter().any(|row| is_same(row) && is_running(row, number)) {
        // Counted from the block below, as recorded.
        let limit = number.saturating_add(VOTE_BLOCKS - 1).to_string();
        let cast = fields([("value", value.as_bytes()), ("origin", origin.as_bytes()), ("block_limit", limit.as_bytes())]);
        Writer::Contract.remove(journal, &votes, motion.as_bytes(), &Condition::equal("origin", origin.into_bytes()))?;
        Writer::Contract.insert(journal, &votes, motion.as_bytes(), cast)?;
    }
    let rows = votes.entries(journal, motion.as_bytes())?;
    let (mut total, mut cast) = (0_u128, 0_u128);
    for member in members(journal)? {
        let (weight, text) = (number_at(journal, &weight_key(member), 1)?, address_text(member));
        let is_for =
            |row: &Entry| field(row, "origin") == text.as_bytes() && field(row, "value") == value.as_bytes() && is_running(row, number);
        total += u128::from(weight);
        cast += if rows.iter().any(is_for) { u128::from(weight) } else { 0 };
    }
    let threshold = number_at(journal, THRESHOLD_VALUE, DEFAULT_THRESHOLD)?;
    let is_carried = cast * 100 > total * u128::from(threshold);
    if is_carried {
        clear(invocation, motion)?;
    }
    Ok(is_carried)
}

fn grant_member(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let account = invocation.arguments.address();
    let journal = &*invocation.context.journal;
    if is_member(journal, account)? {
        return Ok(codes::MEMBER_EXISTS);
    }
    if is_operator(journal, account)? {
        return Ok(codes::OPERATOR_CANNOT_BE_MEMBER);
    }
    if !members(journal)?.is_empty() {
        if !is_member(journal, invocation.call.origin)? {
            return Ok(codes::MEMBER_NEEDED);
        }
        if !vote(invocation, &format!("grant:{}", address_text(account)), "grant")? {
            return Ok(0);
        }
    }
    give(invocation, &MEMBER_TABLES, account)?;
    Ok(1)
}

fn revoke_member(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let account = invocation.arguments.address();
    let journal = &*invocation.context.journal;
    if !is_member(journal, account)? {
        return Ok(codes::MEMBER_MISSING);
    }
    if !is_member(journal, invocation.call.origin)? {
        return Ok(codes::MEMBER_NEEDED);
    }
    if !vote(invocation, &format!("revoke:{}", address_text(account)), "revoke")? {
        return Ok(0);
    }
    take(invocation, &MEMBER_TABLES, account)?;
    clear(invocation, &weight_key(account))?;
    Ok(1)
}

fn set_weight(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (account, value) = (invocation.arguments.address(), invocation.arguments.uint());
    let name = |rule: &str| {
        refused(format!("updateCommitteeMemberWeight failed for invalid weight \"{}\", the weight must be {rule}", int256_text(value)))
    };
    if value.is_zero() || is_negative(value) {
        return Err(name("greater than 0"));
    }
    // Sums of weights stay exact.
    let weight = u64::try_from(value).ok().filter(|weight| i64::try_from(*weight).is_ok()).ok_or_else(|| name("less than 2^63"))?;
    let journal = &*invocation.context.journal;
    if !is_member(journal, account)? {
        return Ok(codes::MEMBER_MISSING);
    }
    let key = weight_key(account);
    if number_at(journal, &key, 1)? == weight {
        return Ok(codes::SAME_VALUE);
    }
    if !is_member(journal, invocation.call.origin)? {
        return Ok(codes::MEMBER_NEEDED);
    }
    if !vote(invocation, &format!("weight:{}", address_text(account)), &weight.to_string())? {
        return Ok(0);
    }
    set_number(invocation, &key, weight)?;
    Ok(1)
}

fn set_threshold(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let value = invocation.arguments.uint();
    let Some(threshold) = u64::try_from(value).ok().filter(|percent| *percent <= 99) else {
        return Ok(codes::INVALID_THRESHOLD);
    };
    let journal = &*invocation.context.journal;
    if number_at(journal, THRESHOLD_VALUE, DEFAULT_THRESHOLD)? == threshold {
        return Ok(codes::SAME_VALUE);
    }
    if !is_member(journal, invocation.call.origin)? {
        return Ok(codes::MEMBER_NEEDED);
    }
    // As 2.x spells a share.
    if !vote(invocation, THRESHOLD, &format!("0.{threshold:02}0000"))? {
        return Ok(0);
    }
    set_number(invocation, THRESHOLD_VALUE, threshold)?;
    Ok(1)
}

fn listed<'g>(grants: impl Iterator<Item = &'g Entry>) -> Bytes {
    let members = |grant: &'g Entry| [("address", field(grant, "address")), (system::ENABLE_NUMBER, field(grant, system::ENABLE_NUMBER))];
    Encoder::new().string(&compact(grants.map(|grant| members(grant).to_vec()))).finish()
}

fn list_members(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let journal = &*invocation.context.journal;
    Ok(listed(system_table(system::TABLE_ACCESS).entries(journal, system::TABLE_ACCESS.as_bytes())?.iter()))
}

fn list_operators(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (access, journal) = (system_table(system::TABLE_ACCESS), &*invocation.context.journal);
    let cns = access.entries(journal, system::CNS.as_bytes())?;
    let tables = access.entries(journal, system::TABLES.as_bytes())?;
    let is_in_both = |grant: &&Entry| cns.iter().any(|other| field(other, "address") == field(grant, "address"));
    Ok(listed(tables.iter().filter(is_in_both)))
}

/// Running votes by value, as JSON; `null` without any.
fn votes_json(invocation: &Invocation<'_, '_, '_>, motions: &[String]) -> Result<Bytes, Failure> {
    let (votes, number) = (system_table(system::COMMITTEE_VOTES), invocation.context.block.number);
    let mut by_value = std::collections::BTreeMap::<String, Vec<String>>::new();
    for motion in motions {
        let rows = votes.entries(invocation.context.journal, motion.as_bytes())?;
        for row in rows.iter().filter(|row| is_running(row, number)) {
            let text = |name| String::from_utf8_lossy(field(row, name)).into_owned();
            let vote = format!("{{\"block_limit\":\"{}\",\"voter\":\"{}\"}}", text("block_limit"), text("origin"));
            by_value.entry(text("value")).or_default().push(vote);
        }
    }
    let mut json = String::new();
    for (value, votes) in &by_value {
        let separator = if json.is_empty() { '{' } else { ',' };
        write!(json, "{separator}\"{value}\":[{}]", votes.join(",")).expect("a String takes all text");
    }
    json.push_str(if json.is_empty() { "null\n" } else { "}\n" });
    Ok(Encoder::new().string(&json).finish())
}

fn query_votes_of_member(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let account = address_text(invocation.arguments.address());
    votes_json(invocation, &["grant", "revoke", "weight"].map(|motion| format!("{motion}:{account}")))
}

fn query_votes_of_threshold(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    votes_json(invocation, &[THRESHOLD.to_owned()])
}

fn query_weight(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let (account, journal) = (invocation.arguments.address(), &*invocation.context.journal);
    if !is_member(journal, account)? {
        return Ok(Encoder::new().bool(false).int(codes::MEMBER_MISSING).finish());
    }
    let weight = number_at(journal, &weight_key(account), 1)?;
    Ok(Encoder::new().bool(true).uint(U256::from(weight)).finish())
}

fn query_threshold(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let threshold = number_at(invocation.context.journal, THRESHOLD_VALUE, DEFAULT_THRESHOLD)?;
    Ok(Encoder::new().uint(U256::from(threshold)).finish())
}

fn grant_operator(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (account, journal) = (invocation.arguments.address(), &*invocation.context.journal);
    if is_member(journal, account)? {
        return Ok(codes::MEMBER_CANNOT_BE_OPERATOR);
    }
    if is_operator(journal, account)? {
        return Ok(codes::OPERATOR_EXISTS);
    }
    if !is_member(journal, invocation.call.origin)? {
        return Ok(codes::MEMBER_NEEDED);
    }
    give(invocation, &OPERATOR_TABLES, account)?;
    Ok(1)
}

fn revoke_operator(invocation: &mut Invocation<'_, '_, '_>) -> Result<i64, Failure> {
    let (account, journal) = (invocation.arguments.address(), &*invocation.context.journal);
    if !is_operator(journal, account)? {
        return Ok(codes::OPERATOR_MISSING);
    }
    if !is_member(journal, invocation.call.origin)? {
        return Ok(codes::MEMBER_NEEDED);
    }
    take(invocation, &OPERATOR_TABLES, account)?;
    Ok(1)
}

fn set_frozen(invocation: &mut Invocation<'_, '_, '_>, frozen: Frozen) -> Result<i64, Failure> {
    let account = invocation.arguments.address();
    match Kind::of(invocation, account)? {
        Kind::Missing => return Ok(codes::ACCOUNT_MISSING),
        Kind::Contract => return Ok(codes::NOT_AN_ACCOUNT),
        Kind::Account => {}
    }
    let journal = &mut *invocation.context.journal;
    if !is_member(journal, invocation.call.origin)? || is_member(journal, account)? {
        return Ok(codes::NO_AUTHORITY);
    }
    match (guards::is_frozen(journal, account)?, frozen) {
        (true, Frozen::Yes) => return Ok(codes::ACCOUNT_FROZEN),
        (false, Frozen::No) => return Ok(codes::ACCOUNT_AVAILABLE),
        _ => {}
    }
    guards::set_frozen(journal, account, frozen)?;
    Ok(1)
}

fn get_status(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    let account = invocation.arguments.address();
    let text = match Kind::of(invocation, account)? {
        Kind::Missing => "The address is nonexistent.",
        // "a account": as 2.x spells it.
        Kind::Contract => "This is not a account address.",
        Kind::Account if guards::is_frozen(invocation.context.journal, account)? => {
            "The account has been frozen. You can use this account after unfreezing it."
        }
        Kind::Account => "The account is available.",
    };
    Ok(Encoder::new().string(text).finish())
}
