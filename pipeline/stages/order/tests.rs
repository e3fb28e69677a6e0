//! The order stage over a scripted engine, real pools and ledgers, on a single thread, by [`bench`]; [`oracle`] compares its judgement
//! with one that knows every block.

#[path = "tests/bench.rs"]
mod bench;
#[path = "tests/oracle.rs"]
mod oracle;

use std::sync::atomic::Ordering;

use millrace_access::txpool::Submitter;
use millrace_administration::Effect;
use millrace_administration::engine::{Gathered, Input};
use millrace_base::{B256, NodeId};

use super::*;
use crate::frames::Frame;
use crate::transfer::TransferMessage;
use bench::{Bench, FIRST_MS, Shape, execute, finalize, group, node, transactions};

fn gather(height: u64, digest: u8, wanted: &[millrace_base::VerifiedTx], holders: &[NodeId]) -> Effect {
    let hashes = wanted.iter().map(VerifiedTx::hash).collect();
    Effect::Gather { height, digest: B256::repeat_byte(digest), hashes, holders: holders.to_vec() }
}

fn record(height: u64) -> Effect {
    Effect::Record { height, body: Bytes::from_static(b"vote") }
}

#[test]
fn nothing_leaves_before_the_records_of_its_turn_are_durable_and_the_order_is_kept() {
    let mut bench = Bench::new();
    bench.open(1);
    let wanted = transactions(1, 1..3);
    bench.say(
        1,
        vec![
            Effect::Send { to: node(2), payload: Bytes::from_static(b"first") },
            record(1),
            Effect::Broadcast(Bytes::from_static(b"second")),
            bench::execute(1, &wanted),
            record(2),
            Effect::Send { to: node(3), payload: Bytes::from_static(b"third") },
        ],
    );
    assert_eq!(bench.log(), ["append 1", "append 2", "sync", "send 2 first", "multicast [2, 3, 4] second", "send 3 third"]);
    assert_eq!(bench.executes(), ["open", "run 1"]);
}

#[test]
fn failing_sync_holds_everything_back_until_it_succeeds() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.fail_syncs(true);
    bench.say(1, vec![record(1), Effect::Broadcast(Bytes::from_static(b"vote")), bench::execute(1, &transactions(1, 1..2))]);
    assert_eq!(bench.log(), ["append 1", "failed sync"]);
    bench.say(1, vec![Effect::Broadcast(Bytes::from_static(b"lost"))]);
    bench.pass_ms(500);
    assert!(bench.log().is_empty(), "frames are dropped, and the disk is left alone for a while");
    bench.pass_ms(600);
    assert_eq!(bench.log(), ["failed sync"]);
    assert_eq!(bench.executes(), ["open"]);
    bench.fail_syncs(false);
    bench.pass_ms(1_000);
    assert_eq!(bench.log(), ["sync", "multicast [2, 3, 4] vote"]);
    assert_eq!(bench.executes(), ["run 1"]);
}

#[test]
fn missing_transactions_are_asked_from_one_holder_after_the_other_until_all_are_there() {
    let mut bench = Bench::with_pool_of(1);
    bench.open(1);
    let wanted = transactions(1, 1..5);
    bench.admit(1, &wanted[2..3], Submitter(7));
    bench.connect(&[2, 3]);
    bench.say(1, vec![gather(1, 9, &wanted, &[node(3), node(2)])]);
    let hashes = |range: &[usize]| range.iter().map(|index| wanted[*index].hash()).collect::<Vec<_>>();
    assert_eq!(bench.wants(), [(3, hashes(&[0, 1, 3]))]);
    bench.give(1, &wanted[1..2]);
    assert!(bench.wants().is_empty(), "the rest of the answer may be under way");
    bench.pass_ms(199);
    assert!(bench.wants().is_empty());
    bench.pass_ms(1);
    assert_eq!(bench.wants(), [(2, hashes(&[0, 3]))]);
    bench.give(1, &[wanted[3].clone(), wanted[0].clone()]);
    assert_eq!(bench.gathered(1), [(1, Ok(wanted.clone()))]);
    bench.pass_ms(5_000);
    assert!(bench.wants().is_empty());
    let pool = bench.ledger(1).pool();
    assert_eq!((pool.count(), pool.waiting(), pool.shelved()), (1, 0, 3), "given ones stand beside the full pool");
    assert!(wanted.iter().all(|one| pool.get(one.hash()).is_some()), "others can be given them");
}

