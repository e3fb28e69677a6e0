//! What time does to a connection: handshakes that take too long, pings, silence, peers that do not read. Part of [`super::Connection`].

use super::heartbeat::Verdict;
use super::{Connection, Context, Phase};
use crate::ending::{EndReason, Ending};

impl Connection {
    /// Looks at the deadlines.
    pub fn tick(&mut self, context: &mut Context<'_>) -> Result<(), Ending> {
        let limits = &context.shared.limits;
        match &self.phase {
            Phase::Draining(until) if context.now >= *until => Err(Ending::new(EndReason::Closed, "drained")),
            Phase::Draining(_) => Ok(()),
            Phase::Open(_) if self.retires.is_some_and(|until| context.now >= until) => {
                Err(Ending::new(EndReason::Replaced, "another connection with the node is open"))
            }
            Phase::Open(_) => {
                let stalled =
                    self.link.blocked_since.is_some_and(|since| context.now.saturating_duration_since(since) >= limits.stall_timeout);
                if stalled {
                    let detail = format!("it has read nothing of what it was sent for {:?}", limits.stall_timeout);
                    return Err(Ending::new(EndReason::Stalled, detail));
                }
                if let Some(ping) = self.heartbeat.ping(context.now, limits) {
                    self.urgent.extend_from_slice(&ping);
                    self.flush(context)?;
                }
                self.heartbeat_verdict(context)
            }
            phase if context.now.saturating_duration_since(self.begun) >= limits.handshake_deadline => {
                let (reason, step) = match phase {
                    Phase::Connecting => (EndReason::Socket, "it does not answer"),
                    Phase::Tls => (EndReason::HandshakeTimeout, "the TLS handshake did not come to an end"),
                    _ => (EndReason::HandshakeTimeout, "it did not prove its node id"),
                };
                Err(Ending::new(reason, format!("{step} within {:?}", limits.handshake_deadline)))
            }
            _ => Ok(()),
        }
    }

    /// Takes up what the heartbeat has found out.
    pub(super) fn heartbeat_verdict(&mut self, context: &Context<'_>) -> Result<(), Ending> {
        let Phase::Open(session) = &self.phase else { return Ok(()) };
        match self.heartbeat.verdict(context.now, &context.shared.limits) {
            Verdict::Waiting => Ok(()),
            Verdict::Dead(after) => Err(Ending::new(EndReason::Idle, format!("nothing was heard of it for {after:?}"))),
            Verdict::Alive => {
                let contested = session.contested.lock().take();
                // Known already: the other process tries again and again.
                if let Some(other) = contested
                    && session.duplicate.lock().replace(other).is_none()
                {
                    context.shared.counters.duplicate_identity();
                    tracing::error!(node = %session.peer, name = %session.names.name, first = %session.address, second = %other,
                        "two live processes use one node id; what to do: {}", EndReason::DuplicateIdentity.remedy());
                }
                Ok(())
            }
        }
    }
}
