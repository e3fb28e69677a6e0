//! Finds the groups of a node: every `group.N.genesis` in the configuration directory with its `group.N.ini`.

use std::fs;
use std::path::{Path, PathBuf};

use millrace_backends::mysql::{LEAST_CONNECTIONS, MysqlConfig, Secret};
use millrace_base::fault::{Fault, FaultKind};
use millrace_base::{ChainId, GroupId};

use super::channel::{self, GroupClients};
use super::genesis::GroupGenesis;
use super::schema::Checked;
use super::{GroupConfig, PoolConfig, StorageConfig, as_usize, tables};

/// Groups one node can hold; each has a database with its own files.
const MAX_GROUPS: usize = 1_000;

/// Reads all groups, ascending by id, and the notes on their files.
pub fn load_all(config_dir: &Path, data_dir: &Path, chain_id: ChainId) -> Result<(Vec<GroupConfig>, Vec<String>), Fault> {
    let mut files = genesis_files(config_dir)?;
    if files.is_empty() {
        let what = format!("{} has no group.N.genesis", config_dir.display());
        return Err(Fault::new(
            FaultKind::Config,
            what,
            "copy the group's two files there, or correct group.group_config_path in config.ini",
        ));
    }
    if files.len() > MAX_GROUPS {
        let what = format!("{} has {} groups; one node holds at most {MAX_GROUPS}", config_dir.display(), files.len());
        return Err(Fault::new(FaultKind::Config, what, "spread the groups over several nodes"));
    }
    files.sort_unstable();
    let mut notes = Vec::new();
    let mut groups = Vec::with_capacity(files.len());
    for (id, path) in files {
        let (group, group_notes) = read(id, &path, data_dir, chain_id)?;
        notes.extend(group_notes);
        refuse_shared_database(&groups, &group)?;
        groups.push(group);
    }
    Ok((groups, notes))
}

/// Reads one group by its id.
pub fn load(config_dir: &Path, data_dir: &Path, chain_id: ChainId, group: GroupId) -> Result<GroupConfig, Fault> {
    read(group.get(), &genesis_path(config_dir, group), data_dir, chain_id).map(|(group, _)| group)
}

/// Where a group's genesis lies; its settings lie beside it, with the extension `ini`.
pub fn genesis_path(config_dir: &Path, group: GroupId) -> PathBuf {
    config_dir.join(format!("group.{group}.genesis"))
}

fn read(id: u16, path: &Path, data_dir: &Path, chain_id: ChainId) -> Result<(GroupConfig, Vec<String>), Fault> {
    let genesis_file = Checked::read(path, tables::GENESIS)?;
    let genesis = GroupGenesis::from_file(&genesis_file, chain_id)?;
    if genesis.group.get() != id {
        let what = format!("group.id={} in the genesis file of group {id}", genesis.group);
        return Err(genesis_file.fault("group", "id", what, "the file's name and group.id must name the same group"));
    }
    let settings = Checked::read(&path.with_extension("ini"), tables::GROUP)?;
    let notes = genesis_file.notes().iter().chain(settings.notes()).cloned().collect();
    let clients = channel::read_group(&genesis_file, &settings);
    Ok((GroupConfig { clients, ..group_config(genesis, &settings, data_dir)? }, notes))
}

