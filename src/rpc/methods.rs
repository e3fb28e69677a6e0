//! The table of methods: name, declared parameters, and how each is answered.
//!
//! Dispatch, parameter checks and generated documentation come from this table, so they cannot disagree.
//! Methods that read storage, execute or serialise much are marked [`Run::Storage`] and run on query workers.

mod call;
mod chain;
mod groups;
mod node;
mod state;
mod transactions;

use std::sync::Arc;

use millrace_base::GroupId;
use millrace_ledger::view::{LedgerView, NodeView};
use serde_json::value::RawValue;

use crate::channel::topics::TopicBoard;
use crate::envelope::Outcome;
use crate::error::RpcError;
use crate::gateway::Receipt;
use crate::openrpc;
use crate::params::{self, Arguments, Kind, Parameter, Shape};

/// Whether group methods answer on nodes that are not members of the group (`rpc.act_as_group_member`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Only sealers and observers answer.
    Required,
    /// Any node that runs the group answers.
    Assumed,
}

/// Whether a door takes requests that change the node's groups and peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Management {
    /// It does.
    Allowed,
    /// It answers that they are forbidden.
    Forbidden,
}

/// What methods work on.
pub struct Context {
    /// The node.
    pub node: Arc<dyn NodeView>,
    /// Who may be asked.
    pub membership: Membership,
    /// Whether groups and peers may be changed.
    pub management: Management,
    /// Peers that one request may name.
    pub peers_a_request: usize,
    /// AMOP topics to show.
    pub topics: TopicBoard,
}

impl Context {
    /// The ledger of a group that runs here, whether or not this node is a member.
    pub fn ledger(&self, group: i32) -> Result<Arc<dyn LedgerView>, RpcError> {
        let group = GroupId::new(group.into()).ok_or(RpcError::NO_GROUP)?;
        self.node.ledger(group).ok_or(RpcError::NO_GROUP)
    }

    /// The ledger of a group that runs here and has this node as a member (`spec/client-protocol.md` 2.6).
    pub fn member_ledger(&self, group: i32) -> Result<Arc<dyn LedgerView>, RpcError> {
        let ledger = self.ledger(group)?;
        if self.serves(ledger.as_ref()) { Ok(ledger) } else { Err(RpcError::NOT_A_MEMBER) }
    }

    /// Whether group methods answer for this ledger.
    pub fn serves(&self, ledger: &dyn LedgerView) -> bool {
        self.membership == Membership::Assumed || ledger.is_member()
    }
}

/// A method's work.
pub type Handler = fn(&Context, &Arguments<'_>) -> Outcome;

/// How a method is answered.
#[derive(Clone, Copy)]
pub enum Run {
    /// From memory, at once.
    Memory(Handler),
    /// On a query worker: reads storage, executes, or makes long replies.
    Storage(Handler),
    /// Goes to the pipeline together with the other transactions of its body.
    Submit,
}

/// One method.
pub struct Method {
    /// Its name, case-sensitive.
    pub name: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// How it is answered.
    pub run: Run,
}

impl Method {
    /// The group that a request addresses, where access to groups is guarded: all methods that take a group, but for those that ignore it
    /// or make one (`spec/client-protocol.md` 3.9). Wrong parameters are refused later.
    pub fn guarded_group(&self, params: Option<&RawValue>) -> Option<GroupId> {
        let takes_group = matches!(self.shape, Shape::Exactly([first, ..]) | Shape::AtLeast(_, [first, ..]) if *first == GROUP);
        if !takes_group || matches!(self.name, "generateGroup" | "getPeers" | "getNodeIDList") {
            return None;
        }
        params::first_integer(params?).and_then(GroupId::new)
    }

    /// What the client of a transaction wants to hear of it.
    pub fn receipt(&self) -> Receipt {
        if self.name == "sendRawTransactionAndGetProof" { Receipt::Proven } else { Receipt::Plain }
    }
}

const fn parameter(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind }
}

const GROUP: Parameter = parameter("groupId", Kind::Integer);
const NUMBER: Parameter = parameter("blockNumber", Kind::Text);
const ADDRESS: Parameter = parameter("address", Kind::Text);
const BLOCK_HASH: Parameter = parameter("blockHash", Kind::Text);
const TX_HASH: Parameter = parameter("transactionHash", Kind::Text);
const INDEX: Parameter = parameter("transactionIndex", Kind::Text);
const WHOLE: Parameter = parameter("includeTransactions", Kind::Flag);
const SIGNATURES: Parameter = parameter("includeSignatures", Kind::Flag);
const RAW: Parameter = parameter("signedTransaction", Kind::Text);
const FROM: Parameter = parameter("from", Kind::Text);
const COUNT: Parameter = parameter("count", Kind::Text);
const COMPRESS: Parameter = parameter("compress", Kind::Flag);

const ONLY_GROUP: Shape = Shape::Exactly(&[GROUP]);
const GROUP_AND_TX: Shape = Shape::Exactly(&[GROUP, TX_HASH]);
const GROUP_AND_RAW: Shape = Shape::Exactly(&[GROUP, RAW]);

const fn method(name: &'static str, shape: Shape, run: Run) -> Method {
    Method { name, shape, run }
}

use Run::{Memory, Storage, Submit};

