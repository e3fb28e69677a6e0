//! How a group's database is laid out and tuned, and what all databases of a process share.
//!
//! Layout: one column family for each way of growing, as measured (`spec/crates.md` 6: block blobs, sorted index and sorted state with
//! 16 MB memtables cost a third of keys a transaction). Small memtables keep point reads fast; what is hot lives in the caches above.

use ::rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, DataBlockIndexType, Env, InfoLogger, LogLevel,
    Options, WriteBufferManager,
};
use millrace_core::{Space, StorageError};

/// Size at which a memtable is written out: beyond it, point reads of memtables become slower than those of files.
const MEMTABLE_BYTES: usize = 16 << 20;
/// Memtables of one family: one being filled, one being written out, one in reserve before commits must wait.
const MEMTABLES: i32 = 3;
/// Memory is taken in pieces of this size, so a group that hardly writes takes little of it.
const ARENA_BYTES: usize = 256 << 10;
/// Log to replay after a crash, at most: about a second.
const LOG_BYTES: u64 = 64 << 20;
/// Written pages are handed to the device in steps of this size rather than all at once.
const SYNC_STEP_BYTES: u64 = 1 << 20;
/// Values from this size on, which are bodies and receipts of blocks, lie in files of their own and are not copied by compactions.
const BLOB_BYTES: u64 = 4 << 10;
/// Trie nodes from this size on are kept apart from their keys: all but nearly empty ones.
const NODE_BYTES: u64 = 64;
/// Size of the files of such values.
const BLOB_FILE_BYTES: u64 = 256 << 20;
/// Bits of the bloom filter for each key: one in a hundred absent keys costs a read.
const BLOOM_BITS: f64 = 10.0;
/// Open files of one database; a few hundred databases then stay below common limits of a process.
const OPEN_FILES: i32 = 256;
/// The engine's own diary (file `LOG`): size and number of files.
const DIARY_BYTES: usize = 2 << 20;
const DIARY_FILES: usize = 4;

/// Shown by `stats`, of the whole database.
pub(super) const DATABASE_PROPERTIES: [&str; 6] = [
    "rocksdb.background-errors",
    "rocksdb.is-write-stopped",
    "rocksdb.actual-delayed-write-rate",
    "rocksdb.num-snapshots",
    "rocksdb.block-cache-usage",
    "rocksdb.block-cache-capacity",
];

/// Shown by `stats`, of each family.
pub(super) const FAMILY_PROPERTIES: [&str; 6] = [
    "rocksdb.estimate-num-keys",
    "rocksdb.live-sst-files-size",
    "rocksdb.live-blob-file-size",
    "rocksdb.cur-size-all-mem-tables",
    "rocksdb.num-files-at-level0",
    "rocksdb.estimate-pending-compaction-bytes",
];

/// A column family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    /// Few and mostly large values a block; keys start with the byte of their space.
    Blocks,
    /// Transaction hashes.
    Index,
    /// The state.
    State,
    /// Trie nodes, in files of their own: they are written once, their keys are scattered, and compactions would copy them again and
    /// again.
    Trie,
}

impl Family {
    pub(super) const ALL: [Family; 4] = [Family::Blocks, Family::Index, Family::State, Family::Trie];

    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Blocks => "blocks",
            Family::Index => "index",
            Family::State => "state",
            Family::Trie => "trie",
        }
    }

    pub(super) fn of(space: Space) -> Self {
        match space {
            Space::TransactionIndex => Family::Index,
            Space::State => Family::State,
            Space::Trie => Family::Trie,
            Space::Meta | Space::Header | Space::Body | Space::Receipts | Space::Nonces | Space::BlockIndex => Family::Blocks,
        }
    }

    /// The key as it is stored.
    pub(super) fn key(space: Space, key: &[u8]) -> Vec<u8> {
        let mut stored = Vec::with_capacity(key.len() + 1);
        Self::key_into(&mut stored, space, key);
        stored
    }

    /// As [`Self::key`], into a buffer that is used again.
    pub(super) fn key_into(stored: &mut Vec<u8>, space: Space, key: &[u8]) {
        stored.clear();
        if Self::of(space) == Family::Blocks {
            stored.push(space as u8);
        }
        stored.extend_from_slice(key);
    }

    /// The first stored key behind all that start with `prefix`; `None` when that is the end of the family.
    pub(super) fn end_of(space: Space, prefix: &[u8]) -> Option<Vec<u8>> {
        let mut end = Self::key(space, prefix);
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Some(end);
            }
        }
        None
    }
}

/// What a database does with a log that is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recovery {
    /// Refuses it, unless only its last write is cut short.
    Strict,
    /// Ends it before the first damaged write.
    DropDamagedTail,
}

