//! Answers of a ledger to clients' gateways: [`LedgerView`].

use std::cell::RefCell;
use std::sync::Arc;

use millrace_access::blockchain::records;
use millrace_administration::engine::EngineStatus;
use millrace_base::{Address, B256, Block, BlockHeader, Bytes, GroupId, NodeId, U256, VerifiedTx};
use millrace_core::mpt::TrieState;
use millrace_core::state::codec;
use millrace_core::storage::{StorageView, height_key};
use millrace_core::table::system;
use millrace_core::trie::EMPTY_ROOT;
use millrace_core::{Space, StateKey, StateKind, StateReader, StateValue, StorageError};
use millrace_vm::{BlockEnvironment, CallMessage, EvmRules, Executor};

use crate::ledger::{HeadView, Ledger};
use crate::view::{
    CallError, CallOutcome, CallRequest, ConsensusStatus, Head, LedgerView, Location, SignedHeader, StateError, StateProof, SyncStatus,
    Totals,
};

/// State as of a storage view, without a cache: what queries read, so that they can neither see half a block nor push the hot state
/// of execution out of its cache.
struct ViewState<'a>(&'a dyn StorageView);

impl StateReader for ViewState<'_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let bytes = self.0.get(Space::State, &codec::encode_key(key))?;
        bytes.map(|bytes| codec::decode_value(key, &bytes)).transpose()
    }

    fn node(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.get(Space::Trie, hash.as_slice())?.map(Bytes::from))
    }
}

thread_local! {
    /// Executors of the calling thread, one a rule set: building one costs more than a small call.
    static EXECUTORS: RefCell<Vec<(EvmRules, Executor)>> = const { RefCell::new(Vec::new()) };
}

fn with_executor<T>(rules: EvmRules, run: impl FnOnce(&mut Executor) -> T) -> T {
    EXECUTORS.with_borrow_mut(|executors| {
        let position = executors.iter().position(|(known, _)| *known == rules).unwrap_or_else(|| {
            executors.push((rules, Executor::new(rules)));
            executors.len() - 1
        });
        run(&mut executors[position].1)
    })
}

impl Ledger {
    /// Whether a block is committed but not yet the published head: whoever sees a receipt must find its effects in the state.
    fn is_hidden(&self, number: u64) -> bool {
        number > self.head_view().head.header.number
    }

    /// The header of a block that `view` shows, `None` for its head.
    fn header_at(&self, view: &HeadView, number: Option<u64>) -> Result<BlockHeader, StateError> {
        let head = &view.head.header;
        match number {
            None => Ok(head.clone()),
            Some(number) if number == head.number => Ok(head.clone()),
            Some(number) if number > head.number => Err(StateError::NoSuchBlock),
            Some(number) => {
                let bytes = view.storage.get(Space::Header, &height_key(number))?.ok_or(StateError::NoSuchBlock)?;
                Ok(records::decode_header(&bytes)?.0)
            }
        }
    }

    /// Reads the state of a block, `None` for the head. What reads rows of an earlier block has no result.
    fn with_state<T>(
        &self,
        number: Option<u64>,
        read: impl FnOnce(&dyn StateReader, &BlockHeader) -> Result<T, StorageError>,
    ) -> Result<T, StateError> {
        let view = self.head_view();
        let header = self.header_at(&view, number)?;
        let latest = ViewState(&*view.storage);
        if header.number == view.head.header.number {
            return Ok(read(&latest, &header)?);
        }
        if self.config().genesis.state != StateKind::Mpt {
            return Err(StateError::NotKept);
        }
        let state = TrieState::new(account_root(&header), &latest);
        let result = read(&state, &header);
        if state.asked_for_tables() { Err(StateError::Tables) } else { Ok(result?) }
    }
}

/// Root of a block's account trie. Block 0 has no accounts, and zero in its header.
fn account_root(header: &BlockHeader) -> B256 {
    if header.number == 0 { EMPTY_ROOT } else { header.state_root }
}

impl LedgerView for Ledger {
    fn group(&self) -> GroupId {
        self.id()
    }

    fn genesis_hash(&self) -> B256 {
        self.chain.genesis()
    }

    fn head(&self) -> Head {
        let view = self.head_view();
        Head { number: view.head.header.number, hash: view.head.hash, timestamp_ms: view.head.header.timestamp_ms }
    }

    fn is_member(&self) -> bool {
        let (view, own) = (self.head_view(), self.config.key.node_id());
        view.members.sealers.binary_search(&own).is_ok() || view.members.observers.binary_search(&own).is_ok()
    }

    fn block(&self, number: u64) -> Result<Option<Arc<Block>>, StorageError> {
        if self.is_hidden(number) { Ok(None) } else { self.chain.block(number) }
    }

    fn kept_from(&self) -> u64 {
        self.chain.kept_from()
    }