#[test]
fn holders_that_are_silent_are_asked_in_turn_with_growing_patience_and_new_ones_at_once_in_line() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.connect(&[2, 3, 4]);
    let wanted = transactions(1, 1..2);
    bench.say(1, vec![gather(1, 9, &wanted, &[node(2), node(3)])]);
    let mut asked = Vec::new();
    for _ in 0..120 {
        asked.extend(bench.wants().into_iter().map(|(to, _)| to));
        bench.pass_ms(100);
    }
    assert_eq!(asked[..4], [2, 3, 2, 3]);
    assert!((7..20).contains(&asked.len()), "{asked:?}");
    bench.say(1, vec![gather(1, 9, &wanted, &[node(4)])]);
    bench.pass_ms(3_200);
    assert_eq!(bench.wants().first().map(|(to, _)| *to), Some(4));
    bench.connect(&[3]);
    bench.pass_ms(3_200);
    assert!(bench.wants().iter().all(|(to, _)| *to == 3), "who is not connected is passed over");
}

#[test]
fn proposals_that_no_honest_sealer_makes_are_refused_with_the_reason() {
    let mut bench = Bench::new();
    bench.open(1);
    let [used, in_flight] = [1, 2].map(|nonce| Shape::new(nonce).signed(1));
    bench.run_block(1, 1, std::slice::from_ref(&used));
    bench.say(1, vec![bench::execute(2, std::slice::from_ref(&in_flight))]);
    let twice = [Shape { salt: 1, ..Shape::new(50) }.signed(1), Shape { salt: 2, ..Shape::new(50) }.signed(1)];
    let cases: [(&str, Vec<VerifiedTx>); 8] = [
        ("another chain", vec![Shape { chain_id: 9, ..Shape::new(10) }.signed(1)]),
        ("another group", vec![Shape::new(10).signed(2)]),
        ("expired", vec![Shape { block_limit: 2, ..Shape::new(10) }.signed(1)]),
        ("too far ahead", vec![Shape { block_limit: 1_003, ..Shape::new(10) }.signed(1)]),
        ("block before it has used", vec![used.clone()]),
        ("block before it has used", vec![Shape { salt: 5, ..Shape::new(1) }.signed(1)]),
        ("block before it has used", vec![Shape { salt: 5, ..Shape::new(2) }.signed(1)]),
        ("another transaction of the proposal", twice.to_vec()),
    ];
    bench.connect(&[2]);
    for (index, (reason, wanted)) in cases.into_iter().enumerate() {
        let good = Shape::new(900 + index as u64).signed(1);
        let wanted: Vec<_> = [good].into_iter().chain(wanted).collect();
        bench.say(1, vec![gather(3, index as u8, &wanted, &[node(2)])]);
        bench.give(1, &wanted);
        let answers = bench.gathered(1);
        let [(3, Err(said))] = answers.as_slice() else { panic!("{reason}: {answers:?}") };
        assert!(said.contains(reason), "{said}");
    }
    for block_limit in [3, 1_002] {
        let wanted = [Shape { block_limit, ..Shape::new(block_limit) }.signed(1)];
        bench.say(1, vec![gather(3, 100, &wanted, &[node(2)])]);
        bench.give(1, &wanted);
        assert_eq!(bench.gathered(1), [(3, Ok(wanted.to_vec()))]);
    }
}

#[test]
fn nodes_at_different_heads_judge_a_proposal_alike() {
    let block = transactions(1, 1..4);
    let proposals = [vec![Shape::new(2).signed(1)], vec![Shape { salt: 3, ..Shape::new(3) }.signed(1)], transactions(1, 10..12)];
    let judge = |bench: &mut Bench, proposal: &[VerifiedTx], digest: u8| {
        bench.say(1, vec![gather(2, digest, proposal, &[node(2)])]);
        bench.give(1, proposal);
        let answers = bench.gathered(1);
        assert_eq!(answers.len(), 1);
        answers
    };
    let mut ahead = Bench::new();
    ahead.open(1);
    ahead.run_block(1, 1, &block);
    let mut behind = Bench::new();
    behind.open(1);
    behind.say(1, vec![gather(1, 77, &block, &[node(2)])]);
    behind.give(1, &block);
    assert!(matches!(behind.gathered(1)[..], [(1, Ok(_))]));
    assert_eq!((ahead.ledger(1).pool().head(), behind.ledger(1).pool().head()), (1, 0));
    let judged =
        [0, 1, 2].map(|index| (judge(&mut ahead, &proposals[index], index as u8), judge(&mut behind, &proposals[index], index as u8)));
    assert!(judged.iter().all(|(one, other)| one == other), "{judged:?}");
    assert_eq!(judged.map(|(answers, _)| answers[0].1.is_ok()), [false, false, true]);
}

