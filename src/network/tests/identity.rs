//! Who is let in: certificates and proofs of node ids.

use millrace_base::{KeyPair, wire};

use super::fixture::{Chain, Got, Leaf, PATIENCE, Pretence, RawPeer, eventually};
use crate::frame::{Unit, control};
use crate::hello::Hello;
use crate::{Direction, EndReason, NODE_URI_PREFIX, PeerNetwork};

/// Connects by hand with a certificate that the node must refuse; what the node counts.
fn refused_certificate(chain: &Chain, node_chain: &Chain, leaf: &Leaf, key: &KeyPair) {
    let node = node_chain.start();
    // The server of TLS 1.3 reads the client's certificate last, so connecting may look well.
    let material = chain.issue(leaf);
    let configs = crate::tls::TlsConfigs::new(&chain.material(&key.node_id()), &key.node_id()).unwrap();
    let mut client = (*configs.client).clone();
    let resolver = rustls::client::ResolvesClientCert::has_certs(&*client.client_auth_cert_resolver);
    assert!(resolver);
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&material.key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(material.chain.clone(), signing);
    client.client_auth_cert_resolver = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    client.dangerous().set_certificate_verifier(std::sync::Arc::new(AnyServer));
    let name = rustls::pki_types::ServerName::IpAddress(node.address().ip().into());
    let mut tls = rustls::ClientConnection::new(client.into(), name).unwrap();
    let mut socket = std::net::TcpStream::connect(node.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let alert = loop {
        match tls.complete_io(&mut socket) {
            Ok((0, 0)) | Err(_) => break tls.process_new_packets().err(),
            Ok(_) if !tls.is_handshaking() => {
                let mut plain = [0; 100];
                let _ = std::io::Read::read(&mut rustls::Stream::new(&mut tls, &mut socket), &mut plain);
                break tls.process_new_packets().err();
            }
            Ok(_) => {}
        }
    };
    assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "the client is told by an alert: {alert:?}");
    node.wait_ended(EndReason::Tls, 1);
    assert!(node.network.sessions().is_empty());
}

/// A client that looks at no certificate.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn certificates_of_another_authority_or_ended_or_without_node_id_are_refused() {
    let (chain, other, key) = (Chain::new(), Chain::new(), KeyPair::generate());
    let good = Leaf::of(&key.node_id());
    refused_certificate(&other, &chain, &good, &key);
    refused_certificate(&chain, &chain, &Leaf { is_expired: true, ..good.clone() }, &key);
    for uris in [vec![], vec!["urn:other:thing".into()], vec![format!("{NODE_URI_PREFIX}12")], [&good.uris[..], &good.uris[..]].concat()] {
        refused_certificate(&chain, &chain, &Leaf { uris, ..good.clone() }, &key);
    }
}

#[test]
fn the_node_that_connects_says_what_is_wrong_with_the_other_ones_certificate() {
    let (chain, other) = (Chain::new(), Chain::new());
    let node = chain.start();
    let stranger = other.start_with(&KeyPair::generate(), |config| config.peers = vec![node.address()]);
    stranger.wait_last_error("does not come from the chain's authority");
    assert!(stranger.last_error().contains("issuer \"CN=agency") && stranger.last_error().contains("what to do: compare p2p-ca.crt"));
    let expired_key = KeyPair::generate();
    let expired = chain.start_with(&expired_key, |config| {
        config.identity.tls = chain.issue(&Leaf { is_expired: true, ..Leaf::of(&expired_key.node_id()) });
        config.peers = vec![node.address()];
    });
    expired.wait_last_error("this node's certificate is not valid now");
    let watcher = chain.start_with(&KeyPair::generate(), |config| config.peers = vec![expired.address()]);
    watcher.wait_last_error("the other node's certificate has ended");
    assert!(node.network.sessions().is_empty() && watcher.network.sessions().is_empty());
}

