//! One client of the channel port: connects, subscribes, reads frames one by one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, StreamOwned};
use serde_json::json;

use crate::tally::{Observer, Tally};

const RPC: u16 = 0x12;
const EVENT_SUBSCRIBE: u16 = 0x15;
const TOPICS: u16 = 0x32;
const BLOCK: u16 = 0x1001;
const EVENTS: u16 = 0x1002;

/// Bytes of a frame before its body.
const HEADER_BYTES: usize = 42;

/// Longest frame that a client takes.
const MAX_FRAME_BYTES: usize = 100 << 20;

/// Time for an answer, and between looks at whether all is over.
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(500);

/// How a connection came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The node closed it.
    ClosedByNode,
    /// It is open.
    Open,
}

/// See the module.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
    topic: String,
}

/// The chain of trust counts, the name of the host does not: certificates of nodes name none.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(leaf, others, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// TLS of a client with the files of a directory.
pub fn tls(directory: &Path) -> Result<Arc<ClientConfig>, String> {
    let unusable = |name: &'static str| move |error: &dyn std::fmt::Display| format!("{}: {error}", directory.join(name).display());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(directory.join("ca.crt")).map_err(|error| unusable("ca.crt")(&error))? {
        roots.add(authority.map_err(|error| unusable("ca.crt")(&error))?).map_err(|error| unusable("ca.crt")(&error))?;
    }
    let chain = CertificateDer::pem_file_iter(directory.join("sdk.crt")).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unusable("sdk.crt")(&error))?;
    let key = PrivateKeyDer::from_pem_file(directory.join("sdk.key")).map_err(|error| unusable("sdk.key")(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyHost(verifier)))
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable("sdk.crt")(&error))?;
    Ok(Arc::new(config))
}

/// How many logs a push has, and the block of the last one. Members are counted, not parsed: a thousand clients share the machine with the
/// node that is measured, and no text in a log can hold a quotation mark.
fn logs_of(push: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(push).ok()?;
    let (_, rest) = text.rsplit_once("\"blockNumber\":\"")?;
    let number = rest.split('"').next()?.parse().ok()?;
    Some((text.matches("\"logIndex\":").count() as u64, number))
}

impl Client {
    /// Connects and subscribes to the notifications and to all event logs of a group.
    pub fn connect(channel: &str, tls: Arc<ClientConfig>, group: u16) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{channel}: {error}");
        let socket = TcpStream::connect(channel).map_err(|error| failed(&error))?;
        socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(PATIENCE))).map_err(|error| failed(&error))?;
        let name = ServerName::try_from("node").expect("the name is a valid one");
        let connection = ClientConnection::new(tls, name).map_err(|error| failed(&error))?;
        let topic = format!("_block_notify_{group}");
        let mut client = Self { stream: StreamOwned::new(connection, socket), buffer: Vec::new(), topic };
        let topics = json!([client.topic]).to_string();
        client.send(TOPICS, topics.as_bytes()).map_err(|error| failed(&error))?;
        let filter = json!({
            "groupID": group.to_string(), "filterID": "listeners", "fromBlock": "latest", "toBlock": "latest", "addresses": [], "topics": [],
        });
        client.send(EVENT_SUBSCRIBE, format!("\u{1}{filter}").as_bytes()).map_err(|error| failed(&error))?;
        client.answer(EVENT_SUBSCRIBE, channel)?;
        // Topics have no answer of their own; the answer to what was sent behind them says that they are known.
        let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "getBlockNumber", "params": [group]});
        client.send(RPC, ask.to_string().as_bytes()).map_err(|error| failed(&error))?;
        client.answer(RPC, channel)?;
        Ok(client)
    }

    fn answer(&mut self, kind: u16, channel: &str) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.next_frame() {
                Ok(Some((found, _))) if found == kind => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(format!("{channel}: {error}")),
            }
        }
        Err(format!("{channel}: no answer in time"))
    }

    fn send(&mut self, kind: u16, body: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("requests are short");
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(format!("{kind:032x}").as_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(body);
        self.stream.write_all(&frame)?;
        self.stream.flush()
    }

    /// The next frame's type and body; `None` when none came within the socket's time.
    fn next_frame(&mut self) -> Result<Option<(u16, Vec<u8>)>, String> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<6>() {
                let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
                if !(HEADER_BYTES..=MAX_FRAME_BYTES).contains(&length) {
                    return Err(format!("a frame of {length} bytes"));
                }
                if self.buffer.len() >= length {
                    let kind = u16::from_be_bytes([header[4], header[5]]);
                    let body = self.buffer[HEADER_BYTES..length].to_vec();
                    self.buffer.drain(..length);
                    return Ok(Some((kind, body)));
                }
            }
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err("closed by the node".into()),
                Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Reads until all is over, or the node closes, which is a fault.
    pub fn listen(&mut self, observer: &Observer, tally: &mut Tally) {
        if let Err(error) = self.stream.sock.set_read_timeout(Some(TICK)) {
            tally.fault = Some(error.to_string());
        }
        while tally.fault.is_none() && !observer.is_over.load(Ordering::Acquire) {
            match self.next_frame() {
                Ok(Some((kind, body))) => {
                    if let Err(fault) = self.take(kind, &body, observer, tally) {
                        tally.fault = Some(fault);
                    }
                }
                Ok(None) => {}
                Err(error) => tally.fault = Some(error),
            }
        }
    }

    fn take(&self, kind: u16, body: &[u8], observer: &Observer, tally: &mut Tally) -> Result<(), String> {
        match kind {
            BLOCK => {
                let text = String::from_utf8_lossy(body.get(1 + self.topic.len()..).unwrap_or_default());
                let number =
                    text.split_once(',').and_then(|(_, number)| number.parse().ok()).ok_or_else(|| format!("a notice of {text:?}"))?;
                tally.notice(number, observer.see(number));
            }
            EVENTS => {
                let (logs, number) = logs_of(body).ok_or_else(|| format!("a push of {:?}", String::from_utf8_lossy(body)))?;
                tally.push(logs, observer.see(number));
            }
            _ => return Ok(()),
        }
        observer.pushed();
        Ok(())
    }

    /// Reads what was sent to a client that had not read, and says whether the node had ended it.
    pub fn drain(&mut self) -> Ending {
        let end = Instant::now() + PATIENCE;
        if self.stream.sock.set_read_timeout(Some(TICK)).is_err() {
            return Ending::ClosedByNode;
        }
        while Instant::now() < end {
            match self.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => return Ending::Open,
                Err(_) => return Ending::ClosedByNode,
            }
        }
        Ending::Open
    }
}
