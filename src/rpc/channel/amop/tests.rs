//! Several engines wired together by hand: what clients on one and on two nodes see of each other.

use super::super::PeerMessage;
use super::*;
use crate::limits::MAX_PEER_TOPICS;

const NEED: &str = "#!$TopicNeedVerify_t";
const PUSH: &str = "#!$PushChannel_#!$TopicNeedVerify_t";
const CERT: &str = "#!$VerifyChannel_#!$TopicNeedVerify_t_0123456789abcdef0123456789abcdef";

fn node(n: u8) -> NodeId {
    NodeId([n; 64])
}

fn engine(n: u8) -> AmopEngine {
    AmopEngine::new(node(n), 1, 7)
}

fn request(sequence: u8, topic: &str, text: &str) -> Frame {
    Frame::new(kind::AMOP_REQUEST, [sequence; 32], super::super::super::frame::topic_body(topic.as_bytes(), text.as_bytes()))
}

fn answer(to: &Frame, text: &str) -> Frame {
    Frame::new(kind::AMOP_ANSWER, to.sequence, text.as_bytes().to_vec())
}

fn topics(list: &[&str]) -> Vec<String> {
    list.iter().map(|topic| (*topic).to_owned()).collect()
}

/// Frames to clients among effects.
fn frames(effects: &[Effect]) -> Vec<(SessionId, u16, i32)> {
    let frame = |effect: &Effect| match effect {
        Effect::Client(session, frame) => Some((*session, frame.kind, frame.result)),
        _ => None,
    };
    effects.iter().filter_map(frame).collect()
}

/// Two nodes; effects towards peers are carried until none is left.
struct Pair([AmopEngine; 2]);

impl Pair {
    fn new() -> Self {
        let mut pair = Self([engine(1), engine(2)]);
        let lists = [pair.0[0].topics_message(), pair.0[1].topics_message()];
        pair.carry(0, vec![Effect::Peers(lists[0].clone())], 0);
        pair.carry(1, vec![Effect::Peers(lists[1].clone())], 0);
        pair
    }

    /// Carries the effects of engine `of`; what clients of either see comes back.
    fn carry(&mut self, of: usize, effects: Vec<Effect>, now_ms: u64) -> Vec<(usize, SessionId, Frame)> {
        let mut seen = Vec::new();
        let mut queue = vec![(of, effects)];
        while let Some((of, effects)) = queue.pop() {
            for effect in effects {
                match effect {
                    Effect::Client(session, frame) => seen.push((of, session, frame)),
                    Effect::Peer(_, message) | Effect::Peers(message) => {
                        let message = PeerMessage::decode(&message.encode()).unwrap();
                        let own = self.0[of].own;
                        queue.push((1 - of, self.0[1 - of].on_peer(own, message, now_ms)));
                    }
                    Effect::Show(..) => {}
                }
            }
        }
        seen
    }

    fn subscribe(&mut self, of: usize, session: SessionId, list: &[&str]) -> Vec<(usize, SessionId, Frame)> {
        let effects = self.0[of].on_topics(session, topics(list));
        self.carry(of, effects, 0)
    }

    fn send(&mut self, of: usize, session: SessionId, topic: &str, frame: Frame) -> Vec<(usize, SessionId, Frame)> {
        let effects = self.0[of].on_request(session, topic.into(), frame, 0);
        self.carry(of, effects, 0)
    }
}

#[test]
fn message_to_nobody_is_answered_100_with_an_empty_body() {
    let effects = engine(1).on_request(1, "t".into(), request(5, "t", "x"), 0);
    let want = Frame::new(kind::AMOP_ANSWER, [5; 32], Bytes::new()).with_result(100);
    assert_eq!(effects, [Effect::Client(1, want)]);
}

#[test]
fn subscriber_on_the_senders_own_node_gets_the_message_and_its_answer_goes_back() {
    let mut engine = engine(1);
    engine.on_topics(2, topics(&["t"]));
    let sent = request(5, "t", "hello");
    assert_eq!(engine.on_request(1, "t".into(), sent.clone(), 0), [Effect::Client(2, sent.clone())]);
    let reply = answer(&sent, "\u{2}tworld");
    assert_eq!(engine.on_answer(3, reply.clone()), [], "an answer of somebody who was not asked");
    assert_eq!(engine.on_answer(2, reply.clone()), [Effect::Client(1, reply.clone())]);
    assert_eq!(engine.on_answer(2, reply), [], "the second answer");
    assert!(engine.waiting.is_empty() && engine.at_client.is_empty() && engine.deadlines.is_empty() && engine.waiting_bytes == 0);
}

