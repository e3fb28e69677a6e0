//! The groups of a node and their lives: generated, started, stopped, removed and recovered while the others run
//! (`spec/node-semantics.md` 1.6).
//!
//! Invariants: a step is durable before it is told; a crash between any two writes leaves the group in the status before or after the
//! step; one step is taken at a time. Called by gateways on their query workers, and at start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use millrace_backends::mysql::{MysqlStorage, Owner};
use millrace_backends::rocksdb::{Budget, RocksStorage, SharedResources};
use millrace_base::GroupId;
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::{StateKind, Storage, StorageError};
use millrace_ledger::genesis::Consensus;
use millrace_ledger::view::{GroupChange, GroupChangeError, GroupSeed, GroupStatus};
use millrace_ledger::{Ledger, LedgerConfig, OpenError, Registry};
use millrace_pipeline::messages::Done;
use millrace_pipeline::topology::GroupInlet;
use millrace_vm::EvmRules;
use parking_lot::{Mutex, RwLock};

use super::group_status;
use crate::chain_build::templates;
use crate::config::group as files;
use crate::config::{GroupConfig, NodeConfig, StorageConfig};

/// Raw transactions of one group that may wait for verification, bytes.
const INGRESS_BYTES: usize = 64 << 20;

/// How long a group may take to stop: blocks in flight, and queries that hold its ledger.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to cut off one that did not stop in time: what the execute stage is doing.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Groups {
    config: NodeConfig,
    shared: SharedResources,
    cache_bytes: u64,
    registry: Arc<Registry>,
    inlet: RwLock<Option<GroupInlet>>,
    statuses: RwLock<BTreeMap<GroupId, GroupStatus>>,
    /// Why groups did not stop in order, until they are started again.
    errors: RwLock<BTreeMap<GroupId, String>>,
    /// Groups that are stopping still although nobody waits for it: told when they have.
    stuck: Mutex<BTreeMap<GroupId, mpsc::Receiver<()>>>,
    /// Held during a step.
    stepping: Mutex<()>,
}

impl Groups {
    /// Opens the groups that run: recovery happens here.
    ///
    /// # Errors
    /// A database or status file that cannot be used, with what to do.
    pub fn open(config: &NodeConfig) -> Result<Self, Fault> {
        // Half of the budget keeps decoded state, half is the database's own block cache.
        let state_bytes = config.cache_bytes / 2;
        let block_cache = usize::try_from(config.cache_bytes - state_bytes).unwrap_or(usize::MAX);
        let budget = Budget { cache_bytes: block_cache, ..Budget::default() };
        let shared = SharedResources::new(budget).map_err(|error| storage_fault(&config.data_dir.display().to_string(), &error))?;
        let groups = Self {
            shared,
            cache_bytes: state_bytes / config.groups.len().max(1) as u64,
            registry: Arc::default(),
            inlet: RwLock::new(None),
            statuses: RwLock::default(),
            errors: RwLock::default(),
            stuck: Mutex::default(),
            stepping: Mutex::default(),
            config: config.clone(),
        };
        for group in &config.groups {
            let id = group.genesis.group;
            let status = group_status::read(directory(&config.data_dir, id).as_path())?;
            if status == GroupStatus::Running {
                groups.registry.insert(Arc::new(groups.open_ledger(group)?));
            }
            groups.statuses.write().insert(id, status);
        }
        Ok(groups)
    }

    /// The groups that run.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Runs the open groups in the pipeline, and from now on those that are started.
    pub fn attach(&self, inlet: GroupInlet) {
        for ledger in self.registry.all() {
            let opened = inlet.open(ledger);
            debug_assert!(opened, "the pipeline has just been started");
        }
        *self.inlet.write() = Some(inlet);
    }

    /// The statuses of all groups that the node knows.
    pub fn statuses(&self) -> BTreeMap<GroupId, GroupStatus> {
        self.settle_stuck();
        self.statuses.read().clone()
    }

