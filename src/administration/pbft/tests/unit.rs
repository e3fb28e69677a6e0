//! Single engines, step by step, with real signatures.

use millrace_base::{B256, BlockHeader, BlockSignature, Bytes, KeyPair, Signature};

use super::super::certificate::Known;
use super::super::message::{Brief, Certificate, Content, Message, NewView, Stable, Status, ViewChange, Vote, VoteKind, contents_of};
use super::super::{MAX_AHEAD_MS, PbftConfig, PbftEngine, WINDOW};
use super::world::{domain, epoch, key, transaction};
use crate::engine::{Effect, Engine, FinalBlock, Gathered, Input, ProposalHeader};
use crate::epoch::Epoch;

const NOW_MS: u64 = 1_700_000_000_000;

fn engine_with(sealers: usize, own: usize, records: Vec<Bytes>) -> PbftEngine {
    let epoch = epoch(&(0..sealers).collect::<Vec<_>>(), 1, 3_000);
    PbftEngine::new(PbftConfig {
        domain: domain(),
        key: key(own),
        epoch,
        head: BlockHeader::default(),
        head_hash: B256::ZERO,
        head_signatures: Vec::new(),
        records,
        window: WINDOW,
        max_ahead_ms: MAX_AHEAD_MS,
    })
}

fn engine(sealers: usize, own: usize) -> PbftEngine {
    engine_with(sealers, own, Vec::new())
}

fn header(height: u64, timestamp_ms: u64, epoch: &Epoch) -> BlockHeader {
    BlockHeader { number: height, timestamp_ms, sealer_list: epoch.sealers.clone(), ..BlockHeader::default() }
}

fn executed(proposal: &ProposalHeader, epoch: &Epoch, next_epoch: Option<Epoch>) -> Input {
    let header = BlockHeader { sealer: u64::from(proposal.sealer), ..header(proposal.height, proposal.timestamp_ms, epoch) };
    Input::Executed { height: proposal.height, hash: header.hash(), header: Box::new(header), next_epoch }
}

/// Carries effects out as a driver would, with a perfect executor; returns the final heights.
fn drive(engine: &mut PbftEngine, mut effects: Vec<Effect>, blocks: u64) -> Vec<(u64, B256, Vec<BlockSignature>)> {
    let epoch = engine.epoch.clone();
    let (mut finals, mut recorded, mut now_ms) = (Vec::new(), Vec::new(), NOW_MS);
    while !effects.is_empty() {
        let mut next = Vec::new();
        for effect in effects {
            now_ms += 1;
            let input = match effect {
                Effect::Record { body, .. } => {
                    assert!(!recorded.contains(&body), "voted twice");
                    recorded.push(body);
                    continue;
                }
                Effect::Seal { height, .. } if height > blocks => continue,
                Effect::Seal { height, view, .. } => Input::Sealed { height, view, timestamp_ms: now_ms, transactions: Vec::new() },
                Effect::Execute(proposal) => executed(&proposal.header, &epoch, None),
                Effect::Finalize { height, hash, signatures } => {
                    finals.push((height, hash, signatures));
                    Input::Committed { height }
                }
                _ => panic!("unexpected {effect:?}"),
            };
            next.extend(engine.handle(input, now_ms));
        }
        effects = next;
    }
    finals
}

fn signed(key: &KeyPair, mut vote: Vote) -> Vote {
    vote.signature = key.sign(vote.statement(&domain()));
    vote
}

/// A proposal of the sealer for a height in view 0, as its engine would send it.
fn proposal(engine: &PbftEngine, sealer: u32, content: ProposalHeader) -> (B256, Bytes) {
    let digest = Brief::of(&content).digest(&domain());
    let signature = Signature([0; 65]);
    let (epoch, subject) = (engine.epoch_hash, digest.0);
    let vote = Vote { kind: VoteKind::Propose, epoch, height: content.height, view: 0, subject, sealer, signature };
    (digest, Message::Propose(signed(&key(sealer as usize), vote), Content::from(&content)).encode())
}

fn content(engine: &PbftEngine, height: u64, sealer: u32) -> ProposalHeader {
    let transactions = vec![transaction(0).hash()];
    let (epoch, below) = (engine.epoch_hash.into(), engine.committed_contents.1);
    ProposalHeader { height, epoch, previous: B256::ZERO, below, timestamp_ms: NOW_MS, sealer, transactions }
}

fn frame(from: usize, payload: Bytes) -> Input {
    Input::Frame { from: key(from).node_id(), payload }
}

fn vote(engine: &PbftEngine, kind: VoteKind, height: u64, digest: B256, sealer: u32) -> Bytes {
    let signature = Signature([0; 65]);
    let (epoch, subject) = (engine.epoch_hash, digest.0);
    Message::Vote(signed(&key(sealer as usize), Vote { kind, epoch, height, view: 0, subject, sealer, signature })).encode()
}

fn refusals(effects: &[Effect]) -> Vec<String> {
    effects.iter().filter_map(|effect| if let Effect::Refused { reason, .. } = effect { Some(reason.clone()) } else { None }).collect()
}

