//! Order: agrees on which transactions make which block. Drives one engine a group.
//!
//! A turn takes a batch of inputs, lets the engines concerned react until nothing is left to say to oneself, makes the votes of the
//! turn durable with one sync, and only then hands out what follows from them. If the sync fails nothing leaves, and the turn's effects
//! wait for the next attempt: a vote that may be lost must never be acted on.

mod group;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_base::GroupId;
use millrace_base::clock::Clock;
use millrace_ledger::VoteLog;

use crate::messages::{ToCommit, ToExecute, ToNotify, ToOrder, ToSync};
use crate::runtime::{Batch, Fanout, Sender, Stage};
use group::{GroupOrder, Outbox};

/// How often expired transactions are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before a failed sync of the vote log is tried again.
const SYNC_RETRY: Duration = Duration::from_secs(1);

/// Where the stage sends its results.
pub struct OrderOutputs {
    /// Ordered proposals.
    pub execute: Fanout<ToExecute>,
    /// Final blocks.
    pub commit: Fanout<ToCommit>,
    /// Drops to report.
    pub notify: Sender<ToNotify>,
    /// Peers whose blocks or messages were refused.
    pub sync: Sender<ToSync>,
}

/// See the module.
pub struct OrderStage {
    votes: VoteLog,
    groups: BTreeMap<GroupId, GroupOrder>,
    outputs: OrderOutputs,
    outbox: Outbox,
    clock: Arc<dyn Clock>,
    next_expiry: Instant,
    retry_sync_at: Option<Instant>,
}

impl OrderStage {
    /// A stage without groups; they come as [`ToOrder::Open`].
    pub fn new(votes: VoteLog, outputs: OrderOutputs, clock: Arc<dyn Clock>) -> Self {
        let next_expiry = Instant::now() + EXPIRY_INTERVAL;
        Self { votes, groups: BTreeMap::new(), outputs, outbox: Outbox::default(), clock, next_expiry, retry_sync_at: None }
    }

    fn take(&mut self, input: ToOrder) {
        let now_ms = self.clock.now_ms();
        let Self { votes, groups, outbox, .. } = self;
        let group = match &input {
            ToOrder::Open(ledger) => {
                let id = ledger.id();
                match votes.records(id, ledger.chain().head().header.number) {
                    Ok(records) => drop(groups.insert(id, GroupOrder::new(Arc::clone(ledger), records))),
                    Err(error) => ledger.halt(format!("the vote log cannot be read: {error}")),
                }
                id
            }
            ToOrder::Wake(group) | ToOrder::Committed { group, .. } | ToOrder::Block { group, .. } | ToOrder::Failed(group) => *group,
            ToOrder::Executed(executed) => executed.group,
        };
        // A group that was closed meanwhile has nobody to tell.
        let Some(order) = groups.get_mut(&group) else { return };
        if let ToOrder::Committed { height, .. } = input {
            votes.committed(group, height);
        }
        order.take(input, now_ms, outbox);
    }

    /// Makes the turn's votes durable and lets its results out.
    fn flush(&mut self) {
        for (group, height, body) in self.outbox.records.drain(..) {
            self.votes.append(group, height, &body);
        }
        if let Err(error) = self.votes.sync() {
            let retry_s = SYNC_RETRY.as_secs();
            tracing::error!(%error, "the vote log cannot be written; no group orders blocks until it can: free space on its disk; trying again in {retry_s} s");
            self.retry_sync_at = Some(Instant::now() + SYNC_RETRY);
            return;
        }
        self.retry_sync_at = None;
        // A send fails only once its reader has ended, and then the node is on its way out: what is not durable is not acknowledged.
        for (group, item) in self.outbox.execute.drain(..) {
            let _ = self.outputs.execute.send(group, item);
        }
        for item in self.outbox.sync.drain(..) {
            let _ = self.outputs.sync.send(item);
        }
        for item in self.outbox.commit.drain(..) {
            let _ = self.outputs.commit.send(item.ledger.id(), item);
        }
        for order in self.groups.values_mut() {
            order.publish();
        }
    }

    fn expire(&mut self) {
        let now_ms = self.clock.now_ms();
        for order in self.groups.values() {
            let ledger = order.ledger();
            let hashes: Vec<_> = ledger.expire(now_ms).iter().map(millrace_base::VerifiedTx::hash).collect();
            if !hashes.is_empty() {
                let _ = self.outputs.notify.send(ToNotify::Expired { group: ledger.id(), hashes });
            }
        }
    }

    fn next_seal(&self) -> Option<Instant> {
        let now_ms = self.clock.now_ms();
        let due = self.groups.values().filter_map(GroupOrder::seal_due_ms).min()?;
        Some(Instant::now() + Duration::from_millis(due.saturating_sub(now_ms)))
    }
}

impl Stage for OrderStage {
    type Input = ToOrder;

    fn handle(&mut self, batch: &mut Batch<ToOrder>) {
        for input in batch.drain(..) {
            self.take(input);
        }
        self.flush();
    }

    fn tick(&mut self, now: Instant) -> Option<Instant> {
        if self.retry_sync_at.is_some_and(|at| now >= at) {
            self.flush();
        }
        if now >= self.next_expiry {
            self.expire();
            self.next_expiry = now + EXPIRY_INTERVAL;
        }
        if self.retry_sync_at.is_none() {
            let now_ms = self.clock.now_ms();
            for order in self.groups.values_mut() {
                order.try_seal(now_ms, &mut self.outbox);
            }
            self.flush();
        }
        [Some(self.next_expiry), self.retry_sync_at, self.next_seal()].into_iter().flatten().min()
    }

    fn on_stop(&mut self) {
        self.groups.values_mut().for_each(GroupOrder::hurry);
    }

    fn drained(&self) -> bool {
        self.groups.values().all(GroupOrder::is_drained)
    }
}