    /// The status of any group id.
    pub fn status(&self, group: GroupId) -> GroupStatus {
        self.settle_stuck();
        self.statuses.read().get(&group).copied().unwrap_or(GroupStatus::Inexistent)
    }

    /// What went wrong when groups were stopped.
    pub fn errors(&self) -> BTreeMap<GroupId, String> {
        self.errors.read().clone()
    }

    /// Notes which of the groups that did not stop in time have done so meanwhile.
    fn settle_stuck(&self) {
        let stopped: Vec<GroupId> = {
            let mut stuck = self.stuck.lock();
            let stopped = stuck.iter().filter(|(_, told)| told.try_recv().is_ok()).map(|(group, _)| *group).collect::<Vec<_>>();
            stopped.iter().for_each(|group| drop(stuck.remove(group)));
            stopped
        };
        for group in stopped {
            if let Err(error) = self.set_status(group, GroupStatus::Stopped) {
                tracing::error!(%group, %error, "the group has stopped, but its status cannot be kept");
                self.statuses.write().insert(group, GroupStatus::Stopped);
            }
        }
    }

    /// Takes a step.
    ///
    /// # Errors
    /// Why it was not taken; a step that fails leaves the group as it was, but for one that was stopping: it is stopped as soon as what
    /// holds it up has ended, at the latest at the next start.
    pub fn change(&self, group: GroupId, change: GroupChange) -> Result<(), GroupChangeError> {
        let _step = self.stepping.lock();
        let status = self.status(group);
        let required = match change {
            GroupChange::Generate(_) => GroupStatus::Inexistent,
            GroupChange::Start | GroupChange::Remove => GroupStatus::Stopped,
            GroupChange::Stop => GroupStatus::Running,
            GroupChange::Recover => GroupStatus::Deleted,
        };
        if status != required {
            return Err(match (&change, status) {
                (GroupChange::Start, GroupStatus::Inexistent) => GroupChangeError::GenesisMissing(self.genesis_name(group)),
                _ => GroupChangeError::Status(status),
            });
        }
        match change {
            GroupChange::Generate(seed) => self.generate(group, &seed),
            GroupChange::Start => self.start(group),
            GroupChange::Stop => self.stop(group),
            GroupChange::Remove => self.set_status(group, GroupStatus::Deleted),
            GroupChange::Recover => self.set_status(group, GroupStatus::Stopped),
        }
    }

    /// Runs groups whose files were added while the node runs; the others stay as they are. What cannot be run is said in the log.
    pub fn append(&self, groups: &[GroupConfig]) {
        for group in groups {
            let id = group.genesis.group;
            let _step = self.stepping.lock();
            if self.status(id) != GroupStatus::Inexistent {
                continue;
            }
            let started = match group_status::read(&directory(&self.config.data_dir, id)) {
                Ok(GroupStatus::Running) => self.start(id).map_err(|error| error.to_string()),
                Ok(status) => {
                    self.statuses.write().insert(id, status);
                    Ok(())
                }
                Err(fault) => Err(fault.to_string()),
            };
            if let Err(error) = started {
                tracing::error!(group = %id, error, "the group that was added cannot be started");
            }
        }
    }

    fn genesis_name(&self, group: GroupId) -> String {
        files::genesis_path(&self.config.group_dir, group).display().to_string()
    }

    fn set_status(&self, group: GroupId, status: GroupStatus) -> Result<(), GroupChangeError> {
        let place = directory(&self.config.data_dir, group);
        group_status::write(&place, status).map_err(|error| failed(&place, &error))?;
        self.statuses.write().insert(group, status);
        tracing::info!(%group, ?status, "the group's status has changed");
        Ok(())
    }

