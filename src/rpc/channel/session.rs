//! One client's session as a state machine: frames go in, actions come out; no socket, no clock, no storage.
//!
//! ```text
//! version 1 --handshake--> version 1, 2 or 3          (again and again, as clients like)
//! any state --frame of unknown type--> same state     (clients of other versions send what we do not know)
//! any state --bad handshake range, too many topics, silence--> closed
//! ```
//! Invariant: whatever a client sends, the session answers, ignores or closes; nothing here grows with the number of frames.
//! Driven by [`super::hub`].

use millrace_base::{Bytes, NodeId};
use serde::Deserialize;
use serde_json::Value;

use super::frame::{Frame, MAX_TOPIC_BYTES, Sequence, kind, split_topic};
use super::version::{Handshake, Version, is_go_sdk, negotiate};
use crate::limits::{IDLE_LIMIT_MS, MAX_CONTROL_BYTES, MAX_SESSION_TOPICS};

/// What a frame leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write a frame.
    Send(Frame),
    /// Answer JSON-RPC with a frame of the same sequence.
    Rpc(Sequence, Bytes),
    /// The session's topics were replaced by these.
    Topics(Vec<String>),
    /// Subscribe to event logs and answer.
    EventSubscribe(Sequence, Bytes),
    /// End a subscription to event logs and answer.
    EventCancel(Sequence, Bytes),
    /// An AMOP message to one subscriber of the topic.
    AmopRequest(String, Frame),
    /// An AMOP message to all subscribers of the topic.
    AmopBroadcast(String, Frame),
    /// The answer to an AMOP message that this client received.
    AmopAnswer(Frame),
    /// The client's verdict on a node's private topic.
    TopicVerdict(Verdict),
    /// End the session; the text is for the log.
    Close(String),
}

/// A client's answer to the request to verify a subscriber of a private topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The node whose subscriber was asked.
    pub node: NodeId,
    /// The topic, with its prefix.
    pub topic: String,
    /// Whether it proved to hold the key.
    pub is_verified: bool,
}

/// See the module.
#[derive(Debug)]
pub struct SessionState {
    version: Version,
    is_go_sdk: bool,
    node_version: String,
    last_traffic_ms: u64,
}

impl SessionState {
    /// A session that begins at `now_ms` on a node of this `compatibility.supported_version`.
    pub fn new(node_version: &str, now_ms: u64) -> Self {
        Self { version: Version::One, is_go_sdk: false, node_version: node_version.to_owned(), last_traffic_ms: now_ms }
    }

    /// The dialect agreed on.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether receipts must keep a distance from the replies to their transactions ([`is_go_sdk`]).
    pub fn wants_late_receipts(&self) -> bool {
        self.is_go_sdk
    }

    /// What a frame from the client leads to.
    pub fn on_frame(&mut self, frame: Frame, now_ms: u64) -> Vec<Action> {
        self.on_traffic(now_ms);
        let is_payload = matches!(frame.kind, kind::RPC | kind::AMOP_REQUEST | kind::AMOP_BROADCAST | kind::AMOP_ANSWER);
        if !is_payload && frame.body.len() > MAX_CONTROL_BYTES {
            return vec![Action::Close(format!(
                "a frame of type {:#x} has {} bytes; {MAX_CONTROL_BYTES} are allowed",
                frame.kind,
                frame.body.len()
            ))];
        }
        let action = match frame.kind {
            kind::RPC => Some(Action::Rpc(frame.sequence, frame.body)),
            kind::HEARTBEAT => self.heartbeat(&frame),
            kind::HANDSHAKE => self.handshake(&frame),
            kind::TOPICS => topics(&frame.body),
            kind::EVENT_SUBSCRIBE => event_request(&frame.body).map(|request| Action::EventSubscribe(frame.sequence, request)),
            kind::EVENT_CANCEL => event_request(&frame.body).map(|request| Action::EventCancel(frame.sequence, request)),
            kind::AMOP_REQUEST => addressed(frame, Action::AmopRequest),
            kind::AMOP_BROADCAST => addressed(frame, Action::AmopBroadcast),
            kind::AMOP_ANSWER => Some(Action::AmopAnswer(frame)),
            kind::TOPIC_STATUS => verdict(&frame.body).map(Action::TopicVerdict),
            // Acknowledgements of verification requests, and types of other versions.
            _ => None,
        };
        action.into_iter().collect()
    }

