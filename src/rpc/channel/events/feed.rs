//! Serves event subscriptions from the chain: a few blocks of each in turn, so that a walk through history holds up nobody.
//!
//! Logs are read from the chain, never queued: a client that does not read is passed over until it does, and then misses nothing. A log is
//! written as JSON once for all subscriptions that meet it in a turn.
//! Invariant: each log of a range is pushed once, blocks in order; the completion comes behind the last log, and a subscription whose next
//! block is not kept any more ends with an error instead; none comes sooner than [`FIRST_PUSH_DELAY`] behind the subscription's reply. Run
//! by [`super::super::hub`] on a thread of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use millrace_base::GroupId;
use millrace_ledger::view::LedgerView;

use super::request::{Range, Request};
use super::written::{Written, WrittenBlock};
use super::{Matcher, code};
use crate::channel::frame::{Frame, kind};
use crate::channel::topics::SessionId;
use crate::limits::{EVENT_PUSH_BYTES, FILTER_TURN_BLOCKS, FIRST_PUSH_DELAY, MAX_FILTERS, MAX_SESSION_FILTERS};

/// One subscription.
struct Filter {
    session: SessionId,
    id: String,
    group: GroupId,
    matcher: Matcher,
    next: u64,
    last: Option<u64>,
    starts: Instant,
}

/// All subscriptions.
#[derive(Default)]
pub struct Feed {
    filters: VecDeque<Filter>,
    counts: BTreeMap<SessionId, usize>,
}

/// What a feed needs of the node and of the sessions.
pub trait Surroundings {
    /// A group's chain.
    fn ledger(&self, group: GroupId) -> Option<Arc<dyn LedgerView>>;
    /// How a session stands towards a push about a group.
    fn readiness(&self, session: SessionId, group: GroupId) -> Readiness;
    /// Queues a push.
    fn push(&self, session: SessionId, frame: Frame);
}

/// How a session stands towards a push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// It may be sent to.
    Ready,
    /// It has not read what it was sent.
    Full,
    /// It is gone, or may no longer see the group.
    Gone,
}

/// What a turn left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Every subscription is at the head.
    Nothing,
    /// Blocks are there to be served.
    Work,
    /// All that is left waits for clients to read, or for new subscriptions to start.
    Waiting,
}

impl Feed {
    /// Adds a subscription made at `now`; refused with a [`code`] when there are too many.
    pub fn subscribe(&mut self, session: SessionId, request: Request, range: Range, now: Instant) -> Result<(), i32> {
        let count = self.counts.entry(session).or_default();
        if *count >= MAX_SESSION_FILTERS || self.filters.len() >= MAX_FILTERS {
            return Err(code::INVALID_REQUEST);
        }
        *count += 1;
        let Request { group, id, matcher, .. } = request;
        let starts = now + FIRST_PUSH_DELAY;
        self.filters.push_back(Filter { session, id, group, matcher, next: range.first, last: range.last, starts });
        Ok(())
    }

    /// Removes a session's subscriptions of this name; other sessions keep theirs, whatever they call them.
    pub fn cancel(&mut self, session: SessionId, group: GroupId, id: &str) {
        self.retain(|filter| filter.session != session || filter.group != group || filter.id != id);
    }

    /// Removes all subscriptions of a session.
    pub fn forget(&mut self, session: SessionId) {
        self.retain(|filter| filter.session != session);
    }

    fn retain(&mut self, keep: impl Fn(&Filter) -> bool) {
        self.filters.retain(keep);
        self.counts.clear();
        for filter in &self.filters {
            *self.counts.entry(filter.session).or_default() += 1;
        }
    }

