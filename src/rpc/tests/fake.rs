//! A node whose answers are set by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use millrace_base::{Address, B256, Block, Bytes, GroupId, NodeId, RawTx, Refusal, TransactionStatus, U256, VerifiedTx, hex};
use millrace_core::StorageError;
use millrace_ledger::view::*;

pub fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

pub struct FakeLedger {
    pub group: GroupId,
    pub member: bool,
    pub sealers: Vec<NodeId>,
    pub blocks: Vec<Arc<Block>>,
    pub contract: Option<(Address, Bytes)>,
    pub configs: BTreeMap<&'static str, &'static str>,
    pub state: Arc<Mutex<State>>,
}

/// What changes during a test.
#[derive(Default)]
pub struct State {
    pub view: u64,
    pub call_number: u64,
    pub statuses: BTreeMap<u16, GroupStatus>,
    pub configured_peers: Vec<String>,
    pub pending: Vec<VerifiedTx>,
    /// What the pool refuses next.
    pub refusals: BTreeMap<Bytes, String>,
    /// Sizes of the calls of `submit`.
    pub submitted: Vec<usize>,
    /// Submitters seen.
    pub submitters: Vec<u64>,
    /// Replies are dropped instead of called.
    pub drops_replies: bool,
    /// Queries of code wait for this lock.
    pub code_gate: Option<Arc<Mutex<()>>>,
}

impl LedgerView for FakeLedger {
    fn group(&self) -> GroupId {
        self.group
    }
    fn genesis_hash(&self) -> B256 {
        self.blocks.first().map_or(B256::ZERO, |block| block.hash)
    }
    fn head(&self) -> Head {
        let head = self.blocks.last().unwrap();
        Head { number: head.header.number, hash: head.hash, timestamp_ms: head.header.timestamp_ms }
    }
    fn is_member(&self) -> bool {
        self.member
    }
    fn block(&self, number: u64) -> Result<Option<Arc<Block>>, StorageError> {
        Ok(usize::try_from(number).ok().and_then(|number| self.blocks.get(number)).cloned())
    }
    fn header(&self, number: u64) -> Result<Option<Arc<SignedHeader>>, StorageError> {
        let signed =
            |block: Arc<Block>| SignedHeader { header: block.header.clone(), hash: block.hash, signatures: block.signatures.clone() };
        Ok(self.block(number)?.map(|block| Arc::new(signed(block))))
    }
    fn number_of(&self, hash: B256) -> Result<Option<u64>, StorageError> {
        Ok(self.blocks.iter().find(|block| block.hash == hash).map(|block| block.header.number))
    }
    fn locate(&self, transaction: B256) -> Result<Option<Location>, StorageError> {
        let place = |block: &Arc<Block>| {
            let index = block.transactions.iter().position(|tx| tx.hash() == transaction)?;
            Some(Location { number: block.header.number, index: u32::try_from(index).unwrap() })
        };
        Ok(self.blocks.iter().find_map(place))
    }
    fn totals(&self) -> Totals {
        let receipts = || self.blocks.iter().flat_map(|block| &block.receipts);
        let failed = receipts().filter(|receipt| receipt.status != 0).count() as u64;
        Totals { transactions: receipts().count() as u64, failed, number: self.head().number }
    }
    fn pending(&self, limit: usize) -> Vec<VerifiedTx> {
        self.state.lock().unwrap().pending.iter().take(limit).cloned().collect()
    }
    fn pending_count(&self) -> usize {
        self.state.lock().unwrap().pending.len()
    }
    fn code(&self, address: Address, _: Option<u64>) -> Result<Bytes, StateError> {
        let gate = self.state.lock().unwrap().code_gate.clone();
        if let Some(gate) = gate {
            drop(gate.lock());
        }
        assert_ne!(address, Address::repeat_byte(0xff), "a bug inside the node, on request of a test");
        Ok(self.contract.clone().filter(|(contract, _)| *contract == address).map(|(_, code)| code).unwrap_or_default())
    }

    fn storage_at(&self, _: Address, _: U256, _: Option<u64>) -> Result<U256, StateError> {
        Ok(U256::ZERO)
    }
    fn account_proof(&self, _: Address, _: &[U256], _: Option<u64>) -> Result<StateProof, StateError> {
        Err(StateError::NoProofs)
    }

