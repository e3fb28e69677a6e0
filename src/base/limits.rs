//! Every bound that more than one crate relies on, with its reason. Bounds of one crate only stand in that crate's own limits.

/// Blocks ahead of the head that a transaction's block limit may name, and blocks behind it whose nonces are remembered.
/// A client constant: SDKs add 500 or 600 (`spec/client-protocol.md` 1.5).
pub const BLOCK_LIMIT_WINDOW: u64 = 1_000;

/// Blocks whose bodies and receipts a node keeps at least: the window, and as many again for peers that catch up and clients that look back.
pub const LEAST_KEPT_BLOCKS: u64 = 2 * BLOCK_LIMIT_WINDOW;

/// Encoded size of one transaction. The largest contract (256 KiB) with constructor arguments is well below; the reference node has no bound of its own.
pub const MAX_TRANSACTION_BYTES: usize = 4 << 20;

/// Body of one HTTP request: one batch of raw transactions in hex (1,000 of 2 KB each) with room to spare.
pub const MAX_HTTP_BODY_BYTES: usize = 32 << 20;

/// Requests in one JSON-RPC batch.
pub const MAX_RPC_BATCH: usize = 10_000;

/// Depth of nested JSON in a request; the reference node's parser stops at 1,000, far below what our stack holds.
pub const MAX_JSON_DEPTH: usize = 128;

/// Transactions in one block whatever `tx_count_limit` says: keeps a block's messages and receipts below the frame limit.
pub const MAX_BLOCK_TRANSACTIONS: usize = 100_000;

/// Encoded transactions of one block, unless it holds a single larger one: a block with its receipts must stay below the bound of one
/// stored record.
pub const MAX_BLOCK_BYTES: usize = MAX_WIRE_BYTES / 4;

/// Deployed code of one contract (`spec/client-protocol.md` 8.1).
pub const MAX_CODE_BYTES: usize = 0x40000;

/// Default `tx_gas_limit` of genesis files that name none.
pub const DEFAULT_TX_GAS_LIMIT: u64 = 300_000_000;

/// Default `tx_count_limit` of genesis files that name none.
pub const DEFAULT_TX_COUNT_LIMIT: u64 = 1_000;

/// One stored record or peer message decoded by [`crate::wire`]; a block of 100,000 transactions fits.
pub const MAX_WIRE_BYTES: usize = 100 << 20;