#[test]
fn proposal_is_judged_once_the_heights_below_it_are_known() {
    let mut bench = Bench::new();
    bench.open(1);
    let (first, second) = (transactions(1, 1..3), transactions(1, 2..4));
    bench.say(1, vec![gather(2, 2, &second, &[node(2)]), gather(1, 1, &first, &[node(2)])]);
    bench.give(1, &second);
    assert!(bench.gathered(1).is_empty());
    bench.give(1, &first);
    let answers = bench.gathered(1);
    assert!(matches!(&answers[..], [(1, Ok(_)), (2, Err(_))]), "{answers:?}");
}

#[test]
fn height_given_other_content_frees_what_the_former_one_reserved() {
    let mut bench = Bench::new();
    bench.open(1);
    let own = transactions(1, 1..4);
    bench.admit(1, &own, Submitter(7));
    bench.say(1, vec![bench::seal(1, 3)]);
    assert_eq!(bench.sealed(1), [(1, own.clone())]);
    assert_eq!(bench.ledger(1).pool().waiting(), 0);
    bench.say(1, vec![gather(1, 5, &own[1..2], &[node(2)])]);
    assert_eq!(bench.gathered(1), [(1, Ok(own[1..2].to_vec()))]);
    assert_eq!(bench.ledger(1).pool().waiting(), 2);
    bench.say(1, vec![bench::seal(2, 2)]);
    assert_eq!(bench.sealed(1), [(2, vec![own[0].clone(), own[2].clone()])]);
    bench.say(1, vec![bench::seal(1, 10)]);
    assert_eq!(bench.sealed(1), [(1, own)], "the height was asked for anew, so what stood there and above is dead");
}

#[test]
fn partial_block_waits_until_those_below_are_final_and_a_full_one_does_not() {
    let mut bench = Bench::new();
    bench.open(1);
    let own = transactions(1, 1..6);
    bench.admit(1, &own, Submitter(7));
    bench.say(1, vec![bench::seal(1, 2)]);
    bench.say(1, vec![bench::seal(2, 2)]);
    assert_eq!(bench.sealed(1), [(1, own[..2].to_vec()), (2, own[2..4].to_vec())], "both are full");
    bench.say(1, vec![bench::seal(3, 2)]);
    bench.say(1, vec![bench::execute(1, &own[..2]), bench::execute(2, &own[2..4])]);
    bench.execute_all(1);
    bench.say(1, vec![bench::finalize(1)]);
    assert!(bench.sealed(1).is_empty(), "height 2 may still change");
    bench.say(1, vec![bench::finalize(2)]);
    assert_eq!(bench.sealed(1), [(3, own[4..].to_vec())], "final is enough, durable it need not be");
}

#[test]
fn interval_between_proposals_counts_from_anybodys_last_one() {
    let mut bench = Bench::new();
    bench.min_interval_ms = 500;
    bench.open(1);
    bench.admit(1, &transactions(1, 1..2), Submitter(7));
    let after = |after_timestamp_ms| Effect::Seal { height: 1, view: 0, after_timestamp_ms, limit: 10 };
    bench.say(1, vec![after(FIRST_MS - 200)]);
    bench.pass_ms(299);
    assert!(bench.sealed(1).is_empty());
    bench.pass_ms(1);
    assert_eq!(bench.sealed(1).len(), 1);
    // A clock that is ahead holds nobody up.
    bench.admit(1, &transactions(1, 2..3), Submitter(7));
    bench.say(1, vec![Effect::Void { above: 0 }, after(FIRST_MS + 3_600_000)]);
    bench.pass_ms(500);
    assert_eq!(bench.sealed(1).len(), 1);
}

#[test]
fn own_proposal_passes_over_nonces_in_flight_and_waits_for_the_heights_below() {
    let mut bench = Bench::new();
    bench.open(1);
    let foreign = [Shape { salt: 9, ..Shape::new(1) }.signed(1)];
    let own = transactions(1, 1..3);
    bench.admit(1, &own, Submitter(7));
    bench.say(1, vec![gather(1, 1, &foreign, &[node(2)]), bench::seal(2, 2)]);
    assert!(bench.sealed(1).is_empty(), "what height 1 holds is not known yet");
    bench.give(1, &foreign);
    assert_eq!(bench.sealed(1), [(2, own[1..].to_vec())], "the rival's nonce is in flight");
}