    /// The recorded contract: one getter, everything else reverts; accounts have no code; 0x4 copies.
    fn call(&self, request: CallRequest) -> Result<CallOutcome, CallError> {
        let number = self.state.lock().unwrap().call_number;
        let is_contract = self.contract.as_ref().is_some_and(|(contract, _)| *contract == request.to);
        let getter = request.data[..] == hex!("6d4ce63c") && request.value == U256::ZERO;
        let (status, output) = match () {
            () if is_contract && request.from == Address::ZERO => (0, Bytes::new()),
            () if is_contract && getter => (0, encode_text("v31").into()),
            () if is_contract => (0x16, Bytes::new()),
            () if request.to == Address::with_last_byte(4) => (0, request.data),
            () => {
                let reason = encode_text(&format!("Error address:{}", hex::encode(request.to)));
                (0x1a, [hex!("08c379a0").to_vec(), reason].concat().into())
            }
        };
        Ok(CallOutcome { number, status, output })
    }
    fn system_config(&self, key: &str) -> Result<Option<String>, StorageError> {
        Ok(self.configs.get(key).map(|value| (*value).to_owned()))
    }
    fn sealers(&self) -> Vec<NodeId> {
        self.sealers.clone()
    }
    fn observers(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn consensus_status(&self) -> ConsensusStatus {
        let view = self.state.lock().unwrap().view;
        ConsensusStatus {
            kind: ConsensusKind::Pbft,
            index: self.member.then_some(0),
            sealers: self.sealers.clone(),
            max_faulty: 0,
            leader: None,
            view,
            to_view: view,
            leader_failed: false,
            views: self.sealers.iter().map(|id| (*id, view)).collect(),
        }
    }
    fn sync_status(&self) -> SyncStatus {
        let head = self.head();
        SyncStatus { known_highest_number: head.number, known_latest_hash: head.hash, ..SyncStatus::default() }
    }
}

/// ABI encoding of one text.
fn encode_text(text: &str) -> Vec<u8> {
    let mut encoded = vec![0; 64 + text.len().next_multiple_of(32)];
    encoded[31] = 32;
    encoded[63] = u8::try_from(text.len()).unwrap();
    encoded[64..64 + text.len()].copy_from_slice(text.as_bytes());
    encoded
}

pub struct FakeNode {
    pub info: NodeInfo,
    pub ledgers: BTreeMap<u16, Arc<FakeLedger>>,
    pub state: Arc<Mutex<State>>,
}

impl NodeView for FakeNode {
    fn info(&self) -> &NodeInfo {
        &self.info
    }
    fn ledger(&self, group: GroupId) -> Option<Arc<dyn LedgerView>> {
        if self.group_status(group) != GroupStatus::Running {
            return None;
        }
        self.ledgers.get(&group.get()).map(|ledger| Arc::clone(ledger) as Arc<dyn LedgerView>)
    }
    fn groups(&self) -> Vec<GroupId> {
        let state = self.state.lock().unwrap();
        state.statuses.iter().filter(|(_, status)| **status == GroupStatus::Running).map(|(id, _)| group((*id).into())).collect()
    }
    fn group_status(&self, group: GroupId) -> GroupStatus {
        self.state.lock().unwrap().statuses.get(&group.get()).copied().unwrap_or(GroupStatus::Inexistent)
    }
    fn change_group(&self, group: GroupId, change: GroupChange) -> Result<(), GroupChangeError> {
        let next = match change {
            GroupChange::Generate(_) | GroupChange::Stop | GroupChange::Recover => GroupStatus::Stopped,
            GroupChange::Start => GroupStatus::Running,
            GroupChange::Remove => GroupStatus::Deleted,
        };
        self.state.lock().unwrap().statuses.insert(group.get(), next);
        Ok(())
    }
    fn peers(&self) -> Vec<NodeInfo> {
        Vec::new()
    }
    fn add_peers(&self, peers: &[SocketAddr]) -> Result<usize, String> {
        let known = &mut self.state.lock().unwrap().configured_peers;
        let unknown: Vec<_> = peers.iter().map(SocketAddr::to_string).filter(|peer| !known.contains(peer)).collect();
        known.extend_from_slice(&unknown);
        Ok(unknown.len())
    }
    fn erase_peers(&self, peers: &[SocketAddr]) -> Result<usize, String> {
        let known = &mut self.state.lock().unwrap().configured_peers;
        let before = known.len();
        known.retain(|known| !peers.iter().any(|peer| peer.to_string() == *known));
        Ok(before - known.len())
    }
    fn configured_peers(&self) -> Vec<String> {
        self.state.lock().unwrap().configured_peers.clone()
    }
    fn submit(&self, submissions: Vec<Submission>) {
        let mut state = self.state.lock().unwrap();
        state.submitted.push(submissions.len());
        state.submitters.extend(submissions.iter().map(|submission| submission.submitter));
        let (drops, refusals) = (state.drops_replies, state.refusals.clone());
        // As in the node, replies come from another thread and in another order.
        std::thread::spawn(move || {
            for submission in submissions.into_iter().rev().filter(|_| !drops) {
                let result = admit(&submission, &refusals);
                (submission.reply)(result);
            }
        });
    }
    fn metrics(&self) -> String {
        "millrace_up 1\n".into()
    }
    fn status(&self) -> String {
        "{\"name\":\"node0\"}".into()
    }
    fn topology(&self) -> String {
        "{\"name\":\"millrace\"}".into()
    }
    fn readiness(&self) -> Result<(), String> {
        match self.state.lock().unwrap().statuses.values().all(|status| *status == GroupStatus::Running) {
            true => Ok(()),
            false => Err("a group is stopped".into()),
        }
    }
}

fn admit(submission: &Submission, refusals: &BTreeMap<Bytes, String>) -> Result<B256, SubmitError> {
    let decoded = RawTx::decode(&submission.raw).map_err(SubmitError::Decode)?;
    let signature_error = |_| SubmitError::Decode(millrace_base::transaction::DecodeError::Signature);
    let verified = decoded.verify().map_err(signature_error)?;
    match refusals.get(&submission.raw) {
        Some(comment) => Err(SubmitError::Refused(Refusal { status: TransactionStatus::TransactionRefused, comment: comment.clone() })),
        None => Ok(verified.hash()),
    }
}
