//! The open sessions, one a node id.
//!
//! Invariant: of two sessions between the same two processes the one survives whose connecting side has the lower node id. One side does
//! not open a second session beside its own first, so that of two from one side the newer one is right. Both ends decide alike, in
//! whatever order they see them.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_base::NodeId;
use mio::Token;
use parking_lot::{Mutex, RwLock};

use crate::NetworkLimits;
use crate::hello::Instance;
use crate::session::{Direction, Session};

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
pub(crate) struct Registry {
    sessions: RwLock<HashMap<NodeId, Arc<Session>>>,
    /// Nodes that this node has connected to and is about to open a session with; at most one a connection.
    opening: Mutex<HashMap<NodeId, (Token, Instance)>>,
}

impl Registry {
    pub fn get(&self, id: &NodeId) -> Option<Arc<Session>> {
        self.sessions.read().get(id).cloned()
    }

    pub fn contains(&self, id: &NodeId) -> bool {
        self.sessions.read().contains_key(id)
    }

    pub fn len(&self) -> usize {
        self.sessions.read().len()
    }

    /// All sessions, by node id.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.sessions.read().values().cloned().collect();
        all.sort_by_key(|session| session.peer);
        all
    }

    pub fn admit(&self, session: &Arc<Session>, own: &NodeId, limits: &NetworkLimits) -> Admission {
        let mut sessions = self.sessions.write();
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
        if !is_other_process {
            session.inherit(&existing);
        }
        *session.queue.lock() = existing.queue.lock().hand_over(limits);
        sessions.insert(session.peer, Arc::clone(session));
        Admission::TookOver(existing)
    }

    /// This node has connected to another, which has proven who it is. False when it has done so before, under another address.
    pub fn begin_opening(&self, peer: NodeId, instance: Instance, token: Token) -> bool {
        let mut opening = self.opening.lock();
        let is_open = self
            .get(&peer)
            .is_some_and(|existing| existing.direction == Direction::Outgoing && existing.instance == instance && !existing.is_cut());
        let is_opening = opening.get(&peer).is_some_and(|(_, other)| *other == instance);
        if !is_open && !is_opening {
            opening.insert(peer, (token, instance));
        }
        !is_open && !is_opening
    }

    /// The session is open, or will not be.
    pub fn end_opening(&self, peer: &NodeId, token: Token) {
        let mut opening = self.opening.lock();
        if opening.get(peer).is_some_and(|(by, _)| *by == token) {
            opening.remove(peer);
        }
    }

    /// Removes a session unless another has taken its place; whether it was there.
    pub fn remove(&self, peer: &NodeId, token: Token) -> bool {
        let mut sessions = self.sessions.write();
        let is_current = sessions.get(peer).is_some_and(|session| session.token == token);
        if is_current {
            sessions.remove(peer);
        }
        is_current
    }
}
