//! A chain's certificates, nodes that record what they get, and a peer that is driven by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use millrace_base::{GroupId, KeyPair, NodeId, wire};
use parking_lot::{Condvar, Mutex};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as TlsKey, KeyUsagePurpose, SanType,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::frame::assembler::{Assembler, Gate, Received};
use crate::frame::{Unit, control};
use crate::hello::{Binding, EXPORTER_LABEL, Hello, Instance, VERSION};
use crate::tls::TlsConfigs;
use crate::{Direction, EndReason, Frame, FrameKind, FrameSink, NODE_URI_PREFIX, NetworkConfig, NodeIdentity, PeerNetwork, TlsMaterial};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a leaf certificate is made like.
#[derive(Clone)]
pub struct Leaf {
    pub uris: Vec<String>,
    pub name: String,
    pub is_expired: bool,
}

impl Leaf {
    pub fn of(id: &NodeId) -> Self {
        Self { uris: vec![format!("{NODE_URI_PREFIX}{id}")], name: "node".into(), is_expired: false }
    }
}

/// A chain's authority with one agency.
pub struct Chain {
    authority: String,
    agency: Issuer<'static, TlsKey>,
    agency_certificate: String,
}

fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(constraints);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

impl Chain {
    pub fn new() -> Self {
        let root_key = TlsKey::generate().unwrap();
        let root = authority("chain", BasicConstraints::Unconstrained);
        let authority_certificate = root.self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(root, root_key);
        let agency_key = TlsKey::generate().unwrap();
        let agency = authority("agency", BasicConstraints::Constrained(0));
        let agency_certificate = agency.signed_by(&agency_key, &root).unwrap().pem();
        Self { authority: authority_certificate, agency: Issuer::new(agency, agency_key), agency_certificate }
    }

    pub fn issue(&self, leaf: &Leaf) -> TlsMaterial {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, leaf.name.as_str());
        parameters.distinguished_name.push(DnType::OrganizationName, "agency-a");
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.subject_alt_names = leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        let day = Duration::from_secs(86_400);
        parameters.not_before = (SystemTime::now() - 3 * day).into();
        parameters.not_after = if leaf.is_expired { SystemTime::now() - day } else { SystemTime::now() + day }.into();
        let key = TlsKey::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.agency).unwrap().pem() + &self.agency_certificate;
        TlsMaterial::from_pem(&certificate, &key.serialize_pem(), &self.authority).unwrap()
    }

    pub fn material(&self, id: &NodeId) -> TlsMaterial {
        self.issue(&Leaf::of(id))
    }

    pub fn config(&self, key: &KeyPair) -> NetworkConfig {
        let identity = NodeIdentity { key: key.clone(), tls: self.material(&key.node_id()) };
        NetworkConfig::new("127.0.0.1:0".parse().unwrap(), 1, identity)
    }

    pub fn start(&self) -> Node {
        self.start_with(&KeyPair::generate(), |_| {})
    }

    pub fn start_with(&self, key: &KeyPair, change: impl FnOnce(&mut NetworkConfig)) -> Node {
        let mut config = self.config(key);
        change(&mut config);
        Node::start(config)
    }

    /// Two nodes that are members of group 1, the second connected to the first.
    pub fn pair(&self, change: impl Fn(&mut NetworkConfig)) -> [Node; 2] {
        let first = self.start_with(&KeyPair::generate(), &change);
        let second = self.start_with(&KeyPair::generate(), |config| {
            change(config);
            config.peers = vec![first.address()];
        });
        let nodes = [first, second];
        join(&nodes, 1);
        nodes
    }
}

/// Makes nodes the members of a group and waits until all of them can exchange its frames.
pub fn join(nodes: &[Node], id: i64) {
    for node in nodes {
        node.network.set_members(group(id), nodes.iter().map(Node::id));
    }
    eventually("the members are connected", || nodes.iter().all(|node| node.network.connected_members(group(id)).len() == nodes.len() - 1));
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Frame(NodeId, Frame),
    Connected(NodeId),
    Disconnected(NodeId),
    Groups(NodeId, Vec<GroupId>),
}

/// Records what the network says.
#[derive(Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
}

impl Recorder {
    fn add(&self, event: Event) {
        self.events.lock().push(event);
        self.changed.notify_all();
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.events.lock().iter().filter_map(|event| if let Event::Frame(_, frame) = event { Some(frame.clone()) } else { None }).collect()
    }

    pub fn count(&self, wanted: &Event) -> usize {
        self.events.lock().iter().filter(|event| *event == wanted).count()
    }

    /// Waits for as many frames.
    pub fn wait_frames(&self, count: usize) -> Vec<Frame> {
        let give_up = Instant::now() + PATIENCE;
        let mut events = self.events.lock();
        while events.iter().filter(|event| matches!(event, Event::Frame(..))).count() < count {
            let late = self.changed.wait_until(&mut events, give_up).timed_out();
            assert!(!late, "{count} frames did not come");
        }
        drop(events);
        self.frames()
    }
}

impl FrameSink for Recorder {
    fn frame(&self, from: NodeId, frame: Frame) {
        self.add(Event::Frame(from, frame));
    }

    fn connected(&self, peer: NodeId) {
        self.add(Event::Connected(peer));
    }

    fn disconnected(&self, peer: NodeId) {
        self.add(Event::Disconnected(peer));
    }

