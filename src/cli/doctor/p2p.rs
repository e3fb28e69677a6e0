//! `millrace doctor p2p`: whether a node's directory has what its peers ask for, without starting the node.
//!
//! Each line is one check; what is wrong comes with what to do. Certificates are judged by the verifier that TLS itself uses. Nothing
//! is changed; the P2P port is opened for a moment when no node runs from the directory.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use millrace_base::fault::Fault;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use super::Report;
use crate::certificates::facts::{self, WARN_DAYS};
use crate::config::NodeConfig;

/// Most peers whose names are resolved.
const MAX_PEERS: usize = 200;

/// Arguments of `doctor p2p`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  millrace doctor p2p --dir nodes/127.0.0.1/node0\n\nExit code 1 when something is wrong.")]
pub struct P2pArguments {
    /// The node's directory.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// The findings so far.
#[derive(Default)]
struct Findings {
    text: String,
    wrong: usize,
}

impl Findings {
    fn good(&mut self, what: impl AsRef<str>) {
        let _ = writeln!(self.text, "ok     {}", what.as_ref());
    }

    fn wrong(&mut self, what: impl AsRef<str>, remedy: impl AsRef<str>) {
        self.wrong += 1;
        let _ = writeln!(self.text, "WRONG  {}\n       what to do: {}", what.as_ref(), remedy.as_ref());
    }

    fn note(&mut self, what: impl AsRef<str>) {
        let _ = writeln!(self.text, "note   {}", what.as_ref());
    }

    fn fault(&mut self, fault: &Fault) {
        self.wrong(&fault.what, &fault.remedy);
    }
}

/// Looks into a node's directory.
pub fn examine(arguments: &P2pArguments) -> Report {
    let mut findings = Findings::default();
    match NodeConfig::load(&arguments.dir.join("config.ini")) {
        Err(fault) => findings.fault(&fault),
        Ok(config) => {
            findings.good(format!(
                "config.ini, {} groups and the node's key can be read; node id {}",
                config.groups.len(),
                config.key.node_id()
            ));
            certificate(&config, &mut findings);
            validity(&config, &mut findings);
            port(&config, &mut findings);
            peers(&config, &mut findings);
        }
    }
    let Findings { mut text, wrong } = findings;
    let _ = match wrong {
        0 => writeln!(text, "healthy: peers of the same chain can connect"),
        _ => writeln!(text, "unhealthy: {wrong} to mend"),
    };
    Report { text, is_healthy: wrong == 0 }
}

/// Chain, key and node id of the P2P certificate.
fn certificate(config: &NodeConfig, findings: &mut Findings) {
    let p2p = &config.p2p;
    let renew = "have it issued again: `millrace chain renew node DIR --chain CHAIN`";
    let read = |path: &Path| match CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("{} has no certificate in PEM form", path.display())),
        Err(error) => Err(format!("{} cannot be used: {error}", path.display())),
    };
    let (chain, roots) = match (read(&p2p.certificate), read(&p2p.authority)) {
        (Ok(chain), Ok(roots)) => (chain, roots),
        (Err(reason), _) | (_, Err(reason)) => return findings.wrong(reason, renew),
    };
    match verify(&chain, &roots) {
        Ok(()) => findings.good(format!("{} comes from the authority in {}", p2p.certificate.display(), p2p.authority.display())),
        Err(reason) => findings.wrong(format!("peers will refuse {}: {reason}", p2p.certificate.display()), renew),
    }
    match key_matches(&p2p.key, chain) {
        Ok(()) => findings.good(format!("{} is its key", p2p.key.display())),
        Err(reason) => {
            findings.wrong(format!("{}: {reason}", p2p.key.display()), format!("restore it from a backup, or {renew} --new-key"))
        }
    }
    if std::fs::metadata(&p2p.key).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
        findings.wrong(format!("{} can be read by others", p2p.key.display()), format!("run `chmod 600 {}`", p2p.key.display()));
    }
    match facts::read(&p2p.certificate) {
        Err(fault) => findings.fault(&fault),
        Ok(facts) => match facts.node_id {
            Some(id) if id == config.key.node_id() => {
                findings.good(format!("it names this node: {} of {}", facts.subject, facts.issuer));
            }
            Some(id) => findings.wrong(
                format!("{} names another node: {id}", p2p.certificate.display()),
                "one of certificate and node.key is from another node; restore this node's, or have the certificate issued for this node id",
            ),
            None => findings.wrong(format!("{} names no node id", p2p.certificate.display()), format!("{renew} --agency AGENCY")),
        },
    }
}

/// Judged as a peer that accepts a connection judges it.
fn verify(chain: &[CertificateDer<'static>], roots: &[CertificateDer<'static>]) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| format!("the authority cannot be used: {error}"))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build().map_err(|error| error.to_string())?;
    let (leaf, issuers) = chain.split_first().ok_or("there is no certificate")?;
    verifier.verify_client_cert(leaf, issuers, UnixTime::now()).map(drop).map_err(|error| error.to_string())
}

fn key_matches(path: &Path, chain: Vec<CertificateDer<'static>>) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| format!("it cannot be used: {error}"))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| format!("it cannot be used: {error}"))?;
    CertifiedKey::new(chain, key).keys_match().map_err(|_| "it does not belong to the certificate".to_owned())
}