fn has_vote(effects: &[Effect], kind: VoteKind) -> bool {
    let votes =
        effects.iter().filter_map(|effect| if let Effect::Broadcast(payload) = effect { Message::decode(payload).ok() } else { None });
    votes.into_iter().any(|message| matches!(message, Message::Vote(vote) if vote.kind == kind))
}

#[test]
fn one_sealer_is_a_quorum_that_takes_every_step() {
    let mut engine = engine(1, 0);
    let effects = engine.start(NOW_MS);
    let finals = drive(&mut engine, effects, 20);
    assert_eq!(finals.iter().map(|(height, ..)| *height).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    for (_, hash, signatures) in finals {
        assert_eq!(signatures.len(), 1);
        assert!(key(0).node_id().verify(hash, &signatures[0].signature));
    }
    assert_eq!(engine.deadline_ms(), None, "nobody to wait for");
}

#[test]
fn window_bounds_the_heights_in_flight() {
    let mut engine = engine(1, 0);
    let mut asked = Vec::new();
    let mut effects = engine.start(NOW_MS);
    while let Some(position) = effects.iter().position(|effect| matches!(effect, Effect::Seal { .. })) {
        let Effect::Seal { height, view, .. } = effects.swap_remove(position) else { unreachable!() };
        asked.push(height);
        effects = engine.handle(Input::Sealed { height, view, timestamp_ms: 1, transactions: Vec::new() }, NOW_MS);
    }
    assert_eq!(asked, (1..=WINDOW).collect::<Vec<_>>());
}

#[test]
fn a_lone_sealer_begins_a_new_view_after_a_restart() {
    let mut first = engine(1, 0);
    first.start(NOW_MS);
    let effects = first.handle(Input::Sealed { height: 1, view: 0, timestamp_ms: NOW_MS, transactions: Vec::new() }, NOW_MS);
    let bodies = effects.into_iter().filter_map(|effect| if let Effect::Record { body, .. } = effect { Some(body) } else { None });
    let mut second = engine_with(1, 0, bodies.collect());
    assert!(second.start(NOW_MS).iter().any(|effect| matches!(effect, Effect::Seal { height: 1, view: 1, .. })));
}

#[test]
fn epoch_change_voids_everything_above_it() {
    let mut engine = engine(1, 0);
    let old = engine.epoch.clone();
    let next = Epoch { start: 3, tx_count_limit: 7, ..old.clone() };
    let mut queue = engine.start(NOW_MS);
    let (mut seals, mut executions, mut voided) = (Vec::new(), Vec::new(), None);
    while let Some(effect) = (!queue.is_empty()).then(|| queue.remove(0)) {
        let input = match effect {
            Effect::Seal { height, view, limit, .. } if voided.is_none() || height == 3 => {
                seals.push((height, limit));
                Input::Sealed { height, view, timestamp_ms: 1, transactions: Vec::new() }
            }
            Effect::Execute(proposal) => {
                executions.push((proposal.header.height, proposal.header.epoch));
                match proposal.header.height {
                    1 => executed(&proposal.header, &old, None),
                    2 => executed(&proposal.header, &old, Some(next.clone())),
                    _ if voided.is_some() => executed(&proposal.header, &next, None),
                    // What was ordered above the change is never executed.
                    _ => continue,
                }
            }
            Effect::Finalize { height, .. } => Input::Committed { height },
            Effect::Void { above } => {
                voided = Some(above);
                continue;
            }
            _ => continue,
        };
        queue.extend(engine.handle(input, NOW_MS));
        if engine.status().final_height >= 3 {
            break;
        }
    }
    assert_eq!(voided, Some(2));
    assert_eq!(seals.last(), Some(&(3, 7)), "height 3 is proposed again under the new settings");
    assert_eq!(executions.last(), Some(&(3, next.digest())));
}

/// R5: a leader forges each field of its proposal; nobody votes for it.
#[test]
fn a_forged_field_of_a_proposal_gets_no_vote() {
    let forge: [fn(&mut ProposalHeader); 7] = [
        |header| header.below = B256::repeat_byte(1),
        |header| header.epoch = B256::repeat_byte(1),
        |header| header.timestamp_ms = 0,
        |header| header.timestamp_ms += MAX_AHEAD_MS + 60_000,
        |header| header.timestamp_ms = u64::MAX,
        |header| header.sealer = 3,
        |header| header.transactions = vec![B256::ZERO; 6],
    ];
    for change in forge {
        let mut engine = engine(4, 1);
        engine.start(NOW_MS);
        let mut forged = content(&engine, 1, 0);
        change(&mut forged);
        let (_, payload) = proposal(&engine, 0, forged);
        let effects = engine.handle(frame(0, payload), NOW_MS);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Gather { .. })), "{effects:?}");
        assert_eq!(refusals(&effects).len(), 1);
    }
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let (digest, payload) = proposal(&engine, 0, content(&engine, 1, 0));
    let effects = engine.handle(frame(0, payload), NOW_MS);
    assert!(matches!(&effects[..], [Effect::Gather { height: 1, .. }]), "{effects:?}");
    let outcome = Gathered::Complete(vec![transaction(0)]);
    assert!(has_vote(&engine.handle(Input::Gathered { height: 1, digest, outcome }, NOW_MS), VoteKind::Prepare));
}

