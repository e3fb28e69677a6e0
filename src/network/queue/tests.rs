//! The order and the bounds of the send queue.

use millrace_base::Bytes;

use super::*;
use crate::frame::HEADER_BYTES;
use crate::frame::assembler::{Assembler, Gate, Received};

fn limits() -> NetworkLimits {
    NetworkLimits { queue_bytes: 64 << 20, urgent_queue_bytes: 32 << 20, ..NetworkLimits::default() }
}

fn group(id: i64) -> Option<GroupId> {
    GroupId::new(id)
}

fn frame(group: Option<GroupId>, kind: FrameKind, length: usize) -> WireFrame {
    WireFrame { kind, group, expanded: 0, bytes: Bytes::from(vec![0; length]) }
}

/// Sends everything; the frames in the order in which the peer has them complete.
fn drain(queue: &mut SendQueue) -> Vec<(Key, FrameKind, usize)> {
    let (mut assembler, mut order) = (Assembler::default(), Vec::new());
    loop {
        let mut out = Vec::new();
        queue.fill(&mut out, 1);
        if out.is_empty() {
            assert_eq!(queue.depth(), (0, 0));
            return order;
        }
        let mut input = &out[..];
        while let Some(received) = assembler.next(&mut input, &|_| Gate::Keep).unwrap() {
            let Received::Frame(frame) = received else { panic!("only frames are queued") };
            order.push((frame.group, frame.kind, frame.bytes.len()));
        }
    }
}

#[test]
fn urgent_frames_overtake_bulk_even_in_the_middle_of_a_frame() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    queue.push(frame(group(1), FrameKind::Transactions, 10 << 20), 1);
    let mut out = Vec::new();
    queue.fill(&mut out, 1);
    queue.push(frame(group(1), FrameKind::Consensus, 300), 1);
    let mut next = Vec::new();
    queue.fill(&mut next, 1);
    assert_eq!(next.len(), HEADER_BYTES + 300, "the vote goes before the second chunk");
    out.extend_from_slice(&next);
    queue.fill(&mut out, usize::MAX);
    let (mut assembler, mut input, mut kinds) = (Assembler::default(), &out[..], Vec::new());
    while let Some(Received::Frame(frame)) = assembler.next(&mut input, &|_| Gate::Keep).unwrap() {
        kinds.push((frame.kind, frame.bytes.len()));
    }
    assert_eq!(kinds, [(FrameKind::Consensus, 300), (FrameKind::Transactions, 10 << 20)]);
}

#[test]
fn bulk_keeps_a_fifth_of_the_link_under_a_flood_of_urgent_frames() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    for _ in 0..200 {
        assert_eq!(queue.push(frame(group(1), FrameKind::Consensus, CHUNK_BYTES), 1), Push::Taken);
        assert_eq!(queue.push(frame(group(1), FrameKind::Sync, CHUNK_BYTES), 1), Push::Taken);
    }
    let order = drain(&mut queue);
    let bulk = order[..100].iter().filter(|(_, kind, _)| *kind == FrameKind::Sync).count();
    assert_eq!(bulk, 20);
}

#[test]
fn groups_and_kinds_take_turns_by_bytes() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    // Group 1 queues large frames first, group 2 many small ones, and one of them is AMOP behind transactions.
    for _ in 0..10 {
        assert_eq!(queue.push(frame(group(1), FrameKind::Transactions, 1 << 20), 2), Push::Taken);
    }
    for _ in 0..1_000 {
        assert_eq!(queue.push(frame(group(2), FrameKind::Transactions, 1_000), 2), Push::Taken);
    }
    queue.push(frame(group(2), FrameKind::Amop, 1_000), 2);
    let order = drain(&mut queue);
    let mut sent = [0, 0];
    for (of, _, length) in &order {
        let (of, length) = (usize::from(of.unwrap().get()) - 1, *length);
        sent[of] += length;
        if sent[1] < 1_000_000 {
            let ahead = sent[0].saturating_sub(sent[1]);
            assert!(ahead <= (1 << 20) + (128 << 10), "group 1 is {ahead} bytes ahead");
        }
    }
    assert!(order.iter().position(|(_, kind, _)| *kind == FrameKind::Amop).unwrap() < 100, "AMOP does not wait for all transactions");
}