/// What all databases of a process may use together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Cache of file blocks (bytes).
    pub cache_bytes: usize,
    /// Memtables (bytes); beyond it they are written out before they are full.
    pub write_buffer_bytes: usize,
    /// Threads that write out and compact; at least one of each kind is started.
    pub background_threads: usize,
}

impl Default for Budget {
    /// For a node of some groups on some cores: 256 MB of cache, 256 MB of memtables, 2 threads.
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, write_buffer_bytes: 256 << 20, background_threads: 2 }
    }
}

/// The cache, memtable budget and background threads that all databases of a process share. Cheap to clone.
#[derive(Clone)]
pub struct SharedResources {
    cache: Cache,
    write_buffers: WriteBufferManager,
    env: Env,
    background_threads: usize,
}

impl SharedResources {
    /// Takes the budget; memory is used as databases need it, threads are started with the first.
    pub fn new(budget: Budget) -> Result<Self, StorageError> {
        let mut env = Env::new().map_err(|error| StorageError::Engine(error.into_string()))?;
        let threads = i32::try_from(budget.background_threads.clamp(1, 64)).expect("at most 64");
        env.set_low_priority_background_threads(threads);
        env.set_high_priority_background_threads((threads / 2).max(1));
        Ok(Self {
            cache: Cache::new_lru_cache(budget.cache_bytes),
            write_buffers: WriteBufferManager::new_write_buffer_manager(budget.write_buffer_bytes, false),
            env,
            background_threads: budget.background_threads.clamp(1, 64),
        })
    }

    pub(super) fn writer_options(&self, recovery: Recovery) -> Options {
        let mut options = self.common_options(recovery);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(i32::try_from(self.background_threads + 1).expect("at most 65"));
        options.set_max_total_wal_size(LOG_BYTES);
        options.set_bytes_per_sync(SYNC_STEP_BYTES);
        options.set_max_open_files(OPEN_FILES);
        options.set_max_log_file_size(DIARY_BYTES);
        options.set_keep_log_file_num(DIARY_FILES);
        options
    }

    /// All files are opened at once and stay open, so that most of what another process removes can still be read. The diary belongs
    /// to the writer.
    pub(super) fn reader_options(&self, recovery: Recovery) -> Options {
        let mut options = self.common_options(recovery);
        options.set_max_open_files(-1);
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
        options
    }

    fn common_options(&self, recovery: Recovery) -> Options {
        let mut options = Options::default();
        options.set_env(&self.env);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_wal_recovery_mode(match recovery {
            Recovery::Strict => DBRecoveryMode::TolerateCorruptedTailRecords,
            Recovery::DropDamagedTail => DBRecoveryMode::PointInTime,
        });
        // Counted by us where they are of use; each would be a periodic task a group.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        // Readers need it as much as writers: opened without it, a database whose manifest tracks logs makes RocksDB's reader follow a null
        // pointer.
        options.set_track_and_verify_wals_in_manifest(true);
        options
    }

    pub(super) fn families(&self) -> Vec<ColumnFamilyDescriptor> {
        let descriptor = |family: Family| ColumnFamilyDescriptor::new(family.name(), self.family_options(family));
        Family::ALL.into_iter().map(descriptor).collect()
    }

    fn family_options(&self, family: Family) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_block_size(16 << 10);
        table.set_bloom_filter(BLOOM_BITS, false);
        table.set_optimize_filters_for_memory(true);
        // Inside the budget of the cache, or memory would grow with the database.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_max_write_buffer_number(MEMTABLES);
        options.set_arena_block_size(ARENA_BYTES);
        options.set_compression_type(DBCompressionType::Lz4);
        // Absent keys are asked for all the time: new slots, new transactions.
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_memtable_whole_key_filtering(true);
        if family == Family::Blocks {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_BYTES);
            options.set_blob_file_size(BLOB_FILE_BYTES);
            options.set_blob_compression_type(DBCompressionType::Lz4);
            options.set_enable_blob_gc(true);
        }
        if family == Family::Trie {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(NODE_BYTES);
            options.set_blob_file_size(BLOB_FILE_BYTES);
            // Hashes do not compress.
            options.set_compression_type(DBCompressionType::None);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_prefix_is_the_next_key_of_its_length_or_shorter() {
        assert_eq!(Family::end_of(Space::State, b"ab"), Some(b"ac".to_vec()));
        assert_eq!(Family::end_of(Space::State, b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(Family::end_of(Space::State, b"\xff"), None);
        assert_eq!(Family::end_of(Space::State, b""), None);
        assert_eq!(Family::end_of(Space::Body, b""), Some(b"c".to_vec()));
        assert_eq!(Family::end_of(Space::Body, b"\xff"), Some(b"c".to_vec()));
    }
}