#[test]
fn void_gives_transactions_back_forgets_wishes_and_late_results() {
    let mut bench = Bench::new();
    bench.open(1);
    let own = transactions(1, 1..4);
    bench.admit(1, &own, Submitter(7));
    bench.say(1, vec![bench::seal(1, 1)]);
    bench.say(1, vec![bench::execute(1, &own[..1]), bench::execute(2, &own[1..2]), gather(3, 3, &transactions(1, 20..21), &[node(2)])]);
    bench.say(1, vec![Effect::Void { above: 1 }]);
    assert_eq!(bench.ledger(1).pool().waiting(), 2);
    bench.pass_ms(10_000);
    let asked_before = bench.wants().len();
    bench.pass_ms(10_000);
    assert!(asked_before <= 1 && bench.wants().is_empty(), "nobody is asked for a void proposal");
    bench.say(1, vec![bench::execute(2, &own[2..])]);
    let executed = bench.execute_all(1);
    assert_eq!(executed, [1, 2], "the void execution of height 2 is not told");
    assert_eq!(bench.ledger(1).pool().waiting(), 1);
}

#[test]
fn downloaded_blocks_leave_nothing_behind() {
    let mut bench = Bench::new();
    bench.open(1);
    for height in 1..=5 {
        bench.admit(1, &transactions(1, height * 10..height * 10 + 2), Submitter(7));
        bench.run_block(1, height, &transactions(1, height * 10..height * 10 + 5));
    }
    let pool = bench.ledger(1).pool();
    assert_eq!((pool.head(), pool.count(), pool.shelved(), pool.waiting()), (5, 0, 0, 0));
    assert_eq!(bench.ledger(1).chain().head().header.number, 5);
    let order = &bench.stage.groups[&group(1)];
    assert!(order.is_drained());
    assert_eq!(order.remembers(), 0);
}

#[test]
fn restored_proposal_is_reserved_and_can_be_given_to_others() {
    let mut bench = Bench::new();
    bench.open(1);
    let (first, second) = (transactions(1, 1..3), transactions(1, 3..5));
    bench.say(
        1,
        vec![Effect::Restore { height: 2, transactions: second.clone() }, Effect::Restore { height: 1, transactions: first.clone() }],
    );
    let pool = Arc::clone(bench.ledger(1));
    assert!(first.iter().chain(&second).all(|one| pool.pool().get(one.hash()).is_some()));
    bench.say(1, vec![gather(1, 1, &first, &[]), gather(2, 2, &second, &[])]);
    assert_eq!(bench.gathered(1), [(1, Ok(first.clone())), (2, Ok(second))]);
    bench.say(1, vec![gather(3, 3, &first, &[])]);
    assert!(matches!(bench.gathered(1)[..], [(3, Err(_))]));
}

#[test]
fn closed_group_commits_what_is_final_and_can_be_opened_again_while_others_go_on() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    let first = transactions(1, 1..3);
    bench.say(1, vec![bench::execute(1, &first), bench::execute(2, &transactions(1, 3..5))]);
    bench.execute_all(1);
    bench.say(1, vec![bench::finalize(1)]);
    let done = bench.close(1);
    bench.run_stages();
    assert!(done.load(Ordering::Acquire));
    assert_eq!(bench.ledger(1).chain().head().header.number, 1);
    assert!(!bench.stage.groups.contains_key(&group(1)));
    bench.say(1, vec![bench::execute(3, &first)]);
    bench.run_block(2, 1, &transactions(2, 1..3));
    bench.open(1);
    bench.run_block(1, 2, &transactions(1, 3..5));
    assert_eq!((bench.ledger(1).chain().head().header.number, bench.ledger(2).chain().head().header.number), (2, 1));
    assert!(bench.close(7).load(Ordering::Acquire), "who is not here is gone");
}

#[test]
fn engine_that_panics_halts_its_group_alone_and_can_be_closed() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    bench.say(1, vec![bench::finalize(1)]);
    assert!(bench.ledger(1).halted().unwrap().contains("only an executed height becomes final"));
    bench.run_block(2, 1, &transactions(2, 1..3));
    assert!(bench.ledger(2).halted().is_none());
    let done = bench.close(1);
    bench.run_stages();
    assert!(done.load(Ordering::Acquire));
}

