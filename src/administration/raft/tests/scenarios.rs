//! Named scenarios.

use millrace_base::Bytes;

use super::super::log::Position;
use super::super::message::{Kind, Message, RaftFrame, WireEntry};
use super::super::{ElectionTimes, RaftConfig, RaftEngine};
use super::cluster::{Cluster, Options};
use crate::engine::{Effect, Engine, Input};
use crate::epoch::{Epoch, Faults};
use crate::pbft::tests::world;

fn calm(sealers: usize) -> Cluster {
    let mut cluster = Cluster::new(Options::calm(sealers));
    cluster.run_until("blocks flow", |cluster| cluster.hosts.iter().all(|host| host.height() >= 10));
    cluster
}

fn others(cluster: &Cluster, host: usize) -> Vec<usize> {
    (0..cluster.hosts.len()).filter(|other| *other != host).collect()
}

#[test]
fn clusters_of_one_to_seven_elect_one_leader_and_commit() {
    for sealers in 1..=7 {
        let mut cluster = calm(sealers);
        let (leader, term) = (cluster.leader().unwrap(), cluster.term(0));
        cluster.run_for(20_000);
        assert_eq!((cluster.leader(), cluster.term(0)), (Some(leader), term), "a leader that works stays");
        assert!((0..sealers).all(|host| cluster.engine(host).status().leader == Some(cluster.hosts[leader].key.node_id())));
    }
}

#[test]
fn leader_that_fails_is_replaced_within_the_election_times() {
    for sealers in [3, 5] {
        let mut cluster = calm(sealers);
        for _ in 0..5 {
            let old = cluster.leader().unwrap();
            let height = cluster.height();
            cluster.take_down(old);
            let gap = cluster.run_until("another leads and commits", |cluster| cluster.height() >= height + 8);
            assert!(gap < 5_000, "{gap} ms");
            assert_ne!(cluster.leader(), Some(old));
            cluster.boot(old);
            cluster.run_for(3_000);
        }
    }
}

#[test]
fn minority_commits_nothing_and_its_leader_steps_down() {
    for sealers in [3, 5] {
        let mut cluster = calm(sealers);
        let old = cluster.leader().unwrap();
        let minority = if sealers == 3 { vec![old] } else { vec![old, (old + 1) % 5] };
        cluster.part(&minority);
        cluster.run_for(500);
        let heights: Vec<u64> = minority.iter().map(|host| cluster.hosts[*host].height()).collect();
        let only = cluster.offer(&minority, None);
        cluster.has_sync = false;
        cluster.run_for(15_000);
        assert_eq!(heights, minority.iter().map(|host| cluster.hosts[*host].height()).collect::<Vec<_>>());
        assert!(!minority.contains(&cluster.leader().unwrap()));
        assert!(!cluster.engine(old).status().waits_for.is_empty());
        assert_ne!(cluster.engine(old).status().leader, Some(cluster.hosts[old].key.node_id()), "it has stepped down");
        cluster.has_sync = true;
        cluster.heal();
        let reached = cluster.height();
        cluster.run_until("all are one chain", |cluster| cluster.hosts.iter().all(|host| host.height() > reached + 8));
        cluster.offer(&(0..sealers).collect::<Vec<_>>(), None);
        let at = cluster.leader().unwrap();
        cluster.hosts[at].offer(&only);
        cluster.run_until("what waited in the minority is committed", |cluster| cluster.blocks_with(0, &only).len() == 1);
    }
}

#[test]
fn proposals_that_no_majority_had_are_replaced_and_their_transactions_committed_once() {
    let mut cluster = calm(3);
    let old = cluster.leader().unwrap();
    cluster.part(&[old]);
    // The old leader goes on proposing for a moment; nobody hears of it.
    let alone = cluster.offer(&[old], None);
    cluster.run_for(200);
    let last = cluster.engine(old).node.as_ref().unwrap().log().last();
    assert!(cluster.engine(old).node.as_ref().unwrap().committed() < last);
    cluster.run_until("the others go on", |cluster| cluster.leader() != Some(old));
    cluster.run_for(3_000);
    cluster.heal();
    let everywhere: Vec<usize> = (0..3).collect();
    for host in everywhere {
        cluster.hosts[host].offer(&alone);
    }
    cluster.run_until("it is committed", |cluster| (0..3).all(|host| cluster.blocks_with(host, &alone).len() == 1));
}