#[test]
fn a_proposal_the_pool_refuses_gets_no_vote() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let (digest, payload) = proposal(&engine, 0, content(&engine, 1, 0));
    engine.handle(frame(0, payload), NOW_MS);
    let outcome = Gathered::Refused("nonce was used".into());
    let effects = engine.handle(Input::Gathered { height: 1, digest, outcome }, NOW_MS);
    assert_eq!(refusals(&effects), ["proposal for height 1: nonce was used"]);
    assert!(!has_vote(&effects, VoteKind::Prepare));
    assert!(engine.status().last_refusal.contains("nonce was used"));
}

/// R19: a signature for one kind of message is worth nothing in another.
#[test]
fn a_signature_cannot_be_used_for_another_statement() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let (digest, payload) = proposal(&engine, 0, content(&engine, 1, 0));
    engine.handle(frame(0, payload), NOW_MS);
    let outcome = Gathered::Complete(vec![transaction(0)]);
    engine.handle(Input::Gathered { height: 1, digest, outcome }, NOW_MS);
    let prepare = |sealer| vote(&engine, VoteKind::Prepare, 1, digest, sealer);
    let frames: Vec<Input> = (2..4)
        .map(|sealer| {
            let Ok(Message::Vote(mut replayed)) = Message::decode(&prepare(sealer)) else { unreachable!() };
            replayed.kind = VoteKind::Commit;
            frame(sealer as usize, Message::Vote(replayed).encode())
        })
        .collect();
    let genuine: Vec<Input> = (2..4).map(|sealer| frame(sealer as usize, prepare(sealer))).collect();
    let mut effects = Vec::new();
    for input in frames.into_iter().chain(genuine) {
        effects.extend(engine.handle(input, NOW_MS));
    }
    assert!(has_vote(&effects, VoteKind::Commit), "the prepares count");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Execute(_))), "prepares were counted as commits");
}

#[test]
fn two_proposals_of_one_leader_are_evidence_once() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let mut effects = Vec::new();
    for timestamp_ms in [NOW_MS, NOW_MS + 1, NOW_MS + 2] {
        let (_, payload) = proposal(&engine, 0, ProposalHeader { timestamp_ms, ..content(&engine, 1, 0) });
        effects.extend(engine.handle(frame(0, payload), NOW_MS));
    }
    let evidence: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Evidence { .. })).collect();
    let [Effect::Evidence { offender, statements, .. }] = &evidence[..] else { panic!("{evidence:?}") };
    assert_eq!(*offender, key(0).node_id());
    assert_ne!(statements[0], statements[1]);
}

/// 2.x accepts one signature many times (`spec/node-semantics.md` 2.8).
#[test]
fn a_block_signed_by_one_sealer_many_times_is_refused() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let block_of = |engine: &PbftEngine, signers: &[u32]| {
        let header = header(1, NOW_MS, &engine.epoch);
        let hash = header.hash();
        let sign = |index: &u32| BlockSignature { index: *index, signature: key(*index as usize).sign(hash) };
        let signatures = signers.iter().map(sign).collect();
        Input::Block(Box::new(FinalBlock { header, signatures, transactions: Vec::new(), from: key(3).node_id() }))
    };
    for signers in [&[2, 2, 2][..], &[0, 2], &[], &[0, 2, 2, 2]] {
        let input = block_of(&engine, signers);
        let effects = engine.handle(input, NOW_MS);
        assert_eq!(refusals(&effects).len(), 1, "{signers:?}: {effects:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Execute(_))));
    }
    let input = block_of(&engine, &[0, 2, 3]);
    assert!(engine.handle(input, NOW_MS).iter().any(|effect| matches!(effect, Effect::Execute(_))));
}

#[test]
fn a_sealer_that_signed_another_hash_too_cannot_hold_up_a_downloaded_block() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let other = vote(&engine, VoteKind::Checkpoint, 1, B256::repeat_byte(7), 2);
    engine.handle(frame(2, other), NOW_MS);
    let header = header(1, NOW_MS, &engine.epoch);
    let hash = header.hash();
    let signatures = [0, 2, 3].map(|index| BlockSignature { index, signature: key(index as usize).sign(hash) }).to_vec();
    let block = FinalBlock { header: header.clone(), signatures, transactions: Vec::new(), from: key(3).node_id() };
    engine.handle(Input::Block(Box::new(block)), NOW_MS);
    let effects = engine.handle(Input::Executed { height: 1, hash, header: Box::new(header), next_epoch: None }, NOW_MS);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Finalize { height: 1, .. })), "{effects:?}");
}