#[test]
fn a_node_does_not_start_with_certificates_that_peers_would_refuse() {
    let (chain, key) = (Chain::new(), KeyPair::generate());
    let start = |leaf: Leaf| {
        let mut config = chain.config(&key);
        config.identity.tls = chain.issue(&leaf);
        PeerNetwork::start(config, std::sync::Arc::new(super::fixture::Recorder::default())).unwrap_err()
    };
    let nameless = start(Leaf { uris: vec![], ..Leaf::of(&key.node_id()) });
    assert!(nameless.what.contains("names no node id") && !nameless.remedy.is_empty(), "{nameless}");
    let other = start(Leaf::of(&KeyPair::generate().node_id()));
    assert!(other.what.contains("certificate of another node"), "{other}");
    let mut config = chain.config(&key);
    config.identity.tls.authorities = Chain::new().material(&key.node_id()).authorities;
    let foreign = PeerNetwork::start(config, std::sync::Arc::new(super::fixture::Recorder::default())).unwrap_err();
    assert!(foreign.what.contains("does not come from the chain's authority"), "{foreign}");
    let node = chain.start();
    let mut config = chain.config(&key);
    config.listen = node.address();
    let taken = PeerNetwork::start(config, std::sync::Arc::new(super::fixture::Recorder::default())).unwrap_err();
    assert_eq!(taken.kind, millrace_base::fault::FaultKind::Network);
}

#[test]
fn a_node_id_without_its_key_or_certificate_is_refused() {
    let chain = Chain::new();
    let node = chain.start();
    let (victim, thief) = (KeyPair::generate(), KeyPair::generate());
    // The victim's certificate, but not its node key.
    let stolen = Pretence { key: thief.clone(), ..Pretence::honest(&chain, &victim, [1; 16]) };
    assert_eq!(RawPeer::introduce(node.address(), &stolen, &[]).goodbye(), Some(EndReason::Unproven));
    // The thief's own certificate and key, but the victim's id.
    let mut forged = Pretence::honest(&chain, &thief, [1; 16]);
    forged.hello.node_id = victim.node_id();
    let mut peer = RawPeer::connect(node.address(), &forged.material, &thief.node_id()).unwrap();
    let signed = forged.hello.sign(&forged.key, &peer.binding(Direction::Outgoing));
    peer.send(&control(Unit::Hello, &signed));
    assert_eq!(peer.goodbye(), Some(EndReason::Unproven));
    let mut foreign = Pretence::honest(&chain, &thief, [1; 16]);
    foreign.hello.chain_id = 2;
    assert_eq!(RawPeer::introduce(node.address(), &foreign, &[]).goodbye(), Some(EndReason::OtherChain));
    assert!(node.network.sessions().is_empty() && node.sink.events().is_empty());
}

#[test]
fn a_hello_is_worth_nothing_in_another_session_or_direction() {
    let chain = Chain::new();
    let node = chain.start();
    let key = KeyPair::generate();
    let honest = Pretence::honest(&chain, &key, [1; 16]);
    let connect = || RawPeer::connect(node.address(), &honest.material, &key.node_id()).unwrap();
    let mut first = connect();
    let recorded = honest.hello.sign(&key, &first.binding(Direction::Outgoing));
    let mut second = connect();
    second.send(&control(Unit::Hello, &recorded));
    assert_eq!(second.goodbye(), Some(EndReason::Unproven));
    // The node's own hello, sent back to it, under a certificate that names the node.
    let mirror = chain.material(&node.id());
    let mut third = RawPeer::connect(node.address(), &mirror, &node.id()).unwrap();
    let Got::Control(Unit::Hello, reflected) = third.next() else { panic!("the node says hello first") };
    assert!(Hello::verify(&reflected, &third.binding(Direction::Incoming), &node.id(), 1).is_ok());
    third.send(&control(Unit::Hello, &reflected));
    assert_eq!(third.goodbye(), Some(EndReason::Unproven));
    assert!(node.sink.events().is_empty());
    first.send(&control(Unit::Hello, &recorded));
    first.send(&control(Unit::Groups, &wire::encode(&Vec::<u16>::new())));
    eventually("in its own session it is accepted", || node.network.is_connected(&key.node_id()));
}

#[test]
fn new_certificates_serve_new_sessions() {
    let chain = Chain::new();
    let [first, second] = chain.pair(|_| {});
    let renewed = Leaf { name: "renewed".into(), ..Leaf::of(&first.id()) };
    first.network.reload_certificates(&chain.issue(&renewed)).unwrap();
    assert!(first.network.reload_certificates(&chain.material(&second.id())).is_err());
    assert_eq!(second.network.sessions()[0].name, "node");
    let third = chain.start_with(&KeyPair::generate(), |config| config.peers = vec![first.address()]);
    eventually("the third connects", || third.network.is_connected(&first.id()));
    assert_eq!(third.network.sessions()[0].name, "renewed");
}
