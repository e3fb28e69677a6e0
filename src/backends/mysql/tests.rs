//! The engine on a MariaDB that each test starts for itself in a temporary directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millrace_base::GroupId;
use millrace_core::state::codec::{encode_key, encode_value};
use millrace_core::storage::{HEIGHT_KEY, conformance, height_key};
use millrace_core::table::schema::create;
use millrace_core::table::{self, Fields, Schema, Table};
use millrace_core::{StateKey, StateReader, StateValue};
use tempfile::TempDir;

use super::private_server::PrivateServer;
use super::*;

/// Kills of the server in `server_killed_under_load_loses_nothing`, unless the environment says otherwise.
const KILLS: usize = 3;
const KILLS_VARIABLE: &str = "MILLRACE_MYSQL_KILLS";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server and the databases that were made on it.
struct Server {
    server: PrivateServer,
    databases: AtomicUsize,
    _directory: TempDir,
}

impl Server {
    /// `None`, with a message, where MariaDB cannot be run.
    fn start(settings: &[&str]) -> Option<Self> {
        if !PrivateServer::is_installed() {
            eprintln!(
                "skipped: MariaDB is not installed; run apt-get install --no-install-recommends mariadb-server-core mariadb-client-core"
            );
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let port = PrivateServer::free_port().unwrap();
        let settings = [&["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M"], settings].concat();
        let mut server = PrivateServer::new(&directory.path().join("server"), port, Secret::new("of the test"), &settings).unwrap();
        server.start().unwrap();
        Some(Self { server, databases: AtomicUsize::new(0), _directory: directory })
    }

    fn database(&self) -> MysqlConfig {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        MysqlConfig { max_connections: 20, ..self.server.create_database(&format!("group{number}")).unwrap() }
    }

    fn run(&self, config: &MysqlConfig, statement: &str) {
        Conn::new(config.options(Idle::Long)).unwrap().query_drop(statement).unwrap();
    }

    fn query<T: ::mysql::prelude::FromRow>(&self, config: &MysqlConfig, statement: &str) -> Vec<T> {
        Conn::new(config.options(Idle::Long)).unwrap().query(statement).unwrap()
    }
}

fn owner(name: &str) -> Owner {
    Owner { group: GroupId::new(1).unwrap(), name: name.into(), durability: Durability::Power }
}

fn open(config: &MysqlConfig) -> MysqlStorage {
    MysqlStorage::open(config, &owner("the test")).unwrap()
}

fn refusal(opened: Result<MysqlStorage, StorageError>) -> String {
    opened.err().expect("it must be refused").to_string()
}

fn number(value: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Space::State, *b"number", height_key(value));
    batch.put(Space::Body, height_key(value), vec![value as u8; 40_000]);
    batch
}

impl conformance::Engine for Server {
    fn create(&self) -> Box<dyn Storage> {
        Box::new(open(&self.database()))
    }

    fn open(&self, directory: &Path) -> Box<dyn Storage> {
        Box::new(MysqlStorage::restore(&self.database(), &owner("the test"), directory).unwrap())
    }
}

#[test]
fn engine_keeps_the_promises_of_the_trait() {
    let Some(server) = Server::start(&[]) else { return };
    conformance::run(&server);
}

