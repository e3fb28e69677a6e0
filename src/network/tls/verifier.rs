//! Checks peers' certificates, whichever side of the connection they are on: a chain to one of the authorities, valid now, meant for
//! that side, and naming a node id.
//!
//! The library reports a code without the certificate. What the certificate says is kept for the log of the thread that runs the
//! handshake; the connection takes it up when the handshake has failed.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::{PeerNames, explain};

thread_local! {
    /// The last certificate that was refused on this thread, in words.
    static REFUSED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Subject and issuer of the certificate that this thread refused last; taken by reading.
pub(crate) fn take_refused() -> Option<String> {
    REFUSED.take()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    pub fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Self, VerifierBuilderError> {
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        Ok(Self { roots, provider, clients })
    }

    /// Whether peers would accept this certificate on a listening port.
    pub fn check(&self, leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, issuers, now, algorithms)?;
        names_a_node(leaf)
    }
}

fn names_a_node(leaf: &CertificateDer<'_>) -> Result<(), Error> {
    match PeerNames::read(leaf) {
        Some(_) => Ok(()),
        None => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

fn remembered<T>(checked: Result<T, Error>, leaf: &CertificateDer<'_>) -> Result<T, Error> {
    if checked.is_err() {
        REFUSED.replace(Some(explain::describe(leaf)));
    }
    checked
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        remembered(self.check(leaf, issuers, now), leaf).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(leaf, issuers, now);
        remembered(verified.and_then(|verified| names_a_node(leaf).map(|()| verified)), leaf)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}