#[test]
fn a_busy_group_and_a_flood_of_one_kind_leave_room_for_others() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    let mut taken = 0;
    while queue.push(frame(group(1), FrameKind::Transactions, 1 << 20), 2) == Push::Taken {
        taken += 1;
    }
    assert_eq!(taken, 11, "three eighths of half of 64 MiB, headers counted");
    assert_eq!(queue.push(frame(group(1), FrameKind::Sync, 1 << 20), 2), Push::Taken);
    assert_eq!(queue.push(frame(group(2), FrameKind::Transactions, 12 << 20), 2), Push::Taken);
    assert_eq!(queue.push(frame(None, FrameKind::Amop, MAX_PAYLOAD_BYTES), 2), Push::Taken, "a large frame passes if it is the only one");
    assert_eq!(queue.push(frame(None, FrameKind::Amop, 1), 2), Push::Full);
    assert_eq!(queue.push(frame(group(1), FrameKind::Consensus, 100), 2), Push::Taken);
}

#[test]
fn the_queue_never_exceeds_its_limit_by_more_than_a_frame() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    for id in 1..=100 {
        for kind in FrameKind::ALL {
            queue.push(frame(group(id), kind, 8 << 20), 100);
        }
    }
    let most = limits().queue_bytes + limits().urgent_queue_bytes + 2 * MAX_PAYLOAD_BYTES;
    assert!(queue.depth().1 <= most);
    let urgent = drain(&mut queue).iter().filter(|(_, kind, _)| kind.is_urgent()).count();
    assert_eq!(urgent, 5, "48 MiB hold five frames of 8 MiB with their headers");
}

#[test]
fn nothing_of_a_dropped_group_is_sent_any_more_not_even_the_rest_of_a_frame() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    queue.push(frame(group(1), FrameKind::Sync, 1 << 20), 2);
    queue.push(frame(group(1), FrameKind::Sync, 1_000), 2);
    queue.push(frame(group(2), FrameKind::Sync, 2_000), 2);
    let mut out = Vec::new();
    queue.fill(&mut out, 1);
    assert_eq!(queue.drop_group(group(1).unwrap()), 2);
    assert_eq!(queue.depth().0, 1);
    queue.fill(&mut out, usize::MAX);
    assert_eq!(out.len(), 3 * HEADER_BYTES + CHUNK_BYTES + 2_000);
    let (mut assembler, mut input) = (Assembler::default(), &out[..]);
    let Some(Received::Frame(received)) = assembler.next(&mut input, &|_| Gate::Keep).unwrap() else { panic!("group 2 goes on") };
    assert_eq!((received.group, received.bytes.len()), (group(2), 2_000));
    assert_eq!(queue.depth(), (0, 0));
}

#[test]
fn another_connection_takes_over_what_is_left() {
    let mut queue = SendQueue::new(&limits(), &Budget::new(usize::MAX));
    queue.push(frame(group(1), FrameKind::Sync, 1 << 20), 1);
    queue.push(frame(group(1), FrameKind::Consensus, 10), 1);
    queue.fill(&mut Vec::new(), 100 << 10);
    let mut successor = queue.hand_over(&limits());
    assert_eq!(queue.push(frame(group(1), FrameKind::Control, 1), 1), Push::Closed);
    assert!(!queue.has_work());
    assert_eq!(successor.push(frame(group(1), FrameKind::Control, 1), 1), Push::Taken);
    assert_eq!(drain(&mut successor), [(group(1), FrameKind::Control, 1), (group(1), FrameKind::Sync, 1 << 20)]);
    assert_eq!(successor.close(), 0);
    assert_eq!(successor.push(frame(group(1), FrameKind::Control, 1), 1), Push::Closed);
}

#[test]
fn when_all_queues_together_are_full_only_peers_with_short_queues_get_more() {
    let budget = Budget::new(8 << 20);
    let mut slow = SendQueue::new(&limits(), &budget);
    let mut taken = 0;
    while slow.push(frame(group(1), FrameKind::Sync, 1 << 20), 1) == Push::Taken {
        taken += 1;
    }
    assert_eq!(taken, 8);
    let mut other = SendQueue::new(&limits(), &budget);
    assert_eq!(other.push(frame(group(1), FrameKind::Sync, 4 << 20), 1), Push::Taken, "the first frame always");
    assert_eq!(other.push(frame(group(1), FrameKind::Sync, 1), 1), Push::Full);
    assert_eq!(slow.push(frame(group(1), FrameKind::Consensus, 1_000), 1), Push::Taken, "votes have their own lane");
    let successor = slow.hand_over(&limits());
    assert!(budget.used() > 12 << 20);
    drop(successor);
    other.fill(&mut Vec::new(), 5 << 20);
    assert_eq!(budget.used(), 0);
    assert_eq!(other.push(frame(group(1), FrameKind::Sync, 1), 1), Push::Taken);
}
