//! Who is a member of which group, as the node's ledgers say. Read on every frame in both directions.
//!
//! Invariant: nothing is put into a queue under a membership that has ended when [`Groups::set`] returns: senders hold the read lock
//! until the frame is queued, so that what must go can be taken out afterwards.

use std::collections::{BTreeSet, HashMap, HashSet};

use millrace_base::{GroupId, NodeId};
use parking_lot::{RwLock, RwLockReadGuard};

type Members = HashMap<GroupId, HashSet<NodeId>>;

/// See the module.
#[derive(Default)]
pub(crate) struct Groups(RwLock<Members>);

/// The memberships while they are held still.
pub(crate) struct Held<'a>(RwLockReadGuard<'a, Members>);

impl Held<'_> {
    /// Whether a node is a member of a group that runs here.
    pub fn is_member(&self, group: GroupId, id: &NodeId) -> bool {
        self.0.get(&group).is_some_and(|members| members.contains(id))
    }
}

impl Groups {
    pub fn hold(&self) -> Held<'_> {
        Held(self.0.read())
    }

    /// Whether a node is a member of a group that runs here.
    pub fn is_member(&self, group: GroupId, id: &NodeId) -> bool {
        self.hold().is_member(group, id)
    }

    /// Replaces a group's members; returns those who came or went.
    pub fn set(&self, group: GroupId, members: HashSet<NodeId>) -> HashSet<NodeId> {
        let mut groups = self.0.write();
        let before = groups.remove(&group).unwrap_or_default();
        let changed = before.symmetric_difference(&members).copied().collect();
        if !members.is_empty() {
            groups.insert(group, members);
        }
        changed
    }

    /// The groups of which a node is a member.
    pub fn of(&self, id: &NodeId) -> BTreeSet<GroupId> {
        self.0.read().iter().filter(|(_, members)| members.contains(id)).map(|(group, _)| *group).collect()
    }
}
