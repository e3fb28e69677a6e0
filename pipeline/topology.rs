//! Every queue, stage and arrow of the node, in one place.
//!
//! The picture below is rendered from what [`wire`] wires and kept as `pipeline/topology.golden.txt`; a test compares them.

use std::sync::Arc;

pub use millrace_access::verifier::{Crew, CrewError};
use millrace_access::verifier::{SerialVerifier, SignatureVerifier};
use millrace_administration::pbft::WINDOW;
use millrace_administration::sync::limits::{HELD_BYTES, MAX_CHECKS};
use millrace_base::GroupId;
use millrace_base::clock::Clock;
use millrace_ledger::Ledger;
use millrace_ledger::view::SubmitError;

use crate::evidence::EvidenceLog;
use crate::frames::{self, Frame, FrameInlet};
use crate::messages::{Checked, Done, Incoming, MAX_BLOCKS_HANDED_IN, ToCommit, ToExecute, ToNotify, ToOrder, ToSync};
use crate::peers::{Peers, PeersInlet};
use crate::runtime::{
    LaneQueue, LaneSender, LaneSpec, PinnedQueue, Pinning, Policy, Queue, QueueSpec, Sender, StageSpec, Topology, TopologyBuilder,
    TopologyError,
};
use crate::stages::check::{CheckStage, ToCheck};
use crate::stages::commit::{CommitOutputs, CommitStage};
use crate::stages::execute::ExecuteStage;
use crate::stages::notify::{Listener, NotifyStage};
use crate::stages::order::{OrderOutputs, OrderParts, OrderStage, RecordLog, engines};
use crate::stages::sync::{self, PeerFrame, SyncInlet, SyncInput, SyncOutputs, SyncStage};
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

/// Hints that may wait for the sync stage: batches of admitted transactions and committed heads of a second.
const SYNC_DEPTH: usize = 4_096;

/// Groups being opened and closed that may wait for the sync stage, and changes of their peers.
const SYNC_GROUPS_DEPTH: usize = 4 * MAX_GROUPS;

/// Downloaded blocks that may wait for the order stage: a window of each of many groups; what finds no room is delivered again.
const DOWNLOADED_DEPTH: usize = 4_096;

/// Bytes of blocks that one worker of the check stage takes at once: about a block, so that they spread over the workers.
const CHECK_BATCH_BYTES: u64 = 128 << 10;

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
    pub votes: Box<dyn RecordLog>,
    /// Evidence against sealers.
    pub evidence: EvidenceLog,
    /// Other nodes.
    pub peers: Arc<dyn Peers>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Told about blocks.
    pub listeners: Vec<Arc<dyn Listener>>,
    /// Groups that may run at once, at most [`MAX_GROUPS`]: the depth of inner queues follows.
    pub max_groups: usize,
    /// Threads that help the execute stage with big blocks; they read and write no queue.
    pub crew: Arc<Crew>,
    /// Heights of a group in flight between the last durable block and the newest proposal, 1 to [`WINDOW`].
    pub window: u64,
}

/// The ends of the pipeline that the outside holds.
pub struct Inlets {
    /// Raw transactions from gateways.
    pub submissions: LaneSender<Incoming>,
    /// What other nodes send about blocks and transactions.
    pub sync: SyncInlet,
    /// Consensus messages of other nodes.
    pub frames: FrameInlet,
    /// Sessions that come and go.
    pub peers: PeersInlet,
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
    sync: SyncInlet,
}

impl GroupInlet {
    /// Runs a group. `false` when the node is stopping. A group that is being closed must be closed first.
    pub fn open(&self, ledger: Arc<Ledger>) -> bool {
        let group = ledger.id();
        self.submissions.add_group(group);
        self.repairs.add_group(group);
        self.frames.add_group(group);
        self.sync.open(Arc::clone(&ledger)) && self.order.send(ToOrder::Open(ledger)).is_ok()
    }

    /// Runs a group no more. What waits at the doors is refused at once, final blocks become durable, and `done` is called on a thread
    /// of the pipeline when no stage works for the group any more. Queries may still hold its ledger then: its database is closed when
    /// the last of them has let go. `false`, and `done` is never called, when the node is stopping.
    pub fn close(&self, group: GroupId, done: Done) -> bool {
        let waiting = self.submissions.remove_group(group).into_iter().chain(self.repairs.remove_group(group));
        waiting.for_each(|incoming| incoming.refuse(SubmitError::Busy(format!("group {group} is being stopped"))));
        drop(self.frames.remove_group(group));
        self.sync.close(group);
        self.order.send(ToOrder::Close(group, done)).is_ok()
    }

