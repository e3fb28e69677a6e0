//! Messages between processes and transactions of clients: what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::{Bytes, GroupId, NodeId, U256};
use millrace_pipeline::peers::PeerKind;

use super::{Event, World};
use crate::clients::{self, Issued, Operation, Role};
use crate::process::Fault;

/// Transactions that a client may send again.
const REMEMBERED: usize = 20;

/// See the module.
#[derive(Default)]
pub(super) struct Traffic {
    /// From and to: what is sent there is lost in silence.
    pub cut: BTreeSet<(usize, usize)>,
    /// Processes that each copy of a twin talks to; without an entry to all.
    pub sides: BTreeMap<usize, BTreeSet<usize>>,
    pub recent: Vec<(GroupId, Issued)>,
}

impl World {
    /// Sends what processes have handed to the network.
    pub(super) fn route(&mut self) {
        for message in self.network.take() {
            for to in self.network.places(&message.to) {
                if !self.network.is_linked(message.from, to) || !self.is_on_side(message.from, to) {
                    continue;
                }
                let is_calm = self.healed_us.is_some();
                let copies = match self.dice.below(100) {
                    _ if is_calm => 1,
                    chance if chance < self.options.drop_percent => 0,
                    chance if chance < self.options.drop_percent + self.options.duplicate_percent => 2,
                    _ => 1,
                };
                let copies = if self.traffic.cut.contains(&(message.from, to)) { 0 } else { copies };
                for _ in 0..copies {
                    let most_ms = if is_calm { 10 } else { self.options.delay_ms };
                    let after_us = 100 + self.dice.below(most_ms * 1_000);
                    let (life, from) = (self.processes[to].life, self.processes[message.from].id());
                    let (group, kind, payload) = (message.group, message.kind, message.payload.clone());
                    self.plan(after_us, Event::Arrival { place: to, life, from, group, kind, payload });
                }
            }
        }
    }

    /// A copy of a twin talks to its own side only; both hear everything.
    fn is_on_side(&self, from: usize, to: usize) -> bool {
        self.traffic.sides.get(&from).is_none_or(|side| side.contains(&to))
    }

    pub(super) fn arrive(&mut self, (place, life): (usize, u32), from: NodeId, (group, kind): (GroupId, PeerKind), payload: Bytes) {
        let process = &self.processes[place];
        let Some(running) = process.running.as_ref().filter(|_| process.life == life) else { return };
        if !running.line.has_member(group, &from) {
            return;
        }
        match kind {
            PeerKind::Consensus => running.inlets.frames.offer(group, from, payload),
            PeerKind::Sync | PeerKind::Transactions => running.inlets.sync.offer(group, from, kind, payload),
        };
    }

    /// A client of some nodes sends something.
    pub(super) fn submit(&mut self, group: GroupId) {
        let known: Vec<usize> = (0..self.traffic.recent.len()).filter(|index| self.traffic.recent[*index].0 == group).collect();
        if !known.is_empty() && self.dice.percent(8) {
            let again = self.traffic.recent[known[self.dice.index(known.len())]].1.clone();
            return self.hand_in(group, &again);
        }
        let sent = self.sent.entry(group).or_default();
        *sent += 1;
        let sent = *sent - 1;
        let operation = match self.dice.below(100) {
            0..6 if self.options.has_changes && sent > 6 => self.change(),
            _ => clients::ordinary(&mut self.dice, sent),
        };
        let rival = known.last().filter(|_| self.dice.percent(3)).map(|index| self.traffic.recent[*index].1.nonce);
        let nonce = rival.unwrap_or_else(|| U256::from(self.dice.next()));
        let ahead = self.dice.pick(&[4, 100, 500, 500, 500, 500, 500, 500]);
        self.issue(group, operation, nonce, ahead);
    }

    /// A change of members or settings.
    fn change(&mut self) -> Operation {
        let changeable: Vec<NodeId> = self
            .processes
            .iter()
            .map(|process| process.id())
            .filter(|id| !self.fixed.contains(id))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        match self.dice.below(10) {
            0 => Operation::BlockLimit(1 + self.dice.below(8)),
            1 => Operation::Timeout(3 + self.dice.below(3)),
            _ if changeable.is_empty() => Operation::BlockLimit(1 + self.dice.below(8)),
            _ => {
                let node = changeable[self.dice.index(changeable.len())];
                let role = self.dice.pick(&[Role::Sealer, Role::Sealer, Role::Observer, Role::Free]);
                Operation::Role(node, role)
            }
        }
    }

    fn issue(&mut self, group: GroupId, operation: Operation, nonce: U256, ahead: u64) {
        let client = self.dice.index(self.clients.len());
        let limit = self.oracle.height(group) + ahead;
        let issued = clients::issue(&self.clients[client], group, operation, nonce, limit);
        self.oracle.issued(group, &issued);
        self.note(|| format!("client sends {:?} of group {group}: {}", issued.operation, issued.hash));
        if self.traffic.recent.len() >= REMEMBERED {
            self.traffic.recent.remove(0);
        }
        self.traffic.recent.push((group, issued.clone()));
        self.hand_in(group, &issued);
    }

    fn hand_in(&mut self, group: GroupId, issued: &Issued) {
        let copies = self.dice.pick(&[1, 1, 1, 1, 2, 3]);
        for _ in 0..copies {
            let place = self.dice.index(self.processes.len());
            let submitter = self.dice.below(4);
            if let Some(running) = &self.processes[place].running {
                running.submit(group, submitter, issued.raw.clone());
                self.schedule(place);
            }
        }
    }

    /// Makes every node that belongs to no group an observer there, so that all must end with the same chain. Sent to every process,
    /// since some of them are of no use to the group.
    pub(super) fn bring_everybody_in(&mut self) {
        let ids: BTreeSet<NodeId> =
            self.processes.iter().filter(|process| process.fault != Some(Fault::Silent)).map(|process| process.id()).collect();
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            let (sealers, observers) = self.oracle.members(group);
            let (sealers, outside) =
                (sealers.clone(), ids.iter().filter(|id| !sealers.contains(id) && !observers.contains(id)).copied().collect::<Vec<_>>());
            for node in outside {
                let nonce = U256::from(self.dice.next());
                let limit = self.oracle.height(group) + 500;
                let issued = clients::issue(&self.clients[0], group, Operation::Role(node, Role::Observer), nonce, limit);
                self.oracle.issued(group, &issued);
                self.note(|| format!("client brings {node:?} into group {group}: {}", issued.hash));
                for place in (0..self.processes.len()).filter(|place| sealers.contains(&self.processes[*place].id())).collect::<Vec<_>>() {
                    if let Some(running) = &self.processes[place].running {
                        running.submit(group, 9, issued.raw.clone());
                        self.schedule(place);
                    }
                }
            }
        }
    }
}
