//! Certificates of a chain: made by `chain build`, and read by the node for the names in them.
//!
//! Two families, as in 2.x: the P2P side (chain CA, agency CAs, node certificates with P-256 keys that name the node's id) and the
//! channel side (an RSA-2048 CA an agency, node and SDK certificates), both X.509 v3 so that every TLS library checks them
//! (`spec/client-protocol.md` 4.4, 4.5). Nothing is downloaded. A node's identity is its secp256k1 key, never a certificate's.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use millrace_base::NodeId;
use millrace_base::fault::{Fault, FaultKind};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as TlsKey, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType, string::Ia5String,
};
use x509_parser::pem::Pem;
use x509_parser::x509::X509Name;

/// A day's tolerance towards machines whose clocks run behind the one that made the certificates.
const BACKDATE: Duration = Duration::from_secs(86_400);

/// Days before its end at which a certificate is mentioned in the log.
const WARN_DAYS: i64 = 60;

/// What the URI in a node's P2P certificate starts with; the node id follows.
pub const NODE_URI_PREFIX: &str = "urn:millrace:node:";

/// A certificate (with its issuers, leaf first) and its private key, both PEM.
#[derive(Clone)]
pub struct Credential {
    /// Certificate chain.
    pub certificate: String,
    /// PKCS#8 private key.
    pub key: String,
}

/// Which kind of keys a family of certificates has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// ECDSA over P-256.
    P256,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// What a leaf certificate is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// A node towards its peers; named by its node id.
    Peer(NodeId),
    /// A node's channel port, reachable under this address.
    Channel(IpAddr),
    /// A client of channel ports.
    Sdk,
}

/// A certificate authority that issues certificates.
pub struct Authority {
    issuer: Issuer<'static, TlsKey>,
    algorithm: Algorithm,
    /// This authority's certificate and key.
    pub credential: Credential,
    validity: Validity,
}

/// From when until when new certificates are valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    from: SystemTime,
    until: SystemTime,
}

impl Validity {
    /// From a day ago, for `days`; at most about 270 years.
    pub fn days(days: u32) -> Self {
        let now = SystemTime::now();
        Self { from: now - BACKDATE, until: now + Duration::from_secs(86_400 * u64::from(days.min(100_000))) }
    }
}

impl Authority {
    /// A self-signed root.
    pub fn root(name: &str, algorithm: Algorithm, validity: Validity) -> Result<Self, Fault> {
        let key = generate(algorithm)?;
        let parameters = authority_parameters(name, validity, BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).map_err(failed)?.pem();
        let credential = Credential { certificate, key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(parameters, key), algorithm, credential, validity })
    }

    /// An authority below this one, whose own issues are leaves only.
    pub fn intermediate(&self, name: &str) -> Result<Self, Fault> {
        let key = generate(self.algorithm)?;
        let parameters = authority_parameters(name, self.validity, BasicConstraints::Constrained(0));
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        let credential = Credential { certificate, key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(parameters, key), algorithm: self.algorithm, credential, validity: self.validity })
    }

    /// A leaf. Its certificate file holds the leaf alone; [`Self::issue_with_chain`] adds this authority's certificate.
    pub fn issue(&self, name: &str, leaf: &Leaf) -> Result<Credential, Fault> {
        let key = generate(self.algorithm)?;
        let parameters = leaf_parameters(name, leaf, self.algorithm, self.validity)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Credential { certificate, key: key.serialize_pem() })
    }

    /// A leaf followed by this authority's certificate, as 2.x writes `node.crt`.
    pub fn issue_with_chain(&self, name: &str, leaf: &Leaf) -> Result<Credential, Fault> {
        let mut credential = self.issue(name, leaf)?;
        credential.certificate.push_str(&self.credential.certificate);
        Ok(credential)
    }
}

fn failed(error: rcgen::Error) -> Fault {
    Fault::new(
        FaultKind::Operation,
        format!("cannot make a certificate: {error}"),
        "check the chain's and agencies' names: letters, digits, - and _ only",
    )
}

fn generate(algorithm: Algorithm) -> Result<TlsKey, Fault> {
    match algorithm {
        Algorithm::P256 => TlsKey::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed),
        Algorithm::Rsa2048 => TlsKey::generate_for(&PKCS_RSA_SHA256).map_err(failed),
    }
}

fn base_parameters(name: &str, validity: Validity) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = validity.from.into();
    parameters.not_after = validity.until.into();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.distinguished_name.push(DnType::OrganizationName, "millrace");
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn authority_parameters(name: &str, validity: Validity, constraints: BasicConstraints) -> CertificateParams {
    let mut parameters = base_parameters(name, validity);
    parameters.is_ca = IsCa::Ca(constraints);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn leaf_parameters(name: &str, leaf: &Leaf, algorithm: Algorithm, validity: Validity) -> Result<CertificateParams, Fault> {
    let mut parameters = base_parameters(name, validity);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = match algorithm {
        Algorithm::P256 => vec![KeyUsagePurpose::DigitalSignature],
        Algorithm::Rsa2048 => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
    };
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    match leaf {
        Leaf::Peer(id) => {
            parameters.extended_key_usages = vec![server, client];
            let uri: Ia5String = format!("{NODE_URI_PREFIX}{id}").try_into().map_err(failed)?;
            parameters.subject_alt_names = vec![SanType::URI(uri)];
        }
        Leaf::Channel(address) => {
            parameters.extended_key_usages = vec![server];
            let host: Ia5String = String::from("localhost").try_into().map_err(failed)?;
            parameters.subject_alt_names = vec![SanType::IpAddress(*address), SanType::DnsName(host)];
        }
        Leaf::Sdk => parameters.extended_key_usages = vec![client],
    }
    Ok(parameters)
}

/// What a node's certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// Subject CN: the node's name.
    pub subject: String,
    /// Issuer CN: the agency's name.
    pub issuer: String,
    /// End of validity, seconds since 1970.
    pub until_s: i64,
}

/// Reads the first certificate of a PEM file.
pub fn read_names(path: &Path) -> Result<Names, Fault> {
    let fault = |reason: String| {
        Fault::new(
            FaultKind::Config,
            format!("the certificate {} cannot be used: {reason}", path.display()),
            "restore it from a backup, or have the agency issue a new one; it must be an X.509 certificate in PEM form",
        )
    };
    let bytes = fs::read(path).map_err(|error| fault(error.to_string()))?;
    let first = Pem::iter_from_buffer(&bytes).next();
    let pem = first.ok_or_else(|| fault("it has no PEM block".into()))?.map_err(|_| fault("it is not PEM".into()))?;
    let certificate = pem.parse_x509().map_err(|_| fault("it is not an X.509 certificate".into()))?;
    let name = |name: &X509Name<'_>| name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default().to_owned();
    let until_s = certificate.validity().not_after.timestamp();
    Ok(Names { subject: name(certificate.subject()), issuer: name(certificate.issuer()), until_s })
}

/// A remark for the log when a certificate has ended or is near its end.
pub fn expiry_note(path: &Path, names: &Names) -> Option<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let days = (names.until_s - i64::try_from(now.as_secs()).unwrap_or(i64::MAX)).div_euclid(86_400);
    match days {
        ..0 => Some(format!("the certificate {} ended {} days ago; have the agency issue a new one", path.display(), -days)),
        0..=WARN_DAYS => Some(format!("the certificate {} ends in {days} days; have the agency issue a new one", path.display())),
        _ => None,
    }
}