    /// Cuts off a group that is being closed and does not come to its end; see [`ToOrder::Abandon`]. Its database is closed when whoever
    /// holds it up has let go. `false`, and `done` is never called, when the node is stopping.
    pub fn abandon(&self, group: GroupId, done: Done) -> bool {
        self.order.send(ToOrder::Abandon(group, done)).is_ok()
    }
}

/// The queues between verification and notice.
struct Queues {
    submissions: LaneQueue<Incoming>,
    repairs: LaneQueue<Incoming>,
    frames: LaneQueue<Frame>,
    links: Queue<ToOrder>,
    to_order: Queue<ToOrder>,
    to_execute: PinnedQueue<ToExecute>,
    to_commit: PinnedQueue<ToCommit>,
    to_notify: Queue<ToNotify>,
    sync: SyncQueues,
}

/// The queues around the sync stage.
struct SyncQueues {
    hints: Queue<ToSync>,
    groups: Queue<ToSync>,
    blocks: LaneQueue<PeerFrame>,
    transactions: LaneQueue<PeerFrame>,
    check: LaneQueue<ToCheck>,
    checked: Queue<Checked>,
    downloaded: Queue<ToOrder>,
}

fn declare(builder: &mut TopologyBuilder, workers: Workers, max_groups: usize) -> Queues {
    let submissions = builder.lanes(LaneSpec {
        name: "submissions",
        lane_depth: LANE_DEPTH,
        lane_weight: LANE_DEPTH as u64,
        quantum: 32,
        batch_weight: VERIFY_BATCH as u64,
        max_lanes: MAX_GROUPS,
        weight: |_| 1,
        why: "shed at the rim: clients are told; bytes are bounded by each group's ingress gauge",
    });
    let repairs = builder.lanes(LaneSpec {
        name: "repairs",
        lane_depth: REPAIR_DEPTH,
        lane_weight: REPAIR_DEPTH as u64,
        quantum: 32,
        batch_weight: VERIFY_BATCH as u64,
        max_lanes: MAX_GROUPS,
        weight: |_| 1,
        why: "beside the clients' lanes, so that their flood cannot keep a proposal incomplete; the order stage asks again",
    });
    let frames = builder.lanes(frames::lane_spec(MAX_GROUPS));
    let links =
        builder.queue::<ToOrder>(QueueSpec::new("links", 1, Policy::DropNew, "a word that sessions changed; one that waits says it all"));
    let inner = max_groups * ITEMS_PER_GROUP;
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
    Queues { submissions, repairs, frames, links, to_order, to_execute, to_commit, to_notify, sync: declare_sync(builder, max_groups) }
}

fn declare_sync(builder: &mut TopologyBuilder, max_groups: usize) -> SyncQueues {
    let hints = builder.queue::<ToSync>(QueueSpec::new(
        "to-sync",
        SYNC_DEPTH,
        Policy::DropNew,
        "hints: heads are read again from the chain, transactions are pushed again from the pool, false blocks are refused again",
    ));
    let check = builder.lanes(LaneSpec {
        name: "to-check",
        lane_depth: MAX_CHECKS,
        lane_weight: 4 * HELD_BYTES as u64,
        quantum: 256 << 10,
        batch_weight: CHECK_BATCH_BYTES,
        max_lanes: MAX_GROUPS,
        weight: |item: &ToCheck| u32::try_from(item.bytes.len()).unwrap_or(u32::MAX),
        why: "sync has so many blocks of a group checked at once, out of the bytes it holds",
    });
    let checked = builder.queue::<Checked>(QueueSpec::new(
        "checked",
        max_groups * MAX_CHECKS,
        Policy::NeverFull,
        "sync has so many blocks of each group checked at once and counts a check until its result is here",
    ));
    let downloaded = builder.queue::<ToOrder>(QueueSpec::new(
        "downloaded",
        DOWNLOADED_DEPTH,
        Policy::DropNew,
        "a window of heights a group; what finds no room is delivered again",
    ));
    let groups = builder.queue::<ToSync>(QueueSpec::new(
        "sync-groups",
        SYNC_GROUPS_DEPTH,
        Policy::Reject,
        "each group opened and closed; whoever does so tries again",
    ));
    let blocks = builder.lanes(sync::lane_spec("block-frames", MAX_GROUPS));
    let transactions = builder.lanes(sync::lane_spec("tx-frames", MAX_GROUPS));
    SyncQueues { hints, groups, blocks, transactions, check, checked, downloaded }
}