#[test]
fn long_keys_of_one_head_are_scanned_in_order() {
    let Some(server) = Server::start(&[]) else { return };
    let storage = open(&server.database());
    let head = [9; layout::HEAD_BYTES];
    let mut keys: Vec<Vec<u8>> = (0..700u16).map(|tail| [&head[..], &tail.wrapping_mul(40_503).to_be_bytes()].concat()).collect();
    keys.extend([head.to_vec(), head[1..].to_vec(), vec![9, 10], [&head[..], &[0; 60_000]].concat()]);
    let mut batch = Batch::default();
    keys.iter().for_each(|key| batch.put(Space::State, key.clone(), key[..2].to_vec()));
    storage.commit(0, &batch, Durability::Power).unwrap();
    keys.sort_unstable();
    let scan = |prefix: &[u8], from: &[u8]| {
        let mut seen = Vec::new();
        let mut take = |key: &[u8], value: &[u8]| {
            assert_eq!(value, &key[..2]);
            seen.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        };
        storage.scan(Space::State, prefix, from, &mut take).unwrap();
        seen
    };
    assert!(scan(b"", b"") == keys);
    let (prefix, from) = ([&head[..], &[7]].concat(), &keys[400]);
    let expected: Vec<_> = keys.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
    assert!(!expected.is_empty() && scan(&prefix, b"") == expected);
    assert!(scan(b"", from) == keys[400..]);
    let mut batch = Batch::default();
    keys.iter().step_by(2).for_each(|key| batch.delete(Space::State, key.clone()));
    storage.commit(1, &batch, Durability::Power).unwrap();
    assert!(scan(b"", b"") == keys.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
}

#[test]
fn values_that_shrink_and_grow_over_the_size_of_a_part_come_back() {
    let Some(server) = Server::start(&[]) else { return };
    let storage = open(&server.database());
    let part = layout::PART_BYTES;
    let sizes = [0, 1, part, part + 1, 5 * part, part - 1, 3 * part, 0, 2 * part];
    for (height, size) in (0..).zip(sizes) {
        let mut batch = Batch::default();
        let value: Vec<u8> = (0..size).map(|index| (index / 1000) as u8 ^ height as u8).collect();
        batch.put(Space::State, *b"value", value.clone());
        batch.put(Space::State, *b"walue", *b"neighbour");
        storage.commit(height, &batch, Durability::Power).unwrap();
        let found = storage.multi_get(Space::State, &[b"value", b"walue"]).unwrap();
        assert!(found == [Some(value.clone()), Some(b"neighbour".to_vec())], "{size}");
        let mut scanned = Vec::new();
        let mut take = |_: &[u8], value: &[u8]| {
            scanned.push(value.to_vec());
            std::ops::ControlFlow::Continue(())
        };
        storage.scan(Space::State, b"", b"", &mut take).unwrap();
        assert!(scanned == [value, b"neighbour".to_vec()], "{size}");
    }
}

#[test]
fn server_killed_under_load_loses_nothing() {
    let Some(mut server) = Server::start(&[]) else { return };
    let kills = std::env::var(KILLS_VARIABLE).ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let config = server.database();
    let storage = open(&config);
    let (told, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let wait_for = |height: u64| {
        let deadline = Instant::now() + PATIENCE;
        while told.load(Ordering::SeqCst) < height {
            assert!(Instant::now() < deadline, "blocks go on after the server came back");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (waits, reads) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut waits = 0;
            for height in 0.. {
                while let Err(error) = storage.commit(height, &number(height), Durability::Power) {
                    assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
                    waits += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                told.store(height, Ordering::SeqCst);
                if over.load(Ordering::SeqCst) {
                    return waits;
                }
            }
            unreachable!("heights do not end")
        });
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !over.load(Ordering::SeqCst) {
                let least = told.load(Ordering::SeqCst);
                let begun = Instant::now();
                match storage.snapshot().and_then(|view| Ok((view.get(Space::State, b"number")?, view.get(Space::Meta, HEIGHT_KEY)?))) {
                    Ok((value, height)) => {
                        assert_eq!(value, height, "a block is there whole or not at all");
                        assert!(value >= Some(height_key(least).to_vec()) || least == 0, "what was told is there");
                        reads += 1;
                    }
                    Err(error) => assert!(matches!(error, StorageError::Unavailable { .. }), "{error}"),
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "readers wait for a bounded time");
            }
            reads
        });
        for _ in 0..kills {
            wait_for(told.load(Ordering::SeqCst) + 20);
            server.server.kill();
            std::thread::sleep(Duration::from_millis(300));
            server.server.start().unwrap();
        }
        wait_for(told.load(Ordering::SeqCst) + 20);
        over.store(true, Ordering::SeqCst);
        (writer.join().unwrap(), reader.join().unwrap())
    });
    let last = told.load(Ordering::SeqCst);
    // Readers do not try to connect again for a moment after a failure.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = storage.verify() {
        assert!(matches!(error, StorageError::Unavailable { .. }) && Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(storage.height().unwrap(), Some(last));
    for height in 0..=last {
        assert_eq!(storage.get(Space::Body, &height_key(height)).unwrap(), Some(vec![height as u8; 40_000]), "block {height}");
    }
    eprintln!("{kills} kills, {last} blocks, {waits} commits that had to wait, {reads} reads");
}

