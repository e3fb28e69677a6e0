//! A group that runs here: its chain, state, pool and epoch, and the answers to queries about them.
//!
//! Invariants: queries see the state of one committed block, never of a block in progress (they read a snapshot taken when the head
//! moved); a group that has halted accepts nothing and says why; a fault of one group never touches another's objects.

mod queries;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use millrace_access::blockchain::{BlockChain, ChainHead, Commit};
use millrace_access::txpool::{PoolConfig, TxPool};
use millrace_administration::engine::EngineStatus;
use millrace_administration::sync::SyncProgress;
use millrace_administration::{Epoch, Faults};
use millrace_base::{B256, Block, BlockHeader, ChainId, GroupId, KeyPair, VerifiedTx};
use millrace_core::overlay::Writes;
use millrace_core::state::StateReader;
use millrace_core::storage::StorageView;
use millrace_core::table::system::{self, Members};
use millrace_core::{Durability, StateKey, Storage, StorageError};
use millrace_vm::{BlockHashes, EvmRules};
use parking_lot::RwLock;

use crate::conduct::Conduct;
use crate::genesis::Genesis;
use crate::view::SyncStatus;
use crate::watch::Watch;

/// What a ledger is opened with.
pub struct LedgerConfig {
    /// `chain.id`.
    pub chain_id: ChainId,
    /// The group's immutable configuration.
    pub genesis: Genesis,
    /// This node's key: its identity among the sealers.
    pub key: KeyPair,
    /// When a commit may be told to clients.
    pub durability: Durability,
    /// Decoded state kept in memory, bytes.
    pub cache_bytes: usize,
    /// `tx_pool.limit`: transactions.
    pub pool_count: usize,
    /// `tx_pool.memory_limit`: bytes.
    pub pool_bytes: usize,
    /// `tx_pool.txs_expiration_time`, milliseconds.
    pub expiration_ms: u64,
    /// `consensus.min_block_generation_time`, milliseconds.
    pub min_interval_ms: u64,
    /// Bytes of raw transactions of this group that may wait for verification.
    pub ingress_bytes: usize,
}

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Storage failed or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The database belongs to another chain, or the genesis file was edited.
    #[error("the database of group {group} starts with block 0 {stored}, but its genesis file describes {configured}")]
    OtherChain {
        /// The group.
        group: GroupId,
        /// Hash in the database.
        stored: B256,
        /// Hash of the configured genesis.
        configured: B256,
    },
    /// The last block does not match its own hash or root.
    #[error("the last block of group {group} is damaged: {detail}")]
    DamagedHead {
        /// The group.
        group: GroupId,
        /// What does not match.
        detail: String,
    },
}

/// The head with a view of storage that shows exactly its state.
struct HeadView {
    head: Arc<ChainHead>,
    storage: Box<dyn StorageView>,
    /// Members that govern the next block.
    members: Members,
}

/// Raw transactions of a group between a gateway and the verify stage: bounded by bytes besides the lane's bound by count.
#[derive(Default)]
pub struct IngressGauge {
    bytes: AtomicUsize,
    limit: usize,
}

impl IngressGauge {
    /// Reserves room for a raw transaction; `false` when there is none.
    pub fn enter(&self, bytes: usize) -> bool {
        let enter = |current: usize| current.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_ok()
    }

