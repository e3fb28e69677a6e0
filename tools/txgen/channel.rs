//! Client of the channel port (`spec/client-protocol.md` 3): TLS 1.2 with the SDK's certificate, transactions as frames of type 0x12,
//! receipts pushed by the node as frames of type 0x1000.
//!
//! One thread writes and waits for replies, a second reads. Invariant: the reader never waits for the writer's socket, so a node that
//! pushes while it is written to cannot bring both to a stop. Protocol version 1: refusals come with the reply, not as receipts.

mod frame;

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_base::fault::{Fault, FaultKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use self::frame::{Assembler, Frame, kind, sequence_of};
use crate::client::{Answer, ClientError, parse_answers};
use crate::follow;
use crate::supply::Prepared;
use crate::tracker::Tracker;

/// Quiet time after which a heartbeat is sent; nodes drop sessions that are quiet for 60 s.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// What the SDK's directory gives: its certificate, its key, and the authority that both sides belong to.
pub fn client_config(directory: &Path) -> Result<Arc<ClientConfig>, Fault> {
    let fault = |name: &str, why: String| {
        let remedy = "give --certificates the sdk directory that `millrace chain build` or `millrace devnet` wrote";
        Fault::new(FaultKind::Config, format!("{}: {why}", directory.join(name).display()), remedy)
    };
    let chain = |name: &str| -> Result<Vec<CertificateDer<'static>>, Fault> {
        let certificates = CertificateDer::pem_file_iter(directory.join(name)).and_then(Iterator::collect);
        certificates.map_err(|error| fault(name, error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in chain("ca.crt")? {
        roots.add(certificate).map_err(|error| fault("ca.crt", error.to_string()))?;
    }
    let credential = chain("sdk.crt")?;
    let key = PrivateKeyDer::from_pem_file(directory.join("sdk.key")).map_err(|error| fault("sdk.key", error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(credential, key))
        .map_err(|error| fault("sdk.crt", error.to_string()))?;
    Ok(Arc::new(config))
}

/// A session. Ends when it is dropped.
pub struct Session {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    patience: Duration,
}

struct Shared {
    socket: TcpStream,
    tls: Mutex<ClientConnection>,
    /// Held while the socket is written, so that records leave in the order in which they were made.
    writing: Mutex<()>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    is_ending: AtomicBool,
    tracker: Arc<Tracker>,
}

#[derive(Default)]
struct Inbox {
    /// Ids of requests without reply.
    waiting: HashSet<u64>,
    answers: Vec<Answer>,
    /// Why the session cannot go on.
    lost: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Connects to `host:port` and shakes hands. Receipts that the node pushes go to `tracker`.
    pub fn connect(address: &str, config: Arc<ClientConfig>, tracker: Arc<Tracker>, patience: Duration) -> Result<Self, ClientError> {
        let unreachable = |error: &dyn std::fmt::Display| ClientError::Unreachable(format!("channel {address}: {error}"));
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host.trim_matches(['[', ']']));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(&error))?;
        let place = address.to_socket_addrs().map_err(|error| unreachable(&error))?.next().ok_or_else(|| unreachable(&"no address"))?;
        let mut socket = TcpStream::connect_timeout(&place, patience).map_err(|error| unreachable(&error))?;
        let mut tls = ClientConnection::new(config, name).map_err(|error| unreachable(&error))?;
        tls.set_buffer_limit(None);
        let ready = |socket: &mut TcpStream, tls: &mut ClientConnection| -> io::Result<()> {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(patience))?;
            socket.set_write_timeout(Some(patience))?;
            while tls.is_handshaking() || tls.wants_write() {
                tls.complete_io(socket)?;
            }
            socket.set_read_timeout(Some(HEARTBEAT))
        };
        ready(&mut socket, &mut tls).map_err(|error| unreachable(&error))?;
        let shared = Arc::new(Shared {
            socket,
            tls: Mutex::new(tls),
            writing: Mutex::new(()),
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            is_ending: AtomicBool::new(false),
            tracker,
        });
        let its = Arc::clone(&shared);
        let reader = std::thread::spawn(move || its.read());
        Ok(Self { shared, reader: Some(reader), patience })
    }

    /// Whether the connection broke.
    pub fn is_lost(&self) -> bool {
        lock(&self.shared.inbox).lost.is_some()
    }

    /// Sends each transaction as a frame of its own and waits for their replies. Fewer replies than transactions mean that the session broke
    /// meanwhile.
    pub fn submit(&self, batch: &[Prepared]) -> Result<Vec<Answer>, ClientError> {
        {
            let mut inbox = lock(&self.shared.inbox);
            inbox.waiting = batch.iter().map(|item| item.id).collect();
            inbox.answers = Vec::with_capacity(batch.len());
        }
        let frames: Vec<Frame> = batch.iter().map(|item| Frame::new(kind::RPC, sequence_of(item.id), item.request.as_bytes())).collect();
        self.shared.write(&frames).map_err(|error| self.shared.lose(&error.to_string()))?;
        let is_waiting = |inbox: &mut Inbox| !inbox.waiting.is_empty() && inbox.lost.is_none();
        let inbox = lock(&self.shared.inbox);
        let waited = self.shared.arrived.wait_timeout_while(inbox, self.patience, is_waiting);
        let (mut inbox, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        let answers = std::mem::take(&mut inbox.answers);
        let lost = inbox.lost.clone();
        drop(inbox);
        match lost {
            Some(why) if answers.is_empty() => Err(ClientError::Transport(why)),
            None if waited.timed_out() => {
                let error = self.shared.lose(&format!("no reply within {} s", self.patience.as_secs()));
                if answers.is_empty() { Err(error) } else { Ok(answers) }
            }
            _ => Ok(answers),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Release);
        // It may be closed already.
        let _ = self.shared.socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn write(&self, frames: &[Frame]) -> io::Result<()> {
        let _writing = lock(&self.writing);
        let mut records = Vec::new();
        {
            let mut tls = lock(&self.tls);
            for frame in frames {
                tls.writer().write_all(&frame.encode())?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
        }
        (&self.socket).write_all(&records)
    }

    /// Nothing more comes: receipts of what is under way must be read from blocks.
    fn lose(&self, why: &str) -> ClientError {
        let mut inbox = lock(&self.inbox);
        if !self.is_ending.load(Ordering::Acquire) {
            self.tracker.miss_pushes();
        }
        let why = inbox.lost.get_or_insert_with(|| why.to_owned()).clone();
        drop(inbox);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.arrived.notify_all();
        ClientError::Transport(why)
    }

    fn read(&self) {
        let error = self.read_until_error().err().map_or("the node closed the session".to_owned(), |error| error.to_string());
        self.lose(&error);
    }

    /// Takes frames until the end of the stream.
    fn read_until_error(&self) -> io::Result<()> {
        let (mut buffer, mut frames) = (vec![0; READ_BYTES], Assembler::default());
        loop {
            let read = match (&self.socket).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.write(&[Frame::new(kind::HEARTBEAT, sequence_of(u64::MAX), b"0")])?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.decrypt(&buffer[..read], &mut frames)?;
            self.deliver(&mut frames)?;
        }
    }

    fn decrypt(&self, mut bytes: &[u8], frames: &mut Assembler) -> io::Result<()> {
        let mut tls = lock(&self.tls);
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            match tls.reader().read_to_end(&mut plain) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        drop(tls);
        frames.add(&plain);
        Ok(())
    }

    fn deliver(&self, frames: &mut Assembler) -> io::Result<()> {
        let (now, mut receipts, mut has_replies) = (Instant::now(), Vec::new(), false);
        while let Some(frame) = frames.next_frame()? {
            match frame.kind {
                kind::RPC => {
                    self.reply(&frame);
                    has_replies = true;
                }
                kind::RECEIPT => match follow::read_receipt(&frame.body) {
                    Ok(receipt) => receipts.push(receipt),
                    Err(error) => self.tracker.problem(format!("a pushed receipt: {error}")),
                },
                _ => {}
            }
        }
        if !receipts.is_empty() {
            self.tracker.saw_pushes(&receipts, now);
        }
        if has_replies {
            self.arrived.notify_all();
        }
        Ok(())
    }

    /// The sequence tells whose reply it is: some refusals carry no id.
    fn reply(&self, frame: &Frame) {
        let id = frame.number();
        let answer = parse_answers(&frame.body).ok().and_then(|mut answers| answers.pop());
        let mut inbox = lock(&self.inbox);
        let is_asked = id.is_some_and(|id| inbox.waiting.remove(&id));
        if let Some(answer) = answer.filter(|_| is_asked) {
            inbox.answers.push(Answer { id, ..answer });
        }
    }
}
