//! Versions of the channel protocol and what differs between them (`spec/client-protocol.md` 3.3, 3.4, 3.5).
//!
//! Every session starts in version 1; most clients never leave it. Used by [`super::session`].

use millrace_base::GroupId;
use serde::Deserialize;
use serde_json::{Value, json};

/// Dialect of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Version {
    /// Heartbeat and block notification as bare text; a refused transaction is an error of its request.
    #[default]
    One = 1,
    /// Heartbeat and block notification as JSON.
    Two = 2,
    /// As two; a refused transaction is reported by a receipt.
    Three = 3,
}

/// Outcome of a handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// The highest version both sides know.
    Agreed(Version),
    /// The client knows none of ours.
    Disjoint,
    /// Not a handshake; the reference node stays silent and goes on in the old version.
    Unreadable,
}

/// A member that is absent counts as version 1; one of another type spoils the whole.
fn member(object: &Value, name: &str) -> Option<i64> {
    match object.get(name) {
        None | Some(Value::Null) => Some(1),
        Some(value) => value.as_i64(),
    }
}

/// Reads a client's offer.
pub fn negotiate(body: &[u8]) -> Handshake {
    let Ok(offer) = Value::deserialize(&mut serde_json::Deserializer::from_slice(body)) else { return Handshake::Unreadable };
    let client_type_fits = offer.get("clientType").is_none_or(|kind| kind.is_string() || kind.is_null());
    let (Some(lowest), Some(highest), true, true) =
        (member(&offer, "minimumSupport"), member(&offer, "maximumSupport"), offer.is_object(), client_type_fits)
    else {
        return Handshake::Unreadable;
    };
    match highest.min(Version::Three as i64) {
        agreed if agreed < lowest => Handshake::Disjoint,
        1 => Handshake::Agreed(Version::One),
        2 => Handshake::Agreed(Version::Two),
        3 => Handshake::Agreed(Version::Three),
        _ => Handshake::Disjoint,
    }
}

/// Whether a handshake is go-sdk's. Its reader keeps a lock while it hands a receipt over to the goroutine that sent the transaction; if
/// that one has read the reply but not yet taken the same lock, both wait for ever, and with them all others of the session.
pub fn is_go_sdk(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|offer| offer["clientType"] == "Go-SDK")
}

impl Version {
    /// The reply to a handshake.
    pub fn handshake_reply(self, node_version: &str) -> Vec<u8> {
        // Keys in alphabetical order, as in all replies.
        format!("{}\n", json!({"nodeVersion": node_version, "protocol": self as u8})).into_bytes()
    }

    /// The reply to a heartbeat; `None` where clients expect silence.
    pub fn heartbeat_reply(self, body: &[u8]) -> Option<&'static [u8]> {
        match self {
            Self::One => (body == b"0").then_some(b"1"),
            Self::Two | Self::Three => Some(b"{\"heartBeat\":1}\n"),
        }
    }

    /// What a block notification says.
    pub fn block_notice(self, group: GroupId, number: u64) -> Vec<u8> {
        match self {
            Self::One => format!("{group},{number}").into_bytes(),
            Self::Two | Self::Three => format!("{{\"blockNumber\":{number},\"groupID\":{group}}}\n").into_bytes(),
        }
    }

    /// Whether a refused transaction is answered with its hash and reported by a receipt afterwards.
    pub fn reports_refusals_by_receipt(self) -> bool {
        self == Self::Three
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_common_version_is_agreed_on() {
        let offer = |low: i64, high: i64| negotiate(json!({"minimumSupport": low, "maximumSupport": high}).to_string().as_bytes());
        assert_eq!(offer(1, 1), Handshake::Agreed(Version::One));
        assert_eq!(offer(1, 2), Handshake::Agreed(Version::Two));
        assert_eq!(offer(2, 9), Handshake::Agreed(Version::Three));
        assert_eq!(offer(4, 9), Handshake::Disjoint);
        assert_eq!(offer(0, 0), Handshake::Disjoint);
        assert_eq!(offer(i64::MIN, i64::MIN), Handshake::Disjoint);
    }

    #[test]
    fn missing_members_mean_version_one_and_wrong_types_mean_silence() {
        assert_eq!(negotiate(b"{}"), Handshake::Agreed(Version::One));
        for unreadable in ["xx", "", "[]", "5", r#"{"minimumSupport":"1","maximumSupport":"3","clientType":5}"#] {
            assert_eq!(negotiate(unreadable.as_bytes()), Handshake::Unreadable, "{unreadable}");
        }
    }

    #[test]
    fn go_sdk_is_known_by_its_handshake() {
        assert!(is_go_sdk(br#"{"minimumSupport":1,"maximumSupport":3,"clientType":"Go-SDK"}"#));
        for other in [&br#"{"minimumSupport":1,"maximumSupport":3,"clientType":"java-sdk"}"#[..], b"{}", b"5", b""] {
            assert!(!is_go_sdk(other));
        }
    }

    #[test]
    fn heartbeat_of_version_one_answers_only_zero() {
        assert_eq!(Version::One.heartbeat_reply(b"0"), Some(&b"1"[..]));
        for body in [&b""[..], b"1", b"{\"heartBeat\":0}"] {
            assert_eq!(Version::One.heartbeat_reply(body), None);
            assert_eq!(Version::Two.heartbeat_reply(body), Some(&b"{\"heartBeat\":1}\n"[..]));
            assert_eq!(Version::Three.heartbeat_reply(body), Some(&b"{\"heartBeat\":1}\n"[..]));
        }
    }

    #[test]
    fn block_notice_is_text_in_version_one_and_json_later() {
        let group = GroupId::new(7).unwrap();
        assert_eq!(Version::One.block_notice(group, 12), b"7,12");
        assert_eq!(Version::Three.block_notice(group, 12), b"{\"blockNumber\":12,\"groupID\":7}\n");
    }
}
