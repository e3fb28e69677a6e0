//! One group's chain: writes each block as one batch and answers questions about committed blocks.
//!
//! Invariants: what a batch contains is decided here alone, so block, indices, nonces, counters, state and its commitment are always of
//! the same height; the head moves only after storage has said that the batch is durable, and with it, at once, the cache of recent
//! blocks. One thread commits; everybody reads.

mod batch;
pub mod facts;
mod recent;
pub mod restore;
mod retention;

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use millrace_base::limits::BLOCK_LIMIT_WINDOW;
use millrace_base::{B256, Block, BlockHeader, BlockSignature, Receipt, VerifiedTx, wire};
use millrace_core::cache::StateCache;
use millrace_core::overlay::Writes;
pub use millrace_core::records;
use millrace_core::storage::height_key;
use millrace_core::trie::TrieNodes;
use millrace_core::{Durability, Space, StateCommitment, Storage, StorageError};
use millrace_vm::BlockHashes;
use parking_lot::{Mutex, RwLock};

use batch::{encode, meta};
use facts::Get;
use recent::{Recent, weight};
use records::{Packed, at_height, corrupt};
use retention::Retention;

/// Blocks read from storage that are kept decoded, for clients that walk through old blocks item by item.
const OLDER_BLOCKS: usize = 8;

/// Larger blocks than this are not kept when they are read from storage: with [`OLDER_BLOCKS`] it bounds their memory.
const OLDER_BLOCK_BYTES: usize = 4 << 20;

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

/// A final block with what it changes.
pub struct Commit {
    /// The block, signatures included.
    pub block: Arc<Block>,
    /// State writes.
    pub writes: Writes,
    /// Trie nodes it adds, sorted by hash; none with storage state.
    pub nodes: TrieNodes,
    /// The commitment to the state after it.
    pub commitment: StateCommitment,
    /// Height from which other members or settings govern, when the block changed them.
    pub epoch_start: Option<u64>,
}

/// Head and recent blocks: they change together, so who sees a head finds its block in memory.
struct Tip {
    head: Arc<ChainHead>,
    recent: Recent,
}

/// See the module.
pub struct BlockChain {
    storage: Arc<dyn Storage>,
    durability: Durability,
    genesis: B256,
    state: Arc<StateCache>,
    tip: RwLock<Tip>,
    older: Mutex<LruCache<u64, Arc<Block>>>,
    retention: Retention,
    /// Height up to which `state` knows the writes; ahead of the head only after a commit of several blocks has failed half way.
    applied: Mutex<u64>,
}

impl BlockChain {
    /// Opens the chain in a database; `None` when there is no genesis block yet. Checks that height marker, header, indices and counters
    /// agree about the last block, and that no restore was cut short. `cache_bytes` bounds the decoded state in memory.
    pub fn open(storage: Arc<dyn Storage>, durability: Durability, cache_bytes: usize) -> Result<Option<Self>, StorageError> {
        let Some(height) = storage.height()? else { return Ok(None) };
        let get: Get<'_> = &|space, key| storage.get(space, key);
        if restore::unfinished(get)?.is_some() {
            return Err(StorageError::Unfinished);
        }
        let (header, _) = read_header(get, height)?.ok_or_else(|| at_height(height)(corrupt("block header", "missing")))?;
        let kept_from = facts::kept_from(get)?;
        let hash = header.hash();
        let indexed = storage.get(Space::BlockIndex, hash.as_slice())?.map(|bytes| records::decode_height(&bytes)).transpose()?;
        if indexed != Some(height) {
            let detail = format!("the header has hash {hash}, which the index of hashes gives height {indexed:?}");
            return Err(at_height(height)(corrupt("block header", detail)));
        }
        let totals = storage.get(Space::Meta, meta::TOTALS)?.ok_or_else(|| corrupt("counters", "missing"))?;
        let totals = wire::decode(&totals).map_err(|error| corrupt("counters", error))?;
        let genesis = storage.get(Space::Meta, meta::GENESIS)?.ok_or_else(|| corrupt("genesis hash", "missing"))?;
        let genesis = B256::try_from(&genesis[..]).map_err(|error| corrupt("genesis hash", error))?;
        let state = Arc::new(StateCache::new(Arc::clone(&storage), cache_bytes));
        let chain = Self::assemble(storage, durability, state, ChainHead { header, hash, totals }, genesis);
        chain.retention.set_first(kept_from);
        Ok(Some(chain))
    }