/// When the certificates in the directory end.
fn validity(config: &NodeConfig, findings: &mut Findings) {
    let directory = config.file.parent().unwrap_or(Path::new("."));
    for (name, days) in facts::expiry(directory) {
        match days {
            ..0 => findings.wrong(format!("{name} ended {} days ago", -days), "have it renewed: `millrace chain renew`"),
            0..WARN_DAYS => findings.wrong(format!("{name} ends in {days} days"), "have it renewed: `millrace chain renew`"),
            _ => findings.good(format!("{name} is valid for {days} days")),
        }
    }
}

/// Whether the P2P port can be opened, or this node has it.
fn port(config: &NodeConfig, findings: &mut Findings) {
    let listen = config.p2p.listen;
    if is_running(&config.data_dir) {
        return findings.note(format!("a node runs from this directory; it has the P2P port {listen}"));
    }
    match TcpListener::bind(listen) {
        Ok(_) => findings.good(format!("the P2P port {listen} is free")),
        Err(error) => findings.wrong(
            format!("the P2P port {listen} cannot be opened: {error}"),
            "stop what uses it (`ss -ltnp` names it), or change listen_ip and listen_port in section [p2p] of config.ini",
        ),
    }
}

/// A running node holds a lock in its data directory.
fn is_running(data: &Path) -> bool {
    File::open(data.join(".lock")).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// Whether the configured peers have addresses, and the lists admit this node.
fn peers(config: &NodeConfig, findings: &mut Findings) {
    let peers = &config.p2p.peers;
    let has_address = |peer: &&String| peer.to_socket_addrs().is_ok_and(|mut found| found.next().is_some());
    let unknown: Vec<&str> = peers.iter().take(MAX_PEERS).filter(|peer| !has_address(peer)).map(String::as_str).collect();
    match (peers.len(), &unknown[..]) {
        (0, _) => findings.note("no peers are configured: the node waits for others to connect (section [p2p], node.N=host:port)"),
        (count, []) => findings.good(format!("{count} peers are configured, and their names have addresses")),
        (_, unknown) => findings.wrong(
            format!("these peers have no address: {}", unknown.join(", ")),
            "correct node.N in section [p2p] of config.ini, or the name service",
        ),
    }
    if !config.p2p.lists.admits(&config.key.node_id()) {
        findings.note("this node is not admitted by its own lists; if the others have the same lists, they refuse it");
    }
    for note in &config.notes {
        findings.note(note);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::chain_build::tests::{one_node, plan};
    use crate::chain_build::{self, Ports};

    /// A node whose P2P port is in nobody's way.
    fn node(output: &Path) -> PathBuf {
        let mut plan = plan(output);
        plan.ports = Ports { p2p: 18_900, ..plan.ports };
        chain_build::build(&plan, &|_| {}).unwrap().remove(0).directory
    }

    fn report(dir: &Path) -> (bool, String) {
        let report = examine(&P2pArguments { dir: dir.to_owned() });
        (report.is_healthy, report.text)
    }

    #[test]
    fn directory_as_it_was_built_is_healthy() {
        let scratch = tempfile::tempdir().unwrap();
        let (is_healthy, text) = report(&node(&scratch.path().join("nodes")));
        assert!(is_healthy && text.contains("it names this node: node0 of bank") && text.contains("3 peers are configured"), "{text}");
    }

    #[test]
    fn each_fault_is_named_with_its_remedy() {
        let scratch = tempfile::tempdir().unwrap();
        let (good, other) = (node(&scratch.path().join("nodes")), one_node(&scratch.path().join("other")));
        let empty = scratch.path().join("empty");
        fs::write(&empty, "").unwrap();
        let broken = |name: &str, replacement: &Path, text: &str| {
            let (path, present) = (good.join(name), fs::read(good.join(name)).unwrap());
            fs::copy(replacement, &path).unwrap();
            let (is_healthy, found) = report(&good);
            fs::write(&path, present).unwrap();
            assert!(!is_healthy && found.contains(text) && found.contains("what to do"), "{name}: {found}");
        };
        broken("conf/p2p-ca.crt", &other.join("conf/p2p-ca.crt"), "peers will refuse");
        broken("conf/p2p.key", &other.join("conf/p2p.key"), "does not belong to the certificate");
        broken("conf/p2p.crt", &other.join("conf/p2p.crt"), "names another node");
        broken("conf/p2p.crt", &good.join("conf/channel_cert/node.crt"), "names no node id");
        broken("conf/p2p.key", &empty, "cannot be used");
        let taken = TcpListener::bind("0.0.0.0:18900").unwrap();
        assert!(report(&good).1.contains("the P2P port 0.0.0.0:18900 cannot be opened"));
        drop(taken);
        let config = fs::read_to_string(good.join("config.ini")).unwrap();
        fs::write(good.join("config.ini"), config.replace("node.0=127.0.0.1:", "node.0=no.such.host.invalid:")).unwrap();
        assert!(report(&good).1.contains("these peers have no address: no.such.host.invalid:18900"));
        fs::write(good.join("config.ini"), config.replace("listen_port=18900", "listen_port=x")).unwrap();
        assert!(report(&good).1.contains("p2p.listen_port=x is not allowed"));
    }
}