#[test]
fn engine_hears_when_transactions_begin_and_cease_to_wait_and_ticks_when_it_wants() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.set_deadline(1, Some(FIRST_MS + 50));
    bench.say(1, vec![]);
    bench.inputs(1);
    bench.admit(1, &transactions(1, 1..3), Submitter(7));
    bench.admit(1, &transactions(1, 3..4), Submitter(7));
    assert!(matches!(bench.inputs(1)[..], [Input::Pending(true)]));
    bench.say(1, vec![gather(1, 1, &transactions(1, 1..4), &[])]);
    assert!(matches!(bench.inputs(1)[..], [Input::Frame { .. }, Input::Gathered { .. }, Input::Pending(false)]));
    bench.pass_ms(49);
    assert!(bench.inputs(1).is_empty());
    bench.pass_ms(1);
    assert!(matches!(bench.inputs(1)[..], [Input::Tick, ..]));
}

#[test]
fn wrongs_of_other_nodes_are_counted_and_evidence_is_kept() {
    let mut bench = Bench::new();
    bench.open(1);
    let refusals = (0..99).map(|_| Effect::Refused { from: node(2), reason: "nonsense".into() }).collect();
    bench.say(1, refusals);
    let statements = [Bytes::from_static(b"yes"), Bytes::from_static(b"no")];
    bench.say(1, vec![record(1), Effect::Evidence { offender: node(3), what: "height 1".into(), statements }]);
    let conduct = bench.ledger(1).conduct();
    assert_eq!((conduct.refusals(), conduct.evidence()), (99, 1));
    assert_eq!(conduct.last_refusal().unwrap().node, node(2));
    let text = std::fs::read_to_string(bench.directory().join("evidence/group-1.txt")).unwrap();
    assert!(text.contains("height 1") && text.lines().count() == 1);
}

#[test]
fn status_is_published_when_it_changed_and_not_at_every_turn() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.pass_ms(100);
    let before = bench.status_calls(1);
    for _ in 0..50 {
        bench.say(1, vec![]);
    }
    assert!(bench.status_calls(1) <= before + 1);
    bench.set_view(1, 7);
    bench.say(1, vec![]);
    bench.pass_ms(20);
    assert_eq!(bench.ledger(1).engine_status().view, 7);
    bench.pass_ms(1_000);
    let idle = bench.status_calls(1);
    bench.pass_ms(900);
    assert_eq!(bench.status_calls(1), idle, "an idle group costs nothing");
}

#[test]
fn clock_set_back_delays_nothing_for_long() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.connect(&[2]);
    bench.say(1, vec![gather(1, 1, &transactions(1, 1..2), &[node(2)])]);
    bench.wants();
    bench.set_clock(FIRST_MS - 3_600_000);
    bench.pass_ms(1_100);
    assert!(!bench.wants().is_empty());
    bench.admit(1, &transactions(1, 5..6), Submitter(7));
    bench.say(1, vec![Effect::Void { above: 0 }, bench::seal(1, 1)]);
    assert_eq!(bench.sealed(1).len(), 1);
}

#[test]
fn stopping_node_waits_for_final_blocks_and_not_for_other_sealers() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.admit(1, &transactions(1, 1..3), Submitter(7));
    bench.say(1, vec![bench::seal(1, 10)]);
    bench.stage.on_stop();
    assert!(bench.stage.drained(), "the proposal is known to others, who go on with it");
    bench.say(1, vec![bench::execute(1, &transactions(1, 1..3))]);
    bench.execute_all(1);
    bench.say(1, vec![bench::finalize(1)]);
    assert!(!bench.stage.drained());
    bench.run_stages();
    assert!(bench.stage.drained());
}

