//! Lists, groups and certificates read again while the node runs, when a signal file of 2.x appears beside `config.ini`
//! (`spec/client-protocol.md` 7.1, `spec/node-semantics.md` 1.3): an operator or a script creates an empty file, the node removes it and reads.
//!
//! | file beside config.ini | what is read again |
//! |---|---|
//! | `config.ini.reset_certificate_whitelist` | both lists of node ids: blacklist and whitelist |
//! | `config.ini.reset_allowlist` | each group's list of clients (`[sdk_allowlist]` of `group.N.ini`) |
//! | `config.ini.append_group` | groups whose files were added |
//! | `config.ini.reset_certificates` | the certificates of both TLS ports: sessions that are open go on, new ones use them (not in 2.x) |
//!
//! Invariants: a signal file is removed before what it names is read, so a change made after the removal has a signal of its own;
//! files with a mistake change nothing, and the log says where it is. The node starts a [`Watcher`], which looks every [`INTERVAL`] on a
//! thread of its own; `millrace node reload` creates the files with [`request`].

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace_base::GroupId;
use millrace_base::fault::{Fault, FaultKind};
use millrace_network::TlsMaterial;
use millrace_rpc::channel::tls::PortTls;

use crate::channel_port;
use crate::config::{GroupConfig, NodeConfig, PeerLists};

/// How often signal files are looked for: as often as by 2.x.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// What can be read again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Signal {
    /// Blacklist and whitelist of node ids.
    PeerLists,
    /// Each group's list of clients.
    ClientLists,
    /// Groups that were added.
    Groups,
    /// Certificates of the ports between nodes and for clients.
    Certificates,
}

impl Signal {
    /// All of them, in the order in which they are handled.
    pub const ALL: [Self; 4] = [Self::PeerLists, Self::ClientLists, Self::Groups, Self::Certificates];

    /// The file that asks for it, beside this `config.ini`.
    pub fn file(self, config: &Path) -> PathBuf {
        let suffix = match self {
            Self::PeerLists => ".reset_certificate_whitelist",
            Self::ClientLists => ".reset_allowlist",
            Self::Groups => ".append_group",
            Self::Certificates => ".reset_certificates",
        };
        let mut name = config.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    /// What is read, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::PeerLists => "the blacklist and whitelist of nodes",
            Self::ClientLists => "the lists of clients of all groups",
            Self::Groups => "the groups",
            Self::Certificates => "the certificates",
        }
    }
}

/// What the TLS ports of a node prove themselves with.
pub struct PortCertificates {
    /// Between nodes; none when this node has no certificate for that and runs alone.
    pub peers: Option<TlsMaterial>,
    /// For clients.
    pub clients: PortTls,
}

impl PortCertificates {
    /// Reads the files that a `config.ini` names.
    ///
    /// # Errors
    /// A file that cannot be used, with what to do.
    pub fn read(config: &Path) -> Result<Self, Fault> {
        let node = NodeConfig::load(config)?;
        let p2p = &node.p2p;
        let peers = p2p.key.exists().then(|| TlsMaterial::from_files(&p2p.certificate, &p2p.key, &p2p.authority)).transpose()?;
        Ok(Self { peers, clients: channel_port::certificates(&node.channel)? })
    }
}

/// Who puts in force what was read; called on the thread that polls.
pub trait Target: Send {
    /// The lists of node ids are these; sessions with nodes that they do not admit end.
    fn peer_lists(&self, lists: PeerLists);

    /// Every group's list of clients is this; an empty one admits everybody. Sessions lose groups that they may not see any more.
    fn client_lists(&self, lists: Vec<(GroupId, Vec<String>)>);

    /// These groups have files; those that run already are among them and stay as they are.
    fn groups(&self, groups: Vec<GroupConfig>);

    /// These certificates are used for sessions that are opened from now on.
    ///
    /// # Errors
    /// What does not fit this node; nothing is changed then.
    fn certificates(&self, certificates: PortCertificates) -> Result<(), Fault>;
}

/// Looks for signal files. See the module.
pub struct Watcher {
    config: PathBuf,
    target: Box<dyn Target>,
    complained: Cell<bool>,
}

