//! A raw HTTP client: sends bytes, reads one reply.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[derive(Debug)]
pub struct Reply {
    pub status: String,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let matching = |line: &'_ String| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.headers.iter().find(|line| matching(line)).map(|line| line.split_once(':').unwrap().1.trim())
    }
}

pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Reads one reply; `None` when the server closes instead.
    pub fn receive(&mut self, head_only: bool) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "" if lines.is_empty() => {}
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let status = lines.remove(0);
        let mut reply = Reply { status, headers: lines, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
        if !head_only {
            reply.body.resize(length, 0);
            self.0.read_exact(&mut reply.body).unwrap();
        }
        Some(reply)
    }

    pub fn post(&mut self, body: &[u8]) -> Reply {
        self.send(&request("POST", "/", "", body));
        self.receive(false).unwrap()
    }
}

pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub fn post(address: SocketAddr, body: &[u8]) -> Reply {
    Client::connect(address).post(body)
}
