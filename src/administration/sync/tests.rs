//! The machine under a random network with hostile peers, and its rules one by one.

#[path = "tests/world.rs"]
mod world;

use super::limits::{HELD_BYTES, MAX_CHECKS, MAX_REQUESTS, REQUEST_BYTES};
use super::message::WireBlock;
use super::*;
use millrace_base::{BlockHeader, BlockSignature, Signature};
use world::{Conduct, Link, World};

fn node(index: u8) -> NodeId {
    NodeId([index; 64])
}

/// A machine at height 0 of chain `genesis`, among sealers 0 to 3 as number 0.
fn machine(world: &World) -> SyncEngine {
    let sealers = (0..4).map(node).collect();
    SyncEngine::new(SyncConfig { own: node(0), genesis: world.genesis(), height: 0, hash: world.genesis(), sealers })
}

fn status(world: &World, height: u64) -> Bytes {
    SyncMessage::Status { version: VERSION, genesis: world.genesis(), height, hash: B256::repeat_byte(1), kept_from: 1 }.encode()
}

fn requests(effects: &[Effect]) -> Vec<(NodeId, u64, u64, u32)> {
    let requests = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, payload } => match SyncMessage::decode(payload) {
            Ok(SyncMessage::Request { id, from, count, .. }) => Some((*to, id, from, count)),
            _ => None,
        },
        _ => None,
    });
    requests.collect()
}

#[test]
fn messages_survive_the_round_trip_and_random_bytes_are_refused() {
    let messages = [
        SyncMessage::Status { version: 3, genesis: B256::repeat_byte(1), height: 9, hash: B256::repeat_byte(2), kept_from: 4 },
        SyncMessage::Pruned { id: 5, kept_from: 77 },
        SyncMessage::Request { id: 1, from: 2, count: 3, max_bytes: 4 },
        SyncMessage::Blocks { id: 7, from: 8, blocks: vec![Bytes::from_static(b"block"), Bytes::new()] },
    ];
    for message in messages {
        let bytes = message.encode();
        assert_eq!(SyncMessage::decode(&bytes).unwrap(), message);
        for end in 0..bytes.len() {
            assert!(SyncMessage::decode(&bytes.slice(..end)).is_err());
        }
    }
    let mut random = world::Random(7);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.below(80)).map(|_| random.below(5) as u8).collect();
        let bytes = Bytes::from(bytes);
        let _ = SyncMessage::decode(&bytes);
        let _ = WireBlock::decode(&bytes);
    }
    let header = BlockHeader { number: 4, ..BlockHeader::default() };
    let signatures = vec![BlockSignature { index: 3, signature: Signature([8; 65]) }];
    let transactions: Vec<&[u8]> = vec![b"first", b"second"];
    let bytes = Bytes::from(WireBlock::encode(&header, &signatures, transactions.into_iter()));
    let block = WireBlock::decode(&bytes).unwrap();
    assert_eq!((block.header, block.signatures), (header, signatures));
    assert_eq!(block.transactions, [Bytes::from_static(b"first"), Bytes::from_static(b"second")]);
}

#[test]
fn sealer_leaves_the_window_to_consensus_until_it_stalls() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 1_000);
    let effects = machine.handle(Input::Frame { from: node(1), payload: status(&world, WINDOW) }, 1_000);
    assert!(requests(&effects).is_empty());
    assert!(requests(&machine.handle(Input::Tick, 1_900)).is_empty());
    assert!(!requests(&machine.handle(Input::Tick, 2_100)).is_empty());
    assert!(machine.progress().is_syncing);
}

#[test]
fn sealer_downloads_at_once_what_lies_beyond_the_window_and_an_observer_everything() {
    let world = World::new(1, 20, 0);
    let mut sealer = machine(&world);
    sealer.handle(Input::Connected(node(1)), 1);
    assert!(!requests(&sealer.handle(Input::Frame { from: node(1), payload: status(&world, WINDOW + 1) }, 1)).is_empty());
    let mut observer = machine(&world);
    observer.handle(Input::Sealers(vec![node(1), node(2)]), 1);
    observer.handle(Input::Connected(node(1)), 1);
    assert!(!requests(&observer.handle(Input::Frame { from: node(1), payload: status(&world, 1) }, 1)).is_empty());
}

#[test]
fn absurd_claim_costs_a_bounded_number_of_requests_and_is_never_believed() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 1);
    for height in [10_000, u64::MAX >> 1, u64::MAX] {
        let effects = machine.handle(Input::Frame { from: node(1), payload: status(&world, height) }, 1);
        assert!(requests(&effects).len() <= MAX_REQUESTS);
        let progress = machine.progress();
        assert_eq!((progress.known.0, progress.held_bytes), (0, 0), "one claim is no knowledge");
    }
    let empty = SyncMessage::Blocks { id: 1, from: 1, blocks: Vec::new() }.encode();
    let effects = machine.handle(Input::Frame { from: node(1), payload: empty }, 2);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Demote { .. })), "{effects:?}");
    assert_eq!(machine.progress().target, 0);
}

