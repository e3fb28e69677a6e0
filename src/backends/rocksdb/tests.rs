use std::cell::RefCell;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use millrace_core::storage::conformance::{self, Engine};
use tempfile::TempDir;

use std::path::PathBuf;

use super::*;

fn shared() -> SharedResources {
    SharedResources::new(Budget { cache_bytes: 8 << 20, write_buffer_bytes: 64 << 20, background_threads: 2 }).unwrap()
}

fn open(directory: &Path) -> RocksStorage {
    RocksStorage::open(directory, &shared()).unwrap()
}

fn refusal(directory: &Path) -> StorageError {
    RocksStorage::open(directory, &shared()).err().expect("the database must be refused")
}

/// A block with a value in each family, the body large enough for a blob file.
fn block(height: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Space::Body, height_key(height), body(height));
    batch.put(Space::TransactionIndex, height_key(height.wrapping_mul(0x9e37_79b9_7f4a_7c15)), height_key(height));
    batch.put(Space::State, *b"counter", height_key(height));
    batch
}

fn body(height: u64) -> Vec<u8> {
    (0..10_000u64).map(|index| ((index + height).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn assert_blocks(storage: &dyn Storage, heights: std::ops::RangeInclusive<u64>) {
    assert_eq!(storage.height().unwrap(), Some(*heights.end()));
    assert_eq!(storage.get(Space::State, b"counter").unwrap(), Some(height_key(*heights.end()).to_vec()));
    for height in heights {
        assert!(storage.get(Space::Body, &height_key(height)).unwrap() == Some(body(height)), "body of block {height}");
        let hash = height_key(height.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        assert_eq!(storage.get(Space::TransactionIndex, &hash).unwrap(), Some(height_key(height).to_vec()));
    }
}

fn filled(blocks: u64) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path());
    for height in 0..blocks {
        storage.commit(height, &block(height), Durability::Power).unwrap();
    }
    directory
}

fn flush(storage: &RocksStorage) {
    for family in Family::ALL {
        storage.database.flush_cf(family_of(&storage.database, family)).unwrap();
    }
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

fn flip_middle_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

struct Rocks {
    shared: SharedResources,
    directories: RefCell<Vec<TempDir>>,
}

impl Engine for Rocks {
    fn create(&self) -> Box<dyn Storage> {
        let directory = tempfile::tempdir().unwrap();
        let storage = RocksStorage::open(directory.path(), &self.shared).unwrap();
        self.directories.borrow_mut().push(directory);
        Box::new(storage)
    }

    fn open(&self, directory: &Path) -> Box<dyn Storage> {
        Box::new(RocksStorage::open(directory, &self.shared).unwrap())
    }
}

#[test]
fn engine_conforms() {
    conformance::run(&Rocks { shared: shared(), directories: RefCell::default() });
}

#[test]
fn blocks_are_there_after_reopening_from_log_and_from_files() {
    let directory = filled(30);
    assert_blocks(&open(directory.path()), 0..=29);
    let storage = open(directory.path());
    flush(&storage);
    storage.commit(30, &block(30), Durability::Process).unwrap();
    drop(storage);
    assert!(!files(directory.path(), ".blob").is_empty(), "bodies lie in blob files");
    let storage = open(directory.path());
    assert_blocks(&storage, 0..=30);
    storage.verify().unwrap();
    assert!(storage.stats().unwrap().iter().any(|(name, value)| name == "blocks.live-blob-file-size" && value != "0"));
}

#[test]
fn second_opening_is_refused_as_locked_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path());
    assert!(matches!(refusal(directory.path()), StorageError::Locked { path } if path == directory.path().display().to_string()));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rocksdb::tests::child_that_opens", "--nocapture"])
        .env("MILLRACE_TEST_DIRECTORY", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(said.contains("is in use by another process"), "{said}");
    let snapshot = storage.snapshot().unwrap();
    drop(storage);
    assert!(matches!(refusal(directory.path()), StorageError::Locked { .. }), "snapshots keep it open");
    drop(snapshot);
    open(directory.path());
}

#[test]
fn child_that_opens() {
    let Ok(directory) = std::env::var("MILLRACE_TEST_DIRECTORY") else { return };
    println!("{}", refusal(Path::new(&directory)));
}

#[test]
fn reader_beside_the_writer_sees_its_moment_and_writes_nothing() {
    let directory = filled(5);
    let storage = open(directory.path());
    flush(&storage);
    storage.commit(5, &block(5), Durability::Process).unwrap();
    let reader = RocksStorage::open_read_only(directory.path(), &shared()).unwrap();
    storage.commit(6, &block(6), Durability::Process).unwrap();
    assert_blocks(&reader, 0..=5);
    reader.verify().unwrap();
    reader.stats().unwrap();
    assert!(matches!(reader.commit(6, &block(6), Durability::Process), Err(StorageError::Engine(_))));
    assert!(reader.checkpoint(&directory.path().join("copy")).is_err());
    assert_blocks(&storage, 0..=6);
    assert!(RocksStorage::open_read_only(tempfile::tempdir().unwrap().path(), &shared()).is_err(), "nothing is made by a reader");
}

/// A family that is flushed makes RocksDB begin the next log while the older one is still needed; the manifest then names both.
#[test]
fn reader_opens_a_database_of_several_logs() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path());
    for height in 0..4 {
        storage.commit(height, &block(height), Durability::Power).unwrap();
        storage.database.flush_cf(family_of(&storage.database, Family::ALL[0])).unwrap();
    }
    drop(storage);
    assert!(files(directory.path(), ".log").len() > 1, "the test needs several logs");
    let reader = RocksStorage::open_read_only(directory.path(), &shared()).unwrap();
    assert_blocks(&reader, 0..=3);
}

