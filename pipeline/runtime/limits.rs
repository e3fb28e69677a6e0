//! Every bound of the pipeline runtime, with its reason. The graph validator and the queues rely on them.

use std::time::Duration;

/// Bytes of a thread's name that Linux keeps and tools show.
pub const MAX_THREAD_NAME_BYTES: usize = 15;

/// Workers of one stage: more than the cores of any machine we aim at only adds switching.
pub const MAX_WORKERS: usize = 256;

/// Items in one queue or lane: the ring is allocated at start, so a slip in a configuration must not take gigabytes.
pub const MAX_DEPTH: usize = 1 << 20;

/// Lanes of one lane queue: one for each group id that the protocol can name.
pub const MAX_LANES: usize = millrace_base::GroupId::MAX as usize;

/// Items of one batch: keeps the time until a stage looks at its other queues and its clock short.
pub const MAX_BATCH: usize = 4_096;

/// A sender that waits for room looks this often whether its queue was closed meanwhile; only matters when the reader hangs.
pub(crate) const BLOCKED_RECHECK: Duration = Duration::from_millis(50);

/// A stage that is told to stop and says that it is not drained is asked again after this time.
pub(crate) const DRAIN_RECHECK: Duration = Duration::from_millis(5);

/// Tries of a metrics reader to see one worker's times at rest; switches are tens of nanoseconds long, so the first nearly always succeeds.
pub(crate) const SNAPSHOT_TRIES: usize = 64;
