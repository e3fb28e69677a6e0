//! One group's chain: writes each block as one batch and answers questions about committed blocks.
//!
//! Invariants: what a batch contains is decided here alone, so block, indices, nonces, counters, state and root accumulator are always of
//! the same height; the head moves only after storage has said that the batch is durable.

pub mod records;

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use millrace_base::limits::BLOCK_LIMIT_WINDOW;
use millrace_base::{B256, Block, BlockHeader, BlockSignature, wire};
use millrace_core::overlay::Writes;
use millrace_core::root::StateAccumulator;
use millrace_core::state::codec;
use millrace_core::storage::height_key;
use millrace_core::{Batch, Durability, Space, Storage, StorageError};
use parking_lot::{Mutex, RwLock};

use records::{Packed, corrupt};

/// Blocks kept decoded: clients mostly ask about the last ones. At 1,000 small transactions a block this is about 60 MB.
const RECENT_BLOCKS: usize = 64;

/// Counters over the whole chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bincode::Encode, bincode::Decode)]
pub struct Totals {
    /// Committed transactions.
    pub transactions: u64,
    /// Those with a non-zero status.
    pub failed: u64,
    /// Height at which they last changed.
    pub number: u64,
}

/// The last committed block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainHead {
    /// Its header.
    pub header: BlockHeader,
    /// Its hash.
    pub hash: B256,
    /// Counters including it.
    pub totals: Totals,
}

/// Keys in [`Space::Meta`].
mod meta {
    pub const TOTALS: &[u8] = b"totals";
    pub const ACCUMULATOR: &[u8] = b"root-accumulator";
    pub const GENESIS: &[u8] = b"genesis-hash";
}

/// See the module.
pub struct BlockChain {
    storage: Arc<dyn Storage>,
    durability: Durability,
    head: RwLock<Arc<ChainHead>>,
    genesis: B256,
    recent: Mutex<LruCache<u64, Arc<Block>>>,
}

impl BlockChain {
    /// Opens the chain in a database; `None` when there is no genesis block yet. Checks the marker against the stored head.
    pub fn open(storage: Arc<dyn Storage>, durability: Durability) -> Result<Option<Self>, StorageError> {
        let Some(height) = storage.height()? else { return Ok(None) };
        let bytes = storage.get(Space::Header, &height_key(height))?;
        let (header, _) = records::decode_header(&bytes.ok_or_else(|| corrupt("block header", format!("height {height} is missing")))?)?;
        if header.number != height {
            return Err(corrupt("height marker", format!("marker says {height}, the header {}", header.number)));
        }
        let totals = storage.get(Space::Meta, meta::TOTALS)?.ok_or_else(|| corrupt("counters", "missing"))?;
        let totals = wire::decode(&totals).map_err(|error| corrupt("counters", error))?;
        let genesis = storage.get(Space::Meta, meta::GENESIS)?.ok_or_else(|| corrupt("genesis hash", "missing"))?;
        let genesis = B256::try_from(&genesis[..]).map_err(|error| corrupt("genesis hash", error))?;
        let hash = header.hash();
        Ok(Some(Self::assemble(storage, durability, ChainHead { header, hash, totals }, genesis)))
    }

    /// Writes block 0 and opens the chain.
    pub fn create(storage: Arc<dyn Storage>, durability: Durability, genesis: Commit) -> Result<Self, StorageError> {
        let (batch, head) = encode_commit(&genesis, Totals::default(), |batch| {
            batch.put(Space::Meta, meta::GENESIS, genesis.block.hash.to_vec());
        });
        storage.commit(0, &batch, durability)?;
        let hash = genesis.block.hash;
        Ok(Self::assemble(storage, durability, head, hash))
    }

    fn assemble(storage: Arc<dyn Storage>, durability: Durability, head: ChainHead, genesis: B256) -> Self {
        let capacity = NonZeroUsize::new(RECENT_BLOCKS).expect("not zero");
        Self { storage, durability, head: RwLock::new(Arc::new(head)), genesis, recent: Mutex::new(LruCache::new(capacity)) }
    }

