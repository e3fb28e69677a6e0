//! What goes wrong: power, links, disks, clocks.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use millrace_base::GroupId;

use super::{Event, LOOK_US, World};
use crate::process::{Fault, Plan};

impl World {
    /// One thing goes wrong, or is mended.
    pub(super) fn mishap(&mut self) {
        if self.healed_us.is_some() {
            return;
        }
        match self.dice.below(12) {
            0..4 if self.options.has_crashes => self.crash(),
            4 if self.options.has_crashes && self.dice.percent(40) => self.crash_all(),
            5..8 if self.options.has_partitions => self.cut(),
            8 if self.options.has_partitions => self.mend(),
            9 if self.options.has_full_disks => self.fill_disk(),
            10 if self.options.skew_ms > 0 => self.shift_clock(),
            11 if self.options.has_group_steps => self.close_group(),
            _ => self.choose_sides(),
        }
        let after_us = 100_000 + self.dice.below(1_200_000);
        self.plan(after_us, Event::Mishap);
    }

    fn any(&mut self) -> usize {
        self.dice.index(self.processes.len())
    }

    /// A process loses power at one of its next steps.
    fn crash(&mut self) {
        let place = self.any();
        let (steps, luck) = (self.dice.below(40), self.dice.next());
        if self.processes[place].fault == Some(Fault::Twin) {
            return;
        }
        if let Some(running) = &self.processes[place].running {
            running.power.fail_after(steps, luck);
        }
    }

    fn crash_all(&mut self) {
        for place in 0..self.processes.len() {
            let (steps, luck) = (self.dice.below(30), self.dice.next());
            if let Some(running) = &self.processes[place].running {
                running.power.fail_after(steps, luck);
            }
        }
    }

    /// Two halves, one process against all, or one pair; in silence in one or both directions, or with notice.
    fn cut(&mut self) {
        let count = self.processes.len();
        let half: BTreeSet<usize> = match self.dice.below(3) {
            0 => (0..count).filter(|_| self.dice.percent(50)).collect(),
            _ => BTreeSet::from([self.any()]),
        };
        let others: Vec<usize> = match self.dice.below(4) {
            0 => vec![self.any()],
            _ => (0..count).collect(),
        };
        let how = self.dice.below(4);
        for from in half.iter().copied() {
            for to in others.iter().copied().filter(|to| !half.contains(to)) {
                match how {
                    0 => drop(self.traffic.cut.insert((from, to))),
                    1 => drop(self.traffic.cut.insert((to, from))),
                    2 => self.traffic.cut.extend([(from, to), (to, from)]),
                    _ => self.network.set_broken(from, to, true),
                }
            }
        }
        self.note(|| format!("links between {half:?} and {others:?} are cut, way {how}"));
        self.tell_links();
    }

    fn mend(&mut self) {
        self.traffic.cut.clear();
        self.network.restore();
        self.note(|| "links are mended".into());
        self.tell_links();
    }

    /// A group is closed on one node, and opened again a while later.
    fn close_group(&mut self) {
        let place = self.any();
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        let group = groups[self.dice.index(groups.len())];
        if self.processes[place].close_group(group) {
            self.note(|| format!("process {place} closes group {group}"));
            let life = self.processes[place].life;
            let after_us = 200_000 + self.dice.below(3_000_000);
            self.plan(after_us, Event::Reopen { place, life, group });
            self.schedule(place);
            self.tell_links();
        }
    }

    pub(super) fn reopen(&mut self, place: usize, life: u32, group: GroupId) -> Result<(), String> {
        let Self { processes, options, groups, network, .. } = self;
        let process = &mut processes[place];
        if process.life != life {
            return Ok(());
        }
        let is_open = process.open_group(group, &Plan { options, groups, network }).map_err(|error| format!("process {place}: {error}"))?;
        if !is_open {
            self.plan(50_000, Event::Reopen { place, life, group });
            return Ok(());
        }
        self.note(|| format!("process {place} opens group {group}"));
        self.oracle.closed(place, group);
        self.schedule(place);
        self.tell_links();
        Ok(())
    }

    fn fill_disk(&mut self) {
        let place = self.any();
        let is_full = self.dice.percent(50);
        self.note(|| format!("the disk of process {place} is full: {is_full}"));
        self.processes[place].disk.set_full(is_full && self.processes[place].running.is_some());
    }

    fn shift_clock(&mut self) {
        let place = self.any();
        let off_ms = self.dice.below(2 * self.options.skew_ms + 1) as i64 - self.options.skew_ms as i64;
        self.note(|| format!("the clock of process {place} is off by {off_ms} ms"));
        self.processes[place].clock.off_ms.store(off_ms, Ordering::Relaxed);
    }

    /// Deals the honest processes to the copies of each twin; some hear both.
    fn choose_sides(&mut self) {
        let count = self.processes.len();
        let twins: Vec<usize> = (0..count).filter(|place| self.processes[*place].fault == Some(Fault::Twin)).collect();
        for copies in twins.chunks(2) {
            self.traffic.sides.extend(copies.iter().map(|place| (*place, BTreeSet::new())));
            for to in 0..count {
                let chosen = self.dice.below(10);
                for (index, place) in copies.iter().enumerate() {
                    if chosen >= 9 || chosen as usize % 2 == index {
                        self.traffic.sides.entry(*place).or_default().insert(to);
                    }
                }
            }
        }
    }

    /// Tells processes that sessions began or ended; some find out by themselves.
    pub(super) fn tell_links(&mut self) {
        for place in 0..self.processes.len() {
            let is_told = self.dice.percent(80);
            let Some(running) = self.processes[place].running.as_ref().filter(|_| is_told) else { continue };
            for group in running.ledgers.keys() {
                running.inlets.sync.peers_changed(*group);
            }
            running.inlets.peers.changed();
            self.schedule(place);
        }
    }

    /// Nothing goes wrong any more: everything runs, is linked and has room.
    pub(super) fn heal(&mut self) {
        self.healed_us = Some(self.now_us);
        self.note(|| "healed".into());
        self.traffic.cut.clear();
        self.network.restore();
        for place in 0..self.processes.len() {
            self.processes[place].disk.set_full(false);
            match &self.processes[place].running {
                Some(running) => running.power.fail_after(u64::MAX, 0),
                None => self.plan(1_000, Event::Start { place }),
            }
        }
        self.tell_links();
        self.next_members_us = self.now_us + 1_000_000;
        self.plan(LOOK_US, Event::Look);
    }
}
