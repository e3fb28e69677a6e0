//! Consensus, 0x1003: the members of a group and their roles. A change in a block governs from the next one on.

use millrace_base::{Bytes, NodeId, hex};
use millrace_core::StorageError;
use millrace_core::table::system::{self, Role};

use super::contract::{Contract, Function, Invocation, Unknown, code};
use super::tables::Writer;
use super::{Context, Failure, codes};

/// The contract.
pub(super) const CONTRACT: Contract = Contract {
    address: 0x1003,
    name: "Consensus",
    counts_input: false,
    unknown: Unknown::Code(0),
    functions: &[
        Function { selector: hex!("89152d1f"), signature: "addSealer(string)", run: add_sealer },
        Function { selector: hex!("2800efc0"), signature: "addObserver(string)", run: add_observer },
        Function { selector: hex!("80599e4b"), signature: "remove(string)", run: remove },
    ],
};

fn add_sealer(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    set_role(invocation, Some(Role::Sealer)).map(code)
}

fn add_observer(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    set_role(invocation, Some(Role::Observer)).map(code)
}

fn remove(invocation: &mut Invocation<'_, '_, '_>) -> Result<Bytes, Failure> {
    set_role(invocation, None).map(code)
}

/// Changes the role of the node in the next argument: how many rows that touched, or a code.
fn set_role(invocation: &mut Invocation<'_, '_, '_>, role: Option<Role>) -> Result<i64, Failure> {
    let id = std::str::from_utf8(invocation.arguments.bytes()).ok().and_then(|text| NodeId::parse(text).ok());
    let Some(node) = id else { return Ok(codes::INVALID_NODE_ID) };
    let context = &mut *invocation.context;
    if role != Some(Role::Sealer) && is_last_sealer(context, &node)? {
        return Ok(codes::LAST_SEALER);
    }
    if !Writer::origin(invocation.call.origin, context).may_write(context.journal, system::CONSENSUS)? {
        return Ok(codes::NO_AUTHORITY);
    }
    let is_changed = system::set_member(context.journal, &node, role, context.block.number + 1)?;
    Ok(i64::from(is_changed))
}

/// Whether the next block, after the changes made in this one, would be without a sealer if this node stopped.
fn is_last_sealer(context: &Context<'_, '_>, node: &NodeId) -> Result<bool, StorageError> {
    let members = system::members(context.journal, context.block.number + 1)?;
    Ok(members.sealers == [*node])
}
