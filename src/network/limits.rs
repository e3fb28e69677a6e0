//! Every fixed bound of the port between nodes, with its reason. Those that an operator may change are in
//! [`NetworkLimits`](crate::NetworkLimits).

use std::time::Duration;

/// Payload of one frame, compressed or not. Blocks above it travel in parts.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// The first message of either side, which comes from somebody who has proven nothing but a certificate.
pub const MAX_HELLO_BYTES: usize = 4 << 10;

/// A list of groups: all 32,767 ids fit, at most three bytes each.
pub const MAX_GROUPS_BYTES: usize = 128 << 10;

/// Part of a frame that is written in one piece: how long a vote waits behind a block, 5 ms at 100 Mbit/s.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Plain bytes that are encrypted at once: eight records of TLS, one system call.
pub const BATCH_BYTES: usize = 128 << 10;

/// Bytes that the kernel holds unsent; more would queue in front of votes where we cannot reorder it.
pub const UNSENT_BYTES: u32 = 128 << 10;

/// Bytes that one connection reads or writes before the others have their turn.
pub const TURN_BYTES: usize = 1 << 20;

/// One read of a socket.
pub const READ_BYTES: usize = 64 << 10;

/// Urgent bytes in a row after which one bulk chunk goes: bulk keeps at least a fifth of the link.
pub const URGENT_RUN_BYTES: usize = 4 * CHUNK_BYTES;

/// What a lane of a peer's queue may hold even if the queues of all peers together are full: slow peers do not silence the others.
pub const GUARANTEED_QUEUE_BYTES: usize = 1 << 20;

/// Bulk bytes of one group in a row while others wait.
pub const GROUP_QUANTUM_BYTES: i64 = 64 << 10;

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(200);

/// How long a connection that we have ended is read, so that the other side can take up the reason before the kernel resets it.
pub const DRAIN: Duration = Duration::from_secs(1);

/// How long a connection whose session was taken over is still read: what was on its way arrives, and the other side has its own time to
/// take the session over instead of losing it.
pub const RETIREMENT: Duration = Duration::from_secs(1);

/// A session that lived this long was a success: the next attempt to connect comes quickly.
pub const STABLE: Duration = Duration::from_secs(5);

/// Warnings about refused connections that are written in a second; an outsider must not fill the log.
pub const WARNINGS_PER_SECOND: u32 = 5;

/// Text of a certificate (subject, names) that is kept and shown.
pub const MAX_NAME_CHARS: usize = 200;

/// Peers file: a hundred addresses are usual, and ten thousand lines is far above any chain.
pub const MAX_PEERS_FILE_BYTES: u64 = 1 << 20;
