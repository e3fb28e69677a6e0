//! Private topics: before messages go to a node's subscribers of `#!$TopicNeedVerify_T`, a client that may publish there has that node
//! prove that it holds the key (`spec/client-protocol.md` 3.7).
//!
//! ```text
//! unknown --a publisher and a subscriber are there: 0x37 to the publisher--> asked --0x38 with 0--> verified
//!    ^                                                                         |  \--0x38 with another--> asked (refused)
//!    \---- the subscriber's verification channel changed, or it is gone -------/
//! ```
//! Invariant: a node is verified only by a client that itself holds the publisher's topic.

use std::collections::BTreeMap;

use millrace_base::NodeId;
use serde_json::json;

use super::super::frame::{Frame, UNASKED, kind};
use super::super::session::Verdict;
use super::super::topics::{SessionId, Subscriptions};

/// Start of topics whose subscribers must be verified.
pub const NEED_VERIFY: &str = "#!$TopicNeedVerify_";
/// Start of the topic over which a subscriber is asked for its proof; the private topic, `_` and a random text follow.
const VERIFY_CHANNEL: &str = "#!$VerifyChannel_";
/// Start of the topic that publishers hold; the private topic follows.
const PUSH_CHANNEL: &str = "#!$PushChannel_";

/// How far the verification of one node's subscribers is.
struct Status {
    channel: String,
    asked: SessionId,
    is_verified: bool,
}

/// States of all nodes and private topics.
#[derive(Default)]
pub struct Verification(BTreeMap<(NodeId, String), Status>);

impl Verification {
    /// Whether messages of a topic may go to a node's clients. Topics that are not private always may.
    pub fn allows(&self, node: &NodeId, topic: &str) -> bool {
        !topic.starts_with(NEED_VERIFY) || self.0.get(&(*node, topic.to_owned())).is_some_and(|status| status.is_verified)
    }

    /// Brings the states of `node` up to its topics, and tells what to ask which client.
    pub fn update(&mut self, node: NodeId, topics: &[String], own: &Subscriptions) -> Vec<(SessionId, Frame)> {
        let channel_of = |topic: &str| {
            let prefix = format!("{VERIFY_CHANNEL}{topic}_");
            topics.iter().find(|candidate| candidate.starts_with(&prefix))
        };
        self.0.retain(|(of, topic), status| *of != node || channel_of(topic) == Some(&status.channel));
        let mut questions = Vec::new();
        for topic in topics.iter().filter(|topic| topic.starts_with(NEED_VERIFY)) {
            let mut publishers = own.holders(&format!("{PUSH_CHANNEL}{topic}")).peekable();
            let (Some(channel), Some(&publisher)) = (channel_of(topic), publishers.peek()) else { continue };
            let key = (node, topic.clone());
            let is_settled = self.0.get(&key).is_some_and(|status| status.is_verified || publishers.any(|holder| holder == status.asked));
            if is_settled {
                continue;
            }
            self.0.insert(key, Status { channel: channel.clone(), asked: publisher, is_verified: false });
            let body = json!({"nodeId": node.to_string(), "topic": topic, "topicForCert": channel});
            questions.push((publisher, Frame::new(kind::TOPIC_VERIFY, UNASKED, format!("{body}\n").into_bytes())));
        }
        questions
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: &NodeId) {
        self.0.retain(|(of, _), _| of != node);
    }

    /// Takes a client's verdict; true when it counts.
    pub fn decide(&mut self, session: SessionId, verdict: &Verdict, own: &Subscriptions) -> bool {
        let may_publish = own.holders(&format!("{PUSH_CHANNEL}{}", verdict.topic)).any(|holder| holder == session);
        match self.0.get_mut(&(verdict.node, verdict.topic.clone())).filter(|_| may_publish) {
            Some(status) => {
                status.is_verified = verdict.is_verified;
                true
            }
            None => false,
        }
    }
}
