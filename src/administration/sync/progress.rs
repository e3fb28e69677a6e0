//! How far sync has come, for queries and the log; and the clock it measures by.

use millrace_base::{B256, NodeId};

/// Time between two measurements.
const SAMPLE_MS: u64 = 2_000;

/// Longest step that the clock takes at once: a jump of the wall clock must not end every wait.
const MAX_STEP_MS: u64 = 60_000;

/// What is known of one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncPeer {
    /// Who.
    pub node: NodeId,
    /// Its durable height, as it says; `None` before it said so.
    pub head: Option<(u64, B256)>,
    /// Measured speed of its answers; 0 is not known.
    pub bytes_per_s: u64,
    /// Milliseconds for which it is not asked; 0 is now.
    pub held_for_ms: u64,
    /// Lies found.
    pub lies: u32,
    /// The last of them, in words.
    pub last_lie: String,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncProgress {
    /// Whether blocks are being downloaded.
    pub is_syncing: bool,
    /// Durable height here.
    pub height: u64,
    /// Highest head that is vouched for: of more sealers than can be faulty, or this node's own.
    pub known: (u64, B256),
    /// Where the download aims: the highest claim of a peer in good standing.
    pub target: u64,
    /// Blocks made durable a second, lately.
    pub blocks_per_s: u64,
    /// Bytes downloaded a second, lately.
    pub bytes_per_s: u64,
    /// Seconds to `known` at this speed; `None` while there is none.
    pub remaining_s: Option<u64>,
    /// The lowest block that connected peers ahead of this node still keep, when the next one this node needs is below it.
    pub out_of_reach: Option<u64>,
    /// Blocks held and not yet durable.
    pub held_blocks: usize,
    /// Their bytes.
    pub held_bytes: usize,
    /// Connected members.
    pub peers: Vec<SyncPeer>,
}

/// Speeds, measured over a few seconds.
#[derive(Default)]
pub(super) struct Meter {
    since_ms: u64,
    height: u64,
    bytes: u64,
    pub blocks_per_s: u64,
    pub bytes_per_s: u64,
    downloaded: u64,
}

impl Meter {
    pub fn received(&mut self, bytes: usize) {
        self.downloaded += bytes as u64;
    }

    pub fn sample(&mut self, height: u64, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.since_ms);
        if passed_ms < SAMPLE_MS {
            return;
        }
        self.blocks_per_s = height.saturating_sub(self.height).saturating_mul(1_000) / passed_ms;
        self.bytes_per_s = (self.downloaded - self.bytes).saturating_mul(1_000) / passed_ms;
        (self.since_ms, self.height, self.bytes) = (now_ms, height, self.downloaded);
    }
}

/// Time that only goes forward, whatever the wall clock does.
#[derive(Default)]
pub(super) struct Steady {
    wall_ms: Option<u64>,
    now_ms: u64,
}

impl Steady {
    pub fn advance(&mut self, wall_ms: u64) -> u64 {
        let step = self.wall_ms.map_or(0, |last| wall_ms.saturating_sub(last));
        self.now_ms += step.min(MAX_STEP_MS);
        self.wall_ms = Some(wall_ms);
        self.now_ms
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }
}
