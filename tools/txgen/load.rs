//! Connections that send the supply of one group: closed loop (as fast as the window allows) or open loop (at fixed times).
//!
//! Closed loop: what the node refuses because it is busy is sent again after a pause that doubles. Open loop: it is counted and dropped,
//! the schedule goes on. What a node failed with, or had taken and not committed when it went down, is sent again as the same bytes, to
//! another node while there is one; that it is known there is success.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::B256;
use millrace_base::status::TransactionStatus;

use crate::client::{Answer, ClientError, RpcError};
use crate::door::{Doors, Line};
use crate::setup::Group;
use crate::supply::{Prepared, Supply};
use crate::tracker::{HasRoom, Outlook, Phase};

/// First and last pause after a refusal by a busy node.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Signatures of one transaction with ever newer block limits.
const MAX_RENEWALS: u32 = 3;

/// Code under which failed connection attempts are counted.
const UNREACHABLE: &str = "unreachable";

/// JSON-RPC code with which a node limits the rate of requests.
const OVER_RATE_LIMIT: i64 = -40011;

/// The schedule of an open loop: batch k is due at `start + k * interval`, whoever sends it.
pub struct Pace {
    start: Instant,
    interval_s: f64,
    next: AtomicU64,
}

impl Pace {
    /// `rate` transactions a second in batches of `batch`.
    pub fn new(rate: f64, batch: usize) -> Self {
        Self { start: Instant::now(), interval_s: batch as f64 / rate, next: AtomicU64::new(0) }
    }

    /// Takes the next place in the schedule and waits for it. Returns when it was due, which may be past.
    fn wait_for_turn(&self) -> Instant {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.start + Duration::from_secs_f64(turn as f64 * self.interval_s);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due
    }
}

/// What ends a phase early.
#[derive(Clone, Copy, Default)]
pub struct End<'a> {
    /// A moment.
    pub at: Option<Instant>,
    /// A file that begins to exist.
    pub file: Option<&'a Path>,
}

impl End<'_> {
    fn is_reached(&self) -> bool {
        self.at.is_some_and(|at| Instant::now() >= at) || self.file.is_some_and(Path::exists)
    }
}

/// One phase of the load on one group.
pub struct Load<'a> {
    /// The group.
    pub group: &'a Group,
    /// What to send.
    pub supply: &'a Supply,
    /// Which part of the run.
    pub phase: Phase,
    /// How nodes are reached.
    pub doors: &'a Doors,
    /// Open loop's schedule; closed loop without.
    pub pace: Option<Pace>,
    /// Transactions in a request.
    pub batch: usize,
    /// Closed loop: transactions in flight.
    pub window: usize,
    /// When to stop, whatever is left.
    pub end: End<'a>,
    /// Time without progress after which the load is given up.
    pub patience: Duration,
}

/// What came of one request.
#[derive(Default)]
struct Outcome {
    acknowledged: Vec<B256>,
    /// To be sent again.
    again: Vec<Prepared>,
    /// Refusals and failures by code.
    errors: BTreeMap<String, u64>,
    /// The node asked for a pause, or could not be reached.
    is_busy: bool,
}

impl Outcome {
    fn error(&mut self, code: &str) {
        *self.errors.entry(code.to_owned()).or_default() += 1;
    }
}