#[test]
fn sender_is_its_own_subscriber_only_when_there_is_no_other() {
    let mut engine = engine(1);
    engine.on_topics(1, topics(&["t"]));
    assert_eq!(frames(&engine.on_request(1, "t".into(), request(1, "t", ""), 0)), [(1, kind::AMOP_REQUEST, 0)]);
    engine.on_topics(2, topics(&["t"]));
    for sequence in 2..20 {
        assert_eq!(frames(&engine.on_request(1, "t".into(), request(sequence, "t", ""), 0)), [(2, kind::AMOP_REQUEST, 0)]);
    }
}

#[test]
fn silent_subscriber_is_followed_by_the_next_and_at_last_by_104_with_the_body() {
    let mut engine = engine(1);
    for session in [2, 3] {
        engine.on_topics(session, topics(&["t"]));
    }
    let sent = request(5, "t", "silent");
    engine.on_request(1, "t".into(), sent.clone(), 0);
    assert_eq!(engine.on_tick(AMOP_CLIENT_MS - 1), []);
    assert_eq!(engine.on_tick(AMOP_CLIENT_MS).len(), 1, "the second subscriber is tried");
    assert_eq!(engine.next_deadline_ms(), Some(2 * AMOP_CLIENT_MS));
    let want = Frame::new(kind::AMOP_ANSWER, sent.sequence, sent.body).with_result(104);
    assert_eq!(engine.on_tick(2 * AMOP_CLIENT_MS), [Effect::Client(1, want)]);
    assert_eq!(engine.next_deadline_ms(), None);
}

#[test]
fn subscriber_that_leaves_is_followed_by_the_next_at_once() {
    let mut engine = engine(1);
    engine.on_topics(2, topics(&["t"]));
    engine.on_request(1, "t".into(), request(5, "t", "x"), 0);
    assert_eq!(frames(&engine.on_session_gone(2, 1)), [(1, kind::AMOP_ANSWER, 104)]);
    engine.on_topics(2, topics(&["t"]));
    engine.on_request(1, "t".into(), request(6, "t", "x"), 0);
    engine.on_session_gone(1, 1);
    assert_eq!(engine.on_answer(2, answer(&request(6, "t", "x"), "late")), [], "the sender is gone");
    assert!(engine.waiting.is_empty());
}

#[test]
fn broadcast_reaches_every_subscriber_but_the_sender_who_is_answered_at_once() {
    let mut pair = Pair::new();
    for (of, session) in [(0, 1), (0, 2), (1, 3), (1, 4)] {
        pair.subscribe(of, session, &["t"]);
    }
    let frame = Frame::new(kind::AMOP_BROADCAST, [9; 32], b"\x02tx".to_vec());
    let effects = pair.0[0].on_broadcast(1, "t", &frame);
    let seen = pair.carry(0, effects, 0);
    let receivers: BTreeSet<_> =
        seen.iter().filter(|(_, _, frame)| frame.kind == kind::AMOP_BROADCAST).map(|(of, session, _)| (*of, *session)).collect();
    assert_eq!(receivers, BTreeSet::from([(0, 2), (1, 3), (1, 4)]));
    let to_sender: Vec<_> = seen.iter().filter(|(of, session, _)| (*of, *session) == (0, 1)).collect();
    assert!(
        matches!(to_sender[..], [(_, _, answer)] if answer.kind == kind::AMOP_ANSWER && answer.result == 0 && answer.body == frame.body)
    );
}

#[test]
fn message_and_answer_cross_nodes_unchanged() {
    let mut pair = Pair::new();
    pair.subscribe(1, 8, &["t"]);
    let sent = request(5, "t", "hello");
    assert_eq!(pair.send(0, 1, "t", sent.clone()), [(1, 8, sent.clone())]);
    let reply = answer(&sent, "\u{2}tworld").with_result(7);
    let effects = pair.0[1].on_answer(8, reply.clone());
    assert_eq!(pair.carry(1, effects, 0), [(0, 1, reply)]);
    // The subscriber is gone before its node has said so.
    pair.0[1].on_topics(8, Vec::new());
    let refused = pair.send(0, 1, "t", request(6, "t", "gone?"));
    assert!(matches!(&refused[..], [(0, 1, frame)] if frame.result == 104 && frame.body[..] == *b"\x02tgone?"));
}

#[test]
fn peer_that_leaves_or_is_silent_is_answered_for() {
    let mut pair = Pair::new();
    pair.subscribe(1, 8, &["t"]);
    pair.send(0, 1, "t", request(5, "t", "x"));
    let late = pair.0[0].on_tick(AMOP_PEER_MS);
    assert_eq!(frames(&late), [(1, kind::AMOP_ANSWER, 104)]);
    pair.send(0, 1, "t", request(6, "t", "x"));
    assert_eq!(frames(&pair.0[0].on_peer_gone(node(2), 1)), [(1, kind::AMOP_ANSWER, 104)]);
    assert_eq!(frames(&pair.0[0].on_request(1, "t".into(), request(7, "t", "x"), 1)), [(1, kind::AMOP_ANSWER, 100)]);
}

