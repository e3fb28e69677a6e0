//! AMOP between clients of one node and of several, over sockets; and the recorded sessions of several clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use millrace_base::NodeId;
use serde_json::{Value, json};

use super::super::recordings;
use super::node::{ChainNode, plain};
use super::replay::frame;
use super::sdk::Sdk;
use super::{PATIENCE, Port};
use crate::channel::ChannelServer;
use crate::channel::amop::{AmopPeers, PeerMessage};
use crate::channel::frame::{Frame, kind};

/// Carries AMOP between the servers of one test, each message through its bytes.
#[derive(Default)]
struct Wires(Mutex<BTreeMap<NodeId, Weak<ChannelServer>>>);

struct Wire {
    own: NodeId,
    wires: Arc<Wires>,
}

impl AmopPeers for Wire {
    fn topics_changed(&self, message: &PeerMessage) {
        let peers: Vec<_> = self.wires.0.lock().unwrap().keys().copied().filter(|peer| *peer != self.own).collect();
        peers.into_iter().for_each(|peer| self.send(peer, message));
    }

    fn send(&self, peer: NodeId, message: &PeerMessage) {
        let (own, bytes) = (self.own, message.encode());
        let server = self.wires.0.lock().unwrap().get(&peer).and_then(Weak::upgrade);
        if let Some(server) = server {
            QUEUE.carry(server, own, PeerMessage::decode(&bytes).unwrap());
        }
    }
}

/// Delivers on one thread, so that no server calls another one back inside its own lock.
struct Queue(std::sync::OnceLock<std::sync::mpsc::SyncSender<(Arc<ChannelServer>, NodeId, PeerMessage)>>);

static QUEUE: Queue = Queue(std::sync::OnceLock::new());

impl Queue {
    fn carry(&self, server: Arc<ChannelServer>, from: NodeId, message: PeerMessage) {
        let sender = self.0.get_or_init(|| {
            let (sender, receiver) = std::sync::mpsc::sync_channel::<(Arc<ChannelServer>, NodeId, PeerMessage)>(1_024);
            std::thread::spawn(move || receiver.into_iter().for_each(|(server, from, message)| server.peer_message(from, message)));
            sender
        });
        sender.send((server, from, message)).unwrap();
    }
}

fn nodes(count: u8) -> Vec<Port> {
    let wires = Arc::new(Wires::default());
    let ports: Vec<_> = (1..=count)
        .map(|n| {
            let own = NodeId([n; 64]);
            let wire = Wire { own, wires: Arc::clone(&wires) };
            let port = Port::start_with(ChainNode::with_id(own, 5, Box::new(plain)), Arc::new(wire), |_| {});
            wires.0.lock().unwrap().insert(own, Arc::downgrade(&port.server));
            port
        })
        .collect();
    for port in &ports {
        for peer in 1..=count {
            port.server.peer_connected(NodeId([peer; 64]));
        }
    }
    ports
}

/// Waits until a node's clients would be shown these topics.
fn await_topics(sdk: &mut Sdk, topics: &[&str]) {
    let end = Instant::now() + PATIENCE;
    while sdk.call("getNodeInfo", json!([]))["result"]["Topic"] != json!(topics) {
        assert!(Instant::now() < end);
    }
}

/// Sends until the topic is known: topics spread in their own time.
fn send_until_known(sdk: &mut Sdk, frame: &Frame) {
    let end = Instant::now() + PATIENCE;
    loop {
        sdk.send(frame);
        match sdk.receive_within(Duration::from_millis(100)) {
            Some(refused) if refused.result == 100 => assert!(Instant::now() < end),
            other => return assert_eq!(other, None),
        }
    }
}

