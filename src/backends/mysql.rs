//! The engine on a database server: MySQL's protocol, one database a group.
//!
//! For ledgers that outgrow a machine, and for operators who query them: the exact data of each space is one table ([`layout`]), and
//! blocks, transactions and AMDB tables stand beside it in readable form ([`readable`]), all written in the one SQL transaction of a
//! block ([`write`]). Invariants: a block is there whole or not at all; of all processes that have opened a database, the last one alone
//! can write ([`fence`]); a server that goes away and comes back costs waiting and nothing else: what fails meanwhile is
//! [`StorageError::Unavailable`] and may be repeated.
//!
//! Reads of what is committed take connections of one pool, snapshots those of another, the writer has its own ([`connections`]).

mod check;
pub mod config;
mod connections;
mod dump;
mod fault;
mod fence;
mod layout;
pub mod private_server;
mod read;
mod readable;
mod view;
mod write;

use std::path::Path;
use std::sync::Arc;

use ::mysql::Conn;
use ::mysql::prelude::Queryable;
use millrace_core::storage::{StorageView, Visit};
use millrace_core::{Batch, Durability, Space, Storage, StorageError};
use parking_lot::Mutex;

use config::Idle;
pub use config::{LEAST_CONNECTIONS, MysqlConfig, Owner, Secret};
use connections::Pool;
use fault::{Failure, Faults};
use fence::Token;
use view::View;
use write::Writer;

/// A group's database on a server.
pub struct MysqlStorage {
    faults: Faults,
    version: String,
    readers: Arc<Pool>,
    snapshots: Arc<Pool>,
    writer: Option<Mutex<Writer>>,
}

impl MysqlStorage {
    /// Opens a database for writing, makes its tables where there are none, and takes it from whichever process had it open: that one's
    /// next commit fails with [`StorageError::TakenOver`].
    ///
    /// Errors: [`StorageError::Unavailable`] when the server cannot be reached or does not let the account in, [`StorageError::Engine`]
    /// for a server whose settings break the promises of a commit, a missing database, one of another group or format; all with what to
    /// do.
    pub fn open(config: &MysqlConfig, owner: &Owner) -> Result<Self, StorageError> {
        let faults = faults(config);
        let options = config.options(Idle::Short);
        let opened = || -> Result<Writer, Failure> {
            let mut connection = Conn::new(options.clone())?;
            check::server(&mut connection, owner.durability, &faults)?;
            layout::create(&mut connection)?;
            let token = Token::take(&mut connection, owner, &faults)?;
            Ok(Writer::new(options.clone(), connection, token, faults.clone()))
        };
        let writer = opened().map_err(|failure| faults.storage(failure))?;
        Self::over(config, Some(Mutex::new(writer)))
    }

    /// Opens a database for reading, also beside the process that writes to it.
    ///
    /// Commits are refused with [`StorageError::Engine`]. Errors: as [`Self::open`], and for a database that holds no chain.
    pub fn open_read_only(config: &MysqlConfig) -> Result<Self, StorageError> {
        Self::over(config, None)
    }

    fn over(config: &MysqlConfig, writer: Option<Mutex<Writer>>) -> Result<Self, StorageError> {
        let faults = faults(config);
        let connections = config.max_connections.max(LEAST_CONNECTIONS) - 1;
        let snapshots = Pool::new(config.options(Idle::Long), connections / 2, faults.clone());
        let readers = Pool::new(config.options(Idle::Long), connections - connections / 2, faults.clone());
        let version = readers.read(|connection| {
            let found = check::server(connection, Durability::Process, &faults)?;
            fence::check_kind(connection, None, &faults)?;
            Ok(found.version)
        })?;
        Ok(Self { faults, version, readers, snapshots, writer })
    }

    /// Makes a database of what [`Storage::checkpoint`] has written into `directory`; the database must hold no chain yet.
    pub fn restore(config: &MysqlConfig, owner: &Owner, directory: &Path) -> Result<Self, StorageError> {
        let storage = Self::open(config, owner)?;
        if storage.height()?.is_some() {
            return Err(storage.faults.engine("it holds a chain already: name an empty one"));
        }
        let writer = storage.writer.as_ref().expect("it was opened for writing");
        dump::read(directory, &mut |height, batch| writer.lock().load(height, batch))?;
        Ok(storage)
    }
}

/// Makes a database where there is none.
///
/// # Errors
/// As [`MysqlStorage::open`]; also when the account may not make databases.
pub fn create_database(config: &MysqlConfig) -> Result<(), StorageError> {
    if Conn::new(config.options(Idle::Long)).is_ok() {
        return Ok(());
    }
    let create = || {
        let nowhere = MysqlConfig { database: String::new(), ..config.clone() };
        Conn::new(nowhere.options(Idle::Long))?.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{}`", config.database))
    };
    create().map_err(|error| faults(config).storage(error.into()))
}

fn faults(config: &MysqlConfig) -> Faults {
    Faults { place: config.place(), database: config.database.clone() }
}

impl Storage for MysqlStorage {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.readers.read(|connection| read::get(connection, space, key, &self.faults))
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.readers.read(|connection| read::multi_get(connection, space, keys, &self.faults))
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        View::open(Arc::clone(&self.snapshots))?.scan(space, prefix, from, visit)
    }

    fn height(&self) -> Result<Option<u64>, StorageError> {
        self.readers.read(|connection| read::height(connection, &self.faults))
    }

    /// The server's settings decide how durable a commit is; [`Self::open`] has checked them. [`StorageError::Unavailable`] leaves open
    /// whether the block was taken: commit it again.
    fn commit(&self, height: u64, batch: &Batch, _: Durability) -> Result<(), StorageError> {
        match &self.writer {
            Some(writer) => writer.lock().commit(height, batch),
            None => Err(self.faults.engine("it is open for reading only")),
        }
    }

    fn snapshot(&self) -> Result<Box<dyn StorageView>, StorageError> {
        Ok(Box::new(View::open(Arc::clone(&self.snapshots))?))
    }

    /// A file that [`Self::restore`] reads.
    fn checkpoint(&self, directory: &Path) -> Result<(), StorageError> {
        dump::write(&View::open(Arc::clone(&self.snapshots))?, directory)
    }

    fn verify(&self) -> Result<(), StorageError> {
        let view = View::open(Arc::clone(&self.snapshots))?;
        for space in Space::ALL {
            view.scan(space, b"", b"", &mut |_, _| std::ops::ControlFlow::Continue(()))?;
            let table = layout::table(space);
            self.readers.read(|connection| check::table(connection, &table, &self.faults))?;
        }
        self.height().map(drop)
    }

    fn stats(&self) -> Result<Vec<(String, String)>, StorageError> {
        let statement = "SELECT TABLE_NAME, CAST(IFNULL(TABLE_ROWS, 0) AS CHAR), CAST(IFNULL(DATA_LENGTH + INDEX_LENGTH, 0) AS CHAR) FROM \
                         information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1";
        let tables: Vec<(String, String, String)> = self.readers.read(|connection| read::rows(connection, statement, ()))?;
        let mut stats = vec![
            ("format".to_owned(), layout::FORMAT.to_string()),
            ("server".to_owned(), self.version.clone()),
            ("connections for reads".to_owned(), self.readers.open_count().to_string()),
            ("connections for snapshots".to_owned(), self.snapshots.open_count().to_string()),
        ];
        for (table, rows, bytes) in tables {
            stats.push((format!("{table}.estimate-rows"), rows));
            stats.push((format!("{table}.bytes"), bytes));
        }
        Ok(stats)
    }
}

#[cfg(test)]
#[path = "mysql/tests.rs"]
mod tests;