/// All methods, sorted by name.
pub static METHODS: &[Method] = &[
    method("addPeers", Shape::Unchecked, Storage(groups::add_peers)),
    method("call", Shape::AtLeast(2, &[GROUP, parameter("request", Kind::Object), NUMBER]), Storage(call::call)),
    method("erasePeers", Shape::Unchecked, Storage(groups::erase_peers)),
    method("generateGroup", Shape::Exactly(&[GROUP, parameter("genesis", Kind::Object)]), Storage(groups::generate)),
    method(
        "getBatchReceiptsByBlockHashAndRange",
        Shape::Exactly(&[GROUP, BLOCK_HASH, FROM, COUNT, COMPRESS]),
        Storage(transactions::batch_receipts_by_hash),
    ),
    method(
        "getBatchReceiptsByBlockNumberAndRange",
        Shape::Exactly(&[GROUP, NUMBER, FROM, COUNT, COMPRESS]),
        Storage(transactions::batch_receipts_by_number),
    ),
    method("getBlockByHash", Shape::Exactly(&[GROUP, BLOCK_HASH, WHOLE]), Storage(chain::block_by_hash)),
    method("getBlockByNumber", Shape::Exactly(&[GROUP, NUMBER, WHOLE]), Storage(chain::block_by_number)),
    method("getBlockHashByNumber", Shape::Exactly(&[GROUP, NUMBER]), Storage(chain::block_hash_by_number)),
    method("getBlockHeaderByHash", Shape::Exactly(&[GROUP, BLOCK_HASH, SIGNATURES]), Storage(chain::header_by_hash)),
    method("getBlockHeaderByNumber", Shape::Exactly(&[GROUP, NUMBER, SIGNATURES]), Storage(chain::header_by_number)),
    method("getBlockNumber", ONLY_GROUP, Memory(chain::block_number)),
    method("getClientVersion", Shape::Unchecked, Memory(node::client_version)),
    method("getCode", Shape::AtLeast(2, &[GROUP, ADDRESS, NUMBER]), Storage(state::code)),
    method("getConsensusStatus", ONLY_GROUP, Memory(node::consensus_status)),
    method("getEpochSealersList", ONLY_GROUP, Memory(node::epoch_sealers)),
    method("getGroupList", Shape::Unchecked, Memory(node::group_list)),
    method("getGroupPeers", ONLY_GROUP, Memory(node::group_peers)),
    method("getNodeIDList", ONLY_GROUP, Memory(node::node_ids)),
    method("getNodeInfo", Shape::Unchecked, Memory(node::node_info)),
    method("getObserverList", ONLY_GROUP, Memory(node::observers)),
    method("getPbftView", ONLY_GROUP, Memory(node::pbft_view)),
    method("getPeers", ONLY_GROUP, Memory(node::peers)),
    method("getPendingTransactions", ONLY_GROUP, Storage(transactions::pending)),
    method("getPendingTxSize", ONLY_GROUP, Memory(transactions::pending_count)),
    method("getSealerList", ONLY_GROUP, Memory(node::sealers)),
    method("getStateProof", Shape::AtLeast(3, &[GROUP, ADDRESS, parameter("slots", Kind::List), NUMBER]), Storage(state::proof)),
    method("getStorageAt", Shape::AtLeast(3, &[GROUP, ADDRESS, parameter("slot", Kind::Text), NUMBER]), Storage(state::storage_at)),
    method("getSyncStatus", ONLY_GROUP, Memory(node::sync_status)),
    method("getSystemConfigByKey", Shape::Exactly(&[GROUP, parameter("key", Kind::Text)]), Storage(chain::system_config)),
    method("getTotalTransactionCount", ONLY_GROUP, Memory(chain::totals)),
    method("getTransactionByBlockHashAndIndex", Shape::Exactly(&[GROUP, BLOCK_HASH, INDEX]), Storage(transactions::by_hash_and_index)),
    method("getTransactionByBlockNumberAndIndex", Shape::Exactly(&[GROUP, NUMBER, INDEX]), Storage(transactions::by_number_and_index)),
    method("getTransactionByHash", GROUP_AND_TX, Storage(transactions::by_hash)),
    method("getTransactionByHashWithProof", GROUP_AND_TX, Storage(transactions::by_hash_with_proof)),
    method("getTransactionReceipt", GROUP_AND_TX, Storage(transactions::receipt)),
    method("getTransactionReceiptByHashWithProof", GROUP_AND_TX, Storage(transactions::receipt_with_proof)),
    method("queryGroupStatus", ONLY_GROUP, Memory(groups::query_status)),
    method("queryPeers", Shape::Unchecked, Memory(node::configured_peers)),
    method("recoverGroup", ONLY_GROUP, Storage(groups::recover)),
    method("removeGroup", ONLY_GROUP, Storage(groups::remove)),
    method("rpc.discover", Shape::Unchecked, Memory(|_, _| openrpc::discover())),
    method("rpc_modules", Shape::Unchecked, Memory(node::modules)),
    method("sendRawTransaction", GROUP_AND_RAW, Submit),
    // Proofs come with the pushed receipt of the channel protocol; the reply over HTTP is the same.
    method("sendRawTransactionAndGetProof", GROUP_AND_RAW, Submit),
    method("startGroup", ONLY_GROUP, Storage(groups::start)),
    method("stopGroup", ONLY_GROUP, Storage(groups::stop)),
];

/// The method of this name.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.binary_search_by(|method| method.name.cmp(name)).ok().map(|position| &METHODS[position])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_every_method_is_found() {
        assert!(METHODS.is_sorted_by(|left, right| left.name < right.name));
        assert!(METHODS.iter().all(|method| find(method.name).is_some_and(|found| found.name == method.name)));
        assert!(find("getblocknumber").is_none() && find("").is_none());
    }
}
