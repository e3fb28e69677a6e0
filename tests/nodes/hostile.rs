//! Peers and strangers that do harm to real nodes: what they cost is bounded, and the chain goes on (rows R1, R2, R13, R15, R16, R20 and
//! R21 of the reliability specification).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_administration::sync::message::{SyncMessage, VERSION};
use millrace_base::B256;
use serde_json::json;

use crate::nodes::cluster::{Cluster, eventually, set};
use crate::nodes::stranger::{AMOP, CONSENSUS, SYNC, Stranger, TRANSACTIONS};

const ALL: [usize; 4] = [0, 1, 2, 3];

/// What an attack may cost a node, bytes of resident memory.
const MOST_GROWTH: u64 = 64 << 20;

/// R2: the pool's limit is for clients alone. Were it applied to what comes from peers, a transaction could lie where it is never proposed.
#[test]
fn pool_limit_loses_no_transaction_that_one_node_was_given() {
    let cluster = Cluster::start_with(4, &["--groups", "1"], |cluster| {
        for node in &cluster.nodes {
            set(&node.directory.join("conf/group.1.ini"), "limit", "1000");
        }
    });
    let figures = cluster.load_at_most(&[0], &["--count", "8000", "--in-flight", "4000", "--batch", "100", "--accounts", "100"]).join();
    assert_eq!((figures["committed"].as_u64(), &figures["unknown"]), (Some(8_000), &json!(0)));
    println!("8000 committed through a pool of 1000; on the way: {}", figures["errors"]);
    cluster.wait_agreement(&ALL, 1);
    eventually("pools are empty", || ALL.iter().all(|node| cluster.ask(*node, "getPendingTxSize", json!([1])) == Some(json!("0x0"))));
}

/// R1: a header that names four gigabytes costs nothing, whether it comes before or inside a session.
#[test]
fn huge_lengths_end_connections_at_once_and_cost_no_memory() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let outsider = cluster.add_node("1");
    let directory = cluster.nodes[outsider].directory.clone();
    let (address, before) = (cluster.nodes[0].p2p, cluster.memory(0));
    let mut header = [0xff; 16];
    header[0] = 6;
    let start = Instant::now();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let _ = stream.write_all(&header);
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "it is cut within a second");
    }
    for _ in 0..20 {
        let mut session = Stranger::connect(address, &directory, &[1]);
        session.send_raw(&header);
        assert!(!session.read_all(), "the session is cut");
    }
    let growth = cluster.memory(0).saturating_sub(before);
    println!("120 connections cut in {} ms; memory grew by {} KiB", start.elapsed().as_millis(), growth >> 10);
    assert!(growth < MOST_GROWTH, "{growth} bytes");
    cluster.load(&ALL, &["--count", "200", "--rate", "400"]).join();
}

/// R13, R15, R16, R20: an observer with all rights of a member claims, asks for and sends what no honest one would.
#[test]
fn member_that_lies_and_floods_costs_bounded_memory_and_holds_nobody_up() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let liar = cluster.add_node("1");
    cluster.change_role(0, 1, "addObserver", liar);
    let genesis: B256 = cluster.block(0, 1, 0).unwrap().parse().unwrap();
    let directory = cluster.nodes[liar].directory.clone();
    let mut sessions = ALL.map(|node| Stranger::connect(cluster.nodes[node].p2p, &directory, &[1]));
    let (before, views) = (ALL.map(|node| cluster.memory(node)), ALL.map(|node| cluster.view(node, 1)));
    let load = cluster.load(&ALL, &["--count", "1500", "--rate", "250"]);
    load.wait_flowing(&cluster, 0, 1);
    let height = cluster.height(0, 1).unwrap();
    let hash = B256::repeat_byte(0xaa);
    let (mut sent, start) = (0u64, Instant::now());
    for round in 0..50u64 {
        for session in &mut sessions {
            for claim in [height + 10_000, i64::MAX as u64, u64::MAX] {
                session.send_frame(SYNC, 1, &SyncMessage::Status { version: VERSION, genesis, height: claim, hash, kept_from: 1 }.encode());
            }
            for (from, count) in [(0, 0), (0, 1), (1, 1_000), (0, u32::MAX), (u64::MAX, u32::MAX)] {
                session.send_frame(SYNC, 1, &SyncMessage::Request { id: round, from, count, max_bytes: u32::MAX }.encode());
            }
            // A list that claims 2^32 - 1 hashes, hashes that are cut off, and noise of every type.
            for first in 0..8u8 {
                session.send_frame(TRANSACTIONS, 1, &[&[first][..], &[0xff; 8], &[first; 50]].concat());
                session.send_frame(CONSENSUS, 1, &[&[first][..], &rand::random::<[u8; 32]>().repeat(6)].concat());
            }
            sent += 24;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let figures = load.join();
    assert_eq!(figures["committed"], 1_500);
    let growth: Vec<u64> = ALL.iter().map(|node| cluster.memory(*node).saturating_sub(before[*node]) >> 20).collect();
    println!(
        "{sent} frames in {seconds:.1} s; {} tx/s, longest gap {} ms; memory grew by {growth:?} MiB",
        figures["tps"], figures["longest_gap_ms"]
    );
    let alive = sessions.iter_mut().map(Stranger::read_all).filter(|alive| *alive).count();
    println!("{alive} of its four sessions are still open");
    let height = cluster.wait_agreement(&ALL, 1);
    for node in ALL {
        assert_eq!(cluster.view(node, 1), views[node], "no view change");
        let status = cluster.ask(node, "getSyncStatus", json!([1])).unwrap();
        assert_eq!((status["isSyncing"].as_bool(), status["knownHighestNumber"].as_u64()), (Some(false), Some(height)), "{status}");
    }
    assert!(growth.iter().all(|growth| *growth < 2 * (MOST_GROWTH >> 20)), "with the load's own: {growth:?} MiB");
}

fn churn(address: SocketAddr, opened: &AtomicU64) {
    if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]);
        opened.fetch_add(1, Ordering::Relaxed);
    }
}

