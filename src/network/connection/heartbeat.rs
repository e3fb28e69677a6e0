//! Pings, pongs, and what silence means. Part of [`super::Connection`].

use std::time::{Duration, Instant};

use crate::NetworkLimits;
use crate::frame::{Unit, control};

/// What is known about the peer's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing new.
    Waiting,
    /// It has answered what it was asked because of a second session.
    Alive,
    /// Silent for this long.
    Dead(Duration),
}

struct Probe {
    begun: Instant,
    is_answered: bool,
}

pub(super) struct Heartbeat {
    heard: Instant,
    /// Number and time of the last ping.
    sent: (u64, Instant),
    probe: Option<Probe>,
}

impl Heartbeat {
    pub fn new(now: Instant) -> Self {
        Self { heard: now, sent: (0, now), probe: None }
    }

    /// Bytes have arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A ping, when it is time for one.
    pub fn ping(&mut self, now: Instant, limits: &NetworkLimits) -> Option<Vec<u8>> {
        let (number, at) = self.sent;
        (number == 0 || now.saturating_duration_since(at) >= limits.ping_interval).then(|| self.next_ping(now))
    }

    /// A ping whose answer decides whether the peer lives; none when one is on its way.
    pub fn probe(&mut self, now: Instant, limits: &NetworkLimits) -> Option<Vec<u8>> {
        if self.probe.as_ref().is_some_and(|probe| now.saturating_duration_since(probe.begun) < limits.probe_timeout) {
            return None;
        }
        self.probe = Some(Probe { begun: now, is_answered: false });
        Some(self.next_ping(now))
    }

    fn next_ping(&mut self, now: Instant) -> Vec<u8> {
        self.sent = (self.sent.0 + 1, now);
        control(Unit::Ping, &self.sent.0.to_be_bytes())
    }

    /// An answer; the round-trip time when it is to the last ping.
    pub fn pong(&mut self, body: &[u8], now: Instant) -> Option<Duration> {
        let (number, at) = self.sent;
        if body != number.to_be_bytes() {
            return None;
        }
        if let Some(probe) = self.probe.as_mut().filter(|probe| at >= probe.begun) {
            probe.is_answered = true;
        }
        Some(now.saturating_duration_since(at))
    }

    /// Takes up what has become certain.
    pub fn verdict(&mut self, now: Instant, limits: &NetworkLimits) -> Verdict {
        let silence = now.saturating_duration_since(self.heard);
        if silence >= limits.idle_timeout {
            return Verdict::Dead(silence);
        }
        let Some(probe) = &self.probe else { return Verdict::Waiting };
        if probe.is_answered {
            self.probe = None;
            return Verdict::Alive;
        }
        let asked = now.saturating_duration_since(probe.begun);
        if asked < limits.probe_timeout {
            return Verdict::Waiting;
        }
        // A full link delays the answer; bytes that came since are as good.
        let is_alive = self.heard > probe.begun;
        self.probe = None;
        if is_alive { Verdict::Alive } else { Verdict::Dead(asked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_unanswered_probes_are_death_and_answers_are_life() {
        let limits = NetworkLimits::default();
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        let first = heartbeat.ping(start, &limits).expect("the first ping goes at once");
        assert!(heartbeat.ping(start, &limits).is_none());
        let later = start + Duration::from_millis(30);
        assert_eq!(heartbeat.pong(&first[16..], later), Some(Duration::from_millis(30)));
        assert_eq!(heartbeat.verdict(start + limits.idle_timeout, &limits), Verdict::Dead(limits.idle_timeout));

        heartbeat.heard(later);
        let probe = heartbeat.probe(later, &limits).unwrap();
        assert!(heartbeat.probe(later, &limits).is_none(), "one at a time");
        assert_eq!(heartbeat.verdict(later, &limits), Verdict::Waiting);
        heartbeat.pong(&probe[16..], later);
        assert_eq!(heartbeat.verdict(later, &limits), Verdict::Alive);
        heartbeat.probe(later, &limits).unwrap();
        assert_eq!(heartbeat.verdict(later + limits.probe_timeout, &limits), Verdict::Dead(limits.probe_timeout));
    }
}
