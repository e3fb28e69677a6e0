//! The states of a transaction, in every order in which acknowledgement and receipt can arrive.

use super::*;
use crate::options::WorkloadName;
use crate::workload::workloads;

fn tracker() -> Tracker {
    Tracker::new(workloads(WorkloadName::Token), 4)
}

fn item(mark: u8) -> Prepared {
    Prepared { hash: B256::repeat_byte(mark), transfer: Some((0, 1)), ..Prepared::default() }
}

fn receipt(mark: u8, status: u32) -> Sighting {
    Sighting { hash: B256::repeat_byte(mark), status, output: Vec::new(), contract: Address::ZERO }
}

fn send(tracker: &Tracker, marks: &[u8]) {
    let batch: Vec<Prepared> = marks.iter().map(|mark| item(*mark)).collect();
    assert!(tracker.take_room(batch.len(), 100, Duration::from_secs(1)));
    tracker.sent(&batch, Instant::now(), Phase::Measured, HasRoom::Yes, 0);
}

#[test]
fn a_receipt_before_its_acknowledgement_counts_once() {
    let tracker = tracker();
    send(&tracker, &[1]);
    tracker.saw_block(5, &[receipt(1, 0), receipt(9, 0)], Instant::now());
    tracker.acknowledged(&[B256::repeat_byte(1)], Instant::now());
    assert!(tracker.missing().is_empty());
    tracker.with_record(|record| {
        assert_eq!((record.counts.committed, record.counts.acknowledged, record.counts.foreign), (1, 1, 1));
        assert_eq!(record.changes[0], [-1, 1, 0, 0]);
        assert!(record.problems.is_empty());
    });
}

#[test]
fn an_acknowledged_transaction_without_receipt_is_missing() {
    let tracker = tracker();
    send(&tracker, &[1, 2]);
    tracker.acknowledged(&[B256::repeat_byte(1), B256::repeat_byte(2)], Instant::now());
    tracker.saw_block(5, &[receipt(1, 0)], Instant::now());
    tracker.settle(Duration::from_millis(5));
    assert_eq!(tracker.missing(), [B256::repeat_byte(2)]);
}

#[test]
fn a_second_receipt_is_a_problem_and_moves_nothing() {
    let tracker = tracker();
    send(&tracker, &[1]);
    tracker.saw_block(5, &[receipt(1, 0)], Instant::now());
    tracker.saw_block(6, &[receipt(1, 0)], Instant::now());
    tracker.with_record(|record| {
        assert_eq!(record.problems.len(), 1);
        assert_eq!(record.counts.committed, 1);
        assert_eq!(record.changes[0][1], 1);
    });
}

#[test]
fn a_refused_transaction_frees_its_place_and_must_not_be_committed() {
    let tracker = tracker();
    send(&tracker, &[1]);
    tracker.refused(&B256::repeat_byte(1), "28 TransactionPoolIsFull", Outlook::SentAgain);
    assert!(tracker.take_room(100, 100, Duration::ZERO));
    tracker.with_record(|record| {
        assert_eq!((record.counts.submitted, record.counts.refused, record.errors["28 TransactionPoolIsFull"]), (0, 0, 1));
    });
    send_and_see(&tracker);
    tracker.refused(&B256::repeat_byte(2), "28", Outlook::GivenUp);
    tracker.with_record(|record| assert_eq!(record.problems.len(), 1));
}

fn send_and_see(tracker: &Tracker) {
    tracker.sent(&[item(2)], Instant::now(), Phase::Measured, HasRoom::No, 0);
    tracker.saw_block(5, &[receipt(2, 0)], Instant::now());
}

#[test]
fn a_lost_connection_leaves_the_transaction_unsure_until_it_is_seen() {
    let tracker = tracker();
    send(&tracker, &[1]);
    tracker.unknown(&[B256::repeat_byte(1)], "transport");
    assert!(tracker.has_unsure() && tracker.missing().is_empty());
    tracker.saw_block(5, &[receipt(1, 0)], Instant::now());
    assert!(!tracker.has_unsure());
}

