//! A socket with TLS on it, driven by readiness: never waits, copies once, and makes few system calls.
//!
//! Invariant: at most one batch of encrypted bytes waits here, so that what is urgent overtakes what is still in the queue.

use std::io::{self, BufRead, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;
use rustls::Connection as Tls;
use socket2::SockRef;

use crate::counters::Counters;
use crate::hello::EXPORTER_LABEL;
use crate::limits::{READ_BYTES, UNSENT_BYTES};

/// Buffers of a loop that all its connections use in turn.
pub(crate) struct Scratch {
    /// As read from the socket.
    pub socket: Box<[u8]>,
    /// Decrypted, or about to be encrypted.
    pub plain: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { socket: vec![0; READ_BYTES].into(), plain: Vec::with_capacity(2 * READ_BYTES) }
    }
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadState {
    /// There may be more.
    More(usize),
    /// All there was.
    Drained,
    /// The end of the stream.
    Closed,
}

/// Why a link is of no use any more.
#[derive(Debug)]
pub(crate) enum LinkError {
    Socket(io::Error),
    Tls(rustls::Error),
}

/// See the module.
pub(crate) struct Link {
    pub stream: TcpStream,
    tls: Tls,
    /// The socket may have something to read, or room to write: readiness is reported once, when it begins.
    pub readable: bool,
    pub writable: bool,
    /// The end of the stream is near: read until it comes.
    pub is_ending: bool,
    /// Since when encrypted bytes wait without any being taken by the socket.
    pub blocked_since: Option<Instant>,
}

impl Link {
    pub fn new(stream: TcpStream, tls: Tls) -> Self {
        let mut tls = tls;
        tls.set_buffer_limit(None);
        Self { stream, tls, readable: false, writable: false, is_ending: false, blocked_since: None }
    }

    /// Sets the options of a connected socket. Failures cost speed only.
    pub fn tune(&self) {
        let _ = self.stream.set_nodelay(true);
        let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    pub fn leaf(&self) -> Option<&rustls::pki_types::CertificateDer<'static>> {
        self.tls.peer_certificates().and_then(<[_]>::first)
    }

    /// A value that only the two ends of this session know.
    pub fn exported(&self) -> Result<[u8; 32], rustls::Error> {
        self.tls.export_keying_material([0; 32], EXPORTER_LABEL, None)
    }

    /// Reads once and decrypts to `scratch.plain`, which is emptied first.
    pub fn read(&mut self, scratch: &mut Scratch, counters: &Counters) -> Result<ReadState, LinkError> {
        scratch.plain.clear();
        let read = match self.stream.read(&mut scratch.socket) {
            Ok(0) => return Ok(ReadState::Closed),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(ReadState::Drained);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(ReadState::More(0)),
            Err(error) => return Err(LinkError::Socket(error)),
        };
        counters.read(read);
        self.decrypt(&scratch.socket[..read], &mut scratch.plain)?;
        // Less than was asked for: the kernel has no more, and will say when it has.
        if read < scratch.socket.len() && !self.is_ending {
            self.readable = false;
            return Ok(ReadState::Drained);
        }
        Ok(ReadState::More(read))
    }

    fn decrypt(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            // Takes as much as its own buffer has room for, and makes room by processing.
            if self.tls.read_tls(&mut bytes).map_err(LinkError::Socket)? == 0 {
                break;
            }
            let processed = self.tls.process_new_packets();
            let mut reader = self.tls.reader();
            while let Ok(chunk) = reader.fill_buf() {
                let length = chunk.len();
                if length == 0 {
                    break;
                }
                plain.extend_from_slice(chunk);
                reader.consume(length);
            }
            processed.map_err(LinkError::Tls)?;
        }
        Ok(())
    }

    /// Reads and forgets, for the last second of a connection.
    pub fn discard(&mut self, scratch: &mut Scratch) -> ReadState {
        match self.stream.read(&mut scratch.socket) {
            Ok(0) => ReadState::Closed,
            Ok(read) => ReadState::More(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                ReadState::Drained
            }
            Err(_) => ReadState::Closed,
        }
    }

    /// Encrypts; nothing may be waiting that this could pile upon without bound.
    pub fn encrypt(&mut self, plain: &[u8]) {
        self.tls.writer().write_all(plain).expect("the buffer has no limit of its own");
    }

    /// Whether encrypted bytes wait.
    pub fn has_output(&self) -> bool {
        self.tls.wants_write()
    }

    /// Writes once what is encrypted; the bytes that the socket took.
    pub fn write(&mut self, counters: &Counters, now: Instant) -> Result<usize, LinkError> {
        match self.tls.write_tls(&mut self.stream) {
            Ok(0) => Err(LinkError::Socket(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                counters.written(written);
                self.blocked_since = None;
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                self.blocked_since.get_or_insert(now);
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(LinkError::Socket(error)),
        }
    }

    /// The last words: writes what the socket takes at once, and closes this direction.
    pub fn finish(&mut self, last: Option<&[u8]>, counters: &Counters) {
        if let Some(last) = last.filter(|_| !self.tls.is_handshaking()) {
            self.encrypt(last);
        }
        self.tls.send_close_notify();
        while self.has_output() && self.write(counters, Instant::now()).is_ok_and(|written| written > 0) {}
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}
