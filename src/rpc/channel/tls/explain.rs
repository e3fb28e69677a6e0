//! Words for failed handshakes: what happened, whose certificate it was, and what to do about it. Shared by the node's log and by
//! `millrace doctor tls`, which sees the other side of the same failure.

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A failure in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// What happened.
    pub reason: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; what to do: {}", self.reason, self.remedy)
    }
}

fn explanation(reason: impl Into<String>, remedy: &'static str) -> Explanation {
    Explanation { reason: reason.into(), remedy }
}

/// Which end of the connection the failure is explained to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The node: the other end is a client.
    Node,
    /// The client: the other end is a node.
    Client,
}

/// Subject, issuer and validity of a certificate, for people.
pub fn describe(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => format!(
            "certificate version {}, subject \"{}\", issuer \"{}\", valid from {} until {}",
            parsed.version().0 + 1,
            parsed.subject(),
            parsed.issuer(),
            parsed.validity().not_before,
            parsed.validity().not_after
        ),
        Err(_) => format!("{} bytes that are no X.509 certificate", certificate.len()),
    }
}

/// Explains what ended a handshake.
pub fn explain(error: &Error, side: Side) -> Explanation {
    match error {
        Error::InvalidCertificate(error) => certificate(error, side),
        Error::NoCertificatesPresented => explanation(
            "the client showed no certificate",
            "give the client ca.crt, sdk.crt and sdk.key of the node's sdk directory; the channel port requires them",
        ),
        Error::AlertReceived(alert) => alert_received(*alert, side),
        Error::PeerIncompatible(why) => incompatible(why),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => explanation(
            "what the other end sent is not TLS",
            "use the channel port (rpc.channel_listen_port, 20200 by default) with TLS, and the JSON-RPC port for HTTP",
        ),
        other => explanation(other.to_string(), "check that both ends speak TLS 1.2 and that nothing between them changes the traffic"),
    }
}

fn certificate(error: &CertificateError, side: Side) -> Explanation {
    let whose = if side == Side::Node { "the client's" } else { "the node's" };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            explanation(format!("{whose} certificate has ended"), "have the agency issue a new one, and check the clocks of both machines")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            explanation(format!("{whose} certificate is not valid yet"), "check the clocks of both machines")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => explanation(
            format!("{whose} certificate does not come from the authority in this end's ca.crt"),
            "use certificates of the same agency on both ends: the sdk directory that was made together with the node",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => explanation(
            format!("{whose} certificate is meant for another use"),
            "clients use sdk.crt, channel ports use conf/channel_cert/node.crt; neither can stand in for the other, nor for a P2P certificate",
        ),
        CertificateError::ApplicationVerificationFailure => explanation(
            format!("{whose} certificate comes from another agency than the node's"),
            "use a certificate of the node's agency, or set network_security.check_cert_issuer=false",
        ),
        CertificateError::Other(other) if other.to_string().contains("UnsupportedCertVersion") => explanation(
            format!("{whose} certificate is X.509 version 1, as the build_chain.sh of 2.x makes RSA ones"),
            "have it issued again as version 3, with `millrace chain build` or with an extension file for openssl",
        ),
        other => explanation(
            format!("{whose} certificate is refused: {other}"),
            "use certificates that `millrace chain build` made, RSA with 2048 bits or P-256",
        ),
    }
}

fn alert_received(alert: AlertDescription, side: Side) -> Explanation {
    let (other, own) =
        if side == Side::Node { ("the client", "conf/channel_cert/node.crt") } else { ("the node", "the client's certificate") };
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => explanation(
            format!("{other} refuses {own} ({alert:?})"),
            "compare ca.crt of both ends; they must be of the same agency. The node's log names the certificate that it refused",
        ),
        AlertDescription::CertificateExpired => explanation(
            format!("{other} says that {own} is not valid now"),
            "have the agency issue a new one, and check the clocks of both machines",
        ),
        AlertDescription::UnsupportedCertificate => {
            explanation(format!("{other} does not accept the kind of {own}"), "use RSA with 2048 bits or P-256, X.509 version 3")
        }
        AlertDescription::CertificateRequired => {
            explanation(format!("{other} requires a certificate"), "configure sdk.crt and sdk.key; the channel port requires them")
        }
        AlertDescription::AccessDenied => {
            explanation(format!("{other} refuses the certificate's agency"), "use a certificate of the node's agency")
        }
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => explanation(
            format!("{other} finds nothing in common with what this end offers ({alert:?})"),
            "offer TLS 1.2 with an ECDHE-RSA AES-GCM suite and one of secp256k1, X25519, P-256, P-384; Node.js from 17 on needs NODE_OPTIONS=--tls-max-v1.2",
        ),
        other_alert => explanation(format!("{other} ended the handshake: {other_alert:?}"), "look into the log of the other end"),
    }
}

fn incompatible(why: &PeerIncompatible) -> Explanation {
    let text = format!("{why:?}");
    match text.as_str() {
        "NoCipherSuitesInCommon" => explanation(
            "no cipher suite in common",
            "let the client offer ECDHE-RSA with AES-GCM or ChaCha20; plain RSA key exchange and DHE are not served",
        ),
        "NoKxGroupsInCommon" | "NamedGroupExtensionRequired" => {
            explanation("no curve in common for the key exchange", "let the client offer one of secp256k1, X25519, P-256, P-384")
        }
        "Tls12NotOffered" | "Tls12NotOfferedOrEnabled" | "SupportedVersionsExtensionRequired" | "ServerDoesNotSupportTls12Or13" => {
            explanation(
                "the ends have no version of TLS in common; this port serves 1.2",
                "let the client offer TLS 1.2; Node.js from 17 on needs NODE_OPTIONS=--tls-max-v1.2",
            )
        }
        _ => explanation(format!("the ends do not fit together: {text}"), "use an SDK of 2.x, or a client with TLS 1.2 and ECDHE-RSA"),
    }
}