#[test]
fn a_second_final_block_at_a_height_stops_the_group() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let signed = |header: &BlockHeader| {
        let hash = header.hash();
        let signatures = [0, 2, 3].map(|index| BlockSignature { index, signature: key(index as usize).sign(hash) }).to_vec();
        Input::Block(Box::new(FinalBlock { header: header.clone(), signatures, transactions: Vec::new(), from: key(3).node_id() }))
    };
    let first = header(1, NOW_MS, &engine.epoch);
    engine.handle(signed(&first), NOW_MS);
    engine.handle(Input::Executed { height: 1, hash: first.hash(), header: Box::new(first.clone()), next_epoch: None }, NOW_MS);
    let second = BlockHeader { timestamp_ms: NOW_MS + 1, ..first };
    assert!(matches!(&engine.handle(signed(&second), NOW_MS)[..], [Effect::Diverged { height: 1, .. }]));
}

#[test]
fn own_result_that_differs_from_a_quorum_stops_the_group() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let header = header(1, NOW_MS, &engine.epoch);
    let hash = header.hash();
    let signatures = [0, 2, 3].map(|index| BlockSignature { index, signature: key(index as usize).sign(hash) }).to_vec();
    let block = FinalBlock { header: header.clone(), signatures, transactions: Vec::new(), from: key(3).node_id() };
    engine.handle(Input::Block(Box::new(block)), NOW_MS);
    let own = BlockHeader { state_root: B256::repeat_byte(9), ..header };
    let (height, next_epoch) = (1, None);
    let effects = engine.handle(Input::Executed { height, hash: own.hash(), header: Box::new(own), next_epoch }, NOW_MS);
    assert!(matches!(effects.last(), Some(Effect::Diverged { height: 1, quorum, .. }) if *quorum == hash), "{effects:?}");
    assert!(engine.handle(Input::Tick, NOW_MS + 60_000).is_empty());
}

/// R4: extreme numbers in every message, from a member and from a stranger; nothing overflows, nothing is kept without bound.
#[test]
fn extreme_numbers_do_no_harm() {
    let extremes = [0, 1, 2, u64::MAX - 1, u64::MAX, 1 << 63, i64::MAX as u64];
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    let epoch = engine.epoch_hash;
    let signature = Signature([0; 65]);
    for a in extremes {
        for b in extremes {
            let mut messages = Vec::new();
            for kind in [VoteKind::Propose, VoteKind::Prepare, VoteKind::Commit, VoteKind::Checkpoint] {
                let vote = signed(&key(0), Vote { kind, epoch, height: a, view: b, subject: [1; 32], sealer: 0, signature });
                let content =
                    Content { height: a, epoch, previous: [0; 32], below: [0; 32], timestamp_ms: b, sealer: 0, transactions: Vec::new() };
                messages.extend([
                    Message::Vote(vote),
                    Message::Votes(vec![vote; 3]),
                    Message::Propose(vote, content.clone()),
                    Message::Content(content),
                ]);
            }
            let (certificates, suspects) = (Vec::new(), vec![u32::MAX]);
            messages.push(Message::ViewChange(ViewChange {
                epoch,
                to_view: a,
                sealer: 0,
                stable: None,
                certificates,
                suspects,
                signature,
            }));
            messages.push(Message::Fetch(a, [1; 32]));
            messages.push(Message::Gone(epoch, vec![a as u32, b as u32, u32::MAX]));
            messages.push(Message::Pass(epoch, a, b));
            messages.push(Message::Status(Status { epoch, view: a, to_view: b, final_height: a, committed: b, have: vec![0; 16] }));
            for message in messages {
                for from in [0, 9] {
                    engine.handle(frame(from, message.encode()), NOW_MS);
                }
            }
            let header = header(a, b, &engine.epoch);
            let block = FinalBlock { header, signatures: Vec::new(), transactions: Vec::new(), from: key(0).node_id() };
            engine.handle(Input::Block(Box::new(block)), a);
        }
    }
    assert!(engine.slots.len() as u64 <= 2 * WINDOW);
    assert_eq!((engine.view, engine.final_height), (0, 0));
    engine.handle(Input::Tick, u64::MAX);
    engine.handle(Input::Tick, 0);
}

#[test]
fn status_names_who_is_missing() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    engine.handle(Input::Pending(true), NOW_MS);
    let leader = millrace_base::hex::encode(&key(0).node_id().0[..4]);
    assert_eq!(engine.status().waits_for, format!("height 1: a proposal by {leader} in view 0"));
    let (digest, payload) = proposal(&engine, 0, content(&engine, 1, 0));
    engine.handle(frame(0, payload), NOW_MS);
    let outcome = Gathered::Complete(vec![transaction(0)]);
    engine.handle(Input::Gathered { height: 1, digest, outcome }, NOW_MS);
    let missing: Vec<String> = [2, 3].map(|index| millrace_base::hex::encode(&key(index).node_id().0[..4])).to_vec();
    assert_eq!(engine.status().waits_for, format!("height 1: 2 of 3 prepares; missing {} in view 0", missing.join(", ")));
}