    fn header(&self, number: u64) -> Result<Option<Arc<SignedHeader>>, StorageError> {
        let found = if self.is_hidden(number) { None } else { self.chain.header(number)? };
        Ok(found.map(|(header, hash, signatures)| Arc::new(SignedHeader { header, hash, signatures })))
    }

    fn number_of(&self, hash: B256) -> Result<Option<u64>, StorageError> {
        Ok(self.chain.number_of(hash)?.filter(|number| !self.is_hidden(*number)))
    }

    fn locate(&self, transaction: B256) -> Result<Option<Location>, StorageError> {
        let found = self.chain.locate(transaction)?.filter(|(number, _)| !self.is_hidden(*number));
        Ok(found.map(|(number, index)| Location { number, index }))
    }

    fn totals(&self) -> Totals {
        let totals = self.head_view().head.totals;
        Totals { transactions: totals.transactions, failed: totals.failed, number: totals.number }
    }

    fn pending(&self, limit: usize) -> Vec<VerifiedTx> {
        self.pool.pending(limit)
    }

    fn pending_count(&self) -> usize {
        self.pool.count()
    }

    fn code(&self, address: Address, number: Option<u64>) -> Result<Bytes, StateError> {
        self.with_state(number, |state, _| {
            let Some(StateValue::Account(account)) = state.read(&StateKey::Account(address))? else { return Ok(Bytes::new()) };
            match state.read(&StateKey::Code(account.code_hash))? {
                Some(StateValue::Code(code)) if account.has_code() => Ok(code),
                _ => Ok(Bytes::new()),
            }
        })
    }

    fn storage_at(&self, address: Address, slot: U256, number: Option<u64>) -> Result<U256, StateError> {
        self.with_state(number, |state, _| {
            let incarnation = match state.read(&StateKey::Account(address))? {
                Some(StateValue::Account(account)) => account.incarnation,
                _ => 0,
            };
            match state.read(&StateKey::Slot(address, incarnation, slot))? {
                Some(StateValue::Slot(value)) => Ok(value),
                _ => Ok(U256::ZERO),
            }
        })
    }

    fn account_proof(&self, address: Address, slots: &[U256], number: Option<u64>) -> Result<StateProof, StateError> {
        if self.config().genesis.state != StateKind::Mpt {
            return Err(StateError::NoProofs);
        }
        let view = self.head_view();
        let header = self.header_at(&view, number)?;
        let account = TrieState::new(account_root(&header), &ViewState(&*view.storage)).prove(address, slots)?;
        Ok(StateProof { number: header.number, account })
    }

    fn call(&self, request: CallRequest) -> Result<CallOutcome, CallError> {
        let message = CallMessage { from: request.from, to: request.to, data: request.data, value: request.value };
        let tx_gas_limit = self.epoch().tx_gas_limit;
        let outcome = self.with_state(request.number, |state, header| {
            let environment = BlockEnvironment { number: header.number, timestamp_ms: header.timestamp_ms, tx_gas_limit };
            let result = with_executor(self.rules(), |executor| executor.call(state, self, &environment, &message))?;
            Ok(CallOutcome { number: header.number, status: result.status, output: result.output })
        });
        Ok(outcome?)
    }

    fn system_config(&self, key: &str) -> Result<Option<String>, StorageError> {
        let view = self.head_view();
        system::config(&ViewState(&*view.storage), key, view.head.header.number + 1)
    }

    fn sealers(&self) -> Vec<NodeId> {
        self.head_view().members.sealers.clone()
    }

    fn observers(&self) -> Vec<NodeId> {
        self.head_view().members.observers.clone()
    }

    fn consensus_status(&self) -> ConsensusStatus {
        let engine = self.engine.read().clone();
        let epoch = self.epoch();
        let own = self.config.key.node_id();
        ConsensusStatus {
            kind: self.config.genesis.consensus.kind(),
            index: epoch.index_of(&own),
            max_faulty: u32::try_from(epoch.max_faulty()).unwrap_or(u32::MAX),
            view: engine.view,
            to_view: engine.to_view,
            leader_failed: engine.to_view != engine.view,
            views: epoch.sealers.iter().map(|sealer| (*sealer, view_of(&engine, sealer, &own))).collect(),
            leader: engine.leader.and_then(|leader| epoch.index_of(&leader)),
            sealers: epoch.sealers.clone(),
        }
    }

    fn sync_status(&self) -> SyncStatus {
        let head = self.head();
        let status = self.sync.read().clone();
        if status.known_highest_number > head.number {
            return status;
        }
        // What sync said last is older than the head.
        SyncStatus { known_highest_number: head.number, known_latest_hash: head.hash, ..status }
    }
}

/// The last view heard of a sealer; 0 when nothing was.
fn view_of(engine: &EngineStatus, sealer: &NodeId, own: &NodeId) -> u64 {
    match engine.others.iter().find(|other| other.node == *sealer) {
        Some(other) => other.view,
        None if sealer == own => engine.view,
        None => 0,
    }
}