impl Watcher {
    /// A watcher beside a `config.ini`.
    pub fn new(config: &Path, target: Box<dyn Target>) -> Self {
        Self { config: config.to_owned(), target, complained: Cell::new(false) }
    }

    /// Looks every [`INTERVAL`] until the result is dropped.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(self) -> Result<Running, Fault> {
        let stopping = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopping);
        let watch = move || {
            while !flag.load(Ordering::Acquire) {
                self.poll();
                thread::park_timeout(INTERVAL);
            }
        };
        let thread = thread::Builder::new().name("reload".into()).spawn(watch).map_err(|error| {
            Fault::new(FaultKind::Operation, format!("cannot start a thread: {error}"), "raise the limit of threads of this user")
        })?;
        Ok(Running { stopping, thread: Some(thread) })
    }

    /// Handles the signal files that are there and tells which were: three failed look-ups when there are none.
    pub fn poll(&self) -> Vec<Signal> {
        Signal::ALL.into_iter().filter(|signal| self.take(*signal) && self.handle(*signal)).collect()
    }

    /// Whether there was a signal file; it is gone now.
    fn take(&self, signal: Signal) -> bool {
        let file = signal.file(&self.config);
        match fs::remove_file(&file) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                // Once: the file stays, and would be complained about ten times a second.
                if !self.complained.replace(true) {
                    let file = file.display();
                    tracing::warn!(
                        "the signal file {file} cannot be removed and is ignored: {error}; create it as the user the node runs as"
                    );
                }
                false
            }
        }
    }

    /// Whether what was asked for was read and handed over.
    fn handle(&self, signal: Signal) -> bool {
        let done = match signal {
            Signal::PeerLists => PeerLists::read(&self.config).map(|lists| self.target.peer_lists(lists)),
            Signal::ClientLists => NodeConfig::read_groups(&self.config).map(|groups| {
                self.target.client_lists(groups.into_iter().map(|group| (group.genesis.group, group.clients.allowed)).collect());
            }),
            Signal::Groups => NodeConfig::read_groups(&self.config).map(|groups| self.target.groups(groups)),
            Signal::Certificates => PortCertificates::read(&self.config).and_then(|read| self.target.certificates(read)),
        };
        match &done {
            Ok(()) => tracing::info!("{} were read again", signal.describe()),
            Err(fault) => tracing::error!("{} stay as they were: {fault}", signal.describe()),
        }
        done.is_ok()
    }
}

/// A watcher that looks by itself; dropping it ends that, after what it is doing.
pub struct Running {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the target was logged where it happened.
            let _ = thread.join();
        }
    }
}

