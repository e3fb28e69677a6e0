//! Who gets an AMOP message, and what its sender hears: a state machine over sessions, peers and time, without sockets.
//!
//! ```text
//! message --no subscriber--> answered 100
//! message --> tried at one subscriber, a client here or a peer --answer--> relayed
//!                 ^                    | silence, subscriber gone
//!                 \---- next one ------/--none left--> answered 104
//! ```
//! Invariant: each message of a client is answered once, unless the client is gone; what waits is bounded in number, bytes and time.
//! Run by [`super::super::hub`] under its lock.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::{Bytes, NodeId};

use super::super::frame::{Frame, Sequence, kind};
use super::super::session::Verdict;
use super::super::topics::{SessionId, Subscriptions};
use super::verification::Verification;
use super::{PeerMessage, code};
use crate::limits::{AMOP_CLIENT_MS, AMOP_PEER_MS, AMOP_TOTAL_MS, MAX_AMOP_WAITING, MAX_AMOP_WAITING_BYTES};

/// What the engine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write to a client.
    Client(SessionId, Frame),
    /// Send to a peer.
    Peer(NodeId, PeerMessage),
    /// Send to all peers.
    Peers(PeerMessage),
    /// The topics to show of a node: its own when `None`.
    Show(Option<NodeId>, Vec<String>),
}

/// Somebody who may answer a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Client(SessionId),
    Peer(NodeId),
}

/// Who waits for the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    Client(SessionId),
    /// A peer, and its name for the message.
    Peer(NodeId, u64),
}

/// A message for one subscriber.
struct Message {
    origin: Origin,
    topic: String,
    sequence: Sequence,
    body: Bytes,
}

/// A message on its way.
struct Waiting {
    message: Message,
    /// The last is tried next.
    left: Vec<Target>,
    current: Target,
    attempt_ends_ms: u64,
    ends_ms: u64,
}

struct PeerTopics {
    number: u64,
    topics: Vec<String>,
}

/// See the module.
pub struct AmopEngine {
    own: NodeId,
    subscriptions: Subscriptions,
    announced: Vec<String>,
    number: u64,
    peers: BTreeMap<NodeId, PeerTopics>,
    verification: Verification,
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
    /// Messages by the client that should answer them.
    at_client: BTreeMap<(SessionId, Sequence), u64>,
    deadlines: BTreeSet<(u64, u64)>,
    next_ticket: u64,
    chance: u64,
}

