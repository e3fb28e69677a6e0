//! An open session as everybody but its connection sees it: the queue that callers fill, and what is shown of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use millrace_base::{GroupId, NodeId, hex};
use mio::Token;
use parking_lot::{Mutex, RwLock};

use crate::ending::EndReason;
use crate::hello::Instance;
use crate::queue::SendQueue;
use crate::tls::PeerNames;

/// Who connected to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// This node connected to the peer.
    Outgoing,
    /// The peer connected to this node.
    Incoming,
}

impl Direction {
    /// As the other side sees it.
    pub(crate) fn reverse(self) -> Self {
        match self {
            Direction::Outgoing => Direction::Incoming,
            Direction::Incoming => Direction::Outgoing,
        }
    }
}

/// A picture of an open session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The peer, proven.
    pub node_id: NodeId,
    /// The other end of the connection; its port is the peer's listening port only if `direction` is outgoing.
    pub address: SocketAddr,
    /// Subject of the peer's certificate.
    pub subject: String,
    /// The peer's name, the subject's common name.
    pub name: String,
    /// The peer's agency, the subject's organization.
    pub agency: String,
    /// Who connected.
    pub direction: Direction,
    /// 32 hexadecimal digits that the peer's process drew when it started.
    pub instance: String,
    /// When the session was opened.
    pub since: SystemTime,
    /// The last round trip of a ping; `None` before the first.
    pub rtt: Option<Duration>,
    /// Plain bytes received on this session.
    pub bytes_in: u64,
    /// Plain bytes given to TLS on this session.
    pub bytes_out: u64,
    /// Frames that wait to be sent.
    pub queued_frames: usize,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Groups in which both nodes count the other among the members.
    pub groups: Vec<GroupId>,
    /// Where another live process with the same node id was seen.
    pub duplicate: Option<SocketAddr>,
}

/// What the connection's loop is asked to do.
pub(crate) mod request {
    /// The queue has frames.
    pub const FLUSH: u8 = 1;
    /// End the session, for the reason that is stored.
    pub const CUT: u8 = 2;
    /// Find out whether the peer is alive.
    pub const PROBE: u8 = 4;
    /// Tell the peer its groups.
    pub const REGROUP: u8 = 8;
    /// Another connection has taken the session over.
    pub const RETIRE: u8 = 16;
}

/// See the module.
pub(crate) struct Session {
    pub peer: NodeId,
    pub instance: Instance,
    pub names: PeerNames,
    pub address: SocketAddr,
    pub direction: Direction,
    /// The address of the list of peers that was connected to.
    pub dialed: Option<SocketAddr>,
    pub since: SystemTime,
    /// Which loop and connection it lives on.
    pub loop_index: usize,
    pub token: Token,
    pub queue: Mutex<SendQueue>,
    /// Bits of [`request`] that the loop has not yet taken up.
    requests: AtomicU8,
    cut_reason: Mutex<Option<EndReason>>,
    /// Once set nothing is delivered any more.
    pub is_cut: AtomicBool,
    /// Groups in which the peer counts this node among the members.
    announced: RwLock<BTreeSet<GroupId>>,
    /// How many groups share the queue.
    pub group_count: AtomicUsize,
    last_common: Mutex<Vec<GroupId>>,
    pub rtt_us: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Where a second session with this node id came from, until it is known whether this one is alive.
    pub contested: Mutex<Option<SocketAddr>>,
    pub duplicate: Mutex<Option<SocketAddr>>,
}

/// What a session is made of.
pub(crate) struct Parts {
    pub peer: NodeId,
    pub instance: Instance,
    pub names: PeerNames,
    pub address: SocketAddr,
    pub direction: Direction,
    pub dialed: Option<SocketAddr>,
    pub loop_index: usize,
    pub token: Token,
    pub queue: SendQueue,
    pub announced: BTreeSet<GroupId>,
}

impl Session {
    pub fn new(parts: Parts) -> Self {
        Self {
            peer: parts.peer,
            instance: parts.instance,
            names: parts.names,
            address: parts.address,
            direction: parts.direction,
            dialed: parts.dialed,
            since: SystemTime::now(),
            loop_index: parts.loop_index,
            token: parts.token,
            queue: Mutex::new(parts.queue),
            requests: AtomicU8::new(0),
            cut_reason: Mutex::new(None),
            is_cut: AtomicBool::new(false),
            announced: RwLock::new(parts.announced),
            group_count: AtomicUsize::new(1),
            last_common: Mutex::default(),
            rtt_us: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            contested: Mutex::new(None),
            duplicate: Mutex::new(None),
        }
    }

    /// Adds a request; true when the loop does not yet know of any.
    pub fn add_request(&self, bits: u8) -> bool {
        self.requests.fetch_or(bits, Ordering::AcqRel) == 0
    }

    /// Takes up what is requested.
    pub fn take_requests(&self) -> u8 {
        self.requests.swap(0, Ordering::AcqRel)
    }

    /// Nothing is delivered or queued from now on; the loop ends the session when it comes to it.
    pub fn mark_cut(&self, reason: EndReason) {
        self.cut_reason.lock().get_or_insert(reason);
        self.is_cut.store(true, Ordering::Release);
    }

    pub fn cut_reason(&self) -> EndReason {
        self.cut_reason.lock().unwrap_or(EndReason::Shutdown)
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    pub fn announce(&self, groups: BTreeSet<GroupId>) {
        *self.announced.write() = groups;
    }

    /// Takes over the groups that the peer announced on another connection: which of the two announcements is the newer one is not
    /// known, and the next one, which follows every opening, corrects both.
    pub fn inherit(&self, other: &Session) {
        let inherited = other.announced.read().clone();
        self.announced.write().extend(inherited);
    }

    /// Whether the peer counts this node among a group's members.
    pub fn is_announced(&self, group: GroupId) -> bool {
        self.announced.read().contains(&group)
    }

    /// Of groups in which this node counts the peer, those in which the peer counts this node.
    pub fn common(&self, ours: &BTreeSet<GroupId>) -> Vec<GroupId> {
        self.announced.read().intersection(ours).copied().collect()
    }

    /// Remembers the groups in common; whether they are others than before.
    pub fn set_common(&self, common: &[GroupId]) -> bool {
        self.group_count.store(common.len().max(1), Ordering::Relaxed);
        let mut last = self.last_common.lock();
        let is_new = *last != common;
        *last = common.to_vec();
        is_new
    }

    /// The node id of whoever connected.
    pub fn dialer(&self, own: &NodeId) -> NodeId {
        match self.direction {
            Direction::Outgoing => *own,
            Direction::Incoming => self.peer,
        }
    }

    pub fn info(&self, groups: Vec<GroupId>) -> SessionInfo {
        let (queued_frames, queued_bytes) = self.queue.lock().depth();
        let rtt_us = self.rtt_us.load(Ordering::Relaxed);
        SessionInfo {
            node_id: self.peer,
            address: self.address,
            subject: self.names.subject.clone(),
            name: self.names.name.clone(),
            agency: self.names.agency.clone(),
            direction: self.direction,
            instance: hex::encode(self.instance),
            since: self.since,
            rtt: (rtt_us > 0).then(|| Duration::from_micros(rtt_us)),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            queued_frames,
            queued_bytes,
            groups,
            duplicate: *self.duplicate.lock(),
        }
    }
}
