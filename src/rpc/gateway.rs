//! Answers one body of JSON-RPC, single or batch, whatever transport carried it.
//!
//! Order of work in a body: all raw transactions go to the node as one call; when they are answered, everything else runs, on one query
//! worker if any of it reads storage. So a query in the same batch sees the pool as the transactions left it. No runtime thread waits for
//! storage or execution; the number of queries running and waiting is bounded. Called by [`crate::http`] and, with a [`Front`], by [`crate::channel`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_base::limits::MAX_RPC_BATCH;
use millrace_base::{B256, GroupId, RawTx};
use millrace_ledger::view::{NodeView, SubmitError};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::channel::topics::TopicBoard;
use crate::envelope::{self, Answer, Call, Incoming, Outcome, Request};
use crate::error::RpcError;
use crate::lenient::{self, Shape, TooDeep};
use crate::limits::{LARGE_BODY_BYTES, MAX_PEER_ARGUMENTS, MAX_REPLY_BYTES, MAX_WAITING_QUERIES, REQUEST_TIME_LIMIT};
use crate::methods::{self, Context, Handler, Management, Membership, Run};
use crate::params::{self, Arguments};
use crate::quota::Quotas;
use crate::submit::{self, Raw};

/// The reference node's answer to a body nested too deeply; no JSON, by its own mistake, and known to test suites.
const TOO_DEEP: &[u8] = b"ERROR while handleRequest:Exceeded stackLimit in readValue().";

/// How the gateway works.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Whether group methods answer on nodes that are not members (`rpc.act_as_group_member`).
    pub membership: Membership,
    /// Whether this door takes requests that change groups and peers.
    pub management: Management,
    /// Peers that one `addPeers` or `erasePeers` may name (`p2p.peers_param_limit`).
    pub peers_a_request: usize,
    /// Bodies whose queries run at the same time.
    pub query_workers: usize,
    /// Time for all requests of a body.
    pub time_limit: Duration,
    /// Rates, shared by all gateways of a node.
    pub quotas: Arc<Quotas>,
    /// AMOP topics that `getNodeInfo` and `getPeers` show: the channel server's board, shared by all gateways of a node.
    pub topics: TopicBoard,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            membership: Membership::Required,
            management: Management::Forbidden,
            peers_a_request: MAX_PEER_ARGUMENTS,
            query_workers: 8,
            time_limit: REQUEST_TIME_LIMIT,
            quotas: Arc::default(),
            topics: TopicBoard::default(),
        }
    }
}

/// What a transport adds to JSON-RPC: who may ask what, and interest in what becomes of transactions.
pub trait Front: Send + Sync {
    /// Whether a method may be asked. `group` is the one addressed, where the method has one (`spec/client-protocol.md` 3.9).
    fn admit(&self, method: &str, group: Option<GroupId>) -> Result<(), RpcError>;
    /// A transaction is about to be submitted; an error refuses it.
    fn on_submission(&self, group: GroupId, hash: B256, receipt: Receipt) -> Result<(), RpcError>;
    /// A transaction that was announced is not in the pool, or nobody knows (no error). True answers with its hash all the same.
    fn on_refused(&self, group: GroupId, hash: B256, error: Option<&SubmitError>) -> bool;
}

/// What a client wants to hear of its transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receipt {
    /// The receipt.
    Plain,
    /// The receipt with Merkle proofs of it and of the transaction.
    Proven,
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The same number for the same client.
    pub submitter: u64,
    /// What the transport adds; nothing over HTTP.
    pub front: Option<&'a dyn Front>,
}

/// See the module.
pub struct Gateway {
    context: Arc<Context>,
    quotas: Arc<Quotas>,
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    time_limit: Duration,
}

/// A request whose method and parameters are known to fit, kept apart from the body it came in.
struct Query {
    position: usize,
    run: Handler,
    method: &'static methods::Method,
    params: Option<Box<RawValue>>,
}

/// What is known about the requests of a body after looking at all of them, before any of them ran.
struct Plan<'a> {
    /// Id and, where decided already, outcome of each request.
    replies: Vec<(Option<&'a RawValue>, Option<Outcome>)>,
    raws: Vec<Raw>,
    /// Position of the request of each raw transaction.
    raw_positions: Vec<usize>,
    queries: Vec<Query>,
    reads_storage: bool,
}

impl Gateway {
    /// A gateway to `node`.
    pub fn new(node: Arc<dyn NodeView>, config: &GatewayConfig) -> Self {
        Self {
            context: Arc::new(Context {
                node,
                membership: config.membership,
                management: config.management,
                peers_a_request: config.peers_a_request,
                topics: config.topics.clone(),
            }),
            quotas: Arc::clone(&config.quotas),
            workers: Arc::new(Semaphore::new(config.query_workers)),
            waiting: AtomicUsize::new(0),
            time_limit: config.time_limit,
        }
    }