#[test]
fn node_that_was_cut_off_does_not_disturb_when_it_is_back() {
    let mut cluster = calm(3);
    let leader = cluster.leader().unwrap();
    let away = others(&cluster, leader)[0];
    let term = cluster.term(leader);
    cluster.part(&[away]);
    cluster.run_for(30_000);
    assert_eq!(cluster.term(away), term, "it asks before it raises the term");
    cluster.heal();
    cluster.run_for(10_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
    cluster.run_until("it has caught up", |cluster| cluster.hosts[away].height() + 8 > cluster.height());
}

#[test]
fn node_with_an_old_log_is_not_elected() {
    let mut cluster = calm(3);
    let leader = cluster.leader().unwrap();
    let [behind, upright] = others(&cluster, leader)[..] else { unreachable!() };
    cluster.has_sync = false;
    cluster.part(&[behind]);
    cluster.run_for(5_000);
    cluster.take_down(leader);
    cluster.cut.clear();
    cluster.has_sync = true;
    let height = cluster.height();
    cluster.run_until("the one with the whole log leads", |cluster| cluster.height() > height + 3);
    assert_eq!(cluster.leader(), Some(upright));
    cluster.run_until("the other has caught up", |cluster| cluster.hosts[behind].height() >= height);
}

#[test]
fn node_far_behind_gets_blocks_and_then_a_place_in_the_log() {
    let mut cluster = Cluster::new(Options { window: 2, ..Options::calm(3) });
    cluster.run_until("blocks flow", |cluster| cluster.hosts.iter().all(|host| host.height() >= 10));
    let leader = cluster.leader().unwrap();
    let away = others(&cluster, leader)[0];
    cluster.take_down(away);
    let height = cluster.height();
    cluster.run_until("the log is dropped", |cluster| cluster.height() > height + 60);
    assert!(cluster.engine(leader).node.as_ref().unwrap().log().base().height > height + 8);
    cluster.boot(away);
    cluster.run_until("it follows the log again", |cluster| {
        let node = cluster.engine(away).node.as_ref().unwrap();
        node.log().base().height > height && node.log().last() + 3 > cluster.engine(leader).node.as_ref().unwrap().log().last()
    });
    // And its vote counts.
    let other = others(&cluster, leader).into_iter().find(|host| *host != away).unwrap();
    cluster.take_down(other);
    let height = cluster.height();
    cluster.run_until("two of three go on", |cluster| cluster.height() > height + 8);
    cluster.crash(away);
    cluster.run_until("also after its restart", |cluster| cluster.height() > height + 20);
}

#[test]
fn everybody_may_stop_at_once_and_nothing_final_is_lost() {
    let mut cluster = calm(5);
    for _ in 0..4 {
        let heights: Vec<u64> = cluster.hosts.iter().map(|host| host.height()).collect();
        (0..5).for_each(|host| cluster.take_down(host));
        cluster.run_for(100);
        (0..5).for_each(|host| cluster.boot(host));
        assert!(cluster.hosts.iter().zip(&heights).all(|(host, height)| host.height() == *height));
        let height = cluster.height();
        cluster.run_until("they go on", |cluster| cluster.hosts.iter().all(|host| host.height() > height + 5));
    }
}

#[test]
fn members_come_and_go_down_to_one_and_up_again() {
    let mut cluster = Cluster::new(Options { observers: 2, ..Options::calm(3) });
    cluster.run_until("blocks flow", |cluster| cluster.hosts.iter().all(|host| host.height() >= 5));
    for sealers in [vec![0, 1], vec![1], vec![1, 4], vec![0, 2, 3, 4], vec![3], vec![0, 1, 2, 3, 4]] {
        let everywhere: Vec<usize> = (0..5).collect();
        cluster.offer(&everywhere, Some(sealers.clone()));
        let count = sealers.len();
        let gap =
            cluster.run_until("the new members govern", |cluster| (0..5).all(|host| cluster.engine(host).status().sealers.len() == count));
        assert!(gap < 10_000, "{gap} ms");
        let height = cluster.height();
        cluster.run_until("blocks flow", |cluster| cluster.hosts.iter().all(|host| host.height() >= height + 5));
        let leader = cluster.leader().unwrap();
        assert!(sealers.contains(&leader));
    }
}

#[test]
fn leader_that_stays_a_member_leads_the_next_epoch_at_once() {
    let mut cluster = calm(3);
    let leader = cluster.leader().unwrap();
    let everywhere: Vec<usize> = (0..3).collect();
    let two = vec![leader.min((leader + 1) % 3), leader.max((leader + 1) % 3)];
    cluster.offer(&everywhere, Some(two));
    cluster.run_until("the epoch begins", |cluster| (0..3).all(|host| cluster.engine(host).status().sealers.len() == 2));
    cluster.run_for(100);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), 1), "without waiting for a timeout");
}