    /// Commits blocks that follow the head, in order, and moves the head. With several blocks one sync serves all of them.
    pub fn commit(&self, commits: &[Commit]) -> Result<(), StorageError> {
        let mut head = self.head();
        for (index, commit) in commits.iter().enumerate() {
            assert_eq!(commit.block.header.number, head.header.number + 1, "blocks are committed in height order");
            assert_eq!(commit.block.header.parent_hash, head.hash, "a block builds on the one before");
            let (batch, next) = encode_commit(commit, head.totals, |batch| {
                if let Some(expired) = commit.block.header.number.checked_sub(BLOCK_LIMIT_WINDOW + 1) {
                    batch.delete(Space::Nonces, height_key(expired));
                }
            });
            let last = index + 1 == commits.len();
            let durability = if last { self.durability } else { Durability::Process };
            self.storage.commit(commit.block.header.number, &batch, durability)?;
            head = Arc::new(next);
        }
        let mut recent = self.recent.lock();
        for commit in commits {
            recent.put(commit.block.header.number, Arc::clone(&commit.block));
        }
        drop(recent);
        *self.head.write() = head;
        Ok(())
    }

    /// The last committed block.
    pub fn head(&self) -> Arc<ChainHead> {
        Arc::clone(&self.head.read())
    }

    /// Hash of block 0.
    pub fn genesis(&self) -> B256 {
        self.genesis
    }

    /// The database.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The state accumulator as of the head.
    pub fn accumulator(&self) -> Result<StateAccumulator, StorageError> {
        let bytes = self.storage.get(Space::Meta, meta::ACCUMULATOR)?.ok_or_else(|| corrupt("root accumulator", "missing"))?;
        StateAccumulator::from_bytes(&bytes).ok_or_else(|| corrupt("root accumulator", "wrong size"))
    }

    /// A block up to the head.
    pub fn block(&self, number: u64) -> Result<Option<Arc<Block>>, StorageError> {
        if number > self.head().header.number {
            return Ok(None);
        }
        if let Some(block) = self.recent.lock().get(&number) {
            return Ok(Some(Arc::clone(block)));
        }
        let block = read_block(&*self.storage, number)?.map(Arc::new);
        if let Some(block) = &block {
            self.recent.lock().put(number, Arc::clone(block));
        }
        Ok(block)
    }

    /// A header with hash and signatures.
    pub fn header(&self, number: u64) -> Result<Option<(BlockHeader, B256, Vec<BlockSignature>)>, StorageError> {
        if number > self.head().header.number {
            return Ok(None);
        }
        if let Some(block) = self.recent.lock().get(&number) {
            return Ok(Some((block.header.clone(), block.hash, block.signatures.clone())));
        }
        let Some(bytes) = self.storage.get(Space::Header, &height_key(number))? else { return Ok(None) };
        let (header, signatures) = records::decode_header(&bytes)?;
        let hash = header.hash();
        Ok(Some((header, hash, signatures)))
    }

    /// Hash of a committed height; what the BLOCKHASH opcode reads.
    pub fn hash_of(&self, number: u64) -> Result<Option<B256>, StorageError> {
        Ok(self.header(number)?.map(|(_, hash, _)| hash))
    }

    /// Height of a block hash.
    pub fn number_of(&self, hash: B256) -> Result<Option<u64>, StorageError> {
        let number = self.storage.get(Space::BlockIndex, hash.as_slice())?.map(|bytes| records::decode_height(&bytes)).transpose()?;
        Ok(number.filter(|number| *number <= self.head().header.number))
    }

    /// Height and position of a committed transaction.
    pub fn locate(&self, transaction: B256) -> Result<Option<(u64, u32)>, StorageError> {
        let bytes = self.storage.get(Space::TransactionIndex, transaction.as_slice())?;
        let location = bytes.map(|bytes| records::decode_location(&bytes)).transpose()?;
        Ok(location.filter(|(number, _)| *number <= self.head().header.number))
    }

