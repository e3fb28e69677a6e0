//! A queue with one bounded lane a group, shared fairly by several workers.
//!
//! Deficit round-robin by item weight: a lane that has items stands once in the list of ready lanes. A worker takes the first lane, adds `quantum` to its
//! deficit, takes items while the deficit is positive (the last may overdraw it, which the next turn pays back), and puts the lane at the end.
//!
//! Invariants: a full lane refuses its own group only; between two items of a waiting lane at most `quantum` + one item's weight of each other lane is
//! served; a lane is held by one worker at a time; what a removed lane still held is handed to the one who removed it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use millrace_base::GroupId;
use parking_lot::{Mutex, RwLock};

use super::bell::{Bell, ring_one};
use super::gate::{Gate, Gates, Origin};
use super::limits::{MAX_DEPTH, MAX_LANES};
use super::metrics::QueueMetrics;
use super::queue::{Probe, QueueCounters};

/// The declaration of a lane queue.
pub struct LaneSpec<T> {
    /// Unique name.
    pub name: &'static str,
    /// Items that one lane holds.
    pub lane_depth: usize,
    /// Weight (transactions) that one lane holds; a single heavier item enters an empty lane.
    pub lane_weight: u64,
    /// Weight that a lane may have served before the next lane's turn.
    pub quantum: u32,
    /// Weight after which a worker's batch is closed, so that heavy items spread over the workers.
    pub batch_weight: u64,
    /// Lanes at most.
    pub max_lanes: usize,
    /// Weight of an item, counted as at least 1.
    pub weight: fn(&T) -> u32,
    /// Reason for the bounds.
    pub why: &'static str,
}

/// Why an item did not enter its lane; the item is handed back.
#[derive(PartialEq, Eq, thiserror::Error)]
pub enum LaneError<T> {
    /// The group's lane is full: the client is told to come back later.
    #[error("the group's queue is full")]
    Full(T),
    /// The group has no lane: it is not running on this node.
    #[error("the group has no queue")]
    NoLane(T),
    /// The node is stopping.
    #[error("queue is closed")]
    Closed(T),
}

impl<T> LaneError<T> {
    /// The item that was not accepted.
    pub fn into_item(self) -> T {
        match self {
            LaneError::Full(item) | LaneError::NoLane(item) | LaneError::Closed(item) => item,
        }
    }
}

impl<T> std::fmt::Debug for LaneError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LaneError::Full(_) => "Full(..)",
            LaneError::NoLane(_) => "NoLane(..)",
            LaneError::Closed(_) => "Closed(..)",
        })
    }
}

/// The writing end of a lane queue.
pub struct LaneSender<T> {
    pub(crate) lanes: Arc<GroupLanes<T>>,
    pub(crate) origin: Origin,
}

impl<T> Clone for LaneSender<T> {
    fn clone(&self) -> Self {
        Self { lanes: Arc::clone(&self.lanes), origin: self.origin }
    }
}

impl<T: Send + 'static> LaneSender<T> {
    /// Puts an item into the lane of its group. Never waits.
    ///
    /// # Errors
    /// [`LaneError`], with the item.
    pub fn send(&self, group: GroupId, item: T) -> Result<(), LaneError<T>> {
        self.lanes.send(group, item, self.origin)
    }

    /// Items waiting in the lane of `group`; 0 if it has none.
    pub fn depth(&self, group: GroupId) -> usize {
        self.lanes.lanes.read().get(&group).map_or(0, |lane| lane.receiver.len())
    }
}

struct Lane<T> {
    group: GroupId,
    sender: Sender<T>,
    receiver: Receiver<T>,
    gate: Gate,
    queued_weight: AtomicU64,
    /// Written only by the worker that holds the lane.
    deficit: AtomicI64,
    /// The lane is in the ready list or held by a worker.
    listed: AtomicBool,
    counters: QueueCounters,
}

/// The queue itself; shared by senders, workers and whoever adds and removes groups.
pub struct GroupLanes<T> {
    spec: LaneSpec<T>,
    lanes: RwLock<BTreeMap<GroupId, Arc<Lane<T>>>>,
    ready: Mutex<VecDeque<Arc<Lane<T>>>>,
    pub(crate) gates: Gates,
    pub(crate) bells: OnceLock<Vec<Arc<Bell>>>,
    pub(crate) counters: QueueCounters,
}

