//! Which process may write: a number that each opening raises, and each commit compares with its own.
//!
//! Invariant: the row is locked by every transaction that writes, so that when an opening has raised the number, no commit of the process
//! before is under way or can follow.

use std::time::{Duration, Instant};

use ::mysql::Conn;
use ::mysql::prelude::Queryable;
use millrace_core::StorageError;

use super::config::Owner;
use super::fault::{Failure, Faults, Kind};
use super::layout::FORMAT;
use super::read;

/// How long an opening waits for a commit of the process before it: longer than the server keeps a writer that has gone.
const PATIENCE: Duration = Duration::from_secs(90);

/// Longest name of a holder, bytes.
const NAME_BYTES: usize = 255;

/// The right to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token(u64);

impl Token {
    /// Takes the database from whoever had it.
    pub fn take(connection: &mut Conn, owner: &Owner, faults: &Faults) -> Result<Self, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::try_take(connection, owner, faults) {
                Err(failure) if failure.kind() == Kind::Conflict && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    fn try_take(connection: &mut Conn, owner: &Owner, faults: &Faults) -> Result<Self, Failure> {
        let group = owner.group.get();
        connection.exec_drop("INSERT IGNORE INTO millrace_owner VALUES (1, ?, ?, 0, '', UTC_TIMESTAMP())", (FORMAT, group))?;
        connection.query_drop("START TRANSACTION")?;
        let taken = (|| -> Result<Self, Failure> {
            let token = row(connection, faults)?.0 + 1;
            check_kind(connection, Some(owner), faults)?;
            let name = &owner.name.as_bytes()[..owner.name.len().min(NAME_BYTES)];
            connection
                .exec_drop("UPDATE millrace_owner SET token = ?, holder = ?, taken_at = UTC_TIMESTAMP() WHERE id = 1", (token, name))?;
            Ok(Self(token))
        })();
        let end = if taken.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = connection.query_drop(end);
        let token = taken?;
        ended?;
        Ok(token)
    }

    /// Locks the row, and refuses if another process has raised the number.
    pub fn check(self, connection: &mut Conn, faults: &Faults) -> Result<(), Failure> {
        let (token, holder, since) = row(connection, faults)?;
        if token == self.0 {
            return Ok(());
        }
        let by = format!("{} at {since} UTC", String::from_utf8_lossy(&holder));
        Err(StorageError::TakenOver { place: faults.place.clone(), by }.into())
    }
}

fn row(connection: &mut Conn, faults: &Faults) -> Result<(u64, Vec<u8>, String), Failure> {
    let statement = "SELECT token, holder, DATE_FORMAT(taken_at, '%Y-%m-%d %H.%i.%s') FROM millrace_owner WHERE id = 1 FOR UPDATE";
    let found = read::rows(connection, statement, ())?;
    found.into_iter().next().ok_or_else(|| faults.corrupt("millrace_owner", "its row is missing").into())
}

/// Refuses a database of another format, or of another group than the owner's.
pub(super) fn check_kind(connection: &mut Conn, owner: Option<&Owner>, faults: &Faults) -> Result<(), Failure> {
    let present = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'millrace_owner'";
    if read::rows::<(String,)>(connection, present, ())?.is_empty() {
        return Err(faults.engine("it holds no chain").into());
    }
    let found: Vec<(u32, u32)> = read::rows(connection, "SELECT format, group_id FROM millrace_owner WHERE id = 1", ())?;
    let Some((format, group)) = found.into_iter().next() else {
        return Err(faults.engine("it holds no chain").into());
    };
    if format != FORMAT {
        let what = format!("it has format {format}, this version of the program reads format {FORMAT}: run the version that wrote it");
        return Err(faults.engine(what).into());
    }
    match owner {
        Some(owner) if u32::from(owner.group.get()) != group => {
            let what = format!(
                "it belongs to group {group}, not to group {}: give each group a database of its own (storage.db_name)",
                owner.group
            );
            Err(faults.engine(what).into())
        }
        _ => Ok(()),
    }
}
