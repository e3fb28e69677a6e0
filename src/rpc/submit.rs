//! Hands the raw transactions of one body to the node as one call and gathers the replies without holding a thread.
//!
//! Invariant: every submission gets an outcome, also when the node drops a reply without calling it or is slower than the time limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use millrace_base::{B256, Bytes, GroupId};
use millrace_ledger::view::{NodeView, Submission, SubmitError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::envelope::{Answer, Outcome};
use crate::error::RpcError;
use crate::gateway::Front;

/// A raw transaction of a body.
pub struct Raw {
    /// Group it is addressed to.
    pub group: GroupId,
    /// Signed RLP.
    pub bytes: Bytes,
    /// Its hash, where the front was told of it.
    pub announced: Option<B256>,
}

/// Replies as they come in; the last one wakes the waiting task.
struct Gathering {
    results: Box<[OnceLock<Result<B256, SubmitError>>]>,
    missing: AtomicUsize,
    complete: Notify,
}

/// The right to answer one submission. Dropping it counts as an answer too.
struct Ticket {
    gathering: Arc<Gathering>,
    position: usize,
}

impl Ticket {
    fn answer(self, result: Result<B256, SubmitError>) {
        // The node calls a reply once; a second value could only come from a second ticket, which does not exist.
        let _ = self.gathering.results[self.position].set(result);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.gathering.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gathering.complete.notify_one();
        }
    }
}

/// Submits all for a caller (its number and its front) and waits until each is answered, at most until `deadline`. Outcomes are in the
/// order of `raws`.
pub async fn submit(node: &dyn NodeView, (submitter, front): (u64, Option<&dyn Front>), raws: &[Raw], deadline: Instant) -> Vec<Outcome> {
    let gathering = Arc::new(Gathering {
        results: raws.iter().map(|_| OnceLock::new()).collect(),
        missing: AtomicUsize::new(raws.len()),
        complete: Notify::new(),
    });
    let submissions = raws.iter().enumerate().map(|(position, raw)| {
        let ticket = Ticket { gathering: Arc::clone(&gathering), position };
        Submission { group: raw.group, submitter, raw: raw.bytes.clone(), reply: Box::new(move |result| ticket.answer(result)) }
    });
    node.submit(submissions.collect());
    let in_time = timeout_at(deadline, gathering.complete.notified()).await.is_ok();
    let missing = if in_time {
        "the node gave no answer; the transaction may still be committed"
    } else {
        "no answer in time; the transaction may still be committed"
    };
    let outcome = |(raw, result): (&Raw, &OnceLock<Result<B256, SubmitError>>)| {
        let error = match result.get() {
            Some(Ok(hash)) => return Ok(Answer::Hash(*hash)),
            Some(Err(error)) => Some(error),
            None => None,
        };
        if let Some((front, hash)) = front.zip(raw.announced)
            && front.on_refused(raw.group, hash, error)
        {
            return Ok(Answer::Hash(hash));
        }
        Err(error.map_or_else(|| RpcError::unavailable(missing), |error| RpcError::submission(error, &raw.bytes)))
    };
    raws.iter().zip(&gathering.results).map(outcome).collect()
}