#[test]
fn jumps_of_the_clock_cause_no_view_change() {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    engine.handle(Input::Pending(true), NOW_MS);
    for now_ms in [NOW_MS + 1_000, NOW_MS - 86_400_000, NOW_MS - 86_399_000, 0] {
        engine.handle(Input::Tick, now_ms);
    }
    assert_eq!(engine.status().to_view, 0, "two steps back and two of a second are less than the timeout");
    for second in 1..=3 {
        engine.handle(Input::Tick, second * 1_000);
    }
    assert_eq!(engine.status().to_view, 1);
}

/// A proposal for height 2 above the block of [`NOW_MS`] − 1.
fn second(engine: &PbftEngine) -> ProposalHeader {
    ProposalHeader { below: contents_of(&domain(), &header(1, NOW_MS - 1, &engine.epoch)), ..content(engine, 2, 1) }
}

/// A final block's proof, certificates and all, as an honest sealer would send it.
fn view_change(engine: &PbftEngine, sealer: u32, signers: &[u32]) -> ViewChange {
    view_change_above(engine, sealer, signers, NOW_MS - 1)
}

/// Its certificate is of [`second`], its last final block of the given time.
fn view_change_above(engine: &PbftEngine, sealer: u32, signers: &[u32], below_ms: u64) -> ViewChange {
    let header = header(1, below_ms, &engine.epoch);
    let sign_block = |index: &u32| BlockSignature { index: *index, signature: key(*index as usize).sign(header.hash()) };
    let stable = Stable { header: header.encode_rlp(), signatures: signers.iter().map(sign_block).collect() };
    let brief = Brief::of(&second(engine));
    let (epoch, subject, signature) = (engine.epoch_hash, brief.digest(&domain()).0, Signature([0; 65]));
    let sign_prepare = |sealer: &u32| {
        let kind = if *sealer == 1 { VoteKind::Propose } else { VoteKind::Prepare };
        let vote = signed(&key(*sealer as usize), Vote { kind, epoch, height: 2, view: 0, subject, sealer: *sealer, signature });
        (*sealer, kind, vote.signature)
    };
    let certificate = Certificate { brief, view: 0, signers: signers.iter().map(sign_prepare).collect() };
    let (stable, certificates) = (Some(stable), vec![certificate]);
    let mut change = ViewChange { epoch, to_view: 1, sealer, stable, certificates, suspects: vec![0], signature };
    change.signature = key(sealer as usize).sign(change.statement(&domain()));
    change
}

fn new_view(engine: &PbftEngine, changes: Vec<ViewChange>) -> NewView {
    let mut new_view = NewView { epoch: engine.epoch_hash, view: 1, changes, signature: Signature([0; 65]) };
    new_view.signature = key(1).sign(new_view.statement(&domain()));
    new_view
}

#[test]
fn a_proof_of_one_signer_many_times_is_no_proof() {
    let engine = engine(4, 3);
    let check = |change: &ViewChange| engine.verifier().check_change(change, &mut Known::new());
    assert_eq!(check(&view_change(&engine, 2, &[0, 1, 2])), Ok(()));
    let good = view_change(&engine, 2, &[0, 1, 2]);
    let bad = view_change(&engine, 2, &[0, 1, 1]);
    let resign = |mut change: ViewChange| {
        change.signature = key(2).sign(change.statement(&domain()));
        change
    };
    let stable = resign(ViewChange { stable: bad.stable.clone(), ..good.clone() });
    let certificates = resign(ViewChange { certificates: bad.certificates.clone(), ..good.clone() });
    assert!(check(&stable).unwrap_err().contains("2 distinct sealers"));
    assert!(check(&certificates).unwrap_err().contains("2 signers"));
    let twice = new_view(&engine, vec![good.clone(), good.clone(), view_change(&engine, 0, &[0, 1, 2])]);
    assert!(engine.verifier().check_new_view(&twice, &mut Known::new()).unwrap_err().contains("two of one sealer"));
}

#[test]
fn a_new_view_proposes_again_what_was_prepared_and_passes_over_the_silent() {
    let mut engine = engine(4, 3);
    engine.start(NOW_MS);
    let changes = [0, 1, 2].map(|sealer| view_change(&engine, sealer, &[0, 1, 2])).to_vec();
    let payload = Message::NewView(new_view(&engine, changes)).encode();
    let effects = engine.handle(frame(2, payload), NOW_MS);
    assert_eq!((engine.view, engine.base), (1, 1));
    let digest = Brief::of(&second(&engine)).digest(&domain());
    assert_eq!(engine.slots[&2].digest, Some(digest));
    let fetches =
        effects.iter().filter(|effect| matches!(effect, Effect::Send { payload, .. } if *payload == Message::Fetch(2, digest.0).encode()));
    assert_eq!(fetches.count(), 3, "{effects:?}");
    assert!((3..9).all(|height| engine.leader(1, height) != 0), "sealer 0 is passed over");
    assert_eq!((2_000..2_004).filter(|height| engine.leader(1, *height) == 0).count(), 1, "but not for ever");
}

