//! The public Ethereum state tests through our own path: `pre` is loaded into our state, the transaction goes through our block executor,
//! the block is committed to our storage, and what is read back is compared. Called by `millrace statetest` and by a test.
//!
//! - [`fixture`]: the files.
//! - [`case`]: one case, over both kinds of state.
//! - [`batch`]: the cases of a test as one block, in parallel.
//! - [`tally`]: counts for people and programs.

pub mod batch;
pub mod case;
pub mod fixture;
pub mod tally;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use millrace_access::verifier::{Crew, CrewError};
use millrace_vm::Fork;

use fixture::Fixture;
use tally::{Skip, Tally};

/// Forks whose cases are run, oldest first, by the names of the files.
pub const FORKS: [(&str, Fork); 6] = [
    ("Istanbul", Fork::Istanbul),
    ("Berlin", Fork::Berlin),
    ("London", Fork::London),
    ("Paris", Fork::Paris),
    ("Shanghai", Fork::Shanghai),
    ("Cancun", Fork::Cancun),
];

/// Tests in which a contract is created at an address that has storage but neither nonce nor code. No chain has such accounts since
/// EIP-158, and clients differ in what they do (EIP-7610).
const STORAGE_WITHOUT_ACCOUNT: [&str; 10] = [
    "InitCollision",
    "InitCollisionParis",
    "RevertInCreateInInit",
    "RevertInCreateInInit_Paris",
    "RevertInCreateInInitCreate2",
    "RevertInCreateInInitCreate2Paris",
    "create2collisionStorage",
    "create2collisionStorageParis",
    "dynamicAccountOverwriteEmpty",
    "dynamicAccountOverwriteEmpty_Paris",
];

/// What of the files to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Only this fork, by its name in [`FORKS`].
    pub fork: Option<&'static str>,
    /// Only files whose path contains this.
    pub filter: Option<String>,
    /// Threads; at least one.
    pub threads: usize,
}

/// All `.json` files below a directory, or the file itself, in order of their paths.
pub fn files(root: &Path, selection: &Selection) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    if let Some(filter) = &selection.filter {
        found.retain(|path| path.to_string_lossy().contains(filter));
    }
    found.sort_unstable();
    Ok(found)
}

/// Threads that execute a batch together, whatever the machine has: they must meet.
const CREW_THREADS: usize = 4;

/// Runs the cases of all files on some threads; `done` hears of each file.
///
/// # Errors
/// When the operating system refuses a thread.
pub fn run(files: &[PathBuf], selection: &Selection, done: &mut dyn FnMut(&Path)) -> Result<Tally, CrewError> {
    let crew = Crew::new(CREW_THREADS)?;
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        for _ in 0..selection.threads.max(1) {
            let (next, sender, crew) = (&next, sender.clone(), &crew);
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((file, run_file(file, selection, crew))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (file, part) in receiver {
            tally.add(part);
            done(file);
        }
    });
    tally.finish();
    Ok(tally)
}

fn run_file(path: &Path, selection: &Selection, crew: &Arc<Crew>) -> Tally {
    let mut tally = Tally::default();
    let fixtures = match fs::read(path).map_err(|error| error.to_string()).and_then(|bytes| fixture::read(&bytes)) {
        Ok(Some(fixtures)) => fixtures,
        Ok(None) => {
            tally.skip_file();
            return tally;
        }
        Err(error) => {
            tally.fail_file(path, error);
            return tally;
        }
    };
    for fixture in &fixtures {
        run_fixture(path, fixture, (selection, crew), &mut tally);
    }
    tally
}

fn run_fixture(path: &Path, fixture: &Fixture, (selection, crew): (&Selection, &Arc<Crew>), tally: &mut Tally) {
    for (name, expectations) in &fixture.expectations {
        let Some((known, fork)) = FORKS.iter().find(|fork| fork.0 == name).copied() else {
            tally.skip(name, Skip::OtherFork, expectations.len());
            continue;
        };
        if selection.fork.is_some_and(|wanted| wanted != known) {
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if STORAGE_WITHOUT_ACCOUNT.contains(&&*stem) {
            tally.skip(name, Skip::StorageWithoutAccount, expectations.len());
            continue;
        }
        for (index, expectation) in expectations.iter().enumerate() {
            match case::run(fixture, fork, expectation) {
                Ok(()) => tally.pass(name),
                Err(reason) => tally.fail(name, path, &format!("{} {index}", fixture.name), reason),
            }
        }
        match batch::run(fixture, fork, expectations, crew) {
            Ok(None) => {}
            Ok(Some(_)) => tally.pass_batch(name),
            Err(reason) => tally.fail_batch(name, path, &format!("{} as one block", fixture.name), reason),
        }
    }
}