    /// Gives the room back once the transaction has left the queue.
    pub fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Work done by a group since the start, for metrics.
#[derive(Default)]
pub struct LedgerCounters {
    /// Blocks committed.
    pub blocks: AtomicU64,
    /// Transactions committed.
    pub transactions: AtomicU64,
    /// Transactions committed with a status other than zero.
    pub failed: AtomicU64,
    /// Accepted transactions dropped: they expired, or a block used their nonce.
    pub expired: AtomicU64,
    /// Blocks that other nodes sent on request, the same one more than once included.
    pub downloaded_blocks: AtomicU64,
    /// Their bytes.
    pub downloaded_bytes: AtomicU64,
}

/// See the module.
pub struct Ledger {
    config: LedgerConfig,
    chain: BlockChain,
    pool: TxPool,
    head: RwLock<Arc<HeadView>>,
    epoch: RwLock<Arc<Epoch>>,
    engine: RwLock<EngineStatus>,
    sync: RwLock<SyncStatus>,
    progress: RwLock<SyncProgress>,
    halted: RwLock<Option<String>>,
    ingress: IngressGauge,
    /// Whether the order stage has been told of new transactions and has not looked yet.
    wake: AtomicBool,
    counters: LedgerCounters,
    conduct: Conduct,
    watch: Watch,
    /// Whether the engine has said anything since the start.
    has_published: AtomicBool,
}

impl Ledger {
    /// Opens a group: creates block 0 in an empty database, otherwise checks that the database is of this chain and that its last
    /// block, state root included, is what its header says.
    pub fn open(config: LedgerConfig, storage: Arc<dyn Storage>) -> Result<Self, OpenError> {
        let chain = match BlockChain::open(Arc::clone(&storage), config.durability, config.cache_bytes)? {
            Some(chain) => chain,
            None => BlockChain::create(storage, config.durability, config.cache_bytes, config.genesis.commit()?)?,
        };
        let group = config.genesis.group;
        let configured = config.genesis.hash();
        if chain.genesis() != configured {
            return Err(OpenError::OtherChain { group, stored: chain.genesis(), configured });
        }
        check_head(&chain, group)?;
        let head = chain.head();
        // All nodes must name the epoch alike, whenever they were started.
        let epoch =
            Epoch { start: chain.epoch_start()?, ..epoch_at(&*chain.state(), head.header.number + 1, config.genesis.consensus.faults())? };
        let nonces = chain.recent_nonces()?;
        let pool_config = PoolConfig {
            chain_id: config.chain_id,
            group,
            count_limit: config.pool_count,
            bytes_limit: config.pool_bytes,
            expiration_ms: config.expiration_ms,
        };
        let pool = TxPool::new(pool_config, head.header.number, &nonces);
        let view = head_view(&chain)?;
        let engine = EngineStatus {
            next_height: head.header.number + 1,
            final_height: head.header.number,
            sealers: epoch.sealers.clone(),
            ..EngineStatus::default()
        };
        let ingress = IngressGauge { bytes: AtomicUsize::new(0), limit: config.ingress_bytes };
        Ok(Self {
            config,
            chain,
            pool,
            head: RwLock::new(Arc::new(view)),
            epoch: RwLock::new(Arc::new(epoch)),
            engine: RwLock::new(engine),
            sync: RwLock::default(),
            progress: RwLock::default(),
            halted: RwLock::new(None),
            ingress,
            wake: AtomicBool::new(false),
            counters: LedgerCounters::default(),
            conduct: Conduct::default(),
            watch: Watch::new(Instant::now()),
            has_published: AtomicBool::new(false),
        })
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.config.genesis.group
    }

    /// What the ledger was opened with.
    pub fn config(&self) -> &LedgerConfig {
        &self.config
    }

    /// The rules of the group's machine.
    pub fn rules(&self) -> EvmRules {
        self.config.genesis.rules
    }

    /// What the group's quorums are made for.
    pub fn faults(&self) -> Faults {
        self.config.genesis.consensus.faults()
    }

    /// The group's committed blocks.
    pub fn chain(&self) -> &BlockChain {
        &self.chain
    }

    /// The group's waiting transactions.
    pub fn pool(&self) -> &TxPool {
        &self.pool
    }

    /// Raw transactions on their way to the verify stage.
    pub fn ingress(&self) -> &IngressGauge {
        &self.ingress
    }

    /// The pool has new transactions: `true` when the order stage must be told, at most once until it looks.
    pub fn request_wake(&self) -> bool {
        !self.wake.swap(true, Ordering::AcqRel)
    }

    /// The order stage is about to look at the pool.
    pub fn accept_wake(&self) {
        self.wake.store(false, Ordering::Release);
    }

    /// Figures for metrics.
    pub fn counters(&self) -> &LedgerCounters {
        &self.counters
    }

    /// What other nodes of the group did wrong.
    pub fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// How the group moves, for the status and metrics.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What sync last said about its progress.
    pub fn sync_progress(&self) -> SyncProgress {
        self.progress.read().clone()
    }

    /// What the ordering engine last said about itself.
    pub fn engine_status(&self) -> EngineStatus {
        self.engine.read().clone()
    }

    /// The epoch that governs the block behind the head.
    pub fn epoch(&self) -> Arc<Epoch> {
        Arc::clone(&self.epoch.read())
    }

    /// Commits blocks that follow the head, in order. When it returns, they are durable, queries see them and the pool has forgotten
    /// their transactions. Called by the commit stage alone.
    pub fn commit(&self, commits: &[Commit]) -> Result<(), StorageError> {
        self.chain.commit(commits)?;
        // All that may fail comes first: a caller repeats the whole call then, and must not count a block twice.
        let head = self.chain.head();
        let epoch = match commits.iter().any(|commit| commit.epoch_start.is_some()) {
            true => {
                let epoch = epoch_at(&*self.chain.state(), head.header.number + 1, self.faults())?;
                Some(Epoch { start: self.chain.epoch_start()?, ..epoch })
            }
            false => None,
        };
        let view = Arc::new(head_view(&self.chain)?);
        for commit in commits {
            let superseded = self.pool.on_committed(commit.block.header.number, &commit.block.transactions);
            self.counters.expired.fetch_add(superseded.len() as u64, Ordering::Relaxed);
            self.count(&commit.block);
        }
        if let Some(epoch) = epoch {
            *self.epoch.write() = Arc::new(epoch);
        }
        *self.head.write() = view;
        Ok(())
    }