    fn groups_changed(&self, peer: NodeId, groups: &[GroupId]) {
        self.add(Event::Groups(peer, groups.to_vec()));
    }
}

pub struct Node {
    pub network: PeerNetwork,
    pub sink: Arc<Recorder>,
}

impl Node {
    pub fn start(config: NetworkConfig) -> Self {
        let sink = Arc::new(Recorder::default());
        let network = PeerNetwork::start(config, Arc::clone(&sink) as _).unwrap();
        Self { network, sink }
    }

    pub fn id(&self) -> NodeId {
        self.network.node_id()
    }

    pub fn address(&self) -> SocketAddr {
        self.network.local_addr()
    }

    pub fn wait_ended(&self, reason: EndReason, count: u64) {
        eventually(&format!("{count} connections end: {}", reason.name()), || self.network.counters().ended(reason) >= count);
    }

    pub fn last_error(&self) -> String {
        self.network.peers()[0].last_error.clone().unwrap_or_default()
    }

    pub fn wait_last_error(&self, part: &str) {
        eventually(&format!("the error says {part}"), || self.last_error().contains(part));
    }
}

/// What a peer that is driven by hand pretends to be.
pub struct Pretence {
    /// Whose certificate it shows.
    pub material: TlsMaterial,
    pub key: KeyPair,
    pub hello: Hello,
}

impl Pretence {
    /// An honest node.
    pub fn honest(chain: &Chain, key: &KeyPair, instance: Instance) -> Self {
        let hello = Hello { version: VERSION, chain_id: 1, node_id: key.node_id(), instance };
        Self { material: chain.material(&key.node_id()), key: key.clone(), hello }
    }
}

/// A message as the peer that is driven by hand gets it.
#[derive(Debug)]
pub enum Got {
    Control(Unit, Vec<u8>),
    Frame(Frame),
    End,
}

/// A peer that is driven by hand.
pub struct RawPeer {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    assembler: Assembler,
    pending: Vec<u8>,
    /// Everything that came out of TLS.
    pub plain: Vec<u8>,
}

impl RawPeer {
    /// Connects with TLS. Where the node refuses the certificate, reading says so.
    pub fn connect(address: SocketAddr, material: &TlsMaterial, own: &NodeId) -> std::io::Result<Self> {
        let configs = TlsConfigs::new(material, own).map_err(|fault| std::io::Error::other(fault.what))?;
        let tls = ClientConnection::new(configs.client, ServerName::IpAddress(address.ip().into())).unwrap();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, assembler: Assembler::default(), pending: Vec::new(), plain: Vec::new() })
    }

    pub fn binding(&self, side: Direction) -> Binding {
        let exported = self.stream.conn.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        Binding { exported, side }
    }

    /// Connects, says hello and names groups; the node's answer is not awaited.
    pub fn introduce(address: SocketAddr, pretence: &Pretence, groups: &[u16]) -> Self {
        let mut peer = Self::connect(address, &pretence.material, &pretence.hello.node_id).unwrap();
        let signed = pretence.hello.sign(&pretence.key, &peer.binding(Direction::Outgoing));
        peer.send(&control(Unit::Hello, &signed));
        peer.send(&control(Unit::Groups, &wire::encode(&groups.to_vec())));
        peer
    }

    /// An honest node's open session.
    pub fn open(chain: &Chain, node: &Node, key: &KeyPair, groups: &[u16]) -> Self {
        let peer = Self::introduce(node.address(), &Pretence::honest(chain, key, [1; 16]), groups);
        eventually("the session opens", || node.network.is_connected(&key.node_id()));
        peer
    }

    /// Writes; failures show when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    pub fn send_frame(&mut self, group: Option<u16>, kind: FrameKind, payload: &[u8]) {
        let group = group.map(|id| GroupId::new(i64::from(id)).unwrap());
        let frame = crate::frame::WireFrame::new(Frame { group, kind, payload: payload.to_vec().into() }, usize::MAX);
        let mut bytes = frame.header(payload.len()).encode().to_vec();
        bytes.extend_from_slice(payload);
        self.send(&bytes);
    }

    /// The next message, or the end of the connection.
    pub fn next(&mut self) -> Got {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let mut input = &self.pending[..];
            let received = self.assembler.next(&mut input, &|_| Gate::Keep).expect("nodes speak the protocol");
            self.pending = input.to_vec();
            match received {
                Some(Received::Control(unit, body)) => return Got::Control(unit, body),
                Some(Received::Frame(frame)) => return Got::Frame(frame.open().unwrap()),
                None => {}
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Got::End,
                Ok(read) => {
                    self.pending.extend_from_slice(&buffer[..read]);
                    self.plain.extend_from_slice(&buffer[..read]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Got::End,
            }
        }
    }

    /// Reads until a frame comes.
    pub fn next_frame(&mut self) -> Frame {
        loop {
            match self.next() {
                Got::Frame(frame) => return frame,
                Got::Control(..) => {}
                Got::End => panic!("the connection ended"),
            }
        }
    }

    /// Reads to the end; why the node says it ended the connection.
    pub fn goodbye(&mut self) -> Option<EndReason> {
        let mut reason = None;
        loop {
            match self.next() {
                Got::Control(Unit::Goodbye, body) => reason = EndReason::from_code(body[0]),
                Got::End => return reason,
                _ => {}
            }
        }
    }
}
