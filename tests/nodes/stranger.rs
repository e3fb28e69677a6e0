//! A peer that is driven by hand, written from the protocol's description and not with the node's own code: it says what the node never
//! would, and keeps every byte it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_base::{KeyPair, keccak256, wire};
use millrace_network::TlsMaterial;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A ping's eight bytes.
const PING: [u8; 8] = [0x55; 8];

/// Types of messages on a session.
const HELLO: u8 = 1;
const GROUPS: u8 = 2;
const PING_UNIT: u8 = 3;
const PONG_UNIT: u8 = 4;
const DATA: u8 = 6;

/// Kinds of frames.
pub const KINDS: [u8; 5] = [CONTROL, CONSENSUS, SYNC, TRANSACTIONS, AMOP];
pub const CONTROL: u8 = 0;
pub const CONSENSUS: u8 = 1;
pub const SYNC: u8 = 2;
pub const TRANSACTIONS: u8 = 3;
pub const AMOP: u8 = 4;

/// See the module.
pub struct Stranger {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Everything that came out of TLS.
    pub plain: Vec<u8>,
    /// Where the next message begins in it.
    read: usize,
    /// Groups of the frames that came, 0 for none.
    pub frames: Vec<u16>,
    /// Whether one of them was compressed, so that its content does not show in `plain`.
    pub was_compressed: bool,
}

impl Stranger {
    /// Opens a session as the node whose files lie in `directory`; `groups` are those it says the other is a member of.
    pub fn connect(address: SocketAddr, directory: &Path, groups: &[u16]) -> Self {
        let conf = directory.join("conf");
        let material = TlsMaterial::from_files(&conf.join("p2p.crt"), &conf.join("p2p.key"), &conf.join("p2p-ca.crt")).unwrap();
        let key = millrace::keys::read_node_key(&conf.join("node.key"), millrace::keys::Access::OwnerOnly).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(material.chain, material.key)
            .unwrap();
        let tls = ClientConnection::new(Arc::new(config), ServerName::IpAddress(address.ip().into())).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        let mut peer = Self { stream, plain: Vec::new(), read: 0, frames: Vec::new(), was_compressed: false };
        let hello = peer.hello(&key);
        peer.send(HELLO, (0, 0), &hello);
        peer.send(GROUPS, (0, 0), &wire::encode(&groups.to_vec()));
        peer
    }

    /// The certificate that the other end has shown.
    pub fn shown_certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// The proof of the node id: a signature over what only this session derives.
    fn hello(&self, key: &KeyPair) -> Vec<u8> {
        let exported = self.stream.conn.export_keying_material([0u8; 32], b"EXPORTER-millrace-hello", None).unwrap();
        let mut body = 1u32.to_be_bytes().to_vec();
        body.extend(wire::encode(&(1u64, key.node_id(), [9u8; 16])));
        let signature = key.sign(keccak256([b"millrace peer hello".as_slice(), &exported, &[1], &body].concat()));
        wire::encode(&(body, signature))
    }

    fn send(&mut self, unit: u8, (kind, group): (u8, u16), body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let total = if unit == DATA { length } else { [0; 4] };
        let [high, low] = group.to_be_bytes();
        let bytes = [&[unit, kind, high, low][..], &length, &total, &[0; 4], body].concat();
        self.send_raw(&bytes);
    }

    /// Sends a frame of one chunk.
    pub fn send_frame(&mut self, kind: u8, group: u16, payload: &[u8]) {
        self.send(DATA, (kind, group), payload);
    }

    /// Sends bytes as they are. That the node has cut the session shows when reading.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Takes in everything that was sent to it up to now. False when the session has ended.
    pub fn read_all(&mut self) -> bool {
        self.send(PING_UNIT, (0, 0), &PING);
        let mut buffer = vec![0; 64 << 10];
        loop {
            while let Some((unit, body)) = self.next() {
                if unit == PONG_UNIT && body == PING {
                    return true;
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(read) if read > 0 => self.plain.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
    }

    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, rest) = self.plain[self.read..].split_first_chunk::<16>()?;
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let chunk = usize::try_from(number(4)).unwrap();
        let body = rest.get(..chunk)?.to_vec();
        if header[0] == DATA {
            self.frames.push(u16::from_be_bytes([header[2], header[3]]));
            self.was_compressed |= number(12) != 0;
        }
        self.read += 16 + chunk;
        Some((header[0], body))
    }
}

/// Takes any server for the one it meant to reach.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
