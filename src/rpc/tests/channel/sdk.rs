//! A client that looks at the stream record by record: it fails when two frames share a TLS record, as SDKs do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};
use serde_json::Value;

use super::PATIENCE;
use crate::channel::frame::{Assembler, Frame, kind};

pub struct Sdk {
    socket: TcpStream,
    tls: ClientConnection,
    assembler: Assembler,
    /// Bytes of a record that is not complete.
    partial: Vec<u8>,
    sequence: u32,
}

impl Sdk {
    pub fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Self, String> {
        let mut socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = ClientConnection::new(config, "localhost".try_into().unwrap()).map_err(|error| error.to_string())?;
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket).map_err(|error| error.to_string())?;
        }
        let mut sdk = Self { socket, tls, assembler: Assembler::default(), partial: Vec::new(), sequence: 0 };
        // In TLS 1.2 the node's refusal comes before the handshake ends, so nothing can be waiting here but frames.
        sdk.drain_plain()?;
        Ok(sdk)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.set_buffer_limit(None);
        self.tls.writer().write_all(bytes)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    pub fn send(&mut self, frame: &Frame) {
        self.write(&frame.encode());
    }

    /// Sends a frame with the next sequence and returns it.
    pub fn say(&mut self, kind: u16, body: impl AsRef<[u8]>) -> Frame {
        self.sequence += 1;
        let sequence = format!("{:032x}", self.sequence).into_bytes().try_into().unwrap();
        let frame = Frame::new(kind, sequence, body.as_ref().to_vec());
        self.send(&frame);
        frame
    }

    /// The next frame; `None` when the node closes or nothing comes in time.
    pub fn receive_within(&mut self, time: Duration) -> Option<Frame> {
        let end = Instant::now() + time;
        loop {
            if let Some(frame) = self.assembler.next_frame().unwrap() {
                assert_eq!(self.assembler.held(), 0, "a record ends with the frame it completes");
                return Some(frame);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.record() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return None,
                Err(_) => return None,
            }
        }
    }

    pub fn receive(&mut self) -> Frame {
        self.receive_within(PATIENCE).expect("a frame")
    }

    /// The next frame of a type; others are passed over.
    pub fn receive_kind(&mut self, kind: u16) -> Frame {
        loop {
            let frame = self.receive();
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits for the node to close; frames until then are passed over.
    pub fn is_closed(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
            match self.record() {
                Ok(true) => while self.assembler.next_frame().unwrap().is_some() {},
                Ok(false) => return true,
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
        false
    }

    /// Reads one TLS record and decrypts it; false at the end of the stream.
    fn record(&mut self) -> io::Result<bool> {
        loop {
            let wanted = match self.partial.get(3..5) {
                Some(length) => 5 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => 5,
            };
            if self.partial.len() == wanted && wanted > 5 {
                break;
            }
            let mut piece = vec![0; wanted - self.partial.len()];
            let read = self.socket.read(&mut piece)?;
            if read == 0 {
                return Ok(false);
            }
            self.partial.extend_from_slice(&piece[..read]);
        }
        let record = std::mem::take(&mut self.partial);
        let mut bytes = &record[..];
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            self.tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        self.drain_plain().map_err(io::Error::other)
    }

    fn drain_plain(&mut self) -> Result<bool, String> {
        let mut plain = Vec::new();
        match self.tls.reader().read_to_end(&mut plain) {
            Ok(_) => {
                self.assembler.add(&plain);
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.assembler.add(&plain);
                Ok(true)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks by JSON-RPC.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let asked = self.say(kind::RPC, serde_json::json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string());
        loop {
            let reply = self.receive_kind(kind::RPC);
            if reply.sequence == asked.sequence {
                return serde_json::from_slice(&reply.body).unwrap();
            }
        }
    }

    /// Agrees on version 3.
    pub fn shake_hands(&mut self) {
        self.say(kind::HANDSHAKE, r#"{"minimumSupport":1,"maximumSupport":3,"clientType":"test"}"#);
        assert_eq!(self.receive().kind, kind::HANDSHAKE);
    }
}