#[test]
fn height_is_known_once_more_sealers_claim_it_than_can_be_faulty() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    for (peer, height) in [(1, u64::MAX), (2, 7), (3, 5)] {
        machine.handle(Input::Connected(node(peer)), 1);
        machine.handle(Input::Frame { from: node(peer), payload: status(&world, height) }, 1);
    }
    assert_eq!(machine.progress().known.0, 7);
}

#[test]
fn hostile_request_is_answered_within_bounds_or_not_at_all() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 1);
    machine.handle(Input::Head { height: 20, hash: world.hash(20) }, 1);
    for (from, count) in [(0, 0), (21, 5), (u64::MAX, u32::MAX)] {
        let payload = SyncMessage::Request { id: 1, from, count, max_bytes: u32::MAX }.encode();
        let effects = machine.handle(Input::Frame { from: node(1), payload }, 1);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Serve { .. })), "{effects:?}");
    }
    let payload = SyncMessage::Request { id: 1, from: 0, count: u32::MAX, max_bytes: u32::MAX }.encode();
    let effects = machine.handle(Input::Frame { from: node(1), payload: payload.clone() }, 1);
    let served = effects.iter().find_map(|effect| match effect {
        Effect::Serve { count, max_bytes, .. } => Some((*count, *max_bytes)),
        _ => None,
    });
    assert_eq!(served, Some((limits::MAX_REQUEST_BLOCKS, REQUEST_BYTES)));
    for _ in 0..1_000 {
        let effects = machine.handle(Input::Frame { from: node(1), payload: payload.clone() }, 1);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Serve { .. })), "one at a time");
    }
    let mut answered = 0;
    let mut now_ms = 1;
    while !machine.serving.is_idle() {
        now_ms += 1;
        let effects = machine.handle(Input::Served { bytes: 1 << 20 }, now_ms);
        answered += effects.iter().filter(|effect| matches!(effect, Effect::Serve { .. })).count();
    }
    assert_eq!(answered, limits::MAX_WAITING_SERVES);
    assert!(now_ms >= 31 * 3, "a MiB takes a thirty-second of a second of its share");
}

#[test]
fn reconnecting_does_not_wipe_out_a_lie() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 1);
    machine.handle(Input::Frame { from: node(1), payload: Bytes::from_static(b"garbage") }, 1);
    machine.handle(Input::Disconnected(node(1)), 2);
    machine.handle(Input::Connected(node(1)), 3);
    assert!(requests(&machine.handle(Input::Frame { from: node(1), payload: status(&world, 20) }, 3)).is_empty());
    assert_eq!(machine.progress().peers[0].lies, 1);
}

#[test]
fn jumps_of_the_wall_clock_do_not_hold_sync_up() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 10_000_000_000);
    machine.handle(Input::Frame { from: node(1), payload: status(&world, 5) }, 10_000_000_000);
    machine.handle(Input::Tick, 5_000);
    assert!(!requests(&machine.handle(Input::Tick, 6_100)).is_empty());
}

#[test]
fn full_store_still_asks_for_the_next_height() {
    let world = World::new(1, 400, 3 << 20);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 1);
    machine.handle(Input::Connected(node(2)), 1);
    let mut effects = machine.handle(Input::Frame { from: node(1), payload: status(&world, 400) }, 1);
    effects.extend(machine.handle(Input::Frame { from: node(2), payload: status(&world, 400) }, 1));
    // Node 1 has the first heights and is silent; node 2 answers until the store is full.
    let mut asked: Vec<_> = requests(&effects);
    while let Some(position) = asked.iter().position(|(to, ..)| *to == node(2)) {
        let (_, id, from, _) = asked.remove(position);
        let payload = SyncMessage::Blocks { id, from, blocks: vec![world.bytes(from)] }.encode();
        let effects = machine.handle(Input::Frame { from: node(2), payload }, 2);
        asked.extend(requests(&effects));
        assert!(machine.progress().held_bytes <= HELD_BYTES + 2 * MAX_REQUESTS * REQUEST_BYTES as usize);
    }
    assert!(machine.progress().held_bytes > HELD_BYTES / 2);
    let effects = machine.handle(Input::Tick, 40_000);
    assert!(requests(&effects).iter().any(|(to, _, from, _)| (*to, *from) == (node(2), 1)), "{:?}", requests(&effects));
}

