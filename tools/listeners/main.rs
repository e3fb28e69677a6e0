//! Many clients of the channel port that only listen: block notifications and event subscriptions while something else loads the group.
//!
//! Some of them are deaf: they subscribe and never read. The others note when each block and each event log arrives; at the end everything
//! is compared with the chain as HTTP tells it. Nothing of the node's own code is used, so that the comparison is one of two programs.
//! Used by `perf/listeners.sh`.

mod client;
mod node;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;

use client::{Client, Ending};
use node::Node;
use tally::{Observer, Tally};

/// Stack of a client's thread: TLS and one frame's buffer.
const STACK_BYTES: usize = 512 << 10;

/// Handshakes in progress; the node allows an address 128.
const CONNECTING: usize = 64;

/// Time without a new block after which the load is taken to be over.
const QUIET: Duration = Duration::from_secs(3);

/// Clients of the channel port that listen.
#[derive(Parser, Clone)]
#[command(version)]
pub struct Options {
    /// JSON-RPC of the node, to compare with
    #[arg(long, default_value = "http://127.0.0.1:8545")]
    rpc: String,
    /// Channel port of the node
    #[arg(long, default_value = "127.0.0.1:20200")]
    channel: String,
    /// Directory of ca.crt, sdk.crt, sdk.key
    #[arg(long)]
    certificates: PathBuf,
    /// Group to listen to
    #[arg(long, default_value_t = 1)]
    group: u16,
    /// Clients in all
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// How many of them stop reading
    #[arg(long, default_value_t = 200)]
    deaf: usize,
    /// Process id of the node, to watch its memory
    #[arg(long)]
    process: Option<u32>,
    /// Seconds to wait for the first block of the load
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("listeners: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every client that reads got everything.
fn run(options: &Options) -> Result<bool, String> {
    let node = Arc::new(Node::new(&options.rpc, options.group, options.process));
    let tls = client::tls(&options.certificates)?;
    let before = node.resident_bytes();
    let connected = Instant::now();
    let mut clients = connect(options, &tls)?;
    eprintln!("{} clients are connected after {:.1} s", clients.len(), connected.elapsed().as_secs_f64());
    let idle = node.resident_bytes();
    let start = node.height()?;
    let observer = Arc::new(Observer::new(start));
    let deaf = clients.split_off(options.clients - options.deaf.min(options.clients));
    let threads = clients.into_iter().map(|client| listen(client, &observer)).collect::<Result<Vec<_>, _>>()?;
    println!("ready");
    let (end, peak) = watch(options, &node, &observer)?;
    let tallies: Vec<Tally> =
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a client's thread failed")).collect::<Result<_, _>>()?;
    let expected = node.logs_between(start, end)?;
    let complete = tallies.iter().filter(|tally| tally.is_complete(start, end, expected)).count();
    let cut_off = deaf.into_iter().filter_map(|mut client| (client.drain() == Ending::ClosedByNode).then_some(())).count();
    let [blocks, events] = [Tally::blocks, Tally::events].map(|pick| tally::merge(&tallies, pick));
    let report = json!({
        "clients": options.clients, "deaf": options.deaf, "deaf_cut_off": cut_off,
        "blocks": end - start, "logs": expected, "listening": tallies.len(), "complete": complete,
        "notices": tallies.iter().map(|tally| tally.notices).sum::<u64>(),
        "logs_pushed": tallies.iter().map(|tally| tally.logs).sum::<u64>(),
        "block_notice_ms": tally::figures(&blocks), "event_push_ms": tally::figures(&events),
        "memory_mib": { "before": before >> 20, "connected": idle >> 20, "peak": peak >> 20, "after": node.resident_bytes() >> 20 },
    });
    println!("{report}");
    for tally in tallies.iter().filter(|tally| !tally.is_complete(start, end, expected)).take(5) {
        eprintln!("incomplete: {tally}; blocks {start} to {end} with {expected} logs were expected");
    }
    Ok(complete == tallies.len())
}

/// Connects all clients, some at a time.
fn connect(options: &Options, tls: &Arc<rustls::ClientConfig>) -> Result<Vec<Client>, String> {
    let mut clients = Vec::with_capacity(options.clients);
    while clients.len() < options.clients {
        let count = CONNECTING.min(options.clients - clients.len());
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let (tls, channel, group) = (Arc::clone(tls), options.channel.clone(), options.group);
                thread::spawn(move || Client::connect(&channel, tls, group))
            })
            .collect();
        for thread in threads {
            clients.push(thread.join().map_err(|_| "a client's thread failed".to_owned())??);
        }
    }
    Ok(clients)
}

fn listen(mut client: Client, observer: &Arc<Observer>) -> Result<JoinHandle<Tally>, String> {
    let observer = Arc::clone(observer);
    let listening = Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let mut tally = Tally::default();
        client.listen(&observer, &mut tally);
        tally
    });
    listening.map_err(|error| format!("no thread for a client: {error}"))
}

/// Watches the node until the load is over and pushes have had time to arrive; gives the last height and the most memory seen.
fn watch(options: &Options, node: &Node, observer: &Observer) -> Result<(u64, u64), String> {
    let (mut peak, mut last, mut changed) = (0, node.height()?, Instant::now());
    let start = last;
    loop {
        let height = node.height()?;
        observer.see(height);
        peak = peak.max(node.resident_bytes());
        if height > last {
            (last, changed) = (height, Instant::now());
        }
        let quiet = if last == start { Duration::from_secs(options.patience) } else { QUIET };
        // Clients behind get time to catch up, as long as any of them does.
        if changed.elapsed() > quiet && observer.idle_for() > QUIET {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    observer.is_over.store(true, Ordering::Release);
    Ok((last, peak))
}
