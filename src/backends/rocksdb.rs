//! The embedded engine: RocksDB, one directory a group.
//!
//! Invariants: a block is one write batch with the height marker inside, so after any crash it is there whole or not at all; a commit with
//! [`Durability::Power`] has synced the log before it returns, and a database that lost such a block is refused when it is opened
//! ([`synced`]), never served as if nothing had happened. The ledger opens one [`RocksStorage`] a group; all share one
//! [`SharedResources`], so memory and background threads do not grow with groups.
//!
//! Layout: [`options`]. Errors: [`fault`].

mod fault;
mod options;
mod synced;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::rocksdb::checkpoint::Checkpoint;
use ::rocksdb::{ColumnFamily, DB, DBPinnableSlice, DBRawIterator, ReadOptions, Snapshot, WriteBatch, WriteOptions};
use millrace_core::storage::{HEIGHT_KEY, StorageView, Visit, decode_height, height_key, next_height};
use millrace_core::{Batch, Durability, Space, Storage, StorageError};
use self_cell::self_cell;

use fault::Faults;
pub use options::{Budget, SharedResources};
use options::{Family, Recovery};

/// The key in the default column family, which nothing else is stored in, that says how the database is laid out.
const FORMAT_KEY: &[u8] = b"format";

/// The layout this version reads and writes. A change of families, keys or encodings of an engine's own is a new number.
const FORMAT: u32 = 2;

/// Read ahead while a whole database is read.
const VERIFY_READAHEAD_BYTES: usize = 2 << 20;

/// A group's database.
///
/// Snapshots keep the database open: it can be opened again, in this process or another, when the engine and all of its snapshots are gone.
pub struct RocksStorage {
    database: Arc<DB>,
    faults: Faults,
    writer: Option<Writer>,
}

/// What only commits touch; the lock makes commits one at a time, as the trait asks of callers anyway.
struct Writer {
    /// Where synced heights are noted.
    synced: Mutex<File>,
}

impl RocksStorage {
    /// Opens the database in `directory` for reading and writing, and makes it (and the directories above it) where there is none.
    ///
    /// Errors: [`StorageError::Locked`] while another process or engine has it open; [`StorageError::Corrupt`] naming the file, when
    /// files are missing or damaged or blocks that were synced are gone; [`StorageError::Full`]; [`StorageError::Engine`] for everything
    /// else, such as a database of another program or version, or missing permissions.
    pub fn open(directory: &Path, shared: &SharedResources) -> Result<Self, StorageError> {
        let faults = Faults::new(directory);
        std::fs::create_dir_all(directory).map_err(|error| faults.io(&error, directory))?;
        refuse_foreign(directory, shared, &faults)?;
        let database = match open_for_writing(directory, shared, Recovery::Strict) {
            Ok(database) => database,
            Err(error) if fault::is_damaged_log(&error) => {
                // A crash can leave the last, unfinished write of the log in pieces. That, and nothing more, may be dropped.
                let seen = Self::open_as_reader(directory, shared, Recovery::DropDamagedTail)?;
                synced::check(directory, seen.height()?)?;
                drop(seen);
                open_for_writing(directory, shared, Recovery::DropDamagedTail).map_err(|error| faults.engine(&error))?
            }
            Err(error) => return Err(faults.engine(&error)),
        };
        check_format(&database, &faults, FormatAbsent::Write)?;
        let file = synced::open(directory).map_err(|error| faults.io(&error, directory))?;
        let writer = Some(Writer { synced: Mutex::new(file) });
        let storage = Self { database: Arc::new(database), faults, writer };
        synced::check(directory, storage.height()?)?;
        Ok(storage)
    }

    /// Opens the database in `directory` for reading, also beside the process that has it open: it shows the state of this moment and
    /// nothing committed later. Should the other process remove a file meanwhile, a read fails with [`StorageError::Corrupt`] naming it;
    /// opening again then shows whether it was that.
    ///
    /// Commits and checkpoints are refused with [`StorageError::Engine`].
    pub fn open_read_only(directory: &Path, shared: &SharedResources) -> Result<Self, StorageError> {
        Self::open_as_reader(directory, shared, Recovery::Strict)
    }

    fn open_as_reader(directory: &Path, shared: &SharedResources, recovery: Recovery) -> Result<Self, StorageError> {
        let faults = Faults::new(directory);
        if !directory.join("CURRENT").exists() {
            return Err(StorageError::Engine(format!("{} holds no database", directory.display())));
        }
        refuse_foreign(directory, shared, &faults)?;
        let database = DB::open_cf_descriptors_read_only(&shared.reader_options(recovery), directory, shared.families(), false)
            .map_err(|error| faults.engine(&error))?;
        check_format(&database, &faults, FormatAbsent::Refuse)?;
        Ok(Self { database: Arc::new(database), faults, writer: None })
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        family_of(&self.database, Family::of(space))
    }