/// A faulty sealer can prove what was prepared on another proposal than the one that became final below it. Taken up again and again, it
/// would be refused for ever: its transactions may be in the block below.
#[test]
fn a_new_view_takes_up_nothing_that_was_prepared_on_another_block() {
    for (below_ms, is_taken_up) in [(NOW_MS - 1, true), (NOW_MS - 2, false), (NOW_MS, false), (NOW_MS + 1, false)] {
        let engine = engine(4, 3);
        let changes = [0, 1, 2].map(|sealer| view_change_above(&engine, sealer, &[0, 1, 2], below_ms)).to_vec();
        let plan = engine.verifier().plan(&new_view(&engine, changes));
        assert_eq!((plan.base, !plan.proposals.is_empty()), (1, is_taken_up));
    }
}

/// R6: every bit of the start of a view is covered by a signature.
#[test]
fn a_changed_bit_in_the_start_of_a_view_is_refused() {
    let engine = engine(4, 3);
    let changes = [0, 1, 2].map(|sealer| view_change(&engine, sealer, &[0, 1, 2])).to_vec();
    let genuine = Message::NewView(new_view(&engine, changes));
    let bytes = genuine.encode();
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        if let Ok(Message::NewView(new_view)) = Message::decode(&changed) {
            let is_same = Message::NewView(new_view.clone()) == genuine;
            let is_refused = new_view.epoch != engine.epoch_hash || engine.verifier().check_new_view(&new_view, &mut Known::new()).is_err();
            assert!(is_same || is_refused, "byte {at}");
        }
    }
}

#[test]
fn a_node_that_is_behind_leaves_the_leader_alone() {
    let wait = |claims: &[usize]| {
        let mut engine = engine(4, 1);
        engine.start(NOW_MS);
        engine.handle(Input::Pending(true), NOW_MS);
        for from in claims {
            let status = Status { epoch: engine.epoch_hash, view: 0, to_view: 0, final_height: 9, committed: 9, have: Vec::new() };
            engine.handle(frame(*from, Message::Status(status).encode()), NOW_MS);
        }
        for second in 1..=4 {
            engine.handle(Input::Tick, NOW_MS + second * 1_000);
        }
        engine.status().to_view
    };
    assert_eq!(wait(&[2, 3]), 0, "one of two is honest: the others go on");
    assert_eq!(wait(&[3]), 1, "one claim may be a lie");
}

/// What took two timeouts in place of one when a leader fell silent: whoever went along with the others gave up their view at once.
#[test]
fn whoever_goes_along_with_a_view_change_waits_for_the_new_leader_as_long_as_the_others() {
    let mut engine = engine(4, 2);
    engine.start(NOW_MS);
    engine.handle(Input::Pending(true), NOW_MS);
    for elapsed_ms in [1_000, 2_000, 2_990] {
        engine.handle(Input::Tick, NOW_MS + elapsed_ms);
    }
    for sealer in [1, 3] {
        let (epoch, certificates, suspects, signature) = (engine.epoch_hash, Vec::new(), vec![0], Signature([0; 65]));
        let change = ViewChange { epoch, to_view: 1, sealer, stable: None, certificates, suspects, signature };
        engine.handle(frame(sealer as usize, Message::ViewChange(change).encode()), NOW_MS + 2_995);
    }
    for elapsed_ms in [3_000, 4_000, 5_000, 6_000, 7_000] {
        engine.handle(Input::Tick, NOW_MS + elapsed_ms);
        assert_eq!(engine.status().to_view, 1, "{elapsed_ms} ms");
    }
    engine.handle(Input::Tick, NOW_MS + 7_500);
    assert_eq!(engine.status().to_view, 2);
}

/// What an honest node is prepared for has no gaps, so a new view never has to cut off what was committed.
#[test]
fn a_commit_waits_for_the_commit_of_the_height_below() {
    let mut engine = engine(4, 3);
    engine.start(NOW_MS);
    let first = content(&engine, 1, 0);
    let contents = Brief::of(&first).contents(&domain());
    let (below, payload) = proposal(&engine, 0, first);
    engine.handle(frame(0, payload), NOW_MS);
    engine.handle(Input::Gathered { height: 1, digest: below, outcome: Gathered::Complete(vec![transaction(0)]) }, NOW_MS);
    let transactions = vec![transaction(1).hash()];
    let second = ProposalHeader { previous: below, below: contents, timestamp_ms: NOW_MS + 1, transactions, ..content(&engine, 2, 1) };
    let (above, payload) = proposal(&engine, 1, second);
    let mut effects = engine.handle(frame(1, payload), NOW_MS);
    let outcome = Gathered::Complete(vec![transaction(1)]);
    effects.extend(engine.handle(Input::Gathered { height: 2, digest: above, outcome }, NOW_MS));
    assert!(has_vote(&effects, VoteKind::Prepare), "heights overlap");
    let prepare = vote(&engine, VoteKind::Prepare, 2, above, 2);
    let effects = engine.handle(frame(2, prepare), NOW_MS);
    assert!(!has_vote(&effects, VoteKind::Commit), "{effects:?}");
    let prepare = vote(&engine, VoteKind::Prepare, 1, below, 2);
    let effects = engine.handle(frame(2, prepare), NOW_MS);
    let commits = effects.iter().filter(|effect| has_vote(std::slice::from_ref(effect), VoteKind::Commit)).count();
    assert_eq!(commits, 2, "both at once: {effects:?}");
    let first_vote = effects.iter().position(|effect| matches!(effect, Effect::Broadcast(_)));
    let record = effects.iter().position(|effect| matches!(effect, Effect::Record { .. }));
    assert!(record < first_vote);
}

