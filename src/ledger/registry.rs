//! Which groups run here.
//!
//! Read by every submission, so lookups take one uncontended read lock and return an `Arc`.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_base::GroupId;
use parking_lot::RwLock;

use crate::ledger::Ledger;

/// See the module.
#[derive(Default)]
pub struct Registry {
    ledgers: RwLock<BTreeMap<GroupId, Arc<Ledger>>>,
}

impl Registry {
    /// Adds a group; one that is there already is replaced and returned.
    pub fn insert(&self, ledger: Arc<Ledger>) -> Option<Arc<Ledger>> {
        self.ledgers.write().insert(ledger.id(), ledger)
    }

    /// Takes a group out; whoever holds it may go on with it.
    pub fn remove(&self, group: GroupId) -> Option<Arc<Ledger>> {
        self.ledgers.write().remove(&group)
    }

    /// A group that runs here.
    pub fn get(&self, group: GroupId) -> Option<Arc<Ledger>> {
        self.ledgers.read().get(&group).cloned()
    }

    /// Ids of the groups that run here, ascending.
    pub fn ids(&self) -> Vec<GroupId> {
        self.ledgers.read().keys().copied().collect()
    }

    /// The groups that run here, ascending by id.
    pub fn all(&self) -> Vec<Arc<Ledger>> {
        self.ledgers.read().values().cloned().collect()
    }
}
