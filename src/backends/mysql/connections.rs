//! A bounded number of connections to one database, opened as they are needed.
//!
//! Invariants: never more than the limit are open; a connection that failed is closed and so are all idle ones, which the same restart of
//! the server has cut; after a failed attempt to connect further callers fail at once for a moment, so that a server that is gone costs
//! each of them little time. Two pools a group: one for single reads, one for snapshots.

use std::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mysql::{Conn, Opts};
use millrace_core::StorageError;
use parking_lot::{Condvar, Mutex};

use super::fault::{Failure, Faults, Kind};

/// How long a caller waits for a connection when all are in use.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);

/// After a failed attempt to connect, none is made for this long.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Tries of one read: a second one finds a new connection when the server was restarted in between.
const READ_TRIES: usize = 3;

/// See the module.
pub(super) struct Pool {
    options: Opts,
    limit: usize,
    pub faults: Faults,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Conn>,
    /// Idle or leased.
    open: usize,
    /// The last attempt to connect, if it failed.
    failed: Option<(Instant, String)>,
}

impl Pool {
    pub fn new(options: Opts, limit: usize, faults: Faults) -> Arc<Self> {
        Arc::new(Self { options, limit, faults, state: Mutex::default(), freed: Condvar::new() })
    }

    /// Open connections.
    pub fn open_count(&self) -> usize {
        self.state.lock().open
    }

    /// Takes a connection, waiting for one if all are in use.
    pub fn lease(self: &Arc<Self>) -> Result<Lease, StorageError> {
        let deadline = Instant::now() + LEASE_PATIENCE;
        let mut state = self.state.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(Lease { pool: Arc::clone(self), connection: Some(connection) });
            }
            if state.open < self.limit {
                state.open += 1;
                drop(state);
                // Counted before it is open; the lease gives the place back should it not come to be.
                let mut lease = Lease { pool: Arc::clone(self), connection: None };
                lease.connection = Some(self.connect()?);
                return Ok(lease);
            }
            if self.freed.wait_until(&mut state, deadline).timed_out() {
                let (limit, wait_s) = (self.limit, LEASE_PATIENCE.as_secs());
                let detail = format!("all {limit} connections for such reads have been busy for {wait_s} s; raise storage.max_connections");
                return Err(self.faults.unavailable(detail));
            }
        }
    }

    fn connect(&self) -> Result<Conn, StorageError> {
        if let Some((at, error)) = &self.state.lock().failed
            && at.elapsed() < RECONNECT_PAUSE
        {
            return Err(self.faults.unavailable(error));
        }
        let connected = Conn::new(self.options.clone());
        let failed = match &connected {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), error.to_string())),
        };
        self.state.lock().failed = failed;
        connected.map_err(|error| self.faults.storage(error.into()))
    }

    /// Runs a read that may be repeated on another connection.
    pub fn read<T>(self: &Arc<Self>, work: impl Fn(&mut Conn) -> Result<T, Failure>) -> Result<T, StorageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut lease = self.lease()?;
            match lease.run(&work) {
                Err(failure) if tries < READ_TRIES && matches!(failure.kind(), Kind::Lost | Kind::Conflict) => {}
                done => return done.map_err(|failure| self.faults.storage(failure)),
            }
        }
    }
}

/// A connection in use; it goes back to the pool when it is dropped.
pub(super) struct Lease {
    pool: Arc<Pool>,
    /// `None` when it was lost.
    connection: Option<Conn>,
}

impl Lease {
    /// Works on the connection; one that is lost on the way is closed.
    pub fn run<T>(&mut self, work: impl FnOnce(&mut Conn) -> Result<T, Failure>) -> Result<T, Failure> {
        let Some(connection) = &mut self.connection else {
            return Err(self.pool.faults.unavailable("the connection was lost").into());
        };
        let done = work(connection);
        if done.as_ref().is_err_and(|failure| failure.kind() == Kind::Lost) {
            self.close();
            // Outside the lock: closing says good-bye to the server.
            let idle = {
                let mut state = self.pool.state.lock();
                let idle = std::mem::take(&mut state.idle);
                state.open -= idle.len();
                idle
            };
            self.pool.freed.notify_all();
            drop(idle);
        }
        done
    }

    /// Closes the connection instead of giving it back.
    pub fn close(&mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        match self.connection.take() {
            Some(connection) => state.deref_mut().idle.push(connection),
            None => state.open -= 1,
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}
