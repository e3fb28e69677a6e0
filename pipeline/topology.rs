//! Every queue, stage and arrow of the node, in one place.
//!
//! The picture below is rendered from what [`wire`] wires and kept as `pipeline/topology.golden.txt`; a test compares them.

use std::sync::Arc;

use millrace_access::verifier::{SerialVerifier, SignatureVerifier};
use millrace_administration::pbft::WINDOW;
use millrace_base::GroupId;
use millrace_base::clock::Clock;
use millrace_ledger::view::SubmitError;
use millrace_ledger::{Ledger, VoteLog};

use crate::evidence::EvidenceLog;
use crate::frames::{self, Frame, FrameInlet};
use crate::messages::{Done, Incoming, MAX_BLOCKS_HANDED_IN, ToCommit, ToExecute, ToNotify, ToOrder};
use crate::peers::Peers;
use crate::runtime::{
    LaneQueue, LaneSender, LaneSpec, Pinning, Policy, QueueSpec, Sender, StageSpec, Topology, TopologyBuilder, TopologyError,
};
use crate::stages::commit::{CommitOutputs, CommitStage};
use crate::stages::execute::ExecuteStage;
use crate::stages::notify::{Listener, NotifyStage};
use crate::stages::order::{OrderOutputs, OrderParts, OrderStage, pbft_engines};
use crate::stages::verify::VerifyStage;

/// Groups that one node runs at most: bounds the queues whose bound is so many items a group.
pub const MAX_GROUPS: usize = 1_024;

/// Raw transactions of one group that wait for verification: two thirds of a second of one core's work.
const LANE_DEPTH: usize = 16_384;

/// Transactions verified between two looks at the lanes: long enough to pay for a hop, short enough (about 5 ms) for latency.
const VERIFY_BATCH: usize = 128;

/// Events that may wait for listeners.
const NOTIFY_DEPTH: usize = 4_096;

/// Transactions of one group that other nodes gave on request and that wait for verification: what a window of proposals may lack.
const REPAIR_DEPTH: usize = 8 * 1_024;

/// A group's items that can be in one inner queue at once: each height of the window is announced, executed, made void and committed
/// at most once, downloaded blocks are bounded, and a group is opened, closed, let go, woken and failed at most once at a time.
const ITEMS_PER_GROUP: usize = 4 * WINDOW as usize + MAX_BLOCKS_HANDED_IN + 8;

/// How many threads work at each stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workers {
    /// Signature checks: one a core.
    pub verify: usize,
    /// Execution: groups are spread over them.
    pub execute: usize,
    /// Commits: groups are spread over them, so that one group's sync does not hold up another's.
    pub commit: usize,
}

impl Workers {
    /// For a machine with this many cores.
    pub fn for_cores(cores: usize) -> Self {
        Self { verify: cores.max(1), execute: cores.clamp(1, 8), commit: cores.clamp(1, 4) }
    }
}

/// What the stages are made of.
pub struct Parts {
    /// Votes of all groups.
    pub votes: VoteLog,
    /// Evidence against sealers.
    pub evidence: EvidenceLog,
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Told about blocks.
    pub listeners: Vec<Arc<dyn Listener>>,
}

/// The ends of the pipeline that the outside holds.
pub struct Inlets {
    /// Raw transactions from gateways.
    pub submissions: LaneSender<Incoming>,
    /// Raw transactions that other nodes gave on request, submitted as `Submitter::REPAIR`.
    pub repairs: LaneSender<Incoming>,
    /// Consensus messages of other nodes.
    pub frames: FrameInlet,
    /// Groups to open and close.
    pub groups: GroupInlet,
}

/// Opens and closes groups while others run. Clones are the same.
#[derive(Clone)]
pub struct GroupInlet {
    order: Sender<ToOrder>,
    submissions: LaneQueue<Incoming>,
    repairs: LaneQueue<Incoming>,
    frames: LaneQueue<Frame>,
}

impl GroupInlet {
    /// Runs a group. `false` when the node is stopping. A group that is being closed must be closed first.
    pub fn open(&self, ledger: Arc<Ledger>) -> bool {
        let group = ledger.id();
        self.submissions.add_group(group);
        self.repairs.add_group(group);
        self.frames.add_group(group);
        self.order.send(ToOrder::Open(ledger)).is_ok()
    }

    /// Runs a group no more. What waits at the doors is refused at once, final blocks become durable, and `done` is called on a thread
    /// of the pipeline when no stage works for the group any more. Queries may still hold its ledger then: its database is closed when
    /// the last of them has let go. `false`, and `done` is never called, when the node is stopping.
    pub fn close(&self, group: GroupId, done: Done) -> bool {
        let waiting = self.submissions.remove_group(group).into_iter().chain(self.repairs.remove_group(group));
        waiting.for_each(|incoming| incoming.refuse(SubmitError::Busy(format!("group {group} is being stopped"))));
        drop(self.frames.remove_group(group));
        self.order.send(ToOrder::Close(group, done)).is_ok()
    }
}

