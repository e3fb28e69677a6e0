//! Whether a server is set so that it can keep what the engine promises.

use std::collections::BTreeMap;

use ::mysql::Conn;
use millrace_core::{Durability, StorageError};

use super::fault::{Failure, Faults};
use super::read;

/// Statements stay well below this, so larger packets are of no use.
pub(super) const LEAST_PACKET_BYTES: u64 = 4 << 20;

/// Oldest versions: both have the row format and the statements that are used.
const LEAST_MYSQL: (u32, u32) = (5, 7);
const LEAST_MARIADB: (u32, u32) = (10, 3);

const NAMES: &str = "'version','max_allowed_packet','innodb_flush_log_at_trx_commit','innodb_page_size','innodb_doublewrite','log_bin',\
                     'sync_binlog','transaction_isolation','tx_isolation','sql_mode','character_set_client'";

/// What the server says about itself, for `stats`.
pub(super) struct Server {
    /// Its version.
    pub version: String,
}

/// Checks the settings as a session sees them.
pub(super) fn server(connection: &mut Conn, durability: Durability, faults: &Faults) -> Result<Server, Failure> {
    let found: Vec<(String, String)> = read::rows(connection, &format!("SHOW VARIABLES WHERE Variable_name IN ({NAMES})"), ())?;
    let settings: BTreeMap<String, String> = found.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let engines: Vec<(String, String)> =
        read::rows(connection, "SELECT ENGINE, SUPPORT FROM information_schema.ENGINES WHERE ENGINE = 'InnoDB'", ())?;
    if !engines.iter().any(|(_, support)| matches!(support.to_ascii_uppercase().as_str(), "YES" | "DEFAULT")) {
        return Err(faults.engine("the server has no InnoDB, the engine that transactions need: enable it").into());
    }
    check(&settings, durability, faults)?;
    if settings.get("innodb_doublewrite").is_some_and(|value| matches!(value.as_str(), "OFF" | "0")) {
        tracing::warn!(place = faults.place, "innodb_doublewrite is off: a power cut may damage the database; set innodb_doublewrite=ON");
    }
    Ok(Server { version: settings.get("version").cloned().unwrap_or_default() })
}

/// Has the server check a table, where it can.
pub(super) fn table(connection: &mut Conn, table: &str, faults: &Faults) -> Result<(), Failure> {
    let results: Vec<(String, String, String, String)> = match read::rows(connection, &format!("CHECK TABLE {table}"), ()) {
        // TiDB checks what it reads by itself and lacks the statement; a database may be read without the right to it.
        Err(Failure::Sql(::mysql::Error::MySqlError(error))) if matches!(error.code, 1064 | 1142 | 1235 | 8108) => return Ok(()),
        results => results?,
    };
    match results.into_iter().find(|(_, _, kind, _)| kind == "error") {
        Some((.., text)) => Err(faults.corrupt(table, text).into()),
        None => Ok(()),
    }
}

fn check(settings: &BTreeMap<String, String>, durability: Durability, faults: &Faults) -> Result<(), StorageError> {
    let text = |name: &str| settings.get(name).map(String::as_str);
    let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
    let version = text("version").unwrap_or_default();
    let (product, least) = if version.contains("MariaDB") { ("MariaDB", LEAST_MARIADB) } else { ("MySQL", LEAST_MYSQL) };
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < least {
        let what = format!("the server is {product} {version}; {product} {}.{} or newer is needed", least.0, least.1);
        return Err(faults.engine(what));
    }
    if let Some(packet) = number("max_allowed_packet").filter(|packet| *packet < LEAST_PACKET_BYTES) {
        return Err(faults.engine(format!(
            "max_allowed_packet of the server is {packet}, at least {LEAST_PACKET_BYTES} is needed: run SET GLOBAL max_allowed_packet = \
             67108864 and write max_allowed_packet=64M into its configuration, section [mysqld]"
        )));
    }
    if text("transaction_isolation").or(text("tx_isolation")).is_some_and(|level| level != "REPEATABLE-READ") {
        return Err(faults.engine("the server does not give sessions the isolation level REPEATABLE READ that they ask for"));
    }
    if durability == Durability::Process {
        return Ok(());
    }
    let weak = "and durability=power in config.ini promises that what clients hear of survives a power cut";
    let or = "or set durability=process in section [millrace] of config.ini";
    if let Some(flush) = number("innodb_flush_log_at_trx_commit").filter(|flush| *flush != 1) {
        return Err(faults.engine(format!(
            "innodb_flush_log_at_trx_commit of the server is {flush}, {weak}: run SET GLOBAL innodb_flush_log_at_trx_commit = 1 and write \
             it into its configuration, {or}"
        )));
    }
    let has_log = text("log_bin").is_some_and(|value| matches!(value, "ON" | "1"));
    if let Some(sync) = number("sync_binlog").filter(|sync| has_log && *sync != 1) {
        return Err(faults.engine(format!(
            "log_bin is on and sync_binlog of the server is {sync}, {weak}: run SET GLOBAL sync_binlog = 1 and write it into its \
             configuration, {or}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(changed: &[(&str, &str)], durability: Durability) -> Option<String> {
        let good = [
            ("version", "10.11.6-MariaDB-0+deb12u1"),
            ("max_allowed_packet", "16777216"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("log_bin", "OFF"),
            ("sync_binlog", "0"),
            ("tx_isolation", "REPEATABLE-READ"),
        ];
        let settings = good.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let faults = Faults { place: "database".into(), database: "d".into() };
        check(&settings, durability, &faults).err().map(|error| error.to_string())
    }

    #[test]
    fn settings_that_break_promises_are_refused_with_what_to_set() {
        let power = |changed: &[(&str, &str)]| refusal(changed, Durability::Power);
        assert_eq!(power(&[]), None);
        assert_eq!(power(&[("version", "8.0.36"), ("transaction_isolation", "REPEATABLE-READ")]), None);
        for (changed, words) in [
            (&[("version", "5.6.51-log")][..], "MySQL 5.7 or newer"),
            (&[("version", "10.1.48-MariaDB")], "MariaDB 10.3 or newer"),
            (&[("max_allowed_packet", "1048576")], "SET GLOBAL max_allowed_packet"),
            (&[("innodb_flush_log_at_trx_commit", "2")], "SET GLOBAL innodb_flush_log_at_trx_commit = 1"),
            (&[("log_bin", "ON")], "SET GLOBAL sync_binlog = 1"),
            (&[("tx_isolation", "READ-COMMITTED")], "REPEATABLE READ"),
        ] {
            let message = power(changed).unwrap_or_default();
            assert!(message.contains(words), "{changed:?}: {message}");
        }
        assert_eq!(refusal(&[("innodb_flush_log_at_trx_commit", "2"), ("log_bin", "ON")], Durability::Process), None);
    }
}
