//! Words for failed handshakes between nodes: what happened, whose certificate it was, and what to do about it.

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::name_text;

/// A failure in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Explanation {
    pub reason: String,
    pub remedy: &'static str,
}

fn explanation(reason: impl Into<String>, remedy: &'static str) -> Explanation {
    Explanation { reason: reason.into(), remedy }
}

/// Subject, issuer and validity of a certificate, for people.
pub(crate) fn describe(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => format!(
            "subject \"{}\", issuer \"{}\", valid from {} until {}",
            name_text(parsed.subject()),
            name_text(parsed.issuer()),
            parsed.validity().not_before,
            parsed.validity().not_after
        ),
        Err(_) => format!("{} bytes that are no X.509 certificate", certificate.len()),
    }
}

/// Explains what ended a handshake.
pub(crate) fn explain(error: &Error) -> Explanation {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => {
            explanation("the other end showed no certificate", "only nodes of the chain connect here; SDKs use the channel port")
        }
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::PeerIncompatible(why) => {
            explanation(format!("the ends have no version or algorithm of TLS in common ({why:?})"), "nodes speak TLS 1.3 with each other")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            explanation("what the other end sent is not TLS", "check that the address under [p2p] is a P2P port")
        }
        other => explanation(other.to_string(), "check that nothing between the machines changes the traffic"),
    }
}

fn certificate(error: &CertificateError) -> Explanation {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            explanation("the other node's certificate has ended", "have its agency issue a new one, and check the clocks of both machines")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            explanation("the other node's certificate is not valid yet", "check the clocks of both machines")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => explanation(
            "the certificate does not come from the chain's authority in conf/p2p-ca.crt",
            "compare p2p-ca.crt of both nodes; their agencies must belong to one chain, and p2p.crt must contain the agency's certificate",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            explanation("the certificate is meant for another use", "nodes show conf/p2p.crt, not a certificate of the channel port")
        }
        CertificateError::ApplicationVerificationFailure => explanation(
            "the certificate names no node id (URI urn:millrace:node:<128 digits>)",
            "have the agency issue p2p.crt again with `millrace chain`, for the node's id",
        ),
        other => explanation(format!("the certificate is refused: {other}"), "use certificates that `millrace chain build` made"),
    }
}

fn alert_received(alert: AlertDescription) -> Explanation {
    match alert {
        AlertDescription::CertificateExpired => explanation(
            "the other node says that this node's certificate is not valid now",
            "have the agency issue a new one, and check the clocks of both machines",
        ),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError => explanation(
            format!("the other node refuses this node's certificate ({alert:?})"),
            "compare p2p-ca.crt of both nodes; the other node's log names what it refused and why",
        ),
        AlertDescription::CertificateRequired => {
            explanation("the other node requires a certificate", "start this node with conf/p2p.crt and conf/p2p.key")
        }
        other => explanation(format!("the other node ended the handshake: {other:?}"), "look into the log of the other node"),
    }
}