    /// Writes block 0 and opens the chain.
    pub fn create(storage: Arc<dyn Storage>, durability: Durability, cache_bytes: usize, genesis: Commit) -> Result<Self, StorageError> {
        assert_eq!(genesis.block.header.number, 0, "a chain starts with block 0");
        let (batch, head) = encode(&genesis, Totals::default());
        storage.commit(0, &batch, durability)?;
        let state = Arc::new(StateCache::new(Arc::clone(&storage), cache_bytes));
        Ok(Self::assemble(storage, durability, state, head, genesis.block.hash))
    }

    fn assemble(storage: Arc<dyn Storage>, durability: Durability, state: Arc<StateCache>, head: ChainHead, genesis: B256) -> Self {
        let applied = Mutex::new(head.header.number);
        let tip = RwLock::new(Tip { head: Arc::new(head), recent: Recent::default() });
        let older = Mutex::new(LruCache::new(NonZeroUsize::new(OLDER_BLOCKS).expect("not zero")));
        Self { storage, durability, genesis, state, tip, older, retention: Retention::default(), applied }
    }

    /// From now on keeps bodies and receipts of the last `blocks` blocks, at least those whose nonces count; `None` keeps all that are
    /// here. What is older goes with the blocks that are committed, a few with each.
    pub fn keep(&self, blocks: Option<u64>) {
        self.retention.keep(blocks);
    }

    /// The lowest height above 0 whose body and receipts are here; block 0 always is.
    pub fn kept_from(&self) -> u64 {
        self.retention.first()
    }

    /// Commits blocks that follow the head, in order, and moves the head. With several blocks one sync serves all of them.
    ///
    /// Blocks at or below the head are passed over, and after an error the same blocks may be committed again, whichever of them storage
    /// has taken: a caller that does not know how far it got repeats itself.
    pub fn commit(&self, commits: &[Commit]) -> Result<(), StorageError> {
        let mut applied = self.applied.lock();
        let mut head = self.head();
        let commits = self.behind_head(commits, &head)?;
        let mut kept_from = if self.retention.is_bounded() { facts::kept_from(&|space, key| self.storage.get(space, key))? } else { 0 };
        let stored = self.storage.height()?;
        for (index, commit) in commits.iter().enumerate() {
            let number = commit.block.header.number;
            assert_eq!(number, head.header.number + 1, "blocks are committed in height order");
            assert_eq!(commit.block.header.parent_hash, head.hash, "a block builds on the one before");
            let (mut batch, next) = encode(commit, head.totals);
            // What storage took before a failure is below its marker; the marker's own block is committed again for its durability.
            if stored.is_none_or(|stored| number >= stored) {
                let last = index + 1 == commits.len();
                if stored.is_none_or(|stored| number > stored) {
                    kept_from = self.retention.prune(&mut batch, kept_from, number);
                }
                self.storage.commit(number, &batch, if last { self.durability } else { Durability::Process })?;
            }
            if number > *applied {
                self.state.apply(&commit.writes);
                self.state.apply_nodes(&commit.nodes);
                *applied = number;
            }
            head = Arc::new(next);
        }
        let retired = {
            let mut tip = self.tip.write();
            tip.head = head;
            tip.recent.push(commits.iter().map(|commit| Arc::clone(&commit.block)))
        };
        drop(retired); // Freeing a block's transactions takes longer than readers should wait.
        Ok(())
    }

