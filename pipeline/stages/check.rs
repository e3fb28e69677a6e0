//! Check: what can be said of a downloaded block without any other block.
//!
//! What is checked is said in [`millrace_ledger::check`]. Signatures of transactions that wait in the pool were checked before and are not
//! checked again. The quorum of signatures over the header, and the header itself, are judged by the ordering engine and by execution.
//! Several workers share the lanes of the groups; each takes one block at a time.

use std::sync::Arc;

use millrace_access::verifier::SignatureVerifier;
use millrace_administration::sync::{CheckedBlock, Verdict};
use millrace_base::{B256, Bytes, NodeId, RawTx, VerifiedTx};
use millrace_ledger::Ledger;
use millrace_ledger::check::check_block;

use crate::messages::Checked;
use crate::runtime::{Batch, Sender, Stage};

/// A block to be checked.
pub struct ToCheck {
    /// Its group.
    pub ledger: Arc<Ledger>,
    /// Comes back with the verdict.
    pub ticket: u64,
    /// Who sent it.
    pub from: NodeId,
    /// The height it must have.
    pub height: u64,
    /// See [`millrace_administration::sync::message::WireBlock`].
    pub bytes: Bytes,
}

/// See the module.
pub struct CheckStage {
    signatures: Box<dyn SignatureVerifier>,
    results: Sender<Checked>,
}

impl CheckStage {
    /// One worker.
    pub fn new(signatures: Box<dyn SignatureVerifier>, results: Sender<Checked>) -> Self {
        Self { signatures, results }
    }

    fn check(&self, item: &ToCheck) -> Result<CheckedBlock, String> {
        check_block(&item.bytes, item.height, item.from, |raws| self.verify(&item.ledger, raws))
    }

    /// The transactions with their senders: from the pool where they are known.
    fn verify(&self, ledger: &Ledger, raws: Vec<(RawTx, B256)>) -> Result<Vec<VerifiedTx>, String> {
        let mut known: Vec<Option<VerifiedTx>> = raws.iter().map(|(_, hash)| ledger.pool().get(*hash)).collect();
        let unknown = raws.into_iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(raw, _)| raw).collect();
        let mut recovered = self.signatures.recover_batch(unknown).into_iter();
        for (index, place) in known.iter_mut().enumerate() {
            if place.is_none() {
                let result = recovered.next().expect("one result for each transaction that was not known");
                *place = Some(result.map_err(|error| format!("transaction {index}: {error}"))?);
            }
        }
        Ok(known.into_iter().flatten().collect())
    }
}

impl Stage for CheckStage {
    type Input = ToCheck;

    fn handle(&mut self, batch: &mut Batch<ToCheck>) {
        while let Some(item) = batch.pop_front() {
            let verdict = match self.check(&item) {
                Ok(block) => Verdict::Good(Box::new(block)),
                Err(reason) => Verdict::Bad(reason),
            };
            let _ = self.results.send(Checked { group: item.ledger.id(), ticket: item.ticket, verdict });
        }
    }
}
