//! What a database says of its chain as a whole, for whoever reads it without running it: check, export, snapshot, figures.

use millrace_base::{B256, wire};
use millrace_core::{Space, StorageError};

use super::Totals;
use super::batch::meta;
use super::records::corrupt;

/// Reads single values: of a database as it is now, or as of one moment.
pub type Get<'a> = &'a dyn Fn(Space, &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

/// See the module. All of the same height.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainFacts {
    /// Hash of block 0.
    pub genesis: B256,
    /// Counters. No header covers them: they are this node's own.
    pub totals: Totals,
    /// Height from which the present members and settings govern.
    pub epoch_start: u64,
    /// The lowest height above 0 whose body and receipts are kept.
    pub kept_from: u64,
}

impl ChainFacts {
    /// Reads them.
    ///
    /// # Errors
    /// [`StorageError::Unfinished`] where a restore was cut short; [`StorageError::Corrupt`] where something is missing.
    pub fn read(get: Get<'_>) -> Result<Self, StorageError> {
        if super::restore::unfinished(get)?.is_some() {
            return Err(StorageError::Unfinished);
        }
        let genesis = get(Space::Meta, meta::GENESIS)?.ok_or_else(|| corrupt("genesis hash", "missing"))?;
        let totals = get(Space::Meta, meta::TOTALS)?.ok_or_else(|| corrupt("counters", "missing"))?;
        let epoch_start = get(Space::Meta, meta::EPOCH)?;
        Ok(Self {
            genesis: B256::try_from(&genesis[..]).map_err(|error| corrupt("genesis hash", error))?,
            totals: wire::decode(&totals).map_err(|error| corrupt("counters", error))?,
            epoch_start: epoch_start.map_or(Ok(1), |bytes| wire::decode(&bytes)).map_err(|error| corrupt("start of the epoch", error))?,
            kept_from: kept_from(get)?,
        })
    }
}

/// The lowest height above 0 whose body and receipts are kept.
pub(super) fn kept_from(get: Get<'_>) -> Result<u64, StorageError> {
    let Some(bytes) = get(Space::Meta, meta::KEPT_FROM)? else { return Ok(1) };
    wire::decode(&bytes).map_err(|error| corrupt("first block that is kept", error))
}