/// Sealer 1 of four with work to order, which sees these sealers; it has a session with all of them before.
fn with_sessions(present: &[usize]) -> PbftEngine {
    let mut engine = engine(4, 1);
    engine.start(NOW_MS);
    for nodes in [&[0, 2, 3][..], present] {
        engine.handle(Input::Reachable(nodes.iter().map(|index| key(*index).node_id()).collect()), NOW_MS);
    }
    engine.handle(Input::Pending(true), NOW_MS);
    engine
}

fn gone(engine: &PbftEngine, from: usize, sealers: &[u32]) -> Input {
    frame(from, Message::Gone(engine.epoch_hash, sealers.to_vec()).encode())
}

#[test]
fn a_leader_is_left_early_when_a_quorum_lost_it_and_not_for_what_fewer_say() {
    let mut engine = with_sessions(&[2, 3]);
    let word = gone(&engine, 2, &[0]);
    let effects = engine.handle(word, NOW_MS + 100);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(engine.deadline_ms(), Some(NOW_MS + 300), "when the session has been lost for long enough");
    let effects = engine.handle(Input::Tick, NOW_MS + 300);
    assert!(matches!(&effects[..], [Effect::Broadcast(payload)] if *payload == Message::Gone(engine.epoch_hash, vec![0]).encode()));
    engine.handle(Input::Tick, NOW_MS + 1_500);
    assert_eq!(engine.status().to_view, 0, "two of three");
    let word = gone(&engine, 3, &[0, 2]);
    let effects = engine.handle(word, NOW_MS + 1_600);
    assert_eq!(engine.status().to_view, 1);
    let said = effects.iter().find_map(|effect| if let Effect::Broadcast(payload) = effect { Message::decode(payload).ok() } else { None });
    let Some(Message::ViewChange(change)) = said else { panic!("{effects:?}") };
    assert_eq!(change.suspects, [0], "the new view passes over it");
}

#[test]
fn words_that_sealers_are_gone_lose_their_force() {
    let mut engine = with_sessions(&[2, 3]);
    for sealer in [2, 3] {
        let word = gone(&engine, sealer, &[0]);
        engine.handle(word, NOW_MS);
    }
    engine.handle(Input::Pending(false), NOW_MS);
    for second in 1..=5 {
        engine.handle(Input::Tick, NOW_MS + second * 1_000);
    }
    engine.handle(Input::Pending(true), NOW_MS + 5_000);
    assert_eq!(engine.status().to_view, 0, "said five seconds ago");
}

#[test]
fn session_that_comes_back_within_the_grace_was_never_lost() {
    let mut engine = with_sessions(&[2, 3]);
    for sealer in [2, 3] {
        let word = gone(&engine, sealer, &[0]);
        engine.handle(word, NOW_MS);
    }
    engine.handle(Input::Reachable([0, 2, 3].map(|index| key(index).node_id()).to_vec()), NOW_MS + 299);
    engine.handle(Input::Tick, NOW_MS + 400);
    assert_eq!(engine.status().to_view, 0);
}

#[test]
fn leader_that_is_gone_is_left_only_when_something_waits_to_be_ordered() {
    let mut engine = with_sessions(&[2, 3]);
    engine.handle(Input::Pending(false), NOW_MS);
    engine.handle(Input::Tick, NOW_MS + 300);
    for sealer in [2, 3] {
        let word = gone(&engine, sealer, &[0]);
        engine.handle(word, NOW_MS + 300);
    }
    engine.handle(Input::Tick, NOW_MS + 1_000);
    assert_eq!(engine.status().to_view, 0);
    engine.handle(Input::Pending(true), NOW_MS + 1_001);
    assert_eq!(engine.status().to_view, 1, "at once then");
}

/// With three sealers nobody can be missed: leaving the view would only keep the others from going on when the third is back.
#[test]
fn nobody_is_left_when_no_quorum_would_remain() {
    let mut engine = engine(3, 1);
    engine.start(NOW_MS);
    for nodes in [&[0, 2][..], &[2]] {
        engine.handle(Input::Reachable(nodes.iter().map(|index| key(*index).node_id()).collect()), NOW_MS);
    }
    engine.handle(Input::Pending(true), NOW_MS);
    for from in [0, 2] {
        let word = gone(&engine, from, &[0]);
        engine.handle(word, NOW_MS);
    }
    engine.handle(Input::Tick, NOW_MS + 1_000);
    assert_eq!(engine.status().to_view, 0);
}

