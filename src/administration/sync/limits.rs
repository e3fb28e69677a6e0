//! Every bound of sync, with its reason.

/// Blocks above the durable head that are asked for or held at once: seconds of execution, so a slow answer does not starve it.
pub const LOOKAHEAD_BLOCKS: u64 = 256;

/// Bytes of blocks held or on their way, per group; the next height needed is asked for regardless, so a full store cannot lack it.
pub const HELD_BYTES: usize = 64 << 20;

/// Requests on their way at once, all peers together.
pub const MAX_REQUESTS: usize = 8;

/// Requests on their way at once to one peer: one being answered, one waiting there, so its link does not idle.
pub const MAX_REQUESTS_A_PEER: usize = 2;

/// Bytes that one answer may have, unless it is one larger block.
pub const REQUEST_BYTES: u32 = 4 << 20;

/// Bytes that the slowest peer is asked for.
pub const LEAST_REQUEST_BYTES: u32 = 64 << 10;

/// Blocks that one answer may have.
pub const MAX_REQUEST_BLOCKS: u32 = 128;

/// Blocks being checked at once, per group; the bound of the queues to and from the checking threads rests on it.
pub const MAX_CHECKS: usize = 32;

/// Peers of one group: more members than any consortium has; bounds every list of peers.
pub const MAX_PEERS: usize = 1_024;

/// Signatures of one block: one a sealer.
pub const MAX_SIGNATURES: usize = MAX_PEERS;

/// Status after a new head at most this often: a follower is that much late, and an idle line carries ten small messages a second.
pub const STATUS_INTERVAL_MS: u64 = 100;

/// Status without a new head: repairs one that was dropped.
pub const IDLE_STATUS_INTERVAL_MS: u64 = 4_000;

/// How long a sealer that lags by no more than the window waits for consensus before it downloads; and how long delivered blocks may
/// show no result before they are delivered again.
pub const STALL_MS: u64 = 1_000;

/// Deliveries of the same blocks without a result before they are fetched anew.
pub const MAX_DELIVERIES: u32 = 4;

/// First wait for an answer of a peer whose speed is not known.
pub const FIRST_TIMEOUT_MS: u64 = 3_000;

/// When the lowest heights that are on their way have not come after this time, somebody else is asked for them too: one silent peer
/// must not hold up what the others have brought already.
pub const OVERDUE_MS: u64 = 1_000;

/// Shortest and longest wait for an answer; the longest lets a block of 12 MiB through a line of half a megabyte a second.
pub const TIMEOUT_RANGE_MS: (u64, u64) = (1_500, 30_000);

/// First and longest time that a peer that lied, or did not answer, is not asked. The longest is short enough that a single honest peer
/// that was wronged serves again soon.
pub const HOLD_RANGE_MS: (u64, u64) = (2_000, 60_000);

/// Lies after which the hold no longer grows; also how far timeouts double.
pub const MAX_DOUBLINGS: u32 = 5;

/// A peer that behaved this long is as good as new.
pub const FORGET_MS: u64 = 600_000;

/// Requests of one peer that wait here; older ones have timed out there.
pub const MAX_WAITING_SERVES: usize = 4;

/// Bytes a second that one peer is served of one group: far above what it can execute, far below what would slow commits.
pub const SERVE_BYTES_PER_S: u64 = 32 << 20;

/// Speed assumed of a peer that has not answered yet.
pub const ASSUMED_BYTES_PER_S: u64 = 8 << 20;