impl AmopEngine {
    /// For the node `own`. `start_ms` makes lists of this run newer than those of the last; `seed` decides which subscriber is tried first.
    pub fn new(own: NodeId, start_ms: u64, seed: u64) -> Self {
        Self {
            own,
            subscriptions: Subscriptions::default(),
            announced: Vec::new(),
            number: start_ms,
            peers: BTreeMap::new(),
            verification: Verification::default(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            at_client: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next_ticket: 0,
            chance: seed | 1,
        }
    }

    /// Topics of the sessions here.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// The list of topics here, for a peer that has just connected.
    pub fn topics_message(&self) -> PeerMessage {
        PeerMessage::Topics { number: self.number, topics: self.announced.clone() }
    }

    /// When [`Self::on_tick`] has something to do; `None` for never.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A session's topics were replaced.
    pub fn on_topics(&mut self, session: SessionId, topics: Vec<String>) -> Vec<Effect> {
        self.subscriptions.replace(session, topics);
        let mut effects = Vec::new();
        let topics = self.subscriptions.amop_topics();
        if topics != self.announced {
            self.announced = topics;
            self.number += 1;
            effects.push(Effect::Show(None, self.announced.clone()));
            effects.push(Effect::Peers(self.topics_message()));
        }
        self.update_verification(&mut effects);
        effects
    }

    /// A session is gone.
    pub fn on_session_gone(&mut self, session: SessionId, now_ms: u64) -> Vec<Effect> {
        let mut effects = self.on_topics(session, Vec::new());
        self.drop_origin(|origin| matches!(origin, Origin::Client(of) if of == session));
        self.give_up(|target| target == Target::Client(session), now_ms, &mut effects);
        effects
    }

    /// A peer is gone.
    pub fn on_peer_gone(&mut self, peer: NodeId, now_ms: u64) -> Vec<Effect> {
        let mut effects = vec![Effect::Show(Some(peer), Vec::new())];
        self.peers.remove(&peer);
        self.verification.forget(&peer);
        self.drop_origin(|origin| matches!(origin, Origin::Peer(of, _) if of == peer));
        self.give_up(|target| target == Target::Peer(peer), now_ms, &mut effects);
        effects
    }

    /// A client sends a message to one subscriber.
    pub fn on_request(&mut self, session: SessionId, topic: String, frame: Frame, now_ms: u64) -> Vec<Effect> {
        let mut targets = self.local_targets(&topic, Some(session));
        targets.extend(self.peers_with(&topic).map(Target::Peer));
        self.shuffle(&mut targets);
        // A client is the subscriber of its own message only when there is no other.
        if self.subscriptions.holders(&topic).any(|holder| holder == session) && self.verification.allows(&self.own, &topic) {
            targets.insert(0, Target::Client(session));
        }
        let refused =
            |result| vec![Effect::Client(session, Frame::new(kind::AMOP_ANSWER, frame.sequence, Bytes::new()).with_result(result))];
        if targets.is_empty() {
            return refused(code::NO_SUBSCRIBER);
        }
        let mut effects = Vec::new();
        let message = Message { origin: Origin::Client(session), topic, sequence: frame.sequence, body: frame.body.clone() };
        match self.start(message, targets, now_ms, &mut effects) {
            true => effects,
            false => refused(code::OVER_LIMIT),
        }
    }

    /// A client sends a message to all subscribers; it is told at once that this was done.
    pub fn on_broadcast(&mut self, session: SessionId, topic: &str, frame: &Frame) -> Vec<Effect> {
        let mut effects: Vec<_> = self.broadcast_here(topic, frame.sequence, &frame.body, Some(session)).collect();
        let message = || PeerMessage::Broadcast { topic: topic.to_owned(), sequence: frame.sequence, body: frame.body.to_vec() };
        effects.extend(self.peers_with(topic).map(|peer| Effect::Peer(peer, message())));
        effects.push(Effect::Client(session, Frame::new(kind::AMOP_ANSWER, frame.sequence, frame.body.clone())));
        effects
    }

    /// A client answers a message.
    pub fn on_answer(&mut self, session: SessionId, frame: Frame) -> Vec<Effect> {
        let Some(ticket) = self.at_client.get(&(session, frame.sequence)).copied() else { return Vec::new() };
        self.finish(ticket, Some((frame.result, frame.body))).into_iter().collect()
    }

    /// A client's verdict on a private topic.
    pub fn on_verdict(&mut self, session: SessionId, verdict: &Verdict) -> Vec<Effect> {
        if !self.verification.decide(session, verdict, &self.subscriptions) {
            return Vec::new();
        }
        tracing::info!(topic = %verdict.topic, node = %verdict.node, verified = verdict.is_verified, "private AMOP topic: verdict of a publisher");
        self.show(verdict.node).into_iter().collect()
    }

    /// A peer's message.
    pub fn on_peer(&mut self, peer: NodeId, message: PeerMessage, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match message {
            PeerMessage::Topics { number, mut topics } => {
                topics.sort_unstable();
                topics.dedup();
                let is_newer = self.peers.get(&peer).is_none_or(|known| known.number < number);
                if is_newer {
                    self.peers.insert(peer, PeerTopics { number, topics });
                    self.update_verification(&mut effects);
                    effects.extend(self.show(peer));
                }
            }
            PeerMessage::Request { ticket, topic, sequence, body } => {
                let mut targets = self.local_targets(&topic, None);
                self.shuffle(&mut targets);
                let message = Message { origin: Origin::Peer(peer, ticket), topic, sequence, body: body.into() };
                if !self.start(message, targets, now_ms, &mut effects) {
                    effects.push(Effect::Peer(peer, PeerMessage::Answer { ticket, reply: None }));
                }
            }
            PeerMessage::Answer { ticket, reply } => {
                let is_expected = self.waiting.get(&ticket).is_some_and(|waiting| waiting.current == Target::Peer(peer));
                match reply {
                    Some((result, body)) if is_expected => effects.extend(self.finish(ticket, Some((result, body.into())))),
                    None if is_expected => self.advance(ticket, now_ms, &mut effects),
                    _ => {}
                }
            }
            PeerMessage::Broadcast { topic, sequence, body } => {
                effects.extend(self.broadcast_here(&topic, sequence, &body.into(), None));
            }
        }
        effects
    }

    /// Gives up attempts whose time is over.
    pub fn on_tick(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(&(at, ticket)) = self.deadlines.first().filter(|(at, _)| *at <= now_ms) {
            self.deadlines.remove(&(at, ticket));
            self.advance(ticket, now_ms, &mut effects);
        }
        effects
    }

    fn local_targets(&self, topic: &str, but: Option<SessionId>) -> Vec<Target> {
        // A message from a peer was let through by that peer's own verification of this node.
        if but.is_some() && !self.verification.allows(&self.own, topic) {
            return Vec::new();
        }
        self.subscriptions.holders(topic).filter(|holder| Some(*holder) != but).map(Target::Client).collect()
    }

    fn peers_with<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        let holds = move |known: &PeerTopics| known.topics.binary_search_by(|held| held.as_str().cmp(topic)).is_ok();
        self.peers.iter().filter(move |(peer, known)| holds(known) && self.verification.allows(peer, topic)).map(|(peer, _)| *peer)
    }