    /// Bytes crossed in either direction: a client that only listens is not idle.
    pub fn on_traffic(&mut self, now_ms: u64) {
        self.last_traffic_ms = now_ms;
    }

    /// Ends a session that was silent for too long.
    pub fn on_tick(&self, now_ms: u64) -> Option<Action> {
        let silent_ms = now_ms.saturating_sub(self.last_traffic_ms);
        (silent_ms >= IDLE_LIMIT_MS).then(|| Action::Close(format!("no traffic for {} s", silent_ms / 1_000)))
    }

    fn heartbeat(&self, frame: &Frame) -> Option<Action> {
        let reply = self.version.heartbeat_reply(&frame.body)?;
        Some(Action::Send(Frame::new(kind::HEARTBEAT, frame.sequence, Bytes::from_static(reply))))
    }

    fn handshake(&mut self, frame: &Frame) -> Option<Action> {
        match negotiate(&frame.body) {
            Handshake::Agreed(version) => {
                self.version = version;
                self.is_go_sdk = is_go_sdk(&frame.body);
                Some(Action::Send(Frame::new(kind::HANDSHAKE, frame.sequence, version.handshake_reply(&self.node_version))))
            }
            Handshake::Disjoint => Some(Action::Close("the client knows none of the protocol versions 1 to 3".into())),
            Handshake::Unreadable => None,
        }
    }
}

/// The subscription list replaces the old one; what is no list changes nothing.
fn topics(body: &[u8]) -> Option<Action> {
    let Ok(Value::Array(list)) = Value::deserialize(&mut serde_json::Deserializer::from_slice(body)) else { return None };
    if list.len() > MAX_SESSION_TOPICS {
        return Some(Action::Close(format!("the client subscribes to {} topics; at most {MAX_SESSION_TOPICS} are allowed", list.len())));
    }
    let fits = |topic: &&str| topic.len() <= MAX_TOPIC_BYTES;
    let mut topics: Vec<_> = list.iter().filter_map(Value::as_str).filter(fits).map(str::to_owned).collect();
    topics.sort_unstable();
    topics.dedup();
    Some(Action::Topics(topics))
}

/// The JSON behind the empty topic. Without the topic byte there is no reply: the reference node's silence (it ends on an empty body).
/// A body that starts with a JSON bracket announces a topic longer than itself.
fn event_request(body: &Bytes) -> Option<Bytes> {
    let (&length, rest) = body.split_first()?;
    (usize::from(length.max(1)) - 1 <= rest.len()).then(|| body.slice(usize::from(length.max(1))..))
}

/// Splits the topic off an AMOP body; an empty body has no answer, as in the reference node.
fn addressed(frame: Frame, action: fn(String, Frame) -> Action) -> Option<Action> {
    let (topic, _) = split_topic(&frame.body)?;
    Some(action(String::from_utf8_lossy(topic).into_owned(), frame))
}

