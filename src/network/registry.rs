//! The open sessions, one a node id.
//!
//! Invariant: of two sessions between the same two processes the one survives whose connecting side has the lower node id, and of two
//! connections of the same side the newer one. Both ends decide alike, in whatever order they see them.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_base::NodeId;
use mio::Token;
use parking_lot::RwLock;

use crate::NetworkLimits;
use crate::session::Session;

/// What became of a new session.
pub(crate) enum Admission {
    Opened,
    /// It takes the place of an older one, whose queue it has taken over.
    TookOver(Arc<Session>),
    /// The older one stays.
    Lost {
        existing: Arc<Session>,
        is_other_process: bool,
    },
}

/// See the module.
#[derive(Default)]
pub(crate) struct Registry(RwLock<HashMap<NodeId, Arc<Session>>>);

impl Registry {
    pub fn get(&self, id: &NodeId) -> Option<Arc<Session>> {
        self.0.read().get(id).cloned()
    }

    pub fn contains(&self, id: &NodeId) -> bool {
        self.0.read().contains_key(id)
    }

    pub fn len(&self) -> usize {
        self.0.read().len()
    }

    /// All sessions, by node id.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.0.read().values().cloned().collect();
        all.sort_by_key(|session| session.peer);
        all
    }

    pub fn admit(&self, session: &Arc<Session>, own: &NodeId, limits: &NetworkLimits) -> Admission {
        let mut sessions = self.0.write();
        let Some(existing) = sessions.get(&session.peer) else {
            sessions.insert(session.peer, Arc::clone(session));
            return Admission::Opened;
        };
        let existing = Arc::clone(existing);
        let is_other_process = existing.instance != session.instance;
        let (dialer, before) = (session.dialer(own), existing.dialer(own));
        let wins = !is_other_process && (dialer == before || dialer == session.peer.min(*own));
        // One that is being ended anyway keeps nobody out.
        if !wins && !existing.is_cut() {
            return Admission::Lost { existing, is_other_process };
        }
        *session.queue.lock() = existing.queue.lock().hand_over(limits);
        sessions.insert(session.peer, Arc::clone(session));
        Admission::TookOver(existing)
    }

    /// Removes a session unless another has taken its place; whether it was there.
    pub fn remove(&self, peer: &NodeId, token: Token) -> bool {
        let mut sessions = self.0.write();
        let is_current = sessions.get(peer).is_some_and(|session| session.token == token);
        if is_current {
            sessions.remove(peer);
        }
        is_current
    }
}