#[test]
fn database_of_another_program_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    DB::open_default(directory.path()).unwrap().put(b"u_table", b"value").unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("another program"), "{error}");
    assert_eq!(DB::list_cf(&::rocksdb::Options::default(), directory.path()).unwrap(), ["default"]);

    let directory = tempfile::tempdir().unwrap();
    let mut options = ::rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(DB::open_cf(&options, directory.path(), ["blocks", "future"]).unwrap());
    assert!(refusal(directory.path()).to_string().contains("another program"));
}

#[test]
fn making_a_database_that_was_cut_short_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    drop(DB::open_default(directory.path()).unwrap());
    open(directory.path()).commit(0, &block(0), Durability::Power).unwrap();
    assert_blocks(&open(directory.path()), 0..=0);
}

#[test]
fn other_format_is_refused_with_both_numbers() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).database.put(FORMAT_KEY, 9u32.to_be_bytes()).unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("format 9") && error.contains("format 2"), "{error}");
}

#[test]
fn damaged_table_and_blob_files_are_named() {
    for ending in [".sst", ".blob"] {
        let directory = filled(200);
        let storage = open(directory.path());
        flush(&storage);
        drop(storage);
        for file in files(directory.path(), ending) {
            flip_middle_byte(&file);
        }
        let found = RocksStorage::open(directory.path(), &shared()).and_then(|storage| storage.verify());
        let Err(StorageError::Corrupt { place, detail }) = found else { panic!("{ending}: {found:?}") };
        // RocksDB does not say which blob file it is; the place is then the key.
        assert!(place.contains(if ending == ".sst" { ".sst" } else { "blocks after key 62" }), "{place}: {detail}");
    }
}

#[test]
fn damaged_value_names_its_key() {
    let directory = filled(1);
    let storage = open(directory.path());
    flush(&storage);
    drop(storage);
    files(directory.path(), ".blob").iter().for_each(|file| flip_middle_byte(file));
    let storage = open(directory.path());
    let found = [
        storage.get(Space::Body, &height_key(0)).err(),
        storage.multi_get(Space::Body, &[&height_key(0)]).err(),
        storage.snapshot().unwrap().get(Space::Body, &height_key(0)).err(),
    ];
    for error in found {
        assert!(matches!(&error, Some(StorageError::Corrupt { place, .. }) if place.ends_with("Body 0000000000000000")), "{error:?}");
    }
}

#[test]
fn missing_files_are_named() {
    for ending in [".sst", ".blob"] {
        let directory = filled(20);
        let storage = open(directory.path());
        flush(&storage);
        drop(storage);
        let file = files(directory.path(), ending).pop().unwrap();
        std::fs::remove_file(&file).unwrap();
        let found = RocksStorage::open(directory.path(), &shared()).and_then(|storage| storage.verify());
        let Err(StorageError::Corrupt { place, detail }) = found else { panic!("{ending}: {found:?}") };
        assert!(place.ends_with(file.file_name().unwrap().to_str().unwrap()), "{place}: {detail}");
    }
}

#[test]
fn damaged_manifest_is_refused_as_damage() {
    let directory = filled(5);
    for file in files(directory.path(), "").into_iter().filter(|file| file.to_string_lossy().contains("MANIFEST")) {
        flip_middle_byte(&file);
    }
    assert!(matches!(refusal(directory.path()), StorageError::Corrupt { .. }));
}

#[test]
fn log_damaged_below_a_synced_block_is_refused_and_kept() {
    let directory = filled(50);
    let log = files(directory.path(), ".log").pop().unwrap();
    flip_middle_byte(&log);
    for _ in 0..2 {
        let error = refusal(directory.path());
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("block 49 was durable"), "{error}");
    }
    assert!(log.exists(), "what is left of the log stays for those who must look into it");
    // The operator's way on, as the message says.
    std::fs::remove_file(directory.path().join("synced-height")).unwrap();
    let height = open(directory.path()).height().unwrap().unwrap();
    assert!((20..49).contains(&height), "{height}");
    assert_blocks(&open(directory.path()), 0..=height);
}

