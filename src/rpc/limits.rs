//! Bounds of this crate alone, each with its reason. Bounds shared with other crates stand in `millrace_base::limits`.

use std::time::Duration;

/// Open connections of one listener; each idle one costs about 10 KB.
pub const MAX_CONNECTIONS: usize = 4_096;

/// Bytes of a request's head. Clients send a handful of short headers.
pub const MAX_HEAD_BYTES: usize = 16 << 10;

/// Time to send the head of a request, and time a kept connection may stay idle: long enough for the connection pools of SDKs.
pub const HEAD_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Time to send the body of a request: 32 MiB at 1 MiB a second.
pub const BODY_TIME_LIMIT: Duration = Duration::from_secs(32);

/// Time for all requests of one body. A block under load takes seconds; SDKs give up after 30 to 60 s.
pub const REQUEST_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of all request bodies held at once, so that many large requests cannot exhaust memory.
pub const BODY_BUDGET_BYTES: usize = 512 << 20;

/// One permit of the body budget, in bytes.
pub const BODY_PERMIT_BYTES: usize = 1 << 10;

/// Parameters looked at in one request; no method declares more than five.
pub const MAX_ARGUMENTS: usize = 8;

/// Bytes of replies in one batch after which its further requests are refused: a batch could ask for the same large block 10,000 times.
pub const MAX_REPLY_BYTES: usize = 64 << 20;

/// Bodies above this size are parsed off the runtime's threads' normal duty, so that small requests are not held up.
pub const LARGE_BODY_BYTES: usize = 64 << 10;

/// Bodies that may wait for a free query worker; beyond, clients are told to come back.
pub const MAX_WAITING_QUERIES: usize = 1_024;

/// Pool content shown by `getPendingTransactions`: the largest pool a client can still receive in one reply.
pub const MAX_PENDING_SHOWN: usize = 100_000;

/// Bytes of a client's own text that an error message repeats.
pub const MAX_ECHO_BYTES: usize = 4_096;

/// Peers in one `addPeers` or `erasePeers` call (`p2p.peers_param_limit`).
pub const MAX_PEER_ARGUMENTS: usize = 10;
