//! Renews certificates: of a node, an agency, a client. The old files stay as `.old`; keys stay the same unless a new one is asked for.
//!
//! Invariant: clients and peers go on accepting what is renewed. An agency's channel authority therefore always keeps its key, and a
//! node's channel certificate is renewed only by the authority that its clients know.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use millrace_base::NodeId;
use millrace_base::fault::{Fault, FaultKind};

use super::{ChainDirectory, read_text};
use crate::certificates::{Algorithm, Authority, Credential, Facts, KeySource, Leaf, Validity, facts};
use crate::chain_build::Agency;
use crate::chain_build::files::{Content, refuse, replace_all};
use crate::chain_build::ini_text::IniText;
use crate::config::P2pConfig;

/// How certificates are renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// Validity of the new ones.
    pub days: u32,
    /// What becomes of their keys.
    pub keys: KeyChoice,
}

/// What becomes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyChoice {
    /// It stays.
    Keep,
    /// A new one takes its place.
    New,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Renewed {
    /// Certificates that were replaced.
    pub files: Vec<PathBuf>,
    /// What was left alone, and why.
    pub remarks: Vec<String>,
}

impl Renewal {
    /// The key in a file, if it is to be kept and there.
    fn source<'a>(self, present: Option<&'a str>) -> KeySource<'a> {
        match (self.keys, present) {
            (KeyChoice::Keep, Some(pem)) => KeySource::Kept(pem),
            _ => KeySource::New,
        }
    }
}

impl ChainDirectory {
    /// Renews the certificates of a node's directory, wherever it lies. `agency` is needed only for a node that has none of ours yet,
    /// as the directories of 2.x, whose P2P certificates have keys that TLS libraries refuse.
    pub fn renew_node(&self, directory: &Path, agency: Option<&str>, renewal: Renewal) -> Result<Renewed, Fault> {
        let config = directory.join("config.ini");
        let p2p = P2pConfig::read(&config)?;
        let conf = p2p.key.parent().unwrap_or(directory).to_owned();
        let id = node_id(&conf)?;
        let present = facts::read(&p2p.certificate).ok().filter(|facts| facts.node_id.is_some());
        let (name, agency) = match (&present, agency) {
            (Some(facts), None) => (facts.subject.clone(), facts.issuer.clone()),
            (Some(facts), Some(agency)) => (facts.subject.clone(), agency.to_owned()),
            (None, Some(agency)) => (directory_name(directory), agency.to_owned()),
            (None, None) => {
                let what = format!("{} has no P2P certificate of ours that could be renewed", directory.display());
                return Err(refuse(what, "name the agency that is to issue its first one: --agency NAME"));
            }
        };
        if let Some(facts) = present.filter(|facts| facts.node_id != Some(id)) {
            let what = format!("{} names another node than {}", p2p.certificate.display(), conf.join("node.nodeid").display());
            let id = facts.node_id.map(|id| id.to_string()).unwrap_or_default();
            return Err(Fault::new(FaultKind::Config, what, format!("one of them is from another node; the certificate's is {id}")));
        }
        let agency = self.agency(&agency, Validity::days(renewal.days))?;
        let mut renewed = Renewed::default();
        let key = fs::read_to_string(&p2p.key).ok();
        let peer = agency.peers.issue_with_chain(&name, &Leaf::Peer(id), renewal.source(key.as_deref()))?;
        let (certificate, authority) = (conf.join("p2p.crt"), conf.join("p2p-ca.crt"));
        replace_all(&[
            (authority.clone(), Content::Public(&self.chain_certificate()?)),
            (p2p.key.clone(), Content::Secret(&peer.key)),
            (certificate.clone(), Content::Public(&peer.certificate)),
        ])?;
        if (&p2p.certificate, &p2p.authority) != (&certificate, &authority) {
            let mut text = IniText::read(&config)?;
            text.set("network_security", "cert", "p2p.crt");
            text.set("network_security", "ca_cert", "p2p-ca.crt");
            text.save()?;
            renewed.remarks.push(format!("{}: network_security.cert and ca_cert name the new files", config.display()));
        }
        renewed.files.push(certificate);
        renew_channel(&conf.join("channel_cert"), &name, &agency, renewal, &mut renewed)?;
        Ok(renewed)
    }