#[test]
fn views_that_a_gone_sealer_would_begin_are_passed_over() {
    let mut engine = engine(7, 3);
    engine.start(NOW_MS);
    for nodes in [&[0, 1, 2, 4, 5, 6][..], &[2, 4, 5, 6]] {
        engine.handle(Input::Reachable(nodes.iter().map(|index| key(*index).node_id()).collect()), NOW_MS);
    }
    engine.handle(Input::Pending(true), NOW_MS);
    engine.handle(Input::Tick, NOW_MS + 300);
    for from in [2, 4, 5, 6] {
        let word = gone(&engine, from, &[0, 1]);
        engine.handle(word, NOW_MS + 300);
    }
    assert_eq!(engine.status().to_view, 2, "sealer 1 would begin view 1");
}

#[test]
fn sealer_that_says_it_goes_is_left_without_the_grace_and_proposes_nothing_more() {
    let mut engine = with_sessions(&[0, 2, 3]);
    let word = gone(&engine, 0, &[0]);
    let effects = engine.handle(word, NOW_MS + 10);
    let passed_on = Message::Gone(engine.epoch_hash, vec![0]).encode();
    assert!(matches!(&effects[..], [Effect::Broadcast(payload)] if *payload == passed_on), "{effects:?}");
    assert_eq!(engine.status().to_view, 0, "two of three");
    let word = gone(&engine, 3, &[0]);
    engine.handle(word, NOW_MS + 12);
    assert_eq!(engine.status().to_view, 1);

    let mut leaving = self::engine(4, 0);
    let effects = leaving.start(NOW_MS);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Seal { height: 1, .. })), "{effects:?}");
    let effects = leaving.handle(Input::Leaving, NOW_MS + 5);
    let said = Message::Gone(leaving.epoch_hash, vec![0]).encode();
    assert!(matches!(&effects[..], [Effect::Void { above: 0 }, Effect::Broadcast(payload)] if *payload == said), "{effects:?}");
    assert!(leaving.handle(Input::Tick, NOW_MS + 3_000).is_empty(), "no heartbeat and no proposal");
}

#[test]
fn restarted_sealer_is_in_the_view_that_it_had_entered() {
    let mut first = engine(4, 3);
    first.start(NOW_MS);
    let changes = [0, 1, 2].map(|sealer| view_change(&first, sealer, &[0, 1, 2])).to_vec();
    let payload = Message::NewView(new_view(&first, changes)).encode();
    let effects = first.handle(frame(1, payload), NOW_MS);
    let bodies = effects.into_iter().filter_map(|effect| if let Effect::Record { body, .. } = effect { Some(body) } else { None });
    let second = engine_with(4, 3, bodies.collect());
    assert_eq!((second.view, second.base, second.to_view()), (1, 1, 1));
    assert_eq!(second.slots[&2].digest, first.slots[&2].digest, "what the view began with");
    assert!((3..9).all(|height| second.leader(1, height) == first.leader(1, height)));
}

#[test]
fn restarted_leader_whose_proposal_is_lost_says_so_and_is_left_at_once() {
    let mut first = engine(4, 0);
    first.start(NOW_MS);
    let effects = first.handle(Input::Sealed { height: 1, view: 0, timestamp_ms: NOW_MS, transactions: vec![transaction(0)] }, NOW_MS);
    let bodies = effects.into_iter().filter_map(|effect| if let Effect::Record { body, .. } = effect { Some(body) } else { None });
    let mut second = engine_with(4, 0, bodies.collect());
    second.start(NOW_MS);
    second.handle(Input::Pending(true), NOW_MS);
    assert_eq!(second.deadline_ms(), Some(NOW_MS + 300));
    let effects = second.handle(Input::Tick, NOW_MS + 300);
    let pass = Message::Pass(second.epoch_hash, 0, 1).encode();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Broadcast(payload) if *payload == pass)), "{effects:?}");
    assert_eq!(second.status().to_view, 1);

    let mut other = engine(4, 2);
    other.start(NOW_MS);
    other.handle(Input::Pending(true), NOW_MS);
    other.handle(frame(1, pass.clone()), NOW_MS + 1);
    assert_eq!(other.status().to_view, 0, "another sealer cannot say it");
    other.handle(frame(0, pass.clone()), NOW_MS + 1);
    assert_eq!(other.status().to_view, 1);

    let mut holder = engine(4, 2);
    holder.start(NOW_MS);
    let (_, payload) = proposal(&holder, 0, content(&holder, 1, 0));
    holder.handle(frame(0, payload), NOW_MS);
    holder.handle(frame(0, pass), NOW_MS + 1);
    assert_eq!(holder.status().to_view, 0, "who has the proposal sends it back");
}