    /// The blocks that are not committed yet.
    fn behind_head<'a>(&self, commits: &'a [Commit], head: &ChainHead) -> Result<&'a [Commit], StorageError> {
        let known = commits.iter().take_while(|commit| commit.block.header.number <= head.header.number).count();
        for commit in &commits[..known] {
            let number = commit.block.header.number;
            let stored = self.hash_of(number)?;
            assert_eq!(stored, Some(commit.block.hash), "another block was committed at height {number}");
        }
        Ok(&commits[known..])
    }

    /// The last committed block.
    pub fn head(&self) -> Arc<ChainHead> {
        Arc::clone(&self.tip.read().head)
    }

    /// Hash of block 0.
    pub fn genesis(&self) -> B256 {
        self.genesis
    }

    /// The database.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Committed state, through the cache.
    pub fn state(&self) -> Arc<StateCache> {
        Arc::clone(&self.state)
    }

    /// The height from which the present members and settings govern; 1 when block 0 set them. Of the last batch in storage.
    pub fn epoch_start(&self) -> Result<u64, StorageError> {
        let Some(bytes) = self.storage.get(Space::Meta, meta::EPOCH)? else { return Ok(1) };
        wire::decode(&bytes).map_err(|error| corrupt("start of the epoch", error))
    }

    /// The commitment to the state as of the last batch in storage: of the head, unless a commit is under way.
    pub fn commitment(&self) -> Result<StateCommitment, StorageError> {
        read_commitment(&|space, key| self.storage.get(space, key))
    }

    /// A block from memory, and whether there can be one.
    fn recent(&self, number: u64) -> Found {
        let tip = self.tip.read();
        match tip.recent.get(number) {
            Some(block) => Found::Block(Arc::clone(block)),
            None if number > tip.head.header.number => Found::Nothing,
            None => Found::Stored,
        }
    }

    /// As [`Self::recent`], with the blocks that were read from storage before.
    fn cached(&self, number: u64) -> Found {
        match self.recent(number) {
            Found::Stored => self.older.lock().get(&number).map_or(Found::Stored, |block| Found::Block(Arc::clone(block))),
            found => found,
        }
    }

    /// A block up to the head.
    pub fn block(&self, number: u64) -> Result<Option<Arc<Block>>, StorageError> {
        match self.cached(number) {
            Found::Block(block) => return Ok(Some(block)),
            Found::Nothing => return Ok(None),
            Found::Stored => {}
        }
        let found = read_block(&|space, key| self.storage.get(space, key), number).map_err(|error| self.unless_pruned(number, error))?;
        let block = Arc::new(found.ok_or_else(|| at_height(number)(corrupt("block header", "missing")))?);
        if weight(&block) <= OLDER_BLOCK_BYTES {
            self.older.lock().put(number, Arc::clone(&block));
        }
        Ok(Some(block))
    }

    /// A header with hash and signatures.
    pub fn header(&self, number: u64) -> Result<Option<(BlockHeader, B256, Vec<BlockSignature>)>, StorageError> {
        match self.cached(number) {
            Found::Block(block) => return Ok(Some((block.header.clone(), block.hash, block.signatures.clone()))),
            Found::Nothing => return Ok(None),
            Found::Stored => {}
        }
        let found = read_header(&|space, key| self.storage.get(space, key), number)?;
        let (header, signatures) = found.ok_or_else(|| at_height(number)(corrupt("block header", "missing")))?;
        let hash = header.hash();
        Ok(Some((header, hash, signatures)))
    }

    /// Hash of a committed height; what the BLOCKHASH opcode reads.
    pub fn hash_of(&self, number: u64) -> Result<Option<B256>, StorageError> {
        match self.recent(number) {
            Found::Block(block) => Ok(Some(block.hash)),
            Found::Nothing => Ok(None),
            Found::Stored => Ok(self.header(number)?.map(|(_, hash, _)| hash)),
        }
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

    /// The transaction at a position, without decoding the rest of its block; `None` when there is no such block or position.
    pub fn transaction_at(&self, number: u64, index: u32) -> Result<Option<VerifiedTx>, StorageError> {
        match self.cached(number) {
            Found::Block(block) => Ok(block.transactions.get(index as usize).cloned()),
            Found::Nothing => Ok(None),
            Found::Stored => self.stored_item(Space::Body, number, index, records::decode_transaction),
        }
    }

    /// The receipt at a position, without decoding the rest of its block; `None` when there is no such block or position.
    pub fn receipt_at(&self, number: u64, index: u32) -> Result<Option<Receipt>, StorageError> {
        match self.cached(number) {
            Found::Block(block) => Ok(block.receipts.get(index as usize).cloned()),
            Found::Nothing => Ok(None),
            Found::Stored => self.stored_item(Space::Receipts, number, index, records::decode_receipt),
        }
    }

    fn stored_item<T>(
        &self,
        space: Space,
        number: u64,
        index: u32,
        decode: impl Fn(&[u8]) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let get: Get<'_> = &|space, key| self.storage.get(space, key);
        let blob = read_blob(get, space, number).map_err(|error| self.unless_pruned(number, error))?;
        let item = || {
            let packed = Packed::open(&blob, place(space))?;
            if index as usize >= packed.len() {
                return Ok(None);
            }
            packed.item(index as usize).and_then(&decode).map(Some)
        };
        item().map_err(at_height(number))
    }

    /// Why a block could not be read: it may have been pruned meanwhile, which is no damage.
    fn unless_pruned(&self, number: u64, error: StorageError) -> StorageError {
        let first = self.kept_from();
        if number > 0 && number < first { StorageError::Pruned { number, first } } else { error }
    }

    /// The nonces of the blocks within the block-limit window, ascending by height.
    pub fn recent_nonces(&self) -> Result<Vec<(u64, Vec<B256>)>, StorageError> {
        let head = self.head().header.number;
        let first = head.saturating_sub(BLOCK_LIMIT_WINDOW - 1);
        let read = |number: u64| {
            let blob = read_blob(&|space, key| self.storage.get(space, key), Space::Nonces, number)?;
            Ok((number, records::decode_nonces(&blob).map_err(at_height(number))?))
        };
        (first..=head).map(read).collect()
    }
}