impl<T: Send + 'static> GroupLanes<T> {
    pub(crate) fn new(spec: LaneSpec<T>) -> Self {
        let spec = LaneSpec {
            lane_depth: spec.lane_depth.clamp(1, MAX_DEPTH),
            quantum: spec.quantum.max(1),
            batch_weight: spec.batch_weight.max(1),
            max_lanes: spec.max_lanes.min(MAX_LANES),
            ..spec
        };
        Self {
            spec,
            lanes: RwLock::default(),
            ready: Mutex::default(),
            gates: Gates::default(),
            bells: OnceLock::new(),
            counters: QueueCounters::default(),
        }
    }

    /// Opens a lane; false if the group has one or the queue has its most lanes already.
    pub(crate) fn add(&self, group: GroupId) -> bool {
        let mut lanes = self.lanes.write();
        if lanes.contains_key(&group) || lanes.len() >= self.spec.max_lanes {
            return false;
        }
        let (sender, receiver) = crossbeam_channel::bounded(self.spec.lane_depth);
        let lane = Lane {
            group,
            sender,
            receiver,
            gate: Gate::default(),
            queued_weight: AtomicU64::new(0),
            deficit: AtomicI64::new(0),
            listed: AtomicBool::new(false),
            counters: QueueCounters::default(),
        };
        lanes.insert(group, Arc::new(lane));
        true
    }

    /// Closes a lane and gives what it still held, for those who wait for these items to be told.
    pub(crate) fn remove(&self, group: GroupId) -> Vec<T> {
        let Some(lane) = self.lanes.write().remove(&group) else { return Vec::new() };
        lane.gate.close();
        // Senders inside are at most a few instructions from leaving: they never wait in a lane.
        while !lane.gate.is_vacant() {
            std::thread::yield_now();
        }
        self.ready.lock().retain(|ready| !Arc::ptr_eq(ready, &lane));
        lane.receiver.try_iter().collect()
    }

    fn weight_of(&self, item: &T) -> u64 {
        u64::from((self.spec.weight)(item).max(1))
    }

    fn send(&self, group: GroupId, item: T, origin: Origin) -> Result<(), LaneError<T>> {
        let Some(_pass) = self.gates.of(origin).enter() else {
            self.counters.closed.fetch_add(1, Ordering::Relaxed);
            return Err(LaneError::Closed(item));
        };
        let Some(lane) = self.lanes.read().get(&group).cloned() else {
            self.counters.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(LaneError::NoLane(item));
        };
        let Some(_stay) = lane.gate.enter() else { return Err(LaneError::NoLane(item)) };
        let weight = self.weight_of(&item);
        let queued = lane.queued_weight.fetch_add(weight, Ordering::Relaxed);
        let sent = if queued > 0 && queued + weight > self.spec.lane_weight {
            Err(item)
        } else {
            lane.sender.try_send(item).map_err(TrySendError::into_inner)
        };
        if let Err(item) = sent {
            lane.queued_weight.fetch_sub(weight, Ordering::Relaxed);
            lane.counters.note_depth(lane.receiver.len());
            lane.counters.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(LaneError::Full(item));
        }
        fence(Ordering::SeqCst);
        if !lane.listed.swap(true, Ordering::SeqCst) {
            self.ready.lock().push_back(Arc::clone(&lane));
        }
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        if let Some(bells) = self.bells.get() {
            ring_one(bells);
        }
    }

    /// True when a lane waits for a worker.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.lock().is_empty()
    }

    /// Takes items in fair order until `max` items or the batch weight are reached, or no lane is ready.
    pub(crate) fn take<I>(&self, batch: &mut VecDeque<I>, max: usize, map: fn(T) -> I) -> usize {
        let (mut taken, mut taken_weight) = (0, 0);
        while taken < max && taken_weight < self.spec.batch_weight {
            let Some(lane) = self.ready.lock().pop_front() else { break };
            lane.counters.note_depth(lane.receiver.len());
            let mut deficit = lane.deficit.load(Ordering::Relaxed) + i64::from(self.spec.quantum);
            let mut from_lane = 0;
            while deficit > 0 && taken + from_lane < max && taken_weight < self.spec.batch_weight {
                let Ok(item) = lane.receiver.try_recv() else { break };
                let weight = self.weight_of(&item);
                lane.queued_weight.fetch_sub(weight, Ordering::Relaxed);
                deficit -= i64::try_from(weight).unwrap_or(i64::MAX);
                taken_weight += weight;
                from_lane += 1;
                batch.push_back(map(item));
            }
            lane.counters.received.fetch_add(from_lane as u64, Ordering::Relaxed);
            taken += from_lane;
            self.put_back(lane, deficit);
        }
        if taken > 0 && self.has_work() {
            self.ring();
        }
        taken
    }

    /// Lists a served lane again: at the end when its turn is over, at the front when the batch ended before its turn, not at all when it is empty.
    fn put_back(&self, lane: Arc<Lane<T>>, deficit: i64) {
        if lane.receiver.is_empty() {
            lane.deficit.store(deficit.min(0), Ordering::Relaxed);
            lane.listed.store(false, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if !lane.receiver.is_empty() && !lane.listed.swap(true, Ordering::SeqCst) {
                self.ready.lock().push_back(lane);
            }
        } else if deficit > 0 {
            // The turn goes on later: the quantum that the next turn adds was given already.
            lane.deficit.store(deficit - i64::from(self.spec.quantum), Ordering::Relaxed);
            self.ready.lock().push_front(lane);
        } else {
            lane.deficit.store(deficit, Ordering::Relaxed);
            self.ready.lock().push_back(lane);
        }
    }
}

/// A lane queue as the topology watches it.
pub(crate) struct LanesProbe<T> {
    pub(crate) item: &'static str,
    pub(crate) lanes: Arc<GroupLanes<T>>,
}

impl<T: Send + 'static> Probe for LanesProbe<T> {
    fn metrics(&self, rows: &mut Vec<QueueMetrics>) {
        let base = QueueMetrics { queue: self.lanes.spec.name, item: self.item, ..QueueMetrics::default() };
        // Part 0 stands for no group: items that found no lane, or came too late.
        rows.push(self.lanes.counters.fill(base.clone()));
        rows.extend(self.lanes.lanes.read().values().map(|lane| {
            let (part, depth) = (usize::from(lane.group.get()), lane.receiver.len());
            lane.counters.fill(QueueMetrics { part, depth, capacity: self.lanes.spec.lane_depth, ..base.clone() })
        }));
    }

    fn close(&self, origin: Origin) {
        self.lanes.gates.of(origin).close();
    }

    fn is_vacant(&self, origin: Origin) -> bool {
        self.lanes.gates.of(origin).is_vacant()
    }
}