/// The ends that the outside holds.
fn open_doors(builder: &mut TopologyBuilder, queues: &Queues) -> Inlets {
    let Queues { submissions, repairs, frames, links, to_order, sync, .. } = queues;
    let submit = builder.ingress("rpc", submissions);
    let sync = SyncInlet::new(
        builder.ingress("node", &sync.groups),
        (sync.blocks.clone(), builder.ingress("peers", &sync.blocks)),
        (sync.transactions.clone(), builder.ingress("peers", &sync.transactions)),
        sync.check.clone(),
    );
    let votes = FrameInlet::new(builder.ingress("peers", frames));
    let groups = GroupInlet {
        order: builder.ingress("node", to_order),
        submissions: submissions.clone(),
        repairs: repairs.clone(),
        frames: frames.clone(),
        sync: sync.clone(),
    };
    let peers = PeersInlet(builder.ingress("peers", links));
    Inlets { submissions: submit, frames: votes, peers, sync, groups }
}

/// Wires the node.
///
/// # Errors
/// A rule of the graph that is broken: a bug, found when the node starts and in a test.
pub fn wire(workers: Workers, parts: Parts) -> Result<(Topology, Inlets), TopologyError> {
    let mut builder = TopologyBuilder::new("millrace");
    let queues = declare(&mut builder, workers, parts.max_groups.clamp(1, MAX_GROUPS));
    let inlets = open_doors(&mut builder, &queues);
    let (peers, clock, listeners) = (Arc::clone(&parts.peers), Arc::clone(&parts.clock), parts.listeners.clone());
    let crew = Arc::clone(&parts.crew);

    wire_verify(&mut builder, &queues, workers, Arc::clone(&clock));
    wire_order(&mut builder, &queues, parts);
    wire_execute_and_commit(&mut builder, &queues, workers, crew);
    wire_sync(&mut builder, &queues, peers, clock);
    wire_check(&mut builder, &queues, workers);

    let mut notify =
        builder.stage::<NotifyStage>(StageSpec { name: "notify", workers: 1, max_batch: 256, what: "log each block, call listeners" });
    notify.reads(&queues.to_notify, |item| item);
    notify.instances(move |_| NotifyStage::new(listeners.clone()));

    Ok((builder.build()?, inlets))
}

fn wire_verify(builder: &mut TopologyBuilder, queues: &Queues, workers: Workers, clock: Arc<dyn Clock>) {
    let mut verify = builder.stage::<VerifyStage>(StageSpec {
        name: "verify",
        workers: workers.verify,
        max_batch: VERIFY_BATCH,
        what: "decode, cheap checks, recover the sender, into the pool",
    });
    verify.reads(&queues.submissions, |incoming| incoming);
    verify.reads(&queues.repairs, |incoming| incoming);
    let (wake, fresh) = (verify.writes(&queues.to_order), verify.writes(&queues.sync.hints));
    verify.instances(move |_| {
        let signatures: Box<dyn SignatureVerifier> = Box::new(SerialVerifier);
        VerifyStage::new(signatures, wake.clone(), fresh.clone(), Arc::clone(&clock))
    });
}

fn wire_order(builder: &mut TopologyBuilder, queues: &Queues, parts: Parts) {
    let Parts { votes, evidence, peers, clock, window, .. } = parts;
    let mut order = builder.stage::<OrderStage>(StageSpec {
        name: "order",
        workers: 1,
        max_batch: 256,
        what: "seal from the pool, agree by vote, durable votes, finality by checkpoint",
    });
    order.reads(&queues.to_order, |item| item);
    order.reads(&queues.frames, ToOrder::Frame);
    order.reads(&queues.links, |item| item);
    order.reads(&queues.sync.downloaded, |item| item);
    let outputs = OrderOutputs {
        execute: order.writes(&queues.to_execute),
        commit: order.writes(&queues.to_commit),
        notify: order.writes(&queues.to_notify),
        sync: order.writes(&queues.sync.hints),
    };
    let order_parts = OrderParts { votes, evidence, peers, clock, engines: engines(window) };
    let mut once = Some(OrderStage::new(order_parts, outputs));
    order.instances(move |_| once.take().expect("the stage has one worker"));
}