    /// Renews both authorities of an agency. What they issued stays valid; renewing the nodes spreads the new certificates.
    pub fn renew_agency(&self, name: &str, renewal: Renewal) -> Result<Renewed, Fault> {
        let directory = self.agency_directory(name);
        let validity = Validity::days(renewal.days);
        if !directory.join("agency.crt").is_file() || name.contains('/') {
            let what = format!("{} has no agency {name}", self.root.join("cert").display());
            return Err(refuse(what, "`millrace chain show` lists what is there"));
        }
        let (key, channel_key) = (read_text(&directory.join("agency.key"))?, read_text(&directory.join("channel/ca.key"))?);
        let peers = self.authority(validity)?.intermediate(name, renewal.source(Some(&key)))?;
        let channel = Authority::root(name, Algorithm::Rsa2048, validity, KeySource::Kept(&channel_key))?;
        let files = [directory.join("agency.crt"), directory.join("channel/ca.crt")];
        replace_all(&[
            (directory.join("agency.key"), Content::Secret(&peers.credential.key)),
            (files[0].clone(), Content::Public(&peers.credential.certificate)),
            (files[1].clone(), Content::Public(&channel.credential.certificate)),
        ])?;
        let remarks = vec![format!("renew the nodes of {name} too: until then they present its old certificate, valid as long as that is")];
        Ok(Renewed { files: files.into(), remarks })
    }

    /// Renews the certificate of a client's directory.
    pub fn renew_sdk(&self, directory: &Path, renewal: Renewal) -> Result<Renewed, Fault> {
        let certificate = directory.join("sdk.crt");
        let present = facts::read(&certificate)?;
        let agency = self.agency(&present.issuer, Validity::days(renewal.days))?;
        if !is_issued_by(&directory.join("ca.crt"), &agency) {
            let what = format!("{} comes from another agency called {}", certificate.display(), present.issuer);
            return Err(refuse(what, "name the chain's directory that it was made in with --chain"));
        }
        let key = fs::read_to_string(directory.join("sdk.key")).ok();
        let Credential { certificate: text, key } = agency.channel.issue(&present.subject, &Leaf::Sdk, renewal.source(key.as_deref()))?;
        replace_all(&[
            (directory.join("ca.crt"), Content::Public(&agency.channel.credential.certificate)),
            (directory.join("sdk.key"), Content::Secret(&key)),
            (certificate.clone(), Content::Public(&text)),
        ])?;
        Ok(Renewed { files: vec![certificate], remarks: Vec::new() })
    }
}

fn renew_channel(directory: &Path, name: &str, agency: &Agency, renewal: Renewal, renewed: &mut Renewed) -> Result<(), Fault> {
    let certificate = directory.join("node.crt");
    if !is_issued_by(&directory.join("ca.crt"), agency) {
        let remark = "is of another authority than the agency's and was left as it is: its clients know that authority";
        renewed.remarks.push(format!("{} {remark}", certificate.display()));
        return Ok(());
    }
    let address = facts::read(&certificate).ok().and_then(|facts| facts.addresses.first().copied());
    let leaf = Leaf::Channel(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let key = fs::read_to_string(directory.join("node.key")).ok();
    let issued = agency.channel.issue(name, &leaf, renewal.source(key.as_deref()))?;
    replace_all(&[
        (directory.join("ca.crt"), Content::Public(&agency.channel.credential.certificate)),
        (directory.join("node.key"), Content::Secret(&issued.key)),
        (certificate.clone(), Content::Public(&issued.certificate)),
    ])?;
    renewed.files.push(certificate);
    Ok(())
}

/// Whether a `ca.crt` is the agency's channel authority, now or before it was renewed.
fn is_issued_by(authority: &Path, agency: &Agency) -> bool {
    let own = facts::parse(agency.channel.credential.certificate.as_bytes());
    let same = |(one, other): (Facts, Facts)| one.public_key == other.public_key;
    facts::read(authority).ok().zip(own.ok()).is_some_and(same)
}

fn directory_name(directory: &Path) -> String {
    let full = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "node".into())
}

/// The id in `node.nodeid`; the key itself need not be here.
fn node_id(conf: &Path) -> Result<NodeId, Fault> {
    let file = conf.join("node.nodeid");
    NodeId::parse(read_text(&file)?.trim()).map_err(|_| {
        let what = format!("{} holds no node id", file.display());
        Fault::new(FaultKind::Config, what, "it has 128 hexadecimal digits; restore it from the node's backup")
    })
}