    fn batch(&self, height: u64, batch: &Batch) -> WriteBatch {
        let mut writes = WriteBatch::default();
        let mut stored = Vec::new();
        for (space, key, value) in &batch.writes {
            Family::key_into(&mut stored, *space, key);
            match value {
                Some(value) => writes.put_cf(self.family(*space), &stored, value),
                None => writes.delete_cf(self.family(*space), &stored),
            }
        }
        // Last, so that it wins over whatever the batch has there.
        Family::key_into(&mut stored, Space::Meta, HEIGHT_KEY);
        writes.put_cf(self.family(Space::Meta), &stored, height_key(height));
        writes
    }
}

impl Storage for RocksStorage {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.database.get_cf(self.family(space), Family::key(space, key)).map_err(|error| self.faults.of_key(&error, space, key))
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        let stored: Vec<Vec<u8>> = keys.iter().map(|key| Family::key(space, key)).collect();
        let values = self.database.batched_multi_get_cf(self.family(space), &stored, false);
        let owned = |(value, key): (Result<Option<DBPinnableSlice<'_>>, _>, &&[u8])| match value {
            Ok(value) => Ok(value.map(|value| value.to_vec())),
            Err(error) => Err(self.faults.of_key(&error, space, key)),
        };
        values.into_iter().zip(keys).map(owned).collect()
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let iterator = self.database.raw_iterator_cf_opt(self.family(space), scan_options(space, prefix));
        scan(iterator, space, prefix, from, visit, &self.faults)
    }

    fn height(&self) -> Result<Option<u64>, StorageError> {
        decode_height(self.get(Space::Meta, HEIGHT_KEY)?)
    }

    /// After [`StorageError::Full`] commits fail so until there is room again; RocksDB looks every five seconds and wants 64 MB, for
    /// compactions. Nothing needs to be restarted.
    fn commit(&self, height: u64, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        let Some(writer) = &self.writer else {
            return Err(StorageError::Engine(format!("{} is open for reading only", self.faults.directory())));
        };
        let synced = writer.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if !next_height(self.height()?, height)? {
            return Ok(());
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Power);
        self.database.write_opt(self.batch(height, batch), &options).map_err(|error| self.faults.engine(&error))?;
        if durability == Durability::Power {
            synced::note(&synced, height);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        let pinned = Pinned::new(self.database.clone(), |database| database.snapshot());
        Ok(Box::new(View { pinned, faults: self.faults.clone() }))
    }

    fn checkpoint(&self, directory: &Path) -> Result<(), StorageError> {
        if self.writer.is_none() {
            return Err(StorageError::Engine(format!("{} is open for reading only", self.faults.directory())));
        }
        let checkpoint = Checkpoint::new(&self.database).map_err(|error| self.faults.engine(&error))?;
        checkpoint.create_checkpoint(directory).map_err(|error| self.faults.engine(&error))
    }

    fn verify(&self) -> Result<(), StorageError> {
        for family in Family::ALL {
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            options.fill_cache(false);
            options.set_readahead_size(VERIFY_READAHEAD_BYTES);
            let mut iterator = self.database.raw_iterator_cf_opt(family_of(&self.database, family), options);
            let mut last = Vec::new();
            iterator.seek_to_first();
            while let Some(key) = iterator.key() {
                last.clear();
                last.extend_from_slice(key);
                iterator.next();
            }
            iterator.status().map_err(|error| self.faults.after_key(&error, family, &last))?;
        }
        decode_height(self.get(Space::Meta, HEIGHT_KEY)?).map(drop)
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        let mut stats = vec![("format".to_owned(), FORMAT.to_string())];
        for property in options::DATABASE_PROPERTIES {
            let value = self.database.property_value(property).map_err(|error| self.faults.engine(&error))?;
            stats.extend(value.map(|value| (property.trim_start_matches("rocksdb.").to_owned(), value)));
        }
        for family in Family::ALL {
            let handle = family_of(&self.database, family);
            for property in options::FAMILY_PROPERTIES {
                let value = self.database.property_value_cf(handle, property).map_err(|error| self.faults.engine(&error))?;
                let name = format!("{}.{}", family.name(), property.trim_start_matches("rocksdb."));
                stats.extend(value.map(|value| (name, value)));
            }
        }
        Ok(stats)
    }
}