#[test]
fn snapshot_outlives_a_restart_of_the_server_unless_the_chain_moved_on() {
    let Some(mut server) = Server::start(&[]) else { return };
    let storage = open(&server.database());
    storage.commit(0, &number(0), Durability::Power).unwrap();
    let view = storage.snapshot().unwrap();
    server.server.stop();
    let refused = view.get(Space::State, b"number").unwrap_err();
    assert!(matches!(refused, StorageError::Unavailable { .. }), "{refused}");
    assert!(storage.get(Space::State, b"number").unwrap_err().to_string().contains("is not available"));
    server.server.start().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(view.get(Space::State, b"number").unwrap(), Some(height_key(0).to_vec()));
    storage.commit(1, &number(1), Durability::Power).unwrap();
    assert_eq!(view.get(Space::State, b"number").unwrap(), Some(height_key(0).to_vec()));
    server.server.kill();
    server.server.start().unwrap();
    let moved = view.get(Space::State, b"number").unwrap_err().to_string();
    assert!(moved.contains("the chain has moved on"), "{moved}");
    assert_eq!(storage.get(Space::State, b"number").unwrap(), Some(height_key(1).to_vec()));
}

#[test]
fn view_is_read_by_many_threads_at_once() {
    let Some(server) = Server::start(&[]) else { return };
    let storage = open(&server.database());
    storage.commit(0, &number(0), Durability::Power).unwrap();
    let view = storage.snapshot().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let view = &view;
            scope.spawn(move || {
                for _ in 0..100 {
                    assert_eq!(view.get(Space::State, b"number").unwrap(), Some(height_key(0).to_vec()), "thread {thread}");
                }
            });
        }
        for height in 1..20 {
            storage.commit(height, &number(height), Durability::Power).unwrap();
        }
    });
}

#[test]
fn process_that_opened_first_is_fenced_off() {
    let Some(server) = Server::start(&[]) else { return };
    let config = server.database();
    let older = MysqlStorage::open(&config, &owner("node one")).unwrap();
    older.commit(0, &number(0), Durability::Power).unwrap();
    let newer = MysqlStorage::open(&config, &owner("node two")).unwrap();
    let refused = older.commit(1, &number(1), Durability::Power).unwrap_err();
    assert!(matches!(&refused, StorageError::TakenOver { by, .. } if by.starts_with("node two at 2")), "{refused}");
    assert_eq!(newer.height().unwrap(), Some(0));
    newer.commit(1, &number(1), Durability::Power).unwrap();
    assert!(matches!(older.commit(2, &number(2), Durability::Power), Err(StorageError::TakenOver { .. })));
    let reader = MysqlStorage::open_read_only(&config).unwrap();
    assert!(reader.commit(2, &number(2), Durability::Power).unwrap_err().to_string().contains("for reading only"));
    newer.commit(2, &number(2), Durability::Power).unwrap();
    assert_eq!(reader.height().unwrap(), Some(2));
}

