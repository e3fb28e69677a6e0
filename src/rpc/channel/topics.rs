//! Topics: which sessions hold which, what the peers hold, and what `getNodeInfo` and `getPeers` show of it.
//!
//! `_block_notify_<group>` is a topic in form only: it asks for block notifications and is never told to peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_base::{GroupId, NodeId};
use parking_lot::RwLock;

/// Prefix of topics that ask for block notifications of the group whose number follows.
pub const BLOCK_NOTIFY: &str = "_block_notify_";

/// Identifies a session for as long as the node runs.
pub type SessionId = u64;

/// The group whose blocks a topic asks for.
pub fn notified_group(topic: &str) -> Option<GroupId> {
    GroupId::new(topic.strip_prefix(BLOCK_NOTIFY)?.parse().ok()?)
}

/// The topics of local sessions.
#[derive(Default)]
pub struct Subscriptions {
    by_topic: BTreeMap<String, BTreeSet<SessionId>>,
    by_session: BTreeMap<SessionId, Vec<String>>,
}

impl Subscriptions {
    /// Replaces the topics of a session; empty removes it.
    pub fn replace(&mut self, session: SessionId, topics: Vec<String>) {
        for old in self.by_session.remove(&session).unwrap_or_default() {
            if let Some(holders) = self.by_topic.get_mut(&old) {
                holders.remove(&session);
                if holders.is_empty() {
                    self.by_topic.remove(&old);
                }
            }
        }
        for topic in &topics {
            self.by_topic.entry(topic.clone()).or_default().insert(session);
        }
        if !topics.is_empty() {
            self.by_session.insert(session, topics);
        }
    }

    /// Sessions that hold a topic, ascending.
    pub fn holders(&self, topic: &str) -> impl Iterator<Item = SessionId> + '_ {
        self.by_topic.get(topic).into_iter().flatten().copied()
    }

    /// All topics but those that ask for blocks, sorted.
    pub fn amop_topics(&self) -> Vec<String> {
        self.by_topic.keys().filter(|topic| !topic.starts_with(BLOCK_NOTIFY)).cloned().collect()
    }

    /// Topics that start with `prefix`, sorted.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a String> + 'a {
        self.by_topic.range(prefix.to_owned()..).map(|(topic, _)| topic).take_while(move |topic| topic.starts_with(prefix))
    }
}

/// What clients are shown of topics. Cheap to clone; the channel server writes, JSON-RPC reads.
#[derive(Clone, Default)]
pub struct TopicBoard(Arc<RwLock<Shown>>);

#[derive(Default)]
struct Shown {
    own: Vec<String>,
    peers: BTreeMap<NodeId, Vec<String>>,
}

impl std::fmt::Debug for TopicBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TopicBoard({} own)", self.0.read().own.len())
    }
}

impl TopicBoard {
    /// Topics of this node's clients, sorted.
    pub fn own(&self) -> Vec<String> {
        self.0.read().own.clone()
    }

    /// Topics of a peer's clients that may be sent to, sorted.
    pub fn of_peer(&self, peer: &NodeId) -> Vec<String> {
        self.0.read().peers.get(peer).cloned().unwrap_or_default()
    }

    /// Replaces this node's topics.
    pub fn set_own(&self, topics: Vec<String>) {
        self.0.write().own = topics;
    }

    /// Replaces a peer's topics; empty forgets the peer.
    pub fn set_peer(&self, peer: NodeId, topics: Vec<String>) {
        let mut shown = self.0.write();
        match topics.is_empty() {
            true => drop(shown.peers.remove(&peer)),
            false => drop(shown.peers.insert(peer, topics)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_topics_are_forgotten() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.replace(1, vec!["a".into(), "_block_notify_1".into()]);
        subscriptions.replace(2, vec!["a".into(), "b".into()]);
        assert_eq!(subscriptions.holders("a").collect::<Vec<_>>(), [1, 2]);
        assert_eq!(subscriptions.amop_topics(), ["a", "b"]);
        subscriptions.replace(1, vec!["c".into()]);
        assert_eq!(subscriptions.holders("a").collect::<Vec<_>>(), [2]);
        assert_eq!(subscriptions.holders("_block_notify_1").count(), 0);
        subscriptions.replace(1, Vec::new());
        subscriptions.replace(2, Vec::new());
        assert!(subscriptions.by_topic.is_empty() && subscriptions.by_session.is_empty());
    }

    #[test]
    fn block_topics_name_a_group_by_number() {
        assert_eq!(notified_group("_block_notify_12"), GroupId::new(12));
        for other in ["_block_notify_", "_block_notify_0", "_block_notify_x", "_block_notify_99999", "block"] {
            assert_eq!(notified_group(other), None, "{other}");
        }
    }
}