fn genesis_files(config_dir: &Path) -> Result<Vec<(u16, PathBuf)>, Fault> {
    let unreadable = |error: std::io::Error| {
        let what = format!("cannot list {}: {error}", config_dir.display());
        Fault::new(FaultKind::Config, what, "correct group.group_config_path in config.ini; relative paths count from the file's directory")
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(config_dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(id) = name.strip_prefix("group.").and_then(|rest| rest.strip_suffix(".genesis")) else {
            continue;
        };
        match id.parse::<u16>() {
            Ok(number) if number.to_string() == id => files.push((number, path)),
            _ => {
                let what = format!("{}: the name is not group.N.genesis with N from 1 to 32767", path.display());
                return Err(Fault::new(FaultKind::Config, what, "rename the file or move it away"));
            }
        }
    }
    Ok(files)
}

fn group_config(genesis: GroupGenesis, ini: &Checked, data_dir: &Path) -> Result<GroupConfig, Fault> {
    let timeout_ms = genesis.consensus_timeout_s * 1_000;
    let expiration_ms = ini.number("tx_pool", "txs_expiration_time").unwrap_or(600) * 1_000;
    if expiration_ms < timeout_ms {
        let what = format!("tx_pool.txs_expiration_time={} is shorter than the group's consensus_timeout", expiration_ms / 1_000);
        return Err(ini.fault("tx_pool", "txs_expiration_time", what, format!("use at least {} seconds", timeout_ms / 1_000)));
    }
    let interval_ms = ini.number("consensus", "min_block_generation_time").unwrap_or(500);
    if interval_ms > timeout_ms {
        let what = format!("consensus.min_block_generation_time={interval_ms} is longer than the group's consensus_timeout");
        return Err(ini.fault("consensus", "min_block_generation_time", what, format!("use a number from 0 to {timeout_ms} (ms)")));
    }
    Ok(GroupConfig {
        data_path: data_dir.join(format!("group{}", genesis.group)).join("block"),
        storage: storage(ini)?,
        genesis,
        pool: PoolConfig {
            max_transactions: ini.number("tx_pool", "limit").map_or(150_000, as_usize),
            max_bytes: ini.number("tx_pool", "memory_limit").map_or(512, as_usize) << 20,
            expiration_ms,
        },
        min_block_generation_time_ms: interval_ms,
        requests_per_second: ini.number("flow_control", "limit_req"),
        keep_blocks: ini.number("millrace", "keep_blocks"),
        clients: GroupClients::default(),
    })
}

fn storage(ini: &Checked) -> Result<StorageConfig, Fault> {
    if ini.text("storage", "type") != Some("mysql") {
        return Ok(StorageConfig::RocksDb);
    }
    let required = |key: &str| {
        ini.text("storage", key).map(str::to_owned).ok_or_else(|| {
            ini.fault("storage", key, format!("storage.type=mysql needs storage.{key}"), "write it into the section [storage] of this file")
        })
    };
    let (user, database) = (required("db_username")?, required("db_name")?);
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_$-".contains(character);
    if database.len() > 64 || !database.chars().all(is_plain) {
        let what = "storage.db_name is no plain name of a database";
        return Err(ini.fault("storage", "db_name", what, "use up to 64 letters, digits, _ and -"));
    }
    Ok(StorageConfig::Mysql(MysqlConfig {
        host: ini.text("storage", "db_ip").unwrap_or("127.0.0.1").to_owned(),
        port: ini.number("storage", "db_port").map_or(3306, |port| u16::try_from(port).expect("the schema checks ports")),
        user,
        password: Secret::new(ini.text("storage", "db_passwd").unwrap_or_default()),
        database,
        max_connections: ini.number("storage", "max_connections").map_or(50, as_usize).max(LEAST_CONNECTIONS),
    }))
}

fn refuse_shared_database(groups: &[GroupConfig], group: &GroupConfig) -> Result<(), Fault> {
    let StorageConfig::Mysql(own) = &group.storage else { return Ok(()) };
    let is_same = |other: &&GroupConfig| match &other.storage {
        StorageConfig::Mysql(other) => (&other.host, other.port, &other.database) == (&own.host, own.port, &own.database),
        StorageConfig::RocksDb => false,
    };
    match groups.iter().find(is_same) {
        Some(other) => {
            let what = format!("groups {} and {} name the same {}", other.genesis.group, group.genesis.group, own.place());
            Err(Fault::new(FaultKind::Config, what, "give each group a database of its own: storage.db_name in group.N.ini"))
        }
        None => Ok(()),
    }
}
