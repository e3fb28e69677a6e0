//! One moment of a database, read by any number of threads.
//!
//! A snapshot lives in a connection. As long as nothing was committed since, another connection's snapshot shows the same, which the
//! height marker tells: so busy views open a few, and a view whose server was restarted goes on when the chain has not moved.
//! Invariant: whatever connection a read takes, it shows the state at the view's height.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mysql::prelude::Queryable;
use millrace_core::storage::{StorageView, Visit};
use millrace_core::{Space, StorageError};
use parking_lot::{Condvar, Mutex};

use super::connections::{Lease, Pool};
use super::fault::{Failure, Kind};
use super::read::{self, Range};

/// Connections of one view at most: queries of clients read from the same one.
const MOST_CONNECTIONS: usize = 4;

/// How long a read waits for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries of one read; the second one finds that the connection was lost.
const TRIES: usize = 3;

/// See the module.
pub(super) struct View {
    pool: Arc<Pool>,
    height: Option<u64>,
    held: Mutex<Held>,
    returned: Condvar,
}

/// The view's connections.
struct Held {
    idle: Vec<Snapshot>,
    /// Idle or in use.
    open: usize,
    /// Whether no other connection can show the view's moment any more.
    has_passed: bool,
}

impl View {
    /// What is committed now.
    pub fn open(pool: Arc<Pool>) -> Result<Self, StorageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Snapshot::open(&pool) {
                Ok((snapshot, height)) => {
                    let held = Held { idle: vec![snapshot], open: 1, has_passed: false };
                    return Ok(Self { pool, height, held: Mutex::new(held), returned: Condvar::new() });
                }
                Err(failure) if tries < TRIES && failure.kind() == Kind::Lost => {}
                Err(failure) => return Err(pool.faults.storage(failure)),
            }
        }
    }

    /// Runs a read that may be repeated.
    pub fn read<T>(&self, mut work: impl FnMut(&mut ::mysql::Conn) -> Result<T, Failure>) -> Result<T, StorageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut snapshot = self.take()?;
            let done = snapshot.lease.run(&mut work);
            self.give_back(done.as_ref().err().is_none_or(|failure| failure.kind() != Kind::Lost).then_some(snapshot));
            match done {
                Err(failure) if tries < TRIES && failure.kind() == Kind::Lost => {}
                done => return done.map_err(|failure| self.pool.faults.storage(failure)),
            }
        }
    }

    fn take(&self) -> Result<Snapshot, StorageError> {
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.held.lock();
        loop {
            if let Some(snapshot) = held.idle.pop() {
                return Ok(snapshot);
            }
            if held.open == 0 && held.has_passed {
                let detail = "the connection of a snapshot was lost and the chain has moved on: ask again";
                return Err(self.pool.faults.unavailable(detail));
            }
            if held.open < MOST_CONNECTIONS && !held.has_passed {
                held.open += 1;
                drop(held);
                let opened = self.open_another();
                held = self.held.lock();
                match opened {
                    Ok(Some(snapshot)) => return Ok(snapshot),
                    Ok(None) => held.has_passed = true,
                    Err(error) if held.open == 1 => {
                        held.open -= 1;
                        return Err(error);
                    }
                    Err(_) => {}
                }
                held.open -= 1;
            }
            if held.idle.is_empty() && held.open > 0 && self.returned.wait_until(&mut held, deadline).timed_out() {
                let detail = format!("the connections of a snapshot have been busy for {} s", PATIENCE.as_secs());
                return Err(self.pool.faults.unavailable(detail));
            }
        }
    }

    /// Another connection that shows the same; `None` when there can be none any more.
    fn open_another(&self) -> Result<Option<Snapshot>, StorageError> {
        let (snapshot, height) = Snapshot::open(&self.pool).map_err(|failure| self.pool.faults.storage(failure))?;
        Ok((height == self.height).then_some(snapshot))
    }

    fn give_back(&self, snapshot: Option<Snapshot>) {
        let mut held = self.held.lock();
        match snapshot {
            Some(snapshot) => held.idle.push(snapshot),
            None => {
                // The same restart has cut those that are idle.
                let idle = std::mem::take(&mut held.idle);
                held.open -= 1 + idle.len();
            }
        }
        drop(held);
        self.returned.notify_all();
    }
}

impl StorageView for View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|connection| read::get(connection, space, key, &self.pool.faults))
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let range = Range { space, prefix, from };
        range.scan(&mut |work| self.read(&mut *work), visit, &self.pool.faults)
    }
}

/// A connection inside a transaction that shows one moment. It ends with it.
struct Snapshot {
    lease: Lease,
}

impl Snapshot {
    fn open(pool: &Arc<Pool>) -> Result<(Self, Option<u64>), Failure> {
        let mut snapshot = Self { lease: pool.lease()? };
        let height = snapshot.lease.run(|connection| {
            connection.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
            read::height(connection, &pool.faults)
        })?;
        Ok((snapshot, height))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.lease.run(|connection| Ok(connection.query_drop("ROLLBACK")?)).is_err() {
            self.lease.close();
        }
    }
}
