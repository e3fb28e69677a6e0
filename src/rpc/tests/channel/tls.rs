//! Who is let in: the matrix of certificates, versions and curves (`spec/reliability.md` Z1).

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{AlertDescription, CertificateError, Error};
use serde_json::json;

use super::Port;
use super::node::{ChainNode, plain};
use super::pki::{Authority, ClientOptions, Credential, Pki, p256_key};
use super::sdk::Sdk;
use crate::channel::amop::NoPeers;
use crate::channel::tls::explain::{Side, explain};
use crate::channel::tls::{self, IssuerRule};

fn port() -> Port {
    Port::start(ChainNode::new(5, Box::new(plain)))
}

fn connect(port: &Port, options: &ClientOptions) -> Result<Sdk, String> {
    let mut sdk = Sdk::connect(port.server.local_addr(), options.config())?;
    // In some cases the alert arrives behind the client's last word.
    let kind = crate::channel::frame::kind::HEARTBEAT;
    let sent = crate::channel::frame::Frame::new(kind, [b'1'; 32], b"0".to_vec());
    sdk.try_write(&sent.encode()).map_err(|error| error.to_string())?;
    sdk.receive_within(super::PATIENCE).map(|_| sdk).ok_or_else(|| "closed".into())
}

fn with(credential: Option<Credential>) -> ClientOptions {
    ClientOptions { credential, ..Pki::get().options() }
}

#[test]
fn clients_with_any_of_the_curves_are_let_in() {
    let port = port();
    for only_secp256k1 in [true, false] {
        let options = ClientOptions { only_secp256k1, ..port.pki.options() };
        assert_eq!(connect(&port, &options).unwrap().call("getBlockNumber", json!([1]))["result"], "0x5");
    }
    let on_a_curve = port.pki.authority.issue_for("p256", p256_key(), |parameters| {
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    });
    assert!(connect(&port, &with(Some(on_a_curve))).is_ok());
}

#[test]
fn bad_certificates_are_refused_and_good_ones_still_come_in() {
    let port = port();
    let (own, stranger) = (&port.pki.authority, Authority::new("agency"));
    let bad = [
        ("no certificate", None),
        ("another authority of the same name", Some(stranger.issue("sdk", |_| {}))),
        ("ended", Some(own.issue("sdk", |p| p.not_after = date_time_ymd(2021, 1, 1)))),
        ("not valid yet", Some(own.issue("sdk", |p| p.not_before = date_time_ymd(2110, 1, 1)))),
        ("a server's certificate", Some(own.issue("node1", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]))),
        ("signed by itself", Some(self_signed())),
        ("a certificate under another one's key", {
            let other = own.issue("other", |_| {});
            Some(Credential { pem: port.pki.sdk.pem.clone(), key: other.key })
        }),
    ];
    for (name, credential) in bad {
        let refused = std::panic::catch_unwind(|| with(credential).config());
        // The library does not even let a client be made whose key is not its certificate's.
        let Ok(config) = refused else {
            assert_eq!(name, "a certificate under another one's key");
            continue;
        };
        let outcome = Sdk::connect(port.server.local_addr(), config).map(|mut sdk| sdk.is_closed());
        assert!(!matches!(outcome, Ok(false)), "{name} is refused");
    }
    assert!(connect(&port, &port.pki.options()).is_ok());
    port.await_sessions(0);
}

fn self_signed() -> Credential {
    let authority = Authority::new("sdk");
    let credential = authority.issue("sdk", |_| {});
    Credential { pem: credential.pem, key: credential.key }
}

#[test]
fn client_of_another_agency_below_the_same_authority_is_refused_unless_the_rule_is_off() {
    let pki = Pki::get();
    // Two authorities in one ca.crt; the node's own comes first.
    let second = Authority::new("agency B");
    let both = pki.path("both.crt");
    std::fs::write(&both, format!("{}{}", pki.authority.pem, second.pem)).unwrap();
    let files = tls::TlsFiles { authority: both, ..pki.files() };
    let client = with(Some(second.issue("sdk", |_| {})));
    for (rule, is_let_in) in [(IssuerRule::SameIssuer, false), (IssuerRule::AnyIssuer, true)] {
        let config = tls::server_config(&files, rule).unwrap();
        let port = Port::start_with(ChainNode::new(5, Box::new(plain)), std::sync::Arc::new(NoPeers), move |channel| channel.tls = config);
        assert_eq!(connect(&port, &client).is_ok(), is_let_in, "{rule:?}");
        assert!(connect(&port, &pki.options()).is_ok());
    }
}

