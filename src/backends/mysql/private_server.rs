//! A MariaDB of one's own, in a directory of one's own: for networks on one machine, and for tests.
//!
//! Invariant: the server never outlives whoever started it, however that one ends. A shell between the two waits on a pipe that only the
//! starter holds: when the pipe closes, it kills the server. Nothing is shared with a server that the system runs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::mysql::Conn;
use ::mysql::prelude::Queryable;
use millrace_core::StorageError;

use super::config::{Idle, LEAST_CONNECTIONS, MysqlConfig, Secret};

/// How long a server may take to answer after its start, recovery included.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// How long it may take to stop in order.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Lines of the server's log that are shown when it does not start.
const TAIL_LINES: usize = 12;

const USER: &str = "millrace";
const PROGRAMS: [&str; 3] = ["mariadbd", "mariadb-install-db", "my_print_defaults"];
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Starts the server, tells its process id, and ends it: in order when it reads `stop`, at once when it reads nothing more.
const GUARD: &str = "\"$@\" </dev/null >/dev/null 2>&1 & server=$!; echo $server; read -r order; case \"$order\" in stop) kill -TERM $server;; *) kill -KILL \
     $server;; esac; wait $server";

/// See the module.
pub struct PrivateServer {
    directory: PathBuf,
    port: u16,
    password: Secret,
    settings: Vec<String>,
    guard: Option<Child>,
}

impl PrivateServer {
    /// Whether the programs are installed: Debian has them in the packages mariadb-server-core and mariadb-client-core.
    pub fn is_installed() -> bool {
        PROGRAMS.iter().all(|program| find(program).is_some())
    }

    /// The server in a directory, which is made if it is not there. Nothing runs yet. `settings` are further options of the server.
    ///
    /// # Errors
    /// When the programs are missing or the directory cannot be used.
    pub fn new(directory: &Path, port: u16, password: Secret, settings: &[&str]) -> Result<Self, StorageError> {
        let server = Self {
            directory: directory.to_owned(),
            port,
            password,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            guard: None,
        };
        if server.data().is_dir() {
            return Ok(server);
        }
        // A directory for temporary files of its own: a server that starts removes those of others.
        for made in [directory, &server.temporary()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(made).map_err(|error| server.fault(&error))?;
        }
        // Under another name until it is complete.
        let staging = server.directory.join("data.next");
        if staging.is_dir() {
            fs::remove_dir_all(&staging).map_err(|error| server.fault(&error))?;
        }
        let mut install = Command::new(program("mariadb-install-db")?);
        install.arg("--no-defaults").arg(format!("--datadir={}", staging.display())).args(["--skip-test-db", "--skip-name-resolve"]);
        install.arg(format!("--tmpdir={}", server.temporary().display()));
        if is_root() {
            install.arg("--user=root");
        }
        let output = install.stdin(Stdio::null()).output().map_err(|error| server.fault(&error))?;
        if !output.status.success() {
            return Err(server.fault(&String::from_utf8_lossy(&output.stderr)));
        }
        fs::rename(&staging, server.data()).map_err(|error| server.fault(&error))?;
        Ok(server)
    }

    /// A free port of the loopback address, which another process may take before the server does.
    ///
    /// # Errors
    /// When there is none.
    pub fn free_port() -> Result<u16, StorageError> {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        free.map(|address| address.port()).map_err(|error| StorageError::Engine(format!("no port is free: {error}")))
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// With the end of the server's log.
    pub fn start(&mut self) -> Result<(), StorageError> {
        let mut guard = self.spawn().map_err(|error| self.fault(&error))?;
        let mut line = String::new();
        if let Some(output) = &mut guard.stdout {
            BufReader::new(output).read_line(&mut line).map_err(|error| self.fault(&error))?;
        }
        self.guard = Some(guard);
        let process = Path::new("/proc").join(line.trim());
        let deadline = Instant::now() + START_PATIENCE;
        let options = self.config("").options(Idle::Long);
        loop {
            let Err(error) = Conn::new(options.clone()) else { return Ok(()) };
            // A dead child that nobody waits for is still there, without an executable.
            let is_gone = fs::read_link(process.join("exe")).is_err();
            if is_gone || Instant::now() > deadline {
                self.kill();
                let log = fs::read(self.directory.join("server.log")).unwrap_or_default();
                let log = String::from_utf8_lossy(&log).into_owned();
                let lines: Vec<&str> = log.lines().rev().take(TAIL_LINES).collect();
                let tail: Vec<&str> = lines.into_iter().rev().collect();
                return Err(self.fault(&format!("the server does not start ({error}); the end of its log:\n{}", tail.join("\n"))));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let password = self.password.reveal();
        let accounts = format!(
            "CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        );
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path("accounts.sql"))?;
        file.write_all(accounts.replace("; ", ";\n").as_bytes())?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "millrace-mariadb"]).arg(program("mariadbd").map_err(std::io::Error::other)?);
        command.args(["--no-defaults", "--skip-name-resolve", "--bind-address=127.0.0.1", "--socket=server.sock"]);
        command.args(["--performance-schema=OFF", "--max-allowed-packet=64M", "--innodb-flush-log-at-trx-commit=1"]);
        command.arg(format!("--datadir={}", self.data().display())).arg(format!("--port={}", self.port));
        command.arg(format!("--tmpdir={}", self.temporary().display()));
        command.arg(format!("--pid-file={}", path("server.pid"))).arg(format!("--log-error={}", path("server.log")));
        command.arg(format!("--init-file={}", path("accounts.sql")));
        if is_root() {
            command.arg("--user=root");
        }
        command.args(&self.settings);
        // A signal to the starter's group (Ctrl-C) is the starter's to pass on, when whoever uses the server has ended.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn()
    }

    /// Kills it as a power cut would, as far as the process goes.
    pub fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // The shell ends by itself; there is nothing to do about a failure to wait.
            let _ = guard.wait();
        }
    }

    /// Stops it in order; one that takes too long is killed.
    pub fn stop(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        let told = guard.stdin.as_mut().is_some_and(|input| input.write_all(b"stop\n").is_ok());
        let deadline = Instant::now() + STOP_PATIENCE;
        while told && Instant::now() < deadline && matches!(guard.try_wait(), Ok(None)) {
            std::thread::sleep(PAUSE);
        }
        self.kill();
    }

    /// Makes a database if it is not there.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_database(&self, name: &str) -> Result<MysqlConfig, StorageError> {
        super::create_database(&self.config(name))?;
        Ok(self.config(name))
    }

    /// Runs statements as the server's administrator.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, statement: &str) -> Result<(), StorageError> {
        let run = || Conn::new(self.config("").options(Idle::Long))?.query_drop(statement);
        run().map_err(|error| self.fault(&error))
    }

    /// How to reach a database of it; the empty name is for no database.
    pub fn config(&self, database: &str) -> MysqlConfig {
        MysqlConfig {
            host: "127.0.0.1".into(),
            port: self.port,
            user: USER.into(),
            password: self.password.clone(),
            database: database.into(),
            max_connections: LEAST_CONNECTIONS,
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    fn fault(&self, error: &dyn std::fmt::Display) -> StorageError {
        StorageError::Engine(format!("MariaDB in {}: {error}", self.directory.display()))
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(program)).find(|path| path.is_file())
}

fn program(name: &str) -> Result<PathBuf, StorageError> {
    find(name).ok_or_else(|| {
        StorageError::Engine(format!(
            "{name} is not installed: run apt-get install --no-install-recommends mariadb-server-core mariadb-client-core"
        ))
    })
}

/// A server refuses to run as root unless it is told to.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