#[test]
fn databases_that_cannot_be_used_are_refused_with_what_to_do() {
    let Some(server) = Server::start(&[]) else { return };
    let good = server.database();
    drop(open(&good));
    let refused = |change: fn(&mut MysqlConfig), words: &str| {
        let mut config = good.clone();
        change(&mut config);
        let message = refusal(MysqlStorage::open(&config, &owner("the test")));
        assert!(message.contains(words) && !message.contains("of the test"), "{message}");
    };
    refused(|config| config.password = Secret::new("wrong of the test"), "storage.db_passwd");
    refused(|config| config.database = "nowhere".into(), "CREATE DATABASE `nowhere`");
    refused(|config| config.port = 1, "storage.db_port");
    let other = Owner { group: GroupId::new(2).unwrap(), ..owner("the test") };
    let message = refusal(MysqlStorage::open(&good, &other));
    assert!(message.contains("belongs to group 1, not to group 2"), "{message}");
    let empty = server.database();
    assert!(refusal(MysqlStorage::open_read_only(&empty)).contains("holds no chain"));
    server.run(&good, "UPDATE millrace_owner SET format = 77");
    assert!(refusal(MysqlStorage::open(&good, &owner("the test"))).contains("format 77"));
    server.server.execute("SET GLOBAL max_allowed_packet = 1048576").unwrap();
    assert!(refusal(MysqlStorage::open(&empty, &owner("the test"))).contains("SET GLOBAL max_allowed_packet"));
    server.server.execute("SET GLOBAL max_allowed_packet = 16777216").unwrap();
    server.server.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2").unwrap();
    assert!(refusal(MysqlStorage::open(&empty, &owner("the test"))).contains("SET GLOBAL innodb_flush_log_at_trx_commit = 1"));
    let process = Owner { durability: Durability::Process, ..owner("the test") };
    MysqlStorage::open(&empty, &process).unwrap().commit(0, &number(0), Durability::Process).unwrap();
}

/// A server that takes no writes for a while, as after a failover.
#[test]
fn blocks_wait_while_the_server_is_read_only() {
    let Some(server) = Server::start(&[]) else { return };
    let config = server.database();
    // Administrators may write to a read-only server; the node's account must be none of them.
    let grant =
        format!("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE VIEW ON `{}`.* TO node@'%' IDENTIFIED BY 'plain'", config.database);
    server.server.execute(&grant).unwrap();
    let config = MysqlConfig { user: "node".into(), password: Secret::new("plain"), ..config };
    let storage = open(&config);
    storage.commit(0, &number(0), Durability::Power).unwrap();
    server.server.execute("SET GLOBAL read_only = 1").unwrap();
    let refused = storage.commit(1, &number(1), Durability::Power).unwrap_err();
    assert!(matches!(&refused, StorageError::Unavailable { detail, .. } if detail.contains("read-only")), "{refused}");
    server.server.execute("SET GLOBAL read_only = 0").unwrap();
    storage.commit(1, &number(1), Durability::Power).unwrap();
}

/// State as an engine has it, for journals.
struct Stored<'s>(&'s MysqlStorage);

impl StateReader for Stored<'_> {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, StorageError> {
        let value = self.0.get(Space::State, &encode_key(key))?;
        value.map(|bytes| millrace_core::state::codec::decode_value(key, &bytes)).transpose()
    }
}