/// R21: connections that come and go on the P2P port and the channel port take nothing from those who work.
#[test]
fn session_churn_leaves_the_load_its_rate() {
    let cluster = Cluster::start(4, &["--groups", "1"]);
    let (stop, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = cluster.load(&ALL, &["--count", "1600", "--rate", "200"]);
    load.wait_flowing(&cluster, 0, 1);
    let start = Instant::now();
    let figures = std::thread::scope(|scope| {
        for node in &cluster.nodes {
            for address in [node.p2p, node.channel] {
                let (stop, opened) = (&stop, &opened);
                // 63 a second on each of eight ports.
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        churn(address, opened);
                        std::thread::sleep(Duration::from_millis(15));
                    }
                });
            }
        }
        let figures = load.join();
        stop.store(true, Ordering::Relaxed);
        figures
    });
    let rate = opened.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} connections a second beside {} tx/s, longest gap {} ms", figures["tps"], figures["longest_gap_ms"]);
    assert_eq!(figures["committed"], 1_600);
    assert!(figures["tps"].as_f64().unwrap() >= 160.0, "80 % of the 200 that were offered: {}", figures["tps"]);
    cluster.wait_agreement(&ALL, 1);
}

/// Messages for clients go past every queue; a peer that floods with them is cut to its rate and named.
#[test]
fn member_that_floods_with_messages_for_clients_is_cut_to_its_rate_and_shown() {
    let mut cluster = Cluster::start(4, &["--groups", "1"]);
    let loud = cluster.add_node("1");
    cluster.change_role(0, 1, "addObserver", loud);
    let directory = cluster.nodes[loud].directory.clone();
    let before = cluster.memory(0);
    let mut session = Stranger::connect(cluster.nodes[0].p2p, &directory, &[1]);
    let load = cluster.load(&ALL, &["--count", "1000", "--rate", "250"]);
    let start = Instant::now();
    for _ in 0..60_000 {
        session.send_frame(AMOP, 0, &[0xff; 40]);
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(load.join()["committed"], 1_000);
    assert!(session.read_all(), "its session stays: others of its messages are good");
    let metrics = cluster.metrics(0);
    let line = metrics.lines().find_map(|line| line.strip_prefix("millrace_inlet_dropped_total{inlet=\"clients\"} "));
    let dropped: u64 = line.unwrap().parse().unwrap();
    let growth = cluster.memory(0).saturating_sub(before);
    println!("60000 messages in {seconds:.1} s, {dropped} dropped; memory grew by {} MiB", growth >> 20);
    assert!(dropped >= 60_000, "what is beyond the rate, and what cannot be read");
    let operator = cluster.status(0);
    let key = format!("amop_of_{}", &cluster.nodes[loud].id[..8]);
    assert!(operator["network"]["dropped"][&key].as_u64() >= Some(60_000), "{}", operator["network"]["dropped"]);
    cluster.wait_agreement(&ALL, 1);
}