    /// The genesis file comes last: without it the group does not exist, with it the group is stopped.
    fn generate(&self, group: GroupId, seed: &GroupSeed) -> Result<(), GroupChangeError> {
        let genesis = files::genesis_path(&self.config.group_dir, group);
        let settings = genesis.with_extension("ini");
        if genesis.exists() {
            return Err(GroupChangeError::GenesisExists(genesis.display().to_string()));
        }
        if settings.exists() {
            return Err(GroupChangeError::SettingsExist(settings.display().to_string()));
        }
        let mut sealers = seed.sealers.clone();
        sealers.sort_unstable();
        sealers.dedup();
        let rules = EvmRules::Fisco2 { free_storage: seed.free_storage };
        let text = templates::group_genesis(group, seed.timestamp_ms, &sealers, rules, Consensus::Pbft, StateKind::Storage);
        let place = directory(&self.config.data_dir, group);
        group_status::write(&place, GroupStatus::Stopped).map_err(|error| failed(&place, &error))?;
        group_status::write_durably(&settings, templates::group_ini()).map_err(|error| failed(&settings, &error))?;
        group_status::write_durably(&genesis, &text).map_err(|error| failed(&genesis, &error))?;
        self.set_status(group, GroupStatus::Stopped)
    }

    fn start(&self, group: GroupId) -> Result<(), GroupChangeError> {
        let genesis = files::genesis_path(&self.config.group_dir, group);
        let settings = genesis.with_extension("ini");
        if !genesis.exists() {
            return Err(GroupChangeError::GenesisMissing(genesis.display().to_string()));
        }
        if !settings.exists() {
            return Err(GroupChangeError::SettingsMissing(settings.display().to_string()));
        }
        let inlet = self.inlet.read().clone().ok_or_else(|| GroupChangeError::Failed("the node is starting".into()))?;
        let in_words = |fault: Fault| GroupChangeError::Failed(fault.to_string());
        let loaded = files::load(&self.config.group_dir, &self.config.data_dir, self.config.chain_id, group).map_err(in_words)?;
        let ledger = Arc::new(self.open_again(&loaded).map_err(in_words)?);
        self.errors.write().remove(&group);
        self.set_status(group, GroupStatus::Running)?;
        self.registry.insert(Arc::clone(&ledger));
        match inlet.open(ledger) {
            true => Ok(()),
            false => Err(GroupChangeError::Failed("the node is stopping".into())),
        }
    }

    fn stop(&self, group: GroupId) -> Result<(), GroupChangeError> {
        let inlet = self.inlet.read().clone().ok_or_else(|| GroupChangeError::Failed("the node is starting".into()))?;
        self.set_status(group, GroupStatus::Stopping)?;
        drop(self.registry.remove(group));
        let is_told = |closing: bool, told: &mpsc::Receiver<()>, patience| closing && told.recv_timeout(patience).is_ok();
        let (done, told) = done_and_told();
        if !is_told(inlet.close(group, done), &told, STOP_PATIENCE) {
            let wait_s = STOP_PATIENCE.as_secs();
            let (done, told) = done_and_told();
            if !is_told(inlet.abandon(group, done), &told, CUT_PATIENCE) {
                self.stuck.lock().insert(group, told);
                let error = format!(
                    "it has not stopped within {wait_s} s and could not be cut off: a block is still being executed or its disk does not \
                     answer; it is stopped as soon as that ends, at the latest when the node starts again"
                );
                self.errors.write().insert(group, error.clone());
                return Err(GroupChangeError::Failed(format!("group {group}: {error}")));
            }
            let error = format!(
                "it had not stopped within {wait_s} s and was cut off, as a crash would have done; nothing that was told to clients as \
                 committed is lost"
            );
            tracing::error!(%group, error, "the group did not stop in order");
            self.errors.write().insert(group, error);
        }
        self.set_status(group, GroupStatus::Stopped)
    }

