//! Certificates as `millrace chain build` makes them, and all that a port must refuse.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

use crate::channel::tls::{self, IssuerRule, TlsFiles};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Credential {
    pub pem: String,
    pub key: String,
}

pub struct Pki {
    directory: TempDir,
    pub authority: Authority,
    pub sdk: Credential,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let mut parameters = parameters(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    pub fn issue(&self, name: &str, adapt: impl FnOnce(&mut CertificateParams)) -> Credential {
        self.issue_for(name, KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), adapt)
    }

    pub fn issue_for(&self, name: &str, key: KeyPair, adapt: impl FnOnce(&mut CertificateParams)) -> Credential {
        let mut parameters = parameters(name);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        adapt(&mut parameters);
        let pem = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        Credential { pem, key: key.serialize_pem() }
    }
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2120, 1, 1);
    parameters
}

/// What a client brings.
#[derive(Clone)]
pub struct ClientOptions {
    pub authority: String,
    pub credential: Option<Credential>,
    /// The curves it offers, or those of the library.
    pub only_secp256k1: bool,
}

impl Pki {
    pub fn get() -> &'static Self {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(Self::new)
    }

    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("agency");
        let node = authority.issue("node0", |parameters| {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            parameters.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
        });
        for (name, content) in [("ca.crt", &authority.pem), ("node.crt", &node.pem), ("node.key", &node.key)] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let sdk = authority.issue("sdk", |_| {});
        Self { directory, authority, sdk }
    }

    pub fn files(&self) -> TlsFiles {
        TlsFiles::in_directory(self.directory.path())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        tls::server_config(&self.files(), IssuerRule::SameIssuer).unwrap()
    }

    pub fn options(&self) -> ClientOptions {
        ClientOptions { authority: self.authority.pem.clone(), credential: Some(self.sdk.clone()), only_secp256k1: true }
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        Arc::clone(CLIENT.get_or_init(|| self.options().config()))
    }
}

/// A key on P-256.
pub fn p256_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

impl ClientOptions {
    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let mut provider = tls::provider();
        if self.only_secp256k1 {
            provider.kx_groups = vec![tls::SECP256K1];
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match &self.credential {
            None => builder.with_no_client_auth(),
            Some(credential) => {
                let chain = CertificateDer::pem_slice_iter(credential.pem.as_bytes()).collect::<Result<_, _>>().unwrap();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).unwrap()).unwrap()
            }
        })
    }
}
