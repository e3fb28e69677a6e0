//! Where a group's SQL database is and how it is reached.
//!
//! Invariant: a password never appears in a debug text, a message or a log line.

use std::fmt;
use std::time::Duration;

use ::mysql::{Opts, OptsBuilder};
use millrace_base::GroupId;
use millrace_core::Durability;

/// Time to reach the server, by which a read may be late when its machine is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the answer to one statement: the largest blocks take seconds on slow disks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Time after which a quiet connection is probed.
const KEEPALIVE_MS: u32 = 30_000;

/// Prepared statements that a connection keeps: one for each table, kind and power of two of rows.
const STATEMENTS: usize = 256;

/// Connections of one group: its writer, and a few each for reads and snapshots.
pub const LEAST_CONNECTIONS: usize = 8;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for its one use.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// How to reach the database of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MysqlConfig {
    /// Name or address of the server's machine.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// The account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database; it belongs to the group alone.
    pub database: String,
    /// Connections of the group at most; below [`LEAST_CONNECTIONS`] counts as that.
    pub max_connections: usize,
}

impl MysqlConfig {
    /// The database in words.
    pub fn place(&self) -> String {
        format!("database {:?} of {}:{}", self.database, self.host, self.port)
    }

    /// Options of a connection whose idle time the server bounds.
    pub(super) fn options(&self, idle: Idle) -> Opts {
        let idle_s = match idle {
            Idle::Short => 60,
            Idle::Long => 28_800,
        };
        let session = format!(
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, innodb_lock_wait_timeout = 20, \
             wait_timeout = {idle_s}"
        );
        let init = ["SET NAMES binary", &session, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"];
        OptsBuilder::new()
            .ip_or_hostname(Some(self.host.clone()))
            .tcp_port(self.port)
            .user(Some(self.user.clone()))
            .pass(Some(self.password.reveal()))
            .db_name(Some(self.database.clone()))
            // The account may be known under the address alone.
            .prefer_socket(false)
            .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
            .read_timeout(Some(ANSWER_TIMEOUT))
            .write_timeout(Some(ANSWER_TIMEOUT))
            .tcp_keepalive_time_ms(Some(KEEPALIVE_MS))
            .stmt_cache_size(STATEMENTS)
            .init(init.map(str::to_owned).to_vec())
            .into()
    }
}

/// How long the server lets a connection be idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Idle {
    /// A minute: a writer whose machine vanished inside a transaction must not keep its locks for long.
    Short,
    /// Eight hours.
    Long,
}

/// Who opens a database for writing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The group that the database belongs to.
    pub group: GroupId,
    /// The process in words, for the message to whoever it takes the database from.
    pub name: String,
    /// What commits will be asked for: the server's settings must be able to keep it.
    pub durability: Durability,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_not_shown() {
        let password = Secret::new("hunter2");
        let config = MysqlConfig { host: "db".into(), port: 3306, user: "u".into(), password, database: "d".into(), max_connections: 10 };
        assert!(!format!("{config:?} {}", config.place()).contains("hunter2"));
    }
}