    /// Opens a group that may have been stopped a moment ago: its database is closed when the last query that reads from it has ended.
    fn open_again(&self, group: &GroupConfig) -> Result<Ledger, Fault> {
        const PAUSE: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            match self.open_database(group) {
                Err(StorageError::Locked { .. }) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(error) => return Err(storage_fault(&group.database(), &error)),
                Ok(database) => return self.ledger_over(group, database),
            }
        }
    }

    fn open_ledger(&self, group: &GroupConfig) -> Result<Ledger, Fault> {
        let database = self.open_database(group).map_err(|error| storage_fault(&group.database(), &error))?;
        self.ledger_over(group, database)
    }

    fn open_database(&self, group: &GroupConfig) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(match &group.storage {
            StorageConfig::RocksDb => Arc::new(RocksStorage::open(&group.data_path, &self.shared)?),
            StorageConfig::Mysql(config) => {
                let node = self.config.key.node_id().to_string();
                let name = format!("node {}… (process {} of {})", &node[..16], std::process::id(), self.config.file.display());
                Arc::new(MysqlStorage::open(config, &Owner { group: group.genesis.group, name, durability: self.config.durability })?)
            }
        })
    }

    fn ledger_over(&self, group: &GroupConfig, storage: Arc<dyn Storage>) -> Result<Ledger, Fault> {
        let ledger = LedgerConfig {
            chain_id: self.config.chain_id,
            genesis: group.genesis.of_ledger(),
            key: self.config.key.clone(),
            durability: self.config.durability,
            cache_bytes: usize::try_from(self.cache_bytes).unwrap_or(usize::MAX),
            pool_count: group.pool.max_transactions,
            pool_bytes: group.pool.max_bytes,
            expiration_ms: group.pool.expiration_ms,
            min_interval_ms: group.min_block_generation_time_ms,
            ingress_bytes: INGRESS_BYTES,
        };
        let ledger = Ledger::open(ledger, storage).map_err(|error| open_fault(&group.database(), error))?;
        ledger.chain().keep(group.keep_blocks);
        Ok(ledger)
    }
}

/// What the pipeline calls at the end of a group, and who hears of it.
fn done_and_told() -> (Done, mpsc::Receiver<()>) {
    let (done, told) = mpsc::sync_channel(1);
    let tell = move || {
        // Nobody listens any more when it took too long.
        let _ = done.send(());
    };
    (Box::new(tell), told)
}

/// The directory of a group: its database and its status.
fn directory(data_dir: &Path, group: GroupId) -> PathBuf {
    data_dir.join(format!("group{group}"))
}

fn failed(place: &Path, error: &dyn std::fmt::Display) -> GroupChangeError {
    GroupChangeError::Failed(format!("{}: {error}", place.display()))
}

pub(crate) fn open_fault(place: &str, error: OpenError) -> Fault {
    match error {
        OpenError::Storage(error) => storage_fault(place, &error),
        OpenError::OtherChain { .. } => Fault::new(
            FaultKind::Config,
            format!("{place}: {error}"),
            "restore the genesis file this database was made with, or move the database away to start a new chain",
        ),
        OpenError::DamagedHead { .. } => Fault::new(
            FaultKind::Storage,
            format!("{place}: {error}"),
            "run `millrace db verify` to see how much is damaged, then restore the database from a copy",
        ),
    }
}

/// What an operator can do about a storage error.
pub(crate) fn storage_fault(place: &str, error: &StorageError) -> Fault {
    let (kind, remedy) = match error {
        StorageError::Full { .. } => (FaultKind::Disk, "free space on the device, then start again; nothing committed is lost"),
        StorageError::Locked { .. } | StorageError::TakenOver { .. } => {
            (FaultKind::Storage, "stop the other process that uses this database")
        }
        StorageError::Corrupt { .. } => {
            (FaultKind::Storage, "restore the database from a copy; `millrace db verify` shows what is damaged")
        }
        StorageError::Unfinished => (
            FaultKind::Storage,
            "run the same `millrace db snapshot restore` again: it goes on where it stopped; or remove the directory to start from nothing",
        ),
        StorageError::Pruned { .. } => (FaultKind::Storage, "use a node that keeps all blocks, or a snapshot instead of blocks"),
        StorageError::Unavailable { .. } => {
            (FaultKind::Storage, "see to the database server or to the section [storage] of the group's file; nothing committed is lost")
        }
        StorageError::OutOfOrder { .. } | StorageError::Engine(_) => (
            FaultKind::Storage,
            "check the disk and the permissions of the directory, or the server; the message above is the engine's own",
        ),
    };
    Fault::new(kind, format!("{place}: {error}"), remedy)
}
