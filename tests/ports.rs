//! Ports for the networks of tests: below those that the system gives to outgoing connections, and free when they are asked for.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Distance of channel ports from JSON-RPC ports; operator ports are at 1,000.
pub const CHANNEL: u16 = 2_000;

/// Distance of P2P ports from JSON-RPC ports.
pub const P2P: u16 = 3_000;

/// The first JSON-RPC port.
const FIRST: u16 = 20_000;

/// Nodes a network can have.
const NODES: u16 = 4;

/// Networks that can run at the same time.
const SLOTS: u16 = 250;

/// Counts the networks of this process.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// The JSON-RPC port of a new network's first node; each further node has one more.
pub fn first() -> u16 {
    // Each test is a process of its own under nextest: the process id spreads their ports.
    let own = u16::try_from(std::process::id() % u32::from(SLOTS)).unwrap() + NEXT.fetch_add(1, Ordering::Relaxed) * 13;
    let slots = (0..SLOTS).map(|step| FIRST + (own + step) % SLOTS * NODES);
    let is_free = |first: &u16| {
        let ports = [0, 1_000, CHANNEL, P2P].into_iter().flat_map(|kind| (0..NODES).map(move |node| first + kind + node));
        ports.map(|port| TcpListener::bind(("127.0.0.1", port))).all(|bound| bound.is_ok())
    };
    slots.into_iter().find(is_free).expect("some ports are free")
}
