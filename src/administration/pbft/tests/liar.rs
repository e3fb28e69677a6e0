//! Forged statements: everything a member with its own key can make up. None of them may have any effect.

use millrace_base::{B256, BlockSignature, Bytes, KeyPair, Signature};

use super::super::message::{Brief, Certificate, Content, Message, Stable, ViewChange, Vote, VoteKind, contents_of};
use super::super::signing::sign;
use super::world::{Dice, Stored, domain};
use crate::engine::{FinalBlock, ProposalHeader};

fn vote(key: &KeyPair, epoch: [u8; 32], place: (VoteKind, u64, u64), subject: B256, sealer: u32) -> Vote {
    let (kind, height, view) = place;
    let mut vote = Vote { kind, epoch, height, view, subject: subject.0, sealer, signature: Signature([0; 65]) };
    vote.signature = sign(key, vote.statement(&domain()));
    vote
}

/// A proposal nobody made, a commit certificate and a view change with certificates of one signer many times, a foreign signature.
pub fn frames(dice: &mut Dice, key: &KeyPair, head: &Stored, view: u64) -> Vec<Bytes> {
    let epoch = head.epoch.digest().0;
    let Some(own) = head.epoch.index_of(&key.node_id()) else { return Vec::new() };
    let height = head.block.header.number + 1 + dice.below(3);
    let view = view + dice.pick(&[0, 0, 0, 1, 1_000_000]);
    let quorum = head.epoch.quorum();
    let header = ProposalHeader {
        height,
        epoch: epoch.into(),
        previous: head.hash,
        below: contents_of(&domain(), &head.block.header),
        timestamp_ms: head.block.header.timestamp_ms + 1,
        sealer: own,
        transactions: vec![B256::repeat_byte(dice.below(250) as u8)],
    };
    let brief = Brief::of(&header);
    let digest = brief.digest(&domain());
    let propose = vote(key, epoch, (VoteKind::Propose, height, view), digest, own);
    let commit = vote(key, epoch, (VoteKind::Commit, height, view), digest, own);
    let other = (own + 1) % head.epoch.sealers.len() as u32;
    let foreign = Vote { sealer: other, ..vote(key, epoch, (VoteKind::Prepare, height, view), digest, other) };
    let signers = vec![(own, VoteKind::Propose, propose.signature); quorum];
    let certificates = vec![Certificate { brief, view, signers }];
    let stable = Stable {
        header: head.block.header.encode_rlp(),
        signatures: vec![BlockSignature { index: own, signature: sign(key, head.hash) }; quorum],
    };
    let mut change = ViewChange {
        epoch,
        to_view: view.saturating_add(1),
        sealer: own,
        stable: dice.percent(50).then_some(stable),
        certificates,
        suspects: Vec::new(),
        signature: Signature([0; 65]),
    };
    change.signature = sign(key, change.statement(&domain()));
    let mut frames = vec![
        Message::Propose(propose, Content::from(&header)).encode(),
        Message::Vote(commit).encode(),
        Message::Votes(vec![commit; quorum]).encode(),
        Message::Votes(vec![vote(key, epoch, (VoteKind::Checkpoint, height, 0), digest, own); quorum]).encode(),
        Message::Vote(foreign).encode(),
        Message::ViewChange(change).encode(),
        Message::Content(Content::from(&header)).encode(),
        Bytes::from_static(&[1, 9, 9, 9]),
        Bytes::new(),
    ];
    // Any byte of any of them may be wrong.
    let mut broken = frames[dice.below(7) as usize].to_vec();
    let at = dice.below(broken.len() as u64) as usize;
    broken[at] ^= 1 << dice.below(8);
    frames.push(broken.into());
    frames
}

/// A view change as this member should have sent it, but with a proof that it signed alone, as often as it takes: of a proposal
/// nobody made, or of a height nobody has reached. The content of the proposal comes with it.
pub fn spoil(dice: &mut Dice, key: &KeyPair, mut change: ViewChange, head: &Stored) -> (ViewChange, Content) {
    let quorum = head.epoch.quorum();
    let mut block = head.block.header.clone();
    if dice.percent(25) {
        block.number += 1_000;
        block.sealer_list = head.epoch.sealers.clone();
        let signatures = vec![BlockSignature { index: change.sealer, signature: sign(key, block.hash()) }; quorum];
        change.stable = Some(Stable { header: block.encode_rlp(), signatures });
    }
    let header = ProposalHeader {
        height: head.block.header.number + 1,
        epoch: change.epoch.into(),
        previous: head.hash,
        below: contents_of(&domain(), &head.block.header),
        timestamp_ms: head.block.header.timestamp_ms + 1,
        sealer: change.sealer,
        transactions: Vec::new(),
    };
    let brief = Brief::of(&header);
    let view = change.to_view - 1;
    let prepare = vote(key, change.epoch, (VoteKind::Prepare, header.height, view), brief.digest(&domain()), change.sealer);
    change.certificates = vec![Certificate { brief, view, signers: vec![(change.sealer, VoteKind::Prepare, prepare.signature); quorum] }];
    change.signature = sign(key, change.statement(&domain()));
    (change, Content::from(&header))
}

/// A block on top of the head that this member alone signed, as often as it takes.
pub fn block(dice: &mut Dice, key: &KeyPair, head: &Stored) -> FinalBlock {
    let mut header = head.block.header.clone();
    header.number += 1;
    header.parent_hash = head.hash;
    header.timestamp_ms += 1 + dice.below(5);
    header.sealer_list = head.epoch.sealers.clone();
    header.sealer = 0;
    let index = head.epoch.index_of(&key.node_id()).unwrap_or(0);
    let signatures = vec![BlockSignature { index, signature: sign(key, header.hash()) }; head.epoch.quorum()];
    FinalBlock { header, signatures, transactions: Vec::new(), from: key.node_id() }
}
