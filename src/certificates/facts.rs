//! What certificates say: read by the node for its names, by `chain show`, `doctor p2p` and the metrics for what ends when.
//!
//! Invariant: reading changes nothing, and its cost is bounded by the size of a file and the number of files. Signatures are not
//! checked here: TLS does that, and `doctor p2p` asks it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millrace_base::NodeId;
use millrace_base::fault::{Fault, FaultKind};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::x509::X509Name;

use super::NODE_URI_PREFIX;

/// Days before its end from which on a certificate is mentioned in the log and by `chain show`.
pub const WARN_DAYS: i64 = 30;

/// Largest certificate file, in bytes: a chain of two has below 4 KB.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// Most certificates of one file that are looked at: leaf, agency, chain, and some room.
const MAX_CHAIN: usize = 16;

/// How deep below a directory certificates are looked for: chain, machine, node, conf, channel_cert.
const MAX_DEPTH: usize = 6;

/// Most certificates that are looked for: some for each of the nodes one build makes.
const MAX_FILES: usize = 20_000;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// What one certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Subject CN: the name of a node, agency or client.
    pub subject: String,
    /// Subject O: for a node's P2P certificate, the agency.
    pub organization: String,
    /// Issuer CN: the agency's name.
    pub issuer: String,
    /// The node id in its URI, if it has one.
    pub node_id: Option<NodeId>,
    /// The addresses it is made out to.
    pub addresses: Vec<IpAddr>,
    /// Begin of validity, seconds since 1970.
    pub from_s: i64,
    /// End of validity, seconds since 1970.
    pub until_s: i64,
    /// Whether it may issue certificates.
    pub is_authority: bool,
    /// Its public key with the kind of the key (SubjectPublicKeyInfo, DER).
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Whole days until its end; negative when it has ended.
    pub fn days_left(&self) -> i64 {
        (self.until_s - now_s()).div_euclid(DAY_S)
    }
}

/// Seconds since 1970 by this machine's clock.
pub fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Reads the first certificate of a PEM file: the leaf of a chain.
pub fn read(path: &Path) -> Result<Facts, Fault> {
    parse(&bytes_of(path)?).map_err(|reason| unusable(path, &reason))
}

/// Reads all certificates of a PEM file, leaf first; at least one.
pub fn read_chain(path: &Path) -> Result<Vec<Facts>, Fault> {
    let bytes = bytes_of(path)?;
    let chain: Result<Vec<Facts>, String> = Pem::iter_from_buffer(&bytes).take(MAX_CHAIN).map(|pem| parse_block(&pem.ok())).collect();
    match chain.map_err(|reason| unusable(path, &reason))? {
        chain if chain.is_empty() => Err(unusable(path, "it has no PEM block")),
        chain => Ok(chain),
    }
}

/// The first certificate in PEM text; the error says what it lacks.
pub fn parse(pem: &[u8]) -> Result<Facts, String> {
    let first = Pem::iter_from_buffer(pem).next().ok_or("it has no PEM block")?;
    parse_block(&first.ok())
}

fn parse_block(pem: &Option<Pem>) -> Result<Facts, String> {
    let pem = pem.as_ref().ok_or("it is not PEM")?;
    let certificate = pem.parse_x509().map_err(|_| "it is not an X.509 certificate")?;
    let common = |name: &X509Name<'_>| name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default().to_owned();
    let organization = certificate.subject().iter_organization().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    Ok(Facts {
        subject: common(certificate.subject()),
        organization: organization.to_owned(),
        issuer: common(certificate.issuer()),
        node_id: node_id(&certificate),
        addresses: addresses(&certificate),
        from_s: certificate.validity().not_before.timestamp(),
        until_s: certificate.validity().not_after.timestamp(),
        is_authority: certificate.is_ca(),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

fn node_id(certificate: &X509Certificate<'_>) -> Option<NodeId> {
    let names = certificate.subject_alternative_name().ok().flatten()?;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => NodeId::parse(uri.strip_prefix(NODE_URI_PREFIX)?).ok(),
        _ => None,
    })
}

fn addresses(certificate: &X509Certificate<'_>) -> Vec<IpAddr> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let address = |name: &GeneralName<'_>| match name {
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
        },
        _ => None,
    };
    names.map(|names| names.value.general_names.iter().filter_map(address).collect()).unwrap_or_default()
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, Fault> {
    let unreadable = |error: std::io::Error| unusable(path, &error.to_string());
    match fs::metadata(path).map_err(unreadable)?.len() {
        0..=MAX_FILE_BYTES => fs::read(path).map_err(unreadable),
        _ => Err(unusable(path, "it is too large")),
    }
}

fn unusable(path: &Path, reason: &str) -> Fault {
    Fault::new(
        FaultKind::Config,
        format!("the certificate {} cannot be used: {reason}", path.display()),
        "restore it from a backup, or have the agency issue a new one; it must be an X.509 certificate in PEM form",
    )
}

/// A remark for the log when a certificate has ended or is near its end.
pub fn expiry_note(path: &Path, facts: &Facts) -> Option<String> {
    let remedy = "have the agency issue a new one with `millrace chain renew`";
    match facts.days_left() {
        days @ ..0 => Some(format!("the certificate {} ended {} days ago; {remedy}", path.display(), -days)),
        days @ 0..WARN_DAYS => Some(format!("the certificate {} ends in {days} days; {remedy}", path.display())),
        _ => None,
    }
}

/// The certificates of a node's directory, each with the days until the first of its chain ends (negative: ended), by path below the
/// directory (`conf/p2p.crt`), ascending. Files that cannot be read are left out: the node's start and `doctor p2p` name them.
pub fn expiry(node_directory: &Path) -> Vec<(String, i64)> {
    let days = |path: &PathBuf| read_chain(path).ok()?.iter().map(Facts::days_left).min();
    let name = |path: &PathBuf| path.strip_prefix(node_directory).unwrap_or(path).display().to_string();
    find(node_directory).iter().filter_map(|path| Some((name(path), days(path)?))).collect()
}

/// The certificate files (`*.crt`) below a directory, sorted; at most some thousands, links to directories are not followed.
pub fn find(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < MAX_DEPTH && entry.file_name() != "data" => open.push((path, depth + 1)),
                Ok(kind) if !kind.is_dir() && path.extension().is_some_and(|extension| extension == "crt") => found.push(path),
                _ => {}
            }
            if found.len() >= MAX_FILES || open.len() >= MAX_FILES {
                break;
            }
        }
    }
    found.sort();
    found
}