#[test]
fn recorded_amop_between_four_nodes_is_played_with_subscribers_of_the_senders_node_served_too() {
    let Some(recording) = recordings::load("channel.json") else { return };
    let part = &recording["parts"][2];
    let recorded = |session: &str, note: &str| -> Frame {
        let session = part["sessions"].as_array().unwrap().iter().find(|found| found["name"] == session).unwrap();
        let found = session["frames"].as_array().unwrap().iter().find(|frame| frame["note"] == note).unwrap();
        frame(found).unwrap()
    };
    let answer = |session: &str, sequence: u8, kind: &str| -> Frame {
        let session = part["sessions"].as_array().unwrap().iter().find(|found| found["name"] == session).unwrap();
        let fits = |frame: &&Value| {
            frame["dir"] == "<" && frame["type"] == kind && frame["seq"].as_str().is_some_and(|seq| seq.ends_with(&format!("{sequence:x}")))
        };
        frame(session["frames"].as_array().unwrap().iter().find(fits).unwrap()).unwrap()
    };
    let ports = nodes(4);
    let (mut a, mut b, mut c, mut l) = (ports[0].sdk(), ports[1].sdk(), ports[2].sdk(), ports[0].sdk());
    b.send(&recorded("B on node1", "B subscribes t1 tb"));
    c.send(&recorded("C on node2", "C subscribes tb"));
    l.send(&recorded("L on node0", "L subscribes tl tb"));
    await_topics(&mut b, &["t1", "tb"]);
    await_topics(&mut c, &["tb"]);
    await_topics(&mut l, &["tb", "tl"]);

    send_until_known(&mut a, &recorded("A on node0", "unicast t1"));
    assert_eq!(b.receive(), answer("B on node1", 1, "0x30"));
    b.send(&recorded("B on node1", "answer"));
    assert_eq!(a.receive(), answer("A on node0", 1, "0x31"));

    a.send(&recorded("A on node0", "unicast t1, receiver silent"));
    assert_eq!(b.receive(), answer("B on node1", 2, "0x30"));
    assert_eq!(a.receive(), answer("A on node0", 2, "0x31"), "104 after the receiver's time");

    let local = recorded("A on node0", "unicast to a subscriber of the same node");
    a.send(&local);
    assert_eq!(l.receive(), local, "the reference node does not deliver this");
    l.send(&Frame::new(kind::AMOP_ANSWER, local.sequence, b"\x03tlanswer".to_vec()));
    assert_eq!(a.receive().body[..], *b"\x03tlanswer");

    let broadcast = recorded("A on node0", "broadcast tb");
    a.send(&broadcast);
    assert_eq!(a.receive(), answer("A on node0", 4, "0x31"));
    assert_eq!((b.receive(), c.receive()), (answer("B on node1", 4, "0x35"), answer("C on node2", 4, "0x35")));
    assert_eq!(l.receive(), broadcast, "nor this");
    b.send(&recorded("B on node1", "broadcast tb from B"));
    assert_eq!(b.receive(), answer("B on node1", 3, "0x31"));
    assert_eq!((c.receive(), l.receive()), (answer("C on node2", 3, "0x35"), answer("L on node0", 3, "0x35")));

    a.send(&recorded("A on node0", "unknown topic"));
    assert_eq!(a.receive(), answer("A on node0", 5, "0x31"));
}

#[test]
fn recorded_amop_of_one_node_is_played_with_its_subscribers_served() {
    let Some(recording) = recordings::load("channel.json") else { return };
    let port = nodes(1).remove(0);
    let (mut a, mut b) = (port.sdk(), port.sdk());
    let sessions = recording["parts"][1]["sessions"].as_array().unwrap();
    let sent = |session: &str, note: &str| -> Frame {
        let session = sessions.iter().find(|found| found["name"] == session).unwrap();
        frame(session["frames"].as_array().unwrap().iter().find(|frame| frame["note"] == note).unwrap()).unwrap()
    };
    b.send(&sent("amop B", "B subscribes t1"));
    await_topics(&mut b, &["t1"]);
    a.send(&sent("amop A", "unicast t1"));
    assert_eq!(b.receive(), sent("amop A", "unicast t1"));
    b.send(&Frame::new(kind::AMOP_ANSWER, sent("amop A", "unicast t1").sequence, b"\x03t1ok".to_vec()));
    assert_eq!(a.receive().result, 0);
    a.send(&sent("amop A", "unicast unknown topic"));
    assert_eq!(a.receive().result, 100);
    let broadcast = sent("amop A", "broadcast");
    a.send(&broadcast);
    assert_eq!((a.receive().body, b.receive()), (broadcast.body.clone(), broadcast));
    a.send(&sent("amop A", "broadcast unknown"));
    assert_eq!(a.receive().result, 0);
    let silent = sent("amop A", "unicast, receiver silent");
    a.send(&silent);
    assert_eq!(b.receive(), silent);
    let refused = a.receive();
    assert_eq!((refused.kind, refused.result, refused.body), (kind::AMOP_ANSWER, 104, silent.body));
    b.send(&sent("amop B", "replace topics"));
    await_topics(&mut b, &["t2", "t3"]);
    a.send(&sent("amop A", "after replace"));
    assert_eq!(a.receive().result, 100);
    drop(b);
    port.await_sessions(1);
    a.send(&sent("amop A", "after close"));
    assert_eq!(a.receive().result, 100);
}