#[test]
fn client_that_trusts_another_authority_refuses_the_node() {
    let port = port();
    let stranger = Authority::new("stranger");
    let refused = connect(&port, &ClientOptions { authority: stranger.pem, ..port.pki.options() });
    assert!(refused.err().unwrap().contains("certificate"), "the client says what it minds");
}

#[test]
fn every_failure_has_a_reason_and_a_remedy_on_both_sides() {
    let cases = [
        (Error::NoCertificatesPresented, "no certificate"),
        (CertificateError::Expired.into(), "has ended"),
        (CertificateError::NotValidYet.into(), "not valid yet"),
        (CertificateError::UnknownIssuer.into(), "does not come from the authority"),
        (CertificateError::InvalidPurpose.into(), "another use"),
        (CertificateError::ApplicationVerificationFailure.into(), "another agency"),
        (Error::AlertReceived(AlertDescription::UnknownCA), "refuses"),
        (Error::AlertReceived(AlertDescription::HandshakeFailure), "nothing in common"),
        (Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon), "cipher suite"),
        (Error::PeerIncompatible(rustls::PeerIncompatible::NoKxGroupsInCommon), "curve"),
        (Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered), "version of TLS"),
        (Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "not TLS"),
    ];
    for (error, reason) in cases {
        for side in [Side::Node, Side::Client] {
            let explanation = explain(&error, side);
            assert!(explanation.reason.contains(reason), "{error:?}: {explanation}");
            assert!(explanation.remedy.len() > 20);
        }
    }
}

#[test]
fn certificate_is_described_by_subject_issuer_and_time() {
    let pki = Pki::get();
    let chain = tls::certificates(&pki.files().certificate).unwrap();
    let text = tls::explain::describe(&chain[0]);
    assert!(text.contains("subject \"CN=node0\"") && text.contains("issuer \"CN=agency\"") && text.contains("version 3"), "{text}");
}

#[test]
fn unusable_files_are_a_fault_that_names_the_file() {
    let pki = Pki::get();
    let missing = tls::TlsFiles { authority: pki.path("absent.crt"), ..pki.files() };
    let fault = tls::server_config(&missing, IssuerRule::SameIssuer).err().unwrap();
    assert!(fault.what.contains("absent.crt") && fault.remedy.contains("channel_cert"));
    let wrong_key = pki.path("other.key");
    std::fs::write(&wrong_key, &pki.sdk.key).unwrap();
    let fault = tls::server_config(&tls::TlsFiles { key: wrong_key, ..pki.files() }, IssuerRule::SameIssuer).err().unwrap();
    assert!(fault.what.contains("node.crt"), "{fault}");
}

#[test]
fn new_certificates_are_used_by_new_sessions_and_open_ones_go_on() {
    let port = port();
    let mut before = port.sdk();
    let directory = tempfile::tempdir().unwrap();
    let other = Authority::new("other agency");
    let node = other.issue("node0", |parameters| {
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    });
    for (name, content) in [("ca.crt", &other.pem), ("node.crt", &node.pem), ("node.key", &node.key)] {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let files = tls::TlsFiles::in_directory(directory.path());
    port.server.set_tls(tls::server_config(&files, IssuerRule::SameIssuer).unwrap());
    assert!(connect(&port, &port.pki.options()).is_err(), "neither side knows the other's authority any more");
    let options = ClientOptions { authority: other.pem.clone(), credential: Some(other.issue("sdk", |_| {})), only_secp256k1: true };
    assert_eq!(connect(&port, &options).unwrap().call("getBlockNumber", json!([1]))["result"], "0x5");
    assert_eq!(before.call("getBlockNumber", json!([1]))["result"], "0x5");
}