#[test]
fn loss_of_all_messages_for_a_while_is_survived() {
    let mut cluster = calm(3);
    (0..3).for_each(|_| {
        cluster.options.drop_percent = 100;
        cluster.run_for(10_000);
        cluster.options.drop_percent = 0;
        let height = cluster.height();
        cluster.run_until("they go on", |cluster| cluster.height() > height + 8);
    });
}

/// One engine of three, told what to hear by the test.
struct Follower {
    engine: RaftEngine,
    records: Vec<Bytes>,
    now_ms: u64,
}

fn epoch() -> Epoch {
    Epoch { faults: Faults::Crash, ..world::epoch(&[0, 1, 2], 1, 3_000) }
}

impl Follower {
    fn new(records: Vec<Bytes>) -> Self {
        let engine = RaftEngine::new(RaftConfig {
            domain: world::domain(),
            key: world::key(0),
            epoch: epoch(),
            head: millrace_base::BlockHeader::default(),
            head_hash: millrace_base::B256::ZERO,
            records: records.clone(),
            window: 8,
            times: ElectionTimes::default(),
        });
        let mut follower = Self { engine, records, now_ms: 1_000_000 };
        let effects = follower.engine.start(follower.now_ms);
        follower.remember(&effects);
        follower
    }

    fn remember(&mut self, effects: &[Effect]) {
        self.records.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Record { body, .. } => Some(body.clone()),
            _ => None,
        }));
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.engine.handle(input, self.now_ms);
        self.remember(&effects);
        effects
    }

    /// What it answers to a message of another sealer.
    fn hear(&mut self, from: usize, frame: RaftFrame) -> (Vec<Effect>, Vec<RaftFrame>) {
        let digest = self.engine.epoch.digest().0;
        let payload = Message::Raft(digest, 1, frame).encode();
        let effects = self.tell(Input::Frame { from: world::key(from).node_id(), payload });
        let answers = frames(&effects);
        (effects, answers)
    }
}

fn frames(effects: &[Effect]) -> Vec<RaftFrame> {
    let frame = |effect: &Effect| match effect {
        Effect::Send { payload, .. } => match Message::decode(payload) {
            Ok(Message::Raft(_, _, frame)) => Some(frame),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(frame).collect()
}

fn frame(kind: Kind, term: u64) -> RaftFrame {
    RaftFrame::new(kind, term)
}

/// The log of a leader of term 1: its first entry, and a proposal with one transaction.
fn appended() -> RaftFrame {
    let transaction = world::transaction(7);
    let header = crate::engine::ProposalHeader {
        height: 1,
        epoch: epoch().digest(),
        previous: millrace_base::B256::ZERO,
        below: crate::pbft::message::contents_of(&world::domain(), &millrace_base::BlockHeader::default()),
        timestamp_ms: 5,
        sealer: 1,
        transactions: vec![transaction.hash()],
    };
    let data = millrace_base::wire::encode(&crate::pbft::message::Content::from(&header));
    let entries = vec![WireEntry { term: 1, data: Vec::new() }, WireEntry { term: 1, data }];
    RaftFrame { entries, ..frame(Kind::Append, 1) }
}

#[test]
fn entry_is_acknowledged_once_its_transactions_are_here_and_recorded_with_it() {
    let mut follower = Follower::new(Vec::new());
    let (effects, answers) = follower.hear(1, appended());
    assert!(answers.is_empty(), "{answers:?}");
    let wish = effects.iter().find_map(|effect| match effect {
        Effect::Gather { height: 1, digest, holders, .. } => Some((*digest, holders.clone())),
        _ => None,
    });
    let (digest, holders) = wish.expect("it asks for the transactions");
    assert_eq!(holders, [world::key(1).node_id(), world::key(2).node_id()], "the leader first");
    // A heartbeat keeps the leader meanwhile, and the same entries again change nothing.
    assert_eq!(follower.hear(1, frame(Kind::Heartbeat, 1)).1[0].kind, Kind::HeartbeatResponse);
    assert!(follower.hear(1, appended()).1.is_empty());
    let outcome = crate::engine::Gathered::Complete(vec![world::transaction(7)]);
    let effects = follower.tell(Input::Gathered { height: 1, digest, outcome });
    let answers = frames(&effects);
    assert_eq!((answers[0].kind, answers[0].index, answers[0].is_rejected), (Kind::AppendResponse, 2, false));
    let recorded = effects.iter().position(|effect| matches!(effect, Effect::Record { height: 2, .. })).unwrap();
    let sent = effects.iter().position(|effect| matches!(effect, Effect::Send { .. })).unwrap();
    assert!(recorded < sent);
    // After a restart the log is there, and the pool gets the transactions back.
    let mut again = Follower::new(follower.records.clone());
    assert_eq!(again.engine.node.as_ref().unwrap().log().last(), 2);
    let (_, answers) = again.hear(1, RaftFrame { index: 2, log_term: 1, commit: 2, ..frame(Kind::Append, 1) });
    assert_eq!(answers[0].index, 2);
    assert_eq!(again.engine.status().waits_for, "height 1: being executed");
}

#[test]
fn proposal_that_the_pool_refuses_is_not_acknowledged() {
    let mut follower = Follower::new(Vec::new());
    let (effects, _) = follower.hear(1, appended());
    let digest = effects.iter().find_map(|effect| match effect {
        Effect::Gather { digest, .. } => Some(*digest),
        _ => None,
    });
    let outcome = crate::engine::Gathered::Refused("a transaction twice".into());
    let effects = follower.tell(Input::Gathered { height: 1, digest: digest.unwrap(), outcome });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Refused { .. })));
    assert!(frames(&effects).is_empty());
}

