//! Pushes: receipts and block notifications as blocks become durable, event logs behind them, and what time brings.
//!
//! Blocks arrive as hints: only the height counts, and every block up to it is read from the chain when the hint did not bring it, so
//! that a lost hint loses no receipt. Hints of a group are merged; the queue is one entry a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_base::{B256, Block, GroupId};
use millrace_ledger::view::LedgerView;
use parking_lot::{Condvar, Mutex};

use super::{Hub, Session, event_reply};
use crate::channel::events::code;
use crate::channel::events::feed::{Feed, Left, Readiness, Surroundings};
use crate::channel::events::request::Request;
use crate::channel::frame::{Frame, Sequence, kind, topic_body};
use crate::channel::topics::{BLOCK_NOTIFY, SessionId};
use crate::limits::{EVENT_QUEUE_BYTES, MAX_FILTERS};

/// How often the push thread looks at the clock: deadlines of AMOP and idle sessions.
const TICK: Duration = Duration::from_millis(100);

/// How often sessions are looked at for silence.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// How soon the event thread looks again at clients that had not read, at subscriptions that had not started, and at blocks it could not
/// read.
const EVENT_RETRY: Duration = Duration::from_millis(50);

/// Blocks kept of one group's hints; more are read from the chain.
const MAX_HINTED: usize = 16;

/// What the push thread has to do.
#[derive(Default)]
struct Due {
    /// Height up to which each group is durable, and recent blocks of it.
    blocks: BTreeMap<GroupId, (u64, Vec<Arc<Block>>)>,
    expired: Vec<(GroupId, Vec<B256>)>,
    is_stopping: bool,
}

/// What the event thread has to do.
#[derive(Default)]
struct Orders {
    list: Vec<Order>,
    has_new_blocks: bool,
    is_stopping: bool,
}

enum Order {
    Subscribe(SessionId, Sequence, Request),
    Cancel(SessionId, GroupId, String),
    Forget(SessionId),
}

/// Queues of the two threads.
pub struct Pushes {
    due: Mutex<Due>,
    is_due: Condvar,
    orders: Mutex<Orders>,
    is_ordered: Condvar,
    /// Heights whose pushes were made.
    served: Mutex<BTreeMap<GroupId, u64>>,
}

impl Pushes {
    /// `heads` are served already.
    pub fn new(heads: BTreeMap<GroupId, u64>) -> Self {
        Self {
            due: Mutex::default(),
            is_due: Condvar::new(),
            orders: Mutex::default(),
            is_ordered: Condvar::new(),
            served: Mutex::new(heads),
        }
    }

    /// Takes a subscription; false when too many wait.
    pub fn subscribe(&self, session: SessionId, sequence: Sequence, request: Request) -> bool {
        let mut orders = self.orders.lock();
        let has_room = orders.list.len() < MAX_FILTERS;
        if has_room {
            orders.list.push(Order::Subscribe(session, sequence, request));
            self.is_ordered.notify_one();
        }
        has_room
    }

    /// Ends a subscription. When very many orders wait, the one that ends it is late, not lost: it ends with its session.
    pub fn cancel(&self, session: SessionId, group: GroupId, id: String) {
        let mut orders = self.orders.lock();
        if orders.list.len() < 2 * MAX_FILTERS {
            orders.list.push(Order::Cancel(session, group, id));
            self.is_ordered.notify_one();
        }
    }

    /// A session is gone. One order a session, so their number is bounded by the sessions'.
    pub fn forget(&self, session: SessionId) {
        self.orders.lock().list.push(Order::Forget(session));
        self.is_ordered.notify_one();
    }
}

impl Hub {
    /// A block is durable. Returns at once.
    pub fn block_committed(&self, group: GroupId, block: &Arc<Block>) {
        let mut due = self.pushes.due.lock();
        let (height, blocks) = due.blocks.entry(group).or_default();
        *height = (*height).max(block.header.number);
        if blocks.len() < MAX_HINTED {
            blocks.push(Arc::clone(block));
        }
        self.pushes.is_due.notify_one();
    }

    /// Accepted transactions were dropped. Returns at once.
    pub fn transactions_expired(&self, group: GroupId, hashes: &[B256]) {
        // Bounded by the pool: a transaction expires once.
        self.pushes.due.lock().expired.push((group, hashes.to_vec()));
        self.pushes.is_due.notify_one();
    }

    /// Starts the two threads.
    pub fn start_pushes(self: &Arc<Self>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let (push, event) = (Arc::clone(self), Arc::clone(self));
        let push = std::thread::Builder::new().name("channel-push".into()).spawn(move || push.run_pushes())?;
        match std::thread::Builder::new().name("channel-events".into()).spawn(move || event.run_events()) {
            Ok(event) => Ok(vec![push, event]),
            Err(error) => {
                self.stop_pushes();
                Err(error)
            }
        }
    }

    /// Lets the two threads end.
    pub fn stop_pushes(&self) {
        self.pushes.due.lock().is_stopping = true;
        self.pushes.is_due.notify_one();
        self.pushes.orders.lock().is_stopping = true;
        self.pushes.is_ordered.notify_one();
    }

    fn run_pushes(self: &Arc<Self>) {
        let mut idle_checked = Instant::now();
        loop {
            let due = {
                let mut due = self.pushes.due.lock();
                if due.blocks.is_empty() && due.expired.is_empty() && !due.is_stopping {
                    self.pushes.is_due.wait_for(&mut due, TICK);
                }
                if due.is_stopping {
                    return;
                }
                std::mem::take(&mut *due)
            };
            for (group, (height, blocks)) in due.blocks {
                self.push_blocks(group, height, &blocks);
            }
            for (group, hashes) in due.expired {
                let pushes = self.receipts.lock().expired(group, &hashes);
                self.push_receipts(group, pushes);
            }
            let now_ms = self.now_ms();
            self.with_amop(|engine| engine.on_tick(now_ms));
            if idle_checked.elapsed() >= IDLE_CHECK {
                idle_checked = Instant::now();
                self.end_idle_sessions(now_ms);
            }
        }
    }

