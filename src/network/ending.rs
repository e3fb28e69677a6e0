//! Why connections end: as a number on the wire, as a reason for counters, and as words for the log.

use std::fmt;

/// Why a connection or session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EndReason {
    /// The node that ends it stops.
    Shutdown = 1,
    /// Another session with the same node takes its place.
    Replaced = 2,
    /// Another session claims the same node id with another process; which of them lives is being found out.
    Contested = 3,
    /// Two processes with one node id live at the same time.
    DuplicateIdentity = 4,
    /// The node id is on the blacklist, or not on the whitelist.
    NotAdmitted = 5,
    /// The node belongs to another chain.
    OtherChain = 6,
    /// The node has connected to itself.
    Itself = 7,
    /// The node speaks another version of this protocol.
    Version = 8,
    /// The node id is not proven: signature, key or certificate do not match.
    Unproven = 9,
    /// What arrived is not this protocol, or beyond its bounds.
    Malformed = 10,
    /// The operator has erased the peer's address.
    Erased = 11,
    /// Too slow in proving who it is.
    HandshakeTimeout = 12,
    /// Nothing was heard for too long.
    Idle = 13,
    /// The peer does not read what it is sent.
    Stalled = 14,
    /// TLS failed: certificates, versions.
    Tls = 15,
    /// The socket failed or could not be connected.
    Socket = 16,
    /// The other side closed the connection without saying why.
    Closed = 17,
}

impl EndReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [EndReason; 17] = [
        EndReason::Shutdown,
        EndReason::Replaced,
        EndReason::Contested,
        EndReason::DuplicateIdentity,
        EndReason::NotAdmitted,
        EndReason::OtherChain,
        EndReason::Itself,
        EndReason::Version,
        EndReason::Unproven,
        EndReason::Malformed,
        EndReason::Erased,
        EndReason::HandshakeTimeout,
        EndReason::Idle,
        EndReason::Stalled,
        EndReason::Tls,
        EndReason::Socket,
        EndReason::Closed,
    ];

    /// The reason a peer gave; `None` for a number that this version does not know.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == code)
    }

    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            EndReason::Shutdown => "shutdown",
            EndReason::Replaced => "replaced",
            EndReason::Contested => "contested",
            EndReason::DuplicateIdentity => "duplicate_identity",
            EndReason::NotAdmitted => "not_admitted",
            EndReason::OtherChain => "other_chain",
            EndReason::Itself => "itself",
            EndReason::Version => "version",
            EndReason::Unproven => "unproven",
            EndReason::Malformed => "malformed",
            EndReason::Erased => "erased",
            EndReason::HandshakeTimeout => "handshake_timeout",
            EndReason::Idle => "idle",
            EndReason::Stalled => "stalled",
            EndReason::Tls => "tls",
            EndReason::Socket => "socket",
            EndReason::Closed => "closed",
        }
    }

    /// What an operator can do; empty where nothing is wrong.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            EndReason::Contested | EndReason::DuplicateIdentity => {
                "stop one of the two processes that use this node's key; every node needs a key and certificate of its own"
            }
            EndReason::NotAdmitted => "correct the blacklist and whitelist of the node that refuses, and reload them",
            EndReason::OtherChain => "compare chain.id in config.ini of both nodes, and the addresses under [p2p]",
            EndReason::Version => "run the same version on both nodes",
            EndReason::Unproven => "conf/node.key and conf/p2p.crt must belong together: have the agency issue the certificate again",
            EndReason::Malformed => "check that the address under [p2p] is a P2P port, and that both nodes run the same version",
            EndReason::HandshakeTimeout | EndReason::Idle | EndReason::Stalled => {
                "check the network between the machines, and the load of the other one"
            }
            EndReason::Socket => "check that the other node runs, its p2p.listen_port, and firewalls between the machines",
            _ => "",
        }
    }

    /// Whether it belongs to the usual course of things and is no reason for a warning.
    pub(crate) fn is_usual(self) -> bool {
        matches!(self, EndReason::Shutdown | EndReason::Replaced | EndReason::Itself | EndReason::Erased | EndReason::Closed)
    }
}

/// The end of a connection: what the loop is told by what it drives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ending {
    pub reason: EndReason,
    /// What exactly happened, for the log.
    pub detail: String,
    pub remedy: &'static str,
    /// Whether the other side said it. Otherwise it is told, if it can be.
    pub is_told: bool,
}

impl Ending {
    pub fn new(reason: EndReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), remedy: reason.remedy(), is_told: false }
    }

    /// The peer has given its reason.
    pub fn by_peer(reason: EndReason) -> Self {
        Self { reason, detail: "the other node ended it".into(), remedy: reason.remedy(), is_told: true }
    }

    /// The socket failed or ended.
    pub fn socket(error: &std::io::Error) -> Self {
        Self { is_told: true, ..Self::new(EndReason::Socket, error.to_string()) }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason.name())?;
        match self.remedy {
            "" => Ok(()),
            remedy => write!(f, "; what to do: {remedy}"),
        }
    }
}
