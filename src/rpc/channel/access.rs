//! Which clients may see which groups: `[sdk_allowlist]` of `group.N.ini` (`spec/client-protocol.md` 3.9).
//!
//! A client is its certificate's key: 128 hex digits for a key on a curve of 64-byte points, as in 2.x; for any other key, RSA first of
//! all, the 64 hex digits of the SHA-256 of the certificate's public key record (`openssl x509 -pubkey | openssl pkey -pubin -outform DER |
//! sha256sum`). In 2.x RSA clients slip through every list; here a list that is not empty admits whom it names and nobody else.
//! Lists are replaced while the node runs and hold from the next request and push on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_base::GroupId;
use parking_lot::RwLock;

/// Who a client is, by its certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// What lists name it by; see the module.
    pub key: String,
    /// Subject of its certificate.
    pub subject: String,
    /// Issuer of its certificate.
    pub issuer: String,
}

/// The lists of all groups. Cheap to clone; clones share the lists.
#[derive(Clone, Debug, Default)]
pub struct AllowLists(Arc<RwLock<BTreeMap<GroupId, BTreeSet<String>>>>);

impl AllowLists {
    /// Replaces a group's list; an empty one admits everybody.
    pub fn set(&self, group: GroupId, keys: impl IntoIterator<Item = String>) {
        let keys: BTreeSet<_> = keys.into_iter().map(|key| key.to_ascii_lowercase()).collect();
        let mut lists = self.0.write();
        match keys.is_empty() {
            true => drop(lists.remove(&group)),
            false => drop(lists.insert(group, keys)),
        }
    }

    /// Whether a client may see a group.
    pub fn allows(&self, group: GroupId, client: &Identity) -> bool {
        self.0.read().get(&group).is_none_or(|keys| keys.contains(&client.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_admits_whom_it_names_and_an_empty_one_everybody() {
        let (lists, group) = (AllowLists::default(), |id| GroupId::new(id).unwrap());
        let client = |key: &str| Identity { key: key.into(), ..Identity::default() };
        assert!(lists.allows(group(1), &client("aa")));
        lists.clone().set(group(1), ["AA".to_owned()]);
        assert!(lists.allows(group(1), &client("aa")) && lists.allows(group(2), &client("bb")));
        assert!(!lists.allows(group(1), &client("bb")) && !lists.allows(group(1), &client("")));
        lists.set(group(1), []);
        assert!(lists.allows(group(1), &client("bb")));
    }
}
