//! One run, fully described: everything follows from the seed, and what the command line sets instead.

use millrace_base::GroupId;

use crate::dice::Dice;

/// A bug that is planted to see whether the simulator finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Bug {
    /// A quorum of n − f − 1.
    Quorum,
    /// Votes leave a node before they are durable: a crash takes back what was said.
    Durable,
    /// Signatures of one sealer count as often as they are given.
    Signers,
}

/// How groups order their transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Ordering {
    /// PBFT in all groups.
    #[default]
    Pbft,
    /// Raft in groups with odd numbers, PBFT in the others. No member lies.
    Raft,
}

/// What the command line sets, besides the seed.
#[derive(Clone, Copy, Default, Debug)]
pub struct Overrides {
    /// Sealers, 1 to 10.
    pub nodes: Option<usize>,
    /// Groups, 1 to 4.
    pub groups: Option<usize>,
    /// See [`Ordering`].
    pub ordering: Ordering,
    /// See [`Bug`].
    pub planted: Option<Bug>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// First sealers of group 1.
    pub sealers: usize,
    /// Nodes that are no sealers of group 1 at first.
    pub others: usize,
    /// Groups, numbered from 1.
    pub groups: usize,
    /// See [`Ordering`].
    pub ordering: Ordering,
    /// Faulty sealers that run twice with one key, each copy talking to other nodes.
    pub twins: usize,
    /// Faulty sealers that never say anything.
    pub silent: usize,
    /// Faulty sealers whose answers about blocks are false.
    pub liars: usize,
    /// Messages lost, of a hundred.
    pub drop_percent: u64,
    /// Messages that arrive twice, of a hundred.
    pub duplicate_percent: u64,
    /// Longest delay of a message.
    pub delay_ms: u64,
    /// Whether nodes lose power, at any point of their work.
    pub has_crashes: bool,
    /// Whether links are cut, in silence or with notice, in one direction or both.
    pub has_partitions: bool,
    /// Whether clients change the members and settings of groups.
    pub has_changes: bool,
    /// Whether disks are full for a while.
    pub has_full_disks: bool,
    /// How far clocks may be off, and by how much they may jump.
    pub skew_ms: u64,
    /// Transactions that clients send to each group.
    pub transactions: usize,
    /// Transactions in one block at first.
    pub block_limit: u64,
    /// Consensus timeout at first, seconds.
    pub timeout_s: u64,
    /// Length of the phase with faults.
    pub faults_ms: u64,
    /// Heights of a group in flight, 1 to 8, the same at all nodes.
    pub window: u64,
    /// Whether commits wait for the disk, or only for the operating system: a loss of power takes what the process had written in neither
    /// case, since here only the process is lost.
    pub has_power_durability: bool,
    /// Whether groups are closed and opened on running nodes.
    pub has_group_steps: bool,
    /// See [`Bug`].
    pub planted: Option<Bug>,
}

impl Options {
    /// Everything from the seed, unless it is set.
    pub fn of(seed: u64, overrides: Overrides) -> Self {
        let mut dice = Dice::new(seed);
        let sealers = dice.pick(&[1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 7, 7, 10]);
        let sealers = overrides.nodes.unwrap_or(sealers).clamp(1, 10);
        let groups = dice.pick(&[1, 1, 1, 2]);
        let groups = overrides.groups.unwrap_or(groups).clamp(1, 4);
        let mut options = Self {
            seed,
            sealers,
            others: dice.pick(&[0, 0, 1, 2]),
            groups,
            ordering: overrides.ordering,
            twins: 0,
            silent: 0,
            liars: 0,
            drop_percent: dice.pick(&[0, 0, 2, 10, 25]),
            duplicate_percent: dice.pick(&[0, 5, 40]),
            delay_ms: dice.pick(&[3, 20, 100, 700]),
            has_crashes: dice.percent(60),
            has_partitions: dice.percent(50),
            has_changes: dice.percent(40),
            has_full_disks: dice.percent(15),
            skew_ms: dice.pick(&[0, 0, 50, 3_000]),
            transactions: 20 + dice.below(50) as usize,
            block_limit: dice.pick(&[1, 3, 5, 50]),
            timeout_s: dice.pick(&[1, 2, 3]),
            faults_ms: 6_000 + dice.below(14_000),
            window: 8,
            has_power_durability: true,
            has_group_steps: false,
            planted: overrides.planted,
        };
        let faulty = dice.below((sealers as u64 - 1) / 3 + 1);
        let faulty = if overrides.ordering == Ordering::Raft { 0 } else { faulty };
        for _ in 0..faulty {
            match dice.below(4) {
                0 => options.silent += 1,
                1 => options.liars += 1,
                _ => options.twins += 1,
            }
        }
        // Last, so that a seed keeps the options it had before these were drawn.
        options.window = dice.pick(&[1, 2, 3, 4, 5, 6, 7, 8, 8, 8]);
        options.has_power_durability = dice.percent(60);
        options.has_group_steps = dice.percent(40);
        options
    }

    /// Faulty sealers.
    pub fn faulty(&self) -> usize {
        self.twins + self.silent + self.liars
    }

    /// Whether a group runs Raft.
    pub fn runs_raft(&self, group: GroupId) -> bool {
        self.ordering == Ordering::Raft && group.get() % 2 == 1
    }

    /// The command that runs it again.
    pub fn command(&self, overrides: Overrides) -> String {
        let mut text = format!("sim --seed {}", self.seed);
        if let Some(nodes) = overrides.nodes {
            text += &format!(" --nodes {nodes}");
        }
        if let Some(groups) = overrides.groups {
            text += &format!(" --groups {groups}");
        }
        if overrides.ordering == Ordering::Raft {
            text += " --consensus raft";
        }
        if let Some(planted) = overrides.planted {
            text += &format!(" --plant {}", format!("{planted:?}").to_lowercase());
        }
        text
    }
}