    /// Gives each subscription one turn.
    pub fn turn(&mut self, around: &dyn Surroundings, now: Instant) -> Left {
        let mut left = Left::Nothing;
        let mut ended = Vec::new();
        let mut heads = BTreeMap::new();
        let mut written = Written::default();
        for _ in 0..self.filters.len() {
            let Some(mut filter) = self.filters.pop_front() else { break };
            let ledger =
                heads.entry(filter.group).or_insert_with(|| around.ledger(filter.group).map(|ledger| (ledger.head().number, ledger)));
            // A group that is stopped may come back; its subscriptions wait.
            let Some((head, ledger)) = ledger else {
                self.filters.push_back(filter);
                continue;
            };
            if filter.next > *head {
                self.filters.push_back(filter);
                continue;
            }
            match around.readiness(filter.session, filter.group) {
                Readiness::Gone => {
                    ended.push(filter.session);
                    continue;
                }
                Readiness::Full => left = if left == Left::Work { left } else { Left::Waiting },
                Readiness::Ready if now < filter.starts => left = if left == Left::Work { left } else { Left::Waiting },
                Readiness::Ready => match filter.serve((ledger.as_ref(), *head), &mut written, around) {
                    Served::Complete => {
                        ended.push(filter.session);
                        continue;
                    }
                    Served::Stuck => left = if left == Left::Work { left } else { Left::Waiting },
                    Served::Some => left = if filter.next <= *head { Left::Work } else { left },
                },
            }
            self.filters.push_back(filter);
        }
        for session in ended {
            if let Some(count) = self.counts.get_mut(&session) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&session);
                }
            }
        }
        left
    }
}

/// What a turn did for one subscription.
enum Served {
    /// The subscription has ended: its range is complete, or cannot be served.
    Complete,
    /// Blocks were looked at.
    Some,
    /// A block that should be there cannot be read now.
    Stuck,
}

impl Filter {
    /// Serves a few blocks.
    fn serve(&mut self, (ledger, head): (&dyn LedgerView, u64), written: &mut Written, around: &dyn Surroundings) -> Served {
        let start = self.next;
        if start > 0 && start < ledger.kept_from() {
            around.push(self.session, ending(&self.id, code::INVALID_RANGE));
            return Served::Complete;
        }
        let end = head.min(self.last.unwrap_or(u64::MAX)).min(self.next.saturating_add(FILTER_TURN_BLOCKS - 1));
        let mut push = Push::new(&self.id);
        while self.next <= end {
            let Some(block) = written.block(ledger, self.next) else { break };
            push.block(block, &self.matcher, |frame| around.push(self.session, frame));
            self.next += 1;
        }
        push.end(|frame| around.push(self.session, frame));
        if self.last.is_some_and(|last| self.next > last) {
            around.push(self.session, ending(&self.id, code::COMPLETE));
            return Served::Complete;
        }
        if self.next == start { Served::Stuck } else { Served::Some }
    }
}

/// A push being put together.
struct Push<'a> {
    id: &'a str,
    body: Vec<u8>,
    count: usize,
}

impl<'a> Push<'a> {
    fn new(id: &'a str) -> Self {
        Self { id, body: Vec::new(), count: 0 }
    }

    fn block(&mut self, block: &WrittenBlock, matcher: &Matcher, mut send: impl FnMut(Frame)) {
        block.each_log(matcher, |log| {
            self.add(log);
            if self.body.len() >= EVENT_PUSH_BYTES {
                self.end(&mut send);
            }
        });
    }

    fn add(&mut self, log: &[u8]) {
        if self.count == 0 {
            self.body.extend_from_slice(b"{\"filterID\":");
            serde_json::to_writer(&mut self.body, self.id).expect("writing to memory cannot fail");
            self.body.extend_from_slice(b",\"logs\":[");
        } else {
            self.body.push(b',');
        }
        self.body.extend_from_slice(log);
        self.count += 1;
    }

    fn end(&mut self, mut send: impl FnMut(Frame)) {
        if self.count > 0 {
            self.body.extend_from_slice(b"],\"result\":0}\n");
            send(Frame::unasked(kind::EVENT_PUSH, std::mem::take(&mut self.body)));
            self.count = 0;
        }
    }
}

/// The push that ends a subscription.
fn ending(id: &str, code: i32) -> Frame {
    let body = format!("{{\"filterID\":{},\"logs\":null,\"result\":{code}}}\n", serde_json::Value::from(id));
    Frame::unasked(kind::EVENT_PUSH, body.into_bytes())
}
