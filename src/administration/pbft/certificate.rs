//! Checking the proofs of a view change, and what a new view follows from them.
//!
//! Safety of a view change: whatever a quorum committed in a lower view is prepared at an honest sealer of every quorum of view changes,
//! so it is proposed again. Every replica computes the same plan from the same [`NewView`], and believes nothing that is not proven in it.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::{B256, BlockHeader, BlockSignature, keccak256};

use super::message::{Brief, Certificate, Hash, NewView, Stable, ViewChange, Vote, VoteKind, contents_of, stable_header};
use super::signing::verify;
use crate::digest::Domain;
use crate::epoch::Epoch;

/// Certificates in one view change: more than the widest window.
const CERTIFICATES: usize = 2 * super::MAX_WINDOW as usize;

/// Heights for which a new view passes over the sealers that were waited for in vain.
pub const SKIPPED_HEIGHTS: u64 = 1_000;

/// Proposals that are known to be prepared: (height, view, digest). Any proof of one is as good as another.
pub type Known = BTreeSet<(u64, u64, B256)>;

/// Bytes of a stable header: its sealer list is all that grows.
const STABLE_HEADER_BYTES: usize = 64 << 10;

/// What a view begins with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Last height that nothing is proposed for any more.
    pub base: u64,
    /// Proposed again unchanged, from `base + 1` on without gaps; with the sealers that have the content.
    pub proposals: Vec<Planned>,
    /// Sealers that do not lead up to `base +` [`SKIPPED_HEIGHTS`].
    pub skipped: Vec<u32>,
}

/// See [`Plan`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    pub brief: Brief,
    pub digest: B256,
    pub holders: Vec<u32>,
}

/// Checks statements under one epoch.
pub struct Verifier<'a> {
    pub domain: &'a Domain,
    pub epoch: &'a Epoch,
    pub epoch_hash: Hash,
}