#[test]
fn vote_is_remembered_over_a_restart() {
    let mut follower = Follower::new(Vec::new());
    let ask = |term| frame(Kind::RequestVote, term);
    let granted = |answers: &[RaftFrame]| answers.iter().any(|answer| answer.kind == Kind::RequestVoteResponse && !answer.is_rejected);
    assert!(granted(&follower.hear(1, ask(5)).1));
    assert!(!granted(&follower.hear(2, ask(5)).1), "one vote a term");
    let mut again = Follower::new(follower.records.clone());
    assert_eq!(again.engine.status().view, 5);
    assert!(!granted(&again.hear(2, ask(5)).1));
    assert!(!granted(&again.hear(2, ask(4)).1), "nor in a term that is over");
    assert!(granted(&again.hear(1, ask(5)).1), "the same vote may be said again");
    assert!(granted(&again.hear(2, ask(6)).1));
}

#[test]
fn messages_of_others_epochs_and_strangers_change_nothing() {
    let mut follower = Follower::new(Vec::new());
    let payload = Message::Raft([9; 32], 1, frame(Kind::RequestVote, 7)).encode();
    assert!(follower.tell(Input::Frame { from: world::key(1).node_id(), payload }).is_empty());
    let (effects, answers) = follower.hear(9, frame(Kind::RequestVote, 7));
    assert!(answers.is_empty() && matches!(effects[..], [Effect::Refused { .. }]));
    assert_eq!(follower.engine.status().view, 0);
}

#[test]
fn sealer_that_lost_its_log_takes_no_part_and_says_so() {
    let mut follower = Follower::new(Vec::new());
    let (_, answers) = follower.hear(1, RaftFrame { commit: 40, ..frame(Kind::Heartbeat, 3) });
    assert!(answers.is_empty());
    assert!(follower.engine.status().waits_for.contains("remove it from the sealers"), "{}", follower.engine.status().waits_for);
    assert!(follower.hear(2, frame(Kind::RequestVote, 9)).1.is_empty());
}

#[test]
fn place_in_the_log_is_taken_when_the_chain_has_reached_it_and_not_before() {
    let mut follower = Follower::new(Vec::new());
    let position = |height| Some(Position { index: 30, term: 2, height, contents: None });
    let snapshot = |height| RaftFrame { position: position(height), ..frame(Kind::Snapshot, 2) };
    assert!(follower.hear(1, snapshot(20)).1.is_empty());
    assert_eq!(follower.engine.node.as_ref().unwrap().log().last(), 0);
    let (_, answers) = follower.hear(1, snapshot(0));
    assert_eq!((answers[0].kind, answers[0].index), (Kind::AppendResponse, 30));
    let again = Follower::new(follower.records.clone());
    assert_eq!(again.engine.node.as_ref().unwrap().log().last(), 30);
}