    /// Answers a body. `submitter` is the same number for the same client. Must be called inside a multi-threaded tokio runtime.
    pub async fn answer(&self, body: &[u8], submitter: u64) -> Vec<u8> {
        self.answer_for(body, Caller { submitter, front: None }).await
    }

    /// Answers a body on behalf of a transport.
    pub async fn answer_for(&self, body: &[u8], caller: Caller<'_>) -> Vec<u8> {
        let cleaned;
        let parsed = off_duty(body.len(), || match lenient::shape(body, MAX_RPC_BATCH) {
            Shape::TooDeep => Err(TOO_DEEP.to_vec()),
            Shape::TooMany => Err(single(None, &Err(RpcError::BATCH_TOO_LONG))),
            Shape::Fits => Ok(envelope::parse(body)),
        });
        let incoming = match parsed {
            Err(refusal) => return refusal,
            Ok(Ok(incoming)) => incoming,
            Ok(Err(_)) => match off_duty(body.len(), || lenient::clean(body)) {
                Err(TooDeep) => return TOO_DEEP.to_vec(),
                Ok(strict) => {
                    cleaned = strict;
                    match envelope::parse(&cleaned) {
                        Ok(incoming) => incoming,
                        Err(_) => return single(None, &Err(RpcError::PARSE)),
                    }
                }
            },
        };
        match incoming {
            Incoming::TooLong => single(None, &Err(RpcError::BATCH_TOO_LONG)),
            Incoming::Batch(calls) if calls.is_empty() => single(None, &Err(RpcError::INVALID_REQUEST)),
            Incoming::Batch(calls) => {
                let replies = self.run(calls, body.len(), caller).await;
                let mut out = Vec::with_capacity(2 + replies.iter().map(|(_, outcome)| length(outcome)).sum::<usize>());
                out.push(b'[');
                for (position, (id, outcome)) in replies.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    envelope::write(&mut out, *id, outcome);
                }
                out.extend_from_slice(b"]\n");
                out
            }
            Incoming::Single(call) => {
                let replies = self.run(vec![call], body.len(), caller).await;
                let (id, outcome) = &replies[0];
                single(*id, outcome)
            }
        }
    }

    /// Runs requests; outcomes are in the same order, with the ids to echo.
    async fn run<'a>(&self, calls: Vec<Call<'a>>, size: usize, caller: Caller<'_>) -> Vec<(Option<&'a RawValue>, Outcome)> {
        let deadline = Instant::now() + self.time_limit;
        let mut plan = off_duty(size, || self.plan(calls, caller.front));
        if !plan.raws.is_empty() {
            let outcomes = submit::submit(self.context.node.as_ref(), (caller.submitter, caller.front), &plan.raws, deadline).await;
            for (position, outcome) in plan.raw_positions.iter().zip(outcomes) {
                plan.replies[*position].1 = Some(outcome);
            }
        }
        if !plan.queries.is_empty() {
            let queries = std::mem::take(&mut plan.queries);
            let outcomes = if plan.reads_storage {
                self.run_on_worker(queries, deadline).await
            } else {
                run_queries(&self.context, queries, deadline)
            };
            match outcomes {
                Ok(outcomes) => {
                    for (position, outcome) in outcomes {
                        plan.replies[position].1 = Some(outcome);
                    }
                }
                Err(error) => {
                    for (_, outcome) in &mut plan.replies {
                        outcome.get_or_insert_with(|| Err(error.clone()));
                    }
                }
            }
        }
        let decided = |(id, outcome): (_, Option<Outcome>)| (id, outcome.expect("each request was decided, submitted or queried"));
        plan.replies.into_iter().map(decided).collect()
    }

    /// Looks up methods and checks parameters.
    fn plan<'a>(&self, calls: Vec<Call<'a>>, front: Option<&dyn Front>) -> Plan<'a> {
        let replies = Vec::with_capacity(calls.len());
        let mut plan = Plan { replies, raws: Vec::new(), raw_positions: Vec::new(), queries: Vec::new(), reads_storage: false };
        let mut addressed = None;
        for call in calls {
            let (id, outcome) = match call {
                Call::Invalid(id) => (id, Some(Err(RpcError::INVALID_REQUEST))),
                Call::Valid(request) => match self.plan_request(&request, &mut plan, (&mut addressed, front)) {
                    // The reference node forgets the id here, and clients know it.
                    Err(error) if error.code == RpcError::NOT_ALLOWED_CODE => (None, Some(Err(error))),
                    planned => (request.id, planned.err().map(Err)),
                },
            };
            plan.replies.push((id, outcome));
        }
        plan
    }

    /// An unknown method wins over a missing id, a missing id over wrong parameters.
    fn plan_request(
        &self,
        request: &Request<'_>,
        plan: &mut Plan<'_>,
        (addressed, front): (&mut Option<Addressed>, Option<&dyn Front>),
    ) -> Result<(), RpcError> {
        let method = methods::find(&request.method).ok_or(RpcError::METHOD_NOT_FOUND)?;
        if request.id.is_none() {
            return Err(RpcError::NOTIFICATION);
        }
        let group = method.guarded_group(request.params);
        if let Some(front) = front {
            front.admit(method.name, group)?;
        }
        if !self.quotas.admit(method.name, group) {
            return Err(RpcError::over_rate(method.name));
        }
        let position = plan.replies.len();
        let (run, reads_storage) = match method.run {
            Run::Submit => {
                let arguments = Arguments::check(method.shape, request.params)?;
                let group = self.addressed_group(arguments.integer(0), addressed)?;
                let bytes = params::data(arguments.text(1))?;
                // What does not decode is refused by the node, which words the refusal.
                let announced = front.and_then(|front| Some((front, RawTx::decode(&bytes).ok()?.hash())));
                if let Some((front, hash)) = announced {
                    front.on_submission(group, hash, method.receipt())?;
                }
                plan.raws.push(Raw { group, bytes, announced: announced.map(|(_, hash)| hash) });
                plan.raw_positions.push(position);
                return Ok(());
            }
            Run::Memory(run) => (run, false),
            Run::Storage(run) => (run, true),
        };
        plan.reads_storage |= reads_storage;
        plan.queries.push(Query { position, run, method, params: request.params.map(ToOwned::to_owned) });
        Ok(())
    }

    /// The group of a raw transaction, checked to run here with this node as a member. Batches name the same group again and again.
    fn addressed_group(&self, number: i32, last: &mut Option<Addressed>) -> Result<GroupId, RpcError> {
        if let Some(last) = last.as_ref().filter(|last| last.number == number) {
            return last.group.clone();
        }
        let group = self.context.member_ledger(number).map(|ledger| ledger.group());
        *last = Some(Addressed { number, group: group.clone() });
        group
    }

    /// Runs queries on a worker thread. An error concerns all of them.
    async fn run_on_worker(&self, queries: Vec<Query>, deadline: Instant) -> Result<Vec<(usize, Outcome)>, RpcError> {
        let busy = || RpcError::unavailable("too many requests are running; try again");
        let permit = match Arc::clone(&self.workers).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting).ok_or_else(busy)?;
                let acquired = timeout_at(deadline, Arc::clone(&self.workers).acquire_owned()).await;
                acquired.map_err(|_| busy())?.expect("the semaphore is never closed")
            }
        };
        let context = Arc::clone(&self.context);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            run_queries(&context, queries, deadline)
        });
        match timeout_at(deadline, work).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) => Err(RpcError::unavailable("the node is stopping")),
            Err(_) => Err(RpcError::unavailable("no answer in time; ask for less at once")),
        }
    }
}