fn wire_execute_and_commit(builder: &mut TopologyBuilder, queues: &Queues, workers: Workers, crew: Arc<Crew>) {
    let mut execute = builder.stage::<ExecuteStage>(StageSpec {
        name: "execute",
        workers: workers.execute,
        max_batch: 16,
        what: "run ordered blocks ahead of their commit, compute roots; the crew helps",
    });
    execute.reads(&queues.to_execute, |item| item);
    let executed = execute.writes(&queues.to_order);
    execute.instances(move |_| ExecuteStage::new(executed.clone(), Arc::clone(&crew)));

    let mut commit = builder.stage::<CommitStage>(StageSpec {
        name: "commit",
        workers: workers.commit,
        max_batch: 16,
        what: "one batch a block, one sync for those that queued up; then the pool and readers see it",
    });
    commit.reads(&queues.to_commit, |item| item);
    let (order_end, execute_end, notify_end) =
        (commit.writes(&queues.to_order), commit.writes(&queues.to_execute), commit.writes(&queues.to_notify));
    let sync_end = commit.writes(&queues.sync.hints);
    commit.instances(move |_| {
        CommitStage::new(CommitOutputs {
            order: order_end.clone(),
            execute: execute_end.clone(),
            notify: notify_end.clone(),
            sync: sync_end.clone(),
        })
    });
}

fn wire_sync(builder: &mut TopologyBuilder, queues: &Queues, peers: Arc<dyn Peers>, clock: Arc<dyn Clock>) {
    let mut sync = builder.stage::<SyncStage>(StageSpec {
        name: "sync",
        workers: 1,
        max_batch: 256,
        what: "heads and blocks from and to other nodes, transactions to the sealers",
    });
    sync.reads(&queues.sync.hints, SyncInput::Notice);
    sync.reads(&queues.sync.checked, |checked| SyncInput::Notice(ToSync::Checked(checked)));
    sync.reads(&queues.sync.groups, SyncInput::Notice);
    sync.reads(&queues.sync.blocks, SyncInput::Frame);
    sync.reads(&queues.sync.transactions, SyncInput::Frame);
    let outputs = SyncOutputs {
        peers,
        order: sync.writes(&queues.sync.downloaded),
        submissions: sync.writes(&queues.submissions),
        repairs: sync.writes(&queues.repairs),
        check: sync.writes(&queues.sync.check),
    };
    let mut once = Some(SyncStage::new(outputs, clock));
    sync.instances(move |_| once.take().expect("the stage has one worker"));
}

fn wire_check(builder: &mut TopologyBuilder, queues: &Queues, workers: Workers) {
    let mut check = builder.stage::<CheckStage>(StageSpec {
        name: "check",
        workers: workers.verify,
        max_batch: 8,
        what: "downloaded blocks: transactions against their root, senders",
    });
    check.reads(&queues.sync.check, |item| item);
    let results = check.writes(&queues.sync.checked);
    check.instances(move |_| {
        let signatures: Box<dyn SignatureVerifier> = Box::new(SerialVerifier);
        CheckStage::new(signatures, results.clone())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Alone;
    use millrace_base::clock::SystemClock;
    use millrace_ledger::VoteLog;

    #[test]
    fn picture_of_the_node_is_the_golden_one() {
        let directory = tempfile::tempdir().unwrap();
        let votes = Box::new(VoteLog::open(directory.path()).unwrap());
        let evidence = EvidenceLog::new(directory.path().join("evidence"));
        let (peers, clock) = (Arc::new(Alone), Arc::new(SystemClock));
        let parts =
            Parts { votes, evidence, peers, clock, listeners: Vec::new(), max_groups: MAX_GROUPS, crew: Crew::alone(), window: WINDOW };
        let (topology, _inlets) = wire(Workers::for_cores(2), parts).unwrap();
        let golden = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/topology.golden.txt"));
        crate::runtime::check_golden(golden, &topology.render()).unwrap();
    }
}