    fn count(&self, block: &Block) {
        let failed = block.receipts.iter().filter(|receipt| receipt.status != 0).count() as u64;
        self.counters.blocks.fetch_add(1, Ordering::Relaxed);
        self.counters.transactions.fetch_add(block.transactions.len() as u64, Ordering::Relaxed);
        self.counters.failed.fetch_add(failed, Ordering::Relaxed);
        self.watch.committed(block.transactions.len() as u64, Instant::now());
    }

    /// Drops transactions that have waited too long. They were accepted, so each drop is counted and logged by the caller.
    pub fn expire(&self, now_ms: u64) -> Vec<VerifiedTx> {
        let expired = self.pool.expire(now_ms);
        self.counters.expired.fetch_add(expired.len() as u64, Ordering::Relaxed);
        expired
    }

    /// The order stage publishes what its engine says.
    pub fn publish_engine(&self, status: EngineStatus) {
        let mut engine = self.engine.write();
        let before = self.has_published.swap(true, Ordering::Relaxed).then_some(&*engine);
        self.watch.engine_moved(before, &status, Instant::now());
        *engine = status;
    }

    /// The sync stage publishes what its machine says.
    pub fn publish_sync(&self, status: SyncStatus) {
        *self.sync.write() = status;
    }

    /// The sync stage publishes how far it has come.
    pub fn publish_progress(&self, progress: SyncProgress) {
        *self.progress.write() = progress;
    }

    /// Stops the group for good; the first reason stands. The others go on.
    pub fn halt(&self, reason: impl Into<String>) {
        let mut halted = self.halted.write();
        if halted.is_none() {
            let reason = reason.into();
            tracing::error!(group = %self.id(), reason, "group halted; other groups go on");
            *halted = Some(reason);
        }
    }

    /// Why the group has halted.
    pub fn halted(&self) -> Option<String> {
        self.halted.read().clone()
    }

    fn head_view(&self) -> Arc<HeadView> {
        Arc::clone(&self.head.read())
    }
}

impl BlockHashes for Ledger {
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        self.chain.hash_of(number)
    }
}

/// The epoch that governs block `number`, read from the state before it.
pub fn epoch_at(state: &dyn StateReader, number: u64, faults: Faults) -> Result<Epoch, StorageError> {
    let setting = |key: &str| -> Result<u64, StorageError> {
        let text = system::config(state, key, number)?;
        let value = text.as_deref().and_then(parse_setting);
        value.ok_or_else(|| StorageError::Corrupt { place: format!("_sys_config_ {key}"), detail: format!("{text:?} is not a number") })
    };
    Ok(Epoch {
        start: number,
        sealers: system::members(state, number)?.sealers,
        faults,
        tx_count_limit: setting("tx_count_limit")?,
        tx_gas_limit: setting("tx_gas_limit")?,
        consensus_timeout_ms: setting("consensus_timeout")?.saturating_mul(1000),
    })
}

/// The epoch behind block `number`, when its writes changed what governs; `after` gives the state with them.
pub fn changed_epoch<S: StateReader>(
    epoch: &Epoch,
    number: u64,
    writes: &Writes,
    after: impl FnOnce() -> Arc<S>,
) -> Result<Option<Epoch>, StorageError> {
    let governs = |key: &StateKey| matches!(key, StateKey::Row(table, _) if system::governs(table));
    if !writes.iter().any(|(key, _)| governs(key)) {
        return Ok(None);
    }
    let next = epoch_at(&*after(), number + 1, epoch.faults)?;
    Ok(Some(next).filter(|next| !next.same_rules(epoch)))
}

/// Settings are stored verbatim; `+5` and `05` are accepted spellings (correction 22 of the recordings).
fn parse_setting(text: &str) -> Option<u64> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

fn head_view(chain: &BlockChain) -> Result<HeadView, StorageError> {
    let head = chain.head();
    let members = system::members(&*chain.state(), head.header.number + 1)?;
    Ok(HeadView { head, storage: chain.storage().snapshot()?, members })
}

/// The last block must be whole: its roots recomputed, and the stored accumulator equal to its state root.
pub(crate) fn check_head(chain: &BlockChain, group: GroupId) -> Result<(), OpenError> {
    let damaged = |detail: String| OpenError::DamagedHead { group, detail };
    let head = chain.head();
    if head.header.number == 0 {
        return Ok(());
    }
    let block = chain.block(head.header.number)?.ok_or_else(|| damaged("it is missing".into()))?;
    crate::verify::check_roots(&block).map_err(damaged)?;
    let commitment = chain.commitment()?;
    let (state_root, db_hash) = (commitment.state_root(), commitment.db_hash());
    if (state_root, db_hash) != (head.header.state_root, head.header.db_hash) {
        let BlockHeader { state_root: named, db_hash: named_hash, .. } = head.header;
        let detail = format!("its header has state root {named} and dbHash {named_hash}, the stored state has {state_root} and {db_hash}");
        return Err(damaged(detail));
    }
    Ok(())
}