    /// The nonces of the blocks within the block-limit window, ascending by height.
    pub fn recent_nonces(&self) -> Result<Vec<(u64, Vec<B256>)>, StorageError> {
        let head = self.head().header.number;
        let first = head.saturating_sub(BLOCK_LIMIT_WINDOW - 1);
        let mut nonces = Vec::new();
        for number in first..=head {
            if let Some(bytes) = self.storage.get(Space::Nonces, &height_key(number))? {
                nonces.push((number, records::decode_nonces(&bytes)?));
            }
        }
        Ok(nonces)
    }
}

/// A final block with what it changes.
pub struct Commit {
    /// The block, signatures included.
    pub block: Arc<Block>,
    /// State writes.
    pub writes: Writes,
    /// The accumulator after them.
    pub accumulator: StateAccumulator,
}

/// Reads a whole block from a database.
pub fn read_block(storage: &dyn Storage, number: u64) -> Result<Option<Block>, StorageError> {
    let key = height_key(number);
    let Some(bytes) = storage.get(Space::Header, &key)? else { return Ok(None) };
    let (header, signatures) = records::decode_header(&bytes)?;
    let body = storage.get(Space::Body, &key)?.ok_or_else(|| corrupt("block body", format!("height {number} is missing")))?;
    let packed = Packed::open(&body, "block body")?;
    let transactions = (0..packed.len()).map(|index| records::decode_transaction(packed.item(index)?)).collect::<Result<_, _>>()?;
    let blob = storage.get(Space::Receipts, &key)?.ok_or_else(|| corrupt("receipts", format!("height {number} is missing")))?;
    let packed = Packed::open(&blob, "receipts")?;
    let receipts = (0..packed.len()).map(|index| records::decode_receipt(packed.item(index)?)).collect::<Result<_, _>>()?;
    let hash = header.hash();
    Ok(Some(Block { header, hash, signatures, transactions, receipts }))
}

/// Everything a block writes, in one batch, keys ascending within each space.
fn encode_commit(commit: &Commit, totals: Totals, more: impl FnOnce(&mut Batch)) -> (Batch, ChainHead) {
    let block = &commit.block;
    let number = block.header.number;
    let key = height_key(number);
    let mut batch = Batch::default();
    batch.put(Space::Header, key, records::encode_header(&block.header, &block.signatures));
    batch.put(Space::Body, key, records::pack(block.transactions.iter().map(records::encode_transaction)));
    batch.put(Space::Receipts, key, records::pack(block.receipts.iter().map(millrace_base::Receipt::encode_rlp)));
    batch.put(Space::Nonces, key, records::encode_nonces(&block.transactions));
    batch.put(Space::BlockIndex, block.hash.to_vec(), key);
    let mut index: Vec<(B256, u32)> = (0u32..).zip(&block.transactions).map(|(position, tx)| (tx.hash(), position)).collect();
    index.sort_unstable();
    for (hash, position) in index {
        batch.put(Space::TransactionIndex, hash.to_vec(), records::encode_location(number, position));
    }
    for (state_key, value) in &commit.writes {
        let encoded = codec::encode_key(state_key);
        match value {
            Some(value) => batch.put(Space::State, encoded, codec::encode_value(value)),
            None => batch.delete(Space::State, encoded),
        }
    }
    let failed = block.receipts.iter().filter(|receipt| receipt.status != 0).count() as u64;
    let mut totals = totals;
    if !block.transactions.is_empty() {
        totals.transactions += block.transactions.len() as u64;
        totals.failed += failed;
        totals.number = number;
    }
    batch.put(Space::Meta, meta::TOTALS, wire::encode(&totals));
    batch.put(Space::Meta, meta::ACCUMULATOR, commit.accumulator.to_bytes());
    more(&mut batch);
    (batch, ChainHead { header: block.header.clone(), hash: block.hash, totals })
}
