//! TLS of the channel port: version 1.2, certificates on both sides, key exchange over secp256k1 besides the usual curves
//! (`spec/client-protocol.md` 4.4).
//!
//! Version 1.3 is not offered: Node.js 14 and 16 with the settings of nodejs-sdk would choose it and then find no common curve. The
//! certificates are the RSA ones that `millrace chain build` writes to `conf/channel_cert`. Hosts are not checked, as no SDK does.

pub mod explain;
mod secp256k1_group;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_base::fault::{Fault, FaultKind};
use millrace_base::hex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::access::Identity;
pub use secp256k1_group::SECP256K1;
use verifier::SdkVerifier;
pub use verifier::{IssuerRule, take_refused};

/// Files of the channel port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// `ca.crt`: whom clients' certificates must come from.
    pub authority: PathBuf,
    /// `node.crt`: the port's certificate, its issuers behind it.
    pub certificate: PathBuf,
    /// `node.key`.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The usual names in a directory (`conf/channel_cert`).
    pub fn in_directory(directory: &Path) -> Self {
        let file = |name: &str| directory.join(name);
        Self { authority: file("ca.crt"), certificate: file("node.crt"), key: file("node.key") }
    }
}

/// Cryptography of the channel port: the library's, with secp256k1 as one more curve to exchange keys over. The fast curves come first;
/// clients that know only secp256k1 get it.
pub fn provider() -> CryptoProvider {
    let usual = [aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = usual.into_iter().chain([SECP256K1]).collect();
    provider
}

/// The port's side of TLS, ready for use.
pub type PortTls = Arc<ServerConfig>;

/// The port's side of TLS.
pub fn server_config(files: &TlsFiles, rule: IssuerRule) -> Result<PortTls, Fault> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, "key", &error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.authority)? {
        roots.add(root).map_err(|error| unusable(&files.authority, "certificate", &error.to_string()))?;
    }
    let provider = Arc::new(provider());
    let verifier = SdkVerifier::new(roots, Arc::clone(&provider), &chain[0], rule)
        .map_err(|error| unusable(&files.authority, "certificate", &error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("the provider has suites and curves for version 1.2")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key);
    let mut config =
        config.map_err(|error| unusable(&files.certificate, "certificate", &format!("{error} (with {})", files.key.display())))?;
    // A session that is taken up again would skip the check of its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn unusable(path: &Path, what: &str, reason: &str) -> Fault {
    Fault::new(
        FaultKind::Config,
        format!("the {what} {} of the channel port cannot be used: {reason}", path.display()),
        "restore conf/channel_cert from a backup, or have the agency issue it again; it holds ca.crt, node.crt and node.key in PEM form",
    )
}

/// The certificates of a PEM file; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(path, "certificate", "it has no certificate in PEM form")),
        Err(error) => Err(unusable(path, "certificate", &error.to_string())),
    }
}

/// Who a client is, from the certificate it has shown and proven.
pub fn identity(certificate: &CertificateDer<'_>) -> Identity {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Identity::default() };
    let record = parsed.public_key();
    let point = record.subject_public_key.data.as_ref();
    let key = match point {
        [4, coordinates @ ..] if coordinates.len() == 64 => hex::encode(coordinates),
        _ => hex::encode(Sha256::digest(record.raw)),
    };
    Identity { key, subject: parsed.subject().to_string(), issuer: parsed.issuer().to_string() }
}
