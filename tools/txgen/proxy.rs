//! `delay-proxy`: passes TCP connections on, each byte later by a fixed time. It keeps order and rate; memory is bounded a connection, a
//! sender that is faster than the receiver waits.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use millrace_base::fault::{Fault, FaultKind};

use crate::options::DelayProxyOptions;

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces of a direction under way: with full pieces 64 MiB, over 20 ms more than any link here carries.
const PIECES: usize = 1_024;

/// Bytes and the moment at which they are passed on.
type Piece = (Instant, Vec<u8>);

/// Serves until the process ends.
pub fn run(options: &DelayProxyOptions) -> Result<(), Fault> {
    if options.listen.len() != options.to.len() {
        return Err(Fault::new(FaultKind::Config, "--listen and --to are not equally many", "give one --to for each --listen"));
    }
    let delay = Duration::from_millis(options.delay_ms);
    let mut listeners = Vec::with_capacity(options.listen.len());
    for (&listen, &to) in options.listen.iter().zip(&options.to) {
        let listener = TcpListener::bind(listen)
            .map_err(|error| Fault::new(FaultKind::Network, format!("{listen}: {error}"), "give --listen a free address"))?;
        eprintln!("txgen: {listen} leads to {to}, {} ms each way", options.delay_ms);
        listeners.push((listener, to));
    }
    std::thread::scope(|scope| {
        for (listener, to) in listeners {
            scope.spawn(move || accept(&listener, to, delay));
        }
    });
    Ok(())
}

/// Each connection leads to one of its own; one that cannot be made is closed.
fn accept(listener: &TcpListener, to: SocketAddr, delay: Duration) {
    for near in listener.incoming() {
        let Ok(near) = near else {
            std::thread::sleep(delay);
            continue;
        };
        std::thread::spawn(move || {
            let Ok(far) = TcpStream::connect(to) else { return };
            let is_ready = near.set_nodelay(true).is_ok() && far.set_nodelay(true).is_ok();
            if let (true, Ok(near_end), Ok(far_end)) = (is_ready, near.try_clone(), far.try_clone()) {
                std::thread::spawn(move || pass(far_end, near_end, delay));
                pass(near, far, delay);
            }
        });
    }
}

/// One direction, until either end closes.
fn pass(from: TcpStream, to: TcpStream, delay: Duration) {
    let (pieces, due) = sync_channel(PIECES);
    std::thread::scope(|scope| {
        scope.spawn(|| write(to, due));
        read(&from, pieces, delay);
    });
    // The writer may have ended first: then nothing of this side is wanted any more.
    let _ = from.shutdown(Shutdown::Read);
}

fn read(mut from: &TcpStream, pieces: SyncSender<Piece>, delay: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if pieces.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}

fn write(mut to: TcpStream, due: Receiver<Piece>) {
    for (at, bytes) in due {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_late_and_the_end_is_passed_on() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, at) = (server.local_addr().unwrap(), proxy.local_addr().unwrap());
        std::thread::spawn(move || accept(&proxy, to, Duration::from_millis(30)));
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let mut client = TcpStream::connect(at).unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let start = Instant::now();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert_eq!(back, sent);
        assert!(start.elapsed() >= Duration::from_millis(60));
    }
}
