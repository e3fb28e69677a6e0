//! One connection from its first byte to its last: handshake, frames in, frames out.
//!
//! ```text
//! accepted --handshake in time--> session --client or node ends it--> closed
//!     \--refused, too slow--> closed, the reason in the log
//! ```
//! Invariant: a frame goes out as one TLS write and leaves the process before the next one is encrypted, because clients read one frame
//! at a time (`spec/client-protocol.md` 9, pitfall 1).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Handle, Transport};
use crate::channel::frame::Assembler;
use crate::channel::tls::{self, explain};
use crate::channel::topics::SessionId;
use crate::counts::Place;
use crate::limits::{ASSEMBLY_BUDGET_BYTES, ASSEMBLY_FREE_BYTES, UNSENT_BYTES};

/// Bytes read from the socket at a time: one full TLS record and its frame.
const READ_BYTES: usize = 18 << 10;

/// Serves a connection until it ends.
pub async fn serve(transport: Arc<Transport>, stream: TcpStream, peer: SocketAddr, id: SessionId, mut place: Place) {
    // Each frame is one write; waiting to merge them only adds delay.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    let Ok(tls) = ServerConnection::new(transport.tls()) else { return };
    let mut link = Link { stream, tls, out: Vec::new(), sent: 0, buffer: vec![0; READ_BYTES].into(), plain: Vec::new() };
    match timeout(transport.limits.handshake, link.handshake()).await {
        Ok(Ok(())) => place.settle(),
        Ok(Err(refusal)) => return tracing::warn!(%peer, "channel handshake failed: {refusal}"),
        Err(_) => return tracing::warn!(%peer, limit = ?transport.limits.handshake, "channel handshake took too long"),
    }
    let identity = link.tls.peer_certificates().and_then(|chain| chain.first()).map(tls::identity).unwrap_or_default();
    let handle = Arc::new(Handle::default());
    transport.handles.write().insert(id, Arc::clone(&handle));
    transport.hub().opened(id, peer, identity);
    let mut session = Session { transport: &transport, id, handle: &handle, assembler: Assembler::default(), held: 0 };
    let reason = session.run(&mut link).await;
    transport.assembling.fetch_sub(session.held, Ordering::AcqRel);
    transport.handles.write().remove(&id);
    transport.hub().closed(id, &reason);
    link.tls.send_close_notify();
    link.flush_at_once();
}

/// A socket with TLS on it.
struct Link {
    stream: TcpStream,
    tls: ServerConnection,
    /// Encrypted bytes to write.
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    sent: usize,
    buffer: Box<[u8]>,
    /// Decrypted bytes that no frame was made of: at most what one read brings.
    plain: Vec<u8>,
}

impl Link {
    /// Completes the handshake; the error says why it cannot be.
    async fn handshake(&mut self) -> Result<(), String> {
        while self.tls.is_handshaking() {
            self.encrypt();
            if self.has_output() {
                self.stream.writable().await.map_err(|error| error.to_string())?;
                self.write().map_err(|error| error.to_string())?;
                continue;
            }
            self.stream.readable().await.map_err(|error| error.to_string())?;
            match self.read() {
                Ok(Some(0)) => return Err("the client closed the connection; its own log knows why".into()),
                Ok(_) => {}
                Err(ReadError::Socket(error)) => return Err(error.to_string()),
                Err(ReadError::Tls(error)) => {
                    // The alert tells the client; its log and `millrace doctor tls` explain it there.
                    self.flush_at_once();
                    let explanation = explain::explain(&error, explain::Side::Node);
                    let shown = tls::take_refused().map_or(String::new(), |certificate| format!(" ({certificate})"));
                    return Err(format!("{}{shown}; what to do: {}", explanation.reason, explanation.remedy));
                }
            }
        }
        Ok(())
    }

    fn has_output(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Takes what TLS has to say.
    fn encrypt(&mut self) {
        if !self.has_output() {
            self.out.clear();
            self.sent = 0;
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.out).expect("writing to memory cannot fail");
        }
    }

