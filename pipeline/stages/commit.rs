//! Commit: makes final blocks durable, then lets everybody know.
//!
//! Blocks of one group that have queued up are committed together with one sync. When the disk is full, or the group's database server
//! is away, the group's blocks wait here and are tried again: nothing that was ordered is lost, its clients are held back by a pool that
//! fills up, and other groups go on.
//! Any other storage fault halts the group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_access::blockchain::Commit;
use millrace_base::GroupId;
use millrace_core::StorageError;
use millrace_ledger::Ledger;

use crate::messages::{ToCommit, ToExecute, ToNotify, ToOrder, ToSync};
use crate::runtime::{self, Batch, Fanout, Sender, Stage};

/// How long to wait before a full disk or a server that is away is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where the stage sends its results.
pub struct CommitOutputs {
    /// Durable heights.
    pub order: Sender<ToOrder>,
    /// Durable heights.
    pub execute: Fanout<ToExecute>,
    /// Durable blocks.
    pub notify: Sender<ToNotify>,
    /// That the chain has grown.
    pub sync: Sender<ToSync>,
}

/// Blocks of one group that are not durable yet.
struct Queued {
    ledger: Arc<Ledger>,
    commits: Vec<Commit>,
    retry_at: Option<Instant>,
}

/// See the module.
pub struct CommitStage {
    queued: BTreeMap<GroupId, Queued>,
    outputs: CommitOutputs,
}

impl CommitStage {
    /// A worker with nothing to do.
    pub fn new(outputs: CommitOutputs) -> Self {
        Self { queued: BTreeMap::new(), outputs }
    }

    fn flush(&mut self, now: Instant) {
        self.queued.retain(|group, queued| {
            if queued.retry_at.is_some_and(|at| now < at) {
                return true;
            }
            let outcome = queued.ledger.commit(&queued.commits);
            match outcome {
                Ok(()) => {
                    announce(&self.outputs, *group, std::mem::take(&mut queued.commits));
                    false
                }
                Err(StorageError::Full { path }) => {
                    let waiting = queued.commits.len();
                    tracing::error!(%group, path, waiting, "disk full: the group's blocks wait; free space on the device, they are committed then");
                    queued.retry_at = Some(now + RETRY);
                    true
                }
                Err(StorageError::Unavailable { place, detail }) => {
                    let waiting = queued.commits.len();
                    tracing::error!(%group, place, detail, waiting, "the database is away: the group's blocks wait and are committed when it is back");
                    queued.retry_at = Some(now + RETRY);
                    true
                }
                Err(error) => {
                    queued.ledger.halt(format!("committing failed: {error}"));
                    let _ = self.outputs.order.send(ToOrder::Failed(*group));
                    false
                }
            }
        });
    }
}

fn announce(outputs: &CommitOutputs, group: GroupId, commits: Vec<Commit>) {
    let Some(height) = commits.last().map(|commit| commit.block.header.number) else { return };
    let _ = outputs.order.send(ToOrder::Committed { group, height });
    let _ = outputs.execute.send(group, ToExecute::Committed { group, height });
    let _ = outputs.sync.send(ToSync::Committed(group));
    for commit in commits {
        let _ = outputs.notify.send(ToNotify::Block { group, block: commit.block });
    }
}

impl Stage for CommitStage {
    type Input = ToCommit;

    fn handle(&mut self, batch: &mut Batch<ToCommit>) {
        for ToCommit { ledger, commit } in batch.drain(..) {
            let queued = self.queued.entry(ledger.id()).or_insert_with(|| Queued { ledger, commits: Vec::new(), retry_at: None });
            queued.commits.push(commit);
        }
        self.flush(runtime::now());
    }

    fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.flush(now);
        self.queued.values().filter_map(|queued| queued.retry_at).min()
    }

    fn drained(&self) -> bool {
        self.queued.is_empty()
    }
}
