//! Checks clients' certificates: the library's checks against the port's authority, then the rule that client and node come from the same
//! agency (`network_security.check_cert_issuer`, `spec/client-protocol.md` 3.9).
//!
//! The library reports a code without the certificate. What the certificate says is kept for the log of the thread that runs the
//! handshake; the event loop takes it up when the handshake has failed.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Whether clients must come from the node's own agency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IssuerRule {
    /// The issuer of a client's certificate must be the issuer of the node's.
    SameIssuer,
    /// Any client of the authority is let in.
    AnyIssuer,
}

thread_local! {
    /// The last certificate that was refused on this thread, in words.
    static REFUSED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Subject and issuer of the certificate that this thread refused last; taken by reading.
pub fn take_refused() -> Option<String> {
    REFUSED.take()
}

/// See the module.
#[derive(Debug)]
pub struct SdkVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// Issuer of the node's certificate, in DER.
    own_issuer: Vec<u8>,
    rule: IssuerRule,
}

impl SdkVerifier {
    /// For a node whose certificate is `own`.
    pub fn new(
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
        own: &CertificateDer<'_>,
        rule: IssuerRule,
    ) -> Result<Self, VerifierBuilderError> {
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        let own_issuer = X509Certificate::from_der(own).map(|(_, parsed)| parsed.issuer().as_raw().to_vec()).unwrap_or_default();
        Ok(Self { inner, own_issuer, rule })
    }

    fn check_issuer(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        // As in 2.x the rule is for leaves that say they are leaves.
        let is_leaf = parsed.basic_constraints().is_ok_and(|found| found.is_some_and(|constraints| !constraints.value.ca));
        match self.rule == IssuerRule::SameIssuer && is_leaf && parsed.issuer().as_raw() != self.own_issuer {
            true => Err(CertificateError::ApplicationVerificationFailure.into()),
            false => Ok(()),
        }
    }
}

impl ClientCertVerifier for SdkVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now);
        let checked = verified.and_then(|verified| self.check_issuer(leaf).map(|()| verified));
        if checked.is_err() {
            REFUSED.replace(Some(super::explain::describe(leaf)));
        }
        checked
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let checked = self.inner.verify_tls12_signature(message, certificate, signature);
        if checked.is_err() {
            REFUSED.replace(Some(super::explain::describe(certificate)));
        }
        checked
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
