//! What a node's process and its disk are made of: power that may fail at any point, and what is durable when it does.
//!
//! Invariant: once a process has lost its power nothing of it reaches the disk or another node, whatever it still computes; what was
//! durable before stays, everything else is gone. The points at which power can fail are the steps that others can see: before, in and
//! after each sync of the vote log, before and after each commit, before each message.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace_base::{Bytes, GroupId};
use millrace_core::storage::memory::MemoryStorage;
use millrace_core::storage::{StorageView, Visit};
use millrace_core::{Batch, Durability, Space, Storage, StorageError};
use millrace_pipeline::stages::order::RecordLog;
use parking_lot::Mutex;

/// The power of one process.
pub struct Power {
    steps_left: AtomicU64,
    is_lost: AtomicBool,
    luck: AtomicU64,
}

impl Power {
    /// For as long as nobody says otherwise.
    pub fn on() -> Arc<Self> {
        Arc::new(Self { steps_left: AtomicU64::new(u64::MAX), is_lost: AtomicBool::new(false), luck: AtomicU64::new(0) })
    }

    /// It fails after so many steps; `luck` decides how much of a write that it interrupts is there.
    pub fn fail_after(&self, steps: u64, luck: u64) {
        self.luck.store(luck, Ordering::Relaxed);
        self.steps_left.store(steps, Ordering::Relaxed);
    }

    /// Whether it has failed.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// One step; `true` when there is no power for it.
    pub fn fails(&self) -> bool {
        if self.is_lost() {
            return true;
        }
        match self.steps_left.load(Ordering::Relaxed) {
            u64::MAX => false,
            0 => {
                self.is_lost.store(true, Ordering::Relaxed);
                true
            }
            left => {
                self.steps_left.store(left - 1, Ordering::Relaxed);
                false
            }
        }
    }
}

/// What survives a loss of power, of one node.
#[derive(Default)]
pub struct Disk {
    votes: Mutex<Vec<(GroupId, u64, Bytes)>>,
    chains: Mutex<std::collections::BTreeMap<GroupId, Arc<MemoryStorage>>>,
    is_full: AtomicBool,
}

impl Disk {
    /// Whether nothing can be written.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Records in the vote log.
    pub fn records(&self) -> usize {
        self.votes.lock().len()
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn chain(&self, group: GroupId) -> Arc<MemoryStorage> {
        Arc::clone(self.chains.lock().entry(group).or_default())
    }
}

/// The vote log of a running process.
pub struct Votes {
    disk: Arc<Disk>,
    power: Arc<Power>,
    pending: Vec<(GroupId, u64, Bytes)>,
    /// A planted bug: what a sync has promised is written with the next one.
    promised: Option<Vec<(GroupId, u64, Bytes)>>,
}

impl Votes {
    /// Reads and writes the node's disk.
    pub fn new(disk: Arc<Disk>, power: Arc<Power>, is_lazy: bool) -> Self {
        Self { disk, power, pending: Vec::new(), promised: is_lazy.then(Vec::new) }
    }
}

impl RecordLog for Votes {
    fn records(&self, group: GroupId, committed: u64) -> io::Result<Vec<Bytes>> {
        let votes = self.disk.votes.lock();
        Ok(votes.iter().filter(|(of, height, _)| *of == group && *height > committed).map(|(_, _, body)| body.clone()).collect())
    }

    fn append(&mut self, group: GroupId, height: u64, body: &[u8]) {
        self.pending.push((group, height, Bytes::copy_from_slice(body)));
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let lost = || io::Error::other("the power is lost");
        if self.power.fails() {
            return Err(lost());
        }
        if self.disk.is_full() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full"));
        }
        let mut votes = self.disk.votes.lock();
        if self.power.fails() {
            let whole = self.power.luck.load(Ordering::Relaxed) as usize % (self.pending.len() + 1);
            votes.extend(self.pending.drain(..whole));
            return Err(lost());
        }
        let written = std::mem::take(&mut self.pending);
        match &mut self.promised {
            Some(promised) => votes.extend(std::mem::replace(promised, written)),
            None => votes.extend(written),
        }
        drop(votes);
        // Durable, but nobody will hear of it.
        self.power.fails();
        Ok(())
    }

    fn committed(&mut self, group: GroupId, height: u64) {
        if !self.power.is_lost() {
            self.disk.votes.lock().retain(|(of, recorded, _)| *of != group || *recorded > height);
        }
    }
}

/// The database of one group in a running process.
pub struct Database {
    storage: Arc<MemoryStorage>,
    disk: Arc<Disk>,
    power: Arc<Power>,
}

impl Database {
    /// Reads and writes the node's disk.
    pub fn new(disk: Arc<Disk>, power: Arc<Power>, group: GroupId) -> Self {
        Self { storage: disk.chain(group), disk, power }
    }
}

impl Storage for Database {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.storage.get(space, key)
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        self.storage.multi_get(space, keys)
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.storage.scan(space, prefix, from, visit)
    }

    fn height(&self) -> Result<Option<u64>, StorageError> {
        self.storage.height()
    }

    fn commit(&self, height: u64, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        let lost = || StorageError::Engine("the power is lost".into());
        if self.power.fails() {
            return Err(lost());
        }
        if self.disk.is_full() {
            return Err(StorageError::Full { path: "memory".into() });
        }
        self.storage.commit(height, batch, durability)?;
        if self.power.fails() { Err(lost()) } else { Ok(()) }
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        self.storage.snapshot()
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), StorageError> {
        self.storage.checkpoint(directory)
    }

    fn verify(&self) -> Result<(), StorageError> {
        self.storage.verify()
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.storage.stats()
    }
}