#[test]
fn unfinished_last_write_is_dropped_whole() {
    let directory = filled(10);
    open_and_commit_unsynced(directory.path(), 10);
    let log = files(directory.path(), ".log").pop().unwrap();
    // Torn: cut off in the middle of the write, and (another time) with a hole where a page did not reach the device.
    let whole = std::fs::read(&log).unwrap();
    let start = whole.len() - 5_000;
    std::fs::write(&log, &whole[..start]).unwrap();
    assert_blocks(&open(directory.path()), 0..=9);
    open_and_commit_unsynced(directory.path(), 10);
    let log = files(directory.path(), ".log").pop().unwrap();
    let mut torn = std::fs::read(&log).unwrap();
    let start = torn.len() - 6_000;
    torn[start..start + 4_096].fill(0);
    std::fs::write(&log, torn).unwrap();
    assert_blocks(&open(directory.path()), 0..=9);
}

fn open_and_commit_unsynced(directory: &Path, height: u64) {
    open(directory).commit(height, &block(height), Durability::Process).unwrap();
}

#[test]
fn killed_process_loses_no_synced_block_and_leaves_whole_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let mut promised = 0;
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rocksdb::tests::child_that_commits", "--nocapture"])
            .env("MILLRACE_TEST_COMMITS", directory.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let acknowledged = directory.path().join("acknowledged");
        let deadline = Instant::now() + Duration::from_secs(60);
        let target = promised + 20 + 13 * round;
        while read_number(&acknowledged) < target {
            assert!(Instant::now() < deadline, "the child makes no progress");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        promised = read_number(&acknowledged);
        let storage = open(directory.path());
        let height = storage.height().unwrap().unwrap();
        assert!(height >= promised, "block {promised} was acknowledged, the database ends at {height}");
        assert_blocks(&storage, 0..=height);
        storage.verify().unwrap();
    }
}

fn read_number(path: &Path) -> u64 {
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn child_that_commits() {
    let Ok(directory) = std::env::var("MILLRACE_TEST_COMMITS") else { return };
    let directory = Path::new(&directory);
    let storage = open(directory);
    for height in storage.height().unwrap().map_or(0, |height| height + 1).. {
        storage.commit(height, &block(height), Durability::Power).unwrap();
        let next = directory.join("acknowledged.next");
        std::fs::File::create(&next).unwrap().write_all(height.to_string().as_bytes()).unwrap();
        std::fs::rename(next, directory.join("acknowledged")).unwrap();
    }
}

/// A small file system, when this process may mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn full_disk_refuses_commits_until_there_is_room_and_damages_nothing() {
    let Some(disk) = SmallDisk::mount(128) else {
        eprintln!("skipped: file systems cannot be mounted here");
        return;
    };
    let directory = disk.0.path().join("group1");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 100 << 20]).unwrap();
    let storage = open(&directory);
    let mut next = 0;
    let error = loop {
        match storage.commit(next, &block(next), Durability::Power) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 100_000, "the disk does not fill");
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    for _ in 0..3 {
        let again = storage.commit(next, &block(next), Durability::Power).unwrap_err();
        assert!(matches!(again, StorageError::Full { .. }), "{again}");
    }
    assert_blocks(&storage, 0..=next - 1);
    std::fs::remove_file(&ballast).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = storage.commit(next, &block(next), Durability::Power) {
        assert!(matches!(error, StorageError::Full { .. }), "{error}");
        assert!(Instant::now() < deadline, "commits do not go on although there is room");
        std::thread::sleep(Duration::from_millis(50));
    }
    storage.commit(next + 1, &block(next + 1), Durability::Power).unwrap();
    assert_blocks(&storage, 0..=next + 1);
    drop(storage);
    let storage = open(&directory);
    assert_blocks(&storage, 0..=next + 1);
    storage.verify().unwrap();
}

#[test]
fn database_of_a_full_disk_opens_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(32) else {
        eprintln!("skipped: file systems cannot be mounted here");
        return;
    };
    let directory = disk.0.path().join("group1");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 10 << 20]).unwrap();
    let storage = open(&directory);
    let mut next = 0;
    while storage.commit(next, &block(next), Durability::Power).is_ok() {
        next += 1;
    }
    drop(storage);
    if let Err(error) = RocksStorage::open(&directory, &shared()) {
        assert!(matches!(error, StorageError::Full { .. }), "{error}");
    }
    std::fs::remove_file(&ballast).unwrap();
    let storage = open(&directory);
    let height = storage.height().unwrap().unwrap();
    assert!(height >= next - 1, "block {} was acknowledged, the database ends at {height}", next - 1);
    assert_blocks(&storage, 0..=height);
}