/// Runs a follower beside these peers until it has caught up with the chain; fails when it does not in the time.
fn converges(seed: u64, peers: &[Conduct], link: Link) -> World {
    let mut world = World::new(seed, 300, 2_000);
    for conduct in peers {
        world.add_peer(*conduct);
    }
    let patience_ms = 900_000;
    world.run(link, patience_ms);
    assert_eq!(world.height(), 300, "seed {seed} with {peers:?} over {link:?}: {:#?}", world.progress());
    assert!(world.most_checks <= MAX_CHECKS);
    assert!(world.most_held <= HELD_BYTES);
    world
}

#[test]
fn one_honest_peer_is_enough_whatever_the_others_do() {
    for seed in 0..40 {
        let mut random = world::Random(seed);
        let mut peers: Vec<Conduct> =
            (0..random.below(6)).map(|_| Conduct::LIES[random.below(Conduct::LIES.len() as u64) as usize]).collect();
        peers.insert(random.below(peers.len() as u64 + 1) as usize, Conduct::Honest);
        let link = Link { lost_of_1000: random.below(200), delay_ms: 1 + random.below(200), cut_of_10_000: random.below(5) };
        converges(seed, &peers, link);
    }
}

#[test]
fn each_kind_of_liar_is_found_out() {
    for conduct in Conduct::LIES {
        let world = converges(5, &[conduct, Conduct::Honest, conduct], Link { lost_of_1000: 0, delay_ms: 20, cut_of_10_000: 0 });
        let is_a_lie = !matches!(conduct, Conduct::Slow | Conduct::Silent | Conduct::Forgetful);
        assert_eq!(world.demoted > 0, is_a_lie, "{conduct:?}");
        assert!(!world.honest_was_demoted, "{conduct:?}");
    }
}

#[test]
fn blocks_that_some_peers_have_pruned_come_from_those_that_keep_them_and_nobody_is_blamed() {
    let link = Link { lost_of_1000: 20, delay_ms: 20, cut_of_10_000: 2 };
    for seed in 0..10 {
        let world = converges(seed, &[Conduct::Pruned, Conduct::Honest, Conduct::Forgetful, Conduct::Pruned], link);
        assert_eq!(world.demoted, 0);
        assert!(world.served[0] > 0 && world.served[3] > 0, "{:?}", world.served);
        assert_eq!(world.progress().out_of_reach, None);
    }
}

#[test]
fn gap_that_no_peer_can_close_is_named_and_its_blocks_are_not_asked_for() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    let claim = |kept_from| {
        SyncMessage::Status { version: VERSION, genesis: world.genesis(), height: 90, hash: B256::repeat_byte(1), kept_from }.encode()
    };
    machine.handle(Input::Connected(node(1)), 1);
    machine.handle(Input::Connected(node(2)), 1);
    assert!(requests(&machine.handle(Input::Frame { from: node(1), payload: claim(50) }, 1)).is_empty());
    machine.handle(Input::Frame { from: node(2), payload: claim(40) }, 1);
    assert_eq!(machine.progress().out_of_reach, Some(40));
    let asked = requests(&machine.handle(Input::Frame { from: node(2), payload: claim(1) }, 1));
    assert!(asked.iter().all(|(to, ..)| *to == node(2)) && !asked.is_empty());
    assert_eq!(machine.progress().out_of_reach, None);
}

#[test]
fn request_for_pruned_blocks_is_answered_with_what_is_kept() {
    let world = World::new(1, 20, 0);
    let mut machine = machine(&world);
    machine.handle(Input::Connected(node(1)), 1);
    machine.handle(Input::Head { height: 20, hash: world.hash(20) }, 1);
    machine.handle(Input::Keeps(9), 1);
    let ask = |from| Input::Frame { from: node(1), payload: SyncMessage::Request { id: 6, from, count: 2, max_bytes: 1 << 20 }.encode() };
    let effects = machine.handle(ask(8), 1);
    let answer = SyncMessage::Pruned { id: 6, kept_from: 9 }.encode();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Send { payload, .. } if *payload == answer)), "{effects:?}");
    assert!(machine.handle(ask(9), 1).iter().any(|effect| matches!(effect, Effect::Serve { from_height: 9, .. })));
}

#[test]
fn several_honest_peers_share_the_work_and_the_slow_one_gets_less() {
    let link = Link { lost_of_1000: 0, delay_ms: 5, cut_of_10_000: 0 };
    let world = converges(3, &[Conduct::Honest, Conduct::Honest, Conduct::Slow], link);
    let [first, second, slow] = world.served[..] else { panic!("three peers") };
    assert!(first > 30 && second > 30, "{:?}", world.served);
    assert!(slow < first && slow < second, "{:?}", world.served);
}