    /// Writes some of what is encrypted; the number of bytes, zero when the socket takes none now.
    fn write(&mut self) -> io::Result<usize> {
        match self.stream.try_write(&self.out[self.sent..]) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                self.sent += written;
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads and decrypts once; `None` when nothing is there, zero at the end of the stream.
    fn read(&mut self) -> Result<Option<usize>, ReadError> {
        let read = match self.stream.try_read(&mut self.buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(ReadError::Socket(error)),
        };
        let mut bytes = &self.buffer[..read];
        while !bytes.is_empty() {
            // Takes as much as its own buffer has room for, and makes room by processing.
            if self.tls.read_tls(&mut bytes).map_err(ReadError::Socket)? == 0 {
                break;
            }
            self.tls.process_new_packets().map_err(ReadError::Tls)?;
            // The library holds 16 KiB of plain bytes at most and fails with more: a burst of frames has more.
            match self.tls.reader().read_to_end(&mut self.plain) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(ReadError::Socket(error)),
                _ => {}
            }
        }
        Ok(Some(read))
    }

    /// Writes what the socket takes without waiting: the last words of a connection.
    fn flush_at_once(&mut self) {
        self.encrypt();
        while self.has_output() && self.write().is_ok_and(|written| written > 0) {}
    }
}

enum ReadError {
    Socket(io::Error),
    Tls(rustls::Error),
}

struct Session<'a> {
    transport: &'a Transport,
    id: SessionId,
    handle: &'a Handle,
    assembler: Assembler,
    /// Bytes of an incomplete frame, as counted in the transport.
    held: usize,
}

impl Session<'_> {
    /// Reads and writes until the session ends; says why.
    async fn run(&mut self, link: &mut Link) -> String {
        let patience = self.transport.limits.write;
        let mut gives_up = Instant::now() + patience;
        let mut frame_bytes = 0;
        // What came behind the handshake in the same packet.
        if let Err(reason) = self.take_frames(link) {
            return reason;
        }
        loop {
            if self.handle.is_closing.load(Ordering::Acquire) {
                return "ended by the node".into();
            }
            if !link.has_output() {
                self.handle.written(std::mem::take(&mut frame_bytes));
                if let Some(frame) = self.handle.pop() {
                    frame_bytes = frame.len();
                    link.tls.set_buffer_limit(None);
                    link.tls.writer().write_all(&frame).expect("the buffer is unlimited");
                    gives_up = Instant::now() + patience;
                }
                link.encrypt();
            }
            let reads = !self.handle.is_paused.load(Ordering::Acquire);
            tokio::select! {
                ready = link.stream.writable(), if link.has_output() => match ready.and_then(|()| link.write()) {
                    Ok(0) => {}
                    Ok(_) => gives_up = Instant::now() + patience,
                    Err(error) => return error.to_string(),
                },
                ready = link.stream.readable(), if reads => {
                    if let Err(error) = ready {
                        return error.to_string();
                    }
                    match link.read() {
                        Ok(Some(0)) => return "closed by the client".into(),
                        Ok(Some(_)) => if let Err(reason) = self.take_frames(link) {
                            return reason;
                        },
                        Ok(None) => {}
                        Err(ReadError::Socket(error)) => return error.to_string(),
                        Err(ReadError::Tls(error)) => return format!("TLS: {error}"),
                    }
                }
                () = self.handle.changed.notified() => {}
                () = sleep_until(gives_up), if link.has_output() => return "the client does not read what it is sent".into(),
            }
        }
    }

    /// Hands on the frames that are complete.
    fn take_frames(&mut self, link: &mut Link) -> Result<(), String> {
        self.add(&link.plain)?;
        link.plain.clear();
        loop {
            let mut plain = [0; 4 << 10];
            match link.tls.reader().read(&mut plain) {
                Ok(0) => return Err("closed by the client".into()),
                Ok(read) => self.add(&plain[..read])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        self.account()
    }

    fn add(&mut self, plain: &[u8]) -> Result<(), String> {
        self.assembler.add(plain);
        while let Some(frame) = self.assembler.next_frame().map_err(|error| error.to_string())? {
            self.transport.hub().frame(self.id, frame);
        }
        Ok(())
    }

    /// Large incomplete frames of all connections together have a budget; whoever exceeds it has to come back.
    fn account(&mut self) -> Result<(), String> {
        let holds = self.assembler.held();
        let assembling = &self.transport.assembling;
        let before = assembling.fetch_add(holds, Ordering::AcqRel);
        assembling.fetch_sub(self.held, Ordering::AcqRel);
        let total = before + holds - self.held;
        self.held = holds;
        match holds > ASSEMBLY_FREE_BYTES && total > ASSEMBLY_BUDGET_BYTES {
            true => Err("too many large frames are on their way; try again".into()),
            false => Ok(()),
        }
    }
}