impl<'a> Load<'a> {
    /// Sends everything over `connections` connections, at least one a lane; returns when each transaction has an outcome. The lines are to
    /// be kept until receipts are settled.
    pub fn run(&self, connections: usize) -> Vec<Line<'a>> {
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..connections.max(self.supply.lanes()))
                .map(|index| {
                    let lane = index % self.supply.lanes();
                    let line = Line::new(self.group, self.doors, lane);
                    scope.spawn(move || self.connection(lane, line))
                })
                .collect();
            self.supply.keep_filled(|ids| self.group.make_many(self.phase, ids));
            senders.into_iter().map(|sender| sender.join().expect("a sender does not panic")).collect()
        })
    }

    fn connection(&self, lane: usize, mut line: Line<'a>) -> Line<'a> {
        let mut busy_since: Option<Instant> = None;
        let mut pause = PAUSE;
        loop {
            let due = self.pace.as_ref().map(Pace::wait_for_turn);
            self.take_over();
            if self.end.is_reached() {
                self.supply.close();
            }
            let mut batch = self.supply.take(lane, self.batch);
            if batch.is_empty() {
                return line;
            }
            let taken = batch.len();
            if due.is_none() && !self.group.tracker.take_room(taken, self.window, self.patience) {
                self.supply.give_back(taken, batch);
                self.give_up("no transaction in flight was committed");
                return line;
            }
            let height = self.group.tracker.height();
            batch.iter_mut().for_each(|item| self.group.signer.refresh(item, height));
            let outcome = self.send(&mut line, batch, due);
            let (is_busy, has_success) = (outcome.is_busy, !outcome.acknowledged.is_empty());
            let has_more = !outcome.again.is_empty();
            self.supply.give_back(taken, outcome.again);
            if has_success || !is_busy {
                (busy_since, pause) = (None, PAUSE);
            }
            if is_busy && (due.is_none() || has_more) {
                if busy_since.get_or_insert_with(Instant::now).elapsed() > self.patience {
                    self.give_up("the node accepted nothing");
                    return line;
                }
                let has_other = !self.group.nodes[line.node()].is_down();
                std::thread::sleep(if has_other && due.is_some() { Duration::ZERO } else { pause });
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// What nodes that went down had acknowledged and not committed goes back to the supply, once a failure.
    fn take_over(&self) {
        for (index, node) in self.group.nodes.iter().enumerate() {
            if self.group.has_new_failure(index, node.failures()) {
                self.supply.give_back(0, self.group.tracker.orphans(Some(index)));
            }
        }
    }

    fn give_up(&self, why: &str) {
        self.supply.close();
        let (group, seconds) = (self.group.id, self.patience.as_secs());
        self.group.tracker.problem(format!("group {group}: {why} for {seconds} s; {} left unsent", self.supply.remaining()));
    }

    fn send(&self, line: &mut Line<'a>, mut batch: Vec<Prepared>, due: Option<Instant>) -> Outcome {
        let has_room = if due.is_none() { HasRoom::Yes } else { HasRoom::No };
        let node = line.node();
        let failures = self.group.nodes[node].failures();
        let (sent, resent) = (batch.len() as u64, batch.iter().filter(|item| item.is_resent).count() as u64);
        if let Some(due) = due {
            batch.iter_mut().for_each(|item| item.due = item.due.or(Some(due)));
        }
        self.group.tracker.sent(&batch, Instant::now(), self.phase, has_room, node);
        let answers = line.submit(node, &batch);
        let now = Instant::now();
        let outcome = match answers {
            Ok(answers) => self.sort(batch, answers),
            Err(ClientError::Http(status @ (429 | 503))) => self.all_busy(batch, &format!("http {status}")),
            Err(ClientError::Unreachable(_)) => self.unreachable(batch),
            Err(error) => {
                let code = match error {
                    ClientError::Http(status) => format!("http {status}"),
                    ClientError::Protocol(_) => "not json-rpc".to_owned(),
                    _ => "connection".to_owned(),
                };
                let mut outcome = Outcome { is_busy: true, ..Outcome::default() };
                batch.into_iter().for_each(|item| self.unknown(item, &code, &mut outcome));
                outcome
            }
        };
        self.group.tracker.acknowledged(&outcome.acknowledged, now);
        if self.group.nodes[node].failures() != failures {
            // It failed meanwhile, and what it had may have been taken over before this answer was noted.
            self.supply.give_back(0, self.group.tracker.orphans(Some(node)));
        }
        if self.phase == Phase::Measured {
            self.group.nodes[node].note(|record| {
                record.submitted += sent;
                record.resent += resent;
                record.acknowledged += outcome.acknowledged.len() as u64;
                outcome.errors.iter().for_each(|(code, count)| *record.errors.entry(code.clone()).or_default() += count);
            });
        }
        outcome
    }

    /// The node may have it: from now on its bytes are fixed.
    fn unknown(&self, mut item: Prepared, code: &str, outcome: &mut Outcome) {
        outcome.error(code);
        self.group.tracker.unknown(&[item.hash], code);
        item.is_resent = true;
        outcome.again.push(item);
    }

    fn all_busy(&self, batch: Vec<Prepared>, code: &str) -> Outcome {
        let mut outcome = Outcome { is_busy: true, ..Outcome::default() };
        batch.into_iter().for_each(|item| self.busy(item, code, &mut outcome));
        outcome
    }

    /// Nothing left for the node. The schedule of an open loop does not drop it: the delay counts from the moment it was due.
    fn unreachable(&self, batch: Vec<Prepared>) -> Outcome {
        let mut outcome = Outcome { is_busy: true, ..Outcome::default() };
        for item in batch {
            if item.is_resent {
                self.unknown(item, UNREACHABLE, &mut outcome);
            } else {
                outcome.error(UNREACHABLE);
                self.group.tracker.refused(&item.hash, UNREACHABLE, Outlook::SentAgain);
                outcome.again.push(item);
            }
        }
        outcome
    }

    fn busy(&self, mut item: Prepared, code: &str, outcome: &mut Outcome) {
        outcome.is_busy = true;
        if item.is_resent {
            return self.unknown(item, code, outcome);
        }
        outcome.error(code);
        item.due = None;
        let outlook = if self.pace.is_none() { Outlook::SentAgain } else { Outlook::GivenUp };
        self.group.tracker.refused(&item.hash, code, outlook);
        if outlook == Outlook::SentAgain {
            outcome.again.push(item);
        }
    }

    /// Gives each transaction its answer, by id: a node may answer a batch in any order.
    fn sort(&self, batch: Vec<Prepared>, answers: Vec<Answer>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut waiting: Vec<Option<Prepared>> = batch.into_iter().map(Some).collect();
        for (index, answer) in answers.into_iter().enumerate() {
            let Some(id) = answer.id else {
                let error = answer.outcome.err().unwrap_or_default();
                waiting.iter_mut().filter_map(Option::take).for_each(|item| self.refused(item, &error, &mut outcome));
                break;
            };
            let is_its = |item: &Option<Prepared>| item.as_ref().is_some_and(|item| item.id == id);
            let place = if waiting.get(index).is_some_and(is_its) { Some(index) } else { waiting.iter().position(is_its) };
            let Some(item) = place.and_then(|place| waiting[place].take()) else { continue };
            match answer.outcome {
                Ok(result) => self.accepted(&item, result.get(), &mut outcome),
                Err(error) => self.refused(item, &error, &mut outcome),
            }
        }
        let unanswered: Vec<Prepared> = waiting.into_iter().flatten().collect();
        outcome.is_busy |= !unanswered.is_empty();
        unanswered.into_iter().for_each(|item| self.unknown(item, "unanswered", &mut outcome));
        outcome
    }

    fn accepted(&self, item: &Prepared, result: &str, outcome: &mut Outcome) {
        if result.trim_matches('"').parse::<B256>() != Ok(item.hash) {
            self.group.tracker.problem(format!("the node returned {result} for the transaction {}", item.hash));
        }
        outcome.acknowledged.push(item.hash);
    }

    fn refused(&self, mut item: Prepared, error: &RpcError, outcome: &mut Outcome) {
        let code = error.count_key();
        if error.code == OVER_RATE_LIMIT {
            return self.busy(item, &code, outcome);
        }
        let refusal = error.refusal();
        if item.is_resent && refusal.is_some_and(is_known_already) {
            return outcome.acknowledged.push(item.hash);
        }
        match refusal {
            Some(TransactionStatus::TxPoolIsFull | TransactionStatus::OverGroupMemoryLimit | TransactionStatus::TransactionRefused) => {
                self.busy(item, &code, outcome);
            }
            // Another node may have it all the same: the end of the run tells.
            _ if item.is_resent => {
                outcome.error(&code);
                self.group.tracker.unknown(&[item.hash], &code);
            }
            Some(TransactionStatus::BlockLimitCheckFail) if item.refusals < MAX_RENEWALS => {
                outcome.error(&code);
                self.group.tracker.refused(&item.hash, &code, Outlook::SentAgain);
                item.refusals += 1;
                item.block_limit = 0;
                outcome.again.push(item);
            }
            _ => {
                outcome.error(&code);
                self.group.tracker.refused(&item.hash, &code, Outlook::GivenUp);
            }
        }
    }
}

/// Whether a refusal says that the node has the transaction. Nonces of a run are never used twice, so a used one is its own.
fn is_known_already(status: TransactionStatus) -> bool {
    matches!(status, TransactionStatus::AlreadyKnown | TransactionStatus::AlreadyInChain | TransactionStatus::NonceCheckFail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_schedule_when_turns_are_late() {
        let pace = Pace::new(1_000.0, 10);
        let first = pace.wait_for_turn();
        std::thread::sleep(Duration::from_millis(35));
        let dues: Vec<Duration> = (0..3).map(|_| pace.wait_for_turn() - first).collect();
        assert_eq!(dues, [10, 20, 30].map(Duration::from_millis));
    }
}