/// Wires the node.
///
/// # Errors
/// A rule of the graph that is broken: a bug, found when the node starts and in a test.
pub fn wire(workers: Workers, parts: Parts) -> Result<(Topology, Inlets), TopologyError> {
    let mut builder = TopologyBuilder::new("millrace");
    let Parts { votes, evidence, peers, clock, listeners } = parts;
    let lanes = builder.lanes(LaneSpec {
        name: "submissions",
        lane_depth: LANE_DEPTH,
        lane_weight: LANE_DEPTH as u64,
        quantum: 32,
        batch_weight: VERIFY_BATCH as u64,
        max_lanes: MAX_GROUPS,
        weight: |_| 1,
        why: "shed at the rim: clients are told; bytes are bounded by each group's ingress gauge",
    });
    let repair_lanes = builder.lanes(LaneSpec {
        name: "repairs",
        lane_depth: REPAIR_DEPTH,
        lane_weight: REPAIR_DEPTH as u64,
        quantum: 32,
        batch_weight: VERIFY_BATCH as u64,
        max_lanes: MAX_GROUPS,
        weight: |_| 1,
        why: "beside the clients' lanes, so that their flood cannot keep a proposal incomplete; the order stage asks again",
    });
    let frame_lanes = builder.lanes(frames::lane_spec(MAX_GROUPS));
    let inner = MAX_GROUPS * ITEMS_PER_GROUP;
    let to_order = builder.queue::<ToOrder>(QueueSpec::new(
        "to-order",
        inner,
        Policy::NeverFull,
        "a wake-up is sent once until it is taken, executed and committed heights lie in the window, sync bounds its blocks",
    ));
    let (executing, committing) = (Pinning::new(workers.execute), Pinning::new(workers.commit));
    let to_execute = builder.pinned_queue::<ToExecute>(
        QueueSpec::new("to-execute", inner, Policy::NeverFull, "heights lie in the window; each is run, voided, committed at most once"),
        &executing,
    );
    let to_commit = builder.pinned_queue::<ToCommit>(
        QueueSpec::new("to-commit", inner, Policy::NeverFull, "final heights that are not durable lie in the window"),
        &committing,
    );
    let to_notify = builder.queue::<ToNotify>(QueueSpec::new(
        "to-notify",
        NOTIFY_DEPTH,
        Policy::DropOldest,
        "events are hints, the chain has the blocks; a slow listener must not hold up commits",
    ));

    let submissions = builder.ingress("rpc", &lanes);
    let repairs = builder.ingress("peers", &repair_lanes);
    let frames = FrameInlet::new(builder.ingress("peers", &frame_lanes));
    let groups = GroupInlet {
        order: builder.ingress("node", &to_order),
        submissions: lanes.clone(),
        repairs: repair_lanes.clone(),
        frames: frame_lanes.clone(),
    };

    let mut verify = builder.stage::<VerifyStage>(StageSpec {
        name: "verify",
        workers: workers.verify,
        max_batch: VERIFY_BATCH,
        what: "decode, cheap checks, recover the sender, into the pool",
    });
    verify.reads(&lanes, |incoming| incoming);
    verify.reads(&repair_lanes, |incoming| incoming);
    let wake = verify.writes(&to_order);
    let verify_clock = Arc::clone(&clock);
    verify.instances(move |_| {
        let signatures: Box<dyn SignatureVerifier> = Box::new(SerialVerifier);
        VerifyStage::new(signatures, wake.clone(), Arc::clone(&verify_clock))
    });

    let mut order = builder.stage::<OrderStage>(StageSpec {
        name: "order",
        workers: 1,
        max_batch: 256,
        what: "seal from the pool, agree by PBFT, durable votes, finality by checkpoint",
    });
    order.reads(&to_order, |item| item);
    order.reads(&frame_lanes, ToOrder::Frame);
    let outputs = OrderOutputs { execute: order.writes(&to_execute), commit: order.writes(&to_commit), notify: order.writes(&to_notify) };
    let order_parts = OrderParts { votes: Box::new(votes), evidence, peers, clock, engines: pbft_engines() };
    let mut once = Some(OrderStage::new(order_parts, outputs));
    order.instances(move |_| once.take().expect("the stage has one worker"));

    let mut execute = builder.stage::<ExecuteStage>(StageSpec {
        name: "execute",
        workers: workers.execute,
        max_batch: 16,
        what: "run ordered blocks ahead of their commit, compute roots",
    });
    execute.reads(&to_execute, |item| item);
    let executed = execute.writes(&to_order);
    execute.instances(move |_| ExecuteStage::new(executed.clone()));

    let mut commit = builder.stage::<CommitStage>(StageSpec {
        name: "commit",
        workers: workers.commit,
        max_batch: 16,
        what: "one batch a block, one sync for those that queued up; then the pool and readers see it",
    });
    commit.reads(&to_commit, |item| item);
    let (order_end, execute_end, notify_end) = (commit.writes(&to_order), commit.writes(&to_execute), commit.writes(&to_notify));
    commit.instances(move |_| {
        CommitStage::new(CommitOutputs { order: order_end.clone(), execute: execute_end.clone(), notify: notify_end.clone() })
    });

    let mut notify =
        builder.stage::<NotifyStage>(StageSpec { name: "notify", workers: 1, max_batch: 256, what: "log each block, call listeners" });
    notify.reads(&to_notify, |item| item);
    notify.instances(move |_| NotifyStage::new(listeners.clone()));

    Ok((builder.build()?, Inlets { submissions, repairs, frames, groups }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Alone;
    use millrace_base::clock::SystemClock;

    #[test]
    fn picture_of_the_node_is_the_golden_one() {
        let directory = tempfile::tempdir().unwrap();
        let votes = VoteLog::open(directory.path()).unwrap();
        let evidence = EvidenceLog::new(directory.path().join("evidence"));
        let parts = Parts { votes, evidence, peers: Arc::new(Alone), clock: Arc::new(SystemClock), listeners: Vec::new() };
        let (topology, _inlets) = wire(Workers::for_cores(2), parts).unwrap();
        let golden = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.golden.txt"));
        crate::runtime::check_golden(golden, &topology.render()).unwrap();
    }
}