    fn push_blocks(self: &Arc<Self>, group: GroupId, height: u64, hinted: &[Arc<Block>]) {
        let served = self.pushes.served.lock().get(&group).copied();
        // A group that was started later begins with its first hint.
        let mut next = served.map_or_else(|| hinted.first().map_or(height, |block| block.header.number), |served| served + 1);
        let ledger = self.parts.node.ledger(group);
        while next <= height {
            let block = hinted.iter().find(|block| block.header.number == next).cloned().or_else(|| read(ledger.as_deref(), next));
            if let Some(block) = block {
                self.notify_block(group, next);
                let pushes = self.receipts.lock().committed(group, &block);
                self.push_receipts(group, pushes);
            }
            next += 1;
        }
        self.pushes.served.lock().insert(group, height.max(served.unwrap_or_default()));
        self.pushes.orders.lock().has_new_blocks = true;
        self.pushes.is_ordered.notify_one();
    }

    fn notify_block(&self, group: GroupId, number: u64) {
        let topic = format!("{BLOCK_NOTIFY}{group}");
        let holders: Vec<_> = self.amop.lock().subscriptions().holders(&topic).collect();
        for session in holders.into_iter().filter_map(|id| self.session(id)).filter(|session| self.may_see(session, group)) {
            let notice = session.state.lock().version().block_notice(group, number);
            self.send(&session, &Frame::unasked(kind::BLOCK, topic_body(topic.as_bytes(), &notice)));
        }
    }

    fn push_receipts(self: &Arc<Self>, group: GroupId, pushes: Vec<(SessionId, Frame)>) {
        let mut of_sessions: BTreeMap<SessionId, Vec<Frame>> = BTreeMap::new();
        for (id, frame) in pushes {
            of_sessions.entry(id).or_default().push(frame);
        }
        for (id, frames) in of_sessions {
            if let Some(session) = self.session(id).filter(|session| self.may_see(session, group)) {
                self.send_receipts(&session, frames);
            }
        }
    }

    fn may_see(&self, session: &Session, group: GroupId) -> bool {
        self.parts.access.allows(group, &session.identity)
    }

    fn end_idle_sessions(&self, now_ms: u64) {
        let sessions: Vec<_> = self.sessions.read().values().cloned().collect();
        for session in sessions {
            let action = session.state.lock().on_tick(now_ms);
            if let Some(crate::channel::session::Action::Close(reason)) = action {
                self.end(&session, &reason);
            }
        }
    }

    fn run_events(&self) {
        let mut feed = Feed::default();
        let mut left = Left::Nothing;
        loop {
            let orders = {
                let mut orders = self.pushes.orders.lock();
                let has_work = !orders.list.is_empty() || orders.has_new_blocks || orders.is_stopping || left == Left::Work;
                match left {
                    _ if has_work => {}
                    Left::Waiting => drop(self.pushes.is_ordered.wait_for(&mut orders, EVENT_RETRY)),
                    _ => self.pushes.is_ordered.wait(&mut orders),
                }
                if orders.is_stopping {
                    return;
                }
                orders.has_new_blocks = false;
                std::mem::take(&mut orders.list)
            };
            for order in orders {
                match order {
                    Order::Subscribe(session, sequence, request) => self.add_filter(&mut feed, session, sequence, request),
                    Order::Cancel(session, group, id) => feed.cancel(session, group, &id),
                    Order::Forget(session) => feed.forget(session),
                }
            }
            left = feed.turn(self, Instant::now());
        }
    }

    /// Adds a subscription and answers, before any push of it.
    fn add_filter(&self, feed: &mut Feed, id: SessionId, sequence: Sequence, request: Request) {
        let Some(session) = self.session(id) else { return };
        let group = request.group;
        let outcome = match self.parts.node.ledger(group) {
            None => Err(code::NO_GROUP),
            Some(_) if !self.may_see(&session, group) => Err(code::NOT_ALLOWED),
            Some(ledger) => {
                let max_blocks = self.parts.max_block_range.get(&group).copied().unwrap_or(0);
                let range = request.range((ledger.kept_from(), ledger.head().number), max_blocks);
                range.and_then(|range| feed.subscribe(id, request, range, Instant::now()))
            }
        };
        self.send(&session, &event_reply(kind::EVENT_SUBSCRIBE, sequence, outcome.err().unwrap_or(code::OK)));
    }
}

fn read(ledger: Option<&dyn LedgerView>, number: u64) -> Option<Arc<Block>> {
    match ledger?.block(number) {
        Ok(block) => block,
        Err(error) => {
            tracing::error!(%error, number, "a block cannot be read; its receipts are not pushed");
            None
        }
    }
}

impl Surroundings for Hub {
    fn ledger(&self, group: GroupId) -> Option<Arc<dyn LedgerView>> {
        self.parts.node.ledger(group)
    }

    fn readiness(&self, session: SessionId, group: GroupId) -> Readiness {
        match self.session(session) {
            Some(session) if self.may_see(&session, group) => match self.wire.queued_bytes(session.id) < EVENT_QUEUE_BYTES {
                true => Readiness::Ready,
                false => Readiness::Full,
            },
            _ => Readiness::Gone,
        }
    }

    fn push(&self, session: SessionId, frame: Frame) {
        self.send_to(session, &frame);
    }
}
