//! Certificates of a chain: made by `chain build` and the commands that extend a chain; read through [`facts`].
//!
//! Two families, as in 2.x: the P2P side (chain CA, agency CAs, node certificates with P-256 keys that name the node's id) and the
//! channel side (an RSA-2048 CA an agency, node and SDK certificates), both X.509 v3 so that every TLS library checks them
//! (`spec/client-protocol.md` 4.4, 4.5). Nothing is downloaded. A node's identity is its secp256k1 key, never a certificate's.
//!
//! Invariants: no certificate outlives its issuer; no two certificates of one issuer have the same serial number, renewed ones included.

pub mod facts;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use millrace_base::NodeId;
use millrace_base::fault::{Fault, FaultKind};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as TlsKey, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SanType, SerialNumber, string::Ia5String,
};

pub use facts::{Facts, expiry, expiry_note, read};

/// A day's tolerance towards machines whose clocks run behind the one that made the certificates.
const BACKDATE: Duration = Duration::from_secs(86_400);

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

/// Which key a certificate gets.
#[derive(Clone, Copy)]
pub enum KeySource<'a> {
    /// A new one.
    New,
    /// One that is there, as PEM: renewing leaves it as it is.
    Kept(&'a str),
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
    name: String,
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
    pub fn root(name: &str, algorithm: Algorithm, validity: Validity, key: KeySource<'_>) -> Result<Self, Fault> {
        let key = key_of(algorithm, key)?;
        let parameters = authority_parameters(name, validity, BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).map_err(failed)?.pem();
        let credential = Credential { certificate, key: key.serialize_pem() };
        Ok(Self { name: name.to_owned(), issuer: Issuer::new(parameters, key), algorithm, credential, validity })
    }

    /// An authority below this one, whose own issues are leaves only.
    pub fn intermediate(&self, name: &str, key: KeySource<'_>) -> Result<Self, Fault> {
        let key = key_of(self.algorithm, key)?;
        let parameters = authority_parameters(name, self.validity, BasicConstraints::Constrained(0));
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        let credential = Credential { certificate, key: key.serialize_pem() };
        let (algorithm, validity) = (self.algorithm, self.validity);
        Ok(Self { name: name.to_owned(), issuer: Issuer::new(parameters, key), algorithm, credential, validity })
    }

    /// An authority that was made earlier. What it issues is valid as long as asked for, but never longer than itself.
    ///
    /// # Errors
    /// Text that is no authority, or a certificate and a key that do not belong together; the text names neither file.
    pub fn load(credential: Credential, validity: Validity) -> Result<Self, String> {
        let facts = facts::parse(credential.certificate.as_bytes())?;
        if !facts.is_authority {
            return Err("the certificate is not one of an authority".into());
        }
        let key = TlsKey::from_pem(&credential.key).map_err(|_| "the key is no PKCS#8 private key in PEM form, or of an unknown kind")?;
        let algorithm = match () {
            () if key.is_compatible(&PKCS_ECDSA_P256_SHA256) => Algorithm::P256,
            () if key.is_compatible(&PKCS_RSA_SHA256) => Algorithm::Rsa2048,
            () => return Err("the key is neither P-256 nor RSA".into()),
        };
        if key.subject_public_key_info() != facts.public_key {
            return Err("the key does not belong to the certificate".into());
        }
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(facts.until_s.try_into().unwrap_or(0));
        if end <= SystemTime::now() {
            return Err("the authority's certificate has ended".into());
        }
        let issuer = Issuer::from_ca_cert_pem(&credential.certificate, key).map_err(|error| error.to_string())?;
        Ok(Self { name: facts.subject, issuer, algorithm, credential, validity: Validity { until: validity.until.min(end), ..validity } })
    }

    /// Subject CN.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A leaf. Its certificate file holds the leaf alone; [`Self::issue_with_chain`] adds this authority's certificate.
    pub fn issue(&self, name: &str, leaf: &Leaf, key: KeySource<'_>) -> Result<Credential, Fault> {
        let key = key_of(self.algorithm, key)?;
        let mut parameters = leaf_parameters(name, leaf, self.algorithm, self.validity)?;
        if let Leaf::Peer(_) = leaf {
            parameters.distinguished_name.push(DnType::OrganizationName, self.name.as_str());
        }
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Credential { certificate, key: key.serialize_pem() })
    }

    /// A leaf followed by this authority's certificate, as 2.x writes `node.crt`.
    pub fn issue_with_chain(&self, name: &str, leaf: &Leaf, key: KeySource<'_>) -> Result<Credential, Fault> {
        let mut credential = self.issue(name, leaf, key)?;
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

fn key_of(algorithm: Algorithm, source: KeySource<'_>) -> Result<TlsKey, Fault> {
    let wanted = match algorithm {
        Algorithm::P256 => &PKCS_ECDSA_P256_SHA256,
        Algorithm::Rsa2048 => &PKCS_RSA_SHA256,
    };
    match source {
        KeySource::New => TlsKey::generate_for(wanted).map_err(failed),
        KeySource::Kept(pem) => TlsKey::from_pem(pem).ok().filter(|key| key.is_compatible(wanted)).ok_or_else(|| {
            let what = "the key that is to be kept is damaged or of another kind than the authority's";
            Fault::new(FaultKind::Config, what, "restore it from a backup, or renew with --new-key")
        }),
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
    // By default the number would follow from the key, and a certificate renewed with its key would have its predecessor's.
    let serial: [u8; 16] = rand::random();
    parameters.serial_number = Some(SerialNumber::from_slice(&[&[0x4d], &serial[..]].concat()));
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
