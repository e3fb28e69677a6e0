//! Devnets whose groups lie in SQL databases: on a server that is named, or on a MariaDB in the network's directory that runs with it.
//!
//! Where each database is stands in the nodes' group files and nowhere else; the directory `mysql` says that the server is the network's
//! own. Invariant: an own server starts before the nodes and ends after them, also when this process is killed.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use millrace_backends::mysql::private_server::PrivateServer;
use millrace_backends::mysql::{MysqlConfig, Secret, create_database};
use millrace_base::fault::{Fault, FaultKind};
use millrace_core::StorageError;
use rand::Rng;

use super::{DevnetArguments, refuse};
use crate::chain_build::ini_text::IniText;
use crate::config::{NodeConfig, StorageConfig};

/// Where an own server has its files, below the network's directory.
const DIRECTORY: &str = "mysql";

/// Where the password of a named server's account is.
const PASSWORD_VARIABLE: &str = "MILLRACE_MYSQL_PASSWORD";

/// The server of an own network, until it is dropped.
pub struct OwnServer(PrivateServer);

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Writes the databases of a new network into the group files of its nodes.
pub fn configure(arguments: &DevnetArguments, nodes: &[PathBuf]) -> Result<(), Fault> {
    let (host, port, user, password) = match &arguments.mysql {
        Some(address) => {
            let (host, port) = parse_address(address)?;
            (host, port, arguments.mysql_user.clone(), std::env::var(PASSWORD_VARIABLE).unwrap_or_default())
        }
        None => {
            let own = own_directory(&arguments.dir);
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&own)
                .map_err(|error| refuse(format!("cannot create {}: {error}", own.display()), "check its permissions"))?;
            let port = PrivateServer::free_port().map_err(|error| fault(&error))?;
            let password: String = rand::rng().random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect();
            ("127.0.0.1".into(), port, "millrace".to_owned(), password)
        }
    };
    for node in nodes {
        let name = node.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
        for (group, file) in group_files(node)? {
            let mut text = IniText::read(&file)?;
            text.set("storage", "type", "mysql");
            text.set("storage", "db_ip", &host);
            text.set("storage", "db_port", &port.to_string());
            text.set("storage", "db_username", &user);
            text.set("storage", "db_passwd", &password);
            text.set("storage", "db_name", &format!("millrace_{name}_{group}"));
            text.save()?;
        }
    }
    Ok(())
}

/// The settings of a node's groups: number and file.
fn group_files(node: &Path) -> Result<Vec<(String, PathBuf)>, Fault> {
    let conf = node.join("conf");
    let unreadable = |error: std::io::Error| refuse(format!("cannot list {}: {error}", conf.display()), "check its permissions");
    let mut files = Vec::new();
    for entry in fs::read_dir(&conf).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
        if let Some(group) = name.strip_prefix("group.").and_then(|rest| rest.strip_suffix(".ini")) {
            files.push((group.to_owned(), path));
        }
    }
    Ok(files)
}

/// Starts the network's own server, if it has one, and makes the databases that are not there yet.
pub fn start(root: &Path, configs: &[NodeConfig]) -> Result<Option<OwnServer>, Fault> {
    let groups = configs.iter().flat_map(|config| &config.groups);
    let databases: Vec<&MysqlConfig> = groups
        .filter_map(|group| match &group.storage {
            StorageConfig::Mysql(config) => Some(config),
            StorageConfig::RocksDb => None,
        })
        .collect();
    let Some(first) = databases.first() else { return Ok(None) };
    let own = own_directory(root);
    let server = match own.is_dir() {
        true => Some(start_own(&own, first.port, &first.password)?),
        false => None,
    };
    databases.into_iter().try_for_each(create_database).map_err(|error| fault(&error))?;
    Ok(server)
}

fn start_own(directory: &Path, port: u16, password: &Secret) -> Result<OwnServer, Fault> {
    let mut server = PrivateServer::new(directory, port, password.clone(), &[]).map_err(|error| fault(&error))?;
    server.start().map_err(|error| fault(&error))?;
    Ok(OwnServer(server))
}

fn own_directory(root: &Path) -> PathBuf {
    root.join(DIRECTORY)
}

fn parse_address(address: &str) -> Result<(String, u16), Fault> {
    let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parsed
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(|| refuse(format!("--mysql {address} is no address"), "write HOST:PORT, as in 127.0.0.1:3306"))
}

fn fault(error: &StorageError) -> Fault {
    Fault::new(
        FaultKind::Storage,
        error.to_string(),
        "see to the database server; what a network keeps there is not touched by a failed start",
    )
}
