//! The nodes of a devnet as processes: started, watched, stopped in order.
//!
//! Each child runs `millrace run --until-stdin-closes` in a process group of its own, so Ctrl-C reaches this process alone. This process
//! holds the other end of each child's standard input: closing it is the order to stop, and the system closes it should this process be
//! killed. What a child writes goes to `nohup.out` in its directory, as by its start.sh.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use millrace_base::NodeId;
use millrace_base::fault::{Fault, FaultKind};

use super::super::chain::own_program;
use super::super::run::StopSignals;
use crate::config::NodeConfig;

/// How long all nodes together may take to serve: opening large databases takes a while, replaying none.
const START_DEADLINE: Duration = Duration::from_secs(300);

/// Time for one answer of a node.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Pause between looks at nodes that start.
const START_PAUSE: Duration = Duration::from_millis(25);

/// Pause between looks at nodes that run.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// Lines of a log that are shown.
const TAIL_LINES: usize = 15;

/// Bytes of a log that are looked at for them.
const TAIL_BYTES: u64 = 16 << 10;

/// The processes of a network.
pub struct Children {
    processes: Vec<Process>,
}

/// How waiting for readiness ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// All nodes serve.
    All,
    /// A signal came first.
    Interrupted,
}

impl Readiness {
    /// Whether all nodes serve.
    pub fn is_complete(self) -> bool {
        self == Readiness::All
    }
}

struct Process {
    name: String,
    directory: PathBuf,
    id: NodeId,
    rpc: SocketAddr,
    child: Child,
    input: Option<ChildStdin>,
    /// Where in nohup.out its own output begins.
    output_from: u64,
    end: Option<ExitStatus>,
}

impl Children {
    /// Starts a process for each node.
    pub fn start(configs: &[NodeConfig]) -> Result<Self, Fault> {
        let program = own_program()?;
        let mut children = Self { processes: Vec::with_capacity(configs.len()) };
        for config in configs {
            match Process::start(&program, config) {
                Ok(process) => children.processes.push(process),
                Err(fault) => {
                    // Those that run get their order to stop; the first fault is the one to report.
                    let _ = children.stop(ANSWER_DEADLINE);
                    return Err(fault);
                }
            }
        }
        Ok(children)
    }

    /// Process ids in the order of the nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.child.id()).collect()
    }

    /// Waits until every node answers at its JSON-RPC port with its own id.
    pub fn wait_until_ready(&mut self, signals: &mut StopSignals) -> Result<Readiness, Fault> {
        let end = Instant::now() + START_DEADLINE;
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_DEADLINE)).build().into();
        let mut ready = vec![false; self.processes.len()];
        loop {
            for (process, ready) in self.processes.iter_mut().zip(&mut ready) {
                if process.has_ended() {
                    let what = format!("{} did not start{}", process.name, process.epitaph());
                    return Err(Fault::new(FaultKind::Operation, what, "mend what its output names, and start the network again"));
                }
                *ready = *ready || process.answers(&agent);
            }
            if ready.iter().all(|ready| *ready) {
                return Ok(Readiness::All);
            }
            if signals.has_come() {
                return Ok(Readiness::Interrupted);
            }
            if Instant::now() > end {
                let waiting: Vec<&str> =
                    self.processes.iter().zip(&ready).filter(|(_, ready)| !**ready).map(|(process, _)| process.name.as_str()).collect();
                let what = format!("{} did not answer within {} s", waiting.join(", "), START_DEADLINE.as_secs());
                return Err(Fault::new(FaultKind::Operation, what, "see nohup.out and log in the node's directory"));
            }
            thread::sleep(START_PAUSE);
        }
    }

    /// Returns when a signal comes. Nodes that end on their own are named; when none is left, that is a fault.
    pub fn watch(&mut self, signals: &mut StopSignals) -> Result<(), Fault> {
        while !signals.has_come() {
            let mut ended = Vec::new();
            for process in &mut self.processes {
                if process.end.is_none() && process.has_ended() {
                    eprintln!("{} ended on its own{}", process.name, process.epitaph());
                    ended.push(process.name.clone());
                }
            }
            if self.processes.iter().all(|process| process.end.is_some()) {
                let what = format!("no node is left; the last to end: {}", ended.join(", "));
                return Err(Fault::new(FaultKind::Operation, what, "see the output above; the same command starts the network again"));
            }
            thread::sleep(WATCH_PAUSE);
        }
        Ok(())
    }

    /// Orders all nodes to stop and waits for them; one that does not stop in time is killed.
    ///
    /// # Errors
    /// A node that ended on its own earlier, did not stop in order, or had to be killed.
    pub fn stop(&mut self, deadline: Duration) -> Result<(), Fault> {
        let mut troubles = Vec::new();
        for process in &mut self.processes {
            process.input = None;
            if process.end.is_some_and(|end| !end.success()) {
                troubles.push(format!("{} had ended on its own", process.name));
            }
        }
        let end = Instant::now() + deadline;
        while self.processes.iter_mut().any(|process| !process.has_ended()) && Instant::now() < end {
            thread::sleep(START_PAUSE);
        }
        for process in &mut self.processes {
            match process.has_ended() {
                true if process.end.is_some_and(|end| end.success()) => {}
                true => {
                    if !troubles.iter().any(|trouble| trouble.starts_with(&format!("{} ", process.name))) {
                        troubles.push(format!("{} did not stop in order{}", process.name, process.epitaph()));
                    }
                }
                false => {
                    let _ = process.child.kill();
                    let _ = process.child.wait();
                    troubles.push(format!("{} did not stop within {} s and was killed", process.name, deadline.as_secs()));
                }
            }
        }
        match troubles.is_empty() {
            true => Ok(()),
            false => Err(Fault::new(
                FaultKind::Operation,
                troubles.join("; "),
                "nothing that was committed is lost; the logs in the nodes' directories say more, and the same command starts the network again",
            )),
        }
    }
}