/// The last group that a raw transaction of the body was addressed to.
struct Addressed {
    number: i32,
    group: Result<GroupId, RpcError>,
}

/// A place among the bodies that wait for a worker.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let place = Self(count);
        // On refusal dropping the place takes the increment back.
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING_QUERIES).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs queries one after the other; those behind the deadline or the size limit are refused.
fn run_queries(context: &Context, queries: Vec<Query>, deadline: Instant) -> Result<Vec<(usize, Outcome)>, RpcError> {
    let mut size = 0;
    let outcome = |query: Query| {
        let outcome = if size > MAX_REPLY_BYTES {
            Err(RpcError::unavailable("the replies of this batch are too long; split it"))
        } else if Instant::now() >= deadline {
            Err(RpcError::unavailable("no answer in time; ask for less at once"))
        } else {
            run_query(context, &query)
        };
        size += length(&outcome);
        (query.position, outcome)
    };
    Ok(queries.into_iter().map(outcome).collect())
}

/// A panic in a method is a bug of that method; it must not take the connection or the worker with it.
fn run_query(context: &Context, query: &Query) -> Outcome {
    let run = || {
        let arguments = Arguments::check(query.method.shape, query.params.as_deref())?;
        (query.run)(context, &arguments)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!(method = query.method.name, "a method panicked; its request is answered with an error");
        Err(RpcError::unavailable("internal failure; see the node's log"))
    })
}

fn length(outcome: &Outcome) -> usize {
    const FRAME: usize = 64;
    FRAME + outcome.as_ref().map_or_else(|error| error.message.len(), Answer::length)
}

fn single(id: Option<&RawValue>, outcome: &Outcome) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * length(outcome));
    envelope::write(&mut out, id, outcome);
    out.push(b'\n');
    out
}

/// Runs long computation so that the runtime hands this thread's other tasks to another one.
fn off_duty<T>(size: usize, work: impl FnOnce() -> T) -> T {
    if size > LARGE_BODY_BYTES { tokio::task::block_in_place(work) } else { work() }
}
