//! What a leader sends, member by member, and what it learns from the answers.

use super::super::log::Item;
use super::super::message::{Kind, RaftFrame, WireEntry};
use super::{Node, Pace};

/// Bytes of entries in one message: some full blocks of hashes. A larger single entry still goes.
const MESSAGE_BYTES: usize = 1 << 20;

/// Entries in one message: more than are ever in flight.
const MESSAGE_ENTRIES: usize = 256;

/// Entries sent to one member and not acknowledged: some windows of proposals.
const AHEAD: u64 = 256;

impl Node {
    pub(super) fn on_answer(&mut self, from: u32, frame: &RaftFrame) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.is_active = true;
        if frame.kind == Kind::HeartbeatResponse {
            let is_stalled = progress.pace == Pace::Stream && progress.next > progress.matched + AHEAD;
            if is_stalled {
                progress.next = progress.matched + 1;
            }
            if is_stalled || progress.pace == (Pace::Probe { waits: true }) {
                progress.pace = Pace::Probe { waits: false };
            }
            // What was sent ahead may be lost: the answer to one more message says where the logs agree.
            if progress.matched < self.log.last() {
                self.send_entries(from);
            }
            return;
        }
        if frame.is_rejected {
            let (agreeing, _) = self.log.agreeing(frame.reject_hint, frame.log_term);
            match progress.pace {
                Pace::Stream if frame.index > progress.matched => progress.next = progress.matched + 1,
                Pace::Probe { .. } if frame.index + 1 == progress.next => {
                    progress.next = (agreeing + 1).min(frame.index).max(progress.matched + 1);
                }
                _ => return,
            }
            progress.pace = Pace::Probe { waits: false };
            return self.send_entries(from);
        }
        if frame.index >= progress.matched {
            progress.matched = frame.index;
            progress.next = progress.next.max(frame.index + 1);
            progress.pace = match progress.pace {
                Pace::Placed(index) if frame.index < index => Pace::Placed(index),
                Pace::Placed(_) | Pace::Probe { .. } => Pace::Stream,
                Pace::Stream => Pace::Stream,
            };
        }
        let has_more = progress.next <= self.log.last();
        if self.order() {
            // The others hear of it at once, with what they lack.
            self.others().into_iter().for_each(|to| self.send_entries(to));
        } else if has_more {
            self.send_entries(from);
        }
    }

    /// Sends what a member lacks, as far as its pace allows, or what is ordered when it lacks nothing.
    pub(super) fn send_entries(&mut self, to: u32) {
        let Some(progress) = self.progress.get_mut(&to) else { return };
        loop {
            let is_ahead = progress.next > progress.matched + AHEAD;
            if matches!(progress.pace, Pace::Probe { waits: true } | Pace::Placed(_)) || (progress.pace == Pace::Stream && is_ahead) {
                return;
            }
            let index = progress.next - 1;
            let Some(log_term) = self.log.term_at(index) else {
                let position = *self.log.base();
                progress.pace = Pace::Placed(position.index);
                let frame = RaftFrame { position: Some(position), ..RaftFrame::new(Kind::Snapshot, self.term) };
                return self.messages.push((to, frame));
            };
            let mut bytes = 0;
            let fits = |(_, item): &(u64, &Item)| {
                let is_first = bytes == 0;
                bytes += item.data.len() + 16;
                is_first || bytes <= MESSAGE_BYTES
            };
            let entry = |(_, item): (u64, &Item)| WireEntry { term: item.term, data: item.data.to_vec() };
            let entries: Vec<WireEntry> = self.log.items_above(index).take(MESSAGE_ENTRIES).take_while(fits).map(entry).collect();
            let sent = entries.len() as u64;
            let frame = RaftFrame { index, log_term, commit: self.commit, entries, ..RaftFrame::new(Kind::Append, self.term) };
            self.messages.push((to, frame));
            if progress.pace != Pace::Stream {
                progress.pace = Pace::Probe { waits: true };
                return;
            }
            progress.next += sent;
            if progress.next > self.log.last() {
                return;
            }
        }
    }

    /// Members that were given a place in the log are tried again: the message, or the answer to it, may be lost.
    pub fn repeat_places(&mut self) {
        for progress in self.progress.values_mut().filter(|progress| matches!(progress.pace, Pace::Placed(_))) {
            progress.next = progress.matched + 1;
            progress.pace = Pace::Probe { waits: false };
        }
    }
}
