//! Sync: keeps each group's blocks and transactions in step with the other nodes. Drives one sync machine a group.
//!
//! Nothing here is on the path that makes blocks: a lost input only delays. Reads of the database for other nodes happen on this thread,
//! one bounded answer at a time; checks of downloaded blocks are spread over the check stage's workers.

mod door;
mod group;
mod serve;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use millrace_administration::sync::Input;
use millrace_base::GroupId;
use millrace_base::clock::Clock;

use crate::messages::ToSync;
use crate::runtime::{self, Batch, Stage};
pub(crate) use door::lane_spec;
pub use door::{PeerFrame, SyncInlet};
use group::GroupSync;
pub use group::SyncOutputs;
pub use transactions::TransferCounters;

/// What the stage reads.
pub enum SyncInput {
    /// From the other stages and from outside.
    Notice(ToSync),
    /// From other nodes.
    Frame(PeerFrame),
}

/// See the module.
pub struct SyncStage {
    groups: BTreeMap<GroupId, GroupSync>,
    outputs: SyncOutputs,
    clock: Arc<dyn Clock>,
    is_stopping: bool,
}

impl SyncStage {
    /// A stage without groups; they come as [`ToSync::Open`].
    pub fn new(outputs: SyncOutputs, clock: Arc<dyn Clock>) -> Self {
        Self { groups: BTreeMap::new(), outputs, clock, is_stopping: false }
    }

    fn notice(&mut self, notice: ToSync, now: Instant) {
        let now_ms = self.clock.now_ms();
        let group = match &notice {
            ToSync::Open(ledger) => {
                let group = GroupSync::new(Arc::clone(ledger), &self.outputs, now_ms, now);
                self.groups.insert(ledger.id(), group);
                return;
            }
            ToSync::Close(group) => {
                self.groups.remove(group);
                // Peers learn that this node takes no part any more, and stop sending.
                self.outputs.peers.set_members(*group, &[]);
                return;
            }
            ToSync::PeersChanged(group) | ToSync::Committed(group) => *group,
            ToSync::Admitted { group, .. } | ToSync::Refused { group, .. } => *group,
            ToSync::Checked(checked) => checked.group,
        };
        let Some(sync) = self.groups.get_mut(&group) else { return };
        match notice {
            ToSync::Open(_) | ToSync::Close(_) => {}
            ToSync::PeersChanged(_) => sync.look_for_peers(&self.outputs, now_ms),
            ToSync::Committed(_) => sync.committed(&self.outputs, now_ms),
            ToSync::Admitted { transactions, .. } => sync.admitted(&transactions, &self.outputs, now),
            ToSync::Refused { from, reason, .. } => sync.advance(Input::Refused { from, reason }, &self.outputs, now_ms),
            ToSync::Checked(checked) => {
                sync.advance(Input::Checked { ticket: checked.ticket, verdict: checked.verdict }, &self.outputs, now_ms);
            }
        }
    }

    fn frame(&mut self, frame: PeerFrame) {
        let now_ms = self.clock.now_ms();
        if let Some(sync) = self.groups.get_mut(&frame.group) {
            sync.frame((frame.from, frame.kind), frame.payload.clone(), &self.outputs, now_ms);
        }
    }
}

impl Stage for SyncStage {
    type Input = SyncInput;

    fn handle(&mut self, batch: &mut Batch<SyncInput>) {
        let now = runtime::now();
        while let Some(input) = batch.pop_front() {
            match input {
                SyncInput::Notice(notice) => self.notice(notice, now),
                SyncInput::Frame(frame) => self.frame(frame),
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Option<Instant> {
        if self.is_stopping {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let Self { groups, outputs, .. } = self;
        groups.values_mut().map(|sync| sync.tick(outputs, now_ms, now)).min()
    }

    fn on_stop(&mut self) {
        self.is_stopping = true;
        self.groups.values_mut().for_each(|sync| sync.hurry(&self.outputs));
    }
}

#[cfg(test)]
#[path = "sync/tests.rs"]
mod tests;