#[test]
fn engine_hears_whom_it_reaches_when_that_changes_and_that_the_node_or_group_stops() {
    let reached = |bench: &Bench, id| {
        let nodes = |input| if let Input::Reachable(nodes) = input { Some(nodes) } else { None };
        bench.inputs(id).into_iter().filter_map(nodes).collect::<Vec<_>>()
    };
    let mut bench = Bench::new();
    bench.connect(&[2]);
    bench.open(1);
    bench.open(2);
    assert_eq!(reached(&bench, 1), [[2].map(node)]);
    bench.connect(&[2, 3]);
    bench.hand(ToOrder::PeersChanged);
    bench.hand(ToOrder::PeersChanged);
    assert_eq!((reached(&bench, 1), reached(&bench, 2).len()), (vec![[2, 3].map(node).to_vec()], 2));
    bench.connect(&[3]);
    bench.pass_ms(1_000);
    assert_eq!(reached(&bench, 1), [[3].map(node)], "also when nobody said so");
    bench.close(1);
    assert!(matches!(bench.inputs(1)[..], [Input::Leaving]));
    bench.inputs(2);
    bench.stage.on_stop();
    assert!(matches!(bench.inputs(2)[..], [Input::Leaving]));
}

#[test]
fn group_that_cannot_be_closed_is_cut_off_and_can_be_opened_again() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    let first = transactions(1, 1..3);
    bench.say(1, vec![bench::execute(1, &first)]);
    bench.execute_all(1);
    bench.fail_syncs(true);
    bench.say(1, vec![record(1), bench::finalize(1)]);
    let closed = bench.close(1);
    bench.run_stages();
    assert!(!closed.load(Ordering::Acquire), "the disk of the vote log is full");
    let cut_off = bench.abandon(1);
    bench.run_stages();
    assert!(cut_off.load(Ordering::Acquire));
    assert!(!bench.stage.groups.contains_key(&group(1)));
    bench.fail_syncs(false);
    bench.pass_ms(2_000);
    assert_eq!(bench.ledger(1).chain().head().header.number, 0, "what was final and not durable is taken from others");
    bench.open(1);
    bench.run_block(1, 1, &first);
    bench.run_block(2, 1, &transactions(2, 1..3));
    let unknown = bench.abandon(7);
    bench.run_stages();
    assert!(unknown.load(Ordering::Acquire), "who is not here is gone");
}

#[test]
fn member_that_is_refused_all_the_time_is_not_listened_to_for_a_while() {
    let mut bench = Bench::new();
    bench.open(1);
    let refused = || Effect::Refused { from: node(2), reason: "nonsense".into() };
    for _ in 0..100 {
        bench.say(1, vec![refused()]);
    }
    bench.inputs(1);
    bench.say(1, vec![refused()]);
    assert!(bench.inputs(1).is_empty(), "the engine does not hear it");
    let other = Frame::unmetered(group(1), node(3), Bytes::from_static(b"vote"));
    bench.hand(ToOrder::Frame(other));
    assert!(matches!(bench.inputs(1)[..], [Input::Frame { .. }]), "but others");
    bench.set_clock(FIRST_MS + 1_000);
    bench.say(1, vec![]);
    assert!(matches!(bench.inputs(1)[..], [Input::Frame { .. }]), "and it again later");
    assert_eq!(bench.ledger(1).conduct().refusals(), 100);
}

#[test]
fn group_whose_database_is_away_waits_in_every_stage_and_goes_on() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.run_stages();
    let (first, second, third) = (transactions(1, 0..3), transactions(1, 3..6), transactions(1, 6..9));
    [&first, &second, &third].into_iter().for_each(|block| bench.admit(1, block, Submitter::REPAIR));
    // Away before the first block is executed.
    bench.is_away.store(true, Ordering::Relaxed);
    bench.say(1, vec![execute(1, &first)]);
    bench.say(1, vec![execute(2, &second)]);
    assert_eq!(bench.execute_all(1), [], "nothing can be read");
    bench.try_again(60);
    assert_eq!(bench.ledger(1).halted(), None);
    bench.is_away.store(false, Ordering::Relaxed);
    bench.try_again(120);
    let height = |input| if let Input::Executed { height, .. } = input { Some(height) } else { None };
    assert_eq!(bench.inputs(1).into_iter().filter_map(height).collect::<Vec<_>>(), [1, 2], "in order");
    // Away when the blocks are final.
    bench.is_away.store(true, Ordering::Relaxed);
    bench.say(1, vec![finalize(1), finalize(2)]);
    bench.run_stages();
    bench.try_again(180);
    assert_eq!((bench.ledger(1).chain().head().header.number, bench.ledger(1).halted()), (0, None));
    bench.is_away.store(false, Ordering::Relaxed);
    bench.try_again(240);
    assert_eq!(bench.ledger(1).chain().head().header.number, 2);
    assert_eq!(bench.ledger(1).counters().blocks.load(Ordering::Relaxed), 2, "a block is counted once");
    bench.run_block(1, 3, &third);
}