fn verdict(body: &[u8]) -> Option<Verdict> {
    let report: Value = serde_json::from_slice(body).ok()?;
    let node = NodeId::parse(report.get("nodeId")?.as_str()?).ok()?;
    let topic = report.get("topic")?.as_str()?.to_owned();
    Some(Verdict { node, topic, is_verified: report.get("checkResult")?.as_i64()? == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionState {
        SessionState::new("2.9.0", 0)
    }

    fn frame(kind: u16, body: &str) -> Frame {
        Frame::new(kind, *b"0123456789abcdef0123456789abcdef", body.as_bytes().to_vec())
    }

    #[test]
    fn session_works_without_a_handshake() {
        let mut session = session();
        assert!(matches!(&session.on_frame(frame(kind::RPC, "{}"), 1)[..], [Action::Rpc(..)]));
        assert_eq!(session.on_frame(frame(kind::HEARTBEAT, "0"), 1), [Action::Send(frame(kind::HEARTBEAT, "1"))]);
        assert_eq!(session.on_frame(frame(kind::HEARTBEAT, ""), 1), []);
    }

    #[test]
    fn handshake_changes_the_dialect_and_repeats_the_sequence() {
        let mut session = session();
        let reply = frame(kind::HANDSHAKE, "{\"nodeVersion\":\"2.9.0\",\"protocol\":3}\n");
        assert_eq!(session.on_frame(frame(kind::HANDSHAKE, r#"{"minimumSupport":1,"maximumSupport":3}"#), 1), [Action::Send(reply)]);
        assert_eq!(session.version(), Version::Three);
        assert_eq!(session.on_frame(frame(kind::HANDSHAKE, "xx"), 1), []);
        assert_eq!(session.version(), Version::Three);
        let closing = session.on_frame(frame(kind::HANDSHAKE, r#"{"minimumSupport":4,"maximumSupport":9}"#), 1);
        assert!(matches!(&closing[..], [Action::Close(_)]));
    }

    #[test]
    fn topic_list_replaces_and_an_empty_one_clears_without_reply() {
        let mut session = session();
        let list = session.on_frame(frame(kind::TOPICS, r#"["b","a","b",7]"#), 1);
        assert_eq!(list, [Action::Topics(vec!["a".into(), "b".into()])]);
        assert_eq!(session.on_frame(frame(kind::TOPICS, "[]"), 1), [Action::Topics(Vec::new())]);
        for ignored in ["not json", "{}", "", "\"a\""] {
            assert_eq!(session.on_frame(frame(kind::TOPICS, ignored), 1), [], "{ignored}");
        }
        let many = serde_json::json!(vec!["t"; MAX_SESSION_TOPICS + 1]).to_string();
        assert!(matches!(&session.on_frame(frame(kind::TOPICS, &many), 1)[..], [Action::Close(_)]));
    }

    #[test]
    fn topic_that_no_frame_can_carry_is_not_subscribed_to() {
        let list = serde_json::json!(["t".repeat(MAX_TOPIC_BYTES + 1), "t".repeat(MAX_TOPIC_BYTES)]).to_string();
        assert_eq!(session().on_frame(frame(kind::TOPICS, &list), 1), [Action::Topics(vec!["t".repeat(MAX_TOPIC_BYTES)])]);
    }

    #[test]
    fn event_request_without_topic_byte_has_no_answer() {
        let mut session = session();
        assert_eq!(session.on_frame(frame(kind::EVENT_SUBSCRIBE, ""), 1), []);
        assert_eq!(session.on_frame(frame(kind::EVENT_SUBSCRIBE, "{\"groupID\":\"1\"}"), 1), []);
        let only_topic = session.on_frame(frame(kind::EVENT_SUBSCRIBE, "\u{1}"), 1);
        assert!(matches!(&only_topic[..], [Action::EventSubscribe(_, body)] if body.is_empty()));
        let cancel = session.on_frame(frame(kind::EVENT_CANCEL, "\u{1}xx"), 1);
        assert!(matches!(&cancel[..], [Action::EventCancel(_, body)] if body[..] == *b"xx"));
    }

    #[test]
    fn unknown_types_and_garbage_are_ignored() {
        let mut session = session();
        for kind in [0x00, 0x11, 0x37, 0x99, kind::RECEIPT, kind::BLOCK, kind::EVENT_PUSH, kind::TOPIC_STATUS, u16::MAX] {
            assert_eq!(session.on_frame(frame(kind, "xx"), 1), []);
        }
        assert_eq!(session.on_frame(frame(kind::AMOP_REQUEST, ""), 1), []);
        assert_eq!(session.on_frame(frame(kind::AMOP_BROADCAST, ""), 1), []);
    }

    #[test]
    fn silence_of_a_minute_ends_the_session_and_traffic_prolongs_it() {
        let mut session = session();
        assert_eq!(session.on_tick(IDLE_LIMIT_MS - 1), None);
        assert!(session.on_tick(IDLE_LIMIT_MS).is_some());
        session.on_traffic(5_000);
        assert_eq!(session.on_tick(IDLE_LIMIT_MS), None);
    }

    #[test]
    fn verdict_on_a_private_topic_is_read() {
        let id = "ab".repeat(64);
        let body = serde_json::json!({"checkResult": 0, "nodeId": id, "topic": "#!$TopicNeedVerify_t"}).to_string();
        let [Action::TopicVerdict(verdict)] = &session().on_frame(frame(kind::TOPIC_STATUS, &body), 1)[..] else { panic!() };
        assert!(verdict.is_verified && verdict.topic == "#!$TopicNeedVerify_t" && verdict.node.to_string() == id);
    }
}