impl Drop for RocksStorage {
    /// Blocks committed for the process alone are brought to the device when the group is stopped in order. A failure changes nothing
    /// that was promised.
    fn drop(&mut self) {
        if self.writer.is_some() {
            let _ = self.database.flush_wal(true);
        }
    }
}

type Pin<'a> = Snapshot<'a>;

self_cell! {
    /// A snapshot together with the database it reads.
    struct Pinned {
        owner: Arc<DB>,
        #[covariant]
        dependent: Pin,
    }
}

struct View {
    pinned: Pinned,
    faults: Faults,
}

impl StorageView for View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let family = family_of(self.pinned.borrow_owner(), Family::of(space));
        let value = self.pinned.borrow_dependent().get_cf(family, Family::key(space, key));
        value.map_err(|error| self.faults.of_key(&error, space, key))
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let family = family_of(self.pinned.borrow_owner(), Family::of(space));
        let iterator = self.pinned.borrow_dependent().raw_iterator_cf_opt(family, scan_options(space, prefix));
        scan(iterator, space, prefix, from, visit, &self.faults)
    }
}

fn family_of(database: &DB, family: Family) -> &ColumnFamily {
    database.cf_handle(family.name()).expect("a database is opened with all families")
}

fn open_for_writing(directory: &Path, shared: &SharedResources, recovery: Recovery) -> Result<DB, ::rocksdb::Error> {
    DB::open_cf_descriptors(&shared.writer_options(recovery), directory, shared.families())
}

fn scan_options(space: Space, prefix: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    if let Some(end) = Family::end_of(space, prefix) {
        options.set_iterate_upper_bound(end);
    }
    options
}

fn scan(
    mut iterator: DBRawIterator<'_>,
    space: Space,
    prefix: &[u8],
    from: &[u8],
    visit: &mut Visit<'_>,
    faults: &Faults,
) -> Result<(), StorageError> {
    let skipped = Family::key(space, b"").len();
    iterator.seek(Family::key(space, prefix.max(from)));
    while let Some((key, value)) = iterator.item() {
        let key = &key[skipped..];
        if !key.starts_with(prefix) || visit(key, value) == ControlFlow::Break(()) {
            return Ok(());
        }
        iterator.next();
    }
    iterator.status().map_err(|error| faults.of_key(&error, space, prefix.max(from)))
}

/// What to do with a database without a format.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FormatAbsent {
    /// It was just made.
    Write,
    /// It is not ours.
    Refuse,
}

fn check_format(database: &DB, faults: &Faults, absent: FormatAbsent) -> Result<(), StorageError> {
    match database.get(FORMAT_KEY).map_err(|error| faults.engine(&error))? {
        Some(format) if *format == FORMAT.to_be_bytes() => Ok(()),
        Some(format) => Err(StorageError::Engine(format!(
            "{} has database format {}, this version of the program reads format {FORMAT}: run the version that wrote it",
            faults.directory(),
            <[u8; 4]>::try_from(format).map_or("unknown".to_owned(), |format| u32::from_be_bytes(format).to_string()),
        ))),
        None if absent == FormatAbsent::Write => {
            let mut options = WriteOptions::default();
            options.set_sync(true);
            database.put_opt(FORMAT_KEY, FORMAT.to_be_bytes(), &options).map_err(|error| faults.engine(&error))
        }
        None => Err(foreign(faults)),
    }
}

/// Families are made when a database is opened, so that it is ours must be known before.
fn refuse_foreign(directory: &Path, shared: &SharedResources, faults: &Faults) -> Result<(), StorageError> {
    if !directory.join("CURRENT").exists() {
        return Ok(());
    }
    let options = shared.reader_options(Recovery::Strict);
    // What damages the list of families is found and named when the database is opened.
    let Ok(names) = DB::list_cf(&options, directory) else { return Ok(()) };
    let is_ours = |name: &String| name == "default" || Family::ALL.iter().any(|family| family.name() == name);
    if !names.iter().all(is_ours) {
        return Err(foreign(faults));
    }
    if names.len() > 1 {
        return Ok(());
    }
    // Only the default family: ours if its making was cut short, which leaves it empty.
    let Ok(database) = DB::open_cf_for_read_only(&options, directory, ["default"], false) else { return Ok(()) };
    let mut iterator = database.raw_iterator();
    iterator.seek_to_first();
    if iterator.valid() { Err(foreign(faults)) } else { Ok(()) }
}

fn foreign(faults: &Faults) -> StorageError {
    let directory = faults.directory();
    StorageError::Engine(format!("{directory} holds the database of another program or version; choose another directory"))
}

#[cfg(test)]
#[path = "rocksdb/tests.rs"]
mod tests;
