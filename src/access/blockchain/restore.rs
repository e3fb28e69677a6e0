//! What a restore from a snapshot writes.
//!
//! A restore commits one batch a height, as the chain did, because that is what engines take: headers at their heights, the state in
//! pieces along the way, bodies of the last blocks, and with the last height what makes the database usable. Until then it names the
//! snapshot it comes from, and nobody opens it. Called by the ledger's snapshots alone.

use millrace_base::{B256, Block, wire};
use millrace_core::{Batch, Space, StateCommitment, StorageError};

use super::Totals;
use super::batch::{meta, put_body, put_header};
use super::facts::Get;
use super::records::corrupt;

/// What stands in no block but is of the chain's last height.
pub struct Tail {
    /// Hash of block 0.
    pub genesis: B256,
    /// To the whole state.
    pub commitment: StateCommitment,
    /// Counters.
    pub totals: Totals,
    /// Height from which the present members and settings govern.
    pub epoch_start: u64,
    /// The lowest height above 0 whose body and receipts were restored.
    pub kept_from: u64,
}

/// Begins a restore from the snapshot of this name; in the first batch.
pub fn begin(batch: &mut Batch, snapshot: B256) {
    batch.put(Space::Meta, meta::RESTORING, snapshot.to_vec());
}

/// The header of a block, its signatures and its place in the index; of each height.
pub fn header(batch: &mut Batch, block: &Block) {
    put_header(batch, block);
}

/// The rest of a block: its transactions, receipts and nonces, and the places of its transactions in the index.
pub fn body(batch: &mut Batch, block: &Block) {
    put_body(batch, block);
}

/// An encoded pair of the state.
pub fn state(batch: &mut Batch, key: &[u8], value: &[u8]) {
    batch.put(Space::State, key, value);
}

/// Ends the restore; in the last batch.
pub fn finish(batch: &mut Batch, tail: &Tail) {
    batch.put(Space::Meta, meta::EPOCH, wire::encode(&tail.epoch_start));
    batch.put(Space::Meta, meta::GENESIS, tail.genesis.to_vec());
    batch.put(Space::Meta, meta::KEPT_FROM, wire::encode(&tail.kept_from));
    batch.delete(Space::Meta, meta::RESTORING);
    batch.put(Space::Meta, meta::COMMITMENT, tail.commitment.to_bytes());
    batch.put(Space::Meta, meta::TOTALS, wire::encode(&tail.totals));
}

/// The snapshot of the restore that was cut short in this database.
pub fn unfinished(get: Get<'_>) -> Result<Option<B256>, StorageError> {
    let Some(bytes) = get(Space::Meta, meta::RESTORING)? else { return Ok(None) };
    B256::try_from(&bytes[..]).map(Some).map_err(|error| corrupt("name of a snapshot", error))
}
