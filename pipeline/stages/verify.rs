//! Verify: decodes raw transactions, refuses what cheap checks refuse, recovers the senders of the rest, and puts them into the pool.
//!
//! The only place where a client's signature is checked. Several workers share the stage's lanes; each transaction is recovered once.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_access::txpool::Submitter;
use millrace_access::verifier::SignatureVerifier;
use millrace_base::clock::Clock;
use millrace_base::crypto::is_recoverable;
use millrace_base::transaction::DecodeError;
use millrace_base::{B256, GroupId, RawTx, VerifiedTx};
use millrace_ledger::Ledger;
use millrace_ledger::view::{SubmitError, SubmitReply};

use crate::messages::{Incoming, Source, ToOrder, ToSync};
use crate::runtime::{Batch, Sender, Stage};

/// A decoded transaction that waits for its signature to be checked.
struct Waiting {
    ledger: Arc<Ledger>,
    submitter: Submitter,
    source: Source,
    reply: SubmitReply,
}

/// See the module.
pub struct VerifyStage {
    signatures: Box<dyn SignatureVerifier>,
    order: Sender<ToOrder>,
    sync: Sender<ToSync>,
    clock: Arc<dyn Clock>,
    raw: Vec<(RawTx, B256)>,
    waiting: Vec<Waiting>,
}

impl VerifyStage {
    /// One worker.
    pub fn new(signatures: Box<dyn SignatureVerifier>, order: Sender<ToOrder>, sync: Sender<ToSync>, clock: Arc<dyn Clock>) -> Self {
        Self { signatures, order, sync, clock, raw: Vec::new(), waiting: Vec::new() }
    }

    /// Decodes and runs every check that needs no signature.
    fn check(&mut self, incoming: Incoming) {
        let Incoming { ledger, submission, source } = incoming;
        ledger.ingress().leave(submission.raw.len());
        let submitter = Submitter(submission.submitter);
        let checked = match ledger.halted() {
            Some(reason) => Err(SubmitError::Busy(format!("group {} has halted: {reason}", ledger.id()))),
            None => decode_and_check(&ledger, &submission.raw, submitter),
        };
        match checked {
            Ok(decoded) => {
                self.raw.push(decoded);
                self.waiting.push(Waiting { ledger, submitter, source, reply: submission.reply });
            }
            Err(error) => (submission.reply)(Err(error)),
        }
    }

    fn admit(&mut self) {
        let now_ms = self.clock.now_ms();
        let verified = self.signatures.recover_batch(std::mem::take(&mut self.raw));
        let mut fresh: BTreeMap<GroupId, Vec<VerifiedTx>> = BTreeMap::new();
        for (result, Waiting { ledger, submitter, source, reply }) in verified.into_iter().zip(self.waiting.drain(..)) {
            let outcome = result.map_err(|_| SubmitError::Decode(DecodeError::Signature)).and_then(|transaction| {
                let hash = transaction.hash();
                ledger.pool().admit(transaction.clone(), submitter, now_ms).map_err(SubmitError::Refused)?;
                if source == Source::Client {
                    fresh.entry(ledger.id()).or_default().push(transaction);
                }
                Ok(hash)
            });
            if outcome.is_ok() && ledger.request_wake() {
                let _ = self.order.send(ToOrder::Wake(ledger.id()));
            }
            reply(outcome);
        }
        for (group, transactions) in fresh {
            // What finds no room reaches the sealers by the sync stage's repair.
            let _ = self.sync.send(ToSync::Admitted { group, transactions });
        }
    }
}

fn decode_and_check(ledger: &Ledger, raw: &[u8], submitter: Submitter) -> Result<(RawTx, B256), SubmitError> {
    let raw = RawTx::decode(raw).map_err(SubmitError::Decode)?;
    let hash = raw.hash();
    match ledger.pool().precheck(&raw, hash, submitter) {
        Ok(()) => Ok((raw, hash)),
        // The reference node's decoder reports such a signature before its pool has a say (correction 35 of the recordings).
        Err(_) if !is_recoverable(raw.signature()) => Err(SubmitError::Decode(DecodeError::Signature)),
        Err(refusal) => Err(SubmitError::Refused(refusal)),
    }
}

impl Stage for VerifyStage {
    type Input = Incoming;

    fn handle(&mut self, batch: &mut Batch<Incoming>) {
        for incoming in batch.drain(..) {
            self.check(incoming);
        }
        self.admit();
    }
}