fn in_a_block(storage: &MysqlStorage, height: u64, work: impl FnOnce(&mut millrace_core::overlay::Journal<'_>)) {
    let state = Stored(storage);
    let mut journal = millrace_core::overlay::Journal::new(&state);
    work(&mut journal);
    let mut batch = Batch::default();
    for (key, value) in journal.into_writes() {
        match value {
            Some(value) => batch.put(Space::State, encode_key(&key), encode_value(&value)),
            None => batch.delete(Space::State, encode_key(&key)),
        }
    }
    storage.commit(height, &batch, Durability::Power).unwrap();
}

#[test]
fn amdb_tables_are_sql_tables_with_their_fields() {
    let Some(server) = Server::start(&[]) else { return };
    let config = server.database();
    let storage = open(&config);
    let schema = Schema::new("u_t_demo", "name", "item_price,Item");
    let table = Table::with_schema(schema.clone());
    let fields = |pairs: &[(&str, &str)]| -> Fields {
        pairs.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec().into())).collect::<BTreeMap<_, _>>()
    };
    let long = "k".repeat(400);
    in_a_block(&storage, 0, |journal| {
        assert!(create(journal, &schema).unwrap());
        table.insert(journal, b"fruit", fields(&[("item_price", "1"), ("Item", "apple")])).unwrap();
        table.insert(journal, b"fruit", fields(&[("item_price", "2"), ("Item", "pear")])).unwrap();
        table.insert(journal, long.as_bytes(), fields(&[("item_price", "3")])).unwrap();
    });
    let select = "SELECT name, _id_, item_price FROM u_t_demo ORDER BY name, _id_";
    let rows = || server.query::<(String, u64, Option<String>)>(&config, select);
    let row = |name: &str, id, price: &str| (name.to_owned(), id, Some(price.to_owned()));
    assert_eq!(rows(), [row("fruit", 0, "1"), row("fruit", 1, "2"), row(&long[..255], 0, "3")]);
    in_a_block(&storage, 1, |journal| {
        let mut cheap = table::Condition::new();
        cheap.compare("item_price", table::Comparison::Equal, b"1".to_vec());
        table.remove(journal, b"fruit", &cheap).unwrap();
        table.update(journal, b"fruit", &fields(&[("item_price", "20")]), &table::Condition::new()).unwrap();
        table.remove(journal, long.as_bytes(), &table::Condition::new()).unwrap();
        table.insert(journal, b"b'\\\0\xff", fields(&[("item_price", "'; DROP TABLE kv_state; --")])).unwrap();
    });
    let rows: Vec<(Vec<u8>, Option<String>)> = server.query(&config, "SELECT name, item_price FROM u_t_demo ORDER BY name");
    assert_eq!(
        rows,
        [(b"b'\\\0\xff".to_vec(), Some("'; DROP TABLE kv_state; --".to_owned())), (b"fruit".to_vec(), Some("20".to_owned())),]
    );
    let registered: Vec<(String,)> = server.query(&config, "SELECT key_field FROM _sys_tables_ WHERE table_name = 'u_t_demo'");
    assert_eq!(registered, [("name".to_owned(),)]);
}

#[test]
fn table_that_people_have_spoilt_is_given_up_and_blocks_go_on() {
    let Some(server) = Server::start(&[]) else { return };
    let config = server.database();
    server.run(&config, "CREATE TABLE u_t_demo (something INT)");
    let storage = open(&config);
    let schema = Schema::new("u_t_demo", "name", "price");
    let table = Table::with_schema(schema.clone());
    for height in 0..3 {
        in_a_block(&storage, height, |journal| {
            create(journal, &schema).unwrap();
            table.insert(journal, b"fruit", Fields::new()).unwrap();
        });
    }
    assert_eq!(table.entries(&Stored(&storage), b"fruit").unwrap().len(), 3);
}

/// The process is this test itself, told by a variable to start a server and to end without a word.
#[test]
fn server_ends_with_the_process_that_started_it() {
    const VARIABLE: &str = "MILLRACE_TEST_SERVER";
    if let Some(directory) = std::env::var_os(VARIABLE) {
        let mut server = PrivateServer::new(Path::new(&directory), PrivateServer::free_port().unwrap(), Secret::new("x"), &[]).unwrap();
        server.start().unwrap();
        std::process::abort();
    }
    if !PrivateServer::is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = "mysql::tests::server_ends_with_the_process_that_started_it";
    let mut started = std::process::Command::new(std::env::current_exe().unwrap());
    let output = started.args([name, "--exact"]).env(VARIABLE, directory.path()).output().unwrap();
    assert!(!output.status.success());
    let process: u32 = std::fs::read_to_string(directory.path().join("server.pid")).unwrap().trim().parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{process}/exe")).read_link().is_ok() {
        assert!(Instant::now() < deadline, "the server goes on without its starter");
        std::thread::sleep(Duration::from_millis(20));
    }
}