#[test]
fn older_list_of_a_peer_changes_nothing() {
    let mut engine = engine(1);
    let list = |number, list: &[&str]| PeerMessage::Topics { number, topics: topics(list) };
    engine.on_peer(node(2), list(5, &["new"]), 0);
    assert_eq!(engine.on_peer(node(2), list(4, &["old"]), 0), []);
    assert_eq!(engine.peers_with("new").count() + engine.peers_with("old").count(), 1);
}

#[test]
fn list_of_too_many_topics_is_cut_and_garbage_is_refused() {
    let many = PeerMessage::Topics { number: 1, topics: (0..=MAX_PEER_TOPICS).map(|n| n.to_string()).collect() };
    let PeerMessage::Topics { topics, .. } = PeerMessage::decode(&many.encode()).unwrap() else { panic!() };
    assert_eq!(topics.len(), MAX_PEER_TOPICS);
    assert!(PeerMessage::decode(b"\x00\xff\xff\xff").is_err());
    assert!(PeerMessage::decode(&[&many.encode()[..], b"x"].concat()).is_err());
}

#[test]
fn private_topic_is_sent_to_only_after_a_publisher_has_verified_the_node() {
    for remote in [0, 1] {
        let mut pair = Pair::new();
        assert_eq!(pair.subscribe(0, 1, &[PUSH]), []);
        let asked = pair.subscribe(remote, 8, &[CERT, NEED]);
        let [(0, 1, question)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(question.kind, kind::TOPIC_VERIFY);
        let question: serde_json::Value = serde_json::from_slice(&question.body).unwrap();
        let subscriber = pair.0[remote].own;
        assert_eq!(
            (&question["topic"], &question["topicForCert"], &question["nodeId"]),
            (&NEED.into(), &CERT.into(), &subscriber.to_string().into())
        );
        let result = |seen: Vec<(usize, SessionId, Frame)>| {
            seen.into_iter().map(|(of, session, frame)| (of, session, frame.kind, frame.result)).collect::<Vec<_>>()
        };
        assert_eq!(result(pair.send(0, 1, NEED, request(1, NEED, "x"))), [(0, 1, kind::AMOP_ANSWER, 100)]);
        // The proof itself is an ordinary message.
        assert_eq!(result(pair.send(0, 1, CERT, request(2, CERT, "random"))), [(remote, 8, kind::AMOP_REQUEST, 0)]);
        let verdict = |is_verified| Verdict { node: subscriber, topic: NEED.into(), is_verified };
        pair.0[0].on_verdict(2, &verdict(true));
        assert_eq!(result(pair.send(0, 1, NEED, request(3, NEED, "x"))), [(0, 1, kind::AMOP_ANSWER, 100)], "somebody else's verdict");
        pair.0[0].on_verdict(1, &verdict(false));
        assert_eq!(result(pair.send(0, 1, NEED, request(4, NEED, "x"))), [(0, 1, kind::AMOP_ANSWER, 100)]);
        pair.0[0].on_verdict(1, &verdict(true));
        assert_eq!(result(pair.send(0, 1, NEED, request(5, NEED, "x"))), [(remote, 8, kind::AMOP_REQUEST, 0)]);
        // Another subscriber with another verification channel has to prove itself again.
        pair.subscribe(remote, 8, &[NEED, "#!$VerifyChannel_#!$TopicNeedVerify_t_ff"]);
        assert_eq!(result(pair.send(0, 1, NEED, request(6, NEED, "x"))), [(0, 1, kind::AMOP_ANSWER, 100)]);
    }
}

#[test]
fn what_waits_is_bounded_in_number_and_bytes() {
    let mut engine = engine(1);
    engine.on_topics(2, topics(&["t"]));
    let sized = |n: usize, bytes: usize| {
        let mut sequence = [0; 32];
        sequence[..8].copy_from_slice(&n.to_be_bytes());
        Frame::new(kind::AMOP_REQUEST, sequence, vec![0; bytes])
    };
    for n in 0..MAX_AMOP_WAITING {
        engine.on_request(1, "t".into(), sized(n, 1), 0);
    }
    assert_eq!(frames(&engine.on_request(1, "t".into(), sized(MAX_AMOP_WAITING, 1), 0)), [(1, kind::AMOP_ANSWER, 103)]);
    engine.on_session_gone(1, 0);
    assert_eq!((engine.waiting.len(), engine.waiting_bytes, engine.deadlines.len(), engine.at_client.len()), (0, 0, 0, 0));
    engine.on_request(1, "t".into(), sized(0, MAX_AMOP_WAITING_BYTES), 0);
    assert_eq!(frames(&engine.on_request(1, "t".into(), sized(1, 1), 0)), [(1, kind::AMOP_ANSWER, 103)]);
}
