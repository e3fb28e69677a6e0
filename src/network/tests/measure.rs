//! Figures, on request: `cargo test --release -p millrace-network -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_base::{Bytes, KeyPair, NodeId};

use super::exchange::noise;
use super::fixture::{Chain, eventually, group};
use crate::{Frame, FrameKind, FrameSink, NetworkConfig, PeerNetwork};

/// Counts what arrives.
#[derive(Default)]
struct Counter {
    frames: AtomicU64,
    votes: AtomicU64,
}

impl FrameSink for Counter {
    fn frame(&self, _: NodeId, frame: Frame) {
        let counter = if frame.kind == FrameKind::Consensus { &self.votes } else { &self.frames };
        counter.fetch_add(1, Ordering::Release);
    }

    fn connected(&self, _: NodeId) {}

    fn disconnected(&self, _: NodeId) {}
}

fn pair() -> [(PeerNetwork, Arc<Counter>); 2] {
    let chain = Chain::new();
    let start = |change: &dyn Fn(&mut NetworkConfig)| {
        let mut config = chain.config(&KeyPair::generate());
        change(&mut config);
        let counter = Arc::new(Counter::default());
        (PeerNetwork::start(config, Arc::clone(&counter) as _).unwrap(), counter)
    };
    let first = start(&|_| {});
    let address = first.0.local_addr();
    let second = start(&|config| config.peers = vec![address]);
    for (network, _) in [&first, &second] {
        network.set_members(group(1), [first.0.node_id(), second.0.node_id()]);
    }
    eventually("connected", || [&first, &second].iter().all(|(network, _)| !network.connected_members(group(1)).is_empty()));
    [first, second]
}

/// Sends until the time is over, waiting while the queue is full; frames and bytes a second, system calls a frame.
fn flood(size: usize) -> (f64, f64, f64) {
    let [(first, _), (second, counter)] = pair();
    let payload = Bytes::from(noise(size));
    let (begun, mut sent) = (Instant::now(), 0u64);
    while begun.elapsed() < Duration::from_secs(3) {
        if first.send(second.node_id(), Frame::of_group(group(1), FrameKind::Transactions, payload.clone())) {
            sent += 1;
        } else {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    eventually("all arrive", || counter.frames.load(Ordering::Acquire) == sent);
    let seconds = begun.elapsed().as_secs_f64();
    let calls = first.counters().socket_calls as f64 / sent as f64;
    (sent as f64 / seconds, sent as f64 * size as f64 / seconds, calls)
}

/// Times from sending a vote to its arrival at the other sink, sorted.
fn delays(load: usize) -> Vec<Duration> {
    let [(first, _), (second, counter)] = pair();
    let payload = Bytes::from(noise(load.max(1)));
    let mut delays = Vec::new();
    for round in 1..=500 {
        while load > 0 && first.send(second.node_id(), Frame::of_group(group(1), FrameKind::Transactions, payload.clone())) {}
        let begun = Instant::now();
        assert!(first.send(second.node_id(), Frame::of_group(group(1), FrameKind::Consensus, vec![1; 200])));
        while counter.votes.load(Ordering::Acquire) < round {
            std::thread::yield_now();
        }
        delays.push(begun.elapsed());
    }
    delays.sort();
    delays
}

#[test]
#[ignore = "measures for some seconds"]
fn throughput_and_delay() {
    for size in [200, 2_000, 64 << 10, 1 << 20] {
        let (frames, bytes, calls) = flood(size);
        println!("{size:>8} bytes: {frames:>9.0} frames/s, {:>6.0} MB/s, {calls:.3} system calls a frame", bytes / 1e6);
    }
    for load in [0, 1 << 20] {
        let delays = delays(load);
        println!("vote behind frames of {load} bytes: p50 {:?}, p99 {:?}, worst {:?}", delays[250], delays[495], delays[499]);
    }
}