impl Verifier<'_> {
    /// Whether the vote was signed by the sealer it names.
    pub fn is_good(&self, vote: &Vote) -> bool {
        let sealer = self.epoch.sealers.get(vote.sealer as usize);
        vote.epoch == self.epoch_hash && sealer.is_some_and(|sealer| verify(sealer, vote.statement(self.domain), &vote.signature))
    }

    /// Whether a view change is no larger than an honest one can be: what is not is not even kept.
    pub fn is_bounded(&self, change: &ViewChange) -> bool {
        let count = self.epoch.sealers.len();
        let stable = |stable: &Stable| stable.header.len() <= STABLE_HEADER_BYTES && stable.signatures.len() <= count;
        change.certificates.len() <= CERTIFICATES
            && change.certificates.iter().all(|certificate| certificate.signers.len() <= count)
            && change.suspects.len() <= count
            && change.stable.as_ref().is_none_or(stable)
    }

    /// Checks a view change but for its sender's certificates that are in `known`, to which it adds what it proves.
    pub fn check_change(&self, change: &ViewChange, known: &mut Known) -> Result<(), String> {
        let sealer = self.epoch.sealers.get(change.sealer as usize).ok_or("it names a sealer that does not exist")?;
        if change.epoch != self.epoch_hash || !self.is_bounded(change) {
            return Err("it is of another epoch or too large".into());
        }
        if !change.suspects.is_sorted_by(|a, b| a < b) {
            return Err("its suspects are not in order".into());
        }
        if !verify(sealer, change.statement(self.domain), &change.signature) {
            return Err("its signature is wrong".into());
        }
        let mut height = self.check_stable(change.stable.as_ref())?;
        for certificate in &change.certificates {
            if certificate.brief.height <= height || certificate.view >= change.to_view {
                return Err("its certificates are out of order".into());
            }
            height = certificate.brief.height;
            self.check_certificate(certificate, known)?;
        }
        Ok(())
    }

    fn check_certificate(&self, certificate: &Certificate, known: &mut Known) -> Result<(), String> {
        let brief = &certificate.brief;
        let digest = brief.digest(self.domain);
        if brief.epoch != self.epoch_hash {
            return Err("a certificate is of another epoch".into());
        }
        if known.contains(&(brief.height, certificate.view, digest)) {
            return Ok(());
        }
        let mut signers = BTreeSet::new();
        for (sealer, kind, signature) in &certificate.signers {
            let (sealer, kind, signature) = (*sealer, *kind, *signature);
            let vote =
                Vote { kind, epoch: self.epoch_hash, height: brief.height, view: certificate.view, subject: digest.0, sealer, signature };
            if kind.class() != VoteKind::Prepare || !self.is_good(&vote) {
                return Err(format!("a signature in its certificate for height {} is wrong", brief.height));
            }
            signers.insert(sealer);
        }
        if signers.len() < self.epoch.quorum() {
            return Err(format!("its certificate for height {} has {} signers, {} must", brief.height, signers.len(), self.epoch.quorum()));
        }
        known.insert((brief.height, certificate.view, digest));
        Ok(())
    }

    /// The height of a stable block. Without a proof it is the last one before the epoch, which every member of the epoch knows.
    fn check_stable(&self, stable: Option<&Stable>) -> Result<u64, String> {
        let Some(stable) = stable else { return Ok(self.epoch.start.saturating_sub(1)) };
        let header = stable_header(stable).ok_or("its stable header cannot be read")?;
        self.check_final(&header, keccak256(&stable.header), &stable.signatures)?;
        Ok(header.number)
    }

    /// Checks that a quorum of distinct sealers of this epoch signed a block of this epoch; gives the good signatures as votes.
    pub fn check_final(&self, header: &BlockHeader, hash: B256, signatures: &[BlockSignature]) -> Result<Vec<Vote>, String> {
        let count = self.epoch.sealers.len();
        if header.number < self.epoch.start || header.sealer_list != self.epoch.sealers || header.sealer >= count as u64 {
            return Err(format!("block {} was not made by the sealers that govern it", header.number));
        }
        if signatures.len() > count {
            return Err(format!("block {} has {} signatures of {count} sealers", header.number, signatures.len()));
        }
        let mut votes = BTreeMap::new();
        for BlockSignature { index, signature } in signatures {
            let (kind, epoch, height) = (VoteKind::Checkpoint, self.epoch_hash, header.number);
            let vote = Vote { kind, epoch, height, view: 0, subject: hash.0, sealer: *index, signature: *signature };
            if !self.is_good(&vote) {
                return Err(format!("block {}: the signature of sealer {index} is wrong", header.number));
            }
            votes.insert(*index, vote);
        }
        #[cfg(feature = "planted")]
        if crate::planted::is_planted(crate::planted::Bug::RepeatedSigners) && signatures.len() >= self.epoch.quorum() {
            return Ok(votes.into_values().collect());
        }
        if votes.len() < self.epoch.quorum() {
            return Err(format!("block {}: {} distinct sealers signed, {} must", header.number, votes.len(), self.epoch.quorum()));
        }
        Ok(votes.into_values().collect())
    }

    /// The sealer who begins a view.
    pub fn primary(&self, view: u64) -> u32 {
        let count = self.epoch.sealers.len().max(1) as u64;
        u32::try_from(view % count).expect("below the number of sealers")
    }

    /// Checks that a quorum wants the view and that the sealer whose turn it is chose them.
    pub fn check_new_view(&self, new_view: &NewView, known: &mut Known) -> Result<(), String> {
        let count = new_view.changes.len();
        if new_view.view == 0 || count < self.epoch.quorum() || count > self.epoch.sealers.len() {
            return Err(format!("the start of view {} has {count} view changes, {} are needed", new_view.view, self.epoch.quorum()));
        }
        let primary = self.epoch.sealers.get(self.primary(new_view.view) as usize).ok_or("there is no sealer")?;
        if !verify(primary, new_view.statement(self.domain), &new_view.signature) {
            return Err(format!("the start of view {} is not signed by the sealer whose turn it is", new_view.view));
        }
        let mut senders = BTreeSet::new();
        for change in &new_view.changes {
            if change.to_view != new_view.view || !senders.insert(change.sealer) {
                return Err(format!("the start of view {} has a view change to another view or two of one sealer", new_view.view));
            }
            let named = |reason| format!("the start of view {} has a bad view change: {reason}", new_view.view);
            self.check_change(change, known).map_err(named)?;
        }
        Ok(())
    }

    /// What follows from a checked new view, the same at every replica.
    pub fn plan(&self, new_view: &NewView) -> Plan {
        let start = self.epoch.start.saturating_sub(1);
        let headers = new_view.changes.iter().filter_map(|change| change.stable.as_ref().and_then(stable_header));
        let last = headers.max_by_key(|header| header.number).filter(|header| header.number >= start);
        let base = last.as_ref().map_or(start, |header| header.number);
        let contents = last.map(|header| contents_of(self.domain, &header));
        Plan { base, proposals: self.planned(&new_view.changes, (base, contents)), skipped: self.skipped(&new_view.changes) }
    }

    /// What is prepared without gaps above the base, each on what is below it. What was prepared on something else than became final
    /// was never committed; a faulty sealer may still prove it, and taken up it could stand in the way for ever: its transactions may
    /// be in the block below.
    fn planned(&self, changes: &[ViewChange], (base, contents): (u64, Option<B256>)) -> Vec<Planned> {
        // The highest view counts. Two proposals prepared in one view take more faulty sealers than are tolerated; the digest only makes
        // the choice the same everywhere.
        let mut chosen: BTreeMap<u64, (u64, B256, Brief)> = BTreeMap::new();
        for certificate in changes.iter().flat_map(|change| &change.certificates) {
            let digest = certificate.brief.digest(self.domain);
            let found = (certificate.view, digest, certificate.brief);
            let entry = chosen.entry(certificate.brief.height).or_insert(found);
            if (entry.0, entry.1) < (found.0, found.1) {
                *entry = found;
            }
        }
        let mut planned: Vec<Planned> = Vec::new();
        for (height, (_, digest, brief)) in chosen.range(base.saturating_add(1)..) {
            let expected = base + 1 + planned.len() as u64;
            let is_linked = match planned.last() {
                Some(below) => brief.previous == below.digest.0,
                None => contents.is_none_or(|contents| brief.below == contents.0),
            };
            if *height != expected || !is_linked {
                break;
            }
            let has = |change: &&ViewChange| change.certificates.iter().any(|certificate| certificate.brief == *brief);
            let holders = changes.iter().filter(has).map(|change| change.sealer).collect();
            planned.push(Planned { brief: *brief, digest: *digest, holders });
        }
        planned
    }

    /// Sealers named by more senders than can be faulty: those named most, at most as many as may be faulty.
    fn skipped(&self, changes: &[ViewChange]) -> Vec<u32> {
        let mut named: BTreeMap<u32, usize> = BTreeMap::new();
        for suspect in changes.iter().flat_map(|change| &change.suspects) {
            *named.entry(*suspect).or_default() += 1;
        }
        let faulty = self.epoch.max_faulty();
        let count = self.epoch.sealers.len();
        let mut skipped: Vec<(usize, u32)> = named
            .into_iter()
            .filter(|(sealer, times)| *times > faulty && (*sealer as usize) < count)
            .map(|(sealer, times)| (times, sealer))
            .collect();
        skipped.sort_unstable_by_key(|(times, sealer)| (std::cmp::Reverse(*times), *sealer));
        skipped.into_iter().take(faulty).map(|(_, sealer)| sealer).collect()
    }
}
