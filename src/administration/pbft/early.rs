//! Messages that came too early: of a view or an epoch this node has not entered yet.
//!
//! They are kept as bytes and read again when the node gets there. What does not fit is dropped, the oldest first: heartbeats make the
//! sender repeat what matters. Bounded by sender, so that nobody can push out what others sent.

use std::collections::{BTreeMap, VecDeque};

use millrace_base::{Bytes, NodeId};

/// Frames of one sender: a window of proposals and votes.
const FRAMES: usize = 48;

/// Bytes of one sender: the largest proposal (100,000 hashes) and some.
const BYTES: usize = 4 << 20;

/// Senders: more than a group has sealers, and those of the next epoch may be unknown here.
const SENDERS: usize = 128;

/// See the module.
#[derive(Default)]
pub struct Early(BTreeMap<NodeId, (usize, VecDeque<Bytes>)>);

impl Early {
    pub fn keep(&mut self, from: NodeId, frame: Bytes) {
        if frame.len() > BYTES || (self.0.len() >= SENDERS && !self.0.contains_key(&from)) {
            return;
        }
        let (bytes, frames) = self.0.entry(from).or_default();
        // Repeated by a heartbeat: once is enough.
        if frames.contains(&frame) {
            return;
        }
        *bytes += frame.len();
        frames.push_back(frame);
        while *bytes > BYTES || frames.len() > FRAMES {
            let oldest = frames.pop_front().expect("more than nothing is over the bound");
            *bytes -= oldest.len();
        }
    }

    /// Everything kept, in the order it came from each sender.
    pub fn take(&mut self) -> Vec<(NodeId, Bytes)> {
        let kept = std::mem::take(&mut self.0);
        kept.into_iter().flat_map(|(from, (_, frames))| frames.into_iter().map(move |frame| (from, frame))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_cannot_take_more_than_its_share() {
        let mut early = Early::default();
        let (loud, quiet) = (NodeId([1; 64]), NodeId([2; 64]));
        early.keep(quiet, Bytes::from_static(b"kept"));
        for number in 0..1000_u32 {
            early.keep(loud, Bytes::copy_from_slice(&number.to_be_bytes()));
        }
        early.keep(loud, vec![0; BYTES + 1].into());
        let kept = early.take();
        assert_eq!(kept.len(), FRAMES + 1);
        assert!(kept.contains(&(quiet, Bytes::from_static(b"kept"))));
        assert_eq!(early.take(), Vec::new());
    }
}