impl BlockHashes for BlockChain {
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        self.hash_of(number)
    }
}

/// Where a block is.
enum Found {
    Block(Arc<Block>),
    /// It is committed and must be read.
    Stored,
    /// It is above the head.
    Nothing,
}

fn place(space: Space) -> &'static str {
    match space {
        Space::Body => "block body",
        Space::Receipts => "receipts",
        Space::Nonces => "nonces",
        _ => "block header",
    }
}

fn read_blob(get: Get<'_>, space: Space, number: u64) -> Result<Vec<u8>, StorageError> {
    get(space, &height_key(number))?.ok_or_else(|| at_height(number)(corrupt(place(space), "missing")))
}

/// Reads a header with its signatures; `None` when there is none at that height.
pub fn read_header(get: Get<'_>, number: u64) -> Result<Option<(BlockHeader, Vec<BlockSignature>)>, StorageError> {
    let Some(bytes) = get(Space::Header, &height_key(number))? else { return Ok(None) };
    let (header, signatures) = records::decode_header(&bytes).map_err(at_height(number))?;
    if header.number != number {
        return Err(at_height(number)(corrupt("block header", format!("it says height {}", header.number))));
    }
    Ok(Some((header, signatures)))
}

/// The commitment to the state of the last batch in a database.
pub fn read_commitment(get: Get<'_>) -> Result<StateCommitment, StorageError> {
    let bytes = get(Space::Meta, meta::COMMITMENT)?.ok_or_else(|| corrupt("state commitment", "missing"))?;
    StateCommitment::from_bytes(&bytes).ok_or_else(|| corrupt("state commitment", "wrong size"))
}

/// Reads a whole block; `None` when it has no header there.
pub fn read_block(get: Get<'_>, number: u64) -> Result<Option<Block>, StorageError> {
    let Some((header, signatures)) = read_header(get, number)? else { return Ok(None) };
    let body = read_blob(get, Space::Body, number)?;
    let transactions = records::unpack(&body, place(Space::Body), records::decode_transaction).map_err(at_height(number))?;
    let blob = read_blob(get, Space::Receipts, number)?;
    let receipts = records::unpack(&blob, place(Space::Receipts), records::decode_receipt).map_err(at_height(number))?;
    if receipts.len() != transactions.len() {
        let detail = format!("{} of them for {} transactions", receipts.len(), transactions.len());
        return Err(at_height(number)(corrupt(place(Space::Receipts), detail)));
    }
    let hash = header.hash();
    Ok(Some(Block { header, hash, signatures, transactions, receipts }))
}

#[cfg(test)]
#[path = "blockchain/tests.rs"]
mod tests;
