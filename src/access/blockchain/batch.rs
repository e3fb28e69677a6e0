//! What a block writes: everything in one batch, keys ascending within each space, as engines want them.

use millrace_base::limits::BLOCK_LIMIT_WINDOW;
use millrace_base::{B256, Block, Receipt, wire};
use millrace_core::state::codec;
use millrace_core::storage::height_key;
use millrace_core::{Batch, Space};

use super::{ChainHead, Commit, Totals, records};

/// Keys in [`Space::Meta`].
pub(super) mod meta {
    pub const GENESIS: &[u8] = b"genesis-hash";
    pub const COMMITMENT: &[u8] = b"root-accumulator";
    pub const TOTALS: &[u8] = b"totals";
    pub const EPOCH: &[u8] = b"epoch-start";
    /// The lowest height above 0 whose body and receipts are here; absent while all are.
    pub const KEPT_FROM: &[u8] = b"kept-from";
    /// Names the snapshot of a restore that is not complete.
    pub const RESTORING: &[u8] = b"restoring";
}

/// The batch of a block, and the head it makes; `totals` are those before it.
pub(super) fn encode(commit: &Commit, totals: Totals) -> (Batch, ChainHead) {
    let block = &commit.block;
    let number = block.header.number;
    let totals = count(commit, totals);
    let mut batch = Batch::default();
    if let Some(start) = commit.epoch_start {
        batch.put(Space::Meta, meta::EPOCH, wire::encode(&start));
    }
    if number == 0 {
        batch.put(Space::Meta, meta::GENESIS, block.hash.to_vec());
    }
    batch.put(Space::Meta, meta::COMMITMENT, commit.commitment.to_bytes());
    batch.put(Space::Meta, meta::TOTALS, wire::encode(&totals));
    put_header(&mut batch, block);
    if let Some(expired) = number.checked_sub(BLOCK_LIMIT_WINDOW) {
        batch.delete(Space::Nonces, height_key(expired));
    }
    put_body(&mut batch, block);
    for (state_key, value) in &commit.writes {
        let encoded = codec::encode_key(state_key);
        match value {
            Some(value) => batch.put(Space::State, encoded, codec::encode_value(value)),
            None => batch.delete(Space::State, encoded),
        }
    }
    for (hash, node) in &commit.nodes {
        batch.put(Space::Trie, hash.to_vec(), node.to_vec());
    }
    (batch, ChainHead { header: block.header.clone(), hash: block.hash, totals })
}

/// What stays of a block for as long as the chain.
pub(super) fn put_header(batch: &mut Batch, block: &Block) {
    let key = height_key(block.header.number);
    batch.put(Space::Header, key, records::encode_header(&block.header, &block.signatures));
    batch.put(Space::BlockIndex, block.hash.to_vec(), key);
}

/// The rest of a block.
pub(super) fn put_body(batch: &mut Batch, block: &Block) {
    let number = block.header.number;
    let key = height_key(number);
    batch.put(Space::Body, key, records::pack(block.transactions.iter().map(records::encode_transaction)));
    batch.put(Space::Receipts, key, records::pack(block.receipts.iter().map(Receipt::encode_rlp)));
    batch.put(Space::Nonces, key, records::encode_nonces(&block.transactions));
    let mut index: Vec<(B256, u32)> = (0u32..).zip(&block.transactions).map(|(position, tx)| (tx.hash(), position)).collect();
    index.sort_unstable();
    for (hash, position) in index {
        batch.put(Space::TransactionIndex, hash.to_vec(), records::encode_location(number, position));
    }
}

fn count(commit: &Commit, totals: Totals) -> Totals {
    let block = &commit.block;
    if block.transactions.is_empty() {
        return totals;
    }
    let failed = block.receipts.iter().filter(|receipt| receipt.status != 0).count() as u64;
    Totals {
        transactions: totals.transactions + block.transactions.len() as u64,
        failed: totals.failed + failed,
        number: block.header.number,
    }
}
