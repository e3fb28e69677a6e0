//! What a server or the way to it reports, as what the engine and an operator have to do.

use std::fmt::Display;

use ::mysql::{Error, FromRowError};
use millrace_core::StorageError;

/// What to do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The connection is of no use any more; whether the last statement took effect is not known.
    Lost,
    /// Another transaction was in the way: the same work may succeed at once.
    Conflict,
    /// The server cannot do it now.
    Waiting,
    /// The server's disk is full.
    Full,
    /// Repeating it is of no use.
    Final,
}

/// Server is shutting down, connection killed or cut, idle for too long.
const LOST: [u16; 10] = [1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2013, 4031];

/// Lock wait timeout, deadlock, snapshot isolation, interrupted statement, changed definition; TiDB's conflicts.
const CONFLICT: [u16; 8] = [1020, 1205, 1213, 1317, 1412, 8022, 8028, 9007];

/// Too many connections or statements, no rights to connect, a cluster that is not ready, read-only servers (failover).
const WAITING: [u16; 13] = [1040, 1044, 1045, 1047, 1129, 1130, 1203, 1226, 1290, 1461, 1792, 1836, 3100];

/// Disk full, table full.
const FULL: [u16; 2] = [1021, 1114];

pub(super) fn kind(error: &Error) -> Kind {
    match error {
        Error::MySqlError(error) => match error.code {
            code if LOST.contains(&code) => Kind::Lost,
            code if CONFLICT.contains(&code) => Kind::Conflict,
            code if WAITING.contains(&code) => Kind::Waiting,
            code if FULL.contains(&code) => Kind::Full,
            _ if error.message.contains("No space left") || error.message.contains("Errcode: 28") => Kind::Full,
            _ => Kind::Final,
        },
        Error::IoError(_) | Error::CodecError(_) | Error::DriverError(_) => Kind::Lost,
        Error::UrlError(_) | Error::FromValueError(_) | Error::FromRowError(_) => Kind::Final,
    }
}

/// Why work on a connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server or the way to it.
    Sql(Error),
    /// Found by ourselves.
    Storage(StorageError),
}

impl Failure {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Failure::Sql(error) => kind(error),
            Failure::Storage(StorageError::Unavailable { .. }) => Kind::Waiting,
            Failure::Storage(_) => Kind::Final,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<FromRowError> for Failure {
    fn from(error: FromRowError) -> Self {
        Failure::Sql(error.into())
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Failure::Storage(error)
    }
}

/// Maps the errors of one database.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// The database in words.
    pub place: String,
    /// The database's name, for statements that an operator may need.
    pub database: String,
}

impl Faults {
    /// An error in terms of the trait.
    pub fn storage(&self, failure: Failure) -> StorageError {
        let error = match failure {
            Failure::Storage(error) => return error,
            Failure::Sql(error) => error,
        };
        match kind(&error) {
            Kind::Full => StorageError::Full { path: self.place.clone() },
            Kind::Lost | Kind::Conflict | Kind::Waiting => self.unavailable(self.in_words(&error)),
            Kind::Final => self.engine(self.in_words(&error)),
        }
    }

    /// The database cannot be used at present; a later try may succeed.
    pub fn unavailable(&self, detail: impl Display) -> StorageError {
        StorageError::Unavailable { place: self.place.clone(), detail: detail.to_string() }
    }

    /// The database cannot be used, and trying again does not help.
    pub fn engine(&self, what: impl Display) -> StorageError {
        StorageError::Engine(format!("{}: {what}", self.place))
    }

    /// The database holds what no commit wrote.
    pub fn corrupt(&self, place: impl Display, detail: impl Display) -> StorageError {
        StorageError::Corrupt { place: format!("{}: {place}", self.place), detail: detail.to_string() }
    }

    /// An error with what to do about it where that is known.
    fn in_words(&self, error: &Error) -> String {
        let Error::MySqlError(error) = error else {
            return match error {
                Error::DriverError(::mysql::DriverError::CouldNotConnect(_) | ::mysql::DriverError::ConnectTimeout) => {
                    format!("{error}; start the server, or correct storage.db_ip and storage.db_port of the group")
                }
                error => error.to_string(),
            };
        };
        let database = &self.database;
        let remedy = match error.code {
            1045 => "correct storage.db_username and storage.db_passwd of the group".to_owned(),
            1044 | 1142 | 1227 | 1370 => format!("run GRANT ALL ON `{database}`.* for this account"),
            1049 => format!("run CREATE DATABASE `{database}`, or correct storage.db_name of the group"),
            1040 | 1203 | 1226 => "raise max_connections of the server, or lower storage.max_connections of the groups".to_owned(),
            1071 | 1118 => "the server needs innodb_page_size of at least 16384".to_owned(),
            1461 => "raise max_prepared_stmt_count of the server".to_owned(),
            1153 => "raise max_allowed_packet of the server".to_owned(),
            1290 | 1792 | 1836 => "the server must take writes".to_owned(),
            _ => return error.to_string(),
        };
        format!("{error}; {remedy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(code: u16, message: &str) -> Failure {
        Failure::Sql(Error::MySqlError(::mysql::MySqlError { state: "HY000".into(), message: message.into(), code }))
    }

    #[test]
    fn errors_say_what_to_do() {
        let faults = Faults { place: "database \"g1\" of db:3306".into(), database: "g1".into() };
        assert!(matches!(faults.storage(sql(1114, "The table 'kv_body' is full")), StorageError::Full { .. }));
        assert!(matches!(
            faults.storage(sql(3, "Error writing file (Errcode: 28 \"No space left on device\")")),
            StorageError::Full { .. }
        ));
        assert!(matches!(faults.storage(sql(1290, "read-only")), StorageError::Unavailable { .. }));
        let missing = faults.storage(sql(1049, "Unknown database 'g1'")).to_string();
        assert!(missing.contains("CREATE DATABASE `g1`"), "{missing}");
        assert_eq!(sql(1213, "Deadlock found").kind(), Kind::Conflict);
        assert_eq!(Failure::Sql(Error::IoError(std::io::ErrorKind::BrokenPipe.into())).kind(), Kind::Lost);
    }
}