    fn broadcast_here(&self, topic: &str, sequence: Sequence, body: &Bytes, sender: Option<SessionId>) -> impl Iterator<Item = Effect> {
        let frame = Frame::new(kind::AMOP_BROADCAST, sequence, body.clone());
        let push = move |target| match target {
            Target::Client(session) => Some(Effect::Client(session, frame.clone())),
            Target::Peer(_) => None,
        };
        self.local_targets(topic, sender).into_iter().filter_map(push)
    }

    /// Takes a message in and tries the first subscriber; false when too much waits already.
    fn start(&mut self, message: Message, targets: Vec<Target>, now_ms: u64, effects: &mut Vec<Effect>) -> bool {
        if self.waiting.len() >= MAX_AMOP_WAITING || self.waiting_bytes + message.body.len() > MAX_AMOP_WAITING_BYTES {
            return false;
        }
        let Some(&current) = targets.last() else { return false };
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.waiting_bytes += message.body.len();
        let waiting = Waiting { message, left: targets, current, attempt_ends_ms: now_ms, ends_ms: now_ms + AMOP_TOTAL_MS };
        self.waiting.insert(ticket, waiting);
        self.advance(ticket, now_ms, effects);
        true
    }

    /// Tries the next subscriber, or answers that there is none.
    fn advance(&mut self, ticket: u64, now_ms: u64, effects: &mut Vec<Effect>) {
        loop {
            self.withdraw(ticket);
            let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
            let next = waiting.left.pop().filter(|_| now_ms < waiting.ends_ms);
            let Some(target) = next else {
                effects.extend(self.finish(ticket, None));
                return;
            };
            waiting.current = target;
            let allowed_ms = if matches!(target, Target::Client(_)) { AMOP_CLIENT_MS } else { AMOP_PEER_MS };
            waiting.attempt_ends_ms = (now_ms + allowed_ms).min(waiting.ends_ms);
            match target {
                Target::Client(session) => {
                    // Two messages of one sequence cannot be told apart by the answers of one client.
                    if self.at_client.contains_key(&(session, waiting.message.sequence)) {
                        continue;
                    }
                    self.at_client.insert((session, waiting.message.sequence), ticket);
                    effects.push(Effect::Client(
                        session,
                        Frame::new(kind::AMOP_REQUEST, waiting.message.sequence, waiting.message.body.clone()),
                    ));
                }
                Target::Peer(peer) => {
                    let message = &waiting.message;
                    let (topic, sequence, body) = (message.topic.clone(), message.sequence, message.body.to_vec());
                    effects.push(Effect::Peer(peer, PeerMessage::Request { ticket, topic, sequence, body }));
                }
            }
            self.deadlines.insert((waiting.attempt_ends_ms, ticket));
            return;
        }
    }

