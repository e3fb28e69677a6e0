//! TLS between nodes: version 1.3, certificates of the chain's authority on both sides, no resumption (a resumed session would skip the
//! check of the certificate). Hosts are not checked: a node is its node id, wherever it runs.

pub(crate) mod explain;
pub(crate) mod verifier;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use millrace_base::NodeId;
use millrace_base::fault::{Fault, FaultKind};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::limits::MAX_NAME_CHARS;
use verifier::PeerVerifier;

/// What the URI in a node's certificate starts with; the node id follows.
pub const NODE_URI_PREFIX: &str = "urn:millrace:node:";

/// A node's P2P certificate with what belongs to it. Its `Debug` form never shows the key.
pub struct TlsMaterial {
    /// The node's certificate, then its issuers up to below the chain's authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's private key.
    pub key: PrivateKeyDer<'static>,
    /// The chain's authorities: whom peers' certificates must come from.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Clone for TlsMaterial {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), authorities: self.authorities.clone() }
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsMaterial({} certificates, {} authorities)", self.chain.len(), self.authorities.len())
    }
}

impl TlsMaterial {
    /// Reads `conf/p2p.crt`, `conf/p2p.key` and `conf/p2p-ca.crt`.
    pub fn from_files(certificate: &Path, key: &Path, authority: &Path) -> Result<Self, Fault> {
        let chain = certificates(CertificateDer::pem_file_iter(certificate), &certificate.display())?;
        let authorities = certificates(CertificateDer::pem_file_iter(authority), &authority.display())?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(&format!("the key {}: {error}", key.display())))?;
        Ok(Self { chain, key, authorities })
    }

    /// From texts in PEM form.
    pub fn from_pem(certificate: &str, key: &str, authority: &str) -> Result<Self, Fault> {
        let chain = certificates(Ok(CertificateDer::pem_slice_iter(certificate.as_bytes())), &"of the node")?;
        let authorities = certificates(Ok(CertificateDer::pem_slice_iter(authority.as_bytes())), &"of the authority")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&format!("the key: {error}")))?;
        Ok(Self { chain, key, authorities })
    }
}

type PemError = rustls::pki_types::pem::Error;

fn certificates(
    read: Result<impl Iterator<Item = Result<CertificateDer<'static>, PemError>>, PemError>,
    name: &dyn fmt::Display,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    match read.and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(&format!("the certificate {name}: it has no certificate in PEM form"))),
        Err(error) => Err(unusable(&format!("the certificate {name}: {error}"))),
    }
}

fn unusable(what: &str) -> Fault {
    Fault::new(
        FaultKind::Config,
        format!("the P2P port cannot be opened with {what}"),
        "restore p2p.crt, p2p.key and p2p-ca.crt below conf from a backup, or have the agency issue them again for this node's id",
    )
}

/// Both sides' configuration, made from one material.
#[derive(Clone)]
pub(crate) struct TlsConfigs {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// Checks what can be checked before a peer does: that key and certificate belong together, that the certificate names this node
    /// and comes from the authority. One that has ended is only mentioned: peers refuse it, and the node's other ports work on.
    pub fn new(material: &TlsMaterial, own: &NodeId) -> Result<Self, Fault> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Self::verifier(material, &provider)?;
        Self::check_own(material, &verifier, own)?;
        let versions = [&rustls::version::TLS13];
        let mismatch = |error: Error| unusable(&format!("this certificate and key: {error}"));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .expect("the provider serves version 1.3")
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_single_cert(material.chain.clone(), material.key.clone_key())
            .map_err(mismatch)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .expect("the provider serves version 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
            .map_err(mismatch)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    fn verifier(material: &TlsMaterial, provider: &Arc<CryptoProvider>) -> Result<Arc<PeerVerifier>, Fault> {
        let refused = |error: &dyn fmt::Display| unusable(&format!("the authorities of conf/p2p-ca.crt: {error}"));
        let mut roots = RootCertStore::empty();
        for root in &material.authorities {
            roots.add(root.clone()).map_err(|error| refused(&error))?;
        }
        PeerVerifier::new(Arc::new(roots), Arc::clone(provider)).map(Arc::new).map_err(|error| refused(&error))
    }

    fn check_own(material: &TlsMaterial, verifier: &PeerVerifier, own: &NodeId) -> Result<(), Fault> {
        let (leaf, issuers) = material.chain.split_first().ok_or_else(|| unusable("an empty certificate chain"))?;
        let described = explain::describe(leaf);
        let names = PeerNames::read(leaf).ok_or_else(|| unusable(&format!("a certificate that names no node id ({described})")))?;
        if names.node_id != *own {
            let what = format!("the certificate of another node: it names {}, and this node's key is of {own}", names.node_id);
            return Err(unusable(&what));
        }
        match verifier.check(leaf, issuers, UnixTime::now()) {
            Ok(()) => Ok(()),
            Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                tracing::error!("this node's P2P certificate has ended ({described}): peers refuse it; have the agency issue a new one");
                Ok(())
            }
            Err(error) => {
                let reason = explain::explain(&error).reason;
                Err(unusable(&format!("this node's own certificate: {reason} ({described})")))
            }
        }
    }
}

/// Who a certificate is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PeerNames {
    /// From the URI.
    pub node_id: NodeId,
    /// Common name: the node's.
    pub name: String,
    /// Organization: the agency's.
    pub agency: String,
    /// The whole subject.
    pub subject: String,
}

impl PeerNames {
    /// `None` when it is no certificate of a node: it must name exactly one node id.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let alternatives = parsed.subject_alternative_name().ok()??;
        let mut ids = alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(NODE_URI_PREFIX),
            _ => None,
        });
        let id = ids.next()?;
        if ids.next().is_some() || id.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return None;
        }
        let subject = parsed.subject();
        Some(Self {
            node_id: NodeId::parse(id).ok()?,
            name: first(subject.iter_common_name()),
            agency: first(subject.iter_organization()),
            subject: printable(&subject.to_string()),
        })
    }
}

fn first<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> String {
    printable(values.next().and_then(|value| value.as_str().ok()).unwrap_or_default())
}

/// Text of a certificate, short and without characters that would disturb a log.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).take(MAX_NAME_CHARS).collect()
}

/// A name of a certificate as text.
pub(crate) fn name_text(name: &X509Name<'_>) -> String {
    printable(&name.to_string())
}