impl Process {
    fn start(program: &Path, config: &NodeConfig) -> Result<Self, Fault> {
        let directory = config.file.parent().map_or_else(PathBuf::new, Path::to_owned);
        let output = directory.join("nohup.out");
        let fault = |error: std::io::Error| {
            let what = format!("cannot start {}: {error}", config.name);
            Fault::new(FaultKind::Operation, what, "check the permissions of its directory and the limit of processes")
        };
        let file = OpenOptions::new().create(true).append(true).open(&output).map_err(fault)?;
        let output_from = file.metadata().map_err(fault)?.len();
        let mut child = Command::new(program)
            // The name by which start.sh and stop.sh find the node.
            .arg0(directory.join("../millrace"))
            .args(["run", "--until-stdin-closes", "-c"])
            .arg(&config.file)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(file.try_clone().map_err(fault)?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(fault)?;
        let input = child.stdin.take();
        let rpc = match config.rpc.listen.ip().is_unspecified() {
            true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), config.rpc.listen.port()),
            false => config.rpc.listen,
        };
        Ok(Self { name: config.name.clone(), directory, id: config.key.node_id(), rpc, child, input, output_from, end: None })
    }

    fn has_ended(&mut self) -> bool {
        if self.end.is_none() {
            // An error would mean that somebody else waited for the child: it is gone then.
            self.end = self.child.try_wait().ok().flatten();
        }
        self.end.is_some()
    }

    /// Whether this node, and no other server on its port, answers.
    fn answers(&self, agent: &ureq::Agent) -> bool {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"getNodeInfo","params":[1]}"#;
        let answer = agent.post(format!("http://{}", self.rpc)).send(body).and_then(|mut answer| answer.body_mut().read_to_string());
        answer.is_ok_and(|text| text.contains(&self.id.to_string()))
    }

    /// How it ended, with the end of what it wrote.
    fn epitaph(&self) -> String {
        let how = self.end.map_or_else(String::new, |end| format!(" ({end})"));
        let output = self.directory.join("nohup.out");
        let said = tail(&output, self.output_from);
        let (file, lines) = match (said.is_empty(), newest_log(&self.directory.join("log"))) {
            (true, Some(log)) => (log.clone(), tail(&log, 0)),
            _ => (output, said),
        };
        format!(
            "{how}; the end of {}:\n{}",
            file.display(),
            lines.iter().map(|line| format!("    {line}\n")).collect::<String>().trim_end()
        )
    }
}

/// The last lines of a file, behind an offset.
fn tail(path: &Path, from: u64) -> Vec<String> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
}

/// The log file with the latest name: names carry the time.
fn newest_log(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .max()
}