/// Checks what a running node is to read again, asks it to, and waits until it has taken the requests.
///
/// # Errors
/// Files with a mistake, before anything is asked; a node that does not take the request in time, which is then withdrawn.
pub fn request(config: &Path, signals: &[Signal], patience: Duration) -> Result<(), Fault> {
    for signal in signals {
        match signal {
            Signal::PeerLists => drop(PeerLists::read(config)?),
            Signal::ClientLists | Signal::Groups => drop(NodeConfig::read_groups(config)?),
            Signal::Certificates => drop(PortCertificates::read(config)?),
        }
    }
    for signal in signals {
        let file = signal.file(config);
        OpenOptions::new().create(true).append(true).open(&file).map_err(|error| {
            let what = format!("cannot create {}: {error}", file.display());
            Fault::new(FaultKind::Operation, what, "run the command as the user that the node runs as")
        })?;
    }
    let end = Instant::now() + patience;
    while signals.iter().any(|signal| signal.file(config).exists()) {
        if Instant::now() >= end {
            for signal in signals {
                let _ = fs::remove_file(signal.file(config));
            }
            let what = format!("the node of {} did not take the request within {} s", config.display(), patience.as_secs());
            return Err(Fault::new(
                FaultKind::Operation,
                what,
                "check that it runs, from this directory; a node that starts reads all of it anyway",
            ));
        }
        thread::sleep(INTERVAL / 4);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::chain_build::tests::one_node;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Heard {
        fn tell(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Target for Heard {
        fn peer_lists(&self, lists: PeerLists) {
            self.tell(format!("peers -{} +{}", lists.blacklist.len(), lists.whitelist.len()));
        }

        fn client_lists(&self, lists: Vec<(GroupId, Vec<String>)>) {
            self.tell(format!("clients {:?}", lists.iter().map(|(group, keys)| (group.get(), keys.len())).collect::<Vec<_>>()));
        }

        fn groups(&self, groups: Vec<GroupConfig>) {
            self.tell(format!("groups {:?}", groups.iter().map(|group| group.genesis.group.get()).collect::<Vec<_>>()));
        }

        fn certificates(&self, certificates: PortCertificates) -> Result<(), Fault> {
            self.tell(format!("certificates {}", certificates.peers.is_some()));
            Ok(())
        }
    }

    fn edit(path: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    #[test]
    fn each_signal_file_has_its_lists_read_once() {
        let scratch = tempfile::tempdir().unwrap();
        let node = one_node(&scratch.path().join("net"));
        let config = node.join("config.ini");
        let heard = Heard::default();
        let watcher = Watcher::new(&config, Box::new(heard.clone()));
        assert_eq!(watcher.poll(), []);
        let id = "ab".repeat(64);
        edit(&config, ";crl.0=", &format!("crl.0={id}\n    crl.1={}", "cd".repeat(64)));
        edit(&config, ";cal.0=", &format!("cal.0={id}"));
        fs::write(node.join("config.ini.reset_certificate_whitelist"), "").unwrap();
        assert_eq!(watcher.poll(), [Signal::PeerLists]);
        assert_eq!(watcher.poll(), []);
        assert_eq!(heard.take(), ["peers -2 +1"]);

        edit(&node.join("conf/group.1.ini"), ";public_key.0=", &format!("public_key.0={id}"));
        fs::copy(node.join("conf/group.1.ini"), node.join("conf/group.5.ini")).unwrap();
        fs::copy(node.join("conf/group.1.genesis"), node.join("conf/group.5.genesis")).unwrap();
        edit(&node.join("conf/group.5.genesis"), "id=1\n", "id=5\n");
        fs::write(node.join("config.ini.reset_allowlist"), "").unwrap();
        fs::write(node.join("config.ini.append_group"), "").unwrap();
        assert_eq!(watcher.poll(), [Signal::ClientLists, Signal::Groups]);
        assert_eq!(heard.take(), ["clients [(1, 1), (5, 1)]", "groups [1, 5]"]);
    }

    #[test]
    fn lists_with_a_mistake_change_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let node = one_node(&scratch.path().join("net"));
        let config = node.join("config.ini");
        let heard = Heard::default();
        let watcher = Watcher::new(&config, Box::new(heard.clone()));
        edit(&config, ";cal.0=", "cal.0=abc");
        fs::write(Signal::PeerLists.file(&config), "").unwrap();
        assert_eq!(watcher.poll(), []);
        assert!(!Signal::PeerLists.file(&config).exists() && heard.take().is_empty());
        let refused = request(&config, &[Signal::PeerLists], INTERVAL).unwrap_err().to_string();
        assert!(refused.contains("cal.0=abc is not allowed"), "{refused}");
        assert!(!Signal::PeerLists.file(&config).exists());
    }

    #[test]
    fn request_ends_when_the_node_takes_it_and_is_withdrawn_when_none_does() {
        let scratch = tempfile::tempdir().unwrap();
        let node = one_node(&scratch.path().join("net"));
        let config = node.join("config.ini");
        let silent = request(&config, &Signal::ALL, INTERVAL).unwrap_err().to_string();
        assert!(silent.contains("did not take the request"), "{silent}");
        assert!(Signal::ALL.iter().all(|signal| !signal.file(&config).exists()));
        let heard = Heard::default();
        let running = Watcher::new(&config, Box::new(heard.clone())).start().unwrap();
        request(&config, &Signal::ALL, Duration::from_secs(30)).unwrap();
        // The files are gone before they are handled; the end of the watcher is behind that.
        drop(running);
        assert_eq!(heard.take().len(), 4);
    }
}
