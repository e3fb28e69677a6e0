//! Connections that send the supply of one group: closed loop (as fast as the window allows) or open loop (at fixed times).
//!
//! Closed loop: what the node refuses because it is busy is sent again after a pause that doubles. Open loop: it is counted and dropped,
//! the schedule goes on. What may have reached the node is never sent twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::B256;
use millrace_base::status::TransactionStatus;

use crate::client::{Answer, Client, ClientError, RpcError, parse_answers};
use crate::setup::Group;
use crate::supply::{Prepared, Supply};
use crate::tracker::{HasRoom, Outlook, Phase};

/// First and last pause after a refusal by a busy node.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Signatures of one transaction with ever newer block limits.
const MAX_RENEWALS: u32 = 3;

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

/// One phase of the load on one group.
pub struct Load<'a> {
    /// The group.
    pub group: &'a Group,
    /// What to send.
    pub supply: &'a Supply,
    /// Which part of the run.
    pub phase: Phase,
    /// Open loop's schedule; closed loop without.
    pub pace: Option<Pace>,
    /// Transactions in a request.
    pub batch: usize,
    /// Closed loop: transactions in flight.
    pub window: usize,
    /// Time without progress after which the load is given up.
    pub patience: Duration,
}

/// What came of one request.
#[derive(Default)]
struct Outcome {
    acknowledged: Vec<B256>,
    /// To be sent again.
    again: Vec<Prepared>,
    /// The node asked for a pause, or could not be reached.
    is_busy: bool,
}

impl Load<'_> {
    /// Sends everything over `connections` connections, spread over the endpoints; returns when each transaction has an outcome.
    pub fn run(&self, connections: usize) {
        std::thread::scope(|scope| {
            for index in 0..connections {
                let url = &self.group.endpoints[index % self.group.endpoints.len()];
                scope.spawn(move || self.connection(&Client::new(url, self.patience)));
            }
            self.supply.keep_filled(|ids| self.group.make_many(self.phase, ids));
        });
    }

    fn connection(&self, client: &Client) {
        let mut busy_since: Option<Instant> = None;
        let mut pause = PAUSE;
        loop {
            let due = self.pace.as_ref().map(Pace::wait_for_turn);
            if due.is_none() && !self.group.tracker.take_room(self.batch, self.window, self.patience) {
                self.group.tracker.return_room(self.batch);
                return self.give_up("no transaction in flight was committed");
            }
            let mut batch = self.supply.take(self.batch);
            if due.is_none() {
                self.group.tracker.return_room(self.batch - batch.len());
            }
            if batch.is_empty() {
                return;
            }
            let taken = batch.len();
            let height = self.group.tracker.height();
            batch.iter_mut().for_each(|item| self.group.signer.refresh(item, height));
            let outcome = self.send(client, batch, due);
            let (is_busy, has_success) = (outcome.is_busy, !outcome.acknowledged.is_empty());
            self.supply.give_back(taken, outcome.again);
            if has_success || !is_busy {
                (busy_since, pause) = (None, PAUSE);
            }
            if is_busy && due.is_none() {
                if busy_since.get_or_insert_with(Instant::now).elapsed() > self.patience {
                    return self.give_up("the node accepted nothing");
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    fn give_up(&self, why: &str) {
        self.supply.close();
        let (group, seconds) = (self.group.id, self.patience.as_secs());
        self.group.tracker.problem(format!("group {group}: {why} for {seconds} s; {} left unsent", self.supply.remaining()));
    }

    fn send(&self, client: &Client, batch: Vec<Prepared>, due: Option<Instant>) -> Outcome {
        let body = body(&batch);
        let has_room = if due.is_none() { HasRoom::Yes } else { HasRoom::No };
        self.group.tracker.sent(&batch, due.unwrap_or_else(Instant::now), self.phase, has_room);
        let answers = client.post(body.as_bytes()).and_then(|answer| parse_answers(&answer));
        let now = Instant::now();
        let outcome = match answers {
            Ok(answers) => self.sort(batch, answers),
            Err(ClientError::Http(status @ (429 | 503))) => self.all_busy(batch, &format!("http {status}")),
            Err(ClientError::Unreachable(_)) => self.all_busy(batch, "unreachable"),
            Err(error) => {
                let code = match error {
                    ClientError::Http(status) => format!("http {status}"),
                    ClientError::Protocol(_) => "not json-rpc".to_owned(),
                    _ => "connection".to_owned(),
                };
                self.unknown(&batch, &code)
            }
        };
        self.group.tracker.acknowledged(&outcome.acknowledged, now);
        outcome
    }

    fn unknown(&self, batch: &[Prepared], code: &str) -> Outcome {
        let hashes: Vec<B256> = batch.iter().map(|item| item.hash).collect();
        self.group.tracker.unknown(&hashes, code);
        Outcome { is_busy: true, ..Outcome::default() }
    }

    fn all_busy(&self, batch: Vec<Prepared>, code: &str) -> Outcome {
        let mut outcome = Outcome { is_busy: true, ..Outcome::default() };
        for item in batch {
            self.busy(item, code, &mut outcome);
        }
        outcome
    }

    fn busy(&self, item: Prepared, code: &str, outcome: &mut Outcome) {
        outcome.is_busy = true;
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
        if !unanswered.is_empty() {
            self.unknown(&unanswered, "unanswered");
        }
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
        match error.refusal() {
            Some(TransactionStatus::TxPoolIsFull | TransactionStatus::OverGroupMemoryLimit | TransactionStatus::TransactionRefused) => {
                self.busy(item, &code, outcome);
            }
            Some(TransactionStatus::BlockLimitCheckFail) if item.refusals < MAX_RENEWALS => {
                self.group.tracker.refused(&item.hash, &code, Outlook::SentAgain);
                item.refusals += 1;
                item.block_limit = 0;
                outcome.again.push(item);
            }
            _ => self.group.tracker.refused(&item.hash, &code, Outlook::GivenUp),
        }
    }
}

/// One request alone, several as a batch.
fn body(batch: &[Prepared]) -> String {
    if let [only] = batch {
        return only.request.to_string();
    }
    let mut body = String::with_capacity(2 + batch.iter().map(|item| item.request.len() + 1).sum::<usize>());
    for (index, item) in batch.iter().enumerate() {
        body.push(if index == 0 { '[' } else { ',' });
        body.push_str(&item.request);
    }
    body.push(']');
    body
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

    #[test]
    fn a_single_request_is_no_batch() {
        let item = |id: u64| Prepared { id, request: format!("{{{id}}}").into(), ..Prepared::default() };
        assert_eq!(body(&[item(1)]), "{1}");
        assert_eq!(body(&[item(1), item(2)]), "[{1},{2}]");
    }
}