    /// Takes back what the current attempt registered.
    fn withdraw(&mut self, ticket: u64) {
        let Some(waiting) = self.waiting.get(&ticket) else { return };
        self.deadlines.remove(&(waiting.attempt_ends_ms, ticket));
        if let Target::Client(session) = waiting.current {
            let key = (session, waiting.message.sequence);
            if self.at_client.get(&key) == Some(&ticket) {
                self.at_client.remove(&key);
            }
        }
    }

    /// Tells the origin what became of its message, and forgets it.
    fn finish(&mut self, ticket: u64, reply: Option<(i32, Bytes)>) -> Option<Effect> {
        self.withdraw(ticket);
        let message = self.waiting.remove(&ticket)?.message;
        self.waiting_bytes -= message.body.len();
        Some(match message.origin {
            Origin::Client(session) => {
                let (result, body) = reply.unwrap_or((code::NO_ANSWER, message.body));
                Effect::Client(session, Frame::new(kind::AMOP_ANSWER, message.sequence, body).with_result(result))
            }
            Origin::Peer(peer, ticket) => {
                Effect::Peer(peer, PeerMessage::Answer { ticket, reply: reply.map(|(result, body)| (result, body.to_vec())) })
            }
        })
    }

    /// Forgets messages whose sender is gone.
    fn drop_origin(&mut self, is_gone: impl Fn(Origin) -> bool) {
        let gone: Vec<_> = self.waiting.iter().filter(|(_, waiting)| is_gone(waiting.message.origin)).map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            self.finish(ticket, None);
        }
    }

    /// Goes on where the subscriber being tried is gone, and tries it nowhere else.
    fn give_up(&mut self, is_gone: impl Fn(Target) -> bool, now_ms: u64, effects: &mut Vec<Effect>) {
        self.waiting.values_mut().for_each(|waiting| waiting.left.retain(|target| !is_gone(*target)));
        let stuck: Vec<_> = self.waiting.iter().filter(|(_, waiting)| is_gone(waiting.current)).map(|(ticket, _)| *ticket).collect();
        stuck.into_iter().for_each(|ticket| self.advance(ticket, now_ms, effects));
    }

    fn update_verification(&mut self, effects: &mut Vec<Effect>) {
        let ask = |(session, frame)| Effect::Client(session, frame);
        effects.extend(self.verification.update(self.own, &self.announced, &self.subscriptions).into_iter().map(ask));
        for (peer, known) in &self.peers {
            effects.extend(self.verification.update(*peer, &known.topics, &self.subscriptions).into_iter().map(ask));
        }
    }

    /// What to show of a peer: topics that messages may be sent to.
    fn show(&self, peer: NodeId) -> Option<Effect> {
        let known = self.peers.get(&peer)?;
        let topics = known.topics.iter().filter(|topic| self.verification.allows(&peer, topic)).cloned().collect();
        Some(Effect::Show(Some(peer), topics))
    }

    /// Puts targets in random order (xorshift64; nothing depends on its quality).
    fn shuffle(&mut self, targets: &mut [Target]) {
        for end in (1..targets.len()).rev() {
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 7;
            self.chance ^= self.chance << 17;
            let bound = u64::try_from(end + 1).expect("counts fit");
            targets.swap(end, usize::try_from(self.chance % bound).expect("below a count"));
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
