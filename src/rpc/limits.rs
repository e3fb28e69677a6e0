//! Bounds of this crate alone, each with its reason. Bounds shared with other crates stand in `millrace_base::limits`.

use std::time::Duration;

/// Open connections of one listener; each idle one costs about 10 KB.
pub const MAX_CONNECTIONS: usize = 4_096;

/// Open HTTP connections of one address, of IPv6 of one /64: a load generator or a proxy fits, and three quarters stay for others.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = 1_024;

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

/// Slots proven in one request: some 10 KB of reply each.
pub const MAX_PROOF_SLOTS: usize = 256;

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

/// Peers in one `addPeers` or `erasePeers` call where `p2p.peers_param_limit` says nothing.
pub const MAX_PEER_ARGUMENTS: usize = 10;

/// Bytes of one channel frame: as the body of an HTTP request, with its header.
pub const MAX_FRAME_BYTES: usize = millrace_base::limits::MAX_HTTP_BODY_BYTES + 64;

/// Bytes of a frame that is neither JSON-RPC nor AMOP: the longest topic list or event subscription with room to spare.
pub const MAX_CONTROL_BYTES: usize = 512 << 10;

/// Bytes of incomplete frames of all channel sessions together: sixteen of the longest.
pub const ASSEMBLY_BUDGET_BYTES: usize = 512 << 20;

/// Bytes of an incomplete frame that a session may hold whatever the others do.
pub const ASSEMBLY_FREE_BYTES: usize = 1 << 20;

/// Silence after which a channel session is ended (`spec/client-protocol.md` 3.4).
pub const IDLE_LIMIT_MS: u64 = 60_000;

/// Topics of one channel session; SDKs subscribe to a handful, and each costs memory on every peer.
pub const MAX_SESSION_TOPICS: usize = 1_024;

/// Topics that a peer may announce: those of its sessions, a few thousand in practice.
pub const MAX_PEER_TOPICS: usize = 65_536;

/// Bytes queued for a client that does not read; its session is ended beyond. Holds the pushes of several full blocks.
pub const MAX_QUEUED_BYTES: usize = 16 << 20;

/// Bytes that the kernel holds unsent for one channel client. A client that reads nothing is noticed behind these and not behind the
/// megabytes that the kernel would take otherwise, for every client.
pub const UNSENT_BYTES: u32 = 128 << 10;

/// Bytes queued for a client above which event logs wait until it has read: history is read again later, not queued.
pub const EVENT_QUEUE_BYTES: usize = 1 << 20;

/// JSON-RPC frames of one session that are being answered at the same time; beyond, the session is not read. SDKs keep tens in flight,
/// load generators thousands.
pub const MAX_SESSION_REQUESTS: usize = 4_096;

/// Bytes of JSON-RPC frames of one session that are being answered at the same time.
pub const MAX_SESSION_REQUEST_BYTES: usize = 64 << 20;

/// JSON-RPC frames of all sessions together that are being answered at the same time.
pub const MAX_REQUESTS: usize = 65_536;

/// Bytes of JSON-RPC frames of all sessions together that are being answered at the same time.
pub const MAX_REQUEST_BYTES: usize = 512 << 20;

/// Time between the reply to an event subscription and its first push. go-sdk registers who handles the logs when it has read the reply,
/// and drops logs that are there before; 2.x nodes look at subscriptions every 100 ms.
pub const FIRST_PUSH_DELAY: Duration = Duration::from_millis(100);

/// Event subscriptions of one session.
pub const MAX_SESSION_FILTERS: usize = 256;

/// Event subscriptions of all sessions together; each is looked at for every block.
pub const MAX_FILTERS: usize = 16_384;

/// Addresses and topics in one event subscription.
pub const MAX_FILTER_ITEMS: usize = 1_024;

/// Bytes of the identifier that a client gives its event subscription; it is repeated in every push.
pub const MAX_FILTER_ID_BYTES: usize = 256;

/// Blocks that one event subscription is served in a turn, before the next one gets its turn.
pub const FILTER_TURN_BLOCKS: u64 = 8;

/// Bytes of logs in their pushed form that a turn keeps, so that subscriptions to the same block share them. Holds a full block of 2.x.
pub const WRITTEN_LOG_BYTES: usize = 64 << 20;

/// Blocks whose logs a turn keeps in their pushed form: those of one subscription's turn.
pub const MAX_WRITTEN_BLOCKS: usize = FILTER_TURN_BLOCKS as usize;

/// Bytes of logs in one push; more are divided over several.
pub const EVENT_PUSH_BYTES: usize = 256 << 10;

/// Transactions of one session whose receipts are awaited. Two full pools of 2.x.
pub const MAX_AWAITED_RECEIPTS: usize = 300_000;

/// Time that receipts wait for go-sdk, which may stand still for ever when a receipt is close behind the reply to its transaction: with 32
/// goroutines that share a client it did within seconds, with receipts 20 ms later never.
pub const GO_SDK_RECEIPT_DELAY: Duration = Duration::from_millis(20);

/// AMOP messages that wait for an answer, on the whole node.
pub const MAX_AMOP_WAITING: usize = 16_384;

/// Bytes of AMOP messages that wait for an answer, on the whole node.
pub const MAX_AMOP_WAITING_BYTES: usize = 256 << 20;

/// Time for a client to answer an AMOP message before the next subscriber is tried.
pub const AMOP_CLIENT_MS: u64 = 5_000;

/// Time for a peer to answer an AMOP message before the next one is tried: its own clients have [`AMOP_CLIENT_MS`] each.
pub const AMOP_PEER_MS: u64 = 15_000;

/// Time for all attempts at an AMOP message together (`spec/client-protocol.md` 3.7).
pub const AMOP_TOTAL_MS: u64 = 30_000;
