//! Check: what can be said of a downloaded block without any other block.
//!
//! It must be of the height asked for, its transactions must be well formed and match the root in its header, and each must have a
//! sender. Signatures of transactions that wait in the pool were checked before and are not checked again. The quorum of signatures over
//! the header, and the header itself, are judged by the ordering engine and by execution. Several workers share the lanes of the groups;
//! each takes one block at a time.

use std::sync::Arc;

use millrace_access::verifier::SignatureVerifier;
use millrace_administration::engine::FinalBlock;
use millrace_administration::sync::message::WireBlock;
use millrace_administration::sync::{CheckedBlock, Verdict};
use millrace_base::{B256, Bytes, NodeId, RawTx, VerifiedTx, merkle};
use millrace_ledger::Ledger;

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
    /// See [`WireBlock`].
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
        let WireBlock { header, signatures, transactions } = WireBlock::decode(&item.bytes).map_err(|error| error.to_string())?;
        if header.number != item.height {
            return Err(format!("its header says height {}", header.number));
        }
        let mut raws = Vec::with_capacity(transactions.len());
        for (index, bytes) in transactions.iter().enumerate() {
            let raw = RawTx::decode(bytes).map_err(|error| format!("transaction {index} cannot be decoded: {error}"))?;
            let hash = raw.hash();
            raws.push((raw, hash));
        }
        let hashes: Vec<B256> = raws.iter().map(|(_, hash)| *hash).collect();
        let root = merkle::root(&hashes);
        if root != header.transactions_root {
            return Err(format!("its header has transactions root {}, its transactions give {root}", header.transactions_root));
        }
        let transactions = self.verify(&item.ledger, raws)?;
        let hash = header.hash();
        Ok(CheckedBlock { hash, block: FinalBlock { header, signatures, transactions, from: item.from } })
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
