//! `millrace doctor`: finds out why something does not work, from where it is run, and says what to do.
//!
//! `doctor tls` connects to a channel port the way an SDK does, curve by curve, and explains what it meets in the words of the node's own
//! log ([`millrace_rpc::channel::tls::explain`]). It sends nothing but a heartbeat and changes nothing. `doctor p2p` is in [`p2p`].

mod p2p;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use millrace_base::fault::{Fault, FaultKind};
use millrace_rpc::channel::frame::{Frame, kind};
use millrace_rpc::channel::tls::explain::{self, Side};
use millrace_rpc::channel::tls::{self, SECP256K1};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Time for each step of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be looked into.
#[derive(Subcommand, Debug)]
pub enum DoctorCommand {
    /// Connect to a channel port as an SDK does, and explain what fails.
    Tls(TlsArguments),
    /// Check a node's certificates, keys, P2P port and peers.
    P2p(p2p::P2pArguments),
}

/// Arguments of `doctor tls`.
#[derive(Args, Debug)]
pub struct TlsArguments {
    /// The channel port, as the SDK is configured.
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// The client's certificate: sdk.crt.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// The client's key: sdk.key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The authority that the node's certificate must come from: ca.crt.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
}

/// Runs a command.
pub fn doctor(command: DoctorCommand) -> Result<ExitCode, Fault> {
    let report = match command {
        DoctorCommand::Tls(arguments) => examine(&arguments)?,
        DoctorCommand::P2p(arguments) => p2p::examine(&arguments),
    };
    super::print(&report.text)?;
    Ok(if report.is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was found.
struct Report {
    text: String,
    is_healthy: bool,
}

fn examine(arguments: &TlsArguments) -> Result<Report, Fault> {
    let chain = certificates(&arguments.cert)?;
    let roots = certificates(&arguments.ca)?;
    let mut text = format!("client:    {}\n", explain::describe(&chain[0]));
    for root in &roots {
        let _ = writeln!(text, "authority: {}", explain::describe(root));
    }
    let address = resolve(&arguments.connect)?;
    let curves: [(&str, &'static dyn SupportedKxGroup); 4] = [
        ("secp256k1 (python-sdk, nodejs-sdk)", SECP256K1),
        ("X25519", aws_lc_rs::kx_group::X25519),
        ("P-256", aws_lc_rs::kx_group::SECP256R1),
        ("P-384", aws_lc_rs::kx_group::SECP384R1),
    ];
    let (mut successes, mut shown) = (0, None);
    for (name, curve) in curves {
        let mut provider = tls::provider();
        provider.kx_groups = vec![curve];
        let watcher = Arc::new(Watcher::new(&roots, provider)?);
        let outcome = attempt(address, &watcher, (&chain, &arguments.key))?;
        if shown.is_none()
            && let Some(certificate) = watcher.seen.get()
        {
            let _ = writeln!(text, "node:      {}", explain::describe(certificate));
            shown = Some(());
        }
        match outcome {
            Ok(suite) => {
                successes += 1;
                let _ = writeln!(text, "{name}: connected, {suite}, the node answers");
            }
            Err(explanation) => {
                let _ = writeln!(text, "{name}: {}\n  what to do: {}", explanation.reason, explanation.remedy);
            }
        }
    }
    let is_healthy = successes == curves.len();
    text.push_str(match successes {
        4 => "healthy: every SDK of 2.x can connect with these files\n",
        0 => "unhealthy: no SDK can connect; the reason stands above, and the node's log names this client's address\n",
        _ => "unhealthy: SDKs that offer only the curves that failed cannot connect; a Millrace node serves all four\n",
    });
    Ok(Report { text, is_healthy })
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(path, "it has no certificate in PEM form")),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

fn unusable(path: &std::path::Path, reason: &str) -> Fault {
    let what = format!("{} cannot be used: {reason}", path.display());
    Fault::new(FaultKind::Config, what, "take ca.crt, sdk.crt and sdk.key from the sdk directory that `millrace chain build` wrote")
}

fn resolve(target: &str) -> Result<SocketAddr, Fault> {
    let resolved = target.to_socket_addrs().ok().and_then(|mut found| found.next());
    resolved.ok_or_else(|| {
        let what = format!("{target} names no address");
        Fault::new(
            FaultKind::Network,
            what,
            "write HOST:PORT; the port is rpc.channel_listen_port of the node's config.ini, 20200 by default",
        )
    })
}

/// One connection; the suite that was agreed on, or why there is none.
fn attempt(
    address: SocketAddr,
    watcher: &Arc<Watcher>,
    (chain, key): (&[CertificateDer<'static>], &std::path::Path),
) -> Result<Result<String, explain::Explanation>, Fault> {
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error.to_string()))?;
    let config = ClientConfig::builder_with_provider(Arc::clone(&watcher.provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("the provider has suites and curves for version 1.2")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(watcher) as Arc<dyn ServerCertVerifier>)
        .with_client_auth_cert(chain.to_vec(), key_der)
        .map_err(|error| unusable(key, &format!("{error}; it must be the key of the certificate")))?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| {
        let what = format!("cannot reach {address}: {error}");
        Fault::new(
            FaultKind::Network,
            what,
            "check that the node runs, that rpc.channel_listen_ip is not 127.0.0.1 for clients elsewhere, and firewalls",
        )
    })?;
    let timed = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
    timed.map_err(|error| Fault::new(FaultKind::Operation, error.to_string(), "try again"))?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut tls = ClientConnection::new(Arc::new(config), name).expect("a client of a valid configuration");
    Ok(converse(&mut tls, &mut socket))
}

/// Shakes hands and has one heartbeat answered: a node that refuses the client closes only then.
fn converse(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<String, explain::Explanation> {
    while tls.is_handshaking() || tls.wants_write() {
        step(tls, socket)?;
    }
    let frame = Frame::new(kind::HEARTBEAT, [b'0'; 32], b"0".to_vec()).encode();
    tls.writer().write_all(&frame).expect("a heartbeat fits the buffer");
    let mut reply = Vec::new();
    while reply.len() < frame.len() {
        while tls.wants_write() {
            step(tls, socket)?;
        }
        let mut piece = [0; 256];
        match tls.reader().read(&mut piece) {
            Ok(0) => return Err(closed()),
            Ok(read) => reply.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => step(tls, socket)?,
            Err(_) => return Err(closed()),
        }
    }
    let suite = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    Ok(suite)
}

fn closed() -> explain::Explanation {
    explain::Explanation {
        reason: "the node closed the connection without saying why".into(),
        remedy: "look into the node's log: it names this client's address, its certificate and the reason",
    }
}

/// Moves bytes one way.
fn step(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<(), explain::Explanation> {
    let broken = |error: &io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => explain::Explanation {
            reason: "the other end does not answer".into(),
            remedy: "check that the port is the node's channel port and speaks TLS",
        },
        _ => closed(),
    };
    if tls.wants_write() {
        tls.write_tls(socket).map_err(|error| broken(&error))?;
        return Ok(());
    }
    match tls.read_tls(socket) {
        Ok(0) => return Err(closed()),
        Ok(_) => {}
        Err(error) => return Err(broken(&error)),
    }
    let processed = tls.process_new_packets().map(drop);
    processed.map_err(|error| {
        // Tells the node why, where there is something to tell.
        let _ = tls.write_tls(socket);
        explain::explain(&error, Side::Client)
    })
}

/// Checks the node's certificate as SDKs do, without its host, and remembers it.
#[derive(Debug)]
struct Watcher {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    seen: std::sync::OnceLock<CertificateDer<'static>>,
}

impl Watcher {
    fn new(roots: &[CertificateDer<'static>], provider: CryptoProvider) -> Result<Self, Fault> {
        let fault = |reason: String| {
            let remedy = "take ca.crt from the sdk directory; its certificates must be X.509 version 3";
            Fault::new(FaultKind::Config, format!("the authority cannot be used: {reason}"), remedy)
        };
        let provider = Arc::new(provider);
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).map_err(|error| fault(error.to_string()))?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build();
        Ok(Self { inner: inner.map_err(|error| fault(error.to_string()))?, provider, seen: std::sync::OnceLock::new() })
    }
}

impl ServerCertVerifier for Watcher {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let _ = self.seen.set(certificate.clone().into_owned());
        match self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
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