#[test]
fn a_failed_transfer_moves_nothing() {
    let tracker = tracker();
    send(&tracker, &[1]);
    tracker.saw_block(5, &[receipt(1, 22)], Instant::now());
    tracker.with_record(|record| {
        assert_eq!((record.counts.failed, record.statuses[&22]), (1, 1));
        assert_eq!(record.changes[0], [0; 4]);
    });
}

#[test]
fn the_window_holds_back_what_exceeds_it() {
    let tracker = tracker();
    assert!(tracker.take_room(60, 100, Duration::ZERO));
    assert!(!tracker.take_room(60, 100, Duration::from_millis(1)));
}

fn push(mark: u8, block: u64) -> (Sighting, u64) {
    (receipt(mark, 0), block)
}

fn resend(tracker: &Tracker, mark: u8, node: usize) {
    tracker.sent(&[Prepared { is_resent: true, ..item(mark) }], Instant::now(), Phase::Measured, HasRoom::No, node);
}

#[test]
fn what_another_node_takes_over_is_one_transaction() {
    let tracker = tracker();
    send(&tracker, &[1, 2]);
    tracker.acknowledged(&[B256::repeat_byte(1)], Instant::now());
    tracker.unknown(&[B256::repeat_byte(2)], "connection");
    let orphans = tracker.orphans(Some(0));
    assert_eq!(orphans.iter().map(|item| (item.hash, item.is_resent)).collect::<Vec<_>>(), [(B256::repeat_byte(1), true)]);
    assert!(tracker.orphans(Some(1)).is_empty() && tracker.orphans(None).len() == 1);
    for mark in [1, 2] {
        resend(&tracker, mark, 1);
        tracker.acknowledged(&[B256::repeat_byte(mark)], Instant::now());
    }
    tracker.saw_block(5, &[receipt(1, 0), receipt(2, 0)], Instant::now());
    assert!(tracker.settle(Duration::ZERO) && !tracker.has_unsure() && tracker.orphans(Some(1)).is_empty());
    assert!(tracker.take_room(100, 100, Duration::ZERO));
    tracker.with_record(|record| {
        let counts = record.counts;
        assert_eq!((counts.submitted, counts.acknowledged, counts.unknown, counts.resent, counts.committed), (2, 2, 0, 2, 2));
    });
}

#[test]
fn an_acknowledged_transaction_that_no_node_took_over_stays_missing() {
    let tracker = tracker();
    send(&tracker, &[1]);
    tracker.acknowledged(&[B256::repeat_byte(1)], Instant::now());
    resend(&tracker, 1, 1);
    tracker.unknown(&[B256::repeat_byte(1)], "28");
    assert_eq!(tracker.missing(), [B256::repeat_byte(1)]);
}

#[test]
fn pushed_receipts_count_once_and_must_agree_with_their_block() {
    let tracker = tracker();
    tracker.expect_pushes();
    send(&tracker, &[1, 2, 3]);
    tracker.acknowledged(&[1, 2, 3].map(B256::repeat_byte), Instant::now());
    tracker.saw_pushes(&[push(1, 5), push(2, 5)], Instant::now());
    tracker.read_blocks();
    tracker.saw_block(5, &[receipt(1, 0), receipt(2, 0), receipt(3, 0)], Instant::now());
    assert_eq!(tracker.missing_pushes(), 1);
    tracker.with_record(|record| {
        assert_eq!((record.counts.committed, record.counts.pushed, record.commits.len()), (3, 2, 1));
        assert!(record.problems.is_empty());
    });
    tracker.saw_pushes(&[push(3, 6), push(1, 5)], Instant::now());
    tracker.with_record(|record| assert_eq!(record.problems.len(), 2));
}
